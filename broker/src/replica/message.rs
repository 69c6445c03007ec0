//! What replicas say to each other over their lane. Records come behind the message, as they lie in the log.

use serde::{Deserialize, Serialize};
use weir_protocol::partition::replication::{FetchPosition, FetchVerdict, Progress};
use weir_protocol::types::{LogId, Offset};

/// What a follower says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FollowerSays {
    /// As registered: fences the follower's former self (contract 11).
    pub(crate) broker_epoch: i64,
    /// A heartbeat: the follower still stands wherever it said last, and hears something soon.
    pub(crate) beat: bool,
    /// Positions that are new, or that are to be answered once more.
    pub(crate) fetch: Vec<Named>,
    /// Partitions that the follower follows here no more.
    pub(crate) gone: Vec<LogId>,
    /// How far it is durable where nothing else has changed (contract 2).
    pub(crate) progress: Vec<Progress>,
}

/// A follower's position in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Named {
    /// Which.
    pub(crate) log: LogId,
    /// Where its log ends.
    pub(crate) position: FetchPosition,
    /// Where its log begins, as it is durable.
    pub(crate) start: Offset,
}

/// What a leader says. One without any content shows that it is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeaderSays {
    /// Partition by partition.
    pub(crate) answers: Vec<Answer>,
}

/// One partition of a [`LeaderSays`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// Which.
    pub(crate) log: LogId,
    /// The position that is answered.
    pub(crate) position: FetchPosition,
    /// What the leader says to it.
    pub(crate) verdict: FetchVerdict,
    /// Below, the leader may have forgotten deletions: a follower that ends there and holds records is fetched anew.
    pub(crate) deletions_forgotten_to: Offset,
    /// How many bytes of the records behind the message are this partition's, in the order of the answers.
    pub(crate) records_bytes: u32,
    /// The checksum over what the batches' own leave out ([`weir_wire::records::OutsideCrc`]).
    pub(crate) outside_crc: u32,
}

impl Answer {
    /// Whether the leader waits for the next position after this: the follower's log changes, or has to.
    pub(crate) fn spends(&self) -> bool {
        self.records_bytes > 0 || !matches!(self.verdict, FetchVerdict::Matches { .. })
    }
}
