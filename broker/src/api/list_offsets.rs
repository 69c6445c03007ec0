//! ListOffsets (key 2; KIP-79, KIP-320, KIP-734).

use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_offsets_request::ListOffsetsRequest;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsResponse, ListOffsetsTopicResponse,
};
use tokio::sync::oneshot;

use super::{Api, errors, known_epoch};
use crate::shard::{Message, OffsetQuery, OffsetsCall, OffsetsDone, OffsetsFound, OffsetsPart, ShardError};

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
/// The start of what is on the broker's own disk (KIP-405), which here is all there is.
const EARLIEST_LOCAL: i64 = -4;
/// The end of what was moved to another store (KIP-1005), which here is nothing.
const LATEST_TIERED: i64 = -5;

/// No such record.
const NONE: i64 = -1;

struct Answer {
    error: i16,
    timestamp: i64,
    offset: i64,
    leader_epoch: i32,
}

impl Answer {
    fn error(error: ResponseError) -> Answer {
        Answer { error: error.code(), timestamp: NONE, offset: NONE, leader_epoch: -1 }
    }

    fn none() -> Answer {
        Answer { error: 0, timestamp: NONE, offset: NONE, leader_epoch: -1 }
    }
}

pub(super) async fn handle(api: &Arc<Api>, request: ListOffsetsRequest, version: i16) -> ListOffsetsResponse {
    let view = api.image.current();
    let image = &view.image;
    let mut answers: Vec<Option<Answer>> = Vec::new();
    let mut parts = Vec::new();
    for topic in &request.topics {
        let id = image.topic_named(&topic.name).map(|found| found.id);
        for partition in &topic.partitions {
            let index = answers.len() as u32;
            let log = id.map(|id| weir_protocol::types::LogId::new(id, partition.partition_index));
            let query = query(partition.timestamp);
            match (log.filter(|log| image.partition(*log).is_some()), query) {
                (None, _) => answers.push(Some(Answer::error(ResponseError::UnknownTopicOrPartition))),
                (_, Err(answer)) => answers.push(Some(answer)),
                (Some(log), Ok(query)) => {
                    let epoch = known_epoch(partition.current_leader_epoch);
                    parts.push(OffsetsPart { log, index, epoch, query });
                    answers.push(None);
                }
            }
        }
    }
    for done in ask(api, parts).await {
        let index = done.index as usize;
        answers[index] = Some(finish(api, done).await);
    }
    let mut answers = answers.into_iter();
    let topics = request
        .topics
        .into_iter()
        .map(|topic| {
            let partitions = topic
                .partitions
                .iter()
                .map(|partition| {
                    let answer = answers.next().flatten();
                    let answer =
                        answer.unwrap_or_else(|| Answer::error(errors::of_shard(&ShardError::Stopping)));
                    ListOffsetsPartitionResponse::default()
                        .with_partition_index(partition.partition_index)
                        .with_error_code(answer.error)
                        .with_timestamp(answer.timestamp)
                        .with_offset(answer.offset)
                        // Before version 4 there is no such field (KIP-320).
                        .with_leader_epoch(if version >= 4 { answer.leader_epoch } else { -1 })
                })
                .collect();
            ListOffsetsTopicResponse::default().with_name(topic.name).with_partitions(partitions)
        })
        .collect();
    ListOffsetsResponse::default().with_topics(topics)
}

fn query(timestamp: i64) -> Result<OffsetQuery, Answer> {
    match timestamp {
        LATEST => Ok(OffsetQuery::Latest),
        EARLIEST | EARLIEST_LOCAL => Ok(OffsetQuery::Earliest),
        MAX_TIMESTAMP => Ok(OffsetQuery::MaxTimestamp),
        LATEST_TIERED => Err(Answer::none()),
        timestamp if timestamp >= 0 => Ok(OffsetQuery::AtTime(timestamp)),
        _ => Err(Answer::error(ResponseError::InvalidRequest)),
    }
}

pub(super) async fn ask(api: &Arc<Api>, parts: Vec<OffsetsPart>) -> Vec<OffsetsDone> {
    let mut replies = Vec::new();
    for (shard, parts) in api.shards.group(parts, |part| part.log).into_iter().enumerate() {
        if parts.is_empty() {
            continue;
        }
        let (reply, answer) = oneshot::channel();
        let call = Box::new(OffsetsCall { parts, reply });
        if api.shards.send(shard, Message::Offsets(call)).await.is_ok() {
            replies.push(answer);
        }
    }
    let mut done = Vec::new();
    for reply in replies {
        done.extend(reply.await.unwrap_or_default());
    }
    done
}

/// Runs the search, if there is one.
async fn finish(api: &Arc<Api>, done: OffsetsDone) -> Answer {
    match done.result {
        Err(error) => Answer::error(errors::of_shard(&error)),
        Ok(OffsetsFound::Offset { offset, leader_epoch }) => {
            Answer { error: 0, timestamp: NONE, offset, leader_epoch }
        }
        Ok(OffsetsFound::Search(plan)) => match plan.run(&api.disk).await {
            Ok(Some(found)) => Answer {
                error: 0,
                timestamp: found.timestamp_ms,
                offset: found.offset,
                leader_epoch: found.leader_epoch,
            },
            Ok(None) => Answer::none(),
            Err(error) => {
                tracing::warn!(%error, "a search by time failed");
                Answer::error(errors::of_read(&error))
            }
        },
    }
}
