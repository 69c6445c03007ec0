use super::*;

const MIB: usize = 1 << 20;

fn payloads() -> Vec<Vec<u8>> {
    let mut random = 1u64;
    let noise = (0..200_000).map(|_| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 56) as u8
    });
    vec![Vec::new(), b"x".to_vec(), vec![7; 300_000], noise.collect(), b"abcdefgh ".repeat(20_000)]
}

#[test]
fn payloads_come_back_as_they_went() {
    for codec in Compression::ALL {
        for payload in payloads() {
            let compressed = compress(codec, &payload).unwrap();
            assert_eq!(decompress(codec, &compressed, payload.len()).as_ref(), Ok(&payload), "{codec:?}");
        }
    }
}

#[test]
fn one_byte_over_the_bound_is_an_error_and_never_cut_off() {
    for codec in Compression::ALL {
        for payload in payloads().iter().filter(|payload| !payload.is_empty()) {
            let compressed = compress(codec, payload).unwrap();
            let (bytes, limit) = (compressed.len(), payload.len() - 1);
            assert_eq!(
                decompress(codec, &compressed, limit),
                Err(CodecError::TooLarge { codec, bytes, limit })
            );
        }
    }
}

#[test]
fn a_payload_cut_off_anywhere_is_damaged() {
    let payload = b"abcdefgh ".repeat(12_000);
    for codec in &Compression::ALL[1..] {
        let compressed = compress(*codec, &payload).unwrap();
        // Snappy's framing has no end mark: a cut between blocks leaves valid framing. The record count tells.
        for end in (1..compressed.len()).filter(|end| *codec != Compression::Snappy || end % 7 == 1) {
            match decompress(*codec, &compressed[..end], MIB) {
                Ok(shorter) => {
                    assert!(*codec == Compression::Snappy && shorter.len() < payload.len(), "{codec:?} {end}")
                }
                Err(error) => assert!(matches!(error, CodecError::Damaged { .. }), "{error}"),
            }
        }
    }
}

#[test]
fn bytes_behind_a_payload_are_damage() {
    for codec in &Compression::ALL[1..] {
        let mut compressed = compress(*codec, b"payload").unwrap();
        compressed.extend_from_slice(b"????");
        let error = decompress(*codec, &compressed, MIB).unwrap_err();
        assert!(matches!(error, CodecError::Damaged { .. }), "{codec:?}: {error}");
    }
}

#[test]
fn bare_snappy_blocks_are_read_and_framed_ones_are_written() {
    let payload = b"abcdefgh ".repeat(12_000);
    let bare = snap::raw::Encoder::new().compress_vec(&payload).unwrap();
    assert_eq!(decompress(Compression::Snappy, &bare, MIB).as_ref(), Ok(&payload));
    assert!(compress(Compression::Snappy, &payload).unwrap().starts_with(b"\x82SNAPPY\0"));
}

#[test]
fn a_snappy_block_that_claims_more_than_it_can_hold_reserves_nothing() {
    // A varint length of 2^32 - 1 and nothing behind it.
    let lie = [0xff, 0xff, 0xff, 0xff, 0x0f];
    let error = decompress(Compression::Snappy, &lie, usize::MAX / 2).unwrap_err();
    assert!(matches!(error, CodecError::Damaged { .. }), "{error}");
}

#[test]
fn lz4_frames_with_linked_blocks_and_checksums_are_read() {
    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
    let payload = b"abcdefgh ".repeat(50_000);
    let info = FrameInfo::new()
        .block_mode(BlockMode::Linked)
        .block_size(BlockSize::Max256KB)
        .block_checksums(true)
        .content_checksum(true)
        .content_size(Some(payload.len() as u64));
    let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
    encoder.write_all(&payload).unwrap();
    let frame = encoder.finish().unwrap();
    assert_eq!(decompress(Compression::Lz4, &frame, MIB).as_ref(), Ok(&payload));
}

#[test]
fn codecs_have_kafkas_numbers_and_names() {
    for (bits, codec) in (0u16..).zip(Compression::ALL) {
        assert_eq!((codec.bits(), Compression::from_bits(bits)), (bits, Some(codec)));
        assert_eq!(Compression::from_name(codec.name()), Some(codec));
    }
    assert_eq!(Compression::from_bits(5), None);
    assert_eq!(Compression::Zstd.name(), "zstd");
}
