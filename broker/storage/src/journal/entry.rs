//! The journal's entries and their bytes.
//!
//! | bytes | of an entry |
//! |---|---|
//! | 0 | kind |
//! | 1 | zero |
//! | 2..4 | bytes of fields |
//! | 4..8 | bytes of data |
//! | then | the fields, little-endian, in the order of the enum; a log is its topic's 16 bytes and its partition's 4 |
//! | then | the data |
//!
//! An entry may have more fields than a program knows: it leaves them. A kind that it does not know needs a new
//! [`super::block::FORMAT_VERSION`].

use bytes::Bytes;
use uuid::Uuid;
use weir_protocol::types::{LogId, TopicId};

use super::block::layout::RoundWriter;
use super::block::{u16_at, u32_at};

const HEAD_BYTES: usize = 8;
const LOG_BYTES: usize = 20;
const FIELDS_MAX: usize = LOG_BYTES + 4 + 8 * 5;
/// Bytes of one log in [`KIND_TOUCHED`]'s data.
pub(super) const TOUCHED_BYTES: usize = LOG_BYTES + 8;

const KIND_APPEND: u8 = 1;
const KIND_TRUNCATE: u8 = 2;
const KIND_START_OFFSET: u8 = 3;
const KIND_EPOCH: u8 = 4;
const KIND_CREATE: u8 = 5;
const KIND_DELETE: u8 = 6;
/// The journal's own: what the round before this one touched.
const KIND_TOUCHED: u8 = 128;

/// What compaction has left of a log, here or where it was copied from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Compacted {
    /// Below, each key's earlier records are gone where a later one stands below as well.
    pub to: i64,
    /// Below, offsets may have gaps; from here on what is missing is lost.
    pub gaps_below: i64,
    /// Below, tombstones may be gone together with what they have deleted: whoever holds records from below and has not seen the rest
    /// would bring back what was deleted.
    pub deletions_forgotten_to: i64,
}

impl Compacted {
    fn is_any(&self) -> bool {
        *self != Compacted::default()
    }

    /// There is a gap before this offset.
    pub(crate) fn gap_before(&mut self, offset: i64) {
        self.gaps_below = self.gaps_below.max(offset);
    }

    /// Whether nothing may stand between two offsets, the one that comes next and the one that does.
    pub(crate) fn allows_gap(gaps_below: i64, from: i64, to: i64) -> bool {
        from >= to || to <= gaps_below
    }

    /// The log was cut.
    pub(crate) fn cut(&mut self, end: i64) {
        self.to = self.to.min(end);
        self.gaps_below = self.gaps_below.min(end);
        self.deletions_forgotten_to = self.deletions_forgotten_to.min(end);
    }

    /// Takes in what is known besides.
    pub(crate) fn raise(&mut self, other: Compacted) {
        self.to = self.to.max(other.to);
        self.gaps_below = self.gaps_below.max(other.gaps_below);
        self.deletions_forgotten_to = self.deletions_forgotten_to.max(other.deletions_forgotten_to);
    }
}

/// One journalled fact about a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// Record batches at the end of a log.
    Append {
        /// The log.
        log: LogId,
        /// The leader epoch of the batches.
        leader_epoch: i32,
        /// The first batch's first offset.
        base_offset: i64,
        /// The offset after the last batch's last one.
        next_offset: i64,
        /// The segment, by its base offset.
        segment_base: i64,
        /// Where in the segment's file the bytes begin.
        position: u64,
        /// The greatest timestamp in the batches.
        max_timestamp_ms: i64,
        /// The batches' bytes.
        data: Vec<Bytes>,
    },
    /// The log ends here: the segment is cut, later segments are removed.
    Truncate {
        /// The log.
        log: LogId,
        /// The log's new end.
        end: i64,
        /// The segment that is cut, by its base offset.
        segment_base: i64,
        /// The length to which its file is cut.
        position: u64,
    },
    /// The log starts here: what lies before is gone.
    StartOffset {
        /// The log.
        log: LogId,
        /// The log's new start.
        start: i64,
    },
    /// A leader epoch begins.
    Epoch {
        /// The log.
        log: LogId,
        /// The epoch.
        epoch: i32,
        /// The first offset that it may write.
        start: i64,
    },
    /// The log exists from here on, or its settings change, or it is compacted.
    Create {
        /// The log.
        log: LogId,
        /// Where it starts.
        start: i64,
        /// What the store wants to know about it; the journal does not look at it.
        flags: u32,
        /// How far it is compacted. Written where it is.
        compacted: Compacted,
    },
    /// The log and all that it holds is gone.
    Delete {
        /// The log.
        log: LogId,
    },
}

impl Entry {
    /// The log that the entry is about.
    pub fn log(&self) -> LogId {
        match self {
            Entry::Append { log, .. }
            | Entry::Truncate { log, .. }
            | Entry::StartOffset { log, .. }
            | Entry::Epoch { log, .. }
            | Entry::Create { log, .. }
            | Entry::Delete { log } => *log,
        }
    }

    /// Bytes that the entry takes in a round.
    pub fn encoded_bytes(&self) -> usize {
        let fields = match self {
            Entry::Append { .. } => LOG_BYTES + 4 + 8 * 5,
            Entry::Truncate { .. } => LOG_BYTES + 8 * 3,
            Entry::StartOffset { .. } => LOG_BYTES + 8,
            Entry::Create { compacted, .. } if compacted.is_any() => LOG_BYTES + 4 + 8 * 4,
            Entry::Epoch { .. } | Entry::Create { .. } => LOG_BYTES + 4 + 8,
            Entry::Delete { .. } => LOG_BYTES,
        };
        HEAD_BYTES + fields + self.data_bytes()
    }

    fn data_bytes(&self) -> usize {
        match self {
            Entry::Append { data, .. } => data.iter().map(Bytes::len).sum(),
            _ => 0,
        }
    }

    /// The log's end after the entry, where the entry is about it.
    fn end(&self) -> Option<i64> {
        match self {
            Entry::Append { next_offset, .. } => Some(*next_offset),
            Entry::Truncate { end, .. } => Some(*end),
            _ => None,
        }
    }

    pub(super) fn put(&self, round: &mut RoundWriter<'_>) {
        let mut fields = Fields::new();
        fields.log(self.log());
        let kind = match self {
            Entry::Append {
                leader_epoch,
                base_offset,
                next_offset,
                segment_base,
                position,
                max_timestamp_ms,
                ..
            } => {
                fields.put(&leader_epoch.to_le_bytes());
                for number in [base_offset, next_offset, segment_base] {
                    fields.put(&number.to_le_bytes());
                }
                fields.put(&position.to_le_bytes());
                fields.put(&max_timestamp_ms.to_le_bytes());
                KIND_APPEND
            }
            Entry::Truncate { end, segment_base, position, .. } => {
                fields.put(&end.to_le_bytes());
                fields.put(&segment_base.to_le_bytes());
                fields.put(&position.to_le_bytes());
                KIND_TRUNCATE
            }
            Entry::StartOffset { start, .. } => {
                fields.put(&start.to_le_bytes());
                KIND_START_OFFSET
            }
            Entry::Epoch { epoch, start, .. } => {
                fields.put(&epoch.to_le_bytes());
                fields.put(&start.to_le_bytes());
                KIND_EPOCH
            }
            Entry::Create { start, flags, compacted, .. } => {
                fields.put(&start.to_le_bytes());
                fields.put(&flags.to_le_bytes());
                if compacted.is_any() {
                    fields.put(&compacted.to.to_le_bytes());
                    fields.put(&compacted.gaps_below.to_le_bytes());
                    fields.put(&compacted.deletions_forgotten_to.to_le_bytes());
                }
                KIND_CREATE
            }
            Entry::Delete { .. } => KIND_DELETE,
        };
        round.put(&head(kind, fields.len, self.data_bytes()));
        round.put(&fields.bytes[..fields.len]);
        if let Entry::Append { data, .. } = self {
            data.iter().for_each(|chunk| round.put(chunk));
        }
    }

    /// `None`: too few fields for its kind, or a kind that is not known.
    fn parse(kind: u8, fields: &[u8], data: Bytes) -> Option<Entry> {
        let mut fields = fields;
        let log = take_log(&mut fields)?;
        Some(match kind {
            KIND_APPEND => Entry::Append {
                log,
                leader_epoch: take_i32(&mut fields)?,
                base_offset: take_i64(&mut fields)?,
                next_offset: take_i64(&mut fields)?,
                segment_base: take_i64(&mut fields)?,
                position: take_i64(&mut fields)? as u64,
                max_timestamp_ms: take_i64(&mut fields)?,
                data: vec![data],
            },
            KIND_TRUNCATE => Entry::Truncate {
                log,
                end: take_i64(&mut fields)?,
                segment_base: take_i64(&mut fields)?,
                position: take_i64(&mut fields)? as u64,
            },
            KIND_START_OFFSET => Entry::StartOffset { log, start: take_i64(&mut fields)? },
            KIND_EPOCH => Entry::Epoch { log, epoch: take_i32(&mut fields)?, start: take_i64(&mut fields)? },
            KIND_CREATE => Entry::Create {
                log,
                start: take_i64(&mut fields)?,
                flags: take_i32(&mut fields)? as u32,
                compacted: match fields.is_empty() {
                    true => Compacted::default(),
                    false => Compacted {
                        to: take_i64(&mut fields)?,
                        gaps_below: take_i64(&mut fields)?,
                        deletions_forgotten_to: take_i64(&mut fields)?,
                    },
                },
            },
            KIND_DELETE => Entry::Delete { log },
            _ => return None,
        })
    }
}

/// A log that a round touched: when the round does not read, its successor still says whom that concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Touched {
    /// The log.
    pub log: LogId,
    /// The log's end after the round; -1 if nothing in the round moved it.
    pub end: i64,
}

impl Touched {
    /// The logs of these entries, each once; `None` if they are more than `max`.
    pub(super) fn of(entries: &[Entry], max: usize) -> Option<Vec<Touched>> {
        let mut all: Vec<Touched> = Vec::new();
        for entry in entries {
            let log = entry.log();
            // Entries of one log mostly stand together.
            if all.last().is_none_or(|last| last.log != log) {
                if all.len() >= max.saturating_mul(2) {
                    Touched::merge(&mut all);
                }
                if all.len() >= max.saturating_mul(2) {
                    return None;
                }
                all.push(Touched { log, end: -1 });
            }
            if let (Some(last), Some(end)) = (all.last_mut(), entry.end()) {
                last.end = end;
            }
        }
        Touched::merge(&mut all);
        (all.len() <= max).then_some(all)
    }

    /// Leaves each log once, with the last end that was said.
    fn merge(all: &mut Vec<Touched>) {
        all.sort_by_key(|touched| touched.log);
        all.dedup_by(|later, earlier| {
            let same = later.log == earlier.log;
            if same && later.end >= 0 {
                earlier.end = later.end;
            }
            same
        });
    }

    /// Bytes that these take in a round.
    pub(super) fn encoded_bytes(touched: &[Touched]) -> usize {
        HEAD_BYTES + touched.len() * TOUCHED_BYTES
    }

    pub(super) fn put(touched: &[Touched], round: &mut RoundWriter<'_>) {
        round.put(&head(KIND_TOUCHED, 0, touched.len() * TOUCHED_BYTES));
        for Touched { log, end } in touched {
            let mut fields = Fields::new();
            fields.log(*log);
            fields.put(&end.to_le_bytes());
            round.put(&fields.bytes[..fields.len]);
        }
    }

    fn parse(data: &[u8]) -> Option<Vec<Touched>> {
        let mut rest = data;
        let mut touched = Vec::with_capacity(data.len() / TOUCHED_BYTES);
        while !rest.is_empty() {
            touched.push(Touched { log: take_log(&mut rest)?, end: take_i64(&mut rest)? });
        }
        Some(touched)
    }
}

/// What a round's body holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Body {
    /// The entries, in order.
    pub entries: Vec<Entry>,
    /// What the round before touched; `None` if it does not say.
    pub touched_before: Option<Vec<Touched>>,
}

impl Body {
    /// Reads a body of `count` entries. `None`: it is not one.
    pub fn parse(body: &Bytes, count: u32) -> Option<Body> {
        // The count is bounded by what the bytes can hold, whatever it claims.
        let mut parsed = Body {
            entries: Vec::with_capacity((count as usize).min(body.len() / HEAD_BYTES)),
            touched_before: None,
        };
        let mut at = 0;
        for _ in 0..count {
            let head = body.get(at..at + HEAD_BYTES)?;
            let (kind, fields_len, data_len) = (head[0], u16_at(head, 2) as usize, u32_at(head, 4) as usize);
            at += HEAD_BYTES;
            let fields_end = at.checked_add(fields_len)?;
            let data_end = fields_end.checked_add(data_len)?;
            if data_end > body.len() {
                return None;
            }
            if kind == KIND_TOUCHED {
                parsed.touched_before = Some(Touched::parse(&body[fields_end..data_end])?);
            } else {
                let data = body.slice(fields_end..data_end);
                parsed.entries.push(Entry::parse(kind, &body[at..fields_end], data)?);
            }
            at = data_end;
        }
        (at == body.len()).then_some(parsed)
    }
}

fn head(kind: u8, fields: usize, data: usize) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    head[0] = kind;
    head[2..4].copy_from_slice(&(fields as u16).to_le_bytes());
    head[4..8].copy_from_slice(&(data as u32).to_le_bytes());
    head
}

/// An entry's fields on their way into a round.
struct Fields {
    bytes: [u8; FIELDS_MAX],
    len: usize,
}

impl Fields {
    fn new() -> Fields {
        Fields { bytes: [0; FIELDS_MAX], len: 0 }
    }

    fn put(&mut self, field: &[u8]) {
        self.bytes[self.len..][..field.len()].copy_from_slice(field);
        self.len += field.len();
    }

    fn log(&mut self, log: LogId) {
        self.put(log.topic.0.as_bytes());
        self.put(&log.partition.to_le_bytes());
    }
}

fn take<const N: usize>(fields: &mut &[u8]) -> Option<[u8; N]> {
    let (field, rest) = fields.split_first_chunk::<N>()?;
    *fields = rest;
    Some(*field)
}

fn take_i32(fields: &mut &[u8]) -> Option<i32> {
    take(fields).map(i32::from_le_bytes)
}

fn take_i64(fields: &mut &[u8]) -> Option<i64> {
    take(fields).map(i64::from_le_bytes)
}

fn take_log(fields: &mut &[u8]) -> Option<LogId> {
    let topic = TopicId(Uuid::from_bytes(take(fields)?));
    Some(LogId { topic, partition: take_i32(fields)? })
}
