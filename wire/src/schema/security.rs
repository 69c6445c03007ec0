//! Shapes of the requests and responses for authentication, authorization, quotas and telemetry.

use super::{Kind::*, Message, field};

pub(super) const SASL_HANDSHAKE_REQUEST: Message = Message {
    name: "SaslHandshakeRequest",
    versions: (0, 1),
    flexible: i16::MAX,
    fields: &[field("mechanism", Str)],
};

pub(super) const SASL_AUTHENTICATE_REQUEST: Message = Message {
    name: "SaslAuthenticateRequest",
    versions: (0, 2),
    flexible: 2,
    fields: &[field("auth_bytes", Bytes)],
};

pub(super) const DESCRIBE_ACLS_REQUEST: Message = Message {
    name: "DescribeAclsRequest",
    versions: (1, 3),
    flexible: 2,
    fields: &[
        field("resource_type_filter", I8),
        field("resource_name_filter", NullStr),
        field("pattern_type_filter", I8),
        field("principal_filter", NullStr),
        field("host_filter", NullStr),
        field("operation", I8),
        field("permission_type", I8),
    ],
};

pub(super) const CREATE_ACLS_REQUEST: Message = Message {
    name: "CreateAclsRequest",
    versions: (1, 3),
    flexible: 2,
    fields: &[field(
        "creations",
        Array(&Struct(&[
            field("resource_type", I8),
            field("resource_name", Str),
            field("resource_pattern_type", I8),
            field("principal", Str),
            field("host", Str),
            field("operation", I8),
            field("permission_type", I8),
        ])),
    )],
};

pub(super) const DELETE_ACLS_REQUEST: Message = Message {
    name: "DeleteAclsRequest",
    versions: (1, 3),
    flexible: 2,
    fields: &[field(
        "filters",
        Array(&Struct(&[
            field("resource_type_filter", I8),
            field("resource_name_filter", NullStr),
            field("pattern_type_filter", I8),
            field("principal_filter", NullStr),
            field("host_filter", NullStr),
            field("operation", I8),
            field("permission_type", I8),
        ])),
    )],
};

pub(super) const DESCRIBE_CLIENT_QUOTAS_REQUEST: Message = Message {
    name: "DescribeClientQuotasRequest",
    versions: (0, 1),
    flexible: 1,
    fields: &[
        field(
            "components",
            Array(&Struct(&[field("entity_type", Str), field("match_type", I8), field("_match", NullStr)])),
        ),
        field("strict", Bool),
    ],
};

pub(super) const ALTER_CLIENT_QUOTAS_REQUEST: Message = Message {
    name: "AlterClientQuotasRequest",
    versions: (0, 1),
    flexible: 1,
    fields: &[
        field(
            "entries",
            Array(&Struct(&[
                field("entity", Array(&Struct(&[field("entity_type", Str), field("entity_name", NullStr)]))),
                field(
                    "ops",
                    Array(&Struct(&[field("key", Str), field("value", F64), field("remove", Bool)])),
                ),
            ])),
        ),
        field("validate_only", Bool),
    ],
};

pub(super) const DESCRIBE_USER_SCRAM_CREDENTIALS_REQUEST: Message = Message {
    name: "DescribeUserScramCredentialsRequest",
    versions: (0, 0),
    flexible: 0,
    fields: &[field("users", NullArray(&Struct(&[field("name", Str)])))],
};

pub(super) const ALTER_USER_SCRAM_CREDENTIALS_REQUEST: Message = Message {
    name: "AlterUserScramCredentialsRequest",
    versions: (0, 0),
    flexible: 0,
    fields: &[
        field("deletions", Array(&Struct(&[field("name", Str), field("mechanism", I8)]))),
        field(
            "upsertions",
            Array(&Struct(&[
                field("name", Str),
                field("mechanism", I8),
                field("iterations", I32),
                field("salt", Bytes),
                field("salted_password", Bytes),
            ])),
        ),
    ],
};

pub(super) const GET_TELEMETRY_SUBSCRIPTIONS_REQUEST: Message = Message {
    name: "GetTelemetrySubscriptionsRequest",
    versions: (0, 0),
    flexible: 0,
    fields: &[field("client_instance_id", Uuid)],
};

pub(super) const PUSH_TELEMETRY_REQUEST: Message = Message {
    name: "PushTelemetryRequest",
    versions: (0, 0),
    flexible: 0,
    fields: &[
        field("client_instance_id", Uuid),
        field("subscription_id", I32),
        field("terminating", Bool),
        field("compression_type", I8),
        field("metrics", Bytes),
    ],
};

pub(super) const SASL_HANDSHAKE_RESPONSE: Message = Message {
    name: "SaslHandshakeResponse",
    versions: (0, 1),
    flexible: i16::MAX,
    fields: &[field("error_code", I16), field("mechanisms", Array(&Str))],
};

pub(super) const SASL_AUTHENTICATE_RESPONSE: Message = Message {
    name: "SaslAuthenticateResponse",
    versions: (0, 2),
    flexible: 2,
    fields: &[
        field("error_code", I16),
        field("error_message", NullStr),
        field("auth_bytes", Bytes),
        field("session_lifetime_ms", I64).from(1),
    ],
};

pub(super) const DESCRIBE_ACLS_RESPONSE: Message = Message {
    name: "DescribeAclsResponse",
    versions: (1, 3),
    flexible: 2,
    fields: &[
        field("throttle_time_ms", I32),
        field("error_code", I16),
        field("error_message", NullStr),
        field(
            "resources",
            Array(&Struct(&[
                field("resource_type", I8),
                field("resource_name", Str),
                field("pattern_type", I8),
                field(
                    "acls",
                    Array(&Struct(&[
                        field("principal", Str),
                        field("host", Str),
                        field("operation", I8),
                        field("permission_type", I8),
                    ])),
                ),
            ])),
        ),
    ],
};

pub(super) const CREATE_ACLS_RESPONSE: Message = Message {
    name: "CreateAclsResponse",
    versions: (1, 3),
    flexible: 2,
    fields: &[
        field("throttle_time_ms", I32),
        field("results", Array(&Struct(&[field("error_code", I16), field("error_message", NullStr)]))),
    ],
};

pub(super) const DELETE_ACLS_RESPONSE: Message = Message {
    name: "DeleteAclsResponse",
    versions: (1, 3),
    flexible: 2,
    fields: &[
        field("throttle_time_ms", I32),
        field(
            "filter_results",
            Array(&Struct(&[
                field("error_code", I16),
                field("error_message", NullStr),
                field(
                    "matching_acls",
                    Array(&Struct(&[
                        field("error_code", I16),
                        field("error_message", NullStr),
                        field("resource_type", I8),
                        field("resource_name", Str),
                        field("pattern_type", I8),
                        field("principal", Str),
                        field("host", Str),
                        field("operation", I8),
                        field("permission_type", I8),
                    ])),
                ),
            ])),
        ),
    ],
};

pub(super) const DESCRIBE_CLIENT_QUOTAS_RESPONSE: Message = Message {
    name: "DescribeClientQuotasResponse",
    versions: (0, 1),
    flexible: 1,
    fields: &[
        field("throttle_time_ms", I32),
        field("error_code", I16),
        field("error_message", NullStr),
        field(
            "entries",
            NullArray(&Struct(&[
                field("entity", Array(&Struct(&[field("entity_type", Str), field("entity_name", NullStr)]))),
                field("values", Array(&Struct(&[field("key", Str), field("value", F64)]))),
            ])),
        ),
    ],
};

pub(super) const ALTER_CLIENT_QUOTAS_RESPONSE: Message = Message {
    name: "AlterClientQuotasResponse",
    versions: (0, 1),
    flexible: 1,
    fields: &[
        field("throttle_time_ms", I32),
        field(
            "entries",
            Array(&Struct(&[
                field("error_code", I16),
                field("error_message", NullStr),
                field("entity", Array(&Struct(&[field("entity_type", Str), field("entity_name", NullStr)]))),
            ])),
        ),
    ],
};

pub(super) const DESCRIBE_USER_SCRAM_CREDENTIALS_RESPONSE: Message = Message {
    name: "DescribeUserScramCredentialsResponse",
    versions: (0, 0),
    flexible: 0,
    fields: &[
        field("throttle_time_ms", I32),
        field("error_code", I16),
        field("error_message", NullStr),
        field(
            "results",
            Array(&Struct(&[
                field("user", Str),
                field("error_code", I16),
                field("error_message", NullStr),
                field(
                    "credential_infos",
                    Array(&Struct(&[field("mechanism", I8), field("iterations", I32)])),
                ),
            ])),
        ),
    ],
};

pub(super) const ALTER_USER_SCRAM_CREDENTIALS_RESPONSE: Message = Message {
    name: "AlterUserScramCredentialsResponse",
    versions: (0, 0),
    flexible: 0,
    fields: &[
        field("throttle_time_ms", I32),
        field(
            "results",
            Array(&Struct(&[field("user", Str), field("error_code", I16), field("error_message", NullStr)])),
        ),
    ],
};

pub(super) const GET_TELEMETRY_SUBSCRIPTIONS_RESPONSE: Message = Message {
    name: "GetTelemetrySubscriptionsResponse",
    versions: (0, 0),
    flexible: 0,
    fields: &[
        field("throttle_time_ms", I32),
        field("error_code", I16),
        field("client_instance_id", Uuid),
        field("subscription_id", I32),
        field("accepted_compression_types", Array(&I8)),
        field("push_interval_ms", I32),
        field("telemetry_max_bytes", I32),
        field("delta_temporality", Bool),
        field("requested_metrics", Array(&Str)),
    ],
};

pub(super) const PUSH_TELEMETRY_RESPONSE: Message = Message {
    name: "PushTelemetryResponse",
    versions: (0, 0),
    flexible: 0,
    fields: &[field("throttle_time_ms", I32), field("error_code", I16)],
};
