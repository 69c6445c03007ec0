//! Changes of voters, one at a time (thesis chapter 4): they count from the entry on, committed or not.

use std::collections::BTreeSet;

use weir_defect::defect;

use super::interface::{ChangeRefusal, Effect, ProposalId, Refusal};
use super::message::EntryKind;
use super::progress::Progress;
use super::voters::{VoterChange, Voters, VotersError};
use super::{Raft, Role};
use crate::types::VoterId;

impl Raft {
    pub(super) fn on_change_voters(
        &mut self,
        id: ProposalId,
        change: VoterChange,
        effects: &mut Vec<Effect>,
    ) {
        match self.changed_voters(change) {
            Ok(voters) => {
                effects.push(Effect::ProposalAccepted { id, index: self.log.end(), term: self.hard.term });
                self.append_own(EntryKind::Voters, voters.encode(), effects);
                // With fewer voters, or another majority, more may be committed than before.
                self.advance_commit(effects);
            }
            Err(reason) => effects.push(Effect::ProposalRefused { id, reason }),
        }
    }

    fn changed_voters(&self, change: VoterChange) -> Result<Voters, Refusal> {
        let Role::Leader(leading) = &self.role else { return Err(Refusal::NotLeader(self.leader)) };
        if leading.hand_over.is_some() {
            return Err(Refusal::NotLeader(None));
        }
        // Z39: without it a change of a deposed leader may still be in a log, and its majorities need not overlap with
        // those of the change that is made now.
        if self.commit <= leading.first && !defect!(reconfigure_before_noop) {
            return Err(ChangeRefusal::TermNotCommitted.into());
        }
        if self.commit < self.log.voters_end() {
            return Err(ChangeRefusal::ChangeUnderWay.into());
        }
        let current = self.log.voters();
        let caught_up = match change {
            VoterChange::Add(id) if current.ids().iter().any(|voter| voter.broker == id.broker) => {
                return Err(ChangeRefusal::VoterExists.into());
            }
            VoterChange::Remove(id) if !current.contains(id) => return Err(ChangeRefusal::NoSuchVoter.into()),
            VoterChange::Remove(_) => true,
            VoterChange::Add(id) => leading
                .followers
                .get(&id)
                .is_some_and(|progress| progress.durable_end > 0 && progress.durable_end >= self.commit),
        };
        if !caught_up {
            return Err(ChangeRefusal::NotCaughtUp.into());
        }
        match current.after(change) {
            Ok(voters) if !voters.ids().is_empty() => Ok(voters),
            Ok(_) | Err(VotersError::TooMany) => Err(ChangeRefusal::BadNumberOfVoters.into()),
            Err(_) => Err(ChangeRefusal::VoterExists.into()),
        }
    }

    /// A leader that is no voter any more leads until that is certain (thesis §4.2.2); it has told the others before.
    pub(super) fn finish_change(&mut self, effects: &mut Vec<Effect>) {
        if !self.is_leader() || self.commit < self.log.voters_end() {
            return;
        }
        if self.votes() {
            self.refresh_followers();
        } else {
            self.become_follower(self.hard.term, None, effects);
        }
    }

    pub(super) fn on_observers(&mut self, observers: Vec<VoterId>, effects: &mut Vec<Effect>) {
        self.observers = observers.into_iter().take(self.limits.observers_max).collect();
        self.refresh_followers();
        for follower in self.followers() {
            self.send_entries(follower, effects);
        }
    }

    /// Begins and ends to follow those that have come and gone, if this node leads.
    pub(super) fn refresh_followers(&mut self) {
        // Who is removed should hear of it.
        let leaving = self.log.former_voters().filter(|_| self.commit < self.log.voters_end());
        let voters = self.log.voters().ids().iter().chain(leaving.into_iter().flat_map(Voters::ids));
        let everyone: BTreeSet<VoterId> =
            voters.chain(&self.observers).copied().filter(|id| !self.is_me(*id)).collect();
        let (end, now) = (self.log.end(), self.now);
        let Role::Leader(leading) = &mut self.role else { return };
        leading.followers.retain(|id, _| everyone.contains(id));
        for id in everyone {
            leading.followers.entry(id).or_insert_with(|| Progress::new(end, now));
        }
    }

    /// Follows the log's voters: who is none, and was none before a change that may be taken back, has no voice.
    pub(super) fn refresh_role(&mut self) {
        let campaigns = self.may_campaign();
        match &self.role {
            Role::Observer if campaigns => self.role = Role::Follower { deadline: self.election_deadline() },
            Role::Follower { .. } | Role::PreCandidate { .. } | Role::Candidate { .. } if !campaigns => {
                self.role = Role::Observer;
            }
            _ => {}
        }
    }

    /// Whether this node campaigns. One that was removed does as long as that may be taken back: its log may be the
    /// only one from which the removal can be committed (thesis §4.2.2).
    pub(super) fn may_campaign(&self) -> bool {
        let leaving = self.log.former_voters().filter(|_| self.commit < self.log.voters_end());
        let voted = leaving.is_some_and(|voters| voters.ids().iter().any(|id| self.is_me(*id)));
        self.is_whole() && (self.votes() || voted)
    }

    /// Whether this node answers who asks for its vote. Who asks has a log in which this node votes, with this folder,
    /// even if this node's own log does not say so yet. An empty folder never votes unless it is among the first
    /// voters (contract 6): who is added holds what was committed then.
    pub(super) fn may_vote(&self) -> bool {
        self.is_whole() && (self.votes() || self.log.end() > 0)
    }

    /// Whether this node is among the voters of its own log.
    pub(super) fn votes(&self) -> bool {
        self.log.voters().ids().iter().any(|id| self.is_me(*id))
    }
}
