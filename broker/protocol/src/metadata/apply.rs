//! Applying commands: deterministic and total.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weir_defect::defect;

use super::names;
use super::settings::{self, InvalidSetting};
use super::{
    Broker, CLUSTER_PARTITIONS_MAX, Change, Command, FEATURE_LEVEL_MAX, Image, IsrMember, NewPartition,
    PRODUCER_ID_BLOCK_SIZE, PartitionState, ProducerIdBlock, Rejected, TOPIC_PARTITIONS_MAX, Topic,
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
                let registration = Broker {
                    epoch: index,
                    folder: *folder,
                    incarnation: *incarnation,
                    endpoints: endpoints.clone(),
                    rack: rack.clone(),
                    features: *features,
                    fenced: false,
                };
                self.register_broker(*broker, registration)
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
            Command::SetTopicConfig { id, changes } => self.set_topic_config(*id, changes),
            Command::SetBrokerConfig { broker, changes } => self.set_broker_config(*broker, changes),
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
        if feature_level == 0 || feature_level > FEATURE_LEVEL_MAX {
            return Err(Rejected::UnsupportedFeature(feature_level));
        }
        self.cluster_id = Some(cluster_id);
        self.feature_level = feature_level;
        Ok(Change::ClusterFormed)
    }

    fn register_broker(&mut self, id: BrokerId, registration: Broker) -> Result<Change, Rejected> {
        if !registration.features.contains(self.feature_level) {
            return Err(Rejected::UnsupportedFeature(self.feature_level));
        }
        let same_folder = match self.brokers.get(&id) {
            Some(before) if before.folder == registration.folder => {
                if before.incarnation > registration.incarnation {
                    return Err(Rejected::StaleIncarnation(id));
                }
                if before.incarnation == registration.incarnation {
                    return Ok(self.refresh_registration(id, registration));
                }
                true
            }
            Some(_) => false,
            None => true,
        };
        let epoch = registration.epoch;
        let partitions = self.change_where(
            |partition| partition.replicas.contains(&id),
            |partition| {
                let led = partition.leader == Some(id);
                if !same_folder && partition.isr.contains(&id) {
                    partition.lose(id)
                } else if led {
                    partition.renew()
                } else if partition.leader.is_none() && partition.isr.contains(&id) {
                    partition.lead(Some(id))
                } else {
                    Ok(false)
                }
            },
        )?;
        self.brokers.insert(id, registration);
        Ok(Change::BrokerRegistered { broker: id, epoch, partitions })
    }

    /// The same start of the same folder says again where it is: its epoch stays.
    fn refresh_registration(&mut self, id: BrokerId, registration: Broker) -> Change {
        let Some(known) = self.brokers.get_mut(&id) else { return Change::Nothing };
        let (epoch, fenced) = (known.epoch, known.fenced);
        *known = Broker { epoch, fenced, ..registration };
        Change::BrokerRegistered { broker: id, epoch, partitions: Vec::new() }
    }

    fn set_fenced(&mut self, id: BrokerId, epoch: i64, fenced: bool) -> Result<Change, Rejected> {
        let broker = self.broker_in_epoch(id, epoch)?;
        if broker.fenced == fenced {
            return Ok(Change::Nothing);
        }
        if let Some(broker) = self.brokers.get_mut(&id) {
            broker.fenced = fenced;
        }
        Ok(Change::BrokerFenced { broker: id, fenced })
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
        let topic = Topic { id, name: name.to_owned(), partitions, configs: configs.clone() };
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
                Some(broker) if !broker.fenced => isr.push(*id),
                Some(_) => {}
            }
        }
        let Some(leader) = isr.first().copied() else {
            return invalid("every one of the brokers is fenced".to_owned());
        };
        Ok(PartitionState {
            replicas: replicas.to_vec(),
            isr,
            leader: Some(leader),
            leader_epoch: 0,
            partition_epoch: 0,
        })
    }

    fn set_topic_config(
        &mut self,
        id: TopicId,
        changes: &BTreeMap<String, Option<String>>,
    ) -> Result<Change, Rejected> {
        let topic = self.topics.get_mut(&id).ok_or(Rejected::UnknownTopic(id))?;
        check_changes(changes, settings::check_topic)?;
        if merge(&mut Arc::make_mut(topic).configs, changes) {
            Ok(Change::TopicConfigChanged { id })
        } else {
            Ok(Change::Nothing)
        }
    }

    fn set_broker_config(
        &mut self,
        broker: Option<BrokerId>,
        changes: &BTreeMap<String, Option<String>>,
    ) -> Result<Change, Rejected> {
        check_changes(changes, settings::check_broker)?;
        let values = match broker {
            None => &mut self.broker_defaults,
            Some(id) if self.brokers.contains_key(&id) => self.broker_configs.entry(id).or_default(),
            Some(id) => return Err(Rejected::UnknownBroker(id)),
        };
        if merge(values, changes) { Ok(Change::BrokerConfigChanged { broker }) } else { Ok(Change::Nothing) }
    }

    fn allocate_producer_ids(&mut self, broker: BrokerId, epoch: i64) -> Result<Change, Rejected> {
        self.broker_in_epoch(broker, epoch)?;
        let first = self.next_producer_id;
        let next = first.checked_add(PRODUCER_ID_BLOCK_SIZE).ok_or(Rejected::Exhausted("producer ids"))?;
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
        let partition = self.partition(log).ok_or(Rejected::UnknownPartition(log))?;
        if partition.partition_epoch != partition_epoch {
            let current = partition.partition_epoch;
            return Err(Rejected::StalePartitionEpoch { log, given: partition_epoch, current });
        }
        self.check_isr(partition, leader, isr)?;
        let mut next = partition.clone();
        next.isr.clone_from(&next.replicas);
        next.isr.retain(|id| isr.iter().any(|member| member.broker == *id));
        if leader != next.leader || renew_epoch {
            next.lead(leader)?;
        } else {
            next.touch()?;
        }
        self.replace_partition(log, next);
        Ok(Change::PartitionChanged { log })
    }

    fn check_isr(
        &self,
        partition: &PartitionState,
        leader: Option<BrokerId>,
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
            // Z12: a dead replica would count for acks=all.
            let joins = !partition.isr.contains(&id);
            if joins && broker.fenced && !defect!(isr_allow_fenced) {
                return invalid(format!("broker {id} is fenced"));
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

    fn set_feature_level(&mut self, level: u16) -> Result<Change, Rejected> {
        let supported = self.brokers.values().all(|broker| broker.features.contains(level));
        if level == 0 || level > FEATURE_LEVEL_MAX || !supported {
            return Err(Rejected::UnsupportedFeature(level));
        }
        if level == self.feature_level {
            return Ok(Change::Nothing);
        }
        self.feature_level = level;
        Ok(Change::FeatureLevelChanged { level })
    }

    fn broker_in_epoch(&self, id: BrokerId, given: i64) -> Result<&Broker, Rejected> {
        let broker = self.brokers.get(&id).ok_or(Rejected::UnknownBroker(id))?;
        if broker.epoch == given {
            Ok(broker)
        } else {
            Err(Rejected::StaleBrokerEpoch { broker: id, given, current: broker.epoch })
        }
    }

    /// Changes every partition that `which` names and returns those that did change; all or none.
    fn change_where(
        &mut self,
        which: impl Fn(&PartitionState) -> bool,
        change: impl Fn(&mut PartitionState) -> Result<bool, Rejected>,
    ) -> Result<Vec<LogId>, Rejected> {
        let mut changed = Vec::new();
        for topic in self.topics.values() {
            for (log, partition) in topic.logs().filter(|(_, partition)| which(partition)) {
                let mut next = partition.clone();
                if change(&mut next)? {
                    changed.push((log, next));
                }
            }
        }
        let logs = changed.iter().map(|(log, _)| *log).collect();
        for (log, next) in changed {
            self.replace_partition(log, next);
        }
        Ok(logs)
    }

    fn replace_partition(&mut self, log: LogId, next: PartitionState) {
        let Ok(number) = usize::try_from(log.partition) else { return };
        if let Some(topic) = self.topics.get_mut(&log.topic)
            && let Some(partition) = Arc::make_mut(topic).partitions.get_mut(number)
        {
            *partition = next;
        }
    }
}

impl PartitionState {
    /// Another state: counts it.
    fn touch(&mut self) -> Result<bool, Rejected> {
        let next = self.partition_epoch.checked_add(1).ok_or(Rejected::Exhausted("partition epochs"))?;
        self.partition_epoch = next;
        Ok(true)
    }

    /// `leader` leads in a new epoch.
    fn lead(&mut self, leader: Option<BrokerId>) -> Result<bool, Rejected> {
        self.leader = leader;
        self.renew()
    }

    /// A new epoch under the same leader.
    fn renew(&mut self) -> Result<bool, Rejected> {
        let next = self.leader_epoch.checked_add(1).ok_or(Rejected::Exhausted("leader epochs"))?;
        self.leader_epoch = next;
        self.touch()
    }

    /// `broker` no longer has what it had: it leaves the ISR, and another in-sync replica leads in its place.
    fn lose(&mut self, broker: BrokerId) -> Result<bool, Rejected> {
        self.isr.retain(|id| *id != broker);
        if self.leader == Some(broker) { self.lead(self.isr.first().copied()) } else { self.touch() }
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
