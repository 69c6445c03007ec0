//! What clients are told by three nodes, whichever of them they ask, and what becomes of it when one fails.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_topics_request::CreatableReplicaAssignment;
use kafka_protocol::messages::describe_configs_request::{DescribeConfigsRequest, DescribeConfigsResource};
use kafka_protocol::messages::describe_quorum_request::{PartitionData, TopicData};
use kafka_protocol::messages::elect_leaders_request::TopicPartitions;
use kafka_protocol::messages::fetch_response::FetchResponse;
use kafka_protocol::messages::metadata_response::MetadataResponsePartition;
use kafka_protocol::messages::produce_response::ProduceResponse;
use kafka_protocol::messages::{
    CreateTopicsRequest, DescribeClusterRequest, DescribeLogDirsRequest, DescribeQuorumRequest,
    ElectLeadersRequest, FindCoordinatorRequest, InitProducerIdRequest, RemoveRaftVoterRequest,
};
use weir_runtime::time;

use crate::group_support::{commit, committed, heartbeat, join, sync, text};
use crate::nodes::Nodes;
use crate::support::{
    Client, PATIENCE, batch, create_request, fetch_request, produce_request, run, topic, values,
};

const NOT_LEADER: i16 = 6;

fn ids(partition: &[kafka_protocol::messages::BrokerId]) -> BTreeSet<i32> {
    partition.iter().map(|id| id.0).collect()
}

/// Produces to whoever leads, until it is acknowledged.
async fn produce(nodes: &Nodes, via: usize, name: &str, value: &[u8]) -> i64 {
    let deadline = time::now() + PATIENCE;
    loop {
        let leader = nodes.leader(via, name, None).await;
        let mut client = nodes.client(leader).await;
        let answer = client.produce(name, 0, batch(&[value])).await;
        if answer.error_code == 0 {
            return answer.base_offset;
        }
        if time::now() >= deadline {
            let mut client = nodes.client(via).await;
            panic!("not in time: {answer:?} {:?}", client.metadata(12, Some(&[name]), false).await);
        }
        time::sleep(Duration::from_millis(5)).await;
    }
}

fn in_sync(count: usize) -> impl Fn(&kafka_protocol::messages::MetadataResponse) -> bool {
    move |metadata| {
        let partitions = &metadata.topics[0].partitions;
        !partitions.is_empty() && partitions.iter().all(|partition| partition.isr_nodes.len() == count)
    }
}

#[test]
fn k05_every_node_tells_of_all_brokers_and_takes_what_the_controller_must_do() {
    run(async {
        let nodes = Nodes::three(&[]);
        for id in 1..=3 {
            let mut client = nodes.client(id).await;
            let name = format!("by-{id}");
            client.create(&name, 3, &[]).await;
            let metadata = client.metadata(12, Some(&[&name]), false).await;
            assert_eq!(metadata.controller_id.0, id as i32, "whoever is asked");
            let brokers: Vec<_> = metadata
                .brokers
                .iter()
                .map(|broker| (broker.node_id.0, broker.port, broker.rack.as_ref().map(ToString::to_string)))
                .collect();
            let expected: Vec<_> = (1..=3)
                .map(|id| (id, i32::from(nodes.address(id as usize).port()), Some(format!("rack-{id}"))))
                .collect();
            assert_eq!(brokers, expected, "where clients reach them, never where only nodes meet");
            let leaders: BTreeSet<_> =
                metadata.topics[0].partitions.iter().map(|partition| partition.leader_id.0).collect();
            assert_eq!(leaders, BTreeSet::from([1, 2, 3]), "the leaders are spread: {metadata:?}");
            for partition in &metadata.topics[0].partitions {
                assert_eq!(ids(&partition.replica_nodes), BTreeSet::from([1, 2, 3]));
            }
            let cluster = client.call(2, &DescribeClusterRequest::default()).await;
            assert_eq!((cluster.error_code, cluster.brokers.len()), (0, 3));
        }
        let mut other = nodes.client(1).await;
        let twice = other.call(5, &create_request("by-2", 1, &[])).await;
        assert_eq!(twice.topics[0].error_code, ResponseError::TopicAlreadyExists.code());
    });
}

#[test]
fn what_was_done_through_one_node_is_known_to_every_other_at_once() {
    run(async {
        let nodes = Nodes::three(&[]);
        for round in 0..10 {
            let (first, second) = (round % 3 + 1, (round + 1) % 3 + 1);
            let name = format!("fresh-{round}");
            nodes.client(first).await.create(&name, 1, &[("retention.ms", "1234567")]).await;
            let mut other = nodes.client(second).await;
            let metadata = other.metadata(12, Some(&[&name]), false).await;
            assert_eq!(metadata.topics[0].error_code, 0, "round {round}");
            let resource = DescribeConfigsResource::default()
                .with_resource_type(2)
                .with_resource_name(text(&name))
                .with_configuration_keys(Some(vec![text("retention.ms")]));
            let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
            let described = other.call(4, &request).await;
            assert_eq!(described.results[0].configs[0].value, Some(text("1234567")), "round {round}");
        }
    });
}

#[test]
fn a_topic_that_is_made_while_a_node_is_away_has_it_among_its_replicas() {
    run(async {
        let mut nodes = Nodes::three(&[]);
        nodes.stop(3);
        let mut client = nodes.client(1).await;
        client.create("meanwhile", 2, &[]).await;
        let metadata = nodes.metadata(1, "meanwhile", "two in sync", in_sync(2)).await;
        for partition in &metadata.topics[0].partitions {
            assert_eq!(ids(&partition.replica_nodes), BTreeSet::from([1, 2, 3]), "as many as ever");
            assert_eq!(ids(&partition.isr_nodes), BTreeSet::from([1, 2]));
            assert_ne!(partition.leader_id.0, 3);
        }
        assert_eq!(produce(&nodes, 1, "meanwhile", b"kept twice").await, 0);
        nodes.restart(3);
        nodes.metadata(3, "meanwhile", "three in sync", in_sync(3)).await;
    });
}

#[test]
fn a_node_that_does_not_lead_names_the_one_that_does_and_where_it_is() {
    run(async {
        let nodes = Nodes::three(&[]);
        nodes.client(1).await.create("hinted", 1, &[]).await;
        let leader = nodes.leader(1, "hinted", None).await;
        let other = leader % 3 + 1;
        nodes.leader(other, "hinted", None).await;
        let mut client = nodes.client(other).await;
        for version in 9..=11 {
            let request = produce_request("hinted", 0, -1, batch(&[b"x"]));
            let response: ProduceResponse = client.call(version, &request).await;
            let answer = &response.responses[0].partition_responses[0];
            assert_eq!(answer.error_code, NOT_LEADER, "version {version}");
            if version >= 10 {
                assert_eq!(answer.current_leader.leader_id.0, leader as i32);
                let endpoint = &response.node_endpoints[0];
                assert_eq!(endpoint.node_id.0, leader as i32);
                assert_eq!(endpoint.port, i32::from(nodes.address(leader).port()));
            }
        }
        let id = client.metadata(12, Some(&["hinted"]), false).await.topics[0].topic_id;
        for version in [11, 12, 16, 17] {
            let mut request = fetch_request("hinted", 0, 0);
            if version >= 13 {
                request.topics[0].topic = topic("");
                request.topics[0].topic_id = id;
            }
            let response: FetchResponse = client.call(version, &request).await;
            let answer = &response.responses[0].partitions[0];
            assert_eq!(answer.error_code, NOT_LEADER, "version {version}");
            if version >= 12 {
                assert_eq!(answer.current_leader.leader_id.0, leader as i32, "version {version}");
            }
            if version >= 16 {
                assert_eq!(response.node_endpoints[0].port, i32::from(nodes.address(leader).port()));
            }
        }
        let folder = &client.call(4, &DescribeLogDirsRequest::default().with_topics(None)).await.results[0];
        assert_eq!(folder.topics.len(), 1, "its replica is there");
    });
}

/// A topic with one partition on these brokers.
fn placed(name: &str, brokers: &[i32]) -> CreateTopicsRequest {
    let mut request = create_request(name, -1, &[]);
    let assignment = CreatableReplicaAssignment::default()
        .with_partition_index(0)
        .with_broker_ids(brokers.iter().map(|id| (*id).into()).collect());
    request.topics[0].assignments = vec![assignment];
    request
}

#[test]
fn a_node_without_a_replica_names_the_leader_and_makes_no_log() {
    run(async {
        let nodes = Nodes::three(&[]);
        let mut client = nodes.client(3).await;
        let created = client.call(5, &placed("elsewhere", &[1, 2])).await;
        assert_eq!(created.topics[0].error_code, 0, "{created:?}");
        let request = produce_request("elsewhere", 0, -1, batch(&[b"x"]));
        let response: ProduceResponse = client.call(11, &request).await;
        let answer = &response.responses[0].partition_responses[0];
        assert_eq!((answer.error_code, answer.current_leader.leader_id.0), (NOT_LEADER, 1));
        let fetched = client.fetch("elsewhere", 0, 0).await;
        assert_eq!((fetched.error_code, fetched.current_leader.leader_id.0), (NOT_LEADER, -1), "version 11");
        let everything = DescribeLogDirsRequest::default().with_topics(None);
        assert_eq!(client.call(4, &everything).await.results[0].topics, []);
        assert_eq!(produce(&nodes, 3, "elsewhere", b"x").await, 0);
    });
}

#[test]
fn when_a_leader_is_killed_another_one_has_everything_and_it_comes_back_in_sync() {
    run(async {
        let mut nodes = Nodes::three(&[]);
        nodes.client(1).await.create("failover", 1, &[]).await;
        let first = nodes.leader(1, "failover", None).await;
        let witness = first % 3 + 1;
        for number in 0..10u8 {
            assert_eq!(produce(&nodes, witness, "failover", &[number]).await, i64::from(number));
        }
        nodes.kill(first);
        let second = nodes.leader(witness, "failover", Some(first)).await;
        assert_eq!(produce(&nodes, witness, "failover", &[10]).await, 10);
        let fetched = nodes.client(second).await.fetch("failover", 0, 0).await;
        let found: Vec<_> = values(fetched.records).into_iter().map(|(_, value)| value[0]).collect();
        assert_eq!(found, (0..=10).collect::<Vec<u8>>());
        let metadata = nodes.metadata(witness, "failover", "two in sync", in_sync(2)).await;
        let partition: &MetadataResponsePartition = &metadata.topics[0].partitions[0];
        assert_eq!(ids(&partition.offline_replicas), BTreeSet::from([first as i32]));
        assert_eq!(metadata.brokers.len(), 2, "a fenced broker is left out");
        let cluster = DescribeClusterRequest::default().with_include_fenced_brokers(true);
        let cluster = nodes.client(witness).await.call(2, &cluster).await;
        let fenced: Vec<_> = cluster.brokers.iter().map(|broker| broker.is_fenced).collect();
        assert_eq!(fenced.iter().filter(|fenced| **fenced).count(), 1, "{cluster:?}");
        nodes.restart(first);
        nodes.metadata(first, "failover", "three in sync", in_sync(3)).await;
    });
}

#[test]
fn leadership_goes_back_to_the_first_replica_on_request() {
    run(async {
        let mut nodes = Nodes::three(&["auto.leader.rebalance.enable=false"]);
        let created = nodes.client(1).await.call(5, &placed("moved", &[2, 3, 1])).await;
        assert_eq!(created.topics[0].error_code, 0, "{created:?}");
        assert_eq!(nodes.leader(1, "moved", None).await, 2);
        nodes.stop(2);
        nodes.leader(1, "moved", Some(2)).await;
        nodes.restart(2);
        nodes.metadata(1, "moved", "three in sync", in_sync(3)).await;
        let elect = |kind: i8| {
            let topics =
                vec![TopicPartitions::default().with_topic(topic("moved")).with_partitions(vec![0, 7])];
            ElectLeadersRequest::default()
                .with_election_type(kind)
                .with_topic_partitions(Some(topics))
                .with_timeout_ms(10_000)
        };
        let mut client = nodes.client(3).await;
        let mut outcomes = async |kind| {
            let response = client.call(2, &elect(kind)).await;
            assert_eq!(response.error_code, 0);
            let results = &response.replica_election_results[0].partition_result;
            results.iter().map(|result| result.error_code).collect::<Vec<_>>()
        };
        let unknown = ResponseError::UnknownTopicOrPartition.code();
        let not_needed = ResponseError::ElectionNotNeeded.code();
        assert_eq!(outcomes(1).await, [not_needed, unknown], "there is a leader");
        assert_eq!(outcomes(0).await, [0, unknown]);
        assert_eq!(nodes.leader(3, "moved", None).await, 2, "whoever was asked knows it");
        assert_eq!(outcomes(0).await, [not_needed, unknown]);
        let all = ElectLeadersRequest::default().with_topic_partitions(None).with_timeout_ms(10_000);
        let response = client.call(2, &all).await;
        assert_eq!((response.error_code, response.replica_election_results.len()), (0, 0));
    });
}

/// Whom the group's coordinator is, as node `id` says, once it is another one than `but`.
async fn coordinator(nodes: &Nodes, id: usize, group: &str, but: Option<usize>) -> usize {
    let mut client = nodes.client(id).await;
    let deadline = time::now() + PATIENCE;
    loop {
        let request = FindCoordinatorRequest::default().with_key(text(group));
        let found = client.call(3, &request).await;
        let node = usize::try_from(found.node_id.0).ok().filter(|node| Some(*node) != but);
        if let (0, Some(node)) = (found.error_code, node) {
            assert_eq!(found.port, i32::from(nodes.address(node).port()), "with its endpoint");
            return node;
        }
        assert!(time::now() < deadline, "not in time: {found:?}");
        time::sleep(Duration::from_millis(5)).await;
    }
}

/// A connection to the group's coordinator, once that answers for it.
async fn coordinating(nodes: &Nodes, id: usize, group: &str, but: Option<usize>) -> Client {
    let deadline = time::now() + PATIENCE;
    loop {
        let node = coordinator(nodes, id, group, but).await;
        let mut client = nodes.client(node).await;
        let described = kafka_protocol::messages::DescribeGroupsRequest::default()
            .with_groups(vec![crate::group_support::group(group)]);
        let answer = client.call(5, &described).await.groups[0].error_code;
        if answer == 0 {
            return client;
        }
        assert!(time::now() < deadline, "not in time: error {answer}");
        time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn a_group_moves_with_its_coordinator_and_keeps_members_and_offsets() {
    run(async {
        let mut nodes = Nodes::three(&[]);
        nodes.client(1).await.create("t", 1, &[]).await;
        let first = coordinator(&nodes, 1, "g", None).await;
        let mut client = coordinating(&nodes, 1, "g", None).await;
        let joined = join(&mut client, "g").await;
        assert_eq!(joined.error_code, 0);
        let (error, assignment) = sync(&mut client, "g", &joined).await;
        assert_eq!((error, assignment), (0, Bytes::from_static(b"all")));
        let mut alone = coordinating(&nodes, 1, "other", None).await;
        assert_eq!(commit(&mut alone, "other", 5, "kept").await, 0);
        let witness = first % 3 + 1;
        nodes.metadata(witness, "__consumer_offsets", "three in sync", in_sync(3)).await;
        nodes.kill(first);
        let mut client = coordinating(&nodes, witness, "g", Some(first)).await;
        assert_eq!(heartbeat(&mut client, "g", &joined).await, 0, "the member and its generation are known");
        let mut alone = coordinating(&nodes, witness, "other", Some(first)).await;
        assert_eq!(committed(&mut alone, "other").await, (5, 4, "kept".to_owned()));
        assert_eq!(commit(&mut alone, "other", 6, "").await, 0);
    });
}

#[test]
fn a_member_that_waits_is_sent_away_when_its_coordinator_stops() {
    run(async {
        let mut nodes = Nodes::three(&[]);
        nodes.client(1).await.create("t", 1, &[]).await;
        let first = coordinator(&nodes, 1, "g", None).await;
        let witness = first % 3 + 1;
        let mut client = coordinating(&nodes, witness, "g", None).await;
        let joined = join(&mut client, "g").await;
        nodes.metadata(witness, "__consumer_offsets", "three in sync", in_sync(3)).await;
        // The second one waits for the first to come back.
        let mut second = coordinating(&nodes, witness, "g", None).await;
        let named = second.call(5, &crate::group_support::join_request("g", "")).await;
        let waiting = second.send(5, &crate::group_support::join_request("g", &named.member_id)).await;
        nodes.stop(first);
        let (id, answer) = second.answer::<kafka_protocol::messages::JoinGroupRequest>(5).await;
        assert_eq!((id, answer.error_code), (waiting, ResponseError::NotCoordinator.code()));
        let mut client = coordinating(&nodes, witness, "g", Some(first)).await;
        let error = heartbeat(&mut client, "g", &joined).await;
        assert!([0, ResponseError::RebalanceInProgress.code()].contains(&error), "{error}");
    });
}

#[test]
fn producer_ids_of_different_brokers_are_different() {
    run(async {
        let nodes = Nodes::three(&[]);
        let mut given = BTreeSet::new();
        for id in [1, 2, 3, 1, 2, 3] {
            let request = InitProducerIdRequest::default().with_transactional_id(None);
            let response = nodes.client(id).await.call(4, &request).await;
            assert_eq!(response.error_code, 0, "{response:?}");
            assert!(given.insert(response.producer_id.0), "{response:?}");
        }
    });
}

#[test]
fn the_quorum_is_described_by_every_node_and_its_voters_change_one_at_a_time() {
    run(async {
        let nodes = Nodes::three(&[]);
        let topic = TopicData::default()
            .with_topic_name(topic("__cluster_metadata"))
            .with_partitions(vec![PartitionData::default()]);
        let request = DescribeQuorumRequest::default().with_topics(vec![topic]);
        let mut leader = None;
        for id in 1..=3 {
            for version in 0..=2 {
                let response = nodes.client(id).await.call(version, &request).await;
                assert_eq!(response.error_code, 0, "{:?}", response.error_message);
                let partition = &response.topics[0].partitions[0];
                let voters: BTreeSet<_> =
                    partition.current_voters.iter().map(|voter| voter.replica_id.0).collect();
                assert_eq!(voters, BTreeSet::from([1, 2, 3]));
                assert!(partition.high_watermark > 0);
                leader = Some(partition.clone());
            }
        }
        let described = leader.expect("described");
        let follower = described
            .current_voters
            .iter()
            .find(|voter| voter.replica_id != described.leader_id)
            .expect("a follower");
        let remove = RemoveRaftVoterRequest::default()
            .with_cluster_id(None)
            .with_voter_id(follower.replica_id.0)
            .with_voter_directory_id(follower.replica_directory_id);
        let mut client = nodes.client(1).await;
        let removed = client.call(0, &remove).await;
        assert_eq!(removed.error_code, 0, "{:?}", removed.error_message);
        let again = client.call(0, &remove).await;
        assert_eq!(again.error_code, ResponseError::VoterNotFound.code());
        let partition = client.call(2, &request).await.topics[0].partitions[0].clone();
        assert_eq!(partition.current_voters.len(), 2);
    });
}
