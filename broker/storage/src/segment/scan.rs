//! Building an index from a segment's batches: what recovery does where an index is missing, wrong or too short.

use std::ops::Range;
use std::sync::Arc;

use weir_protocol::partition::producers::ProducerBatch;
use weir_protocol::types::{LeaderEpoch, Offset};
use weir_runtime::disk::{BatchError, Disk, File};

use super::cursor::{Cursor, Span, Step};
use super::index::{IndexData, Noted};
use crate::append::producer_batch;
use weir_protocol::partition::epochs::EpochHistory;

/// What a scan found.
#[derive(Debug)]
pub(crate) struct Scanned {
    /// The index. It covers the segment up to the last valid batch.
    pub(crate) index: IndexData,
    /// Ranges of offsets whose records are damaged or missing.
    pub(crate) damaged: Vec<Range<Offset>>,
    /// Leader epochs in the order of the batches, with the first offset of each.
    pub(crate) epochs: Vec<(LeaderEpoch, Offset)>,
    /// The batches that have a producer.
    pub(crate) producers: Vec<ProducerBatch>,
}

/// What is scanned.
pub(crate) struct ScanRange {
    /// What is known already; the scan goes on where it ends.
    pub(crate) known: IndexData,
    /// Bytes of the segment that belong to the log, or may.
    pub(crate) limit: u64,
    /// The offset after the last record below `limit`, if it is known.
    pub(crate) end: Option<Offset>,
    /// Below, offsets may have gaps.
    pub(crate) gaps_below: Offset,
    pub(crate) epochs: Option<Arc<EpochHistory>>,
    /// No batch has a lower epoch, and epochs do not fall: what does not fit was left over from before a cut. Not looked at if the
    /// epochs are known.
    pub(crate) epoch_min: Option<LeaderEpoch>,
    pub(crate) interval_bytes: u32,
    /// Whether the first thing that is no batch is the end: a torn tail, and no damage.
    pub(crate) may_be_torn: bool,
}

/// Walks over a segment and extends its index.
pub(crate) async fn scan(disk: &Disk, file: File, range: ScanRange) -> Result<Scanned, BatchError> {
    let ScanRange { known, limit, end, gaps_below, epochs, epoch_min, interval_bytes, may_be_torn } = range;
    let span = Span { position: known.covered, offset: known.next_offset, limit, end, gaps_below, epochs };
    let mut cursor = Cursor::new(disk, file, span);
    let mut epoch_min = epoch_min.unwrap_or(LeaderEpoch::MIN);
    let mut found = Scanned { index: known, damaged: Vec::new(), epochs: Vec::new(), producers: Vec::new() };
    loop {
        match cursor.step().await? {
            Step::Batch { header, .. } if may_be_torn && header.leader_epoch < epoch_min => return Ok(found),
            Step::Batch { header, position, .. } => {
                epoch_min = epoch_min.max(header.leader_epoch);
                let noted = Noted {
                    base_offset: header.base_offset,
                    next_offset: header.next_offset(),
                    position,
                    bytes: header.size_bytes() as u64,
                    max_timestamp_ms: header.max_timestamp_ms,
                };
                found.index.note(noted, interval_bytes);
                found.producers.extend(producer_batch(&header));
                if found.epochs.last().is_none_or(|(epoch, _)| *epoch != header.leader_epoch) {
                    found.epochs.push((header.leader_epoch, header.base_offset));
                }
            }
            Step::Damage(_) if may_be_torn => return Ok(found),
            Step::Damage(range) => match found.damaged.last_mut() {
                Some(last) if last.end == range.start => last.end = range.end,
                _ => found.damaged.push(range),
            },
            Step::End => return Ok(found),
        }
    }
}
