//! Heartbeat (key 12).

use std::sync::Arc;

use kafka_protocol::messages::{HeartbeatRequest, HeartbeatResponse};
use weir_protocol::group::{GroupError, Reply, Request};

use super::groups::{ask, member};
use super::{Api, errors};

pub(super) async fn handle(api: &Arc<Api>, request: HeartbeatRequest) -> HeartbeatResponse {
    let member = member(&request.member_id, request.group_instance_id.as_ref(), request.generation_id);
    let outcome = match ask(api, &request.group_id, Request::Heartbeat(member)).await {
        Ok(Reply::Heartbeat(outcome)) => outcome,
        Ok(_) => Err(GroupError::CoordinatorNotAvailable),
        Err(error) => Err(error),
    };
    HeartbeatResponse::default()
        .with_error_code(outcome.err().map_or(0, |error| errors::of_group(error).code()))
}
