//! Producing: records are gathered into batches by partition, sent to the leaders, and repeated while that may help.

mod answers;
mod batch;
mod identity;
mod sender;
mod sequence;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc, oneshot};
use weir_runtime::{task, time};
use weir_wire::codec::Compression;

use crate::TopicPartition;
use crate::cluster::Client;
use crate::error::Error;
use crate::partitioner::{DefaultPartitioner, Partitioner};
use batch::{PendingRecord, record_bytes};
use sender::{Command, Sender};

/// What a producer waits for before a record counts as produced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// Nothing: a record counts as produced when it is handed to the operating system.
    None,
    /// The leader's append.
    Leader,
    /// The whole in-sync set.
    All,
}

impl Acks {
    fn on_the_wire(self) -> i16 {
        match self {
            Acks::None => 0,
            Acks::Leader => 1,
            Acks::All => -1,
        }
    }
}

/// How a producer batches, waits and repeats.
#[derive(Clone, Debug)]
pub struct ProducerConfig {
    /// What it waits for.
    pub acks: Acks,
    /// The codec of its batches.
    pub compression: Compression,
    /// How long a batch that is not full waits for more records.
    pub linger: Duration,
    /// The size at which a batch is full, in bytes before compression.
    pub batch_bytes: usize,
    /// The largest record, and the largest sum of batches in one request, in bytes before compression.
    pub request_bytes_max: usize,
    /// Bytes of records that may wait in memory; then [`Producer::send`] waits.
    pub memory_bytes: usize,
    /// How long an answer may take; also how long the broker may wait for its replicas.
    pub request_timeout: Duration,
    /// How long a record may take from [`Producer::send`] on, with all repetitions.
    pub delivery_timeout: Duration,
    /// Whether a request without an answer, or with an error that may pass, is repeated. Without idempotence a
    /// repetition may write a record twice.
    pub retries: bool,
    /// Whether batches are numbered, so that leaders recognise repetitions and keep the order of several under way
    /// (KIP-98): no record is written twice. It needs [`Acks::All`] and retries, and is off without them.
    pub enable_idempotence: bool,
    /// How many requests may be under way to one broker.
    pub requests_in_flight_max: usize,
}

impl Default for ProducerConfig {
    fn default() -> Self {
        Self {
            acks: Acks::All,
            compression: Compression::None,
            linger: Duration::from_millis(5),
            batch_bytes: 64 << 10,
            request_bytes_max: 1 << 20,
            memory_bytes: 32 << 20,
            request_timeout: Duration::from_secs(30),
            delivery_timeout: Duration::from_secs(120),
            retries: true,
            enable_idempotence: true,
            requests_in_flight_max: 5,
        }
    }
}

/// Batches of one producer that a leader remembers (K12): with more under way it could not tell a repetition.
const BATCHES_REMEMBERED: usize = 5;

impl ProducerConfig {
    fn is_idempotent(&self) -> bool {
        self.enable_idempotence && self.acks == Acks::All && self.retries
    }

    fn in_flight_per_partition_max(&self) -> usize {
        self.requests_in_flight_max.clamp(1, BATCHES_REMEMBERED)
    }
}

/// A record to produce.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProducerRecord {
    /// Where to.
    pub topic: String,
    /// The partition; `None` leaves it to the partitioner.
    pub partition: Option<i32>,
    /// The key.
    pub key: Option<Bytes>,
    /// The value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// Headers, in their order; keys may repeat.
    pub headers: Vec<(String, Option<Bytes>)>,
    /// Milliseconds since 1970; `None` is now.
    pub timestamp_ms: Option<i64>,
}

/// Where a record is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Produced {
    /// Its partition.
    pub partition: TopicPartition,
    /// Its offset; `None` with [`Acks::None`], and where a repetition found it written so long ago that the leader does not
    /// know where any more (DUPLICATE_SEQUENCE_NUMBER).
    pub offset: Option<i64>,
    /// Its timestamp in milliseconds since 1970: the broker's where the topic says so.
    pub timestamp_ms: i64,
}

/// Why a record was not produced.
#[derive(Clone, Debug)]
pub struct ProduceError {
    /// Its partition, if it got that far.
    pub partition: Option<TopicPartition>,
    /// Whether the record may be in the log all the same, now or later. Where it is false, it certainly never will.
    pub may_have_been_written: bool,
    /// The last error.
    pub source: Error,
}

impl fmt::Display for ProduceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.may_have_been_written { "may have been written" } else { "was not written" };
        match &self.partition {
            Some(partition) => write!(f, "a record for {partition} {state}: {}", self.source),
            None => write!(f, "a record {state}: {}", self.source),
        }
    }
}

impl std::error::Error for ProduceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Becomes ready when a record was produced, or failed. The record is sent whether or not this is awaited.
#[derive(Debug)]
pub struct Delivery {
    partition: TopicPartition,
    answer: oneshot::Receiver<Result<Produced, ProduceError>>,
}

impl Delivery {
    /// The partition that was chosen.
    pub fn partition(&self) -> &TopicPartition {
        &self.partition
    }
}

impl Future for Delivery {
    type Output = Result<Produced, ProduceError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.answer).poll(cx).map(|answer| {
            answer.unwrap_or_else(|_| {
                let partition = Some(self.partition.clone());
                Err(ProduceError { partition, may_have_been_written: true, source: Error::Closed })
            })
        })
    }
}

/// Produces records. Clones share batches and memory. When the last clone is gone, what was given to it is still sent.
#[derive(Clone)]
pub struct Producer {
    client: Client,
    config: ProducerConfig,
    commands: mpsc::UnboundedSender<Command>,
    memory: Arc<Semaphore>,
    partitioner: Arc<Mutex<Box<dyn Partitioner>>>,
}

impl Producer {
    /// A producer with the partitioner that agrees with Java's.
    pub fn new(client: &Client, config: ProducerConfig) -> Self {
        let partitioner = DefaultPartitioner::new(config.batch_bytes);
        Self::with_partitioner(client, config, partitioner)
    }

    /// A producer with a partitioner of the caller's.
    pub fn with_partitioner(
        client: &Client,
        config: ProducerConfig,
        partitioner: impl Partitioner + 'static,
    ) -> Self {
        // Bounded by the memory that each record in it holds a share of.
        let (commands, inbox) = mpsc::unbounded_channel();
        let memory = Arc::new(Semaphore::new(config.memory_bytes.min(Semaphore::MAX_PERMITS)));
        task::spawn("producer", Sender::new(client.clone(), config.clone(), inbox).run());
        let partitioner: Box<dyn Partitioner> = Box::new(partitioner);
        Self {
            client: client.clone(),
            config,
            commands,
            memory,
            partitioner: Arc::new(Mutex::new(partitioner)),
        }
    }

    /// Gives a record to its batch; waits while memory is short, and while the topic's partitions are not known. Records
    /// of one caller enter a partition in the order of the calls.
    ///
    /// # Errors
    /// Where the record is too large, its partition does not exist, or nothing is learnt about its topic in time. What
    /// happens to it later is told by the [`Delivery`].
    pub async fn send(&self, record: ProducerRecord) -> Result<Delivery, ProduceError> {
        let created = time::now();
        let refuse = |source| ProduceError { partition: None, may_have_been_written: false, source };
        let bytes = record_bytes(&record);
        let limit = self.config.request_bytes_max.min(self.config.memory_bytes);
        if bytes > limit {
            return Err(refuse(Error::TooLarge { what: "the record", bytes, limit }));
        }
        let timestamp_ms = record.timestamp_ms.unwrap_or_else(time::wall_ms);
        if timestamp_ms < 0 {
            return Err(refuse(Error::Invalid(format!("a record's timestamp is {timestamp_ms}"))));
        }
        let partition = self.place(&record, bytes, created).await.map_err(refuse)?;
        let share = u32::try_from(bytes).unwrap_or(u32::MAX);
        let room = self.memory.clone().acquire_many_owned(share);
        let room = time::timeout((created + self.config.delivery_timeout) - time::now(), room).await;
        let Ok(Ok(room)) = room else {
            let used = self.config.memory_bytes;
            return Err(refuse(Error::TooLarge { what: "what waits to be sent", bytes: used, limit: used }));
        };
        let (reply, answer) = oneshot::channel();
        let pending = PendingRecord { record, timestamp_ms, bytes, reply, _room: room };
        let command = Command::Record { partition: partition.clone(), created, pending: Box::new(pending) };
        self.commands.send(command).map_err(|_| refuse(Error::Closed))?;
        Ok(Delivery { partition, answer })
    }

    /// Sends what has been given so far without further lingering, and waits until each record was produced or failed.
    ///
    /// # Errors
    /// [`Error::Closed`] where the producer's task is gone.
    pub async fn flush(&self) -> Result<(), Error> {
        let (done, told) = oneshot::channel();
        self.commands.send(Command::Flush(done)).map_err(|_| Error::Closed)?;
        told.await.map_err(|_| Error::Closed)
    }

    /// The partition of a record.
    async fn place(
        &self,
        record: &ProducerRecord,
        bytes: usize,
        created: time::Instant,
    ) -> Result<TopicPartition, Error> {
        let name: Arc<str> = Arc::from(record.topic.as_str());
        let topic = self.client.topic(&name, created + self.config.delivery_timeout).await?;
        let count = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
        let partition = match record.partition {
            Some(partition) => partition,
            None => {
                let mut partitioner = self.partitioner.lock().unwrap_or_else(PoisonError::into_inner);
                partitioner.partition(&name, record.key.as_deref(), count, bytes)
            }
        };
        if !topic.partitions.contains_key(&partition) {
            let reason = format!("{name} has {count} partitions, and none with number {partition}");
            return Err(Error::Invalid(reason));
        }
        Ok(TopicPartition { topic: name, partition })
    }
}

#[cfg(test)]
#[path = "producer/producer_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "producer/idempotence_tests.rs"]
mod idempotence_tests;
