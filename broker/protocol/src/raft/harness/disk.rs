//! A disk that forgets what was not synced.

use std::collections::VecDeque;

use super::super::{Damage, Entry, HardState, HardStateSeq, Index, LogPosition, Snapshot, Term};

/// What a node's disk holds, and what of it would survive.
#[derive(Default)]
pub(super) struct Disk {
    pub(super) hard: HardState,
    pub(super) hard_unsynced: VecDeque<(HardStateSeq, HardState)>,
    /// The index of the log's first entry.
    pub(super) start: usize,
    pub(super) term_before_start: Term,
    pub(super) log: Vec<Entry>,
    /// An index, as in the core.
    pub(super) durable_end: usize,
    /// A cut that is not synced, and the durable log as it was before it.
    pub(super) cut: Option<(Index, Vec<Entry>)>,
    /// The newest snapshot, with the entries that made its state.
    pub(super) snapshot: Option<(Snapshot, Vec<Entry>)>,
    /// A snapshot that is arriving, and how much of it is there.
    pub(super) arriving: Option<(Snapshot, u64)>,
    pub(super) installing: bool,
    /// A reset of the log that is not reported yet.
    pub(super) reset: Option<Index>,
    /// Durable entries that are damaged: the log as recovery can read it ends before them.
    pub(super) damage: Option<Damage>,
}

impl Disk {
    pub(super) fn end(&self) -> usize {
        self.start + self.log.len()
    }

    pub(super) fn get(&self, index: usize) -> Option<&Entry> {
        self.log.get(index.checked_sub(self.start)?)
    }

    pub(super) fn truncate(&mut self, to: usize) {
        self.log.truncate(to - self.start);
        self.durable_end = self.durable_end.min(to);
    }

    pub(super) fn position(&self) -> LogPosition {
        let mut terms: Vec<(Term, Index)> = Vec::new();
        for (index, entry) in (self.start as Index..).zip(&self.log) {
            if terms.last().is_none_or(|(term, _)| *term < entry.term) {
                terms.push((entry.term, index));
            }
        }
        let changes = (self.start as Index..).zip(&self.log);
        let voters = changes.filter_map(|(index, entry)| Some((index, entry.voters()?))).collect();
        let (start, end) = (self.start as Index, self.end() as Index);
        LogPosition { start, term_before_start: self.term_before_start, end, terms, voters }
    }

    pub(super) fn drop_below(&mut self, to: usize) {
        if to > self.start {
            let gone = self.log.drain(..to - self.start).next_back();
            self.term_before_start = gone.map_or(0, |entry| entry.term);
            self.start = to;
        }
    }

    /// The snapshot takes the log's place; `log_too` is false if power fails in between.
    pub(super) fn install(&mut self, snapshot: Snapshot, made_by: &[Entry], log_too: bool) {
        if log_too {
            self.log.clear();
            self.start = snapshot.at.end as usize;
            self.durable_end = self.start;
            self.term_before_start = snapshot.at.term;
        }
        self.snapshot = Some((snapshot, made_by.to_vec()));
        (self.arriving, self.installing) = (None, false);
    }
}
