//! What a run says of itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use weir_jepsen::history::Event;

use crate::draw::{Moment, Told};

/// Operations that must have been acknowledged for a seed to count.
pub const ACKNOWLEDGED_MIN: u64 = 200;
/// Planned faults that must have struck for a seed to count.
pub const STRUCK_MIN: u64 = 3;

/// Something that must not be: an anomaly of the history, a broken invariant, or a panic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Its name: `lost-write`, `panic`, …
    pub name: String,
    /// What happened, in words, with what proves it.
    pub text: String,
}

impl Finding {
    /// Something that must not be.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Finding {
        Finding { name: name.into(), text: text.into() }
    }
}

/// The outcome of one run.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// What must not be; empty after a clean run.
    pub findings: Vec<Finding>,
    /// Operations that were acknowledged.
    pub acknowledged: u64,
    /// How often each kind of planned fault struck.
    pub struck: BTreeMap<&'static str, u64>,
    /// The named situations that occurred.
    pub situations: BTreeSet<&'static str>,
    /// Running hash over every event.
    pub hash: u64,
    /// Delivered frames, finished disk operations, timers of the product, faults.
    pub events: u64,
    /// Simulated time.
    pub simulated: Duration,
    /// What the clients did and saw.
    pub history: Vec<Event>,
    /// The brokers' files as they are in the end, by path, if a trace was asked for.
    pub files: Vec<(String, Bytes)>,
    /// What happened, in the order of time, if a trace was asked for.
    pub moments: Vec<Moment>,
    /// What the nodes told of themselves, if a trace was asked for.
    pub told: Vec<Told>,
    /// The nodes by their numbers, if a trace was asked for.
    pub nodes: Vec<(u32, String)>,
}

impl Report {
    /// Whether nothing must not be.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    /// Whether enough happened for a clean run to mean something.
    pub fn counts(&self) -> bool {
        self.acknowledged >= ACKNOWLEDGED_MIN && self.struck.values().sum::<u64>() >= STRUCK_MIN
    }
}

/// The situations that a large batch must meet at least once; see `docs/testing.md`.
pub mod situation {
    /// A crash while the broker read its journal.
    pub const CRASH_IN_RECOVERY: &str = "crash during recovery";
    /// Recovery could not say whether the journal's last round was ever whole.
    pub const UNCERTAIN_TAIL: &str = "uncertain tail";
    /// Recovery replayed rounds of the journal.
    pub const REPLAY: &str = "journal replayed";
    /// Records were deleted, and the broker crashed before its next clean stop.
    pub const DELETE_THEN_CRASH: &str = "deletion followed by a crash";
    /// A full disk refused a write.
    pub const DISK_FULL: &str = "write refused, disk full";
    /// A failed sync ended the folder's service.
    pub const FOLDER_FAILED: &str = "failed sync ended the folder's service";
    /// Damage was reported.
    pub const DAMAGE_REPORTED: &str = "damage reported";
    /// A file of the journal was reused.
    pub const JOURNAL_RECYCLED: &str = "journal file recycled";
    /// A coordinator began with what its log said of groups.
    pub const GROUPS_LOADED: &str = "coordinator loaded with groups";
    /// Compaction dropped records.
    pub const COMPACTED: &str = "log compacted";
    /// Compaction dropped a tombstone that had had its time.
    pub const TOMBSTONE_DROPPED: &str = "tombstone dropped";
    /// A member committed with a generation that was over.
    pub use weir_jepsen::load::LATE_COMMIT;

    /// All nodes of a cluster were down at a time.
    pub const ALL_DOWN: &str = "all nodes down at once";
    /// Somebody else leads a partition.
    pub const LEADER_MOVED: &str = "leader moved";
    /// Nobody leads a partition.
    pub const NO_LEADER: &str = "partition without a leader";
    /// An eligible replica leads that was not in sync (KIP-966).
    pub const LEADER_FROM_ELR: &str = "leader from the eligible replicas";
    /// A replica leads that was not certain of its tail: the longest log among enough answers (contract 5).
    pub const LEADER_FROM_UNCERTAIN: &str = "leader from the uncertain replicas";
    /// The same, where several were uncertain and their answers were held against each other.
    pub const LEADER_FROM_SEVERAL_UNCERTAIN: &str = "leader from several uncertain replicas";
    /// A leader could not keep what others may hold, and leads on in a new epoch (contract 4).
    pub const EPOCH_RENEWED: &str = "leader took a new epoch";
    /// Fewer replicas were in sync than acknowledgements need.
    pub const TOO_FEW_IN_SYNC: &str = "fewer in sync than needed";
    /// A replica came into sync again.
    pub const JOINED_ISR: &str = "replica came into sync";
    /// A follower cut what its leader does not have.
    pub const TRUNCATED: &str = "follower truncated";
    /// A follower cut what its leader does not have, and its process ended before it followed another one.
    pub const TRUNCATED_THEN_CRASH: &str = "truncation followed by a crash";
    /// Another node leads the metadata quorum.
    pub const QUORUM_MOVED: &str = "quorum leader moved";
    /// A leader of the metadata quorum that was stopped let another node take over.
    pub const QUORUM_HANDED_OVER: &str = "metadata leader handed over";
    /// A broker that was cut off sent a group's members away.
    pub const COORDINATOR_CUT_OFF: &str = "coordinator past its session";
    /// A replica had missed deletions that its leader had forgotten, and was fetched again.
    pub const FETCHED_AGAIN: &str = "replica refetched because of tombstones";
    /// A broker's session ended.
    pub const FENCED: &str = "broker fenced";

    /// Those that one node alone can meet.
    pub const OF_ONE: &[&str] = &[
        CRASH_IN_RECOVERY,
        UNCERTAIN_TAIL,
        REPLAY,
        DELETE_THEN_CRASH,
        DISK_FULL,
        FOLDER_FAILED,
        DAMAGE_REPORTED,
        JOURNAL_RECYCLED,
        GROUPS_LOADED,
        LATE_COMMIT,
        COMPACTED,
        TOMBSTONE_DROPPED,
    ];

    /// A node made a snapshot of the metadata.
    pub const SNAPSHOT_TAKEN: &str = "metadata snapshot taken";
    /// A node's metadata log and image were replaced by another node's snapshot.
    pub const SNAPSHOT_INSTALLED: &str = "metadata snapshot installed";
    /// A voter found metadata damaged and got it from the others.
    pub const VOTER_DAMAGED: &str = "metadata voter damaged";

    /// The cluster gave up an older version, once every broker had a newer one.
    pub const LEVEL_RAISED: &str = weir_jepsen::load::LEVEL_RAISED;
    /// A node of a version that was given up was started, and refused.
    pub const VERSION_REFUSED: &str = "version refused";

    /// Those that only a cluster meets.
    pub const OF_CLUSTERS: &[&str] = &[
        ALL_DOWN,
        LEADER_MOVED,
        NO_LEADER,
        LEADER_FROM_ELR,
        LEADER_FROM_UNCERTAIN,
        LEADER_FROM_SEVERAL_UNCERTAIN,
        EPOCH_RENEWED,
        TOO_FEW_IN_SYNC,
        JOINED_ISR,
        TRUNCATED,
        TRUNCATED_THEN_CRASH,
        QUORUM_MOVED,
        QUORUM_HANDED_OVER,
        COORDINATOR_CUT_OFF,
        FENCED,
        FETCHED_AGAIN,
        SNAPSHOT_TAKEN,
        SNAPSHOT_INSTALLED,
        VOTER_DAMAGED,
        LEVEL_RAISED,
        VERSION_REFUSED,
    ];

    /// All of them.
    pub fn all() -> impl Iterator<Item = &'static str> {
        OF_ONE.iter().chain(OF_CLUSTERS).copied()
    }
}
