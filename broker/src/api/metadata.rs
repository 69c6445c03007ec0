//! Metadata (key 3): who is there, and who leads what. May create topics (K21).

use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::metadata_request::{MetadataRequest, MetadataRequestTopic};
use kafka_protocol::messages::metadata_response::{
    MetadataResponse, MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{BrokerId, TopicName};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;
use weir_protocol::metadata::{Image, PartitionState, Topic, names};
use weir_protocol::types::TopicId;
use weir_runtime::time;

use super::{Api, Origin, brokers, create_topics, errors};
use crate::metadata::View;

/// Create, alter, describe, cluster action, describe and alter configurations, idempotent write: without access
/// control everyone may do everything (KIP-430).
pub(super) const CLUSTER_OPERATIONS: i32 = 1 << 5 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12;
/// Read, write, create, delete, alter, describe, describe and alter configurations.
pub(super) const TOPIC_OPERATIONS: i32 =
    1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 11;

/// The time for a topic to be created on the way.
const CREATE_LIMIT: Duration = Duration::from_secs(5);
/// How long a topic that is not known holds up the answer, where nobody knows what is committed.
pub(super) const LOOK_AGAIN_LIMIT: Duration = Duration::from_millis(200);
/// Topics that one request may create; more are reported as unknown, and the client asks again.
const CREATED_PER_REQUEST_MAX: usize = 100;

pub(super) async fn handle(
    api: &Arc<Api>,
    origin: Origin,
    request: MetadataRequest,
    version: i16,
) -> MetadataResponse {
    let with_operations = request.include_topic_authorized_operations;
    let topics = match request.topics {
        // Before version 1 there was no null, and an empty list asked for all.
        Some(wanted) if !wanted.is_empty() || version >= 1 => {
            let create = api.config.auto_create_topics && (request.allow_auto_topic_creation || version < 4);
            named(api, wanted, create, version).await
        }
        _ => {
            // Whoever lists the topics sees what was done through another broker a moment ago.
            api.metadata.catch_up_within(LOOK_AGAIN_LIMIT).await;
            let view = api.image.current();
            view.image.topics().map(|topic| describe(&view.image, topic)).collect()
        }
    };
    let topics =
        topics
            .into_iter()
            .map(|topic| {
                if with_operations { topic.with_topic_authorized_operations(TOPIC_OPERATIONS) } else { topic }
            })
            .collect();
    // What was created on the way is in this view.
    let view = api.image.current();
    let shown = api.brokers(&view.image, origin);
    let brokers = shown
        .all(false)
        .map(|broker| {
            MetadataResponseBroker::default()
                .with_node_id(BrokerId(broker.id))
                .with_host(broker.host)
                .with_port(broker.port)
                .with_rack(broker.rack)
        })
        .collect();
    let mut response = MetadataResponse::default()
        .with_brokers(brokers)
        .with_cluster_id(Some(cluster_id(&view)))
        .with_controller_id(shown.controller())
        .with_topics(topics);
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = CLUSTER_OPERATIONS;
    }
    response
}

/// The topics that a client asks for, in its order.
async fn named(
    api: &Arc<Api>,
    wanted: Vec<MetadataRequestTopic>,
    create: bool,
    version: i16,
) -> Vec<MetadataResponseTopic> {
    if !create {
        look_again(api, &wanted).await;
    }
    let mut topics = Vec::with_capacity(wanted.len());
    let mut created = 0;
    for topic in wanted {
        topics.push(match topic.name {
            // Java's Admin sends an empty name beside an id.
            Some(name) if topic.topic_id.is_nil() => {
                let may_create = create && created < CREATED_PER_REQUEST_MAX;
                by_name(api, name, may_create, &mut created).await
            }
            _ => by_id(api, topic.topic_id, version),
        });
    }
    topics
}

/// A topic that is not known may have been made through another broker a moment ago: then this broker's image is behind. One that
/// is asked for by its id is described to somebody who administers, and who may have changed it just now; producers and consumers,
/// which ask by name, hear of changes in their own time, as from Kafka.
async fn look_again(api: &Api, wanted: &[MetadataRequestTopic]) {
    let view = api.image.current();
    let is_known = |topic: &MetadataRequestTopic| match &topic.name {
        Some(name) if topic.topic_id.is_nil() => view.image.topic_named(name).is_some(),
        _ => false,
    };
    if !wanted.iter().all(is_known) {
        api.metadata.catch_up_within(LOOK_AGAIN_LIMIT).await;
    }
}

fn by_id(api: &Api, id: Uuid, version: i16) -> MetadataResponseTopic {
    let view = api.image.current();
    match view.image.topic(TopicId(id)) {
        Some(topic) => describe(&view.image, topic),
        None => {
            // An unknown id has no name; before version 12 a name cannot be null.
            let name = (version < 12).then(TopicName::default);
            failed(name, ResponseError::UnknownTopicId).with_topic_id(id)
        }
    }
}

async fn by_name(
    api: &Arc<Api>,
    name: TopicName,
    create: bool,
    created: &mut usize,
) -> MetadataResponseTopic {
    let view = api.image.current();
    if let Some(topic) = view.image.topic_named(&name) {
        return describe(&view.image, topic);
    }
    if names::check(&name).is_err() {
        return failed(Some(name), ResponseError::InvalidTopicException);
    }
    if !create {
        return failed(Some(name), ResponseError::UnknownTopicOrPartition);
    }
    *created += 1;
    api.metadata.catch_up().await;
    let error = match create_topics::plan_automatic(api, &name) {
        Err((ResponseError::TopicAlreadyExists, _)) => None,
        Err((error, text)) => {
            tracing::debug!(topic = %name.as_str(), %text, "not created on the way");
            Some(error)
        }
        Ok(plan) => match time::timeout(CREATE_LIMIT, api.metadata.propose(plan.command)).await {
            Ok(Ok(_)) => None,
            // Two clients may ask for it at once.
            Ok(Err(error)) if errors::of_proposal(&error) == ResponseError::TopicAlreadyExists => None,
            Ok(Err(error)) => {
                tracing::debug!(topic = %name.as_str(), %error, "not created on the way");
                Some(errors::of_proposal(&error))
            }
            Err(_) => Some(ResponseError::LeaderNotAvailable),
        },
    };
    let view = api.image.current();
    match (error, view.image.topic_named(&name)) {
        (None, Some(topic)) => describe(&view.image, topic),
        (error, _) => failed(Some(name), error.unwrap_or(ResponseError::UnknownTopicOrPartition)),
    }
}

fn failed(name: Option<TopicName>, error: ResponseError) -> MetadataResponseTopic {
    MetadataResponseTopic::default().with_name(name).with_error_code(error.code())
}

fn describe(image: &Image, topic: &Topic) -> MetadataResponseTopic {
    let partitions =
        (0..).zip(&topic.partitions).map(|(index, state)| partition(image, index, state)).collect();
    MetadataResponseTopic::default()
        .with_name(Some(TopicName(StrBytes::from_string(topic.name.clone()))))
        .with_topic_id(topic.id.0)
        .with_is_internal(names::is_internal(&topic.name))
        .with_partitions(partitions)
}

fn partition(image: &Image, index: i32, state: &PartitionState) -> MetadataResponsePartition {
    MetadataResponsePartition::default()
        .with_error_code(brokers::partition_error(state))
        .with_partition_index(index)
        .with_leader_id(brokers::leader_id(state))
        .with_leader_epoch(state.leader_epoch)
        .with_replica_nodes(brokers::ids(&state.replicas))
        .with_isr_nodes(brokers::ids(&state.isr))
        .with_offline_replicas(brokers::offline(image, state))
}

pub(super) fn cluster_id(view: &View) -> StrBytes {
    StrBytes::from_string(view.image.cluster_id().map(kafka_text).unwrap_or_default())
}

/// An id as Kafka writes it: base64 for URLs, without padding.
pub(super) fn kafka_text(id: Uuid) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::with_capacity(22);
    let mut rest = id.as_u128();
    // 16 bytes are 21 digits of six bits and one of the last two.
    let last = (rest & 0b11) as usize;
    rest >>= 2;
    for place in (0..21).rev() {
        text.push(char::from(DIGITS[(rest >> (6 * place)) as usize & 63]));
    }
    text.push(char::from(DIGITS[last << 4]));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_written_as_kafka_writes_it() {
        assert_eq!(kafka_text(Uuid::nil()), "AAAAAAAAAAAAAAAAAAAAAA");
        assert_eq!(kafka_text(Uuid::max()), "_____________________w");
        let id = Uuid::from_u128(0x0001_0203_0405_0607_0809_0a0b_0c0d_0e0f);
        assert_eq!(kafka_text(id), "AAECAwQFBgcICQoLDA0ODw");
    }
}
