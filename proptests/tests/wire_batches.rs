//! Record batches: what goes in comes out, and nothing else passes.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use weir_wire::codec::Compression;
use weir_wire::records::{
    BatchBuilder, BatchError, CRC_START, ProduceLimits, Producer, assign, batches, validate_produced,
};

const DECOMPRESSED_BYTES_MAX: usize = 1 << 20;

type Headers = Vec<(Vec<u8>, Option<Vec<u8>>)>;

#[derive(Debug, Clone, PartialEq)]
struct Record {
    timestamp_ms: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Headers,
}

fn record() -> impl Strategy<Value = Record> {
    let bytes = || vec(any::<u8>(), 0..200);
    (0..=i64::MAX, option::of(bytes()), option::of(bytes()), vec((bytes(), option::of(bytes())), 0..4))
        .prop_map(|(timestamp_ms, key, value, headers)| Record { timestamp_ms, key, value, headers })
}

fn compression() -> impl Strategy<Value = Compression> {
    proptest::sample::select(&Compression::ALL[..])
}

fn build(records: &[Record], compression: Compression, producer: Option<Producer>) -> Bytes {
    let mut builder = BatchBuilder::new(compression);
    if let Some(producer) = producer {
        builder = builder.producer(producer);
    }
    for record in records {
        let headers: Vec<_> =
            record.headers.iter().map(|(key, value)| (&key[..], value.as_deref())).collect();
        let Record { timestamp_ms, key, value, .. } = record;
        builder.push(*timestamp_ms, key.as_deref(), value.as_deref(), &headers).expect("it fits");
    }
    builder.finish().expect("there are records")
}

fn read(bytes: Bytes) -> Result<Vec<(i64, Record)>, BatchError> {
    let mut all = Vec::new();
    for batch in batches(bytes) {
        for record in &batch?.records(DECOMPRESSED_BYTES_MAX)? {
            let record = record?;
            let headers =
                record.headers.map(|(key, value)| (key.to_vec(), value.map(<[u8]>::to_vec))).collect();
            let (key, value) = (record.key.map(<[u8]>::to_vec), record.value.map(<[u8]>::to_vec));
            all.push((record.offset, Record { timestamp_ms: record.timestamp_ms, key, value, headers }));
        }
    }
    Ok(all)
}

proptest! {
    #[test]
    fn records_survive_validation_placement_and_reading(
        records in vec(record(), 1..20),
        compression in compression(),
        base_offset in 0i64..1 << 60,
        leader_epoch in 0i32..=i32::MAX,
        producer in option::of((0i64.., 0i16.., 0i32..)),
    ) {
        let producer = producer.map(|(id, epoch, base_sequence)| Producer { id, epoch, base_sequence });
        let sent = build(&records, compression, producer);
        let accepted = validate_produced(sent.clone(), &ProduceLimits::default()).expect("it is valid");
        let assigned = assign(&accepted[0], base_offset, leader_epoch, None);
        let placed = Bytes::from(assigned.chunks.concat());
        prop_assert_eq!(&placed[CRC_START..], &sent[CRC_START..]);
        let read = read(placed).expect("what was accepted can be read");
        let expected: Vec<_> = (base_offset..).zip(records).collect();
        prop_assert_eq!(read, expected);
    }

    #[test]
    fn any_flipped_bit_behind_the_length_is_refused(
        records in vec(record(), 1..4),
        compression in compression(),
        position in any::<prop::sample::Index>(),
    ) {
        let sent = build(&records, compression, None);
        // Base offset (0–7) and leader epoch (12–15) are the leader's to write.
        let bit = position.index(sent.len() * 8 - 8 * 12) + 8 * 12;
        prop_assume!(!(8 * 12..8 * 16).contains(&bit));
        let mut flipped = sent.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(validate_produced(flipped.into(), &ProduceLimits::default()).is_err());
    }

    #[test]
    fn a_changed_length_is_refused(records in vec(record(), 1..4), bit in 64usize..96) {
        let mut flipped = build(&records, Compression::None, None).to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(validate_produced(flipped.into(), &ProduceLimits::default()).is_err());
    }

    #[test]
    fn a_batch_cut_off_anywhere_is_refused(
        records in vec(record(), 1..4),
        compression in compression(),
        position in any::<prop::sample::Index>(),
    ) {
        let sent = build(&records, compression, None);
        let cut = sent.slice(..position.index(sent.len()));
        prop_assert!(validate_produced(cut.clone(), &ProduceLimits::default()).is_err());
        prop_assert!(cut.is_empty() || read(cut).is_err());
    }

    #[test]
    fn concatenated_batches_are_told_apart(
        all in vec((vec(record(), 1..4), compression()), 1..6),
    ) {
        let sent: Vec<_> = all.iter().map(|(records, compression)| build(records, *compression, None)).collect();
        let walked: Result<Vec<_>, _> = batches(sent.concat().into()).collect();
        let walked: Vec<_> = walked.expect("all are whole").into_iter().map(|batch| batch.bytes).collect();
        prop_assert_eq!(walked, sent);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..300)) {
        let _ = validate_produced(bytes.clone().into(), &ProduceLimits::default());
        let _ = read(bytes.into());
    }
}
