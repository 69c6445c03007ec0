//! A Kafka client on the abstract runtime: it runs in a real process and, unchanged, inside the simulator.
//!
//! - [`Client`]: connections to a cluster and what is known about it. Cheap to clone; the others are made from it.
//! - [`Producer`]: batches records by partition, repeats what may be repeated, and says of each record where it is, or
//!   that it failed and whether it may be there all the same.
//! - [`Consumer`]: reads partitions that it is given, from positions that it is told, and never hands out a damaged
//!   record.
//! - [`GroupConsumer`]: reads topics as a member of a group, which divides their partitions.
//! - [`Admin`]: topics, settings, groups, offsets and the cluster.
//!
//! Time comes from [`weir_runtime::time`] only, nothing is iterated in an order that is not fixed, and nothing is reserved
//! in proportion to a number that a broker sent.

mod admin;
mod backoff;
mod call;
mod cluster;
mod connection;
mod consumer;
mod error;
mod group;
mod in_flight;
mod metadata;
mod partitioner;
mod producer;
mod slot;

#[cfg(test)]
mod fake_broker;

pub use admin::{
    Admin, BrokerDescription, ClusterDescription, ConfigChange, ConfigEntry, ConfigResource, ConfigSource,
    Elected, Election, FeatureLevel, GroupDescription, GroupListing, GroupMember, NewTopic, OffsetAt,
    OffsetSpec, QuorumDescription, QuorumMember, TopicDescription, TopicListing,
};
pub use cluster::{Client, ClientConfig};
pub use consumer::{
    Consumer, ConsumerConfig, ConsumerRecord, IsolationLevel, PartitionFailure, PartitionRecords, Polled,
    Start,
};
pub use error::{Error, KafkaError};
pub use group::{
    Assignor, CommitTicket, CommittedOffset, GroupConfig, GroupConsumer, GroupPolled, Rebalance,
};
pub use metadata::{BrokerInfo, PartitionInfo};
pub use partitioner::{DefaultPartitioner, Partitioner, murmur2};
pub use producer::{Acks, Delivery, ProduceError, Produced, Producer, ProducerConfig, ProducerRecord};
pub use weir_wire::codec::Compression;

use std::fmt;
use std::sync::Arc;

/// One partition of one topic, by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's number.
    pub partition: i32,
}

impl TopicPartition {
    /// Names a partition.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}
