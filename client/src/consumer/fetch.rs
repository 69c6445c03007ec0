//! The requests of a consumer, and what their answers do to its partitions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kafka_protocol::error::ResponseError;
use weir_runtime::time::{self, Instant};
use weir_wire::kafka::StrBytes;
use weir_wire::kafka::messages::fetch_request::{FetchPartition, FetchTopic};
use weir_wire::kafka::messages::fetch_response::{AbortedTransaction, PartitionData};
use weir_wire::kafka::messages::{FetchRequest, FetchResponse};

use super::decode::{Aborted, decode};
use super::{Assigned, Buffered, Consumer, IsolationLevel, PartitionFailure, Place, Start};
use crate::TopicPartition;
use crate::admin::offsets::{self, OffsetAnswer, OffsetSpec};
use crate::call::Call;
use crate::cluster::Leader;
use crate::error::{Error, KafkaError};
use crate::metadata::Hint;

/// A partition that a request asked about, and at which of its positions.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    partition: TopicPartition,
    session: u64,
    offset: i64,
    /// The leader epoch of what lies before, as far as it was read.
    last_epoch: Option<i32>,
}

/// What a request ends with.
pub(super) enum Event {
    Fetched { broker: i32, asked: Vec<Asked>, result: Result<(Arc<str>, FetchResponse), Error> },
    Located { asked: Vec<Asked>, result: Result<Vec<OffsetAnswer>, Error> },
    Refreshed(Result<(), Error>),
}

impl Consumer {
    /// Starts whatever request can be made now.
    pub(super) fn start_requests(&mut self, now: Instant) {
        let mut to_fetch: BTreeMap<i32, Vec<(Asked, Leader)>> = BTreeMap::new();
        let mut to_locate: BTreeMap<i32, Vec<(Asked, Leader, OffsetSpec)>> = BTreeMap::new();
        let mut leaderless = BTreeSet::new();
        let backoff = self.client.backoff();
        for (partition, assigned) in &mut self.assigned {
            if !assigned.wants_request() || assigned.not_before > now {
                continue;
            }
            let Some(leader) = self.client.known_leader(partition) else {
                leaderless.insert(partition.topic.clone());
                assigned.not_before = now + backoff.before(1);
                continue;
            };
            let (session, last_epoch) = (assigned.session, assigned.last_epoch);
            match assigned.place {
                Place::At(offset) if !self.fetching.contains(&leader.broker) => {
                    let asked = Asked { partition: partition.clone(), session, offset, last_epoch };
                    to_fetch.entry(leader.broker).or_default().push((asked, leader));
                }
                Place::At(_) => continue,
                Place::Wanted(start) => {
                    let asked = Asked { partition: partition.clone(), session, offset: -1, last_epoch };
                    to_locate.entry(leader.broker).or_default().push((asked, leader, spec(start)));
                }
            }
            assigned.busy = true;
        }
        for (broker, partitions) in to_fetch {
            self.start_fetch(broker, partitions);
        }
        for (broker, partitions) in to_locate {
            self.start_locating(broker, partitions);
        }
        if !leaderless.is_empty() && !self.refreshing {
            self.refreshing = true;
            let client = self.client.clone();
            self.in_flight.push(async move { Event::Refreshed(client.refresh(&leaderless).await) });
        }
    }

    fn start_fetch(&mut self, broker: i32, partitions: Vec<(Asked, Leader)>) {
        let mut topics: BTreeMap<Arc<str>, Vec<FetchPartition>> = BTreeMap::new();
        let mut asked = Vec::with_capacity(partitions.len());
        for (one, leader) in partitions {
            let partition = FetchPartition::default()
                .with_partition(one.partition.partition)
                .with_current_leader_epoch(leader.epoch)
                .with_fetch_offset(one.offset)
                .with_last_fetched_epoch(one.last_epoch.unwrap_or(-1))
                .with_partition_max_bytes(self.config.partition_bytes_max);
            topics.entry(one.partition.topic.clone()).or_default().push(partition);
            asked.push(one);
        }
        let topics = topics.into_iter().map(|(topic, partitions)| {
            let name = StrBytes::from_string(topic.to_string()).into();
            FetchTopic::default().with_topic(name).with_partitions(partitions)
        });
        let request = FetchRequest::default()
            .with_max_wait_ms(i32::try_from(self.config.fetch_wait_max.as_millis()).unwrap_or(i32::MAX))
            .with_min_bytes(self.config.fetch_bytes_min)
            .with_max_bytes(self.config.fetch_bytes_max)
            .with_isolation_level(self.config.isolation.on_the_wire())
            .with_topics(topics.collect());
        self.fetching.insert(broker);
        let lane = self.lane.clone();
        let limit = self.client.config().request_timeout + self.config.fetch_wait_max;
        let silence = self.client.config().patience + self.config.fetch_wait_max;
        let partitions: Vec<TopicPartition> = asked.iter().map(|one| one.partition.clone()).collect();
        self.in_flight.push(async move {
            let result = lane.ask_leader(broker, &partitions, &request, limit, silence).await;
            Event::Fetched { broker, asked, result }
        });
    }

    fn start_locating(&mut self, broker: i32, partitions: Vec<(Asked, Leader, OffsetSpec)>) {
        let (client, isolation) = (self.client.clone(), self.config.isolation);
        let (asked, questions): (Vec<_>, Vec<_>) = partitions
            .into_iter()
            .map(|(asked, leader, spec)| {
                let question = (asked.partition.clone(), leader.epoch, spec);
                (asked, question)
            })
            .unzip();
        self.in_flight.push(async move {
            let result = offsets::ask_leader(&client, broker, &questions, isolation).await;
            Event::Located { asked, result }
        });
    }

    pub(super) fn on_event(&mut self, event: Event) {
        match event {
            Event::Refreshed(result) => {
                self.refreshing = false;
                if let Err(error) = result {
                    tracing::debug!(%error, "the consumer cannot learn who leads");
                }
            }
            Event::Located { asked, result } => self.on_located(asked, result),
            Event::Fetched { broker, asked, result } => {
                self.fetching.remove(&broker);
                match result {
                    Ok((address, response)) => self.on_fetched(asked, &address, response),
                    Err(error) => asked.into_iter().for_each(|asked| self.on_error(&asked, error.clone())),
                }
            }
        }
    }

    /// The partition, if the answer is to its present position.
    fn current(&mut self, asked: &Asked) -> Option<&mut Assigned> {
        self.assigned.get_mut(&asked.partition).filter(|assigned| assigned.session == asked.session)
    }

    fn on_located(&mut self, asked: Vec<Asked>, result: Result<Vec<OffsetAnswer>, Error>) {
        let answers = match result {
            Ok(answers) => answers,
            Err(error) => return asked.into_iter().for_each(|asked| self.on_error(&asked, error.clone())),
        };
        for (asked, answer) in asked.into_iter().zip(answers) {
            match answer {
                Err(error) => self.on_error(&asked, error),
                Ok(found) => {
                    let Some(assigned) = self.current(&asked) else { continue };
                    assigned.busy = false;
                    assigned.attempts = 0;
                    assigned.place = match found {
                        Some(at) => Place::At(at.offset),
                        // No record as late as that.
                        None => Place::Wanted(Start::End),
                    };
                }
            }
        }
    }

    fn on_fetched(&mut self, asked: Vec<Asked>, address: &Arc<str>, response: FetchResponse) {
        let api = FetchRequest::NAME;
        if let Some(error) = KafkaError::from_code(response.error_code) {
            let about = "the whole request".to_owned();
            let error = Error::Kafka { address: address.clone(), api, about, error, message: None };
            return asked.into_iter().for_each(|asked| self.on_error(&asked, error.clone()));
        }
        let mut answers: BTreeMap<(String, i32), PartitionData> = BTreeMap::new();
        for topic in response.responses {
            let name = topic.topic.to_string();
            let partitions = topic.partitions.into_iter();
            answers.extend(partitions.map(|data| ((name.clone(), data.partition_index), data)));
        }
        for asked in asked {
            match answers.remove(&(asked.partition.topic.to_string(), asked.partition.partition)) {
                Some(data) => self.on_partition(&asked, address, data),
                None => {
                    let reason = format!("it says nothing about {}", asked.partition);
                    self.on_error(&asked, Error::Protocol { address: address.clone(), api, reason });
                }
            }
        }
    }

    fn on_partition(&mut self, asked: &Asked, address: &Arc<str>, data: PartitionData) {
        if let Some(error) = KafkaError::from_code(data.error_code) {
            let (partition, offset) = (asked.partition.clone(), asked.offset);
            let error = match error.kind() {
                ResponseError::CorruptMessage => {
                    Error::Corrupt { partition, offset, reason: format!("{address} answers {error}") }
                }
                ResponseError::OffsetOutOfRange => Error::OffsetOutOfRange { partition, offset },
                ResponseError::NotLeaderOrFollower | ResponseError::FencedLeaderEpoch
                    if self.client.take_hint(&partition, hint(&data)) =>
                {
                    return self.go_there(asked);
                }
                _ => Error::Kafka {
                    address: address.clone(),
                    api: FetchRequest::NAME,
                    about: partition.to_string(),
                    error,
                    message: None,
                },
            };
            return self.on_error(asked, error);
        }
        if data.diverging_epoch.epoch >= 0 {
            let (partition, offset) = (asked.partition.clone(), asked.offset);
            let end = data.diverging_epoch.end_offset.min(offset);
            return self.on_error(asked, Error::Truncated { partition, offset, end });
        }
        let decompressed_bytes_max = self.config.batch_decompressed_bytes_max;
        let read_committed = self.config.isolation == IsolationLevel::ReadCommitted;
        let Some(assigned) = self.current(asked) else { return };
        assigned.busy = false;
        assigned.attempts = 0;
        let bytes = data.records.unwrap_or_default();
        if bytes.is_empty() {
            return;
        }
        let aborted = if read_committed { aborted(&data.aborted_transactions) } else { Vec::new() };
        let decoded = decode(asked.offset, bytes, decompressed_bytes_max, aborted);
        let failure = decoded.corrupt.map(|(offset, reason)| {
            let partition = asked.partition.clone();
            Error::Corrupt { partition, offset, reason: format!("{address} sent it: {reason}") }
        });
        if decoded.records.is_empty() && failure.is_none() {
            // Markers only, or what compaction has left of a batch.
            assigned.place = Place::At(decoded.next);
            assigned.last_epoch = decoded.last_epoch.or(assigned.last_epoch);
            return;
        }
        let (records, next, last_epoch) = (decoded.records, decoded.next, decoded.last_epoch);
        assigned.buffered =
            Some(Buffered { records, next, last_epoch, high_watermark: data.high_watermark, failure });
    }

    /// Another broker leads, and is known: it is asked at once (KIP-951).
    fn go_there(&mut self, asked: &Asked) {
        if let Some(assigned) = self.current(asked) {
            assigned.busy = false;
        }
    }

    /// A request about a partition failed: wait and try again, or tell and stop.
    fn on_error(&mut self, asked: &Asked, error: Error) {
        let now = time::now();
        let backoff = self.client.backoff();
        let elsewhere = self.config.out_of_range;
        let stale = error.kafka().is_none_or(KafkaError::means_stale_metadata) && error.is_retriable();
        if stale {
            self.client.mark_stale(&asked.partition.topic);
        }
        let Some(assigned) = self.current(asked) else { return };
        assigned.busy = false;
        assigned.attempts += 1;
        if error.is_retriable() {
            tracing::debug!(partition = %asked.partition, %error, attempts = assigned.attempts, "fetching again");
            assigned.not_before = now + backoff.before(assigned.attempts);
            return;
        }
        let elsewhere = match error {
            Error::OffsetOutOfRange { .. } => elsewhere,
            Error::Truncated { end, .. } => elsewhere.map(|_| Start::Offset(end)),
            _ => None,
        };
        match elsewhere {
            Some(start) => *assigned = Assigned::new(start, assigned.session),
            None => assigned.stopped = true,
        }
        let (partition, offset, stopped) = (asked.partition.clone(), asked.offset, elsewhere.is_none());
        self.failures.push_back(PartitionFailure { partition, offset, error, stopped });
    }
}

/// Whom a broker names as the leader. Where that is, a fetch that names topics by name is not told.
fn hint(data: &PartitionData) -> Hint {
    Hint { leader: data.current_leader.leader_id.0, epoch: data.current_leader.leader_epoch, at: None }
}

/// Aborted transactions by their first offset.
fn aborted(told: &Option<Vec<AbortedTransaction>>) -> Vec<Aborted> {
    let told = told.iter().flatten();
    let mut aborted: Vec<Aborted> =
        told.map(|one| Aborted { first_offset: one.first_offset, producer_id: one.producer_id.0 }).collect();
    aborted.sort_by_key(|one| one.first_offset);
    aborted
}

fn spec(start: Start) -> OffsetSpec {
    match start {
        Start::Beginning => OffsetSpec::Earliest,
        Start::End => OffsetSpec::Latest,
        Start::Time(timestamp_ms) => OffsetSpec::Time(timestamp_ms),
        // A start at an offset is known without asking.
        Start::Offset(offset) => OffsetSpec::Time(offset),
    }
}
