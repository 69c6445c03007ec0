//! Commits of members, held against where each of them started.
//!
//! A tenure is the time in which a member holds a partition, from the assignment that brought it to the one that takes it
//! away. The member starts from the group's offset and goes forward, so what it commits is never less than the least
//! that the offset could have been at its start, nor than what it committed before. A seek ends that knowledge.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};

use super::super::groups::{Group, Joined, Register};
use super::super::index::{Index, OpAt};
use super::super::verdict::Findings;
use crate::history::{Log, Op, ProcessId};

/// Judges the commits of one group's members.
pub(super) fn check(index: &Index<'_>, name: &str, group: &Group<'_>, findings: &mut Findings<'_>) {
    let mut walk = Walk {
        index,
        name,
        group,
        tenures: HashMap::new(),
        starts: BTreeMap::new(),
        count: 0,
        open: HashMap::new(),
    };
    for (_, step) in steps(index, group) {
        match step {
            Step::Joined(join) => walk.on_joined(join),
            Step::Moved(at) => walk.on_moved(at),
            Step::Asked(log, write) => walk.on_asked(log, write, findings),
            Step::Answered(log, write) => walk.on_answered(log, write),
        }
    }
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
}

fn steps<'a>(index: &'a Index<'a>, group: &'a Group<'a>) -> BTreeMap<usize, Step<'a>> {
    let mut steps: BTreeMap<usize, Step<'a>> =
        group.joins.iter().map(|join| (join.told, Step::Joined(join))).collect();
    for (&log, register) in group.registers.iter().filter(|(log, _)| !index.is_deleted(log)) {
        for (number, write) in register.writes.iter().enumerate() {
            steps.insert(write.from, Step::Asked(log, number));
            steps.extend(write.sure_by.map(|at| (at, Step::Answered(log, number))));
        }
    }
    for (at, operation) in (0..).zip(index.history.operations()) {
        if matches!(
            operation.op,
            Op::Seek { .. } | Op::Release { .. } | Op::Assign { .. } | Op::Subscribe { .. } | Op::Crash
        ) {
            steps.insert(operation.invoked_at, Step::Moved(at));
        }
    }
    steps
}

/// A member holds a partition.
struct Tenure {
    number: u32,
    start: Option<Start>,
    /// Its commit furthest ahead of those that were acknowledged.
    furthest: Option<(i64, OpAt)>,
}

/// Where a member can have started.
#[derive(Clone, Copy)]
struct Start {
    /// The least of the group's possible offsets, as the commits of its members left them.
    least: i64,
    /// That commit was asked at this moment, and replaced all that had taken effect before.
    replacing: usize,
    by: OpAt,
}

/// Offsets that a group may have, the least first, each with the last moment at which it may have come to be.
#[derive(Default)]
struct Possible(BinaryHeap<Reverse<(Option<i64>, usize)>>);

impl Possible {
    fn add(&mut self, value: Option<i64>, until: usize) {
        self.0.push(Reverse((value, until)));
    }

    /// The least that was not replaced by what was asked at this moment. The moments never go back.
    fn least(&mut self, replacing: usize) -> Option<Option<i64>> {
        while self.0.peek().is_some_and(|Reverse((_, until))| *until < replacing) {
            self.0.pop();
        }
        self.0.peek().map(|Reverse((value, _))| *value)
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
}

struct Walk<'a> {
    index: &'a Index<'a>,
    name: &'a str,
    group: &'a Group<'a>,
    tenures: HashMap<ProcessId, HashMap<&'a Log, Tenure>>,
    starts: BTreeMap<&'a Log, Known>,
    count: u32,
    /// In which tenure a commit was asked that has not been answered.
    open: HashMap<(&'a Log, usize), u32>,
}

impl<'a> Walk<'a> {
    fn on_joined(&mut self, join: &'a Joined<'a>) {
        let mut before = self.tenures.remove(&join.process).unwrap_or_default();
        let mut after = HashMap::new();
        for log in join.assigned {
            let tenure = if join.kept.contains(log) {
                before.remove(log).unwrap_or_else(|| self.tenure(None))
            } else {
                let start = self.start(log, join);
                self.tenure(start)
            };
            after.insert(log, tenure);
        }
        self.tenures.insert(join.process, after);
    }

    fn tenure(&mut self, start: Option<Start>) -> Tenure {
        self.count += 1;
        Tenure { number: self.count, start, furthest: None }
    }

    /// What the commits of earlier generations say of where a member starts. They took effect before this generation
    /// began, and so before the member asked where to start.
    fn start(&mut self, log: &Log, join: &Joined<'_>) -> Option<Start> {
        let known = self.starts.get_mut(log)?;
        let generation = join.member.generation;
        if generation < known.generation_max {
            return None;
        }
        known.generation_max = generation;
        let (_, &(replacing, by)) = known.acknowledged.range(..generation).next_back()?;
        if !self.group.lives_through(replacing, join.told) {
            return None;
        }
        let least = known.by_members.least(replacing)??;
        Some(Start { least, replacing, by })
    }

    fn on_moved(&mut self, at: OpAt) {
        let operation = self.index.op(at);
        let Some(tenures) = self.tenures.get_mut(&operation.process) else { return };
        match &operation.op {
            Op::Seek { log, .. } => {
                self.count += 1;
                let number = self.count;
                if let Some(tenure) = tenures.get_mut(log) {
                    *tenure = Tenure { number, start: None, furthest: None };
                }
            }
            Op::Release { logs, .. } => tenures.retain(|log, _| !logs.contains(log)),
            _ => tenures.clear(),
        }
    }

    fn register(&self, log: &Log) -> &'a Register<'a> {
        &self.group.registers[log]
    }

    fn on_asked(&mut self, log: &'a Log, number: usize, findings: &mut Findings<'_>) {
        let write = &self.register(log).writes[number];
        let known = self.starts.entry(log).or_default();
        let Some(member) = write.member else {
            known.by_others.add(write.value, write.until);
            return;
        };
        known.by_members.add(write.value, write.until);
        if write.sure_by.is_none() || write.is_too_late() {
            return;
        }
        known.acknowledged.insert(member.generation, (write.from, write.by));
        let process = self.index.op(write.by).process;
        let tenure = self.tenures.get(&process).and_then(|tenures| tenures.get(log));
        let (Some(tenure), Some(offset)) = (tenure, write.value) else { return };
        self.open.insert((log, number), tenure.number);
        let behind = |start: &Start| {
            let ordered = known.by_others.least(start.replacing);
            offset < start.least && ordered.is_none_or(|least| least.is_some_and(|least| offset < least))
        };
        let before = match (tenure.furthest, tenure.start) {
            (Some((furthest, by)), _) if offset < furthest => Some((furthest, by)),
            (_, Some(start)) => Some(start).filter(behind).map(|start| (start.least, start.by)),
            _ => None,
        };
        if let Some((stood, by)) = before {
            findings.add(Some(log), Some(offset), &[by, write.by], || {
                format!("group {} stood at {stood} or later, and a member commits {offset}", self.name)
            });
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
