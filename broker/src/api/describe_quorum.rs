//! DescribeQuorum (key 55; KIP-595, KIP-836, KIP-853): who votes on the cluster's metadata, and how far everybody is.

use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_quorum_request::DescribeQuorumRequest;
use kafka_protocol::messages::describe_quorum_response::{
    DescribeQuorumResponse, Listener, Node, PartitionData, ReplicaState, TopicData,
};
use kafka_protocol::messages::{BrokerId, TopicName};
use kafka_protocol::protocol::StrBytes;
use weir_protocol::metadata::Image;
use weir_protocol::types::METADATA_TOPIC;
use weir_runtime::time;

use super::brokers::INTERNAL_LISTENER;
use super::{Api, errors};
use crate::peer::message::{ControllerQuestion, ControllerReply, QuorumNode, QuorumState};

/// The request has no time limit of its own; clients ask again.
const LIMIT: Duration = Duration::from_secs(5);

pub(super) async fn handle(
    api: &Arc<Api>,
    request: DescribeQuorumRequest,
    version: i16,
) -> DescribeQuorumResponse {
    if !asks_for_the_quorum(&request) {
        return unknown(request);
    }
    match api.metadata.ask(ControllerQuestion::DescribeQuorum, time::now() + LIMIT).await {
        Ok(ControllerReply::Quorum(state)) => {
            describe(&state, &api.image.current().image, time::wall_ms(), version)
        }
        Ok(_) => failed(ResponseError::LeaderNotAvailable, "The quorum's leader did not answer.".to_owned()),
        Err(error) => failed(errors::of_ask(&error), error.to_string()),
    }
}

fn failed(error: ResponseError, text: String) -> DescribeQuorumResponse {
    DescribeQuorumResponse::default()
        .with_error_code(error.code())
        .with_error_message(Some(StrBytes::from_string(text)))
}

/// There is one partition with a quorum.
fn asks_for_the_quorum(request: &DescribeQuorumRequest) -> bool {
    let [topic] = request.topics.as_slice() else { return false };
    topic.topic_name.as_str() == METADATA_TOPIC
        && matches!(topic.partitions.as_slice(), [partition] if partition.partition_index == 0)
}

/// Each partition is unknown, as Kafka says it.
fn unknown(request: DescribeQuorumRequest) -> DescribeQuorumResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            PartitionData::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(ResponseError::UnknownTopicOrPartition.code())
                .with_error_message(None)
        });
        TopicData::default().with_topic_name(topic.topic_name).with_partitions(partitions.collect())
    });
    DescribeQuorumResponse::default().with_error_message(None).with_topics(topics.collect())
}

/// What the quorum's leader says, as the protocol has it. `now_ms` is the wall clock.
fn describe(state: &QuorumState, image: &Image, now_ms: i64, version: i16) -> DescribeQuorumResponse {
    let replicas = |votes: bool| {
        let nodes = state.nodes.iter().filter(|node| node.votes == votes);
        nodes.map(|node| replica(state, node, now_ms, version)).collect::<Vec<_>>()
    };
    let partition = PartitionData::default()
        .with_partition_index(0)
        .with_error_message(None)
        .with_leader_id(BrokerId(state.leader.broker.0))
        .with_leader_epoch(state.term)
        .with_high_watermark(state.commit)
        .with_current_voters(replicas(true))
        .with_observers(replicas(false));
    let topic = TopicData::default()
        .with_topic_name(TopicName(StrBytes::from_static_str(METADATA_TOPIC)))
        .with_partitions(vec![partition]);
    let nodes = if version >= 2 { voters(state, image) } else { Vec::new() };
    DescribeQuorumResponse::default().with_error_message(None).with_topics(vec![topic]).with_nodes(nodes)
}

fn replica(state: &QuorumState, node: &QuorumNode, now_ms: i64, version: i16) -> ReplicaState {
    let leads = node.id == state.leader;
    let heard_ms = match node.heard_ms_ago {
        _ if leads => now_ms,
        ago if ago >= 0 => now_ms - ago,
        _ => -1,
    };
    // The leader does not remember since when somebody lags: only who has everything is known to have caught up.
    let caught_up_ms = if leads || node.end >= state.commit { heard_ms } else { -1 };
    let replica = ReplicaState::default()
        .with_replica_id(BrokerId(node.id.broker.0))
        .with_log_end_offset(node.end)
        .with_last_fetch_timestamp(heard_ms)
        .with_last_caught_up_timestamp(caught_up_ms);
    // Before version 2 it has no place, and must not be set.
    if version >= 2 { replica.with_replica_directory_id(node.id.folder.0) } else { replica }
}

/// Where the voters meet, as far as they are registered as brokers.
fn voters(state: &QuorumState, image: &Image) -> Vec<Node> {
    let voters = state.nodes.iter().filter(|node| node.votes);
    voters
        .map(|node| {
            let broker = image.broker(node.id.broker);
            let endpoints = broker.into_iter().flat_map(|broker| &broker.endpoints);
            let listeners =
                endpoints.filter(|endpoint| endpoint.listener == INTERNAL_LISTENER).map(|internal| {
                    Listener::default()
                        .with_name(StrBytes::from_string(internal.listener.clone()))
                        .with_host(StrBytes::from_string(internal.host.clone()))
                        .with_port(internal.port)
                });
            Node::default().with_node_id(BrokerId(node.id.broker.0)).with_listeners(listeners.collect())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::describe_quorum_request;
    use uuid::Uuid;
    use weir_protocol::types::{FolderId, VoterId};
    use weir_wire::kafka;

    use super::super::brokers::tests::Three;
    use super::*;

    fn node(id: i32, votes: bool, end: i64, heard_ms_ago: i64) -> QuorumNode {
        let broker = weir_protocol::types::BrokerId(id);
        let id = VoterId { broker, folder: FolderId(Uuid::from_u128(id as u128)) };
        QuorumNode { id, votes, end, heard_ms_ago }
    }

    fn state() -> QuorumState {
        let nodes =
            vec![node(1, true, 50, 0), node(2, true, 50, 20), node(3, true, 40, 30), node(4, false, -1, -1)];
        QuorumState { leader: nodes[0].id, term: 7, commit: 50, nodes }
    }

    #[test]
    fn voters_and_observers_are_described_with_how_far_they_are() {
        let image = Three::new().image;
        for version in 0..=2 {
            let response = describe(&state(), &image, 1_000, version);
            kafka::encode_response(version, 1, &response.clone().into())
                .expect("every version has its fields");
            let partition = &response.topics[0].partitions[0];
            assert_eq!((partition.leader_id.0, partition.leader_epoch, partition.high_watermark), (1, 7, 50));
            let told = |replicas: &[ReplicaState]| {
                let line = |replica: &ReplicaState| {
                    (
                        replica.replica_id.0,
                        replica.log_end_offset,
                        replica.last_fetch_timestamp,
                        replica.last_caught_up_timestamp,
                    )
                };
                replicas.iter().map(line).collect::<Vec<_>>()
            };
            let voters = [(1, 50, 1_000, 1_000), (2, 50, 980, 980), (3, 40, 970, -1)];
            assert_eq!(told(&partition.current_voters), voters);
            assert_eq!(told(&partition.observers), [(4, -1, -1, -1)]);
        }
        let nodes = describe(&state(), &image, 1_000, 2).nodes;
        assert_eq!(nodes.len(), 3);
        assert_eq!(nodes[0].listeners[0].port, 9093, "where the voters meet");
    }

    #[test]
    fn no_other_partition_has_a_quorum() {
        let request = |name: &'static str, partition| {
            let partition = describe_quorum_request::PartitionData::default().with_partition_index(partition);
            let topic = describe_quorum_request::TopicData::default()
                .with_topic_name(TopicName(StrBytes::from_static_str(name)))
                .with_partitions(vec![partition]);
            DescribeQuorumRequest::default().with_topics(vec![topic])
        };
        assert!(asks_for_the_quorum(&request(METADATA_TOPIC, 0)));
        for other in [request("t", 0), request(METADATA_TOPIC, 1), DescribeQuorumRequest::default()] {
            assert!(!asks_for_the_quorum(&other));
        }
        let error = unknown(request("t", 0)).topics[0].partitions[0].error_code;
        assert_eq!(error, ResponseError::UnknownTopicOrPartition.code());
    }
}
