//! What clients did and what they were told.
//!
//! A history is a list of events in the order in which they were recorded. An operation starts with `invoke` and
//! ends with one of three: `ok` (it happened, with this result), `fail` (it certainly did not happen), `unknown` (it
//! may have happened, or may still happen). An operation without an end counts as unknown. A process may have
//! several operations under way, as a pipelining producer has; the operation's id ties the two events together.
//!
//! As JSON lines:
//! ```text
//! {"id":7,"process":2,"time_ns":1200000,"step":{"invoke":{"send":{"log":"orders/0","value":41,"acks":"all"}}}}
//! {"id":7,"process":2,"time_ns":3400000,"step":{"ok":{"sent":{"offset":12}}}}
//! ```

use std::collections::HashMap;
use std::fmt;
use std::io::{self, BufRead};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

mod recorder;

pub use recorder::{Pending, Recorder, write_events};

/// One partition of one topic, by name. In a history it is written `topic/partition`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Log {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's number.
    pub partition: i32,
}

impl Log {
    /// Names a partition.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

impl From<Log> for String {
    fn from(log: Log) -> Self {
        log.to_string()
    }
}

/// A text that is no `topic/partition`.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` does not name a partition as topic/number")]
pub struct NotALog(String);

impl FromStr for Log {
    type Err = NotALog;

    fn from_str(text: &str) -> Result<Self, NotALog> {
        let (topic, partition) = text.rsplit_once('/').ok_or_else(|| NotALog(text.to_owned()))?;
        let partition = partition.parse().map_err(|_| NotALog(text.to_owned()))?;
        Ok(Self::new(topic, partition))
    }
}

impl TryFrom<String> for Log {
    type Error = NotALog;

    fn try_from(text: String) -> Result<Self, NotALog> {
        text.parse()
    }
}

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

/// What a client asks for.
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
            | Op::FinalRead { log } => Some(log),
            Op::Assign { .. } | Op::CreateTopic { .. } | Op::DeleteTopic { .. } => None,
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

/// Names an operation within its history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OpId(pub u64);

/// Names a process: one producer, one consumer or one admin. A client that comes back after a crash is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProcessId(pub u32);

/// What an event says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// The operation starts.
    Invoke(Op),
    /// It happened.
    Ok(Done),
    /// It certainly did not happen and never will.
    Fail(Failure),
    /// It may have happened, or may still happen.
    Unknown(Failure),
}

/// One line of a history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The operation that it belongs to.
    pub id: OpId,
    /// Who performs it.
    pub process: ProcessId,
    /// When, in nanoseconds of the run's monotonic clock.
    pub time_ns: u64,
    /// What happened.
    pub step: Step,
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It happened.
    Ok(Done),
    /// It certainly did not happen.
    Fail(Failure),
    /// It may have happened. `None` where it never ended.
    Unknown(Option<Failure>),
}

/// An operation, paired from its events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Its name in the history.
    pub id: OpId,
    /// Who performed it.
    pub process: ProcessId,
    /// When it started.
    pub invoked_ns: u64,
    /// When it ended, if it did.
    pub completed_ns: Option<u64>,
    /// What was asked.
    pub op: Op,
    /// What came of it.
    pub outcome: Outcome,
    /// The place of its `invoke` among all events.
    pub invoked_at: usize,
    /// The place of its end among all events.
    pub completed_at: Option<usize>,
}

/// Why a history cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The source cannot be read, or the sink not written.
    #[error("the history cannot be read or written")]
    Io(#[from] io::Error),
    /// A line is no event.
    #[error("line {line} is not an event of a history")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// An operation ends that never began, or ends or begins twice.
    #[error("operation {} at event {event}: {why}", id.0)]
    Order {
        /// The operation.
        id: OpId,
        /// The event's place, from 0.
        event: usize,
        /// What is wrong.
        why: &'static str,
    },
}

/// Every operation of a run, in the order in which they were invoked.
#[derive(Clone, Debug, Default)]
pub struct History {
    operations: Vec<Operation>,
    end_ns: u64,
}

impl History {
    /// Pairs events to operations.
    ///
    /// # Errors
    /// [`HistoryError::Order`] where an operation ends without having begun, or begins or ends twice.
    pub fn from_events(events: impl IntoIterator<Item = Event>) -> Result<Self, HistoryError> {
        let mut history = Self::default();
        let mut by_id: HashMap<OpId, usize> = HashMap::new();
        for (at, event) in events.into_iter().enumerate() {
            history.end_ns = history.end_ns.max(event.time_ns);
            let outcome = match event.step {
                Step::Invoke(op) => {
                    if by_id.insert(event.id, history.operations.len()).is_some() {
                        return Err(HistoryError::Order { id: event.id, event: at, why: "begins twice" });
                    }
                    history.operations.push(Operation {
                        id: event.id,
                        process: event.process,
                        invoked_ns: event.time_ns,
                        completed_ns: None,
                        op,
                        outcome: Outcome::Unknown(None),
                        invoked_at: at,
                        completed_at: None,
                    });
                    continue;
                }
                Step::Ok(done) => Outcome::Ok(done),
                Step::Fail(failure) => Outcome::Fail(failure),
                Step::Unknown(failure) => Outcome::Unknown(Some(failure)),
            };
            let Some(operation) = by_id.get(&event.id).and_then(|&at| history.operations.get_mut(at)) else {
                return Err(HistoryError::Order { id: event.id, event: at, why: "ends and never began" });
            };
            if operation.completed_at.is_some() {
                return Err(HistoryError::Order { id: event.id, event: at, why: "ends twice" });
            }
            operation.completed_ns = Some(event.time_ns);
            operation.completed_at = Some(at);
            operation.outcome = outcome;
        }
        Ok(history)
    }

    /// Reads JSON lines; empty lines are passed over.
    ///
    /// # Errors
    /// [`HistoryError::Io`], [`HistoryError::Line`] and [`HistoryError::Order`].
    pub fn read_from(source: impl BufRead) -> Result<Self, HistoryError> {
        let mut events = Vec::new();
        for (number, line) in source.lines().enumerate() {
            let line = line?;
            if line.trim().is_empty() {
                continue;
            }
            let event = serde_json::from_str(&line)
                .map_err(|source| HistoryError::Line { line: number + 1, source })?;
            events.push(event);
        }
        Self::from_events(events)
    }

    /// Every operation, in the order in which they were invoked.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// The time of the last event, in nanoseconds.
    pub fn end_ns(&self) -> u64 {
        self.end_ns
    }
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
