//! The format: a frozen sample, and that it holds what was put in.

use bytes::Bytes;
use uuid::Uuid;
use weir_protocol::types::{LogId, TopicId};
use weir_runtime::disk::BLOCK_BYTES;

use super::resolve::resolve;
use super::scan::FileScan;
use super::writer::{Writer, WriterStart};
use super::*;

/// Rounds as version 1 of the format writes them. If this test fails, the format has changed: that needs a new version.
const SAMPLE: &[u8] = include_bytes!("../../tests/samples/journal_v1.bin");

fn sample_rounds() -> Vec<Vec<Entry>> {
    let log = |partition| {
        LogId::new(TopicId(Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10)), partition)
    };
    let append = |data: Vec<Bytes>| Entry::Append {
        log: log(1),
        leader_epoch: 5,
        base_offset: 100,
        next_offset: 103,
        segment_base: 64,
        position: 4_321,
        max_timestamp_ms: 1_700_000_000_000,
        data,
    };
    vec![
        vec![
            Entry::Create { log: log(1), start: 9, flags: 1, compacted: Compacted::default() },
            Entry::Epoch { log: log(1), epoch: 5, start: 100 },
            append(vec![Bytes::from_static(b"some "), Bytes::from_static(b"batches")]),
        ],
        vec![
            append(vec![Bytes::from((0..5_000u32).map(|n| n as u8).collect::<Vec<_>>())]),
            Entry::Truncate { log: log(2), end: 77, segment_base: 64, position: 1_000 },
        ],
        vec![Entry::StartOffset { log: log(-1), start: 70 }, Entry::Delete { log: log(3) }],
    ]
}

fn writer() -> Writer {
    let resolution = resolve(&[], Some(1));
    Writer::new(WriterStart {
        incarnation: 11,
        file_bytes: 8 * BLOCK_BYTES as u64,
        files_max: 2,
        files: &[(0, 8 * BLOCK_BYTES as u64)],
        maps: &[FileScan::new(0).finish()],
        resolution: &resolution,
        touched: None,
    })
}

fn encode_sample() -> Vec<u8> {
    let mut writer = writer();
    let mut file = Vec::new();
    for entries in sample_rounds() {
        let round = writer.begin_round(&entries).unwrap();
        assert_eq!(round.offset, file.len() as u64);
        file.extend_from_slice(round.data.as_slice());
        writer.round_done(round.data);
    }
    let seal = writer.seal().unwrap();
    file.extend_from_slice(seal.data.as_slice());
    file
}

#[test]
fn version_1_is_frozen() {
    let encoded = encode_sample();
    if std::env::var_os("WEIR_WRITE_SAMPLES").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/samples/journal_v1.bin");
        #[allow(clippy::disallowed_methods, reason = "run by hand, for a new version")]
        std::fs::write(path, &encoded).unwrap();
        return;
    }
    assert!(encoded == SAMPLE, "the bytes differ");
}

#[test]
fn the_sample_reads() {
    let mut scan = FileScan::new(0);
    scan.feed(SAMPLE).unwrap();
    let map = scan.finish();
    let offsets: Vec<u64> = map.rounds.iter().map(|round| round.offset / BLOCK_BYTES as u64).collect();
    assert_eq!(offsets, [0, 1, 3, 4]);
    assert!(map.damaged.is_empty() && map.strays.is_empty());
    for (found, mut expected) in map.rounds.iter().zip(sample_rounds()) {
        let bytes = &SAMPLE[found.offset as usize..found.end() as usize];
        let (header, round) = read_round(bytes).unwrap();
        assert_eq!(header, found.header);
        for entry in &mut expected {
            if let Entry::Append { data, .. } = entry {
                *data = vec![Bytes::from(data.concat())];
            }
        }
        assert_eq!(round.entries, expected);
    }
    let resolution = resolve(&[map], Some(2));
    assert_eq!(resolution.replay.len(), 3);
    assert_eq!(resolution.verdict.tail, Tail::Clean);
}

#[test]
fn a_flipped_bit_anywhere_in_a_block_is_seen() {
    for at in 0..BLOCK_BYTES {
        let mut block = SAMPLE[..BLOCK_BYTES].to_vec();
        block[at] ^= 1 << (at % 8);
        let parsed = Block::parse(&block);
        assert_eq!(parsed, Block::Damaged, "byte {at}");
    }
    assert_eq!(Block::parse(&[0; BLOCK_BYTES]), Block::Blank);
    assert_eq!(Block::parse(&SAMPLE[..100]), Block::Damaged);
}

#[test]
fn a_round_with_a_missing_or_exchanged_block_does_not_read() {
    let round = &SAMPLE[BLOCK_BYTES..3 * BLOCK_BYTES];
    assert!(read_round(round).is_some());
    assert!(read_round(&round[..BLOCK_BYTES]).is_none());
    assert!(read_round(&round[..100]).is_none());
    let mut exchanged = round.to_vec();
    exchanged[BLOCK_BYTES..].copy_from_slice(&SAMPLE[3 * BLOCK_BYTES..4 * BLOCK_BYTES]);
    assert!(read_round(&exchanged).is_none());
}

#[test]
fn what_a_client_sends_is_never_taken_for_a_block() {
    // A record whose bytes are a journal file, at every alignment to the blocks of the round that carries it.
    for shift in [0, 1, 16, BLOCK_BYTES - 200] {
        let mut writer = writer();
        let mut data = vec![7; shift];
        data.extend_from_slice(&SAMPLE[..4 * BLOCK_BYTES]);
        let entry = Entry::Append {
            log: LogId::METADATA,
            leader_epoch: 1,
            base_offset: 0,
            next_offset: 1,
            segment_base: 0,
            position: 0,
            max_timestamp_ms: 0,
            data: vec![data.into()],
        };
        let mut bytes = writer.begin_round(&[entry]).unwrap().data.as_slice().to_vec();
        bytes[100] ^= 1;
        let mut scan = FileScan::new(0);
        scan.feed(&bytes).unwrap();
        let map = scan.finish();
        assert!(map.rounds.is_empty(), "shifted by {shift}");
        assert!(map.strays.iter().all(|stray| stray.sequence == 1 && stray.incarnation == 11));
    }
}

#[test]
fn a_body_that_lies_about_its_entries_is_refused() {
    for claimed in [1, 2, u32::MAX] {
        assert_eq!(Body::parse(&Bytes::from_static(&[1, 0, 0, 0, 255, 255, 255, 255]), claimed), None);
        assert_eq!(Body::parse(&Bytes::from_static(&[200, 0, 0, 0, 0, 0, 0, 0]), claimed), None);
        assert_eq!(Body::parse(&Bytes::from_static(&[6, 0, 255, 255, 0, 0, 0, 0]), claimed), None);
    }
    assert_eq!(Body::parse(&Bytes::new(), 0), Some(Body::default()));
    assert_eq!(Body::parse(&Bytes::from_static(&[0]), 0), None, "nothing may be left over");
}
