//! What the clients of a run do, as plain data.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What the clients do, from the start of the run until [`Load::duration_ms`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Load {
    /// Length of the phase in which load and faults mix, in milliseconds of simulated time.
    pub duration_ms: u64,
    /// Topics that exist from the start.
    pub topics: Vec<Topic>,
    /// Producers, each a client process of its own.
    pub producers: Vec<Producer>,
    /// Producers of the topics with keys, each a client process of its own. A key belongs to one of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keyed: Vec<KeyedProducer>,
    /// Number of consumers that follow all partitions of all topics while the load runs.
    pub consumers: u32,
    /// Consumer groups that read all topics.
    #[serde(default)]
    pub groups: Vec<Group>,
    /// Records are deleted from the start of a random partition about every so many milliseconds; 0: never.
    pub delete_records_every_ms: u64,
    /// A topic is created, filled and deleted about every so many milliseconds; 0: never.
    pub topic_churn_every_ms: u64,
    /// A group without members is made and deleted about every so many milliseconds; 0: never.
    #[serde(default, skip_serializing_if = "is_never")]
    pub group_churn_every_ms: u64,
    /// All topics are listed about every so many milliseconds, by whatever broker answers; 0: never.
    #[serde(default, skip_serializing_if = "is_never")]
    pub listed_every_ms: u64,
    /// Somebody wants the cluster to work at this feature level, and asks until it does; 0: nobody.
    #[serde(default, skip_serializing_if = "is_none")]
    pub feature_level: i16,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Number of partitions.
    pub partitions: i32,
    /// Replicas of each partition; without a number as many as the cluster has by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i16>,
    /// Settings of the topic.
    pub settings: BTreeMap<String, String>,
    /// So many keys of each partition are in use at a time, and the topic is compacted; 0: records have no keys.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub keys: u32,
}

impl Topic {
    /// Whether only the last record of each key stays.
    pub fn is_compacted(&self) -> bool {
        self.keys > 0
    }
}

/// How a producer of keys works: idempotent, with acks -1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyedProducer {
    /// Records sent per second of simulated time, about.
    pub records_per_second: u32,
    /// Records sent in one go, at the most, of as many keys.
    pub burst: u32,
    /// Size of a record's value, at the most, in bytes.
    pub value_bytes_max: u32,
    /// So many of a hundred records delete their key. Every third key that is deleted is not used again; another one takes its
    /// place.
    pub tombstone_percent: u32,
    /// Codec of the batches, as in [`Producer::compression`].
    pub compression: String,
}

/// How a producer works.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Producer {
    /// 0, 1 or -1 (all in-sync replicas).
    pub acks: i16,
    /// Records sent per second of simulated time, about.
    pub records_per_second: u32,
    /// Records sent in one go, at the most.
    pub burst: u32,
    /// Size of a record's value, at the most, in bytes.
    pub value_bytes_max: u32,
    /// Codec of the batches: `none`, `gzip`, `snappy`, `lz4` or `zstd`.
    pub compression: String,
    /// Whether it repeats what may have been written. One that does not learns for certain what was not.
    pub retries: bool,
    /// Whether it is idempotent: only one that repeats, with acks -1, can be.
    #[serde(default)]
    pub idempotent: bool,
    /// How long it tries for a record. One that soon gives up learns that a full disk has refused it, for certain.
    #[serde(default = "patience_ms")]
    pub delivery_timeout_ms: u64,
}

/// A consumer group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Members, each a client process of its own.
    pub members: u32,
    /// How partitions are divided: `range`, `roundrobin` or `cooperative-sticky`.
    pub assignor: String,
    /// Whether members have names for good (KIP-345).
    pub is_static: bool,
    /// A member that is not heard of for so long is removed.
    pub session_timeout_ms: u64,
    /// How long a member may take between two polls, and a rebalance for the slowest member.
    pub poll_interval_max_ms: u64,
    /// A member commits about every so many milliseconds.
    pub commit_every_ms: u64,
    /// A member lives for about so long before it leaves, or crashes, and comes back.
    pub life_ms: u64,
    /// Whether members also send commits of generations that are over, as a request does that was long under way.
    pub zombies: bool,
    /// Whether somebody else joins now and then and is gone soon after, at times before it has taken part.
    #[serde(default)]
    pub visited: bool,
}

impl Group {
    /// The machines that its members need.
    pub fn machines(&self) -> u32 {
        self.members + u32::from(self.visited)
    }
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn is_none(level: &i16) -> bool {
    *level == 0
}

fn is_never(every_ms: &u64) -> bool {
    *every_ms == 0
}

/// Of plans that were written before producers differed in it.
fn patience_ms() -> u64 {
    20_000
}
