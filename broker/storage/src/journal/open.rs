//! The I/O: opening a journal's files, reading them, adding one.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use weir_runtime::disk::{BLOCK_BYTES, Disk, File, OpenMode};

use super::block::{Block, FORMAT_VERSION};
use super::resolve::{Resolution, RoundRef, Verdict, resolve};
use super::scan::{FileMap, FileScan, NewerFormat};
use super::writer::{Writer, WriterStart};
use super::{FILES_MAX, Journal, JournalConfig, JournalError, Round, Touched, read_round};

/// Bytes read at a time.
const READ_BYTES: usize = 1 << 20;
/// Damaged rounds for which the logs concerned are looked up.
const TOUCHED_LOOKUPS_MAX: usize = 64;

pub(super) fn file_path(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("{number:04}.journal"))
}

fn file_number(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".journal")?;
    let number = digits.parse().ok().filter(|number| (*number as usize) < FILES_MAX)?;
    (format!("{number:04}") == digits).then_some(number)
}

/// A file as it was found.
struct Found {
    number: u32,
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl Journal {
    /// Opens the journal: finds out which rounds are to be replayed and what is wrong with them, and readies a file for new
    /// ones. Writes nothing over what is there. Replay the rounds; a checkpoint of what they leave begins at
    /// [`Journal::synced_end`], and must also hold what the verdict says: it is not reported again after that.
    ///
    /// # Errors
    /// A file of a later version, or what the disk says. A block that cannot be read is no error but a damaged block.
    pub async fn open(disk: &Disk, config: JournalConfig) -> Result<(Journal, Replayed), JournalError> {
        disk.create_dir(&config.folder).await?;
        disk.sync_dir(config.folder.parent().unwrap_or(Path::new(""))).await?;
        let found = find(disk, &config).await?;
        let maps = read_all(disk, &found, &config).await?;
        let resolution = resolve(&maps, config.from_sequence);
        let files = found.iter().map(|found| (found.number, found.file.clone())).collect();
        let mut replayed = Replayed {
            rounds: resolution.replay.iter().copied().collect(),
            verdict: resolution.verdict.clone(),
            files,
            window: None,
        };
        replayed.find_whom_damage_concerns(disk).await?;
        let journal = prepare(disk, config, &found, &maps, &resolution, &mut replayed).await?;
        Ok((journal, replayed))
    }
}

/// The journal's files, opened for reading.
async fn find(disk: &Disk, config: &JournalConfig) -> Result<Vec<Found>, JournalError> {
    let mut all = Vec::new();
    for entry in disk.list(&config.folder).await?.into_iter().filter(|entry| !entry.is_dir) {
        let Some(number) = file_number(&entry.name) else { continue };
        let path = file_path(&config.folder, number);
        let (file, bytes) = disk.open_file(&path, OpenMode::Read).await?;
        all.push(Found { number, path, file, bytes });
    }
    Ok(all)
}

/// Looks through all files. After a clean stop only the first block is read of those whose rounds the checkpoint covers as a whole. That
/// is not enough where anything counts that was written since: if the first write to a recycled file is lost, it looks as old.
async fn read_all(
    disk: &Disk,
    found: &[Found],
    config: &JournalConfig,
) -> Result<Vec<FileMap>, JournalError> {
    let from = config.from_sequence.filter(|_| config.was_clean);
    let mut first_sequences = Vec::with_capacity(found.len());
    for file in found {
        let block = read_or_nothing(disk, &file.file, 0, BLOCK_BYTES).await;
        first_sequences.push(match Block::parse(&block) {
            Block::Whole(header, _) if header.first => Some(header.sequence),
            Block::Newer(version) => return Err(newer(file, NewerFormat { version })),
            _ => None,
        });
    }
    // Files fill one after the other: the newest one that begins at or below `from` holds the first round to replay.
    let begun =
        first_sequences.iter().flatten().filter(|first| from.is_some_and(|from| **first <= from)).max();
    let mut maps = Vec::with_capacity(found.len());
    for (file, first) in found.iter().zip(&first_sequences) {
        let covered = matches!((first, begun), (Some(first), Some(begun)) if first < begun);
        maps.push(if covered {
            FileMap { file: file.number, ..FileMap::default() }
        } else {
            scan_file(disk, file).await?
        });
    }
    Ok(maps)
}

async fn scan_file(disk: &Disk, found: &Found) -> Result<FileMap, JournalError> {
    let mut scan = FileScan::new(found.number);
    let mut offset = 0;
    while offset < found.bytes {
        let wanted = READ_BYTES.min(usize::try_from(found.bytes - offset).unwrap_or(READ_BYTES));
        match disk.read(&found.file, offset, wanted).await {
            Ok(piece) if piece.len() == wanted => scan.feed(&piece).map_err(|error| newer(found, error))?,
            _ => scan_block_by_block(disk, found, &mut scan, offset, wanted).await?,
        }
        offset += wanted as u64;
    }
    Ok(scan.finish())
}

/// A piece did not read: the blocks in it that do are looked at all the same.
async fn scan_block_by_block(
    disk: &Disk,
    found: &Found,
    scan: &mut FileScan,
    offset: u64,
    bytes: usize,
) -> Result<(), JournalError> {
    for start in (0..bytes / BLOCK_BYTES).map(|block| offset + (block * BLOCK_BYTES) as u64) {
        let block = read_or_nothing(disk, &found.file, start, BLOCK_BYTES).await;
        if block.len() == BLOCK_BYTES {
            scan.feed(&block).map_err(|error| newer(found, error))?;
        } else {
            scan.feed_unreadable();
        }
    }
    Ok(())
}

/// Bytes of a journal file, or none if they cannot be read: a bad sector must not keep a broker from starting.
async fn read_or_nothing(disk: &Disk, file: &File, offset: u64, len: usize) -> Bytes {
    disk.read(file, offset, len).await.unwrap_or_else(|error| {
        tracing::warn!(%error, "a block of the journal cannot be read: it counts as damaged");
        Bytes::new()
    })
}

fn newer(found: &Found, error: NewerFormat) -> JournalError {
    JournalError::NewerFormat { path: found.path.clone(), found: error.version, known: FORMAT_VERSION }
}

/// Readies the files for new rounds.
async fn prepare(
    disk: &Disk,
    config: JournalConfig,
    found: &[Found],
    maps: &[FileMap],
    resolution: &Resolution,
    replayed: &mut Replayed,
) -> Result<Journal, JournalError> {
    let head = resolution.head.filter(|head| head.round.header.sequence == resolution.after.sequence);
    let touched = match head {
        Some(head) => Touched::of(&replayed.read(disk, &head).await?.entries, TOUCHED_AT_OPENING_MAX),
        None => None,
    };
    let lengths: Vec<_> = found.iter().map(|found| (found.number, found.bytes)).collect();
    let writer = Writer::new(WriterStart {
        incarnation: config.incarnation,
        file_bytes: config.file_bytes(),
        files_max: config.files_max(),
        files: &lengths,
        maps,
        resolution,
        touched,
    });
    let mut files = BTreeMap::new();
    for number in writer.files() {
        let (file, _) = disk.open_file(file_path(&config.folder, number), OpenMode::Direct).await?;
        files.insert(number, file);
    }
    let mut journal = Journal::new(config, writer, files);
    if let Some(grow) = journal.grow() {
        match grow.run(disk).await {
            Ok(grown) => journal.grown(Some(grown)),
            // There will be room once a checkpoint has released a file.
            Err(JournalError::Disk(error)) if error.is_no_space() && journal.has_files() => {
                tracing::warn!(%error, "no room for another file of the journal");
                journal.grown(None);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(journal)
}

/// Most logs that the first round of an incarnation says the one before it touched.
const TOUCHED_AT_OPENING_MAX: usize = 256;

/// What an opened journal holds.
#[derive(Debug)]
pub struct Replayed {
    rounds: VecDeque<RoundRef>,
    verdict: Verdict,
    files: BTreeMap<u32, File>,
    /// A piece of a file: its number, where the piece begins, and its bytes.
    window: Option<(u32, u64, Bytes)>,
}

impl Replayed {
    /// What is wrong with the journal.
    pub fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// Rounds still to be replayed.
    pub fn rounds_left(&self) -> usize {
        self.rounds.len()
    }

    /// The next round to replay, `None` after the last. A gap in the sequences is damage, which the verdict names, or a round
    /// that an earlier incarnation had in flight when it ended.
    ///
    /// # Errors
    /// What the disk says, or that a round does not read any more as it did when the journal was opened.
    pub async fn next(&mut self, disk: &Disk) -> Result<Option<Round>, JournalError> {
        let Some(at) = self.rounds.front().copied() else { return Ok(None) };
        let round = self.read(disk, &at).await?;
        self.rounds.pop_front();
        Ok(Some(round))
    }

    /// Reads a round, and with it those after it.
    async fn read(&mut self, disk: &Disk, at: &RoundRef) -> Result<Round, JournalError> {
        let Some(file) = self.files.get(&at.file) else { return Err(self.unreadable(at)) };
        let bytes = usize::try_from(at.round.header.disk_bytes()).map_err(|_| self.unreadable(at))?;
        let cached = self.window.as_ref().and_then(|window| part_of(window, at, bytes));
        let block = match cached {
            Some(block) => block,
            None => {
                let piece = disk.read(file, at.round.offset, bytes.max(READ_BYTES)).await?;
                let window = self.window.insert((at.file, at.round.offset, piece));
                part_of(window, at, bytes).unwrap_or_default()
            }
        };
        match read_round(&block) {
            Some((header, round)) if header == at.round.header => Ok(round),
            _ => Err(self.unreadable(at)),
        }
    }

    fn unreadable(&self, at: &RoundRef) -> JournalError {
        let path = self.files.get(&at.file).map(|file| file.path().to_path_buf()).unwrap_or_default();
        JournalError::Changed { sequence: at.round.header.sequence, path, offset: at.round.offset }
    }

    /// Asks the rounds after damaged ones which logs these touched.
    async fn find_whom_damage_concerns(&mut self, disk: &Disk) -> Result<(), JournalError> {
        let mut damaged = std::mem::take(&mut self.verdict.damaged);
        for damage in damaged.iter_mut().take(TOUCHED_LOOKUPS_MAX) {
            let last = *damage.sequences.end();
            let successor = self.rounds.iter().find(|at| at.round.header.previous.sequence == last).copied();
            // Of several in a row only the last one's successor reads.
            if let Some(successor) = successor.filter(|_| *damage.sequences.start() == last) {
                damage.touched = self.read(disk, &successor).await?.touched_before;
            }
        }
        self.verdict.damaged = damaged;
        Ok(())
    }
}

fn part_of(window: &(u32, u64, Bytes), at: &RoundRef, bytes: usize) -> Option<Bytes> {
    let (file, start, piece) = window;
    let skip = usize::try_from(at.round.offset.checked_sub(*start)?).ok()?;
    let end = skip.checked_add(bytes)?;
    (*file == at.file && end <= piece.len()).then(|| piece.slice(skip..end))
}
