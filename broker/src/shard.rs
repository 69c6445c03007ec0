//! Shards: a fixed number of tasks that own the partitions of this broker.
//!
//! A shard owns the log and the replica core of each of its partitions, without locks, and takes only messages. It
//! never waits: a partition is opened by a task of its own while requests for it queue up, what becomes durable
//! arrives as an event of the store, and bytes are read by whoever asked, by a plan that the shard made.

mod calls;
mod compact;
mod entry;
mod owner;
mod questions;
mod repair;
mod replicate;
mod starts;
mod step;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use weir_protocol::controller::{Question as TailQuestion, Tail};
use weir_protocol::partition::producers::Producers;
use weir_protocol::partition::replication::{FetchVerdict, Progress};
use weir_protocol::partition::{Acks, FailReason, Limits};
use weir_protocol::types::{BrokerId, LeaderEpoch, LogId, Offset};
use weir_runtime::task::{self, JoinHandle};
use weir_runtime::time::Instant;
use weir_storage::{ReadError, ReadPlan, StorageError, Store, TimePlan};
use weir_wire::records::Batch;

use crate::controller::PartitionChanges;
use crate::metadata::ImageReader;
use crate::metrics::Metrics;
use crate::node::FailureFlag;
use crate::replica::check::Checked;
use crate::replica::lane::{Lane, Standing};
use crate::replica::mailbox::Mailboxes;
use crate::server::budget::Charge;

pub(crate) use watch::{FetchWatch, WatchGuard};

/// Messages that may wait for one shard; whoever sends one more waits.
const QUEUE_MESSAGES: usize = 1024;

/// What a shard is asked.
pub(crate) enum Message {
    Produce(Box<ProduceCall>),
    Fetch(Box<FetchCall>),
    Offsets(Box<OffsetsCall>),
    DeleteRecords(Box<DeleteRecordsCall>),
    Sizes(Box<SizesCall>),
    Producers(Box<ProducersCall>),
    Tails(Box<TailsCall>),
    /// The image has changed for these logs of the shard.
    Changed(Vec<LogId>),
    /// These logs belong to no topic any more.
    Delete(Vec<LogId>),
    /// Where followers stand.
    Positions(Box<PositionsCall>),
    /// How far followers are durable.
    Progress(Box<ProgressCall>),
    /// What is there to be said to followers?
    ReplicaRead(Box<ReplicaReadCall>),
    /// What leaders have answered.
    Fetched(Vec<FetchedPart>),
    /// A read has found damage (contract 7).
    Damaged {
        log: LogId,
        from: Offset,
    },
    /// Everything before was taken in; close the logs and end.
    Stop,
}

/// Records for partitions of one shard.
pub(crate) struct ProduceCall {
    pub(crate) acks: Acks,
    /// When those who wait are told that it took too long.
    pub(crate) deadline: Instant,
    pub(crate) parts: Vec<ProducePart>,
    /// The request's share of the byte budget, held until its records are durable.
    pub(crate) charge: Arc<Charge>,
    /// Nobody waits with acks=0.
    pub(crate) reply: Option<oneshot::Sender<Vec<ProduceDone>>>,
}

/// Records for one partition.
pub(crate) struct ProducePart {
    pub(crate) log: LogId,
    /// The caller's number for this part.
    pub(crate) index: u32,
    pub(crate) batch: Batch,
    /// Whether the broker's time replaces the producer's.
    pub(crate) log_append_time: bool,
    /// Refused unless this is the leader's epoch: a coordinator's records (contract 10).
    pub(crate) epoch: Option<LeaderEpoch>,
}

/// The outcome for one partition.
pub(crate) struct ProduceDone {
    pub(crate) index: u32,
    pub(crate) result: Result<Appended, ShardError>,
}

/// Where records were appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Appended {
    pub(crate) base_offset: Offset,
    /// -1 when the producer's time was kept.
    pub(crate) log_append_time_ms: i64,
    pub(crate) log_start: Offset,
}

/// A question for what can be read in partitions of one shard.
pub(crate) struct FetchCall {
    pub(crate) parts: Vec<FetchPart>,
    /// Woken when one of the partitions has more than the answer says.
    pub(crate) watch: Option<Arc<FetchWatch>>,
    pub(crate) reply: oneshot::Sender<Vec<FetchDone>>,
}

/// What is wanted of one partition.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FetchPart {
    pub(crate) log: LogId,
    pub(crate) index: u32,
    pub(crate) offset: Offset,
    pub(crate) bytes_max: usize,
    /// The leader epoch that the client knows (KIP-320).
    pub(crate) epoch: Option<LeaderEpoch>,
    /// The epoch of the last record that the client has (KIP-595).
    pub(crate) last_fetched_epoch: Option<LeaderEpoch>,
}

/// The answer for one partition.
pub(crate) struct FetchDone {
    pub(crate) index: u32,
    pub(crate) result: Result<Readable, ShardError>,
}

/// What can be read.
pub(crate) struct Readable {
    pub(crate) high_watermark: Offset,
    pub(crate) log_start: Offset,
    /// How to read it; `None` when nothing lies between the offset and the high watermark.
    pub(crate) plan: Option<ReadPlan>,
    /// The epoch and its end where the client's log departs from ours: it truncates there (KIP-595).
    pub(crate) diverging: Option<(LeaderEpoch, Offset)>,
}

/// A question for offsets in partitions of one shard.
pub(crate) struct OffsetsCall {
    pub(crate) parts: Vec<OffsetsPart>,
    pub(crate) reply: oneshot::Sender<Vec<OffsetsDone>>,
}

/// The order to delete a partition's records from its start on.
pub(crate) struct DeleteRecordsCall {
    pub(crate) log: LogId,
    /// What is to be the first offset; `None` is the high watermark.
    pub(crate) before: Option<Offset>,
    /// Told the lowest start of the replicas in sync, once each begins there and that is durable.
    pub(crate) reply: oneshot::Sender<Result<Offset, ShardError>>,
}

/// The question how large logs are.
pub(crate) struct SizesCall {
    pub(crate) logs: Vec<LogId>,
    /// Told the bytes of those that are open; none is opened for it.
    pub(crate) reply: oneshot::Sender<Vec<(LogId, u64)>>,
}

/// The question who has appended to a partition.
pub(crate) struct ProducersCall {
    pub(crate) log: LogId,
    pub(crate) reply: oneshot::Sender<Result<Producers, ShardError>>,
}

/// The controller's question how far replicas reach that follow nobody (contract 5).
pub(crate) struct TailsCall {
    pub(crate) questions: Vec<TailQuestion>,
    /// Told those that can be said now.
    pub(crate) reply: oneshot::Sender<Vec<(TailQuestion, Tail)>>,
}

/// Where one follower stands in partitions of one shard.
pub(crate) struct PositionsCall {
    /// Marked where there is something to say.
    pub(crate) lane: Arc<Lane>,
    /// Whether a heartbeat names the positions again.
    pub(crate) is_beat: bool,
    pub(crate) parts: Vec<Standing>,
}

/// How far one follower is durable in partitions of one shard.
pub(crate) struct ProgressCall {
    pub(crate) from: BrokerId,
    pub(crate) broker_epoch: i64,
    pub(crate) parts: Vec<Progress>,
}

/// The question what is to be said to one follower about partitions of one shard.
pub(crate) struct ReplicaReadCall {
    pub(crate) lane: Arc<Lane>,
    /// Of one partition, the first batch aside.
    pub(crate) bytes_max: usize,
    /// Each with the caller's number.
    pub(crate) parts: Vec<(usize, Standing)>,
    /// Told about those that there is something to say about.
    pub(crate) reply: oneshot::Sender<Vec<(usize, Judged)>>,
}

/// What is said to a follower's position.
pub(crate) struct Judged {
    pub(crate) verdict: FetchVerdict,
    /// Below, deletions may be forgotten here.
    pub(crate) deletions_forgotten_to: Offset,
    /// How to read the records that go with it.
    pub(crate) plan: Option<ReadPlan>,
}

/// A leader's answer about one partition, checked.
pub(crate) struct FetchedPart {
    pub(crate) log: LogId,
    pub(crate) checked: Checked,
    /// The leader has forgotten deletions below.
    pub(crate) deletions_forgotten_to: Offset,
    /// Whether the leader now waits for another position.
    pub(crate) spent: bool,
}

/// Which offset of a partition is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OffsetsPart {
    pub(crate) log: LogId,
    pub(crate) index: u32,
    pub(crate) epoch: Option<LeaderEpoch>,
    pub(crate) query: OffsetQuery,
}

/// Kafka's special timestamps, and real ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OffsetQuery {
    /// The log's start.
    Earliest,
    /// The high watermark.
    Latest,
    /// The record with the largest timestamp (KIP-734).
    MaxTimestamp,
    /// The first record whose timestamp is not below.
    AtTime(i64),
    /// Where a leader epoch, or the largest known one below it, ended (KIP-320). The answer names that epoch; -1 and -1 when
    /// nobody can tell.
    EndOfEpoch(LeaderEpoch),
}

/// The answer for one partition.
pub(crate) struct OffsetsDone {
    pub(crate) index: u32,
    pub(crate) result: Result<OffsetsFound, ShardError>,
}

/// An offset, or how to find it.
pub(crate) enum OffsetsFound {
    Offset {
        offset: Offset,
        leader_epoch: LeaderEpoch,
    },
    /// To be run by whoever asked. It looks below the high watermark only (contract 9).
    Search(Box<TimePlan>),
}

/// Why a shard refuses.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ShardError {
    /// The cluster's metadata has no such partition.
    #[error("there is no such partition")]
    UnknownPartition,
    /// The replica's core refuses.
    #[error(transparent)]
    Refused(#[from] FailReason),
    /// Too many requests wait until the partition is open.
    #[error("too many requests wait until the partition is open")]
    Overloaded,
    /// The store refuses.
    #[error(transparent)]
    Storage(Arc<StorageError>),
    /// The log cannot be read there.
    #[error(transparent)]
    Read(Arc<ReadError>),
    /// A new leader does not know yet what its predecessors have committed (KIP-207).
    #[error("the leader does not know yet what is committed")]
    OffsetNotAvailable,
    /// The shard has ended: the broker stops.
    #[error("the broker is stopping")]
    Stopping,
}

/// What all shards are made from.
pub(crate) struct ShardSetup {
    pub(crate) me: BrokerId,
    pub(crate) store: Store,
    pub(crate) image: ImageReader,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) failure: FailureFlag,
    pub(crate) count: usize,
    /// `producer.id.expiration.ms` and how often it is looked at.
    pub(crate) producer_expiry: ProducerExpiry,
    /// `log.cleaner.backoff.ms`; `None`: nothing is compacted.
    pub(crate) compact_every: Option<Duration>,
    /// Bounds of each replica.
    pub(crate) limits: Limits,
    /// Where replicas that follow post their positions.
    pub(crate) mailboxes: Mailboxes,
    /// Takes what leaders ask of the controller.
    pub(crate) changes: PartitionChanges,
}

/// When idempotent producers are forgotten.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProducerExpiry {
    pub(crate) idle: Duration,
    pub(crate) check: Duration,
}

/// The broker's shards, from outside.
#[derive(Clone)]
pub(crate) struct Shards {
    queues: Arc<[mpsc::Sender<Message>]>,
}

impl Shards {
    /// No shards: for tests of what tells them.
    #[cfg(test)]
    pub(crate) fn none() -> Shards {
        Shards { queues: Vec::new().into() }
    }

    /// Starts the tasks. They end after [`Shards::stop`].
    pub(crate) fn start(setup: &ShardSetup) -> (Shards, Vec<JoinHandle<()>>) {
        let mut queues = Vec::with_capacity(setup.count);
        let mut tasks = Vec::with_capacity(setup.count);
        for number in 0..setup.count.max(1) {
            let (queue, messages) = mpsc::channel(QUEUE_MESSAGES);
            queues.push(queue);
            let owner = owner::Owner::new(setup, number);
            tasks.push(task::spawn("shard", owner.run(messages)));
        }
        (Shards { queues: queues.into() }, tasks)
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.queues.len()
    }

    /// The number of the shard that owns a log: the same in every run.
    pub(crate) fn owner_of(&self, log: LogId) -> usize {
        owner_of(log, self.queues.len())
    }

    /// Hands a message over; waits while the shard's queue is full.
    pub(crate) async fn send(&self, shard: usize, message: Message) -> Result<(), ShardError> {
        self.queues[shard].send(message).await.map_err(|_| ShardError::Stopping)
    }

    /// Sorts things by the shard that owns their log, keeping their order.
    pub(crate) fn group<T>(
        &self,
        parts: impl IntoIterator<Item = T>,
        log: impl Fn(&T) -> LogId,
    ) -> Vec<Vec<T>> {
        let mut groups: Vec<Vec<T>> = (0..self.count()).map(|_| Vec::new()).collect();
        for part in parts {
            groups[self.owner_of(log(&part))].push(part);
        }
        groups
    }

    /// Tells all shards to end, after what was sent before.
    pub(crate) async fn stop(&self) {
        for queue in self.queues.iter() {
            // A shard that has ended already needs no telling.
            let _ = queue.send(Message::Stop).await;
        }
    }
}

/// Which of so many shards owns a log.
fn owner_of(log: LogId, shards: usize) -> usize {
    let (high, low) = log.topic.0.as_u64_pair();
    // The finalizer of SplitMix64 spreads topic ids that differ in few bits.
    let mut mixed = high ^ low.rotate_left(32) ^ (log.partition as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((mixed ^ (mixed >> 31)) % shards as u64) as usize
}
