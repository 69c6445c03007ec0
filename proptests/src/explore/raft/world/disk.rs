//! A disk that forgets what was not synced.

use weir_protocol::raft::{Damage, Entry, HardState, Index, LogPosition, Snapshot, Term};

/// What a node's disk holds, and what of it would survive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Disk {
    pub(super) hard: HardState,
    pub(super) start: usize,
    pub(super) term_before_start: Term,
    pub(super) log: Vec<Entry>,
    /// An index.
    pub(super) durable_end: usize,
    /// A cut that is not durable, with the durable entries that it takes.
    pub(super) cut: Option<(Index, Vec<Entry>)>,
    pub(super) snapshot: Option<Snapshot>,
    pub(super) installing: Option<Snapshot>,
    /// What the next recovery finds to be lost.
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
        let mut voters = Vec::new();
        for (index, entry) in (self.start as Index..).zip(&self.log) {
            if terms.last().is_none_or(|(term, _)| *term < entry.term) {
                terms.push((entry.term, index));
            }
            voters.extend(entry.voters().map(|voters| (index, voters)));
        }
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

    pub(super) fn begin_at(&mut self, snapshot: &Snapshot) {
        self.log.clear();
        (self.start, self.term_before_start) = (snapshot.at.end as usize, snapshot.at.term);
        self.durable_end = self.start;
    }
}
