//! From the bytes of a fetch answer to records, with every checksum verified.

use std::collections::{BTreeSet, VecDeque};

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
    /// The leader epoch of the last batch, which may have no records left: the log is compared with it (KIP-320).
    pub(super) last_epoch: Option<i32>,
    /// Why it ends there, where it should not: an offset and a reason.
    pub(super) corrupt: Option<(i64, String)>,
}

/// A transaction whose records a reader of committed ones does not see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Aborted {
    pub(super) first_offset: i64,
    pub(super) producer_id: i64,
}

/// Decodes what was fetched from `position` on. A last batch that is cut off is left for the next fetch. Markers of
/// transactions are passed over, and so are the records of those in `aborted`, which is sorted by first offset.
pub(super) fn decode(
    position: i64,
    bytes: Bytes,
    decompressed_bytes_max: usize,
    aborted: Vec<Aborted>,
) -> Decoded {
    let mut decoded = Decoded { next: position, ..Decoded::default() };
    let mut first = true;
    let mut passed_over = PassedOver { aborted: aborted.into(), open: BTreeSet::new() };
    for batch in batches(bytes) {
        let taken = match batch {
            Ok(batch) if passed_over.contains(&batch) => batch.verify_crc().map(|()| decoded.pass(&batch)),
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

impl Decoded {
    /// What comes next lies behind this batch.
    fn pass(&mut self, batch: &Batch) {
        self.next = self.next.max(batch.header.next_offset());
        self.last_epoch = Some(batch.header.leader_epoch).filter(|epoch| *epoch >= 0).or(self.last_epoch);
    }
}

/// Follows a log and says which batches belong to aborted transactions.
struct PassedOver {
    /// Those that have not begun yet.
    aborted: VecDeque<Aborted>,
    /// Producers whose aborted transaction has begun and not ended.
    open: BTreeSet<i64>,
}

impl PassedOver {
    fn contains(&mut self, batch: &Batch) -> bool {
        while let Some(next) = self.aborted.front()
            && next.first_offset <= batch.header.last_offset()
        {
            self.open.insert(next.producer_id);
            self.aborted.pop_front();
        }
        if batch.header.is_control() {
            // Whichever marker it is: the transaction ends here.
            self.open.remove(&batch.header.producer_id);
            return false;
        }
        batch.header.is_transactional() && self.open.contains(&batch.header.producer_id)
    }
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
    decoded.pass(batch);
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
