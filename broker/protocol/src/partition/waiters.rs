//! Appends that wait for their acknowledgement, in the order of their offsets.

use std::collections::VecDeque;

use super::Effect;
use crate::types::Offset;

/// The driver's name for an append that waits. Unique among those that wait in one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WaiterId(pub u64);

/// An append that waits until an end reaches `next_offset`.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) struct Waiter {
    pub(super) id: WaiterId,
    pub(super) base_offset: Offset,
    pub(super) next_offset: Offset,
}

/// Waiters for one end (the durable end or the high watermark).
///
/// Invariant: sorted by `next_offset`.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct WaiterQueue {
    waiters: VecDeque<Waiter>,
}

impl WaiterQueue {
    /// At the back, unless a repeated batch waits for an older offset.
    pub(super) fn insert(&mut self, waiter: Waiter) {
        let at = self.waiters.partition_point(|other| other.next_offset <= waiter.next_offset);
        self.waiters.insert(at, waiter);
    }

    /// Answers everyone whose records lie below `end`.
    pub(super) fn complete(&mut self, end: Offset, effects: &mut Vec<Effect>) {
        while let Some(waiter) = self.waiters.pop_front_if(|waiter| waiter.next_offset <= end) {
            effects.push(Effect::CompleteAppend { waiter: waiter.id, base_offset: waiter.base_offset });
        }
    }

    /// Takes out everyone with records at `end` or above.
    pub(super) fn cut(&mut self, end: Offset) -> impl Iterator<Item = WaiterId> + '_ {
        let first = self.waiters.partition_point(|waiter| waiter.next_offset <= end);
        self.waiters.drain(first..).map(|waiter| waiter.id)
    }

    /// Takes one out. Returns whether it was there.
    pub(super) fn remove(&mut self, id: WaiterId) -> bool {
        let found = self.waiters.iter().position(|waiter| waiter.id == id);
        found.and_then(|at| self.waiters.remove(at)).is_some()
    }

    pub(super) fn len(&self) -> usize {
        self.waiters.len()
    }

    pub(super) fn into_ids(self) -> impl Iterator<Item = WaiterId> {
        self.waiters.into_iter().map(|waiter| waiter.id)
    }

    /// Whether everyone waits for an offset in `(reached, log_end]`, in order.
    pub(super) fn all_within(&self, reached: Offset, log_end: Offset) -> bool {
        self.waiters.iter().all(|waiter| reached < waiter.next_offset && waiter.next_offset <= log_end)
            && self.waiters.iter().is_sorted_by_key(|waiter| waiter.next_offset)
    }
}
