//! LeaveGroup (key 13; KIP-345).

use std::sync::Arc;

use kafka_protocol::messages::leave_group_response::{LeaveGroupResponse, MemberResponse};
use kafka_protocol::messages::{LeaveGroupRequest, leave_group_request::MemberIdentity};
use weir_protocol::group::{GroupError, Reply, Request};

use super::groups::{ask, member};
use super::{Api, errors};

pub(super) async fn handle(api: &Arc<Api>, request: LeaveGroupRequest, version: i16) -> LeaveGroupResponse {
    // One member before version 3, as many as are named from there on.
    let named = if version >= 3 {
        request.members
    } else {
        vec![MemberIdentity::default().with_member_id(request.member_id).with_group_instance_id(None)]
    };
    let members =
        named.iter().map(|named| member(&named.member_id, named.group_instance_id.as_ref(), -1)).collect();
    let outcome = match ask(api, &request.group_id, Request::Leave(members)).await {
        Ok(Reply::Leave(outcome)) => outcome,
        Ok(_) => Err(GroupError::CoordinatorNotAvailable),
        Err(error) => Err(error),
    };
    let outcomes = match outcome {
        Ok(outcomes) => outcomes,
        // There is no such group: each of its members is unknown.
        Err(GroupError::UnknownMemberId) => vec![Err(GroupError::UnknownMemberId); named.len()],
        Err(error) => return LeaveGroupResponse::default().with_error_code(errors::of_group(error).code()),
    };
    let code =
        |outcome: &Result<(), GroupError>| outcome.err().map_or(0, |error| errors::of_group(error).code());
    if version < 3 {
        return LeaveGroupResponse::default().with_error_code(outcomes.first().map_or(0, code));
    }
    let members = named
        .into_iter()
        .zip(&outcomes)
        .map(|(named, outcome)| {
            MemberResponse::default()
                .with_member_id(named.member_id)
                .with_group_instance_id(named.group_instance_id)
                .with_error_code(code(outcome))
        })
        .collect();
    LeaveGroupResponse::default().with_members(members)
}
