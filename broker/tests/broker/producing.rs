//! Produce: what is checked, where it lands, and when it is answered.

use bytes::{Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiVersionsRequest;
use weir_runtime::time;
use weir_wire::codec::Compression;
use weir_wire::records::{BatchBuilder, BatchHeader, TimestampType, batches};

use crate::support::{
    Broker, Client, batch, batch_at, config, fetch_request, produce_request, run, until, values,
};

async fn refused(client: &mut Client, what: &str, topic: &str, records: Bytes, error: ResponseError) {
    let answer = client.produce(topic, 0, records).await;
    assert_eq!(answer.error_code, error.code(), "{what}: {:?}", answer.error_message);
    assert_eq!(answer.base_offset, -1, "{what}");
    let fetched = client.fetch(topic, 0, 0).await;
    assert_eq!(fetched.high_watermark, 0, "{what}: nothing was appended");
}

fn altered(change: impl Fn(&mut BatchHeader)) -> Bytes {
    let original = batch(&[b"value", b"another"]);
    let mut header = BatchHeader::parse(&original).expect("a batch");
    change(&mut header);
    let mut out = BytesMut::new();
    header.write(&mut out);
    out.extend_from_slice(&original[61..]);
    // What lies under the checksum is changed together with it: the checksum alone does not protect the broker.
    let crc = crc32c::crc32c(&out[21..]);
    out[17..21].copy_from_slice(&crc.to_be_bytes());
    out.freeze()
}

#[test]
fn k10_a_batch_that_is_not_well_formed_is_refused_and_nothing_of_it_is_appended() {
    run(async {
        let broker = Broker::start().await;
        let mut client = broker.client().await;
        client.create("checked", 1, &[]).await;
        let good = batch(&[b"value", b"another"]);
        let mut flipped = good.to_vec();
        flipped[70] ^= 1;
        let mut old_magic = good.to_vec();
        old_magic[16] = 1;
        let two = [good.clone(), good.clone()].concat();
        let bad: Vec<(&str, Bytes, ResponseError)> = vec![
            ("a flipped bit", flipped.into(), ResponseError::CorruptMessage),
            ("cut off", good.slice(..good.len() - 1), ResponseError::CorruptMessage),
            ("no batch", Bytes::new(), ResponseError::InvalidRecord),
            ("two batches", two.into(), ResponseError::InvalidRecord),
            ("magic 1", old_magic.into(), ResponseError::InvalidRecord),
            ("more records than there are", altered(|h| h.count = 3), ResponseError::InvalidRecord),
            ("no records", altered(|h| h.count = 0), ResponseError::InvalidRecord),
            ("offsets that do not fit", altered(|h| h.last_offset_delta = 7), ResponseError::InvalidRecord),
            ("an unknown codec", altered(|h| h.attributes = 7), ResponseError::UnsupportedCompressionType),
            ("not compressed at all", altered(|h| h.attributes = 4), ResponseError::CorruptMessage),
            ("a control batch", altered(|h| h.attributes = 0x20), ResponseError::InvalidRecord),
            ("unknown attributes", altered(|h| h.attributes = 0x4000), ResponseError::InvalidRecord),
        ];
        for (what, records, error) in bad {
            refused(&mut client, what, "checked", records, error).await;
        }
        assert_eq!(client.produce("checked", 0, good).await.base_offset, 0, "a good one still comes in");
    });
}

#[test]
fn k10_base_offset_and_leader_epoch_are_filled_in_and_the_rest_stays_as_it_was_sent() {
    run(async {
        let broker = Broker::start().await;
        let mut client = broker.client().await;
        client.create("bytes", 1, &[]).await;
        let sent = batch(&[b"first", b"second"]);
        for round in 0..3 {
            let answer = client.produce("bytes", 0, sent.clone()).await;
            assert_eq!((answer.error_code, answer.base_offset), (0, 2 * round));
            assert_eq!(answer.log_append_time_ms, -1, "the producer's time was kept");
        }
        let records = client.fetch("bytes", 0, 0).await.records.expect("records");
        for (round, stored) in (0..).zip(batches(records)) {
            let stored = stored.expect("a batch");
            assert_eq!(stored.header.base_offset, 2 * round);
            assert!(stored.header.leader_epoch >= 0);
            assert_eq!(&stored.bytes[16..], &sent[16..], "all behind the leader epoch");
        }
    });
}

#[test]
fn k10_with_log_append_time_the_broker_dates_the_batch_and_its_checksum() {
    run(async {
        let broker = Broker::start().await;
        let mut client = broker.client().await;
        client.create("dated", 1, &[("message.timestamp.type", "LogAppendTime")]).await;
        let before = time::wall_ms();
        let answer = client.produce("dated", 0, batch_at(5, &[b"ancient"])).await;
        assert_eq!(answer.error_code, 0, "the producer's time does not count");
        assert!(answer.log_append_time_ms >= before);
        let records = client.fetch("dated", 0, 0).await.records.expect("records");
        let stored = batches(records).next().expect("one").expect("a batch");
        stored.verify_crc().expect("the checksum covers the new time");
        assert_eq!(stored.header.timestamp_type(), TimestampType::LogAppendTime);
        assert_eq!(stored.header.max_timestamp_ms, answer.log_append_time_ms);
    });
}

#[test]
fn k10_a_timestamp_too_far_ahead_is_refused() {
    run(async {
        let broker = Broker::start().await;
        let mut client = broker.client().await;
        client.create("timely", 1, &[]).await;
        let future = batch_at(time::wall_ms() + 48 * 3_600_000, &[b"tomorrow"]);
        refused(&mut client, "two days ahead", "timely", future, ResponseError::InvalidTimestamp).await;
    });
}

#[test]
fn k10_every_codec_is_taken_in_and_comes_back_as_it_was() {
    run(async {
        let broker = Broker::start().await;
        let mut client = broker.client().await;
        client.create("codecs", 1, &[]).await;
        let codecs =
            [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];
        for codec in codecs {
            let mut builder = BatchBuilder::new(codec);
            builder.push(time::wall_ms(), None, Some(&[b'x'; 1000]), &[]).expect("a record");
            let answer = client.produce("codecs", 0, builder.finish().expect("a batch")).await;
            assert_eq!(answer.error_code, 0, "{codec:?}: {:?}", answer.error_message);
        }
        let fetched = values(client.fetch("codecs", 0, 0).await.records);
        assert_eq!(fetched.len(), codecs.len());
        assert!(fetched.iter().all(|(_, value)| value == &[b'x'; 1000]));
    });
}

#[test]
fn k11_a_batch_that_is_too_large_and_a_record_without_a_key_are_refused() {
    run(async {
        let broker = Broker::start().await;
        let mut client = broker.client().await;
        client.create("small", 1, &[("max.message.bytes", "200")]).await;
        let large = batch(&[&[b'x'; 300]]);
        refused(&mut client, "300 bytes", "small", large, ResponseError::MessageTooLarge).await;
        client.create("keyed", 1, &[("cleanup.policy", "compact")]).await;
        let mut builder = BatchBuilder::new(Compression::None);
        builder.push(time::wall_ms(), None, Some(b"value"), &[]).expect("a record");
        let keyless = builder.finish().expect("a batch");
        refused(&mut client, "no key", "keyed", keyless, ResponseError::InvalidRecord).await;
    });
}

/// A batch of exactly so many bytes, as they are sent.
fn of_size(codec: Compression, bytes: usize) -> Bytes {
    // Noise does not compress, so that each byte more of it is a byte more of the batch.
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    let noise: Vec<u8> = (0..bytes).map(|_| next()).collect();
    let mut length = bytes;
    // The lengths inside of it take bytes of their own.
    for _ in 0..8 {
        let mut builder = BatchBuilder::new(codec);
        builder.push(time::wall_ms(), Some(b"key"), Some(&noise[..length]), &[]).expect("a record");
        let batch = builder.finish().expect("a batch");
        if batch.len() == bytes {
            return batch;
        }
        length = length + bytes - batch.len();
    }
    panic!("{codec:?} makes no batch of {bytes} bytes");
}

/// What is as large as may be is taken in, one byte more is refused, and the connection lives on.
async fn is_the_limit(client: &mut Client, topic: &str, codec: Compression, limit: usize) {
    let answer = client.produce(topic, 0, of_size(codec, limit)).await;
    assert_eq!(answer.error_code, 0, "{codec:?}, {limit}: {:?}", answer.error_message);
    let end = client.fetch(topic, 0, 0).await.high_watermark;
    let answer = client.produce(topic, 0, of_size(codec, limit + 1)).await;
    assert_eq!(answer.error_code, ResponseError::MessageTooLarge.code(), "{codec:?}, {limit} and one more");
    assert_eq!(client.fetch(topic, 0, 0).await.high_watermark, end, "nothing of it is appended");
}

#[test]
fn k11_a_batch_of_max_message_bytes_is_taken_in_and_one_byte_more_is_not() {
    run(async {
        let mut config = config();
        config.topic_defaults.insert("message.max.bytes".to_owned(), "3000".to_owned());
        let broker = Broker::with(config).await;
        let mut client = broker.client().await;
        client.create("of-the-broker", 1, &[]).await;
        client.create("of-its-own", 1, &[("max.message.bytes", "5000")]).await;
        for codec in Compression::ALL {
            is_the_limit(&mut client, "of-the-broker", codec, 3_000).await;
            is_the_limit(&mut client, "of-its-own", codec, 5_000).await;
        }
        // What counts is what is sent, not what it decompresses to.
        let mut builder = BatchBuilder::new(Compression::Zstd);
        builder.push(time::wall_ms(), None, Some(&[b'x'; 100_000]), &[]).expect("a record");
        let small = builder.finish().expect("a batch");
        assert_eq!(client.produce("of-its-own", 0, small).await.error_code, 0);
    });
}

#[test]
fn k11_the_default_limit_is_kafkas_and_a_refused_partition_does_not_refuse_the_others() {
    run(async {
        let broker = Broker::start().await;
        let mut client = broker.client().await;
        client.create("usual", 2, &[]).await;
        is_the_limit(&mut client, "usual", Compression::None, 1_048_588).await;
        let mut request = produce_request("usual", 0, -1, of_size(Compression::None, 1_048_589));
        let fitting = request.topic_data[0].partition_data[0].clone().with_index(1);
        request.topic_data[0].partition_data.push(fitting.with_records(Some(batch(&[b"value"]))));
        let response = client.call(9, &request).await;
        let codes: Vec<i16> =
            response.responses[0].partition_responses.iter().map(|answer| answer.error_code).collect();
        assert_eq!(codes, [ResponseError::MessageTooLarge.code(), 0]);
    });
}

#[test]
fn k13_a_refusal_names_the_real_error() {
    run(async {
        let broker = Broker::start().await;
        let mut client = broker.client().await;
        client.create("real", 1, &[]).await;
        let value = || batch(&[b"value"]);
        assert_eq!(client.produce("nowhere", 0, value()).await.error_code, 3, "UNKNOWN_TOPIC_OR_PARTITION");
        assert_eq!(client.produce("real", 9, value()).await.error_code, 3);
        assert_eq!(client.produce("no/name", 0, value()).await.error_code, 17, "INVALID_TOPIC_EXCEPTION");
        let strange = client.call(9, &produce_request("real", 0, 5, value())).await;
        let error = strange.responses[0].partition_responses[0].error_code;
        assert_eq!(error, 21, "INVALID_REQUIRED_ACKS");
        assert_eq!(client.fetch("nowhere", 0, 0).await.error_code, 3);
        assert_eq!(client.fetch("real", 0, 1).await.error_code, 1, "OFFSET_OUT_OF_RANGE");
        let mut fenced = fetch_request("real", 0, 0);
        fenced.topics[0].partitions[0].current_leader_epoch = 1_000;
        let answer = client.call(11, &fenced).await;
        assert_eq!(answer.responses[0].partitions[0].error_code, 75, "UNKNOWN_LEADER_EPOCH");
    });
}

#[test]
fn with_acks_0_there_is_no_answer_and_the_records_are_there() {
    run(async {
        let broker = Broker::start().await;
        let mut client = broker.client().await;
        client.create("silent", 1, &[]).await;
        for _ in 0..20 {
            client.send(9, &produce_request("silent", 0, 0, batch(&[b"value"]))).await;
        }
        let versions = client.call(0, &ApiVersionsRequest::default()).await;
        assert_eq!(versions.error_code, 0, "the next answer is the next request's");
        let metrics = broker.node.metrics();
        until("all are appended", || metrics.batches_appended.get() >= 20).await;
        let mut fetched = 0;
        while fetched < 20 {
            fetched = values(client.fetch("silent", 0, 0).await.records).len();
        }
        client.send(9, &produce_request("nowhere", 0, 0, batch(&[b"value"]))).await;
        assert!(client.is_closed().await, "an error that has no answer closes the connection");
    });
}

#[test]
fn one_request_for_many_partitions_is_answered_for_each() {
    run(async {
        let broker = Broker::start().await;
        let mut client = broker.client().await;
        client.create("wide", 50, &[]).await;
        let mut request = produce_request("wide", 0, -1, batch(&[b"value"]));
        let first = request.topic_data[0].partition_data[0].clone();
        request.topic_data[0].partition_data =
            (0..51).map(|number| first.clone().with_index(number)).collect();
        let response = client.call(9, &request).await;
        let partitions = &response.responses[0].partition_responses;
        assert!(partitions.iter().map(|partition| partition.index).eq(0..51));
        assert!(
            partitions[..50].iter().all(|partition| (partition.error_code, partition.base_offset) == (0, 0))
        );
        assert_eq!(partitions[50].error_code, 3, "there is no partition 50");
    });
}
