//! Fetch (key 1): a long poll for what lies below the high watermark (K6).
//!
//! The shards say what can be read and how; the bytes are read here, in the connection's own time, and go to the
//! socket as they came from the disk.

mod by_hand;
mod session;

use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::FetchRequest;
use tokio::sync::oneshot;
use weir_protocol::types::{LogId, TopicId};
use weir_runtime::time::{self, Alarm};
use weir_runtime::{random, simulation, task};
use weir_storage::{ReadError, ReadPlan};
use weir_wire::kafka::{FetchResponse, FetchedPartition, FetchedTopic, NodeEndpoint, StrBytes};

pub use self::by_hand::{AnsweredByHand, FetchSessionsByHand};
pub(crate) use self::session::FetchSessions;
use self::session::Wanted;
use super::brokers::Hints;
use super::{Api, Origin, errors, known_epoch, millis};
use crate::metadata::View;
use crate::server::Stage;
use crate::server::budget::Charge;
use crate::shard::{FetchCall, FetchDone, FetchPart, FetchWatch, Message, Readable, ShardError, WatchGuard};

/// read_committed.
const READ_COMMITTED: i8 = 1;

/// How long a fetch waits for compacted segments to take their places, before its client is told to come again.
const REPLACED_WITHIN: Duration = Duration::from_secs(1);

/// What is known of one partition of a request.
enum State {
    /// To be asked for.
    Asked(FetchPart),
    /// Refused before it was asked for.
    Refused(ResponseError),
}

/// One partition's answer so far.
type Answered = Result<Readable, ShardError>;

pub(super) async fn handle(
    api: &Arc<Api>,
    origin: Origin,
    request: FetchRequest,
    version: i16,
) -> (FetchResponse, Vec<Charge>) {
    let begun = match api.fetch_sessions.begin(&request, version, time::now()) {
        Ok(begun) => begun,
        Err(error) => {
            return (FetchResponse { error_code: error.code(), ..FetchResponse::default() }, Vec::new());
        }
    };
    let limit = usize::try_from(request.max_bytes).unwrap_or(0).min(api.config.fetch_bytes_max);
    let from_replica = request.replica_id.0 >= 0 || request.replica_state.replica_id.0 >= 0;
    let states = resolve(&api.image.current(), &begun.wanted, from_replica, version, limit);
    let parts: Vec<FetchPart> = states
        .iter()
        .filter_map(|state| match state {
            State::Asked(part) => Some(*part),
            State::Refused(_) => None,
        })
        .collect();
    let refused = parts.len() < states.len();
    let answers = wait(api, &request, parts, states.len(), refused, limit).await;
    let mut reading = Reading { api, left: limit, first: true, charges: Vec::new() };
    let mut fetched = Vec::with_capacity(states.len());
    for (state, answer) in states.into_iter().zip(answers) {
        fetched.push(match (state, answer) {
            (State::Refused(error), _) => failed(error),
            (State::Asked(part), Some(answer)) => {
                // A read of what is in memory does not wait, and others want their turn.
                task::yield_now().await;
                reading.partition(part, answer).await
            }
            (State::Asked(_), None) => failed(errors::of_shard(&ShardError::Stopping)),
        });
    }
    let charges = reading.charges;
    let node_endpoints = hint(api, origin, &begun.wanted, &mut fetched);
    let (session_id, shown) = api.fetch_sessions.finish(&begun, &fetched, time::now(), random::u64);
    let committed = request.isolation_level == READ_COMMITTED;
    let answers = begun.wanted.iter().zip(fetched).zip(shown).filter(|(_, shown)| *shown);
    let topics = by_topic(answers.map(|(answer, _)| answer), committed);
    (FetchResponse { session_id, topics, node_endpoints, ..FetchResponse::default() }, charges)
}

/// Names who leads where this broker does not (KIP-951). Returns where they are.
fn hint(api: &Api, origin: Origin, wanted: &[Wanted], fetched: &mut [FetchedPartition]) -> Vec<NodeEndpoint> {
    let view = api.image.current();
    let mut hints = Hints::new(api.brokers(&view.image, origin));
    for (wanted, fetched) in wanted.iter().zip(fetched) {
        if let Some(error) = ResponseError::try_from_code(fetched.error_code) {
            let key = &wanted.key;
            fetched.current_leader = hints.leader(error, TopicId(key.id), &key.name, key.partition);
        }
    }
    hints.into_endpoints()
}

fn resolve(view: &View, wanted: &[Wanted], from_replica: bool, version: i16, limit: usize) -> Vec<State> {
    let mut states = Vec::with_capacity(wanted.len());
    for wanted in wanted {
        let key = &wanted.key;
        let topic = if version >= 13 {
            view.image.topic(TopicId(key.id)).ok_or(ResponseError::UnknownTopicId)
        } else {
            view.image.topic_named(&key.name).ok_or(ResponseError::UnknownTopicOrPartition)
        };
        states.push(match topic {
            // Replicas have a protocol of their own.
            _ if from_replica => State::Refused(ResponseError::InvalidRequest),
            Err(error) => State::Refused(error),
            Ok(topic) if topic.partition(key.partition).is_none() => {
                State::Refused(ResponseError::UnknownTopicOrPartition)
            }
            Ok(topic) => State::Asked(FetchPart {
                log: LogId::new(topic.id, key.partition),
                index: states.len() as u32,
                offset: wanted.offset,
                bytes_max: usize::try_from(wanted.bytes_max).unwrap_or(0).min(limit),
                epoch: known_epoch(wanted.leader_epoch),
                last_fetched_epoch: known_epoch(wanted.last_fetched_epoch),
            }),
        });
    }
    states
}

/// Asks the shards until there is enough, something is wrong, or the client has waited as long as it wants to.
async fn wait(
    api: &Arc<Api>,
    request: &FetchRequest,
    parts: Vec<FetchPart>,
    count: usize,
    refused: bool,
    limit: usize,
) -> Vec<Option<Answered>> {
    let wanted = usize::try_from(request.min_bytes).unwrap_or(0).min(limit);
    let patient = wanted > 0 && request.max_wait_ms > 0 && !refused && !parts.is_empty();
    let watch = patient.then(WatchGuard::default);
    let mut alarm = Alarm::new();
    alarm.set(Some(time::now() + millis(request.max_wait_ms)));
    let mut stage = api.stage.clone();
    let mut over = watch.is_none();
    loop {
        let mut answers: Vec<Option<Answered>> = Vec::new();
        answers.resize_with(count, || None);
        let asked = watch.as_ref().map(|guard| &guard.0);
        for done in ask(api, &parts, asked).await {
            answers[done.index as usize] = Some(done.result);
        }
        if over || is_enough(&answers, wanted) {
            return answers;
        }
        let Some(guard) = &watch else { return answers };
        weir_runtime::select! {
            () = guard.0.woken() => {}
            () = alarm.wait() => over = true,
            _ = stage.wait_for(|stage| *stage != Stage::Running) => over = true,
        }
        if over {
            return answers;
        }
    }
}

fn is_enough(answers: &[Option<Answered>], wanted: usize) -> bool {
    let mut bytes = 0;
    for answer in answers {
        match answer {
            Some(Ok(Readable { diverging: Some(_), .. })) | Some(Err(_)) | None => return true,
            Some(Ok(readable)) => {
                let estimate = |plan: &ReadPlan| plan.bytes_estimate().max(usize::from(!plan.is_empty()));
                bytes += readable.plan.as_ref().map_or(0, estimate);
            }
        }
    }
    bytes >= wanted
}

async fn ask(api: &Arc<Api>, parts: &[FetchPart], watch: Option<&Arc<FetchWatch>>) -> Vec<FetchDone> {
    let mut replies = Vec::new();
    for (shard, parts) in api.shards.group(parts.iter().copied(), |part| part.log).into_iter().enumerate() {
        if parts.is_empty() {
            continue;
        }
        let (reply, answer) = oneshot::channel();
        let call = Box::new(FetchCall { parts, watch: watch.cloned(), reply });
        if api.shards.send(shard, Message::Fetch(call)).await.is_ok() {
            replies.push(answer);
        }
    }
    let mut done = Vec::new();
    for reply in replies {
        done.extend(reply.await.unwrap_or_default());
    }
    done
}

/// Reads what the shards have planned, within the limits.
struct Reading<'a> {
    api: &'a Arc<Api>,
    /// Bytes that the answer may still grow by.
    left: usize,
    /// Whether nothing was read so far: the first batch is returned whatever its size (K6).
    first: bool,
    charges: Vec<Charge>,
}

impl Reading<'_> {
    async fn partition(&mut self, part: FetchPart, answer: Answered) -> FetchedPartition {
        match self.attempt(answer).await {
            Some(fetched) => fetched,
            None => self.again(part).await,
        }
    }

    /// The log was cut since the read was planned, which the shard will say, or compaction has replaced a segment: what it has left is
    /// read.
    async fn again(&mut self, part: FetchPart) -> FetchedPartition {
        simulation::situation("read again, compacted meanwhile");
        let guard = WatchGuard::default();
        let mut alarm = Alarm::new();
        alarm.set(Some(time::now() + REPLACED_WITHIN));
        loop {
            let Some(done) = ask(self.api, &[part], Some(&guard.0)).await.pop() else {
                return failed(errors::of_shard(&ShardError::Stopping));
            };
            if let Some(fetched) = self.attempt(done.result).await {
                return fetched;
            }
            weir_runtime::select! {
                () = guard.0.woken() => {}
                () = alarm.wait() => {
                    let error = ReadError::Changed(part.log);
                    self.api.metrics.fetch_errors.increment();
                    tracing::warn!(%error, "a read failed");
                    return failed(errors::of_read(&error));
                }
            }
        }
    }

    /// `None` if the log is not any more what it was when the read was planned.
    async fn attempt(&mut self, answer: Answered) -> Option<FetchedPartition> {
        let readable = match answer {
            Ok(readable) => readable,
            Err(error) => {
                self.api.metrics.fetch_errors.increment();
                let mut fetched = failed(errors::of_shard(&error));
                if let ShardError::Read(error) = &error
                    && let ReadError::OutOfRange { start, .. } = **error
                {
                    fetched.log_start_offset = start;
                }
                return Some(fetched);
            }
        };
        let mut fetched = FetchedPartition {
            high_watermark: readable.high_watermark,
            // Without transactions everything that is committed is stable.
            last_stable_offset: readable.high_watermark,
            log_start_offset: readable.log_start,
            diverging_epoch: readable.diverging,
            ..FetchedPartition::default()
        };
        let charged = self.charges.len();
        let Some(plan) = readable.plan.and_then(|plan| self.within_limits(plan)) else {
            return Some(fetched);
        };
        match plan.run(&self.api.disk).await {
            Ok(records) => {
                let bytes: usize = records.iter().map(bytes::Bytes::len).sum();
                self.api.metrics.bytes_fetched.add(bytes as u64);
                self.left = self.left.saturating_sub(bytes);
                self.first &= bytes == 0;
                fetched.records = records;
            }
            Err(ReadError::Changed(_)) => {
                self.charges.truncate(charged);
                return None;
            }
            Err(error) => {
                if let ReadError::Corrupt { log, from, .. } = error {
                    self.api.metrics.reads_damaged.increment();
                    let shard = self.api.shards.owner_of(log);
                    // A shard that has ended repairs nothing more.
                    let _ = self.api.shards.send(shard, Message::Damaged { log, from }).await;
                }
                self.api.metrics.fetch_errors.increment();
                tracing::warn!(%error, "a read failed");
                fetched.error_code = errors::of_read(&error).code();
            }
        }
        Some(fetched)
    }

    /// The plan, cut down to what the answer may still hold and the budget has. The first one gives at least one batch.
    fn within_limits(&mut self, mut plan: ReadPlan) -> Option<ReadPlan> {
        if plan.is_empty() || (self.left == 0 && !self.first) {
            return None;
        }
        plan.limit(self.left, self.first);
        if let Some(charge) = self.api.budget.try_charge_reply(plan.bytes_estimate()) {
            self.charges.push(charge);
            return Some(plan);
        }
        if !self.first {
            return None;
        }
        // At the limit each fetch still gets one batch, so that every client gets on.
        plan.limit(0, true);
        Some(plan)
    }
}

fn failed(error: ResponseError) -> FetchedPartition {
    FetchedPartition { error_code: error.code(), ..FetchedPartition::default() }
}

/// The answers by topic, in their order.
fn by_topic<'a>(
    answers: impl Iterator<Item = (&'a Wanted, FetchedPartition)>,
    committed: bool,
) -> Vec<FetchedTopic> {
    let mut topics: Vec<FetchedTopic> = Vec::new();
    for (wanted, mut fetched) in answers {
        fetched.index = wanted.key.partition;
        fetched.aborted_transactions = committed.then(Vec::new);
        match topics.last_mut() {
            Some(topic) if topic.id == wanted.key.id && *topic.name == *wanted.key.name => {
                topic.partitions.push(fetched);
            }
            _ => topics.push(FetchedTopic {
                name: StrBytes::from_string(wanted.key.name.to_string()),
                id: wanted.key.id,
                partitions: vec![fetched],
            }),
        }
    }
    topics
}
