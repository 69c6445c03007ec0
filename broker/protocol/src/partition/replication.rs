//! What replicas say to each other. One message speaks of many partitions; a replica's core sees its own part of it.
//!
//! A follower asks its leader for records, with its *position*; the leader answers with records, or says where the two
//! logs part (truncation on fetch, KIP-595). Each answer repeats the position that it answers, so that one that comes
//! late or twice is known for what it is.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::types::{BrokerId, LeaderEpoch, LogId, Offset};

/// Where a follower stands in one partition, in the epoch that it follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FetchPosition {
    /// The leader epoch that the follower follows.
    pub epoch: LeaderEpoch,
    /// The end of its log, where it goes on.
    pub offset: Offset,
    /// The epoch of the last record before that; -1 if there is none. With the offset it names all that the log holds.
    pub last_epoch: LeaderEpoch,
    /// Its durable end (contract 2). Invariant: `<= offset`.
    pub durable_end: Offset,
}

impl FetchPosition {
    /// Whether both name the same log in the same epoch.
    pub fn is_same_log(&self, other: &FetchPosition) -> bool {
        (self.epoch, self.offset, self.last_epoch) == (other.epoch, other.offset, other.last_epoch)
    }
}

/// What a leader says to a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum FetchVerdict {
    /// The leader's log begins with the follower's. Records from the position's offset on come with this, if there are
    /// any.
    Matches {
        /// The leader's.
        high_watermark: Offset,
        /// The first offset of the leader's log.
        start: Offset,
    },
    /// The logs part: of what the leader knows, `epoch` is the largest epoch that is not above the follower's last one,
    /// and it ends at `end` (KIP-279).
    Diverges {
        /// The epoch.
        epoch: LeaderEpoch,
        /// The offset after its last record.
        end: Offset,
    },
    /// The leader's log has nothing at that offset.
    OutOfRange {
        /// The first offset of the leader's log.
        start: Offset,
        /// Its end.
        end: Offset,
    },
    /// Nobody is served.
    Refused(FetchRefusal),
}

/// Why a follower is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Error)]
pub enum FetchRefusal {
    /// This replica does not lead the partition, or not any more, or its storage has failed.
    #[error("this replica does not lead the partition")]
    NotLeader,
    /// The follower follows an older epoch: it will hear of the newer one.
    #[error("the follower's leader epoch is older than the partition's")]
    FencedLeaderEpoch,
    /// The follower has heard of a newer epoch than this leader.
    #[error("the follower's leader epoch is newer than the leader's")]
    UnknownLeaderEpoch,
    /// The follower has registered anew: this is from its former self (KIP-903).
    #[error("the follower's broker epoch is older than the one it has now")]
    FencedBrokerEpoch,
    /// The partition has no replica on that broker, as far as the leader knows.
    #[error("the broker holds no replica of the partition")]
    NotAReplica,
    /// No follower can stand there.
    #[error("the position makes no sense")]
    Senseless,
}

/// A follower's request to the broker that leads these partitions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchRequest {
    /// The follower.
    pub from: BrokerId,
    /// As registered: fences its former self (contract 11).
    pub broker_epoch: i64,
    /// How long the answer may wait for records.
    pub wait_ms_max: u32,
    /// About how many bytes the answer may have.
    pub bytes_max: u32,
    /// The follower's positions.
    pub partitions: Vec<PartitionFetch>,
}

/// One partition of a [`FetchRequest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionFetch {
    /// Which.
    pub log: LogId,
    /// Where the follower stands.
    pub position: FetchPosition,
}

/// The answer to a [`FetchRequest`]: what has nothing to say is left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchAnswer {
    /// The leader.
    pub from: BrokerId,
    /// Partition by partition.
    pub partitions: Vec<PartitionAnswer>,
}

/// One partition of a [`FetchAnswer`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionAnswer {
    /// Which.
    pub log: LogId,
    /// The position that is answered.
    pub position: FetchPosition,
    /// What the leader says to it.
    pub verdict: FetchVerdict,
    /// Whole record batches, the first one at the position's offset; none unless the logs match.
    pub records: Vec<Bytes>,
}

/// A follower says how far it is durable, while its fetch waits for an answer (contract 2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgressReport {
    /// The follower.
    pub from: BrokerId,
    /// As registered.
    pub broker_epoch: i64,
    /// Partition by partition.
    pub partitions: Vec<Progress>,
}

/// One partition of a [`ProgressReport`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Progress {
    /// Which.
    pub log: LogId,
    /// The leader epoch that the follower follows.
    pub epoch: LeaderEpoch,
    /// Its durable end. It speaks of this epoch only once an answer has said that the logs match.
    pub durable_end: Offset,
}
