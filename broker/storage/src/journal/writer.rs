//! The writing half: which round goes where, and which files are free. No I/O.

use weir_runtime::disk::{AlignedBuf, BLOCK_BYTES};

use super::block::layout::RoundWriter;
use super::block::{Link, Origin, PAYLOAD_BYTES, ROUND_HEADER_BYTES, RoundHeader};
use super::entry::{Entry, TOUCHED_BYTES, Touched};
use super::resolve::{Resolution, Tail};
use super::scan::FileMap;

/// Most logs that a round says the one before it touched.
const TOUCHED_MAX: usize = 4096;
/// Buffers above this size are given back to the allocator after their round.
const SPARE_BYTES_MAX: usize = 8 << 20;
/// A round is no larger than this, whatever the size of a file.
const ROUND_DISK_BYTES_MAX: usize = 1 << 30;

/// A file of the journal.
#[derive(Debug)]
struct Slot {
    /// Its number: its name.
    number: u32,
    /// Bytes that rounds may use.
    bytes: u64,
    /// The last round in it that counts; 0 if there is none.
    last_sequence: u64,
    /// Whether its first block is damaged, which recovery takes for the trace of a round until it is written again.
    damaged_start: bool,
}

/// What the writer of a new incarnation must know.
#[derive(Debug)]
pub struct WriterStart<'a> {
    /// Who writes, at least.
    pub incarnation: u64,
    /// Bytes of a file: whole blocks.
    pub file_bytes: u64,
    /// Files that there may be.
    pub files_max: usize,
    /// The files that are there: number and length.
    pub files: &'a [(u32, u64)],
    /// What stands in them, in the same order.
    pub maps: &'a [FileMap],
    /// What counts of it.
    pub resolution: &'a Resolution,
    /// What the round that the incarnation begins after touched.
    pub touched: Option<Vec<Touched>>,
}

/// Why a round cannot begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BeginError {
    /// No file is free. A checkpoint must release some first, or one must be added.
    #[error("all files of the journal hold rounds that no checkpoint covers")]
    Full,
    /// The entries do not fit into one round: split them.
    #[error("the entries take {bytes} bytes, a round holds {max}")]
    TooLarge {
        /// What they take, by [`Entry::encoded_bytes`].
        bytes: usize,
        /// See [`Writer::max_round_bytes`].
        max: usize,
    },
    /// A round failed: nothing is written any more.
    #[error("the journal has failed")]
    Failed,
    /// The round before has not been reported as done.
    #[error("a round is in flight")]
    InFlight,
}

/// A round as it is to be written.
#[derive(Debug)]
pub struct LaidRound {
    /// Its number.
    pub sequence: u64,
    /// The file's number.
    pub file: u32,
    /// Where in the file.
    pub offset: u64,
    /// What.
    pub data: AlignedBuf,
}

/// Lays out rounds, and keeps account of the files.
#[derive(Debug)]
pub struct Writer {
    slots: Vec<Slot>,
    file_bytes: u64,
    files_max: usize,
    incarnation: u64,
    origin: Origin,
    /// The place of the file being written in `slots`, and where in it the next round goes.
    current: Option<(usize, u64)>,
    /// The file of the last round. Law: the round after it never overwrites it, so that there is always one that reads.
    last_number: Option<u32>,
    next_sequence: u64,
    previous: Link,
    /// All rounds below are complete.
    synced_end: u64,
    /// All rounds below are covered by a checkpoint.
    live_start: u64,
    /// What the previous round touched.
    touched: Option<Vec<Touched>>,
    spare: Option<AlignedBuf>,
    in_flight: bool,
    failed: bool,
    /// Whether the last round still needs one after it that proves it complete.
    unsealed: bool,
}

impl Writer {
    /// Begins an incarnation.
    pub fn new(start: WriterStart<'_>) -> Writer {
        let WriterStart { resolution, file_bytes, files_max, .. } = start;
        let Resolution { verdict, after, next_sequence, .. } = resolution;
        let mut slots = Vec::with_capacity(start.files.len());
        for (&(number, bytes), map) in start.files.iter().zip(start.maps) {
            let counting = resolution.replay.iter().filter(|at| at.file == number);
            let last_sequence = counting.map(|at| at.round.header.sequence).max().unwrap_or(0);
            // One that is too short was cut off while it was made, or files were smaller once: it is made anew when it is needed.
            if bytes >= file_bytes || last_sequence > 0 {
                let bytes = bytes / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
                slots.push(Slot { number, bytes, last_sequence, damaged_start: map.is_damaged_at(0) });
            }
        }
        let last_number = resolution.head.map(|head| head.file);
        let uncertain = verdict.tail != Tail::Clean;
        Writer {
            slots,
            file_bytes,
            files_max,
            incarnation: start.incarnation.max(resolution.incarnation_max.saturating_add(1)),
            origin: Origin {
                start: *next_sequence,
                after: *after,
                // What was reported and is not known to have been noted must not be forgotten.
                after_uncertain: uncertain || !verdict.earlier.is_empty(),
            },
            current: None,
            last_number,
            next_sequence: *next_sequence,
            previous: *after,
            synced_end: *next_sequence,
            live_start: verdict.first_sequence,
            touched: start.touched,
            spare: None,
            in_flight: false,
            failed: false,
            // What recovery had to report is history once there is a round after it.
            unsealed: uncertain || !verdict.damaged.is_empty(),
        }
    }

    /// Lays out a round. Write it, then say so ([`Writer::round_done`], [`Writer::round_failed`]) before the next begins.
    ///
    /// # Errors
    /// See [`BeginError`]; nothing has changed then.
    pub fn begin_round(&mut self, entries: &[Entry]) -> Result<LaidRound, BeginError> {
        self.begin(entries, false)
    }

    /// An empty round that proves the last one complete, for when nothing else is to be written. `None` if it is proven
    /// already, or if it is not possible now.
    pub fn seal(&mut self) -> Option<LaidRound> {
        if !self.needs_seal() {
            return None;
        }
        self.begin(&[], true).ok()
    }

    /// Whether [`Writer::seal`] has something to do.
    pub fn needs_seal(&self) -> bool {
        self.unsealed && !self.in_flight && !self.failed
    }

    /// The round was written. Takes its buffer back.
    pub fn round_done(&mut self, data: AlignedBuf) {
        debug_assert!(self.in_flight, "a round is done once");
        self.in_flight = false;
        self.synced_end = self.next_sequence;
        if data.capacity() <= SPARE_BYTES_MAX {
            self.spare = Some(data);
        }
    }

    /// The round's write failed, or nobody knows how it ended: nothing is written any more (contract 8).
    pub fn round_failed(&mut self) {
        self.in_flight = false;
        self.failed = true;
    }

    /// A checkpoint that covers all rounds up to this one, it included, is durable.
    pub fn release_up_to(&mut self, sequence: u64) {
        debug_assert!(sequence < self.synced_end, "a checkpoint covers only what is complete");
        self.live_start = self.live_start.max(sequence.saturating_add(1).min(self.synced_end));
    }

    /// Whether more than half of the room is taken by rounds that no checkpoint covers.
    pub fn needs_checkpoint(&self) -> bool {
        let room = self.slots.iter().map(|slot| slot.bytes).sum::<u64>();
        let to_come = self.files_max.saturating_sub(self.slots.len()) as u64 * self.file_bytes;
        self.live_start < self.synced_end && self.live_bytes() > (room + to_come) / 2
    }

    /// Bytes of files that cannot be recycled before a checkpoint.
    pub fn live_bytes(&self) -> u64 {
        let taken = |(place, slot): (usize, &Slot)| match self.current {
            _ if self.is_covered(slot) => 0,
            Some((current, position)) if current == place => position,
            _ => slot.bytes,
        };
        self.slots.iter().enumerate().map(taken).sum()
    }

    /// Bytes of all files, also of those to come.
    pub fn total_bytes(&self) -> u64 {
        self.files_max.max(self.slots.len()) as u64 * self.file_bytes
    }

    /// Most bytes of entries in a round, by [`Entry::encoded_bytes`].
    pub fn max_round_bytes(&self) -> usize {
        let smallest = self.slots.iter().map(|slot| slot.bytes).fold(self.file_bytes, u64::min);
        let file = usize::try_from(smallest).unwrap_or(usize::MAX).min(ROUND_DISK_BYTES_MAX);
        let room = file / BLOCK_BYTES * PAYLOAD_BYTES - ROUND_HEADER_BYTES;
        room - Touched::encoded_bytes(&[]) - self.touched_max() * TOUCHED_BYTES
    }

    /// The number of the next round.
    pub fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// All rounds below this number are complete (or were reported as damaged at opening): a checkpoint may cover them.
    pub fn synced_end(&self) -> u64 {
        self.synced_end
    }

    /// All rounds below this number are covered by a checkpoint.
    pub fn live_start(&self) -> u64 {
        self.live_start
    }

    /// Who writes: the one given, or a greater one if the journal had seen that before.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// The number of the next file to add: when no file but the current one is free and there may be more.
    pub fn missing_file(&self) -> Option<u32> {
        let free = (0..self.slots.len()).any(|place| self.is_free(place));
        if self.failed || free || self.slots.len() >= self.files_max {
            return None;
        }
        (0..).find(|number| self.slots.iter().all(|slot| slot.number != *number))
    }

    /// A file was added, zero-filled.
    pub fn add_file(&mut self, number: u32) {
        self.slots.push(Slot { number, bytes: self.file_bytes, last_sequence: 0, damaged_start: false });
    }

    /// The numbers of the files that rounds may go to.
    pub fn files(&self) -> impl Iterator<Item = u32> {
        self.slots.iter().map(|slot| slot.number)
    }

    fn begin(&mut self, entries: &[Entry], seal: bool) -> Result<LaidRound, BeginError> {
        if self.failed {
            return Err(BeginError::Failed);
        }
        if self.in_flight {
            return Err(BeginError::InFlight);
        }
        let (bytes, max) = (entries.iter().map(Entry::encoded_bytes).sum(), self.max_round_bytes());
        if bytes > max {
            return Err(BeginError::TooLarge { bytes, max });
        }
        let touched = self.touched.as_deref();
        let body_bytes = bytes + touched.map_or(0, Touched::encoded_bytes);
        let blocks = RoundHeader::blocks_for(body_bytes);
        let (place, offset) = self.place((blocks * BLOCK_BYTES) as u64).ok_or(BeginError::Full)?;
        let header = RoundHeader {
            incarnation: self.incarnation,
            sequence: self.next_sequence,
            blocks: blocks as u32,
            body_bytes: body_bytes as u32,
            entries: (entries.len() + usize::from(touched.is_some())) as u32,
            rest_checksum: 0,
            previous: self.previous,
            synced_end: self.synced_end,
            live_start: self.live_start,
            origin: self.origin,
            files: self.slots.len() as u32,
            seal,
        };
        let mut data = self.spare.take().unwrap_or_default();
        let mut round = RoundWriter::new(&mut data, header);
        if let Some(touched) = touched {
            Touched::put(touched, &mut round);
        }
        entries.iter().for_each(|entry| entry.put(&mut round));
        let checksum = round.finish();

        self.touched = Touched::of(entries, self.touched_max());
        self.previous = Link { sequence: header.sequence, checksum };
        self.next_sequence += 1;
        self.in_flight = true;
        self.unsealed = !seal;
        self.current = Some((place, offset + data.len() as u64));
        let slot = &mut self.slots[place];
        if offset == 0 && slot.last_sequence > 0 {
            weir_runtime::simulation::situation("journal file recycled");
        }
        slot.last_sequence = header.sequence;
        slot.damaged_start = false;
        self.last_number = Some(slot.number);
        Ok(LaidRound { sequence: header.sequence, file: slot.number, offset, data })
    }

    /// Where a round of this length goes: after the last one, or at the start of a free file.
    fn place(&self, bytes: u64) -> Option<(usize, u64)> {
        if let Some((place, position)) = self.current
            && self.slots[place].bytes - position >= bytes
        {
            return Some((place, position));
        }
        // Damaged starts first, because they look like the trace of a round; then in a circle, so that all wear alike.
        let order = |slot: &Slot| (!slot.damaged_start, Some(slot.number) <= self.last_number, slot.number);
        let usable = |place: &usize| self.slots[*place].bytes >= bytes && self.is_free(*place);
        let place = (0..self.slots.len()).filter(usable).min_by_key(|place| order(&self.slots[*place]))?;
        Some((place, 0))
    }

    fn is_covered(&self, slot: &Slot) -> bool {
        slot.last_sequence < self.live_start
    }

    fn is_free(&self, place: usize) -> bool {
        self.is_covered(&self.slots[place]) && self.last_number != Some(self.slots[place].number)
    }

    fn touched_max(&self) -> usize {
        let smallest = self.slots.iter().map(|slot| slot.bytes).fold(self.file_bytes, u64::min);
        usize::try_from(smallest / 8).map_or(TOUCHED_MAX, |bytes| TOUCHED_MAX.min(bytes / TOUCHED_BYTES))
    }
}
