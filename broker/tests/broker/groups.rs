//! Consumer groups over real frames: what survives a restart, and what a group must withstand.

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_groups_request::DescribeGroupsRequest;
use kafka_protocol::messages::offset_delete_request::{
    OffsetDeleteRequest, OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::{
    DeleteGroupsRequest, JoinGroupRequest, ListGroupsRequest, OffsetCommitRequest,
};
use weir_wire::offsets_topic::{GroupValue, Key, OffsetValue};
use weir_wire::records;

use crate::group_support::*;
use crate::support::{Broker, Client, batch, node_on, run, topic};

#[test]
fn k14_a_member_joins_syncs_and_is_in_a_generation() {
    run(async {
        let (_broker, mut client) = ready("g").await;
        let joined = join(&mut client, "g").await;
        assert_eq!((joined.error_code, joined.generation_id), (0, 1));
        assert_eq!((&joined.leader, joined.members.len()), (&joined.member_id, 1));
        assert_eq!(sync(&mut client, "g", &joined).await, (0, Bytes::from_static(b"all")));
        assert_eq!(heartbeat(&mut client, "g", &joined).await, 0);
    });
}

#[test]
fn k19_commits_keep_metadata_and_leader_epoch_across_stops_and_crashes() {
    run(async {
        let (broker, mut client) = ready("g").await;
        assert_eq!(committed(&mut client, "g").await, (-1, -1, String::new()));
        assert_eq!(commit(&mut client, "g", 42, "here").await, 0);
        assert_eq!(committed(&mut client, "g").await, (42, 4, "here".to_owned()));
        let broker = broker.restart().await;
        let mut client = broker.client().await;
        assert_eq!(committed(&mut client, "g").await, (42, 4, "here".to_owned()));
        assert_eq!(commit(&mut client, "g", 43, "").await, 0);
        let Broker { node, folder } = broker;
        drop(node);
        let node = node_on(folder.path(), quick()).await;
        let mut client = Client::connect(node.address()).await;
        assert_eq!(committed(&mut client, "g").await, (43, 4, String::new()));
    });
}

#[test]
fn k19_metadata_that_is_too_long_is_refused_for_its_partition() {
    run(async {
        let (_broker, mut client) = ready("g").await;
        let long = "m".repeat(4097);
        let refused = ResponseError::OffsetMetadataTooLarge.code();
        assert_eq!(commit(&mut client, "g", 1, &long).await, refused);
        assert_eq!(commit(&mut client, "g", 1, &long[1..]).await, 0);
    });
}

#[test]
fn k19_every_version_keeps_and_returns_what_it_has() {
    run(async {
        let (_broker, mut client) = ready("g").await;
        for version in 2..=8 {
            let request = commit_request("g", version.into(), "mine");
            let answer = client.call(version, &request).await;
            assert_eq!(answer.topics[0].partitions[0].error_code, 0, "OffsetCommit {version}");
            let epoch = if version >= 6 { 4 } else { -1 };
            assert_eq!(committed(&mut client, "g").await, (version.into(), epoch, "mine".to_owned()));
        }
        let topic_name = topic("t");
        for version in 1..=7 {
            let data = OffsetFetchRequestTopic::default().with_name(topic_name.clone());
            let data = data.with_partition_indexes(vec![0]);
            let request =
                OffsetFetchRequest::default().with_group_id(group("g")).with_topics(Some(vec![data]));
            let answer = client.call(version, &request).await;
            let found = &answer.topics[0].partitions[0];
            let epoch = if version >= 5 { 4 } else { -1 };
            let told = (found.committed_offset, found.committed_leader_epoch, found.metadata.as_deref());
            assert_eq!(told, (8, epoch, Some("mine")), "OffsetFetch {version}");
        }
        // By name, and whatever there is.
        let data = OffsetFetchRequestTopics::default().with_name(topic_name.clone());
        for topics in [Some(vec![data.with_partition_indexes(vec![0])]), None] {
            let wanted = OffsetFetchRequestGroup::default().with_group_id(group("g")).with_topics(topics);
            let answer = client.call(8, &OffsetFetchRequest::default().with_groups(vec![wanted])).await;
            let found = &answer.groups[0].topics[0].partitions[0];
            let told = (found.committed_offset, found.committed_leader_epoch, found.metadata.as_deref());
            assert_eq!(told, (8, 4, Some("mine")), "OffsetFetch 8");
        }
    });
}

#[test]
fn k15_a_restart_in_the_middle_of_a_rebalance_leaves_the_last_generation_in_charge() {
    run(async {
        let (broker, mut client) = ready("g").await;
        let joined = join(&mut client, "g").await;
        sync(&mut client, "g", &joined).await;
        let mut other = broker.client().await;
        let first = other.call(5, &join_request("g", "")).await;
        other.send(5, &join_request("g", &first.member_id)).await;
        let rebalancing = ResponseError::RebalanceInProgress.code();
        while heartbeat(&mut client, "g", &joined).await != rebalancing {}
        let Broker { node, folder } = broker;
        drop(node);
        let node = node_on(folder.path(), quick()).await;
        let mut client = Client::connect(node.address()).await;
        assert_eq!(find(&mut client, "g").await, 0);
        assert_eq!(heartbeat(&mut client, "g", &joined).await, 0, "the assignment holds");
        let unknown = ResponseError::UnknownMemberId.code();
        let response = client.call(5, &join_request("g", &first.member_id)).await;
        assert_eq!(response.error_code, unknown, "who had not joined is not known");
    });
}

#[test]
fn k17_the_offsets_topic_holds_kafkas_records() {
    run(async {
        let (_broker, mut client) = ready("g").await;
        commit(&mut client, "g", 42, "here").await;
        let joined = join(&mut client, "g").await;
        sync(&mut client, "g", &joined).await;
        let (mut offsets, mut generations) = (Vec::new(), Vec::new());
        for partition in 0..3 {
            let fetched = client.fetch("__consumer_offsets", partition, 0).await;
            for batch in records::batches(fetched.records.unwrap_or_default()) {
                let batch = batch.expect("a batch");
                for record in &batch.records(1 << 20).expect("records") {
                    let record = record.expect("a record");
                    let value = record.value.expect("a value");
                    match Key::decode(record.key.expect("a key")).expect("known") {
                        Key::Offset { .. } => offsets.push(OffsetValue::decode(value).expect("an offset")),
                        Key::Group { .. } => generations.push(GroupValue::decode(value).expect("a group")),
                    }
                }
            }
        }
        assert_eq!((offsets.len(), offsets[0].offset, offsets[0].metadata.as_str()), (1, 42, "here"));
        let [begun, assigned] = &generations[..] else { panic!("{generations:?}") };
        assert_eq!((begun.generation, &begun.leader), (1, &None), "what is told is written before");
        assert_eq!((assigned.generation, assigned.members.len()), (1, 1));
        assert_eq!(assigned.members[0].client_id, "test");
        let refused = client.produce("__consumer_offsets", 0, batch(&[b"forged"])).await;
        assert_eq!(refused.error_code, ResponseError::InvalidTopicException.code());
    });
}

#[test]
fn groups_are_listed_described_and_deleted() {
    run(async {
        let (_broker, mut client) = ready("g").await;
        commit(&mut client, "old", 1, "").await;
        let joined = join(&mut client, "g").await;
        sync(&mut client, "g", &joined).await;
        let listed = client.call(4, &ListGroupsRequest::default()).await;
        let mut names: Vec<_> = listed
            .groups
            .iter()
            .map(|group| (group.group_id.to_string(), group.group_state.to_string()))
            .collect();
        names.sort();
        let pair = |name: &str, state: &str| (name.to_owned(), state.to_owned());
        assert_eq!(names, [pair("g", "Stable"), pair("old", "Empty")]);
        let request = DescribeGroupsRequest::default().with_groups(vec![group("g"), group("none")]);
        let described = client.call(5, &request).await;
        assert_eq!(described.groups[0].members[0].member_assignment, Bytes::from_static(b"all"));
        assert_eq!(described.groups[1].group_state.as_str(), "Dead");
        let partition = OffsetDeleteRequestPartition::default().with_partition_index(0);
        let data = OffsetDeleteRequestTopic::default().with_name(topic("t")).with_partitions(vec![partition]);
        let request = OffsetDeleteRequest::default().with_group_id(group("g")).with_topics(vec![data]);
        let subscribed = client.call(0, &request).await.topics[0].partitions[0].error_code;
        assert_eq!(subscribed, ResponseError::GroupSubscribedToTopic.code());
        let names = vec![group("g"), group("old"), group("none")];
        let deleted = client.call(2, &DeleteGroupsRequest::default().with_groups_names(names)).await;
        let codes: Vec<i16> = deleted.results.iter().map(|result| result.error_code).collect();
        let expected = [ResponseError::NonEmptyGroup.code(), 0, ResponseError::GroupIdNotFound.code()];
        assert_eq!(codes, expected);
        assert_eq!(committed(&mut client, "old").await.0, -1);
    });
}

#[test]
fn offsets_of_a_deleted_topic_are_gone() {
    run(async {
        let (_broker, mut client) = ready("g").await;
        commit(&mut client, "g", 7, "").await;
        let request = kafka_protocol::messages::DeleteTopicsRequest::default()
            .with_topic_names(vec![topic("t")])
            .with_timeout_ms(5_000);
        client.call(4, &request).await;
        client.create("t", 1, &[]).await;
        let deadline = weir_runtime::time::now() + crate::support::PATIENCE;
        while committed(&mut client, "g").await.0 != -1 {
            assert!(weir_runtime::time::now() < deadline, "the offset is removed");
        }
    });
}

#[test]
fn ten_thousand_groups_commit_and_are_all_there_after_a_crash() {
    run(async {
        let (broker, mut client) = ready("g-0").await;
        const GROUPS: usize = 10_000;
        const WINDOW: usize = 100;
        for first in (0..GROUPS).step_by(WINDOW) {
            for number in first..first + WINDOW {
                client.send(7, &commit_request(&format!("g-{number}"), number as i64, "")).await;
            }
            for _ in 0..WINDOW {
                let (_, response) = client.answer::<OffsetCommitRequest>(7).await;
                assert_eq!(response.topics[0].partitions[0].error_code, 0);
            }
        }
        let Broker { node, folder } = broker;
        drop(node);
        let node = node_on(folder.path(), quick()).await;
        let mut client = Client::connect(node.address()).await;
        for number in (0..GROUPS).step_by(997) {
            assert_eq!(committed(&mut client, &format!("g-{number}")).await.0, number as i64);
        }
        let listed = client.call(4, &ListGroupsRequest::default()).await;
        assert_eq!(listed.groups.len(), GROUPS);
    });
}

#[test]
fn a_member_that_waits_for_others_does_not_hold_up_a_stop() {
    run(async {
        let (broker, mut client) = ready("g").await;
        let joined = join(&mut client, "g").await;
        sync(&mut client, "g", &joined).await;
        let mut other = broker.client().await;
        let first = other.call(5, &join_request("g", "")).await;
        other.send(5, &join_request("g", &first.member_id)).await;
        let rebalancing = ResponseError::RebalanceInProgress.code();
        while heartbeat(&mut client, "g", &joined).await != rebalancing {}
        broker.stop().await;
        let (_, response) = other.answer::<JoinGroupRequest>(5).await;
        assert_eq!(response.error_code, ResponseError::NotCoordinator.code());
    });
}
