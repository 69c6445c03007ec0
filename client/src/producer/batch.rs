//! Records that wait, batch by batch, for one partition. Pure: time comes in.

use std::collections::VecDeque;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use weir_runtime::time::{Instant, TimerId};
use weir_wire::codec::Compression;
use weir_wire::records::{BatchBuilder, HEADER_BYTES, Producer};

use super::sequence::{self, ProducerId, Sequences};
use super::{ProduceError, Produced, ProducerConfig, ProducerRecord};
use crate::TopicPartition;
use crate::error::Error;

/// A record and whoever waits for it.
pub(super) struct PendingRecord {
    pub(super) record: ProducerRecord,
    pub(super) timestamp_ms: i64,
    pub(super) bytes: usize,
    pub(super) reply: oneshot::Sender<Result<Produced, ProduceError>>,
    /// Its share of the producer's memory.
    pub(super) _room: OwnedSemaphorePermit,
}

/// Bytes that a record takes in an uncompressed batch of its own, at most.
pub(super) fn record_bytes(record: &ProducerRecord) -> usize {
    let headers: Vec<(&[u8], Option<&[u8]>)> =
        record.headers.iter().map(|(key, value)| (key.as_bytes(), value.as_deref())).collect();
    BatchBuilder::record_bytes_max(record.key.as_deref(), record.value.as_deref(), &headers)
        .saturating_add(HEADER_BYTES)
}

/// Records that go together.
pub(super) struct Batch {
    /// Grows from batch to batch, over all partitions.
    pub(super) sequence: u64,
    /// When its first record was given to the producer.
    pub(super) created: Instant,
    pub(super) records: Vec<PendingRecord>,
    pub(super) bytes: usize,
    /// It takes no more records.
    pub(super) sealed: bool,
    /// Made when it is first sent.
    encoded: Option<Bytes>,
    /// How often it was sent in vain.
    pub(super) attempts: u32,
    /// An attempt ended so that its records may be in the log.
    pub(super) maybe_written: bool,
    /// Why the last attempt was in vain.
    pub(super) last_error: Option<Error>,
    /// Its numbers, from its first attempt on: with them a repetition is recognised. `None` without idempotence.
    pub(super) stamp: Option<Producer>,
}

impl Batch {
    pub(super) fn new(sequence: u64, created: Instant) -> Self {
        Self {
            sequence,
            created,
            records: Vec::new(),
            bytes: 0,
            sealed: false,
            encoded: None,
            attempts: 0,
            maybe_written: false,
            last_error: None,
            stamp: None,
        }
    }

    fn push(&mut self, pending: PendingRecord, batch_bytes: usize) {
        self.bytes += pending.bytes;
        self.records.push(pending);
        self.sealed |= self.bytes >= batch_bytes;
    }

    /// The batch as it goes on the wire.
    pub(super) fn encode(&mut self, compression: Compression) -> Result<Bytes, Error> {
        if let Some(encoded) = &self.encoded {
            return Ok(encoded.clone());
        }
        let refuse = |error: weir_wire::records::BatchError| {
            Error::Invalid(format!("a batch cannot be sent: {error}"))
        };
        let mut builder = BatchBuilder::new(compression);
        if let Some(stamp) = self.stamp {
            builder = builder.producer(stamp);
        }
        for PendingRecord { record, timestamp_ms, .. } in &self.records {
            let headers: Vec<(&[u8], Option<&[u8]>)> =
                record.headers.iter().map(|(key, value)| (key.as_bytes(), value.as_deref())).collect();
            builder
                .push(*timestamp_ms, record.key.as_deref(), record.value.as_deref(), &headers)
                .map_err(refuse)?;
        }
        let encoded = builder.finish().map_err(refuse)?;
        self.encoded = Some(encoded.clone());
        Ok(encoded)
    }

    /// Tells everybody where their record is.
    pub(super) fn produced(
        self,
        partition: &TopicPartition,
        base_offset: Option<i64>,
        append_time_ms: Option<i64>,
    ) {
        for (offset, pending) in (0..).zip(self.records) {
            let produced = Produced {
                partition: partition.clone(),
                offset: base_offset.map(|base| base.saturating_add(offset)),
                timestamp_ms: append_time_ms.unwrap_or(pending.timestamp_ms),
            };
            // Whoever sent it need not wait for it.
            let _ = pending.reply.send(Ok(produced));
        }
    }

    /// Tells everybody that it failed.
    pub(super) fn failed(self, partition: &TopicPartition, source: &Error) {
        for pending in self.records {
            let error = ProduceError {
                partition: Some(partition.clone()),
                may_have_been_written: self.maybe_written,
                source: source.clone(),
            };
            // Whoever sent it need not wait for it.
            let _ = pending.reply.send(Err(error));
        }
    }

    /// Two batches in place of one that the broker finds too large; a flush that waits for the one waits for both.
    pub(super) fn split(mut self) -> (Batch, Batch) {
        let mut second = Batch::new(self.sequence, self.created);
        second.records = self.records.split_off(self.records.len() / 2);
        second.bytes = second.records.iter().map(|pending| pending.bytes).sum();
        self.bytes -= second.bytes;
        for half in [&mut self, &mut second] {
            half.sealed = true;
            half.encoded = None;
        }
        second.maybe_written = self.maybe_written;
        second.stamp = self.stamp.map(|first| Producer {
            base_sequence: sequence::after(first.base_sequence, self.records.len()),
            ..first
        });
        (self, second)
    }
}

/// The batches of one partition. Without idempotence at most one of them is under way, so that they keep their order; with
/// it the leader keeps the order of several.
pub(super) struct Queue {
    pub(super) partition: TopicPartition,
    /// In their order. Those that were sent before and come again stand in front.
    pub(super) batches: VecDeque<Batch>,
    /// The batches under way, by their sequences, and the broker that has them.
    pub(super) in_flight: Vec<u64>,
    pub(super) in_flight_at: i32,
    /// What was taken out last is a repetition. While it is under way nothing joins it: it may be in the log, and a leader
    /// remembers only the last five batches (K12).
    repeats: bool,
    /// With idempotence, once the producer has an id.
    pub(super) sequences: Option<Sequences>,
    /// The leader has a batch of these sequences. Until then only one is under way: a leader that does not know the producer
    /// takes a batch of any number from it, so that it could take the second and then refuse the first (KAFKA-14359).
    pub(super) vouched: bool,
    /// A batch of these sequences is given up: what comes behind it needs new numbers.
    pub(super) gap: bool,
    /// After an error: not to be sent before this.
    pub(super) not_before: Instant,
    /// Batches with a smaller sequence do not linger.
    pub(super) flushed_below: u64,
    /// When it is to be looked at next.
    pub(super) timer: Option<TimerId>,
}

impl Queue {
    pub(super) fn new(partition: TopicPartition) -> Self {
        Self {
            partition,
            batches: VecDeque::new(),
            in_flight: Vec::new(),
            in_flight_at: -1,
            repeats: false,
            sequences: None,
            vouched: false,
            gap: false,
            not_before: Instant::ORIGIN,
            flushed_below: 0,
            timer: None,
        }
    }

    /// Adds a record, to a new batch where the last one does not take it. Says whether it began a new batch.
    pub(super) fn push(
        &mut self,
        pending: PendingRecord,
        created: Instant,
        config: &ProducerConfig,
        sequence: u64,
    ) -> bool {
        let fits = |batch: &Batch| !batch.sealed && batch.bytes + pending.bytes <= config.batch_bytes;
        let new = !self.batches.back().is_some_and(fits);
        if new {
            if let Some(last) = self.batches.back_mut() {
                last.sealed = true;
            }
            self.batches.push_back(Batch::new(sequence, created));
        }
        if let Some(batch) = self.batches.back_mut() {
            batch.push(pending, config.batch_bytes);
        }
        new
    }

    /// Puts batches back that were sent in vain, each other's order kept.
    pub(super) fn put_back(&mut self, batches: impl DoubleEndedIterator<Item = Batch>) {
        for batch in batches.rev() {
            let at = self.batches.partition_point(|waiting| waiting.sequence < batch.sequence);
            self.batches.insert(at, batch);
        }
    }

    /// A batch is no longer under way.
    pub(super) fn landed(&mut self, sequence: u64) {
        if let Some(at) = self.in_flight.iter().position(|under_way| *under_way == sequence) {
            self.in_flight.remove(at);
        }
    }

    /// The leader has a batch with these numbers.
    pub(super) fn vouch(&mut self, stamp: Option<Producer>) {
        let is_ours = |sequences: &Sequences| stamp.is_some_and(|stamp| sequences.stamps(stamp));
        self.vouched |= self.sequences.as_ref().is_some_and(is_ours);
    }

    /// Whether every batch that was given to the producer before this one is done with.
    pub(super) fn is_oldest(&self, sequence: u64) -> bool {
        let waiting = self.batches.iter().map(|batch| batch.sequence);
        waiting.chain(self.in_flight.iter().copied()).all(|other| other >= sequence)
    }

    /// Whether the first batch may join those that are under way: one that was sent before is under way alone.
    fn has_room(&self, config: &ProducerConfig) -> bool {
        let again = self.gap || self.batches.front().is_some_and(|first| first.stamp.is_some());
        let limit = if config.is_idempotent() && self.vouched && !again && !self.repeats {
            config.in_flight_per_partition_max()
        } else {
            1
        };
        self.in_flight.len() < limit
    }

    /// When its first batch may go; `None` while there is none, or none may.
    pub(super) fn ready_at(&self, config: &ProducerConfig) -> Option<Instant> {
        let first = self.batches.front().filter(|_| self.has_room(config))?;
        let lingers = !first.sealed && first.sequence >= self.flushed_below;
        let full = if lingers { first.created + config.linger } else { Instant::ORIGIN };
        Some(full.max(self.not_before))
    }

    /// Takes the producer's id over, as soon as nothing depends on the old one.
    pub(super) fn adopt(&mut self, known: ProducerId) {
        let stale = self.sequences.is_some_and(|sequences| sequences.given() != known);
        if stale && self.in_flight.is_empty() && self.gap {
            self.unstamp();
        }
        let free =
            self.in_flight.is_empty() && self.batches.front().is_none_or(|first| first.stamp.is_none());
        if self.sequences.is_none() || (stale && free) {
            self.sequences = Some(Sequences::new(known));
            self.vouched = false;
            self.gap = false;
        }
    }

    /// Behind a gap everything begins anew in the next epoch, which also keeps out whatever of the old one is still on its
    /// way. A batch that may be in the log keeps its numbers, and the leader says whether it is. `None` where there is no
    /// other epoch.
    pub(super) fn close_gap(&mut self) -> Option<()> {
        if self.gap && self.batches.front().is_some_and(|first| !first.maybe_written) {
            self.sequences.as_mut()?.restart()?;
            self.vouched = false;
            self.gap = false;
            self.unstamp();
        }
        Some(())
    }

    /// Takes the numbers from batches that certainly are not in the log under them.
    fn unstamp(&mut self) {
        for batch in self.batches.iter_mut().filter(|batch| !batch.maybe_written) {
            batch.stamp = None;
            batch.encoded = None;
        }
    }

    /// Takes the first batch out, sealed and, with idempotence, numbered.
    pub(super) fn pop_to_send(&mut self) -> Option<Batch> {
        let mut batch = self.batches.pop_front()?;
        batch.sealed = true;
        self.repeats = batch.stamp.is_some();
        if let Some(sequences) = self.sequences.as_mut().filter(|_| batch.stamp.is_none()) {
            batch.stamp = Some(sequences.take(batch.records.len()));
        }
        Some(batch)
    }
}
