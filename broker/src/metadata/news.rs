//! What the shards must be told about what was applied.

use weir_protocol::metadata::{Change, Image};
use weir_protocol::types::{LogId, TopicId};

use crate::shard::{Message, Shards};

/// What the shards must be told about an applied command.
#[derive(Debug, Default)]
pub(super) struct News {
    pub(super) changed: Vec<LogId>,
    pub(super) deleted: Vec<LogId>,
    /// Topics whose settings must be worked out anew.
    pub(super) topics: Vec<TopicId>,
    /// All of them.
    pub(super) all_topics: bool,
    /// The image has moved.
    pub(super) applied: bool,
    /// The image has the registration of this start.
    pub(super) registered: bool,
}

impl News {
    /// Takes in what an applied command has changed.
    pub(super) fn note(&mut self, change: &Change, image: &Image) {
        let logs_of = |id: &TopicId| -> Vec<LogId> {
            image.topic(*id).map(|topic| topic.logs().map(|(log, _)| log).collect()).unwrap_or_default()
        };
        match change {
            // Whoever holds a replica begins to follow.
            Change::TopicCreated { id } | Change::PartitionsAdded { id, .. } => {
                self.topics.push(*id);
                self.changed.extend(logs_of(id));
            }
            Change::TopicConfigChanged { id } => {
                self.topics.push(*id);
                self.changed.extend(logs_of(id));
            }
            Change::TopicDeleted { topic } => {
                self.topics.push(topic.id);
                self.deleted.extend(topic.logs().map(|(log, _)| log));
            }
            // Whoever leads one of its partitions learns whether it may join the ISR.
            Change::BrokerRegistered { broker, .. }
            | Change::BrokerFenced { broker, .. }
            | Change::BrokerShuttingDown { broker, .. } => {
                self.changed.extend(image.replicas_on(*broker).map(|(log, _)| log));
            }
            Change::ReplicasAdded { partitions } => self.changed.extend(partitions),
            Change::PartitionChanged { log } => self.changed.push(*log),
            Change::BrokerConfigChanged { .. } => {
                self.all_topics = true;
                self.changed.extend(image.topics().flat_map(|topic| topic.logs().map(|(log, _)| log)));
            }
            Change::Nothing
            | Change::ClusterFormed
            | Change::BrokerUnregistered { .. }
            | Change::ProducerIdsAllocated { .. }
            | Change::FeatureLevelChanged { .. } => {}
        }
    }

    /// Everything may differ: the image was replaced.
    pub(super) fn note_all(&mut self, before: &Image, image: &Image) {
        self.all_topics = true;
        self.changed.extend(image.topics().flat_map(|topic| topic.logs().map(|(log, _)| log)));
        let gone = before.topics().filter(|topic| image.topic(topic.id).is_none());
        self.deleted.extend(gone.flat_map(|topic| topic.logs().map(|(log, _)| log)));
    }
}

/// Hands each shard what concerns its logs.
pub(super) async fn tell(shards: &Shards, logs: Vec<LogId>, message: impl Fn(Vec<LogId>) -> Message) {
    for (shard, logs) in shards.group(logs, |log| *log).into_iter().enumerate() {
        if !logs.is_empty() {
            // A shard that has ended has nothing to be told.
            let _ = shards.send(shard, message(logs)).await;
        }
    }
}
