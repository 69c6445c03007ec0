//! Frames between the nodes of a cluster: a head, which is one of our own values, and a tail of bytes that is passed on
//! as it is.
//!
//! ```text
//!  0  head length   u32  big-endian, as all numbers here
//!  4  tail length   u32
//!  8  crc           u32  CRC-32 (IEEE) of bytes 0 to 7 and the head
//! 12  head
//!     tail               record batches: they carry checksums of their own, and the head says that of what those leave out
//! ```
//!
//! After any error the connection cannot go on: nobody knows where the next frame begins.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::Serialize;

use crate::internal::{self, InternalError};

/// Bytes of a frame before its head.
pub const HEADER_BYTES: usize = 12;
/// Where the checksum stands.
const CRC_AT: usize = 8;

/// The longest frames that are sent or taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameLimits {
    /// Of a head.
    pub head_bytes_max: usize,
    /// Of a tail.
    pub tail_bytes_max: usize,
}

/// Why a frame is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerFrameError {
    /// A part is longer than may be.
    #[error("a {part} of {bytes} bytes exceeds the limit of {limit}")]
    TooLarge {
        /// "head" or "tail".
        part: &'static str,
        /// Its length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The header or the head is not what was sent.
    #[error("the head's checksum is {computed:#010x}, its header says {stored:#010x}")]
    Checksum {
        /// Of what arrived.
        computed: u32,
        /// As announced.
        stored: u32,
    },
    /// The head has no encoding.
    #[error(transparent)]
    Head(#[from] InternalError),
}

/// What [`take`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// A whole frame.
    Frame {
        /// Its head, encoded: see [`internal::decode`].
        head: Bytes,
        /// Its tail.
        tail: Bytes,
    },
    /// So many bytes are missing, at least.
    Missing(usize),
}

/// The beginning of a frame, up to the end of its head. `tail_bytes` of tail must follow.
///
/// # Errors
/// `TooLarge`, `Head`.
pub fn begin<T: Serialize + ?Sized>(
    head: &T,
    tail_bytes: usize,
    limits: FrameLimits,
) -> Result<Bytes, PeerFrameError> {
    let head = internal::encode(head)?;
    check("head", head.len(), limits.head_bytes_max)?;
    check("tail", tail_bytes, limits.tail_bytes_max)?;
    let mut out = BytesMut::with_capacity(HEADER_BYTES + head.len());
    // Both are at most what a u32 holds: see `check`.
    out.put_u32(head.len() as u32);
    out.put_u32(tail_bytes as u32);
    let crc = crc(&out, &head);
    out.put_u32(crc);
    out.put_slice(&head);
    Ok(out.freeze())
}

/// Takes the first frame off the front of what was received. It reserves no memory, and refuses lengths above the limits
/// at once.
///
/// # Errors
/// `TooLarge`, `Checksum`.
pub fn take(received: &mut BytesMut, limits: FrameLimits) -> Result<Progress, PeerFrameError> {
    let Some(header) = received.first_chunk::<HEADER_BYTES>() else {
        return Ok(Progress::Missing(HEADER_BYTES - received.len()));
    };
    let [h0, h1, h2, h3, t0, t1, t2, t3, c0, c1, c2, c3] = *header;
    let head_bytes = u32::from_be_bytes([h0, h1, h2, h3]) as usize;
    let tail_bytes = u32::from_be_bytes([t0, t1, t2, t3]) as usize;
    check("head", head_bytes, limits.head_bytes_max)?;
    check("tail", tail_bytes, limits.tail_bytes_max)?;
    let total = HEADER_BYTES + head_bytes + tail_bytes;
    if received.len() < total {
        return Ok(Progress::Missing(total - received.len()));
    }
    let stored = u32::from_be_bytes([c0, c1, c2, c3]);
    let computed = crc(&received[..CRC_AT], &received[HEADER_BYTES..HEADER_BYTES + head_bytes]);
    if stored != computed {
        return Err(PeerFrameError::Checksum { computed, stored });
    }
    let mut frame = received.split_to(total).freeze();
    frame.advance(HEADER_BYTES);
    let head = frame.split_to(head_bytes);
    Ok(Progress::Frame { head, tail: frame })
}

fn check(part: &'static str, bytes: usize, limit: usize) -> Result<(), PeerFrameError> {
    let limit = limit.min(u32::MAX as usize);
    if bytes > limit { Err(PeerFrameError::TooLarge { part, bytes, limit }) } else { Ok(()) }
}

fn crc(lengths: &[u8], head: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(lengths);
    hasher.update(head);
    hasher.finalize()
}

#[cfg(test)]
#[path = "peer_frame_tests.rs"]
mod peer_frame_tests;
