//! Internal topics get more replicas as brokers join (contract 3): a cluster that began with one broker does not keep its
//! groups' offsets on that one for ever.

use super::{Controller, Effect, Subject};
use crate::metadata::{AddedReplicas, ClusterCommand, Image, Topic, names, placement};

impl Controller {
    /// Proposes replicas for internal topics that have fewer than they could. What is refused is proposed again with the
    /// next change or tick.
    pub(super) fn grow(&mut self, image: &Image, effects: &mut Vec<Effect>) {
        let wanted = self.limits.internal_replicas.min(image.live_brokers().count());
        for topic in image.topics().filter(|topic| names::is_internal(&topic.name)) {
            let partitions = missing(image, topic, wanted);
            let subject = Subject::Growth(topic.id);
            if !partitions.is_empty() && !self.busy.contains(&subject) {
                let command = ClusterCommand::AddReplicas { id: topic.id, partitions };
                self.propose(image, subject, None, command.into(), effects).ok();
            }
        }
    }
}

/// What a topic lacks to `wanted` replicas of each partition.
fn missing(image: &Image, topic: &Topic, wanted: usize) -> Vec<AddedReplicas> {
    if topic.partitions.iter().all(|state| state.replicas.len() >= wanted) {
        return Vec::new();
    }
    let mut load = placement::replicas_by_broker(image);
    (0..)
        .zip(&topic.partitions)
        .filter_map(|(partition, state)| {
            let replicas = placement::more_replicas(image, state, wanted, &mut load);
            let partition_epoch = state.partition_epoch;
            (!replicas.is_empty()).then_some(AddedReplicas { partition, partition_epoch, replicas })
        })
        .collect()
}
