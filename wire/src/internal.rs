//! Weir's own bytes: messages between brokers and small files. The only place that names `bincode`, so that it can
//! be exchanged (its maintenance has ended; see docs/adr).
//!
//! A *blob* is a whole small file of ours (checkpoint, vote, folder's identity): sealed with its kind, its format
//! version, its length and a checksum over all of it, so that a reader tells cut off, damaged and too new apart.
//!
//! ```text
//!  0  magic           4 bytes  which kind of file
//!  4  format version  u16      big-endian, as all numbers here
//!  6  reserved        u16      0
//!  8  payload length  u64
//! 16  crc             u32      CRC-32 (IEEE) of bytes 0 to 15 and the payload
//! 20  payload
//! ```

use bincode::config::{Config, Configuration};
use bincode::error::DecodeError;
use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes of a blob before its payload.
pub const BLOB_HEADER_BYTES: usize = 20;
/// The largest encoded value that [`decode`] takes, whatever its caller allows.
pub const VALUE_BYTES_MAX: usize = 64 << 20;
/// Where the checksum stands.
const CRC_AT: usize = 16;

/// Why a value could not be encoded or decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InternalError {
    /// The value has no encoding, or none within the limit.
    #[error("encoding {what}: {reason}")]
    Encode {
        /// The Rust type.
        what: &'static str,
        /// What the codec says.
        reason: String,
    },
    /// The bytes are not such a value.
    #[error("decoding {what} from {bytes} bytes: {reason}")]
    Decode {
        /// The Rust type.
        what: &'static str,
        /// Size of the input.
        bytes: usize,
        /// What the codec says.
        reason: String,
    },
    /// The input, or the encoding, exceeds the caller's limit.
    #[error("{what} of {bytes} bytes exceeds the limit of {limit}")]
    TooLarge {
        /// The Rust type.
        what: &'static str,
        /// Size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
}

fn config() -> Configuration {
    bincode::config::standard()
}

/// Encodes a value.
///
/// # Errors
/// `Encode` for values that serde or bincode cannot express.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Bytes, InternalError> {
    bincode::serde::encode_to_vec(value, config()).map(Bytes::from).map_err(|error| InternalError::Encode {
        what: std::any::type_name::<T>(),
        reason: error.to_string(),
    })
}

/// Decodes a value from exactly these bytes, of which there may be at most `bytes_max` (and [`VALUE_BYTES_MAX`]).
///
/// # Errors
/// `TooLarge`; `Decode` for anything that is not an encoded `T`, bytes behind it included.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], bytes_max: usize) -> Result<T, InternalError> {
    let what = std::any::type_name::<T>();
    let limit = bytes_max.min(VALUE_BYTES_MAX);
    if bytes.len() > limit {
        return Err(InternalError::TooLarge { what, bytes: bytes.len(), limit });
    }
    let refuse = |reason| InternalError::Decode { what, bytes: bytes.len(), reason };
    let (value, used) = decode_limited(bytes).map_err(|error| refuse(error.to_string()))?;
    if used != bytes.len() {
        return Err(refuse(format!("{} bytes are left", bytes.len() - used)));
    }
    Ok(value)
}

/// Decodes under a limit on what lengths in the bytes may claim, or bincode would reserve whatever they say. The
/// limit is a constant to bincode, hence the steps. A number of 8 bytes claims them all and may take one, so the
/// limit is at least 16 times the input.
fn decode_limited<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, usize), DecodeError> {
    fn under<T: DeserializeOwned, C: Config>(bytes: &[u8], config: C) -> Result<(T, usize), DecodeError> {
        bincode::serde::decode_from_slice(bytes, config)
    }
    const KIB: usize = 1 << 10;
    const MIB: usize = 1 << 20;
    match bytes.len() {
        len if len <= KIB => under(bytes, config().with_limit::<{ 16 * KIB }>()),
        len if len <= 64 * KIB => under(bytes, config().with_limit::<MIB>()),
        len if len <= MIB => under(bytes, config().with_limit::<{ 16 * MIB }>()),
        len if len <= 8 * MIB => under(bytes, config().with_limit::<{ 128 * MIB }>()),
        _ => under(bytes, config().with_limit::<{ 16 * VALUE_BYTES_MAX }>()),
    }
}

/// A kind of blob: four bytes that no other kind has, and the newest format version that this build knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobKind {
    /// The file's first four bytes.
    pub magic: [u8; 4],
    /// The newest version that this build reads, and the one that it writes.
    pub version: u16,
    /// What it is called in messages.
    pub name: &'static str,
}

/// Why a blob cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlobError {
    /// It ends too early: it was not written to its end.
    #[error("{name} is cut off: {available} of {needed} bytes")]
    Truncated {
        /// The kind.
        name: &'static str,
        /// Bytes that it should have.
        needed: u64,
        /// Bytes that it has.
        available: usize,
    },
    /// Its bytes are not what was written.
    #[error("{name} is damaged: {reason}")]
    Damaged {
        /// The kind.
        name: &'static str,
        /// How it shows.
        reason: String,
    },
    /// It is intact and was written by a newer Weir.
    #[error("{name} has format version {found}, this build knows up to {known}")]
    NewerFormat {
        /// The kind.
        name: &'static str,
        /// Its version.
        found: u16,
        /// The newest version known.
        known: u16,
    },
}

/// An opened blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blob<'a> {
    /// Its format version, at most the kind's.
    pub version: u16,
    /// What was sealed.
    pub payload: &'a [u8],
}

/// Seals a payload as a blob of the kind's version.
pub fn seal(kind: &BlobKind, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(BLOB_HEADER_BYTES + payload.len());
    out.put_slice(&kind.magic);
    out.put_u16(kind.version);
    out.put_u16(0);
    out.put_u64(payload.len() as u64);
    let crc = blob_crc(&out, payload);
    out.put_u32(crc);
    out.put_slice(payload);
    out.freeze()
}

/// Opens a blob that fills `bytes`. The checksum is compared before the version is believed, so that a flipped bit
/// is never taken for a newer format.
///
/// # Errors
/// See [`BlobError`].
pub fn open<'a>(kind: &BlobKind, bytes: &'a [u8]) -> Result<Blob<'a>, BlobError> {
    let name = kind.name;
    let damaged = |reason: String| Err(BlobError::Damaged { name, reason });
    let available = bytes.len();
    let Some((header, payload)) = bytes.split_first_chunk::<BLOB_HEADER_BYTES>() else {
        return Err(BlobError::Truncated { name, needed: BLOB_HEADER_BYTES as u64, available });
    };
    let [m0, m1, m2, m3, v0, v1, _, _, length @ .., c0, c1, c2, c3] = *header;
    let magic = [m0, m1, m2, m3];
    if magic != kind.magic {
        return damaged(format!("it begins with {magic:02x?} instead of {:02x?}", kind.magic));
    }
    let length = u64::from_be_bytes(length);
    if length > payload.len() as u64 {
        let needed = length.saturating_add(BLOB_HEADER_BYTES as u64);
        return Err(BlobError::Truncated { name, needed, available });
    }
    if length < payload.len() as u64 {
        return damaged(format!("{} bytes behind a payload of {length}", payload.len() as u64 - length));
    }
    let stored = u32::from_be_bytes([c0, c1, c2, c3]);
    let computed = blob_crc(&header[..CRC_AT], payload);
    if stored != computed {
        return damaged(format!("checksum is {computed:#010x}, its header says {stored:#010x}"));
    }
    let version = u16::from_be_bytes([v0, v1]);
    if version > kind.version {
        return Err(BlobError::NewerFormat { name, found: version, known: kind.version });
    }
    Ok(Blob { version, payload })
}

fn blob_crc(header: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header);
    hasher.update(payload);
    hasher.finalize()
}

#[cfg(test)]
#[path = "internal_tests.rs"]
mod internal_tests;
