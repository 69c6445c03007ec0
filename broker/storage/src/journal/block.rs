//! The journal's blocks: what each 4 KiB on disk says of itself.
//!
//! Every block carries its own checksum and names the round that it belongs to. So a block is one of three things: blank,
//! a block of a round that can be named, or damaged; a block that an earlier use of the file left behind is never taken for
//! a damaged one, and nothing that a client sends can look like a block.
//!
//! | bytes | of a block |
//! |---|---|
//! | 0..4 | CRC-32C of bytes 4..4096 |
//! | 4..6 | `WJ` |
//! | 6 | format version |
//! | 7 | kind: 1 = first block of a round, 2 = one of its other blocks; 128 is added if the incarnation began after an uncertain tail |
//! | 8..12 | its place in the round, from 0 |
//! | 12..16 | checksum of the round that the incarnation began after |
//! | 16..24 | incarnation |
//! | 24..32 | sequence |
//! | 32..40 | the incarnation's first sequence |
//! | 40..48 | sequence of the round that the incarnation began after |
//! | 48..4096 | payload; of the first block: the round's header, then the body begins |
//!
//! | bytes | of a round's header |
//! |---|---|
//! | 0..2 | its length |
//! | 2..4 | 1 = a seal |
//! | 4..8, 8..12, 12..16 | blocks; bytes of the body; entries |
//! | 16..20 | CRC-32C over the checksums of all blocks but the first |
//! | 20..24, 24..32 | the round before: its checksum, its sequence |
//! | 32..40, 40..48 | all rounds below are complete; all rounds below are in a checkpoint |
//! | 48..52 | files that the journal had |
//! | 52..56 | zero |
//!
//! All numbers are little-endian. Bytes 0..7 of a block mean the same in every version, so that an older program knows a newer
//! file.

use weir_runtime::disk::BLOCK_BYTES;

/// The version of the journal's format that this program writes, and the only one that it reads.
pub const FORMAT_VERSION: u8 = 1;
/// Bytes of a block that are not payload.
pub const BLOCK_HEADER_BYTES: usize = 48;
/// Bytes of payload in a block.
pub const PAYLOAD_BYTES: usize = BLOCK_BYTES - BLOCK_HEADER_BYTES;
/// Bytes of a round's header, at the start of its first block's payload.
pub const ROUND_HEADER_BYTES: usize = 56;

const MAGIC: [u8; 2] = *b"WJ";
const KIND_FIRST: u8 = 1;
const KIND_OTHER: u8 = 2;

const KIND_AFTER_UNCERTAIN: u8 = 128;
const FLAG_SEAL: u16 = 1;

/// What a block says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockHeader {
    /// Whether it is the first one of its round.
    pub first: bool,
    /// Its place in the round, from 0.
    pub index: u32,
    /// Who wrote it.
    pub incarnation: u64,
    /// The round that it belongs to.
    pub sequence: u64,
    /// Where the incarnation began.
    pub origin: Origin,
    /// Its checksum. The first block's names the round: it covers, by way of the header, all of it.
    pub checksum: u32,
}

/// What stands in 4 KiB of a journal file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Block<'a> {
    /// Zeros: never written.
    Blank,
    /// Neither blank nor whole: torn while it was written, or damaged later.
    Damaged,
    /// Whole, of a later version of the format.
    Newer(u8),
    /// Whole.
    Whole(BlockHeader, &'a [u8]),
}

impl Block<'_> {
    /// Judges a block. Fewer than 4 KiB are a damaged one.
    pub fn parse(bytes: &[u8]) -> Block<'_> {
        if bytes.len() != BLOCK_BYTES {
            return Block::Damaged;
        }
        if bytes[4..6] != MAGIC {
            let blank = bytes.iter().all(|byte| *byte == 0);
            return if blank { Block::Blank } else { Block::Damaged };
        }
        let checksum = u32_at(bytes, 0);
        if crc32c::crc32c(&bytes[4..]) != checksum {
            return Block::Damaged;
        }
        if bytes[6] > FORMAT_VERSION {
            return Block::Newer(bytes[6]);
        }
        let kind = bytes[7] & !KIND_AFTER_UNCERTAIN;
        let header = BlockHeader {
            first: kind == KIND_FIRST,
            index: u32_at(bytes, 8),
            incarnation: u64_at(bytes, 16),
            sequence: u64_at(bytes, 24),
            origin: Origin {
                start: u64_at(bytes, 32),
                after: Link { sequence: u64_at(bytes, 40), checksum: u32_at(bytes, 12) },
                after_uncertain: bytes[7] & KIND_AFTER_UNCERTAIN != 0,
            },
            checksum,
        };
        let known = bytes[6] == FORMAT_VERSION && (kind == KIND_FIRST || kind == KIND_OTHER);
        if !known || !header.is_consistent() {
            return Block::Damaged;
        }
        Block::Whole(header, &bytes[BLOCK_HEADER_BYTES..])
    }
}

impl BlockHeader {
    /// The laws that the walk over the rounds relies on.
    fn is_consistent(&self) -> bool {
        let Origin { start, after, .. } = self.origin;
        self.first == (self.index == 0)
            && after.sequence < start
            && start <= self.sequence
            && self.sequence < u64::MAX / 2
    }
}

/// Names a round that others refer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Link {
    /// Its sequence; 0 when there is none.
    pub sequence: u64,
    /// Its checksum; 0 when it is not known, because the round does not read.
    pub checksum: u32,
}

/// Where an incarnation's rounds begin. Each of its blocks repeats it, so that one readable block is enough to know which
/// rounds of earlier incarnations it has superseded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Origin {
    /// The incarnation's first sequence. Invariant: greater than any that an earlier incarnation is known to have used.
    pub start: u64,
    /// The last round before it that counts. What lies between the two was never acknowledged, as far as could be told.
    pub after: Link,
    /// Whether the recovery before it could not tell if a round after `after` had been acknowledged.
    pub after_uncertain: bool,
}

/// The header of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoundHeader {
    /// Who wrote it.
    pub incarnation: u64,
    /// Its place in the order of all rounds, from 1; never used twice for rounds that count.
    pub sequence: u64,
    /// Blocks, padding included.
    pub blocks: u32,
    /// Bytes of entries.
    pub body_bytes: u32,
    /// Number of entries.
    pub entries: u32,
    /// CRC-32C over the checksums of all blocks but the first.
    pub rest_checksum: u32,
    /// The round before it.
    pub previous: Link,
    /// All rounds below this sequence were complete when this one was written.
    pub synced_end: u64,
    /// All rounds below this sequence were in the checkpoint when this one was written.
    pub live_start: u64,
    /// Where the incarnation began.
    pub origin: Origin,
    /// Files that the journal had.
    pub files: u32,
    /// Whether the round is empty and only proves that the one before it was complete.
    pub seal: bool,
}

impl RoundHeader {
    /// Blocks that a body of this many bytes takes.
    pub fn blocks_for(body_bytes: usize) -> usize {
        (ROUND_HEADER_BYTES + body_bytes).div_ceil(PAYLOAD_BYTES)
    }

    /// Bytes that the round takes in its file.
    pub fn disk_bytes(&self) -> u64 {
        u64::from(self.blocks) * BLOCK_BYTES as u64
    }

    /// Writes the header over the start of a first block's payload.
    fn put(&self, out: &mut [u8]) {
        let flags = if self.seal { FLAG_SEAL } else { 0 };
        out[0..2].copy_from_slice(&(ROUND_HEADER_BYTES as u16).to_le_bytes());
        out[2..4].copy_from_slice(&flags.to_le_bytes());
        out[4..8].copy_from_slice(&self.blocks.to_le_bytes());
        out[8..12].copy_from_slice(&self.body_bytes.to_le_bytes());
        out[12..16].copy_from_slice(&self.entries.to_le_bytes());
        out[16..20].copy_from_slice(&self.rest_checksum.to_le_bytes());
        out[20..24].copy_from_slice(&self.previous.checksum.to_le_bytes());
        out[24..32].copy_from_slice(&self.previous.sequence.to_le_bytes());
        out[32..40].copy_from_slice(&self.synced_end.to_le_bytes());
        out[40..48].copy_from_slice(&self.live_start.to_le_bytes());
        out[48..52].copy_from_slice(&self.files.to_le_bytes());
        out[52..56].fill(0);
    }

    /// Reads the header of a first block; `None` if it contradicts itself.
    pub fn parse(block: &BlockHeader, payload: &[u8]) -> Option<RoundHeader> {
        if !block.first || payload.len() != PAYLOAD_BYTES || u16_at(payload, 0) != ROUND_HEADER_BYTES as u16 {
            return None;
        }
        let flags = u16_at(payload, 2);
        let header = RoundHeader {
            incarnation: block.incarnation,
            sequence: block.sequence,
            blocks: u32_at(payload, 4),
            body_bytes: u32_at(payload, 8),
            entries: u32_at(payload, 12),
            rest_checksum: u32_at(payload, 16),
            previous: Link { checksum: u32_at(payload, 20), sequence: u64_at(payload, 24) },
            synced_end: u64_at(payload, 32),
            live_start: u64_at(payload, 40),
            origin: block.origin,
            files: u32_at(payload, 48),
            seal: flags & FLAG_SEAL != 0,
        };
        header.is_consistent().then_some(header)
    }

    /// The laws that the walk over the rounds relies on, beside those of the block.
    fn is_consistent(&self) -> bool {
        let Origin { start, after, .. } = self.origin;
        let previous_fits =
            if self.sequence == start { self.previous == after } else { self.previous.sequence >= start };
        self.blocks as usize == Self::blocks_for(self.body_bytes as usize)
            && self.previous.sequence < self.sequence
            && previous_fits
    }
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(number)
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

/// Lays bytes out over blocks.
pub(super) mod layout {
    use weir_runtime::disk::{AlignedBuf, BLOCK_BYTES};

    use super::{
        BLOCK_HEADER_BYTES, FORMAT_VERSION, KIND_AFTER_UNCERTAIN, KIND_FIRST, KIND_OTHER, MAGIC, Origin,
        ROUND_HEADER_BYTES, RoundHeader,
    };

    /// Writes one round into a buffer. The body must come out as long as the header says.
    pub(in crate::journal) struct RoundWriter<'a> {
        buf: &'a mut AlignedBuf,
        header: RoundHeader,
    }

    impl<'a> RoundWriter<'a> {
        /// Starts a round in a buffer, whose content is forgotten. The header's `rest_checksum` is filled in by
        /// [`RoundWriter::finish`].
        pub(in crate::journal) fn new(buf: &'a mut AlignedBuf, header: RoundHeader) -> RoundWriter<'a> {
            buf.clear();
            let mut writer = RoundWriter { buf, header };
            writer.begin_block();
            writer.buf.extend_from_slice(&[0; ROUND_HEADER_BYTES]);
            writer
        }

        /// Appends bytes of the body.
        pub(in crate::journal) fn put(&mut self, mut bytes: &[u8]) {
            while !bytes.is_empty() {
                if self.buf.len().is_multiple_of(BLOCK_BYTES) {
                    self.end_block();
                    self.begin_block();
                }
                let room = BLOCK_BYTES - self.buf.len() % BLOCK_BYTES;
                let (now, later) = bytes.split_at(room.min(bytes.len()));
                self.buf.extend_from_slice(now);
                bytes = later;
            }
        }

        /// Pads and returns the round's checksum.
        pub(in crate::journal) fn finish(mut self) -> u32 {
            self.buf.pad_to_block();
            self.end_block();
            let written = self.buf.len() / BLOCK_BYTES;
            assert_eq!(written, self.header.blocks as usize, "a round is as long as its header says");
            self.header.put(&mut self.buf.as_mut_slice()[BLOCK_HEADER_BYTES..][..ROUND_HEADER_BYTES]);
            self.sum_block(0)
        }

        fn begin_block(&mut self) {
            let index = (self.buf.len() / BLOCK_BYTES) as u32;
            let Origin { start, after, after_uncertain } = self.header.origin;
            let mut head = [0; BLOCK_HEADER_BYTES];
            head[4..6].copy_from_slice(&MAGIC);
            head[6] = FORMAT_VERSION;
            head[7] = if index == 0 { KIND_FIRST } else { KIND_OTHER };
            if after_uncertain {
                head[7] |= KIND_AFTER_UNCERTAIN;
            }
            head[8..12].copy_from_slice(&index.to_le_bytes());
            head[12..16].copy_from_slice(&after.checksum.to_le_bytes());
            head[16..24].copy_from_slice(&self.header.incarnation.to_le_bytes());
            head[24..32].copy_from_slice(&self.header.sequence.to_le_bytes());
            head[32..40].copy_from_slice(&start.to_le_bytes());
            head[40..48].copy_from_slice(&after.sequence.to_le_bytes());
            self.buf.extend_from_slice(&head);
        }

        /// Sums up the last block, unless it is the first one, whose header is not known yet.
        fn end_block(&mut self) {
            let index = self.buf.len() / BLOCK_BYTES - 1;
            if index > 0 {
                let checksum = self.sum_block(index);
                self.header.rest_checksum =
                    crc32c::crc32c_append(self.header.rest_checksum, &checksum.to_le_bytes());
            }
        }

        fn sum_block(&mut self, index: usize) -> u32 {
            let block = &mut self.buf.as_mut_slice()[index * BLOCK_BYTES..][..BLOCK_BYTES];
            let checksum = crc32c::crc32c(&block[4..]);
            block[0..4].copy_from_slice(&checksum.to_le_bytes());
            checksum
        }
    }
}
