//! A run as plain data: the cluster, the load and the timed faults.
//!
//! A seed is expanded into a plan before the run ([`crate::swarm`]), so a plan can be saved, edited by hand, shortened
//! and replayed. The run draws its small delays from [`Plan::seed`]; every fault stands here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use weir_jepsen::load::plan::{Group, Load, Producer, Topic};

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
