//! Record batches of magic 2 (KIP-98), the unit of the log: the same bytes on the wire, in the journal, in
//! segments and in fetch responses.
//!
//! Layout of a batch, all numbers big-endian:
//!
//! ```text
//!  0  base offset             i64   outside the CRC: filled in by the leader
//!  8  batch length            i32   of everything after this field
//! 12  partition leader epoch  i32   outside the CRC: filled in by the leader
//! 16  magic                   i8    2
//! 17  crc                     u32   CRC-32C of everything from 21 to the end
//! 21  attributes              i16   0–2 codec, 3 timestamp type, 4 transactional, 5 control, 6 delete horizon
//! 23  last offset delta       i32
//! 27  base timestamp          i64   ms
//! 35  max timestamp           i64   ms
//! 43  producer id             i64   -1: none
//! 51  producer epoch          i16
//! 53  base sequence           i32
//! 57  record count            i32
//! 61  records                       compressed as a whole by the codec
//! ```
//!
//! A record: `length varint, attributes i8, timestamp delta varlong, offset delta varint, key, value,
//! header count varint, headers`, where key, value and each header's key and value are a varint length
//! (-1: null) and the bytes.

mod assign;
mod batch;
mod builder;
mod error;
mod header;
mod outside;
mod record;
mod retain;
mod validate;
pub(crate) mod varint;

#[cfg(test)]
mod records_tests;

pub use assign::{Assigned, assign};
pub use batch::{Batch, Batches, batches};
pub use builder::{BatchBuilder, Producer};
pub use error::BatchError;
pub use header::{BatchHeader, TimestampType};
pub use outside::OutsideCrc;
pub use record::{Headers, Record, Records, RecordsIter};
pub use retain::Retained;
pub use validate::{ProduceLimits, validate_produced};

/// Bytes of a batch before its records.
pub const HEADER_BYTES: usize = 61;
/// Bytes of a batch that its length field does not count: base offset and the field itself.
pub const LENGTH_OVERHEAD_BYTES: usize = 12;
/// Where the part that the CRC covers begins.
pub const CRC_START: usize = 21;
/// The only magic that Weir reads and writes.
pub const MAGIC: i8 = 2;
/// "No producer": the batch is neither idempotent nor transactional.
pub const NO_PRODUCER_ID: i64 = -1;
/// "No timestamp", as clients of old send it.
pub const NO_TIMESTAMP: i64 = -1;

pub(crate) const ATTRIBUTE_CODEC: u16 = 0b0000_0111;
pub(crate) const ATTRIBUTE_LOG_APPEND_TIME: u16 = 0b0000_1000;
pub(crate) const ATTRIBUTE_TRANSACTIONAL: u16 = 0b0001_0000;
pub(crate) const ATTRIBUTE_CONTROL: u16 = 0b0010_0000;
pub(crate) const ATTRIBUTE_DELETE_HORIZON: u16 = 0b0100_0000;
pub(crate) const ATTRIBUTES_KNOWN: u16 = 0b0111_1111;
