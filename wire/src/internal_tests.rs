use std::collections::BTreeMap;

use serde::Deserialize;

use super::*;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Message {
    Vote { term: u64, candidate: i32, folder: [u8; 16] },
    Entries(Vec<(u64, Bytes)>),
    Names(BTreeMap<String, Option<i64>>),
}

const VOTE: BlobKind = BlobKind { magic: *b"WVOT", version: 3, name: "vote" };

fn messages() -> Vec<Message> {
    vec![
        Message::Vote { term: u64::MAX, candidate: -1, folder: [7; 16] },
        Message::Entries(vec![(1, Bytes::from_static(b"one")), (2, Bytes::new())]),
        Message::Names(BTreeMap::from([("a".to_owned(), None), ("b".to_owned(), Some(-5))])),
    ]
}

#[test]
fn values_come_back_as_they_went() {
    for message in messages() {
        let bytes = encode(&message).unwrap();
        assert_eq!(decode::<Message>(&bytes, 1024), Ok(message));
    }
}

#[test]
fn many_small_numbers_fit_under_the_limit_on_claims() {
    for count in [1_000usize, 100_000, 3_000_000] {
        let numbers = vec![1u64; count];
        let bytes = encode(&numbers).unwrap();
        assert_eq!(decode::<Vec<u64>>(&bytes, usize::MAX).unwrap().len(), count);
    }
}

#[test]
fn cut_off_values_and_bytes_behind_a_value_are_refused() {
    for message in messages() {
        let bytes = encode(&message).unwrap();
        for end in 0..bytes.len() {
            assert!(decode::<Message>(&bytes[..end], 1024).is_err());
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(matches!(decode::<Message>(&longer, 1024), Err(InternalError::Decode { .. })));
    }
}

#[test]
fn a_length_that_the_bytes_cannot_hold_is_refused_before_it_is_reserved() {
    // Variant 1, one entry, offset 1, then bytes of length 2^62.
    let mut lie = vec![1, 1, 1, 253];
    lie.extend_from_slice(&(1u64 << 62).to_le_bytes());
    let error = decode::<Message>(&lie, 1024).unwrap_err();
    assert!(matches!(error, InternalError::Decode { .. }), "{error}");
}

#[test]
fn an_input_above_the_callers_limit_is_refused() {
    let bytes = encode(&vec![0u8; 100]).unwrap();
    assert_eq!(
        decode::<Vec<u8>>(&bytes, 100),
        Err(InternalError::TooLarge { what: "alloc::vec::Vec<u8>", bytes: 101, limit: 100 })
    );
}

#[test]
fn a_blob_comes_back_as_it_was_sealed() {
    for payload in [&b""[..], b"x", &[0xab; 5000]] {
        let sealed = seal(&VOTE, payload);
        assert_eq!(open(&VOTE, &sealed), Ok(Blob { version: 3, payload }));
    }
}

#[test]
fn a_blob_cut_off_anywhere_is_truncated_not_damaged() {
    let sealed = seal(&VOTE, b"term 7, voted for 2");
    for end in 0..sealed.len() {
        let error = open(&VOTE, &sealed[..end]).unwrap_err();
        assert!(matches!(error, BlobError::Truncated { available, .. } if available == end), "{error}");
    }
}

#[test]
fn any_flipped_bit_is_found_and_none_looks_like_a_newer_format() {
    let sealed = seal(&VOTE, b"term 7, voted for 2");
    for bit in 0..sealed.len() * 8 {
        let mut flipped = sealed.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let error = open(&VOTE, &flipped).unwrap_err();
        // A length that grew cannot be told from a file that was cut off; both are refused.
        assert!(!matches!(error, BlobError::NewerFormat { .. }), "bit {bit}: {error}");
    }
}

#[test]
fn a_newer_format_is_named_as_such() {
    let newer = BlobKind { version: 4, ..VOTE };
    let sealed = seal(&newer, b"from the future");
    assert_eq!(open(&VOTE, &sealed), Err(BlobError::NewerFormat { name: "vote", found: 4, known: 3 }));
    let older = BlobKind { version: 2, ..VOTE };
    assert_eq!(open(&VOTE, &seal(&older, b"p")), Ok(Blob { version: 2, payload: b"p" }));
}

#[test]
fn another_kind_is_damage() {
    let other = BlobKind { magic: *b"WCKP", version: 1, name: "checkpoint" };
    assert!(matches!(open(&VOTE, &seal(&other, b"p")), Err(BlobError::Damaged { .. })));
}

/// The format of files on disk: change it only with a new version.
#[test]
fn the_bytes_of_a_blob_are_frozen() {
    let sealed = seal(&VOTE, b"abc");
    assert_eq!(&sealed[..16], b"WVOT\0\x03\0\0\0\0\0\0\0\0\0\x03");
    assert_eq!(&sealed[20..], b"abc");
    assert_eq!(u32::from_be_bytes([sealed[16], sealed[17], sealed[18], sealed[19]]), 0x7733_c5dc);
}
