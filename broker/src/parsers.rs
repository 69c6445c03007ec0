//! What peers and the groups' log feed to the broker, without sockets and disks: for property tests and fuzzing.

use bytes::Bytes;
use weir_protocol::group::Record;
use weir_wire::offsets_topic::RecordError;

pub use crate::api::{AnsweredByHand, FetchSessionsByHand};
use crate::group::records;
use crate::peer;

/// Reads a record of `__consumer_offsets`; `None` if it is about something that is not known.
///
/// # Errors
/// The record is none that a coordinator has written.
pub fn decode_group_record(key: &[u8], value: Option<&[u8]>) -> Result<Option<Record>, RecordError> {
    records::decode(key, value)
}

/// Writes a record of `__consumer_offsets`: its key and its value.
pub fn encode_group_record(record: &Record) -> (Bytes, Option<Bytes>) {
    records::encode(record)
}

/// How many kinds of messages nodes send each other.
pub const PEER_MESSAGES: usize = 3;

/// Reads a message of another node, and writes it again: a first frame, what is called over a control lane, and what is
/// answered there. `None` if it is none.
pub fn reencode_peer_message(kind: u8, message: &[u8]) -> Option<Bytes> {
    peer::reencode_message(kind, message)
}

/// An encoded message of a kind, drawn by a number.
pub fn sample_peer_message(kind: u8, number: u64) -> Bytes {
    peer::sample_message(kind, number)
}
