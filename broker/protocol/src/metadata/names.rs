//! Which names a topic may have: Kafka's rules.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::types::METADATA_TOPIC;

/// How long a topic's name may be, in bytes: file names end at 255, and the partition's number has to fit.
pub const TOPIC_NAME_BYTES_MAX: usize = 249;

/// The groups' topic.
pub const CONSUMER_OFFSETS: &str = "__consumer_offsets";

/// The transactions' topic.
pub const TRANSACTION_STATE: &str = "__transaction_state";

/// What is wrong with a topic's name.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum InvalidTopicName {
    /// No name at all.
    #[error("a topic's name must not be empty")]
    Empty,
    /// More than [`TOPIC_NAME_BYTES_MAX`].
    #[error("a topic's name has at most {TOPIC_NAME_BYTES_MAX} characters, this one has {0}")]
    TooLong(usize),
    /// `.` and `..` mean something else to file systems.
    #[error("a topic cannot be named '.' or '..'")]
    Dots,
    /// The first character that is not allowed.
    #[error("a topic's name has only letters and digits of ASCII, '.', '_' and '-', not {0:?}")]
    Character(char),
    /// The metadata quorum's log.
    #[error("{METADATA_TOPIC} is the metadata quorum's own log")]
    Reserved,
}

/// Checks a topic's name.
pub fn check(name: &str) -> Result<(), InvalidTopicName> {
    if name.is_empty() {
        return Err(InvalidTopicName::Empty);
    }
    if let Some(bad) = name.chars().find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '.' | '_' | '-')) {
        return Err(InvalidTopicName::Character(bad));
    }
    if name == "." || name == ".." {
        return Err(InvalidTopicName::Dots);
    }
    if name.len() > TOPIC_NAME_BYTES_MAX {
        return Err(InvalidTopicName::TooLong(name.len()));
    }
    if name == METADATA_TOPIC {
        return Err(InvalidTopicName::Reserved);
    }
    Ok(())
}

/// The name with each `.` as `_`: metrics cannot tell the two apart, so two topics may not share this.
pub fn plain(name: &str) -> String {
    name.replace('.', "_")
}

/// Whether the topic is the brokers' own.
pub fn is_internal(name: &str) -> bool {
    matches!(name, CONSUMER_OFFSETS | TRANSACTION_STATE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_kafka_takes_are_taken_and_others_are_not() {
        for name in ["a", "A.b_c-9", "...", "__consumer_offsets", &"x".repeat(249)] {
            assert_eq!(check(name), Ok(()), "{name}");
        }
        assert_eq!(check(""), Err(InvalidTopicName::Empty));
        assert_eq!(check("."), Err(InvalidTopicName::Dots));
        assert_eq!(check(".."), Err(InvalidTopicName::Dots));
        assert_eq!(check(&"x".repeat(250)), Err(InvalidTopicName::TooLong(250)));
        assert_eq!(check("a/b"), Err(InvalidTopicName::Character('/')));
        assert_eq!(check("ä"), Err(InvalidTopicName::Character('ä')));
        assert_eq!(check("__cluster_metadata"), Err(InvalidTopicName::Reserved));
    }
}
