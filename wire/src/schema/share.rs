//! Shapes of the requests and responses for share groups (KIP-932).

use super::{Kind::*, Message, field};

pub(super) const SHARE_GROUP_HEARTBEAT_REQUEST: Message = Message {
    name: "ShareGroupHeartbeatRequest",
    versions: (1, 1),
    flexible: 1,
    fields: &[
        field("group_id", Str),
        field("member_id", Str),
        field("member_epoch", I32),
        field("rack_id", NullStr),
        field("subscribed_topic_names", NullArray(&Str)),
    ],
};

pub(super) const SHARE_GROUP_DESCRIBE_REQUEST: Message = Message {
    name: "ShareGroupDescribeRequest",
    versions: (1, 1),
    flexible: 1,
    fields: &[field("group_ids", Array(&Str)), field("include_authorized_operations", Bool)],
};

pub(super) const SHARE_FETCH_REQUEST: Message = Message {
    name: "ShareFetchRequest",
    versions: (1, 1),
    flexible: 1,
    fields: &[
        field("group_id", NullStr),
        field("member_id", NullStr),
        field("share_session_epoch", I32),
        field("max_wait_ms", I32),
        field("min_bytes", I32),
        field("max_bytes", I32),
        field("max_records", I32),
        field("batch_size", I32),
        field(
            "topics",
            Array(&Struct(&[
                field("topic_id", Uuid),
                field(
                    "partitions",
                    Array(&Struct(&[
                        field("partition_index", I32),
                        field(
                            "acknowledgement_batches",
                            Array(&Struct(&[
                                field("first_offset", I64),
                                field("last_offset", I64),
                                field("acknowledge_types", Array(&I8)),
                            ])),
                        ),
                    ])),
                ),
            ])),
        ),
        field(
            "forgotten_topics_data",
            Array(&Struct(&[field("topic_id", Uuid), field("partitions", Array(&I32))])),
        ),
    ],
};

pub(super) const SHARE_ACKNOWLEDGE_REQUEST: Message = Message {
    name: "ShareAcknowledgeRequest",
    versions: (1, 1),
    flexible: 1,
    fields: &[
        field("group_id", NullStr),
        field("member_id", NullStr),
        field("share_session_epoch", I32),
        field(
            "topics",
            Array(&Struct(&[
                field("topic_id", Uuid),
                field(
                    "partitions",
                    Array(&Struct(&[
                        field("partition_index", I32),
                        field(
                            "acknowledgement_batches",
                            Array(&Struct(&[
                                field("first_offset", I64),
                                field("last_offset", I64),
                                field("acknowledge_types", Array(&I8)),
                            ])),
                        ),
                    ])),
                ),
            ])),
        ),
    ],
};

pub(super) const DESCRIBE_SHARE_GROUP_OFFSETS_REQUEST: Message = Message {
    name: "DescribeShareGroupOffsetsRequest",
    versions: (0, 0),
    flexible: 0,
    fields: &[field(
        "groups",
        Array(&Struct(&[
            field("group_id", Str),
            field(
                "topics",
                NullArray(&Struct(&[field("topic_name", Str), field("partitions", Array(&I32))])),
            ),
        ])),
    )],
};

pub(super) const ALTER_SHARE_GROUP_OFFSETS_REQUEST: Message = Message {
    name: "AlterShareGroupOffsetsRequest",
    versions: (0, 0),
    flexible: 0,
    fields: &[
        field("group_id", Str),
        field(
            "topics",
            Array(&Struct(&[
                field("topic_name", Str),
                field(
                    "partitions",
                    Array(&Struct(&[field("partition_index", I32), field("start_offset", I64)])),
                ),
            ])),
        ),
    ],
};

pub(super) const DELETE_SHARE_GROUP_OFFSETS_REQUEST: Message = Message {
    name: "DeleteShareGroupOffsetsRequest",
    versions: (0, 0),
    flexible: 0,
    fields: &[field("group_id", Str), field("topics", Array(&Struct(&[field("topic_name", Str)])))],
};

pub(super) const SHARE_GROUP_HEARTBEAT_RESPONSE: Message = Message {
    name: "ShareGroupHeartbeatResponse",
    versions: (1, 1),
    flexible: 1,
    fields: &[
        field("throttle_time_ms", I32),
        field("error_code", I16),
        field("error_message", NullStr),
        field("member_id", NullStr),
        field("member_epoch", I32),
        field("heartbeat_interval_ms", I32),
        field(
            "assignment",
            NullStruct(&[field(
                "topic_partitions",
                Array(&Struct(&[field("topic_id", Uuid), field("partitions", Array(&I32))])),
            )]),
        ),
    ],
};

pub(super) const SHARE_GROUP_DESCRIBE_RESPONSE: Message = Message {
    name: "ShareGroupDescribeResponse",
    versions: (1, 1),
    flexible: 1,
    fields: &[
        field("throttle_time_ms", I32),
        field(
            "groups",
            Array(&Struct(&[
                field("error_code", I16),
                field("error_message", NullStr),
                field("group_id", Str),
                field("group_state", Str),
                field("group_epoch", I32),
                field("assignment_epoch", I32),
                field("assignor_name", Str),
                field(
                    "members",
                    Array(&Struct(&[
                        field("member_id", Str),
                        field("rack_id", NullStr),
                        field("member_epoch", I32),
                        field("client_id", Str),
                        field("client_host", Str),
                        field("subscribed_topic_names", Array(&Str)),
                        field(
                            "assignment",
                            Struct(&[field(
                                "topic_partitions",
                                Array(&Struct(&[
                                    field("topic_id", Uuid),
                                    field("topic_name", Str),
                                    field("partitions", Array(&I32)),
                                ])),
                            )]),
                        ),
                    ])),
                ),
                field("authorized_operations", I32),
            ])),
        ),
    ],
};

pub(super) const SHARE_FETCH_RESPONSE: Message = Message {
    name: "ShareFetchResponse",
    versions: (1, 1),
    flexible: 1,
    fields: &[
        field("throttle_time_ms", I32),
        field("error_code", I16),
        field("error_message", NullStr),
        field("acquisition_lock_timeout_ms", I32),
        field(
            "responses",
            Array(&Struct(&[
                field("topic_id", Uuid),
                field(
                    "partitions",
                    Array(&Struct(&[
                        field("partition_index", I32),
                        field("error_code", I16),
                        field("error_message", NullStr),
                        field("acknowledge_error_code", I16),
                        field("acknowledge_error_message", NullStr),
                        field(
                            "current_leader",
                            Struct(&[field("leader_id", I32), field("leader_epoch", I32)]),
                        ),
                        field("records", NullBytes),
                        field(
                            "acquired_records",
                            Array(&Struct(&[
                                field("first_offset", I64),
                                field("last_offset", I64),
                                field("delivery_count", I16),
                            ])),
                        ),
                    ])),
                ),
            ])),
        ),
        field(
            "node_endpoints",
            Array(&Struct(&[
                field("node_id", I32),
                field("host", Str),
                field("port", I32),
                field("rack", NullStr),
            ])),
        ),
    ],
};

pub(super) const SHARE_ACKNOWLEDGE_RESPONSE: Message = Message {
    name: "ShareAcknowledgeResponse",
    versions: (1, 1),
    flexible: 1,
    fields: &[
        field("throttle_time_ms", I32),
        field("error_code", I16),
        field("error_message", NullStr),
        field(
            "responses",
            Array(&Struct(&[
                field("topic_id", Uuid),
                field(
                    "partitions",
                    Array(&Struct(&[
                        field("partition_index", I32),
                        field("error_code", I16),
                        field("error_message", NullStr),
                        field(
                            "current_leader",
                            Struct(&[field("leader_id", I32), field("leader_epoch", I32)]),
                        ),
                    ])),
                ),
            ])),
        ),
        field(
            "node_endpoints",
            Array(&Struct(&[
                field("node_id", I32),
                field("host", Str),
                field("port", I32),
                field("rack", NullStr),
            ])),
        ),
    ],
};

pub(super) const DESCRIBE_SHARE_GROUP_OFFSETS_RESPONSE: Message = Message {
    name: "DescribeShareGroupOffsetsResponse",
    versions: (0, 0),
    flexible: 0,
    fields: &[
        field("throttle_time_ms", I32),
        field(
            "groups",
            Array(&Struct(&[
                field("group_id", Str),
                field(
                    "topics",
                    Array(&Struct(&[
                        field("topic_name", Str),
                        field("topic_id", Uuid),
                        field(
                            "partitions",
                            Array(&Struct(&[
                                field("partition_index", I32),
                                field("start_offset", I64),
                                field("leader_epoch", I32),
                                field("error_code", I16),
                                field("error_message", NullStr),
                            ])),
                        ),
                    ])),
                ),
                field("error_code", I16),
                field("error_message", NullStr),
            ])),
        ),
    ],
};

pub(super) const ALTER_SHARE_GROUP_OFFSETS_RESPONSE: Message = Message {
    name: "AlterShareGroupOffsetsResponse",
    versions: (0, 0),
    flexible: 0,
    fields: &[
        field("throttle_time_ms", I32),
        field("error_code", I16),
        field("error_message", NullStr),
        field(
            "responses",
            Array(&Struct(&[
                field("topic_name", Str),
                field("topic_id", Uuid),
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

pub(super) const DELETE_SHARE_GROUP_OFFSETS_RESPONSE: Message = Message {
    name: "DeleteShareGroupOffsetsResponse",
    versions: (0, 0),
    flexible: 0,
    fields: &[
        field("throttle_time_ms", I32),
        field("error_code", I16),
        field("error_message", NullStr),
        field(
            "responses",
            Array(&Struct(&[
                field("topic_name", Str),
                field("topic_id", Uuid),
                field("error_code", I16),
                field("error_message", NullStr),
            ])),
        ),
    ],
};
