//! Shapes of the requests and responses for groups, classic and KIP-848.

use super::{Kind::*, Message, field};

/// What a member puts into JoinGroup, behind its version. Not a message of its own.
pub(crate) static CONSUMER_SUBSCRIPTION: Message = Message {
    name: "ConsumerProtocolSubscription",
    versions: (0, 3),
    flexible: i16::MAX,
    fields: &[
        field("topics", Array(&Str)),
        field("user_data", NullBytes),
        field("owned_partitions", Array(&Struct(&[field("topic", Str), field("partitions", Array(&I32))])))
            .from(1),
        field("generation_id", I32).from(2),
        field("rack_id", NullStr).from(3),
    ],
};

/// What a leader puts into SyncGroup for each member, behind its version. Not a message of its own.
pub(crate) static CONSUMER_ASSIGNMENT: Message = Message {
    name: "ConsumerProtocolAssignment",
    versions: (0, 3),
    flexible: i16::MAX,
    fields: &[
        field(
            "assigned_partitions",
            Array(&Struct(&[field("topic", Str), field("partitions", Array(&I32))])),
        ),
        field("user_data", NullBytes),
    ],
};

pub(super) const OFFSET_COMMIT_REQUEST: Message = Message {
    name: "OffsetCommitRequest",
    versions: (2, 9),
    flexible: 8,
    fields: &[
        field("group_id", Str),
        field("generation_id_or_member_epoch", I32),
        field("member_id", Str),
        field("group_instance_id", NullStr).from(7),
        field("retention_time_ms", I64).to(4),
        field(
            "topics",
            Array(&Struct(&[
                field("name", Str),
                field(
                    "partitions",
                    Array(&Struct(&[
                        field("partition_index", I32),
                        field("committed_offset", I64),
                        field("committed_leader_epoch", I32).from(6),
                        field("committed_metadata", NullStr),
                    ])),
                ),
            ])),
        ),
    ],
};

pub(super) const OFFSET_FETCH_REQUEST: Message = Message {
    name: "OffsetFetchRequest",
    versions: (1, 9),
    flexible: 6,
    fields: &[
        field("group_id", Str).to(7),
        field(
            "topics",
            NullArray(&Struct(&[field("name", Str).to(7), field("partition_indexes", Array(&I32)).to(7)])),
        )
        .to(7),
        field(
            "groups",
            Array(&Struct(&[
                field("group_id", Str).from(8),
                field("member_id", NullStr).from(9),
                field("member_epoch", I32).from(9),
                field(
                    "topics",
                    NullArray(&Struct(&[
                        field("name", Str).from(8),
                        field("partition_indexes", Array(&I32)).from(8),
                    ])),
                )
                .from(8),
            ])),
        )
        .from(8),
        field("require_stable", Bool).from(7),
    ],
};

pub(super) const FIND_COORDINATOR_REQUEST: Message = Message {
    name: "FindCoordinatorRequest",
    versions: (0, 6),
    flexible: 3,
    fields: &[
        field("key", Str).to(3),
        field("key_type", I8).from(1),
        field("coordinator_keys", Array(&Str)).from(4),
    ],
};

pub(super) const JOIN_GROUP_REQUEST: Message = Message {
    name: "JoinGroupRequest",
    versions: (0, 9),
    flexible: 6,
    fields: &[
        field("group_id", Str),
        field("session_timeout_ms", I32),
        field("rebalance_timeout_ms", I32).from(1),
        field("member_id", Str),
        field("group_instance_id", NullStr).from(5),
        field("protocol_type", Str),
        field("protocols", Array(&Struct(&[field("name", Str), field("metadata", Bytes)]))),
        field("reason", NullStr).from(8),
    ],
};

pub(super) const HEARTBEAT_REQUEST: Message = Message {
    name: "HeartbeatRequest",
    versions: (0, 4),
    flexible: 4,
    fields: &[
        field("group_id", Str),
        field("generation_id", I32),
        field("member_id", Str),
        field("group_instance_id", NullStr).from(3),
    ],
};

pub(super) const LEAVE_GROUP_REQUEST: Message = Message {
    name: "LeaveGroupRequest",
    versions: (0, 5),
    flexible: 4,
    fields: &[
        field("group_id", Str),
        field("member_id", Str).to(2),
        field(
            "members",
            Array(&Struct(&[
                field("member_id", Str).from(3),
                field("group_instance_id", NullStr).from(3),
                field("reason", NullStr).from(5),
            ])),
        )
        .from(3),
    ],
};

pub(super) const SYNC_GROUP_REQUEST: Message = Message {
    name: "SyncGroupRequest",
    versions: (0, 5),
    flexible: 4,
    fields: &[
        field("group_id", Str),
        field("generation_id", I32),
        field("member_id", Str),
        field("group_instance_id", NullStr).from(3),
        field("protocol_type", NullStr).from(5),
        field("protocol_name", NullStr).from(5),
        field("assignments", Array(&Struct(&[field("member_id", Str), field("assignment", Bytes)]))),
    ],
};

pub(super) const DESCRIBE_GROUPS_REQUEST: Message = Message {
    name: "DescribeGroupsRequest",
    versions: (0, 6),
    flexible: 5,
    fields: &[field("groups", Array(&Str)), field("include_authorized_operations", Bool).from(3)],
};

pub(super) const LIST_GROUPS_REQUEST: Message = Message {
    name: "ListGroupsRequest",
    versions: (0, 5),
    flexible: 3,
    fields: &[field("states_filter", Array(&Str)).from(4), field("types_filter", Array(&Str)).from(5)],
};

pub(super) const DELETE_GROUPS_REQUEST: Message = Message {
    name: "DeleteGroupsRequest",
    versions: (0, 2),
    flexible: 2,
    fields: &[field("groups_names", Array(&Str))],
};

pub(super) const OFFSET_DELETE_REQUEST: Message = Message {
    name: "OffsetDeleteRequest",
    versions: (0, 0),
    flexible: i16::MAX,
    fields: &[
        field("group_id", Str),
        field(
            "topics",
            Array(&Struct(&[
                field("name", Str),
                field("partitions", Array(&Struct(&[field("partition_index", I32)]))),
            ])),
        ),
    ],
};

pub(super) const CONSUMER_GROUP_HEARTBEAT_REQUEST: Message = Message {
    name: "ConsumerGroupHeartbeatRequest",
    versions: (0, 1),
    flexible: 0,
    fields: &[
        field("group_id", Str),
        field("member_id", Str),
        field("member_epoch", I32),
        field("instance_id", NullStr),
        field("rack_id", NullStr),
        field("rebalance_timeout_ms", I32),
        field("subscribed_topic_names", NullArray(&Str)),
        field("subscribed_topic_regex", NullStr).from(1),
        field("server_assignor", NullStr),
        field(
            "topic_partitions",
            NullArray(&Struct(&[field("topic_id", Uuid), field("partitions", Array(&I32))])),
        ),
    ],
};

pub(super) const CONSUMER_GROUP_DESCRIBE_REQUEST: Message = Message {
    name: "ConsumerGroupDescribeRequest",
    versions: (0, 1),
    flexible: 0,
    fields: &[field("group_ids", Array(&Str)), field("include_authorized_operations", Bool)],
};

pub(super) const OFFSET_COMMIT_RESPONSE: Message = Message {
    name: "OffsetCommitResponse",
    versions: (2, 10),
    flexible: 8,
    fields: &[
        field("throttle_time_ms", I32).from(3),
        field(
            "topics",
            Array(&Struct(&[
                field("name", Str).to(9),
                field("topic_id", Uuid).from(10),
                field(
                    "partitions",
                    Array(&Struct(&[field("partition_index", I32), field("error_code", I16)])),
                ),
            ])),
        ),
    ],
};

pub(super) const OFFSET_FETCH_RESPONSE: Message = Message {
    name: "OffsetFetchResponse",
    versions: (1, 10),
    flexible: 6,
    fields: &[
        field("throttle_time_ms", I32).from(3),
        field(
            "topics",
            Array(&Struct(&[
                field("name", Str).to(7),
                field(
                    "partitions",
                    Array(&Struct(&[
                        field("partition_index", I32).to(7),
                        field("committed_offset", I64).to(7),
                        field("committed_leader_epoch", I32).from(5).to(7),
                        field("metadata", NullStr).to(7),
                        field("error_code", I16).to(7),
                    ])),
                )
                .to(7),
            ])),
        )
        .to(7),
        field("error_code", I16).from(2).to(7),
        field(
            "groups",
            Array(&Struct(&[
                field("group_id", Str).from(8),
                field(
                    "topics",
                    Array(&Struct(&[
                        field("name", Str).from(8).to(9),
                        field("topic_id", Uuid).from(10),
                        field(
                            "partitions",
                            Array(&Struct(&[
                                field("partition_index", I32).from(8),
                                field("committed_offset", I64).from(8),
                                field("committed_leader_epoch", I32).from(8),
                                field("metadata", NullStr).from(8),
                                field("error_code", I16).from(8),
                            ])),
                        )
                        .from(8),
                    ])),
                )
                .from(8),
                field("error_code", I16).from(8),
            ])),
        )
        .from(8),
    ],
};

pub(super) const FIND_COORDINATOR_RESPONSE: Message = Message {
    name: "FindCoordinatorResponse",
    versions: (0, 6),
    flexible: 3,
    fields: &[
        field("throttle_time_ms", I32).from(1),
        field("error_code", I16).to(3),
        field("error_message", NullStr).from(1).to(3),
        field("node_id", I32).to(3),
        field("host", Str).to(3),
        field("port", I32).to(3),
        field(
            "coordinators",
            Array(&Struct(&[
                field("key", Str).from(4),
                field("node_id", I32).from(4),
                field("host", Str).from(4),
                field("port", I32).from(4),
                field("error_code", I16).from(4),
                field("error_message", NullStr).from(4),
            ])),
        )
        .from(4),
    ],
};

pub(super) const JOIN_GROUP_RESPONSE: Message = Message {
    name: "JoinGroupResponse",
    versions: (0, 9),
    flexible: 6,
    fields: &[
        field("throttle_time_ms", I32).from(2),
        field("error_code", I16),
        field("generation_id", I32),
        field("protocol_type", NullStr).from(7),
        field("protocol_name", NullStr),
        field("leader", Str),
        field("skip_assignment", Bool).from(9),
        field("member_id", Str),
        field(
            "members",
            Array(&Struct(&[
                field("member_id", Str),
                field("group_instance_id", NullStr).from(5),
                field("metadata", Bytes),
            ])),
        ),
    ],
};

pub(super) const HEARTBEAT_RESPONSE: Message = Message {
    name: "HeartbeatResponse",
    versions: (0, 4),
    flexible: 4,
    fields: &[field("throttle_time_ms", I32).from(1), field("error_code", I16)],
};

pub(super) const LEAVE_GROUP_RESPONSE: Message = Message {
    name: "LeaveGroupResponse",
    versions: (0, 5),
    flexible: 4,
    fields: &[
        field("throttle_time_ms", I32).from(1),
        field("error_code", I16),
        field(
            "members",
            Array(&Struct(&[
                field("member_id", Str).from(3),
                field("group_instance_id", NullStr).from(3),
                field("error_code", I16).from(3),
            ])),
        )
        .from(3),
    ],
};

pub(super) const SYNC_GROUP_RESPONSE: Message = Message {
    name: "SyncGroupResponse",
    versions: (0, 5),
    flexible: 4,
    fields: &[
        field("throttle_time_ms", I32).from(1),
        field("error_code", I16),
        field("protocol_type", NullStr).from(5),
        field("protocol_name", NullStr).from(5),
        field("assignment", Bytes),
    ],
};

pub(super) const DESCRIBE_GROUPS_RESPONSE: Message = Message {
    name: "DescribeGroupsResponse",
    versions: (0, 6),
    flexible: 5,
    fields: &[
        field("throttle_time_ms", I32).from(1),
        field(
            "groups",
            Array(&Struct(&[
                field("error_code", I16),
                field("error_message", NullStr).from(6),
                field("group_id", Str),
                field("group_state", Str),
                field("protocol_type", Str),
                field("protocol_data", Str),
                field(
                    "members",
                    Array(&Struct(&[
                        field("member_id", Str),
                        field("group_instance_id", NullStr).from(4),
                        field("client_id", Str),
                        field("client_host", Str),
                        field("member_metadata", Bytes),
                        field("member_assignment", Bytes),
                    ])),
                ),
                field("authorized_operations", I32).from(3),
            ])),
        ),
    ],
};

pub(super) const LIST_GROUPS_RESPONSE: Message = Message {
    name: "ListGroupsResponse",
    versions: (0, 5),
    flexible: 3,
    fields: &[
        field("throttle_time_ms", I32).from(1),
        field("error_code", I16),
        field(
            "groups",
            Array(&Struct(&[
                field("group_id", Str),
                field("protocol_type", Str),
                field("group_state", Str).from(4),
                field("group_type", Str).from(5),
            ])),
        ),
    ],
};

pub(super) const DELETE_GROUPS_RESPONSE: Message = Message {
    name: "DeleteGroupsResponse",
    versions: (0, 2),
    flexible: 2,
    fields: &[
        field("throttle_time_ms", I32),
        field("results", Array(&Struct(&[field("group_id", Str), field("error_code", I16)]))),
    ],
};

pub(super) const OFFSET_DELETE_RESPONSE: Message = Message {
    name: "OffsetDeleteResponse",
    versions: (0, 0),
    flexible: i16::MAX,
    fields: &[
        field("error_code", I16),
        field("throttle_time_ms", I32),
        field(
            "topics",
            Array(&Struct(&[
                field("name", Str),
                field(
                    "partitions",
                    Array(&Struct(&[field("partition_index", I32), field("error_code", I16)])),
                ),
            ])),
        ),
    ],
};

pub(super) const CONSUMER_GROUP_HEARTBEAT_RESPONSE: Message = Message {
    name: "ConsumerGroupHeartbeatResponse",
    versions: (0, 1),
    flexible: 0,
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

pub(super) const CONSUMER_GROUP_DESCRIBE_RESPONSE: Message = Message {
    name: "ConsumerGroupDescribeResponse",
    versions: (0, 1),
    flexible: 0,
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
                        field("instance_id", NullStr),
                        field("rack_id", NullStr),
                        field("member_epoch", I32),
                        field("client_id", Str),
                        field("client_host", Str),
                        field("subscribed_topic_names", Array(&Str)),
                        field("subscribed_topic_regex", NullStr),
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
                        field(
                            "target_assignment",
                            Struct(&[field(
                                "topic_partitions",
                                Array(&Struct(&[
                                    field("topic_id", Uuid),
                                    field("topic_name", Str),
                                    field("partitions", Array(&I32)),
                                ])),
                            )]),
                        ),
                        field("member_type", I8).from(1),
                    ])),
                ),
                field("authorized_operations", I32),
            ])),
        ),
    ],
};
