use super::*;

fn received(bytes: &[u8]) -> BytesMut {
    BytesMut::from(bytes)
}

#[test]
fn frames_are_taken_one_by_one_however_they_arrive() {
    let stream = b"\0\0\0\x03abc\0\0\0\0\0\0\0\x01z";
    let mut buffer = BytesMut::new();
    let mut frames = Vec::new();
    for byte in stream {
        buffer.put_u8(*byte);
        while let Progress::Frame(frame) = take_frame(&mut buffer, 3).unwrap() {
            frames.push(frame);
        }
    }
    assert_eq!(frames, [&b"abc"[..], b"", b"z"]);
    assert!(buffer.is_empty());
}

#[test]
fn what_is_missing_is_told() {
    assert_eq!(take_frame(&mut received(b""), 10), Ok(Progress::Missing(4)));
    assert_eq!(take_frame(&mut received(b"\0\0"), 10), Ok(Progress::Missing(2)));
    assert_eq!(take_frame(&mut received(b"\0\0\0\x05ab"), 10), Ok(Progress::Missing(3)));
}

#[test]
fn k23_a_length_prefix_of_2_gib_or_below_0_is_refused_without_reserving() {
    let mut buffer = received(b"\x7f\xff\xff\xff");
    let capacity = buffer.capacity();
    let refused = FrameError::Length { length: i32::MAX, limit: FRAME_BYTES_MAX };
    assert_eq!(take_frame(&mut buffer, FRAME_BYTES_MAX), Err(refused));
    assert_eq!(buffer.capacity(), capacity);
    let refused = FrameError::Length { length: -1, limit: 10 };
    assert_eq!(take_frame(&mut received(b"\xff\xff\xff\xff"), 10), Err(refused));
    assert!(take_frame(&mut received(b"\0\0\0\x0b"), 10).is_err());
}

#[test]
fn headers_of_both_versions_come_back_as_they_went() {
    for (api_key, version) in [(3, 8), (3, 9), (18, 0), (18, 3), (18, 99), (1, 11), (1, 12)] {
        for client_id in [None, Some(StrBytes::from_static_str("")), Some(StrBytes::from_static_str("me"))] {
            let header = RequestHeader { api_key, version, correlation_id: -7, client_id };
            let mut out = BytesMut::new();
            put_request_header(&mut out, &header);
            out.put_slice(b"body");
            let mut frame = out.freeze();
            assert_eq!(take_request_header(&mut frame), Ok(header));
            assert_eq!(frame, "body");
        }
    }
}

#[test]
fn k23_malformed_headers_are_refused() {
    let take = |bytes: &'static [u8]| take_request_header(&mut Bytes::from_static(bytes)).unwrap_err();
    let valid = b"\0\x03\0\x09\0\0\0\x01\0\x02me\0";
    for end in 0..valid.len() {
        let error = take_request_header(&mut Bytes::copy_from_slice(&valid[..end])).unwrap_err();
        assert!(matches!(error, FrameError::Truncated { .. } | FrameError::Header { .. }), "{error}");
    }
    let unknown = FrameError::UnknownApi { api_key: 7, version: 0, correlation_id: 5 };
    assert_eq!(take(b"\0\x07\0\0\0\0\0\x05\xff\xff"), unknown);
    assert!(matches!(take(b"\0\x03\0\0\0\0\0\x01\xff\xfe"), FrameError::Header { .. }));
    assert!(matches!(take(b"\0\x03\0\0\0\0\0\x01\0\x01\xff"), FrameError::Header { .. }));
    // A tagged field of 2^32 - 1 bytes.
    assert!(matches!(
        take(b"\0\x03\0\x09\0\0\0\x01\xff\xff\x01\0\xff\xff\xff\xff\x0f"),
        FrameError::Header { .. }
    ));
}

#[test]
fn tagged_fields_of_headers_are_skipped() {
    let mut frame = Bytes::from_static(b"\0\x03\0\x09\0\0\0\x01\xff\xff\x02\x00\x01a\x05\x02bc!");
    take_request_header(&mut frame).unwrap();
    assert_eq!(frame, "!");
    let mut frame = Bytes::from_static(b"\0\0\0\x09\x01\x00\x01a!");
    assert_eq!(take_response_header(&mut frame, 3, 9), Ok(9));
    assert_eq!(frame, "!");
}
