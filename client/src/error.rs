//! What can go wrong between a client and a cluster.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::error::ResponseError;
use weir_wire::kafka::NOTHING_WRITTEN;

use crate::TopicPartition;

/// An error code that a broker answered with, by Kafka's name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KafkaError(ResponseError);

impl KafkaError {
    /// The error of a code; `None` for 0, which is none.
    pub fn from_code(code: i16) -> Option<Self> {
        ResponseError::try_from_code(code).map(Self)
    }

    /// The code on the wire.
    pub fn code(self) -> i16 {
        self.0.code()
    }

    /// The name as Kafka's documents have it, such as `NOT_LEADER_OR_FOLLOWER`.
    pub fn name(self) -> String {
        let ResponseError::Unknown(code) = self.0 else { return screaming(&format!("{:?}", self.0)) };
        format!("UNKNOWN_ERROR_CODE_{code}")
    }

    /// Whether the same request may succeed later, as the protocol defines it.
    pub fn is_retriable(self) -> bool {
        self.0.is_retriable()
    }

    /// The error by name.
    pub fn kind(self) -> ResponseError {
        self.0
    }

    /// Whether a leader that answers with this has certainly not appended what it was sent, and will not. Anything
    /// that a leader may also say after the append, such as NOT_LEADER_OR_FOLLOWER to a produce that waits for
    /// replicas, is not in the list.
    pub(crate) fn rules_out_the_append(self) -> bool {
        use ResponseError as E;
        matches!(
            self.0,
            E::MessageTooLarge
                | E::RecordListTooLarge
                | E::InvalidRecord
                | E::CorruptMessage
                | E::InvalidTimestamp
                | E::InvalidRequiredAcks
                | E::InvalidTopicException
                | E::NotEnoughReplicas
                | E::TopicAuthorizationFailed
                | E::ClusterAuthorizationFailed
                | E::UnsupportedForMessageFormat
                | E::UnsupportedCompressionType
                | E::UnsupportedVersion
                | E::InvalidRequest
                | E::PolicyViolation
                | E::OutOfOrderSequenceNumber
                | E::InvalidProducerEpoch
                | E::UnknownProducerId
        )
    }

    /// Whether it says that the client's picture of the cluster is out of date.
    pub(crate) fn means_stale_metadata(self) -> bool {
        use ResponseError as E;
        matches!(
            self.0,
            E::NotLeaderOrFollower
                | E::UnknownTopicOrPartition
                | E::UnknownTopicId
                | E::LeaderNotAvailable
                | E::ReplicaNotAvailable
                | E::FencedLeaderEpoch
                | E::UnknownLeaderEpoch
                | E::KafkaStorageError
                | E::ListenerNotFound
                | E::BrokerNotAvailable
                | E::NotController
        )
    }
}

fn screaming(camel: &str) -> String {
    let mut name = String::with_capacity(camel.len() + 8);
    for (at, letter) in camel.chars().enumerate() {
        if at > 0 && letter.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

impl fmt::Display for KafkaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

impl fmt::Debug for KafkaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

/// Why a client's operation did not succeed.
///
/// [`Error::is_retriable`] says whether the same may succeed later; [`Error::may_have_happened`] whether the broker may
/// have done what was asked all the same.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// None of the addresses leads to a broker.
    #[error("no broker answers: {tried}")]
    NoBroker {
        /// Each address with what came of it.
        tried: String,
    },
    /// No connection to this broker.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// The broker.
        address: Arc<str>,
        /// What the operating system says.
        source: Arc<io::Error>,
    },
    /// The connection ended before the answer came.
    #[error("the connection to {address} ended: {reason}")]
    Disconnected {
        /// The broker.
        address: Arc<str>,
        /// Why.
        reason: Arc<str>,
        /// The request may have reached the broker.
        sent: bool,
    },
    /// No answer came in time. The connection was given up.
    #[error("{address} did not answer {api} within {} ms", limit.as_millis())]
    Timeout {
        /// The broker.
        address: Arc<str>,
        /// What was asked.
        api: &'static str,
        /// How long was waited.
        limit: Duration,
        /// The request may have reached the broker.
        sent: bool,
    },
    /// The broker answered with an error.
    #[error("{address} answered {api} for {about} with {error}{}", message_suffix(message.as_deref()))]
    Kafka {
        /// The broker.
        address: Arc<str>,
        /// What was asked.
        api: &'static str,
        /// For which topic or partition.
        about: String,
        /// The error.
        error: KafkaError,
        /// What the broker adds, if anything.
        message: Option<String>,
    },
    /// Broker and client have no version of the request in common.
    #[error("{address} speaks {api} {theirs:?}, this client {ours:?}")]
    Version {
        /// The broker.
        address: Arc<str>,
        /// The request.
        api: &'static str,
        /// The broker's first and last version, if it knows the request at all.
        theirs: Option<(i16, i16)>,
        /// This client's.
        ours: (i16, i16),
    },
    /// The broker sent what the protocol does not allow. The connection was given up.
    #[error("{address} answered {api} with what is no answer: {reason}")]
    Protocol {
        /// The broker.
        address: Arc<str>,
        /// What was asked.
        api: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The partition has no leader, or does not exist, as far as the cluster says.
    #[error("{partition} has no leader: {reason}")]
    NoLeader {
        /// The partition.
        partition: TopicPartition,
        /// The cluster's words.
        reason: String,
    },
    /// A batch does not hold what its checksum says, or its records do not parse.
    #[error("{partition} is corrupt at offset {offset}: {reason}")]
    Corrupt {
        /// The partition.
        partition: TopicPartition,
        /// The first offset that cannot be read.
        offset: i64,
        /// Who found what.
        reason: String,
    },
    /// The position is not in the log, and the consumer has no orders where to go instead.
    #[error("{partition} has no offset {offset}")]
    OffsetOutOfRange {
        /// The partition.
        partition: TopicPartition,
        /// The position.
        offset: i64,
    },
    /// Records that were handed out are not in the log any more: it was cut, and others may stand in their place (KIP-320).
    #[error("{partition} was cut at {end}, below offset {offset}")]
    Truncated {
        /// The partition.
        partition: TopicPartition,
        /// The position.
        offset: i64,
        /// Where the log that was read ends in the one that is there.
        end: i64,
    },
    /// The record, or the request, is larger than what may be sent.
    #[error("{what} has {bytes} bytes; at most {limit} may be sent")]
    TooLarge {
        /// What it is.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The last attempt failed, and one before it ended without saying whether it was carried out.
    #[error("{source}; an earlier attempt may have succeeded")]
    Unsettled {
        /// The last attempt's error.
        source: Box<Error>,
    },
    /// The request makes no sense, such as a partition that the topic does not have.
    #[error("{0}")]
    Invalid(String),
    /// The partition is not in this consumer's hands, or the group has given it to somebody else.
    #[error("{partition} is not this consumer's (any more)")]
    NotOwned {
        /// The partition.
        partition: TopicPartition,
    },
    /// The client, producer or consumer was closed.
    #[error("closed")]
    Closed,
}

fn message_suffix(message: Option<&str>) -> String {
    message.map(|message| format!(" ({message})")).unwrap_or_default()
}

impl Error {
    /// Whether the same may succeed later.
    pub fn is_retriable(&self) -> bool {
        match self {
            Error::NoBroker { .. }
            | Error::Connect { .. }
            | Error::Disconnected { .. }
            | Error::Timeout { .. }
            | Error::Protocol { .. }
            | Error::NoLeader { .. } => true,
            Error::Kafka { error, .. } => error.is_retriable(),
            Error::Unsettled { source } => source.is_retriable(),
            Error::Version { .. }
            | Error::Corrupt { .. }
            | Error::OffsetOutOfRange { .. }
            | Error::Truncated { .. }
            | Error::TooLarge { .. }
            | Error::Invalid(_)
            | Error::NotOwned { .. }
            | Error::Closed => false,
        }
    }

    /// Whether the broker may have done, or may still do, what was asked.
    pub fn may_have_happened(&self) -> bool {
        match self {
            Error::Disconnected { sent, .. } | Error::Timeout { sent, .. } => *sent,
            Error::Protocol { .. } | Error::Unsettled { .. } => true,
            Error::Kafka { api: "Produce", error, message, .. } => {
                let says_so = message.as_ref().is_some_and(|message| message.starts_with(NOTHING_WRITTEN));
                !says_so && !error.rules_out_the_append()
            }
            Error::Kafka { error, .. } => {
                matches!(error.kind(), ResponseError::UnknownServerError | ResponseError::RequestTimedOut)
            }
            Error::NoBroker { .. }
            | Error::Connect { .. }
            | Error::Version { .. }
            | Error::NoLeader { .. }
            | Error::Corrupt { .. }
            | Error::OffsetOutOfRange { .. }
            | Error::Truncated { .. }
            | Error::TooLarge { .. }
            | Error::Invalid(_)
            | Error::NotOwned { .. }
            | Error::Closed => false,
        }
    }

    /// The broker's error, where it is one.
    pub fn kafka(&self) -> Option<KafkaError> {
        match self {
            Error::Kafka { error, .. } => Some(*error),
            Error::Unsettled { source } => source.kafka(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_carry_kafkas_names() {
        let name = |code| KafkaError::from_code(code).unwrap().to_string();
        assert_eq!(name(6), "NOT_LEADER_OR_FOLLOWER");
        assert_eq!(name(2), "CORRUPT_MESSAGE");
        assert_eq!(name(-1), "UNKNOWN_SERVER_ERROR");
        assert_eq!(name(19), "NOT_ENOUGH_REPLICAS");
        assert_eq!(name(9999), "UNKNOWN_ERROR_CODE_9999");
        assert_eq!(KafkaError::from_code(0), None);
    }

    #[test]
    fn what_a_leader_may_say_after_the_append_leaves_it_open() {
        for code in [-1, 3, 6, 7, 20, 56] {
            assert!(!KafkaError::from_code(code).unwrap().rules_out_the_append(), "{code}");
        }
        for code in [2, 10, 19, 87] {
            assert!(KafkaError::from_code(code).unwrap().rules_out_the_append(), "{code}");
        }
    }
}
