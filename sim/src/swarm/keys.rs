//! Compacted topics: what their keys are, how soon they are compacted, and what keeps a replica away meanwhile.

use fastrand::Rng;

use super::{down, pick};
use crate::plan::{Cluster, Fault, KeyedProducer, Load, TimedFault, Topic};

/// Of so many seeds one has such topics.
const ONE_IN: u32 = 3;

/// What a run is about.
pub(super) struct Draft<'a> {
    pub(super) cluster: &'a mut Cluster,
    pub(super) load: &'a mut Load,
    pub(super) faults: &'a mut Vec<TimedFault>,
    /// Disks are damaged, or lose what is not synced: each record must be on two at least.
    pub(super) is_harmed: bool,
}

/// Adds compacted topics to every third run. Returns whether everything is to be read from every replica in the end.
pub(super) fn draw(rng: &mut Rng, draft: Draft<'_>) -> bool {
    if rng.u32(0..ONE_IN) > 0 {
        return false;
    }
    let Draft { cluster, load, faults, is_harmed } = draft;
    let is_damaged_alone = cluster.is_lone() && faults.iter().any(|fault| fault.fault.damages());
    let serving = cluster.serving().count() as i16;
    for number in 0..rng.u32(1..3) {
        load.topics.push(topic(rng, number, serving, is_harmed));
    }
    load.keyed = (0..rng.u32(1..3)).map(|_| producer(rng)).collect();
    let mut set = |name: &str, value: String| cluster.settings.insert(name.to_owned(), value);
    set("log.cleaner.backoff.ms", rng.u64(100..1_000).to_string());
    if rng.bool() && !is_damaged_alone {
        // Groups' logs have the brokers' settings.
        set("internal.segment.bytes", pick(rng, &[2 << 10, 4 << 10, 16 << 10]).to_string());
        set("log.roll.ms", rng.u64(200..3_000).to_string());
        set("log.cleaner.delete.retention.ms", pick(rng, &[0, 300, 3_000]).to_string());
        set("log.cleaner.min.cleanable.ratio", ratio(rng));
        load.group_churn_every_ms = pick(rng, &[300, 1_000, 3_000]);
    }
    if !cluster.is_lone() {
        faults.extend((0..rng.u32(1..4)).map(|_| absence(rng, cluster.brokers, load.duration_ms)));
        faults.sort_by_key(|fault| fault.at_ms);
    }
    // A node alone whose disk is damaged may refuse to start.
    !is_damaged_alone
}

fn topic(rng: &mut Rng, number: u32, serving: i16, is_harmed: bool) -> Topic {
    let least = if is_harmed { 2.min(serving) } else { 1 };
    let replicas = [1, 2, 3, 3, 3, 3][rng.usize(0..6)].clamp(least, serving);
    let mut topic = Topic {
        name: format!("compacted-{number}"),
        partitions: rng.i32(1..3),
        replicas: (serving > 1).then_some(replicas),
        settings: [("cleanup.policy".to_owned(), "compact".to_owned())].into(),
        keys: rng.u32(4..13),
    };
    let mut set = |name: &str, value: String| topic.settings.insert(name.to_owned(), value);
    set("internal.segment.bytes", pick(rng, &[4 << 10, 8 << 10, 16 << 10]).to_string());
    set("segment.ms", rng.u64(200..3_000).to_string());
    set("min.cleanable.dirty.ratio", ratio(rng));
    set("delete.retention.ms", pick(rng, &[0, 0, 300, 1_000, 3_000]).to_string());
    match rng.u32(0..6) {
        0 => drop(set("min.compaction.lag.ms", rng.u64(100..2_000).to_string())),
        1 => drop(set("max.compaction.lag.ms", rng.u64(500..3_000).to_string())),
        2 => drop(set("message.timestamp.type", "LogAppendTime".to_owned())),
        _ => {}
    }
    topic
}

fn ratio(rng: &mut Rng) -> String {
    ["0.0", "0.1", "0.5"][rng.usize(0..3)].to_owned()
}

fn producer(rng: &mut Rng) -> KeyedProducer {
    KeyedProducer {
        records_per_second: pick(rng, &[20, 50, 100]) as u32,
        burst: pick(rng, &[1, 5, 20]) as u32,
        value_bytes_max: pick(rng, &[40, 200, 1_000]) as u32,
        tombstone_percent: pick(rng, &[5, 20, 50]) as u32,
        compression: ["none", "none", "lz4", "zstd"][rng.usize(0..4)].to_owned(),
    }
}

/// A node is away for longer than tombstones stay.
fn absence(rng: &mut Rng, nodes: u32, duration_ms: u64) -> TimedFault {
    let broker = rng.u32(0..nodes);
    let away_ms = rng.u64(1_500..6_000) + down(rng);
    let at_ms = rng.u64(500..duration_ms.max(8_000) - 6_000);
    let fault = match rng.u32(0..3) {
        0 => Fault::Kill { broker, down_ms: away_ms },
        1 => Fault::Restart { broker, down_ms: away_ms },
        _ => Fault::Swizzle { order: vec![broker], back: vec![broker], step_ms: away_ms },
    };
    TimedFault { at_ms, fault }
}
