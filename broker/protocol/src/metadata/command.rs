//! The commands of the metadata log.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{ClusterCommand, FeatureRange};
use crate::types::{BrokerId, FolderId, Incarnation, LogId, TopicId};

/// A command as it stands in the quorum's log: with the version of its format.
///
/// Entries live as long as the log does. So a version's commands never change: no variant and no field is added,
/// removed or reordered. Another shape is another version, and `V1` stays readable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// The first format.
    V1(Command),
    /// What a cluster needs besides.
    V2(ClusterCommand),
}

impl Record {
    /// The lowest feature level at which every member of the cluster can read this; below it, it is not proposed.
    pub fn feature_level(&self) -> u16 {
        match self {
            Record::V1(_) => 1,
            Record::V2(_) => 2,
        }
    }
}

impl From<Command> for Record {
    fn from(command: Command) -> Record {
        Record::V1(command)
    }
}

impl From<ClusterCommand> for Record {
    fn from(command: ClusterCommand) -> Record {
        Record::V2(command)
    }
}

/// One change of the cluster's metadata.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// The first command of a cluster; it is formed once.
    FormCluster {
        /// Drawn by the proposer.
        cluster_id: Uuid,
        /// The feature level that the cluster starts with.
        feature_level: u16,
    },
    /// A broker has started. Its broker epoch is the index of this entry; every partition that it still leads gets a
    /// new leader epoch (contract 4).
    RegisterBroker {
        /// Which.
        broker: BrokerId,
        /// Its data folder. Another one than before holds none of the data that the broker is known for.
        folder: FolderId,
        /// Counts the starts of the folder.
        incarnation: Incarnation,
        /// Where clients and brokers reach it.
        endpoints: Vec<Endpoint>,
        /// `broker.rack`
        rack: Option<String>,
        /// The feature levels that it can work with.
        features: FeatureRange,
    },
    /// The broker's session ended (`fenced`), or it has caught up (not `fenced`). A fenced broker leads nothing.
    SetFenced {
        /// Which.
        broker: BrokerId,
        /// Its broker epoch: a broker that has registered anew is not meant.
        broker_epoch: i64,
        /// What it is from now on.
        fenced: bool,
    },
    /// The broker is gone for good. Refused while it holds replicas.
    UnregisterBroker {
        /// Which.
        broker: BrokerId,
    },
    /// A new topic.
    CreateTopic {
        /// See [`super::names`].
        name: String,
        /// Drawn by the proposer, never used before.
        id: TopicId,
        /// From partition 0 on.
        partitions: Vec<NewPartition>,
        /// Settings that differ from the defaults.
        configs: BTreeMap<String, String>,
    },
    /// A topic's end. Its name is free again, its id is not.
    DeleteTopic {
        /// Which.
        id: TopicId,
    },
    /// Adds partitions to a topic.
    AddPartitions {
        /// Which.
        id: TopicId,
        /// How many partitions the proposer saw: the new ones follow.
        partitions_before: i32,
        /// The new ones.
        partitions: Vec<NewPartition>,
    },
    /// Changes a topic's settings.
    SetTopicConfig {
        /// Which.
        id: TopicId,
        /// `None`: back to the default.
        changes: BTreeMap<String, Option<String>>,
    },
    /// Changes a broker's dynamic settings (KIP-226).
    SetBrokerConfig {
        /// `None`: the default of all brokers.
        broker: Option<BrokerId>,
        /// `None`: back to the default.
        changes: BTreeMap<String, Option<String>>,
    },
    /// Gives a broker the next block of producer ids (KIP-730).
    AllocateProducerIds {
        /// Which.
        broker: BrokerId,
        /// Its broker epoch.
        broker_epoch: i64,
    },
    /// Changes who leads a partition and who is in sync.
    ChangePartition {
        /// Which.
        log: LogId,
        /// The partition epoch that the proposer saw; refused when the partition has changed since.
        partition_epoch: i32,
        /// The leader from now on, a member of the ISR.
        leader: Option<BrokerId>,
        /// The in-sync replicas from now on.
        isr: Vec<IsrMember>,
        /// A new leader epoch even though the leader stays: see `partition::Effect::RequestNewEpoch`.
        renew_epoch: bool,
    },
    /// Raises the cluster's feature level (KIP-584). It is never lowered: the log holds what older code cannot read.
    SetFeatureLevel {
        /// Every registered broker can work with it.
        level: u16,
    },
}

/// An address of a broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The listener's name, such as `PLAINTEXT`.
    pub listener: String,
    /// A name or address that clients can reach: never a wildcard (K5).
    pub host: String,
    /// The TCP port.
    pub port: u16,
}

/// A partition to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewPartition {
    /// Its replicas; the first one that is not fenced leads.
    pub replicas: Vec<BrokerId>,
}

/// A proposed in-sync replica (KIP-903).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IsrMember {
    /// Which.
    pub broker: BrokerId,
    /// The broker epoch that the leader saw in the replica's fetch: one that has restarted since is not meant.
    pub broker_epoch: i64,
}
