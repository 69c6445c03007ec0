//! The history, sorted once for all checkers.

use std::collections::{BTreeMap, HashMap};

use super::groups::{self, Group};
use super::verdict::Counts;
use super::walks;
use crate::history::{Acks, Done, Failure, History, Log, Op, Operation, Outcome, Record, Span};
use crate::workload::Promise;

/// The place of an operation in the history.
pub(super) type OpAt = u32;

/// A value seen at an offset, and the first operation that saw it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Seen {
    pub(super) offset: i64,
    pub(super) value: u64,
    pub(super) by: OpAt,
}

/// A send that was acknowledged with an offset.
#[derive(Clone, Copy, Debug)]
pub(super) struct Acknowledged {
    pub(super) offset: i64,
    pub(super) value: u64,
    pub(super) by: OpAt,
    pub(super) acks: Acks,
}

/// A consumer came to the end of the span having seen no record of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gap {
    pub(super) span: Span,
    /// The poll that left it out.
    pub(super) by: OpAt,
    /// The poll or seek that set the position before, where it is another one.
    pub(super) after: Option<OpAt>,
}

/// A consumer was given a record that lies before its position.
#[derive(Clone, Copy, Debug)]
pub(super) struct StepBack {
    pub(super) record: Record,
    pub(super) position: i64,
    pub(super) by: OpAt,
    pub(super) after: Option<OpAt>,
}

/// A poll that went on where the one before had stopped.
#[derive(Clone, Copy, Debug)]
pub(super) struct Onward {
    /// The last record before.
    pub(super) last: Record,
    /// The poll that gave it.
    pub(super) after: OpAt,
    /// The first record of this one.
    pub(super) first: Record,
    pub(super) by: OpAt,
}

/// A final read of a log that succeeded.
#[derive(Clone, Copy)]
pub(super) struct FinalRead<'a> {
    pub(super) by: OpAt,
    pub(super) start: i64,
    pub(super) end: i64,
    /// In the order in which they were read.
    pub(super) records: &'a [Record],
    pub(super) corrupt: &'a [Span],
    /// The largest offset that was read.
    pub(super) last: Option<i64>,
}

/// Everything about one partition.
pub(super) struct LogIndex<'a> {
    pub(super) log: &'a Log,
    /// Somebody asked to delete the topic: its offsets may name several records.
    pub(super) deleted: bool,
    /// Sends with a known offset, in the order in which they were invoked.
    pub(super) acknowledged: Vec<Acknowledged>,
    /// What was read, by offset, then value; each pair once (of a deleted topic: every reading).
    pub(super) seen: Vec<Seen>,
    /// Readings of payloads that no workload wrote.
    pub(super) unreadable: Vec<(i64, OpAt)>,
    pub(super) gaps: Vec<Gap>,
    pub(super) steps_back: Vec<StepBack>,
    pub(super) onwards: Vec<Onward>,
    /// What the broker answered with CORRUPT_MESSAGE, in polls and final reads.
    pub(super) corrupt: Vec<(Span, OpAt)>,
    /// The final reads that succeeded, in their order.
    pub(super) final_reads: Vec<FinalRead<'a>>,
    /// Of each key's records only the last one stays.
    pub(super) compacted: bool,
    /// Nobody ordered anything from this offset on to be deleted.
    pub(super) ordered_start: i64,
    /// Deletions of records that succeeded, with the log's first offset after each.
    pub(super) starts: Vec<(i64, OpAt)>,
}

/// The history, sorted once for all checkers.
pub(super) struct Index<'a> {
    pub(super) history: &'a History,
    pub(super) promise: &'a Promise,
    /// By name.
    pub(super) logs: Vec<LogIndex<'a>>,
    /// The send of each value.
    pub(super) sends: HashMap<u64, OpAt>,
    /// Deletions of topics that succeeded.
    pub(super) deletions: BTreeMap<&'a str, Vec<OpAt>>,
    /// By name.
    pub(super) groups: BTreeMap<&'a str, Group<'a>>,
}

impl<'a> Index<'a> {
    pub(super) fn build(history: &'a History, promise: &'a Promise) -> Self {
        let operations = history.operations();
        let mut names: BTreeMap<&Log, usize> =
            operations.iter().filter_map(|o| o.op.log()).map(|l| (l, 0)).collect();
        let mut logs = Vec::with_capacity(names.len());
        for (at, (&log, place)) in names.iter_mut().enumerate() {
            *place = at;
            let compacted = promise.compacted.contains(&log.topic);
            logs.push(LogIndex { compacted, ..LogIndex::new(log) });
        }
        let places: HashMap<&Log, usize> = names.into_iter().collect();
        let mut index = Self {
            history,
            promise,
            logs,
            sends: HashMap::new(),
            deletions: BTreeMap::new(),
            groups: groups::build(history, promise),
        };
        for (at, operation) in operations.iter().enumerate() {
            let at = OpAt::try_from(at).expect("a history has fewer than 2^32 operations");
            let place = operation.op.log().and_then(|log| places.get(log)).copied();
            index.take(at, operation, place);
        }
        walks::walk(operations, &places, &mut index.logs);
        for log in &mut index.logs {
            log.sort();
        }
        index
    }

    pub(super) fn op(&self, at: OpAt) -> &'a Operation {
        &self.history.operations()[at as usize]
    }

    /// Somebody asked to delete the log's topic.
    pub(super) fn is_deleted(&self, log: &Log) -> bool {
        let at = self.logs.binary_search_by(|index| index.log.cmp(log));
        at.is_ok_and(|at| self.logs[at].deleted)
    }

    /// The logs whose offsets name one record for ever, as far as the clients know.
    pub(super) fn stable_logs(&self) -> impl Iterator<Item = &LogIndex<'a>> {
        self.logs.iter().filter(|log| !log.deleted)
    }

    /// Those of them that keep every record.
    pub(super) fn complete_logs(&self) -> impl Iterator<Item = &LogIndex<'a>> {
        self.stable_logs().filter(|log| !log.compacted)
    }

    fn take(&mut self, at: OpAt, operation: &'a Operation, place: Option<usize>) {
        if let Op::DeleteTopic { topic } = &operation.op {
            return self.take_deletion(at, operation, topic);
        }
        let Some(log) = place.and_then(|place| self.logs.get_mut(place)) else { return };
        match (&operation.op, &operation.outcome) {
            (Op::Send { value, acks, .. }, outcome) => {
                self.sends.entry(*value).or_insert(at);
                if let Outcome::Ok(Done::Sent { offset: Some(offset) }) = outcome {
                    log.acknowledged.push(Acknowledged {
                        offset: *offset,
                        value: *value,
                        by: at,
                        acks: *acks,
                    });
                }
            }
            (Op::DeleteRecords { before, .. }, outcome) => {
                if !matches!(outcome, Outcome::Fail(_)) {
                    log.ordered_start = log.ordered_start.max(*before);
                }
                if let Outcome::Ok(Done::Deleted { start }) = outcome {
                    log.starts.push((*start, at));
                }
            }
            (Op::Poll { .. }, Outcome::Ok(Done::Polled { records })) => log.take_records(records, at),
            (
                Op::Poll { .. },
                Outcome::Fail(Failure::Corrupt(span)) | Outcome::Unknown(Some(Failure::Corrupt(span))),
            ) => {
                log.corrupt.push((*span, at));
            }
            (Op::FinalRead { .. }, Outcome::Ok(Done::Read { start, end, records, corrupt })) => {
                log.take_records(records, at);
                log.corrupt.extend(corrupt.iter().map(|&span| (span, at)));
                log.take_steps_back_within(records, at);
                let last = records.iter().map(|record| record.offset).max();
                let read = FinalRead { by: at, start: *start, end: *end, records, corrupt, last };
                log.final_reads.push(read);
            }
            _ => {}
        }
    }

    fn take_deletion(&mut self, at: OpAt, operation: &Operation, topic: &'a str) {
        match &operation.outcome {
            Outcome::Fail(_) => return,
            Outcome::Ok(_) => self.deletions.entry(topic).or_default().push(at),
            Outcome::Unknown(_) => {}
        }
        for log in self.logs.iter_mut().filter(|log| &*log.log.topic == topic) {
            log.deleted = true;
        }
    }

    pub(super) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for operation in self.history.operations() {
            counts.operations += 1;
            match &operation.outcome {
                Outcome::Ok(done) => {
                    counts.ok += 1;
                    match done {
                        Done::Sent { offset: Some(_) } => counts.acknowledged_sends += 1,
                        Done::Polled { records } | Done::Read { records, .. } => {
                            counts.records_read += records.len() as u64;
                        }
                        Done::Sent { offset: None }
                        | Done::Deleted { .. }
                        | Done::Joined { .. }
                        | Done::Offset { .. }
                        | Done::Done => {}
                    }
                }
                Outcome::Fail(_) => counts.failed += 1,
                Outcome::Unknown(_) => counts.unknown += 1,
            }
        }
        counts
    }
}

impl<'a> LogIndex<'a> {
    fn new(log: &'a Log) -> Self {
        Self {
            log,
            deleted: false,
            acknowledged: Vec::new(),
            seen: Vec::new(),
            unreadable: Vec::new(),
            gaps: Vec::new(),
            steps_back: Vec::new(),
            onwards: Vec::new(),
            corrupt: Vec::new(),
            final_reads: Vec::new(),
            compacted: false,
            ordered_start: 0,
            starts: Vec::new(),
        }
    }

    fn take_records(&mut self, records: &[Record], by: OpAt) {
        for &Record { offset, value } in records {
            match value {
                Some(value) => self.seen.push(Seen { offset, value, by }),
                None => self.unreadable.push((offset, by)),
            }
        }
    }

    fn take_steps_back_within(&mut self, records: &[Record], by: OpAt) {
        for pair in records.windows(2) {
            if let [before, record] = *pair
                && record.offset <= before.offset
            {
                self.steps_back.push(StepBack { record, position: before.offset + 1, by, after: None });
            }
        }
    }

    fn sort(&mut self) {
        self.seen.sort_unstable();
        if !self.deleted {
            self.seen.dedup_by_key(|seen| (seen.offset, seen.value));
        }
    }

    /// Whether the record was deleted by order, or by a retention that the promise knows of.
    pub(super) fn may_be_cut_off(&self, offset: i64, start: i64, promise: &Promise) -> bool {
        offset < start && (promise.retention || offset < self.ordered_start)
    }

    /// What was read at this offset.
    pub(super) fn seen_at(&self, offset: i64) -> &[Seen] {
        let from = self.seen.partition_point(|seen| seen.offset < offset);
        let len = self.seen[from..].partition_point(|seen| seen.offset == offset);
        &self.seen[from..from + len]
    }

    /// What was read at the offsets of the span.
    pub(super) fn seen_within(&self, span: Span) -> &[Seen] {
        let from = self.seen.partition_point(|seen| seen.offset < span.from);
        let len = self.seen[from..].partition_point(|seen| seen.offset < span.to);
        &self.seen[from..from + len]
    }
}

impl FinalRead<'_> {
    /// Whether the read answered this offset with CORRUPT_MESSAGE.
    pub(super) fn reports(&self, offset: i64) -> bool {
        self.corrupt.iter().any(|span| span.contains(offset))
    }
}
