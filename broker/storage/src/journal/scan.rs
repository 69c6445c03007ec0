//! What stands in a journal file: one pass over its blocks, in pieces of any number of blocks.

use std::ops::Range;

use weir_runtime::disk::BLOCK_BYTES;

use super::block::{Block, BlockHeader, Origin, RoundHeader};

/// A round of which at least the first block is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundRound {
    /// Where in the file it begins.
    pub offset: u64,
    /// The checksum that names it.
    pub checksum: u32,
    /// Its header.
    pub header: RoundHeader,
    /// Whether all its blocks are whole.
    pub complete: bool,
}

impl FoundRound {
    /// Where in the file it ends.
    pub fn end(&self) -> u64 {
        self.offset + self.header.disk_bytes()
    }
}

/// A block whose round's first block was not found before it: all that is known of the round is that it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stray {
    /// The round's sequence.
    pub sequence: u64,
    /// Who wrote it.
    pub incarnation: u64,
    /// Where that incarnation began.
    pub origin: Origin,
    /// Where in the file the block begins.
    pub offset: u64,
}

/// What stands in a journal file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FileMap {
    /// The file's number.
    pub file: u32,
    /// Bytes of whole blocks.
    pub bytes: u64,
    /// In the order of their offsets.
    pub rounds: Vec<FoundRound>,
    /// In the order of their offsets, neighbours of one round only once.
    pub strays: Vec<Stray>,
    /// Where blocks are neither blank nor whole; in order.
    pub damaged: Vec<Range<u64>>,
}

impl FileMap {
    /// Whether the block that begins here is neither blank nor whole.
    pub fn is_damaged_at(&self, offset: u64) -> bool {
        let after = self.damaged.partition_point(|range| range.start <= offset);
        after > 0 && self.damaged[after - 1].end > offset
    }
}

/// A file was written by a later version of this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewerFormat {
    /// The version found.
    pub version: u8,
}

/// One pass over a file's blocks. Memory: a record per round and per run of damaged blocks.
#[derive(Debug)]
pub struct FileScan {
    map: FileMap,
    /// The round whose blocks are being read; already the last one of `map.rounds`.
    open: Option<OpenRound>,
}

#[derive(Debug)]
struct OpenRound {
    /// The next block's place in it.
    next: u32,
    /// Over the checksums of its blocks so far, but the first.
    rest_checksum: u32,
    /// Whether a block was missing.
    broken: bool,
}

impl FileScan {
    /// Starts with the file's first block.
    pub fn new(file: u32) -> FileScan {
        FileScan { map: FileMap { file, ..FileMap::default() }, open: None }
    }

    /// Takes the next blocks. Bytes that are not a whole block, at the end of the last piece, are left out.
    ///
    /// # Errors
    /// A whole block of a later version: the file must not be touched.
    pub fn feed(&mut self, piece: &[u8]) -> Result<(), NewerFormat> {
        for bytes in piece.chunks_exact(BLOCK_BYTES) {
            match Block::parse(bytes) {
                Block::Blank => self.on_gap(),
                Block::Damaged => self.on_damaged(),
                Block::Newer(version) => return Err(NewerFormat { version }),
                Block::Whole(header, payload) if header.first => self.on_first(&header, payload),
                Block::Whole(header, _) => self.on_other(&header),
            }
            self.map.bytes += BLOCK_BYTES as u64;
        }
        Ok(())
    }

    /// The next block cannot be read.
    pub fn feed_unreadable(&mut self) {
        self.on_damaged();
        self.map.bytes += BLOCK_BYTES as u64;
    }

    /// Ends the pass.
    pub fn finish(self) -> FileMap {
        self.map
    }

    /// A block that belongs to no round, where the open one may have expected its own.
    fn on_gap(&mut self) {
        if let Some(open) = &mut self.open {
            open.broken = true;
        }
    }

    fn on_damaged(&mut self) {
        self.on_gap();
        let offset = self.map.bytes;
        let end = offset + BLOCK_BYTES as u64;
        match self.map.damaged.last_mut() {
            Some(last) if last.end == offset => last.end = end,
            _ => self.map.damaged.push(offset..end),
        }
    }

    fn on_first(&mut self, block: &BlockHeader, payload: &[u8]) {
        let Some(header) = RoundHeader::parse(block, payload) else { return self.on_damaged() };
        let complete = header.blocks == 1 && header.rest_checksum == 0;
        let offset = self.map.bytes;
        self.map.rounds.push(FoundRound { offset, checksum: block.checksum, header, complete });
        self.open = (!complete).then_some(OpenRound { next: 1, rest_checksum: 0, broken: false });
    }

    fn on_other(&mut self, block: &BlockHeader) {
        let last = self.map.rounds.last_mut();
        if let (Some(open), Some(round)) = (&mut self.open, last) {
            let header = &round.header;
            if (header.sequence, header.incarnation) == (block.sequence, block.incarnation) {
                open.broken |= block.index != open.next;
                open.next = open.next.saturating_add(1);
                open.rest_checksum = crc32c::crc32c_append(open.rest_checksum, &block.checksum.to_le_bytes());
                if open.next == header.blocks {
                    round.complete = !open.broken && open.rest_checksum == header.rest_checksum;
                }
                return;
            }
            open.broken = true;
        }
        let BlockHeader { sequence, incarnation, origin, .. } = *block;
        let known = self
            .map
            .strays
            .last()
            .is_some_and(|last| (last.sequence, last.incarnation) == (sequence, incarnation));
        if !known {
            self.map.strays.push(Stray { sequence, incarnation, origin, offset: self.map.bytes });
        }
    }
}
