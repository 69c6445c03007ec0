//! Shapes of the requests and responses for transactions.

use super::{Kind::*, Message, field};

pub(super) const ADD_PARTITIONS_TO_TXN_REQUEST: Message = Message {
    name: "AddPartitionsToTxnRequest",
    versions: (0, 5),
    flexible: 3,
    fields: &[
        field(
            "transactions",
            Array(&Struct(&[
                field("transactional_id", Str).from(4),
                field("producer_id", I64).from(4),
                field("producer_epoch", I16).from(4),
                field("verify_only", Bool).from(4),
                field("topics", Array(&Struct(&[field("name", Str), field("partitions", Array(&I32))])))
                    .from(4),
            ])),
        )
        .from(4),
        field("v3_and_below_transactional_id", Str).to(3),
        field("v3_and_below_producer_id", I64).to(3),
        field("v3_and_below_producer_epoch", I16).to(3),
        field("v3_and_below_topics", Array(&Struct(&[field("name", Str), field("partitions", Array(&I32))])))
            .to(3),
    ],
};

pub(super) const ADD_OFFSETS_TO_TXN_REQUEST: Message = Message {
    name: "AddOffsetsToTxnRequest",
    versions: (0, 4),
    flexible: 3,
    fields: &[
        field("transactional_id", Str),
        field("producer_id", I64),
        field("producer_epoch", I16),
        field("group_id", Str),
    ],
};

pub(super) const END_TXN_REQUEST: Message = Message {
    name: "EndTxnRequest",
    versions: (0, 5),
    flexible: 3,
    fields: &[
        field("transactional_id", Str),
        field("producer_id", I64),
        field("producer_epoch", I16),
        field("committed", Bool),
    ],
};

pub(super) const WRITE_TXN_MARKERS_REQUEST: Message = Message {
    name: "WriteTxnMarkersRequest",
    versions: (1, 1),
    flexible: 1,
    fields: &[field(
        "markers",
        Array(&Struct(&[
            field("producer_id", I64),
            field("producer_epoch", I16),
            field("transaction_result", Bool),
            field("topics", Array(&Struct(&[field("name", Str), field("partition_indexes", Array(&I32))]))),
            field("coordinator_epoch", I32),
        ])),
    )],
};

pub(super) const TXN_OFFSET_COMMIT_REQUEST: Message = Message {
    name: "TxnOffsetCommitRequest",
    versions: (0, 5),
    flexible: 3,
    fields: &[
        field("transactional_id", Str),
        field("group_id", Str),
        field("producer_id", I64),
        field("producer_epoch", I16),
        field("generation_id", I32).from(3),
        field("member_id", Str).from(3),
        field("group_instance_id", NullStr).from(3),
        field(
            "topics",
            Array(&Struct(&[
                field("name", Str),
                field(
                    "partitions",
                    Array(&Struct(&[
                        field("partition_index", I32),
                        field("committed_offset", I64),
                        field("committed_leader_epoch", I32).from(2),
                        field("committed_metadata", NullStr),
                    ])),
                ),
            ])),
        ),
    ],
};

pub(super) const DESCRIBE_PRODUCERS_REQUEST: Message = Message {
    name: "DescribeProducersRequest",
    versions: (0, 0),
    flexible: 0,
    fields: &[field(
        "topics",
        Array(&Struct(&[field("name", Str), field("partition_indexes", Array(&I32))])),
    )],
};

pub(super) const DESCRIBE_TRANSACTIONS_REQUEST: Message = Message {
    name: "DescribeTransactionsRequest",
    versions: (0, 0),
    flexible: 0,
    fields: &[field("transactional_ids", Array(&Str))],
};

pub(super) const LIST_TRANSACTIONS_REQUEST: Message = Message {
    name: "ListTransactionsRequest",
    versions: (0, 2),
    flexible: 0,
    fields: &[
        field("state_filters", Array(&Str)),
        field("producer_id_filters", Array(&I64)),
        field("duration_filter", I64).from(1),
        field("transactional_id_pattern", NullStr).from(2),
    ],
};

pub(super) const ADD_PARTITIONS_TO_TXN_RESPONSE: Message = Message {
    name: "AddPartitionsToTxnResponse",
    versions: (0, 5),
    flexible: 3,
    fields: &[
        field("throttle_time_ms", I32),
        field("error_code", I16).from(4),
        field(
            "results_by_transaction",
            Array(&Struct(&[
                field("transactional_id", Str).from(4),
                field(
                    "topic_results",
                    Array(&Struct(&[
                        field("name", Str),
                        field(
                            "results_by_partition",
                            Array(&Struct(&[
                                field("partition_index", I32),
                                field("partition_error_code", I16),
                            ])),
                        ),
                    ])),
                )
                .from(4),
            ])),
        )
        .from(4),
        field(
            "results_by_topic_v3_and_below",
            Array(&Struct(&[
                field("name", Str),
                field(
                    "results_by_partition",
                    Array(&Struct(&[field("partition_index", I32), field("partition_error_code", I16)])),
                ),
            ])),
        )
        .to(3),
    ],
};

pub(super) const ADD_OFFSETS_TO_TXN_RESPONSE: Message = Message {
    name: "AddOffsetsToTxnResponse",
    versions: (0, 4),
    flexible: 3,
    fields: &[field("throttle_time_ms", I32), field("error_code", I16)],
};

pub(super) const END_TXN_RESPONSE: Message = Message {
    name: "EndTxnResponse",
    versions: (0, 5),
    flexible: 3,
    fields: &[
        field("throttle_time_ms", I32),
        field("error_code", I16),
        field("producer_id", I64).from(5),
        field("producer_epoch", I16).from(5),
    ],
};

pub(super) const WRITE_TXN_MARKERS_RESPONSE: Message = Message {
    name: "WriteTxnMarkersResponse",
    versions: (1, 1),
    flexible: 1,
    fields: &[field(
        "markers",
        Array(&Struct(&[
            field("producer_id", I64),
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
        ])),
    )],
};

pub(super) const TXN_OFFSET_COMMIT_RESPONSE: Message = Message {
    name: "TxnOffsetCommitResponse",
    versions: (0, 5),
    flexible: 3,
    fields: &[
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

pub(super) const DESCRIBE_PRODUCERS_RESPONSE: Message = Message {
    name: "DescribeProducersResponse",
    versions: (0, 0),
    flexible: 0,
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
                        field("error_code", I16),
                        field("error_message", NullStr),
                        field(
                            "active_producers",
                            Array(&Struct(&[
                                field("producer_id", I64),
                                field("producer_epoch", I32),
                                field("last_sequence", I32),
                                field("last_timestamp", I64),
                                field("coordinator_epoch", I32),
                                field("current_txn_start_offset", I64),
                            ])),
                        ),
                    ])),
                ),
            ])),
        ),
    ],
};

pub(super) const DESCRIBE_TRANSACTIONS_RESPONSE: Message = Message {
    name: "DescribeTransactionsResponse",
    versions: (0, 0),
    flexible: 0,
    fields: &[
        field("throttle_time_ms", I32),
        field(
            "transaction_states",
            Array(&Struct(&[
                field("error_code", I16),
                field("transactional_id", Str),
                field("transaction_state", Str),
                field("transaction_timeout_ms", I32),
                field("transaction_start_time_ms", I64),
                field("producer_id", I64),
                field("producer_epoch", I16),
                field("topics", Array(&Struct(&[field("topic", Str), field("partitions", Array(&I32))]))),
            ])),
        ),
    ],
};

pub(super) const LIST_TRANSACTIONS_RESPONSE: Message = Message {
    name: "ListTransactionsResponse",
    versions: (0, 2),
    flexible: 0,
    fields: &[
        field("throttle_time_ms", I32),
        field("error_code", I16),
        field("unknown_state_filters", Array(&Str)),
        field(
            "transaction_states",
            Array(&Struct(&[
                field("transactional_id", Str),
                field("producer_id", I64),
                field("transaction_state", Str),
            ])),
        ),
    ],
};
