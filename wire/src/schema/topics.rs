//! Shapes of the requests and responses for topics and configurations.

use super::{Kind::*, Message, field};

pub(super) const CREATE_TOPICS_REQUEST: Message = Message {
    name: "CreateTopicsRequest",
    versions: (2, 7),
    flexible: 5,
    fields: &[
        field(
            "topics",
            Array(&Struct(&[
                field("name", Str),
                field("num_partitions", I32),
                field("replication_factor", I16),
                field(
                    "assignments",
                    Array(&Struct(&[field("partition_index", I32), field("broker_ids", Array(&I32))])),
                ),
                field("configs", Array(&Struct(&[field("name", Str), field("value", NullStr)]))),
            ])),
        ),
        field("timeout_ms", I32),
        field("validate_only", Bool),
    ],
};

pub(super) const DELETE_TOPICS_REQUEST: Message = Message {
    name: "DeleteTopicsRequest",
    versions: (1, 6),
    flexible: 4,
    fields: &[
        field("topics", Array(&Struct(&[field("name", NullStr).from(6), field("topic_id", Uuid).from(6)])))
            .from(6),
        field("topic_names", Array(&Str)).to(5),
        field("timeout_ms", I32),
    ],
};

pub(super) const CREATE_PARTITIONS_REQUEST: Message = Message {
    name: "CreatePartitionsRequest",
    versions: (0, 3),
    flexible: 2,
    fields: &[
        field(
            "topics",
            Array(&Struct(&[
                field("name", Str),
                field("count", I32),
                field("assignments", NullArray(&Struct(&[field("broker_ids", Array(&I32))]))),
            ])),
        ),
        field("timeout_ms", I32),
        field("validate_only", Bool),
    ],
};

pub(super) const DESCRIBE_CONFIGS_REQUEST: Message = Message {
    name: "DescribeConfigsRequest",
    versions: (1, 4),
    flexible: 4,
    fields: &[
        field(
            "resources",
            Array(&Struct(&[
                field("resource_type", I8),
                field("resource_name", Str),
                field("configuration_keys", NullArray(&Str)),
            ])),
        ),
        field("include_synonyms", Bool),
        field("include_documentation", Bool).from(3),
    ],
};

pub(super) const ALTER_CONFIGS_REQUEST: Message = Message {
    name: "AlterConfigsRequest",
    versions: (0, 2),
    flexible: 2,
    fields: &[
        field(
            "resources",
            Array(&Struct(&[
                field("resource_type", I8),
                field("resource_name", Str),
                field("configs", Array(&Struct(&[field("name", Str), field("value", NullStr)]))),
            ])),
        ),
        field("validate_only", Bool),
    ],
};

pub(super) const INCREMENTAL_ALTER_CONFIGS_REQUEST: Message = Message {
    name: "IncrementalAlterConfigsRequest",
    versions: (0, 1),
    flexible: 1,
    fields: &[
        field(
            "resources",
            Array(&Struct(&[
                field("resource_type", I8),
                field("resource_name", Str),
                field(
                    "configs",
                    Array(&Struct(&[
                        field("name", Str),
                        field("config_operation", I8),
                        field("value", NullStr),
                    ])),
                ),
            ])),
        ),
        field("validate_only", Bool),
    ],
};

pub(super) const LIST_CONFIG_RESOURCES_REQUEST: Message = Message {
    name: "ListConfigResourcesRequest",
    versions: (0, 1),
    flexible: 0,
    fields: &[field("resource_types", Array(&I8)).from(1)],
};

pub(super) const DESCRIBE_TOPIC_PARTITIONS_REQUEST: Message = Message {
    name: "DescribeTopicPartitionsRequest",
    versions: (0, 0),
    flexible: 0,
    fields: &[
        field("topics", Array(&Struct(&[field("name", Str)]))),
        field("response_partition_limit", I32),
        field("cursor", NullStruct(&[field("topic_name", Str), field("partition_index", I32)])),
    ],
};

pub(super) const CREATE_TOPICS_RESPONSE: Message = Message {
    name: "CreateTopicsResponse",
    versions: (2, 7),
    flexible: 5,
    fields: &[
        field("throttle_time_ms", I32),
        field(
            "topics",
            Array(&Struct(&[
                field("name", Str),
                field("topic_id", Uuid).from(7),
                field("error_code", I16),
                field("error_message", NullStr),
                field("num_partitions", I32).from(5),
                field("replication_factor", I16).from(5),
                field(
                    "configs",
                    NullArray(&Struct(&[
                        field("name", Str).from(5),
                        field("value", NullStr).from(5),
                        field("read_only", Bool).from(5),
                        field("config_source", I8).from(5),
                        field("is_sensitive", Bool).from(5),
                    ])),
                )
                .from(5),
                field("topic_config_error_code", I16).from(5).tag(0),
            ])),
        ),
    ],
};

pub(super) const DELETE_TOPICS_RESPONSE: Message = Message {
    name: "DeleteTopicsResponse",
    versions: (1, 6),
    flexible: 4,
    fields: &[
        field("throttle_time_ms", I32),
        field(
            "responses",
            Array(&Struct(&[
                field("name", NullStr),
                field("topic_id", Uuid).from(6),
                field("error_code", I16),
                field("error_message", NullStr).from(5),
            ])),
        ),
    ],
};

pub(super) const CREATE_PARTITIONS_RESPONSE: Message = Message {
    name: "CreatePartitionsResponse",
    versions: (0, 3),
    flexible: 2,
    fields: &[
        field("throttle_time_ms", I32),
        field(
            "results",
            Array(&Struct(&[field("name", Str), field("error_code", I16), field("error_message", NullStr)])),
        ),
    ],
};

pub(super) const DESCRIBE_CONFIGS_RESPONSE: Message = Message {
    name: "DescribeConfigsResponse",
    versions: (1, 4),
    flexible: 4,
    fields: &[
        field("throttle_time_ms", I32),
        field(
            "results",
            Array(&Struct(&[
                field("error_code", I16),
                field("error_message", NullStr),
                field("resource_type", I8),
                field("resource_name", Str),
                field(
                    "configs",
                    Array(&Struct(&[
                        field("name", Str),
                        field("value", NullStr),
                        field("read_only", Bool),
                        field("config_source", I8),
                        field("is_sensitive", Bool),
                        field(
                            "synonyms",
                            Array(&Struct(&[
                                field("name", Str),
                                field("value", NullStr),
                                field("source", I8),
                            ])),
                        ),
                        field("config_type", I8).from(3),
                        field("documentation", NullStr).from(3),
                    ])),
                ),
            ])),
        ),
    ],
};

pub(super) const ALTER_CONFIGS_RESPONSE: Message = Message {
    name: "AlterConfigsResponse",
    versions: (0, 2),
    flexible: 2,
    fields: &[
        field("throttle_time_ms", I32),
        field(
            "responses",
            Array(&Struct(&[
                field("error_code", I16),
                field("error_message", NullStr),
                field("resource_type", I8),
                field("resource_name", Str),
            ])),
        ),
    ],
};

pub(super) const INCREMENTAL_ALTER_CONFIGS_RESPONSE: Message = Message {
    name: "IncrementalAlterConfigsResponse",
    versions: (0, 1),
    flexible: 1,
    fields: &[
        field("throttle_time_ms", I32),
        field(
            "responses",
            Array(&Struct(&[
                field("error_code", I16),
                field("error_message", NullStr),
                field("resource_type", I8),
                field("resource_name", Str),
            ])),
        ),
    ],
};

pub(super) const LIST_CONFIG_RESOURCES_RESPONSE: Message = Message {
    name: "ListConfigResourcesResponse",
    versions: (0, 1),
    flexible: 0,
    fields: &[
        field("throttle_time_ms", I32),
        field("error_code", I16),
        field(
            "config_resources",
            Array(&Struct(&[field("resource_name", Str), field("resource_type", I8).from(1)])),
        ),
    ],
};

pub(super) const DESCRIBE_TOPIC_PARTITIONS_RESPONSE: Message = Message {
    name: "DescribeTopicPartitionsResponse",
    versions: (0, 0),
    flexible: 0,
    fields: &[
        field("throttle_time_ms", I32),
        field(
            "topics",
            Array(&Struct(&[
                field("error_code", I16),
                field("name", NullStr),
                field("topic_id", Uuid),
                field("is_internal", Bool),
                field(
                    "partitions",
                    Array(&Struct(&[
                        field("error_code", I16),
                        field("partition_index", I32),
                        field("leader_id", I32),
                        field("leader_epoch", I32),
                        field("replica_nodes", Array(&I32)),
                        field("isr_nodes", Array(&I32)),
                        field("eligible_leader_replicas", NullArray(&I32)),
                        field("last_known_elr", NullArray(&I32)),
                        field("offline_replicas", Array(&I32)),
                    ])),
                ),
                field("topic_authorized_operations", I32),
            ])),
        ),
        field("next_cursor", NullStruct(&[field("topic_name", Str), field("partition_index", I32)])),
    ],
};
