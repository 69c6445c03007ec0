use kafka_protocol::error::ResponseError;
use weir_wire::kafka::messages::ApiKey;
use weir_wire::records::{BatchBuilder, CRC_START, batches};

use super::*;
use crate::fake_broker::{FakeCluster, Fault, run};
use crate::{Compression, Producer, ProducerConfig, ProducerRecord};

const SOON: Duration = Duration::from_millis(500);

fn at(partition: i32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

fn batch(values: &[&str], timestamp_ms: i64) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    for (n, value) in (0..).zip(values) {
        builder.push(timestamp_ms + n, None, Some(value.as_bytes()), &[]).unwrap();
    }
    builder.finish().unwrap()
}

async fn start(config: ConsumerConfig) -> (FakeCluster, Consumer) {
    let cluster = FakeCluster::start(2).await;
    cluster.topic("t", 3);
    let config = ConsumerConfig { fetch_wait_max: Duration::from_millis(20), ..config };
    let consumer = Consumer::new(&cluster.client().await, config);
    (cluster, consumer)
}

fn append(cluster: &FakeCluster, partition: usize, values: &[&str], timestamp_ms: i64) {
    cluster.state().topics.get_mut("t").unwrap()[partition].append(batch(values, timestamp_ms));
}

fn values(polled: &Polled) -> Vec<String> {
    polled.records().map(|(_, r)| String::from_utf8_lossy(r.value.as_deref().unwrap()).into_owned()).collect()
}

/// Polls until so many records are there.
async fn read(consumer: &mut Consumer, count: usize) -> Vec<String> {
    let mut all = Vec::new();
    while all.len() < count {
        let polled = consumer.poll(SOON).await;
        assert!(polled.failures.is_empty(), "{:?}", polled.failures);
        all.extend(values(&polled));
    }
    all
}

#[test]
fn records_come_in_order_with_their_positions_from_beginning_end_offset_and_time() {
    run(async {
        let (cluster, mut consumer) = start(ConsumerConfig::default()).await;
        append(&cluster, 0, &["a", "b", "c"], 1000);
        append(&cluster, 0, &["d", "e"], 2000);
        for (start, expected) in [
            (Start::Beginning, &["a", "b", "c", "d", "e"][..]),
            (Start::Offset(1), &["b", "c", "d", "e"]),
            (Start::Time(1500), &["d", "e"]),
            (Start::Time(0), &["a", "b", "c", "d", "e"]),
        ] {
            consumer.assign([(at(0), start)]);
            assert_eq!(read(&mut consumer, expected.len()).await, expected, "{start:?}");
            assert_eq!(consumer.position(&at(0)), Some(5));
        }
        for start in [Start::End, Start::Time(9000)] {
            consumer.assign([(at(0), start)]);
            assert!(consumer.poll(Duration::from_millis(50)).await.is_empty());
            assert_eq!(consumer.position(&at(0)), Some(5), "{start:?}");
        }
        append(&cluster, 0, &["f"], 3000);
        let polled = consumer.poll(SOON).await;
        let part = &polled.partitions[0];
        assert_eq!((part.from, part.next, part.high_watermark), (5, 6, 6));
        assert_eq!(values(&polled), ["f"]);
    });
}

#[test]
fn what_a_producer_wrote_is_read_whole_with_every_codec() {
    run(async {
        for compression in Compression::ALL {
            let (cluster, mut consumer) = start(ConsumerConfig::default()).await;
            let client = cluster.client().await;
            let producer =
                Producer::new(&client, ProducerConfig { compression, ..ProducerConfig::default() });
            let header = ("h".to_owned(), Some(Bytes::from_static(b"1")));
            let record = ProducerRecord {
                topic: "t".to_owned(),
                partition: Some(1),
                key: Some(Bytes::from_static(b"k")),
                value: None,
                headers: vec![header.clone(), header],
                timestamp_ms: Some(77),
            };
            producer.send(record).await.unwrap().await.unwrap();
            consumer.assign([(at(1), Start::Beginning)]);
            let polled = consumer.poll(SOON).await;
            let read = &polled.partitions[0].records[0];
            assert_eq!(
                (read.key.as_deref(), read.value.as_deref(), read.timestamp_ms),
                (Some(&b"k"[..]), None, 77)
            );
            let header = (Bytes::from_static(b"h"), Some(Bytes::from_static(b"1")));
            assert_eq!(read.headers, [header.clone(), header]);
        }
    });
}

#[test]
fn a_poll_hands_out_no_more_than_it_may_and_no_partition_starves() {
    run(async {
        let (cluster, mut consumer) =
            start(ConsumerConfig { poll_records_max: 2, ..Default::default() }).await;
        for partition in 0..3 {
            append(&cluster, partition, &["a", "b", "c", "d"], 0);
        }
        consumer.assign((0..3).map(|partition| (at(partition), Start::Beginning)));
        // What comes first is handed out first: the turns begin when all of them have come.
        while !consumer.assigned.values().all(|assigned| assigned.buffered.is_some()) {
            let now = time::now();
            consumer.start_requests(now);
            let wake = consumer.next_attempt(now).unwrap_or(now + SOON);
            weir_runtime::select! {
                event = consumer.in_flight.next() => consumer.on_event(event),
                () = time::sleep_until(wake) => {}
            }
        }
        let mut order = Vec::new();
        for _ in 0..6 {
            let polled = consumer.poll(SOON).await;
            assert_eq!(polled.records().count(), 2);
            order.push(polled.partitions[0].partition.partition);
        }
        assert_eq!(order, [0, 1, 2, 0, 1, 2]);
    });
}

#[test]
fn a_seek_makes_void_what_is_under_way_and_what_is_buffered() {
    run(async {
        let (cluster, mut consumer) =
            start(ConsumerConfig { poll_records_max: 1, ..Default::default() }).await;
        append(&cluster, 0, &["a", "b", "c"], 0);
        consumer.assign([(at(0), Start::Beginning)]);
        assert_eq!(values(&consumer.poll(SOON).await), ["a"]);
        consumer.seek(&at(0), Start::Offset(2)).unwrap();
        assert_eq!(values(&consumer.poll(SOON).await), ["c"]);
        // A fetch at the end is under way when the seek comes.
        assert!(consumer.poll(Duration::from_millis(5)).await.is_empty());
        consumer.seek(&at(0), Start::Beginning).unwrap();
        assert_eq!(values(&consumer.poll(SOON).await), ["a"]);
        assert!(consumer.seek(&at(1), Start::End).is_err());
    });
}

#[test]
fn a_batch_whose_checksum_is_wrong_is_not_handed_out_and_a_seek_steps_over_it() {
    run(async {
        let (cluster, mut consumer) = start(ConsumerConfig::default()).await;
        append(&cluster, 0, &["a", "b"], 0);
        append(&cluster, 0, &["c", "d"], 0);
        append(&cluster, 0, &["e"], 0);
        {
            let mut state = cluster.state();
            let (_, _, bytes) = &mut state.topics.get_mut("t").unwrap()[0].batches[1];
            let mut damaged = bytes.to_vec();
            damaged[CRC_START + 45] ^= 1;
            *bytes = damaged.into();
        }
        consumer.assign([(at(0), Start::Beginning)]);
        let polled = consumer.poll(SOON).await;
        assert_eq!(values(&polled), ["a", "b"], "what comes before is good");
        let failure = &polled.failures[0];
        assert!(failure.stopped && matches!(failure.error, Error::Corrupt { offset: 2, .. }), "{failure:?}");
        assert!(consumer.poll(Duration::from_millis(50)).await.is_empty(), "it is told once");
        consumer.seek(&at(0), Start::Offset(3)).unwrap();
        let polled = consumer.poll(SOON).await;
        assert!(
            matches!(polled.failures[0].error, Error::Corrupt { offset: 3, .. }),
            "still inside the batch"
        );
        consumer.seek(&at(0), Start::Offset(4)).unwrap();
        assert_eq!(read(&mut consumer, 1).await, ["e"]);
    });
}

#[test]
fn damage_that_the_broker_reports_names_partition_and_offset() {
    run(async {
        let (cluster, mut consumer) = start(ConsumerConfig::default()).await;
        append(&cluster, 0, &["a", "b"], 0);
        cluster.fault(ApiKey::Fetch, Fault::Error(ResponseError::CorruptMessage));
        consumer.assign([(at(0), Start::Offset(1))]);
        let polled = consumer.poll(SOON).await;
        let failure = &polled.failures[0];
        assert_eq!((failure.offset, failure.stopped), (1, true));
        let text = failure.error.to_string();
        assert!(
            text.contains("t-0") && text.contains("offset 1") && text.contains("CORRUPT_MESSAGE"),
            "{text}"
        );
        consumer.seek(&at(0), Start::Offset(1)).unwrap();
        assert_eq!(read(&mut consumer, 1).await, ["b"], "the same offset may be tried again");
    });
}

#[test]
fn a_position_that_is_not_in_the_log_stops_or_goes_where_it_was_told() {
    run(async {
        let (cluster, mut consumer) = start(ConsumerConfig::default()).await;
        append(&cluster, 0, &["a"], 0);
        consumer.assign([(at(0), Start::Offset(7))]);
        let polled = consumer.poll(SOON).await;
        assert!(matches!(polled.failures[0].error, Error::OffsetOutOfRange { offset: 7, .. }));
        assert!(polled.failures[0].stopped);

        consumer.config.out_of_range = Some(Start::Beginning);
        consumer.assign([(at(0), Start::Offset(7))]);
        let polled = consumer.poll(SOON).await;
        assert!(!polled.failures[0].stopped, "it is told, and goes on");
        assert_eq!(read(&mut consumer, 1).await, ["a"]);
    });
}

#[test]
fn a_log_that_was_cut_below_the_position_is_told_and_read_from_the_cut_on_where_that_is_wanted() {
    run(async {
        let (cluster, mut consumer) = start(ConsumerConfig::default()).await;
        append(&cluster, 0, &["a", "b"], 0);
        consumer.assign([(at(0), Start::Beginning)]);
        assert_eq!(read(&mut consumer, 2).await, ["a", "b"]);
        let cut = |at| cluster.state().topics.get_mut("t").unwrap()[0].cut_at = at;
        let (_, epoch) = consumer.position_and_epoch(&at(0)).unwrap();
        cut(Some((epoch.unwrap(), 1)));
        let polled = consumer.poll(SOON).await;
        let failure = &polled.failures[0];
        assert!(matches!(failure.error, Error::Truncated { offset: 2, end: 1, .. }), "{failure:?}");
        assert!(failure.stopped, "it has no orders where to go");

        cut(None);
        consumer.config.out_of_range = Some(Start::Beginning);
        consumer.assign([(at(0), Start::Beginning)]);
        assert_eq!(read(&mut consumer, 2).await, ["a", "b"]);
        cut(Some((epoch.unwrap(), 1)));
        assert!(!consumer.poll(SOON).await.failures[0].stopped, "it is told, and goes on");
        assert_eq!(read(&mut consumer, 1).await, ["b"], "from the cut on");
    });
}

/// Compaction leaves a batch without records at the end of a log. Whoever asks for what comes next must name its epoch, or the
/// broker takes the position for one that was cut.
#[test]
fn the_epoch_of_a_batch_without_records_counts() {
    run(async {
        let (cluster, mut consumer) = start(ConsumerConfig::default()).await;
        let begin_epoch = |epoch| cluster.state().topics.get_mut("t").unwrap()[0].epoch = epoch;
        let append_emptied = || {
            let emptied = batches(batch(&["gone"], 0)).next().unwrap().unwrap().emptied();
            cluster.state().topics.get_mut("t").unwrap()[0].append(emptied)
        };
        append(&cluster, 0, &["a"], 0);
        begin_epoch(1);
        append_emptied();
        consumer.assign([(at(0), Start::Beginning)]);
        assert_eq!(read(&mut consumer, 1).await, ["a"]);
        assert_eq!(consumer.position_and_epoch(&at(0)), Some((2, Some(1))), "behind records in one answer");

        begin_epoch(2);
        append_emptied();
        while consumer.position_and_epoch(&at(0)) != Some((3, Some(2))) {
            let polled = consumer.poll(SOON).await;
            assert!(polled.is_empty(), "{polled:?}");
        }
    });
}

#[test]
fn errors_that_pass_are_sat_out_and_a_leader_that_moved_is_found() {
    run(async {
        let (cluster, mut consumer) = start(ConsumerConfig::default()).await;
        append(&cluster, 0, &["a"], 0);
        cluster.fault(ApiKey::ListOffsets, Fault::Error(ResponseError::NotLeaderOrFollower));
        cluster.fault(ApiKey::ListOffsets, Fault::CloseBefore);
        cluster.fault(ApiKey::Fetch, Fault::CloseBefore);
        cluster.fault(ApiKey::Fetch, Fault::Silence);
        cluster.fault(ApiKey::Fetch, Fault::Error(ResponseError::UnknownLeaderEpoch));
        consumer.assign([(at(0), Start::Beginning)]);
        assert_eq!(read(&mut consumer, 1).await, ["a"]);
        {
            let mut state = cluster.state();
            let log = &mut state.topics.get_mut("t").unwrap()[0];
            (log.leader, log.epoch) = (1, 1);
        }
        append(&cluster, 0, &["b"], 0);
        assert_eq!(read(&mut consumer, 1).await, ["b"]);
        assert!(cluster.state().seen.contains(&(1, ApiKey::Fetch, 12)));
    });
}

#[test]
fn nothing_is_lost_when_a_poll_is_dropped() {
    run(async {
        let (cluster, mut consumer) = start(ConsumerConfig::default()).await;
        consumer.assign([(at(0), Start::Beginning)]);
        let mut all = Vec::new();
        for n in 0..50 {
            append(&cluster, 0, &[&n.to_string()], 0);
            if let Ok(polled) = time::timeout(Duration::from_millis(n % 5), consumer.poll(SOON)).await {
                all.extend(values(&polled));
            }
        }
        let missing = 50 - all.len();
        all.extend(read(&mut consumer, missing).await);
        let expected: Vec<String> = (0..50).map(|n| n.to_string()).collect();
        assert_eq!(all, expected);
    });
}

#[test]
fn a_fetch_that_waits_for_records_holds_up_nobody_else_of_the_client() {
    run(async {
        let cluster = FakeCluster::start(1).await;
        cluster.topic("t", 2);
        let client = cluster.client().await;
        let waits = ConsumerConfig { fetch_wait_max: Duration::from_secs(20), ..Default::default() };
        let mut idle = Consumer::new(&client, waits.clone());
        idle.assign([(at(0), Start::Beginning)]);
        assert!(idle.poll(Duration::from_millis(50)).await.is_empty());
        let producer = Producer::new(&client, ProducerConfig::default());
        let record = ProducerRecord { topic: "t".to_owned(), partition: Some(1), ..Default::default() };
        let before = time::now();
        producer.send(record).await.unwrap().await.unwrap();
        let mut other = Consumer::new(&client, waits);
        other.assign([(at(1), Start::Beginning)]);
        assert_eq!(other.poll(SOON).await.records().count(), 1);
        assert!(before.elapsed() < Duration::from_secs(5));
    });
}

#[test]
fn whoever_is_named_in_the_leaders_place_is_asked_at_once() {
    run(async {
        let cluster = FakeCluster::start(2).await;
        cluster.topic("t", 1);
        cluster.state().hints = true;
        let slow = Duration::from_secs(60);
        let config = crate::ClientConfig { retry_backoff: slow, retry_backoff_max: slow, ..cluster.config() };
        let client = Client::connect(config).await.unwrap();
        client.partitions("t").await.unwrap();
        let fetch_wait_max = Duration::from_millis(20);
        let mut consumer = Consumer::new(&client, ConsumerConfig { fetch_wait_max, ..Default::default() });
        append(&cluster, 0, &["a"], 1000);
        consumer.assign([(at(0), Start::Beginning)]);
        assert_eq!(read(&mut consumer, 1).await, ["a"]);
        cluster.elect("t", 0, 1);
        append(&cluster, 0, &["b"], 1001);
        let asked = cluster.requests(ApiKey::Metadata);
        assert_eq!(read(&mut consumer, 1).await, ["b"]);
        assert_eq!(cluster.requests(ApiKey::Metadata), asked, "nobody was asked who leads");
    });
}
