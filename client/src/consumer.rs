//! Consuming partitions by assignment: positions are the caller's, or follow what was handed out.
//!
//! Everything runs inside [`Consumer::poll`], without tasks of its own: requests that are under way stay under way from
//! one poll to the next, and an answer to a question that a seek has made void is thrown away.

mod decode;
mod fetch;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use weir_runtime::time::{self, Instant};

use crate::TopicPartition;
use crate::cluster::{Client, Lane};
use crate::error::Error;
use crate::in_flight::InFlight;
use fetch::Event;

/// How a consumer fetches.
#[derive(Clone, Debug)]
pub struct ConsumerConfig {
    /// Where to go from a position that is not in the log; `None` stops the partition with an error.
    pub out_of_range: Option<Start>,
    /// How long a broker may wait for records before it answers without any.
    pub fetch_wait_max: Duration,
    /// How many bytes a broker waits for.
    pub fetch_bytes_min: i32,
    /// Bytes in one answer, except that its first batch comes whole (K6).
    pub fetch_bytes_max: i32,
    /// Bytes of one partition in an answer, likewise.
    pub partition_bytes_max: i32,
    /// What the records of one batch may take, decompressed.
    pub batch_decompressed_bytes_max: usize,
    /// Records that one poll hands out at most.
    pub poll_records_max: usize,
    /// Whether records of transactions that are open or were aborted are handed out.
    pub isolation: IsolationLevel,
}

/// Which records of transactions a consumer reads (KIP-98).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum IsolationLevel {
    /// All of them, as soon as they are replicated.
    #[default]
    ReadUncommitted,
    /// Those of transactions that were committed, up to the first one that is still open.
    ReadCommitted,
}

impl IsolationLevel {
    pub(crate) fn on_the_wire(self) -> i8 {
        match self {
            IsolationLevel::ReadUncommitted => 0,
            IsolationLevel::ReadCommitted => 1,
        }
    }
}

impl Default for ConsumerConfig {
    fn default() -> Self {
        Self {
            out_of_range: None,
            fetch_wait_max: Duration::from_millis(500),
            fetch_bytes_min: 1,
            fetch_bytes_max: 16 << 20,
            partition_bytes_max: 1 << 20,
            batch_decompressed_bytes_max: 256 << 20,
            poll_records_max: 500,
            isolation: IsolationLevel::default(),
        }
    }
}

/// Where to begin in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At its first record.
    Beginning,
    /// Behind its last record that is shown.
    End,
    /// At this offset.
    Offset(i64),
    /// At the first record with this timestamp or a later one, in milliseconds since 1970; behind the last where there is
    /// none.
    Time(i64),
}

/// A record as it was read. Key, value and headers share memory with the batch that they came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerRecord {
    /// Where it stands in its partition.
    pub offset: i64,
    /// Milliseconds since 1970.
    pub timestamp_ms: i64,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// Its headers, in their order.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
    /// The epoch of the leader that appended it.
    pub leader_epoch: i32,
}

/// What a poll gives of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionRecords {
    /// The partition.
    pub partition: TopicPartition,
    /// The position before these records. Offsets between it and the first record hold none.
    pub from: i64,
    /// The records, in the order of their offsets; at least one.
    pub records: Vec<ConsumerRecord>,
    /// The position behind them.
    pub next: i64,
    /// The partition's high watermark when they were fetched.
    pub high_watermark: i64,
}

/// What is wrong with one partition.
#[derive(Clone, Debug)]
pub struct PartitionFailure {
    /// The partition.
    pub partition: TopicPartition,
    /// The position at which it happened.
    pub offset: i64,
    /// What happened: [`Error::Corrupt`], [`Error::OffsetOutOfRange`], [`Error::Truncated`], or what a broker refuses for
    /// good.
    pub error: Error,
    /// Nothing more is read from the partition until a seek. Otherwise the consumer has already gone where
    /// [`ConsumerConfig::out_of_range`] sends it, or, where the log was cut, to the cut.
    pub stopped: bool,
}

/// What a poll gives.
#[derive(Clone, Debug, Default)]
pub struct Polled {
    /// Records, partition by partition.
    pub partitions: Vec<PartitionRecords>,
    /// What went wrong. Each failure is told once.
    pub failures: Vec<PartitionFailure>,
}

impl Polled {
    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.partitions.is_empty() && self.failures.is_empty()
    }

    /// All records with their partitions.
    pub fn records(&self) -> impl Iterator<Item = (&TopicPartition, &ConsumerRecord)> {
        self.partitions
            .iter()
            .flat_map(|part| part.records.iter().map(move |record| (&part.partition, record)))
    }
}

/// Reads partitions that it is given.
pub struct Consumer {
    client: Client,
    lane: Arc<Lane>,
    config: ConsumerConfig,
    assigned: BTreeMap<TopicPartition, Assigned>,
    in_flight: InFlight<'static, Event>,
    /// Brokers with a fetch under way. Answers come in order, so a second one would only wait behind the first.
    fetching: BTreeSet<i32>,
    refreshing: bool,
    /// Grows with each seek and assignment.
    session: u64,
    failures: VecDeque<PartitionFailure>,
    /// The partition that was handed out last: the next poll begins behind it.
    served: Option<TopicPartition>,
}

/// One partition's state.
#[derive(Debug)]
struct Assigned {
    place: Place,
    /// Tells answers to this position from those to an earlier one.
    session: u64,
    /// A request about it is under way.
    busy: bool,
    /// Nothing more until a seek.
    stopped: bool,
    /// After an error: not to be asked about before this.
    not_before: Instant,
    attempts: u32,
    buffered: Option<Buffered>,
    /// The leader epoch of what lies just below the position.
    last_epoch: Option<i32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// To be asked for.
    Wanted(Start),
    /// Known.
    At(i64),
}

/// Records that were fetched and not handed out.
#[derive(Debug)]
struct Buffered {
    records: VecDeque<ConsumerRecord>,
    /// The position behind all of them.
    next: i64,
    /// The leader epoch of what lies just below that.
    last_epoch: Option<i32>,
    high_watermark: i64,
    /// What comes behind them.
    failure: Option<Error>,
}

impl Assigned {
    fn new(start: Start, session: u64) -> Self {
        let place = match start {
            Start::Offset(offset) => Place::At(offset),
            start => Place::Wanted(start),
        };
        Self {
            place,
            session,
            busy: false,
            stopped: false,
            not_before: Instant::ORIGIN,
            attempts: 0,
            buffered: None,
            last_epoch: None,
        }
    }

    fn wants_request(&self) -> bool {
        !self.busy && !self.stopped && self.buffered.is_none()
    }
}

impl Consumer {
    /// A consumer without partitions.
    pub fn new(client: &Client, config: ConsumerConfig) -> Self {
        Self {
            client: client.clone(),
            lane: client.lane(),
            config,
            assigned: BTreeMap::new(),
            in_flight: InFlight::new(),
            fetching: BTreeSet::new(),
            refreshing: false,
            session: 0,
            failures: VecDeque::new(),
            served: None,
        }
    }

    /// Reads these partitions from now on, and no others. All begin anew, also those that were assigned before.
    pub fn assign(&mut self, partitions: impl IntoIterator<Item = (TopicPartition, Start)>) {
        self.session += 1;
        self.failures.clear();
        let session = self.session;
        self.assigned = partitions
            .into_iter()
            .map(|(partition, start)| (partition, Assigned::new(start, session)))
            .collect();
    }

    /// Reads these partitions too. One that is read already begins anew.
    pub fn add(&mut self, partitions: impl IntoIterator<Item = (TopicPartition, Start)>) {
        self.session += 1;
        for (partition, start) in partitions {
            self.failures.retain(|failure| failure.partition != partition);
            self.assigned.insert(partition, Assigned::new(start, self.session));
        }
    }

    /// Does not read this partition any more. What was fetched of it and not handed out is thrown away.
    pub fn remove(&mut self, partition: &TopicPartition) {
        self.assigned.remove(partition);
        self.failures.retain(|failure| failure.partition != *partition);
    }

    /// The partitions that are read.
    pub fn assignment(&self) -> impl Iterator<Item = &TopicPartition> {
        self.assigned.keys()
    }

    /// Goes to another place in a partition; also the way past a corrupt range, and the way to try it again.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the partition is not assigned.
    pub fn seek(&mut self, partition: &TopicPartition, to: Start) -> Result<(), Error> {
        self.session += 1;
        let session = self.session;
        let Some(assigned) = self.assigned.get_mut(partition) else {
            return Err(Error::Invalid(format!("{partition} is not assigned to this consumer")));
        };
        *assigned = Assigned::new(to, session);
        self.failures.retain(|failure| failure.partition != *partition);
        Ok(())
    }

    /// The position in a partition: the offset that is read next. `None` while it is not known, or not assigned.
    pub fn position(&self, partition: &TopicPartition) -> Option<i64> {
        let assigned = self.assigned.get(partition)?;
        match assigned.place {
            Place::At(offset) => Some(offset),
            Place::Wanted(_) => None,
        }
    }

    /// Whether the partition is read.
    pub(crate) fn is_assigned(&self, partition: &TopicPartition) -> bool {
        self.assigned.contains_key(partition)
    }

    /// The position, and the leader epoch of the record before it, if one was handed out (KIP-320).
    pub(crate) fn position_and_epoch(&self, partition: &TopicPartition) -> Option<(i64, Option<i32>)> {
        let offset = self.position(partition)?;
        Some((offset, self.assigned.get(partition).and_then(|assigned| assigned.last_epoch)))
    }

    /// The next records. Waits until there are some, or something is wrong with a partition, for at most `wait_max`; then
    /// there is nothing in the answer. Errors that pass are sat out here, with growing waits.
    ///
    /// Nothing is lost when the future is dropped.
    pub async fn poll(&mut self, wait_max: Duration) -> Polled {
        let deadline = time::now() + wait_max;
        loop {
            let polled = self.take();
            if !polled.is_empty() {
                return polled;
            }
            let now = time::now();
            self.start_requests(now);
            let wake = self.next_attempt(now).map_or(deadline, |at| at.min(deadline));
            weir_runtime::select! {
                event = self.in_flight.next() => self.on_event(event),
                () = time::sleep_until(wake) => if time::now() >= deadline {
                    return self.take();
                }
            }
        }
    }

    /// When a partition that waits after an error may be asked about again.
    fn next_attempt(&self, now: Instant) -> Option<Instant> {
        let waiting = self.assigned.values().filter(|assigned| assigned.wants_request());
        waiting.map(|assigned| assigned.not_before).filter(|&at| at > now).min()
    }

    /// What can be handed out.
    fn take(&mut self) -> Polled {
        let mut polled = Polled { partitions: Vec::new(), failures: self.failures.drain(..).collect() };
        let mut room = self.config.poll_records_max.max(1);
        let buffered = |(partition, assigned): (&TopicPartition, &Assigned)| {
            assigned.buffered.is_some().then(|| partition.clone())
        };
        let mut order: Vec<TopicPartition> = self.assigned.iter().filter_map(buffered).collect();
        if let Some(served) = &self.served {
            let behind = order.partition_point(|partition| partition <= served);
            order.rotate_left(behind);
        }
        for partition in order {
            if room == 0 {
                break;
            }
            let Some(assigned) = self.assigned.get_mut(&partition) else { continue };
            let (records, failure) = assigned.hand_out(&partition, room);
            if let Some(records) = records {
                room -= records.records.len();
                polled.partitions.push(records);
                self.served = Some(partition);
            }
            polled.failures.extend(failure);
        }
        polled
    }
}

impl Assigned {
    /// Takes up to `room` records out of the buffer, and the failure behind them when nothing else is left.
    fn hand_out(
        &mut self,
        partition: &TopicPartition,
        room: usize,
    ) -> (Option<PartitionRecords>, Option<PartitionFailure>) {
        let (Some(mut buffered), Place::At(from)) = (self.buffered.take(), self.place) else {
            return (None, None);
        };
        let count = room.min(buffered.records.len());
        let records: Vec<ConsumerRecord> = buffered.records.drain(..count).collect();
        let next = match buffered.records.front() {
            // Offsets between two records may hold none: the position stays behind the last one that was handed out.
            Some(_) => records.last().map_or(from, |record| record.offset.saturating_add(1)),
            None => buffered.next,
        };
        self.place = Place::At(next);
        let last_epoch = match buffered.records.front() {
            Some(_) => records.last().map(|record| record.leader_epoch).filter(|epoch| *epoch >= 0),
            None => buffered.last_epoch,
        };
        self.last_epoch = last_epoch.or(self.last_epoch);
        let high_watermark = buffered.high_watermark;
        let mut failure = None;
        if !buffered.records.is_empty() {
            self.buffered = Some(buffered);
        } else if let Some(error) = buffered.failure.take() {
            self.stopped = true;
            failure =
                Some(PartitionFailure { partition: partition.clone(), offset: next, error, stopped: true });
        }
        let some = !records.is_empty();
        let records = PartitionRecords { partition: partition.clone(), from, records, next, high_watermark };
        (some.then_some(records), failure)
    }
}

#[cfg(test)]
#[path = "consumer/consumer_tests.rs"]
mod tests;
