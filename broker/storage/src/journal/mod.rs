//! The journal of a data folder: what makes appends, truncations and deletions of all its logs durable with one write.
//!
//! # Rounds
//! A *round* holds what all logs want to make durable at a time: a list of [`Entry`]s. It is one aligned write, one is in
//! flight at a time, and no block of it is written again before a checkpoint covers it. Rounds are numbered without gaps
//! within an incarnation, each names its predecessor by number and checksum, and each says which logs the one before it
//! touched, so that a round that does not read can be told whom it concerns.
//!
//! # Files
//! `journal/0000.journal` and so on: zero-filled, written from the start to the end, and recycled as a whole once a checkpoint
//! covers all rounds in them ([`Journal::release_up_to`]). A round never spans two files. An incarnation begins in a file of
//! its own, so that it overwrites no trace of what its predecessor had in flight. A file's number is its name and nothing
//! more; the order of the rounds is in the rounds.
//!
//! # Torn or damaged
//! See [`resolve`](mod@resolve). In short: a round that does not read is damage if anything of a later round is there, and makes the tail uncertain if
//! not. Nothing is repaired in place, and opening a journal writes nothing over what stands in it: a crash during recovery
//! leaves the next recovery the same picture. A round that turned out to be the last one is replayed if it reads, whether or
//! not it was acknowledged.
//!
//! # Who does what
//! The committer owns the [`Journal`]: [`Journal::begin_round`], submit the write, [`Journal::round_done`]; a failed write is
//! final ([`Journal::round_failed`]). When the journal is idle for a moment: [`Journal::seal`]. When
//! [`Journal::needs_checkpoint`]: sync the segments, replace the checkpoint, and then [`Journal::release_up_to`].
//!
//! The format (`block`, `entry`), the reading (`scan`, `resolve`) and the writing (`writer`) do no I/O; `open` and [`Journal`] do.

pub mod block;
mod entry;
mod files;
mod open;
pub mod resolve;
pub mod scan;
pub mod writer;

#[cfg(test)]
mod format_tests;
#[cfg(test)]
mod open_tests;

use std::path::PathBuf;

use bytes::Bytes;
use weir_runtime::disk::{BLOCK_BYTES, BatchError};

use block::{Block, PAYLOAD_BYTES, ROUND_HEADER_BYTES, RoundHeader};
pub use entry::{Body, Compacted, Entry, Touched};
pub use files::{Grow, GrownFile, Journal, RoundWrite};
pub use open::Replayed;
pub use resolve::{DamagedRound, EarlierTail, Tail, Verdict};
pub use writer::BeginError;

/// How a journal is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalConfig {
    /// The folder of its files, relative to the data folder. Created if it does not exist.
    pub folder: PathBuf,
    /// Bytes of all files together: the journal grows to that, and not if fewer are enough. There are at least two files.
    pub total_bytes: u64,
    /// Bytes of a file, rounded down to whole blocks. A round is no larger.
    pub file_bytes: u64,
    /// Who opens it. Greater than that of any who did so before; if the journal knows better, it takes a greater one
    /// ([`Journal::incarnation`]).
    pub incarnation: u64,
    /// The first sequence that the checkpoint does not cover: 1 in a new folder. `None` if the checkpoint is lost: then the
    /// journal replays what was not covered when its last round was written.
    pub from_sequence: Option<u64>,
    /// Whether the last stop was a clean one: the checkpoint covers everything.
    pub was_clean: bool,
}

impl JournalConfig {
    fn file_bytes(&self) -> u64 {
        (self.file_bytes / BLOCK_BYTES as u64).max(1) * BLOCK_BYTES as u64
    }

    fn files_max(&self) -> usize {
        usize::try_from(self.total_bytes / self.file_bytes())
            .unwrap_or(usize::MAX)
            .clamp(FILES_MIN, FILES_MAX)
    }
}

/// The file of the last round is not overwritten by the next one.
const FILES_MIN: usize = 2;
/// Files beyond this number are not looked at.
const FILES_MAX: usize = 9999;

/// Why a journal cannot be opened, replayed or extended.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// A file was written by a later version of this program.
    #[error("{} has format version {found}, this program knows {known}", path.display())]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u8,
        /// Ours.
        known: u8,
    },
    /// A round that was whole a moment ago is not any more.
    #[error("round {sequence} in {} at {offset} has changed while it was replayed", path.display())]
    Changed {
        /// The round.
        sequence: u64,
        /// The file.
        path: PathBuf,
        /// Where it begins.
        offset: u64,
    },
    /// The disk refuses.
    #[error(transparent)]
    Disk(#[from] BatchError),
}

/// A round as it is replayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Round {
    /// Its number.
    pub sequence: u64,
    /// Its entries, in order.
    pub entries: Vec<Entry>,
    /// What the round before it touched; `None` if it does not say.
    pub touched_before: Option<Vec<Touched>>,
}

/// Reads a round from its bytes, all blocks of it. `None`: something is wrong with it.
pub fn read_round(bytes: &[u8]) -> Option<(RoundHeader, Round)> {
    let Block::Whole(first, payload) = Block::parse(bytes.get(..BLOCK_BYTES)?) else { return None };
    let header = RoundHeader::parse(&first, payload)?;
    if bytes.len() as u64 != header.disk_bytes() {
        return None;
    }
    let body_bytes = header.body_bytes as usize;
    let mut body = Vec::with_capacity(header.blocks as usize * PAYLOAD_BYTES);
    body.extend_from_slice(&payload[ROUND_HEADER_BYTES..]);
    let mut rest_checksum = 0;
    for (block, index) in bytes[BLOCK_BYTES..].chunks_exact(BLOCK_BYTES).zip(1u32..) {
        let Block::Whole(other, payload) = Block::parse(block) else { return None };
        let fits =
            (other.index, other.sequence, other.incarnation) == (index, header.sequence, header.incarnation);
        if !fits {
            return None;
        }
        rest_checksum = crc32c::crc32c_append(rest_checksum, &other.checksum.to_le_bytes());
        body.extend_from_slice(payload);
    }
    if rest_checksum != header.rest_checksum {
        return None;
    }
    body.truncate(body_bytes);
    let Body { entries, touched_before } = Body::parse(&Bytes::from(body), header.entries)?;
    Some((header, Round { sequence: header.sequence, entries, touched_before }))
}
