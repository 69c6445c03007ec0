//! OffsetForLeaderEpoch (key 23; KIP-279, KIP-320): where a leader epoch ended.

use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderEpochRequest;
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderEpochResponse, OffsetForLeaderTopicResult,
};
use weir_protocol::types::LogId;

use super::{Api, errors, known_epoch, list_offsets};
use crate::shard::{OffsetQuery, OffsetsFound, OffsetsPart, ShardError};

type Answer = Result<(i32, i64), ResponseError>;

pub(super) async fn handle(
    api: &Arc<Api>,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let view = api.image.current();
    let mut answers: Vec<Answer> = Vec::new();
    let mut parts = Vec::new();
    for topic in &request.topics {
        let id = view.image.topic_named(&topic.topic).map(|found| found.id);
        for partition in &topic.partitions {
            let log = id.map(|id| LogId::new(id, partition.partition));
            let Some(log) = log.filter(|log| view.image.partition(*log).is_some()) else {
                answers.push(Err(ResponseError::UnknownTopicOrPartition));
                continue;
            };
            parts.push(OffsetsPart {
                log,
                index: answers.len() as u32,
                epoch: known_epoch(partition.current_leader_epoch),
                query: OffsetQuery::EndOfEpoch(partition.leader_epoch),
            });
            answers.push(Err(errors::of_shard(&ShardError::Stopping)));
        }
    }
    for done in list_offsets::ask(api, parts).await {
        answers[done.index as usize] = match done.result {
            Ok(OffsetsFound::Offset { offset, leader_epoch }) => Ok((leader_epoch, offset)),
            // Only searches by time take more than the shard.
            Ok(OffsetsFound::Search(_)) => Err(ResponseError::InvalidRequest),
            Err(error) => Err(errors::of_shard(&error)),
        };
    }
    let mut answers = answers.into_iter();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let partitions = topic
            .partitions
            .iter()
            .zip(answers.by_ref())
            .map(|(partition, answer)| {
                let end = EpochEndOffset::default().with_partition(partition.partition);
                match answer {
                    Ok((epoch, offset)) => end.with_leader_epoch(epoch).with_end_offset(offset),
                    Err(error) => end.with_error_code(error.code()).with_leader_epoch(-1).with_end_offset(-1),
                }
            })
            .collect();
        topics
            .push(OffsetForLeaderTopicResult::default().with_topic(topic.topic).with_partitions(partitions));
    }
    OffsetForLeaderEpochResponse::default().with_topics(topics)
}
