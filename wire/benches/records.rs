//! What one produce and one fetch cost in this crate: `cargo bench -p weir-wire`. Prints nanoseconds, medians of
//! rounds; the aim is a walk over 1,000 records in less than 20 µs.
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]

use std::hint::black_box;
use std::time::Instant;

use bytes::Bytes;
use weir_wire::codec::Compression;
use weir_wire::kafka::messages::ProduceRequest;
use weir_wire::kafka::messages::produce_request::{PartitionProduceData, TopicProduceData};
use weir_wire::kafka::{
    FetchResponse, FetchedPartition, FetchedTopic, Response, decode_request, encode_request, encode_response,
};
use weir_wire::records::{BatchBuilder, ProduceLimits, assign, batches, validate_produced};

fn batch(compression: Compression, records: usize, value_bytes: usize) -> Bytes {
    let mut builder = BatchBuilder::new(compression);
    let value: Vec<u8> = (0..value_bytes).map(|at| (at * 7 % 64) as u8).collect();
    for index in 0..records {
        let key = format!("key-{index}");
        builder.push(1_700_000_000_000, Some(key.as_bytes()), Some(&value), &[]).expect("it fits");
    }
    builder.finish().expect("there are records")
}

fn measure(name: &str, mut work: impl FnMut()) {
    let rounds: Vec<u128> = (0..31)
        .map(|_| {
            let started = Instant::now();
            (0..20).for_each(|_| work());
            started.elapsed().as_nanos() / 20
        })
        .collect();
    let mut sorted = rounds;
    sorted.sort_unstable();
    println!("{name:<52} {:>10} ns", sorted[sorted.len() / 2]);
}

fn main() {
    let limits = ProduceLimits { batch_bytes_max: 64 << 20, ..ProduceLimits::default() };
    for value_bytes in [100, 1_024] {
        let bytes = batch(Compression::None, 1_000, value_bytes);
        let whole = batches(bytes.clone()).next().and_then(Result::ok).expect("it parses");
        let records = whole.records(0).expect("it is not compressed");
        measure(&format!("walk 1,000 records of {value_bytes} B"), || {
            black_box(records.iter().filter(|record| record.is_ok()).count());
        });
        measure(&format!("CRC of 1,000 records of {value_bytes} B"), || {
            black_box(whole.verify_crc()).expect("it is right");
        });
        for compression in Compression::ALL {
            let bytes = batch(compression, 1_000, value_bytes);
            measure(&format!("validate 1,000 records of {value_bytes} B, {}", compression.name()), || {
                black_box(validate_produced(bytes.clone(), &limits)).expect("it is valid");
            });
        }
        measure("assign", || {
            black_box(assign(&whole, 1 << 40, 3, None));
        });
    }
    let records = batch(Compression::None, 1_000, 1_024);
    let partition = PartitionProduceData::default().with_index(1).with_records(Some(records.clone()));
    let topic = TopicProduceData::default().with_partition_data(vec![partition]);
    let request = ProduceRequest::default().with_topic_data(vec![topic]);
    let frame = encode_request(9, 1, None, &request).expect("it can be encoded");
    measure("decode a produce request of 1 MiB", || {
        let mut body = frame.slice(4..);
        weir_wire::frame::take_request_header(&mut body).expect("it is valid");
        black_box(decode_request(0, 9, body)).expect("it is valid");
    });
    let partition = FetchedPartition { records: vec![records; 4], ..FetchedPartition::default() };
    let topics = vec![FetchedTopic { partitions: vec![partition], ..FetchedTopic::default() }];
    let response = Response::Fetch(FetchResponse { topics, ..FetchResponse::default() });
    measure("encode a fetch response of 4 MiB", || {
        black_box(encode_response(12, 1, &response)).expect("it can be encoded");
    });
}
