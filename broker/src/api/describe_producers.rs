//! DescribeProducers (key 61; KIP-664).

use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_producers_response::{
    DescribeProducersResponse, PartitionResponse, ProducerState, TopicResponse,
};
use kafka_protocol::messages::{DescribeProducersRequest, ProducerId};
use tokio::sync::oneshot;
use weir_protocol::types::LogId;

use super::{Api, errors};
use crate::shard::{Message, ProducersCall, ShardError};

pub(super) async fn handle(api: &Arc<Api>, request: DescribeProducersRequest) -> DescribeProducersResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partition_indexes.len());
        for partition in topic.partition_indexes {
            let log = {
                let view = api.image.current();
                let id = view.image.topic_named(&topic.name).map(|found| found.id);
                id.map(|id| LogId::new(id, partition)).filter(|log| view.image.partition(*log).is_some())
            };
            let response = PartitionResponse::default().with_partition_index(partition);
            let found = match log {
                Some(log) => producers(api, log).await.map_err(|error| errors::of_shard(&error)),
                None => Err(ResponseError::UnknownTopicOrPartition),
            };
            partitions.push(match found {
                Ok(producers) => response.with_active_producers(producers),
                Err(error) => response.with_error_code(error.code()),
            });
        }
        topics.push(TopicResponse::default().with_name(topic.name).with_partitions(partitions));
    }
    DescribeProducersResponse::default().with_topics(topics)
}

async fn producers(api: &Arc<Api>, log: LogId) -> Result<Vec<ProducerState>, ShardError> {
    let (reply, answer) = oneshot::channel();
    let call = Box::new(ProducersCall { log, reply });
    api.shards.send(api.shards.owner_of(log), Message::Producers(call)).await?;
    let producers = answer.await.map_err(|_| ShardError::Stopping)??;
    let shown = producers.iter().map(|(id, producer)| {
        ProducerState::default()
            .with_producer_id(ProducerId(id))
            .with_producer_epoch(i32::from(producer.epoch))
            .with_last_sequence(producer.last_sequence())
            .with_last_timestamp(producer.max_timestamp_ms)
            .with_coordinator_epoch(-1)
            .with_current_txn_start_offset(-1)
    });
    Ok(shown.collect())
}
