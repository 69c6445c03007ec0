//! What came from a leader is checked before anything of it is written: a bad link or a bad peer must not reach a log.

use bytes::Bytes;
use weir_protocol::partition::Fetched;
use weir_protocol::partition::epochs::EpochEntry;
use weir_protocol::partition::replication::FetchPosition;
use weir_protocol::types::{LogId, Offset};
use weir_runtime::time;
use weir_storage::{AppendInfo, producer_batch};
use weir_wire::records::{self, BatchError, BatchHeader, OutsideCrc};

use super::message::Answer;

/// Batches of one epoch are appended together up to so many bytes, or fewer if the log takes fewer.
const APPEND_BYTES: usize = 128 << 10;

/// Why an answer is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadAnswer {
    /// Fewer bytes came than were announced.
    #[error("{log}: {announced} bytes of records were announced, and {left} came")]
    TooShort {
        /// Which partition.
        log: LogId,
        /// Bytes.
        announced: usize,
        /// Bytes.
        left: usize,
    },
    /// More bytes came than were announced.
    #[error("{0} bytes of records belong to no partition")]
    TooLong(usize),
    /// What the batches' own checksums leave out is not what was sent.
    #[error("{log}: the checksum of offsets and epochs is {computed:#010x}, the leader says {stored:#010x}")]
    Checksum {
        /// Which partition.
        log: LogId,
        /// Of what arrived.
        computed: u32,
        /// As announced.
        stored: u32,
    },
    /// A batch is broken.
    #[error("{log}: behind offset {offset}: {source}")]
    Batch {
        /// Which partition.
        log: LogId,
        /// The end of what was good.
        offset: Offset,
        /// What is wrong.
        source: BatchError,
    },
    /// A batch does not follow on the one before.
    #[error("{log}: a batch from {first} to {last} in epoch {epoch} does not follow on offset {offset}")]
    Misplaced {
        /// Which partition.
        log: LogId,
        /// What was expected.
        offset: Offset,
        /// What came.
        first: Offset,
        /// What came.
        last: Offset,
        /// Of the batch.
        epoch: i32,
    },
}

/// An answer that may be taken in.
#[derive(Debug)]
pub(crate) struct Checked {
    /// For the replica's core.
    pub(crate) fetched: Fetched,
    /// What is to be appended, in order.
    pub(crate) appends: Vec<(Bytes, AppendInfo)>,
}

/// Checks one answer; its records are taken off the front of `tail`. They are to be appended in parts of at most
/// `append_bytes`, single batches aside.
pub(crate) fn check(answer: &Answer, tail: &mut Bytes, append_bytes: usize) -> Result<Checked, BadAnswer> {
    let (log, announced) = (answer.log, answer.records_bytes as usize);
    if announced > tail.len() {
        return Err(BadAnswer::TooShort { log, announced, left: tail.len() });
    }
    let mut taken = Taken::new(answer, append_bytes.min(APPEND_BYTES));
    let mut records = tail.split_to(announced);
    let (computed, stored) = (outside_crc(&[records.clone()]), answer.outside_crc);
    if computed != stored {
        return Err(BadAnswer::Checksum { log, computed, stored });
    }
    while !records.is_empty() {
        let rest = records.clone();
        let wrong = |source| BadAnswer::Batch { log, offset: taken.fetched.end, source };
        let batch = records::Batch::split_from(&mut records).map_err(wrong)?;
        batch.verify_crc().map_err(wrong)?;
        taken.batch(log, &batch.header, rest)?;
    }
    taken.close();
    Ok(Checked { fetched: taken.fetched, appends: taken.appends })
}

/// The checksum that goes with these records, which lie in any number of chunks.
pub(super) fn outside_crc(records: &[Bytes]) -> u32 {
    let mut crc = OutsideCrc::new();
    records.iter().for_each(|chunk| crc.update(chunk));
    crc.finish()
}

struct Taken {
    position: FetchPosition,
    fetched: Fetched,
    appends: Vec<(Bytes, AppendInfo)>,
    /// The append that still grows, with all bytes from its beginning on.
    open: Option<(Bytes, AppendInfo)>,
    append_bytes: usize,
}

impl Taken {
    fn new(answer: &Answer, append_bytes: usize) -> Taken {
        let (position, verdict) = (answer.position, answer.verdict);
        let fetched = Fetched {
            position,
            verdict,
            end: position.offset,
            epochs: Vec::new(),
            producers: Vec::new(),
            now_ms: time::now().since_origin_ms(),
        };
        Taken { position, fetched, appends: Vec::new(), open: None, append_bytes }
    }

    /// Takes a batch; `bytes` begin with it.
    fn batch(&mut self, log: LogId, header: &BatchHeader, bytes: Bytes) -> Result<(), BadAnswer> {
        let (expected, epoch) = (self.fetched.end, header.leader_epoch);
        let last_epoch = self.fetched.epochs.last().map_or(self.position.last_epoch, |entry| entry.epoch);
        // The first one may begin before the position: where the leader's log starts within a batch.
        let follows = header.base_offset >= expected
            || (expected == self.position.offset && header.next_offset() > expected);
        if !follows || epoch < last_epoch.max(0) || epoch > self.position.epoch {
            let (first, last) = (header.base_offset, header.last_offset());
            return Err(BadAnswer::Misplaced { log, offset: expected, first, last, epoch });
        }
        if self.fetched.epochs.last().is_none_or(|entry| entry.epoch != epoch) {
            // Where the leader's log has a gap, what is missing counts as the first batch's.
            let is_first = self.fetched.epochs.is_empty();
            let start = if is_first { self.position.offset } else { header.base_offset };
            self.fetched.epochs.push(EpochEntry { epoch, start });
        }
        self.fetched.end = header.next_offset();
        self.fetched.producers.extend(producer_batch(header));
        self.append(header, bytes);
        Ok(())
    }

    fn append(&mut self, header: &BatchHeader, bytes: Bytes) {
        let size_bytes = header.size_bytes();
        let fits = |info: &AppendInfo| {
            let follows = info.next_offset() == header.base_offset;
            follows
                && info.leader_epoch == header.leader_epoch
                && info.bytes as usize + size_bytes <= self.append_bytes
        };
        if !self.open.as_ref().is_some_and(|(_, info)| fits(info)) {
            self.close();
            let info = AppendInfo {
                base_offset: header.base_offset,
                last_offset: header.base_offset,
                leader_epoch: header.leader_epoch,
                max_timestamp_ms: -1,
                bytes: 0,
                producers: Vec::new(),
            };
            self.open = Some((bytes, info));
        }
        if let Some((_, info)) = &mut self.open {
            info.last_offset = header.last_offset();
            info.max_timestamp_ms = info.max_timestamp_ms.max(header.max_timestamp_ms);
            info.bytes += size_bytes as u32;
            info.producers.extend(producer_batch(header));
        }
    }

    fn close(&mut self) {
        if let Some((mut bytes, info)) = self.open.take() {
            bytes.truncate(info.bytes as usize);
            self.appends.push((bytes, info));
        }
    }
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
