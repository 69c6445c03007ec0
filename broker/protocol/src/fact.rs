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
