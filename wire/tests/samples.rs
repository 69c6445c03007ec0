//! Formats frozen by samples from an implementation that is not ours: record batches and request frames made by
//! kafka-python, as hex in `samples/`.

use bytes::Bytes;
use weir_wire::codec::Compression;
use weir_wire::frame::take_request_header;
use weir_wire::kafka::messages::{ApiVersionsRequest, FetchRequest, MetadataRequest, ProduceRequest};
use weir_wire::kafka::{Request, decode_request, encode_request};
use weir_wire::records::{BatchBuilder, ProduceLimits, Producer, validate_produced};

fn bytes_of(hex: &str) -> Bytes {
    let digits: Vec<u8> = hex
        .lines()
        .filter(|line| !line.starts_with('#'))
        .flat_map(str::chars)
        .map(|digit| digit.to_digit(16).expect("samples are hex") as u8)
        .collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect::<Vec<_>>().into()
}

macro_rules! sample {
    ($name:literal) => {
        bytes_of(include_str!(concat!("samples/", $name, ".hex")))
    };
}

type Header = (&'static [u8], Option<&'static [u8]>);

/// Timestamp, key, value, headers.
type Sample = (i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<Header>);

/// What the sample batches hold.
fn records() -> Vec<Sample> {
    (0..6)
        .map(|index| {
            let timestamp_ms = 1_700_000_000_000 + if index == 4 { 5 } else { index * 10 };
            let key = (index != 2).then(|| format!("key-{index}").into_bytes());
            let value = (index != 3).then(|| format!("value {index} ").repeat(10).into_bytes());
            let headers: &[Header] =
                if index == 1 { &[(b"h", Some(b"1")), (b"h", Some(b"2")), (b"null", None)] } else { &[] };
            (timestamp_ms, key, value, headers.to_vec())
        })
        .collect()
}

#[test]
fn batches_of_another_implementation_are_read_in_every_codec() {
    let samples = [
        (Compression::None, sample!("batch_none")),
        (Compression::Gzip, sample!("batch_gzip")),
        (Compression::Snappy, sample!("batch_snappy")),
        (Compression::Lz4, sample!("batch_lz4")),
        (Compression::Zstd, sample!("batch_zstd")),
    ];
    for (compression, bytes) in samples {
        let batch = validate_produced(bytes, &ProduceLimits::default()).unwrap().remove(0);
        let header = batch.header;
        assert_eq!(header.compression(), Ok(compression));
        assert_eq!(
            (header.producer_id, header.producer_epoch, header.base_sequence),
            (4711, 3, 2_147_483_646)
        );
        assert_eq!((header.count, header.last_sequence()), (6, 3));
        assert_eq!(header.max_timestamp_ms, 1_700_000_000_050);
        let decoded = batch.records(1 << 20).unwrap();
        let decoded: Vec<_> = decoded
            .iter()
            .map(|record| record.unwrap())
            .map(|record| {
                let headers: Vec<_> =
                    record.headers.map(|(key, value)| (key.to_vec(), value.map(<[u8]>::to_vec))).collect();
                (
                    record.timestamp_ms,
                    record.key.map(<[u8]>::to_vec),
                    record.value.map(<[u8]>::to_vec),
                    headers,
                )
            })
            .collect();
        let owned = |(key, value): Header| (key.to_vec(), value.map(<[u8]>::to_vec));
        let expected: Vec<_> = records()
            .into_iter()
            .map(|(timestamp, key, value, headers)| {
                (timestamp, key, value, headers.into_iter().map(owned).collect())
            })
            .collect();
        assert_eq!(decoded, expected, "{compression:?}");
    }
}

#[test]
fn our_batches_are_byte_for_byte_those_of_another_implementation() {
    let producer = Producer { id: 4711, epoch: 3, base_sequence: 2_147_483_646 };
    let mut builder = BatchBuilder::new(Compression::None).at(0, 0).producer(producer);
    for (timestamp_ms, key, value, headers) in records() {
        builder.push(timestamp_ms, key.as_deref(), value.as_deref(), &headers).unwrap();
    }
    assert_eq!(builder.finish().unwrap(), sample!("batch_none"));

    let producer = Producer { id: 9, epoch: 0, base_sequence: 0 };
    let mut builder = BatchBuilder::new(Compression::None).at(0, 0).producer(producer).transactional();
    builder.push(1, Some(b""), Some(b""), &[]).unwrap();
    assert_eq!(builder.finish().unwrap(), sample!("batch_transactional"));
}

#[test]
fn request_frames_of_another_implementation_are_read_and_written_back() {
    let samples = [
        (18, 0, sample!("frame_api_versions_0")),
        (18, 3, sample!("frame_api_versions_3")),
        (18, 4, sample!("frame_api_versions_4")),
        (3, 1, sample!("frame_metadata_1")),
        (3, 4, sample!("frame_metadata_4")),
        (3, 9, sample!("frame_metadata_9")),
        (3, 12, sample!("frame_metadata_12")),
        (0, 3, sample!("frame_produce_3")),
        (0, 9, sample!("frame_produce_9")),
        (1, 4, sample!("frame_fetch_4")),
        (1, 11, sample!("frame_fetch_11")),
        (1, 12, sample!("frame_fetch_12")),
    ];
    for (api_key, version, frame) in samples {
        let mut body = frame.slice(4..);
        let header = take_request_header(&mut body).unwrap();
        assert_eq!((header.api_key, header.version), (api_key, version));
        assert_eq!(header.client_id.as_deref(), Some("weir-sample"));
        let id = header.client_id.as_ref();
        let again = match decode_request(api_key, version, body).unwrap() {
            Request::ApiVersions(request) => {
                encode_request::<ApiVersionsRequest>(version, header.correlation_id, id, &request)
            }
            Request::Metadata(request) => {
                encode_request::<MetadataRequest>(version, header.correlation_id, id, &request)
            }
            Request::Produce(request) => {
                let records = request.topic_data[0].partition_data[0].records.clone().unwrap();
                validate_produced(records, &ProduceLimits::default()).unwrap();
                encode_request::<ProduceRequest>(version, header.correlation_id, id, &request)
            }
            Request::Fetch(request) => {
                assert_eq!(request.topics[0].partitions[0].fetch_offset, 42);
                encode_request::<FetchRequest>(version, header.correlation_id, id, &request)
            }
            other => panic!("no sample is a {:?}", other.key()),
        };
        assert_eq!(again.unwrap(), frame, "API {api_key} version {version}");
    }
}
