//! What goes into a replica and what comes out of it.

use std::collections::BTreeMap;

use thiserror::Error;

use super::WaiterId;
use super::follower::Fetched;
use super::producers::{Claim, ProducerId};
use super::replication::FetchPosition;
use crate::metadata::IsrMember;
use crate::types::{BrokerId, LeaderEpoch, Offset};

/// Which durability a produce request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// acks=0: no answer is expected.
    None,
    /// acks=1: durable on the leader.
    Leader,
    /// acks=all: durable on every member of the maximal ISR, which has at least min ISR members.
    All,
}

/// Why an append was refused or why its outcome is not a success. The first seven are said before anything was
/// appended; of the others the outcome is unknown to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FailReason {
    /// This replica does not lead the partition, or stopped leading it while the append waited.
    #[error("this replica does not lead the partition")]
    NotLeader,
    /// The request names an older leader epoch than the partition's (KIP-320).
    #[error("the request's leader epoch is older than the partition's")]
    FencedLeaderEpoch,
    /// The request names a newer leader epoch than this replica has heard of (KIP-320).
    #[error("the request's leader epoch is newer than this replica's")]
    UnknownLeaderEpoch,
    /// acks=all and fewer than min ISR replicas are in sync: nothing was appended.
    #[error("fewer replicas are in sync than min.insync.replicas asks for")]
    NotEnoughReplicas,
    /// The batch neither follows on its producer's last one nor repeats one that is remembered: nothing was appended.
    #[error("the batch does not follow on the last one of its producer")]
    OutOfOrderSequence,
    /// The producer has been given a newer epoch: nothing was appended.
    #[error("the producer has been given a newer epoch")]
    InvalidProducerEpoch,
    /// So many appends wait already that this one is refused: nothing was appended.
    #[error("too many appends wait for their acknowledgement")]
    TooManyWaiters,
    /// The append waited too long while fewer than min ISR replicas were in sync.
    #[error("fewer replicas than min.insync.replicas were in sync after the append")]
    NotEnoughReplicasAfterAppend,
    /// The append waited longer than the request allows.
    #[error("the append was not acknowledged in time")]
    TimedOut,
    /// Storage could not keep the records; they were cut from the log again, or the folder failed.
    #[error("storage could not keep the records")]
    StorageFailed,
}

/// What the quorum decided about a partition that this replica leads.
///
/// The driver hands over only what was decided after this process had registered: an epoch of its former self must not
/// go on, as nobody knows what of it was lost (contract 4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leadership {
    /// The epoch of this reign, greater than every earlier one of the partition.
    pub epoch: LeaderEpoch,
    /// Counts the decisions about the partition: a change of the ISR names the one that it builds on.
    pub partition_epoch: i32,
    /// All replicas, this one included.
    pub replicas: Vec<BrokerId>,
    /// The committed in-sync replicas, this one included.
    pub isr: Vec<BrokerId>,
    /// `min.insync.replicas` as configured. What counts is m = min(this, number of replicas).
    pub min_insync: usize,
    /// The broker epochs of the replicas that may join the ISR (KIP-841, KIP-903): registered, not fenced, not shutting
    /// down; and this one's.
    pub broker_epochs: BTreeMap<BrokerId, i64>,
}

/// What happens to a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The quorum made this replica the leader, or has decided something else about a partition that it leads. An older
    /// epoch than the newest is ignored, and so is an older partition epoch.
    BecomeLeader(Leadership),
    /// The quorum made another replica the leader. An epoch that is not newer than the last is ignored, unless this
    /// replica has resigned from it.
    BecomeFollower {
        /// The leader's epoch.
        epoch: LeaderEpoch,
        /// Who leads.
        leader: BrokerId,
    },
    /// The partition has no leader, or none that this replica should know of, as of `epoch`. Ignored when this replica knows a newer epoch.
    Resign {
        /// The epoch in which this replica leads no longer.
        epoch: LeaderEpoch,
    },
    /// A client's records, checked and ready to be written.
    Append {
        /// Under which name the outcome is reported. Unique among those that wait.
        waiter: WaiterId,
        /// What the client wants to wait for.
        acks: Acks,
        /// How many offsets the records take, at least 1.
        count: u32,
        /// Refuse unless this is the leader's epoch (a coordinator's appends, contract 10). `None`: any.
        epoch: Option<LeaderEpoch>,
        /// What an idempotent producer's batch says. One that is repeated is not appended again: its answer waits
        /// under the acks rule of the first (contract 4).
        producer: Option<Claim>,
        /// The monotonic clock, in ms.
        now_ms: i64,
    },
    /// Forget producers that have not appended for so long (`producer.id.expiration.ms`).
    ExpireProducers {
        /// The monotonic clock, in ms.
        now_ms: i64,
        /// How long, in ms.
        idle_ms: i64,
    },
    /// The waiter's time is over. Unknown waiters are ignored.
    Expire {
        /// Whose.
        waiter: WaiterId,
    },
    /// Storage: everything below `end` is durable here.
    Durable {
        /// The durable end, see [`super::Partition::durable_end`].
        end: Offset,
    },
    /// Storage: everything from `from` on could not be written and was cut; the cut is durable.
    AppendFailed {
        /// The new end of the log.
        from: Offset,
    },
    /// The log now starts at `start` (retention, DeleteRecords).
    StartOffset {
        /// The first offset that can be read.
        start: Offset,
    },
    /// The log is damaged from `from` on (contract 7): it is cut there, so that the leader sends again what lies above. Fed
    /// only once the quorum has taken this replica out of the ISR, and of those that may lead, in the epoch that it has now
    /// and in which it has asked its leader for nothing yet. Ignored by a leader.
    Damaged {
        /// Where the damage begins: at a batch.
        from: Offset,
    },
    /// Storage: the folder is out of service until the broker restarts (contract 8).
    FolderFailed,
    /// Records up to `end` were handed to a follower, durable here or not.
    Shipped {
        /// The offset after the last record that was handed out.
        end: Offset,
    },
    /// A follower asks for records; [`super::Partition::judge`] has the answer, this counts what the position says.
    ReplicaFetch {
        /// The follower.
        from: BrokerId,
        /// Its broker epoch.
        broker_epoch: i64,
        /// Where it stands.
        position: FetchPosition,
        /// The monotonic clock, in ms.
        now_ms: i64,
    },
    /// A follower said between two fetches how far it is durable.
    ReplicaProgress {
        /// The follower.
        from: BrokerId,
        /// Its broker epoch.
        broker_epoch: i64,
        /// The leader epoch that the follower follows. Progress of another epoch earns no credit.
        epoch: LeaderEpoch,
        /// Its durable end.
        durable_end: Offset,
    },
    /// The leader has answered. Ignored unless it answers the present position.
    Fetched(Box<Fetched>),
    /// The quorum has refused what [`Effect::ProposeIsr`] asked for on this partition epoch. While the outcome is not
    /// known, the driver says nothing: the leader sends the proposal again. That it was committed, a newer partition
    /// epoch says, and nothing else: a refusal may be that of a second copy.
    IsrRefused {
        /// The leader epoch in which it was asked for.
        epoch: LeaderEpoch,
        /// The partition epoch that it built on.
        partition_epoch: i32,
        /// The monotonic clock, in ms.
        now_ms: i64,
    },
    /// Time passes: a leader asks for what is due. Fed at least twice in [`Limits::isr_retry_ms`].
    Tick {
        /// The monotonic clock, in ms.
        now_ms: i64,
    },
}

/// What the driver must do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Note the epoch in the log's history, before any record is written under it (KIP-101, contract 4).
    BeginEpoch {
        /// The new leader epoch.
        epoch: LeaderEpoch,
        /// Where its records begin.
        start: Offset,
    },
    /// Write the waiter's records with this base offset and leader epoch. If the log refuses them at once, feed
    /// [`Input::AppendFailed`] with `from: base_offset`.
    WriteLog {
        /// Whose records.
        waiter: WaiterId,
        /// The offset of the first record.
        base_offset: Offset,
        /// Goes into each batch.
        epoch: LeaderEpoch,
    },
    /// Write the batches that the leader sent, from offset `base` on, with the offsets and epochs that they have. If the
    /// log refuses them, feed [`Input::AppendFailed`] with `from: base`.
    WriteFetched {
        /// The end of the log so far.
        base: Offset,
        /// The offset after the last record.
        end: Offset,
    },
    /// Cut the log, and of its history every epoch that begins at `to` or above. What is durable below stays durable;
    /// nothing that is written later becomes durable before the cut does.
    Truncate {
        /// The log's end from now on.
        to: Offset,
    },
    /// The leader's log starts later: move the start of this one.
    AdvanceStart {
        /// The first offset from now on.
        start: Offset,
    },
    /// Tell the leader at once that this replica is durable up to here, even while a fetch waits (contract 2).
    ReportProgress {
        /// The epoch that is followed.
        epoch: LeaderEpoch,
        /// The durable end.
        durable_end: Offset,
    },
    /// Ask the controller to change the ISR.
    ProposeIsr {
        /// The leader epoch of this reign: refused when the partition has another.
        epoch: LeaderEpoch,
        /// The partition epoch that it builds on: refused when the partition has changed since.
        partition_epoch: i32,
        /// The in-sync replicas from then on, with the broker epochs under which they were seen to be.
        isr: Vec<IsrMember>,
    },
    /// A leader's high watermark has moved: parked fetches may have something to read. Comes before the appends that it
    /// completes, so that a client that was answered can read its own record.
    HighWatermark(Offset),
    /// Answer the client: its records are as safe as it asked for.
    CompleteAppend {
        /// Whose append.
        waiter: WaiterId,
        /// The offset of its first record.
        base_offset: Offset,
    },
    /// Answer the client: refused, or the outcome is unknown.
    FailAppend {
        /// Whose append.
        waiter: WaiterId,
        /// Why.
        reason: FailReason,
    },
    /// Tell storage that these producers are forgotten.
    ForgetProducers(Vec<ProducerId>),
    /// Ask the controller for a new leader epoch: records of this epoch were cut which a follower may hold, so their
    /// names must not be given to other records (contract 4).
    RequestNewEpoch {
        /// The epoch that is over.
        epoch: LeaderEpoch,
    },
}

/// Bounds of one replica.
#[derive(Clone, Copy, Debug, Hash)]
pub struct Limits {
    /// How many appends may wait for their acknowledgement; more are refused with [`FailReason::TooManyWaiters`].
    pub waiters_max: usize,
    /// `replica.lag.time.max.ms`: a follower that has not been in sync for so long leaves the ISR.
    pub replica_lag_ms_max: i64,
    /// How long a leader waits for the fate of a proposal before it sends it again, and after a refusal before it asks
    /// for something else.
    pub isr_retry_ms: i64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { waiters_max: 16_384, replica_lag_ms_max: 30_000, isr_retry_ms: 1_000 }
    }
}

/// What is known about a log when its replica starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogState {
    /// The first offset that can be read.
    pub start: Offset,
    /// The offset that the next record gets.
    pub end: Offset,
    /// Everything below is durable. Equal to `end` after recovery.
    pub durable_end: Offset,
    /// The last known high watermark; `start` if none is known.
    pub high_watermark: Offset,
}

impl LogState {
    /// A log that was never written.
    pub const EMPTY: LogState = LogState { start: 0, end: 0, durable_end: 0, high_watermark: 0 };
}
