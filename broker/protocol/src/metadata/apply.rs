//! Applying commands: deterministic and total.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weir_defect::defect;

use super::consequences::{FLUSH_OF_BROKERS, FLUSH_OF_TOPIC, Touch};
use super::names;
use super::settings::{self, InvalidSetting};
use super::{
    Broker, CLUSTER_PARTITIONS_MAX, Change, Command, Image, IsrMember, LastStop, NewPartition,
    PRODUCER_ID_BLOCK_SIZE, PartitionState, ProducerIdBlock, Registration, Rejected, TOPIC_PARTITIONS_MAX,
    Topic,
};
use crate::types::{BrokerId, LogId, METADATA_TOPIC_ID, TopicId};

impl Image {
    /// Applies the command of the committed entry at `index`. A rejected command changes nothing but
    /// [`Image::applied`].
    pub fn apply(&mut self, index: i64, command: &Command) -> Result<Change, Rejected> {
        self.pass(index)?;
        match command {
            Command::FormCluster { cluster_id, feature_level } => {
                return self.form_cluster(*cluster_id, *feature_level);
            }
            _ if self.cluster_id.is_none() => return Err(Rejected::NotFormed),
            _ => {}
        }
        match command {
            Command::FormCluster { .. } => Err(Rejected::AlreadyFormed),
            Command::RegisterBroker { broker, folder, incarnation, endpoints, rack, features } => {
                let registration = Registration {
                    broker: *broker,
                    folder: *folder,
                    incarnation: *incarnation,
                    endpoints: endpoints.clone(),
                    rack: rack.clone(),
                    features: *features,
                    last_stop: LastStop::Clean,
                    flush_os: false,
                };
                self.register_broker(index, &registration, false)
            }
            Command::SetFenced { broker, broker_epoch, fenced } => {
                self.set_fenced(*broker, *broker_epoch, *fenced)
            }
            Command::UnregisterBroker { broker } => self.unregister_broker(*broker),
            Command::CreateTopic { name, id, partitions, configs } => {
                self.create_topic(name, *id, partitions, configs)
            }
            Command::DeleteTopic { id } => self.delete_topic(*id),
            Command::AddPartitions { id, partitions_before, partitions } => {
                self.add_partitions(*id, *partitions_before, partitions)
            }
            Command::SetTopicConfig { id, changes } => self.set_topic_config(index, *id, changes),
            Command::SetBrokerConfig { broker, changes } => self.set_broker_config(index, *broker, changes),
            Command::AllocateProducerIds { broker, broker_epoch } => {
                self.allocate_producer_ids(*broker, *broker_epoch)
            }
            Command::ChangePartition { log, partition_epoch, leader, isr, renew_epoch } => {
                self.change_partition(*log, *partition_epoch, *leader, isr, *renew_epoch)
            }
            Command::SetFeatureLevel { level } => self.set_feature_level(*level),
        }
    }

    /// What would come of a command now, for requests that only validate. Called on a copy, which then has the
    /// command's effect: what follows in the same request is judged with it.
    pub fn try_out(&mut self, command: &Command) -> Result<Change, Rejected> {
        self.apply(self.applied.map_or(0, |applied| applied.saturating_add(1)), command)
    }

    /// Notes that the entry at `index` is behind us: called by [`Image::apply`], and by the driver for entries that
    /// carry no command, such as a leader's first.
    pub fn pass(&mut self, index: i64) -> Result<(), Rejected> {
        match self.applied {
            Some(applied) if index <= applied => Err(Rejected::OutOfOrder { index, applied }),
            _ => {
                self.applied = Some(index);
                Ok(())
            }
        }
    }

    fn form_cluster(&mut self, cluster_id: uuid::Uuid, feature_level: u16) -> Result<Change, Rejected> {
        if self.cluster_id.is_some() {
            return Err(Rejected::AlreadyFormed);
        }
        if feature_level == 0 {
            return Err(Rejected::UnsupportedFeature(feature_level));
        }
        self.cluster_id = Some(cluster_id);
        self.feature_level = feature_level;
        Ok(Change::ClusterFormed)
    }

    fn unregister_broker(&mut self, id: BrokerId) -> Result<Change, Rejected> {
        if !self.brokers.contains_key(&id) {
            return Err(Rejected::UnknownBroker(id));
        }
        if self.replicas_on(id).next().is_some() {
            return Err(Rejected::BrokerInUse(id));
        }
        self.brokers.remove(&id);
        self.broker_configs.remove(&id);
        Ok(Change::BrokerUnregistered { broker: id })
    }

    fn create_topic(
        &mut self,
        name: &str,
        id: TopicId,
        partitions: &[NewPartition],
        configs: &BTreeMap<String, String>,
    ) -> Result<Change, Rejected> {
        names::check(name)?;
        if self.names.contains_key(name) {
            return Err(Rejected::TopicExists(name.to_owned()));
        }
        let plain = names::plain(name);
        if let Some(other) = self.plain_names.get(&plain).and_then(|other| self.topics.get(other)) {
            return Err(Rejected::TopicCollides { name: name.to_owned(), other: other.name.clone() });
        }
        if id.is_zero() || id == METADATA_TOPIC_ID || self.topics.contains_key(&id) {
            return Err(Rejected::InvalidTopicId(id));
        }
        for (name, value) in configs {
            settings::check_topic(name, value)?;
        }
        let partitions = self.new_partitions(0, partitions)?;
        self.partition_count += partitions.len();
        self.names.insert(name.to_owned(), id);
        self.plain_names.insert(plain, id);
        let topic =
            Topic { id, name: name.to_owned(), partitions, configs: configs.clone(), flush_changed: None };
        self.topics.insert(id, Arc::new(topic));
        Ok(Change::TopicCreated { id })
    }

    fn delete_topic(&mut self, id: TopicId) -> Result<Change, Rejected> {
        let topic = self.topics.remove(&id).ok_or(Rejected::UnknownTopic(id))?;
        self.names.remove(&topic.name);
        self.plain_names.remove(&names::plain(&topic.name));
        self.partition_count -= topic.partitions.len();
        Ok(Change::TopicDeleted { topic })
    }

    fn add_partitions(
        &mut self,
        id: TopicId,
        partitions_before: i32,
        partitions: &[NewPartition],
    ) -> Result<Change, Rejected> {
        let before = self.topics.get(&id).ok_or(Rejected::UnknownTopic(id))?.partitions.len();
        if usize::try_from(partitions_before) != Ok(before) {
            return Err(Rejected::InvalidPartitions(format!("there are {before}, not {partitions_before}")));
        }
        let mut added = self.new_partitions(before, partitions)?;
        self.partition_count += added.len();
        if let Some(topic) = self.topics.get_mut(&id) {
            Arc::make_mut(topic).partitions.append(&mut added);
        }
        Ok(Change::PartitionsAdded { id, first: partitions_before })
    }

    /// Checks partitions that are to be made, and makes their first state.
    fn new_partitions(
        &self,
        before: usize,
        partitions: &[NewPartition],
    ) -> Result<Vec<PartitionState>, Rejected> {
        if partitions.is_empty() {
            return Err(Rejected::InvalidPartitions("none".to_owned()));
        }
        if before + partitions.len() > TOPIC_PARTITIONS_MAX {
            let text = format!("a topic has at most {TOPIC_PARTITIONS_MAX}");
            return Err(Rejected::InvalidPartitions(text));
        }
        if self.partition_count + partitions.len() > CLUSTER_PARTITIONS_MAX {
            let text = format!("a cluster has at most {CLUSTER_PARTITIONS_MAX}");
            return Err(Rejected::InvalidPartitions(text));
        }
        partitions.iter().map(|partition| self.new_partition(&partition.replicas)).collect()
    }

    fn new_partition(&self, replicas: &[BrokerId]) -> Result<PartitionState, Rejected> {
        let invalid = |text: String| Err(Rejected::InvalidReplicas(text));
        if replicas.is_empty() {
            return invalid("a partition needs a replica".to_owned());
        }
        if let Some(twice) = repeated(replicas.iter()) {
            return invalid(format!("broker {twice} stands there twice"));
        }
        let mut isr = Vec::new();
        for id in replicas {
            match self.brokers.get(id) {
                None => return invalid(format!("broker {id} is not registered")),
                Some(broker) if broker.can_lead() => isr.push(*id),
                Some(_) => {}
            }
        }
        if isr.is_empty() {
            return invalid("every one of the brokers is fenced or about to go".to_owned());
        }
        Ok(PartitionState::new(replicas.to_vec(), isr))
    }

    fn set_topic_config(
        &mut self,
        index: i64,
        id: TopicId,
        changes: &BTreeMap<String, Option<String>>,
    ) -> Result<Change, Rejected> {
        let before = self.topics.get(&id).cloned().ok_or(Rejected::UnknownTopic(id))?;
        check_changes(changes, settings::check_topic)?;
        let mut topic = (*before).clone();
        if !merge(&mut topic.configs, changes) {
            return Ok(Change::Nothing);
        }
        if topic.configs.get(FLUSH_OF_TOPIC) != before.configs.get(FLUSH_OF_TOPIC) {
            topic.flush_changed = Some(index);
        }
        self.topics.insert(id, Arc::new(topic));
        // Who is eligible depends on min.insync.replicas, who may lead on unclean.leader.election.enable.
        match self.next_of_topic(id) {
            Ok(next) => {
                self.replace_partitions(next);
                Ok(Change::TopicConfigChanged { id })
            }
            Err(rejected) => {
                self.topics.insert(id, before);
                Err(rejected)
            }
        }
    }

    fn set_broker_config(
        &mut self,
        index: i64,
        broker: Option<BrokerId>,
        changes: &BTreeMap<String, Option<String>>,
    ) -> Result<Change, Rejected> {
        check_changes(changes, settings::check_broker)?;
        let values = match broker {
            None => &mut self.broker_defaults,
            Some(id) if self.brokers.contains_key(&id) => self.broker_configs.entry(id).or_default(),
            Some(id) => return Err(Rejected::UnknownBroker(id)),
        };
        let before = values.clone();
        if !merge(values, changes) {
            return Ok(Change::Nothing);
        }
        if values.get(FLUSH_OF_BROKERS) != before.get(FLUSH_OF_BROKERS) {
            self.flush_changed = Some(index);
        }
        if broker.is_none() {
            match self.next_of_all() {
                Ok(next) => drop(self.replace_partitions(next)),
                Err(rejected) => {
                    self.broker_defaults = before;
                    return Err(rejected);
                }
            }
        }
        Ok(Change::BrokerConfigChanged { broker })
    }

    fn allocate_producer_ids(&mut self, broker: BrokerId, epoch: i64) -> Result<Change, Rejected> {
        self.broker_in_epoch(broker, epoch)?;
        let first = self.next_producer_id;
        let next = first
            .checked_add(PRODUCER_ID_BLOCK_SIZE)
            .ok_or_else(|| Rejected::Exhausted("producer ids".to_owned()))?;
        self.next_producer_id = next;
        let block = ProducerIdBlock { first, count: PRODUCER_ID_BLOCK_SIZE };
        Ok(Change::ProducerIdsAllocated { broker, block })
    }

    fn change_partition(
        &mut self,
        log: LogId,
        partition_epoch: i32,
        leader: Option<BrokerId>,
        isr: &[IsrMember],
        renew_epoch: bool,
    ) -> Result<Change, Rejected> {
        let partition = self.check_partition_epoch(log, partition_epoch)?;
        self.check_isr(partition, leader, isr)?;
        let ids: Vec<_> = isr.iter().map(|member| member.broker).collect();
        let next = self.next_partition(log, |partition| {
            partition.set_isr(&ids);
            partition.leader = leader;
            if renew_epoch { Touch::Renew } else { Touch::Settle }
        })?;
        self.replace_partitions(next);
        Ok(Change::PartitionChanged { log })
    }

    fn check_isr(
        &self,
        partition: &PartitionState,
        leader: Option<BrokerId>,
        isr: &[IsrMember],
    ) -> Result<(), Rejected> {
        let invalid = |text: String| Err(Rejected::InvalidIsr(text));
        self.check_members(partition, isr)?;
        for IsrMember { broker, .. } in isr {
            // Z12: a dead replica would count for acks=all.
            let joins = !partition.isr.contains(broker);
            if joins && !self.can_lead(*broker) && !defect!(isr_allow_fenced) {
                return invalid(format!("broker {broker} is fenced"));
            }
        }
        match leader {
            Some(id) if !isr.iter().any(|member| member.broker == id) => {
                invalid(format!("the leader {id} is not in sync"))
            }
            Some(id) if self.brokers.get(&id).is_none_or(|broker| broker.fenced) => {
                invalid(format!("the leader {id} is fenced"))
            }
            _ => Ok(()),
        }
    }

    /// Whether each of these is a replica, once, and the incarnation that is meant.
    pub(super) fn check_members(
        &self,
        partition: &PartitionState,
        isr: &[IsrMember],
    ) -> Result<(), Rejected> {
        let invalid = |text: String| Err(Rejected::InvalidIsr(text));
        if let Some(twice) = repeated(isr.iter().map(|member| &member.broker)) {
            return invalid(format!("broker {twice} stands there twice"));
        }
        for member in isr {
            let id = member.broker;
            if !partition.replicas.contains(&id) {
                return invalid(format!("broker {id} is not a replica"));
            }
            let broker = self.brokers.get(&id).ok_or(Rejected::UnknownBroker(id))?;
            // Z11: an addition that was meant for the broker's former self would let an empty replica in.
            if broker.epoch != member.broker_epoch && !defect!(isr_no_broker_epoch) {
                let (given, current) = (member.broker_epoch, broker.epoch);
                return Err(Rejected::StaleBrokerEpoch { broker: id, given, current });
            }
        }
        Ok(())
    }

    fn set_feature_level(&mut self, level: u16) -> Result<Change, Rejected> {
        // What whoever applies this knows itself must not matter: the image is the same on all nodes.
        let supported = self.brokers.values().all(|broker| broker.features.contains(level));
        if level == 0 || !supported {
            return Err(Rejected::UnsupportedFeature(level));
        }
        if level == self.feature_level {
            return Ok(Change::Nothing);
        }
        if level < self.feature_level {
            return Err(Rejected::Downgrade { given: level, current: self.feature_level });
        }
        self.feature_level = level;
        Ok(Change::FeatureLevelChanged { level })
    }

    pub(super) fn broker_in_epoch(&self, id: BrokerId, given: i64) -> Result<&Broker, Rejected> {
        let broker = self.brokers.get(&id).ok_or(Rejected::UnknownBroker(id))?;
        if broker.epoch == given {
            Ok(broker)
        } else {
            Err(Rejected::StaleBrokerEpoch { broker: id, given, current: broker.epoch })
        }
    }
}

fn repeated<'a>(ids: impl Iterator<Item = &'a BrokerId>) -> Option<BrokerId> {
    let mut seen = BTreeSet::new();
    ids.copied().find(|id| !seen.insert(*id))
}

fn check_changes(
    changes: &BTreeMap<String, Option<String>>,
    check: impl Fn(&str, &str) -> Result<(), InvalidSetting>,
) -> Result<(), Rejected> {
    for (name, value) in changes {
        if let Some(value) = value {
            check(name, value)?;
        }
    }
    Ok(())
}

/// Returns whether anything is different now.
fn merge(values: &mut BTreeMap<String, String>, changes: &BTreeMap<String, Option<String>>) -> bool {
    let mut changed = false;
    for (name, value) in changes {
        changed |= match value {
            Some(value) => values.insert(name.clone(), value.clone()).as_ref() != Some(value),
            None => values.remove(name).is_some(),
        };
    }
    changed
}
