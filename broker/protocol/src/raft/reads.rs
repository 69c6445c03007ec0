//! Linearizable reads without a log entry (§8; thesis §6.4): a majority confirms that this node still led after the read
//! began.

use weir_defect::defect;

use super::interface::{Effect, ReadId, Refusal};
use super::lead::Leading;
use super::message::Index;
use super::{Raft, Role};

/// A read that waits for a majority to confirm that this node still leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct PendingRead {
    id: ReadId,
    /// The round that must be answered, and the commit when it began; `None` until an entry of the term is committed.
    begun: Option<(u64, Index)>,
}

impl Leading {
    pub(super) fn refuse_reads(&mut self, effects: &mut Vec<Effect>) {
        for read in self.reads.drain(..) {
            effects.push(Effect::ReadRefused { id: read.id, reason: Refusal::NotLeader(None) });
        }
    }
}

impl Raft {
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
    pub(super) fn begin_reads(&mut self, effects: &mut Vec<Effect>) -> bool {
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

    pub(super) fn finish_reads(&mut self, effects: &mut Vec<Effect>) {
        let Role::Leader(leading) = &self.role else { return };
        let rounds = self.of_voters(leading.round, 0, |progress| progress.round);
        let confirmed = self.reached_by_majority(rounds).unwrap_or(0);
        let Role::Leader(leading) = &mut self.role else { return };
        while let Some(PendingRead { id, begun: Some((round, commit)) }) = leading.reads.front().copied()
            && round <= confirmed
        {
            leading.reads.pop_front();
            effects.push(Effect::ReadReady { id, commit });
        }
    }
}
