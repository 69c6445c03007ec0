use kafka_protocol::error::ResponseError;
use weir_wire::kafka::messages::ApiKey;

use super::*;
use crate::fake_broker::{FakeCluster, Fault, run};

fn config() -> ProducerConfig {
    ProducerConfig {
        linger: Duration::from_millis(2),
        request_timeout: Duration::from_millis(200),
        delivery_timeout: Duration::from_secs(3),
        ..ProducerConfig::default()
    }
}

fn record(partition: i32, value: impl Into<String>) -> ProducerRecord {
    ProducerRecord {
        topic: "t".to_owned(),
        partition: Some(partition),
        value: Some(Bytes::from(value.into())),
        ..ProducerRecord::default()
    }
}

async fn start(config: ProducerConfig) -> (FakeCluster, Producer) {
    let cluster = FakeCluster::start(2).await;
    cluster.topic("t", 3);
    let producer = Producer::new(&cluster.client().await, config);
    (cluster, producer)
}

#[test]
fn records_get_their_offsets_in_order_with_every_codec() {
    run(async {
        for compression in Compression::ALL {
            let (cluster, producer) = start(ProducerConfig { compression, ..config() }).await;
            let mut deliveries = Vec::new();
            for n in 0..100 {
                deliveries.push(producer.send(record(n % 3, n.to_string())).await.unwrap());
            }
            producer.flush().await.unwrap();
            for (n, delivery) in (0..).zip(deliveries) {
                let produced = delivery.await.unwrap();
                assert_eq!((produced.partition.partition, produced.offset), (n % 3, Some(i64::from(n / 3))));
            }
            let expected: Vec<String> = (0..100).filter(|n| n % 3 == 1).map(|n| n.to_string()).collect();
            assert_eq!(cluster.values("t", 1), expected);
            assert!(cluster.requests(ApiKey::Produce) < 50, "records travel in batches");
        }
    });
}

#[test]
fn acks_0_has_no_offset_and_waits_for_no_answer() {
    run(async {
        let (cluster, producer) = start(ProducerConfig { acks: Acks::None, ..config() }).await;
        let produced = producer.send(record(0, "a")).await.unwrap().await.unwrap();
        assert_eq!(produced.offset, None);
        while cluster.values("t", 0).is_empty() {
            task::yield_now().await;
        }
    });
}

#[test]
fn errors_that_pass_are_sat_out_and_order_is_kept() {
    run(async {
        let (cluster, producer) = start(ProducerConfig { batch_bytes: 100, ..config() }).await;
        for error in [ResponseError::NotLeaderOrFollower, ResponseError::NotEnoughReplicas] {
            cluster.fault(ApiKey::Produce, Fault::Error(error));
        }
        cluster.fault(ApiKey::Produce, Fault::CloseBefore);
        cluster.fault(ApiKey::Produce, Fault::Silence);
        let mut deliveries = Vec::new();
        for n in 0..20 {
            deliveries.push(producer.send(record(0, n.to_string())).await.unwrap());
        }
        for (n, delivery) in (0..).zip(deliveries) {
            assert_eq!(delivery.await.unwrap().offset, Some(n));
        }
        let expected: Vec<String> = (0..20).map(|n| n.to_string()).collect();
        assert_eq!(cluster.values("t", 0), expected);
    });
}

#[test]
fn a_leader_that_moved_is_found() {
    run(async {
        let (cluster, producer) = start(config()).await;
        producer.send(record(0, "a")).await.unwrap().await.unwrap();
        {
            let mut state = cluster.state();
            let log = &mut state.topics.get_mut("t").unwrap()[0];
            (log.leader, log.epoch) = (1, 1);
        }
        assert_eq!(producer.send(record(0, "b")).await.unwrap().await.unwrap().offset, Some(1));
        let last = cluster.state().seen.iter().rev().find(|(_, api, _)| *api == ApiKey::Produce).copied();
        assert_eq!(last.map(|(node, _, _)| node), Some(1));
    });
}

#[test]
fn a_lost_answer_is_repeated_and_may_write_twice() {
    run(async {
        let (cluster, producer) = start(ProducerConfig { enable_idempotence: false, ..config() }).await;
        cluster.fault(ApiKey::Produce, Fault::CloseAfter);
        let produced = producer.send(record(0, "a")).await.unwrap().await.unwrap();
        assert_eq!(produced.offset, Some(1), "the offset of the attempt that was answered");
        assert_eq!(cluster.values("t", 0), ["a", "a"]);
    });
}

#[test]
fn without_retries_a_lost_answer_is_told_as_perhaps_written() {
    run(async {
        let (cluster, producer) = start(ProducerConfig { retries: false, ..config() }).await;
        for fault in [
            Fault::CloseAfter,
            Fault::Silence,
            Fault::ErrorAfter(ResponseError::NotEnoughReplicasAfterAppend),
        ] {
            cluster.fault(ApiKey::Produce, fault);
            let error = producer.send(record(0, "a")).await.unwrap().await.unwrap_err();
            assert!(error.may_have_been_written, "{error}");
        }
        assert_eq!(cluster.values("t", 0), ["a", "a"]);
        // What certainly was not written is sent again all the same.
        cluster.fault(ApiKey::Produce, Fault::Error(ResponseError::NotEnoughReplicas));
        producer.send(record(1, "b")).await.unwrap().await.unwrap();
        assert_eq!(cluster.values("t", 1), ["b"]);
    });
}

#[test]
fn an_error_for_good_fails_the_record_with_its_name_and_the_next_goes_on() {
    run(async {
        let (cluster, producer) = start(config()).await;
        cluster.fault(ApiKey::Produce, Fault::Error(ResponseError::InvalidRecord));
        let error = producer.send(record(0, "a")).await.unwrap().await.unwrap_err();
        assert!(!error.may_have_been_written);
        let text = error.to_string();
        assert!(
            text.contains("INVALID_RECORD") && text.contains("t-0") && text.contains("127.0.0.1:"),
            "{text}"
        );
        producer.send(record(0, "b")).await.unwrap().await.unwrap();
        assert_eq!(cluster.values("t", 0), ["b"]);
    });
}

#[test]
fn once_a_record_may_have_been_written_no_later_refusal_takes_that_back() {
    run(async {
        let (cluster, producer) = start(config()).await;
        cluster.fault(ApiKey::Produce, Fault::CloseAfter);
        cluster.fault(ApiKey::Produce, Fault::Error(ResponseError::InvalidRecord));
        let error = producer.send(record(0, "a")).await.unwrap().await.unwrap_err();
        assert!(error.may_have_been_written, "{error}");
    });
}

#[test]
fn a_record_is_given_up_when_its_time_is_over() {
    run(async {
        let delivery_timeout = Duration::from_millis(150);
        let (cluster, producer) = start(ProducerConfig { delivery_timeout, ..config() }).await;
        for _ in 0..1000 {
            cluster.fault(ApiKey::Produce, Fault::Error(ResponseError::NotEnoughReplicas));
        }
        let before = time::now();
        let error = producer.send(record(0, "a")).await.unwrap().await.unwrap_err();
        assert!(!error.may_have_been_written, "{error}");
        assert!(before.elapsed() < delivery_timeout * 3);
        producer.flush().await.unwrap();
    });
}

#[test]
fn a_batch_that_the_broker_finds_too_large_is_split_and_a_flush_waits_for_all_of_it() {
    run(async {
        let (cluster, producer) = start(ProducerConfig { linger: Duration::from_secs(10), ..config() }).await;
        cluster.fault(ApiKey::Produce, Fault::Error(ResponseError::MessageTooLarge));
        let mut deliveries = Vec::new();
        for n in 0..5 {
            deliveries.push(producer.send(record(0, n.to_string())).await.unwrap());
        }
        producer.flush().await.unwrap();
        assert_eq!(cluster.values("t", 0), ["0", "1", "2", "3", "4"]);
        assert_eq!(cluster.requests(ApiKey::Produce), 3);
        for (n, delivery) in (0..).zip(deliveries) {
            assert_eq!(delivery.await.unwrap().offset, Some(n));
        }
    });
}

#[test]
fn memory_is_bounded_and_given_back() {
    run(async {
        let memory_bytes = 4096;
        let (cluster, producer) = start(ProducerConfig { memory_bytes, batch_bytes: 1024, ..config() }).await;
        for n in 0..200 {
            producer.send(record(n % 3, "x".repeat(500))).await.unwrap();
        }
        producer.flush().await.unwrap();
        assert_eq!((0..3).map(|partition| cluster.values("t", partition).len()).sum::<usize>(), 200);
        assert_eq!(producer.memory.available_permits(), memory_bytes);
        let error = producer.send(record(0, "x".repeat(5000))).await.unwrap_err();
        assert!(matches!(error.source, Error::TooLarge { limit: 4096, .. }), "{error}");
    });
}

#[test]
fn what_was_given_is_still_sent_when_the_producer_is_gone() {
    run(async {
        let (cluster, producer) =
            start(ProducerConfig { linger: Duration::from_secs(100), ..config() }).await;
        let delivery = producer.send(record(2, "last")).await.unwrap();
        drop(producer);
        assert_eq!(delivery.await.unwrap().offset, Some(0));
        assert_eq!(cluster.values("t", 2), ["last"]);
    });
}

#[test]
fn a_partition_that_does_not_exist_is_refused_at_once() {
    run(async {
        let (_cluster, producer) = start(config()).await;
        let error = producer.send(record(3, "a")).await.unwrap_err();
        assert!(matches!(error.source, Error::Invalid(_)) && !error.may_have_been_written, "{error}");
    });
}

#[test]
fn keys_go_where_javas_client_puts_them() {
    run(async {
        let (_cluster, producer) = start(config()).await;
        let key = Bytes::from_static(b"foobar");
        let keyed = ProducerRecord { partition: None, key: Some(key), ..record(0, "v") };
        let delivery = producer.send(keyed).await.unwrap();
        // murmur2("foobar") is -790332482.
        assert_eq!(delivery.partition().partition, (-790_332_482 & i32::MAX) % 3);
    });
}

/// A cluster whose nodes say who leads instead, and a client that would not ask for it soon.
async fn start_with_hints() -> (FakeCluster, crate::Client) {
    let cluster = FakeCluster::start(2).await;
    cluster.topic("t", 3);
    cluster.state().hints = true;
    let slow = Duration::from_secs(60);
    let config = crate::ClientConfig { retry_backoff: slow, retry_backoff_max: slow, ..cluster.config() };
    let client = crate::Client::connect(config).await.unwrap();
    (cluster, client)
}

#[test]
fn whoever_is_named_in_the_leaders_place_gets_the_batch_at_once() {
    run(async {
        let (cluster, client) = start_with_hints().await;
        let producer = Producer::new(&client, config());
        producer.send(record(0, "before")).await.unwrap().await.unwrap();
        cluster.elect("t", 0, 1);
        let asked = cluster.requests(ApiKey::Metadata);
        assert_eq!(producer.send(record(0, "after")).await.unwrap().await.unwrap().offset, Some(1));
        assert_eq!(cluster.requests(ApiKey::Metadata), asked, "nobody was asked who leads");
        assert_eq!(cluster.values("t", 0), ["before", "after"]);
    });
}

#[test]
fn a_leader_that_is_silent_is_not_waited_for_when_another_leads() {
    run(async {
        let cluster = FakeCluster::start(2).await;
        cluster.topic("t", 1);
        let long = Duration::from_secs(20);
        let patience = Duration::from_millis(30);
        let client = crate::ClientConfig { request_timeout: long, patience, ..cluster.config() };
        let client = crate::Client::connect(client).await.unwrap();
        let config = ProducerConfig { request_timeout: long, delivery_timeout: long, ..config() };
        let producer = Producer::new(&client, config);
        producer.send(record(0, "before")).await.unwrap().await.unwrap();
        cluster.state().frozen.insert(0);
        let delivery = producer.send(record(0, "during")).await.unwrap();
        let moved = time::timeout(Duration::from_secs(5), async {
            while cluster.state().seen.iter().filter(|(node, ..)| *node == 1).count() < 2 {
                task::yield_now().await;
            }
            cluster.elect("t", 0, 1);
            delivery.await.unwrap()
        });
        assert_eq!(moved.await.expect("long before the request's time is over").offset, Some(1));
        assert_eq!(cluster.values("t", 0), ["before", "during"]);
    });
}
