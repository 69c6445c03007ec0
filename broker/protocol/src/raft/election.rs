//! Elections: §5.2 and §5.4.1, with pre-vote, and with leaders that resign when they are alone.

use std::collections::BTreeSet;

use weir_defect::defect;

use super::interface::{Effect, SyncPoint};
use super::message::{Candidacy, HardState, Message, Term};
use super::{Raft, Role};
use crate::types::VoterId;

impl Raft {
    pub(super) fn on_tick(&mut self, jitter: u64, effects: &mut Vec<Effect>) {
        self.armed = None;
        self.jitter = jitter;
        match &self.role {
            Role::Observer => {}
            Role::Leader(_) => self.on_leader_tick(effects),
            Role::Follower { deadline }
            | Role::PreCandidate { deadline, .. }
            | Role::Candidate { deadline, .. } => {
                if *deadline <= self.now {
                    self.ask_for_pre_votes(effects);
                }
            }
        }
    }

    /// Asks whether a campaign would succeed before it disturbs anyone with a newer term.
    fn ask_for_pre_votes(&mut self, effects: &mut Vec<Effect>) {
        let deadline = self.election_deadline();
        self.leader = None;
        // What stands behind the cut would come back if power failed now: finish that first.
        if self.is_log_busy() {
            self.role = Role::Follower { deadline };
            return;
        }
        self.role = Role::PreCandidate { deadline, grants: BTreeSet::new() };
        let Some(term) = self.hard.term.checked_add(1) else { return };
        let message = Message::PreVote(self.candidacy(term));
        for peer in self.peers() {
            self.send(peer, message.clone(), effects);
        }
        self.on_pre_vote_granted(self.me, term, effects);
    }

    /// Votes for itself in a new term and asks for votes; `named`: as the successor of a leader that is there.
    pub(super) fn campaign(&mut self, named: bool, effects: &mut Vec<Effect>) {
        let Some(term) = self.hard.term.checked_add(1) else { return };
        self.leader = None;
        self.matched_end = self.log.start();
        self.set_hard_state(HardState { term, vote: Some(self.me), ..self.hard }, effects);
        self.role = Role::Candidate { deadline: self.election_deadline(), grants: BTreeSet::new() };
        let candidacy = self.candidacy(term);
        let message = if named { Message::VoteAtOnce(candidacy) } else { Message::Vote(candidacy) };
        for peer in self.peers() {
            self.send(peer, message.clone(), effects);
        }
        self.count_votes(effects);
    }

    fn candidacy(&self, term: Term) -> Candidacy {
        Candidacy { term, last_term: self.log.last_term(), end: self.log.end() }
    }

    /// Whether a leader is there as far as this node can tell: then it helps nobody to unseat it.
    fn hears_a_leader(&self) -> bool {
        match self.role {
            Role::Leader(_) => true,
            _ => self.leader.is_some() && self.now < self.leader_heard + self.timing.election_min,
        }
    }

    pub(super) fn on_pre_vote(&mut self, from: VoterId, candidacy: Candidacy, effects: &mut Vec<Effect>) {
        if !self.may_vote() {
            return;
        }
        let granted = candidacy.term > self.hard.term
            && !self.hears_a_leader()
            && self.log.is_covered_by(candidacy.last_term, candidacy.end);
        let term = if granted { candidacy.term } else { self.hard.term };
        self.send(from, Message::PreVoteAnswer { term, granted }, effects);
    }

    pub(super) fn on_pre_vote_granted(&mut self, from: VoterId, term: Term, effects: &mut Vec<Effect>) {
        let voter = self.voter(from);
        let majority = self.majority();
        let Role::PreCandidate { grants, .. } = &mut self.role else { return };
        if Some(term) != self.hard.term.checked_add(1) {
            return;
        }
        grants.extend(voter);
        if grants.len() >= majority {
            self.campaign(false, effects);
        }
    }

    /// `named`: the leader that is there has named the candidate.
    pub(super) fn on_vote(
        &mut self,
        from: VoterId,
        candidacy: Candidacy,
        named: bool,
        effects: &mut Vec<Effect>,
    ) {
        if !self.may_vote() {
            return;
        }
        if candidacy.term > self.hard.term {
            if !named && self.hears_a_leader() {
                return;
            }
            self.become_follower(candidacy.term, None, effects);
        }
        let free = self.hard.vote.is_none_or(|vote| vote == from);
        let granted = candidacy.term == self.hard.term
            && free
            && self.log.is_covered_by(candidacy.last_term, candidacy.end);
        if granted {
            if self.hard.vote.is_none() {
                self.set_hard_state(HardState { vote: Some(from), ..self.hard }, effects);
            }
            if let Role::Follower { deadline } = &self.role {
                let deadline = (*deadline).max(self.election_deadline());
                self.role = Role::Follower { deadline };
            }
        }
        // Z41: a vote that power failure takes back is given twice.
        let after = if defect!(no_fsync_vote) { SyncPoint::Now } else { self.sync_point() };
        let message = Message::VoteAnswer { term: self.hard.term, granted };
        effects.push(Effect::Send { to: from, message, after });
    }

    pub(super) fn on_vote_answer(
        &mut self,
        from: VoterId,
        term: Term,
        granted: bool,
        effects: &mut Vec<Effect>,
    ) {
        if !granted || term != self.hard.term {
            return;
        }
        let voter = self.voter(from);
        if let Role::Candidate { grants, .. } = &mut self.role {
            grants.extend(voter);
            self.count_votes(effects);
        }
    }

    /// Leads if a majority voted for it. Its own vote counts once it is durable, and it leads no term that it could
    /// forget.
    pub(super) fn count_votes(&mut self, effects: &mut Vec<Effect>) {
        let own = self.voter(self.me);
        let majority = self.majority();
        if self.hard_durable < self.hard_seq && !defect!(no_fsync_vote) {
            return;
        }
        let Role::Candidate { grants, .. } = &mut self.role else { return };
        grants.extend(own);
        if grants.len() >= majority {
            self.become_leader(effects);
        }
    }
}
