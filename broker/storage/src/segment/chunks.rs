//! Batches that lie in memory as chunks: an append whose round is not complete yet.

use bytes::Bytes;
use weir_protocol::types::Offset;
use weir_wire::records::{BatchHeader, HEADER_BYTES};

/// Appends to `out` the chunks of the batches that end above `offset` and at or below `below`, as long as they fit into `budget`;
/// the first one of all (while `out` is empty and `at_least_one`) need not fit. Returns whether more could follow.
pub(crate) fn select(
    chunks: &[Bytes],
    (offset, below): (Offset, Offset),
    budget: &mut usize,
    at_least_one: bool,
    out: &mut Vec<Bytes>,
) -> bool {
    let mut place = Place { chunks, chunk: 0, at: 0 };
    while let Some(header) = place.header() {
        let size = header.size_bytes();
        if header.next_offset() > below {
            return false;
        }
        if header.next_offset() <= offset {
            place.advance(size, None);
            continue;
        }
        if size > *budget && !(at_least_one && out.is_empty()) {
            return false;
        }
        *budget = budget.saturating_sub(size);
        place.advance(size, Some(out));
    }
    true
}

struct Place<'a> {
    chunks: &'a [Bytes],
    chunk: usize,
    at: usize,
}

impl Place<'_> {
    fn header(&self) -> Option<BatchHeader> {
        let mut bytes = [0; HEADER_BYTES];
        let mut filled = 0;
        let mut at = self.at;
        for chunk in self.chunks.get(self.chunk..)? {
            let part = &chunk[at..chunk.len().min(at + HEADER_BYTES - filled)];
            bytes[filled..filled + part.len()].copy_from_slice(part);
            filled += part.len();
            at = 0;
            if filled == HEADER_BYTES {
                return BatchHeader::parse(&bytes).ok();
            }
        }
        None
    }

    /// Moves on by `len` bytes and keeps them in `out`.
    fn advance(&mut self, mut len: usize, mut out: Option<&mut Vec<Bytes>>) {
        while let Some(chunk) = self.chunks.get(self.chunk).filter(|_| len > 0) {
            let part = (chunk.len() - self.at).min(len);
            if part > 0
                && let Some(out) = &mut out
            {
                out.push(chunk.slice(self.at..self.at + part));
            }
            self.at += part;
            len -= part;
            if self.at == chunk.len() {
                (self.chunk, self.at) = (self.chunk + 1, 0);
            }
        }
    }
}
