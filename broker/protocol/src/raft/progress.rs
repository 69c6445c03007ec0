//! What a leader knows about each node that gets its log.

use std::time::Duration;

use super::message::{Index, Snapshot};

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
}

impl Progress {
    pub(super) fn new(next: Index, now: Duration) -> Progress {
        Progress { next, durable_end: 0, resend_at: None, busy: false, heard: now, round: 0, snapshot: None }
    }
}
