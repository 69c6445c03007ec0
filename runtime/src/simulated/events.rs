//! What happened in a simulated world: a running hash over every event, counters by kind, and a trace if one is wanted.
//!
//! The hash is how two runs of one seed are compared; the counters say which faults struck.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::time::Instant;

/// One line of a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceEvent {
    /// Simulated time.
    pub at: Instant,
    /// The node that it happened on, or `None` for the world itself.
    pub node: Option<u32>,
    /// What kind of event: the names that [`Events::counters`] counts.
    pub kind: &'static str,
    /// Of something that arrived over the network: from which node, and when it was sent.
    pub sent: Option<(u32, Instant)>,
    /// The particulars, for a person.
    pub text: String,
}

/// The record of one simulated world. Clones share it.
#[derive(Clone, Default)]
pub struct Events(Arc<Mutex<Record>>);

#[derive(Default)]
struct Record {
    hash: u64,
    count: u64,
    now: Instant,
    counters: BTreeMap<&'static str, u64>,
    trace: Option<Vec<TraceEvent>>,
}

impl Events {
    /// An empty record; with `traced`, every event is also kept as a [`TraceEvent`].
    pub fn new(traced: bool) -> Self {
        let record = Record { trace: traced.then(Vec::new), ..Record::default() };
        Self(Arc::new(Mutex::new(record)))
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in one event: into the hash (kind, node, time, `facts`), into its counter, and into the trace, for which
    /// alone `text` is called.
    pub fn note(
        &self,
        at: Instant,
        node: Option<u32>,
        kind: &'static str,
        facts: &[u64],
        text: impl FnOnce() -> String,
    ) {
        self.note_arrival(at, node, None, kind, facts, text);
    }

    /// As [`Events::note`], of something that another node sent at that time.
    pub fn note_arrival(
        &self,
        at: Instant,
        node: Option<u32>,
        sent: Option<(u32, Instant)>,
        kind: &'static str,
        facts: &[u64],
        text: impl FnOnce() -> String,
    ) {
        let mut record = self.record();
        record.now = record.now.max(at);
        record.count += 1;
        *record.counters.entry(kind).or_default() += 1;
        let mut hash =
            mix(record.hash, kind.len() as u64 ^ u64::from(crc32fast::hash(kind.as_bytes())) << 32);
        hash = mix(hash, at.since_origin().as_nanos() as u64);
        hash = mix(hash, node.map_or(u64::MAX, u64::from));
        record.hash = facts.iter().fold(hash, |hash, fact| mix(hash, *fact));
        if record.trace.is_some() {
            let text = text();
            if let Some(trace) = &mut record.trace {
                trace.push(TraceEvent { at, node, kind, sent, text });
            }
        }
    }

    /// The hash over all events so far.
    pub fn hash(&self) -> u64 {
        self.record().hash
    }

    /// How many events there were.
    pub fn count(&self) -> u64 {
        self.record().count
    }

    /// The time of the last event.
    pub fn last(&self) -> Instant {
        self.record().now
    }

    /// How often each kind of event occurred.
    pub fn counters(&self) -> BTreeMap<&'static str, u64> {
        self.record().counters.clone()
    }

    /// How often this kind occurred.
    pub fn counter(&self, kind: &str) -> u64 {
        self.record().counters.get(kind).copied().unwrap_or_default()
    }

    /// Takes the trace out; empty if none was asked for. Tracing goes on.
    pub fn take_trace(&self) -> Vec<TraceEvent> {
        self.record().trace.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Whether a trace is kept.
    pub fn is_traced(&self) -> bool {
        self.record().trace.is_some()
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let record = self.record();
        f.debug_struct("Events")
            .field("hash", &record.hash)
            .field("count", &record.count)
            .finish_non_exhaustive()
    }
}

/// One step of the running hash: the finalizer of splitmix64 over the old hash and the new value.
fn mix(hash: u64, value: u64) -> u64 {
    let mut x = hash.wrapping_add(0x9e37_79b9_7f4a_7c15) ^ value;
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A checksum of bytes, as a fact for [`Events::note`].
pub(crate) fn digest(bytes: &[u8]) -> u64 {
    u64::from(crc32fast::hash(bytes)) << 32 | bytes.len() as u64 & 0xffff_ffff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_depends_on_order_kind_time_node_and_facts() {
        let hash = |events: &[(u64, Option<u32>, &'static str, u64)]| {
            let record = Events::new(false);
            for (at, node, kind, fact) in events {
                let at = Instant::ORIGIN + std::time::Duration::from_nanos(*at);
                record.note(at, *node, kind, &[*fact], String::new);
            }
            record.hash()
        };
        let base = [(1, Some(1), "a", 1), (2, Some(2), "b", 2)];
        assert_eq!(hash(&base), hash(&base));
        let others = [
            [base[1], base[0]],
            [(9, Some(1), "a", 1), base[1]],
            [(1, None, "a", 1), base[1]],
            [(1, Some(1), "c", 1), base[1]],
            [(1, Some(1), "a", 7), base[1]],
        ];
        for other in others {
            assert_ne!(hash(&base), hash(&other), "{other:?}");
        }
    }

    #[test]
    fn a_trace_is_kept_only_when_asked_for() {
        let silent = Events::new(false);
        silent.note(Instant::ORIGIN, None, "kill", &[], || unreachable!("nobody reads it"));
        assert_eq!(silent.counter("kill"), 1);
        let traced = Events::new(true);
        traced.note(Instant::ORIGIN, Some(3), "kill", &[], || "broker-3".to_owned());
        let trace = traced.take_trace();
        assert_eq!((trace[0].node, trace[0].kind, trace[0].text.as_str()), (Some(3), "kill", "broker-3"));
        assert_ne!(silent.hash(), traced.hash(), "the node is part of the hash");
    }
}
