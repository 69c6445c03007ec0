//! Plans of clusters: which nodes there are, and what happens to several of them.

mod comeback;
mod staged;
mod versions;

use std::collections::BTreeMap;

use fastrand::Rng;

use super::{CRUEL, DAMAGE, HARMLESS, down, pick, topic_settings};
use crate::plan::{
    Blow, Cluster, Fault, Files, Group, Load, Member, Producer, Role, TimedFault, Topic, Whom,
};

/// Which promise the run is about; it decides which faults may strike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Promise {
    /// Synced topics, any fault but damage at rest, on any number of nodes at once: nothing acknowledged is lost.
    Synced,
    /// The disk of one node is damaged at rest, which the other copies withstand.
    Damaged {
        /// Whose.
        node: u32,
    },
    /// Topics that are not synced: nothing acknowledged is lost while enough kernels live. One machine may lose its power.
    Unsynced {
        /// Which.
        node: Option<u32>,
    },
}

/// Draws a cluster, its load and its faults. What came later is drawn from `late`, so that seeds keep the rest of their plans; comebacks
/// and upgrades have streams of their own.
pub(super) fn draw(rng: &mut Rng, late: &mut Rng) -> (Cluster, Load, Vec<TimedFault>) {
    let own = &mut Rng::with_seed(late.get_seed().rotate_left(32));
    let upgrades = &mut Rng::with_seed(late.get_seed().rotate_left(16));
    let members = members(rng);
    let mut cluster = Cluster { brokers: members.len() as u32, settings: BTreeMap::new(), members };
    let promise = promise(rng, &cluster);
    cluster.settings = settings(rng, promise);
    let mut load = load(rng, &cluster, promise);
    let mut faults = faults(rng, &cluster, &load, promise);
    faults.extend(uneven(late, &cluster, &load));
    if let Promise::Damaged { node } = promise {
        faults.extend(comeback::draw(own, &cluster, load.duration_ms, node));
    }
    faults.extend(staged::draw(own, &cluster, &load, promise));
    load.listed_every_ms = pick(own, &[0, 0, 30, 100]);
    let quorum_fetch_bytes = pick(own, &[1, 1, 300, 1 << 20]);
    cluster.settings.insert("controller.quorum.fetch.max.bytes".to_owned(), quorum_fetch_bytes.to_string());
    if !cluster.is_lone() {
        faults.extend(versions::draw(upgrades, &cluster, &mut load));
    }
    faults.sort_by_key(|fault| fault.at_ms);
    (cluster, load, faults)
}

fn members(rng: &mut Rng) -> Vec<Member> {
    let count = pick(rng, &[1, 2, 3, 3, 3, 3, 3, 3, 3, 4, 5, 5, 6, 7]) as usize;
    let is_mixed = rng.u32(0..3) == 0;
    let mut roles: Vec<Role> = (0..count)
        .map(|_| {
            if is_mixed { [Role::Both, Role::Controller, Role::Broker][rng.usize(0..3)] } else { Role::Both }
        })
        .collect();
    // Somebody votes, and somebody serves.
    if !roles.iter().any(|role| role.is_controller()) || !roles.iter().any(|role| role.is_broker()) {
        roles[0] = Role::Both;
    }
    roles.into_iter().map(|role| Member { role, settings: own_settings(rng) }).collect()
}

fn own_settings(rng: &mut Rng) -> BTreeMap<String, String> {
    BTreeMap::from([("weir.shards".to_owned(), rng.u64(1..4).to_string())])
}

fn promise(rng: &mut Rng, cluster: &Cluster) -> Promise {
    let (serving, voters) = (cluster.serving().count(), cluster.voting().count());
    // One disk may be damaged where two brokers hold each record, and others are a majority of the voters.
    let is_bearable = |node: &u32| {
        serving >= 2
            && (!cluster.role(*node).is_controller() || voters >= 3)
            && cluster.role(*node).is_broker()
    };
    let candidates: Vec<u32> = (0..cluster.brokers).filter(is_bearable).collect();
    let chosen = (!candidates.is_empty()).then(|| candidates[rng.usize(0..candidates.len())]);
    match (rng.u32(0..100), chosen) {
        (0..20, Some(node)) => Promise::Damaged { node },
        (20..35, node) => Promise::Unsynced { node },
        _ => Promise::Synced,
    }
}

fn settings(rng: &mut Rng, promise: Promise) -> BTreeMap<String, String> {
    let mut settings = BTreeMap::new();
    let mut set = |name: &str, value: u64| settings.insert(name.to_owned(), value.to_string());
    // The same everywhere: what one node appends at once must fit into a file of every other one's journal.
    let (file_bytes, files) = (pick(rng, &[32 << 10, 64 << 10, 128 << 10]), rng.u64(3..9));
    set("weir.journal.files", files);
    set("weir.journal.bytes", file_bytes * files);
    set("log.index.interval.bytes", pick(rng, &[256, 1024, 4096]));
    set("metadata.log.max.record.bytes.between.snapshots", pick(rng, &[1_500, 5_000, 20_000, 20 << 20]));
    set("metadata.log.segment.bytes", pick(rng, &[4 << 10, 64 << 10, 1 << 20]));
    set("weir.metadata.log.retained.entries", pick(rng, &[0, 5, 50, 10_000]));
    set("group.min.session.timeout.ms", 100);
    set("group.initial.rebalance.delay.ms", pick(rng, &[0, 50, 300]));
    set("offsets.topic.num.partitions", rng.u64(1..4));
    let session_ms = pick(rng, &[400, 1_000, 1_000, 3_000]);
    set("broker.session.timeout.ms", session_ms);
    set("broker.heartbeat.interval.ms", session_ms / 6);
    set("controller.quorum.election.timeout.ms", pick(rng, &[100, 200, 200, 500]));
    set("replica.lag.time.max.ms", pick(rng, &[400, 1_500, 1_500, 10_000]));
    set("replica.fetch.max.bytes", pick(rng, &[1 << 10, 16 << 10, 1 << 20]));
    set("replica.fetch.response.max.bytes", pick(rng, &[2 << 10, 64 << 10, 10 << 20]));
    set("leader.imbalance.check.interval.seconds", pick(rng, &[1, 3, 300]));
    if rng.u32(0..4) == 0 {
        set("weir.offsets.retention.ms", pick(rng, &[700, 2_000]));
        set("offsets.retention.check.interval.ms", pick(rng, &[50, 300]));
    }
    if matches!(promise, Promise::Unsynced { .. }) {
        set("log.flush.interval.messages", i64::MAX as u64);
    }
    settings
}

fn load(rng: &mut Rng, cluster: &Cluster, promise: Promise) -> Load {
    let serving = cluster.serving().count() as i16;
    let topics = (0..rng.u32(1..4)).map(|number| topic(rng, number, serving, promise)).collect();
    let producers = (0..rng.u32(1..4)).map(|_| Producer {
        acks: if rng.u32(0..100) < 85 { -1 } else { 1 },
        records_per_second: pick(rng, &[20, 50, 100]) as u32,
        burst: pick(rng, &[1, 5, 20]) as u32,
        value_bytes_max: pick(rng, &[40, 200, 2000]) as u32,
        compression: ["none", "none", "none", "lz4"][rng.usize(0..4)].to_owned(),
        retries: rng.u32(0..3) > 0,
        idempotent: rng.bool(),
        delivery_timeout_ms: pick(rng, &[300, 1_000, 20_000]),
    });
    Load {
        producers: producers.collect(),
        topics,
        keyed: Vec::new(),
        duration_ms: rng.u64(8_000..18_000),
        consumers: rng.u32(0..3),
        groups: groups(rng),
        delete_records_every_ms: if rng.u32(0..4) == 0 { rng.u64(500..3_000) } else { 0 },
        topic_churn_every_ms: if rng.u32(0..4) == 0 { rng.u64(800..3_000) } else { 0 },
        group_churn_every_ms: 0,
        listed_every_ms: 0,
        feature_level: 0,
    }
}

fn topic(rng: &mut Rng, number: u32, serving: i16, promise: Promise) -> Topic {
    let mut settings = topic_settings(rng);
    // Where a disk may lie, two hold each record at least.
    let least = if promise == Promise::Synced { 1 } else { 2.min(serving) };
    let replicas = match rng.u32(0..10) {
        0 => least,
        1 => 2,
        2 => 5,
        _ => 3,
    };
    let replicas = replicas.clamp(least, serving);
    if rng.u32(0..4) == 0 {
        let min_insync = rng.i16(least.min(replicas)..=replicas);
        settings.insert("min.insync.replicas".to_owned(), min_insync.to_string());
    }
    Topic {
        name: format!("topic-{number}"),
        partitions: rng.i32(1..4),
        replicas: (rng.u32(0..4) > 0 || replicas < least).then_some(replicas),
        settings,
        keys: 0,
    }
}

fn groups(rng: &mut Rng) -> Vec<Group> {
    let count = pick(rng, &[0, 0, 1, 1]);
    let group = |number| Group {
        name: format!("group-{number}"),
        members: rng.u32(1..4),
        assignor: ["range", "roundrobin", "cooperative-sticky"][rng.usize(0..3)].to_owned(),
        is_static: rng.u32(0..3) == 0,
        session_timeout_ms: pick(rng, &[500, 1_000, 3_000]),
        poll_interval_max_ms: pick(rng, &[700, 1_500, 4_000]),
        commit_every_ms: pick(rng, &[50, 200, 1_000]),
        life_ms: pick(rng, &[500, 1_500, 5_000, 60_000]),
        zombies: rng.bool(),
        visited: rng.u32(0..4) == 0,
    };
    (0..count).map(group).collect()
}

/// Draws a fault that concerns several of so many nodes.
type Kind = fn(&mut Rng, &Cluster) -> Fault;

/// The kinds that every cluster withstands.
const SEVERAL: &[Kind] = &[
    |rng, cluster| Fault::Split { groups: halves(rng, cluster.brokers), for_ms: rng.u64(200..4_000) },
    |rng, cluster| Fault::Split { groups: bridge(rng, cluster.brokers), for_ms: rng.u64(200..4_000) },
    |rng, cluster| Fault::Flap {
        groups: halves(rng, cluster.brokers),
        times: rng.u32(2..6),
        every_ms: rng.u64(100..1_500),
    },
    |rng, cluster| {
        let broker = rng.u32(0..cluster.brokers);
        let to = some_of(rng, (0..cluster.brokers).filter(|node| *node != broker).collect());
        Fault::Deaf { broker, to, for_ms: rng.u64(200..4_000) }
    },
    |rng, cluster| {
        let order = shuffled(rng, cluster.brokers);
        let order = order[..rng.usize(1..=order.len())].to_vec();
        let mut back = order.clone();
        rng.shuffle(&mut back);
        Fault::Swizzle { order, back, step_ms: rng.u64(50..500) }
    },
    |rng, cluster| Fault::BadLinks {
        broker: rng.u32(0..cluster.brokers),
        delay_ms: rng.u64(1..200),
        loss_percent: rng.u32(0..40),
        for_ms: rng.u64(300..4_000),
    },
    |rng, cluster| Fault::HalfOpen { broker: rng.u32(0..cluster.brokers), for_ms: rng.u64(0..2_000) },
    |rng, cluster| blackout(rng, cluster.brokers, false),
    |rng, cluster| Fault::Rolling {
        order: shuffled(rng, cluster.brokers),
        down_ms: rng.u64(0..300),
        pause_ms: rng.u64(0..1_000),
    },
    |rng, _| hunt(rng, &[Blow::Kill, Blow::Stop, Blow::Pause, Blow::Cut, Blow::Isolate]),
    |rng, _| hunt(rng, &[Blow::Kill, Blow::Pause, Blow::Cut, Blow::Isolate]),
    |rng, _| chase(rng, &[Blow::Kill, Blow::Kill, Blow::Pause, Blow::Cut, Blow::Isolate]),
];

/// The kinds that only synced topics withstand.
const CRUEL_TO_SEVERAL: &[Kind] = &[
    |rng, cluster| blackout(rng, cluster.brokers, true),
    |rng, _| hunt(rng, &[Blow::Power]),
    |rng, _| chase(rng, &[Blow::Power]),
];

fn hunt(rng: &mut Rng, blows: &[Blow]) -> Fault {
    let place = rng.u32(0..9);
    let whom =
        [Whom::Leader(place), Whom::Leader(place), Whom::Follower(place), Whom::Quorum][rng.usize(0..4)];
    Fault::Hunt { whom, blow: blows[rng.usize(0..blows.len())], for_ms: away(rng) }
}

fn chase(rng: &mut Rng, blows: &[Blow]) -> Fault {
    let place = rng.u32(0..9);
    let whom = [Whom::Leader(place), Whom::Leader(place), Whom::Quorum][rng.usize(0..3)];
    Fault::Chase {
        whom,
        blow: blows[rng.usize(0..blows.len())],
        times: rng.u32(2..5),
        after_ms: pick(rng, &[0, 10, 60, 300]),
        for_ms: away(rng),
    }
}

/// Often so short that nobody notices before it is over.
fn away(rng: &mut Rng) -> u64 {
    down(rng) + pick(rng, &[0, 100])
}

/// A node that is behind, and hard to follow, when leaders begin to change.
fn laggard(rng: &mut Rng, nodes: u32) -> Fault {
    Fault::BadLinks {
        broker: rng.u32(0..nodes),
        delay_ms: pick(rng, &[20, 50, 100, 200]),
        loss_percent: 0,
        for_ms: rng.u64(500..4_000),
    }
}

/// Every third cluster of three and more has links of which each has a delay of its own, while leaders change: what one of
/// them has said arrives when another one is listened to.
fn uneven(rng: &mut Rng, cluster: &Cluster, load: &Load) -> Vec<TimedFault> {
    let nodes = cluster.brokers;
    if nodes < 3 || rng.u32(0..3) > 0 {
        return Vec::new();
    }
    let mut faults = Vec::new();
    for _ in 0..rng.u32(1..4) {
        let pairs = (0..nodes).flat_map(|from| (0..nodes).map(move |to| (from, to)));
        let pairs = pairs.filter(|(from, to)| from != to);
        let mut links: Vec<_> =
            pairs.map(|(from, to)| (from, to, pick(rng, &[0, 0, 0, 30, 100, 300, 450]))).collect();
        links.retain(|(_, _, delay_ms)| *delay_ms > 0);
        if links.is_empty() {
            continue;
        }
        let (at_ms, for_ms) = (rng.u64(200..load.duration_ms), rng.u64(1_500..5_000));
        faults.push(TimedFault { at_ms, fault: Fault::Uneven { links, for_ms } });
        for _ in 0..rng.u32(1..3) {
            let at_ms = (at_ms + rng.u64(300..for_ms)).min(load.duration_ms - 1);
            let blow = [Blow::Kill, Blow::Kill, Blow::Stop, Blow::Pause, Blow::Isolate][rng.usize(0..5)];
            let fault = Fault::Hunt { whom: Whom::Leader(rng.u32(0..9)), blow, for_ms: away(rng) };
            faults.push(TimedFault { at_ms, fault });
        }
    }
    faults
}

fn blackout(rng: &mut Rng, nodes: u32, power: bool) -> Fault {
    let order = shuffled(rng, nodes);
    let count = if rng.bool() { order.len() } else { rng.usize(1..=order.len()) };
    let brokers = order[..count].to_vec();
    let down_ms = brokers.iter().map(|_| down(rng)).collect();
    Fault::Blackout { brokers, power, down_ms }
}

fn shuffled(rng: &mut Rng, nodes: u32) -> Vec<u32> {
    let mut order: Vec<u32> = (0..nodes).collect();
    rng.shuffle(&mut order);
    order
}

fn some_of(rng: &mut Rng, mut nodes: Vec<u32>) -> Vec<u32> {
    rng.shuffle(&mut nodes);
    let count = if nodes.is_empty() { 0 } else { rng.usize(1..=nodes.len()) };
    nodes.truncate(count);
    nodes
}

fn halves(rng: &mut Rng, nodes: u32) -> Vec<Vec<u32>> {
    let order = shuffled(rng, nodes);
    let (one, other) = order.split_at(rng.usize(0..=order.len()));
    vec![one.to_vec(), other.to_vec()]
}

/// Two groups that only one node connects.
fn bridge(rng: &mut Rng, nodes: u32) -> Vec<Vec<u32>> {
    let mut groups = halves(rng, nodes);
    if let Some(between) = groups[0].first().copied() {
        groups[1].push(between);
    }
    groups
}

fn faults(rng: &mut Rng, cluster: &Cluster, load: &Load, promise: Promise) -> Vec<TimedFault> {
    let clients = crate::load::clients(load) - 1;
    let is_synced = !matches!(promise, Promise::Unsynced { .. });
    let chance = |rng: &mut Rng| rng.u32(0..10) < 3;
    let single: Vec<_> = [HARMLESS, if is_synced { CRUEL } else { &[] }].concat();
    let single: Vec<_> = single.into_iter().filter(|_| chance(rng)).collect();
    let several: Vec<_> = [SEVERAL, if is_synced { CRUEL_TO_SEVERAL } else { &[] }].concat();
    let several: Vec<_> = several.into_iter().filter(|_| chance(rng)).collect();
    let mut faults = Vec::new();
    for _ in 0..rng.u32(4..16) {
        let at_ms = rng.u64(200..load.duration_ms);
        let pick_single = several.is_empty() || rng.bool();
        let fault = if pick_single && !single.is_empty() {
            single[rng.usize(0..single.len())](rng, clients).on(rng.u32(0..cluster.brokers))
        } else if several.is_empty() {
            Fault::Kill { broker: rng.u32(0..cluster.brokers), down_ms: down(rng) }
        } else {
            several[rng.usize(0..several.len())](rng, cluster)
        };
        if matches!(fault, Fault::Chase { .. }) && rng.bool() {
            faults.push(TimedFault { at_ms: at_ms - 100, fault: laggard(rng, cluster.brokers) });
        }
        faults.push(TimedFault { at_ms, fault });
    }
    for _ in 0..rng.u32(1..4) {
        let at_ms = rng.u64(1_000..load.duration_ms);
        let fault = match promise {
            Promise::Damaged { node } => harm(rng, clients, node),
            Promise::Unsynced { node: Some(broker) } => Fault::PowerLoss { broker, down_ms: down(rng) },
            _ => continue,
        };
        if fault.damages() && rng.bool() {
            faults.push(TimedFault { at_ms: at_ms - 500, fault: laggard(rng, cluster.brokers) });
        }
        faults.push(TimedFault { at_ms, fault });
    }
    faults.sort_by_key(|fault| fault.at_ms);
    faults
}

/// Damage to one node's disk.
fn harm(rng: &mut Rng, clients: u32, node: u32) -> Fault {
    match rng.u32(0..8) {
        0 | 1 => Fault::Wipe { broker: node, down_ms: down(rng) },
        6 | 7 => Fault::Relapse {
            broker: node,
            away_ms: rng.u64(400..3_500),
            after_ms: pick(rng, &[1, 15, 50]),
            down_ms: pick(rng, &[0, 20, 100]),
            quorum_ms: pick(rng, &[20, 300, 1_000]),
        },
        2 => Fault::LostWrite {
            broker: node,
            files: [Files::Journal, Files::Segments, Files::Any][rng.usize(0..3)],
            after_ms: rng.u64(50..1_000),
            down_ms: down(rng),
        },
        3 => {
            let Fault::BitRot { after_ms, down_ms, power, .. } = DAMAGE(rng, clients) else {
                return Fault::Wipe { broker: node, down_ms: 0 };
            };
            let files = [Files::Metadata, Files::Votes, Files::Snapshots][rng.usize(0..3)];
            Fault::BitRot { broker: node, files, after_ms, down_ms, power }
        }
        _ => DAMAGE(rng, clients).on(node),
    }
}
