//! What a follower takes from its leader, and what it does not.

use bytes::BytesMut;
use uuid::Uuid;
use weir_protocol::partition::replication::FetchVerdict;
use weir_protocol::types::TopicId;
use weir_wire::codec::Compression;
use weir_wire::records::BatchBuilder;

use super::*;

/// Batches of three records, from `base` on, in epoch 4.
fn batches(base: Offset, count: i64) -> Bytes {
    let mut bytes = BytesMut::new();
    for number in 0..count {
        let mut builder = BatchBuilder::new(Compression::None).at(base + 3 * number, 4);
        for _ in 0..3 {
            builder.push(1_000, None, Some(b"a record's value"), &[]).unwrap();
        }
        bytes.extend_from_slice(&builder.finish().unwrap());
    }
    bytes.freeze()
}

/// What a leader of epoch 9 says to a follower whose log ends at 7.
fn answer(records: &Bytes) -> Answer {
    Answer {
        log: LogId::new(TopicId(Uuid::from_u128(1)), 0),
        position: FetchPosition { epoch: 9, offset: 7, last_epoch: 2, durable_end: 7 },
        verdict: FetchVerdict::Matches { high_watermark: 7, start: 0 },
        deletions_forgotten_to: 0,
        records_bytes: records.len() as u32,
        outside_crc: outside_crc(std::slice::from_ref(records)),
    }
}

#[test]
fn whole_answers_are_taken_whatever_their_chunks() {
    let records = batches(7, 3);
    let checked = check(&answer(&records), &mut records.clone(), 1 << 20).unwrap();
    assert_eq!(checked.fetched.end, 16);
    assert_eq!(checked.fetched.epochs, [EpochEntry { epoch: 4, start: 7 }]);
    for chunk_bytes in 1..records.len() {
        let chunks: Vec<Bytes> = records.chunks(chunk_bytes).map(Bytes::copy_from_slice).collect();
        assert_eq!(outside_crc(&chunks), answer(&records).outside_crc);
    }
}

#[test]
fn no_flipped_bit_reaches_a_log() {
    let records = batches(7, 2);
    for bit in 0..records.len() * 8 {
        let mut flipped = BytesMut::from(&records[..]);
        flipped[bit / 8] ^= 1 << (bit % 8);
        let refused = check(&answer(&records), &mut flipped.freeze(), 1 << 20);
        assert!(refused.is_err(), "bit {bit}: {refused:?}");
    }
}

#[test]
fn another_epoch_that_would_be_sensible_is_not_taken_either() {
    let records = batches(7, 1);
    let mut other = BytesMut::from(&records[..]);
    other[12..16].copy_from_slice(&5_i32.to_be_bytes());
    let refused = check(&answer(&records), &mut other.freeze(), 1 << 20);
    assert!(matches!(refused, Err(BadAnswer::Checksum { .. })), "{refused:?}");
}
