//! Records that wait, batch by batch, for one partition. Pure: time comes in.

use std::collections::VecDeque;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use weir_runtime::time::{Instant, TimerId};
use weir_wire::codec::Compression;
use weir_wire::records::{BatchBuilder, HEADER_BYTES};

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
        (self, second)
    }
}

/// The batches of one partition. At most one of them is under way, so that they keep their order.
pub(super) struct Queue {
    pub(super) partition: TopicPartition,
    pub(super) batches: VecDeque<Batch>,
    /// One of its batches is under way.
    pub(super) busy: bool,
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
            busy: false,
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

    /// When its first batch may go; `None` while there is none, or one is under way.
    pub(super) fn ready_at(&self, config: &ProducerConfig) -> Option<Instant> {
        if self.busy {
            return None;
        }
        let first = self.batches.front()?;
        let lingers = !first.sealed && first.sequence >= self.flushed_below;
        let full = if lingers { first.created + config.linger } else { Instant::ORIGIN };
        Some(full.max(self.not_before))
    }
}
