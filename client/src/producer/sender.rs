//! The task of a producer: it takes records in, sends batches that are ready, and judges the answers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use weir_runtime::time::{self, Alarm, Instant, TimerQueue};
use weir_wire::kafka::StrBytes;
use weir_wire::kafka::messages::produce_request::{PartitionProduceData, TopicProduceData};
use weir_wire::kafka::messages::{ProduceRequest, ProduceResponse};

use super::answers::retire;
use super::batch::{Batch, PendingRecord, Queue};
use super::identity::Identity;
use super::sequence::ProducerId;
use super::{Acks, ProducerConfig};
use crate::TopicPartition;
use crate::cluster::{Client, Lane};
use crate::error::Error;
use crate::in_flight::InFlight;

/// Commands that are taken in before batches are sent again.
const COMMANDS_PER_WAKE_MAX: usize = 1024;

/// What a producer's clones tell its task.
pub(super) enum Command {
    /// A record, with its partition already chosen.
    Record { partition: TopicPartition, created: Instant, pending: Box<PendingRecord> },
    /// Tell when everything given so far is done with.
    Flush(oneshot::Sender<()>),
}

/// What a future under way ends with.
pub(super) enum Event {
    Answered(Answer),
    Refreshed(Result<(), Error>),
    Identified(Result<ProducerId, Error>),
}

/// A request's end.
pub(super) struct Answer {
    pub(super) broker: i32,
    pub(super) sent: Vec<(usize, Batch)>,
    /// Of acks 0 there is no response.
    pub(super) result: Result<(Arc<str>, Option<ProduceResponse>), Error>,
}

/// The task's state.
pub(super) struct Sender {
    pub(super) client: Client,
    lane: Arc<Lane>,
    pub(super) config: ProducerConfig,
    commands: mpsc::UnboundedReceiver<Command>,
    /// All clones are gone: what is left is sent, then the task ends.
    closing: bool,
    pub(super) queues: Vec<Queue>,
    by_partition: BTreeMap<TopicPartition, usize>,
    ready: TimerQueue<usize>,
    alarm: Alarm,
    pub(super) in_flight: InFlight<'static, Event>,
    /// Who the producer is, with idempotence.
    pub(super) identity: Identity,
    pub(super) requests_by_broker: BTreeMap<i32, usize>,
    /// Partitions that are ready while their leader has enough requests under way.
    pub(super) parked: BTreeMap<i32, BTreeSet<usize>>,
    pub(super) refreshing: bool,
    next_sequence: u64,
    /// The sequences of all batches that are not done with; how many of each, because a batch may be split.
    pub(super) outstanding: BTreeMap<u64, usize>,
    flushes: Vec<(u64, oneshot::Sender<()>)>,
}

impl Sender {
    pub(super) fn new(
        client: Client,
        config: ProducerConfig,
        commands: mpsc::UnboundedReceiver<Command>,
    ) -> Self {
        Self {
            lane: client.lane(),
            client,
            config,
            commands,
            closing: false,
            queues: Vec::new(),
            by_partition: BTreeMap::new(),
            ready: TimerQueue::new(),
            alarm: Alarm::new(),
            in_flight: InFlight::new(),
            identity: Identity::default(),
            requests_by_broker: BTreeMap::new(),
            parked: BTreeMap::new(),
            refreshing: false,
            next_sequence: 0,
            outstanding: BTreeMap::new(),
            flushes: Vec::new(),
        }
    }

    pub(super) async fn run(mut self) {
        while !(self.closing && self.outstanding.is_empty()) {
            self.alarm.set(self.ready.next());
            weir_runtime::select! {
                event = self.in_flight.next() => match event {
                    Event::Answered(answer) => self.on_answer(answer),
                    Event::Refreshed(result) => self.on_refreshed(&result),
                    Event::Identified(result) => self.on_identified(result),
                },
                command = self.commands.recv(), if !self.closing => self.on_commands(command),
                () = self.alarm.wait() => {}
            }
            self.send_ready();
            self.tell_flushes();
        }
    }

    fn on_commands(&mut self, first: Option<Command>) {
        let Some(first) = first else {
            self.closing = true;
            return self.flush();
        };
        self.on_command(first);
        for _ in 1..COMMANDS_PER_WAKE_MAX {
            let Ok(command) = self.commands.try_recv() else { return };
            self.on_command(command);
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Record { partition, created, pending } => self.on_record(partition, created, *pending),
            Command::Flush(done) => {
                self.flush();
                self.flushes.push((self.next_sequence, done));
            }
        }
    }

    fn on_record(&mut self, partition: TopicPartition, created: Instant, pending: PendingRecord) {
        let at = *self.by_partition.entry(partition).or_insert_with_key(|partition| {
            self.queues.push(Queue::new(partition.clone()));
            self.queues.len() - 1
        });
        if self.queues[at].push(pending, created, &self.config, self.next_sequence) {
            self.outstanding.insert(self.next_sequence, 1);
            self.next_sequence += 1;
        }
        self.schedule(at);
    }

    fn flush(&mut self) {
        for at in 0..self.queues.len() {
            self.queues[at].flushed_below = self.next_sequence;
            if let Some(last) = self.queues[at].batches.back_mut() {
                // A later record would join what the flush waits for.
                last.sealed = true;
            }
            self.schedule(at);
        }
    }

    /// Sets when the queue is to be looked at.
    pub(super) fn schedule(&mut self, at: usize) {
        let queue = &mut self.queues[at];
        let ready_at = queue.ready_at(&self.config);
        if queue.timer.map(|timer| timer.at()) == ready_at {
            return;
        }
        if let Some(timer) = queue.timer.take() {
            self.ready.cancel(timer);
        }
        queue.timer = ready_at.map(|ready_at| self.ready.insert(ready_at, at));
    }

    /// Sends every batch that is ready, several to one broker in one request.
    fn send_ready(&mut self) {
        let now = time::now();
        let mut by_broker: BTreeMap<i32, Vec<usize>> = BTreeMap::new();
        let mut leaderless = BTreeSet::new();
        while let Some(at) = self.ready.pop_due(now) {
            self.queues[at].timer = None;
            self.expire(at, now);
            if self.queues[at].ready_at(&self.config).is_none_or(|ready_at| ready_at > now) {
                self.schedule(at);
                continue;
            }
            if !self.is_identified(at, now) {
                continue;
            }
            let queue = &self.queues[at];
            match self.client.known_leader(&queue.partition) {
                // What is under way at another broker ends first, or order is lost: that schedules the queue again.
                Some(leader) if !queue.in_flight.is_empty() && queue.in_flight_at != leader.broker => {}
                Some(leader) if self.has_room(leader.broker) => {
                    by_broker.entry(leader.broker).or_default().push(at)
                }
                Some(leader) => {
                    self.parked.entry(leader.broker).or_default().insert(at);
                }
                None => {
                    leaderless.insert(self.queues[at].partition.topic.clone());
                    self.queues[at].not_before = now + self.client.backoff().before(1);
                    self.schedule(at);
                }
            }
        }
        for (broker, queues) in by_broker {
            self.send_to(broker, queues, now);
        }
        if !leaderless.is_empty() && !self.refreshing {
            self.refreshing = true;
            let client = self.client.clone();
            self.in_flight.push(async move { Event::Refreshed(client.refresh(&leaderless).await) });
        }
    }

    fn has_room(&self, broker: i32) -> bool {
        self.requests_by_broker
            .get(&broker)
            .is_none_or(|held| *held < self.config.requests_in_flight_max.max(1))
    }

    /// Fails batches whose time is over.
    pub(super) fn expire(&mut self, at: usize, now: Instant) {
        let queue = &mut self.queues[at];
        while queue.batches.front().is_some_and(|first| first.created + self.config.delivery_timeout <= now) {
            let Some(batch) = queue.batches.pop_front() else { return };
            retire(&mut self.outstanding, batch.sequence);
            queue.gap |= batch.stamp.is_some();
            let error = batch.last_error.clone().unwrap_or_else(|| self.client.no_leader(&queue.partition));
            batch.failed(&queue.partition, &error);
        }
    }

    /// Sends the first batch of each queue to their common leader, in as many requests as their size asks for.
    fn send_to(&mut self, broker: i32, queues: Vec<usize>, now: Instant) {
        let mut request: Vec<(usize, Batch)> = Vec::new();
        let mut bytes = 0;
        for at in queues {
            if !self.has_room(broker) {
                self.parked.entry(broker).or_default().insert(at);
                continue;
            }
            let queue = &mut self.queues[at];
            let Some(batch) = queue.pop_to_send() else { continue };
            queue.in_flight.push(batch.sequence);
            queue.in_flight_at = broker;
            self.schedule(at);
            if bytes + batch.bytes > self.config.request_bytes_max && !request.is_empty() {
                self.send_request(broker, std::mem::take(&mut request), now);
                bytes = 0;
            }
            bytes += batch.bytes;
            request.push((at, batch));
        }
        if !request.is_empty() {
            self.send_request(broker, request, now);
        }
    }

    fn send_request(&mut self, broker: i32, batches: Vec<(usize, Batch)>, now: Instant) {
        let mut topics: BTreeMap<Arc<str>, Vec<PartitionProduceData>> = BTreeMap::new();
        let mut sent = Vec::with_capacity(batches.len());
        let mut limit = Duration::from_millis(1);
        for (at, mut batch) in batches {
            let partition = self.queues[at].partition.clone();
            match batch.encode(self.config.compression) {
                Ok(records) => {
                    let data = PartitionProduceData::default();
                    let data = data.with_index(partition.partition).with_records(Some(records));
                    topics.entry(partition.topic).or_default().push(data);
                    let left = (batch.created + self.config.delivery_timeout) - now;
                    limit = limit.max(left.min(self.config.request_timeout));
                    sent.push((at, batch));
                }
                Err(error) => self.give_up(at, batch, &error),
            }
        }
        if sent.is_empty() {
            return;
        }
        let topics = topics.into_iter().map(|(topic, partitions)| {
            let name = StrBytes::from_string(topic.to_string()).into();
            TopicProduceData::default().with_name(name).with_partition_data(partitions)
        });
        let request = ProduceRequest::default()
            .with_acks(self.config.acks.on_the_wire())
            .with_timeout_ms(i32::try_from(limit.as_millis()).unwrap_or(i32::MAX))
            .with_topic_data(topics.collect());
        *self.requests_by_broker.entry(broker).or_default() += 1;
        let (lane, acks) = (self.lane.clone(), self.config.acks);
        let silence = self.client.config().patience;
        let partitions: Vec<TopicPartition> =
            sent.iter().map(|(at, _)| self.queues[*at].partition.clone()).collect();
        self.in_flight.push(async move {
            let result = if acks == Acks::None {
                lane.tell(broker, &request, limit).await.map(|()| (Arc::from("the broker"), None))
            } else {
                let answer = lane.ask_leader(broker, &partitions, &request, limit, silence).await;
                answer.map(|(address, response)| (address, Some(response)))
            };
            Event::Answered(Answer { broker, sent, result })
        });
    }

    fn on_refreshed(&mut self, result: &Result<(), Error>) {
        self.refreshing = false;
        if let Err(error) = result {
            tracing::debug!(%error, "the producer cannot learn who leads");
        }
    }

    fn tell_flushes(&mut self) {
        if self.flushes.is_empty() {
            return;
        }
        let oldest = self.outstanding.first_key_value().map_or(u64::MAX, |(sequence, _)| *sequence);
        let (done, left): (Vec<_>, Vec<_>) = self.flushes.drain(..).partition(|(below, _)| *below <= oldest);
        self.flushes = left;
        for (_, done) in done {
            // Whoever flushed may have given up.
            let _ = done.send(());
        }
    }
}
