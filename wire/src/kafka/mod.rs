//! Requests and responses as Rust values, on top of the crate `kafka-protocol`, whose messages are re-exported as
//! [`messages`]. Everything is decoded from [`Bytes`], so that text and record bytes point into the frame, and
//! nothing is decoded that [`crate::schema`] has not walked before (K23).

mod chunks;
mod fetch_response;
mod old_produce;

#[cfg(test)]
mod fetch_response_tests;
#[cfg(test)]
mod kafka_tests;

use bytes::{Bytes, BytesMut};
/// How the message of a Produce error begins when the broker knows that nothing of the batch is in the log and nothing of it
/// will ever be: the disk was full, and the cut of what had been written is durable. Kafka's error codes cannot say it.
pub const NOTHING_WRITTEN: &str = "nothing was written: ";

pub use kafka_protocol::messages;
pub use kafka_protocol::messages::ApiKey;
use kafka_protocol::messages::*;
pub use kafka_protocol::protocol::StrBytes;
use kafka_protocol::protocol::{Decodable, Encodable, Request as CrateRequest};

use crate::frame::{self, FrameError, RequestHeader};
use crate::schema::{WalkError, shape_of, walk};

use chunks::Chunks;
pub use fetch_response::{
    AbortedTransaction, FetchResponse, FetchedPartition, FetchedTopic, LeaderHint, NodeEndpoint,
};
pub use old_produce::{RefuseError, refuse_old_produce};

/// Array elements and tagged fields that one request may have in all.
pub const REQUEST_ELEMENTS_MAX: usize = 250_000;
/// Array elements and tagged fields that one response may have in all.
pub const RESPONSE_ELEMENTS_MAX: usize = 4_000_000;

/// Why a message could not be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// No API has this key.
    #[error("no API has key {api_key}")]
    UnknownApi {
        /// The key.
        api_key: i16,
    },
    /// The frame's header does not parse.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The bytes do not have the message's shape.
    #[error(transparent)]
    Shape(#[from] WalkError),
    /// The shape is right, a value is not, such as text that is not UTF-8.
    #[error("{message} version {version}: {reason}")]
    Value {
        /// The message.
        message: &'static str,
        /// Its version.
        version: i16,
        /// What the codec says.
        reason: String,
    },
}

/// Why a message could not be encoded: a mistake of ours, such as a field that the version does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The codec refuses the message.
    #[error("API {api_key} version {version}: {reason}")]
    Message {
        /// API key.
        api_key: i16,
        /// Version.
        version: i16,
        /// What the codec says.
        reason: String,
    },
    /// The frame would reach 2 GiB.
    #[error("frame of {bytes} bytes is longer than a frame can be")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
}

/// To add an API: a line here, its shape in `schema`, its row in `versions`.
macro_rules! apis {
    ($($name:ident = $key:literal: $request:ident => $response:ident;)*) => {
        /// A decoded request. One variant per API, named as in [`ApiKey`].
        #[allow(missing_docs, clippy::large_enum_variant, reason = "named by the protocol; short-lived, decoded once")]
        #[derive(Debug, Clone, PartialEq)]
        pub enum Request {
            Fetch(FetchRequest),
            $($name($request),)*
        }

        /// A response that can be encoded. One variant per API, named as in [`ApiKey`].
        #[allow(missing_docs, clippy::large_enum_variant, reason = "named by the protocol; short-lived, encoded once")]
        #[derive(Debug, Clone, PartialEq)]
        pub enum Response {
            Fetch(FetchResponse),
            $($name($response),)*
        }

        impl Request {
            /// The API.
            pub fn key(&self) -> ApiKey {
                match self {
                    Request::Fetch(_) => ApiKey::Fetch,
                    $(Request::$name(_) => ApiKey::$name,)*
                }
            }
        }

        impl Response {
            /// The API.
            pub fn key(&self) -> ApiKey {
                match self {
                    Response::Fetch(_) => ApiKey::Fetch,
                    $(Response::$name(_) => ApiKey::$name,)*
                }
            }

            fn encode_body(&self, version: i16, out: &mut Chunks) -> Result<(), String> {
                match self {
                    Response::Fetch(response) => response.encode(version, out),
                    $(Response::$name(response) => encode_plain(response, version, out.buffer()),)*
                }
            }
        }

        $(impl From<$response> for Response {
            fn from(response: $response) -> Response {
                Response::$name(response)
            }
        })*

        fn decode_by_key(api_key: i16, version: i16, body: &mut Bytes) -> Result<Request, String> {
            match api_key {
                1 => decode_plain(version, body).map(Request::Fetch),
                $($key => decode_plain(version, body).map(Request::$name),)*
                _ => Err("the API has a shape, but no message".into()),
            }
        }
    };
}

apis! {
    Produce = 0: ProduceRequest => ProduceResponse;
    ListOffsets = 2: ListOffsetsRequest => ListOffsetsResponse;
    Metadata = 3: MetadataRequest => MetadataResponse;
    OffsetCommit = 8: OffsetCommitRequest => OffsetCommitResponse;
    OffsetFetch = 9: OffsetFetchRequest => OffsetFetchResponse;
    FindCoordinator = 10: FindCoordinatorRequest => FindCoordinatorResponse;
    JoinGroup = 11: JoinGroupRequest => JoinGroupResponse;
    Heartbeat = 12: HeartbeatRequest => HeartbeatResponse;
    LeaveGroup = 13: LeaveGroupRequest => LeaveGroupResponse;
    SyncGroup = 14: SyncGroupRequest => SyncGroupResponse;
    DescribeGroups = 15: DescribeGroupsRequest => DescribeGroupsResponse;
    ListGroups = 16: ListGroupsRequest => ListGroupsResponse;
    SaslHandshake = 17: SaslHandshakeRequest => SaslHandshakeResponse;
    ApiVersions = 18: ApiVersionsRequest => ApiVersionsResponse;
    CreateTopics = 19: CreateTopicsRequest => CreateTopicsResponse;
    DeleteTopics = 20: DeleteTopicsRequest => DeleteTopicsResponse;
    DeleteRecords = 21: DeleteRecordsRequest => DeleteRecordsResponse;
    InitProducerId = 22: InitProducerIdRequest => InitProducerIdResponse;
    OffsetForLeaderEpoch = 23: OffsetForLeaderEpochRequest => OffsetForLeaderEpochResponse;
    AddPartitionsToTxn = 24: AddPartitionsToTxnRequest => AddPartitionsToTxnResponse;
    AddOffsetsToTxn = 25: AddOffsetsToTxnRequest => AddOffsetsToTxnResponse;
    EndTxn = 26: EndTxnRequest => EndTxnResponse;
    WriteTxnMarkers = 27: WriteTxnMarkersRequest => WriteTxnMarkersResponse;
    TxnOffsetCommit = 28: TxnOffsetCommitRequest => TxnOffsetCommitResponse;
    DescribeAcls = 29: DescribeAclsRequest => DescribeAclsResponse;
    CreateAcls = 30: CreateAclsRequest => CreateAclsResponse;
    DeleteAcls = 31: DeleteAclsRequest => DeleteAclsResponse;
    DescribeConfigs = 32: DescribeConfigsRequest => DescribeConfigsResponse;
    AlterConfigs = 33: AlterConfigsRequest => AlterConfigsResponse;
    DescribeLogDirs = 35: DescribeLogDirsRequest => DescribeLogDirsResponse;
    SaslAuthenticate = 36: SaslAuthenticateRequest => SaslAuthenticateResponse;
    CreatePartitions = 37: CreatePartitionsRequest => CreatePartitionsResponse;
    DeleteGroups = 42: DeleteGroupsRequest => DeleteGroupsResponse;
    ElectLeaders = 43: ElectLeadersRequest => ElectLeadersResponse;
    IncrementalAlterConfigs = 44: IncrementalAlterConfigsRequest => IncrementalAlterConfigsResponse;
    AlterPartitionReassignments = 45: AlterPartitionReassignmentsRequest => AlterPartitionReassignmentsResponse;
    ListPartitionReassignments = 46: ListPartitionReassignmentsRequest => ListPartitionReassignmentsResponse;
    OffsetDelete = 47: OffsetDeleteRequest => OffsetDeleteResponse;
    DescribeClientQuotas = 48: DescribeClientQuotasRequest => DescribeClientQuotasResponse;
    AlterClientQuotas = 49: AlterClientQuotasRequest => AlterClientQuotasResponse;
    DescribeUserScramCredentials = 50: DescribeUserScramCredentialsRequest => DescribeUserScramCredentialsResponse;
    AlterUserScramCredentials = 51: AlterUserScramCredentialsRequest => AlterUserScramCredentialsResponse;
    DescribeQuorum = 55: DescribeQuorumRequest => DescribeQuorumResponse;
    UpdateFeatures = 57: UpdateFeaturesRequest => UpdateFeaturesResponse;
    DescribeCluster = 60: DescribeClusterRequest => DescribeClusterResponse;
    DescribeProducers = 61: DescribeProducersRequest => DescribeProducersResponse;
    UnregisterBroker = 64: UnregisterBrokerRequest => UnregisterBrokerResponse;
    DescribeTransactions = 65: DescribeTransactionsRequest => DescribeTransactionsResponse;
    ListTransactions = 66: ListTransactionsRequest => ListTransactionsResponse;
    ConsumerGroupHeartbeat = 68: ConsumerGroupHeartbeatRequest => ConsumerGroupHeartbeatResponse;
    ConsumerGroupDescribe = 69: ConsumerGroupDescribeRequest => ConsumerGroupDescribeResponse;
    GetTelemetrySubscriptions = 71: GetTelemetrySubscriptionsRequest => GetTelemetrySubscriptionsResponse;
    PushTelemetry = 72: PushTelemetryRequest => PushTelemetryResponse;
    ListConfigResources = 74: ListConfigResourcesRequest => ListConfigResourcesResponse;
    DescribeTopicPartitions = 75: DescribeTopicPartitionsRequest => DescribeTopicPartitionsResponse;
    ShareGroupHeartbeat = 76: ShareGroupHeartbeatRequest => ShareGroupHeartbeatResponse;
    ShareGroupDescribe = 77: ShareGroupDescribeRequest => ShareGroupDescribeResponse;
    ShareFetch = 78: ShareFetchRequest => ShareFetchResponse;
    ShareAcknowledge = 79: ShareAcknowledgeRequest => ShareAcknowledgeResponse;
    AddRaftVoter = 80: AddRaftVoterRequest => AddRaftVoterResponse;
    RemoveRaftVoter = 81: RemoveRaftVoterRequest => RemoveRaftVoterResponse;
    UpdateRaftVoter = 82: UpdateRaftVoterRequest => UpdateRaftVoterResponse;
    DescribeShareGroupOffsets = 90: DescribeShareGroupOffsetsRequest => DescribeShareGroupOffsetsResponse;
    AlterShareGroupOffsets = 91: AlterShareGroupOffsetsRequest => AlterShareGroupOffsetsResponse;
    DeleteShareGroupOffsets = 92: DeleteShareGroupOffsetsRequest => DeleteShareGroupOffsetsResponse;
}

impl From<FetchResponse> for Response {
    fn from(response: FetchResponse) -> Response {
        Response::Fetch(response)
    }
}

fn decode_plain<T: Decodable>(version: i16, body: &mut Bytes) -> Result<T, String> {
    T::decode(body, version).map_err(|error| error.to_string())
}

fn encode_plain<T: Encodable>(message: &T, version: i16, out: &mut BytesMut) -> Result<(), String> {
    message.encode(out, version).map_err(|error| error.to_string())
}

/// Decodes a request's body: what is left of a frame behind [`frame::take_request_header`]. Whether the version
/// is one that is served is for [`crate::versions`] to say, before.
///
/// # Errors
/// `UnknownApi`, `Shape`, `Value`. Bytes behind the request are passed over.
pub fn decode_request(api_key: i16, version: i16, mut body: Bytes) -> Result<Request, DecodeError> {
    let message = &shape_of(api_key).ok_or(DecodeError::UnknownApi { api_key })?.request;
    match walk(message, version, &body, REQUEST_ELEMENTS_MAX) {
        // As Kafka does: librdkafka's Metadata request for all topics has three bytes too many from version 9 on.
        Ok(_) | Err(WalkError::TrailingBytes { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let refuse = |reason| DecodeError::Value { message: message.name, version, reason };
    decode_by_key(api_key, version, &mut body).map_err(refuse)
}

/// Encodes a response as a whole frame, length prefix included, as chunks to be written one after another. Record
/// bytes of a fetch response are chunks of their own, uncopied.
///
/// # Errors
/// `Message` when the response sets what its version does not have, `TooLarge`.
pub fn encode_response(
    version: i16,
    correlation_id: i32,
    response: &Response,
) -> Result<Vec<Bytes>, EncodeError> {
    let api_key = response.key() as i16;
    let mut out = Chunks::new();
    frame::put_response_header(out.buffer(), api_key, version, correlation_id);
    response.encode_body(version, &mut out).map_err(|reason| EncodeError::Message {
        api_key,
        version,
        reason,
    })?;
    out.finish()
}

/// Encodes a request as a whole frame, length prefix included.
///
/// # Errors
/// `Message` when the request sets what its version does not have, `TooLarge`.
pub fn encode_request<R: CrateRequest>(
    version: i16,
    correlation_id: i32,
    client_id: Option<&StrBytes>,
    request: &R,
) -> Result<Bytes, EncodeError> {
    let mut out = Chunks::new();
    let header = RequestHeader { api_key: R::KEY, version, correlation_id, client_id: client_id.cloned() };
    frame::put_request_header(out.buffer(), &header);
    encode_plain(request, version, out.buffer()).map_err(|reason| EncodeError::Message {
        api_key: R::KEY,
        version,
        reason,
    })?;
    out.finish_whole()
}

/// Decodes a response frame (without its length prefix) to the request type `R`; gives the correlation id too.
/// Record bytes of a fetch response point into the frame.
///
/// An ApiVersions response to a version that the broker does not know comes in version 0, whatever was asked (K1);
/// that is seen to.
///
/// # Errors
/// `UnknownApi`, `Frame`, `Shape`, `Value`. Bytes behind the response are an error.
pub fn decode_response<R: CrateRequest>(
    version: i16,
    mut frame: Bytes,
) -> Result<(i32, R::Response), DecodeError> {
    let message = &shape_of(R::KEY).ok_or(DecodeError::UnknownApi { api_key: R::KEY })?.response;
    let correlation_id = frame::take_response_header(&mut frame, R::KEY, version)?;
    let version = if R::KEY == ApiKey::ApiVersions as i16 && frame.starts_with(&UNSUPPORTED_VERSION) {
        0
    } else {
        version
    };
    walk(message, version, &frame, RESPONSE_ELEMENTS_MAX)?;
    let refuse = |reason| DecodeError::Value { message: message.name, version, reason };
    let response = decode_plain(version, &mut frame).map_err(refuse)?;
    if !frame.is_empty() {
        return Err(refuse(format!("{} bytes are left", frame.len())));
    }
    Ok((correlation_id, response))
}

/// Error code 35 as it stands at the front of an ApiVersions response.
const UNSUPPORTED_VERSION: [u8; 2] = 35i16.to_be_bytes();
