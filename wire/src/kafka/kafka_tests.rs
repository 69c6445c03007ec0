use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;

use super::*;
use crate::frame::{Progress, take_frame, take_request_header};
use crate::schema::{SampleOptions, sample, shapes};

fn body(frame: &Bytes) -> Bytes {
    frame.slice(4..)
}

fn metadata(name: &'static str) -> MetadataRequest {
    let name = Some(TopicName(StrBytes::from_static_str(name)));
    MetadataRequest::default().with_topics(Some(vec![MetadataRequestTopic::default().with_name(name)]))
}

#[test]
fn a_request_comes_back_as_it_went_in_each_version() {
    let client_id = StrBytes::from_static_str("tester");
    for version in 0..=13 {
        let request = metadata("orders");
        let frame = encode_request(version, 42, Some(&client_id), &request).unwrap();
        let mut received = BytesMut::from(&frame[..]);
        let Progress::Frame(mut frame) = take_frame(&mut received, 1_000).unwrap() else {
            panic!("a whole frame is there");
        };
        let header = take_request_header(&mut frame).unwrap();
        assert_eq!((header.api_key, header.version, header.correlation_id), (3, version, 42));
        assert_eq!(header.client_id.as_ref(), Some(&client_id));
        let Request::Metadata(decoded) = decode_request(3, version, frame).unwrap() else {
            panic!("it was a metadata request");
        };
        assert_eq!(decoded.topics, request.topics);
    }
}

#[test]
fn each_api_has_a_message_for_its_shape() {
    let mut next = 0u64;
    let mut random = || {
        next = next.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        next >> 33
    };
    for shape in shapes() {
        for version in shape.request.versions.0..=shape.request.versions.1 {
            let options = SampleOptions { elements_max: 3, tagged: true };
            let bytes = sample(&shape.request, version, options, &mut random);
            let request = decode_request(shape.key, version, bytes.into()).unwrap();
            assert_eq!(request.key() as i16, shape.key);
        }
    }
}

#[test]
fn an_unknown_api_and_an_unknown_version_are_refused() {
    assert_eq!(decode_request(7, 0, Bytes::new()), Err(DecodeError::UnknownApi { api_key: 7 }));
    for version in [-1, 14] {
        let refused = decode_request(3, version, Bytes::new()).unwrap_err();
        assert_eq!(refused, DecodeError::Shape(WalkError::Version { message: "MetadataRequest", version }));
    }
}

#[test]
fn k23_a_truncated_request_is_refused_and_bytes_behind_one_are_passed_over() {
    let frame = encode_request(4, 1, None, &metadata("orders")).unwrap();
    let mut whole = body(&frame);
    take_request_header(&mut whole).unwrap();
    for end in 0..whole.len() {
        assert!(decode_request(3, 4, whole.slice(..end)).is_err());
    }
    let longer = Bytes::from([&whole[..], b"!"].concat());
    assert_eq!(decode_request(3, 4, longer), decode_request(3, 4, whole), "librdkafka sends such");
}

#[test]
fn k23_a_topic_name_that_is_not_utf8_is_refused() {
    let lie = Bytes::from_static(b"\0\0\0\x01\0\x01\xff");
    assert!(matches!(decode_request(3, 1, lie), Err(DecodeError::Value { message: "MetadataRequest", .. })));
}

#[test]
fn k1_an_api_versions_response_to_an_unknown_version_is_read_in_version_0() {
    let range = ApiVersion::default().with_api_key(18).with_min_version(0).with_max_version(4);
    let response = ApiVersionsResponse::default().with_error_code(35).with_api_keys(vec![range]);
    // The server answers in version 0 ...
    let frame = encode_response(0, 5, &response.clone().into()).unwrap().concat();
    // ... to a client that asked in version 4.
    let (correlation_id, decoded) = decode_response::<ApiVersionsRequest>(4, body(&frame.into())).unwrap();
    assert_eq!((correlation_id, decoded), (5, response));
}

#[test]
fn k1_the_response_header_of_api_versions_is_never_flexible() {
    for version in 0..=4 {
        let frame = encode_response(version, 5, &ApiVersionsResponse::default().into()).unwrap().concat();
        // Length, correlation id, and at once the error code.
        assert_eq!(frame[4..10], [0, 0, 0, 5, 0, 0]);
    }
    let flexible = encode_response(9, 5, &MetadataResponse::default().into()).unwrap().concat();
    assert_eq!(flexible[4..9], [0, 0, 0, 5, 0]);
}

#[test]
fn k2_old_produce_requests_are_refused_for_each_partition() {
    for version in 0..3 {
        let mut request = BytesMut::new();
        request.put_slice(b"\0\x01\0\0\0\x05\0\0\0\x01\0\x01t\0\0\0\x02");
        request.put_slice(b"\0\0\0\x07\0\0\0\x03abc");
        request.put_slice(b"\0\0\0\x08\xff\xff\xff\xff");
        let answer = refuse_old_produce(version, 6, request.freeze(), 35).unwrap().unwrap().concat();
        let mut expected = BytesMut::from(&b"\0\0\0\x06\0\0\0\x01\0\x01t\0\0\0\x02"[..]);
        for partition in [7, 8] {
            expected.put_i32(partition);
            expected.put_i16(35);
            expected.put_i64(-1);
            if version >= 2 {
                expected.put_i64(-1);
            }
        }
        if version >= 1 {
            expected.put_i32(0);
        }
        assert_eq!(answer[..4], (expected.len() as u32).to_be_bytes());
        assert_eq!(answer[4..], expected);
    }
}

#[test]
fn k2_an_old_produce_request_without_acks_gets_no_answer() {
    let request = Bytes::from_static(b"\0\0\0\0\0\x05\0\0\0\0");
    assert_eq!(refuse_old_produce(0, 6, request, 35), Ok(None));
    assert!(refuse_old_produce(0, 6, Bytes::from_static(b"\0\x01\0\0\0\x05\x7f\xff\xff\xff"), 35).is_err());
}

#[test]
fn a_response_with_a_field_that_its_version_lacks_is_our_mistake_and_named() {
    let flexible_only = FindCoordinatorResponse::default().with_coordinators(vec![Default::default()]);
    let error = encode_response(0, 1, &flexible_only.into()).unwrap_err();
    assert!(matches!(error, EncodeError::Message { api_key: 10, version: 0, .. }), "{error}");
}
