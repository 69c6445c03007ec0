use bytes::BufMut;

use super::{
    ATTRIBUTE_CODEC, ATTRIBUTE_CONTROL, ATTRIBUTE_DELETE_HORIZON, ATTRIBUTE_LOG_APPEND_TIME,
    ATTRIBUTE_TRANSACTIONAL, BatchError, HEADER_BYTES, LENGTH_OVERHEAD_BYTES, MAGIC,
};
use crate::codec::Compression;

/// What a batch's timestamps mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TimestampType {
    /// Set by the producer.
    CreateTime,
    /// Set by the leader when it appended; then the batch's max timestamp counts for each record.
    LogAppendTime,
}

/// The 61 bytes before a batch's records, as numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record. Invariant: `base_offset >= 0`.
    pub base_offset: i64,
    /// The batch length field: bytes after it. Invariant: at least 49, below 2^31.
    pub length: u32,
    /// Leader epoch under which the batch was appended.
    pub leader_epoch: i32,
    /// CRC-32C of everything from the attributes on.
    pub crc: u32,
    /// Codec, timestamp type, transactional, control, delete horizon.
    pub attributes: u16,
    /// Last offset less base offset. Invariant: not negative, and `base_offset + it + 1` does not overflow.
    pub last_offset_delta: i32,
    /// Timestamp that the records' deltas count from, in ms; with a delete horizon, that horizon.
    pub base_timestamp_ms: i64,
    /// Greatest timestamp in the batch, in ms.
    pub max_timestamp_ms: i64,
    /// Producer id, -1 for none.
    pub producer_id: i64,
    /// Producer epoch, -1 for none.
    pub producer_epoch: i16,
    /// Sequence number of the first record, -1 for none.
    pub base_sequence: i32,
    /// Records in the batch. Invariant: not negative (0: emptied by compaction).
    pub count: i32,
}

fn be<const N: usize>(bytes: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}

impl BatchHeader {
    /// Reads the header at the front of `bytes`, which may hold more, or less than the whole batch.
    ///
    /// # Errors
    /// `Truncated` when fewer than 61 bytes are there; `Magic`, `Length`, `Offsets`, `Count` for fields on which
    /// the methods of this type could not rely. The CRC is not looked at.
    pub fn parse(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
        let Some(bytes) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(BatchError::Truncated { needed: HEADER_BYTES, available: bytes.len() });
        };
        let magic = i8::from_be_bytes(be(bytes, 16));
        if magic != MAGIC {
            return Err(BatchError::Magic { found: magic });
        }
        let length = i32::from_be_bytes(be(bytes, 8));
        let length = match u32::try_from(length) {
            Ok(length) if length as usize >= HEADER_BYTES - LENGTH_OVERHEAD_BYTES => length,
            _ => return Err(BatchError::Length { length }),
        };
        let header = BatchHeader {
            base_offset: i64::from_be_bytes(be(bytes, 0)),
            length,
            leader_epoch: i32::from_be_bytes(be(bytes, 12)),
            crc: u32::from_be_bytes(be(bytes, 17)),
            attributes: u16::from_be_bytes(be(bytes, 21)),
            last_offset_delta: i32::from_be_bytes(be(bytes, 23)),
            base_timestamp_ms: i64::from_be_bytes(be(bytes, 27)),
            max_timestamp_ms: i64::from_be_bytes(be(bytes, 35)),
            producer_id: i64::from_be_bytes(be(bytes, 43)),
            producer_epoch: i16::from_be_bytes(be(bytes, 51)),
            base_sequence: i32::from_be_bytes(be(bytes, 53)),
            count: i32::from_be_bytes(be(bytes, 57)),
        };
        header.check_offsets()?;
        Ok(header)
    }

    fn check_offsets(&self) -> Result<(), BatchError> {
        let (base_offset, last_offset_delta) = (self.base_offset, self.last_offset_delta);
        let fits = base_offset.checked_add(i64::from(last_offset_delta)).is_some_and(|last| last < i64::MAX);
        if base_offset < 0 || last_offset_delta < 0 || !fits {
            return Err(BatchError::Offsets { base_offset, last_offset_delta });
        }
        if self.count < 0 {
            return Err(BatchError::Count { count: self.count, last_offset_delta });
        }
        Ok(())
    }

    /// Appends the 61 bytes of this header.
    pub fn write(&self, out: &mut impl BufMut) {
        out.put_i64(self.base_offset);
        out.put_u32(self.length);
        out.put_i32(self.leader_epoch);
        out.put_i8(MAGIC);
        out.put_u32(self.crc);
        self.write_checked_part(out);
    }

    /// Appends the 40 bytes of the header that the CRC covers.
    pub(super) fn write_checked_part(&self, out: &mut impl BufMut) {
        out.put_u16(self.attributes);
        out.put_i32(self.last_offset_delta);
        out.put_i64(self.base_timestamp_ms);
        out.put_i64(self.max_timestamp_ms);
        out.put_i64(self.producer_id);
        out.put_i16(self.producer_epoch);
        out.put_i32(self.base_sequence);
        out.put_i32(self.count);
    }

    /// Size of the whole batch in bytes.
    pub fn size_bytes(&self) -> usize {
        LENGTH_OVERHEAD_BYTES + self.length as usize
    }

    /// Offset of the last record (of its place, when compaction removed it).
    pub fn last_offset(&self) -> i64 {
        self.base_offset + i64::from(self.last_offset_delta)
    }

    /// The offset behind the batch.
    pub fn next_offset(&self) -> i64 {
        self.last_offset() + 1
    }

    /// Sequence number of the last record; wraps from 2^31−1 to 0 (K12). -1 when there is none.
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence < 0 {
            return -1;
        }
        let last = i64::from(self.base_sequence) + i64::from(self.last_offset_delta);
        (last & i64::from(i32::MAX)) as i32
    }

    /// Whether a producer id is set: the batch is idempotent or transactional.
    pub fn has_producer(&self) -> bool {
        self.producer_id >= 0
    }

    /// Whether the batch belongs to a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes & ATTRIBUTE_TRANSACTIONAL != 0
    }

    /// Whether the batch holds control records (transaction markers), which consumers do not see.
    pub fn is_control(&self) -> bool {
        self.attributes & ATTRIBUTE_CONTROL != 0
    }

    /// Whether the base timestamp is the delete horizon that compaction set (KIP-534).
    pub fn has_delete_horizon(&self) -> bool {
        self.attributes & ATTRIBUTE_DELETE_HORIZON != 0
    }

    /// The codec of the records.
    ///
    /// # Errors
    /// `UnknownCodec` for bits that name none.
    pub fn compression(&self) -> Result<Compression, BatchError> {
        let bits = self.attributes & ATTRIBUTE_CODEC;
        Compression::from_bits(bits).ok_or(BatchError::UnknownCodec { bits })
    }

    /// What the timestamps mean.
    pub fn timestamp_type(&self) -> TimestampType {
        if self.attributes & ATTRIBUTE_LOG_APPEND_TIME != 0 {
            TimestampType::LogAppendTime
        } else {
            TimestampType::CreateTime
        }
    }
}
