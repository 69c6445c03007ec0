//! FindCoordinator (key 10; KIP-699): which broker coordinates a group. Makes `__consumer_offsets` when it is first needed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::find_coordinator_response::{Coordinator, FindCoordinatorResponse};
use kafka_protocol::messages::{BrokerId, FindCoordinatorRequest};
use kafka_protocol::protocol::StrBytes;
use weir_protocol::metadata::{Rejected, names};
use weir_protocol::types;
use weir_runtime::time;

use super::{Api, Origin, create_topics};
use crate::group::offsets_topic_settings;
use crate::metadata::ProposeError;

const GROUP: i8 = 0;

/// The time for `__consumer_offsets` to be made; the client asks again.
const CREATE_LIMIT: Duration = Duration::from_secs(5);

pub(super) async fn handle(
    api: &Arc<Api>,
    origin: Origin,
    request: FindCoordinatorRequest,
    version: i16,
) -> FindCoordinatorResponse {
    if version < 4 {
        let found = find(api, origin, request.key_type, request.key).await;
        return FindCoordinatorResponse::default()
            .with_error_code(found.error_code)
            .with_error_message(found.error_message)
            .with_node_id(found.node_id)
            .with_host(found.host)
            .with_port(found.port);
    }
    let mut coordinators = Vec::with_capacity(request.coordinator_keys.len());
    for key in request.coordinator_keys {
        coordinators.push(find(api, origin, request.key_type, key).await);
    }
    FindCoordinatorResponse::default().with_coordinators(coordinators)
}

async fn find(api: &Arc<Api>, origin: Origin, key_type: i8, key: StrBytes) -> Coordinator {
    let refused = |error: ResponseError, text: &'static str| {
        Coordinator::default()
            .with_error_code(error.code())
            .with_error_message(Some(StrBytes::from_static_str(text)))
            .with_node_id(BrokerId(-1))
            .with_port(-1)
    };
    let found = match key_type {
        GROUP => coordinator(api, &key).await,
        _ => {
            return refused(ResponseError::InvalidRequest, "Only groups have coordinators here.")
                .with_key(key);
        }
    };
    let view = api.image.current();
    let broker = found.and_then(|id| api.brokers(&view.image, origin).serving(id));
    match broker {
        Some(broker) => Coordinator::default()
            .with_node_id(BrokerId(broker.id))
            .with_host(broker.host)
            .with_port(broker.port)
            .with_error_message(None),
        None => refused(ResponseError::CoordinatorNotAvailable, "The coordinator is not available."),
    }
    .with_key(key)
}

async fn coordinator(api: &Arc<Api>, group: &str) -> Option<types::BrokerId> {
    if api.groups.partition_of(group).is_none() {
        make_offsets_topic(api).await;
    }
    api.groups.coordinator_of(group)
}

async fn make_offsets_topic(api: &Arc<Api>) {
    // Another broker may have made it, and others may have begun to serve.
    api.metadata.catch_up().await;
    if api.image.current().image.topic_named(names::CONSUMER_OFFSETS).is_some() {
        return;
    }
    let configs: BTreeMap<String, String> = offsets_topic_settings()
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let (partitions, factor) = (api.config.offsets_topic_partitions, api.config.offsets_topic_replication);
    let plan = match create_topics::plan_internal(api, names::CONSUMER_OFFSETS, partitions, factor, configs) {
        Ok(plan) => plan,
        Err((error, text)) => {
            tracing::warn!(%error, text, "the groups' topic cannot be made");
            return;
        }
    };
    match time::timeout(CREATE_LIMIT, api.metadata.propose(plan.command)).await {
        // Another request was faster.
        Ok(Ok(_) | Err(ProposeError::Rejected(Rejected::TopicExists(_)))) => {}
        Ok(Err(error)) => tracing::warn!(%error, "the groups' topic cannot be made"),
        Err(_) => tracing::warn!("the groups' topic is not made in time"),
    }
}
