//! For tests: a cluster of brokers as the image knows them, with one line per command.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::*;
use crate::types::{BrokerId, FolderId, Incarnation, LogId, TopicId};

/// The topic of the tests.
pub(super) const TOPIC: TopicId = TopicId(Uuid::from_u128(7));
/// Its partition.
pub(super) const LOG: LogId = LogId { topic: TOPIC, partition: 0 };

/// A cluster whose laws are checked after each command.
pub(super) struct Town {
    pub(super) image: Image,
    pub(super) index: i64,
    folders: BTreeMap<BrokerId, u128>,
    pub(super) lines: Vec<String>,
}

impl Town {
    /// Brokers 1 to `brokers`, all in service, and a topic with one partition on all of them.
    pub(super) fn new(brokers: i32, configs: &[(&str, &str)]) -> Town {
        let mut town = Town::formed(brokers);
        let replicas = (1..=brokers).map(BrokerId).collect();
        town.create("t", TOPIC, replicas, configs);
        town.lines.clear();
        town
    }

    /// Brokers 1 to `brokers`, all in service.
    pub(super) fn formed(brokers: i32) -> Town {
        let mut town = Town { image: Image::empty(), index: -1, folders: BTreeMap::new(), lines: Vec::new() };
        town.apply(Command::FormCluster { cluster_id: Uuid::from_u128(9), feature_level: 2 }).unwrap();
        (1..=brokers).for_each(|id| town.start(id, LastStop::Clean));
        (1..=brokers).for_each(|id| town.unfence(id));
        town.lines.clear();
        town
    }

    pub(super) fn create(
        &mut self,
        name: &str,
        id: TopicId,
        replicas: Vec<BrokerId>,
        configs: &[(&str, &str)],
    ) {
        let configs = configs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let partitions = vec![NewPartition { replicas }];
        self.apply(Command::CreateTopic { name: name.to_owned(), id, partitions, configs }).unwrap();
    }

    /// Applies a command and checks the laws; one that is rejected changes nothing.
    pub(super) fn apply(&mut self, record: impl Into<Record>) -> Result<Change, Rejected> {
        self.index += 1;
        let before = self.image.clone();
        let outcome = self.image.apply_record(self.index, &record.into());
        self.image.invariants().expect("the laws hold after each command");
        if outcome.is_err() {
            let rewound = |image: &Image| {
                let brokers: Vec<_> = image.brokers().map(|(_, broker)| broker.clone()).collect();
                let topics: Vec<_> = image.topics().cloned().collect();
                (brokers, topics)
            };
            assert_eq!(rewound(&before), rewound(&self.image), "a rejected command changes nothing");
        }
        outcome
    }

    /// Applies a command and notes what became of the partition.
    pub(super) fn say(&mut self, what: &str, record: impl Into<Record>) -> Result<Change, Rejected> {
        let outcome = self.apply(record);
        let then = match &outcome {
            Ok(_) => self.state(),
            Err(rejected) => format!("refused: {rejected}"),
        };
        self.lines.push(format!("{what:<34} {then}"));
        outcome
    }

    /// The partition in a few words.
    pub(super) fn state(&self) -> String {
        let Some(partition) = self.image.partition(LOG) else { return "no partition".to_owned() };
        let list = |ids: &[BrokerId]| ids.iter().map(|id| id.to_string()).collect::<Vec<_>>().join(",");
        let mut text = match partition.leader {
            Some(leader) => format!("{leader} leads {}", partition.leader_epoch),
            None => format!("nobody leads {}", partition.leader_epoch),
        };
        text += &format!(", isr {}", list(&partition.isr));
        for (name, ids) in
            [("elr", &partition.elr), ("uncertain", &partition.uncertain), ("adding", &partition.adding)]
        {
            if !ids.is_empty() {
                text += &format!(", {name} {}", list(ids));
            }
        }
        if partition.unclean_epoch == Some(partition.leader_epoch) {
            text += ", unclean";
        }
        text
    }

    pub(super) fn partition(&self) -> PartitionState {
        self.image.partition(LOG).unwrap().clone()
    }

    pub(super) fn member(&self, id: i32) -> IsrMember {
        let broker = BrokerId(id);
        IsrMember { broker, broker_epoch: self.image.broker(broker).unwrap().epoch }
    }

    /// What a broker says when it starts with what its last life left.
    pub(super) fn registration(&self, id: i32, last_stop: LastStop) -> Registration {
        let lives = self.folders.get(&BrokerId(id)).copied().unwrap_or_default();
        registration(&self.image, id, lives, last_stop)
    }

    pub(super) fn start(&mut self, id: i32, last_stop: LastStop) {
        let registration = self.registration(id, last_stop);
        let what = format!("{id} starts, last stop {last_stop:?}");
        self.say(&what, ClusterCommand::RegisterBroker(registration)).unwrap();
    }

    /// The broker comes back with another disk.
    pub(super) fn start_empty(&mut self, id: i32) {
        *self.folders.entry(BrokerId(id)).or_default() += 1;
        let registration = self.registration(id, LastStop::Clean);
        self.say(&format!("{id} starts with an empty disk"), ClusterCommand::RegisterBroker(registration))
            .unwrap();
    }

    pub(super) fn fence(&mut self, id: i32) {
        let IsrMember { broker, broker_epoch } = self.member(id);
        self.say(&format!("{id} is fenced"), ClusterCommand::Fence { broker, broker_epoch }).unwrap();
    }

    pub(super) fn unfence(&mut self, id: i32) {
        let IsrMember { broker, broker_epoch } = self.member(id);
        self.say(&format!("{id} has caught up"), ClusterCommand::Unfence { broker, broker_epoch }).unwrap();
    }

    pub(super) fn wants_to_go(&mut self, id: i32) {
        let IsrMember { broker, broker_epoch } = self.member(id);
        let begin = ClusterCommand::BeginShutdown { broker, broker_epoch };
        self.say(&format!("{id} wants to go"), begin).unwrap();
    }

    /// The leader's request for these in-sync replicas.
    pub(super) fn alter(&self, isr: &[i32]) -> ClusterCommand {
        let partition = self.partition();
        ClusterCommand::AlterIsr {
            log: LOG,
            leader: self.member(partition.leader.map_or(1, |leader| leader.0)),
            leader_epoch: partition.leader_epoch,
            partition_epoch: partition.partition_epoch,
            isr: isr.iter().map(|id| self.member(*id)).collect(),
        }
    }

    pub(super) fn in_sync(&mut self, isr: &[i32]) -> Result<Change, Rejected> {
        let command = self.alter(isr);
        self.say(&format!("the leader has {isr:?} in sync"), command)
    }

    pub(super) fn recovered(
        &mut self,
        leader: i32,
        equals: &[i32],
        behind: &[i32],
    ) -> Result<Change, Rejected> {
        let command = ClusterCommand::ElectRecovered {
            log: LOG,
            partition_epoch: self.partition().partition_epoch,
            leader: self.member(leader),
            equals: equals.iter().map(|id| self.member(*id)).collect(),
            behind: behind.iter().copied().map(BrokerId).collect(),
        };
        self.say(&format!("{leader} has most, as {equals:?}, {behind:?} less"), command)
    }

    pub(super) fn transcript(&self) -> String {
        self.lines.join("\n")
    }
}

/// What a broker says of itself that has had so many other folders.
pub(crate) fn registration(image: &Image, id: i32, folders: u128, last_stop: LastStop) -> Registration {
    let broker = BrokerId(id);
    let folder = FolderId(Uuid::from_u128(folders * 1000 + id as u128));
    let known = image.broker(broker).filter(|known| known.folder == folder);
    Registration {
        broker,
        folder,
        incarnation: Incarnation(known.map_or(1, |known| known.incarnation.0 + 1)),
        endpoints: Vec::new(),
        rack: None,
        features: FeatureRange { min: 1, max: 2 },
        last_stop,
        flush_os: false,
    }
}
