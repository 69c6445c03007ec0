//! Where each consumer stands in each log, as the history goes on: who was given a record out of order, and who
//! passed over offsets.
//!
//! A position is void from the moment at which its partition comes anew (assignment, rebalance, except where the member
//! stays where it stands) or goes. A poll counts at its end: what it gave belongs to the assignment of that moment.

use std::collections::HashMap;

use super::index::{Gap, LogIndex, Onward, OpAt, StepBack};
use crate::history::{Done, Log, Op, Operation, Outcome, ProcessId, Record, SeekTo, Span};

/// Walks the history in the order of its events, and puts down what it finds with the logs.
pub(super) fn walk(operations: &[Operation], places: &HashMap<&Log, usize>, logs: &mut [LogIndex<'_>]) {
    let mut moments: Vec<(usize, OpAt)> = Vec::new();
    for (at, operation) in (0..).zip(operations) {
        let moment = match (&operation.op, &operation.outcome) {
            (Op::Poll { .. }, Outcome::Ok(Done::Polled { .. }))
            | (Op::Join { .. }, Outcome::Ok(Done::Joined { .. })) => operation.completed_at,
            (Op::Seek { .. } | Op::Assign { .. } | Op::Subscribe { .. } | Op::Release { .. }, _) => {
                Some(operation.invoked_at)
            }
            _ => None,
        };
        moments.extend(moment.map(|moment| (moment, at)));
    }
    moments.sort_unstable();
    let mut walks = Walks { places, positions: HashMap::new(), assignments: HashMap::new() };
    for (now, at) in moments {
        walks.take(now, at, &operations[at as usize], logs);
    }
}

struct Walks<'a> {
    places: &'a HashMap<&'a Log, usize>,
    positions: HashMap<(ProcessId, usize), Position>,
    assignments: HashMap<ProcessId, Assignment>,
}

/// Each new assignment of a process voids its positions.
#[derive(Clone, Copy, Default)]
struct Assignment {
    number: u32,
    /// When it was made, as the number of an event.
    since: usize,
}

#[derive(Clone, Copy)]
struct Position {
    assignment: u32,
    next: Option<i64>,
    set_by: OpAt,
    /// The record before, where a poll set the position.
    last: Option<Record>,
    /// When it was last set by anything but a poll, as the number of an event.
    moved: usize,
}

impl Walks<'_> {
    fn take(&mut self, now: usize, at: OpAt, operation: &Operation, logs: &mut [LogIndex<'_>]) {
        let process = operation.process;
        match (&operation.op, &operation.outcome) {
            (Op::Assign { .. } | Op::Subscribe { .. }, _) => self.assign(process, now, &[]),
            (Op::Join { .. }, Outcome::Ok(Done::Joined { kept, .. })) => self.assign(process, now, kept),
            (Op::Release { logs, .. }, _) => {
                logs.iter().for_each(|log| self.go_to(process, log, None, now, at));
            }
            (Op::Seek { log, to }, _) => {
                let next = if let SeekTo::Offset(offset) = to { Some(*offset) } else { None };
                self.go_to(process, log, next, now, at);
            }
            (Op::Poll { log, from }, Outcome::Ok(Done::Polled { records })) => {
                let Some(place) = self.places.get(log).copied() else { return };
                self.poll(place, operation, *from, records, at, &mut logs[place]);
            }
            _ => {}
        }
    }

    fn assign(&mut self, process: ProcessId, now: usize, kept: &[Log]) {
        let assignment = self.assignments.entry(process).or_default();
        let before = assignment.number;
        *assignment = Assignment { number: before + 1, since: now };
        for place in kept.iter().filter_map(|log| self.places.get(log)) {
            if let Some(position) = self.positions.get_mut(&(process, *place))
                && position.assignment == before
            {
                position.assignment = before + 1;
            }
        }
    }

    fn go_to(&mut self, process: ProcessId, log: &Log, next: Option<i64>, now: usize, at: OpAt) {
        let Some(place) = self.places.get(log).copied() else { return };
        let assignment = self.assignments.get(&process).copied().unwrap_or_default().number;
        self.positions
            .insert((process, place), Position { assignment, next, set_by: at, last: None, moved: now });
    }

    fn poll(
        &mut self,
        place: usize,
        operation: &Operation,
        from: Option<i64>,
        records: &[Record],
        at: OpAt,
        log: &mut LogIndex<'_>,
    ) {
        let process = operation.process;
        let assignment = self.assignments.get(&process).copied().unwrap_or_default();
        let held = self.positions.get(&(process, place)).filter(|p| p.assignment == assignment.number);
        let moved_meanwhile = held.is_some_and(|position| position.moved > operation.invoked_at);
        // What the consumer knew when the poll began says nothing of an assignment that came since.
        let from = from.filter(|_| assignment.since < operation.invoked_at && !moved_meanwhile);
        let held = held.copied().filter(|_| !moved_meanwhile);
        let mut next = held.and_then(|position| position.next).or(from);
        let mut after = held.map(|position| position.set_by);
        let before = held.and_then(|position| Some((position.last?, position.set_by)));
        if let (Some((last, after)), Some(&first)) = (before, records.first()) {
            log.onwards.push(Onward { last, after, first, by: at });
        }
        for &record in records {
            if let Some(position) = next {
                if record.offset < position {
                    log.steps_back.push(StepBack { record, position, by: at, after });
                } else if record.offset > position {
                    log.gaps.push(Gap { span: Span { from: position, to: record.offset }, by: at, after });
                }
            }
            next = Some(record.offset + 1);
            after = None;
        }
        let position = Position {
            assignment: assignment.number,
            next: next.filter(|_| !moved_meanwhile),
            set_by: if records.is_empty() { held.map_or(at, |p| p.set_by) } else { at },
            last: records.last().copied().filter(|_| !moved_meanwhile).or(before.map(|(last, _)| last)),
            moved: held.map_or(assignment.since, |position| position.moved),
        };
        self.positions.insert((process, place), position);
    }
}
