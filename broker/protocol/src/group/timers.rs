//! Deadlines inside of a core. A deadline is never cancelled: whoever is woken looks whether it still means anything.

use std::collections::BTreeMap;
use std::time::Duration;

/// Deadlines with a value each, by time and then by insertion.
#[derive(Clone, Debug)]
pub(super) struct Timers<K> {
    entries: BTreeMap<(Duration, u64), K>,
    next: u64,
}

impl<K> Default for Timers<K> {
    fn default() -> Timers<K> {
        Timers { entries: BTreeMap::new(), next: 0 }
    }
}

impl<K> Timers<K> {
    pub(super) fn insert(&mut self, at: Duration, value: K) {
        self.entries.insert((at, self.next), value);
        self.next += 1;
    }

    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<Duration> {
        self.entries.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes out the earliest that is due.
    pub(super) fn pop_due(&mut self, now: Duration) -> Option<K> {
        let first = self.entries.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }
}
