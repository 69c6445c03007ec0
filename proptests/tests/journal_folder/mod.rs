//! A journal's files in memory, and what is known of the rounds that were written to them.

// Each test uses its part of it.
#![allow(dead_code)]

use std::collections::BTreeMap;

use bytes::Bytes;
use weir_protocol::types::{LogId, TopicId};
use weir_storage::journal::Compacted;
use weir_storage::journal::resolve::{Resolution, RoundRef, Tail, resolve};
use weir_storage::journal::scan::{FileMap, FileScan};
use weir_storage::journal::writer::{LaidRound, Writer, WriterStart};
use weir_storage::journal::{BeginError, Entry, Touched, read_round};

const SECTOR: usize = 512;

/// The sizes of a journal.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) file_bytes: u64,
    pub(crate) files_max: usize,
}

/// What of a round in flight reaches the disk.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Landing {
    Nothing,
    All,
    /// So many sectors from the start.
    Prefix(u16),
    /// Those whose bit is set, over and over.
    Sectors(u64),
    /// All but this one.
    AllBut(u32),
}

/// Damage.
#[derive(Debug, Clone)]
pub(crate) enum Hit {
    /// A bit anywhere.
    Anywhere { at: u32, bit: u8 },
    /// A bit of a round.
    Round { round: u16, at: u16, bit: u8 },
    /// A bit of one of the last rounds.
    Last { back: u16, at: u16, bit: u8 },
    /// A sector of a round.
    Garbage { round: u16, sector: u8 },
}

/// A round that was written.
#[derive(Debug, Clone)]
struct Written {
    file: u32,
    offset: u64,
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

/// (sequence, incarnation)
type Name = (u64, u64);

/// A journal's folder and its history.
pub(crate) struct Folder {
    shape: Shape,
    images: BTreeMap<u32, Vec<u8>>,
    writer: Writer,
    incarnation: u64,
    /// The first sequence that the checkpoint does not cover.
    from: u64,
    /// All rounds ever laid out.
    written: BTreeMap<Name, Written>,
    /// Those that were acknowledged, or replayed once, and that no checkpoint has covered since: they must never be dropped
    /// silently.
    owed: Vec<Name>,
    /// The last round that counted when each incarnation began.
    began: BTreeMap<u64, u64>,
    damaged: bool,
    /// Whether a round has landed late, and none was acknowledged since.
    haunted: bool,
    counter: u64,
}

impl Folder {
    pub(crate) fn new(shape: Shape) -> Folder {
        let images = BTreeMap::new();
        let resolution = resolve(&[], Some(1));
        let writer = writer(shape, 1, &images, &[], &resolution);
        let mut folder = Folder {
            shape,
            images,
            writer,
            incarnation: 1,
            from: 1,
            written: BTreeMap::new(),
            owed: Vec::new(),
            began: BTreeMap::new(),
            damaged: false,
            haunted: false,
            counter: 0,
        };
        folder.grow();
        folder
    }

    /// Writes and acknowledges a round.
    pub(crate) fn round(&mut self, sizes: &[u16]) {
        let Some(round) = self.begin(sizes) else { return };
        self.acknowledge(round);
    }

    pub(crate) fn seal(&mut self) {
        if let Some(round) = self.writer.seal() {
            self.note(&round, Vec::new());
            self.acknowledge(round);
        }
        assert!(self.writer.seal().is_none(), "once is enough");
    }

    pub(crate) fn checkpoint(&mut self, behind: u64) {
        let covered = (self.writer.synced_end() - 1).saturating_sub(behind);
        if covered + 1 > self.from {
            self.from = covered + 1;
            // An incarnation's rounds come after all of earlier ones, whatever their numbers.
            let began = &self.began;
            let earlier_too =
                |incarnation| began.range(incarnation + 1..).any(|(_, after)| *after <= covered);
            self.owed.retain(|name| name.0 > covered && !earlier_too(name.1));
            self.writer.release_up_to(covered);
        }
    }

    /// Begins a round whose end the process does not see.
    pub(crate) fn in_flight(&mut self, sizes: &[u16], landing: Landing) {
        let Some(round) = self.begin(sizes) else { return };
        if !self.haunted {
            self.land(&round, landing);
        }
    }

    /// The process ends and another one starts; the round in flight lands when that has read the journal.
    pub(crate) fn restart_before_landing(&mut self, sizes: &[u16]) {
        let round = self.begin(sizes);
        self.restart(false);
        // The folder's lock should keep late writes away altogether. One is survived, unless it hits what a new process has
        // come to rely on.
        let late = round.filter(|round| !self.haunted && !self.hits_what_counts(round));
        if let Some(round) = late {
            self.land(&round, Landing::All);
            self.haunted = true;
        }
    }

    fn hits_what_counts(&self, round: &LaidRound) -> bool {
        let end = round.offset + round.data.len() as u64;
        self.owed.iter().map(|name| &self.written[name]).any(|owed| {
            let owed_end = owed.offset + owed.bytes.len() as u64;
            owed.file == round.file && owed.offset < end && round.offset < owed_end
        })
    }

    pub(crate) fn damage(&mut self, hit: &Hit) {
        let live: Vec<Name> = self.written.keys().copied().collect();
        let pick = |place: usize| live.get(place % live.len().max(1)).map(|name| &self.written[name]);
        let (file, at, bytes) = match *hit {
            Hit::Anywhere { at, bit } => {
                let file = self.images.keys().copied().nth(at as usize % self.images.len().max(1));
                let Some(file) = file else { return };
                (file, at as usize / 8 % self.shape.file_bytes as usize, vec![1 << bit])
            }
            Hit::Round { round, at, bit } => {
                let Some(round) = pick(round.into()) else { return };
                (round.file, round.offset as usize + at as usize % round.bytes.len(), vec![1 << bit])
            }
            Hit::Last { back, at, bit } => {
                let place = live.len().saturating_sub(1 + back as usize);
                let Some(round) = pick(place) else { return };
                (round.file, round.offset as usize + at as usize % round.bytes.len(), vec![1 << bit])
            }
            Hit::Garbage { round, sector } => {
                let Some(round) = pick(round.into()) else { return };
                let sector = sector as usize % (round.bytes.len() / SECTOR);
                (round.file, round.offset as usize + sector * SECTOR, vec![0xA5; SECTOR])
            }
        };
        self.damaged = true;
        let Some(image) = self.images.get_mut(&file) else { return };
        for (byte, change) in image[at..].iter_mut().zip(bytes) {
            *byte ^= change;
        }
    }

    /// A new process reads the journal: checks what it finds, and goes on from there.
    pub(crate) fn restart(&mut self, checkpoint_lost: bool) {
        let maps = self.scan();
        let from = (!checkpoint_lost).then_some(self.from);
        let resolution = resolve(&maps, from);
        // A lost checkpoint is damage: rounds that it covered may be gone.
        self.damaged |= checkpoint_lost;
        self.check(&resolution);
        assert_eq!(resolution, resolve(&self.scan(), from), "a recovery that is interrupted changes nothing");

        self.from = resolution.verdict.first_sequence;
        for at in &resolution.replay {
            let name = name(at);
            if !self.owed.contains(&name) {
                self.owed.push(name);
            }
        }
        self.incarnation += 1;
        self.writer = writer(self.shape, self.incarnation, &self.images, &maps, &resolution);
        assert_eq!(self.writer.incarnation(), self.incarnation);
        self.began.insert(self.incarnation, self.writer.synced_end() - 1);
        self.grow();
    }

    /// The files' bytes.
    pub(crate) fn into_images(self) -> Vec<Vec<u8>> {
        self.images.into_values().collect()
    }

    fn scan(&self) -> Vec<FileMap> {
        self.images
            .iter()
            .map(|(number, image)| {
                let mut scan = FileScan::new(*number);
                // In pieces, as a reader would.
                for piece in image.chunks(3 * 4096) {
                    scan.feed(piece).expect("all of this version");
                }
                scan.finish()
            })
            .collect()
    }

    fn check(&self, resolution: &Resolution) {
        let verdict = &resolution.verdict;
        let mut last = 0;
        for at in &resolution.replay {
            let name = name(at);
            assert!(name.0 > last, "in order: {name:?}");
            last = name.0;
            let written = &self.written[&name];
            let image = &self.images[&at.file][at.round.offset as usize..at.round.end() as usize];
            let (_, round) = read_round(image).expect("a replayed round reads");
            assert_eq!(round.entries, normal(&written.entries), "as it was written: {name:?}");
        }
        let replayed: Vec<Name> = resolution.replay.iter().map(name).collect();
        for owed in self.owed.iter().filter(|owed| !replayed.contains(owed)) {
            assert!(self.damaged, "lost without damage: {owed:?} in {verdict:?} of {replayed:?}");
            let reported = self.is_reported(*owed, resolution);
            assert!(reported, "dropped silently: {owed:?} in {verdict:?} of {replayed:?}");
        }
        if !self.damaged {
            assert_eq!(verdict.damaged, [], "nothing is damaged");
        }
    }

    /// Whether the verdict says that this round may be lost.
    fn is_reported(&self, (sequence, incarnation): Name, resolution: &Resolution) -> bool {
        let verdict = &resolution.verdict;
        let damaged = verdict.damaged.iter().any(|damage| damage.sequences.contains(&sequence));
        let head = resolution.head.as_ref().map_or((0, 0), name);
        let at_the_end =
            matches!(verdict.tail, Tail::Uncertain { .. }) && (incarnation, sequence) > (head.1, head.0);
        let earlier = verdict.earlier.iter().any(|earlier| incarnation < earlier.found_by);
        damaged || at_the_end || earlier
    }

    fn begin(&mut self, sizes: &[u16]) -> Option<LaidRound> {
        let entries = self.entries(sizes);
        let result = self.writer.begin_round(&entries);
        let result = match result {
            Err(BeginError::Full) => {
                self.grow();
                self.writer.begin_round(&entries)
            }
            other => other,
        };
        let result = match result {
            Err(BeginError::Full) => {
                self.checkpoint(0);
                self.writer.begin_round(&entries)
            }
            other => other,
        };
        match result {
            Ok(round) => {
                self.note(&round, entries);
                Some(round)
            }
            Err(BeginError::TooLarge { bytes, max }) => {
                assert!(bytes > max);
                None
            }
            Err(error) => panic!("{error} after a checkpoint: {:#?}", self.writer),
        }
    }

    fn entries(&mut self, sizes: &[u16]) -> Vec<Entry> {
        let mut next = || {
            self.counter += 1;
            self.counter as i64
        };
        let log =
            |number: i64| LogId::new(TopicId::from_random([7; 16]).expect("not reserved"), number as i32);
        sizes
            .iter()
            .map(|size| {
                let number = next();
                let log = log(number % 5);
                match number % 9 {
                    5 => Entry::Truncate { log, end: number, segment_base: 3, position: 77 },
                    6 => Entry::Create { log, start: number, flags: 9, compacted: Compacted::default() },
                    7 => Entry::Epoch { log, epoch: number as i32, start: number },
                    8 => Entry::Delete { log },
                    _ => Entry::Append {
                        log,
                        leader_epoch: 1,
                        base_offset: number,
                        next_offset: number + 1,
                        segment_base: 0,
                        position: number as u64 * 10,
                        max_timestamp_ms: number,
                        data: vec![
                            Bytes::from(vec![number as u8; *size as usize / 2]),
                            Bytes::from(vec![1; *size as usize - *size as usize / 2]),
                        ],
                    },
                }
            })
            .collect()
    }

    fn note(&mut self, round: &LaidRound, entries: Vec<Entry>) {
        let bytes = round.data.as_slice().to_vec();
        let written = Written { file: round.file, offset: round.offset, bytes, entries };
        assert!(
            self.written.insert((round.sequence, self.incarnation), written).is_none(),
            "a round's name is used once"
        );
    }

    fn acknowledge(&mut self, round: LaidRound) {
        self.land(&round, Landing::All);
        self.haunted = false;
        self.owed.push((round.sequence, self.incarnation));
        self.writer.round_done(round.data);
    }

    fn land(&mut self, round: &LaidRound, landing: Landing) {
        let image = self.images.get_mut(&round.file).expect("the file exists");
        for (sector, bytes) in round.data.as_slice().chunks(SECTOR).enumerate() {
            let lands = match landing {
                Landing::Nothing => false,
                Landing::All => true,
                Landing::Prefix(sectors) => sector < sectors as usize % (round.data.len() / SECTOR),
                Landing::Sectors(bits) => bits >> (sector % 64) & 1 == 1,
                Landing::AllBut(missing) => sector != missing as usize % (round.data.len() / SECTOR),
            };
            if lands {
                let at = round.offset as usize + sector * SECTOR;
                image[at..at + SECTOR].copy_from_slice(bytes);
            }
        }
    }

    fn grow(&mut self) {
        if let Some(number) = self.writer.missing_file() {
            self.images.insert(number, vec![0; self.shape.file_bytes as usize]);
            self.writer.add_file(number);
        }
    }
}

fn name(at: &RoundRef) -> Name {
    (at.round.header.sequence, at.round.header.incarnation)
}

/// Data comes back in one piece.
fn normal(entries: &[Entry]) -> Vec<Entry> {
    let mut entries = entries.to_vec();
    for entry in &mut entries {
        if let Entry::Append { data, .. } = entry {
            *data = vec![Bytes::from(data.concat())];
        }
    }
    entries
}

fn writer(
    shape: Shape,
    incarnation: u64,
    images: &BTreeMap<u32, Vec<u8>>,
    maps: &[FileMap],
    resolution: &Resolution,
) -> Writer {
    let files: Vec<_> = images.iter().map(|(number, image)| (*number, image.len() as u64)).collect();
    let touched: Option<Vec<Touched>> = None;
    Writer::new(WriterStart {
        incarnation,
        file_bytes: shape.file_bytes,
        files_max: shape.files_max,
        files: &files,
        maps,
        resolution,
        touched,
    })
}
