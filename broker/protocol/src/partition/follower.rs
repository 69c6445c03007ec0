//! A replica that follows: it makes its log the leader's, by cutting what the leader does not have and writing what it
//! has.

use weir_defect::defect;

use super::epochs::EpochEntry;
use super::producers::ProducerBatch;
use super::replication::{FetchPosition, FetchVerdict};
use super::{Effect, FailReason, Partition, Role};
use crate::types::{BrokerId, LeaderEpoch, Offset};

/// What a follower knows in its epoch.
#[derive(Clone, Debug, Hash)]
pub(super) struct Follower {
    pub(super) leader: BrokerId,
    /// Whether the leader has said in this epoch that its log begins with ours.
    pub(super) matched: bool,
    /// The last one that the leader told while the logs matched.
    leader_high_watermark: Offset,
    /// Where the leader's log begins, as it told then.
    leader_start: Offset,
}

/// A leader's answer, with what the driver read in the headers of the batches that came with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The position that is answered.
    pub position: FetchPosition,
    /// What the leader says to it.
    pub verdict: FetchVerdict,
    /// The offset after the last record that came; the position's offset if none did.
    pub end: Offset,
    /// The leader epochs of the records that came, each with the offset of its first one.
    pub epochs: Vec<EpochEntry>,
    /// The batches of idempotent producers among them.
    pub producers: Vec<ProducerBatch>,
    /// The monotonic clock, in ms.
    pub now_ms: i64,
}

impl Partition {
    pub(super) fn on_become_follower(
        &mut self,
        epoch: LeaderEpoch,
        leader: BrokerId,
        effects: &mut Vec<Effect>,
    ) {
        let same = epoch == self.epoch && matches!(self.role, Role::Idle);
        if leader == self.me || (epoch <= self.epoch && !same) {
            return;
        }
        self.leave_leadership(FailReason::NotLeader, effects);
        // Z5: in an epoch that was missed the same leader may have lost what it had, and written something else there.
        let matched = defect!(skip_truncation_if_same_leader)
            && matches!(&self.role, Role::Follower(before) if before.leader == leader && before.matched);
        self.epoch = epoch;
        // An epoch of ours in which nothing was written is in no other log: storage forgets it as well, or it would refuse the
        // records of older epochs that may come now (KAFKA-10706).
        if self.epochs.latest().is_some_and(|latest| latest.start >= self.end) {
            self.epochs.truncate(self.end);
            effects.push(Effect::Truncate { to: self.end });
        }
        let (leader_high_watermark, leader_start) = (self.start, self.start);
        self.role = Role::Follower(Follower { leader, matched, leader_high_watermark, leader_start });
        // Z1: what lies above the high watermark that we know of may be acknowledged all the same.
        if defect!(truncate_to_hw) && self.end > self.high_watermark {
            self.cut(self.high_watermark, effects);
        }
    }

    /// What to ask the leader for; `None` unless this replica follows one.
    pub fn fetch_position(&self) -> Option<(BrokerId, FetchPosition)> {
        let Role::Follower(follower) = &self.role else { return None };
        let known_to_match = follower.matched && defect!(skip_truncation_if_same_leader);
        let last_epoch = self.epochs.epoch_at(self.end - 1).filter(|_| !known_to_match).unwrap_or(-1);
        let (epoch, offset, durable_end) = (self.epoch, self.end, self.durable_end);
        Some((follower.leader, FetchPosition { epoch, offset, last_epoch, durable_end }))
    }

    pub(super) fn on_fetched(&mut self, fetched: Fetched, effects: &mut Vec<Effect>) {
        let asked = self.fetch_position().is_some_and(|(_, now)| fetched.answers(&now));
        let Role::Follower(follower) = &mut self.role else { return };
        if !asked {
            return;
        }
        match fetched.verdict {
            FetchVerdict::Matches { high_watermark, start } => {
                if fetched.is_sensible() {
                    follower.matched = true;
                    follower.leader_high_watermark = follower.leader_high_watermark.max(high_watermark);
                    follower.leader_start = follower.leader_start.max(start);
                    self.write_fetched(fetched, effects);
                    self.follow_bounds(effects);
                }
            }
            FetchVerdict::Diverges { epoch, end } => self.on_diverged(epoch, end, effects),
            // All that we have is gone there: it was deleted, so it was committed.
            FetchVerdict::OutOfRange { start, .. } if self.end < start => self.follow_start(start, effects),
            // Only after an unclean election does a leader end before what was cut to its epochs.
            FetchVerdict::OutOfRange { end, .. } if end < self.end => self.cut(end, effects),
            FetchVerdict::OutOfRange { .. } | FetchVerdict::Refused(_) => {}
        }
    }

    fn write_fetched(&mut self, fetched: Fetched, effects: &mut Vec<Effect>) {
        if fetched.end == self.end {
            return;
        }
        effects.push(Effect::WriteFetched { base: self.end, end: fetched.end });
        self.end = fetched.end;
        for EpochEntry { epoch, start } in fetched.epochs {
            self.epochs.begin(epoch, start);
        }
        for batch in &fetched.producers {
            self.producers.note(batch, fetched.now_ms);
        }
    }

    /// The logs part where the last epoch that both know ends in the one in which it ends first (KIP-101, KIP-279).
    fn on_diverged(&mut self, epoch: LeaderEpoch, leader_end: Offset, effects: &mut Vec<Effect>) {
        let Some((known, own_end)) = self.epochs.end_of(epoch, self.end) else { return };
        let to = if defect!(truncate_to_hw) {
            self.high_watermark
        } else if known == epoch {
            own_end.min(leader_end)
        } else {
            own_end
        };
        // A leader that sees the logs part sees it below our end.
        if to < self.end {
            self.cut(to, effects);
        }
    }

    pub(super) fn on_damaged(&mut self, from: Offset, effects: &mut Vec<Effect>) {
        if !matches!(self.role, Role::Leader(_)) && from < self.end {
            self.cut(from, effects);
        }
    }

    /// Cuts the log. Below the start there is nothing that could be cut.
    fn cut(&mut self, to: Offset, effects: &mut Vec<Effect>) {
        let to = to.max(self.start);
        self.end = to;
        self.durable_end = self.durable_end.min(to);
        self.high_watermark = self.high_watermark.min(to);
        self.epochs.truncate(to);
        self.producers.cut(to);
        effects.push(Effect::Truncate { to });
    }

    /// Takes the leader's high watermark over, and where its log begins, as far as this replica is durable. What is beyond that
    /// follows when it is: the leader does not say it again.
    pub(super) fn follow_bounds(&mut self, effects: &mut Vec<Effect>) {
        if let Role::Follower(follower) = &self.role {
            let known = follower.leader_high_watermark.min(self.durable_end);
            let start = follower.leader_start;
            self.high_watermark = self.high_watermark.max(known);
            self.follow_start(start.min(self.high_watermark), effects);
        }
    }

    fn follow_start(&mut self, start: Offset, effects: &mut Vec<Effect>) {
        if start > self.start {
            effects.push(Effect::AdvanceStart { start });
            self.on_start_offset(start, effects);
        }
    }
}

impl Fetched {
    /// Whether this answers the position of a replica as it stands now.
    fn answers(&self, now: &FetchPosition) -> bool {
        let cuts = !matches!(self.verdict, FetchVerdict::Matches { .. });
        // Z9: an answer to what this replica no longer asks says nothing about the log that it has now.
        self.position.is_same_log(now) || (cuts && defect!(no_owner_check))
    }

    /// Whether a leader could have sent this: epochs rise and lie within the records (contract 14).
    fn is_sensible(&self) -> bool {
        let FetchPosition { epoch, offset, last_epoch, .. } = self.position;
        let within = |entry: &EpochEntry| {
            (last_epoch..=epoch).contains(&entry.epoch) && (offset..self.end).contains(&entry.start)
        };
        let rising =
            self.epochs.windows(2).all(|pair| pair[0].epoch < pair[1].epoch && pair[0].start < pair[1].start);
        let first = self.epochs.first().map(|entry| entry.start);
        self.end >= offset
            && rising
            && self.epochs.iter().all(within)
            && first.is_none_or(|first| first == offset)
            && (first.is_some() || self.end == offset)
    }
}
