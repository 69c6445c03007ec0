//! From the bytes of a fetch answer to records, with every checksum verified.

use std::collections::VecDeque;

use bytes::Bytes;
use weir_wire::records::{Batch, BatchError, Record, Records, batches};

use super::ConsumerRecord;

/// What the bytes hold.
#[derive(Debug, Default)]
pub(super) struct Decoded {
    /// The records from the position on.
    pub(super) records: VecDeque<ConsumerRecord>,
    /// The position behind all that could be read.
    pub(super) next: i64,
    /// Why it ends there, where it should not: an offset and a reason.
    pub(super) corrupt: Option<(i64, String)>,
}

/// Decodes what was fetched from `position` on. A last batch that is cut off is left for the next fetch. Markers of
/// transactions are passed over.
pub(super) fn decode(position: i64, bytes: Bytes, decompressed_bytes_max: usize) -> Decoded {
    let mut decoded = Decoded { next: position, ..Decoded::default() };
    let mut first = true;
    for batch in batches(bytes) {
        let taken = match batch {
            Ok(batch) if batch.header.last_offset() < decoded.next => continue,
            Ok(batch) => take_batch(&mut decoded, &batch, decompressed_bytes_max),
            // The first batch always comes whole (K6).
            Err(BatchError::Truncated { .. }) if !first => return decoded,
            Err(error) => Err(error),
        };
        if let Err(error) = taken {
            decoded.corrupt = Some((decoded.next, error.to_string()));
            return decoded;
        }
        first = false;
    }
    decoded
}

/// Takes a batch in, wholly or not at all.
fn take_batch(decoded: &mut Decoded, batch: &Batch, decompressed_bytes_max: usize) -> Result<(), BatchError> {
    batch.verify_crc()?;
    if !batch.header.is_control() {
        let records = batch.records(decompressed_bytes_max)?;
        let mut taken = Vec::new();
        let mut expected = decoded.next;
        for record in &records {
            let record = record?;
            if record.offset < decoded.next {
                continue;
            }
            if record.offset < expected {
                let (index, offset_delta) =
                    (u32::try_from(taken.len()).unwrap_or(u32::MAX), record.offset_delta);
                return Err(BatchError::OffsetDelta { index, offset_delta });
            }
            expected = record.offset.saturating_add(1);
            taken.push(owned(&records, &record));
        }
        decoded.records.extend(taken);
    }
    decoded.next = batch.header.next_offset();
    Ok(())
}

fn owned(records: &Records, record: &Record<'_>) -> ConsumerRecord {
    let share = |field: &[u8]| {
        // An empty slice need not point into the payload.
        if field.is_empty() { Bytes::new() } else { records.payload().slice_ref(field) }
    };
    ConsumerRecord {
        offset: record.offset,
        timestamp_ms: record.timestamp_ms,
        key: record.key.map(share),
        value: record.value.map(share),
        headers: record.headers.map(|(key, value)| (share(key), value.map(share))).collect(),
        leader_epoch: records.header().leader_epoch,
    }
}
