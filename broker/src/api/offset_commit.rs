//! OffsetCommit (key 8; K19).

use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::OffsetCommitRequest;
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponse, OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use weir_protocol::group::{CommitPart, GroupError, Reply, Request};

use super::groups::{ask, member, name, optional};
use super::{Api, errors};

pub(super) async fn handle(api: &Arc<Api>, request: OffsetCommitRequest) -> OffsetCommitResponse {
    let view = api.image.current();
    let mut parts = Vec::new();
    // By partition, in the request's order: refused here, or the place among the parts.
    let mut places: Vec<Result<usize, ResponseError>> = Vec::new();
    for topic in &request.topics {
        let known = view.image.topic_named(&topic.name);
        let topic_name = name(&topic.name);
        for partition in &topic.partitions {
            if known.is_none_or(|topic| topic.partition(partition.partition_index).is_none()) {
                places.push(Err(ResponseError::UnknownTopicOrPartition));
                continue;
            }
            places.push(Ok(parts.len()));
            parts.push(CommitPart {
                topic: topic_name.clone(),
                partition: partition.partition_index,
                offset: partition.committed_offset,
                leader_epoch: partition.committed_leader_epoch,
                metadata: optional(partition.committed_metadata.as_ref()).unwrap_or_default(),
            });
        }
    }
    drop(view);
    let member =
        member(&request.member_id, request.group_instance_id.as_ref(), request.generation_id_or_member_epoch);
    let outcome = match ask(api, &request.group_id, Request::Commit { member, parts }).await {
        Ok(Reply::Commit(outcome)) => outcome,
        Ok(_) => Err(GroupError::CoordinatorNotAvailable),
        Err(error) => Err(error),
    };
    let code = |place: Result<usize, ResponseError>| -> i16 {
        let result = match (place, &outcome) {
            (Err(error), _) => return error.code(),
            (Ok(_), Err(error)) => Err(*error),
            (Ok(place), Ok(results)) => {
                results.get(place).copied().unwrap_or(Err(GroupError::CoordinatorNotAvailable))
            }
        };
        result.err().map_or(0, |error| errors::of_group(error).code())
    };
    let mut places = places.into_iter();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let partitions = topic
            .partitions
            .iter()
            .zip(places.by_ref())
            .map(|(partition, place)| {
                OffsetCommitResponsePartition::default()
                    .with_partition_index(partition.partition_index)
                    .with_error_code(code(place))
            })
            .collect();
        topics.push(OffsetCommitResponseTopic::default().with_name(topic.name).with_partitions(partitions));
    }
    OffsetCommitResponse::default().with_topics(topics)
}
