//! What goes into the controller and what comes out of it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::metadata::{Change, ClusterCommand, Record, Registration, Rejected};
use crate::types::{BrokerId, LeaderEpoch, LogId, Offset};

/// Names a request of a broker until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// Names a command that this controller has proposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CommandId(pub u64);

/// What a broker wants to be, as its heartbeats say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wants {
    /// To lead and to hold replicas.
    Serve,
    /// To be fenced: its folder has failed (contract 8).
    Fenced,
    /// To go: a clean stop.
    Leave,
}

/// How far a replica's log reaches after recovery, everything below verified (contract 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Tail {
    /// The leader epoch of its last record; -1 for an empty log.
    pub epoch: LeaderEpoch,
    /// The offset after its last record.
    pub end: Offset,
}

/// A partition that nobody leads, as of a leader epoch. An answer that comes after somebody led is about another question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Question {
    /// Which partition.
    pub log: LogId,
    /// Its leader epoch while nobody leads.
    pub leader_epoch: LeaderEpoch,
}

/// What happens to the controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A broker has started and wants an epoch.
    Register {
        /// Answered with [`Answer::Registered`].
        request: RequestId,
        /// What it says of itself.
        registration: Registration,
    },
    /// A broker is there (KIP-631).
    Heartbeat {
        /// Answered at once with [`Answer::Heartbeat`].
        request: RequestId,
        /// Which.
        broker: BrokerId,
        /// Its broker epoch: one of its former self renews nothing.
        broker_epoch: i64,
        /// The last metadata entry that it has applied, -1 before the first.
        applied: i64,
        /// What it wants to be.
        wants: Wants,
    },
    /// The connection to a broker broke, or was refused: its session ends soon unless it is heard again. A process that
    /// was killed is noticed like this.
    ConnectionLost {
        /// Whose.
        broker: BrokerId,
    },
    /// A leader, a damaged replica or an operator asks for a change of one partition: `AlterIsr`, `RenewEpoch`, `LeaveIsr`,
    /// `ElectPreferred` or `ElectUnclean`.
    ChangePartition {
        /// Answered with [`Answer::Partition`].
        request: RequestId,
        /// What is asked for.
        command: ClusterCommand,
    },
    /// A broker has answered [`Effect::AskTails`].
    Tails {
        /// Which.
        broker: BrokerId,
        /// Its broker epoch.
        broker_epoch: i64,
        /// How far its replicas reach; one that it does not hold reaches to -1, 0.
        tails: Vec<(Question, Tail)>,
    },
    /// The entry at `index` was applied to the image that comes with this step. Said of every entry, in order.
    Applied {
        /// Of the entry.
        index: i64,
        /// Which of this controller's commands it was, if any.
        command: Option<CommandId>,
        /// What came of it.
        outcome: Result<Change, Rejected>,
    },
    /// The quorum does not take the command now.
    ProposalRefused {
        /// Which.
        command: CommandId,
    },
    /// The time of [`Effect::SetTimer`] has come. One that is early does no harm.
    Tick,
}

/// What the driver must do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Propose this to the quorum, and report what becomes of it.
    Propose {
        /// Under which name.
        command: CommandId,
        /// What.
        record: Record,
    },
    /// Answer a broker.
    Answer {
        /// Which request.
        request: RequestId,
        /// With what.
        answer: Answer,
    },
    /// Ask a broker how far these replicas reach. It answers once its image has the leader epoch
    /// of the question, in which nobody leads, so that it follows nobody and its answer stays true.
    AskTails {
        /// Which.
        broker: BrokerId,
        /// The epoch that it must have when it answers.
        broker_epoch: i64,
        /// About which partitions.
        questions: Vec<Question>,
    },
    /// Wake the controller at this time; replaces what was set before.
    SetTimer(Duration),
}

/// What a broker is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Its broker epoch.
    Registered(Result<i64, Refused>),
    /// Where it stands.
    Heartbeat(Result<Standing, Refused>),
    /// The index of the entry that changed the partition. Whoever asked acts on it only when its own image has applied
    /// this entry: the entries before it may change what the answer means.
    Partition(Result<i64, Refused>),
}

/// What the quorum has decided about a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// It leads nothing and is in no ISR.
    pub fenced: bool,
    /// It may stop now: its leaders have moved, and the others know.
    pub may_go: bool,
    /// The last metadata entry that the controller had applied when it said so.
    pub applied: i64,
}

/// Why a broker does not get what it asked for.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum Refused {
    /// The image says no.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// A proposal for the same thing is in flight, or too many are: try again.
    #[error("the controller has proposals in flight; try again")]
    Busy,
    /// A broker of this number is alive with another folder.
    #[error("broker {0} is alive with another data folder")]
    DuplicateBroker(BrokerId),
    /// Nobody may ask for this command.
    #[error("this command cannot be asked for")]
    NotForRequests,
    /// Another controller must be asked.
    #[error("this node is not the controller")]
    NotController,
}

/// How long the controller waits for what.
///
/// A stopped or cut-off leader costs `session` plus a commit: with these defaults about 1.1 s until another leads. A
/// killed one, whose connection breaks, costs `reconnect` plus a commit. A broker that is silent for longer than
/// `session` without having failed costs a change of leaders and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// `broker.session.timeout.ms`: after how long without a heartbeat a broker is fenced.
    pub session: Duration,
    /// How long a new controller waits for the first heartbeat of a broker that it knows from the image only.
    pub first_session: Duration,
    /// How long a broker has to come back after its connection broke.
    pub reconnect: Duration,
    /// After how long what was refused or not answered is tried again.
    pub retry: Duration,
    /// How long an election waits for further answers when enough are there.
    pub tails: Duration,
    /// `leader.imbalance.check.interval.seconds`: how often leadership goes back to the first replicas; `None` is
    /// `auto.leader.rebalance.enable=false`.
    pub balance: Option<Duration>,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            session: Duration::from_millis(1_000),
            first_session: Duration::from_millis(600),
            reconnect: Duration::from_millis(100),
            retry: Duration::from_millis(200),
            tails: Duration::from_millis(500),
            balance: Some(Duration::from_secs(300)),
        }
    }
}

/// How often a broker sends heartbeats (`broker.heartbeat.interval.ms`): several fit into a session.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(150);

/// Bounds of the controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many commands may be in flight; requests beyond are refused with [`Refused::Busy`], what the controller wants
    /// itself waits.
    pub in_flight_max: usize,
    /// How many partitions one [`Effect::AskTails`] names.
    pub ask_max: usize,
    /// How many replicas an internal topic grows to as brokers join (contract 3).
    pub internal_replicas: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        let internal_replicas = crate::metadata::placement::REPLICATION_FACTOR_DEFAULT;
        Limits { in_flight_max: 4_096, ask_max: 1_000, internal_replicas }
    }
}
