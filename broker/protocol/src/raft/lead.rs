//! Leading: the log grows (§5.3), the commit rule (§5.4.2), and resigning when alone.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use weir_defect::defect;

use super::handover::HandOver;
use super::interface::{Effect, ProposalId, Refusal};
use super::message::{Entry, EntryKind, Index};
use super::progress::Progress;
use super::reads::PendingRead;
use super::{Raft, Role};
use crate::types::VoterId;

/// One term as its leader.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Leading {
    /// Everyone else who gets the log: voters, observers, and who voted before the last change until that is committed.
    pub(super) followers: BTreeMap<VoterId, Progress>,
    /// The index of this term's first entry. What was committed before is known once this one is.
    pub(super) first: Index,
    heartbeat_at: Duration,
    /// Set while this leader hands over.
    pub(super) hand_over: Option<HandOver>,
    /// When to look whether a majority was heard.
    quorum_check_at: Duration,
    /// Counts the rounds that reads have begun.
    pub(super) round: u64,
    /// In the order of their rounds. Invariant: bounded by `Limits::reads_max`.
    pub(super) reads: VecDeque<PendingRead>,
}

impl Leading {
    /// Who has nobody to show itself to needs no timer.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        let alone = self.followers.is_empty();
        let next = self.heartbeat_at.min(self.quorum_check_at);
        let next = self.hand_over.map_or(next, |hand_over| next.min(hand_over.until));
        if alone { None } else { Some(next) }
    }

    pub(super) fn invariants(&self, raft: &Raft) -> Result<(), String> {
        for (id, follower) in &self.followers {
            let ordered = follower.durable_end <= follower.next && follower.next <= raft.log.end();
            if !ordered || follower.round > self.round {
                return Err(format!("{}: progress of {id}: {follower:?}", raft.me));
            }
        }
        for voter in raft.peers() {
            if !self.followers.contains_key(&voter) {
                return Err(format!("{}: the voter {voter} does not get the log", raft.me));
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
        let leading = Leading {
            followers: BTreeMap::new(),
            first: self.log.end(),
            heartbeat_at: self.now + self.timing.heartbeat,
            hand_over: None,
            quorum_check_at: self.now + self.timing.election_min,
            round: 0,
            reads: VecDeque::new(),
        };
        self.role = Role::Leader(Box::new(leading));
        self.leader = Some(self.me);
        self.refresh_followers();
        effects.push(Effect::BecameLeader { term: self.hard.term });
        self.append_own(EntryKind::LeaderStart, Bytes::new(), effects);
    }

    pub(super) fn append_own(&mut self, kind: EntryKind, payload: Bytes, effects: &mut Vec<Effect>) {
        let entries = vec![Entry { term: self.hard.term, kind, payload }];
        let first = self.log.end();
        self.log.append(&entries);
        self.matched_end = self.log.end();
        self.refresh_followers();
        effects.push(Effect::AppendEntries { first, entries });
        for follower in self.followers() {
            self.send_entries(follower, effects);
        }
    }

    pub(super) fn on_propose(&mut self, id: ProposalId, payload: Bytes, effects: &mut Vec<Effect>) {
        let uncommitted = usize::try_from(self.log.end() - self.commit).unwrap_or(usize::MAX);
        let refusal = if !self.is_leader() {
            Some(Refusal::NotLeader(self.leader))
        } else if self.hands_over() {
            Some(Refusal::NotLeader(None))
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
        let (now, timing) = (self.now, self.timing);
        let Role::Leader(leading) = &mut self.role else { return };
        let checks = leading.quorum_check_at <= now;
        let shows = leading.heartbeat_at <= now;
        let gives_up = leading.hand_over.is_some_and(|hand_over| hand_over.until <= now);
        if checks {
            leading.quorum_check_at = now + timing.election_min;
        }
        if shows {
            leading.heartbeat_at = now + timing.heartbeat;
        }
        // Z46: a leader that is cut off serves stale answers for ever.
        if gives_up || checks && !self.hears_a_majority() && !defect!(no_check_quorum) {
            self.become_follower(self.hard.term, None, effects);
        } else if shows {
            self.send_heartbeats(effects);
            self.name_successor(true, effects);
        }
    }

    fn hears_a_majority(&self) -> bool {
        let (now, silence_max) = (self.now, self.timing.election_min);
        let heard = self.of_voters(now, Duration::ZERO, |progress| progress.heard);
        let reached = heard.iter().filter(|heard| now <= **heard + silence_max).count();
        reached >= self.majority()
    }

    /// What is known of each voter: of this node, of its followers, and of those that nothing is known of.
    pub(super) fn of_voters<T>(&self, own: T, unknown: T, of: impl Fn(&Progress) -> T) -> Vec<T>
    where
        T: Copy,
    {
        let progress = |voter: &VoterId| match &self.role {
            Role::Leader(leading) => leading.followers.get(voter),
            _ => None,
        };
        let value = |voter: &VoterId| match self.is_me(*voter) {
            true => own,
            false => progress(voter).map_or(unknown, &of),
        };
        self.log.voters().ids().iter().map(value).collect()
    }

    /// The largest value that a majority of the voters has reached.
    pub(super) fn reached_by_majority<T: Ord + Copy>(&self, mut values: Vec<T>) -> Option<T> {
        values.sort_unstable_by(|a, b| b.cmp(a));
        values.get(self.majority() - 1).copied()
    }

    /// §5.3 and §5.4.2: what is durable on a majority, and of the leader's own term, is committed with all before it.
    /// Nothing is committed here before it is durable here too, so that no restart goes back behind it.
    pub(super) fn advance_commit(&mut self, effects: &mut Vec<Effect>) {
        if !self.is_leader() {
            return;
        }
        let own = self.log.durable_end();
        let ends = self.of_voters(own, 0, |progress| progress.durable_end);
        let end = self.reached_by_majority(ends).unwrap_or(0).min(own);
        // Z43: an entry of an older term may be on a majority and still be overwritten (figure 8).
        let own_term = self.log.term_before(end) == Some(self.hard.term) || defect!(commit_prior_term);
        if end > self.commit && own_term {
            self.raise_commit(end, effects);
            self.begin_reads(effects);
            // Followers apply what they hold without waiting for the next heartbeat.
            self.send_heartbeats(effects);
            self.finish_change(effects);
        }
    }
}
