//! What the metadata quorum agrees on: the cluster's image and the commands that change it.
//!
//! A controller proposes a [`Command`]; once its entry is committed, every node applies it to its [`Image`] with
//! [`Image::apply`]. Applying is deterministic and total: the same log gives the same image everywhere, and a
//! command that does not fit is [`Rejected`] by all nodes alike, so that two proposals that cross each other need no
//! lock. The proposer learns the outcome when its own entry is applied.
//!
//! Whatever is random or depends on time (topic ids, cluster id) is decided by the proposer and stands in the command.

mod apply;
mod apply_cluster;
mod cluster_command;
mod command;
mod consequences;
mod image;
pub mod names;
mod outcome;
mod partition_state;
pub mod placement;
pub mod settings;

#[cfg(test)]
mod apply_tests;
#[cfg(test)]
mod cluster_tests;
#[cfg(test)]
pub(crate) mod town;
#[cfg(test)]
mod walk_tests;

pub use cluster_command::{AddedReplicas, ClusterCommand, LastStop, Registration};
pub use command::{Command, Endpoint, IsrMember, NewPartition, Record};
pub use image::{Broker, FeatureRange, Image, ProducerIdBlock, Topic};
pub use outcome::{Change, Rejected};
pub use partition_state::PartitionState;

/// The newest feature level that this code can work with (KIP-584). Level 1 is a quorum of one; level 2 is a cluster,
/// with the commands of [`ClusterCommand`].
pub const FEATURE_LEVEL_MAX: u16 = 2;

/// How many producer ids a broker gets at a time, as in Kafka.
pub const PRODUCER_ID_BLOCK_SIZE: i64 = 1_000;

/// How many partitions one topic may have.
pub const TOPIC_PARTITIONS_MAX: usize = 100_000;

/// How many partitions the cluster may have, all topics together.
pub const CLUSTER_PARTITIONS_MAX: usize = 1_000_000;
