//! An administrator who deletes records, and creates and deletes topics and groups, while the load runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::history::{Done, Failure, Op, Pending, ProcessId};
use weir_client::{Acks, Admin, CommittedOffset, Error, NewTopic, OffsetSpec, Producer, TopicPartition};
use weir_runtime::{random, simulation};

use super::plan;
use super::{Shared, connect, log_of, producing};

/// Counted with each deletion of records that was acknowledged.
pub const DELETED: &str = "records deleted";
/// Records that are produced into a topic that lives for a while only.
const RECORDS_OF_A_SHORT_LIFE: u64 = 20;

/// Deletes the first records of a random partition now and then.
pub(super) async fn delete_records(
    shared: Shared,
    process: ProcessId,
    every: Duration,
    partitions: Vec<TopicPartition>,
) {
    let client = connect(shared.bootstrap.clone(), "deleter".to_owned()).await;
    let admin = Admin::new(&client);
    while !shared.stopped() {
        shared.pause(around(every)).await;
        let partition = &partitions[random::below(partitions.len() as u64) as usize];
        let asked = [(partition.clone(), OffsetSpec::Earliest), (partition.clone(), OffsetSpec::Latest)];
        let [Ok(Some(start)), Ok(Some(end))] = &admin.list_offsets(&asked).await[..] else { continue };
        let before = start.offset + random::below((end.offset - start.offset).max(0) as u64 + 1) as i64;
        let op = Op::DeleteRecords { log: log_of(partition), before };
        let pending = shared.recorder.invoke(process, Shared::now_ns(), op);
        match admin.delete_records(partition, before).await {
            Ok(start) => {
                simulation::situation(DELETED);
                pending.ok(Shared::now_ns(), Done::Deleted { start });
            }
            Err(error) => fail(pending, &error),
        }
    }
}

/// Creates a topic, fills it and deletes it, again and again.
pub(super) async fn topics(shared: Shared, process: ProcessId, every: Duration) {
    let client = connect(shared.bootstrap.clone(), "churner".to_owned()).await;
    let admin = Admin::new(&client);
    let plan = plan::Producer {
        acks: -1,
        records_per_second: 100,
        burst: 1,
        value_bytes_max: 100,
        compression: "none".to_owned(),
        retries: true,
        idempotent: false,
        delivery_timeout_ms: 20_000,
    };
    let producer = Producer::new(&client, producing::config(&plan));
    for number in 0.. {
        shared.pause(around(every)).await;
        if shared.stopped() {
            return;
        }
        // A few names come again and again: a new topic of an old name must not show the old records.
        let name: Arc<str> = format!("short-lived-{}", number % 3).into();
        let op = Op::CreateTopic { topic: name.clone(), partitions: 1 };
        let created = shared.recorder.invoke(process, Shared::now_ns(), op);
        end(created, admin.create_topic(&NewTopic::new(name.to_string(), 1)).await.map(drop));
        let partition = TopicPartition::new(name.clone(), 0);
        let mut answers = Vec::new();
        for _ in 0..random::below(RECORDS_OF_A_SHORT_LIFE) {
            if shared.stopped() {
                break; // each may wait for a topic that there is not
            }
            let size = random::below(u64::from(plan.value_bytes_max)) as usize;
            answers.push(producing::send(&shared, process, &producer, Acks::All, &partition, size).await);
        }
        for answer in answers {
            drop(answer.await); // cannot fail: a panic would have ended the run
        }
        let deleted =
            shared.recorder.invoke(process, Shared::now_ns(), Op::DeleteTopic { topic: name.clone() });
        end(deleted, admin.delete_topic(&name).await);
    }
}

/// Makes a group, by committing for it, and deletes it, again and again: each has a name of its own.
pub(super) async fn groups(
    shared: Shared,
    process: ProcessId,
    every: Duration,
    partitions: Vec<TopicPartition>,
) {
    let client = connect(shared.bootstrap.clone(), "group-churner".to_owned()).await;
    let admin = Admin::new(&client);
    for number in 0.. {
        shared.pause(around(every)).await;
        if shared.stopped() {
            return;
        }
        let group: Arc<str> = format!("passing-{number}").into();
        let partition = &partitions[random::below(partitions.len() as u64) as usize];
        let to = random::below(100) as i64;
        let op = Op::ResetOffset { group: group.clone(), log: log_of(partition), to };
        let made = shared.recorder.invoke(process, Shared::now_ns(), op);
        let offsets = BTreeMap::from([(partition.clone(), CommittedOffset::at(to))]);
        let answers = admin.alter_group_offsets(&group, &offsets).await;
        end(made, answers.and_then(|answers| answers.into_values().collect()));
        shared.pause(Duration::from_millis(random::below(200))).await;
        let op = Op::DeleteGroup { group: group.clone() };
        let deleted = shared.recorder.invoke(process, Shared::now_ns(), op);
        end(deleted, admin.delete_group(&group).await);
    }
}

fn end(pending: Pending, outcome: Result<(), Error>) {
    match outcome {
        Ok(()) => pending.ok(Shared::now_ns(), Done::Done),
        Err(error) => fail(pending, &error),
    }
}

fn fail(pending: Pending, error: &Error) {
    let (now, failure) = (Shared::now_ns(), Failure::Error(error.to_string()));
    if error.may_have_happened() { pending.unknown(now, failure) } else { pending.fail(now, failure) }
}

pub(super) fn around(pause: Duration) -> Duration {
    let us = pause.as_micros() as u64;
    Duration::from_micros(us / 2 + random::below(us + 1))
}
