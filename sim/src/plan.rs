//! A run as plain data: the cluster, the load and the timed faults.
//!
//! A seed is expanded into a plan before the run ([`crate::swarm`]), so a plan can be saved, edited by hand, shortened
//! and replayed. The run draws its small delays from [`Plan::seed`]; every fault stands here.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use weir_jepsen::load::plan::{Group, KeyedProducer, Load, Producer, Topic};

/// Version of the plan's format; a plan of another version is refused, never guessed at.
pub const FORMAT: u32 = 1;

/// Everything that decides a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// [`FORMAT`].
    pub format: u32,
    /// Decides every small delay and every choice that the plan leaves open.
    pub seed: u64,
    /// The brokers.
    pub cluster: Cluster,
    /// What the clients do.
    pub load: Load,
    /// What goes wrong, in the order of time.
    pub faults: Vec<TimedFault>,
    /// In the end, after a pause, each node is stopped and started once, and what others lead then is read again.
    #[serde(default, skip_serializing_if = "is_off")]
    pub rounds: bool,
}

fn is_off(switch: &bool) -> bool {
    !switch
}

/// The nodes and their settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// Number of nodes.
    pub brokers: u32,
    /// Settings of `server.properties`, the same on every node.
    pub settings: BTreeMap<String, String>,
    /// The nodes of a cluster, one entry each. Empty: one node alone, which is no cluster's member.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<Member>,
}

/// A node of a cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// What it is for.
    pub role: Role,
    /// Settings of its own, before those that all nodes share.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
}

/// What a node is for (`process.roles`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// It votes in the metadata quorum and holds partitions.
    Both,
    /// It votes.
    Controller,
    /// It holds partitions.
    Broker,
}

impl Role {
    /// Whether it holds partitions and serves clients.
    pub fn is_broker(self) -> bool {
        self != Role::Controller
    }

    /// Whether it votes in the metadata quorum.
    pub fn is_controller(self) -> bool {
        self != Role::Broker
    }
}

impl Cluster {
    /// Whether it is one node alone.
    pub fn is_lone(&self) -> bool {
        self.members.is_empty()
    }

    /// What a node is for.
    pub fn role(&self, node: u32) -> Role {
        self.members.get(node as usize).map_or(Role::Both, |member| member.role)
    }

    /// The nodes that serve clients.
    pub fn serving(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.brokers).filter(|node| self.role(*node).is_broker())
    }

    /// The nodes that vote.
    pub fn voting(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.brokers).filter(|node| self.role(*node).is_controller())
    }

    /// Whether topics are not synced before they acknowledge.
    pub fn is_unsynced(&self) -> bool {
        self.settings.contains_key("log.flush.interval.messages")
    }
}

/// A fault and its time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimedFault {
    /// Milliseconds of simulated time from the start of the load.
    pub at_ms: u64,
    /// What goes wrong.
    pub fault: Fault,
}

/// Which of a broker's files a disk fault is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Files {
    /// The rounds of the journal.
    Journal,
    /// The log of the metadata quorum.
    Metadata,
    /// What a voter must not forget: its term and its vote.
    Votes,
    /// Snapshots of the cluster's metadata.
    Snapshots,
    /// The records of the partitions.
    Segments,
    /// The indexes of the segments.
    Indexes,
    /// The folder's checkpoint.
    Checkpoint,
    /// Any file.
    Any,
}

impl Files {
    /// A part that the paths of these files contain, and that of no other files.
    pub fn pattern(self) -> &'static str {
        match self {
            Files::Journal => "journal/",
            Files::Metadata => "00000000-0000-0000-0000-000000000001-0/",
            Files::Votes => "quorum-state",
            Files::Snapshots => "snapshot",
            Files::Segments => ".log",
            Files::Indexes => ".index",
            Files::Checkpoint => "checkpoint",
            Files::Any => "",
        }
    }
}

/// Which way a link is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// What the broker sends is lost.
    FromBroker,
    /// What the clients send is lost.
    ToBroker,
    /// Both.
    Both,
}

/// Whom a fault looks for when its time has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Whom {
    /// Whoever leads the partition at this place in the list of all partitions.
    Leader(u32),
    /// A replica in sync of that partition that does not lead it.
    Follower(u32),
    /// Whoever leads the metadata quorum.
    Quorum,
}

/// What is done to whom a fault has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Blow {
    /// SIGKILL.
    Kill,
    /// It loses power.
    Power,
    /// A clean stop.
    Stop,
    /// It stands still (SIGSTOP).
    Pause,
    /// No other node hears it, nor it them; clients do.
    Cut,
    /// Nobody hears it, nor it anybody.
    Isolate,
}

/// Something that goes wrong. Durations are in milliseconds of simulated time; `broker` is counted from 0.
#[allow(missing_docs, reason = "the fields are explained above and by their names")]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Fault {
    /// The process dies at once (SIGKILL); what the kernel holds stays. It starts again after `down_ms`.
    Kill { broker: u32, down_ms: u64 },
    /// The machine loses power: any subset of what was not synced is gone.
    PowerLoss { broker: u32, down_ms: u64 },
    /// Killed or without power, and struck again while it recovers, `after_ms` after its start.
    CrashInRecovery { broker: u32, down_ms: u64, after_ms: u64, power: bool },
    /// A clean stop and a start.
    Restart { broker: u32, down_ms: u64 },
    /// A clean stop, a start, and a crash `after_ms` after the start.
    RestartThenCrash { broker: u32, down_ms: u64, after_ms: u64, power: bool },
    /// The process stops and the clock goes on (SIGSTOP, SIGCONT).
    Pause { broker: u32, for_ms: u64 },
    /// The next read of these files fails (EIO).
    ReadError { broker: u32, files: Files },
    /// The next write to these files fails (EIO).
    WriteError { broker: u32, files: Files },
    /// The next sync of these files fails, and the pages are marked clean all the same.
    SyncError { broker: u32, files: Files },
    /// The disk has room for `room_bytes` more, for a while.
    DiskFull { broker: u32, room_bytes: u64, for_ms: u64 },
    /// Every operation takes `factor` times as long, for a while.
    SlowDisk { broker: u32, factor: u32, for_ms: u64 },
    /// No operation ends, for a while.
    StuckDisk { broker: u32, for_ms: u64 },
    /// Bits flip in data at rest; after a while, in which something newer is written, the process is killed or loses power,
    /// so that it reads them again. Only where the atlas allows.
    BitRot { broker: u32, files: Files, after_ms: u64, down_ms: u64, power: bool },
    /// A client, or all of them if `client` is missing, and the broker do not hear each other, for a while.
    Cut { broker: u32, client: Option<u32>, direction: Direction, for_ms: u64 },
    /// Every connection of the broker is reset, in the middle of a frame if one is under way.
    Reset { broker: u32 },
    /// The links of the broker get slower by so many milliseconds each way, for a while.
    SlowLink { broker: u32, delay_ms: u64, for_ms: u64 },
    /// The broker's wall clock jumps by so many milliseconds.
    ClockJump { broker: u32, by_ms: i64 },
    /// The broker's wall clock stands still, for a while.
    ClockFreeze { broker: u32, for_ms: u64 },
    /// Nodes of different groups do not hear each other, for a while. One that stands in two groups hears both: a bridge.
    Split { groups: Vec<Vec<u32>>, for_ms: u64 },
    /// As a split that comes and goes, so many times.
    Flap { groups: Vec<Vec<u32>>, times: u32, every_ms: u64 },
    /// A node does not hear these, who hear it, for a while.
    Deaf { broker: u32, to: Vec<u32>, for_ms: u64 },
    /// Nodes are cut off from everybody one by one, and come back in another order.
    Swizzle { order: Vec<u32>, back: Vec<u32>, step_ms: u64 },
    /// A node's links to the other nodes are slow, and lose what opens connections, for a while.
    BadLinks { broker: u32, delay_ms: u64, loss_percent: u32, for_ms: u64 },
    /// What the first of two nodes sends to the second takes so many milliseconds longer, for a while.
    Uneven { links: Vec<(u32, u32, u64)>, for_ms: u64 },
    /// A node forgets its connections to the other nodes, which do not hear of it.
    HalfOpen { broker: u32, for_ms: u64 },
    /// Several nodes die at once; each comes back after its own time.
    Blackout { brokers: Vec<u32>, power: bool, down_ms: Vec<u64> },
    /// A clean stop and a start of one node after the other.
    Rolling { order: Vec<u32>, down_ms: u64, pause_ms: u64 },
    /// A node is stopped cleanly, and another version of Weir is started on its folder, which works up to this feature level.
    Install { broker: u32, level: u16, down_ms: u64 },
    /// Something happens to whoever plays this part just then, for a while.
    Hunt { whom: Whom, blow: Blow, for_ms: u64 },
    /// Something happens to whoever plays this part just then, `after_ms` later to whoever plays it next, and so on.
    Chase { whom: Whom, blow: Blow, times: u32, after_ms: u64, for_ms: u64 },
    /// A node dies and comes back with an empty disk. Only where the atlas allows.
    Wipe { broker: u32, down_ms: u64 },
    /// A node dies and comes back after `away_ms`; then whoever leads the quorum dies, for `quorum_ms`, and the node loses its disk
    /// `after_ms` after it has caught up. Only where the atlas allows.
    Relapse { broker: u32, away_ms: u64, after_ms: u64, down_ms: u64, quorum_ms: u64 },
    /// A node dies and comes back after `away_ms`. From then on the words of a leader that it follows take `delay_ms` to the quorum's
    /// leader, until the node, `after_ms` after it has caught up, has got another disk and serves again, and then to the node as well. Only where the atlas allows.
    Overtake { broker: u32, away_ms: u64, after_ms: u64, delay_ms: u64 },
    /// Who leads the partition at a place is cut off until another one leads it, and `after_ms` longer. Then what that one says to it
    /// takes `delay_ms`; as soon as it has told the first to cut its log it stops cleanly, for `down_ms`.
    LateAnswer { place: u32, after_ms: u64, delay_ms: u64, down_ms: u64 },
    /// Whoever leads the quorum dies, and disks become so many times slower. Who then votes for another one loses its power for `down_ms`;
    /// the other one is cut off, and the first starts again, `for_ms` before that ends.
    Recast { disk_factor: u32, down_ms: u64, for_ms: u64 },
    /// Figure 8 of the Raft paper, among three voters whose words to each other take `delay_ms`: one begins to lead and is cut off at once, a
    /// second alike; the first leads again until the third has got its entry from it, and then the second does.
    FigureEight { voters: Vec<u32>, delay_ms: u64 },
    /// The next write to these files reports success and does nothing. Only where the atlas allows.
    LostWrite { broker: u32, files: Files, after_ms: u64, down_ms: u64 },
}

impl Fault {
    /// The name under which the summary counts it.
    pub fn name(&self) -> &'static str {
        match self {
            Fault::Kill { .. } => "kill",
            Fault::PowerLoss { .. } => "power-loss",
            Fault::CrashInRecovery { .. } => "crash-in-recovery",
            Fault::Restart { .. } => "restart",
            Fault::RestartThenCrash { .. } => "restart-then-crash",
            Fault::Pause { .. } => "pause",
            Fault::ReadError { .. } => "read-error",
            Fault::WriteError { .. } => "write-error",
            Fault::SyncError { .. } => "sync-error",
            Fault::DiskFull { .. } => "disk-full",
            Fault::SlowDisk { .. } => "slow-disk",
            Fault::StuckDisk { .. } => "stuck-disk",
            Fault::BitRot { .. } => "bit-rot",
            Fault::Cut { .. } => "cut",
            Fault::Reset { .. } => "reset",
            Fault::SlowLink { .. } => "slow-link",
            Fault::ClockJump { .. } => "clock-jump",
            Fault::ClockFreeze { .. } => "clock-freeze",
            Fault::Split { .. } => "split",
            Fault::Flap { .. } => "flap",
            Fault::Deaf { .. } => "deaf",
            Fault::Swizzle { .. } => "swizzle",
            Fault::BadLinks { .. } => "bad-links",
            Fault::Uneven { .. } => "uneven",
            Fault::HalfOpen { .. } => "half-open",
            Fault::Blackout { .. } => "blackout",
            Fault::Rolling { .. } => "rolling",
            Fault::Install { .. } => "install",
            Fault::Hunt { whom: Whom::Leader(_), .. } => "hunt-leader",
            Fault::Hunt { whom: Whom::Follower(_), .. } => "hunt-follower",
            Fault::Hunt { whom: Whom::Quorum, .. } => "hunt-quorum-leader",
            Fault::Chase { .. } => "chase",
            Fault::Wipe { .. } => "wipe",
            Fault::Relapse { .. } => "relapse",
            Fault::Overtake { .. } => "overtake",
            Fault::LateAnswer { .. } => "late-answer",
            Fault::Recast { .. } => "recast",
            Fault::FigureEight { .. } => "figure-8",
            Fault::LostWrite { .. } => "lost-write",
        }
    }

    /// Whether it damages data at rest, so that records may be reported as corrupt instead of being returned.
    pub fn damages(&self) -> bool {
        matches!(
            self,
            Fault::BitRot { .. }
                | Fault::Wipe { .. }
                | Fault::Relapse { .. }
                | Fault::Overtake { .. }
                | Fault::LostWrite { .. }
        )
    }

    /// Whether it takes power away from a node that it names; a hunt does so to anybody.
    pub fn takes_power(&self) -> bool {
        match *self {
            Fault::PowerLoss { .. } | Fault::Recast { .. } => true,
            Fault::CrashInRecovery { power, .. }
            | Fault::RestartThenCrash { power, .. }
            | Fault::BitRot { power, .. }
            | Fault::Blackout { power, .. } => power,
            Fault::Hunt { blow, .. } | Fault::Chase { blow, .. } => blow == Blow::Power,
            _ => false,
        }
    }
}

/// Why a plan cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// It is not a plan.
    #[error("not a plan: {0}")]
    Malformed(#[from] serde_json::Error),
    /// It was written by another version of the simulator.
    #[error("the plan has format {found}, this simulator reads {FORMAT}")]
    OtherFormat {
        /// The version that it states.
        found: u32,
    },
    /// A fault or a producer does not fit the cluster.
    #[error("the plan contradicts itself: {0}")]
    Contradiction(String),
}

impl Plan {
    /// Reads a plan from JSON and checks that it fits together.
    pub fn from_json(text: &str) -> Result<Plan, PlanError> {
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let Version { format } = serde_json::from_str(text)?;
        if format != FORMAT {
            return Err(PlanError::OtherFormat { found: format });
        }
        let mut plan: Plan = serde_json::from_str(text)?;
        plan.faults.sort_by_key(|fault| fault.at_ms);
        plan.check()?;
        Ok(plan)
    }

    /// The plan as JSON that people can edit.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a plan has only string keys")
    }

    /// Whether a fault of the plan damages data at rest.
    pub fn damages(&self) -> bool {
        self.faults.iter().any(|fault| fault.fault.damages())
    }

    /// Whether it takes power from the only node, which has not synced its topics.
    pub fn loses_records(&self) -> bool {
        let mut faults = self.faults.iter();
        self.cluster.is_lone() && self.cluster.is_unsynced() && faults.any(|fault| fault.fault.takes_power())
    }

    /// Whether it fits together, and asks nothing of a cluster that no cluster promises.
    ///
    /// # Errors
    /// What does not fit.
    pub fn check(&self) -> Result<(), PlanError> {
        let contradiction = |text: String| Err(PlanError::Contradiction(text));
        let cluster = &self.cluster;
        if cluster.brokers == 0 {
            return contradiction("a cluster has at least one broker".into());
        }
        if !cluster.is_lone() && cluster.members.len() != cluster.brokers as usize {
            return contradiction(format!("{} members of {} nodes", cluster.members.len(), cluster.brokers));
        }
        if cluster.serving().next().is_none() || cluster.voting().next().is_none() {
            return contradiction("somebody votes, and somebody serves clients".into());
        }
        if self.load.topics.is_empty() || self.load.topics.iter().any(|topic| topic.partitions < 1) {
            return contradiction("there is at least one topic, and each has at least one partition".into());
        }
        let beyond = |fault: &&TimedFault| fault.fault.nodes().iter().any(|node| *node >= cluster.brokers);
        match self.faults.iter().find(beyond) {
            Some(fault) => contradiction(format!(
                "the fault {} at {} ms strikes nodes {:?}, and the last one is {}",
                fault.fault.name(),
                fault.at_ms,
                fault.fault.nodes(),
                cluster.brokers - 1
            )),
            None => self.check_atlas(),
        }
    }

    /// The nodes whose disks the plan damages.
    pub fn damaged(&self) -> BTreeSet<u32> {
        let damaging = self.faults.iter().filter(|fault| fault.fault.damages());
        damaging.flat_map(|fault| fault.fault.nodes()).collect()
    }

    /// Damage is planned only where contract 1 withstands it: on fewer disks than each record is on, and on those of a minority
    /// of the voters. A node alone, which nothing can be fetched from, only says so.
    fn check_atlas(&self) -> Result<(), PlanError> {
        let (cluster, damaged) = (&self.cluster, self.damaged());
        if cluster.is_lone() {
            return Ok(());
        }
        let serving = cluster.serving().count();
        let copies =
            self.load.topics.iter().map(|topic| copies(topic, serving)).chain([majority(serving.min(3))]);
        let bearable = copies.min().unwrap_or(1).saturating_sub(1);
        let voters = cluster.voting().count();
        let damaged_voters = damaged.iter().filter(|node| cluster.role(**node).is_controller()).count();
        let damaged_homes = damaged.iter().filter(|node| cluster.role(**node).is_broker()).count();
        if damaged_homes > bearable || 2 * damaged_voters >= voters && damaged_voters > 0 {
            return Err(PlanError::Contradiction(format!(
                "damage to the disks of {damaged:?}: {bearable} may be damaged, and a minority of {voters} voters"
            )));
        }
        if cluster.is_unsynced() {
            let mut unsafe_homes = damaged;
            let cuts = self.faults.iter().filter(|fault| fault.fault.takes_power());
            for fault in cuts {
                if matches!(fault.fault, Fault::Hunt { .. } | Fault::Chase { .. } | Fault::Recast { .. }) {
                    return Err(PlanError::Contradiction(
                        "power taken from whoever leads, and topics that are not synced".into(),
                    ));
                }
                unsafe_homes.extend(fault.fault.nodes());
            }
            unsafe_homes.retain(|node| cluster.role(*node).is_broker());
            if unsafe_homes.len() > bearable {
                return Err(PlanError::Contradiction(format!(
                    "power is taken from {unsafe_homes:?}, and only {bearable} may lose what is not synced"
                )));
            }
        }
        Ok(())
    }
}

/// How many brokers hold an acknowledged record of the topic for certain: m of contract 1.
fn copies(topic: &Topic, serving: usize) -> usize {
    let replicas = topic.replicas.map_or(serving.min(3), |replicas| replicas.max(1) as usize).min(serving);
    let configured = topic.settings.get("min.insync.replicas").and_then(|value| value.parse().ok());
    configured.unwrap_or_else(|| majority(replicas)).min(replicas)
}

fn majority(of: usize) -> usize {
    of / 2 + 1
}

impl Fault {
    /// The nodes that it strikes, counted from 0; none if it finds out when its time has come.
    pub fn nodes(&self) -> Vec<u32> {
        match self {
            Fault::Deaf { broker, to, .. } => std::iter::once(broker).chain(to).copied().collect(),
            Fault::Split { groups, .. } | Fault::Flap { groups, .. } => {
                groups.iter().flatten().copied().collect()
            }
            Fault::Uneven { links, .. } => links.iter().flat_map(|(from, to, _)| [*from, *to]).collect(),
            Fault::Swizzle { order, back, .. } => order.iter().chain(back).copied().collect(),
            Fault::Blackout { brokers, .. } => brokers.clone(),
            Fault::Rolling { order, .. } => order.clone(),
            Fault::FigureEight { voters, .. } => voters.clone(),
            lone => lone.clone().the_one().map(|node| *node).into_iter().collect(),
        }
    }

    /// The same fault, on another node; one that names several stays what it is.
    pub fn on(mut self, node: u32) -> Fault {
        if let Some(the_one) = self.the_one() {
            *the_one = node;
        }
        self
    }

    /// The node that it strikes, if it names just one.
    fn the_one(&mut self) -> Option<&mut u32> {
        match self {
            Fault::Kill { broker, .. }
            | Fault::PowerLoss { broker, .. }
            | Fault::CrashInRecovery { broker, .. }
            | Fault::Restart { broker, .. }
            | Fault::RestartThenCrash { broker, .. }
            | Fault::Pause { broker, .. }
            | Fault::ReadError { broker, .. }
            | Fault::WriteError { broker, .. }
            | Fault::SyncError { broker, .. }
            | Fault::DiskFull { broker, .. }
            | Fault::SlowDisk { broker, .. }
            | Fault::StuckDisk { broker, .. }
            | Fault::BitRot { broker, .. }
            | Fault::Cut { broker, .. }
            | Fault::Reset { broker }
            | Fault::SlowLink { broker, .. }
            | Fault::ClockJump { broker, .. }
            | Fault::ClockFreeze { broker, .. }
            | Fault::BadLinks { broker, .. }
            | Fault::HalfOpen { broker, .. }
            | Fault::Wipe { broker, .. }
            | Fault::Relapse { broker, .. }
            | Fault::Overtake { broker, .. }
            | Fault::LostWrite { broker, .. }
            | Fault::Install { broker, .. } => Some(broker),
            Fault::Deaf { .. }
            | Fault::Split { .. }
            | Fault::Flap { .. }
            | Fault::Swizzle { .. }
            | Fault::Uneven { .. }
            | Fault::Blackout { .. }
            | Fault::Rolling { .. }
            | Fault::Hunt { .. }
            | Fault::Chase { .. }
            | Fault::LateAnswer { .. }
            | Fault::Recast { .. }
            | Fault::FigureEight { .. } => None,
        }
    }
}
