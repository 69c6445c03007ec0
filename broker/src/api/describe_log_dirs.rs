//! DescribeLogDirs (key 35; KIP-113, KIP-827): what this broker's replicas take up in its folder.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kafka_protocol::messages::TopicName;
use kafka_protocol::messages::describe_log_dirs_request::DescribeLogDirsRequest;
use kafka_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResponse, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use kafka_protocol::protocol::StrBytes;
use tokio::sync::oneshot;
use weir_protocol::metadata::Image;
use weir_protocol::types::LogId;
use weir_storage::StorageError;

use super::{Api, errors};
use crate::shard::{Message, SizesCall};

pub(super) async fn handle(api: &Arc<Api>, request: &DescribeLogDirsRequest) -> DescribeLogDirsResponse {
    let folder = DescribeLogDirsResult::default()
        .with_log_dir(StrBytes::from_string(api.disk.root().display().to_string()));
    let folder = match sizes(api, request).await {
        Ok(topics) => folder.with_topics(topics),
        Err(error) => {
            tracing::warn!(%error, "the size of a log is unknown");
            folder.with_error_code(errors::of_storage(&error).code())
        }
    };
    let folder = match api.disk.space().await {
        Ok(space) => folder
            .with_total_bytes(i64::try_from(space.total_bytes).unwrap_or(i64::MAX))
            .with_usable_bytes(i64::try_from(space.free_bytes).unwrap_or(i64::MAX)),
        Err(error) => {
            tracing::warn!(%error, "the size of the data folder's file system is unknown");
            folder
        }
    };
    DescribeLogDirsResponse::default().with_results(vec![folder])
}

async fn sizes(
    api: &Arc<Api>,
    request: &DescribeLogDirsRequest,
) -> Result<Vec<DescribeLogDirsTopic>, StorageError> {
    let view = api.image.current();
    let logs = wanted(api, &view.image, request);
    let open = open_sizes(api, &logs).await;
    let mut topics: BTreeMap<&str, Vec<DescribeLogDirsPartition>> = BTreeMap::new();
    for log in logs {
        let Some(topic) = view.image.topic(log.topic) else { continue };
        let bytes = match open.get(&log) {
            Some(bytes) => *bytes,
            None => api.store.size_on_disk(log).await?,
        };
        let partition = DescribeLogDirsPartition::default()
            .with_partition_index(log.partition)
            .with_partition_size(i64::try_from(bytes).unwrap_or(i64::MAX))
            // Of a replica in its own folder: nothing is behind, and nothing is on its way to another folder.
            .with_offset_lag(0)
            .with_is_future_key(false);
        topics.entry(&topic.name).or_default().push(partition);
    }
    let topics = topics.into_iter().map(|(name, partitions)| {
        let name = TopicName(StrBytes::from_string(name.to_owned()));
        DescribeLogDirsTopic::default().with_name(name).with_partitions(partitions)
    });
    Ok(topics.collect())
}

/// The logs that are asked for, as far as this broker has them.
fn wanted(api: &Api, image: &Image, request: &DescribeLogDirsRequest) -> BTreeSet<LogId> {
    let Some(topics) = &request.topics else {
        return image.replicas_on(api.me).map(|(log, _)| log).collect();
    };
    let mut logs = BTreeSet::new();
    for wanted in topics {
        let Some(topic) = image.topic_named(&wanted.topic) else { continue };
        let here = wanted.partitions.iter().filter(|number| {
            topic.partition(**number).is_some_and(|partition| partition.replicas.contains(&api.me))
        });
        logs.extend(here.map(|number| LogId::new(topic.id, *number)));
    }
    logs
}

/// The sizes of the logs that are open.
async fn open_sizes(api: &Arc<Api>, logs: &BTreeSet<LogId>) -> BTreeMap<LogId, u64> {
    let mut replies = Vec::new();
    for (shard, logs) in api.shards.group(logs.iter().copied(), |log| *log).into_iter().enumerate() {
        if logs.is_empty() {
            continue;
        }
        let (reply, answer) = oneshot::channel();
        let call = Box::new(SizesCall { logs, reply });
        if api.shards.send(shard, Message::Sizes(call)).await.is_ok() {
            replies.push(answer);
        }
    }
    let mut sizes = BTreeMap::new();
    for reply in replies {
        // A shard that has ended has closed its logs.
        sizes.extend(reply.await.unwrap_or_default());
    }
    sizes
}
