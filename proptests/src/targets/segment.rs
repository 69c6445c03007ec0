//! What the file of a segment feeds to the walk over its batches.

use std::ops::Range;

use bytes::Bytes;
use weir_storage::EpochHistory;
use weir_storage::parsers::{Found, Index, Known, walk};
use weir_wire::codec::Compression;
use weir_wire::records::{BatchBuilder, BatchHeader, CRC_START, batches};

use crate::crc::CASTAGNOLI;
use crate::mutate::Random;

const GAPS: u8 = 1;
const END_KNOWN: u8 = 2;
const EPOCHS_KNOWN: u8 = 4;
/// Bytes before the segment: flags, base offset, number of records.
const HEAD_BYTES: usize = 4;
/// Bytes that are read at a time: the fewest, and so many that one read is all.
const READ_BYTES: [usize; 2] = [4_096, 1 << 18];

/// Flags, base offset, number of records in two bytes, and a segment.
pub(super) fn run(input: &[u8]) {
    let Some((&[flags, base, low, high], segment)) = input.split_first_chunk::<HEAD_BYTES>() else {
        return;
    };
    let segment = Bytes::copy_from_slice(segment);
    let (base, records) = (i64::from(base), i64::from(u16::from_le_bytes([low, high])));
    let epochs = (flags & EPOCHS_KNOWN != 0).then(|| {
        let mut epochs = EpochHistory::new();
        epochs.begin(1, base);
        epochs.begin(2, base + records / 2);
        epochs
    });
    let end = (flags & END_KNOWN != 0).then_some(base + records);
    let gaps_below = if flags & GAPS != 0 { base + records / 2 } else { 0 };
    let known = Known { base, end, gaps_below, epochs, index: None };
    let found = walk(&segment, known.clone(), READ_BYTES[0]);
    check(&segment, &known, &found);
    assert_eq!(walk(&segment, known.clone(), READ_BYTES[1]), found, "the size of a read makes no difference");
    if let Some(index) = index_of(&segment, base, &found) {
        let led = walk(&segment, Known { index: Some(index), ..known }, READ_BYTES[0]);
        assert_eq!(led, found, "an index leads to where the search does");
    }
}

/// Nothing is skipped silently, nothing is served twice, and what is served is whole.
fn check(segment: &Bytes, known: &Known, found: &[Found]) {
    let (mut next, mut position) = (known.base, 0);
    for found in found {
        let offsets = match found {
            Found::Batch(offsets, place) => {
                check_batch(segment, known, offsets, place);
                assert!(place.start >= position, "each byte is of one batch");
                position = place.end;
                offsets
            }
            Found::Damage(offsets) => offsets,
        };
        assert!(offsets.start < offsets.end, "{offsets:?}");
        let is_gap = offsets.start > next && offsets.start <= known.gaps_below;
        assert!(offsets.start == next || is_gap, "{offsets:?} after {next}");
        next = offsets.end;
    }
    if let Some(end) = known.end {
        let is_gap = next < end && end <= known.gaps_below;
        assert!(next == end || is_gap, "the walk ends at {next} instead of {end}");
    }
}

fn check_batch(segment: &Bytes, known: &Known, offsets: &Range<i64>, place: &Range<u64>) {
    let bytes = segment.slice(place.start as usize..place.end as usize);
    let batch = batches(bytes).next().and_then(Result::ok).expect("a batch that was found parses");
    assert_eq!(batch.verify_crc(), Ok(()));
    assert_eq!(batch.header.base_offset..batch.header.next_offset(), *offsets);
    let epoch = known.epochs.as_ref().and_then(|epochs| epochs.epoch_at(batch.header.last_offset()));
    assert!(epoch.is_none_or(|epoch| epoch == batch.header.leader_epoch));
}

/// The index that the segment would have, if what was found stands in a row.
fn index_of(segment: &Bytes, base: i64, found: &[Found]) -> Option<Index> {
    let mut index = Index::empty(base);
    for found in found {
        let Found::Batch(offsets, place) = found else { continue };
        let (covered, _) = index.covered();
        // Damage in between: a range of bytes without records is none that can be noted.
        if place.start != covered || offsets.end - base > i64::from(u32::MAX) {
            return None;
        }
        let header = BatchHeader::parse(&segment[place.start as usize..]).ok()?;
        index.note(offsets.clone(), place.end - place.start, header.max_timestamp_ms, 100);
    }
    Some(index)
}

pub(super) fn generate(random: &mut Random) -> Vec<u8> {
    let base = random.below(100) as i64;
    let mut next = base;
    let mut segment = Vec::new();
    for number in 0..random.below(8) {
        if random.below(8) == 0 {
            next += 1 + random.below(3) as i64;
        }
        let mut builder = BatchBuilder::new(Compression::None).at(next, 1 + i32::from(number >= 4));
        for _ in 0..=random.below(3) {
            // A value that looks like a batch, at times.
            let value = match random.below(6) {
                0 => segment.clone(),
                1 => vec![2; 100],
                2 => vec![0; 5_000],
                _ => vec![number as u8; random.below(40)],
            };
            builder.push(1_700_000_000_000 + next, None, Some(&value), &[]).expect("a record fits");
            next += 1;
        }
        segment.extend_from_slice(&builder.finish().expect("a batch with records is built"));
        segment.truncate(12_000);
    }
    let records = ((next - base) as u16).to_le_bytes();
    let mut out = vec![random.below(8) as u8, base as u8, records[0], records[1]];
    out.extend_from_slice(&segment);
    out
}

/// Makes the CRC of whatever looks like a batch right.
pub(super) fn repair(input: &mut [u8]) {
    let mut at = HEAD_BYTES;
    while let Some(rest) = input.get_mut(at..).filter(|rest| !rest.is_empty()) {
        at += 1;
        let Ok(header) = BatchHeader::parse(rest) else { continue };
        let Some(batch) = rest.get_mut(..header.size_bytes()) else { continue };
        let crc = CASTAGNOLI.of(&[&batch[CRC_START..]]);
        batch[17..CRC_START].copy_from_slice(&crc.to_be_bytes());
        at += header.size_bytes() - 1;
    }
}
