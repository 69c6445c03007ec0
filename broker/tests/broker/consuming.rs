//! Fetch and ListOffsets.

use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::FetchRequest;
use kafka_protocol::messages::list_offsets_request::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use weir_runtime::time;

use crate::support::{Broker, Client, batch, batch_at, fetch_request, run, topic, until, values};

#[test]
fn k06_a_fetch_inside_a_batch_returns_the_whole_batch() {
    run(async {
        let broker = Broker::start().await;
        let mut client = broker.client().await;
        client.create("inside", 1, &[]).await;
        client.produce("inside", 0, batch(&[b"0", b"1", b"2"])).await;
        client.produce("inside", 0, batch(&[b"3", b"4"])).await;
        let fetched = client.fetch("inside", 0, 1).await;
        let offsets: Vec<i64> = values(fetched.records).into_iter().map(|(offset, _)| offset).collect();
        assert_eq!(offsets, [0, 1, 2, 3, 4], "clients skip what lies before their offset");
        assert_eq!(fetched.high_watermark, 5);
        assert_eq!(fetched.last_stable_offset, 5);
        assert_eq!(values(client.fetch("inside", 0, 5).await.records), [], "the end is no error");
    });
}

#[test]
fn k06_the_first_batch_comes_whatever_its_size_and_later_ones_respect_the_limits() {
    run(async {
        let broker = Broker::start().await;
        let mut client = broker.client().await;
        client.create("limits", 2, &[]).await;
        let large = vec![b'x'; 10_000];
        for partition in 0..2 {
            for _ in 0..3 {
                client.produce("limits", partition, batch(&[&large])).await;
            }
        }
        let mut request = fetch_request("limits", 0, 0);
        let second = request.topics[0].partitions[0].clone().with_partition(1);
        request.topics[0].partitions.push(second);
        let counts = async |client: &mut Client, request: &FetchRequest| -> Vec<usize> {
            let response = client.call(11, request).await;
            let partitions = response.responses[0].partitions.iter();
            partitions.map(|partition| values(partition.records.clone()).len()).collect()
        };
        request.max_bytes = 1;
        assert_eq!(counts(&mut client, &request).await, [1, 0], "one batch in all");
        request.max_bytes = 1 << 20;
        request.topics[0].partitions[0].partition_max_bytes = 1;
        request.topics[0].partitions[1].partition_max_bytes = 25_000;
        assert_eq!(counts(&mut client, &request).await, [1, 2], "each partition's own limit");
        request.max_bytes = 35_000;
        request.topics[0].partitions[0].partition_max_bytes = 1 << 20;
        request.topics[0].partitions[1].partition_max_bytes = 1 << 20;
        assert_eq!(counts(&mut client, &request).await, [3, 0], "nothing is left for the second");
    });
}

#[test]
fn k06_a_fetch_waits_for_its_bytes_and_no_longer_than_it_wants() {
    run(async {
        let broker = Broker::start().await;
        let (mut consumer, mut producer) = (broker.client().await, broker.client().await);
        producer.create("poll", 3, &[]).await;
        let mut request = fetch_request("poll", 1, 0);
        request.max_wait_ms = 200;
        let started = time::now();
        let response = consumer.call(11, &request).await;
        assert_eq!(values(response.responses[0].partitions[0].records.clone()), []);
        assert!(started.elapsed() >= Duration::from_millis(190), "it waited");
        request.max_wait_ms = 15_000;
        let sent = consumer.send(11, &request).await;
        producer.produce("poll", 0, batch(&[b"elsewhere"])).await;
        producer.produce("poll", 1, batch(&[b"here"])).await;
        let (id, response) = consumer.answer::<FetchRequest>(11).await;
        assert_eq!(id, sent);
        assert_eq!(values(response.responses[0].partitions[0].records.clone()), [(0, b"here".to_vec())]);
        assert!(started.elapsed() < Duration::from_secs(10), "it was woken");
        request.min_bytes = 5_000;
        let sent = consumer.send(11, &request).await;
        producer.produce("poll", 1, batch(&[&[b'x'; 4_000]])).await;
        producer.produce("poll", 1, batch(&[&[b'y'; 4_000]])).await;
        let (id, response) = consumer.answer::<FetchRequest>(11).await;
        assert_eq!(id, sent);
        assert_eq!(values(response.responses[0].partitions[0].records.clone()).len(), 3, "enough bytes");
    });
}

#[test]
fn a_session_that_is_not_known_is_refused() {
    run(async {
        let broker = Broker::start().await;
        let mut client = broker.client().await;
        client.create("sessions", 1, &[]).await;
        let mut request = fetch_request("sessions", 0, 0);
        request.session_epoch = 0;
        let response = client.call(11, &request).await;
        assert_eq!((response.error_code, response.responses.len()), (0, 1), "a full answer");
        request.session_epoch = 1;
        let response = client.call(11, &request).await;
        assert_eq!(response.error_code, ResponseError::InvalidFetchSessionEpoch.code());
        request.session_id = 77;
        let response = client.call(11, &request).await;
        assert_eq!(response.error_code, ResponseError::FetchSessionIdNotFound.code());
    });
}

async fn offset_at(client: &mut Client, version: i16, timestamp: i64) -> (i16, i64, i64) {
    let partition = ListOffsetsPartition::default()
        .with_partition_index(0)
        .with_timestamp(timestamp)
        .with_current_leader_epoch(-1);
    let wanted = ListOffsetsTopic::default().with_name(topic("times")).with_partitions(vec![partition]);
    let request = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![wanted]);
    let response = client.call(version, &request).await;
    let found = &response.topics[0].partitions[0];
    (found.error_code, found.offset, found.timestamp)
}

#[test]
fn k18_offsets_are_found_by_position_and_by_time() {
    run(async {
        let broker = Broker::start().await;
        let mut client = broker.client().await;
        client.create("times", 1, &[]).await;
        assert_eq!(offset_at(&mut client, 7, -1).await, (0, 0, -1));
        let start = time::wall_ms() - 10_000;
        for round in 0..5 {
            client.produce("times", 0, batch_at(start + 100 * round, &[b"a", b"b"])).await;
        }
        for version in 1..=7 {
            assert_eq!(offset_at(&mut client, version, -2).await, (0, 0, -1), "earliest, version {version}");
            assert_eq!(offset_at(&mut client, version, -1).await, (0, 10, -1), "latest, version {version}");
        }
        assert_eq!(offset_at(&mut client, 7, start).await, (0, 0, start));
        assert_eq!(offset_at(&mut client, 7, start + 101).await, (0, 3, start + 101));
        assert_eq!(
            offset_at(&mut client, 7, start + 102).await,
            (0, 4, start + 200),
            "the next that is not earlier"
        );
        assert_eq!(offset_at(&mut client, 7, start + 9_000).await, (0, -1, -1), "there is none");
        assert_eq!(offset_at(&mut client, 7, -3).await, (0, 9, start + 401), "the largest timestamp");
    });
}

#[test]
fn k18_an_offset_comes_with_the_epoch_of_its_record_and_a_client_that_knows_another_leader_is_told() {
    run(async {
        let broker = Broker::start().await;
        let mut client = broker.client().await;
        client.create("times", 1, &[]).await;
        client.produce("times", 0, batch_at(1_000, &[b"a"])).await;
        let before = client.metadata(9, Some(&["times"]), false).await.topics[0].partitions[0].leader_epoch;
        let broker = broker.restart().await;
        let mut client = broker.client().await;
        client.produce("times", 0, batch_at(2_000, &[b"b"])).await;
        let now = client.metadata(9, Some(&["times"]), false).await.topics[0].partitions[0].leader_epoch;
        assert!(before < now, "each life leads in an epoch of its own");
        let mut ask = async |version: i16, timestamp: i64, known: i32, isolation: i8| {
            let partition = ListOffsetsPartition::default()
                .with_partition_index(0)
                .with_timestamp(timestamp)
                .with_current_leader_epoch(known);
            let wanted =
                ListOffsetsTopic::default().with_name(topic("times")).with_partitions(vec![partition]);
            let request = ListOffsetsRequest::default()
                .with_replica_id((-1).into())
                .with_isolation_level(isolation)
                .with_topics(vec![wanted]);
            let found = client.call(version, &request).await.topics.remove(0).partitions.remove(0);
            (found.error_code, found.offset, found.leader_epoch)
        };
        for (timestamp, expected) in [
            (1_000, (0, 0, before)),
            (-2, (0, 0, before)),
            (2_000, (0, 1, now)),
            (-3, (0, 1, now)),
            (-1, (0, 2, now)),
        ] {
            assert_eq!(ask(7, timestamp, -1, 0).await, expected, "{timestamp}");
            assert_eq!(ask(7, timestamp, now, 1).await, expected, "{timestamp}, read_committed");
        }
        assert_eq!(ask(3, 2_000, -1, 0).await, (0, 1, -1), "version 3 has no epochs");
        assert_eq!(ask(7, -1, before, 0).await.0, ResponseError::FencedLeaderEpoch.code());
        assert_eq!(ask(7, -1, now + 1, 0).await.0, ResponseError::UnknownLeaderEpoch.code());
    });
}

#[test]
fn a_client_that_goes_away_while_its_fetch_is_parked_leaves_the_others_served() {
    run(async {
        let broker = Broker::start().await;
        let mut producer = broker.client().await;
        producer.create("left", 1, &[]).await;
        for _ in 0..50 {
            let mut consumer = broker.client().await;
            let mut request = fetch_request("left", 0, 0);
            request.max_wait_ms = 60_000;
            consumer.send(11, &request).await;
            drop(consumer);
        }
        let metrics = broker.node.metrics();
        until("they are gone", || metrics.connections_open.get() == 1).await;
        producer.produce("left", 0, batch(&[b"value"])).await;
        assert_eq!(values(producer.fetch("left", 0, 0).await.records).len(), 1);
    });
}
