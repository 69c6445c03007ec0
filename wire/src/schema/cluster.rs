//! Shapes of the requests and responses for brokers, replicas and the quorum.

use super::{Kind::*, Message, field};

pub(super) const DESCRIBE_LOG_DIRS_REQUEST: Message = Message {
    name: "DescribeLogDirsRequest",
    versions: (1, 4),
    flexible: 2,
    fields: &[field("topics", NullArray(&Struct(&[field("topic", Str), field("partitions", Array(&I32))])))],
};

pub(super) const ELECT_LEADERS_REQUEST: Message = Message {
    name: "ElectLeadersRequest",
    versions: (0, 2),
    flexible: 2,
    fields: &[
        field("election_type", I8).from(1),
        field(
            "topic_partitions",
            NullArray(&Struct(&[field("topic", Str), field("partitions", Array(&I32))])),
        ),
        field("timeout_ms", I32),
    ],
};

pub(super) const ALTER_PARTITION_REASSIGNMENTS_REQUEST: Message = Message {
    name: "AlterPartitionReassignmentsRequest",
    versions: (0, 1),
    flexible: 0,
    fields: &[
        field("timeout_ms", I32),
        field("allow_replication_factor_change", Bool).from(1),
        field(
            "topics",
            Array(&Struct(&[
                field("name", Str),
                field(
                    "partitions",
                    Array(&Struct(&[field("partition_index", I32), field("replicas", NullArray(&I32))])),
                ),
            ])),
        ),
    ],
};

pub(super) const LIST_PARTITION_REASSIGNMENTS_REQUEST: Message = Message {
    name: "ListPartitionReassignmentsRequest",
    versions: (0, 0),
    flexible: 0,
    fields: &[
        field("timeout_ms", I32),
        field("topics", NullArray(&Struct(&[field("name", Str), field("partition_indexes", Array(&I32))]))),
    ],
};

pub(super) const DESCRIBE_CLUSTER_REQUEST: Message = Message {
    name: "DescribeClusterRequest",
    versions: (0, 2),
    flexible: 0,
    fields: &[
        field("include_cluster_authorized_operations", Bool),
        field("endpoint_type", I8).from(1),
        field("include_fenced_brokers", Bool).from(2),
    ],
};

pub(super) const UNREGISTER_BROKER_REQUEST: Message = Message {
    name: "UnregisterBrokerRequest",
    versions: (0, 0),
    flexible: 0,
    fields: &[field("broker_id", I32)],
};

pub(super) const UPDATE_FEATURES_REQUEST: Message = Message {
    name: "UpdateFeaturesRequest",
    versions: (0, 2),
    flexible: 0,
    fields: &[
        field("timeout_ms", I32),
        field(
            "feature_updates",
            Array(&Struct(&[
                field("feature", Str),
                field("max_version_level", I16),
                field("allow_downgrade", Bool).to(0),
                field("upgrade_type", I8).from(1),
            ])),
        ),
        field("validate_only", Bool).from(1),
    ],
};

pub(super) const DESCRIBE_QUORUM_REQUEST: Message = Message {
    name: "DescribeQuorumRequest",
    versions: (0, 2),
    flexible: 0,
    fields: &[field(
        "topics",
        Array(&Struct(&[
            field("topic_name", Str),
            field("partitions", Array(&Struct(&[field("partition_index", I32)]))),
        ])),
    )],
};

pub(super) const ADD_RAFT_VOTER_REQUEST: Message = Message {
    name: "AddRaftVoterRequest",
    versions: (0, 0),
    flexible: 0,
    fields: &[
        field("cluster_id", NullStr),
        field("timeout_ms", I32),
        field("voter_id", I32),
        field("voter_directory_id", Uuid),
        field("listeners", Array(&Struct(&[field("name", Str), field("host", Str), field("port", U16)]))),
    ],
};

pub(super) const REMOVE_RAFT_VOTER_REQUEST: Message = Message {
    name: "RemoveRaftVoterRequest",
    versions: (0, 0),
    flexible: 0,
    fields: &[field("cluster_id", NullStr), field("voter_id", I32), field("voter_directory_id", Uuid)],
};

pub(super) const UPDATE_RAFT_VOTER_REQUEST: Message = Message {
    name: "UpdateRaftVoterRequest",
    versions: (0, 0),
    flexible: 0,
    fields: &[
        field("cluster_id", NullStr),
        field("current_leader_epoch", I32),
        field("voter_id", I32),
        field("voter_directory_id", Uuid),
        field("listeners", Array(&Struct(&[field("name", Str), field("host", Str), field("port", U16)]))),
        field(
            "k_raft_version_feature",
            Struct(&[field("min_supported_version", I16), field("max_supported_version", I16)]),
        ),
    ],
};

pub(super) const DESCRIBE_LOG_DIRS_RESPONSE: Message = Message {
    name: "DescribeLogDirsResponse",
    versions: (1, 4),
    flexible: 2,
    fields: &[
        field("throttle_time_ms", I32),
        field("error_code", I16).from(3),
        field(
            "results",
            Array(&Struct(&[
                field("error_code", I16),
                field("log_dir", Str),
                field(
                    "topics",
                    Array(&Struct(&[
                        field("name", Str),
                        field(
                            "partitions",
                            Array(&Struct(&[
                                field("partition_index", I32),
                                field("partition_size", I64),
                                field("offset_lag", I64),
                                field("is_future_key", Bool),
                            ])),
                        ),
                    ])),
                ),
                field("total_bytes", I64).from(4),
                field("usable_bytes", I64).from(4),
            ])),
        ),
    ],
};

pub(super) const ELECT_LEADERS_RESPONSE: Message = Message {
    name: "ElectLeadersResponse",
    versions: (0, 2),
    flexible: 2,
    fields: &[
        field("throttle_time_ms", I32),
        field("error_code", I16).from(1),
        field(
            "replica_election_results",
            Array(&Struct(&[
                field("topic", Str),
                field(
                    "partition_result",
                    Array(&Struct(&[
                        field("partition_id", I32),
                        field("error_code", I16),
                        field("error_message", NullStr),
                    ])),
                ),
            ])),
        ),
    ],
};

pub(super) const ALTER_PARTITION_REASSIGNMENTS_RESPONSE: Message = Message {
    name: "AlterPartitionReassignmentsResponse",
    versions: (0, 1),
    flexible: 0,
    fields: &[
        field("throttle_time_ms", I32),
        field("allow_replication_factor_change", Bool).from(1),
        field("error_code", I16),
        field("error_message", NullStr),
        field(
            "responses",
            Array(&Struct(&[
                field("name", Str),
                field(
                    "partitions",
                    Array(&Struct(&[
                        field("partition_index", I32),
                        field("error_code", I16),
                        field("error_message", NullStr),
                    ])),
                ),
            ])),
        ),
    ],
};

pub(super) const LIST_PARTITION_REASSIGNMENTS_RESPONSE: Message = Message {
    name: "ListPartitionReassignmentsResponse",
    versions: (0, 0),
    flexible: 0,
    fields: &[
        field("throttle_time_ms", I32),
        field("error_code", I16),
        field("error_message", NullStr),
        field(
            "topics",
            Array(&Struct(&[
                field("name", Str),
                field(
                    "partitions",
                    Array(&Struct(&[
                        field("partition_index", I32),
                        field("replicas", Array(&I32)),
                        field("adding_replicas", Array(&I32)),
                        field("removing_replicas", Array(&I32)),
                    ])),
                ),
            ])),
        ),
    ],
};

pub(super) const DESCRIBE_CLUSTER_RESPONSE: Message = Message {
    name: "DescribeClusterResponse",
    versions: (0, 2),
    flexible: 0,
    fields: &[
        field("throttle_time_ms", I32),
        field("error_code", I16),
        field("error_message", NullStr),
        field("endpoint_type", I8).from(1),
        field("cluster_id", Str),
        field("controller_id", I32),
        field(
            "brokers",
            Array(&Struct(&[
                field("broker_id", I32),
                field("host", Str),
                field("port", I32),
                field("rack", NullStr),
                field("is_fenced", Bool).from(2),
            ])),
        ),
        field("cluster_authorized_operations", I32),
    ],
};

pub(super) const UNREGISTER_BROKER_RESPONSE: Message = Message {
    name: "UnregisterBrokerResponse",
    versions: (0, 0),
    flexible: 0,
    fields: &[field("throttle_time_ms", I32), field("error_code", I16), field("error_message", NullStr)],
};

pub(super) const UPDATE_FEATURES_RESPONSE: Message = Message {
    name: "UpdateFeaturesResponse",
    versions: (0, 2),
    flexible: 0,
    fields: &[
        field("throttle_time_ms", I32),
        field("error_code", I16),
        field("error_message", NullStr),
        field(
            "results",
            Array(&Struct(&[
                field("feature", Str),
                field("error_code", I16),
                field("error_message", NullStr),
            ])),
        )
        .to(1),
    ],
};

pub(super) const DESCRIBE_QUORUM_RESPONSE: Message = Message {
    name: "DescribeQuorumResponse",
    versions: (0, 2),
    flexible: 0,
    fields: &[
        field("error_code", I16),
        field("error_message", NullStr).from(2),
        field(
            "topics",
            Array(&Struct(&[
                field("topic_name", Str),
                field(
                    "partitions",
                    Array(&Struct(&[
                        field("partition_index", I32),
                        field("error_code", I16),
                        field("error_message", NullStr).from(2),
                        field("leader_id", I32),
                        field("leader_epoch", I32),
                        field("high_watermark", I64),
                        field(
                            "current_voters",
                            Array(&Struct(&[
                                field("replica_id", I32),
                                field("replica_directory_id", Uuid).from(2),
                                field("log_end_offset", I64),
                                field("last_fetch_timestamp", I64).from(1),
                                field("last_caught_up_timestamp", I64).from(1),
                            ])),
                        ),
                        field(
                            "observers",
                            Array(&Struct(&[
                                field("replica_id", I32),
                                field("replica_directory_id", Uuid).from(2),
                                field("log_end_offset", I64),
                                field("last_fetch_timestamp", I64).from(1),
                                field("last_caught_up_timestamp", I64).from(1),
                            ])),
                        ),
                    ])),
                ),
            ])),
        ),
        field(
            "nodes",
            Array(&Struct(&[
                field("node_id", I32).from(2),
                field(
                    "listeners",
                    Array(&Struct(&[
                        field("name", Str).from(2),
                        field("host", Str).from(2),
                        field("port", U16).from(2),
                    ])),
                )
                .from(2),
            ])),
        )
        .from(2),
    ],
};

pub(super) const ADD_RAFT_VOTER_RESPONSE: Message = Message {
    name: "AddRaftVoterResponse",
    versions: (0, 0),
    flexible: 0,
    fields: &[field("throttle_time_ms", I32), field("error_code", I16), field("error_message", NullStr)],
};

pub(super) const REMOVE_RAFT_VOTER_RESPONSE: Message = Message {
    name: "RemoveRaftVoterResponse",
    versions: (0, 0),
    flexible: 0,
    fields: &[field("throttle_time_ms", I32), field("error_code", I16), field("error_message", NullStr)],
};

pub(super) const UPDATE_RAFT_VOTER_RESPONSE: Message = Message {
    name: "UpdateRaftVoterResponse",
    versions: (0, 0),
    flexible: 0,
    fields: &[
        field("throttle_time_ms", I32),
        field("error_code", I16),
        field(
            "current_leader",
            Struct(&[
                field("leader_id", I32),
                field("leader_epoch", I32),
                field("host", Str),
                field("port", I32),
            ]),
        )
        .tag(0),
    ],
};
