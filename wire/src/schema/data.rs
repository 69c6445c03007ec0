//! Shapes of the requests and responses for producing and consuming.

use super::{Kind::*, Message, field};

pub(super) const PRODUCE_REQUEST: Message = Message {
    name: "ProduceRequest",
    versions: (3, 13),
    flexible: 9,
    fields: &[
        field("transactional_id", NullStr),
        field("acks", I16),
        field("timeout_ms", I32),
        field(
            "topic_data",
            Array(&Struct(&[
                field("name", Str).to(12),
                field("topic_id", Uuid).from(13),
                field("partition_data", Array(&Struct(&[field("index", I32), field("records", NullBytes)]))),
            ])),
        ),
    ],
};

pub(super) const FETCH_REQUEST: Message = Message {
    name: "FetchRequest",
    versions: (4, 18),
    flexible: 12,
    fields: &[
        field("replica_id", I32).to(14),
        field("max_wait_ms", I32),
        field("min_bytes", I32),
        field("max_bytes", I32),
        field("isolation_level", I8),
        field("session_id", I32).from(7),
        field("session_epoch", I32).from(7),
        field(
            "topics",
            Array(&Struct(&[
                field("topic", Str).to(12),
                field("topic_id", Uuid).from(13),
                field(
                    "partitions",
                    Array(&Struct(&[
                        field("partition", I32),
                        field("current_leader_epoch", I32).from(9),
                        field("fetch_offset", I64),
                        field("last_fetched_epoch", I32).from(12),
                        field("log_start_offset", I64).from(5),
                        field("partition_max_bytes", I32),
                        field("replica_directory_id", Uuid).from(17).tag(0),
                        field("high_watermark", I64).from(18).tag(1),
                    ])),
                ),
            ])),
        ),
        field(
            "forgotten_topics_data",
            Array(&Struct(&[
                field("topic", Str).from(7).to(12),
                field("topic_id", Uuid).from(13),
                field("partitions", Array(&I32)).from(7),
            ])),
        )
        .from(7),
        field("rack_id", Str).from(11),
        field("cluster_id", NullStr).from(12).tag(0),
        field(
            "replica_state",
            Struct(&[field("replica_id", I32).from(15), field("replica_epoch", I64).from(15)]),
        )
        .from(15)
        .tag(1),
    ],
};

pub(super) const LIST_OFFSETS_REQUEST: Message = Message {
    name: "ListOffsetsRequest",
    versions: (1, 10),
    flexible: 6,
    fields: &[
        field("replica_id", I32),
        field("isolation_level", I8).from(2),
        field(
            "topics",
            Array(&Struct(&[
                field("name", Str),
                field(
                    "partitions",
                    Array(&Struct(&[
                        field("partition_index", I32),
                        field("current_leader_epoch", I32).from(4),
                        field("timestamp", I64),
                    ])),
                ),
            ])),
        ),
        field("timeout_ms", I32).from(10),
    ],
};

pub(super) const METADATA_REQUEST: Message = Message {
    name: "MetadataRequest",
    versions: (0, 13),
    flexible: 9,
    fields: &[
        field("topics", NullArray(&Struct(&[field("topic_id", Uuid).from(10), field("name", NullStr)]))),
        field("allow_auto_topic_creation", Bool).from(4),
        field("include_cluster_authorized_operations", Bool).from(8).to(10),
        field("include_topic_authorized_operations", Bool).from(8),
    ],
};

pub(super) const API_VERSIONS_REQUEST: Message = Message {
    name: "ApiVersionsRequest",
    versions: (0, 4),
    flexible: 3,
    fields: &[field("client_software_name", Str).from(3), field("client_software_version", Str).from(3)],
};

pub(super) const INIT_PRODUCER_ID_REQUEST: Message = Message {
    name: "InitProducerIdRequest",
    versions: (0, 5),
    flexible: 2,
    fields: &[
        field("transactional_id", NullStr),
        field("transaction_timeout_ms", I32),
        field("producer_id", I64).from(3),
        field("producer_epoch", I16).from(3),
    ],
};

pub(super) const OFFSET_FOR_LEADER_EPOCH_REQUEST: Message = Message {
    name: "OffsetForLeaderEpochRequest",
    versions: (2, 4),
    flexible: 4,
    fields: &[
        field("replica_id", I32).from(3),
        field(
            "topics",
            Array(&Struct(&[
                field("topic", Str),
                field(
                    "partitions",
                    Array(&Struct(&[
                        field("partition", I32),
                        field("current_leader_epoch", I32),
                        field("leader_epoch", I32),
                    ])),
                ),
            ])),
        ),
    ],
};

pub(super) const DELETE_RECORDS_REQUEST: Message = Message {
    name: "DeleteRecordsRequest",
    versions: (0, 2),
    flexible: 2,
    fields: &[
        field(
            "topics",
            Array(&Struct(&[
                field("name", Str),
                field("partitions", Array(&Struct(&[field("partition_index", I32), field("offset", I64)]))),
            ])),
        ),
        field("timeout_ms", I32),
    ],
};

pub(super) const PRODUCE_RESPONSE: Message = Message {
    name: "ProduceResponse",
    versions: (3, 13),
    flexible: 9,
    fields: &[
        field(
            "responses",
            Array(&Struct(&[
                field("name", Str).to(12),
                field("topic_id", Uuid).from(13),
                field(
                    "partition_responses",
                    Array(&Struct(&[
                        field("index", I32),
                        field("error_code", I16),
                        field("base_offset", I64),
                        field("log_append_time_ms", I64),
                        field("log_start_offset", I64).from(5),
                        field(
                            "record_errors",
                            Array(&Struct(&[
                                field("batch_index", I32).from(8),
                                field("batch_index_error_message", NullStr).from(8),
                            ])),
                        )
                        .from(8),
                        field("error_message", NullStr).from(8),
                        field(
                            "current_leader",
                            Struct(&[field("leader_id", I32).from(10), field("leader_epoch", I32).from(10)]),
                        )
                        .from(10)
                        .tag(0),
                    ])),
                ),
            ])),
        ),
        field("throttle_time_ms", I32),
        field(
            "node_endpoints",
            Array(&Struct(&[
                field("node_id", I32).from(10),
                field("host", Str).from(10),
                field("port", I32).from(10),
                field("rack", NullStr).from(10),
            ])),
        )
        .from(10)
        .tag(0),
    ],
};

pub(super) const FETCH_RESPONSE: Message = Message {
    name: "FetchResponse",
    versions: (4, 18),
    flexible: 12,
    fields: &[
        field("throttle_time_ms", I32),
        field("error_code", I16).from(7),
        field("session_id", I32).from(7),
        field(
            "responses",
            Array(&Struct(&[
                field("topic", Str).to(12),
                field("topic_id", Uuid).from(13),
                field(
                    "partitions",
                    Array(&Struct(&[
                        field("partition_index", I32),
                        field("error_code", I16),
                        field("high_watermark", I64),
                        field("last_stable_offset", I64),
                        field("log_start_offset", I64).from(5),
                        field(
                            "aborted_transactions",
                            NullArray(&Struct(&[field("producer_id", I64), field("first_offset", I64)])),
                        ),
                        field("preferred_read_replica", I32).from(11),
                        field("records", NullBytes),
                        field(
                            "diverging_epoch",
                            Struct(&[field("epoch", I32).from(12), field("end_offset", I64).from(12)]),
                        )
                        .from(12)
                        .tag(0),
                        field(
                            "current_leader",
                            Struct(&[field("leader_id", I32).from(12), field("leader_epoch", I32).from(12)]),
                        )
                        .from(12)
                        .tag(1),
                        field("snapshot_id", Struct(&[field("end_offset", I64), field("epoch", I32)]))
                            .from(12)
                            .tag(2),
                    ])),
                ),
            ])),
        ),
        field(
            "node_endpoints",
            Array(&Struct(&[
                field("node_id", I32).from(16),
                field("host", Str).from(16),
                field("port", I32).from(16),
                field("rack", NullStr).from(16),
            ])),
        )
        .from(16)
        .tag(0),
    ],
};

pub(super) const LIST_OFFSETS_RESPONSE: Message = Message {
    name: "ListOffsetsResponse",
    versions: (1, 10),
    flexible: 6,
    fields: &[
        field("throttle_time_ms", I32).from(2),
        field(
            "topics",
            Array(&Struct(&[
                field("name", Str),
                field(
                    "partitions",
                    Array(&Struct(&[
                        field("partition_index", I32),
                        field("error_code", I16),
                        field("timestamp", I64),
                        field("offset", I64),
                        field("leader_epoch", I32).from(4),
                    ])),
                ),
            ])),
        ),
    ],
};

pub(super) const METADATA_RESPONSE: Message = Message {
    name: "MetadataResponse",
    versions: (0, 13),
    flexible: 9,
    fields: &[
        field("throttle_time_ms", I32).from(3),
        field(
            "brokers",
            Array(&Struct(&[
                field("node_id", I32),
                field("host", Str),
                field("port", I32),
                field("rack", NullStr).from(1),
            ])),
        ),
        field("cluster_id", NullStr).from(2),
        field("controller_id", I32).from(1),
        field(
            "topics",
            Array(&Struct(&[
                field("error_code", I16),
                field("name", NullStr),
                field("topic_id", Uuid).from(10),
                field("is_internal", Bool).from(1),
                field(
                    "partitions",
                    Array(&Struct(&[
                        field("error_code", I16),
                        field("partition_index", I32),
                        field("leader_id", I32),
                        field("leader_epoch", I32).from(7),
                        field("replica_nodes", Array(&I32)),
                        field("isr_nodes", Array(&I32)),
                        field("offline_replicas", Array(&I32)).from(5),
                    ])),
                ),
                field("topic_authorized_operations", I32).from(8),
            ])),
        ),
        field("cluster_authorized_operations", I32).from(8).to(10),
        field("error_code", I16).from(13),
    ],
};

pub(super) const API_VERSIONS_RESPONSE: Message = Message {
    name: "ApiVersionsResponse",
    versions: (0, 4),
    flexible: 3,
    fields: &[
        field("error_code", I16),
        field(
            "api_keys",
            Array(&Struct(&[field("api_key", I16), field("min_version", I16), field("max_version", I16)])),
        ),
        field("throttle_time_ms", I32).from(1),
        field(
            "supported_features",
            Array(&Struct(&[
                field("name", Str).from(3),
                field("min_version", I16).from(3),
                field("max_version", I16).from(3),
            ])),
        )
        .from(3)
        .tag(0),
        field("finalized_features_epoch", I64).from(3).tag(1),
        field(
            "finalized_features",
            Array(&Struct(&[
                field("name", Str).from(3),
                field("max_version_level", I16).from(3),
                field("min_version_level", I16).from(3),
            ])),
        )
        .from(3)
        .tag(2),
        field("zk_migration_ready", Bool).from(3).tag(3),
    ],
};

pub(super) const INIT_PRODUCER_ID_RESPONSE: Message = Message {
    name: "InitProducerIdResponse",
    versions: (0, 6),
    flexible: 2,
    fields: &[
        field("throttle_time_ms", I32),
        field("error_code", I16),
        field("producer_id", I64),
        field("producer_epoch", I16),
        field("ongoing_txn_producer_id", I64).from(6),
        field("ongoing_txn_producer_epoch", I16).from(6),
    ],
};

pub(super) const OFFSET_FOR_LEADER_EPOCH_RESPONSE: Message = Message {
    name: "OffsetForLeaderEpochResponse",
    versions: (2, 4),
    flexible: 4,
    fields: &[
        field("throttle_time_ms", I32),
        field(
            "topics",
            Array(&Struct(&[
                field("topic", Str),
                field(
                    "partitions",
                    Array(&Struct(&[
                        field("error_code", I16),
                        field("partition", I32),
                        field("leader_epoch", I32),
                        field("end_offset", I64),
                    ])),
                ),
            ])),
        ),
    ],
};

pub(super) const DELETE_RECORDS_RESPONSE: Message = Message {
    name: "DeleteRecordsResponse",
    versions: (0, 2),
    flexible: 2,
    fields: &[
        field("throttle_time_ms", I32),
        field(
            "topics",
            Array(&Struct(&[
                field("name", Str),
                field(
                    "partitions",
                    Array(&Struct(&[
                        field("partition_index", I32),
                        field("low_watermark", I64),
                        field("error_code", I16),
                    ])),
                ),
            ])),
        ),
    ],
};
