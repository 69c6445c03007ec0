//! What is kept of segments while they are in use, within a bound: open files, and the indexes of sealed segments.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use weir_protocol::types::Offset;

use crate::catalog::SlotId;

/// Locks, whatever happened to the last owner: what is behind our locks is never left half changed.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A segment: its log and its base offset.
pub(crate) type SegmentKey = (SlotId, Offset);

/// A cache bounded by the weight of its values. Lookup, insertion and eviction (second chance) take constant time.
pub(crate) struct Cache<V> {
    inner: Mutex<Inner<V>>,
    weight_max: usize,
}

struct Inner<V> {
    /// Invariant: `places[key]` is the place of `key` in `entries`. Never iterated: its order is not determined.
    places: HashMap<SegmentKey, usize>,
    entries: Vec<Entry<V>>,
    /// Where the search for an entry to drop goes on.
    hand: usize,
    weight: usize,
    /// Counts removals: what was read from disk before one may describe a segment that is gone.
    removals: u64,
}

struct Entry<V> {
    key: SegmentKey,
    value: V,
    weight: usize,
    used: bool,
}

/// Names a moment: see [`Cache::insert`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment(u64);

impl<V: Clone> Cache<V> {
    /// Room for values that weigh `weight_max` together. The value that was added last stays in any case.
    pub(crate) fn new(weight_max: usize) -> Cache<V> {
        let inner = Inner { places: HashMap::new(), entries: Vec::new(), hand: 0, weight: 0, removals: 0 };
        Cache { inner: Mutex::new(inner), weight_max }
    }

    /// A segment's value, or the moment to hand to [`Cache::insert`] once it was had from the disk.
    pub(crate) fn get(&self, key: SegmentKey) -> Result<V, Moment> {
        let mut inner = lock(&self.inner);
        match inner.places.get(&key).copied() {
            Some(place) => {
                let entry = &mut inner.entries[place];
                entry.used = true;
                Ok(entry.value.clone())
            }
            None => Err(Moment(inner.removals)),
        }
    }

    /// Keeps a value that was read from disk since that moment. If any segment was removed in between, it is not kept: it may be that
    /// segment's.
    pub(crate) fn insert(&self, key: SegmentKey, value: V, weight: usize, since: Moment) {
        let mut inner = lock(&self.inner);
        if since.0 == inner.removals {
            inner.put(key, value, weight, self.weight_max);
        }
    }

    /// Keeps a value that is right, whatever was there.
    pub(crate) fn replace(&self, key: SegmentKey, value: V, weight: usize) {
        lock(&self.inner).put(key, value, weight, self.weight_max);
    }

    /// Forgets a segment that is being removed or cut.
    pub(crate) fn remove(&self, key: SegmentKey) {
        let mut inner = lock(&self.inner);
        inner.removals += 1;
        inner.drop_entry(key);
    }

    /// Forgets a log.
    pub(crate) fn remove_log(&self, slot: SlotId) {
        let mut inner = lock(&self.inner);
        inner.removals += 1;
        inner.drop_all(|entry| entry.key.0 == slot);
    }

    /// Forgets what was not used since the last call. Returns how much is left.
    pub(crate) fn sweep(&self) -> usize {
        let mut inner = lock(&self.inner);
        inner.drop_all(|entry| !entry.used);
        inner.entries.iter_mut().for_each(|entry| entry.used = false);
        inner.entries.len()
    }

    /// How many values there are.
    pub(crate) fn len(&self) -> usize {
        lock(&self.inner).entries.len()
    }
}

impl<V> Inner<V> {
    fn put(&mut self, key: SegmentKey, value: V, weight: usize, weight_max: usize) {
        self.drop_entry(key);
        while self.weight + weight > weight_max && !self.entries.is_empty() {
            let victim = self.victim();
            self.drop_entry(victim);
        }
        self.weight += weight;
        self.entries.push(Entry { key, value, weight, used: true });
        self.places.insert(key, self.entries.len() - 1);
    }

    fn drop_entry(&mut self, key: SegmentKey) {
        let Some(place) = self.places.remove(&key) else { return };
        self.weight -= self.entries.swap_remove(place).weight;
        if let Some(moved) = self.entries.get(place) {
            self.places.insert(moved.key, place);
        }
    }

    fn drop_all(&mut self, unwanted: impl Fn(&Entry<V>) -> bool) {
        let keys: Vec<SegmentKey> =
            self.entries.iter().filter(|entry| unwanted(entry)).map(|entry| entry.key).collect();
        for key in keys {
            self.drop_entry(key);
        }
    }

    /// An entry that was not used since the hand passed it last.
    fn victim(&mut self) -> SegmentKey {
        loop {
            self.hand = (self.hand + 1) % self.entries.len();
            let entry = &mut self.entries[self.hand];
            if !std::mem::take(&mut entry.used) {
                return entry.key;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(cache: &Cache<u32>) -> Moment {
        cache.get((u32::MAX, 0)).unwrap_err()
    }

    #[test]
    fn the_bound_holds_and_what_is_used_stays() {
        let cache = Cache::new(10);
        for number in 0..100 {
            let moment = now(&cache);
            cache.insert((number, 0), number, 2, moment);
            assert!(cache.len() <= 5);
            assert_eq!(cache.get((number, 0)), Ok(number), "the last one is there");
            let _ = cache.get((0, 0));
        }
        assert_eq!(cache.get((0, 0)), Ok(0), "used between any two others");
        cache.replace((7, 7), 7, 1000);
        assert_eq!(cache.len(), 1, "too heavy, and alone");
    }

    #[test]
    fn a_value_from_before_a_removal_is_not_kept() {
        let cache = Cache::new(10);
        let moment = now(&cache);
        cache.remove((1, 0));
        cache.insert((1, 0), 1, 1, moment);
        assert!(cache.get((1, 0)).is_err());
        cache.insert((1, 0), 1, 1, now(&cache));
        cache.insert((1, 9), 1, 1, now(&cache));
        cache.insert((2, 0), 2, 1, now(&cache));
        cache.remove_log(1);
        assert_eq!((cache.len(), cache.get((2, 0))), (1, Ok(2)));
    }

    #[test]
    fn a_sweep_drops_what_was_idle_since_the_last_one() {
        let cache = Cache::new(10);
        for number in 0..3 {
            cache.insert((number, 0), number, 1, now(&cache));
        }
        assert_eq!(cache.sweep(), 3);
        let _ = cache.get((1, 0));
        assert_eq!(cache.sweep(), 1);
        assert_eq!(cache.sweep(), 0);
    }
}
