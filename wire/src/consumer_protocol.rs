//! What members of a classic consumer group tell each other, and brokers pass on unread: subscriptions in JoinGroup,
//! assignments in SyncGroup (KIP-429 added the partitions that a member owns, KIP-792 the generation of that claim,
//! KIP-881 its rack).
//!
//! Each blob is a version and a body. A newer version than this one knows is read as far as it is known, because versions
//! only add fields at the end. Nothing is decoded that was not walked before (K23).

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::consumer_protocol_assignment::TopicPartition as AssignedTopic;
use kafka_protocol::messages::consumer_protocol_subscription::TopicPartition as OwnedTopic;
use kafka_protocol::messages::{ConsumerProtocolAssignment, ConsumerProtocolSubscription};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

use crate::schema::{self, Message, WalkError, walk};

/// The version that is written, and the last one that is known wholly.
const VERSION: i16 = 3;
/// Array elements that one blob may have in all.
const ELEMENTS_MAX: usize = 1_000_000;
/// The generation of those who have none.
const NO_GENERATION: i32 = -1;

/// Partitions by topic.
pub type Partitions = BTreeMap<String, Vec<i32>>;

/// What a member wants, and what it claims to own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subscription {
    /// The topics that it reads.
    pub topics: Vec<String>,
    /// What its assignor adds.
    pub user_data: Option<Bytes>,
    /// The partitions that it holds and does not give back by joining.
    pub owned: Partitions,
    /// The generation in which it was given them. A claim of an older generation yields to one of a newer.
    pub generation: Option<i32>,
    /// Where it runs.
    pub rack: Option<String>,
}

/// What a member is given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Assignment {
    /// All its partitions.
    pub partitions: Partitions,
    /// What the assignor adds.
    pub user_data: Option<Bytes>,
}

/// Why a blob is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConsumerProtocolError {
    /// It ends before its version, or its version is negative.
    #[error("no version")]
    Version,
    /// Its bytes do not have its shape.
    #[error(transparent)]
    Shape(#[from] WalkError),
    /// The shape is right, a value is not, such as text that is not UTF-8; or a value does not fit.
    #[error("{message}: {reason}")]
    Value {
        /// Which blob.
        message: &'static str,
        /// What the codec says.
        reason: String,
    },
}

/// Takes the version off the front and checks the shape of what follows.
fn open(message: &'static Message, bytes: &mut Bytes) -> Result<i16, ConsumerProtocolError> {
    if bytes.len() < 2 {
        return Err(ConsumerProtocolError::Version);
    }
    let version = bytes.get_i16();
    if version < 0 {
        return Err(ConsumerProtocolError::Version);
    }
    let version = version.min(VERSION);
    match walk(message, version, bytes, ELEMENTS_MAX) {
        // Fields of newer versions, and whatever a client appends.
        Ok(_) | Err(WalkError::TrailingBytes { .. }) => Ok(version),
        Err(error) => Err(error.into()),
    }
}

fn refuse(message: &'static Message) -> impl Fn(String) -> ConsumerProtocolError {
    move |reason| ConsumerProtocolError::Value { message: message.name, reason }
}

fn encode<T: Encodable>(message: &'static Message, body: &T) -> Result<Bytes, ConsumerProtocolError> {
    let mut out = BytesMut::new();
    out.put_i16(VERSION);
    body.encode(&mut out, VERSION).map_err(|error| refuse(message)(error.to_string()))?;
    Ok(out.freeze())
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

impl Subscription {
    /// The blob, in version 3.
    ///
    /// # Errors
    /// `Value` where a name is longer than the format allows.
    pub fn encode(&self) -> Result<Bytes, ConsumerProtocolError> {
        let owned = self.owned.iter().map(|(topic, partitions)| {
            OwnedTopic::default().with_topic(text(topic).into()).with_partitions(partitions.clone())
        });
        let body = ConsumerProtocolSubscription::default()
            .with_topics(self.topics.iter().map(|topic| text(topic)).collect())
            .with_user_data(self.user_data.clone())
            .with_owned_partitions(owned.collect())
            .with_generation_id(self.generation.unwrap_or(NO_GENERATION))
            .with_rack_id(self.rack.as_deref().map(text));
        encode(&schema::CONSUMER_SUBSCRIPTION, &body)
    }

    /// Reads a blob of any version.
    ///
    /// # Errors
    /// `Version`, `Shape`, `Value`.
    pub fn decode(mut bytes: Bytes) -> Result<Self, ConsumerProtocolError> {
        let message = &schema::CONSUMER_SUBSCRIPTION;
        let version = open(message, &mut bytes)?;
        let body = ConsumerProtocolSubscription::decode(&mut bytes, version)
            .map_err(|error| refuse(message)(error.to_string()))?;
        let mut owned = Partitions::new();
        for topic in body.owned_partitions {
            owned.entry(topic.topic.to_string()).or_default().extend(topic.partitions);
        }
        Ok(Self {
            topics: body.topics.iter().map(|topic| topic.to_string()).collect(),
            user_data: body.user_data,
            owned,
            generation: (body.generation_id != NO_GENERATION).then_some(body.generation_id),
            rack: body.rack_id.map(|rack| rack.to_string()),
        })
    }
}

impl Assignment {
    /// The blob, in version 3.
    ///
    /// # Errors
    /// `Value` where a name is longer than the format allows.
    pub fn encode(&self) -> Result<Bytes, ConsumerProtocolError> {
        let assigned = self.partitions.iter().map(|(topic, partitions)| {
            AssignedTopic::default().with_topic(text(topic).into()).with_partitions(partitions.clone())
        });
        let body = ConsumerProtocolAssignment::default()
            .with_assigned_partitions(assigned.collect())
            .with_user_data(self.user_data.clone());
        encode(&schema::CONSUMER_ASSIGNMENT, &body)
    }

    /// Reads a blob of any version. An empty one, which a broker gives to a member that the leader has left out, holds no
    /// partitions.
    ///
    /// # Errors
    /// `Version`, `Shape`, `Value`.
    pub fn decode(mut bytes: Bytes) -> Result<Self, ConsumerProtocolError> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let message = &schema::CONSUMER_ASSIGNMENT;
        let version = open(message, &mut bytes)?;
        let body = ConsumerProtocolAssignment::decode(&mut bytes, version)
            .map_err(|error| refuse(message)(error.to_string()))?;
        let mut partitions = Partitions::new();
        for topic in body.assigned_partitions {
            partitions.entry(topic.topic.to_string()).or_default().extend(topic.partitions);
        }
        Ok(Self { partitions, user_data: body.user_data })
    }
}

#[cfg(test)]
#[path = "consumer_protocol_tests.rs"]
mod tests;
