//! Scenarios of replicas that follow one another over lanes.

use std::time::Duration;

use weir_protocol::partition::FailReason;
use weir_protocol::types::BrokerId;
use weir_runtime::time;
use weir_storage::ReadError;

use super::town::*;
use crate::server::Stage;
use crate::shard::ShardError;

#[test]
fn an_acknowledged_record_is_on_every_replica_contract_1() {
    run(async {
        let mut town = Town::of(3).await;
        town.topic(4, &[1, 2, 3], 2).await;
        for partition in 0..4 {
            for round in 0..5 {
                assert_eq!(town.produce(partition, 3).await.unwrap(), round * 3);
            }
        }
        assert_eq!(town.isr(0), [1, 2, 3]);
        assert_eq!(town.read(0, 0, 15).await.len(), 15);
        let refused = town.brokers[&BrokerId(2)].fetch(log(0), 0).await;
        assert!(matches!(refused, Err(ShardError::Refused(FailReason::NotLeader))));
    });
}

#[test]
fn what_was_acknowledged_survives_its_leader() {
    run(async {
        let mut town = Town::of(3).await;
        town.topic(1, &[1, 2, 3], 2).await;
        for round in 0..10 {
            assert_eq!(town.produce(0, 2).await.unwrap(), round * 2);
        }
        town.kill(1).await;
        assert_eq!(town.isr(0), [2, 3]);
        assert_eq!(town.read(0, 0, 20).await.len(), 20);
        assert_eq!(town.produce(0, 2).await.unwrap(), 20);
        town.start(1).await;
        town.until("the old leader joins", |town| town.isr(0).len() == 3).await;
        town.kill(2).await;
        assert_eq!(town.produce(0, 1).await.unwrap(), 22);
        assert_eq!(town.read(0, 0, 23).await.len(), 23);
    });
}

#[test]
fn a_follower_that_is_cut_off_leaves_the_isr_and_comes_back_kip_497() {
    run(async {
        let mut town = Town::of(3).await;
        town.topic(1, &[1, 2, 3], 2).await;
        assert_eq!(town.produce(0, 1).await.unwrap(), 0);
        // It fetches no more, and nobody fences it.
        town.brokers[&BrokerId(3)].stage.send_replace(Stage::Cut);
        assert_eq!(town.produce(0, 1).await.unwrap(), 1);
        assert_eq!(town.isr(0), [1, 2]);
        // Two of three are enough.
        assert_eq!(town.produce(0, 1).await.unwrap(), 2);
        town.kill(3).await;
        town.start(3).await;
        town.until("it comes back", |town| town.isr(0) == [1, 2, 3]).await;
    });
}

#[test]
fn a_lane_that_has_fallen_silent_is_opened_again() {
    run(async {
        let mut town = Town::with(3, 60_000).await;
        let between = Between::before(town.brokers[&BrokerId(1)].address).await;
        let address = (between.address.ip().to_string(), between.address.port());
        town.brokers[&BrokerId(3)].peers.set_addresses([(BrokerId(1), address)]);
        town.topic(1, &[1, 2, 3], 2).await;
        assert_eq!(town.produce(0, 1).await.unwrap(), 0);
        between.swallow();
        let began = time::now();
        assert_eq!(town.produce(0, 1).await.unwrap(), 1);
        let took = time::now() - began;
        assert!(took >= Duration::from_millis(100), "it was held up: {took:?}");
        assert!(took < Duration::from_secs(5), "{took:?}");
        assert_eq!(town.isr(0), [1, 2, 3]);
    });
}

#[test]
fn a_follower_that_is_fenced_holds_nobody_up_kip_841() {
    run(async {
        let mut town = Town::of(3).await;
        town.topic(1, &[1, 2, 3], 2).await;
        for round in 0..3 {
            assert_eq!(town.produce(0, 1).await.unwrap(), round);
        }
        town.kill(3).await;
        for round in 3..6 {
            assert_eq!(town.produce(0, 1).await.unwrap(), round);
        }
        assert_eq!(town.isr(0), [1, 2]);
    });
}

#[test]
fn an_idle_follower_is_in_sync_however_long_nothing_happens() {
    run(async {
        let mut town = Town::of(2).await;
        town.topic(3, &[1, 2], 1).await;
        for partition in 0..3 {
            assert_eq!(town.produce(partition, 1).await.unwrap(), 0);
        }
        // Longer than replicas may lag.
        town.govern(time::now() + Duration::from_millis(2_000)).await;
        let epochs = |town: &Town| town.image.partition(log(0)).unwrap().partition_epoch;
        let before = epochs(&town);
        assert_eq!(town.produce(0, 1).await.unwrap(), 1);
        town.govern(time::now() + Duration::from_millis(700)).await;
        assert_eq!((town.isr(0), epochs(&town)), (vec![1, 2], before));
    });
}

#[test]
fn records_that_nobody_else_has_are_cut_when_their_leader_comes_back_kip_101() {
    run(async {
        let mut town = Town::of(3).await;
        town.topic(1, &[1, 2, 3], 2).await;
        assert_eq!(town.produce(0, 3).await.unwrap(), 0);
        for id in [2, 3] {
            town.brokers[&BrokerId(id)].stage.send_replace(Stage::Cut);
        }
        // Appended here, and never acknowledged.
        drop(town.leader(0).produce(log(0), 5).await);
        for id in [2, 3] {
            // Their processes begin anew, so that they fetch again; the leader is not asked.
            let broker = town.brokers.remove(&BrokerId(id)).unwrap();
            broker.stop();
        }
        town.kill(1).await;
        for id in [2, 3] {
            town.start(id).await;
        }
        town.until("others lead", |town| town.isr(0) == [2, 3]).await;
        assert_eq!(town.produce(0, 2).await.unwrap(), 3);
        town.start(1).await;
        town.until("it has cut and joined", |town| town.isr(0) == [1, 2, 3]).await;
        for id in [2, 3] {
            town.kill(id).await;
        }
        assert_eq!(town.leader_id(0), 1);
        assert_eq!(town.read(0, 0, 5).await.len(), 5);
    });
}

#[test]
fn a_follower_begins_where_its_leader_does_if_that_is_within_a_batch() {
    run(async {
        let mut town = Town::of(3).await;
        town.topic(1, &[1, 2, 3], 1).await;
        town.kill(3).await;
        for _ in 0..3 {
            town.produce(0, 5).await.unwrap();
        }
        assert_eq!(town.delete_below(7).await.unwrap(), 7);
        town.start(3).await;
        town.until("it joins", |town| town.isr(0) == [1, 2, 3]).await;
        town.elect(3).await;
        town.produce(0, 1).await.unwrap();
        assert_eq!(town.read(0, 7, 9).await.len(), 5 + 5 + 1);
        assert!(town.leader(0).fetch(log(0), 6).await.is_err());
    });
}

#[test]
fn deleted_records_are_gone_from_all_that_are_in_sync_kip_107() {
    run(async {
        let mut town = Town::of(3).await;
        town.topic(1, &[1, 2, 3], 2).await;
        for _ in 0..3 {
            town.produce(0, 5).await.unwrap();
        }
        assert_eq!(town.delete_below(7).await.unwrap(), 7);
        town.kill(1).await;
        assert!(town.leader(0).fetch(log(0), 6).await.is_err());
        assert_eq!(town.read(0, 7, 8).await.len(), 10, "whole batches");
    });
}

#[test]
fn many_partitions_share_a_lane() {
    run(async {
        let mut town = Town::of(3).await;
        town.topic(500, &[1, 2, 3], 2).await;
        let mut answers = Vec::new();
        for partition in 0..500 {
            answers.push(town.leader(partition).produce(log(partition), 2).await);
        }
        for answer in answers {
            assert_eq!(town.while_governing(answer).await.unwrap(), 0);
        }
    });
}

#[test]
fn a_damaged_follower_leaves_the_isr_and_fetches_again_contract_7() {
    run(async {
        let mut town = Town::of(3).await;
        town.topic(1, &[1, 2, 3], 2).await;
        for _ in 0..10 {
            town.produce(0, 2).await.unwrap();
        }
        town.stop(3).await;
        town.damage(3, 0, 300, 40);
        town.start(3).await;
        town.until("it is there", |town| town.isr(0) == [1, 2, 3]).await;
        // Nobody has read it yet. It leads, and meets the damage when it is read.
        town.elect(3).await;
        let damaged = town.brokers[&BrokerId(3)].fetch(log(0), 0).await.unwrap();
        assert!(damaged.len() < 20, "damage is not served");
        let again = town.brokers[&BrokerId(3)].read(log(0), damaged.len() as i64).await;
        assert!(matches!(again, Err(ReadError::Corrupt { .. })));
        town.brokers[&BrokerId(3)].tell(log(0), damaged.len() as i64).await;
        town.until("another leads", |town| town.leader_id(0) != 3 && town.isr(0).len() == 2).await;
        town.until("it is repaired", |town| town.isr(0) == [1, 2, 3]).await;
        town.elect(3).await;
        assert_eq!(town.read(0, 0, 20).await.len(), 20);
    });
}

#[test]
fn a_damaged_batch_across_the_start_is_fetched_again_contract_7() {
    run(async {
        let mut town = Town::of(3).await;
        town.topic(1, &[1, 2, 3], 2).await;
        for _ in 0..3 {
            town.produce(0, 5).await.unwrap();
        }
        assert_eq!(town.delete_below(7).await.unwrap(), 7);
        town.stop(3).await;
        town.damage(3, 0, batch(5).header.size_bytes() + 100, 20);
        town.start(3).await;
        town.until("it is there", |town| town.isr(0) == [1, 2, 3]).await;
        town.elect(3).await;
        let broker = &town.brokers[&BrokerId(3)];
        assert!(matches!(broker.read(log(0), 7).await, Err(ReadError::Corrupt { .. })));
        broker.tell(log(0), 7).await;
        town.until("another leads", |town| town.leader_id(0) != 3 && town.isr(0).len() == 2).await;
        town.until("it is repaired", |town| town.isr(0) == [1, 2, 3]).await;
        town.elect(3).await;
        assert_eq!(town.read(0, 7, 8).await.len(), 10, "whole batches");
    });
}

#[test]
fn with_no_healthy_peer_the_rest_is_served_contract_7() {
    run(async {
        let mut town = Town::of(2).await;
        town.topic(1, &[1, 2], 1).await;
        for _ in 0..10 {
            town.produce(0, 2).await.unwrap();
        }
        town.stop(2).await;
        town.produce(0, 2).await.unwrap();
        town.stop(1).await;
        town.damage(1, 0, 300, 40);
        town.start(1).await;
        town.until("it leads", |town| town.isr(0) == [1]).await;
        let broker = &town.brokers[&BrokerId(1)];
        let served = broker.fetch(log(0), 0).await.unwrap().len() as i64;
        assert!(matches!(broker.read(log(0), served).await, Err(ReadError::Corrupt { .. })));
        broker.tell(log(0), served).await;
        town.govern(time::now() + Duration::from_millis(1_200)).await;
        assert_eq!((town.leader_id(0), town.isr(0)), (1, vec![1]));
        assert_eq!(town.brokers[&BrokerId(1)].fetch(log(0), 12).await.unwrap().len(), 10);
    });
}
