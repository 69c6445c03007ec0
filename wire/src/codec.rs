//! The compression codecs of record batches. Every decompression has a hard bound on its output: what would
//! exceed it is an error, never cut off silently, and memory never exceeds the bound by more than a codec's
//! own window.

use std::io::{self, Read, Write};

use bytes::{Buf, Bytes};

/// A codec, as named by the lowest three bits of a batch's attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Compression {
    /// As it is.
    None,
    /// RFC 1952.
    Gzip,
    /// Snappy blocks, in the framing of Java's snappy library (xerial); bare blocks are read too.
    Snappy,
    /// The LZ4 frame format.
    Lz4,
    /// RFC 8878 (KIP-110).
    Zstd,
}

/// Why a payload could not be compressed or decompressed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The payload is damaged.
    #[error("{codec:?} payload of {bytes} bytes is damaged: {reason}")]
    Damaged {
        /// The codec.
        codec: Compression,
        /// Size of the compressed payload.
        bytes: usize,
        /// The codec's own words.
        reason: String,
    },
    /// The payload decompresses to more than allowed.
    #[error("{codec:?} payload of {bytes} bytes decompresses to more than {limit} bytes")]
    TooLarge {
        /// The codec.
        codec: Compression,
        /// Size of the compressed payload.
        bytes: usize,
        /// The bound.
        limit: usize,
    },
    /// The codec refused to compress.
    #[error("{codec:?} cannot compress {bytes} bytes: {reason}")]
    Compress {
        /// The codec.
        codec: Compression,
        /// Size of the payload.
        bytes: usize,
        /// The codec's own words.
        reason: String,
    },
}

impl Compression {
    /// All five, in the order of their numbers.
    pub const ALL: [Compression; 5] =
        [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

    /// The codec of attribute bits; `None` for bits that name none.
    pub fn from_bits(bits: u16) -> Option<Compression> {
        Compression::ALL.get(usize::from(bits)).copied()
    }

    /// The attribute bits.
    pub fn bits(self) -> u16 {
        self as u16
    }

    /// The name that configurations use: `none`, `gzip`, `snappy`, `lz4`, `zstd`.
    pub fn name(self) -> &'static str {
        ["none", "gzip", "snappy", "lz4", "zstd"][self as usize]
    }

    /// The codec of a configuration's name.
    pub fn from_name(name: &str) -> Option<Compression> {
        Compression::ALL.into_iter().find(|codec| codec.name() == name)
    }
}

/// Size of the blocks in which snappy's framing cuts its input, as Java's library does.
const SNAPPY_BLOCK_BYTES: usize = 32 * 1024;
/// Magic, version 1, lowest compatible version 1.
const SNAPPY_HEADER: [u8; 16] = *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
/// Largest step by which output grows, so that a small payload does not reserve the whole bound.
const GROWTH_BYTES: usize = 64 * 1024;

/// Compresses a payload.
///
/// # Errors
/// `Compress` when the codec refuses.
pub fn compress(codec: Compression, payload: &[u8]) -> Result<Vec<u8>, CodecError> {
    let compressed = match codec {
        Compression::None => Ok(payload.to_vec()),
        Compression::Gzip => compress_gzip(payload),
        Compression::Snappy => compress_snappy(payload),
        Compression::Lz4 => compress_lz4(payload),
        Compression::Zstd => zstd::bulk::compress(payload, zstd::DEFAULT_COMPRESSION_LEVEL),
    };
    compressed.map_err(|error| CodecError::Compress {
        codec,
        bytes: payload.len(),
        reason: error.to_string(),
    })
}

/// Decompresses a payload to at most `bytes_max` bytes. An uncompressed payload is handed back as it is, and is
/// not bounded: it is in memory already.
///
/// # Errors
/// `Damaged`, or `TooLarge` when more than `bytes_max` bytes would come out.
pub fn decompress_bytes(codec: Compression, payload: Bytes, bytes_max: usize) -> Result<Bytes, CodecError> {
    if codec == Compression::None {
        return Ok(payload);
    }
    decompress(codec, &payload, bytes_max).map(Bytes::from)
}

/// Decompresses a payload to at most `bytes_max` bytes.
///
/// # Errors
/// `Damaged`, or `TooLarge` when more than `bytes_max` bytes would come out.
pub fn decompress(codec: Compression, payload: &[u8], bytes_max: usize) -> Result<Vec<u8>, CodecError> {
    let decompressed = match codec {
        Compression::None if payload.len() > bytes_max => Err(Failure::TooLarge),
        Compression::None => Ok(payload.to_vec()),
        Compression::Gzip => drain(flate2::bufread::MultiGzDecoder::new(payload), payload.len(), bytes_max),
        Compression::Snappy => decompress_snappy(payload, bytes_max),
        Compression::Lz4 => decompress_lz4(payload, bytes_max),
        Compression::Zstd => zstd::stream::read::Decoder::with_buffer(payload)
            .map_err(Failure::from)
            .and_then(|decoder| drain(decoder, payload.len(), bytes_max)),
    };
    let bytes = payload.len();
    decompressed.map_err(|failure| match failure {
        Failure::TooLarge => CodecError::TooLarge { codec, bytes, limit: bytes_max },
        Failure::Damaged(reason) => CodecError::Damaged { codec, bytes, reason },
    })
}

enum Failure {
    TooLarge,
    Damaged(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Damaged(error.to_string())
    }
}

impl From<snap::Error> for Failure {
    fn from(error: snap::Error) -> Failure {
        Failure::Damaged(error.to_string())
    }
}

/// Reads to the end, or to the bound.
fn drain(mut decoder: impl Read, payload_bytes: usize, bytes_max: usize) -> Result<Vec<u8>, Failure> {
    let mut out = Vec::new();
    let mut filled = 0;
    let mut step = payload_bytes.saturating_mul(4).clamp(256, GROWTH_BYTES);
    loop {
        if filled == out.len() {
            // One byte over the bound tells "exactly full" from "more to come".
            let len = filled.saturating_add(step).min(bytes_max.saturating_add(1));
            out.resize(len, 0);
            step = step.saturating_mul(2).min(out.len());
        }
        match decoder.read(&mut out[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
        if filled > bytes_max {
            return Err(Failure::TooLarge);
        }
    }
    out.truncate(filled);
    Ok(out)
}

fn compress_gzip(payload: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(payload)?;
    encoder.finish()
}

fn compress_lz4(payload: &[u8]) -> io::Result<Vec<u8>> {
    // Kafka's clients expect independent blocks of 64 KiB.
    let info = lz4_flex::frame::FrameInfo::new()
        .block_mode(lz4_flex::frame::BlockMode::Independent)
        .block_size(lz4_flex::frame::BlockSize::Max64KB);
    let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
    encoder.write_all(payload)?;
    encoder.finish().map_err(io::Error::from)
}

/// Hands out a slice, and calls its end an error: the LZ4 decoder takes an input that stops between two blocks
/// for complete, but a whole frame is over before its input is.
struct Whole<'a>(&'a [u8]);

impl Read for Whole<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() && !buffer.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the frame is cut off"));
        }
        self.0.read(buffer)
    }
}

/// One frame, as Kafka reads it; bytes behind it are damage.
fn decompress_lz4(payload: &[u8], bytes_max: usize) -> Result<Vec<u8>, Failure> {
    let mut input = Whole(payload);
    let out = drain(lz4_flex::frame::FrameDecoder::new(&mut input), payload.len(), bytes_max)?;
    match input.0.len() {
        0 => Ok(out),
        left => Err(Failure::Damaged(format!("{left} bytes behind the frame"))),
    }
}

fn compress_snappy(payload: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = snap::raw::Encoder::new();
    let mut out = Vec::with_capacity(SNAPPY_HEADER.len() + payload.len() / 2);
    out.extend_from_slice(&SNAPPY_HEADER);
    for block in payload.chunks(SNAPPY_BLOCK_BYTES) {
        let compressed = encoder.compress_vec(block).map_err(io::Error::other)?;
        out.extend_from_slice(&(compressed.len() as u32).to_be_bytes());
        out.extend_from_slice(&compressed);
    }
    Ok(out)
}

fn decompress_snappy(payload: &[u8], bytes_max: usize) -> Result<Vec<u8>, Failure> {
    let mut out = Vec::new();
    // The versions behind the magic have never been anything but 1; Java ignores them.
    let Some(mut blocks) = payload.strip_prefix(&SNAPPY_HEADER[..8]).and_then(|rest| rest.get(8..)) else {
        snappy_block(payload, &mut out, bytes_max)?;
        return Ok(out);
    };
    while !blocks.is_empty() {
        let length =
            blocks.try_get_u32().map_err(|_| Failure::Damaged("a block length is cut off".into()))?;
        let (block, behind) = blocks
            .split_at_checked(length as usize)
            .ok_or_else(|| Failure::Damaged(format!("a block of {length} bytes is cut off")))?;
        snappy_block(block, &mut out, bytes_max)?;
        blocks = behind;
    }
    Ok(out)
}

fn snappy_block(block: &[u8], out: &mut Vec<u8>, bytes_max: usize) -> Result<(), Failure> {
    let filled = out.len();
    let length = snap::raw::decompress_len(block)?;
    if length > bytes_max - filled {
        return Err(Failure::TooLarge);
    }
    // The length was read from the block: a snappy byte gives at most 64, so a longer claim is a lie.
    if length / 64 > block.len() {
        return Err(Failure::Damaged(format!("a block of {} bytes claims {length}", block.len())));
    }
    out.resize(filled + length, 0);
    let written = snap::raw::Decoder::new().decompress(block, &mut out[filled..])?;
    out.truncate(filled + written);
    Ok(())
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod codec_tests;
