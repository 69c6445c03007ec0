//! What the core knows of its log: where each term begins, how far it is durable, and the newest entries.

use std::collections::VecDeque;

use super::interface::LogPosition;
use super::message::{Entry, Index, SnapshotPoint, Term};
use super::voters::Voters;

/// The log as the core sees it. Its content lives in storage.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct LogView {
    start: Index,
    term_before_start: Term,
    /// Invariant: `start <= end`.
    end: Index,
    /// Invariant: `start <= durable_end <= end`.
    durable_end: Index,
    /// Each term with its first index. Invariant: both grow; indexes lie in `start..end`.
    terms: Vec<(Term, Index)>,
    /// Voters, with the end of the shortest log in which they are the voters. The first were there before the log's
    /// start or before the first change. Invariant: not empty, the ends grow and are `<= end`.
    voters: Vec<(Index, Voters)>,
    /// Invariant: the last entries of the log, up to `end`.
    cache: VecDeque<Entry>,
    /// Invariant: the bytes in `cache`.
    cache_bytes: usize,
    cache_bytes_max: usize,
    /// A cut that is not durable yet. Invariant: nothing is appended meanwhile, so that what storage reports about the
    /// old tail cannot be taken for the new one.
    cutting: Option<Index>,
}

impl LogView {
    /// A recovered log, with the voters before its changes of voters.
    pub(super) fn new(mut position: LogPosition, voters: (Index, Voters), cache_bytes_max: usize) -> LogView {
        // Storage may know of a term that begins at the end: it has no entry yet.
        position.terms.retain(|(_, first)| *first < position.end);
        let changes = position.voters.into_iter().map(|(index, voters)| (index + 1, voters));
        let later = changes.filter(|(end, _)| voters.0 < *end && *end <= position.end).collect::<Vec<_>>();
        LogView {
            start: position.start,
            term_before_start: position.term_before_start,
            end: position.end,
            durable_end: position.end,
            terms: position.terms,
            voters: [voters].into_iter().chain(later).collect(),
            cache: VecDeque::new(),
            cache_bytes: 0,
            cache_bytes_max,
            cutting: None,
        }
    }

    pub(super) fn start(&self) -> Index {
        self.start
    }

    pub(super) fn end(&self) -> Index {
        self.end
    }

    pub(super) fn durable_end(&self) -> Index {
        self.durable_end
    }

    pub(super) fn is_cutting(&self) -> bool {
        self.cutting.is_some()
    }

    /// The term of the last entry; 0 if there never was one.
    pub(super) fn last_term(&self) -> Term {
        self.terms.last().map_or(self.term_before_start, |(term, _)| *term)
    }

    /// The term of the entry before `index`, or `None` if the log does not know it.
    pub(super) fn term_before(&self, index: Index) -> Option<Term> {
        if index < self.start || index > self.end {
            return None;
        }
        let following = self.terms.partition_point(|(_, first)| *first < index);
        Some(following.checked_sub(1).map_or(self.term_before_start, |at| self.terms[at].0))
    }

    /// The largest term in the log that is not larger than `term`, and where it ends. Below all terms: the start.
    pub(super) fn end_of(&self, term: Term) -> (Term, Index) {
        let following = self.terms.partition_point(|(other, _)| *other <= term);
        let end = self.terms.get(following).map_or(self.end, |(_, first)| *first);
        let found = following.checked_sub(1).map_or(self.term_before_start, |at| self.terms[at].0);
        (found, end)
    }

    /// Whether a log that ends so holds at least everything that may be committed here (§5.4.1).
    pub(super) fn is_covered_by(&self, last_term: Term, end: Index) -> bool {
        (last_term, end) >= (self.last_term(), self.end)
    }

    /// The voters of this log: those of its newest change, committed or not (thesis §4.1).
    pub(super) fn voters(&self) -> &Voters {
        &self.voters[self.voters.len() - 1].1
    }

    /// The end of the shortest log with these voters: they are certain once the commit has reached it.
    pub(super) fn voters_end(&self) -> Index {
        self.voters[self.voters.len() - 1].0
    }

    /// The voters before [`LogView::voters`].
    pub(super) fn former_voters(&self) -> Option<&Voters> {
        self.voters.len().checked_sub(2).map(|at| &self.voters[at].1)
    }

    /// What a snapshot of all entries below `end` says of itself; `None` outside the log.
    pub(super) fn point(&self, end: Index) -> Option<SnapshotPoint> {
        let term = self.term_before(end)?;
        let known = self.voters.partition_point(|(at, _)| *at <= end).checked_sub(1)?;
        Some(SnapshotPoint { end, term, voters: self.voters[known].1.clone() })
    }

    /// Drops the entries below `to`.
    pub(super) fn compact(&mut self, to: Index) {
        let Some(term_before_start) = self.term_before(to) else { return };
        // The term that goes on at the new start, if one does, begins there.
        let gone = self.terms.partition_point(|(_, first)| *first <= to);
        if let Some(last) = gone.checked_sub(1).filter(|_| to < self.end) {
            self.terms[last].1 = to;
            self.terms.drain(..last);
        } else {
            self.terms.drain(..gone);
        }
        let older = self.voters.partition_point(|(at, _)| *at <= to).saturating_sub(1);
        self.voters.drain(..older);
        (self.start, self.term_before_start) = (to, term_before_start);
        while self.cache.len() as Index > self.end - self.start {
            let Some(oldest) = self.cache.pop_front() else { break };
            self.cache_bytes -= oldest.size_bytes();
        }
    }

    /// A snapshot takes the place of all entries.
    pub(super) fn reset(&mut self, at: &SnapshotPoint) {
        (self.start, self.end, self.durable_end) = (at.end, at.end, at.end);
        self.term_before_start = at.term;
        self.terms.clear();
        self.voters = vec![(at.end, at.voters.clone())];
        self.cache.clear();
        self.cache_bytes = 0;
        self.cutting = None;
    }

    pub(super) fn append(&mut self, entries: &[Entry]) {
        for entry in entries {
            if entry.term > self.last_term() {
                self.terms.push((entry.term, self.end));
            }
            self.end += 1;
            self.voters.extend(entry.voters().map(|voters| (self.end, voters)));
            self.cache_bytes += entry.size_bytes();
            self.cache.push_back(entry.clone());
        }
        while self.cache_bytes > self.cache_bytes_max {
            let Some(oldest) = self.cache.pop_front() else { break };
            self.cache_bytes -= oldest.size_bytes();
        }
    }

    /// Begins a cut that storage has yet to make durable.
    pub(super) fn begin_cut(&mut self, to: Index) {
        self.forget_from(to);
        self.cutting = Some(to);
    }

    /// Returns whether the cut was awaited.
    pub(super) fn finish_cut(&mut self, to: Index) -> bool {
        let awaited = self.cutting == Some(to);
        if awaited {
            self.cutting = None;
        }
        awaited
    }

    /// Everything from `to` on is gone.
    pub(super) fn forget_from(&mut self, to: Index) {
        while self.end > to {
            self.end -= 1;
            if let Some(entry) = self.cache.pop_back() {
                self.cache_bytes -= entry.size_bytes();
            }
        }
        self.terms.truncate(self.terms.partition_point(|(_, first)| *first < to));
        let kept = self.voters.partition_point(|(end, _)| *end <= to);
        self.voters.truncate(kept.max(1));
        self.durable_end = self.durable_end.min(self.end);
    }

    /// While a cut is under way a report may still mean the old tail: it counts up to the cut only.
    pub(super) fn note_durable(&mut self, end: Index) {
        let credible = self.cutting.unwrap_or(self.end).min(self.end);
        self.durable_end = self.durable_end.max(end.min(credible));
    }

    /// Entries from `from` on, at least one and about `bytes_max`; `None` if they are no longer in memory.
    pub(super) fn cached(&self, from: Index, bytes_max: usize) -> Option<Vec<Entry>> {
        let behind = usize::try_from(self.end.checked_sub(from)?).ok()?;
        let first = self.cache.len().checked_sub(behind)?;
        Some(take_bytes(self.cache.range(first..).cloned(), bytes_max))
    }

    pub(super) fn invariants(&self) -> Result<(), String> {
        let law = |holds: bool, what: &str| if holds { Ok(()) } else { Err(format!("{what}: {self:?}")) };
        law(self.start <= self.durable_end, "log start <= durable end")?;
        law(self.durable_end <= self.end, "durable end <= log end")?;
        law(self.terms.is_sorted_by(|a, b| a.0 < b.0 && a.1 < b.1), "terms and their first indexes grow")?;
        law(
            self.terms.iter().all(|(_, first)| self.start <= *first && *first < self.end),
            "terms have entries",
        )?;
        law(
            self.voters.is_sorted_by(|a, b| a.0 < b.0)
                && self.voters.last().is_some_and(|(at, _)| *at <= self.end),
            "voters have entries",
        )?;
        law(self.cache.len() as i64 <= self.end - self.start, "the cache holds entries of the log")?;
        let bytes: usize = self.cache.iter().map(Entry::size_bytes).sum();
        law(bytes == self.cache_bytes && bytes <= self.cache_bytes_max, "the cache is bounded")
    }
}

/// The first of `entries`, and as many more as fit into `bytes_max`.
pub(super) fn take_bytes(entries: impl Iterator<Item = Entry>, bytes_max: usize) -> Vec<Entry> {
    let mut taken = Vec::new();
    let mut bytes = 0;
    for entry in entries {
        bytes += entry.size_bytes();
        if bytes > bytes_max && !taken.is_empty() {
            break;
        }
        taken.push(entry);
    }
    taken
}
