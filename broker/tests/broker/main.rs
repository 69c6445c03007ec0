//! The broker as clients meet it: in this process over raw frames, and as a process that is killed.
//!
//! A test whose name begins with `k` and a number is about that rule of `docs/compatibility.md`.

mod administration;
mod cluster;
mod cluster_apis;
mod compaction;
mod configurations;
mod consuming;
mod dev_cluster;
mod group_members;
mod group_restarts;
mod group_sizes;
mod group_support;
mod groups;
mod hostile;
mod idempotence;
mod large_groups;
mod negotiation;
mod nodes;
mod process;
mod producing;
mod quorum;
mod restarts;
mod support;
mod three_nodes;
mod upgrades;
