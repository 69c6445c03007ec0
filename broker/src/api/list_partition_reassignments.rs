//! ListPartitionReassignments (key 46; KIP-455): replicas that a partition is getting.
//!
//! Internal topics get more replicas as brokers join; nobody asks for that.

use std::collections::BTreeSet;

use kafka_protocol::messages::TopicName;
use kafka_protocol::messages::list_partition_reassignments_request::ListPartitionReassignmentsRequest;
use kafka_protocol::messages::list_partition_reassignments_response::{
    ListPartitionReassignmentsResponse, OngoingPartitionReassignment, OngoingTopicReassignment,
};
use kafka_protocol::protocol::StrBytes;
use weir_protocol::metadata::{Image, Topic};

use super::brokers;

pub(super) fn handle(
    image: &Image,
    request: &ListPartitionReassignmentsRequest,
) -> ListPartitionReassignmentsResponse {
    let topics: Vec<OngoingTopicReassignment> = match &request.topics {
        None => image.topics().filter_map(|topic| under_way(topic, |_| true)).collect(),
        Some(wanted) => wanted
            .iter()
            .filter_map(|wanted| {
                let numbers: BTreeSet<i32> = wanted.partition_indexes.iter().copied().collect();
                under_way(image.topic_named(&wanted.name)?, |number| numbers.contains(&number))
            })
            .collect(),
    };
    ListPartitionReassignmentsResponse::default().with_error_message(None).with_topics(topics)
}

/// The partitions of a topic that are getting replicas; `None`: none of them is.
fn under_way(topic: &Topic, wanted: impl Fn(i32) -> bool) -> Option<OngoingTopicReassignment> {
    let partitions: Vec<_> = (0..)
        .zip(&topic.partitions)
        .filter(|(number, state)| !state.adding.is_empty() && wanted(*number))
        .map(|(number, state)| {
            OngoingPartitionReassignment::default()
                .with_partition_index(number)
                .with_replicas(brokers::ids(&state.replicas))
                .with_adding_replicas(brokers::ids(&state.adding))
        })
        .collect();
    let name = TopicName(StrBytes::from_string(topic.name.clone()));
    (!partitions.is_empty())
        .then(|| OngoingTopicReassignment::default().with_name(name).with_partitions(partitions))
}
