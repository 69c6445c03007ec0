//! The records of `__consumer_offsets`, in Kafka's own format, so that tools that read that topic work.
//!
//! | key version | key | value (version 3) |
//! |---|---|---|
//! | 0, 1 | group, topic, partition | offset i64, leader epoch i32, metadata, commit timestamp i64 |
//! | 2 | group | protocol type, generation i32, protocol, leader, timestamp i64, members |
//!
//! A member is its id, instance id, client id, client host, rebalance and session timeout (i32, ms), subscription and
//! assignment. Text has a length of 16 bits, bytes one of 32 bits; -1 is null. Keys and values begin with their version.

use bytes::{Buf, BufMut, Bytes, BytesMut};

const OFFSET_KEY: i16 = 1;
const GROUP_KEY: i16 = 2;
/// The version of both values (KIP-320, KIP-345).
const VALUE: i16 = 3;

/// What a record is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// A committed offset.
    Offset {
        /// The group.
        group: String,
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
    },
    /// A group's generation.
    Group {
        /// The group.
        group: String,
    },
}

/// A committed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetValue {
    /// The offset.
    pub offset: i64,
    /// The epoch of the record before it; -1 is unknown.
    pub leader_epoch: i32,
    /// The client's own.
    pub metadata: String,
    /// In ms since 1970.
    pub commit_timestamp_ms: i64,
}

/// A group's generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupValue {
    /// Such as `consumer`.
    pub protocol_type: String,
    /// The generation.
    pub generation: i32,
    /// The protocol.
    pub protocol: Option<String>,
    /// Who assigns.
    pub leader: Option<String>,
    /// When it came to be so, in ms since 1970.
    pub state_timestamp_ms: i64,
    /// Its members.
    pub members: Vec<GroupMember>,
}

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMember {
    /// Its id.
    pub member_id: String,
    /// Its instance id.
    pub instance_id: Option<String>,
    /// As the client calls itself.
    pub client_id: String,
    /// Where it is.
    pub client_host: String,
    /// In ms.
    pub rebalance_timeout_ms: i32,
    /// In ms.
    pub session_timeout_ms: i32,
    /// What it said about the protocol.
    pub subscription: Bytes,
    /// What it was assigned.
    pub assignment: Bytes,
}

/// Why a record cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Written by a version of Weir, or of Kafka, that knows more.
    #[error("{what} of version {version} is not known")]
    Version {
        /// Key or value.
        what: &'static str,
        /// The version.
        version: i16,
    },
    /// The bytes end too soon, or a text is none.
    #[error("{0} does not read")]
    Malformed(&'static str),
}

impl Key {
    /// The record's key.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        match self {
            Key::Offset { group, topic, partition } => {
                out.put_i16(OFFSET_KEY);
                put_text(&mut out, Some(group));
                put_text(&mut out, Some(topic));
                out.put_i32(*partition);
            }
            Key::Group { group } => {
                out.put_i16(GROUP_KEY);
                put_text(&mut out, Some(group));
            }
        }
        out.freeze()
    }

    /// Reads a record's key.
    ///
    /// # Errors
    /// `Version`: the record is about something else. `Malformed`.
    pub fn decode(mut bytes: &[u8]) -> Result<Key, RecordError> {
        let malformed = || RecordError::Malformed("a key");
        let rest = &mut bytes;
        let version = rest.try_get_i16().map_err(|_| malformed())?;
        let key = match version {
            0 | OFFSET_KEY => (|| {
                let (group, topic) = (take_text(rest)??, take_text(rest)??);
                Some(Key::Offset { group, topic, partition: rest.try_get_i32().ok()? })
            })(),
            GROUP_KEY => take_text(rest).flatten().map(|group| Key::Group { group }),
            version => return Err(RecordError::Version { what: "a key", version }),
        };
        key.ok_or_else(malformed)
    }
}

impl OffsetValue {
    /// The record's value.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_i16(VALUE);
        out.put_i64(self.offset);
        out.put_i32(self.leader_epoch);
        put_text(&mut out, Some(&self.metadata));
        out.put_i64(self.commit_timestamp_ms);
        out.freeze()
    }

    /// Reads a record's value.
    ///
    /// # Errors
    /// `Version`, `Malformed`.
    pub fn decode(mut bytes: &[u8]) -> Result<OffsetValue, RecordError> {
        let rest = &mut bytes;
        check_version(rest, "an offset")?;
        let take = |rest: &mut &[u8]| {
            Some(OffsetValue {
                offset: rest.try_get_i64().ok()?,
                leader_epoch: rest.try_get_i32().ok()?,
                metadata: take_text(rest)??,
                commit_timestamp_ms: rest.try_get_i64().ok()?,
            })
        };
        take(rest).ok_or(RecordError::Malformed("an offset"))
    }
}

impl GroupValue {
    /// The record's value.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_i16(VALUE);
        put_text(&mut out, Some(&self.protocol_type));
        out.put_i32(self.generation);
        put_text(&mut out, self.protocol.as_deref());
        put_text(&mut out, self.leader.as_deref());
        out.put_i64(self.state_timestamp_ms);
        out.put_i32(self.members.len() as i32);
        for member in &self.members {
            put_text(&mut out, Some(&member.member_id));
            put_text(&mut out, member.instance_id.as_deref());
            put_text(&mut out, Some(&member.client_id));
            put_text(&mut out, Some(&member.client_host));
            out.put_i32(member.rebalance_timeout_ms);
            out.put_i32(member.session_timeout_ms);
            put_bytes(&mut out, &member.subscription);
            put_bytes(&mut out, &member.assignment);
        }
        out.freeze()
    }

    /// Reads a record's value.
    ///
    /// # Errors
    /// `Version`, `Malformed`.
    pub fn decode(mut bytes: &[u8]) -> Result<GroupValue, RecordError> {
        let rest = &mut bytes;
        check_version(rest, "a group")?;
        take_group(rest).ok_or(RecordError::Malformed("a group"))
    }
}

fn take_group(rest: &mut &[u8]) -> Option<GroupValue> {
    let mut group = GroupValue {
        protocol_type: take_text(rest)??,
        generation: rest.try_get_i32().ok()?,
        protocol: take_text(rest)?,
        leader: take_text(rest)?,
        state_timestamp_ms: rest.try_get_i64().ok()?,
        // Grows with what is there, not with what is announced.
        members: Vec::new(),
    };
    for _ in 0..rest.try_get_i32().ok()?.max(0) {
        group.members.push(GroupMember {
            member_id: take_text(rest)??,
            instance_id: take_text(rest)?,
            client_id: take_text(rest)??,
            client_host: take_text(rest)??,
            rebalance_timeout_ms: rest.try_get_i32().ok()?,
            session_timeout_ms: rest.try_get_i32().ok()?,
            subscription: take_bytes(rest)?,
            assignment: take_bytes(rest)?,
        });
    }
    Some(group)
}

fn check_version(rest: &mut &[u8], what: &'static str) -> Result<(), RecordError> {
    match rest.try_get_i16() {
        Ok(VALUE) => Ok(()),
        Ok(version) => Err(RecordError::Version { what, version }),
        Err(_) => Err(RecordError::Malformed(what)),
    }
}

/// Text that is too long for its length field is cut at a character: nothing that a client sends gets here that long.
fn put_text(out: &mut BytesMut, text: Option<&str>) {
    let Some(text) = text else {
        out.put_i16(-1);
        return;
    };
    let end = text.floor_char_boundary(text.len().min(i16::MAX as usize));
    out.put_i16(end as i16);
    out.put_slice(&text.as_bytes()[..end]);
}

fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    out.put_i32(bytes.len() as i32);
    out.put_slice(bytes);
}

/// The outer `None` is an error, the inner one null.
#[allow(clippy::option_option, reason = "null is a value of its own")]
fn take_text(rest: &mut &[u8]) -> Option<Option<String>> {
    let Ok(length) = usize::try_from(rest.try_get_i16().ok()?) else { return Some(None) };
    let (text, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(Some(std::str::from_utf8(text).ok()?.to_owned()))
}

/// Null is as good as empty.
fn take_bytes(rest: &mut &[u8]) -> Option<Bytes> {
    let length = usize::try_from(rest.try_get_i32().ok()?.max(0)).ok()?;
    let (bytes, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(Bytes::copy_from_slice(bytes))
}

#[cfg(test)]
#[path = "offsets_topic_tests.rs"]
mod tests;
