//! Replication (§5.3): what each follower gets next, and what it has said.

use std::time::Duration;

use super::interface::{Complaint, Effect};
use super::log::take_bytes;
use super::message::{Append, AppendOutcome, Entry, Index, Message, Term, Voice};
use super::progress::Progress;
use super::{Raft, Role};
use crate::types::VoterId;

impl Raft {
    /// Shows everyone that this node leads, how far the commit is, and sends again what was lost.
    pub(super) fn send_heartbeats(&mut self, effects: &mut Vec<Effect>) {
        for follower in self.followers() {
            if !self.send_entries(follower, effects) {
                self.send_append(follower, Vec::new(), effects);
            }
        }
    }

    /// Sends what the follower lacks, unless that is under way. Returns whether it sent a message.
    pub(super) fn send_entries(&mut self, to: VoterId, effects: &mut Vec<Effect>) -> bool {
        let (now, term, bytes_max) = (self.now, self.hard.term, self.limits.append_bytes_max);
        let resend_at = now + 2 * self.timing.heartbeat;
        let (log_start, log_end) = (self.log.start(), self.log.end());
        let Some(progress) = self.progress(to) else { return false };
        let under_way = progress.is_under_way(now);
        let from = progress.next;
        if under_way || from >= log_end {
            return false;
        }
        progress.resend_at = Some(resend_at);
        if from < log_start {
            self.read_snapshot(to, effects);
            return false;
        }
        match self.log.cached(from, bytes_max) {
            Some(entries) => {
                self.send_append(to, entries, effects);
                true
            }
            None => {
                effects.push(Effect::ReadEntries { to, term, from, bytes_max });
                false
            }
        }
    }

    pub(super) fn on_entries_read(
        &mut self,
        to: VoterId,
        term: Term,
        from: Index,
        entries: Vec<Entry>,
        effects: &mut Vec<Effect>,
    ) {
        let bytes_max = self.limits.append_bytes_max;
        let behind = usize::try_from(self.log.end() - from).unwrap_or_default();
        // What was dropped while it was read has no term before it any more: the follower gets the snapshot.
        let current = term == self.hard.term && from >= self.log.start();
        match self.progress(to) {
            Some(progress) if current && progress.next == from && !entries.is_empty() => {
                let entries = take_bytes(entries.into_iter().take(behind), bytes_max);
                self.send_append(to, entries, effects);
            }
            _ => {}
        }
    }

    fn send_append(&self, to: VoterId, entries: Vec<Entry>, effects: &mut Vec<Effect>) {
        let Role::Leader(leading) = &self.role else { return };
        let Some(progress) = leading.followers.get(&to) else { return };
        // A follower that lags behind the log's start needs the snapshot; until then this only shows that we lead.
        let base = progress.next.max(self.log.start());
        let Some(previous_term) = self.log.term_before(base) else { return };
        let append = Append {
            term: self.hard.term,
            base,
            previous_term,
            entries,
            commit: self.commit,
            round: leading.round,
            recovery: progress.recovery,
        };
        self.send(to, Message::Append(append), effects);
    }

    pub(super) fn on_append_answer(
        &mut self,
        from: VoterId,
        term: Term,
        answer: (u64, AppendOutcome, Voice),
        effects: &mut Vec<Effect>,
    ) {
        let (round, outcome, voice) = answer;
        let Some(follower) = self.follower(from) else { return };
        let (now, log_end, log_start) = (self.now, self.log.end(), self.log.start());
        if term != self.hard.term {
            return;
        }
        let offered_end = match outcome {
            AppendOutcome::Diverged { term, end } => match self.log.end_of(term) {
                // They agree somewhere before this log's start.
                (found, _) if found > term => log_start - 1,
                (_, own_end) => own_end.min(end),
            },
            _ => 0,
        };
        let Role::Leader(leading) = &mut self.role else { return };
        let newest_round = leading.round;
        // With an entry of its own term committed, a leader's log holds all that is.
        let all_committed = (self.commit > leading.first).then_some(log_end);
        let Some(progress) = leading.followers.get_mut(&follower) else { return };
        let confirmed = progress.hear(voice, now, round.min(newest_round), all_committed);
        match outcome {
            AppendOutcome::Accepted { matched_end, durable_end } => {
                if matched_end > log_end || durable_end > matched_end {
                    effects.push(Effect::Complain { about: from, what: Complaint::Nonsense });
                    return;
                }
                let counted_end = if voice == Voice::Whole { durable_end } else { 0 };
                progress.accept(matched_end, counted_end, log_start);
                self.advance_commit(effects);
            }
            AppendOutcome::Diverged { .. } => progress.diverge(offered_end),
            AppendOutcome::Busy => progress.busy = true,
            AppendOutcome::Receiving { end, received } => progress.receive(end, received),
        }
        self.finish_reads(effects);
        let sent = self.send_entries(follower, effects);
        // It waits for this before it can go on.
        if !sent && confirmed {
            self.send_append(follower, Vec::new(), effects);
        }
        self.name_successor(false, effects);
    }

    /// Everyone who gets the log from this node, if it leads.
    pub(super) fn followers(&self) -> Vec<VoterId> {
        match &self.role {
            Role::Leader(leading) => leading.followers.keys().copied().collect(),
            _ => Vec::new(),
        }
    }

    /// Everyone who gets the log from this node, if it leads: how far it is known to hold it durably, and when it was
    /// heard last.
    pub fn reached(&self) -> Vec<(VoterId, Index, Duration)> {
        let Role::Leader(leading) = &self.role else { return Vec::new() };
        leading.followers.iter().map(|(id, of)| (*id, of.durable_end, of.heard)).collect()
    }

    /// The follower that `id` is, if it is one.
    fn follower(&self, id: VoterId) -> Option<VoterId> {
        self.followers().into_iter().find(|follower| Raft::is_same(*follower, id))
    }

    pub(super) fn progress(&mut self, of: VoterId) -> Option<&mut Progress> {
        match &mut self.role {
            Role::Leader(leading) => leading.followers.get_mut(&of),
            _ => None,
        }
    }
}
