//! Which operations of a simulated disk go wrong, and how.

use crate::simulated::draw::Draw;

/// What goes wrong with an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultKind {
    /// A read fails with EIO.
    ReadError,
    /// A write fails with EIO; any part of it may have been written.
    WriteError,
    /// A sync, of a file or a folder, fails with EIO, and what was not synced stays so.
    SyncError,
    /// A sync fails with EIO and marks everything clean although part of it never reached the medium, as Linux does: the next
    /// sync "succeeds".
    SyncLost,
    /// A write reports success and does nothing: stale blocks stay where they were.
    LostWrite,
    /// A write reports success and goes to another place of the same file.
    MisdirectedWrite,
    /// A read returns what stands at another place of the same file.
    MisdirectedRead,
}

impl FaultKind {
    /// The name under which a strike is counted.
    pub fn name(self) -> &'static str {
        match self {
            FaultKind::ReadError => "fault.disk.read_error",
            FaultKind::WriteError => "fault.disk.write_error",
            FaultKind::SyncError => "fault.disk.sync_error",
            FaultKind::SyncLost => "fault.disk.sync_lost",
            FaultKind::LostWrite => "fault.disk.lost_write",
            FaultKind::MisdirectedWrite => "fault.disk.misdirected_write",
            FaultKind::MisdirectedRead => "fault.disk.misdirected_read",
        }
    }
}

/// Faults that a plan has in store: which operations, how often.
#[derive(Debug, Clone)]
pub struct FaultRule {
    /// What goes wrong.
    pub kind: FaultKind,
    /// On which files: a part of the path, in which `*` stands for anything; "" is every file.
    pub path: String,
    /// How many operations that match are let through first.
    pub skip: u64,
    /// How often it strikes at most; `None`: until the faults are cleared.
    pub times: Option<u64>,
    /// The probability for each operation that matches.
    pub probability: f64,
}

impl FaultRule {
    /// Strikes the next operation on such a file, once.
    pub fn once(kind: FaultKind, path: &str) -> Self {
        Self { kind, path: path.to_owned(), skip: 0, times: Some(1), probability: 1.0 }
    }

    /// Strikes the operation after `skip` others, once.
    pub fn after(kind: FaultKind, path: &str, skip: u64) -> Self {
        Self { skip, ..Self::once(kind, path) }
    }

    /// Strikes every operation.
    pub fn always(kind: FaultKind, path: &str) -> Self {
        Self { times: None, ..Self::once(kind, path) }
    }

    /// Strikes each operation with this probability.
    pub fn sometimes(kind: FaultKind, path: &str, probability: f64) -> Self {
        Self { probability, ..Self::always(kind, path) }
    }
}

/// The rules in force on one disk.
#[derive(Debug, Default)]
pub(super) struct Faults {
    rules: Vec<FaultRule>,
}

impl Faults {
    pub(super) fn add(&mut self, rule: FaultRule) {
        self.rules.push(rule);
    }

    pub(super) fn clear(&mut self) {
        self.rules.clear();
    }

    /// The first of `kinds` that strikes an operation on this file.
    pub(super) fn strike(&mut self, kinds: &[FaultKind], path: &str, draw: &mut Draw) -> Option<FaultKind> {
        let mut struck = None;
        for rule in &mut self.rules {
            if struck.is_some() || !kinds.contains(&rule.kind) || !matches(&rule.path, path) {
                continue;
            }
            if rule.skip > 0 {
                rule.skip -= 1;
                continue;
            }
            if !draw.chance(rule.probability) {
                continue;
            }
            if let Some(times) = &mut rule.times {
                *times = times.saturating_sub(1);
            }
            struck = Some(rule.kind);
        }
        self.rules.retain(|rule| rule.times != Some(0));
        struck
    }
}

/// Whether `path` contains the parts of `pattern`, which `*` separates, one after the other.
pub(super) fn matches(pattern: &str, path: &str) -> bool {
    let mut rest = path;
    for part in pattern.split('*') {
        match rest.find(part) {
            Some(position) => rest = &rest[position + part.len()..],
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strikes(rule: FaultRule, paths: &[&str]) -> Vec<bool> {
        let mut faults = Faults::default();
        let mut draw = Draw::new(1);
        let kind = rule.kind;
        faults.add(rule);
        paths.iter().map(|path| faults.strike(&[kind], path, &mut draw).is_some()).collect()
    }

    #[test]
    fn a_rule_strikes_the_nth_operation_on_its_files_only() {
        let rule = FaultRule::after(FaultKind::SyncError, "journal/", 1);
        let struck = strikes(rule, &["journal/1", "data/1", "journal/1", "journal/1"]);
        assert_eq!(struck, [false, false, true, false]);
    }

    #[test]
    fn a_rule_without_an_end_goes_on() {
        assert_eq!(strikes(FaultRule::always(FaultKind::ReadError, ""), &["a", "b", "c"]), [true; 3]);
    }

    #[test]
    fn a_probability_strikes_some_and_not_others() {
        let struck = strikes(FaultRule::sometimes(FaultKind::ReadError, "", 0.5), &["a"; 100]);
        let count = struck.iter().filter(|struck| **struck).count();
        assert!((25..75).contains(&count), "{count}");
    }

    #[test]
    fn a_rule_of_another_kind_keeps_its_count() {
        let mut faults = Faults::default();
        let mut draw = Draw::new(1);
        faults.add(FaultRule::once(FaultKind::WriteError, ""));
        assert_eq!(faults.strike(&[FaultKind::ReadError], "a", &mut draw), None);
        assert_eq!(faults.strike(&[FaultKind::WriteError], "a", &mut draw), Some(FaultKind::WriteError));
    }

    #[test]
    fn a_pattern_is_a_part_of_the_path_with_gaps() {
        assert!(matches("", "a/b"));
        assert!(matches("journal", "data/journal/3"));
        assert!(matches("topics/*.log", "data/topics/7/000.log"));
        assert!(!matches("topics/*.log", "data/topics/7/000.idx"));
    }
}
