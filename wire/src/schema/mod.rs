//! The shapes of Kafka's requests and responses, version by version, and a walk over bytes that follows them.
//!
//! The crate `kafka-protocol` reserves memory for an array of as many elements as the bytes say, before it has
//! seen one of them. So nothing is given to it that was not walked here first (K23): after a walk every length
//! is known to be covered by bytes that are really there, every tagged field to fill the size that it claims,
//! and the message to end where its bytes end. The walk allocates nothing.
//!
//! The tables repeat what Kafka's message definitions say. A test proves them against the crate: for each API
//! and version, random messages made from the table are decoded and encoded by the crate to the same bytes.

mod cluster;
mod data;
mod groups;
mod sample;
mod security;
mod share;
mod topics;
mod transactions;
mod walk;

#[cfg(test)]
mod schema_tests;

pub(crate) use groups::{CONSUMER_ASSIGNMENT, CONSUMER_SUBSCRIPTION};
pub use sample::{SampleOptions, sample};
pub use walk::{WalkError, Walked, walk};

/// What a field holds. `Null…` may be null on the wire.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// One byte.
    Bool,
    /// One byte.
    I8,
    /// Two bytes.
    I16,
    /// Two bytes.
    U16,
    /// Four bytes.
    I32,
    /// Four bytes.
    U32,
    /// Eight bytes.
    I64,
    /// Eight bytes.
    F64,
    /// 16 bytes.
    Uuid,
    /// Text; its length counts bytes.
    Str,
    /// Text or null.
    NullStr,
    /// Bytes.
    Bytes,
    /// Bytes or null.
    NullBytes,
    /// A list.
    Array(&'static Kind),
    /// A list or null.
    NullArray(&'static Kind),
    /// Fields, and tagged fields in flexible versions.
    Struct(&'static [Field]),
    /// A struct behind a byte that says whether it is there.
    NullStruct(&'static [Field]),
}

/// One field of a message or struct.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Name as in Kafka's definitions, in snake case.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// First version that has it.
    pub from: i16,
    /// Last version that has it.
    pub to: i16,
    /// Its tag, when it is a tagged field (KIP-482).
    pub tag: Option<u32>,
}

const fn field(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, from: 0, to: i16::MAX, tag: None }
}

impl Field {
    const fn from(self, from: i16) -> Field {
        Field { from, ..self }
    }

    const fn to(self, to: i16) -> Field {
        Field { to, ..self }
    }

    const fn tag(self, tag: u32) -> Field {
        Field { tag: Some(tag), ..self }
    }

    /// Whether messages of this version have the field.
    pub const fn is_in(&self, version: i16) -> bool {
        self.from <= version && version <= self.to
    }
}

/// The shape of a request or response.
#[derive(Debug, Clone, Copy)]
pub struct Message {
    /// Name as in Kafka's definitions.
    pub name: &'static str,
    /// First and last version that the tables know.
    pub versions: (i16, i16),
    /// First flexible version (KIP-482); `i16::MAX` when there is none.
    pub flexible: i16,
    /// Its fields in their order; tagged ones last.
    pub fields: &'static [Field],
}

/// Request and response of one API.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// API key.
    pub key: i16,
    /// The request's shape.
    pub request: Message,
    /// The response's shape.
    pub response: Message,
}

const fn shape(key: i16, request: Message, response: Message) -> Shape {
    Shape { key, request, response }
}

/// The shape of an API's messages; `None` for an API that Weir does not know.
pub fn shape_of(key: i16) -> Option<&'static Shape> {
    SHAPES.binary_search_by_key(&key, |shape| shape.key).ok().map(|at| &SHAPES[at])
}

/// All APIs, by their keys.
pub fn shapes() -> &'static [Shape] {
    SHAPES
}

/// Produce 0 to 2, which the crate does not have, and which is refused (K2).
pub(crate) const OLD_PRODUCE_REQUEST: Message = Message {
    name: "ProduceRequest",
    versions: (0, 2),
    flexible: i16::MAX,
    fields: &[
        field("acks", Kind::I16),
        field("timeout_ms", Kind::I32),
        field(
            "topic_data",
            Kind::Array(&Kind::Struct(&[
                field("name", Kind::Str),
                field(
                    "partition_data",
                    Kind::Array(&Kind::Struct(&[
                        field("index", Kind::I32),
                        field("records", Kind::NullBytes),
                    ])),
                ),
            ])),
        ),
    ],
};

static SHAPES: &[Shape] = &[
    shape(0, data::PRODUCE_REQUEST, data::PRODUCE_RESPONSE),
    shape(1, data::FETCH_REQUEST, data::FETCH_RESPONSE),
    shape(2, data::LIST_OFFSETS_REQUEST, data::LIST_OFFSETS_RESPONSE),
    shape(3, data::METADATA_REQUEST, data::METADATA_RESPONSE),
    shape(8, groups::OFFSET_COMMIT_REQUEST, groups::OFFSET_COMMIT_RESPONSE),
    shape(9, groups::OFFSET_FETCH_REQUEST, groups::OFFSET_FETCH_RESPONSE),
    shape(10, groups::FIND_COORDINATOR_REQUEST, groups::FIND_COORDINATOR_RESPONSE),
    shape(11, groups::JOIN_GROUP_REQUEST, groups::JOIN_GROUP_RESPONSE),
    shape(12, groups::HEARTBEAT_REQUEST, groups::HEARTBEAT_RESPONSE),
    shape(13, groups::LEAVE_GROUP_REQUEST, groups::LEAVE_GROUP_RESPONSE),
    shape(14, groups::SYNC_GROUP_REQUEST, groups::SYNC_GROUP_RESPONSE),
    shape(15, groups::DESCRIBE_GROUPS_REQUEST, groups::DESCRIBE_GROUPS_RESPONSE),
    shape(16, groups::LIST_GROUPS_REQUEST, groups::LIST_GROUPS_RESPONSE),
    shape(17, security::SASL_HANDSHAKE_REQUEST, security::SASL_HANDSHAKE_RESPONSE),
    shape(18, data::API_VERSIONS_REQUEST, data::API_VERSIONS_RESPONSE),
    shape(19, topics::CREATE_TOPICS_REQUEST, topics::CREATE_TOPICS_RESPONSE),
    shape(20, topics::DELETE_TOPICS_REQUEST, topics::DELETE_TOPICS_RESPONSE),
    shape(21, data::DELETE_RECORDS_REQUEST, data::DELETE_RECORDS_RESPONSE),
    shape(22, data::INIT_PRODUCER_ID_REQUEST, data::INIT_PRODUCER_ID_RESPONSE),
    shape(23, data::OFFSET_FOR_LEADER_EPOCH_REQUEST, data::OFFSET_FOR_LEADER_EPOCH_RESPONSE),
    shape(24, transactions::ADD_PARTITIONS_TO_TXN_REQUEST, transactions::ADD_PARTITIONS_TO_TXN_RESPONSE),
    shape(25, transactions::ADD_OFFSETS_TO_TXN_REQUEST, transactions::ADD_OFFSETS_TO_TXN_RESPONSE),
    shape(26, transactions::END_TXN_REQUEST, transactions::END_TXN_RESPONSE),
    shape(27, transactions::WRITE_TXN_MARKERS_REQUEST, transactions::WRITE_TXN_MARKERS_RESPONSE),
    shape(28, transactions::TXN_OFFSET_COMMIT_REQUEST, transactions::TXN_OFFSET_COMMIT_RESPONSE),
    shape(29, security::DESCRIBE_ACLS_REQUEST, security::DESCRIBE_ACLS_RESPONSE),
    shape(30, security::CREATE_ACLS_REQUEST, security::CREATE_ACLS_RESPONSE),
    shape(31, security::DELETE_ACLS_REQUEST, security::DELETE_ACLS_RESPONSE),
    shape(32, topics::DESCRIBE_CONFIGS_REQUEST, topics::DESCRIBE_CONFIGS_RESPONSE),
    shape(33, topics::ALTER_CONFIGS_REQUEST, topics::ALTER_CONFIGS_RESPONSE),
    shape(35, cluster::DESCRIBE_LOG_DIRS_REQUEST, cluster::DESCRIBE_LOG_DIRS_RESPONSE),
    shape(36, security::SASL_AUTHENTICATE_REQUEST, security::SASL_AUTHENTICATE_RESPONSE),
    shape(37, topics::CREATE_PARTITIONS_REQUEST, topics::CREATE_PARTITIONS_RESPONSE),
    shape(42, groups::DELETE_GROUPS_REQUEST, groups::DELETE_GROUPS_RESPONSE),
    shape(43, cluster::ELECT_LEADERS_REQUEST, cluster::ELECT_LEADERS_RESPONSE),
    shape(44, topics::INCREMENTAL_ALTER_CONFIGS_REQUEST, topics::INCREMENTAL_ALTER_CONFIGS_RESPONSE),
    shape(
        45,
        cluster::ALTER_PARTITION_REASSIGNMENTS_REQUEST,
        cluster::ALTER_PARTITION_REASSIGNMENTS_RESPONSE,
    ),
    shape(46, cluster::LIST_PARTITION_REASSIGNMENTS_REQUEST, cluster::LIST_PARTITION_REASSIGNMENTS_RESPONSE),
    shape(47, groups::OFFSET_DELETE_REQUEST, groups::OFFSET_DELETE_RESPONSE),
    shape(48, security::DESCRIBE_CLIENT_QUOTAS_REQUEST, security::DESCRIBE_CLIENT_QUOTAS_RESPONSE),
    shape(49, security::ALTER_CLIENT_QUOTAS_REQUEST, security::ALTER_CLIENT_QUOTAS_RESPONSE),
    shape(
        50,
        security::DESCRIBE_USER_SCRAM_CREDENTIALS_REQUEST,
        security::DESCRIBE_USER_SCRAM_CREDENTIALS_RESPONSE,
    ),
    shape(
        51,
        security::ALTER_USER_SCRAM_CREDENTIALS_REQUEST,
        security::ALTER_USER_SCRAM_CREDENTIALS_RESPONSE,
    ),
    shape(55, cluster::DESCRIBE_QUORUM_REQUEST, cluster::DESCRIBE_QUORUM_RESPONSE),
    shape(57, cluster::UPDATE_FEATURES_REQUEST, cluster::UPDATE_FEATURES_RESPONSE),
    shape(60, cluster::DESCRIBE_CLUSTER_REQUEST, cluster::DESCRIBE_CLUSTER_RESPONSE),
    shape(61, transactions::DESCRIBE_PRODUCERS_REQUEST, transactions::DESCRIBE_PRODUCERS_RESPONSE),
    shape(64, cluster::UNREGISTER_BROKER_REQUEST, cluster::UNREGISTER_BROKER_RESPONSE),
    shape(65, transactions::DESCRIBE_TRANSACTIONS_REQUEST, transactions::DESCRIBE_TRANSACTIONS_RESPONSE),
    shape(66, transactions::LIST_TRANSACTIONS_REQUEST, transactions::LIST_TRANSACTIONS_RESPONSE),
    shape(68, groups::CONSUMER_GROUP_HEARTBEAT_REQUEST, groups::CONSUMER_GROUP_HEARTBEAT_RESPONSE),
    shape(69, groups::CONSUMER_GROUP_DESCRIBE_REQUEST, groups::CONSUMER_GROUP_DESCRIBE_RESPONSE),
    shape(71, security::GET_TELEMETRY_SUBSCRIPTIONS_REQUEST, security::GET_TELEMETRY_SUBSCRIPTIONS_RESPONSE),
    shape(72, security::PUSH_TELEMETRY_REQUEST, security::PUSH_TELEMETRY_RESPONSE),
    shape(74, topics::LIST_CONFIG_RESOURCES_REQUEST, topics::LIST_CONFIG_RESOURCES_RESPONSE),
    shape(75, topics::DESCRIBE_TOPIC_PARTITIONS_REQUEST, topics::DESCRIBE_TOPIC_PARTITIONS_RESPONSE),
    shape(76, share::SHARE_GROUP_HEARTBEAT_REQUEST, share::SHARE_GROUP_HEARTBEAT_RESPONSE),
    shape(77, share::SHARE_GROUP_DESCRIBE_REQUEST, share::SHARE_GROUP_DESCRIBE_RESPONSE),
    shape(78, share::SHARE_FETCH_REQUEST, share::SHARE_FETCH_RESPONSE),
    shape(79, share::SHARE_ACKNOWLEDGE_REQUEST, share::SHARE_ACKNOWLEDGE_RESPONSE),
    shape(80, cluster::ADD_RAFT_VOTER_REQUEST, cluster::ADD_RAFT_VOTER_RESPONSE),
    shape(81, cluster::REMOVE_RAFT_VOTER_REQUEST, cluster::REMOVE_RAFT_VOTER_RESPONSE),
    shape(82, cluster::UPDATE_RAFT_VOTER_REQUEST, cluster::UPDATE_RAFT_VOTER_RESPONSE),
    shape(90, share::DESCRIBE_SHARE_GROUP_OFFSETS_REQUEST, share::DESCRIBE_SHARE_GROUP_OFFSETS_RESPONSE),
    shape(91, share::ALTER_SHARE_GROUP_OFFSETS_REQUEST, share::ALTER_SHARE_GROUP_OFFSETS_RESPONSE),
    shape(92, share::DELETE_SHARE_GROUP_OFFSETS_REQUEST, share::DELETE_SHARE_GROUP_OFFSETS_RESPONSE),
];
