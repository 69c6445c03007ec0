//! The parsers of the folder's small files, its names and its segments, bytes in and bytes out, without a disk: for property tests
//! and fuzzing.

use std::future::Future;
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use weir_protocol::partition::producers::Producers;
use weir_protocol::types::{FolderId, LogId, Offset};

use crate::catalog::{Catalog, Tail};
use crate::segment::{Cursor, IndexData, Noted, SegmentIndex, Span, Step};
use crate::{checkpoint, identity, layout, segment};
use weir_protocol::partition::epochs::EpochHistory;

/// A segment's index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index(IndexData);

impl Index {
    /// The index of an empty segment.
    pub fn empty(base: Offset) -> Index {
        Index(IndexData::empty(base))
    }

    /// Reads an index file.
    pub fn decode(base: Offset, bytes: &Bytes) -> Option<Index> {
        segment::decode(base, bytes).map(Index)
    }

    /// Writes an index file.
    pub fn encode(&self) -> Bytes {
        segment::encode(&self.0)
    }

    /// Takes note of a batch behind what is covered.
    pub fn note(&mut self, offsets: Range<Offset>, bytes: u64, max_timestamp_ms: i64, interval_bytes: u32) {
        let (base_offset, next_offset) = (offsets.start, offsets.end);
        let position = self.0.covered;
        self.0.note(Noted { base_offset, next_offset, position, bytes, max_timestamp_ms }, interval_bytes);
    }

    /// Forgets what begins at or behind `position`.
    pub fn cut(&mut self, position: u64, next_offset: Offset) {
        self.0.cut(position, next_offset);
    }

    /// Where the search for an offset begins.
    pub fn floor(&self, offset: Offset) -> (u64, Offset) {
        self.0.floor(offset)
    }

    /// Where the search for a timestamp begins.
    pub fn floor_by_time(&self, timestamp_ms: i64) -> (u64, Offset) {
        self.0.floor_by_time(timestamp_ms)
    }

    /// The first entry above a position.
    pub fn above(&self, position: u64) -> Option<(u64, Offset)> {
        self.0.above(position)
    }

    /// Bytes and offsets that it covers.
    pub fn covered(&self) -> (u64, Offset) {
        (self.0.covered, self.0.next_offset)
    }
}

/// What a walk over a segment found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A batch: its offsets, and where it stands.
    Batch(Range<Offset>, Range<u64>),
    /// These records are not there as they were written.
    Damage(Range<Offset>),
}

/// What is known of a segment that is walked.
#[derive(Debug, Clone)]
pub struct Known {
    /// The offset of its first record.
    pub base: Offset,
    /// The offset after its last record.
    pub end: Option<Offset>,
    /// Below, offsets may have gaps.
    pub gaps_below: Offset,
    /// The epochs that its batches must have.
    pub epochs: Option<EpochHistory>,
    /// An index to find the way past damage.
    pub index: Option<Index>,
}

/// Walks over a segment, in reads of about this many bytes.
pub fn walk(bytes: &Bytes, known: Known, read_bytes: usize) -> Vec<Found> {
    let span = Span {
        position: 0,
        offset: known.base,
        limit: bytes.len() as u64,
        end: known.end,
        gaps_below: known.gaps_below,
        epochs: known.epochs.map(Arc::new),
    };
    let mut cursor = Cursor::in_memory(bytes.clone(), span).with_read_bytes(read_bytes);
    if let Some(index) = known.index {
        cursor = cursor.with_index(Arc::new(SegmentIndex::new(index.0)));
    }
    let mut found = Vec::new();
    loop {
        match at_once(cursor.step()) {
            Some(Ok(Step::Batch { header, position, at })) => {
                let batch = cursor.window().0.slice(at);
                assert_eq!(batch.len(), header.size_bytes(), "a batch is in the window as a whole");
                let place = position..position + batch.len() as u64;
                assert_eq!(bytes[place.start as usize..place.end as usize], batch);
                found.push(Found::Batch(header.base_offset..header.next_offset(), place));
            }
            Some(Ok(Step::Damage(range))) => found.push(Found::Damage(range)),
            Some(Ok(Step::End)) => return found,
            Some(Err(_)) | None => unreachable!("memory neither fails nor waits"),
        }
    }
}

/// What a future gives that has nothing to wait for.
fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

/// What a checkpoint says of a log.
#[derive(Debug, Clone)]
pub struct Checkpointed {
    /// Which.
    pub log: LogId,
    /// Its offsets.
    pub offsets: Range<Offset>,
    /// Its leader epochs.
    pub epochs: EpochHistory,
    /// Its idempotent producers.
    pub producers: Producers,
}

/// The time at which checkpoints are written and read here, in ms.
const NOW_MS: i64 = 1 << 40;

/// A checkpoint of a few logs.
pub fn write_checkpoint(folder: FolderId, replay_from: u64, logs: Vec<Checkpointed>) -> Bytes {
    let mut catalog = Catalog::default();
    for Checkpointed { log, offsets, epochs, producers } in logs {
        let slot = catalog.ensure(log);
        if let Some(entry) = catalog.get_mut(slot) {
            (entry.state.start, entry.state.end) = (offsets.start, offsets.end);
            (entry.state.epochs, entry.state.producers) = (epochs, producers);
        }
    }
    checkpoint::encode(folder, replay_from, false, &catalog, NOW_MS)
}

/// Reads a checkpoint and writes it again. `None` if it is none.
pub fn rewrite_checkpoint(bytes: &Bytes) -> Option<Bytes> {
    let checkpoint::Checkpoint { folder, replay_from, uncertain, logs } =
        checkpoint::decode(bytes, NOW_MS).ok()?;
    let mut catalog = Catalog::default();
    for (log, state) in logs {
        assert!(state.start >= 0 && state.end >= 0, "offsets have no sign");
        assert!(
            state.tail != Tail::Known || state.start <= state.end,
            "a log that is known ends behind its start"
        );
        let slot = catalog.ensure(log);
        if let Some(entry) = catalog.get_mut(slot) {
            entry.state = state;
        }
    }
    Some(checkpoint::encode(folder, replay_from, uncertain, &catalog, NOW_MS))
}

/// Reads a folder's identity and writes that of its next start. `None` if it is none.
pub fn next_identity(bytes: &Bytes) -> Option<Bytes> {
    identity::Identity::decode(bytes).ok().map(|identity| identity.next().encode())
}

/// A folder's identity.
pub fn write_identity(folder: FolderId, incarnation: u64) -> Bytes {
    let incarnation = weir_protocol::types::Incarnation(incarnation);
    identity::Identity { folder, incarnation }.encode()
}

/// The marker of a clean stop.
pub fn write_clean_mark() -> Bytes {
    identity::clean_mark()
}

/// Whether this is the marker of a clean stop.
pub fn is_clean_mark(bytes: &Bytes) -> bool {
    matches!(identity::is_clean_mark(bytes), Ok(true))
}

/// What a name in the data folder means: the name that it would be given.
pub fn rename_log(name: &str) -> Option<String> {
    layout::parse_log_dir(name).map(|log| log.to_string())
}

/// The base offset in the name of a segment's file, and the name that it would be given.
pub fn rename_segment(log: LogId, name: &str) -> Option<(Offset, String)> {
    let base = layout::parse_segment_file(name)?;
    let path = layout::segment_file(log, base);
    Some((base, path.file_name()?.to_str()?.to_owned()))
}
