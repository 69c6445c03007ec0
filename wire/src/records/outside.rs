//! What batches' own checksums leave out.

use super::{CRC_START, LENGTH_OVERHEAD_BYTES};

/// CRC-32 (IEEE) of the first [`CRC_START`] bytes of each batch: base offset, length, leader epoch, magic, and the checksum that
/// covers the rest. Beside the batches' own it makes every bit of them safe on the way, and no byte is summed twice.
#[derive(Debug, Clone, Default)]
pub struct OutsideCrc {
    hasher: crc32fast::Hasher,
    /// As much of a batch's beginning as has been seen.
    start: [u8; CRC_START],
    seen_bytes: usize,
    /// Bytes of the batch before that are still to come.
    rest_bytes: usize,
}

impl OutsideCrc {
    /// Of nothing so far.
    pub fn new() -> OutsideCrc {
        OutsideCrc::default()
    }

    /// Takes the next bytes in. Batches may lie across any number of chunks; bytes that are no batches have a checksum as well.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let skipped = self.rest_bytes.min(bytes.len());
            self.rest_bytes -= skipped;
            bytes = &bytes[skipped..];
            let taken = bytes.len().min(CRC_START - self.seen_bytes);
            self.start[self.seen_bytes..self.seen_bytes + taken].copy_from_slice(&bytes[..taken]);
            self.seen_bytes += taken;
            bytes = &bytes[taken..];
            if self.seen_bytes == CRC_START {
                self.hasher.update(&self.start);
                self.seen_bytes = 0;
                self.rest_bytes = rest_bytes(&self.start);
            }
        }
    }

    /// The checksum.
    pub fn finish(mut self) -> u32 {
        self.hasher.update(&self.start[..self.seen_bytes]);
        self.hasher.finalize()
    }
}

/// Bytes of a batch behind its beginning, as its length has it; 0 if that makes no sense.
fn rest_bytes(start: &[u8; CRC_START]) -> usize {
    let [_, _, _, _, _, _, _, _, l0, l1, l2, l3, ..] = *start;
    let length = i32::from_be_bytes([l0, l1, l2, l3]);
    (usize::try_from(length).unwrap_or(0) + LENGTH_OVERHEAD_BYTES).saturating_sub(CRC_START)
}
