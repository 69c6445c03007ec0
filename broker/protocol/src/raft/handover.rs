//! Handing leadership over (Ongaro's thesis, §3.10): a leader that is about to stop lets a follower that has everything
//! campaign at once, so that nobody waits for an election timeout.

use std::time::Duration;

use super::interface::Effect;
use super::lead::Leading;
use super::message::{Index, Message, Term};
use super::{Raft, Role};
use crate::types::VoterId;

/// How a leader hands its leadership over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct HandOver {
    /// When it resigns although nobody has taken over.
    pub(super) until: Duration,
    /// Who was told to campaign.
    named: Option<VoterId>,
}

impl Leading {
    /// Who has all of the log and was heard last, if that was not before `since`; whoever was named already, if it can be.
    fn successor(&self, voters: &[VoterId], log_end: Index, since: Duration) -> Option<VoterId> {
        let fit = |id: &VoterId| {
            let progress = self.followers.get(id)?;
            let has_all = progress.recovery.is_none() && progress.durable_end == log_end;
            (has_all && progress.heard >= since).then_some((progress.heard, *id))
        };
        let named = self.hand_over.and_then(|hand_over| hand_over.named).filter(|named| fit(named).is_some());
        named.or_else(|| voters.iter().filter_map(fit).max().map(|(_, id)| id))
    }
}

impl Raft {
    /// A leader names its successor once one has everything; until then it takes nothing more in. Any other node only does
    /// not campaign for one election timeout.
    pub(super) fn on_hand_over(&mut self, effects: &mut Vec<Effect>) {
        let until = self.now + self.timing.election_min;
        let is_alone = self.peers().next().is_none();
        match &mut self.role {
            Role::Leader(leading) if !is_alone => {
                leading.hand_over.get_or_insert(HandOver { until, named: None });
                self.name_successor(false, effects);
            }
            _ => self.resign(effects),
        }
    }

    /// Whether this node leads and hands that over.
    pub(super) fn hands_over(&self) -> bool {
        matches!(&self.role, Role::Leader(leading) if leading.hand_over.is_some())
    }

    /// Tells the successor to campaign, if there is one; `again`: even if it was told before.
    pub(super) fn name_successor(&mut self, again: bool, effects: &mut Vec<Effect>) {
        let since = self.now.saturating_sub(self.timing.election_min);
        let (log_end, term) = (self.log.end(), self.hard.term);
        let Role::Leader(leading) = &mut self.role else { return };
        let successor = leading.successor(self.log.voters().ids(), log_end, since);
        let Some(hand_over) = &mut leading.hand_over else { return };
        if let Some(to) = successor
            && (again || hand_over.named != successor)
        {
            hand_over.named = successor;
            self.send(to, Message::TimeoutNow { term }, effects);
        }
    }

    /// The leader of the term hands over to this node.
    pub(super) fn on_timeout_now(&mut self, term: Term, effects: &mut Vec<Effect>) {
        let follows = !matches!(self.role, Role::Observer | Role::Leader(_));
        // What stands behind a cut would come back if power failed now.
        if term == self.hard.term && follows && !self.is_log_busy() {
            self.campaign(true, effects);
        }
    }
}
