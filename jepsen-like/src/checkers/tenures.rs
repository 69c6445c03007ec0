//! What members do with their partitions, held against where each of them can have started.
//!
//! A tenure is the time in which a member holds a partition, from the assignment that brought it to the one that takes it
//! away. The member starts from the group's offset and goes forward. So it first polls no further ahead than the most
//! that the offset can have been at its start, and what it commits is never less than the least, nor than what it
//! committed before. A seek ends that knowledge.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};

use super::groups::{Group, Joined, Register};
use super::index::{Index, OpAt};
use crate::history::{Done, Log, Op, Outcome, ProcessId, Span};

/// What members did that a tenure does not allow.
#[derive(Default)]
pub(super) struct Broken<'a> {
    pub(super) commits: Vec<EarlyCommit<'a>>,
    pub(super) starts: Vec<LateStart<'a>>,
}

/// A commit of an offset that lies before where the group stood.
pub(super) struct EarlyCommit<'a> {
    pub(super) log: &'a Log,
    pub(super) offset: i64,
    pub(super) by: OpAt,
    /// Where the group stood at least, and the commit that says so.
    pub(super) stood: i64,
    pub(super) stood_by: OpAt,
}

/// A member's first poll passes over offsets behind which the group certainly did not stand.
pub(super) struct LateStart<'a> {
    pub(super) log: &'a Log,
    pub(super) left_out: Span,
    pub(super) by: OpAt,
    pub(super) stood_by: OpAt,
}

/// Walks through one group's tenures.
pub(super) fn walk<'a>(index: &'a Index<'a>, group: &'a Group<'a>) -> Broken<'a> {
    let mut walk = Walk {
        index,
        group,
        tenures: HashMap::new(),
        known: BTreeMap::new(),
        count: 0,
        open: HashMap::new(),
        broken: Broken::default(),
    };
    for (_, step) in steps(index, group) {
        match step {
            Step::Joined(join) => walk.on_joined(join),
            Step::Moved(at) => walk.on_moved(at),
            Step::Asked(log, write) => walk.on_asked(log, write),
            Step::Answered(log, write) => walk.on_answered(log, write),
            Step::Polled(at) => walk.on_polled(at),
        }
    }
    walk.broken
}

/// What happens at a moment.
#[derive(Clone, Copy)]
enum Step<'a> {
    Joined(&'a Joined<'a>),
    /// A consumer's position moved, or went, other than by polls and joins.
    Moved(OpAt),
    /// The write of this number begins, or ends.
    Asked(&'a Log, usize),
    Answered(&'a Log, usize),
    Polled(OpAt),
}

/// In their order. The deletion of a group is a write in each partition, all at one moment.
fn steps<'a>(index: &'a Index<'a>, group: &'a Group<'a>) -> Vec<(usize, Step<'a>)> {
    let mut steps: Vec<(usize, Step<'a>)> =
        group.joins.iter().map(|join| (join.told, Step::Joined(join))).collect();
    for (&log, register) in group.registers.iter().filter(|(log, _)| !index.is_deleted(log)) {
        for (number, write) in register.writes.iter().enumerate() {
            steps.push((write.from, Step::Asked(log, number)));
            steps.extend(write.sure_by.map(|at| (at, Step::Answered(log, number))));
        }
    }
    for &at in &group.moves {
        let operation = index.op(at);
        match (&operation.op, operation.completed_at) {
            (Op::Poll { .. }, end) => steps.extend(end.map(|end| (end, Step::Polled(at)))),
            _ => steps.push((operation.invoked_at, Step::Moved(at))),
        }
    }
    steps.sort_by_key(|(moment, _)| *moment);
    steps
}

/// A member holds a partition.
struct Tenure {
    number: u32,
    /// When it began, as the number of an event.
    since: usize,
    start: Option<Start>,
    /// It has polled: where it started has been judged.
    started: bool,
    /// Its commit furthest ahead of those that were acknowledged.
    furthest: Option<(i64, OpAt)>,
}

/// Where a member can have started.
#[derive(Clone, Copy)]
struct Start {
    /// The least and the most of the group's possible offsets, as the commits of its members left them.
    least: i64,
    most: i64,
    /// That commit was asked at this moment, and replaced all that had taken effect before.
    replacing: usize,
    by: OpAt,
}

/// Offsets that a group may have, each with the last moment at which it may have come to be.
#[derive(Default)]
struct Possible {
    least_first: BinaryHeap<Reverse<(Option<i64>, usize)>>,
    most_first: BinaryHeap<(Option<i64>, usize)>,
}

impl Possible {
    fn add(&mut self, value: Option<i64>, until: usize) {
        self.least_first.push(Reverse((value, until)));
        self.most_first.push((value, until));
    }

    /// The least and the most of those that were not replaced by what was asked at this moment; `None` for no offset
    /// counts as less than any. The moments never go back.
    fn range(&mut self, replacing: usize) -> Option<(Option<i64>, Option<i64>)> {
        while self.least_first.peek().is_some_and(|Reverse((_, until))| *until < replacing) {
            self.least_first.pop();
        }
        while self.most_first.peek().is_some_and(|(_, until)| *until < replacing) {
            self.most_first.pop();
        }
        Some((self.least_first.peek()?.0.0, self.most_first.peek()?.0))
    }
}

/// What is known of a group's offset in one partition so far.
#[derive(Default)]
struct Known {
    by_members: Possible,
    by_others: Possible,
    /// The last acknowledged commit that was asked in each generation, by the moment.
    acknowledged: BTreeMap<i32, (usize, OpAt)>,
    generation_max: i32,
    /// The latest moment for which `by_others` was asked.
    replacing_max: usize,
    /// Who asked for the last commit, and when; and when anybody else did.
    last_asked: Option<(ProcessId, usize)>,
    asked_by_others: usize,
}

impl Known {
    fn on_asked(&mut self, process: ProcessId, now: usize) {
        if let Some((_, at)) = self.last_asked.filter(|(before, _)| *before != process) {
            self.asked_by_others = at;
        }
        self.last_asked = Some((process, now));
    }

    /// Whether another process may have moved the group's offset since: a member that does not know yet that its
    /// generation is over may start from there.
    fn is_moved_by_others(&self, process: ProcessId, since: usize) -> bool {
        let last = self.last_asked.filter(|(by, _)| *by != process).map(|(_, at)| at);
        last.unwrap_or(self.asked_by_others) > since
    }

    /// Where the group can have stood when the member started, at least and at most; an order from outside since then
    /// counts. `None` where that is not known: there may have been no offset, or another member has started since, and
    /// what was replaced before that is forgotten.
    fn range(&mut self, start: &Start) -> Option<(i64, i64)> {
        if start.replacing < self.replacing_max {
            return None;
        }
        self.replacing_max = start.replacing;
        let Some((least, most)) = self.by_others.range(start.replacing) else {
            return Some((start.least, start.most));
        };
        Some((least?.min(start.least), most?.max(start.most)))
    }
}

struct Walk<'a> {
    index: &'a Index<'a>,
    group: &'a Group<'a>,
    tenures: HashMap<ProcessId, HashMap<&'a Log, Tenure>>,
    known: BTreeMap<&'a Log, Known>,
    count: u32,
    /// In which tenure a commit was asked that has not been answered.
    open: HashMap<(&'a Log, usize), u32>,
    broken: Broken<'a>,
}

impl<'a> Walk<'a> {
    fn on_joined(&mut self, join: &'a Joined<'a>) {
        let mut before = self.tenures.remove(&join.process).unwrap_or_default();
        let mut after = HashMap::new();
        for log in join.assigned {
            let tenure = if join.kept.contains(log) {
                before.remove(log).unwrap_or_else(|| self.tenure(join.told, None))
            } else {
                let start = self.start(log, join);
                self.tenure(join.told, start)
            };
            after.insert(log, tenure);
        }
        self.tenures.insert(join.process, after);
    }

    fn tenure(&mut self, since: usize, start: Option<Start>) -> Tenure {
        self.count += 1;
        Tenure { number: self.count, since, start, started: false, furthest: None }
    }

    /// What the commits of earlier generations say of where a member starts. They took effect before this generation
    /// began, and so before the member asked where to start.
    fn start(&mut self, log: &Log, join: &Joined<'_>) -> Option<Start> {
        let known = self.known.get_mut(log)?;
        let generation = join.member.generation;
        if generation < known.generation_max {
            return None;
        }
        known.generation_max = generation;
        let (_, &(replacing, by)) = known.acknowledged.range(..generation).next_back()?;
        if !self.group.lives_through(replacing, join.told) {
            return None;
        }
        let (least, most) = known.by_members.range(replacing)?;
        Some(Start { least: least?, most: most?, replacing, by })
    }

    fn on_moved(&mut self, at: OpAt) {
        let operation = self.index.op(at);
        let Some(tenures) = self.tenures.get_mut(&operation.process) else { return };
        match &operation.op {
            Op::Seek { log, .. } => {
                self.count += 1;
                let (number, since) = (self.count, operation.invoked_at);
                if let Some(tenure) = tenures.get_mut(log) {
                    *tenure = Tenure { number, since, start: None, started: true, furthest: None };
                }
            }
            Op::Release { logs, .. } => tenures.retain(|log, _| !logs.contains(log)),
            _ => tenures.clear(),
        }
    }

    fn register(&self, log: &Log) -> &'a Register<'a> {
        &self.group.registers[log]
    }

    fn on_asked(&mut self, log: &'a Log, number: usize) {
        let write = &self.register(log).writes[number];
        let known = self.known.entry(log).or_default();
        let Some(member) = write.member else {
            known.by_others.add(write.value, write.until);
            return;
        };
        let process = self.index.op(write.by).process;
        known.on_asked(process, write.from);
        known.by_members.add(write.value, write.until);
        if write.sure_by.is_none() || write.is_too_late() {
            return;
        }
        known.acknowledged.insert(member.generation, (write.from, write.by));
        let tenure = self.tenures.get(&process).and_then(|tenures| tenures.get(log));
        let (Some(tenure), Some(offset)) = (tenure, write.value) else { return };
        self.open.insert((log, number), tenure.number);
        let before = match (tenure.furthest, tenure.start) {
            (Some((furthest, by)), _) if offset < furthest => Some((furthest, by)),
            (_, Some(start)) => {
                known.range(&start).filter(|(least, _)| offset < *least).map(|(least, _)| (least, start.by))
            }
            _ => None,
        };
        if let Some((stood, stood_by)) = before {
            self.broken.commits.push(EarlyCommit { log, offset, by: write.by, stood, stood_by });
        }
    }

    /// The first poll of a tenure tells where the member started.
    fn on_polled(&mut self, at: OpAt) {
        let operation = self.index.op(at);
        let (Op::Poll { log, from }, Outcome::Ok(Done::Polled { records })) =
            (&operation.op, &operation.outcome)
        else {
            return;
        };
        let tenure = self.tenures.get_mut(&operation.process).and_then(|tenures| tenures.get_mut(log));
        let Some(tenure) = tenure.filter(|tenure| !tenure.started) else { return };
        // What the consumer knew when the poll began says nothing of an assignment that came since.
        let from = from.filter(|_| tenure.since < operation.invoked_at);
        let Some(from) = from.or(records.first().map(|record| record.offset)) else { return };
        tenure.started = true;
        let (Some(start), Some(known)) = (tenure.start, self.known.get_mut(log)) else { return };
        if known.is_moved_by_others(operation.process, tenure.since) {
            return;
        }
        let Some((_, most)) = known.range(&start) else { return };
        if most < from {
            let left_out = Span { from: most, to: from };
            self.broken.starts.push(LateStart { log, left_out, by: at, stood_by: start.by });
        }
    }

    fn on_answered(&mut self, log: &'a Log, number: usize) {
        let write = &self.register(log).writes[number];
        let Some(asked_in) = self.open.remove(&(log, number)) else { return };
        let process = self.index.op(write.by).process;
        let tenure = self.tenures.get_mut(&process).and_then(|tenures| tenures.get_mut(log));
        if let (Some(tenure), Some(offset)) = (tenure.filter(|tenure| tenure.number == asked_in), write.value)
            && tenure.furthest.is_none_or(|(furthest, _)| offset > furthest)
        {
            tenure.furthest = Some((offset, write.by));
        }
    }
}
