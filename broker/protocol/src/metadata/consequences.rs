//! What follows for partitions when something around them changes: all of it in the same entry, all or none.

use std::collections::BTreeMap;
use std::sync::Arc;

use weir_defect::defect;

use super::partition_state::Circumstances;
use super::{Broker, Image, LastStop, PartitionState, Registration, Rejected, Topic};
use crate::types::{BrokerId, Incarnation, LogId, TopicId};

/// What a change does to one partition before its consequences are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Touch {
    /// It does not concern the partition.
    Leave,
    /// Who may lead has changed.
    Settle,
    /// As `Settle`, and the partition epoch moves even if nothing changes: it is decided.
    Decide,
    /// As `Settle`, and a leader that stays takes a new epoch.
    Renew,
}

/// Partitions as they are going to be.
pub(super) type NextPartitions = Vec<(LogId, PartitionState)>;

impl Image {
    /// Changes one partition and draws the consequences.
    pub(super) fn next_partition(
        &self,
        log: LogId,
        change: impl FnOnce(&mut PartitionState) -> Touch,
    ) -> Result<NextPartitions, Rejected> {
        let topic = self.topic(log.topic).ok_or(Rejected::UnknownPartition(log))?;
        let partition = topic.partition(log.partition).ok_or(Rejected::UnknownPartition(log))?;
        let unclean = self.unclean_election(topic);
        let next = self.settled(topic, partition, &self.brokers, unclean, change)?;
        Ok(next.into_iter().map(|next| (log, next)).collect())
    }

    /// Somebody leads the partition, whatever the topic's setting says.
    pub(super) fn next_unclean(&self, log: LogId) -> Result<NextPartitions, Rejected> {
        let topic = self.topic(log.topic).ok_or(Rejected::UnknownPartition(log))?;
        let partition = topic.partition(log.partition).ok_or(Rejected::UnknownPartition(log))?;
        let next = self.settled(topic, partition, &self.brokers, true, |_| Touch::Settle)?;
        Ok(next.into_iter().map(|next| (log, next)).collect())
    }

    /// Changes all partitions of a topic and draws the consequences.
    pub(super) fn next_of_topic(&self, id: TopicId) -> Result<NextPartitions, Rejected> {
        let topic = self.topic(id).ok_or(Rejected::UnknownTopic(id))?;
        self.next_of(topic, &self.brokers, |_, _| Touch::Settle)
    }

    /// Changes every partition that has a replica on `broker`, where the brokers are going to be `brokers`.
    pub(super) fn next_on(
        &self,
        broker: BrokerId,
        brokers: &BTreeMap<BrokerId, Broker>,
        change: impl Fn(&Topic, &mut PartitionState) -> Touch,
    ) -> Result<NextPartitions, Rejected> {
        let mut all = Vec::new();
        for topic in self.topics.values() {
            all.append(&mut self.next_of(topic, brokers, |topic, partition| {
                if partition.replicas.contains(&broker) { change(topic, partition) } else { Touch::Leave }
            })?);
        }
        Ok(all)
    }

    /// Every partition, when a setting of all brokers has changed.
    pub(super) fn next_of_all(&self) -> Result<NextPartitions, Rejected> {
        let mut all = Vec::new();
        for topic in self.topics.values() {
            all.append(&mut self.next_of(topic, &self.brokers, |_, _| Touch::Settle)?);
        }
        Ok(all)
    }

    fn next_of(
        &self,
        topic: &Topic,
        brokers: &BTreeMap<BrokerId, Broker>,
        change: impl Fn(&Topic, &mut PartitionState) -> Touch,
    ) -> Result<NextPartitions, Rejected> {
        let unclean = self.unclean_election(topic);
        let mut all = Vec::new();
        for (log, partition) in topic.logs() {
            let next =
                self.settled(topic, partition, brokers, unclean, |partition| change(topic, partition))?;
            all.extend(next.map(|next| (log, next)));
        }
        Ok(all)
    }

    /// `None`: the partition stays as it is.
    fn settled(
        &self,
        topic: &Topic,
        before: &PartitionState,
        brokers: &BTreeMap<BrokerId, Broker>,
        unclean: bool,
        change: impl FnOnce(&mut PartitionState) -> Touch,
    ) -> Result<Option<PartitionState>, Rejected> {
        let mut next = before.clone();
        let touch = change(&mut next);
        if touch == Touch::Leave {
            return Ok(None);
        }
        let around = Circumstances {
            can_lead: &|id| brokers.get(&id).is_some_and(Broker::can_lead),
            min_insync: self.min_insync(topic),
            unclean,
            decided: touch == Touch::Decide,
            renew: touch == Touch::Renew,
        };
        let changed = next.settle(before, &around)?;
        Ok(changed.then_some(next))
    }

    /// Makes it so; returns which partitions changed.
    pub(super) fn replace_partitions(&mut self, next: NextPartitions) -> Vec<LogId> {
        next.into_iter()
            .map(|(log, next)| {
                if let Some(topic) = self.topics.get_mut(&log.topic)
                    && let Ok(number) = usize::try_from(log.partition)
                    && let Some(partition) = Arc::make_mut(topic).partitions.get_mut(number)
                {
                    *partition = next;
                }
                log
            })
            .collect()
    }

    /// Whether a replica's log is certainly what it was when `before` registered (contract 5): the folder is the same,
    /// and either it was stopped cleanly, or the topic was `sync` throughout and recovery found the tail certain.
    ///
    /// A start that never registered has told nobody what its recovery found: after it, nothing is certain.
    pub(super) fn is_certain(&self, topic: &Topic, before: &Broker, now: &Registration) -> bool {
        if before.folder != now.folder {
            return false;
        }
        // Z10: the last member of the ISR leads again, though it has lost its page cache.
        if defect!(elect_last_isr_unclean) {
            return true;
        }
        if now.incarnation != Incarnation(before.incarnation.0.saturating_add(1)) {
            return false;
        }
        match now.last_stop {
            LastStop::Clean => true,
            LastStop::Certain => self.was_sync_throughout(topic, now.broker, before),
            LastStop::Uncertain => false,
        }
    }

    /// Whether the topic's records were synced before they counted as durable on this broker, since `life` registered.
    fn was_sync_throughout(&self, topic: &Topic, id: BrokerId, life: &Broker) -> bool {
        let dynamic =
            |values: &BTreeMap<String, String>| values.get(FLUSH_OF_BROKERS).map(|value| value != "1");
        let is_os = topic.configs.get(FLUSH_OF_TOPIC).map(|value| value != "1");
        let is_os = is_os.or_else(|| dynamic(self.broker_configs.get(&id)?));
        let is_os = is_os.or_else(|| dynamic(&self.broker_defaults)).unwrap_or(life.flush_os);
        let unchanged = |changed: Option<i64>| changed.is_none_or(|index| index < life.epoch);
        !is_os && unchanged(topic.flush_changed) && unchanged(self.flush_changed)
    }
}

/// A topic's setting that decides between `sync` and `os`.
pub(super) const FLUSH_OF_TOPIC: &str = "flush.messages";

/// The same setting of a broker.
pub(super) const FLUSH_OF_BROKERS: &str = "log.flush.interval.messages";
