//! What a shard hands to a log.

use weir_protocol::partition::producers::{Claim, ProducerBatch};
use weir_protocol::types::{LeaderEpoch, Offset};
use weir_wire::records::BatchHeader;

/// Describes an append: one or several record batches, one after the other, of one leader epoch.
///
/// The index gets at most one entry per append, so an append of many small batches makes lookups in it slower; a few hundred KiB
/// are fine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppendInfo {
    /// Of the first record. Not below the log's end, unless the log is empty and its start lies within these records; above
    /// it where the leader's log has a gap, which compaction leaves.
    pub base_offset: Offset,
    /// Of the last record.
    pub last_offset: Offset,
    /// Of all its batches. Not below the log's latest.
    pub leader_epoch: LeaderEpoch,
    /// The largest timestamp of its records; -1 without any.
    pub max_timestamp_ms: i64,
    /// Length of all chunks together.
    pub bytes: u32,
    /// Those of its batches that have a producer, in order. The log remembers them.
    pub producers: Vec<ProducerBatch>,
}

impl AppendInfo {
    /// The offset after the last record.
    pub fn next_offset(&self) -> Offset {
        self.last_offset + 1
    }
}

/// What a batch says about its producer, if it has one.
pub fn producer_batch(header: &BatchHeader) -> Option<ProducerBatch> {
    let claim = header.has_producer().then(|| Claim {
        producer: header.producer_id,
        epoch: header.producer_epoch,
        first_sequence: header.base_sequence,
        last_sequence: header.last_sequence(),
        max_timestamp_ms: header.max_timestamp_ms,
    })?;
    Some(ProducerBatch { claim, base_offset: header.base_offset, next_offset: header.next_offset() })
}
