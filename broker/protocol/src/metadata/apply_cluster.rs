//! Applying the commands of [`ClusterCommand`].

use weir_defect::defect;

use super::consequences::Touch;
use super::{
    AddedReplicas, Broker, Change, ClusterCommand, Image, IsrMember, PartitionState, Record, Registration,
    Rejected,
};
use crate::types::{BrokerId, LeaderEpoch, LogId, TopicId};

impl Image {
    /// Applies the committed entry at `index`, whatever its format. A rejected command changes nothing but
    /// [`Image::applied`].
    pub fn apply_record(&mut self, index: i64, record: &Record) -> Result<Change, Rejected> {
        match record {
            Record::V1(command) => self.apply(index, command),
            Record::V2(command) => {
                self.pass(index)?;
                self.permits(record)?;
                self.apply_cluster(index, command)
            }
        }
    }

    /// Whether the cluster works at a feature level at which this may be proposed: before that, a member of an older
    /// version could not read the log (KIP-584).
    pub fn permits(&self, record: &Record) -> Result<(), Rejected> {
        let (needed, current) = (record.feature_level(), self.feature_level);
        match record {
            Record::V1(_) => Ok(()),
            _ if self.cluster_id.is_none() => Err(Rejected::NotFormed),
            _ if needed > current => Err(Rejected::FeatureLevel { needed, current }),
            _ => Ok(()),
        }
    }

    fn apply_cluster(&mut self, index: i64, command: &ClusterCommand) -> Result<Change, Rejected> {
        match command {
            ClusterCommand::RegisterBroker(registration) => self.register_broker(index, registration, true),
            ClusterCommand::Fence { broker, broker_epoch } => self.set_fenced(*broker, *broker_epoch, true),
            ClusterCommand::Unfence { broker, broker_epoch } => {
                self.set_fenced(*broker, *broker_epoch, false)
            }
            ClusterCommand::BeginShutdown { broker, broker_epoch } => {
                self.begin_shutdown(*broker, *broker_epoch)
            }
            ClusterCommand::AlterIsr { log, leader, leader_epoch, partition_epoch, isr } => {
                self.check_alter_isr(*log, *leader, *leader_epoch, *partition_epoch, isr)?;
                let isr: Vec<_> = isr.iter().map(|member| member.broker).collect();
                self.alter(*log, |partition| {
                    partition.set_isr(&isr);
                    // A leader that asks for the ISR that there is wants to know that nothing else comes of this
                    // partition epoch.
                    Touch::Decide
                })
            }
            ClusterCommand::RenewEpoch { log, leader, leader_epoch } => {
                self.check_leader(*log, *leader, *leader_epoch)?;
                self.alter(*log, |_| Touch::Renew)
            }
            ClusterCommand::LeaveIsr { log, member } => self.leave_isr(*log, *member),
            ClusterCommand::ElectPreferred { log, partition_epoch } => {
                self.elect_preferred(*log, *partition_epoch)
            }
            ClusterCommand::ElectUnclean { log, partition_epoch } => {
                self.elect_unclean(*log, *partition_epoch)
            }
            ClusterCommand::ElectRecovered { log, partition_epoch, leader, equals, behind } => {
                self.elect_recovered(*log, *partition_epoch, *leader, equals, behind)
            }
            ClusterCommand::AddReplicas { id, partitions } => self.add_replicas(*id, partitions),
        }
    }

    /// A start of a broker. Fenced, as in a cluster, it leaves every ISR until it has caught up; else (a sole broker of
    /// the first format) it goes on where it was, in new leader epochs (contract 4).
    pub(super) fn register_broker(
        &mut self,
        index: i64,
        registration: &Registration,
        fenced: bool,
    ) -> Result<Change, Rejected> {
        let id = registration.broker;
        if !registration.features.contains(self.feature_level) {
            return Err(Rejected::UnsupportedFeature(self.feature_level));
        }
        let before = self.brokers.get(&id).cloned();
        if let Some(before) = before.as_ref().filter(|before| before.folder == registration.folder) {
            if before.incarnation > registration.incarnation {
                return Err(Rejected::StaleIncarnation(id));
            }
            if before.incarnation == registration.incarnation {
                // The same start says again where it is.
                let again =
                    Broker { fenced: before.fenced, ..Broker::registered(before.epoch, registration) };
                self.brokers.insert(id, Broker { shutting_down: before.shutting_down, ..again });
                return Ok(Change::BrokerRegistered { broker: id, epoch: before.epoch, partitions: vec![] });
            }
        }
        let mut brokers = self.brokers.clone();
        brokers.insert(id, Broker { fenced, ..Broker::registered(index, registration) });
        let next = self.next_on(id, &brokers, |topic, partition| {
            // Nobody else can have more than a sole replica.
            let is_sole = partition.replicas == [id];
            let certain = before.as_ref().is_some_and(|before| match fenced && !is_sole {
                true => self.is_certain(topic, before, registration),
                false => before.folder == registration.folder,
            });
            let led = partition.leader == Some(id);
            if before.as_ref().is_some_and(|before| before.folder != registration.folder) {
                partition.empty(id);
            }
            if fenced || !certain {
                partition.retire(id, certain);
                Touch::Settle
            } else if led {
                Touch::Renew
            } else {
                Touch::Settle
            }
        })?;
        self.brokers = brokers;
        let partitions = self.replace_partitions(next);
        Ok(Change::BrokerRegistered { broker: id, epoch: index, partitions })
    }

    pub(super) fn set_fenced(&mut self, id: BrokerId, epoch: i64, fenced: bool) -> Result<Change, Rejected> {
        if self.broker_in_epoch(id, epoch)?.fenced == fenced {
            return Ok(Change::Nothing);
        }
        let partitions = self.change_broker(id, fenced, |broker| broker.fenced = fenced)?;
        Ok(Change::BrokerFenced { broker: id, fenced, partitions })
    }

    fn begin_shutdown(&mut self, id: BrokerId, epoch: i64) -> Result<Change, Rejected> {
        if self.broker_in_epoch(id, epoch)?.shutting_down {
            return Ok(Change::Nothing);
        }
        let partitions = self.change_broker(id, true, |broker| broker.shutting_down = true)?;
        Ok(Change::BrokerShuttingDown { broker: id, partitions })
    }

    /// Changes a broker; `retire` takes it out of every ISR.
    fn change_broker(
        &mut self,
        id: BrokerId,
        retire: bool,
        change: impl FnOnce(&mut Broker),
    ) -> Result<Vec<LogId>, Rejected> {
        let mut brokers = self.brokers.clone();
        if let Some(broker) = brokers.get_mut(&id) {
            change(broker);
        }
        let next = self.next_on(id, &brokers, |_, partition| {
            if retire {
                partition.retire(id, true);
            }
            Touch::Settle
        })?;
        self.brokers = brokers;
        Ok(self.replace_partitions(next))
    }

    /// Changes one partition.
    fn alter(
        &mut self,
        log: LogId,
        change: impl FnOnce(&mut PartitionState) -> Touch,
    ) -> Result<Change, Rejected> {
        let next = self.next_partition(log, change)?;
        if next.is_empty() {
            return Ok(Change::Nothing);
        }
        self.replace_partitions(next);
        Ok(Change::PartitionChanged { log })
    }

    /// Whether [`ClusterCommand::AlterIsr`] fits now: the controller asks before it proposes, applying asks again.
    pub fn check_alter_isr(
        &self,
        log: LogId,
        leader: IsrMember,
        leader_epoch: LeaderEpoch,
        partition_epoch: i32,
        isr: &[IsrMember],
    ) -> Result<(), Rejected> {
        let partition = self.check_leader(log, leader, leader_epoch)?;
        self.check_partition_epoch(log, partition_epoch)?;
        self.check_members(partition, isr)?;
        for member in isr.iter().filter(|member| !partition.isr.contains(&member.broker)) {
            // Z12: a dead replica would count for acks=all.
            if !self.can_lead(member.broker) && !defect!(isr_allow_fenced) {
                return Err(Rejected::IneligibleReplica { log, broker: member.broker });
            }
        }
        if isr.iter().any(|member| member.broker == leader.broker) {
            Ok(())
        } else {
            Err(Rejected::InvalidIsr(format!("the leader {} is not in sync", leader.broker)))
        }
    }

    /// Whether `leader` leads `log` in this epoch, as this incarnation.
    pub fn check_leader(
        &self,
        log: LogId,
        leader: IsrMember,
        leader_epoch: LeaderEpoch,
    ) -> Result<&PartitionState, Rejected> {
        let partition = self.partition(log).ok_or(Rejected::UnknownPartition(log))?;
        self.broker_in_epoch(leader.broker, leader.broker_epoch)?;
        if partition.leader != Some(leader.broker) || partition.leader_epoch != leader_epoch {
            return Err(Rejected::NotLeader { log, broker: leader.broker, epoch: leader_epoch });
        }
        Ok(partition)
    }

    pub(super) fn check_partition_epoch(&self, log: LogId, given: i32) -> Result<&PartitionState, Rejected> {
        let partition = self.partition(log).ok_or(Rejected::UnknownPartition(log))?;
        let current = partition.partition_epoch;
        if current == given {
            Ok(partition)
        } else {
            Err(Rejected::StalePartitionEpoch { log, given, current })
        }
    }

    fn leave_isr(&mut self, log: LogId, member: IsrMember) -> Result<Change, Rejected> {
        self.broker_in_epoch(member.broker, member.broker_epoch)?;
        let partition = self.partition(log).ok_or(Rejected::UnknownPartition(log))?;
        let others = partition.isr.iter().chain(&partition.elr).filter(|id| **id != member.broker);
        let another_could_lead = others.into_iter().any(|id| self.can_lead(*id));
        let is_candidate = partition.candidates().any(|id| id == member.broker);
        if is_candidate && !another_could_lead {
            return Err(Rejected::NoEligibleLeader(log));
        }
        self.alter(log, |partition| {
            partition.forget(member.broker);
            // A leader that stays knows the damaged replica for what it had: in a new epoch it has to show what it has.
            Touch::Renew
        })
    }

    fn elect_preferred(&mut self, log: LogId, partition_epoch: i32) -> Result<Change, Rejected> {
        let partition = self.check_partition_epoch(log, partition_epoch)?;
        let preferred = partition.replicas.first().copied();
        if partition.leader == preferred {
            return Err(Rejected::ElectionNotNeeded(log));
        }
        match preferred.filter(|id| partition.isr.contains(id) && self.can_lead(*id)) {
            Some(_) => self.alter(log, |partition| {
                // Without a leader, the first one in the order of the replicas is elected.
                partition.leader = None;
                Touch::Settle
            }),
            None => Err(Rejected::NoEligibleLeader(log)),
        }
    }

    fn elect_unclean(&mut self, log: LogId, partition_epoch: i32) -> Result<Change, Rejected> {
        let partition = self.check_partition_epoch(log, partition_epoch)?;
        if partition.leader.is_some() {
            return Err(Rejected::ElectionNotNeeded(log));
        }
        let next = self.next_unclean(log)?;
        if next.is_empty() {
            return Err(Rejected::NoEligibleLeader(log));
        }
        self.replace_partitions(next);
        Ok(Change::PartitionChanged { log })
    }

    /// Contract 5: enough of those who may hold everything have answered, and the leader has the most of them.
    fn elect_recovered(
        &mut self,
        log: LogId,
        partition_epoch: i32,
        leader: IsrMember,
        equals: &[IsrMember],
        behind: &[BrokerId],
    ) -> Result<Change, Rejected> {
        let partition = self.check_partition_epoch(log, partition_epoch)?;
        let invalid = |text: &str| Err(Rejected::InvalidIsr(text.to_owned()));
        if partition.leader.is_some() || partition.elr.iter().any(|id| self.can_lead(*id)) {
            return Err(Rejected::ElectionNotNeeded(log));
        }
        let answered = || std::iter::once(&leader).chain(equals);
        for member in answered() {
            self.broker_in_epoch(member.broker, member.broker_epoch)?;
        }
        let mut ids: Vec<_> = answered().map(|member| member.broker).chain(behind.iter().copied()).collect();
        ids.sort();
        ids.dedup();
        if ids.len() != 1 + equals.len() + behind.len()
            || !ids.iter().all(|id| partition.uncertain.contains(id))
        {
            return invalid("who answered is not one of the uncertain, or stands there twice");
        }
        if Some(ids.len()) < self.answers_needed(log) {
            return invalid("too few have answered");
        }
        if !self.can_lead(leader.broker) {
            return Err(Rejected::NoEligibleLeader(log));
        }
        self.alter(log, |partition| {
            // Who has less stays on the list until m are in sync: the leader may lose what it has before, and m must answer again.
            partition.uncertain.retain(|id| !ids.contains(id) || behind.contains(id));
            partition.elr.extend(equals.iter().map(|member| member.broker));
            partition.lead_alone(leader.broker);
            Touch::Settle
        })
    }

    fn add_replicas(&mut self, id: TopicId, partitions: &[AddedReplicas]) -> Result<Change, Rejected> {
        let mut all = Vec::new();
        for added in partitions {
            let log = LogId::new(id, added.partition);
            let partition = self.check_partition_epoch(log, added.partition_epoch)?;
            let mut distinct = partition.replicas.clone();
            distinct.extend(&added.replicas);
            distinct.sort();
            distinct.dedup();
            if distinct.len() != partition.replicas.len() + added.replicas.len() {
                return Err(Rejected::InvalidReplicas("a broker stands there twice".to_owned()));
            }
            if let Some(unknown) = added.replicas.iter().find(|id| !self.brokers.contains_key(id)) {
                return Err(Rejected::InvalidReplicas(format!("broker {unknown} is not registered")));
            }
            if all.iter().any(|(seen, _)| *seen == log) {
                return Err(Rejected::InvalidReplicas(format!("partition {log} stands there twice")));
            }
            all.append(&mut self.next_partition(log, |partition| {
                partition.replicas.extend(&added.replicas);
                partition.adding.extend(&added.replicas);
                Touch::Settle
            })?);
        }
        Ok(Change::ReplicasAdded { partitions: self.replace_partitions(all) })
    }
}

impl Broker {
    /// A broker as it registers: neither fenced nor shutting down.
    fn registered(epoch: i64, registration: &Registration) -> Broker {
        Broker {
            epoch,
            folder: registration.folder,
            incarnation: registration.incarnation,
            endpoints: registration.endpoints.clone(),
            rack: registration.rack.clone(),
            features: registration.features,
            fenced: false,
            shutting_down: false,
            flush_os: registration.flush_os,
        }
    }
}
