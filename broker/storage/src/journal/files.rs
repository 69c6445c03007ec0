//! The journal as its owner sees it: the writer and the files that it writes to.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use weir_runtime::disk::{AlignedBuf, BLOCK_BYTES, Disk, File, Lane, Op, OpenMode};

use super::entry::Entry;
use super::open::file_path;
use super::writer::{BeginError, LaidRound, Writer};
use super::{JournalConfig, JournalError};

/// The journal of a data folder, owned by its committer.
#[derive(Debug)]
pub struct Journal {
    config: JournalConfig,
    writer: Writer,
    /// Invariant: has all files of the writer.
    files: BTreeMap<u32, File>,
    growing: bool,
}

/// A round to be written.
#[derive(Debug)]
#[must_use = "a round that was begun must be written"]
pub struct RoundWrite {
    /// Its number.
    pub sequence: u64,
    /// Where to.
    pub file: File,
    /// Where in the file.
    pub offset: u64,
    /// What.
    pub data: AlignedBuf,
}

impl RoundWrite {
    /// The operation for [`Lane::Journal`].
    pub fn into_op(self) -> Op {
        Op::WriteAligned { file: self.file, offset: self.offset, data: self.data }
    }
}

impl Journal {
    pub(super) fn new(config: JournalConfig, writer: Writer, files: BTreeMap<u32, File>) -> Journal {
        Journal { config, writer, files, growing: false }
    }

    pub(super) fn has_files(&self) -> bool {
        !self.files.is_empty()
    }

    /// Lays out a round. Write it, then say so ([`Journal::round_done`], [`Journal::round_failed`]) before the next begins.
    ///
    /// # Errors
    /// See [`BeginError`]; nothing has changed then.
    pub fn begin_round(&mut self, entries: &[Entry]) -> Result<RoundWrite, BeginError> {
        let round = self.writer.begin_round(entries)?;
        Ok(self.with_file(round))
    }

    /// An empty round that proves the last one complete, for when nothing else is to be written. `None` if it is proven
    /// already, or if it is not possible now.
    pub fn seal(&mut self) -> Option<RoundWrite> {
        let round = self.writer.seal()?;
        Some(self.with_file(round))
    }

    /// Whether [`Journal::seal`] has something to do.
    pub fn needs_seal(&self) -> bool {
        self.writer.needs_seal()
    }

    /// The round was written. Takes its buffer back.
    pub fn round_done(&mut self, data: AlignedBuf) {
        self.writer.round_done(data);
    }

    /// The round's write failed, or nobody knows how it ended: nothing is written any more (contract 8).
    pub fn round_failed(&mut self) {
        self.writer.round_failed();
    }

    /// A checkpoint that covers all rounds up to this one, it included, is durable: files with no later ones may be reused.
    pub fn release_up_to(&mut self, sequence: u64) {
        self.writer.release_up_to(sequence);
    }

    /// Whether more than half of the room is taken by rounds that no checkpoint covers. After [`BeginError::Full`] a checkpoint
    /// is needed whatever this says.
    pub fn needs_checkpoint(&self) -> bool {
        self.writer.needs_checkpoint()
    }

    /// Bytes of files that cannot be recycled before a checkpoint.
    pub fn live_bytes(&self) -> u64 {
        self.writer.live_bytes()
    }

    /// Bytes of all files, also of those to come.
    pub fn total_bytes(&self) -> u64 {
        self.writer.total_bytes()
    }

    /// Most bytes of entries in a round, by [`Entry::encoded_bytes`].
    pub fn max_round_bytes(&self) -> usize {
        self.writer.max_round_bytes()
    }

    /// The number of the next round.
    pub fn next_sequence(&self) -> u64 {
        self.writer.next_sequence()
    }

    /// All rounds below this number are complete (or were reported as damaged at opening): a checkpoint of their effects says
    /// that replay begins here.
    pub fn synced_end(&self) -> u64 {
        self.writer.synced_end()
    }

    /// All rounds below this number are covered by a checkpoint.
    pub fn live_start(&self) -> u64 {
        self.writer.live_start()
    }

    /// Who writes: the one given, or a greater one if the journal had seen that before.
    pub fn incarnation(&self) -> u64 {
        self.writer.incarnation()
    }

    /// The next file to add, to be made in the background ([`Grow::run`]): when no file but the current one is free and there
    /// may be more. Answer it with [`Journal::grown`].
    pub fn grow(&mut self) -> Option<Grow> {
        if self.growing {
            return None;
        }
        let number = self.writer.missing_file()?;
        self.growing = true;
        Some(Grow { folder: self.config.folder.clone(), number, bytes: self.config.file_bytes() })
    }

    /// The file of [`Journal::grow`] is there; or, with `None`, could not be made: then it is asked for again.
    pub fn grown(&mut self, file: Option<GrownFile>) {
        self.growing = false;
        if let Some(GrownFile { number, file }) = file {
            self.files.insert(number, file);
            self.writer.add_file(number);
        }
    }

    fn with_file(&self, round: LaidRound) -> RoundWrite {
        let LaidRound { sequence, file, offset, data } = round;
        RoundWrite { sequence, file: self.files[&file].clone(), offset, data }
    }
}

/// A file that is to be added to the journal. [`Grow::run`] may run beside the journal's writes.
#[derive(Debug)]
pub struct Grow {
    folder: PathBuf,
    number: u32,
    bytes: u64,
}

impl Grow {
    /// Makes the file, filled with zeros and durable.
    ///
    /// # Errors
    /// What the disk says; part of a file may be left, and is used by the next attempt.
    pub async fn run(self, disk: &Disk) -> Result<GrownFile, JournalError> {
        let path: &Path = &file_path(&self.folder, self.number);
        let (file, len) = disk.open_file(path, OpenMode::Direct).await?;
        let mut batch = Vec::new();
        if !len.is_multiple_of(BLOCK_BYTES as u64) {
            batch.push(Op::Truncate { file: file.clone(), len: len - len % BLOCK_BYTES as u64 });
        }
        batch.push(Op::Allocate { file: file.clone(), len: self.bytes });
        batch.push(Op::SyncDir { path: self.folder });
        disk.submit(Lane::Pool, batch).await?;
        Ok(GrownFile { number: self.number, file })
    }
}

/// A file that was added to the journal's folder.
#[derive(Debug)]
pub struct GrownFile {
    number: u32,
    file: File,
}
