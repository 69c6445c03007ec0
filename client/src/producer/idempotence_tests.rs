use kafka_protocol::error::ResponseError;
use weir_wire::kafka::messages::ApiKey;

use super::*;
use crate::fake_broker::{FakeCluster, Fault, run};

fn config() -> ProducerConfig {
    ProducerConfig {
        linger: Duration::ZERO,
        request_timeout: Duration::from_millis(100),
        delivery_timeout: Duration::from_secs(3),
        ..ProducerConfig::default()
    }
}

async fn start(config: ProducerConfig) -> (FakeCluster, Producer) {
    let cluster = FakeCluster::start(2).await;
    cluster.topic("t", 3);
    let producer = Producer::new(&cluster.client().await, config);
    (cluster, producer)
}

async fn send(producer: &Producer, value: impl Into<String>) -> Delivery {
    let record = ProducerRecord {
        topic: "t".to_owned(),
        partition: Some(0),
        value: Some(Bytes::from(value.into())),
        ..ProducerRecord::default()
    };
    producer.send(record).await.unwrap()
}

fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|n| n.to_string()).collect()
}

/// The epoch of the only producer that has written to t-0.
fn epoch(cluster: &FakeCluster) -> i16 {
    cluster.state().topics["t"][0].producers.values().next().unwrap().0
}

#[test]
fn k12_a_repetition_writes_nothing_twice_and_gets_the_offset_of_the_first_attempt() {
    run(async {
        let (cluster, producer) = start(config()).await;
        send(&producer, "a").await.await.unwrap();
        for _ in 0..3 {
            cluster.fault(ApiKey::Produce, Fault::CloseAfter);
        }
        assert_eq!(send(&producer, "b").await.await.unwrap().offset, Some(1));
        cluster.fault(ApiKey::Produce, Fault::ErrorAfter(ResponseError::NotEnoughReplicasAfterAppend));
        assert_eq!(send(&producer, "c").await.await.unwrap().offset, Some(2));
        assert_eq!(cluster.values("t", 0), ["a", "b", "c"]);
        assert_eq!(cluster.requests(ApiKey::InitProducerId), 1);
    });
}

#[test]
fn several_batches_of_a_partition_are_under_way_at_once_and_keep_their_order_through_any_failure() {
    run(async {
        for round in 0..12 {
            let (cluster, producer) = start(ProducerConfig { batch_bytes: 200, ..config() }).await;
            let faults = [
                Fault::CloseAfter,
                Fault::CloseBefore,
                Fault::Silence,
                Fault::Error(ResponseError::NotLeaderOrFollower),
                Fault::ErrorAfter(ResponseError::RequestTimedOut),
                Fault::Error(ResponseError::NotEnoughReplicas),
            ];
            let mut deliveries = Vec::new();
            for n in 0..120 {
                deliveries.push(send(&producer, n.to_string()).await);
                if n % 10 == round % 10 {
                    cluster.fault(ApiKey::Produce, faults[(n / 10 + round) % faults.len()].clone());
                }
                if n % 4 == 0 {
                    task::yield_now().await;
                }
            }
            for (n, delivery) in (0..).zip(deliveries) {
                assert_eq!(delivery.await.unwrap().offset, Some(n));
            }
            assert_eq!(cluster.values("t", 0), numbers(120), "round {round}");
        }
    });
}

/// Leaders remember five batches: while the oldest is not settled, no more than four come behind it.
#[test]
fn k12_nothing_joins_a_repetition_that_is_under_way() {
    run(async {
        let (cluster, producer) = start(ProducerConfig { batch_bytes: 1, ..config() }).await;
        send(&producer, "0").await.await.unwrap();
        // The first of five is written and not answered for, three times; the others are.
        let unanswered = || cluster.fault(ApiKey::Produce, Fault::ErrorAfter(ResponseError::RequestTimedOut));
        unanswered();
        let mut deliveries = Vec::new();
        for n in 1..=5 {
            deliveries.push(send(&producer, n.to_string()).await);
        }
        while cluster.values("t", 0).len() < 6 {
            task::yield_now().await;
        }
        unanswered();
        unanswered();
        for n in 6..40 {
            deliveries.push(send(&producer, n.to_string()).await);
        }
        for (n, delivery) in (1..).zip(deliveries) {
            assert_eq!(delivery.await.unwrap().offset, Some(n));
        }
        assert_eq!(cluster.values("t", 0), numbers(40));
        assert_eq!(epoch(&cluster), 0);
    });
}

/// KAFKA-14359: a leader takes a batch of any number from a producer that it does not know.
#[test]
fn a_second_batch_waits_until_the_leader_has_the_first() {
    run(async {
        let (cluster, producer) = start(ProducerConfig { batch_bytes: 200, ..config() }).await;
        for _ in 0..3 {
            cluster.fault(ApiKey::Produce, Fault::Error(ResponseError::NotLeaderOrFollower));
        }
        let mut deliveries = Vec::new();
        for n in 0..60 {
            deliveries.push(send(&producer, n.to_string()).await);
        }
        for delivery in deliveries {
            delivery.await.unwrap();
        }
        assert_eq!(cluster.values("t", 0), numbers(60));
        assert_eq!(epoch(&cluster), 0);
    });
}

#[test]
fn a_leader_that_moves_with_its_producers_state_changes_nothing() {
    run(async {
        let (cluster, producer) = start(ProducerConfig { batch_bytes: 200, ..config() }).await;
        let mut deliveries = Vec::new();
        for n in 0..60 {
            deliveries.push(send(&producer, n.to_string()).await);
            if n % 15 == 7 {
                let mut state = cluster.state();
                let log = &mut state.topics.get_mut("t").unwrap()[0];
                (log.leader, log.epoch) = (1 - log.leader, log.epoch + 1);
            }
            task::yield_now().await;
        }
        for delivery in deliveries {
            delivery.await.unwrap();
        }
        assert_eq!(cluster.values("t", 0), numbers(60));
    });
}

#[test]
fn a_repetition_from_too_long_ago_is_a_success_without_an_offset() {
    run(async {
        let (cluster, producer) = start(config()).await;
        cluster.fault(ApiKey::Produce, Fault::ErrorAfter(ResponseError::DuplicateSequenceNumber));
        assert_eq!(send(&producer, "a").await.await.unwrap().offset, None);
        assert_eq!(send(&producer, "b").await.await.unwrap().offset, Some(1));
    });
}

#[test]
fn a_leader_that_has_forgotten_the_producer_gets_a_new_epoch() {
    run(async {
        for code in [ResponseError::OutOfOrderSequenceNumber, ResponseError::UnknownProducerId] {
            let (cluster, producer) = start(config()).await;
            send(&producer, "a").await.await.unwrap();
            cluster.fault(ApiKey::Produce, Fault::Error(code));
            assert_eq!(send(&producer, "b").await.await.unwrap().offset, Some(1));
            assert_eq!(epoch(&cluster), 1);
            assert_eq!(send(&producer, "c").await.await.unwrap().offset, Some(2));
            assert_eq!(cluster.values("t", 0), ["a", "b", "c"]);
        }
    });
}

#[test]
fn a_batch_that_may_be_in_the_log_of_a_leader_that_has_forgotten_it_fails_and_says_so() {
    run(async {
        let (cluster, producer) = start(config()).await;
        send(&producer, "a").await.await.unwrap();
        cluster.fault(ApiKey::Produce, Fault::CloseAfter);
        cluster.fault(ApiKey::Produce, Fault::Error(ResponseError::OutOfOrderSequenceNumber));
        let error = send(&producer, "b").await.await.unwrap_err();
        assert!(error.may_have_been_written, "{error}");
        assert_eq!(error.source.kafka().unwrap().name(), "OUT_OF_ORDER_SEQUENCE_NUMBER");
        assert_eq!(send(&producer, "c").await.await.unwrap().offset, Some(2));
        assert_eq!(cluster.values("t", 0), ["a", "b", "c"]);
        assert_eq!(epoch(&cluster), 1);
    });
}

#[test]
fn what_comes_behind_a_batch_that_is_given_up_is_written_once_and_in_order() {
    run(async {
        let (cluster, producer) = start(ProducerConfig { batch_bytes: 1, ..config() }).await;
        send(&producer, "a").await.await.unwrap();
        cluster.fault(ApiKey::Produce, Fault::Error(ResponseError::InvalidRecord));
        let mut deliveries = Vec::new();
        for n in 0..12 {
            deliveries.push(send(&producer, n.to_string()).await);
        }
        let mut deliveries = deliveries.into_iter();
        let error = deliveries.next().unwrap().await.unwrap_err();
        assert!(!error.may_have_been_written, "{error}");
        for delivery in deliveries {
            delivery.await.unwrap();
        }
        let expected: Vec<String> =
            std::iter::once("a".to_owned()).chain((1..12).map(|n| n.to_string())).collect();
        assert_eq!(cluster.values("t", 0), expected);
    });
}

#[test]
fn a_batch_that_is_split_keeps_its_numbers() {
    run(async {
        let linger = Duration::from_secs(10);
        let (cluster, producer) = start(ProducerConfig { linger, ..config() }).await;
        cluster.fault(ApiKey::Produce, Fault::Error(ResponseError::MessageTooLarge));
        for n in 0..5 {
            send(&producer, n.to_string()).await;
        }
        producer.flush().await.unwrap();
        assert_eq!(cluster.values("t", 0), numbers(5));
        assert_eq!(epoch(&cluster), 0);
    });
}

#[test]
fn somebody_elses_epoch_asks_for_a_new_id() {
    run(async {
        let (cluster, producer) = start(config()).await;
        send(&producer, "a").await.await.unwrap();
        cluster.state().topics.get_mut("t").unwrap()[0].producers.get_mut(&1).unwrap().0 = 9;
        assert_eq!(send(&producer, "b").await.await.unwrap().offset, Some(1));
        assert_eq!(send(&producer, "c").await.await.unwrap().offset, Some(2));
        assert_eq!(cluster.state().producer_ids, 2);
    });
}

#[test]
fn an_id_that_is_not_given_yet_is_asked_for_again_and_one_that_is_refused_fails_the_records() {
    run(async {
        let (cluster, producer) = start(config()).await;
        cluster.fault(ApiKey::InitProducerId, Fault::Error(ResponseError::CoordinatorLoadInProgress));
        cluster.fault(ApiKey::InitProducerId, Fault::CloseBefore);
        assert_eq!(send(&producer, "a").await.await.unwrap().offset, Some(0));

        let (cluster, producer) = start(config()).await;
        cluster.fault(ApiKey::InitProducerId, Fault::Error(ResponseError::ClusterAuthorizationFailed));
        for _ in 0..2 {
            let error = send(&producer, "a").await.await.unwrap_err();
            assert!(!error.may_have_been_written, "{error}");
        }
        producer.flush().await.unwrap();
        assert!(cluster.values("t", 0).is_empty());
    });
}

#[test]
fn while_there_is_no_id_time_runs_out_as_ever() {
    run(async {
        let delivery_timeout = Duration::from_millis(150);
        let (cluster, producer) = start(ProducerConfig { delivery_timeout, ..config() }).await;
        for _ in 0..1000 {
            cluster.fault(ApiKey::InitProducerId, Fault::Error(ResponseError::CoordinatorLoadInProgress));
        }
        let before = time::now();
        let error = send(&producer, "a").await.await.unwrap_err();
        assert!(!error.may_have_been_written, "{error}");
        assert!(before.elapsed() < delivery_timeout * 3);
    });
}

#[test]
fn without_acks_from_all_there_are_no_numbers() {
    run(async {
        let (cluster, producer) = start(ProducerConfig { acks: Acks::Leader, ..config() }).await;
        send(&producer, "a").await.await.unwrap();
        assert_eq!(cluster.requests(ApiKey::InitProducerId), 0);
        assert!(cluster.state().topics["t"][0].producers.is_empty());
    });
}

#[test]
fn while_leaders_change_each_record_is_there_once_and_in_order() {
    run(async {
        for hints in [true, false] {
            let cluster = FakeCluster::start(3).await;
            cluster.topic("t", 1);
            cluster.state().hints = hints;
            let producer = Producer::new(&cluster.client().await, config());
            let mut deliveries = Vec::new();
            for number in 0..300 {
                deliveries.push(send(&producer, number.to_string()).await);
                if number % 20 == 0 {
                    cluster.elect("t", 0, number / 20 % 3);
                    cluster.fault(ApiKey::Produce, Fault::CloseAfter);
                    time::sleep(Duration::from_millis(1)).await;
                }
            }
            for (offset, delivery) in (0..).zip(deliveries) {
                assert_eq!(delivery.await.unwrap().offset, Some(offset), "hints: {hints}");
            }
            assert_eq!(cluster.values("t", 0), numbers(300));
        }
    });
}
