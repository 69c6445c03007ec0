//! What a node tells whoever watches a simulation: the raw material of the invariants that no node can check alone, because they
//! speak of several nodes, or of several lives of one.

use bytes::Bytes;

use crate::raft::{Index, Term};
use crate::types::{BrokerId, LeaderEpoch, LogId, Offset};

/// Something that is the case on a node from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// A replica was opened, as its storage has it.
    Opened {
        /// Which.
        log: LogId,
        /// The offset of its first record.
        start: Offset,
        /// The offset after its last durable record.
        end: Offset,
    },
    /// A replica leads its partition.
    Leads {
        /// Which.
        log: LogId,
        /// In which leader epoch.
        epoch: LeaderEpoch,
    },
    /// A leader's high watermark has moved: consumers may see what lies below.
    HighWatermark {
        /// Whose.
        log: LogId,
        /// In which leader epoch.
        epoch: LeaderEpoch,
        /// The high watermark.
        high_watermark: Offset,
        /// Up to here records are durable on this node, as its storage says.
        durable_end: Offset,
    },
    /// A replica follows its partition's leader.
    Follows {
        /// Which.
        log: LogId,
        /// In which leader epoch.
        epoch: LeaderEpoch,
        /// Whom.
        leader: BrokerId,
    },
    /// A replica was cut, because its leader does not have what lay above.
    Truncated {
        /// Which.
        log: LogId,
        /// In which leader epoch.
        epoch: LeaderEpoch,
        /// Its end from now on.
        to: Offset,
    },
    /// A replica holds everything below durably.
    Durable {
        /// Which.
        log: LogId,
        /// The newest leader epoch that it has heard of.
        epoch: LeaderEpoch,
        /// The leader epoch of the last record below `end`; -1 if there is none.
        last_epoch: LeaderEpoch,
        /// Its durable end.
        end: Offset,
    },
    /// A leader knows who is in sync.
    InSync {
        /// Of which partition.
        log: LogId,
        /// In which leader epoch.
        epoch: LeaderEpoch,
        /// Counts the quorum's decisions about the partition.
        partition_epoch: i32,
        /// The in-sync replicas.
        isr: Vec<BrokerId>,
    },
    /// A node leads the metadata quorum.
    LeadsQuorum {
        /// In which term.
        term: Term,
    },
    /// A node knows that an entry of the metadata log is committed.
    Committed {
        /// Which.
        index: Index,
        /// The term in which it was proposed.
        term: Term,
        /// Its content.
        payload: Bytes,
    },
    /// A broker has registered itself for the time of its process.
    Registered {
        /// Which.
        broker: BrokerId,
        /// Its new epoch.
        epoch: i64,
    },
}
