use bytes::{BufMut, Bytes, BytesMut};

use super::{ATTRIBUTE_LOG_APPEND_TIME, Batch, BatchHeader, CRC_START, HEADER_BYTES};

/// A batch with its place in the log, as two chunks: a fresh header and the untouched rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assigned {
    /// The header as it now stands in the first chunk.
    pub header: BatchHeader,
    /// The batch, in order. Their lengths add up to `header.size_bytes()`.
    pub chunks: [Bytes; 2],
}

/// Gives a batch its base offset and leader epoch, which lie outside the CRC: 21 bytes are written anew, the rest
/// is shared with `batch`. With `log_append_time_ms` the batch gets that timestamp and type; these lie under the
/// CRC, which is recomputed (K10).
///
/// `base_offset` must not be negative and must leave room for the batch below 2^63; the log's own offsets do.
pub fn assign(
    batch: &Batch,
    base_offset: i64,
    leader_epoch: i32,
    log_append_time_ms: Option<i64>,
) -> Assigned {
    debug_assert!(base_offset >= 0);
    debug_assert_eq!(batch.bytes.len(), batch.header.size_bytes());
    let mut header = BatchHeader { base_offset, leader_epoch, ..batch.header };
    let chunks = match log_append_time_ms {
        None => {
            let mut front = BytesMut::with_capacity(HEADER_BYTES);
            header.write(&mut front);
            front.truncate(CRC_START);
            [front.freeze(), batch.bytes.slice(CRC_START..)]
        }
        Some(now_ms) => {
            header.attributes |= ATTRIBUTE_LOG_APPEND_TIME;
            header.max_timestamp_ms = now_ms;
            with_new_crc(&mut header, &batch.bytes)
        }
    };
    Assigned { header, chunks }
}

/// Writes `header` with a CRC that covers it and the records of `batch`, which are shared.
pub(super) fn with_new_crc(header: &mut BatchHeader, batch: &Bytes) -> [Bytes; 2] {
    let body = batch.slice(HEADER_BYTES..);
    let mut checked = [0; HEADER_BYTES - CRC_START];
    header.write_checked_part(&mut checked.as_mut_slice());
    header.crc = crc32c::crc32c_append(crc32c::crc32c(&checked), &body);
    let mut front = BytesMut::with_capacity(HEADER_BYTES);
    header.write(&mut front);
    debug_assert_eq!(front.len(), HEADER_BYTES);
    debug_assert!(front.remaining_mut() > 0);
    [front.freeze(), body]
}
