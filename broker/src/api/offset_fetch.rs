//! OffsetFetch (key 9; KIP-709, K19). Without transactions every committed offset is stable (KIP-447).

use std::sync::Arc;

use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequest, OffsetFetchRequestTopics};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponse, OffsetFetchResponseGroup, OffsetFetchResponsePartition,
    OffsetFetchResponsePartitions, OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{GroupId, TopicName};
use kafka_protocol::protocol::StrBytes;
use weir_protocol::group::{CommittedOffset, Coordinator, GroupError, Name};

use super::groups::{name, text};
use super::{Api, errors};

/// A topic's partitions, each with its offset if it has one.
type Offsets = Vec<(Name, Vec<(i32, Option<CommittedOffset>)>)>;

/// The partitions that are asked for; `None` is all that have an offset.
type Wanted = Option<Vec<(Name, Vec<i32>)>>;

/// No offset is committed.
const NONE: i64 = -1;

pub(super) async fn handle(api: &Arc<Api>, request: OffsetFetchRequest, version: i16) -> OffsetFetchResponse {
    if version >= 8 {
        let mut groups = Vec::with_capacity(request.groups.len());
        for group in request.groups {
            let wanted = group.topics.map(|topics| topics.iter().map(of_group).collect());
            groups.push(grouped(group.group_id.clone(), find(api, &group.group_id, wanted).await));
        }
        return OffsetFetchResponse::default().with_groups(groups);
    }
    // Before version 2 there was no null.
    let topics = request.topics.map(|topics| {
        topics.iter().map(|topic| (name(&topic.name), topic.partition_indexes.clone())).collect::<Vec<_>>()
    });
    match find(api, &request.group_id, topics.clone()).await {
        Ok(found) => OffsetFetchResponse::default().with_topics(found.into_iter().map(of_topic).collect()),
        Err(error) => {
            let code = errors::of_group(error).code();
            let none = |(topic, partitions): (Name, Vec<i32>)| {
                let partitions = partitions.into_iter().map(|partition| (partition, None)).collect();
                let mut topic = of_topic((topic, partitions));
                topic.partitions.iter_mut().for_each(|partition| partition.error_code = code);
                topic
            };
            let response = OffsetFetchResponse::default()
                .with_topics(topics.unwrap_or_default().into_iter().map(none).collect());
            if version >= 2 { response.with_error_code(code) } else { response }
        }
    }
}

fn of_group(topic: &OffsetFetchRequestTopics) -> (Name, Vec<i32>) {
    (name(&topic.name), topic.partition_indexes.clone())
}

async fn find(api: &Arc<Api>, group: &GroupId, wanted: Wanted) -> Result<Offsets, GroupError> {
    let id = group.to_string();
    let look = move |coordinator: &Coordinator| match wanted {
        Some(topics) => topics
            .into_iter()
            .map(|(topic, partitions)| {
                let offset = |partition: i32| coordinator.offset(&id, &topic, partition).cloned();
                let found = partitions.into_iter().map(|partition| (partition, offset(partition))).collect();
                (topic, found)
            })
            .collect(),
        None => {
            let mut found: Offsets = Vec::new();
            for ((topic, partition), offset) in coordinator.offsets(&id) {
                let entry = (*partition, Some(offset.clone()));
                match found.last_mut() {
                    Some((last, partitions)) if last == topic => partitions.push(entry),
                    _ => found.push((topic.clone(), vec![entry])),
                }
            }
            found
        }
    };
    api.groups.look(group, look).await.map_err(GroupError::from)
}

fn grouped(group: GroupId, found: Result<Offsets, GroupError>) -> OffsetFetchResponseGroup {
    let response = OffsetFetchResponseGroup::default().with_group_id(group);
    let topics = match found {
        Ok(topics) => topics,
        Err(error) => return response.with_error_code(errors::of_group(error).code()),
    };
    let topics = topics.into_iter().map(|(topic, partitions)| {
        let partitions = partitions.into_iter().map(|(partition, offset)| {
            let (committed, epoch, metadata) = fields(offset);
            OffsetFetchResponsePartitions::default()
                .with_partition_index(partition)
                .with_committed_offset(committed)
                .with_committed_leader_epoch(epoch)
                .with_metadata(Some(metadata))
        });
        OffsetFetchResponseTopics::default()
            .with_name(TopicName(text(&topic)))
            .with_partitions(partitions.collect())
    });
    response.with_topics(topics.collect())
}

fn of_topic((topic, partitions): (Name, Vec<(i32, Option<CommittedOffset>)>)) -> OffsetFetchResponseTopic {
    let partitions = partitions.into_iter().map(|(partition, offset)| {
        let (committed, epoch, metadata) = fields(offset);
        OffsetFetchResponsePartition::default()
            .with_partition_index(partition)
            .with_committed_offset(committed)
            .with_committed_leader_epoch(epoch)
            .with_metadata(Some(metadata))
    });
    OffsetFetchResponseTopic::default()
        .with_name(TopicName(text(&topic)))
        .with_partitions(partitions.collect())
}

fn fields(offset: Option<CommittedOffset>) -> (i64, i32, StrBytes) {
    match offset {
        Some(offset) => (offset.offset, offset.leader_epoch, text(&offset.metadata)),
        None => (NONE, -1, StrBytes::from_static_str("")),
    }
}
