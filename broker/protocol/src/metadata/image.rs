//! The cluster as the committed commands have made it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use weir_defect::defect;

use super::{Endpoint, PartitionState, settings};
use crate::types::{BrokerId, FolderId, Incarnation, LogId, TopicId};

/// The cluster's metadata after every command up to [`Image::applied`].
///
/// Cloning copies the maps' nodes but not the topics: readers share a clone, the next command changes its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The index of the last entry that was applied, rejected ones included; `None` before the first.
    pub(super) applied: Option<i64>,
    pub(super) cluster_id: Option<Uuid>,
    pub(super) feature_level: u16,
    pub(super) brokers: BTreeMap<BrokerId, Broker>,
    /// Invariant: `topics`, `names` and `plain_names` hold the same topics.
    pub(super) topics: BTreeMap<TopicId, Arc<Topic>>,
    pub(super) names: BTreeMap<String, TopicId>,
    /// By [`super::names::plain`].
    pub(super) plain_names: BTreeMap<String, TopicId>,
    /// Invariant: the number of partitions in `topics`.
    pub(super) partition_count: usize,
    pub(super) broker_defaults: BTreeMap<String, String>,
    pub(super) broker_configs: BTreeMap<BrokerId, BTreeMap<String, String>>,
    /// As [`Topic::flush_changed`], for the settings of brokers.
    pub(super) flush_changed: Option<i64>,
    /// Every producer id below was given out. Invariant: never goes back.
    pub(super) next_producer_id: i64,
}

/// A registered broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broker {
    /// The broker epoch: the index of the registration. Fences the broker's former self (contract 11).
    pub epoch: i64,
    /// The data folder it registered with.
    pub folder: FolderId,
    /// The start of that folder that registered.
    pub incarnation: Incarnation,
    /// Where it is reached.
    pub endpoints: Vec<Endpoint>,
    /// `broker.rack`
    pub rack: Option<String>,
    /// The feature levels that it can work with.
    pub features: FeatureRange,
    /// A fenced broker leads nothing, is in no ISR and gets no new replicas.
    pub fenced: bool,
    /// It wants to go: it leads nothing and is in no ISR, but serves until it is fenced (KIP-841).
    pub shutting_down: bool,
    /// See [`super::Registration::flush_os`].
    pub flush_os: bool,
}

/// Feature levels from `min` to `max`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeatureRange {
    /// The lowest.
    pub min: u16,
    /// The highest.
    pub max: u16,
}

impl Broker {
    /// Neither fenced nor shutting down.
    pub fn can_lead(&self) -> bool {
        !self.fenced && !self.shutting_down
    }
}

impl FeatureRange {
    /// What this code can work at.
    pub const KNOWN: FeatureRange = FeatureRange { min: 1, max: super::FEATURE_LEVEL_MAX };

    /// Whether `level` lies in the range.
    pub fn contains(self, level: u16) -> bool {
        self.min <= level && level <= self.max
    }
}

impl std::fmt::Display for FeatureRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} to {}", self.min, self.max)
    }
}

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topic {
    /// Its id, for ever.
    pub id: TopicId,
    /// Its name.
    pub name: String,
    /// By partition number. Invariant: not empty.
    pub partitions: Vec<PartitionState>,
    /// Settings that differ from the defaults. Invariant: every name and value is valid.
    pub configs: BTreeMap<String, String>,
    /// The last entry that changed when the topic's records are synced: contract 5 asks whether a broker's life was
    /// `sync` throughout.
    pub flush_changed: Option<i64>,
}

/// Producer ids for one broker to give out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProducerIdBlock {
    /// The first id.
    pub first: i64,
    /// How many, from `first` on.
    pub count: i64,
}

impl Image {
    /// The image before the first command.
    pub fn empty() -> Image {
        Image::default()
    }

    /// The index of the last applied entry; `None` before the first.
    pub fn applied(&self) -> Option<i64> {
        self.applied
    }

    /// The cluster's id; `None` until it is formed.
    pub fn cluster_id(&self) -> Option<Uuid> {
        self.cluster_id
    }

    /// The feature level that the cluster works at; 0 until it is formed.
    pub fn feature_level(&self) -> u16 {
        self.feature_level
    }

    /// A registered broker.
    pub fn broker(&self, id: BrokerId) -> Option<&Broker> {
        self.brokers.get(&id)
    }

    /// All registered brokers, fenced ones included.
    pub fn brokers(&self) -> impl Iterator<Item = (BrokerId, &Broker)> {
        self.brokers.iter().map(|(id, broker)| (*id, broker))
    }

    /// The brokers that can lead.
    pub fn live_brokers(&self) -> impl Iterator<Item = (BrokerId, &Broker)> {
        self.brokers().filter(|(_, broker)| broker.can_lead())
    }

    /// Whether a broker is registered and neither fenced nor shutting down.
    pub fn can_lead(&self, id: BrokerId) -> bool {
        self.brokers.get(&id).is_some_and(Broker::can_lead)
    }

    /// A topic by its id.
    pub fn topic(&self, id: TopicId) -> Option<&Arc<Topic>> {
        self.topics.get(&id)
    }

    /// A topic by its name.
    pub fn topic_named(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topics.get(self.names.get(name)?)
    }

    /// All topics, by name.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.names.values().filter_map(|id| self.topics.get(id))
    }

    /// How many partitions there are, all topics together.
    pub fn partition_count(&self) -> usize {
        self.partition_count
    }

    /// A partition's state.
    pub fn partition(&self, log: LogId) -> Option<&PartitionState> {
        self.topic(log.topic)?.partition(log.partition)
    }

    /// m of contract 1, as the whole cluster knows it: from the topic's setting, else from that of all brokers, else a
    /// majority of the replicas. Leaders count with it too; a single broker's own value would make the quorum and the
    /// leader disagree about who is eligible.
    pub fn min_isr(&self, log: LogId) -> Option<usize> {
        let topic = self.topic(log.topic)?;
        Some(topic.partition(log.partition)?.m(self.min_insync(topic)))
    }

    pub(super) fn min_insync(&self, topic: &Topic) -> Option<i32> {
        self.cluster_wide(topic, "min.insync.replicas", "min.insync.replicas")?.parse().ok()
    }

    pub(super) fn unclean_election(&self, topic: &Topic) -> bool {
        let name = "unclean.leader.election.enable";
        self.cluster_wide(topic, name, name).and_then(settings::parse_bool).unwrap_or_default()
    }

    /// A setting that must not differ from broker to broker.
    fn cluster_wide<'a>(&'a self, topic: &'a Topic, name: &str, broker_name: &str) -> Option<&'a str> {
        topic.configs.get(name).or_else(|| self.broker_defaults.get(broker_name)).map(String::as_str)
    }

    /// From how many of its uncertain members the controller must hear before one is elected (contract 5).
    pub fn answers_needed(&self, log: LogId) -> Option<usize> {
        let topic = self.topic(log.topic)?;
        Some(topic.partition(log.partition)?.answers_needed(self.min_insync(topic)))
    }

    /// Every partition that has a replica on `broker`.
    pub fn replicas_on(&self, broker: BrokerId) -> impl Iterator<Item = (LogId, &PartitionState)> {
        self.topics
            .values()
            .flat_map(|topic| topic.logs())
            .filter(move |(_, partition)| partition.replicas.contains(&broker))
    }

    /// The dynamic settings that hold for all brokers.
    pub fn broker_defaults(&self) -> &BTreeMap<String, String> {
        &self.broker_defaults
    }

    /// The dynamic settings of one broker; `None` when it has none.
    pub fn broker_configs(&self, broker: BrokerId) -> Option<&BTreeMap<String, String>> {
        self.broker_configs.get(&broker)
    }

    /// The laws that stand on the fields; an error names what is broken.
    pub fn invariants(&self) -> Result<(), String> {
        let law = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
        law(self.topics.len() == self.names.len(), "a name for each topic")?;
        law(self.topics.len() == self.plain_names.len(), "a plain name for each topic")?;
        let partitions = self.topics.values().map(|topic| topic.partitions.len()).sum::<usize>();
        law(partitions == self.partition_count, "the partition count is right")?;
        // A level of 0: nobody has formed the cluster yet.
        let works = |broker: &Broker| self.feature_level == 0 || broker.features.contains(self.feature_level);
        law(self.brokers.values().all(works), "every broker knows the cluster's feature level")?;
        for (id, topic) in &self.topics {
            let at = |what: &str| format!("{}: {what}: {topic:?}", topic.name);
            law(topic.id == *id && self.names.get(&topic.name) == Some(id), &at("found by its id and name"))?;
            law(!topic.partitions.is_empty(), &at("has a partition"))?;
            for partition in &topic.partitions {
                partition.invariants(self.min_insync(topic)).map_err(|what| at(&what))?;
                // Z12 lets them in.
                let serve = partition.isr.iter().all(|id| self.can_lead(*id));
                law(serve || defect!(isr_allow_fenced), &at("who is in sync can lead"))?;
            }
        }
        Ok(())
    }
}

impl Topic {
    /// A partition's state.
    pub fn partition(&self, number: i32) -> Option<&PartitionState> {
        self.partitions.get(usize::try_from(number).ok()?)
    }

    /// All partitions, by number.
    pub fn logs(&self) -> impl Iterator<Item = (LogId, &PartitionState)> {
        (0..).zip(&self.partitions).map(|(number, partition)| (LogId::new(self.id, number), partition))
    }
}
