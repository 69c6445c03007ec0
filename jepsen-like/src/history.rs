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
//!
//! A record of a compacted topic has a key, and deletes it where it is a tombstone:
//! ```text
//! {"id":7,"process":2,"time_ns":5,"step":{"invoke":{"send":{"log":"prices/0","value":42,"acks":"all","keyed":{"key":"7","tombstone":true}}}}}
//! ```
//!
//! A consumer either assigns itself partitions (`assign`) or is given them by a group: `subscribe`, then a `join` for
//! each rebalance, then polls, seeks and commits as they come, `release` where partitions go, and in the end `leave`
//! or `crash`.
//! ```text
//! {"id":8,"process":3,"time_ns":5,"step":{"invoke":{"join":{"group":"g"}}}}
//! {"id":8,"process":3,"time_ns":9,"step":{"ok":{"joined":{"member":{"id":"c-1","generation":4},"assigned":["orders/0"],"kept":[]}}}}
//! {"id":9,"process":3,"time_ns":12,"step":{"invoke":{"commit":{"group":"g","log":"orders/0","offset":13,"member":{"id":"c-1","generation":4}}}}}
//! ```

use std::collections::HashMap;
use std::fmt;
use std::io::{self, BufRead};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

mod op;
mod recorder;

pub use op::{Acks, Done, Failure, Keyed, Member, Op, Record, SeekTo, Span};
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
        Self::from_events(read_events(source)?)
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

/// Reads events from JSON lines; empty lines are passed over.
///
/// # Errors
/// [`HistoryError::Io`] and [`HistoryError::Line`].
pub fn read_events(source: impl BufRead) -> Result<Vec<Event>, HistoryError> {
    let mut events = Vec::new();
    for (number, line) in source.lines().enumerate() {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        let event =
            serde_json::from_str(&line).map_err(|source| HistoryError::Line { line: number + 1, source })?;
        events.push(event);
    }
    Ok(events)
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
