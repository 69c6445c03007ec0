//! A producer: bursts of records to random partitions, each send an operation of the history.

use std::time::Duration;

use bytes::Bytes;

use crate::history::{self, Done, Failure, Keyed, Op, Pending, ProcessId};
use crate::workload::{MARK, mark, payload};
use weir_client::{
    Acks, Client, Compression, Delivery, ProduceError, Produced, Producer, ProducerConfig, ProducerRecord,
    TopicPartition,
};
use weir_runtime::{random, task};

use super::plan;
use super::{Shared, connect, log_of, partitions};

/// Who probes.
const PROBER: ProcessId = ProcessId(301);
/// The key of its records, where one is needed.
const PROBE_KEY: &str = "probe";
/// How long a probe may take.
const PROBE_MAX: Duration = Duration::from_secs(30);
/// The size of its record.
const PROBE_BYTES: usize = 40;

pub(super) async fn run(
    shared: Shared,
    process: ProcessId,
    plan: plan::Producer,
    partitions: Vec<TopicPartition>,
) {
    let client = connect(shared.bootstrap.clone(), format!("producer-{}", process.0)).await;
    let producer = Producer::new(&client, config(&plan));
    let mut answers = Vec::new();
    while !shared.stopped() {
        for _ in 0..=random::below(u64::from(plan.burst)) {
            let partition = &partitions[random::below(partitions.len() as u64) as usize];
            let size = random::below(u64::from(plan.value_bytes_max)) as usize;
            answers.push(send(&shared, process, &producer, acks(plan.acks), partition, size).await);
        }
        answers.retain(|answer| !answer.is_finished());
        let mean_us = 1_000_000 * (1 + u64::from(plan.burst)) / 2 / u64::from(plan.records_per_second.max(1));
        shared.pause(Duration::from_micros(random::below(2 * mean_us + 1))).await;
    }
    for answer in answers {
        // An answer's task cannot fail: a panic in it would have ended the run.
        drop(answer.await);
    }
}

/// Sends one record and writes down what became of it, whenever that is known.
pub async fn send(
    shared: &Shared,
    process: ProcessId,
    producer: &Producer,
    acks: Acks,
    partition: &TopicPartition,
    size: usize,
) -> task::JoinHandle<()> {
    let (pending, record) = begin(shared, process, acks, partition, size, None);
    let sent = producer.send(record).await;
    task::spawn("answer", write_down(pending, sent))
}

/// The next record, and the operation that it is.
pub(super) fn begin(
    shared: &Shared,
    process: ProcessId,
    acks: Acks,
    partition: &TopicPartition,
    size: usize,
    keyed: Option<Keyed>,
) -> (Pending, ProducerRecord) {
    let value = shared.values.next_value();
    let mut record = ProducerRecord {
        topic: partition.topic.to_string(),
        partition: Some(partition.partition),
        value: Some(payload(value, size)),
        ..ProducerRecord::default()
    };
    if let Some(keyed) = &keyed {
        record.key = Some(Bytes::copy_from_slice(keyed.key.as_bytes()));
        record.headers = vec![(MARK.to_owned(), Some(mark(value, keyed)))];
        record.value = record.value.filter(|_| !keyed.tombstone);
    }
    let op = Op::Send { log: log_of(partition), value, acks: in_history(acks), keyed };
    (shared.recorder.invoke(process, Shared::now_ns(), op), record)
}

/// Writes one record to each partition, as anybody must be able to when nothing is wrong. Returns what was refused.
pub async fn probe(shared: &Shared, client: &Client, topics: &[plan::Topic]) -> Vec<String> {
    let producer = Producer::new(
        client,
        ProducerConfig {
            acks: Acks::All,
            request_timeout: Duration::from_secs(2),
            delivery_timeout: PROBE_MAX,
            ..ProducerConfig::default()
        },
    );
    let mut answers = Vec::new();
    let keyed = || Keyed { key: PROBE_KEY.into(), tombstone: false };
    let of_topic = |topic| partitions([topic]).into_iter().map(|partition| (partition, topic.is_compacted()));
    for (partition, is_compacted) in topics.iter().flat_map(of_topic) {
        let keyed = is_compacted.then(keyed);
        let (pending, mut record) = begin(shared, PROBER, Acks::All, &partition, PROBE_BYTES, keyed);
        // The brokers' clocks may stand anywhere, and none takes a record from its future.
        record.timestamp_ms = Some(0);
        answers.push((partition, pending, producer.send(record).await));
    }
    let mut refused = Vec::new();
    for (partition, pending, sent) in answers {
        let outcome = outcome(sent).await;
        if let Err(error) = &outcome {
            refused.push(format!("{partition:?} takes no record: {error}"));
        }
        note(pending, outcome);
    }
    refused
}

pub(super) async fn write_down(pending: Pending, sent: Result<Delivery, ProduceError>) {
    note(pending, outcome(sent).await);
}

async fn outcome(sent: Result<Delivery, ProduceError>) -> Result<Produced, ProduceError> {
    match sent {
        Ok(delivery) => delivery.await,
        Err(error) => Err(error),
    }
}

fn note(pending: Pending, outcome: Result<Produced, ProduceError>) {
    let now = Shared::now_ns();
    match outcome {
        Ok(produced) => pending.ok(now, Done::Sent { offset: produced.offset }),
        Err(error) if error.may_have_been_written => pending.unknown(now, Failure::Error(error.to_string())),
        Err(error) => pending.fail(now, Failure::Error(error.to_string())),
    }
}

pub(super) fn config(plan: &plan::Producer) -> ProducerConfig {
    ProducerConfig {
        acks: acks(plan.acks),
        compression: match plan.compression.as_str() {
            "gzip" => Compression::Gzip,
            "snappy" => Compression::Snappy,
            "lz4" => Compression::Lz4,
            "zstd" => Compression::Zstd,
            _ => Compression::None,
        },
        linger: Duration::from_millis(2),
        retries: plan.retries,
        enable_idempotence: plan.idempotent,
        batch_bytes: 4 << 10,
        request_timeout: Duration::from_secs(2),
        delivery_timeout: Duration::from_millis(plan.delivery_timeout_ms),
        ..ProducerConfig::default()
    }
}

pub(super) fn acks(acks: i16) -> Acks {
    match acks {
        0 => Acks::None,
        1 => Acks::Leader,
        _ => Acks::All,
    }
}

fn in_history(acks: Acks) -> history::Acks {
    match acks {
        Acks::None => history::Acks::None,
        Acks::Leader => history::Acks::Leader,
        Acks::All => history::Acks::All,
    }
}
