//! What clients, brokers and files feed to `weir-wire`.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use weir_wire::codec::{self, Compression};
use weir_wire::frame::{self, Progress};
use weir_wire::internal::{self, BlobKind};
use weir_wire::kafka::messages::*;
use weir_wire::kafka::{decode_request, decode_response, refuse_old_produce};
use weir_wire::peer_frame::{self, FrameLimits};
use weir_wire::records::{
    BatchBuilder, BatchHeader, CRC_START, HEADER_BYTES, ProduceLimits, Producer, assign, batches,
    validate_produced,
};
use weir_wire::schema::{SampleOptions, sample, shapes};

use crate::crc::{CASTAGNOLI, IEEE};
use crate::mutate::Random;

const SAMPLES: SampleOptions = SampleOptions { elements_max: 3, tagged: true };
const DECOMPRESSED_BYTES_MAX: usize = 1 << 20;

/// A request frame without its length.
pub(super) fn request(input: &[u8]) {
    let mut frame = Bytes::copy_from_slice(input);
    let Ok(header) = frame::take_request_header(&mut frame) else {
        return;
    };
    if let Ok(request) = decode_request(header.api_key, header.version, frame) {
        assert_eq!(request.key() as i16, header.api_key);
    }
}

pub(super) fn generate_request(random: &mut Random) -> Vec<u8> {
    let shape = &shapes()[random.below(shapes().len())];
    let (first, last) = shape.request.versions;
    let version = first + random.below((last - first + 1) as usize) as i16;
    let client_id = Some("fuzz".to_owned().into());
    let mut out = BytesMut::new();
    let header = frame::RequestHeader { api_key: shape.key, version, correlation_id: 1, client_id };
    frame::put_request_header(&mut out, &header);
    out.extend_from_slice(&sample(&shape.request, version, SAMPLES, &mut || random.number()));
    out.to_vec()
}

/// API key, version, and a response frame without its length.
pub(super) fn response(input: &[u8]) {
    let Some((head, frame)) = input.split_first_chunk::<4>() else {
        return;
    };
    let key = i16::from_be_bytes([head[0], head[1]]);
    let version = i16::from_be_bytes([head[2], head[3]]);
    let frame = Bytes::copy_from_slice(frame);
    if let Some((_, decode)) = RESPONSES.iter().find(|(known, _)| *known == key) {
        decode(version, frame);
    }
}

type Decode = fn(i16, Bytes);

/// The responses that a client may get from a broker, by their APIs' keys.
const RESPONSES: &[(i16, Decode)] = &[
    (0, |version, frame| drop(decode_response::<ProduceRequest>(version, frame))),
    (1, |version, frame| drop(decode_response::<FetchRequest>(version, frame))),
    (2, |version, frame| drop(decode_response::<ListOffsetsRequest>(version, frame))),
    (3, |version, frame| drop(decode_response::<MetadataRequest>(version, frame))),
    (8, |version, frame| drop(decode_response::<OffsetCommitRequest>(version, frame))),
    (9, |version, frame| drop(decode_response::<OffsetFetchRequest>(version, frame))),
    (10, |version, frame| drop(decode_response::<FindCoordinatorRequest>(version, frame))),
    (11, |version, frame| drop(decode_response::<JoinGroupRequest>(version, frame))),
    (12, |version, frame| drop(decode_response::<HeartbeatRequest>(version, frame))),
    (13, |version, frame| drop(decode_response::<LeaveGroupRequest>(version, frame))),
    (14, |version, frame| drop(decode_response::<SyncGroupRequest>(version, frame))),
    (15, |version, frame| drop(decode_response::<DescribeGroupsRequest>(version, frame))),
    (16, |version, frame| drop(decode_response::<ListGroupsRequest>(version, frame))),
    (18, |version, frame| drop(decode_response::<ApiVersionsRequest>(version, frame))),
    (19, |version, frame| drop(decode_response::<CreateTopicsRequest>(version, frame))),
    (20, |version, frame| drop(decode_response::<DeleteTopicsRequest>(version, frame))),
    (21, |version, frame| drop(decode_response::<DeleteRecordsRequest>(version, frame))),
    (22, |version, frame| drop(decode_response::<InitProducerIdRequest>(version, frame))),
    (23, |version, frame| drop(decode_response::<OffsetForLeaderEpochRequest>(version, frame))),
    (32, |version, frame| drop(decode_response::<DescribeConfigsRequest>(version, frame))),
    (33, |version, frame| drop(decode_response::<AlterConfigsRequest>(version, frame))),
    (35, |version, frame| drop(decode_response::<DescribeLogDirsRequest>(version, frame))),
    (37, |version, frame| drop(decode_response::<CreatePartitionsRequest>(version, frame))),
    (42, |version, frame| drop(decode_response::<DeleteGroupsRequest>(version, frame))),
    (44, |version, frame| drop(decode_response::<IncrementalAlterConfigsRequest>(version, frame))),
    (47, |version, frame| drop(decode_response::<OffsetDeleteRequest>(version, frame))),
    (60, |version, frame| drop(decode_response::<DescribeClusterRequest>(version, frame))),
    (61, |version, frame| drop(decode_response::<DescribeProducersRequest>(version, frame))),
    (68, |version, frame| drop(decode_response::<ConsumerGroupHeartbeatRequest>(version, frame))),
    (74, |version, frame| drop(decode_response::<ListConfigResourcesRequest>(version, frame))),
    (75, |version, frame| drop(decode_response::<DescribeTopicPartitionsRequest>(version, frame))),
];

pub(super) fn generate_response(random: &mut Random) -> Vec<u8> {
    let (key, _) = RESPONSES[random.below(RESPONSES.len())];
    let Some(shape) = shapes().iter().find(|shape| shape.key == key) else {
        return Vec::new();
    };
    let (first, last) = shape.response.versions;
    let version = first + random.below((last - first + 1) as usize) as i16;
    let mut out = BytesMut::new();
    out.extend_from_slice(&key.to_be_bytes());
    out.extend_from_slice(&version.to_be_bytes());
    frame::put_response_header(&mut out, key, version, 1);
    out.extend_from_slice(&sample(&shape.response, version, SAMPLES, &mut || random.number()));
    out.to_vec()
}

/// What arrives on a connection, in pieces whose sizes the first byte draws.
pub(super) fn stream(input: &[u8]) {
    let Some((&piece, received)) = input.split_first() else {
        return;
    };
    let mut buffer = BytesMut::new();
    for piece in received.chunks(usize::from(piece) + 1) {
        buffer.extend_from_slice(piece);
        loop {
            let before = buffer.len();
            match frame::take_frame(&mut buffer, 4_096) {
                Ok(Progress::Frame(frame)) => {
                    assert_eq!(frame.len() + frame::PREFIX_BYTES + buffer.len(), before);
                    request(&frame);
                }
                Ok(Progress::Missing(missing)) => {
                    assert!(missing > 0 && missing <= 4_096);
                    assert_eq!(buffer.len(), before);
                    break;
                }
                Err(_) => return,
            }
        }
    }
}

pub(super) fn generate_stream(random: &mut Random) -> Vec<u8> {
    let mut out = vec![random.number() as u8];
    for _ in 0..=random.below(3) {
        let frame = generate_request(random);
        out.extend_from_slice(&(frame.len() as u32).to_be_bytes());
        out.extend_from_slice(&frame);
    }
    out
}

const PEER_LIMITS: FrameLimits = FrameLimits { head_bytes_max: 256, tail_bytes_max: 1_024 };

/// What arrives from another node, in pieces whose sizes the first byte draws.
pub(super) fn peer_frame(input: &[u8]) {
    let Some((&piece, received)) = input.split_first() else {
        return;
    };
    let mut buffer = BytesMut::new();
    for piece in received.chunks(usize::from(piece) + 1) {
        buffer.extend_from_slice(piece);
        loop {
            let before = buffer.len();
            match peer_frame::take(&mut buffer, PEER_LIMITS) {
                Ok(peer_frame::Progress::Frame { head, tail }) => {
                    assert!(head.len() <= 256 && tail.len() <= 1_024);
                    let taken = peer_frame::HEADER_BYTES + head.len() + tail.len();
                    assert_eq!(taken + buffer.len(), before);
                    internal(&head);
                }
                Ok(peer_frame::Progress::Missing(missing)) => {
                    assert!(missing > 0 && missing <= peer_frame::HEADER_BYTES + 256 + 1_024);
                    assert_eq!(buffer.len(), before);
                    break;
                }
                Err(_) => return,
            }
        }
    }
}

pub(super) fn generate_peer_frame(random: &mut Random) -> Vec<u8> {
    let mut out = vec![random.number() as u8];
    for _ in 0..=random.below(3) {
        let tail = vec![random.number() as u8; random.below(40)];
        let head = Internal::Numbers(random.number(), random.number() as i32, None, false);
        let begin = peer_frame::begin(&head, tail.len(), PEER_LIMITS);
        out.extend_from_slice(&begin.expect("a frame within the limits"));
        out.extend_from_slice(&tail);
    }
    out
}

/// Mends the checksum of the first frame, if it is all there.
pub(super) fn repair_peer_frame(input: &mut [u8]) {
    let Some((_, frame)) = input.split_first_mut() else {
        return;
    };
    let Some(head) = frame.first_chunk::<4>().map(|length| u32::from_be_bytes(*length) as usize) else {
        return;
    };
    if head > 256 || frame.len() < peer_frame::HEADER_BYTES + head {
        return;
    }
    let crc = IEEE.of(&[&frame[..8], &frame[peer_frame::HEADER_BYTES..][..head]]);
    frame[8..12].copy_from_slice(&crc.to_be_bytes());
}

/// A version and the body of a Produce request of old.
pub(super) fn old_produce(input: &[u8]) {
    let Some((&version, body)) = input.split_first() else {
        return;
    };
    if let Ok(Some(chunks)) = refuse_old_produce(i16::from(version), 1, Bytes::copy_from_slice(body), 35) {
        let bytes: usize = chunks.iter().map(Bytes::len).sum();
        // Each partition costs the request 8 bytes at least, and the answer 22 at most.
        assert!(bytes <= 16 + 3 * input.len());
    }
}

pub(super) fn generate_old_produce(random: &mut Random) -> Vec<u8> {
    let version = random.below(3) as u8;
    let mut out = vec![version, 0, 1, 0, 0, 0, 9];
    let topics = random.below(3) as u8;
    out.extend_from_slice(&[0, 0, 0, topics]);
    for _ in 0..topics {
        out.extend_from_slice(b"\0\x02tt\0\0\0\x02");
        out.extend_from_slice(b"\0\0\0\x01\0\0\0\x03abc");
        out.extend_from_slice(b"\0\0\0\x02\xff\xff\xff\xff");
    }
    out
}

/// Record batches as they come from a producer or a segment.
pub(super) fn batch(input: &[u8]) {
    let bytes = Bytes::copy_from_slice(input);
    let mut taken = 0;
    for batch in batches(bytes.clone()).map_while(Result::ok) {
        taken += batch.bytes.len();
        assert_eq!(batch.bytes.len(), batch.header.size_bytes());
        assert!(batch.header.next_offset() > batch.header.base_offset);
        let mut header = BytesMut::new();
        batch.header.write(&mut header);
        assert_eq!(batch.bytes[..HEADER_BYTES], header, "a header is what was parsed");
        let Ok(records) = batch.records(DECOMPRESSED_BYTES_MAX) else {
            continue;
        };
        let walked = records.iter().map_while(Result::ok).inspect(|record| {
            assert!((batch.header.base_offset..batch.header.next_offset()).contains(&record.offset));
            assert_eq!(record.headers.count(), record.headers.len());
        });
        assert!(walked.count() <= batch.header.count as usize);
    }
    assert!(taken <= input.len());
    accepted_batches(bytes);
}

/// What validation lets through must hold all that later stages rely on.
fn accepted_batches(bytes: Bytes) {
    let limits = ProduceLimits {
        decompressed_bytes_max: DECOMPRESSED_BYTES_MAX,
        batches_max: 8,
        ..ProduceLimits::default()
    };
    let Ok(accepted) = validate_produced(bytes, &limits) else {
        return;
    };
    for batch in accepted {
        assert_eq!(batch.verify_crc(), Ok(()));
        for log_append_time_ms in [None, Some(12_345)] {
            let assigned = assign(&batch, 1 << 40, 7, log_append_time_ms);
            let placed = Bytes::from(assigned.chunks.concat());
            let placed = batches(placed).next().and_then(Result::ok).expect("an assigned batch parses");
            assert_eq!(placed.verify_crc(), Ok(()));
            assert_eq!(placed.header, assigned.header);
            assert_eq!(placed.header.base_offset, 1 << 40);
            let records = placed.records(DECOMPRESSED_BYTES_MAX).expect("accepted records decompress");
            let count = records.iter().inspect(|record| assert!(record.is_ok())).count();
            assert_eq!(count, placed.header.count as usize);
        }
    }
}

pub(super) fn generate_batch(random: &mut Random) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..=random.below(2) {
        let compression = Compression::ALL[random.below(5)];
        let mut builder = BatchBuilder::new(compression);
        if random.below(2) == 0 {
            builder = builder.producer(Producer { id: 7, epoch: 1, base_sequence: i32::MAX - 1 });
        }
        for _ in 0..=random.below(5) {
            let value = vec![random.number() as u8; random.below(80)];
            let key = (random.below(3) > 0).then(|| value.get(..3)).flatten();
            let headers: &[(&[u8], Option<&[u8]>)] = &[(b"h", Some(b"1")), (b"h", None)];
            let headers = &headers[..random.below(3)];
            let value = (random.below(4) > 0).then_some(&value[..]);
            let timestamp_ms = 1_700_000_000_000 + random.below(1_000) as i64;
            builder.push(timestamp_ms, key, value, headers).expect("a small record fits");
        }
        out.extend_from_slice(&builder.finish().expect("a batch with records is built"));
    }
    out
}

/// Makes the CRC of each batch right.
pub(super) fn repair_batch(input: &mut [u8]) {
    let mut rest = input;
    while let Ok(header) = BatchHeader::parse(rest) {
        let Some((batch, behind)) = rest.split_at_mut_checked(header.size_bytes()) else {
            return;
        };
        let crc = CASTAGNOLI.of(&[&batch[CRC_START..]]);
        batch[17..CRC_START].copy_from_slice(&crc.to_be_bytes());
        rest = behind;
    }
}

/// A codec's number and a payload.
pub(super) fn codec(input: &[u8]) {
    let Some((&bits, payload)) = input.split_first() else {
        return;
    };
    let Some(codec) = Compression::from_bits(u16::from(bits)) else {
        return;
    };
    if let Ok(decompressed) = codec::decompress(codec, payload, DECOMPRESSED_BYTES_MAX) {
        assert!(decompressed.len() <= DECOMPRESSED_BYTES_MAX);
        assert!(decompressed.capacity() <= 4 * DECOMPRESSED_BYTES_MAX);
    }
}

pub(super) fn generate_codec(random: &mut Random) -> Vec<u8> {
    let codec = Compression::ALL[1 + random.below(4)];
    let payload: Vec<u8> =
        (0..random.below(3_000)).map(|at| (at / 7) as u8 ^ (random.number() & 1) as u8).collect();
    let mut out = vec![codec.bits() as u8];
    out.extend_from_slice(&codec::compress(codec, &payload).expect("bytes can be compressed"));
    out
}

const KIND: BlobKind = BlobKind { magic: *b"WFUZ", version: 2, name: "fuzzed blob" };

/// A small file of ours.
pub(super) fn blob(input: &[u8]) {
    if let Ok(blob) = internal::open(&KIND, input) {
        assert!(blob.version <= KIND.version);
        let again = internal::seal(&BlobKind { version: blob.version, ..KIND }, blob.payload);
        // Two reserved bytes may hold anything.
        assert_eq!(again.len(), input.len());
        assert_eq!(again[20..], input[20..]);
    }
}

pub(super) fn generate_blob(random: &mut Random) -> Vec<u8> {
    let payload = vec![random.number() as u8; random.below(60)];
    internal::seal(&BlobKind { version: random.below(4) as u16, ..KIND }, &payload).to_vec()
}

/// Makes the checksum right where the length is.
pub(super) fn repair_blob(input: &mut [u8]) {
    let length = u64::try_from(input.len().saturating_sub(20)).unwrap_or(u64::MAX).to_be_bytes();
    if input.len() < 20 || input[8..16] != length {
        return;
    }
    let crc = IEEE.of(&[&input[..16], &input[20..]]);
    input[16..20].copy_from_slice(&crc.to_be_bytes());
}

/// The kinds of fields that our own messages have.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Internal {
    Numbers(u64, i32, Option<i64>, bool),
    Bytes(Vec<Bytes>),
    Map(BTreeMap<String, Vec<(i64, [u8; 16])>>),
    Nested(Vec<Vec<Vec<u64>>>),
}

/// An encoded message of ours.
pub(super) fn internal(input: &[u8]) {
    if let Ok(message) = internal::decode::<Internal>(input, 1 << 16) {
        let again = internal::encode(&message).expect("what was decoded can be encoded");
        assert_eq!(internal::decode::<Internal>(&again, 1 << 20).as_ref(), Ok(&message));
    }
}

pub(super) fn generate_internal(random: &mut Random) -> Vec<u8> {
    let text = "n".repeat(random.below(5));
    let message = match random.below(4) {
        0 => Internal::Numbers(random.number(), random.number() as i32, Some(-1), true),
        1 => Internal::Bytes(vec![Bytes::from(vec![7; random.below(40)]); random.below(4)]),
        2 => Internal::Map(BTreeMap::from([(text, vec![(random.number() as i64, [9; 16]); 2])])),
        _ => Internal::Nested(vec![vec![vec![random.number(); random.below(4)]; 2]; 2]),
    };
    internal::encode(&message).expect("a message of ours can be encoded").to_vec()
}
