//! What a workload rests on, and how its records are known again.
//!
//! A [`Promise`] says what the system owes in this run: settings of topics and clients, and what the plan does to the
//! disks. A checker judges only what the promise covers, so that a clean run never fails.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::history::{Acks, Keyed, Log, ProcessId, Span};

/// When a topic's writes reach the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flush {
    /// `flush.messages=1`, Weir's default: durable before it is acknowledged.
    Sync,
    /// Any other setting: the page cache holds it, so that a power loss may take it.
    Os,
}

/// A place where the plan's atlas damages data at rest. There, and only there, the broker may answer CORRUPT_MESSAGE,
/// and records may be missing from a read that says so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// The damaged log; `None` where the damage may strike any (a journal holds all of a folder's logs).
    pub log: Option<Log>,
    /// The offsets; `None` where they are not known beforehand.
    pub span: Option<Span>,
}

/// When the run's last fault was healed for good, and how long an operation may take from then on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Liveness {
    /// The end of the last fault, in nanoseconds of the history's clock.
    pub healed_at_ns: u64,
    /// How long an operation may take that is under way then or starts later, in nanoseconds.
    pub bound_ns: u64,
}

/// Which producers are idempotent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Idempotence {
    /// None.
    None,
    /// All of them.
    All,
    /// These, and no others.
    Of(BTreeSet<ProcessId>),
}

impl Idempotence {
    /// Whether this producer is idempotent.
    pub fn covers(&self, producer: ProcessId) -> bool {
        match self {
            Idempotence::None => false,
            Idempotence::All => true,
            Idempotence::Of(producers) => producers.contains(&producer),
        }
    }
}

/// The topic in which the coordinators keep the groups' state.
const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// What the system owes in one run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promise {
    /// The acknowledgements after which a record must survive everything that the plan does.
    pub durable_acks: BTreeSet<Acks>,
    /// The topics' flush policy.
    pub flush: Flush,
    /// The plan takes power away. What was only in the page cache may then be gone.
    pub power_loss: bool,
    /// The plan damages the last acknowledged round of the only copy: it cannot be told from a torn tail, and the log may
    /// end before what was acknowledged.
    pub tail_damage: bool,
    /// Retention or DeleteRecords may cut the logs' beginnings.
    pub retention: bool,
    /// Topics of whose records only the last one of each key stays (`cleanup.policy=compact`).
    #[serde(default)]
    pub compacted: BTreeSet<Arc<str>>,
    /// Which producers are idempotent, without a gap: no state of theirs expires while a request of theirs may still be
    /// repeated.
    pub idempotent: Idempotence,
    /// Producers repeat a request whose answer they did not get.
    pub retries: bool,
    /// A consumer repeats, within one operation, a commit whose answer it did not get. The first request may then
    /// arrive after the operation ended, and undo what the same member committed since; so less can be judged.
    pub commit_retries: bool,
    /// An empty group may be removed, with or without its offsets: the retention of offsets is short, or clocks jump
    /// as far as it reaches. Its generations then start again from the first.
    pub groups_expire: bool,
    /// Sends of one process to one partition enter the log in the order in which they were invoked (at most one batch
    /// in flight, or idempotence).
    pub ordered_sends: bool,
    /// A deleted topic's records are not shown once the deletion was acknowledged. (True with one broker; in a
    /// cluster, a broker that lags may still show them.)
    pub deletion_is_immediate: bool,
    /// Every partition that was written to is read to its end after the load.
    pub final_read: bool,
    /// Where damage was planned.
    pub damage: Vec<Damage>,
    /// Until when everything must have been answered; `None` in runs that do not heal.
    pub liveness: Option<Liveness>,
}

impl Default for Promise {
    /// Weir's defaults: `sync` topics that keep everything, acks=all, a producer that repeats without idempotence and
    /// keeps its order, one broker, no damage.
    fn default() -> Self {
        Self {
            durable_acks: BTreeSet::from([Acks::All]),
            flush: Flush::Sync,
            power_loss: true,
            tail_damage: false,
            retention: false,
            compacted: BTreeSet::new(),
            idempotent: Idempotence::None,
            retries: true,
            commit_retries: false,
            groups_expire: false,
            ordered_sends: true,
            deletion_is_immediate: true,
            final_read: true,
            damage: Vec::new(),
            liveness: None,
        }
    }
}

impl Promise {
    /// Whether what was once shown, or acknowledged as [`Promise::durable_acks`] says, stays for ever.
    pub fn keeps_what_it_showed(&self) -> bool {
        (self.flush == Flush::Sync || !self.power_loss) && !self.tail_damage
    }

    /// Whether an acknowledgement of this kind binds the system.
    pub fn binds(&self, acks: Acks) -> bool {
        acks != Acks::None && self.durable_acks.contains(&acks) && self.keeps_what_it_showed()
    }

    /// Whether a value of this producer may stand at two offsets: it repeated a request without idempotence.
    pub fn allows_duplicates(&self, producer: ProcessId) -> bool {
        self.retries && !self.idempotent.covers(producer)
    }

    /// Whether what a group's coordinator answered stays for ever: nothing is planned that may strike its log.
    pub fn keeps_groups(&self) -> bool {
        let strikes = |damage: &Damage| damage.log.as_ref().is_none_or(|log| &*log.topic == OFFSETS_TOPIC);
        self.keeps_what_it_showed() && !self.damage.iter().any(strikes)
    }

    /// Whether damage was planned at this offset.
    pub fn excuses(&self, log: &Log, offset: i64) -> bool {
        self.damage.iter().any(|damage| {
            damage.log.as_ref().is_none_or(|damaged| damaged == log)
                && damage.span.is_none_or(|span| span.contains(offset))
        })
    }
}

/// Hands out the values of a run; no two are equal.
#[derive(Clone, Debug, Default)]
pub struct Values(Arc<AtomicU64>);

impl Values {
    /// The next value.
    pub fn next_value(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

const MAGIC: &[u8; 4] = b"weir";

/// The bytes of the smallest payload.
pub const PAYLOAD_BYTES_MIN: usize = 4 + 8;

/// The payload that carries a value: a mark, the value, and filling that follows from the value, so that any damage
/// shows. It has `size_bytes` bytes, but at least [`PAYLOAD_BYTES_MIN`].
pub fn payload(value: u64, size_bytes: usize) -> Bytes {
    let size_bytes = size_bytes.max(PAYLOAD_BYTES_MIN);
    let mut bytes = BytesMut::with_capacity(size_bytes + 8);
    bytes.put_slice(MAGIC);
    bytes.put_u64(value);
    let mut filling = Filling(value);
    while bytes.len() < size_bytes {
        bytes.put_u64(filling.next_word());
    }
    bytes.truncate(size_bytes);
    bytes.freeze()
}

/// The value that a payload carries; `None` where it is not one, or any byte of it is not what was written.
pub fn value_of(payload: &[u8]) -> Option<u64> {
    let rest = payload.strip_prefix(MAGIC)?;
    let (value, filled) = rest.split_first_chunk::<8>()?;
    let value = u64::from_be_bytes(*value);
    let mut filling = Filling(value);
    let matches = filled.chunks(8).all(|chunk| filling.next_word().to_be_bytes().starts_with(chunk));
    matches.then_some(value)
}

/// The header that each record of a compacted topic bears: a tombstone has no value by which it could be known again.
pub const MARK: &str = "weir";

/// What the [`MARK`] of a record says: its value, whether it is a tombstone, and its key.
pub fn mark(value: u64, keyed: &Keyed) -> Bytes {
    let mut bytes = BytesMut::from(&payload(value, PAYLOAD_BYTES_MIN)[..]);
    bytes.put_u8(u8::from(keyed.tombstone));
    bytes.put_slice(keyed.key.as_bytes());
    bytes.freeze()
}

/// The value of a record that bears a mark; `None` where key, content and mark do not belong together.
pub fn marked_value(mark: &[u8], key: Option<&[u8]>, payload: Option<&[u8]>) -> Option<u64> {
    let (head, rest) = mark.split_at_checked(PAYLOAD_BYTES_MIN)?;
    let (tombstone, marked_key) = rest.split_first()?;
    let value = value_of(head)?;
    let fits = match payload {
        Some(payload) => *tombstone == 0 && value_of(payload) == Some(value),
        None => *tombstone == 1,
    };
    (fits && key == Some(marked_key)).then_some(value)
}

/// SplitMix64, seeded with the value.
struct Filling(u64);

impl Filling {
    fn next_word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }
}

#[cfg(test)]
#[path = "workload_tests.rs"]
mod tests;
