//! What a dead process and a lost supply leave of the disk, and damage to data at rest.

use std::collections::VecDeque;
use std::ops::Range;

use super::content::{Fate, SECTOR_BYTES};
use super::faults::matches;
use super::tree::InodeId;
use super::{Request, SimulatedDisk};
use crate::time::Instant;

/// Old sectors that are remembered for [`SimulatedDisk::show_stale_blocks`].
const STALE_SECTORS_MAX: usize = 64;

/// What a power loss keeps of what was not synced.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Keep {
    /// Drawn from the others.
    Drawn,
    /// Nothing.
    Nothing,
    /// Everything.
    Everything,
    /// Everything up to a drawn point in the order of the changes, and nothing after it.
    Prefix,
    /// Each sector and each change of a name with this probability.
    Subset(f64),
}

/// Where data at rest was damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file, from the top of the node's file system.
    pub path: String,
    /// The damaged bytes.
    pub range: Range<u64>,
}

impl SimulatedDisk {
    /// The process died: its handles and locks are gone, its operations in flight happen, or not, or in part.
    pub fn process_killed(&mut self, now: Instant) {
        self.end_in_flight(now);
        self.forget_process();
    }

    /// The supply failed, and with it the process. See the table of the module.
    pub fn power_lost(&mut self, keep: Keep, now: Instant) {
        self.end_in_flight(now);
        self.forget_process();
        let keep = match keep {
            Keep::Drawn => self.draw_keep(),
            given => given,
        };
        let last = self.sequence;
        let cutoff = match keep {
            Keep::Nothing => 0,
            Keep::Prefix => self.draw.between(0, last),
            _ => last,
        };
        let probability = if let Keep::Subset(probability) = keep { probability } else { 1.0 };
        // At most one sector in a hundred is torn, and in most losses none.
        let tearing = if self.draw.chance(0.5) { 0.01 } else { 0.0 };
        let mut draw = self.draw.fork();
        let lost_names = self.tree.crash(|sequence| sequence <= cutoff && draw.chance(probability));
        let (mut lost, mut torn) = (0, 0);
        let mut stale = self.stale.clone().unwrap_or_default();
        let mut stale_draw = self.draw.fork();
        let mut shown = 0;
        let mut length_draw = self.draw.fork();
        for content in self.tree.contents_mut() {
            let counts = content.crash(
                |sequence| match sequence <= cutoff && draw.chance(probability) {
                    true if draw.chance(tearing) => Fate::Torn,
                    true => Fate::Kept,
                    false => Fate::Lost,
                },
                |sequence| sequence <= cutoff && length_draw.chance(probability.sqrt()),
                || {
                    let old = stale_draw.pick(stale.make_contiguous()).copied();
                    shown += u64::from(old.is_some());
                    old
                },
            );
            lost += counts.0;
            torn += counts.1;
        }
        self.note(now, "fault.disk.power_loss", &[cutoff, lost, torn, lost_names], || {
            format!("{keep:?}: {lost} sectors and {lost_names} changes of names lost, {torn} sectors torn")
        });
        for (count, kind) in [
            (lost, "fault.disk.power_loss_lost_sectors"),
            (torn, "fault.disk.torn_sector"),
            (lost_names, "fault.disk.power_loss_lost_names"),
            (shown, "fault.disk.stale_block"),
        ] {
            if count > 0 {
                self.note(now, kind, &[count], || count.to_string());
            }
        }
    }

    fn draw_keep(&mut self) -> Keep {
        match self.draw.below(10) {
            0 | 1 => Keep::Nothing,
            2 => Keep::Everything,
            3..=5 => Keep::Prefix,
            _ => Keep::Subset([0.1, 0.5, 0.9][self.draw.below(3) as usize]),
        }
    }

    /// Decides about the operations in flight.
    fn end_in_flight(&mut self, now: Instant) {
        let started: Vec<_> =
            self.batches.iter().filter(|(_, batch)| batch.started).map(|(id, _)| *id).collect();
        for id in started {
            let Some(batch) = self.batches.get_mut(&id) else { continue };
            let folder = batch.folder;
            let Some(request) = batch.requests.pop_front() else { continue };
            match self.draw.below(3) {
                0 => {}
                1 => {
                    self.note(now, "fault.disk.in_flight_happened", &[], || format!("{request:?}"));
                    // Nobody is left who could learn of an error.
                    drop(self.apply(folder, request, now));
                }
                _ => self.apply_in_part(request, now),
            }
        }
    }

    /// Does an operation that was cut off: data by the sector, anything else not at all.
    fn apply_in_part(&mut self, request: Request, now: Instant) {
        let (file, offset, data) = match request {
            Request::Write { file, offset, data } => (file, offset, data.concat()),
            Request::WriteAligned { file, offset, data } => (file, offset, data.to_vec()),
            _ => return,
        };
        let Some(handle) = self.handles.get(&file) else { return };
        let (inode, direct) = (handle.inode, handle.direct);
        let mut pieces = Vec::new();
        let mut at = offset;
        while at < offset + data.len() as u64 {
            let end = ((at / SECTOR_BYTES + 1) * SECTOR_BYTES).min(offset + data.len() as u64);
            pieces.push(at..end);
            at = end;
        }
        // The kernel copies into the cache in order; a disk writes its sectors as it likes.
        let prefix = self.draw.below(pieces.len() as u64 + 1);
        let torn = (direct && self.draw.chance(0.25)).then(|| self.draw.below(pieces.len() as u64));
        self.note(now, "fault.disk.in_flight_in_part", &[prefix], || format!("write at {offset}"));
        for (number, piece) in (0..).zip(pieces) {
            let kept = if direct { self.draw.chance(0.5) } else { number < prefix };
            let mut part = &data[(piece.start - offset) as usize..(piece.end - offset) as usize];
            if Some(number) == torn {
                self.note(now, "fault.disk.torn_sector", &[piece.start], || format!("at {}", piece.start));
                part = &part[..part.len() / 2];
            } else if !kept {
                continue;
            }
            if self.write_cache(inode, piece.start, part, now).is_err() {
                return;
            }
            if direct && let Ok(content) = self.tree.content_mut(inode) {
                content.sync_range(piece.start, part.len() as u64);
            }
        }
    }

    fn forget_process(&mut self) {
        self.batches.clear();
        while self.in_flight.pop_due(Instant::FAR_FUTURE).is_some() {}
        self.folders.clear();
        for (_, handle) in std::mem::take(&mut self.handles) {
            self.tree.close(handle.inode);
        }
    }

    /// Remembers some sectors of a file that is about to be removed.
    pub(super) fn remember_stale(&mut self, inode: InodeId) {
        let Some(stale) = &mut self.stale else { return };
        let Ok(content) = self.tree.content(inode) else { return };
        for _ in 0..4 {
            let sectors = content.len() / SECTOR_BYTES;
            let sector = self.draw.below(sectors);
            let bytes = content.read(sector * SECTOR_BYTES, SECTOR_BYTES);
            if let Ok(bytes) = <[u8; SECTOR_BYTES as usize]>::try_from(&bytes[..]) {
                stale.push_back(bytes);
            }
        }
        while stale.len() > STALE_SECTORS_MAX {
            stale.pop_front();
        }
    }

    /// Flips bits in data at rest, on the medium and in the cache: in `range` of the files that match, or anywhere in them.
    /// `None`: there is nothing to damage.
    pub fn rot(&mut self, pattern: &str, range: Option<Range<u64>>, now: Instant) -> Option<Damage> {
        let mut places = Vec::new();
        for (path, inode) in self.tree.files() {
            let Ok(content) = self.tree.content(inode) else { continue };
            let bounds = range.clone().unwrap_or(0..content.len());
            let bounds = bounds.start..bounds.end.min(content.len());
            if matches(pattern, &path) && !bounds.is_empty() {
                places.push((path, inode, bounds));
            }
        }
        let (path, inode, bounds) = self.draw.pick(&places)?.clone();
        let start = self.draw.between(bounds.start, bounds.end - 1);
        let count = self.draw.between(1, 8).min(bounds.end - start);
        for offset in start..start + count {
            let bits = 1 << self.draw.below(8);
            if let Ok(content) = self.tree.content_mut(inode) {
                content.flip(offset, bits);
            }
        }
        self.note(now, "fault.disk.bit_rot", &[inode, start, count], || {
            format!("{path} at {start}: {count} bytes")
        });
        Some(Damage { path, range: start..start + count })
    }

    /// Damages a folder: the name of one of the files that match is gone, on the medium and in the cache. Who has it open can go
    /// on. Returns the file's path; `None`: there is none.
    pub fn lose_file(&mut self, pattern: &str, now: Instant) -> Option<String> {
        let files: Vec<_> =
            self.tree.files().into_iter().filter(|(path, _)| matches(pattern, path)).collect();
        let (path, inode) = self.draw.pick(&files)?.clone();
        let (folder, name) = self.tree.parent(super::tree::TOP, std::path::Path::new(&path)).ok()?;
        self.tree.lose(folder, &name);
        self.note(now, "fault.disk.lost_file", &[inode], || path.clone());
        Some(path)
    }

    /// Forgets clean pages of all files, so that a failed sync's losses show without a crash.
    pub fn drop_caches(&mut self, now: Instant) {
        self.note(now, "fault.disk.caches_dropped", &[], String::new);
        for content in self.tree.contents_mut() {
            content.drop_clean_pages();
        }
    }

    /// Everything is gone, as on a new disk. The process must be dead.
    pub fn replaced(&mut self, now: Instant) {
        self.forget_process();
        self.note(now, "fault.disk.replaced", &[], String::new);
        self.tree = super::Tree::new();
        self.stale = self.stale.take().map(|_| VecDeque::new());
    }

    /// What a file holds durably, for checkers: what a power loss that keeps nothing would leave. `None` if its name is not
    /// durable.
    pub fn durable_content(&self, path: &str) -> Option<bytes::Bytes> {
        let inode = self.tree.resolve_durable(std::path::Path::new(path))?;
        let content = self.tree.content(inode).ok()?;
        Some(content.read_durable(0, content.durable_len()))
    }

    /// What a file holds as programs see it, for checkers.
    pub fn content(&self, path: &str) -> Option<bytes::Bytes> {
        let inode = self.tree.resolve(super::tree::TOP, std::path::Path::new(path)).ok()?;
        let content = self.tree.content(inode).ok()?;
        Some(content.read(0, content.len()))
    }

    /// All files that programs see, from the top of the node's file system, with their lengths.
    pub fn files(&self) -> Vec<(String, u64)> {
        let files = self.tree.files().into_iter();
        files.filter_map(|(path, inode)| Some((path, self.tree.content(inode).ok()?.len()))).collect()
    }
}
