//! Names and numbers that every part of Weir shares.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The position of a record in its partition, from 0.
pub type Offset = i64;

/// Counts the reigns of a partition's leaders. (topic id, partition, leader epoch, offset) names one record for ever.
/// In the metadata quorum's log it is the Raft term.
pub type LeaderEpoch = i32;

/// The id of a topic, given once at its creation and never reused (KIP-516).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TopicId(pub Uuid);

/// The topic id of the metadata quorum's log, `__cluster_metadata`, as Kafka has it (KIP-595).
pub const METADATA_TOPIC_ID: TopicId = TopicId(Uuid::from_u128(1));

/// The name of the metadata quorum's log.
pub const METADATA_TOPIC: &str = "__cluster_metadata";

impl TopicId {
    /// No topic: what a request carries that names its topic otherwise.
    pub const ZERO: TopicId = TopicId(Uuid::nil());

    /// A topic id from 16 random bytes. Returns `None` for the few that Kafka reserves (KIP-516) and for those whose
    /// text would start with a dash, which command lines take for an option.
    pub fn from_random(bytes: [u8; 16]) -> Option<TopicId> {
        let id = Uuid::from_bytes(bytes);
        // URL-safe base64 spells the first six bits 62 as '-'.
        let dash = bytes[0] >> 2 == 62;
        let reserved = id.as_u128() <= 1;
        if dash || reserved { None } else { Some(TopicId(id)) }
    }

    /// Whether this names no topic.
    pub fn is_zero(self) -> bool {
        self == TopicId::ZERO
    }
}

/// Names a log: one partition of one topic.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LogId {
    /// The topic.
    pub topic: TopicId,
    /// The partition's number in its topic, from 0.
    pub partition: i32,
}

impl LogId {
    /// The metadata quorum's log.
    pub const METADATA: LogId = LogId { topic: METADATA_TOPIC_ID, partition: 0 };

    /// Names partition `partition` of `topic`.
    pub fn new(topic: TopicId, partition: i32) -> LogId {
        LogId { topic, partition }
    }
}

/// A broker's number, Kafka's `node.id`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BrokerId(pub i32);

/// The identity of a data folder, drawn when the folder is made. A disk that was replaced or wiped has another one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FolderId(pub Uuid);

/// Counts the starts of a data folder, from 1. Every incarnation that leads takes new leader epochs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Incarnation(pub u64);

/// A voter of the metadata quorum: a node together with the folder that holds its log and its vote (KIP-853).
/// A node that comes back with another folder is another voter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VoterId {
    /// The node.
    pub broker: BrokerId,
    /// The folder with its log and vote.
    pub folder: FolderId,
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

impl fmt::Display for BrokerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for FolderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for VoterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.broker, self.folder)
    }
}

/// Debug output is the plain text: these names fill assertion messages and traces.
macro_rules! debug_as_display {
    ($($name:ident),*) => {
        $(impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        })*
    };
}
debug_as_display!(TopicId, LogId, BrokerId, FolderId, Incarnation, VoterId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_shown_as_its_topic_and_its_partition() {
        assert_eq!(LogId::METADATA.to_string(), "00000000-0000-0000-0000-000000000001-0");
        assert_eq!(format!("{:?}", BrokerId(3)), "3");
    }

    #[test]
    fn reserved_topic_ids_and_those_that_look_like_options_are_not_given_out() {
        assert_eq!(TopicId::from_random([0; 16]), None);
        assert_eq!(TopicId::from_random(METADATA_TOPIC_ID.0.into_bytes()), None);
        let mut bytes = [7; 16];
        assert!(TopicId::from_random(bytes).is_some());
        bytes[0] = 62 << 2;
        assert_eq!(TopicId::from_random(bytes), None);
    }
}
