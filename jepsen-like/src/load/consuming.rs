//! Consumers that follow the load, and the final read of everything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::history::{Done, Failure, Log, Op, Pending, ProcessId, Record, SeekTo, Span, Step};
use crate::workload::{MARK, marked_value, value_of};
use weir_client::{
    Admin, Client, Consumer, ConsumerConfig, ConsumerRecord, Error, OffsetSpec, PartitionFailure, Start,
    TopicPartition,
};
use weir_runtime::time::{self, Instant};

use super::{Shared, connect, log_of};

/// How long one poll waits.
const POLL: Duration = Duration::from_millis(200);
/// How many offsets a final read tries one by one behind a damaged one before it gives up on the partition.
const DAMAGED_OFFSETS_MAX: i64 = 5_000;

fn config() -> ConsumerConfig {
    ConsumerConfig {
        fetch_wait_max: Duration::from_millis(100),
        fetch_bytes_max: 64 << 10,
        partition_bytes_max: 16 << 10,
        ..ConsumerConfig::default()
    }
}

pub(super) fn seen(record: &ConsumerRecord) -> Record {
    let (key, payload) = (record.key.as_deref(), record.value.as_deref());
    let mark = record.headers.iter().find(|(name, _)| name == MARK);
    let value = match mark {
        Some((_, mark)) => marked_value(mark.as_deref().unwrap_or_default(), key, payload),
        None => payload.and_then(value_of),
    };
    Record { offset: record.offset, value }
}

/// Follows all partitions until the load ends; each poll of each partition is an operation of the history.
pub(super) async fn run(shared: Shared, process: ProcessId, partitions: Vec<TopicPartition>) {
    let client = connect(shared.bootstrap.clone(), format!("consumer-{}", process.0)).await;
    let mut consumer = Consumer::new(&client, config());
    let assigned = shared.recorder.invoke(
        process,
        Shared::now_ns(),
        Op::Assign { logs: partitions.iter().map(log_of).collect() },
    );
    consumer.assign(partitions.iter().map(|partition| (partition.clone(), Start::Beginning)));
    assigned.ok(Shared::now_ns(), Done::Done);
    while !shared.stopped() {
        let invoke = |partition: &TopicPartition, from| {
            shared.recorder.invoke(
                process,
                Shared::now_ns(),
                Op::Poll { log: log_of(partition), from: Some(from) },
            )
        };
        // Which partitions answer is known afterwards only, so that an operation begins when the poll does.
        let begun: BTreeMap<TopicPartition, Pending> = partitions
            .iter()
            .filter_map(|partition| {
                Some((partition.clone(), invoke(partition, consumer.position(partition)?)))
            })
            .collect();
        let polled = consumer.poll(POLL).await;
        write_down(&shared, process, begun, &mut consumer, polled);
    }
}

fn write_down(
    shared: &Shared,
    process: ProcessId,
    mut begun: BTreeMap<TopicPartition, Pending>,
    consumer: &mut Consumer,
    polled: weir_client::Polled,
) {
    let now = Shared::now_ns();
    for part in polled.partitions {
        let pending = begun.remove(&part.partition).unwrap_or_else(|| {
            shared.recorder.invoke(
                process,
                now,
                Op::Poll { log: log_of(&part.partition), from: Some(part.from) },
            )
        });
        pending.ok(now, Done::Polled { records: part.records.iter().map(seen).collect() });
    }
    for failure in polled.failures {
        // Records may have come before the failure in the same poll: then the failure is an operation of its own.
        let pending = begun.remove(&failure.partition).unwrap_or_else(|| {
            let op = Op::Poll { log: log_of(&failure.partition), from: Some(failure.offset) };
            shared.recorder.invoke(process, now, op)
        });
        pending.fail(now, reason(&failure));
        seek_past(shared, process, consumer, &failure);
    }
    for pending in begun.into_values() {
        pending.ok(now, Done::Polled { records: Vec::new() });
    }
}

pub(super) fn reason(failure: &PartitionFailure) -> Failure {
    match &failure.error {
        Error::Corrupt { offset, .. } => Failure::Corrupt(Span { from: *offset, to: offset + 1 }),
        error => Failure::Error(error.to_string()),
    }
}

/// Goes on behind what cannot be read, as an operator would order it.
fn seek_past(shared: &Shared, process: ProcessId, consumer: &mut Consumer, failure: &PartitionFailure) {
    let (to, recorded) = match &failure.error {
        Error::Corrupt { offset, .. } => (Start::Offset(offset + 1), SeekTo::Offset(offset + 1)),
        _ => (Start::Beginning, SeekTo::Beginning),
    };
    let op = Op::Seek { log: log_of(&failure.partition), to: recorded };
    let pending = shared.recorder.invoke(process, Shared::now_ns(), op);
    match consumer.seek(&failure.partition, to) {
        Ok(()) => pending.ok(Shared::now_ns(), Done::Done),
        Err(error) => pending.fail(Shared::now_ns(), Failure::Error(error.to_string())),
    }
}

/// Asks for all offsets that any group was ever given, as anybody may when nothing is wrong. Complains of what is not answered.
pub async fn ask_groups(shared: Shared, process: ProcessId) {
    let mut asked: BTreeMap<Arc<str>, BTreeSet<Log>> = BTreeMap::new();
    for event in shared.recorder.events() {
        if let Step::Invoke(Op::ResetOffset { group, log, .. } | Op::Commit { group, log, .. }) = event.step {
            asked.entry(group).or_default().insert(log);
        }
    }
    let client = connect(shared.bootstrap.clone(), "group-reader".to_owned()).await;
    let admin = Admin::new(&client);
    for (group, logs) in asked {
        let invoke = |log: &Log| {
            let op = Op::FetchOffset { group: group.clone(), log: log.clone() };
            shared.recorder.invoke(process, Shared::now_ns(), op)
        };
        let begun: Vec<(&Log, Pending)> = logs.iter().map(|log| (log, invoke(log))).collect();
        let answer = admin.list_group_offsets(&group, None).await;
        let now = Shared::now_ns();
        if let Err(error) = &answer {
            shared.complain(format!("in the end nobody tells where group {group} stands: {error}"));
        }
        for (log, pending) in begun {
            let partition = TopicPartition::new(log.topic.clone(), log.partition);
            match &answer {
                Ok(found) => {
                    let offset = found.get(&partition).map(|committed| committed.offset);
                    pending.ok(now, Done::Offset { offset });
                }
                Err(error) => pending.fail(now, Failure::Error(error.to_string())),
            }
        }
    }
}

/// Reads every partition from its first record to its last. Operations that do not end by the deadline stay open. `repair`: how
/// long the brokers may take to fetch from each other what is damaged on one of them; zero where there is only one.
pub async fn final_read(
    shared: Shared,
    process: ProcessId,
    partitions: Vec<TopicPartition>,
    deadline: Instant,
    repair: Duration,
) {
    let client = connect(shared.bootstrap.clone(), "final-read".to_owned()).await;
    for partition in partitions {
        let pending =
            shared.recorder.invoke(process, Shared::now_ns(), Op::FinalRead { log: log_of(&partition) });
        match read(&client, &partition, deadline, repair).await {
            Ok(Some(done)) => pending.ok(Shared::now_ns(), done),
            Ok(None) => drop(pending), // out of time: it stays without an end, and the checkers say so
            Err(error) => pending.fail(Shared::now_ns(), Failure::Error(error.to_string())),
        }
    }
}

async fn offset(admin: &Admin, partition: &TopicPartition, spec: OffsetSpec) -> Result<i64, Error> {
    let answers = admin.list_offsets(&[(partition.clone(), spec)]).await;
    match answers.into_iter().next() {
        Some(Ok(Some(at))) => Ok(at.offset),
        Some(Err(error)) => Err(error),
        _ => Err(Error::Invalid(format!("the broker names no {spec:?} offset of {partition}"))),
    }
}

async fn read(
    client: &Client,
    partition: &TopicPartition,
    deadline: Instant,
    repair: Duration,
) -> Result<Option<Done>, Error> {
    let admin = Admin::new(client);
    let start = offset(&admin, partition, OffsetSpec::Earliest).await?;
    let end = offset(&admin, partition, OffsetSpec::Latest).await?;
    let mut consumer = Consumer::new(client, config());
    consumer.assign([(partition.clone(), Start::Offset(start))]);
    let (mut records, mut corrupt) = (Vec::new(), Vec::new());
    let mut damaged = 0;
    let patience = time::now() + repair;
    while consumer.position(partition).is_none_or(|position| position < end) {
        if time::now() >= deadline {
            return Ok(None);
        }
        let polled = consumer.poll(POLL).await;
        records.extend(polled.records().map(|(_, record)| seen(record)));
        for failure in polled.failures {
            let Error::Corrupt { offset, .. } = failure.error else { return Err(failure.error) };
            if time::now() < patience {
                time::sleep(POLL).await;
                consumer.seek(partition, Start::Offset(offset))?;
                continue;
            }
            corrupt.push(Span { from: offset, to: offset + 1 });
            damaged += 1;
            if damaged > DAMAGED_OFFSETS_MAX {
                corrupt.push(Span { from: offset, to: end });
                return Ok(Some(Done::Read { start, end, records, corrupt }));
            }
            consumer.seek(partition, Start::Offset(offset + 1))?;
        }
    }
    Ok(Some(Done::Read { start, end, records, corrupt }))
}
