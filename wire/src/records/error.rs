use crate::codec::CodecError;

/// Why bytes are not an acceptable record batch. Kafka error codes are given to these in the broker's API layer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The bytes end before the batch does. In a fetch response, the cut-off last batch.
    #[error("batch needs {needed} bytes, {available} are there")]
    Truncated {
        /// Bytes from the batch's start that it needs, as far as known.
        needed: usize,
        /// Bytes from the batch's start that there are.
        available: usize,
    },
    /// The length field cannot be right.
    #[error("batch length field {length} is impossible (at least 49)")]
    Length {
        /// The field.
        length: i32,
    },
    /// Not magic 2.
    #[error("batch has magic {found}, only 2 is supported")]
    Magic {
        /// The field.
        found: i8,
    },
    /// The CRC-32C does not match.
    #[error("batch checksum is {computed:#010x}, its header says {stored:#010x}")]
    Checksum {
        /// In the header.
        stored: u32,
        /// Of the bytes.
        computed: u32,
    },
    /// Offsets that cannot be: negative, overflowing.
    #[error("batch offsets are impossible: base {base_offset}, last delta {last_offset_delta}")]
    Offsets {
        /// Base offset.
        base_offset: i64,
        /// Last offset delta.
        last_offset_delta: i32,
    },
    /// The record count cannot be right for this batch.
    #[error("batch says {count} records, last offset delta {last_offset_delta}")]
    Count {
        /// The header's count.
        count: i32,
        /// The header's last offset delta.
        last_offset_delta: i32,
    },
    /// Attribute bits that this sender may not set, or that do not exist.
    #[error("batch attributes {attributes:#06x}: {reason}")]
    Attributes {
        /// The field.
        attributes: u16,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The codec bits name none of the five codecs.
    #[error("batch names codec {bits}, which does not exist")]
    UnknownCodec {
        /// The attribute's codec bits.
        bits: u16,
    },
    /// The producer id, epoch and sequence contradict each other.
    #[error("batch has producer id {producer_id}, epoch {producer_epoch}, sequence {base_sequence}")]
    Producer {
        /// Producer id.
        producer_id: i64,
        /// Producer epoch.
        producer_epoch: i16,
        /// Base sequence.
        base_sequence: i32,
    },
    /// A timestamp outside of what is allowed.
    #[error("record {index} has timestamp {timestamp_ms}, allowed are {min_ms} to {max_ms}")]
    Timestamp {
        /// The record's place in its batch.
        index: u32,
        /// Its timestamp.
        timestamp_ms: i64,
        /// The least allowed.
        min_ms: i64,
        /// The greatest allowed.
        max_ms: i64,
    },
    /// The batch, or what it decompresses to, is larger than allowed.
    #[error("batch of {bytes} bytes exceeds the limit of {limit}")]
    TooLarge {
        /// The batch's size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The payload does not decompress.
    #[error("batch payload: {0}")]
    Codec(#[from] CodecError),
    /// A record does not parse.
    #[error("record {index}: {reason}")]
    Record {
        /// The record's place in its batch.
        index: u32,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A record's offset delta is not its place in the batch.
    #[error("record {index} has offset delta {offset_delta}")]
    OffsetDelta {
        /// The record's place in its batch.
        index: u32,
        /// Its offset delta.
        offset_delta: i32,
    },
    /// Bytes are left behind the last record.
    #[error("{bytes} bytes behind the last of {count} records")]
    TrailingBytes {
        /// How many.
        bytes: usize,
        /// The header's count.
        count: i32,
    },
    /// A record without a key where keys are required (compacted topics).
    #[error("record {index} has no key, which this topic requires")]
    KeyMissing {
        /// The record's place in its batch.
        index: u32,
    },
    /// No batch, or more batches than one request may carry for a partition.
    #[error("{found} record batches, allowed are 1 to {limit}")]
    Batches {
        /// How many, as far as counted.
        found: usize,
        /// The limit.
        limit: usize,
    },
}
