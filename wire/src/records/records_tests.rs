use bytes::Bytes;

use super::*;
use crate::codec::{CodecError, Compression};

const MIB: usize = 1 << 20;

fn three_records(compression: Compression) -> Bytes {
    let mut builder = BatchBuilder::new(compression);
    builder.push(1_000, Some(b"a"), Some(b"first"), &[(b"h", Some(b"1")), (b"h", None)]).unwrap();
    builder.push(1_005, None, Some(b"second"), &[]).unwrap();
    builder.push(1_002, Some(b""), None, &[]).unwrap();
    builder.finish().unwrap()
}

fn one_batch(bytes: Bytes) -> Batch {
    let mut all = batches(bytes);
    let batch = all.next().unwrap().unwrap();
    assert!(all.next().is_none());
    batch
}

/// Changes bytes of a batch and makes its CRC right again.
fn altered(bytes: &Bytes, at: usize, with: &[u8]) -> Bytes {
    let mut altered = bytes.to_vec();
    altered[at..at + with.len()].copy_from_slice(with);
    let crc = crc32c::crc32c(&altered[CRC_START..]);
    altered[17..21].copy_from_slice(&crc.to_be_bytes());
    altered.into()
}

fn refused(bytes: Bytes) -> BatchError {
    validate_produced(bytes, &ProduceLimits::default()).unwrap_err()
}

#[test]
fn records_come_back_as_they_were_pushed_in_every_codec() {
    for compression in Compression::ALL {
        let batch = one_batch(three_records(compression));
        batch.verify_crc().unwrap();
        assert_eq!(batch.header.compression(), Ok(compression));
        assert_eq!((batch.header.base_timestamp_ms, batch.header.max_timestamp_ms), (1_000, 1_005));
        let records = batch.records(MIB).unwrap();
        let records: Vec<_> = records.iter().map(Result::unwrap).collect();
        assert_eq!(records.len(), 3);
        assert_eq!((records[0].key, records[0].value), (Some(&b"a"[..]), Some(&b"first"[..])));
        assert_eq!((records[1].key, records[1].value), (None, Some(&b"second"[..])));
        assert_eq!((records[2].key, records[2].value), (Some(&b""[..]), None));
        assert_eq!(
            records.iter().map(|record| record.timestamp_ms).collect::<Vec<_>>(),
            [1_000, 1_005, 1_002]
        );
        assert_eq!(records.iter().map(|record| record.offset).collect::<Vec<_>>(), [0, 1, 2]);
        let headers: Vec<_> = records[0].headers.collect();
        assert_eq!(headers, [(&b"h"[..], Some(&b"1"[..])), (&b"h"[..], None)]);
        assert!(records[1].headers.is_empty());
    }
}

#[test]
fn produced_batches_pass_in_every_codec_uncopied() {
    for compression in Compression::ALL {
        let bytes = three_records(compression);
        let accepted = validate_produced(bytes.clone(), &ProduceLimits::default()).unwrap();
        assert_eq!(accepted.len(), 1);
        assert_eq!(accepted[0].bytes.as_ptr(), bytes.as_ptr());
    }
}

#[test]
fn uncompressed_records_point_into_the_batch() {
    let bytes = three_records(Compression::None);
    let records = one_batch(bytes.clone()).records(0).unwrap();
    let first = records.iter().next().unwrap().unwrap();
    let range = bytes.as_ptr_range();
    assert!(range.contains(&first.value.unwrap().as_ptr()));
    assert_eq!(records.payload().slice_ref(first.value.unwrap()), Bytes::from_static(b"first"));
}

#[test]
fn several_batches_are_walked_and_a_cut_off_one_is_named() {
    let one = three_records(Compression::None);
    let two = three_records(Compression::Zstd);
    let both = Bytes::from([&one[..], &two[..]].concat());
    assert_eq!(
        batches(both.clone()).map(Result::unwrap).map(|b| b.bytes).collect::<Vec<_>>(),
        [one.clone(), two]
    );
    let cut = both.slice(..both.len() - 1);
    let mut walk = batches(cut);
    assert!(walk.next().unwrap().is_ok());
    let (needed, available) = (both.len() - one.len(), both.len() - one.len() - 1);
    assert_eq!(walk.next(), Some(Err(BatchError::Truncated { needed, available })));
    assert_eq!(walk.next(), None);
}

#[test]
fn k10_assigning_a_place_copies_only_the_front_and_keeps_the_crc() {
    let batch = one_batch(three_records(Compression::Lz4));
    let assigned = assign(&batch, 77, 5, None);
    assert_eq!(assigned.chunks[0].len(), CRC_START);
    assert_eq!(assigned.chunks[1].as_ptr(), batch.bytes[CRC_START..].as_ptr());
    let placed = one_batch(assigned.chunks.concat().into());
    placed.verify_crc().unwrap();
    assert_eq!(placed.header, assigned.header);
    assert_eq!((placed.header.base_offset, placed.header.leader_epoch), (77, 5));
    assert_eq!((placed.header.last_offset(), placed.header.next_offset()), (79, 80));
    assert_eq!(placed.bytes[CRC_START..], batch.bytes[CRC_START..]);
}

#[test]
fn k10_log_append_time_is_written_under_a_new_crc() {
    let batch = one_batch(three_records(Compression::Gzip));
    let assigned = assign(&batch, 77, 5, Some(9_999));
    assert_eq!(assigned.chunks[1].as_ptr(), batch.bytes[HEADER_BYTES..].as_ptr());
    let placed = one_batch(assigned.chunks.concat().into());
    placed.verify_crc().unwrap();
    assert_eq!(placed.header.timestamp_type(), TimestampType::LogAppendTime);
    assert_eq!(placed.header.max_timestamp_ms, 9_999);
    let records = placed.records(MIB).unwrap();
    assert!(records.iter().all(|record| record.unwrap().timestamp_ms == 9_999));
}

#[test]
fn k10_any_flipped_bit_under_the_crc_is_refused() {
    let bytes = three_records(Compression::None);
    for bit in CRC_START * 8..bytes.len() * 8 {
        let mut flipped = bytes.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let error = refused(flipped.into());
        assert!(matches!(
            error,
            BatchError::Checksum { .. } | BatchError::Offsets { .. } | BatchError::Count { .. }
        ));
    }
}

#[test]
fn k10_wrong_magic_length_and_truncation_are_refused() {
    let bytes = three_records(Compression::None);
    let mut old = bytes.to_vec();
    old[16] = 1;
    assert_eq!(refused(old.into()), BatchError::Magic { found: 1 });
    for length in [-1i32, 0, 48] {
        let mut wrong = bytes.to_vec();
        wrong[8..12].copy_from_slice(&length.to_be_bytes());
        assert_eq!(refused(wrong.into()), BatchError::Length { length });
    }
    for end in 1..bytes.len() {
        assert!(
            matches!(refused(bytes.slice(..end)), BatchError::Truncated { available, .. } if available == end)
        );
    }
    let longer = Bytes::from([&bytes[..], b"x"].concat());
    assert_eq!(refused(longer), BatchError::Batches { found: 2, limit: 1 });
    assert_eq!(refused(Bytes::new()), BatchError::Batches { found: 0, limit: 1 });
}

#[test]
fn k10_a_count_that_is_not_the_records_is_refused() {
    let bytes = three_records(Compression::None);
    for count in [-1i32, 0, 2, 4, i32::MAX] {
        let error = refused(altered(&bytes, 57, &count.to_be_bytes()));
        assert_eq!(error, BatchError::Count { count, last_offset_delta: 2 });
    }
    // Count and last offset delta agree with each other, not with the records.
    let fewer = altered(&altered(&bytes, 57, &2i32.to_be_bytes()), 23, &1i32.to_be_bytes());
    assert!(matches!(refused(fewer), BatchError::TrailingBytes { count: 2, .. }));
    let more = altered(&altered(&bytes, 57, &4i32.to_be_bytes()), 23, &3i32.to_be_bytes());
    assert!(matches!(refused(more), BatchError::Record { index: 3, .. }));
}

#[test]
fn k10_offset_deltas_with_a_gap_are_refused() {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push_at(0, 1, None, None, &[]).unwrap();
    builder.push_at(2, 1, None, None, &[]).unwrap();
    let gap = altered(&builder.finish().unwrap(), 57, &3i32.to_be_bytes());
    assert_eq!(refused(gap), BatchError::OffsetDelta { index: 1, offset_delta: 2 });
}

#[test]
fn k10_attributes_that_producers_may_not_set_are_refused() {
    let bytes = three_records(Compression::None);
    for attributes in [1u16 << 3, 1 << 5, 1 << 6, 1 << 7, 1 << 15] {
        let error = refused(altered(&bytes, 21, &attributes.to_be_bytes()));
        assert!(matches!(error, BatchError::Attributes { attributes: found, .. } if found == attributes));
    }
    for bits in 5..=7u16 {
        let error = refused(altered(&bytes, 21, &bits.to_be_bytes()));
        assert_eq!(error, BatchError::UnknownCodec { bits });
    }
}

#[test]
fn k10_a_payload_that_is_not_of_its_codec_is_refused() {
    let bytes = three_records(Compression::None);
    for codec in &Compression::ALL[1..] {
        let error = refused(altered(&bytes, 21, &codec.bits().to_be_bytes()));
        assert!(
            matches!(error, BatchError::Codec(CodecError::Damaged { .. } | CodecError::TooLarge { .. })),
            "{error}"
        );
    }
}

#[test]
fn k10_a_batch_that_decompresses_beyond_the_bound_is_refused() {
    let limits = ProduceLimits { decompressed_bytes_max: MIB, ..ProduceLimits::default() };
    for codec in &Compression::ALL[1..] {
        let mut builder = BatchBuilder::new(*codec);
        builder.push(1, None, Some(&vec![0; 8 * MIB]), &[]).unwrap();
        let bomb = builder.finish().unwrap();
        assert!(bomb.len() < MIB);
        let error = validate_produced(bomb, &limits).unwrap_err();
        assert!(matches!(error, BatchError::Codec(CodecError::TooLarge { limit: MIB, .. })), "{error}");
    }
}

#[test]
fn k10_timestamps_outside_of_the_allowed_range_are_refused() {
    let bytes = three_records(Compression::None);
    let limits = |min, max| ProduceLimits { timestamps_ms: Some((min, max)), ..ProduceLimits::default() };
    validate_produced(bytes.clone(), &limits(1_000, 1_005)).unwrap();
    assert_eq!(
        validate_produced(bytes.clone(), &limits(1_001, 2_000)),
        Err(BatchError::Timestamp { index: 0, timestamp_ms: 1_000, min_ms: 1_001, max_ms: 2_000 })
    );
    assert!(matches!(
        validate_produced(bytes, &limits(0, 1_004)),
        Err(BatchError::Timestamp { index: 1, .. })
    ));

    let mut unset = BatchBuilder::new(Compression::None);
    unset.push(NO_TIMESTAMP, None, None, &[]).unwrap();
    let accepted = validate_produced(unset.finish().unwrap(), &limits(1_000, 1_005)).unwrap();
    assert_eq!(accepted[0].header.max_timestamp_ms, NO_TIMESTAMP);

    let mut negative = BatchBuilder::new(Compression::None);
    negative.push(-2, None, None, &[]).unwrap();
    assert!(matches!(refused(negative.finish().unwrap()), BatchError::Timestamp { timestamp_ms: -2, .. }));
}

#[test]
fn a_max_timestamp_that_lies_is_corrected_as_kafka_does() {
    let lying = altered(&three_records(Compression::None), 35, &1i64.to_be_bytes());
    let accepted = validate_produced(lying, &ProduceLimits::default()).unwrap();
    assert_eq!(accepted[0].header.max_timestamp_ms, 1_005);
    accepted[0].verify_crc().unwrap();
    assert_eq!(accepted[0].bytes, three_records(Compression::None));
}

#[test]
fn k11_a_batch_of_the_limit_passes_and_one_byte_more_does_not() {
    let bytes = three_records(Compression::None);
    let limit = |batch_bytes_max| ProduceLimits { batch_bytes_max, ..ProduceLimits::default() };
    validate_produced(bytes.clone(), &limit(bytes.len())).unwrap();
    assert_eq!(
        validate_produced(bytes.clone(), &limit(bytes.len() - 1)),
        Err(BatchError::TooLarge { bytes: bytes.len(), limit: bytes.len() - 1 })
    );
}

#[test]
fn k11_a_keyless_record_is_refused_where_keys_are_required() {
    for compression in Compression::ALL {
        let limits = ProduceLimits { require_keys: true, ..ProduceLimits::default() };
        let refused = validate_produced(three_records(compression), &limits);
        assert_eq!(refused, Err(BatchError::KeyMissing { index: 1 }));
    }
}

#[test]
fn producer_fields_must_go_together() {
    let producer = Producer { id: 9, epoch: 0, base_sequence: 0 };
    let built = |builder: BatchBuilder| {
        let mut builder = builder;
        builder.push(1, None, None, &[]).unwrap();
        builder.finish().unwrap()
    };
    let batch = |builder| validate_produced(built(builder), &ProduceLimits::default());
    let empty = || BatchBuilder::new(Compression::None);
    assert!(batch(empty().producer(producer)).is_ok());
    assert!(batch(empty().producer(producer).transactional()).unwrap()[0].header.is_transactional());
    assert!(matches!(batch(empty().transactional()), Err(BatchError::Producer { producer_id: -1, .. })));
    for wrong in [
        Producer { base_sequence: -1, ..producer },
        Producer { epoch: -1, ..producer },
        Producer { id: -2, ..producer },
    ] {
        assert!(matches!(batch(empty().producer(wrong)), Err(BatchError::Producer { .. })), "{wrong:?}");
    }
    assert!(matches!(batch(empty().control()), Err(BatchError::Attributes { .. })));
}

#[test]
fn k12_the_last_sequence_wraps_to_zero() {
    let mut header = one_batch(three_records(Compression::None)).header;
    assert_eq!(header.last_sequence(), -1);
    header.base_sequence = 10;
    assert_eq!(header.last_sequence(), 12);
    header.base_sequence = i32::MAX - 1;
    assert_eq!(header.last_sequence(), 0);
}

#[test]
fn offsets_that_overflow_are_refused() {
    let bytes = three_records(Compression::None);
    for base_offset in [-1i64, i64::MAX, i64::MAX - 2] {
        let placed = [&base_offset.to_be_bytes(), &bytes[8..]].concat();
        assert!(matches!(BatchHeader::parse(&placed), Err(BatchError::Offsets { .. })), "{base_offset}");
    }
    let last = i64::MAX - 3;
    let header = BatchHeader::parse(&[&last.to_be_bytes(), &bytes[8..]].concat()).unwrap();
    assert_eq!(header.next_offset(), i64::MAX);
}

#[test]
fn compaction_may_leave_gaps_and_the_walk_shows_them() {
    let mut builder = BatchBuilder::new(Compression::Snappy).at(100, 3);
    builder.push_at(4, 50, Some(b"k"), Some(b"v"), &[]).unwrap();
    builder.push_at(9, 40, Some(b"l"), Some(b"w"), &[]).unwrap();
    assert_eq!(
        builder.push_at(9, 40, None, None, &[]),
        Err(BatchError::OffsetDelta { index: 2, offset_delta: 9 })
    );
    let batch = one_batch(builder.finish().unwrap());
    assert_eq!((batch.header.count, batch.header.last_offset()), (2, 109));
    let records = batch.records(MIB).unwrap();
    assert_eq!(records.iter().map(|record| record.unwrap().offset).collect::<Vec<_>>(), [104, 109]);
}

#[test]
fn an_empty_batch_is_not_built() {
    assert!(matches!(BatchBuilder::new(Compression::None).finish(), Err(BatchError::Count { count: 0, .. })));
}

#[test]
fn the_bound_on_a_records_size_holds() {
    let mut builder = BatchBuilder::new(Compression::None);
    let headers: &[(&[u8], Option<&[u8]>)] = &[(b"k", Some(b"v")), (b"l", None)];
    for value in [0usize, 1, 63, 64, 8_191, 8_192, 100_000] {
        let value = vec![1; value];
        let before = builder.size_bytes();
        builder.push(i64::from(i32::MAX), Some(b"key"), Some(&value), headers).unwrap();
        let bound = BatchBuilder::record_bytes_max(Some(b"key"), Some(&value), headers);
        assert!(builder.size_bytes() - before <= bound);
    }
}

#[test]
fn numbers_of_every_length_survive_as_varints() {
    for shift in 0..64 {
        for value in [
            1i64 << shift,
            (1i64 << shift).wrapping_neg(),
            (1i64 << shift).wrapping_sub(1),
            i64::MIN,
            i64::MAX,
        ] {
            let mut bytes = Vec::new();
            varint::put_i64(&mut bytes, value);
            assert_eq!(bytes.len(), varint::len_i64(value));
            let mut rest = &bytes[..];
            assert_eq!((varint::take_i64(&mut rest), rest.len()), (Some(value), 0));
            for end in 0..bytes.len() {
                assert_eq!(varint::take_i64(&mut &bytes[..end]), None);
            }
            let short = value as i32;
            let mut bytes = Vec::new();
            varint::put_i32(&mut bytes, short);
            assert_eq!(bytes.len(), varint::len_i32(short));
            assert_eq!(varint::take_i32(&mut &bytes[..]), Some(short));
        }
    }
    assert_eq!(varint::take_i64(&mut &[0xff; 10][..]), None);
    assert_eq!(varint::take_i32(&mut &[0xff, 0xff, 0xff, 0xff, 0x1f][..]), None);
}

#[test]
fn a_batch_without_some_records_keeps_its_place_in_every_codec() {
    for compression in Compression::ALL {
        let batch = one_batch(three_records(compression));
        let records = batch.records(1 << 20).unwrap();
        assert_eq!(batch.retain(&records, &[true; 3], None).unwrap(), Retained::Whole);
        assert_eq!(batch.retain(&records, &[false; 3], Some(5)).unwrap(), Retained::Nothing);
        let Retained::Part(bytes) = batch.retain(&records, &[false, true, false], None).unwrap() else {
            panic!("a part");
        };
        let part = one_batch(bytes);
        part.verify_crc().unwrap();
        assert_eq!((part.header.next_offset(), part.header.count), (batch.header.next_offset(), 1));
        assert_eq!(part.header.compression().unwrap(), compression);
        let all: Vec<_> = records.iter().map(Result::unwrap).collect();
        let left = part.records(1 << 20).unwrap();
        let left: Vec<_> = left.iter().map(Result::unwrap).collect();
        assert_eq!((left[0].offset, left[0].timestamp_ms), (all[1].offset, all[1].timestamp_ms));
        assert_eq!((left[0].key, left[0].value), (all[1].key, all[1].value));
        assert!(left[0].headers.eq(all[1].headers));
    }
}

#[test]
fn a_delete_horizon_is_set_once_and_leaves_the_timestamps() {
    let batch = one_batch(three_records(Compression::None));
    let records = batch.records(1 << 20).unwrap();
    let Retained::Part(bytes) = batch.retain(&records, &[true; 3], Some(77)).unwrap() else {
        panic!("a part")
    };
    let marked = one_batch(bytes);
    assert!(marked.header.has_delete_horizon());
    assert_eq!(
        (marked.header.base_timestamp_ms, marked.header.max_timestamp_ms),
        (77, batch.header.max_timestamp_ms)
    );
    let again = marked.records(1 << 20).unwrap();
    let times = |records: &Records| records.iter().map(|r| r.unwrap().timestamp_ms).collect::<Vec<_>>();
    assert_eq!(times(&again), times(&records));
    assert_eq!(marked.retain(&again, &[true; 3], Some(99)).unwrap(), Retained::Whole);
    let Retained::Part(bytes) = marked.retain(&again, &[false, true, true], Some(99)).unwrap() else {
        panic!("a part");
    };
    let less = one_batch(bytes);
    assert_eq!((less.header.has_delete_horizon(), less.header.base_timestamp_ms), (true, 77));
    assert_eq!(times(&less.records(1 << 20).unwrap()), times(&records)[1..]);
}

#[test]
fn an_emptied_batch_is_whole_and_has_no_codec() {
    let batch = one_batch(three_records(Compression::Zstd));
    let emptied = one_batch(batch.emptied());
    emptied.verify_crc().unwrap();
    assert_eq!((emptied.bytes.len(), emptied.header.count), (HEADER_BYTES, 0));
    assert_eq!(emptied.header.next_offset(), batch.header.next_offset());
    assert_eq!(emptied.header.leader_epoch, batch.header.leader_epoch);
    assert_eq!(emptied.records(0).unwrap().iter().count(), 0);
}
