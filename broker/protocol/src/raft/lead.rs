//! Leading: replication (§5.3), the commit rule (§5.4.2), reads (§8), and resigning when alone.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use weir_defect::defect;

use super::interface::{Complaint, Effect, ProposalId, ReadId, Refusal};
use super::log::take_bytes;
use super::message::{Append, AppendOutcome, Entry, EntryKind, Index, Message, Term};
use super::{Raft, Role};
use crate::types::VoterId;

/// What a leader knows about one follower.
#[derive(Debug)]
struct Progress {
    /// The next entry to send. Invariant: `durable_end <= next <=` the leader's log end.
    next: Index,
    /// Known to be the same as the leader's, and synced.
    durable_end: Index,
    /// Entries from `next` on are under way, or are being read from the disk: sent again after this time.
    resend_at: Option<Duration>,
    /// The follower has said that it is busy.
    busy: bool,
    /// When it was heard last.
    heard: Duration,
    /// The newest round that it has answered.
    round: u64,
}

/// A read that waits for a majority to confirm that this node still leads.
#[derive(Clone, Copy, Debug)]
struct PendingRead {
    id: ReadId,
    /// The round that must be answered, and the commit when it began; `None` until an entry of the term is committed.
    begun: Option<(u64, Index)>,
}

/// One term as its leader.
#[derive(Debug)]
pub(super) struct Leading {
    /// The other voters.
    followers: BTreeMap<VoterId, Progress>,
    /// The index of this term's first entry. What was committed before is known once this one is.
    first: Index,
    heartbeat_at: Duration,
    /// When to look whether a majority was heard.
    quorum_check_at: Duration,
    /// Counts the rounds that reads have begun.
    round: u64,
    /// In the order of their rounds. Invariant: bounded by `Limits::reads_max`.
    reads: VecDeque<PendingRead>,
}

impl Leading {
    /// A sole voter has nobody to show itself to.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        let alone = self.followers.is_empty();
        if alone { None } else { Some(self.heartbeat_at.min(self.quorum_check_at)) }
    }

    pub(super) fn refuse_reads(&mut self, effects: &mut Vec<Effect>) {
        for read in self.reads.drain(..) {
            effects.push(Effect::ReadRefused { id: read.id, reason: Refusal::NotLeader(None) });
        }
    }

    pub(super) fn invariants(&self, raft: &Raft) -> Result<(), String> {
        for (id, follower) in &self.followers {
            let ordered = follower.durable_end <= follower.next && follower.next <= raft.log.end();
            if !ordered || follower.round > self.round {
                return Err(format!("{}: progress of {id}: {follower:?}", raft.me));
            }
        }
        if self.reads.len() > raft.limits.reads_max {
            return Err(format!("{}: {} reads", raft.me, self.reads.len()));
        }
        Ok(())
    }
}

impl Raft {
    pub(super) fn become_leader(&mut self, effects: &mut Vec<Effect>) {
        let first = self.log.end();
        let new = |id| {
            let progress = Progress {
                next: first,
                durable_end: 0,
                resend_at: None,
                busy: false,
                heard: self.now,
                round: 0,
            };
            (id, progress)
        };
        let leading = Leading {
            followers: self.peers().map(new).collect(),
            first,
            heartbeat_at: self.now + self.timing.heartbeat,
            quorum_check_at: self.now + self.timing.election_min,
            round: 0,
            reads: VecDeque::new(),
        };
        self.role = Role::Leader(Box::new(leading));
        self.leader = Some(self.me);
        effects.push(Effect::BecameLeader { term: self.hard.term });
        self.append_own(EntryKind::LeaderStart, Bytes::new(), effects);
    }

    fn append_own(&mut self, kind: EntryKind, payload: Bytes, effects: &mut Vec<Effect>) {
        let entries = vec![Entry { term: self.hard.term, kind, payload }];
        let first = self.log.end();
        self.log.append(&entries);
        self.matched_end = self.log.end();
        effects.push(Effect::AppendEntries { first, entries });
        for peer in self.peers().collect::<Vec<_>>() {
            self.send_entries(peer, effects);
        }
    }

    pub(super) fn on_propose(&mut self, id: ProposalId, payload: Bytes, effects: &mut Vec<Effect>) {
        let uncommitted = usize::try_from(self.log.end() - self.commit).unwrap_or(usize::MAX);
        let refusal = if !self.is_leader() {
            Some(Refusal::NotLeader(self.leader))
        } else if payload.len() > self.limits.entry_bytes_max {
            Some(Refusal::TooLarge)
        } else if uncommitted >= self.limits.uncommitted_max {
            Some(Refusal::Overloaded)
        } else {
            None
        };
        if let Some(reason) = refusal {
            effects.push(Effect::ProposalRefused { id, reason });
            return;
        }
        effects.push(Effect::ProposalAccepted { id, index: self.log.end(), term: self.hard.term });
        self.append_own(EntryKind::Command, payload, effects);
    }

    pub(super) fn on_leader_tick(&mut self, effects: &mut Vec<Effect>) {
        let (now, timing, quorum) = (self.now, self.timing, self.quorum());
        let Role::Leader(leading) = &mut self.role else { return };
        if leading.quorum_check_at <= now {
            leading.quorum_check_at = now + timing.election_min;
            let heard = |progress: &&Progress| now < progress.heard + timing.election_min;
            let reached = 1 + leading.followers.values().filter(heard).count();
            // Z46: a leader that is cut off serves stale answers for ever.
            if reached < quorum && !defect!(no_check_quorum) {
                self.become_follower(self.hard.term, None, effects);
                return;
            }
        }
        if leading.heartbeat_at <= now {
            leading.heartbeat_at = now + timing.heartbeat;
            self.send_heartbeats(effects);
        }
    }

    /// Shows everyone that this node leads, how far the commit is, and sends again what was lost.
    fn send_heartbeats(&mut self, effects: &mut Vec<Effect>) {
        for peer in self.peers().collect::<Vec<_>>() {
            if !self.send_entries(peer, effects) {
                self.send_append(peer, Vec::new(), effects);
            }
        }
    }

    /// Sends what the follower lacks, unless that is under way. Returns whether it sent a message.
    fn send_entries(&mut self, to: VoterId, effects: &mut Vec<Effect>) -> bool {
        let (now, term, bytes_max) = (self.now, self.hard.term, self.limits.append_bytes_max);
        let resend_at = now + 2 * self.timing.heartbeat;
        let (log_start, log_end) = (self.log.start(), self.log.end());
        let Some(progress) = self.progress(to) else { return false };
        let under_way = progress.resend_at.is_some_and(|at| now < at);
        let from = progress.next;
        if under_way || from >= log_end {
            return false;
        }
        progress.resend_at = Some(resend_at);
        if from < log_start {
            effects.push(Effect::SnapshotNeeded { to });
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
        let current = term == self.hard.term;
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
        };
        self.send(to, Message::Append(append), effects);
    }

    pub(super) fn on_append_answer(
        &mut self,
        from: VoterId,
        term: Term,
        round: u64,
        outcome: AppendOutcome,
        effects: &mut Vec<Effect>,
    ) {
        let Some(voter) = self.voter(from) else { return };
        let (now, log_end, log_start) = (self.now, self.log.end(), self.log.start());
        if term != self.hard.term {
            return;
        }
        let offered_end = match outcome {
            AppendOutcome::Diverged { term, end } => self.log.end_of(term).1.min(end),
            _ => 0,
        };
        let Role::Leader(leading) = &mut self.role else { return };
        let newest_round = leading.round;
        let Some(progress) = leading.followers.get_mut(&voter) else { return };
        progress.heard = now;
        progress.round = progress.round.max(round.min(newest_round));
        match outcome {
            AppendOutcome::Accepted { matched_end, durable_end } => {
                if matched_end > log_end || durable_end > matched_end {
                    effects.push(Effect::Complain { about: from, what: Complaint::Nonsense });
                    return;
                }
                if matched_end > progress.next || progress.busy {
                    progress.resend_at = None;
                }
                progress.busy = false;
                progress.next = progress.next.max(matched_end);
                progress.durable_end = progress.durable_end.max(durable_end);
                self.advance_commit(effects);
            }
            AppendOutcome::Diverged { .. } => {
                // What is durable there agrees: an answer that says less is an old one.
                progress.next =
                    offered_end.clamp(progress.durable_end.max(log_start).min(progress.next), progress.next);
                progress.resend_at = None;
                progress.busy = false;
            }
            AppendOutcome::Busy => progress.busy = true,
        }
        self.finish_reads(effects);
        self.send_entries(voter, effects);
    }

    /// §5.3 and §5.4.2: what is durable on a majority, and of the leader's own term, is committed with all before it.
    /// Nothing is committed here before it is durable here too, so that no restart goes back behind it.
    pub(super) fn advance_commit(&mut self, effects: &mut Vec<Effect>) {
        let quorum = self.quorum();
        let Role::Leader(leading) = &self.role else { return };
        let own = self.log.durable_end();
        let mut ends: Vec<Index> = leading.followers.values().map(|follower| follower.durable_end).collect();
        ends.push(own);
        ends.sort_unstable_by(|a, b| b.cmp(a));
        let end = ends[quorum - 1].min(own);
        // Z43: an entry of an older term may be on a majority and still be overwritten (figure 8).
        let own_term = self.log.term_before(end) == Some(self.hard.term) || defect!(commit_prior_term);
        if end > self.commit && own_term {
            self.raise_commit(end, effects);
            self.begin_reads(effects);
            // Followers apply what they hold without waiting for the next heartbeat.
            self.send_heartbeats(effects);
        }
    }

    pub(super) fn on_read(&mut self, id: ReadId, effects: &mut Vec<Effect>) {
        let (leader, reads_max) = (self.leader, self.limits.reads_max);
        let Role::Leader(leading) = &mut self.role else {
            effects.push(Effect::ReadRefused { id, reason: Refusal::NotLeader(leader) });
            return;
        };
        if leading.reads.len() >= reads_max {
            effects.push(Effect::ReadRefused { id, reason: Refusal::Overloaded });
            return;
        }
        leading.reads.push_back(PendingRead { id, begun: None });
        if self.begin_reads(effects) {
            self.send_heartbeats(effects);
        }
    }

    /// Gives reads that have not begun a round of their own. Returns whether there were any.
    fn begin_reads(&mut self, effects: &mut Vec<Effect>) -> bool {
        let commit = self.commit;
        let Role::Leader(leading) = &mut self.role else { return false };
        // §8: only an entry of its own term tells a leader what was committed before.
        if commit <= leading.first || leading.reads.iter().all(|read| read.begun.is_some()) {
            return false;
        }
        // Z44: an answer to an earlier round does not say that this node leads now.
        if !defect!(reuse_read_context) {
            leading.round += 1;
        }
        let round = leading.round;
        for read in leading.reads.iter_mut().filter(|read| read.begun.is_none()) {
            read.begun = Some((round, commit));
        }
        self.finish_reads(effects);
        true
    }

    fn finish_reads(&mut self, effects: &mut Vec<Effect>) {
        let quorum = self.quorum();
        let Role::Leader(leading) = &mut self.role else { return };
        let mut rounds: Vec<u64> = leading.followers.values().map(|follower| follower.round).collect();
        rounds.push(leading.round);
        rounds.sort_unstable_by(|a, b| b.cmp(a));
        let confirmed = rounds[quorum - 1];
        while let Some(PendingRead { id, begun: Some((round, commit)) }) = leading.reads.front().copied()
            && round <= confirmed
        {
            leading.reads.pop_front();
            effects.push(Effect::ReadReady { id, commit });
        }
    }

    fn progress(&mut self, of: VoterId) -> Option<&mut Progress> {
        match &mut self.role {
            Role::Leader(leading) => leading.followers.get_mut(&of),
            _ => None,
        }
    }
}
