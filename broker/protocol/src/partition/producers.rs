//! What a partition remembers of its idempotent producers (KIP-98), so that a repeated batch is answered and not
//! appended a second time (K12).
//!
//! The leader's core asks before it appends, and notes what it appended at once; storage keeps a table of its own that
//! follows what became durable, and hands it over when the log is opened. Neither ever reads a log for it: what is cut
//! leaves the table by its offsets.

use std::collections::BTreeMap;

use crate::types::Offset;

/// A producer's id, given out by the cluster and never again.
pub type ProducerId = i64;

/// How many batches of each producer are remembered: as many as a client has under way at most (KAFKA-5494).
pub const BATCHES_KEPT: usize = 5;

/// How many producers are remembered. Beyond it those go that were idle for longest.
pub const PRODUCERS_MAX: usize = 1 << 16;

/// Those that go at once when there are too many.
const PRODUCERS_SWEPT: usize = PRODUCERS_MAX / 16;

/// What a batch says about its producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Who.
    pub producer: ProducerId,
    /// The producer's epoch: a newer one fences the older (contract 11).
    pub epoch: i16,
    /// The sequence number of the first record.
    pub first_sequence: i32,
    /// The sequence number of the last record; it wraps from 2^31 − 1 to 0.
    pub last_sequence: i32,
    /// The greatest timestamp of the records, in ms: told by DescribeProducers, and nothing depends on it.
    pub max_timestamp_ms: i64,
}

/// A producer's batch in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerBatch {
    /// What it says.
    pub claim: Claim,
    /// Its first offset.
    pub base_offset: Offset,
    /// The offset after its last record.
    pub next_offset: Offset,
}

/// What is to be done with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It comes next.
    Append,
    /// It is in the log already, there.
    Repeated {
        /// Its first offset.
        base_offset: Offset,
        /// The offset after its last record.
        next_offset: Offset,
    },
    /// It neither follows on the producer's last batch nor repeats one that is remembered.
    OutOfOrder,
    /// The producer has been given a newer epoch.
    Fenced,
}

/// A remembered batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Kept {
    /// The sequence number of the first record.
    pub first_sequence: i32,
    /// The sequence number of the last record.
    pub last_sequence: i32,
    /// Its first offset.
    pub base_offset: Offset,
    /// The offset after its last record.
    pub next_offset: Offset,
}

/// One producer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Producer {
    /// The newest epoch that has appended.
    pub epoch: i16,
    /// The sequence number that is expected.
    pub next_sequence: i32,
    /// When it last appended, by a monotonic clock, in ms.
    pub used_ms: i64,
    /// The greatest timestamp of its last batch, in ms.
    pub max_timestamp_ms: i64,
    /// Its last batches, all of this epoch and each following on the one before. Invariant: at most [`BATCHES_KEPT`], offsets
    /// rise.
    pub kept: Vec<Kept>,
}

impl Producer {
    /// The sequence number of the last record.
    pub fn last_sequence(&self) -> i32 {
        before(self.next_sequence)
    }

    fn keep(&mut self, batch: &ProducerBatch) {
        if self.kept.len() == BATCHES_KEPT {
            self.kept.remove(0);
        }
        let Claim { first_sequence, last_sequence, .. } = batch.claim;
        let ProducerBatch { base_offset, next_offset, .. } = *batch;
        self.kept.push(Kept { first_sequence, last_sequence, base_offset, next_offset });
        self.next_sequence = after(last_sequence);
        self.max_timestamp_ms = batch.claim.max_timestamp_ms;
    }

    /// Forgets what is not below `end`.
    fn cut(&mut self, end: Offset) {
        let keep = self.kept.partition_point(|kept| kept.next_offset <= end);
        if let Some(first) = self.kept.get(keep) {
            // What comes next is what was cut.
            self.next_sequence = first.first_sequence;
            self.kept.truncate(keep);
        }
    }
}

/// The sequence number after `sequence`.
pub fn after(sequence: i32) -> i32 {
    if sequence == i32::MAX { 0 } else { sequence + 1 }
}

fn before(sequence: i32) -> i32 {
    if sequence == 0 { i32::MAX } else { sequence - 1 }
}

/// All producers of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Producers {
    table: BTreeMap<ProducerId, Producer>,
}

impl Producers {
    /// What is to be done with a batch.
    ///
    /// A producer that is not remembered may begin with any sequence number: its state may have expired (KAFKA-7190).
    pub fn check(&self, claim: &Claim) -> Verdict {
        let Some(producer) = self.table.get(&claim.producer) else { return Verdict::Append };
        if claim.epoch < producer.epoch {
            return Verdict::Fenced;
        }
        if claim.epoch > producer.epoch {
            return if claim.first_sequence == 0 { Verdict::Append } else { Verdict::OutOfOrder };
        }
        let same = |kept: &&Kept| {
            kept.first_sequence == claim.first_sequence && kept.last_sequence == claim.last_sequence
        };
        if let Some(Kept { base_offset, next_offset, .. }) = producer.kept.iter().find(same).copied() {
            return Verdict::Repeated { base_offset, next_offset };
        }
        if claim.first_sequence == producer.next_sequence { Verdict::Append } else { Verdict::OutOfOrder }
    }

    /// Remembers a batch that was appended. One that lies before what is remembered of its producer changes nothing, so
    /// that a log may be gone through twice.
    pub fn note(&mut self, batch: &ProducerBatch, now_ms: i64) {
        let claim = &batch.claim;
        if self.table.len() >= PRODUCERS_MAX && !self.table.contains_key(&claim.producer) {
            self.sweep();
        }
        let producer = self.table.entry(claim.producer).or_insert_with(|| Producer {
            epoch: claim.epoch,
            next_sequence: claim.first_sequence,
            used_ms: now_ms,
            max_timestamp_ms: -1,
            kept: Vec::with_capacity(1),
        });
        if producer.kept.last().is_some_and(|last| batch.base_offset < last.next_offset) {
            return;
        }
        if claim.epoch != producer.epoch || claim.first_sequence != producer.next_sequence {
            // A newer one; or its leader had forgotten it before this batch.
            producer.epoch = claim.epoch;
            producer.kept.clear();
        }
        producer.used_ms = producer.used_ms.max(now_ms);
        producer.keep(batch);
    }

    /// Those that were idle for longest go.
    fn sweep(&mut self) {
        let mut by_use: Vec<(i64, ProducerId)> =
            self.table.iter().map(|(id, producer)| (producer.used_ms, *id)).collect();
        by_use.sort_unstable();
        for (_, id) in by_use.into_iter().take(PRODUCERS_SWEPT) {
            self.table.remove(&id);
        }
    }

    /// The log ends at `end` now: what lay beyond is expected anew.
    pub fn cut(&mut self, end: Offset) {
        self.table.values_mut().for_each(|producer| producer.cut(end));
    }

    /// Forgets producers that have not appended for `idle_ms`. Returns who they were.
    pub fn expire(&mut self, now_ms: i64, idle_ms: i64) -> Vec<ProducerId> {
        let is_over = |producer: &Producer| now_ms.saturating_sub(producer.used_ms) >= idle_ms;
        let over: Vec<ProducerId> =
            self.table.iter().filter(|(_, producer)| is_over(producer)).map(|(id, _)| *id).collect();
        self.forget(&over);
        over
    }

    /// Forgets these.
    pub fn forget(&mut self, producers: &[ProducerId]) {
        for id in producers {
            self.table.remove(id);
        }
    }

    /// Adds a producer as storage has kept it.
    pub fn restore(&mut self, id: ProducerId, producer: Producer) {
        self.table.insert(id, producer);
    }

    /// All of them, by id.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (ProducerId, &Producer)> {
        self.table.iter().map(|(id, producer)| (*id, producer))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// The laws that stand on the fields; an error names what is broken.
    pub fn invariants(&self, end: Offset) -> Result<(), String> {
        for (id, producer) in &self.table {
            let law = |holds: bool, what: &str| {
                if holds { Ok(()) } else { Err(format!("producer {id}: {what}: {producer:?}")) }
            };
            law(producer.kept.len() <= BATCHES_KEPT, "few batches are remembered")?;
            let rising = producer.kept.windows(2).all(|pair| pair[0].next_offset <= pair[1].base_offset);
            law(rising, "offsets rise")?;
            let is_sound = |kept: &Kept| {
                kept.first_sequence.min(kept.last_sequence) >= 0
                    && (0..kept.next_offset).contains(&kept.base_offset)
            };
            law(producer.kept.iter().all(is_sound), "a batch has sequences and records")?;
            law(producer.next_sequence >= 0, "a sequence has no sign")?;
            let last = producer.kept.last();
            law(last.is_none_or(|last| last.next_offset <= end), "batches are in the log")?;
            law(
                last.is_none_or(|last| after(last.last_sequence) == producer.next_sequence),
                "the next batch follows on the last",
            )?;
        }
        Ok(())
    }
}
