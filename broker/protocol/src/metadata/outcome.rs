//! What comes of a command.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::names::InvalidTopicName;
use super::settings::InvalidSetting;
use super::{ProducerIdBlock, Topic};
use crate::types::{BrokerId, LeaderEpoch, LogId, TopicId};

/// What a command has changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Nothing: the command repeats what holds already.
    Nothing,
    /// The cluster has its id.
    ClusterFormed,
    /// A broker is registered.
    BrokerRegistered {
        /// Which.
        broker: BrokerId,
        /// Its broker epoch.
        epoch: i64,
        /// Partitions whose state changed with it.
        partitions: Vec<LogId>,
    },
    /// A broker's fencing changed.
    BrokerFenced {
        /// Which.
        broker: BrokerId,
        /// What it is now.
        fenced: bool,
        /// Partitions whose state changed with it.
        partitions: Vec<LogId>,
    },
    /// A broker wants to go.
    BrokerShuttingDown {
        /// Which.
        broker: BrokerId,
        /// Partitions whose state changed with it.
        partitions: Vec<LogId>,
    },
    /// A broker is forgotten.
    BrokerUnregistered {
        /// Which.
        broker: BrokerId,
    },
    /// A topic exists.
    TopicCreated {
        /// Which.
        id: TopicId,
    },
    /// A topic is gone.
    TopicDeleted {
        /// As it was.
        topic: Arc<Topic>,
    },
    /// A topic has more partitions.
    PartitionsAdded {
        /// Which.
        id: TopicId,
        /// The number of the first new one.
        first: i32,
    },
    /// A topic has other settings.
    TopicConfigChanged {
        /// Which.
        id: TopicId,
    },
    /// A broker, or all brokers, have other settings.
    BrokerConfigChanged {
        /// `None`: all brokers.
        broker: Option<BrokerId>,
    },
    /// Partitions have more replicas.
    ReplicasAdded {
        /// Which.
        partitions: Vec<LogId>,
    },
    /// Producer ids were given out.
    ProducerIdsAllocated {
        /// To whom.
        broker: BrokerId,
        /// Which.
        block: ProducerIdBlock,
    },
    /// A partition has another state.
    PartitionChanged {
        /// Which.
        log: LogId,
    },
    /// The cluster works at another feature level.
    FeatureLevelChanged {
        /// Which.
        level: u16,
    },
}

/// Why a command does not fit. It changed nothing, on any node.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum Rejected {
    /// An entry at or below this index was applied before.
    #[error("entry {index} comes after entry {applied} was applied")]
    OutOfOrder {
        /// The entry's.
        index: i64,
        /// The image's.
        applied: i64,
    },
    /// The cluster is not formed.
    #[error("the cluster is not formed yet")]
    NotFormed,
    /// The cluster has an id.
    #[error("the cluster is formed already")]
    AlreadyFormed,
    /// No such broker.
    #[error("broker {0} is not registered")]
    UnknownBroker(BrokerId),
    /// A later start of the same folder has registered.
    #[error("a later incarnation of broker {0} has registered")]
    StaleIncarnation(BrokerId),
    /// The broker has registered anew since.
    #[error("broker {broker} has epoch {current}, not {given}")]
    StaleBrokerEpoch {
        /// Which.
        broker: BrokerId,
        /// The command's.
        given: i64,
        /// The image's.
        current: i64,
    },
    /// The broker still holds replicas.
    #[error("broker {0} still holds replicas")]
    BrokerInUse(BrokerId),
    /// See [`super::names::check`].
    #[error(transparent)]
    InvalidTopicName(#[from] InvalidTopicName),
    /// The name is taken.
    #[error("topic {0:?} exists already")]
    TopicExists(String),
    /// The name differs from another topic's in `.` and `_` only.
    #[error("topic {name:?} collides with {other:?}: '.' and '_' count as one character in metric names")]
    TopicCollides {
        /// The new name.
        name: String,
        /// The topic that has it.
        other: String,
    },
    /// The id is reserved or in use.
    #[error("topic id {0} cannot be given out")]
    InvalidTopicId(TopicId),
    /// No such topic.
    #[error("there is no topic with id {0}")]
    UnknownTopic(TopicId),
    /// No such partition.
    #[error("there is no partition {0}")]
    UnknownPartition(LogId),
    /// Too few or too many partitions.
    #[error("invalid number of partitions: {0}")]
    InvalidPartitions(String),
    /// Replicas that cannot be.
    #[error("invalid replicas: {0}")]
    InvalidReplicas(String),
    /// See [`super::settings`].
    #[error(transparent)]
    InvalidSetting(#[from] InvalidSetting),
    /// The partition has changed since the proposer looked.
    #[error("partition {log} has epoch {current}, not {given}")]
    StalePartitionEpoch {
        /// Which.
        log: LogId,
        /// The command's.
        given: i32,
        /// The image's.
        current: i32,
    },
    /// An ISR or leader that cannot be.
    #[error("invalid in-sync replicas: {0}")]
    InvalidIsr(String),
    /// Somebody else leads, or leads in another epoch.
    #[error("broker {broker} does not lead {log} in epoch {epoch}")]
    NotLeader {
        /// Which partition.
        log: LogId,
        /// Who asked.
        broker: BrokerId,
        /// In which leader epoch.
        epoch: LeaderEpoch,
    },
    /// A replica that was to join the ISR is fenced, is shutting down or has restarted since (KIP-841, KIP-903).
    #[error("broker {broker} cannot be in sync with {log}")]
    IneligibleReplica {
        /// Which partition.
        log: LogId,
        /// Which replica.
        broker: BrokerId,
    },
    /// The partition has the leader that was asked for (KIP-460).
    #[error("partition {0} needs no election")]
    ElectionNotNeeded(LogId),
    /// Nobody who may lead the partition can lead now.
    #[error("no eligible leader of {0} is available")]
    NoEligibleLeader(LogId),
    /// Epochs or producer ids are used up.
    #[error("{0} are used up")]
    Exhausted(String),
    /// Not every broker can work at this level.
    #[error("feature level {0} is not supported by every broker")]
    UnsupportedFeature(u16),
    /// The log holds what older code cannot read.
    #[error("the feature level is {current} and cannot be lowered to {given}")]
    Downgrade {
        /// Asked for.
        given: u16,
        /// The image's.
        current: u16,
    },
    /// The command belongs to a newer feature level than the cluster works at.
    #[error("the command needs feature level {needed}, the cluster works at {current}")]
    FeatureLevel {
        /// The command's.
        needed: u16,
        /// The image's.
        current: u16,
    },
}
