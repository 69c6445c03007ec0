//! The one buffer that O_DIRECT accepts. Beside it, only two calls of the C library need `unsafe` (`real/memory.rs`, `real/disk/file.rs`).
#![allow(unsafe_code, reason = "memory aligned to a block cannot be had from Vec")]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::ptr::NonNull;
use std::slice;

/// The unit of direct writes: offsets, lengths and addresses are multiples of it.
pub const BLOCK_BYTES: usize = 4096;

/// A growable byte buffer whose memory starts at a multiple of [`BLOCK_BYTES`]. Reusable: [`AlignedBuf::clear`] keeps the
/// memory.
pub struct AlignedBuf {
    /// Invariant: points to `capacity` initialised bytes, aligned to a block; dangling while `capacity` is 0.
    memory: NonNull<u8>,
    /// Invariant: `len <= capacity`.
    len: usize,
    /// Invariant: a multiple of the block size.
    capacity: usize,
}

// SAFETY: the memory is owned by this value alone and is plain bytes.
unsafe impl Send for AlignedBuf {}
// SAFETY: shared access only reads.
unsafe impl Sync for AlignedBuf {}

fn layout(capacity: usize) -> Layout {
    match Layout::from_size_align(capacity, BLOCK_BYTES) {
        Ok(layout) => layout,
        Err(_) => panic!("capacity overflow: {capacity} bytes"),
    }
}

impl AlignedBuf {
    /// An empty buffer without memory.
    pub const fn new() -> AlignedBuf {
        AlignedBuf { memory: NonNull::dangling(), len: 0, capacity: 0 }
    }

    /// An empty buffer with room for this many bytes.
    pub fn with_capacity(capacity: usize) -> AlignedBuf {
        let mut buffer = AlignedBuf::new();
        if capacity > 0 {
            buffer.grow_to(capacity);
        }
        buffer
    }

    /// A buffer of zeros.
    pub fn zeroed(len: usize) -> AlignedBuf {
        let mut buffer = AlignedBuf::with_capacity(len);
        buffer.len = len;
        buffer
    }

    /// Appends bytes.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        let start = self.len;
        self.resize_dirty(start + bytes.len());
        self.as_mut_slice()[start..].copy_from_slice(bytes);
    }

    /// Appends zeros up to the next multiple of the block size.
    pub fn pad_to_block(&mut self) {
        self.resize(self.len.next_multiple_of(BLOCK_BYTES));
    }

    /// Cuts the buffer, or appends zeros.
    pub fn resize(&mut self, len: usize) {
        let start = self.len.min(len);
        self.resize_dirty(len);
        self.as_mut_slice()[start..].fill(0);
    }

    /// Forgets the content and keeps the memory.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Bytes in the buffer.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that fit without new memory.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The content.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: `len <= capacity` bytes at `memory` are initialised and owned; with a length of 0 dangling is allowed.
        unsafe { slice::from_raw_parts(self.memory.as_ptr(), self.len) }
    }

    /// The content.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`, and `&mut self` makes the access exclusive.
        unsafe { slice::from_raw_parts_mut(self.memory.as_ptr(), self.len) }
    }

    /// Sets the length; bytes beyond the old length are initialised, but to anything.
    fn resize_dirty(&mut self, len: usize) {
        if len > self.capacity {
            self.grow_to(len.max(self.capacity.saturating_mul(2)));
        }
        self.len = len;
    }

    /// Moves to new memory of at least this size.
    fn grow_to(&mut self, capacity: usize) {
        let capacity = capacity.next_multiple_of(BLOCK_BYTES);
        let new_layout = layout(capacity);
        // SAFETY: the size is not 0: callers ask for at least one byte, and it was rounded up.
        let raw = unsafe { alloc_zeroed(new_layout) };
        let Some(memory) = NonNull::new(raw) else { handle_alloc_error(new_layout) };
        // SAFETY: the new memory holds at least `len` bytes, is writable and does not overlap the old.
        unsafe { std::ptr::copy_nonoverlapping(self.memory.as_ptr(), memory.as_ptr(), self.len) };
        self.release();
        self.memory = memory;
        self.capacity = capacity;
    }

    /// Gives the memory back. The caller replaces `memory` and `capacity`, or never uses them again.
    fn release(&mut self) {
        if self.capacity > 0 {
            // SAFETY: the memory was allocated in `grow_to` with this very layout, and is freed once.
            unsafe { dealloc(self.memory.as_ptr(), layout(self.capacity)) };
        }
    }
}

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        self.release();
    }
}

impl Default for AlignedBuf {
    fn default() -> Self {
        AlignedBuf::new()
    }
}

impl fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AlignedBuf({} of {} bytes)", self.len, self.capacity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_is_aligned_whatever_the_history() {
        let mut buffer = AlignedBuf::new();
        buffer.extend_from_slice(&[]);
        assert!(buffer.as_slice().is_empty());
        for round in 1..2000usize {
            buffer.extend_from_slice(&round.to_le_bytes());
            assert_eq!(buffer.as_slice().as_ptr() as usize % BLOCK_BYTES, 0);
        }
        assert_eq!(buffer.len(), 1999 * 8);
        assert_eq!(buffer.as_slice()[1998 * 8..], 1999usize.to_le_bytes());
    }

    #[test]
    fn padding_is_zero_even_over_old_content() {
        let mut buffer = AlignedBuf::with_capacity(1);
        buffer.extend_from_slice(&[7; BLOCK_BYTES]);
        buffer.clear();
        buffer.extend_from_slice(b"abc");
        buffer.pad_to_block();
        assert_eq!(buffer.len(), BLOCK_BYTES);
        assert_eq!(&buffer.as_slice()[..4], b"abc\0");
        assert!(buffer.as_slice()[3..].iter().all(|byte| *byte == 0));
        buffer.pad_to_block();
        assert_eq!(buffer.len(), BLOCK_BYTES, "whole blocks are not padded");
        assert_eq!(buffer.capacity(), BLOCK_BYTES);
    }
}
