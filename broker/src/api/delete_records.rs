//! DeleteRecords (key 21; KIP-107): moves the start of logs.

use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::DeleteRecordsRequest;
use kafka_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsResponse, DeleteRecordsTopicResult,
};
use tokio::sync::oneshot;
use weir_protocol::types::{LogId, Offset};
use weir_runtime::time;

use super::{Api, errors, millis};
use crate::shard::{DeleteRecordsCall, Message, ShardError};

/// Asks for everything that is committed.
const HIGH_WATERMARK: i64 = -1;
/// The start of a log that is not told.
const NONE: i64 = -1;

type Answer = oneshot::Receiver<Result<Offset, ShardError>>;

pub(super) async fn handle(api: &Arc<Api>, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let deadline = time::now() + millis(request.timeout_ms);
    let view = api.image.current();
    // All orders are given before the first answer is waited for, so that they become durable together.
    let mut answers: Vec<Result<Answer, ResponseError>> = Vec::new();
    for topic in &request.topics {
        let id = view.image.topic_named(&topic.name).map(|found| found.id);
        for partition in &topic.partitions {
            let log = id.map(|id| LogId::new(id, partition.partition_index));
            answers.push(match log.filter(|log| view.image.partition(*log).is_some()) {
                Some(log) => order(api, log, partition.offset).await,
                None => Err(ResponseError::UnknownTopicOrPartition),
            });
        }
    }
    let mut answers = answers.into_iter();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in &topic.partitions {
            let result = match answers.next() {
                Some(Ok(answer)) => wait(answer, deadline).await,
                Some(Err(error)) => Err(error),
                None => Err(ResponseError::UnknownTopicOrPartition),
            };
            let result_of =
                DeleteRecordsPartitionResult::default().with_partition_index(partition.partition_index);
            partitions.push(match result {
                Ok(start) => result_of.with_low_watermark(start),
                Err(error) => result_of.with_low_watermark(NONE).with_error_code(error.code()),
            });
        }
        topics.push(DeleteRecordsTopicResult::default().with_name(topic.name).with_partitions(partitions));
    }
    DeleteRecordsResponse::default().with_topics(topics)
}

async fn order(api: &Arc<Api>, log: LogId, offset: i64) -> Result<Answer, ResponseError> {
    let (reply, answer) = oneshot::channel();
    let before = (offset != HIGH_WATERMARK).then_some(offset);
    let call = Box::new(DeleteRecordsCall { log, before, reply });
    let sent = api.shards.send(api.shards.owner_of(log), Message::DeleteRecords(call)).await;
    sent.map(|()| answer).map_err(|error| errors::of_shard(&error))
}

async fn wait(answer: Answer, deadline: time::Instant) -> Result<Offset, ResponseError> {
    match time::timeout(deadline - time::now(), answer).await {
        Ok(Ok(result)) => result.map_err(|error| errors::of_shard(&error)),
        // The shard has ended, or the partition was deleted meanwhile.
        Ok(Err(_)) => Err(errors::of_shard(&ShardError::Stopping)),
        Err(_) => Err(ResponseError::RequestTimedOut),
    }
}
