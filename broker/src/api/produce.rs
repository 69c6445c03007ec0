//! Produce (key 0): batches are checked here (K10), appended by the shards, and answered when they are as safe as the
//! client asked for.

use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::BrokerId;
use kafka_protocol::messages::produce_request::{ProduceRequest, TopicProduceData};
use kafka_protocol::messages::produce_response::{
    LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse, ProduceResponse, TopicProduceResponse,
};
use kafka_protocol::protocol::StrBytes;
use tokio::sync::oneshot;
use weir_protocol::metadata::settings::{TimestampType, TopicSettings};
use weir_protocol::metadata::{Topic, names};
use weir_protocol::partition::Acks;
use weir_protocol::types::{LogId, TopicId};
use weir_runtime::time;
use weir_wire::kafka::{self, LeaderHint, NOTHING_WRITTEN};
use weir_wire::records::{self, Batch, ProduceLimits};

use super::brokers::Hints;
use super::{Api, Begun, Call, Origin, Response, encode, errors, millis};
use crate::metadata::View;
use crate::server::budget::Charge;
use crate::shard::{Appended, Message, ProduceCall, ProduceDone, ProducePart, ShardError};

/// The most that a batch may decompress to while it is checked, in bytes.
const DECOMPRESSED_BYTES_MAX: usize = 64 << 20;

/// A partition's outcome: where its records are, or the code and what to say to a person.
type Outcome = Result<Appended, (ResponseError, Option<String>)>;

type Reply = oneshot::Receiver<Vec<ProduceDone>>;

/// Checks a request's batches and hands them to their shards, in order. What is left is to wait.
pub(super) async fn begin(
    api: &Arc<Api>,
    origin: Origin,
    call: Call,
    request: ProduceRequest,
    charge: Charge,
) -> Begun {
    let (acks, timeout) = (request.acks, millis(request.timeout_ms));
    let mut checked = check(api, &request, call.version);
    let parts = std::mem::take(&mut checked.parts);
    let charge = Arc::new(charge);
    let mut replies: Vec<Reply> = Vec::new();
    let deadline = time::now() + timeout;
    for (shard, parts) in api.shards.group(parts, |part| part.log).into_iter().enumerate() {
        if parts.is_empty() {
            continue;
        }
        let reply = if checked.acks == Acks::None {
            None
        } else {
            let (reply, answer) = oneshot::channel();
            replies.push(answer);
            Some(reply)
        };
        let produce = ProduceCall { acks: checked.acks, deadline, parts, charge: Arc::clone(&charge), reply };
        // A shard that has ended drops the reply, which reads as its error.
        let _ = api.shards.send(shard, Message::Produce(Box::new(produce))).await;
    }
    drop(charge);
    if acks == 0 {
        return match checked.outcomes.iter().any(|outcome| matches!(outcome, Some(Err(_)))) {
            // There is no answer that could carry an error; Kafka closes the connection, and clients look again.
            true => Begun::Close("a produce request with acks=0 failed".to_owned()),
            false => Begun::Silent,
        };
    }
    let api = Arc::clone(api);
    Begun::Later(Box::pin(finish(api, origin, call, request, checked.outcomes, replies)))
}

/// What has become of a request's partitions so far, and what goes to the shards.
struct Checked {
    acks: Acks,
    /// By partition, in the request's order; `None` is with the shards.
    outcomes: Vec<Option<Outcome>>,
    parts: Vec<ProducePart>,
}

fn check(api: &Api, request: &ProduceRequest, version: i16) -> Checked {
    let acks = match request.acks {
        0 => Ok(Acks::None),
        1 => Ok(Acks::Leader),
        -1 => Ok(Acks::All),
        _ => Err((ResponseError::InvalidRequiredAcks, None)),
    };
    let refusal = match (&acks, &request.transactional_id) {
        (Err(error), _) => Some(error.clone()),
        (_, Some(_)) => {
            let text = "Transactions are not supported.".to_owned();
            Some((ResponseError::InvalidTxnState, Some(text)))
        }
        _ => None,
    };
    let view = api.image.current();
    let mut checked = Checked { acks: acks.unwrap_or(Acks::Leader), outcomes: Vec::new(), parts: Vec::new() };
    for data in &request.topic_data {
        let found = find(&view, data, version);
        for partition in &data.partition_data {
            let outcome = match (&refusal, &found) {
                (Some(refusal), _) => Err(refusal.clone()),
                (None, Err(error)) => Err((*error, None)),
                (None, Ok((topic, settings))) => {
                    let log = LogId::new(topic.id, partition.index);
                    if topic.partition(partition.index).is_some() {
                        batch(partition.records.as_ref(), settings).map(|batch| (log, batch, settings))
                    } else {
                        Err((ResponseError::UnknownTopicOrPartition, None))
                    }
                }
            };
            match outcome {
                Ok((log, batch, settings)) => {
                    let index = checked.outcomes.len() as u32;
                    let log_append_time = settings.message_timestamp_type == TimestampType::LogAppendTime;
                    checked.parts.push(ProducePart { log, index, batch, log_append_time, epoch: None });
                    checked.outcomes.push(None);
                }
                Err(refusal) => {
                    api.metrics.produce_errors.increment();
                    tracing::debug!(topic = %data.name.as_str(), partition = partition.index, ?refusal, "refused");
                    checked.outcomes.push(Some(Err(refusal)));
                }
            }
        }
    }
    checked
}

/// The topic that is meant: by name before version 13, by id from there on (KIP-516).
fn find<'a>(
    view: &'a View,
    data: &TopicProduceData,
    version: i16,
) -> Result<(&'a Arc<Topic>, &'a Arc<TopicSettings>), ResponseError> {
    let topic = if version >= 13 {
        view.image.topic(TopicId(data.topic_id)).ok_or(ResponseError::UnknownTopicId)?
    } else {
        names::check(&data.name).map_err(|_| ResponseError::InvalidTopicException)?;
        view.image.topic_named(&data.name).ok_or(ResponseError::UnknownTopicOrPartition)?
    };
    if names::is_internal(&topic.name) {
        return Err(ResponseError::InvalidTopicException);
    }
    let settings = view.settings(topic.id).ok_or(ResponseError::UnknownTopicOrPartition)?;
    Ok((topic, settings))
}

/// Checks what was sent for one partition: exactly one batch, whole and well-formed (K10, K11).
fn batch(
    records: Option<&Bytes>,
    settings: &TopicSettings,
) -> Result<Batch, (ResponseError, Option<String>)> {
    let timestamps_ms = match settings.message_timestamp_type {
        // The producer's times do not count.
        TimestampType::LogAppendTime => None,
        TimestampType::CreateTime => {
            let now = time::wall_ms();
            let earliest = now.saturating_sub(settings.message_timestamp_before_max_ms).max(0);
            let latest = now.saturating_add(settings.message_timestamp_after_max_ms);
            Some((earliest, latest))
        }
    };
    let limits = ProduceLimits {
        batch_bytes_max: usize::try_from(settings.max_message_bytes).unwrap_or(0),
        decompressed_bytes_max: DECOMPRESSED_BYTES_MAX,
        batches_max: 1,
        require_keys: settings.cleanup.compact,
        timestamps_ms,
    };
    let bytes = records.cloned().unwrap_or_default();
    let mut batches = records::validate_produced(bytes, &limits)
        .map_err(|error| (errors::of_batch(&error), Some(error.to_string())))?;
    let batch = batches.pop().ok_or((ResponseError::InvalidRecord, None))?;
    if batch.header.is_transactional() {
        let text = "Transactions are not supported.".to_owned();
        return Err((ResponseError::InvalidTxnState, Some(text)));
    }
    Ok(batch)
}

/// Waits for the shards and answers.
async fn finish(
    api: Arc<Api>,
    origin: Origin,
    call: Call,
    request: ProduceRequest,
    mut outcomes: Vec<Option<Outcome>>,
    replies: Vec<Reply>,
) -> Response {
    for reply in replies {
        for done in reply.await.unwrap_or_default() {
            let result = done.result.map_err(|error| {
                api.metrics.produce_errors.increment();
                (errors::of_shard(&error), Some(explain(&error)))
            });
            outcomes[done.index as usize] = Some(result);
        }
    }
    let view = api.image.current();
    let mut hints = Hints::new(api.brokers(&view.image, origin));
    let mut outcomes = outcomes.into_iter();
    let mut responses = Vec::with_capacity(request.topic_data.len());
    for topic in request.topic_data {
        let (id, name) = (TopicId(topic.topic_id), &topic.name);
        let partitions = topic.partition_data.iter().map(|partition| {
            let response = partition_response(partition.index, outcomes.next().flatten());
            let error = ResponseError::try_from_code(response.error_code);
            match error.and_then(|error| hints.leader(error, id, name, partition.index)) {
                Some(hint) => response.with_current_leader(current_leader(hint)),
                None => response,
            }
        });
        let partitions = partitions.collect();
        responses.push(
            TopicProduceResponse::default()
                .with_name(topic.name)
                .with_topic_id(topic.topic_id)
                .with_partition_responses(partitions),
        );
    }
    let response = ProduceResponse::default().with_responses(responses);
    let endpoints = hints.into_endpoints().into_iter().map(endpoint).collect();
    encode(call, response.with_node_endpoints(endpoints).into(), Vec::new())
}

fn current_leader(hint: LeaderHint) -> LeaderIdAndEpoch {
    LeaderIdAndEpoch::default().with_leader_id(BrokerId(hint.leader_id)).with_leader_epoch(hint.leader_epoch)
}

fn endpoint(endpoint: kafka::NodeEndpoint) -> NodeEndpoint {
    NodeEndpoint::default()
        .with_node_id(BrokerId(endpoint.node_id))
        .with_host(endpoint.host)
        .with_port(endpoint.port)
        .with_rack(endpoint.rack)
}

/// What clients are told in words. A batch that found no room is cut durably before its producer hears of it.
fn explain(error: &ShardError) -> String {
    let certain = matches!(error, ShardError::Storage(error) if error.is_no_space());
    format!("{}{error}", if certain { NOTHING_WRITTEN } else { "" })
}

fn partition_response(index: i32, outcome: Option<Outcome>) -> PartitionProduceResponse {
    let response = PartitionProduceResponse::default().with_index(index);
    // A shard that ends leaves its part without an outcome.
    let outcome = outcome.unwrap_or_else(|| Err((errors::of_shard(&ShardError::Stopping), None)));
    match outcome {
        Ok(appended) => response
            .with_base_offset(appended.base_offset)
            .with_log_append_time_ms(appended.log_append_time_ms)
            .with_log_start_offset(appended.log_start),
        Err((error, text)) => response
            .with_error_code(error.code())
            .with_base_offset(-1)
            .with_log_append_time_ms(-1)
            .with_log_start_offset(-1)
            .with_error_message(text.map(StrBytes::from_string)),
    }
}
