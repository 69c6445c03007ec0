use super::*;

const LIMITS: FrameLimits = FrameLimits { head_bytes_max: 64, tail_bytes_max: 100 };

fn frame(head: &str, tail: &[u8]) -> Vec<u8> {
    [&begin(head, tail.len(), LIMITS).unwrap()[..], tail].concat()
}

fn taken(progress: Progress) -> (String, Bytes) {
    match progress {
        Progress::Frame { head, tail } => (internal::decode(&head, 64).unwrap(), tail),
        Progress::Missing(bytes) => panic!("{bytes} bytes are missing"),
    }
}

#[test]
fn frames_come_back_as_they_went_however_they_are_cut() {
    let sent = [("one", &b"records"[..]), ("", b""), ("three", &[7; 100])];
    let bytes: Vec<u8> = sent.iter().flat_map(|(head, tail)| frame(head, tail)).collect();
    for step in 1..bytes.len() {
        let (mut received, mut found) = (BytesMut::new(), Vec::new());
        for piece in bytes.chunks(step) {
            received.extend_from_slice(piece);
            while let progress @ Progress::Frame { .. } = take(&mut received, LIMITS).unwrap() {
                found.push(taken(progress));
            }
        }
        let expected: Vec<(String, Bytes)> =
            sent.iter().map(|(head, tail)| ((*head).to_owned(), Bytes::copy_from_slice(tail))).collect();
        assert_eq!(found, expected);
        assert!(received.is_empty());
    }
}

#[test]
fn the_bytes_that_are_missing_are_named_exactly_once_the_lengths_are_known() {
    let bytes = frame("head", b"tail");
    for end in 0..bytes.len() {
        let known = if end < HEADER_BYTES { HEADER_BYTES } else { bytes.len() };
        let mut received = BytesMut::from(&bytes[..end]);
        assert_eq!(take(&mut received, LIMITS), Ok(Progress::Missing(known - end)));
        assert_eq!(received.len(), end, "nothing is taken off");
    }
}

#[test]
fn any_flipped_bit_before_the_tail_is_found() {
    let bytes = frame("who leads", b"a batch");
    for bit in 0..(bytes.len() - 7) * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let mut received = BytesMut::from(&flipped[..]);
        // A length that has grown waits for bytes that never come.
        let outcome = take(&mut received, LIMITS);
        assert!(matches!(outcome, Err(_) | Ok(Progress::Missing(_))), "bit {bit}: {outcome:?}");
    }
}

#[test]
fn lengths_above_the_limits_are_refused_by_both_sides() {
    let long = "x".repeat(64);
    assert_eq!(begin(&long, 0, LIMITS), Err(PeerFrameError::TooLarge { part: "head", bytes: 65, limit: 64 }));
    assert!(matches!(begin("", 101, LIMITS), Err(PeerFrameError::TooLarge { part: "tail", .. })));
    for foreign in [&b"GET / HTTP/1.1\r\n"[..], b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\0"] {
        let outcome = take(&mut BytesMut::from(foreign), LIMITS);
        assert!(matches!(outcome, Err(PeerFrameError::TooLarge { .. })), "{outcome:?}");
    }
}

/// What nodes of different builds say to each other: change it only with a new version of the handshake.
#[test]
fn the_bytes_of_a_frame_are_frozen() {
    let expected = b"\0\0\0\x05\0\0\0\x03\x1c\xfe\x70\x28\x04headabc";
    assert_eq!(frame("head", b"abc"), expected);
}
