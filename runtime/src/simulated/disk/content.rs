//! What one file holds: as the page cache shows it, and as it stands on the medium.
//!
//! Pages are shared between the two until one of them changes. What is not synced is known by sector, with the number
//! of the write that put it there, so that a crash can keep a prefix or any subset of the writes.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

/// The grain at which a crash keeps or loses data, in bytes.
pub const SECTOR_BYTES: u64 = 512;
/// The grain of the page cache and of the space accounting, in bytes.
pub const PAGE_BYTES: u64 = 4096;
const SECTORS_PER_PAGE: usize = (PAGE_BYTES / SECTOR_BYTES) as usize;

type Page = Arc<[u8; PAGE_BYTES as usize]>;

/// The place of a write in the order of all changes to one disk; 0 means "nothing unsynced".
pub(super) type Sequence = u64;

/// What a crash does to one thing that was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Lost,
    Kept,
    /// Only the first bytes of the sector made it.
    Torn,
}

/// A change of a file's length that is not synced yet.
#[derive(Debug, Clone, Copy)]
struct Resize {
    sequence: Sequence,
    len: u64,
    /// The file became shorter: what was beyond is gone, even if the file grows again later.
    cut: bool,
}

/// The two views of one file's bytes.
///
/// Invariant: a page that has no unsynced sector is equal in both views, unless a fault made it differ.
#[derive(Debug, Default)]
pub(super) struct Content {
    cache: BTreeMap<u64, Page>,
    cache_len: u64,
    media: BTreeMap<u64, Page>,
    media_len: u64,
    dirty: BTreeMap<u64, [Sequence; SECTORS_PER_PAGE]>,
    resizes: Vec<Resize>,
}

fn zero_page() -> Page {
    thread_local! {
        static ZEROS: Page = Arc::new([0; PAGE_BYTES as usize]);
    }
    ZEROS.with(Arc::clone)
}

/// The sectors of page `page` that `[start, end)` touches.
fn sectors(page: u64, start: u64, end: u64) -> std::ops::Range<usize> {
    let base = page * PAGE_BYTES;
    let from = start.max(base) - base;
    let to = end.min(base + PAGE_BYTES) - base;
    (from / SECTOR_BYTES) as usize..to.div_ceil(SECTOR_BYTES) as usize
}

fn copy_sector(
    from: &BTreeMap<u64, Page>,
    to: &mut BTreeMap<u64, Page>,
    page: u64,
    sector: usize,
    bytes: usize,
) {
    let range = sector * SECTOR_BYTES as usize..sector * SECTOR_BYTES as usize + bytes;
    let source = from.get(&page).cloned().unwrap_or_else(zero_page);
    let target = to.entry(page).or_insert_with(zero_page);
    Arc::make_mut(target)[range.clone()].copy_from_slice(&source[range]);
}

/// Removes everything from `len` on, so that it reads as zeros if the file grows again.
fn cut(pages: &mut BTreeMap<u64, Page>, len: u64) {
    pages.split_off(&len.div_ceil(PAGE_BYTES));
    let tail = (len % PAGE_BYTES) as usize;
    if tail > 0
        && let Some(page) = pages.get_mut(&(len / PAGE_BYTES))
    {
        Arc::make_mut(page)[tail..].fill(0);
    }
}

fn read_pages(pages: &BTreeMap<u64, Page>, start: u64, end: u64) -> Bytes {
    let mut out = BytesMut::zeroed((end - start) as usize);
    for (page, data) in pages.range(start / PAGE_BYTES..end.div_ceil(PAGE_BYTES)) {
        let base = page * PAGE_BYTES;
        let (from, to) = (start.max(base), end.min(base + PAGE_BYTES));
        let source = &data[(from - base) as usize..(to - base) as usize];
        out[(from - start) as usize..(to - start) as usize].copy_from_slice(source);
    }
    out.freeze()
}

impl Content {
    /// The length that programs see.
    pub(super) fn len(&self) -> u64 {
        self.cache_len
    }

    /// The length that survives a power loss if nothing more is kept.
    pub(super) fn durable_len(&self) -> u64 {
        self.media_len
    }

    /// Pages that take up space.
    pub(super) fn pages(&self) -> u64 {
        self.cache.len() as u64
    }

    /// How many pages a write to `[offset, offset + len)` would add.
    pub(super) fn pages_missing(&self, offset: u64, len: u64) -> u64 {
        if len == 0 {
            return 0;
        }
        let range = offset / PAGE_BYTES..(offset + len).div_ceil(PAGE_BYTES);
        let wanted = range.end - range.start;
        wanted - self.cache.range(range).count() as u64
    }

    /// Bytes at `offset` as programs see them: up to `len`, fewer at the end of the file.
    pub(super) fn read(&self, offset: u64, len: u64) -> Bytes {
        let end = offset.saturating_add(len).min(self.cache_len);
        if offset >= end {
            return Bytes::new();
        }
        read_pages(&self.cache, offset, end)
    }

    /// Bytes at `offset` as they stand on the medium.
    pub(super) fn read_durable(&self, offset: u64, len: u64) -> Bytes {
        let end = offset.saturating_add(len).min(self.media_len);
        if offset >= end {
            return Bytes::new();
        }
        read_pages(&self.media, offset, end)
    }

    /// Writes into the page cache.
    pub(super) fn write(&mut self, offset: u64, data: &[u8], sequence: Sequence) {
        if data.is_empty() {
            return;
        }
        let end = offset + data.len() as u64;
        for page in offset / PAGE_BYTES..end.div_ceil(PAGE_BYTES) {
            let base = page * PAGE_BYTES;
            let (from, to) = (offset.max(base), end.min(base + PAGE_BYTES));
            let target = Arc::make_mut(self.cache.entry(page).or_insert_with(zero_page));
            target[(from - base) as usize..(to - base) as usize]
                .copy_from_slice(&data[(from - offset) as usize..(to - offset) as usize]);
            let marks = self.dirty.entry(page).or_default();
            marks[sectors(page, offset, end)].fill(sequence);
        }
        if end > self.cache_len {
            self.cache_len = end;
            self.resizes.push(Resize { sequence, len: end, cut: false });
        }
    }

    /// Whether `[offset, offset + len)` holds anything unsynced.
    pub(super) fn is_dirty(&self, offset: u64, len: u64) -> bool {
        self.dirty.range(offset / PAGE_BYTES..(offset + len).div_ceil(PAGE_BYTES)).next().is_some()
    }

    /// Sets the length, as `ftruncate` does.
    pub(super) fn resize(&mut self, len: u64, sequence: Sequence) {
        if len == self.cache_len {
            return;
        }
        let shorter = len < self.cache_len;
        if shorter {
            cut(&mut self.cache, len);
            self.dirty.split_off(&len.div_ceil(PAGE_BYTES));
            if let Some(marks) = self.dirty.get_mut(&(len / PAGE_BYTES)) {
                marks[(len % PAGE_BYTES).div_ceil(SECTOR_BYTES) as usize..].fill(0);
            }
        }
        self.cache_len = len;
        self.resizes.push(Resize { sequence, len, cut: shorter });
    }

    /// Fills `[current length, len)` with zeros that take up space.
    pub(super) fn allocate(&mut self, len: u64, sequence: Sequence) {
        if len <= self.cache_len {
            return;
        }
        for page in self.cache_len / PAGE_BYTES..len.div_ceil(PAGE_BYTES) {
            self.cache.entry(page).or_insert_with(zero_page);
        }
        self.cache_len = len;
        self.resizes.push(Resize { sequence, len, cut: false });
    }

    fn sync_length(&mut self) {
        if let Some(shortest) = self.resizes.iter().filter(|resize| resize.cut).map(|resize| resize.len).min()
        {
            cut(&mut self.media, shortest);
        }
        self.resizes.clear();
        self.media_len = self.cache_len;
    }

    /// Brings everything to the medium.
    pub(super) fn sync(&mut self) {
        self.sync_length();
        for (page, marks) in std::mem::take(&mut self.dirty) {
            if marks.iter().all(|mark| *mark != 0) {
                if let Some(data) = self.cache.get(&page) {
                    self.media.insert(page, Arc::clone(data));
                }
                continue;
            }
            for sector in (0..SECTORS_PER_PAGE).filter(|sector| marks[*sector] != 0) {
                copy_sector(&self.cache, &mut self.media, page, sector, SECTOR_BYTES as usize);
            }
        }
    }

    /// Brings `[offset, offset + len)` and the length to the medium: what a write with `O_DSYNC` does.
    pub(super) fn sync_range(&mut self, offset: u64, len: u64) {
        let end = offset + len;
        if self.resizes.iter().any(|resize| resize.cut) || self.media_len < end {
            self.sync_length();
        }
        for page in offset / PAGE_BYTES..end.div_ceil(PAGE_BYTES) {
            for sector in sectors(page, offset, end) {
                copy_sector(&self.cache, &mut self.media, page, sector, SECTOR_BYTES as usize);
                if let Some(marks) = self.dirty.get_mut(&page) {
                    marks[sector] = 0;
                }
            }
            if self.dirty.get(&page).is_some_and(|marks| marks.iter().all(|mark| *mark == 0)) {
                self.dirty.remove(&page);
            }
        }
    }

    /// A sync that failed the way Linux does it: pages are clean from now on although only those that `reached` says are
    /// on the medium. Returns how many sectors were lost.
    pub(super) fn sync_losing(&mut self, mut reached: impl FnMut() -> bool) -> u64 {
        self.sync_length();
        let mut lost = 0;
        for (page, marks) in std::mem::take(&mut self.dirty) {
            for sector in (0..SECTORS_PER_PAGE).filter(|sector| marks[*sector] != 0) {
                if reached() {
                    copy_sector(&self.cache, &mut self.media, page, sector, SECTOR_BYTES as usize);
                } else {
                    lost += 1;
                }
            }
        }
        lost
    }

    /// Forgets clean pages, so that reads come from the medium again.
    pub(super) fn drop_clean_pages(&mut self) {
        if self.resizes.iter().any(|resize| resize.cut) {
            return;
        }
        for (page, data) in &mut self.cache {
            if !self.dirty.contains_key(page) {
                *data = self.media.get(page).cloned().unwrap_or_else(zero_page);
            }
        }
    }

    /// A power loss: `fate` says for each unsynced sector what becomes of it, `keeps` for each change of length whether it
    /// was kept (called in order until the first that was not), `stale` what stands where a kept length covers lost data.
    /// Afterwards both views are equal. Returns (sectors lost, sectors torn).
    pub(super) fn crash(
        &mut self,
        mut fate: impl FnMut(Sequence) -> Fate,
        mut keeps: impl FnMut(Sequence) -> bool,
        mut stale: impl FnMut() -> Option<[u8; SECTOR_BYTES as usize]>,
    ) -> (u64, u64) {
        let old_len = self.media_len;
        for resize in std::mem::take(&mut self.resizes) {
            if !keeps(resize.sequence) {
                break;
            }
            if resize.cut {
                cut(&mut self.media, resize.len);
            }
            self.media_len = resize.len;
        }
        let (mut lost, mut torn) = (0, 0);
        for (page, marks) in std::mem::take(&mut self.dirty) {
            for sector in (0..SECTORS_PER_PAGE).filter(|sector| marks[*sector] != 0) {
                let position = page * PAGE_BYTES + sector as u64 * SECTOR_BYTES;
                match fate(marks[sector]) {
                    Fate::Kept => {
                        copy_sector(&self.cache, &mut self.media, page, sector, SECTOR_BYTES as usize)
                    }
                    Fate::Torn => {
                        torn += 1;
                        copy_sector(&self.cache, &mut self.media, page, sector, SECTOR_BYTES as usize / 2);
                    }
                    Fate::Lost => {
                        lost += 1;
                        if position >= old_len
                            && position < self.media_len
                            && let Some(old) = stale()
                        {
                            let start = sector * SECTOR_BYTES as usize;
                            let target = Arc::make_mut(self.media.entry(page).or_insert_with(zero_page));
                            target[start..start + SECTOR_BYTES as usize].copy_from_slice(&old);
                        }
                    }
                }
            }
        }
        cut(&mut self.media, self.media_len);
        // Space that was allocated stays allocated.
        self.cache.split_off(&self.media_len.div_ceil(PAGE_BYTES));
        for page in self.cache.keys() {
            self.media.entry(*page).or_insert_with(zero_page);
        }
        self.cache.clone_from(&self.media);
        self.cache_len = self.media_len;
        (lost, torn)
    }

    /// Flips bits of one byte in both views: rot at rest. Outside the file nothing happens.
    pub(super) fn flip(&mut self, offset: u64, bits: u8) {
        let (page, position) = (offset / PAGE_BYTES, (offset % PAGE_BYTES) as usize);
        if offset < self.cache_len {
            Arc::make_mut(self.cache.entry(page).or_insert_with(zero_page))[position] ^= bits;
        }
        if offset < self.media_len {
            Arc::make_mut(self.media.entry(page).or_insert_with(zero_page))[position] ^= bits;
        }
    }

    /// Overwrites bytes in both views behind the programs' back, within the file's length.
    pub(super) fn overwrite_everywhere(&mut self, offset: u64, data: &[u8]) {
        for (view, len) in [(&mut self.cache, self.cache_len), (&mut self.media, self.media_len)] {
            for (position, byte) in (offset..len).zip(data) {
                let page = Arc::make_mut(view.entry(position / PAGE_BYTES).or_insert_with(zero_page));
                page[(position % PAGE_BYTES) as usize] = *byte;
            }
        }
    }
}

#[cfg(test)]
#[path = "content_tests.rs"]
mod tests;
