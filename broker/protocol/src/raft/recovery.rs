//! A node that has lost part of its log or its vote (contract 6; Alagappan et al., Protocol-Aware Recovery, FAST 2018).
//!
//! What a voter has acknowledged is part of every majority that it was in. When it has lost entries, its log must not
//! stand for what it may have held: it neither votes nor campaigns, and nothing that it holds counts, until a leader
//! confirms that it has caught up. That leader's term is not older than any in which this node has said anything (its
//! vote is whole), so all that was committed in earlier terms is in the leader's log; and what this node acknowledged in
//! the leader's own term was below the log's end when the leader heard of the loss. The recovery has a name that no
//! other has, so that no message from before the loss confirms it.
//!
//! What is left behind the damage may be the only copy of something, if other disks are damaged elsewhere. So nothing
//! is cut before a leader confirms the recovery, and a leader does so only when an entry of its own term is committed:
//! then all that ever was committed is in its log, and on a majority of voters that are whole.

use super::Raft;
use super::interface::{Damage, Effect};
use super::log::LogView;
use super::message::{HardState, Index, Recovery, Snapshot, SnapshotPoint, Standing, Voice};

/// This node's recovery, which matters only while it is not whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Recovering {
    /// Drawn at the start: no other recovery of this node has it.
    pub(super) name: u64,
    /// How far it must hold the current leader's log, once that one has said so.
    end: Option<Index>,
    /// What is done to the log once the loss is written down.
    repair: Option<Repair>,
}

/// How a log that is not whole becomes one that can grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Repair {
    Cut(Index),
    Reset(Index),
}

/// What is left of a log, and what must be done to it.
pub(super) struct Left {
    pub(super) log: LogView,
    pub(super) standing: Standing,
    pub(super) repair: Option<Repair>,
}

impl Left {
    /// Joins the log to the snapshot.
    pub(super) fn of(
        mut log: LogView,
        snapshot: Option<&Snapshot>,
        standing: Standing,
        damage: Option<Damage>,
    ) -> Left {
        let nothing = SnapshotPoint { end: 0, term: 0, voters: log.voters().clone() };
        let at = snapshot.map_or(&nothing, |snapshot| &snapshot.at);
        // Z45: what lies between snapshot and log is lost.
        let gap = at.end < log.start();
        let mut repair = None;
        if log.term_before(at.end) != Some(at.term) {
            log.reset(at);
            repair = Some(Repair::Reset(at.end));
        } else if matches!(damage, Some(Damage::Log | Damage::Both)) {
            repair = Some(Repair::Cut(log.end()));
        }
        if repair.is_some() {
            log.begin_cut(log.end());
        }
        let standing = match damage {
            Some(Damage::Vote | Damage::Both) => Standing::Forgotten,
            Some(Damage::Log) => standing.max(Standing::Recovering),
            None if gap => standing.max(Standing::Recovering),
            None => standing,
        };
        Left { log, standing, repair }
    }
}

impl Raft {
    /// Writes the loss down, if it is not yet, and then repairs the log.
    pub(super) fn begin_recovery(
        &mut self,
        found: HardState,
        repair: Option<Repair>,
        effects: &mut Vec<Effect>,
    ) {
        self.recovery = Recovering { name: self.jitter, end: None, repair };
        if self.hard.standing != found.standing {
            self.set_hard_state(self.hard, effects);
        }
        self.repair_log(effects);
    }

    /// Alters the log. A loss must be durable before, and a leader must have confirmed the recovery; a whole node has
    /// only a log that its snapshot has replaced.
    pub(super) fn repair_log(&mut self, effects: &mut Vec<Effect>) {
        let confirmed = self.is_whole() || self.recovery.end.is_some();
        if self.hard_durable < self.hard_seq || !confirmed {
            return;
        }
        effects.extend(self.recovery.repair.take().map(|repair| match repair {
            Repair::Cut(to) => Effect::TruncateLog { to },
            Repair::Reset(start) => Effect::ResetLog { start },
        }));
    }

    /// Whether what this node says counts.
    pub(super) fn is_whole(&self) -> bool {
        self.hard.standing == Standing::Whole
    }

    pub(super) fn voice(&self) -> Voice {
        match self.hard.standing {
            Standing::Whole => Voice::Whole,
            Standing::Recovering => Voice::Recovering(self.recovery.name),
            Standing::Forgotten => Voice::Forgotten(self.recovery.name),
        }
    }

    pub(super) fn note_recovery(&mut self, recovery: Option<Recovery>, effects: &mut Vec<Effect>) {
        if let Some(Recovery { name, end }) = recovery
            && name == self.recovery.name
        {
            self.recovery.end = Some(end);
            self.repair_log(effects);
        }
    }

    /// Another leader counts anew.
    pub(super) fn forget_recovery_end(&mut self) {
        self.recovery.end = None;
    }

    /// A voter again, once it holds what the leader has asked for.
    pub(super) fn finish_recovery(&mut self, effects: &mut Vec<Effect>) {
        let held = self.matched_end.min(self.log.durable_end());
        let caught_up = self.recovery.end.is_some_and(|end| end <= held);
        if self.hard.standing == Standing::Recovering && caught_up && !self.is_log_busy() {
            self.set_hard_state(HardState { standing: Standing::Whole, ..self.hard }, effects);
            self.refresh_role();
            // With this the leader counts what is held here.
            self.report_progress(effects);
        }
    }
}
