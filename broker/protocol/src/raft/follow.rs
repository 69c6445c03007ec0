//! Following: taking entries in, and cutting what contradicts the leader (§5.3).

use super::interface::{Complaint, Effect};
use super::message::{Append, AppendOutcome, Entry, Index, Message, Term};
use super::{Raft, Role};
use crate::types::VoterId;

impl Raft {
    pub(super) fn on_append(&mut self, from: VoterId, append: Append, effects: &mut Vec<Effect>) {
        let round = append.round;
        if !self.hear_leader(from, append.term, round, effects) {
            return;
        }
        if !is_sensible(&append, self.hard.term) {
            effects.push(Effect::Complain { about: from, what: Complaint::Nonsense });
            return;
        }
        self.known_commit = self.known_commit.max(append.commit);
        self.note_recovery(append.recovery, effects);
        let outcome = self.take_in(from, append, effects);
        self.follow_commit(effects);
        self.answer_append(from, round, outcome, effects);
        self.finish_recovery(effects);
    }

    /// Follows who leads, and returns whether that is `from` in `term`.
    pub(super) fn hear_leader(
        &mut self,
        from: VoterId,
        term: Term,
        round: u64,
        effects: &mut Vec<Effect>,
    ) -> bool {
        if term < self.hard.term {
            // Tells a leader of old that its term is over.
            self.answer_append(from, round, AppendOutcome::Busy, effects);
            return false;
        }
        if term == self.hard.term && self.is_leader() {
            effects.push(Effect::Complain { about: from, what: Complaint::SecondLeader });
            return false;
        }
        self.leader_heard = self.now;
        self.become_follower(term, Some(from), effects);
        true
    }

    /// Appends what is new, or begins to cut what contradicts the leader.
    fn take_in(&mut self, from: VoterId, append: Append, effects: &mut Vec<Effect>) -> AppendOutcome {
        if self.is_log_busy() {
            return AppendOutcome::Busy;
        }
        let Append { base, previous_term, mut entries, .. } = append;
        let last = base + entries.len() as Index;
        if base < self.log.start() {
            // What lies below the start is committed, so it agrees; what is left may go on from there.
            let known = usize::try_from(self.log.start() - base).unwrap_or(usize::MAX).min(entries.len());
            entries.drain(..known);
            if entries.is_empty() {
                return self.accepted();
            }
        } else if self.log.term_before(base) != Some(previous_term) {
            let (term, end) = self.log.end_of(previous_term);
            return AppendOutcome::Diverged { term, end };
        }
        let first = last - entries.len() as Index;
        let agreeing = entries
            .iter()
            .zip(first + 1..)
            .take_while(|(entry, next)| self.log.term_before(*next) == Some(entry.term))
            .count();
        let conflict = first + agreeing as Index;
        let fresh = entries.split_off(agreeing);
        self.matched_end = self.matched_end.max(conflict);
        if fresh.is_empty() {
            return self.accepted();
        }
        if conflict < self.log.end() {
            if conflict < self.commit {
                effects.push(Effect::Complain { about: from, what: Complaint::ContradictsCommitted });
                return AppendOutcome::Busy;
            }
            self.matched_end = conflict;
            self.log.begin_cut(conflict);
            self.refresh_role();
            effects.push(Effect::TruncateLog { to: conflict });
            return AppendOutcome::Busy;
        }
        self.log.append(&fresh);
        self.matched_end = self.log.end();
        self.refresh_role();
        effects.push(Effect::AppendEntries { first: conflict, entries: fresh });
        self.accepted()
    }

    pub(super) fn on_truncated(&mut self, to: Index, effects: &mut Vec<Effect>) {
        if self.log.finish_cut(to) {
            self.report_progress(effects);
            self.finish_recovery(effects);
        }
    }

    pub(super) fn on_persisted(&mut self, end: Index, effects: &mut Vec<Effect>) {
        let before = self.log.durable_end();
        self.log.note_durable(end);
        if self.log.durable_end() == before {
            return;
        }
        if self.is_leader() {
            self.advance_commit(effects);
        } else {
            self.follow_commit(effects);
            self.report_progress(effects);
            self.finish_recovery(effects);
        }
    }

    /// What the leader has committed is committed here once it is known to be the same and is durable here too.
    pub(super) fn follow_commit(&mut self, effects: &mut Vec<Effect>) {
        self.raise_commit(self.known_commit.min(self.matched_end).min(self.log.durable_end()), effects);
    }

    /// A leader that lost entries of its own term may not give their indexes to others under that term.
    pub(super) fn on_append_failed(&mut self, from: Index, effects: &mut Vec<Effect>) {
        let from = from.max(self.log.durable_end());
        if from >= self.log.end() {
            return;
        }
        let leader = self.leader.filter(|leader| !self.is_me(*leader));
        self.become_follower(self.hard.term, leader, effects);
        self.log.forget_from(from);
        self.refresh_role();
        self.matched_end = self.matched_end.min(from);
    }

    pub(super) fn raise_commit(&mut self, end: Index, effects: &mut Vec<Effect>) {
        if end > self.commit {
            self.commit = end;
            self.refresh_role();
            effects.push(Effect::Commit { end });
        }
    }

    pub(super) fn accepted(&self) -> AppendOutcome {
        let durable_end = self.log.durable_end().min(self.matched_end);
        AppendOutcome::Accepted { matched_end: self.matched_end, durable_end }
    }

    /// Tells the leader at once what has become durable.
    pub(super) fn report_progress(&self, effects: &mut Vec<Effect>) {
        if matches!(self.role, Role::Follower { .. } | Role::Observer)
            && let Some(leader) = self.leader
        {
            // Round 0 confirms no read: nobody has asked.
            self.answer_append(leader, 0, self.accepted(), effects);
        }
    }

    pub(super) fn answer_append(
        &self,
        to: VoterId,
        round: u64,
        outcome: AppendOutcome,
        effects: &mut Vec<Effect>,
    ) {
        let voice = self.voice();
        let message = Message::AppendAnswer { term: self.hard.term, round, outcome, voice };
        self.send(to, message, effects);
    }
}

/// Whether a leader could say this: terms that do not shrink, none newer than its own, indexes that exist.
fn is_sensible(append: &Append, term: Term) -> bool {
    let terms = |entry: &Entry| entry.term;
    append.base >= 0
        && append.commit >= 0
        && append.previous_term >= 0
        && append.base.checked_add(append.entries.len() as Index).is_some()
        && append.entries.iter().map(terms).is_sorted()
        && append.entries.first().is_none_or(|entry| entry.term >= append.previous_term)
        && append.entries.last().is_none_or(|entry| entry.term <= term)
        && append.entries.iter().all(super::Entry::is_sensible)
}
