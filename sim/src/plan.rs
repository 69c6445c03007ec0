//! A run as plain data: the cluster, the load and the timed faults.
//!
//! A seed is expanded into a plan before the run ([`crate::swarm`]), so a plan can be saved, edited by hand, shortened
//! and replayed. The run draws its small delays from [`Plan::seed`]; every fault stands here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

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
}

/// The brokers and their settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// Number of brokers.
    pub brokers: u32,
    /// Settings of `server.properties`, the same on every broker.
    pub settings: BTreeMap<String, String>,
}

/// What the clients do, from the start of the run until [`Load::duration_ms`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Load {
    /// Length of the phase in which load and faults mix, in milliseconds of simulated time.
    pub duration_ms: u64,
    /// Topics that exist from the start.
    pub topics: Vec<Topic>,
    /// Producers, each a client process of its own.
    pub producers: Vec<Producer>,
    /// Number of consumers that follow all partitions of all topics while the load runs.
    pub consumers: u32,
    /// Consumer groups that read all topics.
    #[serde(default)]
    pub groups: Vec<Group>,
    /// Records are deleted from the start of a random partition about every so many milliseconds; 0: never.
    pub delete_records_every_ms: u64,
    /// A topic is created, filled and deleted about every so many milliseconds; 0: never.
    pub topic_churn_every_ms: u64,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Number of partitions.
    pub partitions: i32,
    /// Settings of the topic.
    pub settings: BTreeMap<String, String>,
}

/// How a producer works.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Producer {
    /// 0, 1 or -1 (all in-sync replicas).
    pub acks: i16,
    /// Records sent per second of simulated time, about.
    pub records_per_second: u32,
    /// Records sent in one go, at the most.
    pub burst: u32,
    /// Size of a record's value, at the most, in bytes.
    pub value_bytes_max: u32,
    /// Codec of the batches: `none`, `gzip`, `snappy`, `lz4` or `zstd`.
    pub compression: String,
    /// Whether it repeats what may have been written. One that does not learns for certain what was not.
    pub retries: bool,
    /// Whether it is idempotent: only one that repeats, with acks -1, can be.
    #[serde(default)]
    pub idempotent: bool,
    /// How long it tries for a record. One that soon gives up learns that a full disk has refused it, for certain.
    #[serde(default = "patience_ms")]
    pub delivery_timeout_ms: u64,
}

/// A consumer group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Members, each a client process of its own.
    pub members: u32,
    /// How partitions are divided: `range`, `roundrobin` or `cooperative-sticky`.
    pub assignor: String,
    /// Whether members have names for good (KIP-345).
    pub is_static: bool,
    /// A member that is not heard of for so long is removed.
    pub session_timeout_ms: u64,
    /// How long a member may take between two polls, and a rebalance for the slowest member.
    pub poll_interval_max_ms: u64,
    /// A member commits about every so many milliseconds.
    pub commit_every_ms: u64,
    /// A member lives for about so long before it leaves, or crashes, and comes back.
    pub life_ms: u64,
    /// Whether members also send commits of generations that are over, as a request does that was long under way.
    pub zombies: bool,
    /// Whether somebody else joins now and then and is gone soon after, at times before it has taken part.
    #[serde(default)]
    pub visited: bool,
}

impl Group {
    /// The machines that its members need.
    pub fn machines(&self) -> u32 {
        self.members + u32::from(self.visited)
    }
}

/// Of plans that were written before producers differed in it.
fn patience_ms() -> u64 {
    20_000
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
        }
    }

    /// Whether it damages data at rest, so that records may be reported as corrupt instead of being returned.
    pub fn damages(&self) -> bool {
        matches!(self, Fault::BitRot { .. })
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

    fn check(&self) -> Result<(), PlanError> {
        let contradiction = |text: String| Err(PlanError::Contradiction(text));
        if self.cluster.brokers == 0 {
            return contradiction("a cluster has at least one broker".into());
        }
        if self.load.topics.is_empty() || self.load.topics.iter().any(|topic| topic.partitions < 1) {
            return contradiction("there is at least one topic, and each has at least one partition".into());
        }
        match self.faults.iter().find(|fault| fault.fault.broker() >= self.cluster.brokers) {
            Some(fault) => contradiction(format!(
                "the fault {} at {} ms strikes broker {}, and the last one is {}",
                fault.fault.name(),
                fault.at_ms,
                fault.fault.broker(),
                self.cluster.brokers - 1
            )),
            None => Ok(()),
        }
    }
}

impl Fault {
    /// The broker that it strikes, counted from 0.
    pub fn broker(&self) -> u32 {
        match *self {
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
            | Fault::ClockFreeze { broker, .. } => broker,
        }
    }
}
