//! The Weir broker.
//!
//! [`Node`] is a broker: the only place that wires its parts. A process (`main.rs`) and the simulator start it alike,
//! with a [`Config`] and an open data folder.
//!
//! * `server`: listener and connections; how much is read, and in which order answers leave.
//! * `api`: one file per Kafka API.
//! * `shard`: owners of partitions, each a task.
//! * `group`: the drivers of the group coordinators.
//! * `peer`: how nodes of a cluster talk to each other.
//! * `controller`: drives the controller where the quorum's leader runs.
//! * `membership`: this broker as a member of its cluster.
//! * `replica`: fetching from leaders, and serving those that follow.
//! * `metadata`: the driver of the metadata quorum and the image that it commits.

mod api;
#[cfg(test)]
mod both_worlds;
mod complaints;
pub mod config;
mod controller;
mod group;
mod membership;
mod metadata;
mod metrics;
mod node;
pub mod parsers;
mod peer;
mod producer_ids;
mod replica;
mod server;
mod shard;

pub use config::{Config, ConfigError};
pub use membership::MembershipError;
pub use metrics::{Counter, Metrics};
pub use node::{Failure, Node, StartError};
