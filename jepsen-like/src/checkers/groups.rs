//! What the history says of each group: who joined in which generation, and what each committed offset may be.
//!
//! Moments are numbers of events. A request takes effect between the two events of its operation; one whose end is
//! unknown may do so at any later moment, as long as the coordinator can still take it for good: a commit of a
//! generation is refused once a later one began, and a later one had begun when a member was told of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::index::OpAt;
use crate::history::{Done, History, Log, Member, Op, Operation, Outcome, ProcessId};
use crate::workload::Promise;

/// Everything about one group.
#[derive(Default)]
pub(super) struct Group<'a> {
    /// Assignments as members got them, in that order.
    pub(super) joins: Vec<Joined<'a>>,
    /// One for each partition whose offset anybody committed or asked for.
    pub(super) registers: BTreeMap<&'a Log, Register<'a>>,
    /// What its members' processes did that moves a consumer's position, or shows it.
    pub(super) moves: Vec<OpAt>,
    /// Every member subscribes to these.
    topics: Option<BTreeSet<&'a str>>,
    lives: Lives,
    /// For each life: the generations that members were told of, each with the first moment at which one was told of it
    /// or of a later one.
    generations: Vec<Vec<Told>>,
    /// When a static member's process was replaced by another one of the same name, by the old member id.
    replaced: HashMap<&'a str, (usize, OpAt)>,
}

/// A member got its assignment.
pub(super) struct Joined<'a> {
    pub(super) by: OpAt,
    pub(super) process: ProcessId,
    /// When it was told.
    pub(super) told: usize,
    /// When its process subscribed.
    subscribed: usize,
    pub(super) instance: Option<&'a str>,
    pub(super) member: &'a Member,
    pub(super) assigned: &'a [Log],
    pub(super) kept: &'a [Log],
    /// The group that told this was not removed before: always so where nothing can remove it, otherwise where a later
    /// commit of the same member was taken. An answer can be read long after the group that gave it is gone.
    pub(super) lives: bool,
}

#[derive(Clone, Copy)]
struct Told {
    generation: i32,
    first: usize,
    by: OpAt,
}

/// A group's offset in one partition.
#[derive(Default)]
pub(super) struct Register<'a> {
    /// What may have set it, in the order in which that was asked.
    pub(super) writes: Vec<Write<'a>>,
    /// What was told of it.
    pub(super) fetches: Vec<Fetch>,
}

/// A request that may have set a group's offset.
pub(super) struct Write<'a> {
    pub(super) by: OpAt,
    /// `None` where it deletes.
    pub(super) value: Option<i64>,
    pub(super) from: usize,
    /// It takes effect no later than this.
    pub(super) until: usize,
    /// It certainly took effect before this.
    pub(super) sure_by: Option<usize>,
    pub(super) member: Option<&'a Member>,
}

/// A group's offset as it was told.
#[derive(Clone, Copy)]
pub(super) struct Fetch {
    pub(super) by: OpAt,
    pub(super) from: usize,
    pub(super) until: usize,
    pub(super) value: Option<i64>,
}

/// Spans of moments, both ends included, through which a group certainly was not removed.
#[derive(Default)]
enum Lives {
    /// Nothing can remove it.
    #[default]
    Whole,
    /// By their begin, without overlap.
    Spans(Vec<(usize, usize)>),
}

/// Sorts a history's groups, by name.
pub(super) fn build<'a>(history: &'a History, promise: &Promise) -> BTreeMap<&'a str, Group<'a>> {
    let mut groups: BTreeMap<&str, Group<'a>> = BTreeMap::new();
    let mut deletions: BTreeMap<&str, Vec<OpAt>> = BTreeMap::new();
    let mut subscriptions = HashMap::new();
    for (at, operation) in (0..).zip(history.operations()) {
        let Some(name) = operation.op.group() else { continue };
        let group = groups.entry(name).or_default();
        match &operation.op {
            Op::Subscribe { instance, topics, .. } => {
                subscriptions.insert(operation.process, (operation.invoked_at, instance.as_deref()));
                group.subscribe(topics.iter().map(|topic| &**topic).collect());
            }
            Op::DeleteGroup { .. } if !matches!(operation.outcome, Outcome::Fail(_)) => {
                deletions.entry(name).or_default().push(at);
            }
            Op::Join { .. } => {
                let (subscribed, instance) =
                    subscriptions.get(&operation.process).copied().unwrap_or_default();
                group.joins.extend(joined(at, operation, subscribed, instance));
            }
            op => {
                if let Some(log) = op.log() {
                    group.registers.entry(log).or_default().take(at, operation);
                }
            }
        }
    }
    take_moves(history, &mut groups);
    for (name, group) in &mut groups {
        group.finish(history, deletions.remove(name).unwrap_or_default(), promise);
    }
    groups
}

fn take_moves<'a>(history: &'a History, groups: &mut BTreeMap<&'a str, Group<'a>>) {
    let mut groups_of: HashMap<ProcessId, BTreeSet<&str>> = HashMap::new();
    for (name, group) in groups.iter() {
        for join in &group.joins {
            groups_of.entry(join.process).or_default().insert(name);
        }
    }
    for (at, operation) in (0..).zip(history.operations()) {
        let moves = matches!(
            operation.op,
            Op::Poll { .. }
                | Op::Seek { .. }
                | Op::Release { .. }
                | Op::Assign { .. }
                | Op::Subscribe { .. }
                | Op::Crash
        );
        for name in groups_of.get(&operation.process).filter(|_| moves).into_iter().flatten() {
            groups.entry(name).or_default().moves.push(at);
        }
    }
}

fn joined<'a>(
    by: OpAt,
    operation: &'a Operation,
    subscribed: usize,
    instance: Option<&'a str>,
) -> Option<Joined<'a>> {
    let Outcome::Ok(Done::Joined { member, assigned, kept }) = &operation.outcome else { return None };
    let (process, told) = (operation.process, operation.completed_at?);
    Some(Joined { by, process, told, subscribed, instance, member, assigned, kept, lives: true })
}

impl<'a> Register<'a> {
    fn take(&mut self, at: OpAt, operation: &'a Operation) {
        match &operation.op {
            Op::Commit { offset, member, .. } => {
                self.write(at, operation, Some(*offset), member.as_ref());
            }
            Op::ResetOffset { to, .. } => self.write(at, operation, Some(*to), None),
            Op::DeleteOffset { .. } => self.write(at, operation, None, None),
            Op::FetchOffset { .. } => {
                if let (Outcome::Ok(Done::Offset { offset }), Some(until)) =
                    (&operation.outcome, operation.completed_at)
                {
                    let (from, value) = (operation.invoked_at, *offset);
                    self.fetches.push(Fetch { by: at, from, until, value });
                }
            }
            _ => {}
        }
    }

    fn write(&mut self, by: OpAt, operation: &Operation, value: Option<i64>, member: Option<&'a Member>) {
        let sure_by = match operation.outcome {
            Outcome::Ok(_) => operation.completed_at,
            Outcome::Unknown(_) => None,
            Outcome::Fail(_) => return,
        };
        let (from, until) = (operation.invoked_at, sure_by.unwrap_or(usize::MAX));
        self.writes.push(Write { by, value, from, until, sure_by, member });
    }
}

impl Write<'_> {
    /// Whether the coordinator should have refused it, whenever it came.
    pub(super) fn is_too_late(&self) -> bool {
        self.until < self.from
    }
}

impl<'a> Group<'a> {
    fn subscribe(&mut self, topics: BTreeSet<&'a str>) {
        match &mut self.topics {
            None => self.topics = Some(topics),
            Some(all) => all.retain(|topic| topics.contains(topic)),
        }
    }

    fn finish(&mut self, history: &History, deletions: Vec<OpAt>, promise: &Promise) {
        self.joins.sort_by_key(|join| join.told);
        if promise.groups_expire || !deletions.is_empty() {
            let last = self.last_commits();
            for join in &mut self.joins {
                join.lives = last.get(&*join.member.id).is_some_and(|last| join.told <= *last);
            }
            self.lives = Lives::Spans(self.spans(&last));
        }
        self.generations = self.told_generations();
        self.replaced = self.replacements();
        let operations = history.operations();
        for register in self.registers.values_mut() {
            for &at in &deletions {
                register.write(at, &operations[at as usize], None, None);
            }
            register.writes.sort_by_key(|write| write.from);
        }
        let mut registers = std::mem::take(&mut self.registers);
        for write in registers.values_mut().flat_map(|register| &mut register.writes) {
            if promise.commit_retries {
                write.until = usize::MAX;
            }
            if let Some((over, _)) = self.over(write) {
                write.until = write.until.min(over);
            }
        }
        self.registers = registers;
    }

    /// When each member asked for its last commit that was taken.
    fn last_commits(&self) -> HashMap<&'a str, usize> {
        let mut last = HashMap::new();
        for write in self.registers.values().flat_map(|register| &register.writes) {
            if let (Some(_), Some(member)) = (write.sure_by, write.member) {
                let last = last.entry(&*member.id).or_insert(write.from);
                *last = write.from.max(*last);
            }
        }
        last
    }

    /// Each member's time in the group, from an assignment to its last commit that was taken, put together where they
    /// overlap.
    fn spans(&self, last: &HashMap<&str, usize>) -> Vec<(usize, usize)> {
        let living = self.joins.iter().filter(|join| join.lives);
        let times = living.filter_map(|join| Some((join.told, *last.get(&*join.member.id)?)));
        let mut spans: Vec<(usize, usize)> = Vec::new();
        for (from, until) in times {
            match spans.last_mut() {
                Some(last) if from <= last.1 => last.1 = last.1.max(until),
                _ => spans.push((from, until)),
            }
        }
        spans
    }

    fn told_generations(&self) -> Vec<Vec<Told>> {
        let mut lives: Vec<Vec<Told>> = Vec::new();
        for join in self.joins.iter().filter(|join| join.lives) {
            let Some(life) = self.lives.at(join.told) else { continue };
            lives.resize_with(lives.len().max(life + 1), Vec::new);
            lives[life].push(Told { generation: join.member.generation, first: join.told, by: join.by });
        }
        for told in &mut lives {
            told.sort_by_key(|told| (told.generation, told.first));
            told.dedup_by_key(|told| told.generation);
            for at in (1..told.len()).rev() {
                if told[at].first < told[at - 1].first {
                    (told[at - 1].first, told[at - 1].by) = (told[at].first, told[at].by);
                }
            }
        }
        lives
    }

    /// A process that takes over an instance id fences the member that held it before it subscribed.
    fn replacements(&self) -> HashMap<&'a str, (usize, OpAt)> {
        let mut replaced = HashMap::new();
        let mut holders: BTreeMap<&str, Vec<&Joined<'a>>> = BTreeMap::new();
        for join in &self.joins {
            let Some(instance) = join.instance else { continue };
            let holders = holders.entry(instance).or_default();
            if holders.iter().any(|held| held.member.id == join.member.id) {
                continue;
            }
            let before = |held: &&Joined<'a>| held.process != join.process && held.told < join.subscribed;
            for old in holders.iter().copied().filter(before) {
                replaced.insert(&*old.member.id, (join.told, join.by));
            }
            holders.retain(|held| !before(held));
            holders.push(join);
        }
        replaced
    }

    /// From which moment on this commit must be refused, as far as the members know, and the operation that told.
    pub(super) fn over(&self, write: &Write<'_>) -> Option<(usize, OpAt)> {
        let member = write.member?;
        let replaced = self.replaced.get(&*member.id).copied();
        let later = self.lives.at(write.from).and_then(|life| {
            let told = self.generations.get(life)?;
            let at = told.partition_point(|told| told.generation <= member.generation);
            told.get(at).map(|told| (told.first, told.by))
        });
        replaced.into_iter().chain(later).min()
    }

    /// Whether the group certainly was not removed between these moments.
    pub(super) fn lives_through(&self, from: usize, until: usize) -> bool {
        match &self.lives {
            Lives::Whole => true,
            Lives::Spans(_) => self.lives.at(from).is_some_and(|life| self.lives.at(until) == Some(life)),
        }
    }

    /// Whether every member subscribes to the topic: its offsets do not expire while the group lives.
    pub(super) fn subscribes_to(&self, topic: &str) -> bool {
        self.topics.as_ref().is_some_and(|topics| topics.contains(topic))
    }
}

impl Lives {
    /// The number of the life to which the moment belongs.
    fn at(&self, moment: usize) -> Option<usize> {
        match self {
            Lives::Whole => Some(0),
            Lives::Spans(spans) => {
                let at = spans.partition_point(|(from, _)| *from <= moment).checked_sub(1)?;
                (moment <= spans.get(at)?.1).then_some(at)
            }
        }
    }
}
