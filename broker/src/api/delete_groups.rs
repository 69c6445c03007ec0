//! DeleteGroups (key 42; KIP-229).

use std::sync::Arc;

use kafka_protocol::messages::DeleteGroupsRequest;
use kafka_protocol::messages::delete_groups_response::{DeletableGroupResult, DeleteGroupsResponse};
use weir_protocol::group::{GroupError, Reply, Request};

use super::groups::ask;
use super::{Api, errors};

pub(super) async fn handle(api: &Arc<Api>, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let mut results = Vec::with_capacity(request.groups_names.len());
    for group in request.groups_names {
        let outcome = match ask(api, &group, Request::Delete).await {
            Ok(Reply::Delete(outcome)) => outcome,
            Ok(_) => Err(GroupError::CoordinatorNotAvailable),
            Err(error) => Err(error),
        };
        let code = outcome.err().map_or(0, |error| errors::of_group(error).code());
        results.push(DeletableGroupResult::default().with_group_id(group).with_error_code(code));
    }
    DeleteGroupsResponse::default().with_results(results)
}
