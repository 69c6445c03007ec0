//! What a leader knows about each node that gets its log.

use std::time::Duration;

use super::message::{Index, Recovery, Snapshot};

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

    /// The follower has lost entries: what it once had no longer counts, and what it has counts when it has caught up
    /// with all that this leader has now, if that is all that is committed.
    pub(super) fn note_recovery(&mut self, name: u64, log_end: Option<Index>) {
        self.durable_end = 0;
        if self.recovery.is_none_or(|recovery| recovery.name != name) {
            self.recovery = log_end.map(|end| Recovery { name, end });
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
