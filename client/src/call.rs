//! Which versions of which requests this client speaks.

use kafka_protocol::protocol::Request;
use weir_wire::kafka::messages::{
    AddRaftVoterRequest, ApiVersionsRequest, ConsumerGroupDescribeRequest, CreatePartitionsRequest,
    CreateTopicsRequest, DeleteGroupsRequest, DeleteRecordsRequest, DeleteTopicsRequest,
    DescribeClusterRequest, DescribeConfigsRequest, DescribeGroupsRequest, DescribeQuorumRequest,
    DescribeTopicPartitionsRequest, ElectLeadersRequest, FetchRequest, FindCoordinatorRequest,
    HeartbeatRequest, IncrementalAlterConfigsRequest, InitProducerIdRequest, JoinGroupRequest,
    LeaveGroupRequest, ListGroupsRequest, ListOffsetsRequest, MetadataRequest, OffsetCommitRequest,
    OffsetDeleteRequest, OffsetFetchRequest, ProduceRequest, RemoveRaftVoterRequest, SyncGroupRequest,
    UnregisterBrokerRequest, UpdateFeaturesRequest,
};

/// A request that this client makes.
pub(crate) trait Call: Request + Sync {
    /// Its name, as Kafka's documents have it.
    const NAME: &'static str;
    /// The first and the last version that this client speaks.
    const SPOKEN: (i16, i16);
}

macro_rules! calls {
    ($($request:ty = $name:literal $first:literal ..= $last:literal;)*) => {
        $(impl Call for $request {
            const NAME: &'static str = $name;
            const SPOKEN: (i16, i16) = ($first, $last);
        })*
    };
}

calls! {
    // 13 names topics by id, 12 takes part in transactions.
    ProduceRequest = "Produce" 3..=11;
    // 13 names topics by id.
    FetchRequest = "Fetch" 4..=12;
    ListOffsetsRequest = "ListOffsets" 1..=7;
    MetadataRequest = "Metadata" 1..=12;
    ApiVersionsRequest = "ApiVersions" 0..=4;
    CreateTopicsRequest = "CreateTopics" 2..=7;
    DeleteTopicsRequest = "DeleteTopics" 1..=5;
    DeleteRecordsRequest = "DeleteRecords" 0..=2;
    // 2 tells of fenced brokers (KIP-1073).
    DescribeClusterRequest = "DescribeCluster" 0..=2;
    DescribeTopicPartitionsRequest = "DescribeTopicPartitions" 0..=0;
    DescribeQuorumRequest = "DescribeQuorum" 0..=2;
    ElectLeadersRequest = "ElectLeaders" 0..=2;
    AddRaftVoterRequest = "AddRaftVoter" 0..=0;
    RemoveRaftVoterRequest = "RemoveRaftVoter" 0..=0;
    UnregisterBrokerRequest = "UnregisterBroker" 0..=0;
    UpdateFeaturesRequest = "UpdateFeatures" 1..=2;
    // Kafka 2.4 and newer: earlier versions know no static members (KIP-345), 10 names topics by id.
    OffsetCommitRequest = "OffsetCommit" 7..=9;
    // Kafka 3.0 and newer: several groups in one request, 10 names topics by id.
    OffsetFetchRequest = "OffsetFetch" 8..=9;
    // Kafka 3.0 and newer: several keys in one request (KIP-699).
    FindCoordinatorRequest = "FindCoordinator" 4..=6;
    JoinGroupRequest = "JoinGroup" 5..=9;
    HeartbeatRequest = "Heartbeat" 3..=4;
    LeaveGroupRequest = "LeaveGroup" 3..=5;
    SyncGroupRequest = "SyncGroup" 3..=5;
    DescribeGroupsRequest = "DescribeGroups" 4..=6;
    ConsumerGroupDescribeRequest = "ConsumerGroupDescribe" 0..=1;
    ListGroupsRequest = "ListGroups" 0..=5;
    DeleteGroupsRequest = "DeleteGroups" 0..=2;
    OffsetDeleteRequest = "OffsetDelete" 0..=0;
    // 3 and newer raise the epoch of an id (KIP-360); 6 takes part in two-phase commits.
    InitProducerIdRequest = "InitProducerId" 0..=5;
    CreatePartitionsRequest = "CreatePartitions" 0..=3;
    DescribeConfigsRequest = "DescribeConfigs" 1..=4;
    IncrementalAlterConfigsRequest = "IncrementalAlterConfigs" 0..=1;
}
