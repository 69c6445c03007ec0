use bytes::Bytes;

use super::record::Records;
use super::{BatchError, BatchHeader, CRC_START, HEADER_BYTES};
use crate::codec;

/// One whole batch: its header as numbers and its bytes.
/// Invariant: `bytes.len() == header.size_bytes()`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The header.
    pub header: BatchHeader,
    /// The batch, header included.
    pub bytes: Bytes,
}

impl Batch {
    /// Takes the first batch off the front of `bytes`, without a copy.
    ///
    /// # Errors
    /// What [`BatchHeader::parse`] refuses, and `Truncated` when the batch goes on behind `bytes`.
    pub fn split_from(bytes: &mut Bytes) -> Result<Batch, BatchError> {
        let header = BatchHeader::parse(bytes)?;
        let needed = header.size_bytes();
        if needed > bytes.len() {
            return Err(BatchError::Truncated { needed, available: bytes.len() });
        }
        Ok(Batch { header, bytes: bytes.split_to(needed) })
    }

    /// Compares the CRC-32C of the bytes with the header's.
    ///
    /// # Errors
    /// `Checksum` with both values.
    pub fn verify_crc(&self) -> Result<(), BatchError> {
        let computed = crc32c::crc32c(&self.bytes[CRC_START..]);
        if computed != self.header.crc {
            return Err(BatchError::Checksum { stored: self.header.crc, computed });
        }
        Ok(())
    }

    /// The records as they stand in the batch, possibly compressed. No copy.
    pub fn payload(&self) -> Bytes {
        self.bytes.slice(HEADER_BYTES..)
    }

    /// The records, decompressed to at most `bytes_max` bytes; uncompressed ones are not copied and not bounded.
    ///
    /// # Errors
    /// `UnknownCodec`, and `Codec` when the payload is damaged or would exceed the bound.
    pub fn records(&self, bytes_max: usize) -> Result<Records, BatchError> {
        let compression = self.header.compression()?;
        let payload = codec::decompress_bytes(compression, self.payload(), bytes_max)?;
        Ok(Records::new(self.header, payload))
    }
}

/// Iterates over concatenated batches without copying them. After the first error it ends.
pub fn batches(bytes: Bytes) -> Batches {
    Batches { rest: bytes }
}

/// See [`batches`].
#[derive(Debug, Clone)]
pub struct Batches {
    rest: Bytes,
}

impl Iterator for Batches {
    type Item = Result<Batch, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let batch = Batch::split_from(&mut self.rest);
        if batch.is_err() {
            self.rest = Bytes::new();
        }
        Some(batch)
    }
}
