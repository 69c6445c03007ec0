//! A seed becomes a plan.
//!
//! Each seed switches whole kinds of fault, whole kinds of load and tiny constants on and off at random (swarm
//! testing, Groce et al., ISSTA 2012): a run with every fault on finds less than many runs with a few.
//!
//! Seeds like `17` are about one node alone, seeds like `c17` about a cluster.

mod cluster;
mod keys;

use std::collections::BTreeMap;

use fastrand::Rng;

use self::keys::Draft;
use crate::plan::{Cluster, Direction, FORMAT, Fault, Files, Group, Load, Plan, Producer, TimedFault, Topic};

/// From here on seeds are about clusters: the first one is `c0`.
const CLUSTERS: u64 = 1 << 62;

/// The seed that people call `number`, or `c` and the number.
pub fn seed(number: u64, of_cluster: bool) -> u64 {
    if of_cluster { CLUSTERS | number } else { number & !CLUSTERS }
}

/// Whether the seed's plan is about a cluster.
pub fn is_cluster(seed: u64) -> bool {
    seed & CLUSTERS != 0
}

/// The number in a seed's name.
pub fn number(seed: u64) -> u64 {
    seed & !CLUSTERS
}

/// What people call a seed.
pub fn name(seed: u64) -> String {
    format!("{}{}", if is_cluster(seed) { "c" } else { "" }, number(seed))
}

/// The seed that has this name.
///
/// # Errors
/// What is wrong with it.
pub fn by_name(name: &str) -> Result<u64, String> {
    let (number, of_cluster) = name.strip_prefix('c').map_or((name, false), |number| (number, true));
    let number: u64 =
        number.parse().map_err(|_| format!("'{name}' is neither a number nor c and a number"))?;
    if number < CLUSTERS { Ok(seed(number, of_cluster)) } else { Err(format!("{name} is too large")) }
}

/// Expands a seed. The same seed gives the same plan on every machine.
pub fn plan(seed: u64) -> Plan {
    let (mut cluster, mut load, mut faults) = if is_cluster(seed) {
        cluster::draw(&mut Rng::with_seed(seed), &mut Rng::with_seed(!seed))
    } else {
        lone(seed)
    };
    let is_harmed = cluster.is_unsynced() || faults.iter().any(|fault| fault.fault.damages());
    // What came later has a stream of its own, so that seeds keep the rest of their plans.
    let late = &mut Rng::with_seed((!seed).rotate_left(16));
    let draft = Draft { cluster: &mut cluster, load: &mut load, faults: &mut faults, is_harmed };
    let rounds = keys::draw(late, draft);
    Plan { format: FORMAT, seed, cluster, load, faults, rounds }
}

/// A node alone, its load and its faults.
fn lone(seed: u64) -> (Cluster, Load, Vec<TimedFault>) {
    let rng = &mut Rng::with_seed(seed);
    let world = World::draw(rng);
    let cluster = Cluster { brokers: 1, settings: settings(rng, world), members: Vec::new() };
    let mut load = load(rng, world);
    let clients = load.producers.len() as u32 + load.consumers + crate::load::members(&load);
    let mut faults = faults(rng, world, load.duration_ms, clients);
    let late = &mut Rng::with_seed(!seed);
    if world == World::Unsynced && late.bool() {
        faults.extend(power_losses(late, &mut load));
        faults.sort_by_key(|fault| fault.at_ms);
    }
    (cluster, load, faults)
}

/// Which promise the run is about; it decides which faults may strike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum World {
    /// Synced topics, any fault but damage at rest: nothing acknowledged is lost.
    Synced,
    /// Synced topics and damage at rest, of which one replica can only say so: reported, not served, no panic.
    Damaged,
    /// Topics that are not synced: nothing acknowledged is lost while the kernel lives. Where it does not, what is lost is noticed.
    Unsynced,
}

impl World {
    fn draw(rng: &mut Rng) -> World {
        match rng.u32(0..100) {
            0..70 => World::Synced,
            70..90 => World::Damaged,
            _ => World::Unsynced,
        }
    }
}

fn settings(rng: &mut Rng, world: World) -> BTreeMap<String, String> {
    let mut settings = BTreeMap::new();
    let mut set = |name: &str, value: u64| settings.insert(name.to_owned(), value.to_string());
    let file_bytes = pick(rng, &[32 << 10, 64 << 10, 128 << 10]);
    let files = rng.u64(3..9);
    set("weir.journal.files", files);
    set("weir.journal.bytes", file_bytes * files);
    set("weir.shards", rng.u64(1..6));
    set("log.index.interval.bytes", pick(rng, &[256, 1024, 4096]));
    set("group.min.session.timeout.ms", 100);
    set("group.initial.rebalance.delay.ms", pick(rng, &[0, 50, 300]));
    set("offsets.topic.num.partitions", rng.u64(1..4));
    if rng.u32(0..4) == 0 {
        set("weir.offsets.retention.ms", pick(rng, &[700, 2_000]));
        set("offsets.retention.check.interval.ms", pick(rng, &[50, 300]));
    }
    set("metadata.log.max.record.bytes.between.snapshots", pick(rng, &[500, 3_000, 20_000, 20 << 20]));
    set("metadata.log.segment.bytes", pick(rng, &[4 << 10, 64 << 10, 1 << 20]));
    set("weir.metadata.log.retained.entries", pick(rng, &[0, 5, 50, 10_000]));
    if world == World::Unsynced {
        set("log.flush.interval.messages", i64::MAX as u64);
    }
    settings
}

fn load(rng: &mut Rng, world: World) -> Load {
    let topics = (0..rng.u32(1..4)).map(|number| Topic {
        name: format!("topic-{number}"),
        partitions: rng.i32(1..5),
        replicas: None,
        settings: topic_settings(rng),
        keys: 0,
    });
    let topics = topics.collect();
    let producers = (0..rng.u32(1..5)).map(|_| Producer {
        acks: if rng.u32(0..100) < 85 { -1 } else { 1 },
        records_per_second: pick(rng, &[20, 50, 100, 200]) as u32,
        burst: pick(rng, &[1, 5, 20]) as u32,
        value_bytes_max: pick(rng, &[40, 200, 2000]) as u32,
        compression: ["none", "none", "gzip", "snappy", "lz4", "zstd"][rng.usize(0..6)].to_owned(),
        retries: rng.u32(0..3) > 0,
        idempotent: rng.bool(),
        delivery_timeout_ms: pick(rng, &[300, 1_000, 20_000]),
    });
    Load {
        producers: producers.collect(),
        topics,
        keyed: Vec::new(),
        duration_ms: rng.u64(6_000..16_000),
        consumers: rng.u32(0..3),
        groups: groups(rng, world),
        delete_records_every_ms: if rng.bool() && world == World::Synced { rng.u64(300..3_000) } else { 0 },
        topic_churn_every_ms: if rng.bool() && world != World::Damaged { rng.u64(500..3_000) } else { 0 },
        group_churn_every_ms: 0,
        listed_every_ms: 0,
        feature_level: 0,
    }
}

/// One replica of damaged groups would only say so: they take part where nothing is damaged.
fn groups(rng: &mut Rng, world: World) -> Vec<Group> {
    let count = if world == World::Damaged { 0 } else { pick(rng, &[0, 1, 1, 2]) };
    let group = |number| Group {
        name: format!("group-{number}"),
        members: rng.u32(1..5),
        assignor: ["range", "roundrobin", "cooperative-sticky"][rng.usize(0..3)].to_owned(),
        is_static: rng.u32(0..3) == 0,
        session_timeout_ms: pick(rng, &[500, 1_000, 3_000]),
        poll_interval_max_ms: pick(rng, &[700, 1_500, 4_000]),
        commit_every_ms: pick(rng, &[50, 200, 1_000]),
        life_ms: pick(rng, &[500, 1_500, 5_000, 60_000]),
        zombies: rng.bool(),
        visited: rng.u32(0..3) == 0,
    };
    (0..count).map(group).collect()
}

fn topic_settings(rng: &mut Rng) -> BTreeMap<String, String> {
    let segment_bytes = pick(rng, &[4 << 10, 16 << 10, 64 << 10, 1 << 20]);
    let mut settings = BTreeMap::from([("internal.segment.bytes".to_owned(), segment_bytes.to_string())]);
    if rng.u32(0..4) == 0 {
        settings.insert("message.timestamp.type".to_owned(), "LogAppendTime".to_owned());
    }
    settings
}

/// A kind of fault that a run may have: draws one of them.
type Kind = fn(&mut Rng, clients: u32) -> Fault;

/// The kinds that every world allows.
const HARMLESS: &[Kind] = &[
    |rng, _| Fault::Kill { broker: 0, down_ms: down(rng) },
    |rng, _| Fault::Restart { broker: 0, down_ms: down(rng) },
    |rng, _| Fault::CrashInRecovery { broker: 0, down_ms: down(rng), after_ms: rng.u64(0..60), power: false },
    |rng, _| Fault::RestartThenCrash { broker: 0, down_ms: down(rng), after_ms: soon(rng), power: false },
    |rng, _| Fault::Pause { broker: 0, for_ms: rng.u64(100..2_000) },
    |rng, _| Fault::SlowDisk { broker: 0, factor: rng.u32(5..100), for_ms: rng.u64(100..2_000) },
    |rng, _| Fault::StuckDisk { broker: 0, for_ms: rng.u64(50..1_500) },
    |rng, clients| Fault::Cut {
        broker: 0,
        client: some(rng, clients),
        direction: direction(rng),
        for_ms: rng.u64(100..3_000),
    },
    |_, _| Fault::Reset { broker: 0 },
    |rng, _| Fault::SlowLink { broker: 0, delay_ms: rng.u64(5..300), for_ms: rng.u64(200..3_000) },
    |rng, _| Fault::ClockJump { broker: 0, by_ms: rng.i64(-86_400_000..86_400_000) },
    |rng, _| Fault::ClockFreeze { broker: 0, for_ms: rng.u64(200..3_000) },
];

/// The kinds that only synced topics withstand.
const CRUEL: &[Kind] = &[
    |rng, _| Fault::PowerLoss { broker: 0, down_ms: down(rng) },
    |rng, _| Fault::PowerLoss { broker: 0, down_ms: down(rng) },
    |rng, _| Fault::CrashInRecovery { broker: 0, down_ms: down(rng), after_ms: rng.u64(0..60), power: true },
    |rng, _| Fault::RestartThenCrash { broker: 0, down_ms: down(rng), after_ms: soon(rng), power: true },
    |rng, _| Fault::ReadError { broker: 0, files: files(rng) },
    |rng, _| Fault::WriteError { broker: 0, files: files(rng) },
    |rng, _| Fault::SyncError { broker: 0, files: files(rng) },
    |rng, _| Fault::DiskFull { broker: 0, room_bytes: rng.u64(0..40_000), for_ms: rng.u64(200..3_000) },
];

const DAMAGE: Kind = |rng, _| Fault::BitRot {
    broker: 0,
    files: files(rng),
    after_ms: rng.u64(50..1_000),
    down_ms: down(rng),
    power: rng.bool(),
};

fn faults(rng: &mut Rng, world: World, duration_ms: u64, clients: u32) -> Vec<TimedFault> {
    let allowed = match world {
        World::Synced => [HARMLESS, CRUEL].concat(),
        // Nothing that keeps the journal from writing on: the damaged round must not remain the last one.
        World::Damaged => HARMLESS[..4].to_vec(),
        World::Unsynced => HARMLESS.to_vec(),
    };
    let mut kinds: Vec<Kind> = allowed.iter().copied().filter(|_| rng.u32(0..10) < 4).collect();
    if kinds.is_empty() {
        kinds.push(allowed[rng.usize(0..allowed.len())]);
    }
    let mut faults: Vec<_> = (0..rng.u32(4..16))
        .map(|_| TimedFault {
            at_ms: rng.u64(200..duration_ms),
            fault: kinds[rng.usize(0..kinds.len())](rng, clients),
        })
        .collect();
    if world == World::Damaged {
        let damage = (0..rng.u32(1..3))
            .map(|_| TimedFault { at_ms: rng.u64(1_000..duration_ms), fault: DAMAGE(rng, clients) });
        faults.extend(damage);
    }
    let crashes: Vec<_> = faults.iter().filter_map(|fault| crash_while_full(rng, fault)).collect();
    faults.extend(crashes);
    faults.sort_by_key(|fault| fault.at_ms);
    faults
}

/// Power fails although topics are not synced: records are lost, and consumers must notice. Nothing else is promised.
fn power_losses(rng: &mut Rng, load: &mut Load) -> Vec<TimedFault> {
    (load.groups, load.delete_records_every_ms, load.topic_churn_every_ms) = (Vec::new(), 0, 0);
    load.consumers = rng.u32(1..4);
    let power_loss = |rng: &mut Rng| TimedFault {
        at_ms: rng.u64(1_000..load.duration_ms),
        fault: Fault::PowerLoss { broker: 0, down_ms: down(rng) },
    };
    (0..rng.u32(2..6)).map(|_| power_loss(rng)).collect()
}

/// Every second full disk sees its broker crash: what was refused for want of room must not be there when it is back.
fn crash_while_full(rng: &mut Rng, fault: &TimedFault) -> Option<TimedFault> {
    let Fault::DiskFull { for_ms, .. } = fault.fault else { return None };
    let at_ms = fault.at_ms + rng.u64(for_ms / 4..for_ms);
    let down_ms = down(rng);
    let fault =
        if rng.bool() { Fault::Kill { broker: 0, down_ms } } else { Fault::PowerLoss { broker: 0, down_ms } };
    rng.bool().then_some(TimedFault { at_ms, fault })
}

fn pick(rng: &mut Rng, choices: &[u64]) -> u64 {
    choices[rng.usize(0..choices.len())]
}

/// How long a broker stays away.
fn down(rng: &mut Rng) -> u64 {
    if rng.bool() { rng.u64(0..50) } else { rng.u64(50..1_500) }
}

/// A time after a start at which there is work again.
fn soon(rng: &mut Rng) -> u64 {
    rng.u64(20..1_200)
}

fn some(rng: &mut Rng, clients: u32) -> Option<u32> {
    rng.bool().then(|| rng.u32(0..clients))
}

fn direction(rng: &mut Rng) -> Direction {
    [Direction::FromBroker, Direction::ToBroker, Direction::Both][rng.usize(0..3)]
}

fn files(rng: &mut Rng) -> Files {
    [Files::Journal, Files::Segments, Files::Indexes, Files::Checkpoint, Files::Any][rng.usize(0..5)]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_gives_one_plan_and_the_plan_survives_json() {
        for seed in (0..200).flat_map(|number| [number, seed(number, true)]) {
            assert_eq!(by_name(&name(seed)), Ok(seed));
            let drawn = plan(seed);
            assert_eq!(drawn, plan(seed));
            assert_eq!(Plan::from_json(&drawn.to_json()).unwrap(), drawn);
        }
    }

    #[test]
    fn no_cluster_is_damaged_beyond_what_it_promises_to_bear() {
        for number in 0..2000 {
            let plan = plan(seed(number, true));
            assert_eq!(plan.check().map_err(|error| error.to_string()), Ok(()), "c{number}");
        }
    }

    #[test]
    fn a_thousand_seeds_draw_every_kind_of_fault() {
        let kinds: BTreeSet<_> = (0..1000)
            .flat_map(|number| [number, seed(number, true)])
            .flat_map(|seed| plan(seed).faults)
            .map(|fault| fault.fault.name())
            .collect();
        assert_eq!(kinds.len(), 39, "{kinds:?}");
    }

    #[test]
    fn every_third_run_has_compacted_topics_and_producers_of_their_own() {
        let plans: Vec<_> = (0..600).flat_map(|number| [number, seed(number, true)]).map(plan).collect();
        let with_keys = plans.iter().filter(|plan| plan.load.topics.iter().any(Topic::is_compacted));
        assert!((300..500).contains(&with_keys.clone().count()), "{}", with_keys.clone().count());
        assert!(with_keys.clone().all(|plan| !plan.load.keyed.is_empty()));
        assert!(plans.iter().all(|plan| plan.load.topics.iter().any(|topic| !topic.is_compacted())));
    }

    #[test]
    fn damage_is_planned_in_runs_of_their_own() {
        let damaged = (0..1000).filter(|seed| plan(*seed).damages()).count();
        assert!((100..300).contains(&damaged), "{damaged}");
    }
}
