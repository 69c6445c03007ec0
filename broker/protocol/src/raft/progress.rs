//! What a leader knows about each node that gets its log.

use std::time::Duration;

use super::message::{Index, Recovery, Snapshot, Voice};

/// What a leader knows about one follower.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Progress {
    /// The next entry to send. Invariant: `durable_end <= next <=` the leader's log end.
    pub(super) next: Index,
    /// Known to be the same as the leader's, and synced.
    pub(super) durable_end: Index,
    /// Entries from `next` on are under way, or are being read from the disk: sent again after this time.
    pub(super) resend_at: Option<Duration>,
    /// The follower has said that it is busy.
    pub(super) busy: bool,
    /// When it was heard last.
    pub(super) heard: Duration,
    /// The newest round that it has answered.
    pub(super) round: u64,
    /// What it gets instead of entries that the log no longer has, and how much of that it has.
    pub(super) snapshot: Option<(Snapshot, u64)>,
    /// It has lost entries, and does not count until it has caught up so far.
    pub(super) recovery: Option<Recovery>,
}

impl Progress {
    pub(super) fn new(next: Index, now: Duration) -> Progress {
        Progress {
            next,
            durable_end: 0,
            resend_at: None,
            busy: false,
            heard: now,
            round: 0,
            snapshot: None,
            recovery: None,
        }
    }

    /// The follower has spoken. `all_committed`: the log's end, if the log holds all that is committed. Returns whether
    /// that confirms a recovery.
    pub(super) fn hear(
        &mut self,
        voice: Voice,
        now: Duration,
        round: u64,
        all_committed: Option<Index>,
    ) -> bool {
        if !matches!(voice, Voice::Forgotten(_)) {
            self.heard = now;
            self.round = self.round.max(round);
        }
        let (Voice::Recovering(name) | Voice::Forgotten(name)) = voice else {
            self.recovery = None;
            return false;
        };
        // What it once had no longer counts, and what it has counts when it has caught up with all that is here now.
        self.durable_end = 0;
        if self.recovery.is_some_and(|recovery| recovery.name == name) {
            return false;
        }
        self.recovery = all_committed.map(|end| Recovery { name, end });
        self.recovery.is_some()
    }

    /// It agrees up to `matched_end`, and what counts of that goes up to `counted_end`.
    pub(super) fn accept(&mut self, matched_end: Index, counted_end: Index, log_start: Index) {
        if matched_end > self.next || self.busy {
            self.resend_at = None;
        }
        self.busy = false;
        self.next = self.next.max(matched_end);
        self.durable_end = self.durable_end.max(counted_end);
        if self.next >= log_start {
            self.snapshot = None;
        }
    }

    /// It may agree up to `offered_end`. What is durable there agrees: an answer that says less is an old one.
    pub(super) fn diverge(&mut self, offered_end: Index) {
        self.next = offered_end.clamp(self.durable_end, self.next);
        self.busy = false;
        // A piece of a snapshot that is under way says more than this.
        if self.snapshot.is_none() {
            self.resend_at = None;
        }
    }

    /// It has so many bytes of the snapshot that ends at `end`.
    pub(super) fn receive(&mut self, end: Index, received: u64) {
        if let Some((snapshot, offset)) = &mut self.snapshot
            && snapshot.at.end == end
        {
            *offset = received.min(snapshot.bytes);
            self.resend_at = None;
            self.busy = false;
        }
    }

    /// Whether entries are under way, so that none are sent again yet.
    pub(super) fn is_under_way(&self, now: Duration) -> bool {
        self.resend_at.is_some_and(|at| now < at)
    }

    /// See [`super::Raft::forget_history`].
    pub(super) fn forget_history(&mut self, now: Duration) {
        if !self.is_under_way(now) {
            self.resend_at = None;
        }
    }
}
