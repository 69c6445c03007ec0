//! What clients ask for, and what they are told.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Log;

/// What a send asked to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Acks {
    /// Nothing: the client never learns what became of it.
    None,
    /// The leader's append.
    Leader,
    /// The whole in-sync set.
    All,
}

/// Where a seek goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SeekTo {
    /// The log's first record.
    Beginning,
    /// Behind the last record that is shown.
    End,
    /// This offset.
    Offset(i64),
    /// The first record at or after this time, in milliseconds since 1970.
    Time(i64),
}

/// A member of a classic group, as its requests name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Member {
    /// The member id that the coordinator gave out.
    pub id: Arc<str>,
    /// The generation. Not the member epoch of a KIP-848 group: two members' epochs say nothing of each other.
    pub generation: i32,
}

/// The record of a key of a compacted topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Keyed {
    /// The key.
    pub key: Arc<str>,
    /// It has no value: it deletes the key.
    pub tombstone: bool,
}

/// What a client asks for.
///
/// A process is a member of one group at most. What only happens to a client, and is asked of nobody
/// ([`Op::Release`], [`Op::Crash`]), is recorded with [`super::Recorder::note`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Op {
    /// Append one record. Values are unique within a history.
    Send {
        /// To where.
        log: Log,
        /// By what the record is known again.
        value: u64,
        /// What the sender waits for.
        acks: Acks,
        /// Of a compacted topic: whose record it is. A key has one writer, who begins with its next record when the one before
        /// has ended.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        keyed: Option<Keyed>,
    },
    /// One poll of a consumer, of one partition.
    Poll {
        /// From where.
        log: Log,
        /// The consumer's position before the poll, where it is known.
        from: Option<i64>,
    },
    /// The consumer's partitions are now these, and no others.
    Assign {
        /// The partitions.
        logs: Vec<Log>,
    },
    /// The consumer's position in a partition is set by hand. Also recorded for a reset after OFFSET_OUT_OF_RANGE.
    Seek {
        /// In which partition.
        log: Log,
        /// Where to.
        to: SeekTo,
    },
    /// Create a topic.
    CreateTopic {
        /// Its name.
        topic: Arc<str>,
        /// How many partitions.
        partitions: i32,
    },
    /// Delete a topic.
    DeleteTopic {
        /// Its name.
        topic: Arc<str>,
    },
    /// Delete a partition's records from its first one on.
    DeleteRecords {
        /// In which partition.
        log: Log,
        /// The offset before which everything goes.
        before: i64,
    },
    /// From now on the process' partitions are those that a group gives it. Begins before the first request to the
    /// coordinator.
    Subscribe {
        /// The group.
        group: Arc<str>,
        /// The name by which a static member is known again (KIP-345).
        instance: Option<Arc<str>>,
        /// The topics.
        topics: Vec<Arc<str>>,
    },
    /// A member joins, or joins again: one rebalance. Ends when it has its assignment, and before anything is done with
    /// it. Only the `stuck` checker asks when it began.
    Join {
        /// The group.
        group: Arc<str>,
    },
    /// A member gives partitions up, or has lost them: what it polls of them from now on is out of order.
    Release {
        /// The group.
        group: Arc<str>,
        /// The partitions.
        logs: Vec<Log>,
        /// The membership was gone before: somebody else may have owned them already.
        lost: bool,
    },
    /// Set a group's offset in one partition to where a consumer stands. A commit of several partitions is several
    /// operations.
    Commit {
        /// The group.
        group: Arc<str>,
        /// The partition.
        log: Log,
        /// The first offset that is not done.
        offset: i64,
        /// As what, as it stands in every request that the operation sends. `None` for a consumer that is no member,
        /// and where that is not known: a client may repeat a refused commit in a later generation.
        member: Option<Member>,
    },
    /// Ask where a group stands in one partition.
    FetchOffset {
        /// The group.
        group: Arc<str>,
        /// The partition.
        log: Log,
    },
    /// A member leaves its group.
    Leave {
        /// The group.
        group: Arc<str>,
    },
    /// The process ends without a word. What it has under way never ends.
    Crash,
    /// An administrator sets a group's offset: an order to go back, or forward.
    ResetOffset {
        /// The group.
        group: Arc<str>,
        /// The partition.
        log: Log,
        /// Where to.
        to: i64,
    },
    /// An administrator deletes a group's offset in one partition.
    DeleteOffset {
        /// The group.
        group: Arc<str>,
        /// The partition.
        log: Log,
    },
    /// An administrator deletes a group with all its offsets.
    DeleteGroup {
        /// The group.
        group: Arc<str>,
    },
    /// After all load has ended: read the partition from its first record to its last.
    FinalRead {
        /// What to read.
        log: Log,
    },
}

impl Op {
    /// The partition that the operation is about, where it is about exactly one.
    pub fn log(&self) -> Option<&Log> {
        match self {
            Op::Send { log, .. }
            | Op::Poll { log, .. }
            | Op::Seek { log, .. }
            | Op::DeleteRecords { log, .. }
            | Op::Commit { log, .. }
            | Op::FetchOffset { log, .. }
            | Op::ResetOffset { log, .. }
            | Op::DeleteOffset { log, .. }
            | Op::FinalRead { log } => Some(log),
            Op::Assign { .. }
            | Op::CreateTopic { .. }
            | Op::DeleteTopic { .. }
            | Op::Subscribe { .. }
            | Op::Join { .. }
            | Op::Release { .. }
            | Op::Leave { .. }
            | Op::Crash
            | Op::DeleteGroup { .. } => None,
        }
    }

    /// The group that the operation is about, where it is about one.
    pub fn group(&self) -> Option<&Arc<str>> {
        match self {
            Op::Subscribe { group, .. }
            | Op::Join { group }
            | Op::Release { group, .. }
            | Op::Commit { group, .. }
            | Op::FetchOffset { group, .. }
            | Op::Leave { group }
            | Op::ResetOffset { group, .. }
            | Op::DeleteOffset { group, .. }
            | Op::DeleteGroup { group } => Some(group),
            Op::Send { .. }
            | Op::Poll { .. }
            | Op::Assign { .. }
            | Op::Seek { .. }
            | Op::CreateTopic { .. }
            | Op::DeleteTopic { .. }
            | Op::DeleteRecords { .. }
            | Op::Crash
            | Op::FinalRead { .. } => None,
        }
    }
}

/// One record as a consumer saw it. In a history it is written `[offset, value]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "(i64, Option<u64>)", into = "(i64, Option<u64>)")]
pub struct Record {
    /// Where it stands in its log.
    pub offset: i64,
    /// Its value; `None` where the payload is none that a workload wrote.
    pub value: Option<u64>,
}

impl Record {
    /// A record with a value that a workload wrote.
    pub fn new(offset: i64, value: u64) -> Self {
        Self { offset, value: Some(value) }
    }
}

impl From<(i64, Option<u64>)> for Record {
    fn from((offset, value): (i64, Option<u64>)) -> Self {
        Self { offset, value }
    }
}

impl From<Record> for (i64, Option<u64>) {
    fn from(record: Record) -> Self {
        (record.offset, record.value)
    }
}

/// Offsets from `from` up to and without `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Span {
    /// The first offset.
    pub from: i64,
    /// The first offset that is no longer part of it.
    pub to: i64,
}

impl Span {
    /// Whether the offset lies in it.
    pub fn contains(&self, offset: i64) -> bool {
        (self.from..self.to).contains(&offset)
    }
}

/// The result of an operation that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Done {
    /// A send was acknowledged.
    Sent {
        /// The record's offset; `None` where the acknowledgement does not say (acks 0).
        offset: Option<i64>,
    },
    /// A poll gave these records, in this order.
    Polled {
        /// The records.
        records: Vec<Record>,
    },
    /// The whole log, as it stands in the end.
    Read {
        /// The log's first offset, as the broker names it (ListOffsets, earliest).
        start: i64,
        /// Behind the log's last offset, as the broker names it (ListOffsets, latest).
        end: i64,
        /// Every record.
        records: Vec<Record>,
        /// What the broker answered with CORRUPT_MESSAGE.
        corrupt: Vec<Span>,
    },
    /// Records were deleted.
    Deleted {
        /// The log's first offset now.
        start: i64,
    },
    /// A member has its assignment.
    Joined {
        /// Who it is now, and in which generation.
        member: Member,
        /// Its whole assignment in this generation, as the group gave it: also what it had before and stays with it.
        assigned: Vec<Log>,
        /// Of these, the ones in which it stays where it stands (KIP-429); in the others it starts from the group's
        /// committed offset.
        kept: Vec<Log>,
    },
    /// A group's offset was asked for.
    Offset {
        /// The offset; `None` where there is none.
        offset: Option<i64>,
    },
    /// It happened, and there is nothing to add.
    Done,
}

/// Why an operation did not succeed, or why nobody knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Failure {
    /// The broker answered CORRUPT_MESSAGE for these offsets: it reports damage instead of serving it.
    Corrupt(Span),
    /// Anything else, in the client's words.
    Error(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Corrupt(span) => write!(f, "corrupt from {} to {}", span.from, span.to),
            Failure::Error(text) => f.write_str(text),
        }
    }
}
