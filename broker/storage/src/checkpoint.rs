//! The checkpoint: each log's durable state at one moment, and the journal's round from which replay goes on.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use uuid::Uuid;
use weir_protocol::partition::producers::{BATCHES_KEPT, Kept, Producer, Producers};
use weir_protocol::types::{FolderId, LogId, Offset, TopicId};

use crate::blob::{self, BlobError, Kind};
use crate::catalog::{Catalog, LogState, Tail};
use crate::journal::Compacted;
use weir_protocol::partition::epochs::EpochHistory;

/// Version 2 has each log's producers, version 3 how far it was compacted.
pub(crate) const KIND: Kind = Kind { magic: *b"WEIRchk\n", version: 3 };
const VERSION_OF_PRODUCERS: u16 = 2;
const VERSION_OF_COMPACTION: u16 = 3;
/// No folder has more than a few hundred thousand logs.
pub(crate) const LEN_MAX: usize = 1 << 30;

const OS: u8 = 1;
/// Of versions before that of compaction: offsets may have gaps anywhere.
const GAPS: u8 = 2;
const TAIL_AT_LEAST: u8 = 4;
const TAIL_UNKNOWN: u8 = 8;
const REBUILD: u8 = 16;
const TAIL_DAMAGED: u8 = 32;
/// Bytes of a log without its epochs.
const LOG_BYTES: usize = 16 + 4 + 1 + 5 * 8 + 4;
const HEAD_BYTES: usize = 16 + 8 + 1 + 4;
const EPOCH_BYTES: usize = 4 + 8;
/// Bytes of a producer without its batches.
const PRODUCER_BYTES: usize = 8 + 2 + 4 + 8 + 8 + 1;
const KEPT_BYTES: usize = 2 * 4 + 2 * 8;

/// What a checkpoint file says.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    pub(crate) folder: FolderId,
    /// The first round of the journal whose effects are not in here.
    pub(crate) replay_from: u64,
    /// Whether recovery once could not tell the logs' ends for certain, and nobody has settled that since.
    pub(crate) uncertain: bool,
    pub(crate) logs: Vec<(LogId, LogState)>,
}

/// A checkpoint file of the catalog as it stands. `now_ms` is the monotonic clock that producers' times are told by.
pub(crate) fn encode(
    folder: FolderId,
    replay_from: u64,
    uncertain: bool,
    catalog: &Catalog,
    now_ms: i64,
) -> Bytes {
    let mut out = BytesMut::with_capacity(HEAD_BYTES + catalog.len() * (LOG_BYTES + 2 * EPOCH_BYTES));
    out.put_slice(folder.0.as_bytes());
    out.put_u64_le(replay_from);
    out.put_u8(u8::from(uncertain));
    out.put_u32_le(catalog.len() as u32);
    for slot in catalog.iter() {
        put_log(&mut out, slot.log, &slot.state, now_ms);
    }
    blob::seal(KIND, &out)
}

fn put_log(out: &mut BytesMut, log: LogId, state: &LogState, now_ms: i64) {
    let tail = match state.tail {
        Tail::Known => 0,
        Tail::AtLeast => TAIL_AT_LEAST,
        Tail::Damaged => TAIL_DAMAGED,
        Tail::Unknown => TAIL_UNKNOWN,
    };
    out.put_slice(log.topic.0.as_bytes());
    out.put_i32_le(log.partition);
    let flag = |is_set, bit| if is_set { bit } else { 0 };
    out.put_u8(tail | flag(state.os, OS) | flag(state.rebuild, REBUILD));
    out.put_i64_le(state.start);
    out.put_i64_le(state.end);
    out.put_i64_le(state.segment_base);
    out.put_u64_le(state.position);
    out.put_i64_le(state.end_at_least);
    out.put_u32_le(state.epochs.entries().len() as u32);
    for entry in state.epochs.entries() {
        out.put_i32_le(entry.epoch);
        out.put_i64_le(entry.start);
    }
    put_producers(out, &state.producers, now_ms);
    out.put_i64_le(state.compacted.to);
    out.put_i64_le(state.compacted.gaps_below);
    out.put_i64_le(state.compacted.deletions_forgotten_to);
}

/// A producer's time is told as how long it was idle for: clocks differ between processes.
fn put_producers(out: &mut BytesMut, producers: &Producers, now_ms: i64) {
    out.put_u32_le(producers.len() as u32);
    for (id, producer) in producers.iter() {
        out.put_i64_le(id);
        out.put_i16_le(producer.epoch);
        out.put_i32_le(producer.next_sequence);
        out.put_i64_le(now_ms.saturating_sub(producer.used_ms));
        out.put_i64_le(producer.max_timestamp_ms);
        out.put_u8(producer.kept.len() as u8);
        for kept in &producer.kept {
            out.put_i32_le(kept.first_sequence);
            out.put_i32_le(kept.last_sequence);
            out.put_i64_le(kept.base_offset);
            out.put_i64_le(kept.next_offset);
        }
    }
}

/// Reads a checkpoint file, at `now_ms` of the monotonic clock.
pub(crate) fn decode(bytes: &Bytes, now_ms: i64) -> Result<Checkpoint, BlobError> {
    let (version, mut content) = blob::open(KIND, bytes)?;
    let short = || BlobError::Damaged("it is too short, or contradicts itself".to_owned());
    if content.remaining() < HEAD_BYTES {
        return Err(short());
    }
    let folder = FolderId(take_uuid(&mut content));
    let replay_from = content.get_u64_le();
    let uncertain = content.get_u8() != 0;
    let count = content.get_u32_le() as usize;
    let mut logs = Vec::with_capacity(count.min(content.remaining() / LOG_BYTES));
    for _ in 0..count {
        logs.push(take_log(&mut content, version, now_ms).ok_or_else(short)?);
    }
    Ok(Checkpoint { folder, replay_from, uncertain, logs })
}

fn take_uuid(content: &mut Bytes) -> Uuid {
    let mut id = [0; 16];
    content.copy_to_slice(&mut id);
    Uuid::from_bytes(id)
}

fn take_log(content: &mut Bytes, version: u16, now_ms: i64) -> Option<(LogId, LogState)> {
    if content.remaining() < LOG_BYTES {
        return None;
    }
    let log = LogId::new(TopicId(take_uuid(content)), content.get_i32_le());
    let flags = content.get_u8();
    let mut state = LogState {
        os: flags & OS != 0,
        start: content.get_i64_le(),
        end: content.get_i64_le(),
        segment_base: content.get_i64_le(),
        position: content.get_u64_le(),
        end_at_least: content.get_i64_le(),
        epochs: EpochHistory::new(),
        producers: Producers::default(),
        compacted: Compacted::default(),
        rebuild: flags & REBUILD != 0,
        tail: match flags & (TAIL_AT_LEAST | TAIL_DAMAGED | TAIL_UNKNOWN) {
            0 => Tail::Known,
            TAIL_AT_LEAST => Tail::AtLeast,
            TAIL_DAMAGED => Tail::Damaged,
            _ => Tail::Unknown,
        },
    };
    // A log that contradicts itself is none that was written: better to rebuild than to go on from it.
    // Only a known end has the start below it.
    if state.start < 0 || state.end < 0 || state.tail == Tail::Known && state.end < state.start {
        return None;
    }
    let epochs = content.get_u32_le() as usize;
    if content.remaining() < epochs.checked_mul(EPOCH_BYTES)? {
        return None;
    }
    for _ in 0..epochs {
        let epoch = content.get_i32_le();
        state.epochs.begin(epoch, content.get_i64_le());
    }
    if version >= VERSION_OF_PRODUCERS {
        state.producers = take_producers(content, now_ms)?;
    }
    if version >= VERSION_OF_COMPACTION {
        state.compacted.to = content.try_get_i64_le().ok()?;
        state.compacted.gaps_below = content.try_get_i64_le().ok()?;
        state.compacted.deletions_forgotten_to = content.try_get_i64_le().ok()?;
    } else if flags & GAPS != 0 {
        state.compacted.gaps_below = Offset::MAX;
    }
    Some((log, state))
}

fn take_producers(content: &mut Bytes, now_ms: i64) -> Option<Producers> {
    let mut producers = Producers::default();
    for _ in 0..content.try_get_u32_le().ok()? {
        if content.remaining() < PRODUCER_BYTES {
            return None;
        }
        let id = content.get_i64_le();
        let mut producer = Producer {
            epoch: content.get_i16_le(),
            next_sequence: content.get_i32_le(),
            used_ms: now_ms.saturating_sub(content.get_i64_le()),
            max_timestamp_ms: content.get_i64_le(),
            kept: Vec::new(),
        };
        let kept = usize::from(content.get_u8());
        if kept > BATCHES_KEPT || content.remaining() < kept * KEPT_BYTES {
            return None;
        }
        for _ in 0..kept {
            producer.kept.push(Kept {
                first_sequence: content.get_i32_le(),
                last_sequence: content.get_i32_le(),
                base_offset: content.get_i64_le(),
                next_offset: content.get_i64_le(),
            });
        }
        producers.restore(id, producer);
    }
    // As with the log itself: what contradicts itself was not written.
    producers.invariants(Offset::MAX).is_ok().then_some(producers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_read_back() {
        let mut catalog = Catalog::default();
        for number in 0..4u8 {
            let slot = catalog.ensure(LogId::new(TopicId(Uuid::from_u128(5)), i32::from(number)));
            let state = &mut catalog.get_mut(slot).unwrap().state;
            state.os = number == 1;
            state.tail = [Tail::Known, Tail::AtLeast, Tail::Damaged, Tail::Unknown][usize::from(number)];
            state.rebuild = number == 0;
            (state.start, state.end, state.segment_base, state.position) = (3, 90, 60, 4711);
            state.end_at_least = 95;
            state.compacted = Compacted { to: 40, gaps_below: 45, deletions_forgotten_to: i64::from(number) };
            state.epochs.begin(1, 3);
            state.epochs.begin(i32::from(number) + 2, 50);
            for producer in 0..i32::from(number) {
                let kept = (0..producer).map(|batch| Kept {
                    first_sequence: 5 * batch,
                    last_sequence: 5 * batch + 4,
                    base_offset: 70 + 5 * i64::from(batch),
                    next_offset: 75 + 5 * i64::from(batch),
                });
                let producer_state = Producer {
                    epoch: 3,
                    next_sequence: 5 * producer,
                    used_ms: 700,
                    max_timestamp_ms: 5,
                    kept: kept.collect(),
                };
                state.producers.restore(producer.into(), producer_state);
            }
        }
        let folder = FolderId(Uuid::from_u128(9));
        let read = decode(&encode(folder, 17, true, &catalog, 1_000), 1_000).unwrap();
        assert_eq!((read.folder, read.replay_from, read.uncertain), (folder, 17, true));
        let expected: Vec<_> = catalog.iter().map(|slot| (slot.log, slot.state.clone())).collect();
        assert_eq!(read.logs, expected);
    }

    #[test]
    fn counts_that_lie_are_damage_and_no_allocation() {
        let mut content = vec![0; 25];
        content.extend_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(decode(&blob::seal(KIND, &content), 0), Err(BlobError::Damaged(_))));
    }
}
