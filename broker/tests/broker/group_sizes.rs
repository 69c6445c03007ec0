//! Names, metadata and groups that are larger than anybody needs.

use std::collections::BTreeSet;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{JoinGroupRequest, OffsetCommitRequest};
use weir_wire::kafka;

use crate::group_support::*;
use crate::support::{Broker, Client, node_on, run};

#[test]
fn a_client_with_the_longest_name_joins_and_is_known_after_a_crash() {
    run(async {
        let (broker, _) = ready("g").await;
        // Three bytes a character, so that a cut is not between two of them.
        let name = text(&"名".repeat(i16::MAX as usize / 3));
        let mut member = Member::of(broker.node.address(), "g").await;
        let frame = kafka::encode_request(5, 1, Some(&name), &join_request("g", "")).expect("encodable");
        member.client.send_bytes(frame).await;
        let (_, first) = member.client.answer::<JoinGroupRequest>(5).await;
        assert_eq!(first.error_code, ResponseError::MemberIdRequired.code());
        member.id = first.member_id;
        member.join().await;
        let everything = vec![(member.id.clone(), Bytes::from_static(b"all"))];
        assert_eq!(member.sync(&everything).await.0, 0);
        let Broker { node, folder } = broker;
        drop(node);
        let node = node_on(folder.path(), quick()).await;
        let mut client = Client::connect(node.address()).await;
        assert_eq!(describe(&mut client, "g").await, ("Stable".to_owned(), 1));
        member.reconnect(node.address()).await;
        assert_eq!(member.heartbeat().await, 0);
    });
}

#[test]
fn k23_a_text_longer_than_kafka_allows_costs_the_connection() {
    run(async {
        let (broker, mut client) = ready("g").await;
        let longest = "g".repeat(i16::MAX as usize);
        let flexible = |name: &str| commit_request(name, 1, "");
        let answer = client.call(8, &flexible(&longest)).await;
        assert_eq!(answer.topics[0].partitions[0].error_code, 0);
        client.send(8, &flexible(&format!("{longest}g"))).await;
        assert!(client.is_closed().await);
        let mut client = broker.client().await;
        assert_eq!(committed(&mut client, &longest).await.0, 1);
    });
}

/// A broker whose log takes no more than 1 MiB at once.
async fn narrow() -> (Broker, Client) {
    let mut config = quick();
    (config.journal_bytes, config.journal_files) = (8 << 20, 4);
    config.offsets_topic_partitions = 1;
    let broker = Broker::with(config).await;
    let mut client = broker.client().await;
    client.create("t", 600, &[]).await;
    assert_eq!(find(&mut client, "g").await, 0);
    (broker, client)
}

#[test]
fn a_group_that_is_too_large_for_the_log_is_told_so_and_holds_up_no_other() {
    run(async {
        let (broker, mut client) = narrow().await;
        let mut large = Member::of(broker.node.address(), "large").await;
        large.join().await;
        for _ in 0..3 {
            large.ask_to_sync(&[(large.id.clone(), Bytes::from(vec![b'x'; 1 << 20]))]).await;
            for number in 0..20 {
                client.send(7, &commit_request(&format!("small-{number}"), number, "")).await;
            }
            for _ in 0..20 {
                let (_, answer) = client.answer::<OffsetCommitRequest>(7).await;
                assert_eq!(answer.topics[0].partitions[0].error_code, 0);
            }
            assert_eq!(large.synced().await.0, ResponseError::MessageTooLarge.code());
        }
        let fits = Bytes::from(vec![b'x'; 1_000_000]);
        assert_eq!(large.sync(&[(large.id.clone(), fits.clone())]).await, (0, fits));
    });
}

#[test]
fn many_large_groups_at_once_are_written_one_after_the_other() {
    run(async {
        let (broker, _) = narrow().await;
        let mut members = Vec::new();
        for number in 0..8 {
            let mut member = Member::of(broker.node.address(), &format!("large-{number}")).await;
            member.join().await;
            members.push(member);
        }
        let fits = Bytes::from(vec![b'x'; 900_000]);
        for member in &mut members {
            member.ask_to_sync(&[(member.id.clone(), fits.clone())]).await;
        }
        for member in &mut members {
            assert_eq!(member.synced().await, (0, fits.clone()));
        }
    });
}

#[test]
fn a_commit_that_is_too_large_for_the_log_is_refused_and_changes_nothing() {
    run(async {
        let (_broker, mut client) = narrow().await;
        let commit_all = |partitions: i32| {
            let mut request = commit_request("g", 7, &"m".repeat(4_096));
            let part = request.topics[0].partitions[0].clone();
            request.topics[0].partitions =
                (0..partitions).map(|number| part.clone().with_partition_index(number)).collect();
            request
        };
        let codes = async |client: &mut Client, request: &OffsetCommitRequest| -> BTreeSet<i16> {
            let answer = client.call(7, request).await;
            answer.topics[0].partitions.iter().map(|partition| partition.error_code).collect()
        };
        let refused = codes(&mut client, &commit_all(600)).await;
        assert_eq!(refused, BTreeSet::from([ResponseError::InvalidCommitOffsetSize.code()]));
        assert_eq!(committed(&mut client, "g").await.0, -1);
        assert_eq!(codes(&mut client, &commit_all(200)).await, BTreeSet::from([0]));
        assert_eq!(committed(&mut client, "g").await.0, 7);
    });
}
