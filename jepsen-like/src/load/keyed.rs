//! A producer of compacted topics: it sets and deletes the keys that belong to it, one record of each after the other.

use std::time::Duration;

use crate::history::{Keyed, ProcessId};
use weir_client::{Acks, Producer, TopicPartition};
use weir_runtime::{random, task};

use super::plan::{self, KeyedProducer, Load};
use super::producing::{begin, config, write_down};
use super::{Shared, connect, partitions};

/// How long a producer tries for a record. Where it gives up nobody knows what is last of the key.
const DELIVERY_TIMEOUT_MS: u64 = 20_000;
/// Of so many deletions one is for good.
const FOR_GOOD: u64 = 3;

/// A place for keys that follow one another.
pub(super) struct Keys {
    partition: TopicPartition,
    /// Which of the partition's places it is.
    place: u32,
    /// How many the partition has.
    places: u32,
    /// How many keys in this place have been given up.
    given_up: u32,
    /// What became of the last record is not known yet.
    under_way: Option<task::JoinHandle<()>>,
}

impl Keys {
    /// No two places ever have the same.
    fn key(&self) -> String {
        (self.place + self.places * self.given_up).to_string()
    }

    fn is_under_way(&self) -> bool {
        self.under_way.as_ref().is_some_and(|send| !send.is_finished())
    }
}

/// The places that belong to one of a load's producers of keys: they are dealt out in turn.
pub(super) fn keys(load: &Load, producer: usize) -> Vec<Keys> {
    let of_topic = |topic: &plan::Topic| {
        let places = topic.keys;
        let of_partition = move |partition: TopicPartition| {
            (0..places).map(move |place| Keys {
                partition: partition.clone(),
                place,
                places,
                given_up: 0,
                under_way: None,
            })
        };
        partitions([topic]).into_iter().flat_map(of_partition).collect::<Vec<_>>()
    };
    let all = load.topics.iter().flat_map(of_topic);
    all.enumerate().filter(|(at, _)| at % load.keyed.len() == producer).map(|(_, keys)| keys).collect()
}

pub(super) async fn run(shared: Shared, process: ProcessId, plan: KeyedProducer, mut keys: Vec<Keys>) {
    let client = connect(shared.bootstrap.clone(), format!("producer-{}", process.0)).await;
    let producer = Producer::new(&client, config(&settings(&plan)));
    while !shared.stopped() && !keys.is_empty() {
        for _ in 0..=random::below(u64::from(plan.burst)) {
            let at = random::below(keys.len() as u64) as usize;
            if !keys[at].is_under_way() {
                send(&shared, process, &producer, &plan, &mut keys[at]).await;
            }
        }
        let mean_us = 1_000_000 * (1 + u64::from(plan.burst)) / 2 / u64::from(plan.records_per_second.max(1));
        shared.pause(Duration::from_micros(random::below(2 * mean_us + 1))).await;
    }
    for answer in keys.into_iter().filter_map(|keys| keys.under_way) {
        // An answer's task cannot fail: a panic in it would have ended the run.
        drop(answer.await);
    }
}

async fn send(
    shared: &Shared,
    process: ProcessId,
    producer: &Producer,
    plan: &KeyedProducer,
    keys: &mut Keys,
) {
    let tombstone = random::below(100) < u64::from(plan.tombstone_percent);
    let size = random::below(u64::from(plan.value_bytes_max)) as usize;
    let keyed = Keyed { key: keys.key().into(), tombstone };
    let (pending, record) = begin(shared, process, Acks::All, &keys.partition, size, Some(keyed));
    let sent = producer.send(record).await;
    keys.under_way = Some(task::spawn("answer", write_down(pending, sent)));
    if tombstone && random::below(FOR_GOOD) == 0 {
        keys.given_up += 1;
    }
}

/// As a producer without keys has them.
fn settings(plan: &KeyedProducer) -> plan::Producer {
    plan::Producer {
        acks: -1,
        records_per_second: plan.records_per_second,
        burst: plan.burst,
        value_bytes_max: plan.value_bytes_max,
        compression: plan.compression.clone(),
        retries: true,
        idempotent: true,
        delivery_timeout_ms: DELIVERY_TIMEOUT_MS,
    }
}
