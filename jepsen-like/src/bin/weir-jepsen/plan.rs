//! What a run does to the cluster, as plain data: drawn from a seed beforehand, saved beside the run's logs, and run again
//! with `--plan`.

use std::collections::BTreeMap;

use fastrand::Rng;
use serde::{Deserialize, Serialize};
use weir_jepsen::load::plan::{Group, KeyedProducer, Load, Producer, Topic};

/// Version of the plan's format.
pub(crate) const FORMAT: u32 = 1;
/// Before the first fault: consumers, groups and coordinators have come into being.
const QUIET_FIRST_MS: u64 = 5_000;

/// Everything that decides a run, but for the small delays of real processes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Plan {
    /// [`FORMAT`].
    pub(crate) format: u32,
    /// From which it was drawn.
    pub(crate) seed: u64,
    /// Brokers.
    pub(crate) nodes: u32,
    /// Settings of `server.properties`, the same on every node.
    pub(crate) settings: BTreeMap<String, String>,
    /// What our clients do.
    pub(crate) load: Load,
    /// Whether librdkafka's clients work beside ours.
    pub(crate) librdkafka: bool,
    /// Partitions whose writes tell how long there was no leader.
    pub(crate) probes: i32,
    /// In the order of time.
    pub(crate) faults: Vec<TimedFault>,
}

/// A fault, its time from the start of the load, and how long it lasts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TimedFault {
    pub(crate) at_ms: u64,
    pub(crate) for_ms: u64,
    pub(crate) fault: Fault,
}

/// Something that goes wrong. Nodes are counted from 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Fault {
    /// SIGKILL; the process is started again in the end.
    Kill { node: u32 },
    /// The same for all nodes at once.
    KillAll,
    /// SIGKILL, and all its data is removed: it comes back with an empty disk.
    Wipe { node: u32 },
    /// SIGSTOP, and SIGCONT in the end.
    Stop { node: u32 },
    /// SIGTERM, a clean stop; the process is started again in the end.
    Restart { node: u32 },
    /// The node and everybody else do not hear each other.
    CutOff { node: u32 },
    /// The node and the other nodes do not hear each other; clients still reach it.
    CutFromPeers { node: u32 },
    /// Two nodes do not hear each other.
    CutLink { node: u32, other: u32 },
    /// Nobody hears the node.
    Mute { node: u32 },
    /// The node hears nobody.
    Deafen { node: u32 },
    /// Every connection of the node is reset.
    Reset { node: u32 },
    /// Everything from and to the node arrives later.
    Slow { node: u32, delay_ms: u64 },
}

/// The kinds of fault, in the order of the summary, and whether one takes more than one node.
const KINDS: [(&str, bool); 12] = [
    ("kill", false),
    ("kill-all", true),
    ("wipe", true),
    ("stop", false),
    ("restart", false),
    ("cut-off", false),
    ("cut-from-peers", true),
    ("cut-link", true),
    ("mute", false),
    ("deafen", false),
    ("reset", false),
    ("slow", false),
];

impl Fault {
    /// The name under which the summary counts it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Fault::Kill { .. } => "kill",
            Fault::KillAll => "kill-all",
            Fault::Wipe { .. } => "wipe",
            Fault::Stop { .. } => "stop",
            Fault::Restart { .. } => "restart",
            Fault::CutOff { .. } => "cut-off",
            Fault::CutFromPeers { .. } => "cut-from-peers",
            Fault::CutLink { .. } => "cut-link",
            Fault::Mute { .. } => "mute",
            Fault::Deafen { .. } => "deafen",
            Fault::Reset { .. } => "reset",
            Fault::Slow { .. } => "slow",
        }
    }

    /// Whether a node goes on that the others do not hear, or hear late.
    pub(crate) fn leaves_unheard(&self) -> bool {
        match self {
            Fault::Stop { .. }
            | Fault::CutOff { .. }
            | Fault::CutFromPeers { .. }
            | Fault::CutLink { .. }
            | Fault::Mute { .. }
            | Fault::Deafen { .. }
            | Fault::Slow { .. } => true,
            Fault::Kill { .. }
            | Fault::KillAll
            | Fault::Wipe { .. }
            | Fault::Restart { .. }
            | Fault::Reset { .. } => false,
        }
    }

    /// The node that it strikes; `None` if it strikes all.
    pub(crate) fn node(&self) -> Option<u32> {
        match *self {
            Fault::KillAll => None,
            Fault::Kill { node }
            | Fault::Wipe { node }
            | Fault::Stop { node }
            | Fault::Restart { node }
            | Fault::CutOff { node }
            | Fault::CutFromPeers { node }
            | Fault::CutLink { node, .. }
            | Fault::Mute { node }
            | Fault::Deafen { node }
            | Fault::Reset { node }
            | Fault::Slow { node, .. } => Some(node),
        }
    }

    /// Strikes one of `nodes` nodes, drawn at random. Only one disk of a run is ever lost: with two of three in sync, no more
    /// may be before it is repaired.
    fn draw(kind: &str, nodes: u32, mortal: u32, rng: &mut Rng) -> Fault {
        let node = rng.u32(..nodes);
        match kind {
            "wipe" => Fault::Wipe { node: mortal },
            "kill" => Fault::Kill { node },
            "kill-all" => Fault::KillAll,
            "stop" => Fault::Stop { node },
            "restart" => Fault::Restart { node },
            "cut-off" => Fault::CutOff { node },
            "cut-from-peers" => Fault::CutFromPeers { node },
            "cut-link" => Fault::CutLink { node, other: (node + rng.u32(1..nodes)) % nodes },
            "mute" => Fault::Mute { node },
            "deafen" => Fault::Deafen { node },
            "reset" => Fault::Reset { node },
            _ => Fault::Slow { node, delay_ms: rng.u64(20..300) },
        }
    }
}

/// Why a plan is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlanError {
    /// It is not one.
    #[error("this is not a plan: {0}")]
    Malformed(#[from] serde_json::Error),
    /// It is of another version.
    #[error("the plan has format {0}, and this program reads {FORMAT}")]
    OtherFormat(u32),
    /// A fault does not fit the cluster.
    #[error("the plan strikes node {node}, and the last one is {last}")]
    NoSuchNode { node: u32, last: u32 },
}

impl Plan {
    /// A run of about this length with every kind of fault in turn, with pauses between most of them.
    pub(crate) fn draw(seed: u64, nodes: u32, duration_ms: u64, librdkafka: bool) -> Plan {
        let mut rng = Rng::with_seed(seed);
        let kinds: Vec<&str> =
            KINDS.iter().filter(|(_, takes_more)| nodes > 1 || !takes_more).map(|(kind, _)| *kind).collect();
        let mortal = rng.u32(..nodes);
        let (mut faults, mut turn) = (Vec::new(), Vec::new());
        let mut at_ms = QUIET_FIRST_MS;
        loop {
            if turn.is_empty() {
                turn.clone_from(&kinds);
                rng.shuffle(&mut turn);
            }
            let Some(kind) = turn.pop() else { break };
            let fault = Fault::draw(kind, nodes, mortal, &mut rng);
            let for_ms = rng.u64(500..8_000);
            if at_ms + for_ms > duration_ms {
                break;
            }
            faults.push(TimedFault { at_ms, for_ms, fault });
            // One in five begins before the one before it has ended: then a majority may be gone.
            at_ms += if rng.u32(..5) == 0 { rng.u64(..for_ms) } else { for_ms + rng.u64(2_000..6_000) };
        }
        let load = load(&mut rng, duration_ms);
        let settings = settings();
        Plan { format: FORMAT, seed, nodes, settings, load, librdkafka, probes: 2 * nodes as i32, faults }
    }

    /// The same few faults again and again with nothing but the probes: how long writes fail.
    pub(crate) fn failover(seed: u64, nodes: u32, rounds: u32) -> Plan {
        let mut rng = Rng::with_seed(seed);
        let (mut faults, mut at_ms) = (Vec::new(), QUIET_FIRST_MS);
        for _ in 0..rounds {
            for kind in ["kill", "stop", "cut-off", "restart"] {
                for_each_node(nodes, &mut rng, |node, rng| {
                    let fault = match kind {
                        "kill" => Fault::Kill { node },
                        "stop" => Fault::Stop { node },
                        "cut-off" => Fault::CutOff { node },
                        _ => Fault::Restart { node },
                    };
                    // Not in step with any period of the cluster's.
                    at_ms += rng.u64(..1_000);
                    faults.push(TimedFault { at_ms, for_ms: 4_000, fault });
                    at_ms += 4_000 + 4_000;
                });
            }
        }
        let load = Load {
            duration_ms: at_ms,
            topics: Vec::new(),
            producers: Vec::new(),
            keyed: Vec::new(),
            consumers: 0,
            groups: Vec::new(),
            delete_records_every_ms: 0,
            topic_churn_every_ms: 0,
            group_churn_every_ms: 0,
            listed_every_ms: 0,
            feature_level: 0,
        };
        let settings = settings();
        Plan {
            format: FORMAT,
            seed,
            nodes,
            settings,
            load,
            librdkafka: false,
            probes: 2 * nodes as i32,
            faults,
        }
    }

    /// Reads a plan and checks that it fits together.
    pub(crate) fn from_json(text: &str) -> Result<Plan, PlanError> {
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let Version { format } = serde_json::from_str(text)?;
        if format != FORMAT {
            return Err(PlanError::OtherFormat(format));
        }
        let mut plan: Plan = serde_json::from_str(text)?;
        plan.faults.sort_by_key(|fault| fault.at_ms);
        let last = plan.nodes.saturating_sub(1);
        let others = plan.faults.iter().filter_map(|fault| match fault.fault {
            Fault::CutLink { other, .. } => Some(other),
            _ => None,
        });
        let struck = plan.faults.iter().filter_map(|fault| fault.fault.node()).chain(others);
        match struck.max().filter(|node| *node > last) {
            Some(node) => Err(PlanError::NoSuchNode { node, last }),
            None => Ok(plan),
        }
    }

    /// The plan as JSON that people can edit.
    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a plan has only string keys")
    }
}

fn for_each_node(nodes: u32, rng: &mut Rng, mut run: impl FnMut(u32, &mut Rng)) {
    let mut order: Vec<u32> = (0..nodes).collect();
    rng.shuffle(&mut order);
    for node in order {
        run(node, rng);
    }
}

/// Small and quick, where it is not what is tried.
fn settings() -> BTreeMap<String, String> {
    let settings = [
        ("group.initial.rebalance.delay.ms", "0"),
        ("log.cleaner.backoff.ms", "500"),
        ("offsets.topic.num.partitions", "4"),
        ("weir.journal.bytes", "67108864"),
    ];
    settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

fn load(rng: &mut Rng, duration_ms: u64) -> Load {
    let topic = |name: &str, partitions| Topic {
        name: name.to_owned(),
        partitions,
        replicas: None,
        settings: BTreeMap::new(),
        keys: 0,
    };
    let codecs = ["none", "gzip", "snappy", "lz4", "zstd"];
    let mut producer = |acks: i16, idempotent: bool, burst: u32| Producer {
        acks,
        records_per_second: rng.u32(20..100),
        burst,
        value_bytes_max: rng.u32(20..2_000),
        compression: codecs[rng.usize(..codecs.len())].to_owned(),
        retries: true,
        idempotent,
        delivery_timeout_ms: 20_000,
    };
    let producers =
        vec![producer(-1, true, 1), producer(-1, true, 20), producer(-1, false, 5), producer(1, false, 5)];
    let group = |name: &str, assignor: &str, is_static| Group {
        name: name.to_owned(),
        members: 2,
        assignor: assignor.to_owned(),
        is_static,
        session_timeout_ms: 6_000,
        poll_interval_max_ms: 10_000,
        commit_every_ms: 200,
        life_ms: 15_000,
        zombies: true,
        visited: false,
    };
    Load {
        duration_ms,
        topics: vec![topic("one", 1), topic("several", 6), compacted("compacted", 3)],
        producers,
        keyed: ["none", "zstd"].map(keyed).into(),
        consumers: 2,
        groups: vec![group("eager", "range", true), group("cooperative", "cooperative-sticky", false)],
        delete_records_every_ms: 0,
        topic_churn_every_ms: 4_000,
        group_churn_every_ms: 0,
        listed_every_ms: 300,
        feature_level: 0,
    }
}

/// A topic whose tombstones are gone before a node that is down comes back.
fn compacted(name: &str, partitions: i32) -> Topic {
    let settings = [
        ("cleanup.policy", "compact"),
        ("internal.segment.bytes", "65536"),
        ("segment.ms", "1500"),
        ("min.cleanable.dirty.ratio", "0.1"),
        ("delete.retention.ms", "1000"),
    ];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    Topic { name: name.to_owned(), partitions, replicas: None, settings, keys: 10 }
}

fn keyed(compression: &str) -> KeyedProducer {
    KeyedProducer {
        records_per_second: 60,
        burst: 5,
        value_bytes_max: 400,
        tombstone_percent: 20,
        compression: compression.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_plan_each_time_and_every_kind_takes_its_turn() {
        let plan = Plan::draw(7, 3, 600_000, true);
        assert_eq!(plan, Plan::draw(7, 3, 600_000, true));
        let kinds: std::collections::BTreeSet<_> =
            plan.faults.iter().map(|fault| fault.fault.name()).collect();
        assert_eq!(kinds.len(), KINDS.len());
        assert!(plan.faults.iter().all(|fault| fault.at_ms + fault.for_ms <= 600_000));
        let wiped = plan.faults.iter().filter(|fault| fault.fault.name() == "wipe");
        let disks: std::collections::BTreeSet<_> = wiped.map(|fault| fault.fault.node()).collect();
        assert_eq!(disks.len(), 1, "only one disk is ever lost");
    }

    #[test]
    fn one_node_has_nobody_to_be_cut_off_from() {
        let plan = Plan::draw(7, 1, 600_000, true);
        assert!(plan.faults.iter().all(|fault| !matches!(
            fault.fault,
            Fault::CutLink { .. } | Fault::CutFromPeers { .. } | Fault::KillAll | Fault::Wipe { .. }
        )));
    }

    #[test]
    fn a_plan_that_is_written_is_read_again_and_a_wrong_one_is_refused() {
        let plan = Plan::draw(3, 3, 60_000, false);
        assert_eq!(Plan::from_json(&plan.to_json()).unwrap(), plan);
        let other = plan.to_json().replacen("\"format\": 1", "\"format\": 2", 1);
        assert!(matches!(Plan::from_json(&other), Err(PlanError::OtherFormat(2))));
        let outside = Plan { nodes: 1, ..plan };
        assert!(matches!(Plan::from_json(&outside.to_json()), Err(PlanError::NoSuchNode { .. })));
    }
}
