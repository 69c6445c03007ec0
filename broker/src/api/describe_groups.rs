//! DescribeGroups (key 15).

use std::sync::Arc;

use kafka_protocol::messages::describe_groups_response::{
    DescribeGroupsResponse, DescribedGroup, DescribedGroupMember,
};
use kafka_protocol::messages::{DescribeGroupsRequest, GroupId};
use kafka_protocol::protocol::StrBytes;
use weir_protocol::group::{Description, GroupError, MemberState};

use super::groups::text;
use super::{Api, errors};

/// Read, delete, describe: without access control everyone may do everything (KIP-430).
const GROUP_OPERATIONS: i32 = 1 << 3 | 1 << 6 | 1 << 8;

pub(super) async fn handle(
    api: &Arc<Api>,
    request: DescribeGroupsRequest,
    version: i16,
) -> DescribeGroupsResponse {
    let mut groups = Vec::with_capacity(request.groups.len());
    for group in request.groups {
        let mut described = describe(api, &group, version).await.with_group_id(group);
        if request.include_authorized_operations && version >= 3 {
            described.authorized_operations = GROUP_OPERATIONS;
        }
        groups.push(described);
    }
    DescribeGroupsResponse::default().with_groups(groups)
}

async fn describe(api: &Arc<Api>, group: &GroupId, version: i16) -> DescribedGroup {
    let id = group.to_string();
    match api.groups.look(group, move |coordinator| coordinator.describe(&id)).await {
        Ok(Some(description)) => shown(description, version),
        Ok(None) => {
            let dead = DescribedGroup::default().with_group_state(StrBytes::from_static_str("Dead"));
            if version < 6 {
                return dead;
            }
            let error = GroupError::GroupIdNotFound;
            dead.with_error_code(errors::of_group(error).code())
                .with_error_message(Some(text(&format!("Group {} not found.", group.as_str()))))
        }
        Err(error) => {
            DescribedGroup::default().with_error_code(errors::of_group(GroupError::from(error)).code())
        }
    }
}

fn shown(description: Description, version: i16) -> DescribedGroup {
    let members = description.members.into_iter().map(|member| shown_member(member, version)).collect();
    DescribedGroup::default()
        .with_group_state(StrBytes::from_static_str(description.state))
        .with_protocol_type(text(&description.protocol_type))
        .with_protocol_data(text(&description.protocol))
        .with_members(members)
}

fn shown_member(member: MemberState, version: i16) -> DescribedGroupMember {
    let instance = member.instance_id.filter(|_| version >= 4);
    DescribedGroupMember::default()
        .with_member_id(text(&member.member_id))
        .with_group_instance_id(instance.as_deref().map(text))
        .with_client_id(text(&member.client_id))
        .with_client_host(text(&member.client_host))
        .with_member_metadata(member.subscription)
        .with_member_assignment(member.assignment)
}
