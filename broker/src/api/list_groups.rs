//! ListGroups (key 16; KIP-518).

use std::sync::Arc;

use kafka_protocol::messages::list_groups_response::{ListGroupsResponse, ListedGroup};
use kafka_protocol::messages::{GroupId, ListGroupsRequest};
use kafka_protocol::protocol::StrBytes;
use weir_protocol::group::GroupError;

use super::groups::text;
use super::{Api, errors};

pub(super) async fn handle(api: &Arc<Api>, request: ListGroupsRequest, version: i16) -> ListGroupsResponse {
    let listed = match api.groups.list().await {
        Ok(listed) => listed,
        Err(error) => {
            let code = errors::of_group(GroupError::from(error)).code();
            return ListGroupsResponse::default().with_error_code(code);
        }
    };
    let wanted = |state: &str| {
        let states = &request.states_filter;
        states.is_empty() || states.iter().any(|wanted| wanted.eq_ignore_ascii_case(state))
    };
    let groups = listed
        .into_iter()
        .filter(|group| wanted(group.state))
        .map(|group| {
            let shown = ListedGroup::default()
                .with_group_id(GroupId(text(&group.group)))
                .with_protocol_type(text(&group.protocol_type));
            if version >= 4 { shown.with_group_state(StrBytes::from_static_str(group.state)) } else { shown }
        })
        .collect();
    ListGroupsResponse::default().with_groups(groups)
}
