//! SyncGroup (key 14; KIP-345, KIP-559).

use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::messages::{SyncGroupRequest, SyncGroupResponse};
use weir_protocol::group::{GroupError, Reply, Request, SyncRequest};

use super::groups::{ask, member, name, optional, text};
use super::{Api, errors};

pub(super) async fn handle(api: &Arc<Api>, request: SyncGroupRequest, version: i16) -> SyncGroupResponse {
    let sync = SyncRequest {
        member: member(&request.member_id, request.group_instance_id.as_ref(), request.generation_id),
        protocol_type: optional(request.protocol_type.as_ref()),
        protocol: optional(request.protocol_name.as_ref()),
        assignments: request
            .assignments
            .iter()
            .map(|part| (name(&part.member_id), Bytes::copy_from_slice(&part.assignment)))
            .collect(),
    };
    let outcome = match ask(api, &request.group_id, Request::Sync(Box::new(sync))).await {
        Ok(Reply::Sync(outcome)) => outcome,
        Ok(_) => Err(GroupError::CoordinatorNotAvailable),
        Err(error) => Err(error),
    };
    match outcome {
        Ok(synced) => {
            let protocol = |name: Option<_>| name.filter(|_| version >= 5).as_deref().map(text);
            SyncGroupResponse::default()
                .with_protocol_type(protocol(synced.protocol_type))
                .with_protocol_name(protocol(synced.protocol))
                .with_assignment(synced.assignment)
        }
        Err(error) => SyncGroupResponse::default()
            .with_error_code(errors::of_group(error).code())
            .with_protocol_type(None)
            .with_protocol_name(None),
    }
}
