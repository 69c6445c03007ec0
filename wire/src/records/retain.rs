//! A batch without some of its records, as compaction leaves it.

use bytes::{Bytes, BytesMut};

use super::{ATTRIBUTE_CODEC, ATTRIBUTE_DELETE_HORIZON, Batch, BatchBuilder, BatchError, CRC_START, Records};
use super::{HEADER_BYTES, LENGTH_OVERHEAD_BYTES, NO_TIMESTAMP};

/// What compaction makes of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Retained {
    /// It stays as it is.
    Whole,
    /// These bytes take its place. Offsets, leader epoch and producer are the same, whichever records are left.
    Part(Bytes),
    /// No record is left.
    Nothing,
}

impl Batch {
    /// The batch with those of its records for which `keep` says so, in their order. `horizon_ms` becomes its delete horizon (KIP-534),
    /// unless it has one.
    ///
    /// # Errors
    /// Those of reading a record and of the builder: a batch that was read before makes none.
    pub fn retain(
        &self,
        records: &Records,
        keep: &[bool],
        horizon_ms: Option<i64>,
    ) -> Result<Retained, BatchError> {
        let horizon_ms = horizon_ms.filter(|_| !self.header.has_delete_horizon());
        let mut builder = BatchBuilder::like(&self.header, horizon_ms)?;
        let mut headers = Vec::new();
        for (record, _) in records.iter().zip(keep).filter(|(_, stays)| **stays) {
            let record = record?;
            headers.clear();
            headers.extend(record.headers);
            builder.push_at(record.offset_delta, record.timestamp_ms, record.key, record.value, &headers)?;
        }
        if builder.count() == 0 {
            return Ok(Retained::Nothing);
        }
        if builder.count() == self.header.count as usize && horizon_ms.is_none() {
            return Ok(Retained::Whole);
        }
        Ok(Retained::Part(builder.finish_up_to(self.header.last_offset_delta)?))
    }

    /// The batch without records: its place in the log, and what its producer said, stay known. It has no timestamp, so that no search by
    /// time ends at it.
    pub fn emptied(&self) -> Bytes {
        let mut header = self.header;
        header.count = 0;
        header.length = (HEADER_BYTES - LENGTH_OVERHEAD_BYTES) as u32;
        header.attributes &= !(ATTRIBUTE_CODEC | ATTRIBUTE_DELETE_HORIZON);
        (header.base_timestamp_ms, header.max_timestamp_ms) = (NO_TIMESTAMP, NO_TIMESTAMP);
        let mut out = BytesMut::zeroed(HEADER_BYTES);
        header.write_checked_part(&mut &mut out[CRC_START..]);
        header.crc = crc32c::crc32c(&out[CRC_START..]);
        header.write(&mut &mut out[..]);
        out.freeze()
    }
}
