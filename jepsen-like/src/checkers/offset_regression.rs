//! `offset-regression`: a group's committed offset goes back without an order to.
//!
//! Two witnesses. A fetch is told an offset that had certainly been replaced, by a request that was asked after that
//! offset's had taken effect, and answered before the fetch began. Or a member commits an offset that lies before its
//! own last one, or before each that the group could have had when it was given the partition.
//!
//! Allowed are: what an administrator ordered (ResetOffset, DeleteOffset, DeleteGroup), a commit after a seek, any order
//! among requests that overlapped, and a commit of unknown outcome that takes effect late, though not after a later
//! generation was told of: the coordinator must refuse it then.

use std::collections::{BTreeMap, HashMap};

use super::Checker;
use super::groups::{Fetch, Group, Register};
use super::index::{Index, OpAt};
use super::tenures;
use super::verdict::{AnomalyKind, Findings};
use crate::history::Log;

pub(super) const CHECKER: Checker =
    Checker { kind: AnomalyKind::OffsetRegression, covers: |promise| promise.keeps_groups(), check };

fn check(index: &Index<'_>, findings: &mut Findings<'_>) {
    for (name, group) in &index.groups {
        for (log, register) in &group.registers {
            // With its topic a partition's offsets go.
            if !index.is_deleted(log) {
                Reads { index, name, group, log, register }.check(findings);
            }
        }
        for commit in tenures::walk(index, group).commits {
            findings.add(Some(commit.log), Some(commit.offset), &[commit.stood_by, commit.by], || {
                let (stood, offset) = (commit.stood, commit.offset);
                format!("group {name} stood at {stood} or later, and a member commits {offset}")
            });
        }
    }
}

/// The fetches of a group's offset in one partition, held against what set it.
struct Reads<'a> {
    index: &'a Index<'a>,
    name: &'a str,
    group: &'a Group<'a>,
    log: &'a Log,
    register: &'a Register<'a>,
}

/// A request that certainly took effect, and replaced whatever had taken effect before it was asked.
#[derive(Clone, Copy)]
struct Replacing {
    from: usize,
    by: OpAt,
}

/// What happens at a moment.
enum Step {
    /// A request has certainly taken effect.
    Sure(Replacing),
    /// The fetch of this number begins, or ends.
    Begin(usize),
    End(usize),
}

/// The requests for one value, by when they were asked.
#[derive(Default)]
struct Sources {
    from: Vec<usize>,
    /// For each, until when it or one before it may have taken effect.
    until: Vec<usize>,
}

impl Sources {
    /// Until when one that was asked before this moment may have taken effect.
    fn latest_before(&self, moment: usize) -> Option<usize> {
        let count = self.from.partition_point(|from| *from < moment);
        self.until.get(count.checked_sub(1)?).copied()
    }
}

impl Reads<'_> {
    fn check(&self, findings: &mut Findings<'_>) {
        let sources = self.sources();
        let mut last: Option<Replacing> = None;
        let mut last_at_begin: HashMap<usize, Replacing> = HashMap::new();
        let raise = |last: &mut Option<Replacing>, next: Replacing| {
            if last.is_none_or(|last| next.from > last.from) {
                *last = Some(next);
            }
        };
        for step in self.steps().into_values() {
            match step {
                Step::Sure(replacing) => raise(&mut last, replacing),
                Step::Begin(number) => {
                    last_at_begin.extend(last.map(|last| (number, last)));
                }
                Step::End(number) => {
                    let fetch = self.register.fetches[number];
                    let of_value = sources.get(&fetch.value);
                    if let Some(replacing) = last_at_begin.remove(&number)
                        && !self.is_allowed(fetch, of_value, replacing)
                    {
                        self.report(fetch, of_value, replacing, findings);
                    } else if let Some(&from) = of_value.and_then(|sources| sources.from.first()) {
                        // What was shown has taken effect.
                        raise(&mut last, Replacing { from, by: fetch.by });
                    }
                }
            }
        }
    }

    fn steps(&self) -> BTreeMap<usize, Step> {
        let mut steps = BTreeMap::new();
        for write in self.register.writes.iter().filter(|write| !write.is_too_late()) {
            let sure = write.sure_by;
            steps.extend(sure.map(|at| (at, Step::Sure(Replacing { from: write.from, by: write.by }))));
        }
        for (number, fetch) in self.register.fetches.iter().enumerate() {
            steps.insert(fetch.from, Step::Begin(number));
            steps.insert(fetch.until, Step::End(number));
        }
        steps
    }

    fn sources(&self) -> HashMap<Option<i64>, Sources> {
        let mut sources: HashMap<Option<i64>, Sources> = HashMap::new();
        for write in &self.register.writes {
            let of_value = sources.entry(write.value).or_default();
            of_value.from.push(write.from);
            let before = of_value.until.last().copied().unwrap_or_default();
            of_value.until.push(write.until.max(before));
        }
        sources
    }

    fn is_allowed(&self, fetch: Fetch, of_value: Option<&Sources>, replacing: Replacing) -> bool {
        let latest = of_value.and_then(|sources| sources.latest_before(fetch.until));
        match (fetch.value, latest) {
            (_, Some(until)) if until >= replacing.from => true,
            (Some(_), Some(_)) => false,
            // Nobody set it: that is another anomaly.
            (Some(_), None) => true,
            (None, _) => {
                let expires = self.index.promise.groups_expire;
                expires
                    && !(self.group.lives_through(replacing.from, fetch.until)
                        && self.group.subscribes_to(&self.log.topic))
            }
        }
    }

    fn report(
        &self,
        fetch: Fetch,
        of_value: Option<&Sources>,
        replacing: Replacing,
        findings: &mut Findings<'_>,
    ) {
        let set_by = of_value.and_then(|sources| {
            let at = sources.from.partition_point(|from| *from < fetch.until).checked_sub(1)?;
            let from = sources.from.get(at)?;
            let writes = &self.register.writes;
            writes.binary_search_by_key(from, |write| write.from).ok().map(|at| writes[at].by)
        });
        let proof: Vec<OpAt> = set_by.into_iter().chain([replacing.by, fetch.by]).collect();
        findings.add(Some(self.log), fetch.value, &proof, || {
            let name = self.name;
            match fetch.value {
                Some(value) => format!("group {name} is told to stand at {value} again, which was replaced"),
                None => format!("group {name} is told to stand nowhere, after a commit"),
            }
        });
    }
}
