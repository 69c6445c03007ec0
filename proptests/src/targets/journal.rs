//! What the files of a journal feed to it.
//!
//! An input is short: how many blocks a file has, where the checkpoint ends, and then the blocks, each with its length in
//! two bytes; a block is filled up with zeros. So a mutation seldom hits nothing but padding.

use std::collections::BTreeMap;

use bytes::Bytes;
use weir_protocol::types::{LogId, TopicId};
use weir_storage::journal::block::RoundHeader;
use weir_storage::journal::resolve::{Resolution, RoundRef, Tail, resolve};
use weir_storage::journal::scan::{FileMap, FileScan};
use weir_storage::journal::writer::{LaidRound, Writer, WriterStart};
use weir_storage::journal::{Compacted, Entry, read_round};

use crate::crc::CASTAGNOLI;
use crate::mutate::Random;

const BLOCK: usize = 4096;
/// Where the payload of a block begins, and with it the header of a round.
const ROUND_HEADER_AT: usize = 48;
const BLOCKS_MAX: usize = 64;
/// The first sequence and the first incarnation that are too great to go on from: no journal gets there.
const ABSURD: u64 = 1 << 60;
/// A journal as the first version wrote it.
const SAMPLE: &[u8] = include_bytes!("../../../broker/storage/tests/samples/journal_v1.bin");

/// A journal in memory: its files, and the first sequence that its checkpoint does not cover.
struct Journal {
    images: Vec<Vec<u8>>,
    from: Option<u64>,
}

/// A journal's files.
pub(super) fn run(input: &[u8]) {
    let Some(Journal { images, from }) = expand(input) else {
        return;
    };
    check(&images, from);
}

/// Reads the files as recovery does and writes a round behind them. Panics when what comes out contradicts itself, or
/// when what was there before is gone or not reported any more.
pub fn check(images: &[Vec<u8>], from: Option<u64>) {
    let Some((maps, resolution)) = read(images, from) else {
        return;
    };
    check_laws(&resolution);
    go_on(images.to_vec(), &maps, from, &resolution);
}

fn read(images: &[Vec<u8>], from: Option<u64>) -> Option<(Vec<FileMap>, Resolution)> {
    let mut maps: Vec<FileMap> = Vec::new();
    for (number, image) in images.iter().enumerate() {
        let mut scan = FileScan::new(number as u32);
        for piece in image.chunks(3 * BLOCK) {
            scan.feed(piece).ok()?;
        }
        maps.push(scan.finish());
    }
    let resolution = resolve(&maps, from);
    for at in &resolution.replay {
        let image = &images[at.file as usize];
        // What its checksums vouch for may still be no list of entries.
        let round = read_round(&image[at.round.offset as usize..at.round.end() as usize]);
        assert!(round.is_none_or(|(header, _)| header == at.round.header));
    }
    Some((maps, resolution))
}

fn check_laws(resolution: &Resolution) {
    let verdict = &resolution.verdict;
    let sequences: Vec<u64> = resolution.replay.iter().map(|at| at.round.header.sequence).collect();
    assert!(sequences.is_sorted_by(|a, b| a < b), "in order, each once");
    let damaged: Vec<_> = verdict.damaged.iter().map(|damage| damage.sequences.clone()).collect();
    assert!(damaged.is_sorted_by(|a, b| a.end() < b.start()), "in order, each once: {damaged:?}");
    for sequence in sequences {
        assert!(sequence >= verdict.first_sequence && sequence < resolution.next_sequence);
        assert!(damaged.iter().all(|damage| !damage.contains(&sequence)), "replayed or damaged");
    }
}

/// A new incarnation writes a round: the next recovery replays it behind what was replayed before, and says again what
/// was wrong.
fn go_on(mut images: Vec<Vec<u8>>, maps: &[FileMap], from: Option<u64>, before: &Resolution) {
    if before.next_sequence >= ABSURD || before.incarnation_max >= ABSURD {
        return;
    }
    let file_bytes = images.iter().map(Vec::len).max().unwrap_or(BLOCK).max(2 * BLOCK);
    let mut writer = begin(&images, maps, before, file_bytes, images.len() + 2);
    if let Some(number) = writer.missing_file() {
        if images.len() <= number as usize {
            images.resize(number as usize + 1, vec![0; file_bytes]);
        }
        images[number as usize] = vec![0; file_bytes];
        writer.add_file(number);
    }
    let Ok(round) = writer.begin_round(&[Entry::Delete { log: log(1) }]) else {
        return;
    };
    land(&mut images, &round);
    let (_, after) = read(&images, from).expect("no file is of a later version");
    check_laws(&after);
    let last = after.replay.last().map(|at| at.round.header.sequence);
    assert_eq!(last, Some(round.sequence), "the new round counts, and is the last one");
    if from.is_some() && is_plausible(maps) {
        let kept = |round: &RoundRef| after.replay.contains(round);
        assert!(before.replay.iter().all(kept), "what was replayed is replayed again");
        for damage in &before.verdict.damaged {
            let ends = [damage.sequences.start(), damage.sequences.end()];
            let told = ends.into_iter().all(|sequence| {
                let mut damaged = after.verdict.damaged.iter();
                let mut replayed = after.replay.iter();
                damaged.any(|damage| damage.sequences.contains(sequence))
                    || replayed.any(|round| round.round.header.sequence == *sequence)
            });
            assert!(told, "{damage:?} is reported until a checkpoint covers it");
        }
        if before.verdict.tail != Tail::Clean {
            assert_ne!(after.verdict.earlier, [], "so is an uncertain tail");
        }
    }
}

/// Whether the incarnations keep the laws of an origin. A mutation whose checksums were made to fit may break them, which
/// nothing that happens to a disk does.
fn is_plausible(maps: &[FileMap]) -> bool {
    let rounds = maps.iter().flat_map(|map| &map.rounds).map(|round| {
        let RoundHeader { incarnation, sequence, origin, .. } = round.header;
        (incarnation, sequence, origin)
    });
    let strays = maps.iter().flat_map(|map| &map.strays);
    let mut all: Vec<_> =
        rounds.chain(strays.map(|stray| (stray.incarnation, stray.sequence, stray.origin))).collect();
    all.sort_by_key(|(incarnation, sequence, _)| (*incarnation, *sequence));
    all.is_sorted_by(|a, b| if a.0 == b.0 { a.2 == b.2 } else { b.2.start > a.1 })
}

fn begin(
    images: &[Vec<u8>],
    maps: &[FileMap],
    resolution: &Resolution,
    file_bytes: usize,
    files_max: usize,
) -> Writer {
    let files: Vec<_> = (0u32..).zip(images).map(|(number, image)| (number, image.len() as u64)).collect();
    let incarnation = resolution.incarnation_max + 1;
    let file_bytes = file_bytes as u64;
    Writer::new(WriterStart {
        incarnation,
        file_bytes,
        files_max,
        files: &files,
        maps,
        resolution,
        touched: None,
    })
}

fn land(images: &mut [Vec<u8>], round: &LaidRound) {
    let at = round.offset as usize;
    images[round.file as usize][at..at + round.data.len()].copy_from_slice(round.data.as_slice());
}

fn log(number: u8) -> LogId {
    LogId::new(TopicId::from_random([7; 16]).expect("not reserved"), i32::from(number))
}

/// The journal that an input means.
fn expand(input: &[u8]) -> Option<Journal> {
    let (&[blocks_per_file, from], rest) = input.split_first_chunk::<2>()?;
    let blocks_per_file = usize::from(blocks_per_file % 8) + 1;
    let mut image = Vec::new();
    for (start, len) in pieces(rest) {
        image.extend_from_slice(&rest[start..start + len]);
        image.resize(image.len().next_multiple_of(BLOCK).max(image.len() + BLOCK * usize::from(len == 0)), 0);
    }
    let images = image.chunks(blocks_per_file * BLOCK).map(<[u8]>::to_vec).collect();
    Some(Journal { images, from: from.checked_sub(1).map(|from| u64::from(from) + 1) })
}

/// Where the blocks' bytes stand, and how many there are.
fn pieces(rest: &[u8]) -> Vec<(usize, usize)> {
    let mut pieces = Vec::new();
    let mut at = 0;
    while let Some(&[low, high]) = rest[at..].first_chunk::<2>()
        && pieces.len() < BLOCKS_MAX
    {
        at += 2;
        let len = usize::from(u16::from_le_bytes([low, high])).min(BLOCK).min(rest.len() - at);
        pieces.push((at, len));
        at += len;
    }
    pieces
}

/// The input that means these blocks.
fn compact(blocks_per_file: usize, from: u8, image: &[u8]) -> Vec<u8> {
    let mut out = vec![(blocks_per_file - 1) as u8, from];
    for block in image.chunks(BLOCK).take(BLOCKS_MAX) {
        let len = block.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        out.extend_from_slice(&(len as u16).to_le_bytes());
        out.extend_from_slice(&block[..len]);
    }
    out
}

pub(super) fn generate(random: &mut Random) -> Vec<u8> {
    if random.below(8) == 0 {
        let from = random.below(4) as u8;
        return compact(1 + random.below(5), from, SAMPLE);
    }
    let blocks_per_file = 2 + random.below(4);
    let file_bytes = blocks_per_file * BLOCK;
    let start = |images: &[Vec<u8>]| {
        let (maps, resolution) = read(images, None).expect("all of this version");
        begin(images, &maps, &resolution, file_bytes, 5)
    };
    let mut images: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
    let mut writer = start(&[]);
    for number in 0..1 + random.below(10) as u8 {
        if let Some(missing) = writer.missing_file() {
            images.insert(missing, vec![0; file_bytes]);
            writer.add_file(missing);
        }
        let choice = random.below(8);
        let round = match choice {
            0 => writer.seal(),
            1 => {
                writer.release_up_to(writer.synced_end() - 1);
                None
            }
            _ => writer.begin_round(&entries(number, random)).ok(),
        };
        let mut files: Vec<Vec<u8>> = images.values().cloned().collect();
        if let Some(round) = round {
            land(&mut files, &round);
            writer.round_done(round.data);
        }
        if choice == 2 {
            writer = start(&files);
        }
        images = (0u32..).zip(files).collect();
    }
    let image: Vec<u8> = images.into_values().flatten().collect();
    compact(blocks_per_file, random.below(6) as u8, &image)
}

fn entries(number: u8, random: &mut Random) -> Vec<Entry> {
    let entry = |place: usize, random: &mut Random| {
        let (log, offset) = (log(number % 3), i64::from(number) * 10 + place as i64);
        match random.below(8) {
            0 => Entry::Truncate { log, end: offset, segment_base: 3, position: 77 },
            1 => Entry::Create {
                log,
                start: offset,
                flags: 3,
                compacted: Compacted { to: offset, ..Compacted::default() },
            },
            2 => Entry::Epoch { log, epoch: i32::from(number), start: offset },
            3 => Entry::StartOffset { log, start: offset },
            4 => Entry::Delete { log },
            _ => Entry::Append {
                log,
                leader_epoch: 1,
                base_offset: offset,
                next_offset: offset + 1,
                segment_base: 0,
                position: 100,
                max_timestamp_ms: 1_700_000_000_000,
                data: vec![Bytes::from(vec![
                    number;
                    if random.below(6) == 0 { 4_500 } else { random.below(60) }
                ])],
            },
        }
    };
    (0..random.below(3)).map(|place| entry(place, random)).collect()
}

/// Makes the checksum of each block right, those that the first block of a round has of its other blocks, and mostly the
/// one that a round has of its predecessor.
pub(super) fn repair(input: &mut [u8]) {
    let Some((_, rest)) = input.split_first_chunk_mut::<2>() else {
        return;
    };
    let pieces = pieces(rest);
    let mut previous: Option<(u64, u32)> = None;
    for (index, &(start, len)) in pieces.iter().enumerate() {
        // Shorter ones have no header of a round.
        if len < ROUND_HEADER_AT + 56 || rest[start + 7] & 127 != 1 {
            sum(&mut rest[start..start + len]);
            continue;
        }
        let block = &rest[start..start + len];
        let blocks = u32::from_le_bytes([block[52], block[53], block[54], block[55]]) as usize;
        let mut checksums = Vec::new();
        for &(start, len) in pieces.iter().take((index + blocks).min(pieces.len())).skip(index + 1) {
            checksums.extend_from_slice(&sum(&mut rest[start..start + len]).to_le_bytes());
        }
        let number = |at: usize, block: &[u8]| {
            block[at..at + 8].iter().rev().fold(0u64, |number, byte| number << 8 | u64::from(*byte))
        };
        let block = &mut rest[start..start + len];
        block[ROUND_HEADER_AT + 16..][..4].copy_from_slice(&CASTAGNOLI.of(&[&checksums]).to_le_bytes());
        let (sequence, first_of_incarnation) = (number(24, block), number(32, block));
        if let Some((_, checksum)) =
            previous.filter(|(before, _)| *before == number(72, block) && sequence != first_of_incarnation)
        {
            block[ROUND_HEADER_AT + 20..][..4].copy_from_slice(&checksum.to_le_bytes());
        }
        previous = Some((sequence, sum(block)));
    }
}

/// Writes a block's checksum, and returns it.
fn sum(block: &mut [u8]) -> u32 {
    const ZEROS: [u8; BLOCK] = [0; BLOCK];
    if block.len() < 4 {
        return 0;
    }
    let checksum = CASTAGNOLI.of(&[&block[4..], &ZEROS[block.len()..]]);
    block[..4].copy_from_slice(&checksum.to_le_bytes());
    checksum
}
