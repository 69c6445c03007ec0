//! Which version of which API is advertised and served, as a table. It follows Apache Kafka 4.1 as far as the
//! crate `kafka-protocol` encodes it; a version is advertised only when the features that it promises are built.

use kafka_protocol::messages::ApiKey;

/// What a broker can do, as far as versions promise it. A set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Features(u32);

impl Features {
    /// Topics, producing and fetching by one broker: issue 2.
    pub const BASE: Features = Features(0);
    /// Producer ids and sequences.
    pub const IDEMPOTENCE: Features = Features(1);
    /// OffsetForLeaderEpoch, and what else asks about a partition's log.
    pub const LOG_QUERIES: Features = Features(1 << 1);
    /// Classic consumer groups.
    pub const CLASSIC_GROUPS: Features = Features(1 << 2);
    /// Groups of KIP-848.
    pub const CONSUMER_GROUPS: Features = Features(1 << 3);
    /// Transactions.
    pub const TRANSACTIONS: Features = Features(1 << 4);
    /// Configurations, partitions, log directories, producers and the cluster, described and altered.
    pub const ADMINISTRATION: Features = Features(1 << 5);
    /// Replicas moved by request.
    pub const REASSIGNMENT: Features = Features(1 << 6);
    /// The metadata quorum described and changed, and leaders elected by request.
    pub const QUORUM: Features = Features(1 << 7);
    /// SASL, SCRAM credentials and ACLs.
    pub const SECURITY: Features = Features(1 << 8);
    /// Client quotas.
    pub const QUOTAS: Features = Features(1 << 9);
    /// Clients' metrics (KIP-714).
    pub const TELEMETRY: Features = Features(1 << 10);
    /// Share groups (KIP-932).
    pub const SHARE_GROUPS: Features = Features(1 << 11);
    /// The timestamps -4 and -5 of ListOffsets, from tiered storage (KIP-405, KIP-1005).
    pub const TIERED_OFFSETS: Features = Features(1 << 12);
    /// Brokers forgotten, feature levels raised, replicas that are being added listed.
    pub const CLUSTER: Features = Features(1 << 13);
    /// What Kafka's voters tell each other, and no client asks.
    pub const KAFKA_VOTERS: Features = Features(1 << 14);
    /// Everything.
    pub const ALL: Features = Features((1 << 15) - 1);

    /// Both sets.
    #[must_use]
    pub const fn and(self, other: Features) -> Features {
        Features(self.0 | other.0)
    }

    /// Whether all of `other` is in this set.
    pub const fn contains(self, other: Features) -> bool {
        self.0 & other.0 == other.0
    }
}

/// One API's versions.
#[derive(Debug, Clone, Copy)]
struct Row {
    key: ApiKey,
    /// First version that is advertised.
    advertised_min: i16,
    /// First version that is served.
    served_min: i16,
    /// Last versions, growing, each with the feature that it needs. Without the first one's the API is absent;
    /// without a later one's the list ends before it.
    steps: &'static [(i16, Features)],
}

const fn row(key: ApiKey, min: i16, steps: &'static [(i16, Features)]) -> Row {
    Row { key, advertised_min: min, served_min: min, steps }
}

use Features as F;

/// In the order of the keys.
const TABLE: &[Row] = &[
    // Advertised from 0, or librdkafka turns compression off; 0 to 2 are refused (K2). 12 makes partitions join a
    // transaction implicitly (K3); 13 has topic ids (K4).
    Row {
        key: ApiKey::Produce,
        advertised_min: 0,
        served_min: 3,
        steps: &[(11, F::BASE), (13, F::TRANSACTIONS)],
    },
    row(ApiKey::Fetch, 4, &[(17, F::BASE)]),
    row(ApiKey::ListOffsets, 1, &[(7, F::BASE), (10, F::TIERED_OFFSETS)]),
    row(ApiKey::Metadata, 0, &[(13, F::BASE)]),
    row(ApiKey::OffsetCommit, 2, &[(8, F::CLASSIC_GROUPS), (9, F::CONSUMER_GROUPS)]),
    row(ApiKey::OffsetFetch, 1, &[(8, F::CLASSIC_GROUPS), (9, F::CONSUMER_GROUPS)]),
    row(ApiKey::FindCoordinator, 0, &[(4, F::CLASSIC_GROUPS), (5, F::TRANSACTIONS), (6, F::SHARE_GROUPS)]),
    row(ApiKey::JoinGroup, 0, &[(9, F::CLASSIC_GROUPS)]),
    row(ApiKey::Heartbeat, 0, &[(4, F::CLASSIC_GROUPS)]),
    row(ApiKey::LeaveGroup, 0, &[(5, F::CLASSIC_GROUPS)]),
    row(ApiKey::SyncGroup, 0, &[(5, F::CLASSIC_GROUPS)]),
    row(ApiKey::DescribeGroups, 0, &[(6, F::CLASSIC_GROUPS)]),
    row(ApiKey::ListGroups, 0, &[(4, F::CLASSIC_GROUPS), (5, F::CONSUMER_GROUPS)]),
    row(ApiKey::SaslHandshake, 0, &[(1, F::SECURITY)]),
    row(ApiKey::ApiVersions, 0, &[(4, F::BASE)]),
    row(ApiKey::CreateTopics, 2, &[(7, F::BASE)]),
    row(ApiKey::DeleteTopics, 1, &[(6, F::BASE)]),
    row(ApiKey::DeleteRecords, 0, &[(2, F::BASE)]),
    row(ApiKey::InitProducerId, 0, &[(4, F::IDEMPOTENCE), (5, F::TRANSACTIONS)]),
    row(ApiKey::OffsetForLeaderEpoch, 2, &[(4, F::LOG_QUERIES)]),
    row(ApiKey::AddPartitionsToTxn, 0, &[(5, F::TRANSACTIONS)]),
    row(ApiKey::AddOffsetsToTxn, 0, &[(4, F::TRANSACTIONS)]),
    row(ApiKey::EndTxn, 0, &[(5, F::TRANSACTIONS)]),
    row(ApiKey::WriteTxnMarkers, 1, &[(1, F::TRANSACTIONS)]),
    row(ApiKey::TxnOffsetCommit, 0, &[(5, F::TRANSACTIONS)]),
    row(ApiKey::DescribeAcls, 1, &[(3, F::SECURITY)]),
    row(ApiKey::CreateAcls, 1, &[(3, F::SECURITY)]),
    row(ApiKey::DeleteAcls, 1, &[(3, F::SECURITY)]),
    row(ApiKey::DescribeConfigs, 1, &[(4, F::ADMINISTRATION)]),
    row(ApiKey::AlterConfigs, 0, &[(2, F::ADMINISTRATION)]),
    row(ApiKey::DescribeLogDirs, 1, &[(4, F::ADMINISTRATION)]),
    row(ApiKey::SaslAuthenticate, 0, &[(2, F::SECURITY)]),
    row(ApiKey::CreatePartitions, 0, &[(3, F::ADMINISTRATION)]),
    row(ApiKey::DeleteGroups, 0, &[(2, F::CLASSIC_GROUPS)]),
    row(ApiKey::ElectLeaders, 0, &[(2, F::QUORUM)]),
    row(ApiKey::IncrementalAlterConfigs, 0, &[(1, F::ADMINISTRATION)]),
    row(ApiKey::AlterPartitionReassignments, 0, &[(1, F::REASSIGNMENT)]),
    row(ApiKey::ListPartitionReassignments, 0, &[(0, F::CLUSTER)]),
    row(ApiKey::OffsetDelete, 0, &[(0, F::CLASSIC_GROUPS)]),
    row(ApiKey::DescribeClientQuotas, 0, &[(1, F::QUOTAS)]),
    row(ApiKey::AlterClientQuotas, 0, &[(1, F::QUOTAS)]),
    row(ApiKey::DescribeUserScramCredentials, 0, &[(0, F::SECURITY)]),
    row(ApiKey::AlterUserScramCredentials, 0, &[(0, F::SECURITY)]),
    row(ApiKey::DescribeQuorum, 0, &[(2, F::QUORUM)]),
    row(ApiKey::UpdateFeatures, 0, &[(2, F::CLUSTER)]),
    row(ApiKey::DescribeCluster, 0, &[(2, F::ADMINISTRATION)]),
    row(ApiKey::DescribeProducers, 0, &[(0, F::ADMINISTRATION)]),
    row(ApiKey::UnregisterBroker, 0, &[(0, F::CLUSTER)]),
    row(ApiKey::DescribeTransactions, 0, &[(0, F::TRANSACTIONS)]),
    row(ApiKey::ListTransactions, 0, &[(2, F::TRANSACTIONS)]),
    row(ApiKey::ConsumerGroupHeartbeat, 0, &[(1, F::CONSUMER_GROUPS)]),
    row(ApiKey::ConsumerGroupDescribe, 0, &[(1, F::CONSUMER_GROUPS)]),
    row(ApiKey::GetTelemetrySubscriptions, 0, &[(0, F::TELEMETRY)]),
    row(ApiKey::PushTelemetry, 0, &[(0, F::TELEMETRY)]),
    row(ApiKey::ListConfigResources, 0, &[(1, F::ADMINISTRATION)]),
    row(ApiKey::DescribeTopicPartitions, 0, &[(0, F::ADMINISTRATION)]),
    row(ApiKey::ShareGroupHeartbeat, 1, &[(1, F::SHARE_GROUPS)]),
    row(ApiKey::ShareGroupDescribe, 1, &[(1, F::SHARE_GROUPS)]),
    row(ApiKey::ShareFetch, 1, &[(1, F::SHARE_GROUPS)]),
    row(ApiKey::ShareAcknowledge, 1, &[(1, F::SHARE_GROUPS)]),
    row(ApiKey::AddRaftVoter, 0, &[(0, F::QUORUM)]),
    row(ApiKey::RemoveRaftVoter, 0, &[(0, F::QUORUM)]),
    row(ApiKey::UpdateRaftVoter, 0, &[(0, F::KAFKA_VOTERS)]),
    row(ApiKey::DescribeShareGroupOffsets, 0, &[(0, F::SHARE_GROUPS)]),
    row(ApiKey::AlterShareGroupOffsets, 0, &[(0, F::SHARE_GROUPS)]),
    row(ApiKey::DeleteShareGroupOffsets, 0, &[(0, F::SHARE_GROUPS)]),
];

/// The versions of one API under a set of features.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApiVersion {
    /// The API.
    pub key: ApiKey,
    /// First version that ApiVersions names.
    pub advertised_min: i16,
    /// First version that is served; a lower one that is advertised is refused with an error.
    pub served_min: i16,
    /// Last version, advertised and served.
    pub max: i16,
}

impl Row {
    fn under(&self, features: Features) -> Option<ApiVersion> {
        let built = self.steps.iter().take_while(|(_, needed)| features.contains(*needed));
        let (max, _) = built.last()?;
        let Row { key, advertised_min, served_min, .. } = *self;
        Some(ApiVersion { key, advertised_min, served_min, max: *max })
    }
}

/// All APIs under a set of features, in the order of their keys: what ApiVersions answers.
pub fn advertised(features: Features) -> impl Iterator<Item = ApiVersion> {
    TABLE.iter().filter_map(move |row| row.under(features))
}

/// Why a request is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such API, or not with these features: close the connection.
    #[error("API {api_key} is not served")]
    UnknownApi {
        /// The key.
        api_key: i16,
    },
    /// ApiVersions in a version that is too new, or senseless: answer with error 35 and the ranges, in version 0 (K1).
    #[error("ApiVersions version {version} is not served")]
    ApiVersions {
        /// The version.
        version: i16,
    },
    /// Produce 0 to 2: answer with error 35 for each partition (K2), see [`crate::kafka::refuse_old_produce`].
    #[error("Produce version {version} is advertised for librdkafka's sake, and refused")]
    OldProduce {
        /// The version.
        version: i16,
    },
    /// A version that was not advertised: close the connection, as Kafka does.
    #[error("{key:?} version {version} is not served, {min} to {max} are")]
    UnsupportedVersion {
        /// The API.
        key: ApiKey,
        /// The version.
        version: i16,
        /// First version served.
        min: i16,
        /// Last version served.
        max: i16,
    },
}

/// Whether a request is served under a set of features.
///
/// # Errors
/// How to refuse it, if not.
pub fn check(api_key: i16, version: i16, features: Features) -> Result<ApiKey, Refusal> {
    let at = TABLE.binary_search_by_key(&api_key, |row| row.key as i16);
    let api = at.ok().and_then(|at| TABLE[at].under(features)).ok_or(Refusal::UnknownApi { api_key })?;
    let ApiVersion { key, advertised_min, served_min: min, max } = api;
    if (min..=max).contains(&version) {
        return Ok(key);
    }
    Err(match key {
        ApiKey::ApiVersions => Refusal::ApiVersions { version },
        ApiKey::Produce if (advertised_min..min).contains(&version) => Refusal::OldProduce { version },
        _ => Refusal::UnsupportedVersion { key, version, min, max },
    })
}

#[cfg(test)]
#[path = "versions_tests.rs"]
mod versions_tests;
