//! OffsetDelete (key 47; KIP-496).

use std::sync::Arc;

use kafka_protocol::messages::OffsetDeleteRequest;
use kafka_protocol::messages::offset_delete_response::{
    OffsetDeleteResponse, OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use weir_protocol::group::{GroupError, Reply, Request};

use super::groups::{ask, name};
use super::{Api, errors};

pub(super) async fn handle(api: &Arc<Api>, request: OffsetDeleteRequest) -> OffsetDeleteResponse {
    let mut wanted = Vec::new();
    for topic in &request.topics {
        let topic_name = name(&topic.name);
        wanted.extend(topic.partitions.iter().map(|part| (topic_name.clone(), part.partition_index)));
    }
    let outcome = match ask(api, &request.group_id, Request::DeleteOffsets(wanted)).await {
        Ok(Reply::DeleteOffsets(outcome)) => outcome,
        Ok(_) => Err(GroupError::CoordinatorNotAvailable),
        Err(error) => Err(error),
    };
    let results = match outcome {
        Ok(results) => results,
        Err(error) => return OffsetDeleteResponse::default().with_error_code(errors::of_group(error).code()),
    };
    let mut results = results.into_iter();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let partitions = topic
            .partitions
            .iter()
            .zip(results.by_ref())
            .map(|(partition, result)| {
                OffsetDeleteResponsePartition::default()
                    .with_partition_index(partition.partition_index)
                    .with_error_code(result.err().map_or(0, |error| errors::of_group(error).code()))
            })
            .collect();
        topics.push(OffsetDeleteResponseTopic::default().with_name(topic.name).with_partitions(partitions));
    }
    OffsetDeleteResponse::default().with_topics(topics)
}
