//! DescribeTopicPartitions (key 75; KIP-966): topics in the order of their names, a bounded number of partitions at a
//! time, with a cursor to where the next request goes on.

use std::collections::BTreeSet;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::TopicName;
use kafka_protocol::messages::describe_topic_partitions_request::DescribeTopicPartitionsRequest;
use kafka_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponse, DescribeTopicPartitionsResponsePartition,
    DescribeTopicPartitionsResponseTopic,
};
use kafka_protocol::protocol::StrBytes;
use weir_protocol::metadata::{Image, PartitionState, Topic, names};

use super::metadata::{LOOK_AGAIN_LIMIT, TOPIC_OPERATIONS};
use super::{Api, brokers};

/// Partitions that one response describes at most, as Kafka's `max.request.partition.size.limit`.
const PARTITIONS_MAX: i32 = 2_000;

pub(super) async fn handle(
    api: &Api,
    request: &DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    // It may have been made, or got partitions, through another broker a moment ago: whoever administers sees what it has done.
    api.metadata.catch_up_within(LOOK_AGAIN_LIMIT).await;
    let view = api.image.current();
    let image = &view.image;
    let Some(wanted) = names_from_cursor(image, request) else { return refused(request) };
    let mut room = request.response_partition_limit.clamp(1, PARTITIONS_MAX);
    let mut response = DescribeTopicPartitionsResponse::default();
    for name in wanted {
        if room == 0 {
            response.next_cursor = Some(cursor(name, 0));
            break;
        }
        let Some(topic) = image.topic_named(name) else {
            response.topics.push(unknown(name));
            continue;
        };
        let first = match &request.cursor {
            Some(cursor) if cursor.topic_name.as_str() == name => cursor.partition_index,
            _ => 0,
        };
        let partitions: Vec<_> = (0..)
            .zip(&topic.partitions)
            .skip(usize::try_from(first).unwrap_or(0))
            .take(usize::try_from(room).unwrap_or(0))
            .map(|(number, state)| describe_partition(image, number, state))
            .collect();
        let described = i32::try_from(partitions.len()).unwrap_or(i32::MAX);
        room -= described;
        response.topics.push(describe_topic(topic, partitions));
        let next = first.saturating_add(described);
        if topic.partition(next).is_some() {
            response.next_cursor = Some(cursor(name, next));
            break;
        }
    }
    response
}

/// The topics that are asked for, or all, from the cursor's on. `None` if the cursor cannot be.
fn names_from_cursor<'a>(
    image: &'a Image,
    request: &'a DescribeTopicPartitionsRequest,
) -> Option<BTreeSet<&'a str>> {
    let mut wanted: BTreeSet<&str> = if request.topics.is_empty() {
        image.topics().map(|topic| topic.name.as_str()).collect()
    } else {
        request.topics.iter().map(|topic| topic.name.as_str()).collect()
    };
    let Some(cursor) = &request.cursor else { return Some(wanted) };
    let first = cursor.topic_name.as_str();
    // Among all topics the cursor's may be gone by now.
    if cursor.partition_index < 0 || (!request.topics.is_empty() && !wanted.contains(first)) {
        return None;
    }
    Some(wanted.split_off(first))
}

/// The response has no error of its own: each topic gets it.
fn refused(request: &DescribeTopicPartitionsRequest) -> DescribeTopicPartitionsResponse {
    let topics = request
        .topics
        .iter()
        .map(|topic| failed(topic.name.clone(), ResponseError::InvalidRequest))
        .collect();
    DescribeTopicPartitionsResponse::default().with_topics(topics)
}

fn unknown(name: &str) -> DescribeTopicPartitionsResponseTopic {
    let error = match names::check(name) {
        Ok(()) => ResponseError::UnknownTopicOrPartition,
        Err(_) => ResponseError::InvalidTopicException,
    };
    failed(topic_name(name), error)
}

fn failed(name: TopicName, error: ResponseError) -> DescribeTopicPartitionsResponseTopic {
    DescribeTopicPartitionsResponseTopic::default().with_name(Some(name)).with_error_code(error.code())
}

fn describe_topic(
    topic: &Topic,
    partitions: Vec<DescribeTopicPartitionsResponsePartition>,
) -> DescribeTopicPartitionsResponseTopic {
    DescribeTopicPartitionsResponseTopic::default()
        .with_name(Some(topic_name(&topic.name)))
        .with_topic_id(topic.id.0)
        .with_is_internal(names::is_internal(&topic.name))
        .with_topic_authorized_operations(TOPIC_OPERATIONS)
        .with_partitions(partitions)
}

fn describe_partition(
    image: &Image,
    number: i32,
    state: &PartitionState,
) -> DescribeTopicPartitionsResponsePartition {
    DescribeTopicPartitionsResponsePartition::default()
        .with_error_code(brokers::partition_error(state))
        .with_partition_index(number)
        .with_leader_id(brokers::leader_id(state))
        .with_leader_epoch(state.leader_epoch)
        .with_replica_nodes(brokers::ids(&state.replicas))
        .with_isr_nodes(brokers::ids(&state.isr))
        .with_eligible_leader_replicas(Some(brokers::ids(&state.elr)))
        // They were in sync or eligible, and came back without a certain tail (contract 5).
        .with_last_known_elr(Some(brokers::ids(&state.uncertain)))
        .with_offline_replicas(brokers::offline(image, state))
}

fn cursor(topic: &str, partition: i32) -> Cursor {
    Cursor::default().with_topic_name(topic_name(topic)).with_partition_index(partition)
}

fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}
