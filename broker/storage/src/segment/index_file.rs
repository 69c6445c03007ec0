//! The index's file: written when the segment is sealed, at checkpoints and at a clean stop, never synced, never trusted without its
//! checksum.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use weir_protocol::types::{LeaderEpoch, LogId, Offset};
use weir_runtime::disk::{BatchError, Disk, Done, Lane, Op, OpenMode};

use super::index::{IndexData, IndexEntry};
use crate::blob::{self, Kind};
use crate::layout;
use weir_protocol::partition::epochs::EpochHistory;

const KIND: Kind = Kind { magic: *b"WEIRidx\n", version: 1 };
const HEAD_BYTES: usize = 8 + 8 + 8 + 8 + 8 + 8 + 4;
const ENTRY_BYTES: usize = 4 + 4 + 8;
/// A segment is below 4 GiB, an entry stands for at least one batch of 61 bytes; far more than any index has.
const LEN_MAX: usize = 1 << 30;
const UNKNOWN: u64 = u64::MAX;
const NO_EPOCH: i64 = i64::MIN;

pub(crate) fn encode(data: &IndexData) -> Bytes {
    let mut out = BytesMut::with_capacity(HEAD_BYTES + data.entries.len() * ENTRY_BYTES);
    out.put_i64_le(data.base);
    out.put_u64_le(data.covered);
    out.put_i64_le(data.next_offset);
    out.put_i64_le(data.timestamp_bound);
    out.put_u64_le(data.largest_at.unwrap_or(UNKNOWN));
    out.put_i64_le(data.last_epoch.map_or(NO_EPOCH, i64::from));
    out.put_u32_le(data.entries.len() as u32);
    for entry in &data.entries {
        out.put_u32_le(entry.relative_offset);
        out.put_u32_le(entry.position);
        out.put_i64_le(entry.max_timestamp_before);
    }
    blob::seal(KIND, &out)
}

/// `None`: it is none of ours, damaged, or of another version. It is rebuilt then.
pub(crate) fn decode(base: Offset, bytes: &Bytes) -> Option<IndexData> {
    let (version, mut content) = blob::open(KIND, bytes).ok()?;
    if version != KIND.version || content.remaining() < HEAD_BYTES || content.get_i64_le() != base {
        return None;
    }
    let covered = content.get_u64_le();
    let next_offset = content.get_i64_le();
    let timestamp_bound = content.get_i64_le();
    let largest_at = Some(content.get_u64_le()).filter(|at| *at != UNKNOWN);
    let last_epoch = match content.get_i64_le() {
        NO_EPOCH => None,
        epoch => Some(LeaderEpoch::try_from(epoch).ok()?),
    };
    let count = content.get_u32_le() as usize;
    if content.remaining() != count.checked_mul(ENTRY_BYTES)? {
        return None;
    }
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        entries.push(IndexEntry {
            relative_offset: content.get_u32_le(),
            position: content.get_u32_le(),
            max_timestamp_before: content.get_i64_le(),
        });
    }
    let rising = entries.is_sorted_by(|a, b| {
        a.relative_offset < b.relative_offset
            && a.position < b.position
            && a.max_timestamp_before <= b.max_timestamp_before
    });
    // Nothing below may overflow: the base is what a file is called, and the checksum vouches for no sense.
    let records = next_offset.checked_sub(base).filter(|records| *records >= 0)?;
    let within = entries.last().is_none_or(|last| {
        u64::from(last.position) < covered && Offset::from(last.relative_offset) < records
    });
    (rising && within).then_some(IndexData {
        base,
        entries,
        covered,
        next_offset,
        timestamp_bound,
        largest_at,
        last_epoch,
    })
}

/// Reads a segment's index. `None` when there is none, or none that can be used for a log with these epochs.
pub(crate) async fn load(
    disk: &Disk,
    log: LogId,
    base: Offset,
    epochs: &EpochHistory,
) -> Result<Option<IndexData>, BatchError> {
    let read = disk.read_file(layout::index_file(log, base), LEN_MAX).await?;
    Ok(read.and_then(|bytes| decode(base, &bytes)).filter(|data| data.is_of(epochs)))
}

/// Writes a segment's index.
pub(crate) async fn store(disk: &Disk, log: LogId, data: &IndexData) -> Result<(), BatchError> {
    let path = layout::index_file(log, data.base);
    let mut opened = disk.submit(Lane::Pool, vec![Op::Open { path, mode: OpenMode::Create }]).await?;
    if let Some(Done::Opened { file, .. }) = opened.pop() {
        let content = encode(data);
        let batch = vec![
            Op::Truncate { file: file.clone(), len: content.len() as u64 },
            Op::Write { file, offset: 0, data: vec![content] },
        ];
        disk.submit(Lane::Pool, batch).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> IndexData {
        let entry = |relative_offset, position, max_timestamp_before| IndexEntry {
            relative_offset,
            position,
            max_timestamp_before,
        };
        IndexData {
            base: 70,
            entries: vec![entry(0, 0, i64::MIN), entry(9, 4100, 55), entry(12, 9000, 55)],
            covered: 9100,
            next_offset: 90,
            timestamp_bound: 60,
            largest_at: Some(9000),
            last_epoch: Some(4),
        }
    }

    #[test]
    fn an_index_is_read_back() {
        let unknown = IndexData { largest_at: None, ..sample() };
        for data in [sample(), unknown, IndexData::empty(70)] {
            assert_eq!(decode(70, &encode(&data)), Some(data));
        }
    }

    #[test]
    fn an_index_that_is_wrong_is_not_used() {
        assert_eq!(decode(71, &encode(&sample())), None, "another segment's");
        let mut falling = sample();
        falling.entries.swap(1, 2);
        assert_eq!(decode(70, &encode(&falling)), None);
        let mut beyond = sample();
        beyond.covered = 9000;
        assert_eq!(decode(70, &encode(&beyond)), None);
        let backwards = IndexData { next_offset: 69, ..IndexData::empty(70) };
        assert_eq!(decode(70, &encode(&backwards)), None);
        let at_the_edge = IndexData { base: Offset::MAX, ..sample() };
        assert_eq!(decode(Offset::MAX, &encode(&at_the_edge)), None);
        let sealed = encode(&sample());
        assert_eq!(decode(70, &sealed.slice(..sealed.len() - 1)), None);
    }
}
