//! Long polls: fetches that wait until one of their partitions has more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// Wakes one parked fetch. The fetch hands it to the shards of its partitions and drops it when it is answered.
#[derive(Debug, Default)]
pub(crate) struct FetchWatch {
    notify: Notify,
    over: AtomicBool,
}

impl FetchWatch {
    /// Waits until a partition has more than its last answer said. A wake-up that came before counts.
    pub(crate) async fn woken(&self) {
        self.notify.notified().await;
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

/// Held by the fetch itself. When it is answered, or its client has gone, shards forget the watch as they come across it.
#[derive(Debug, Default)]
pub(crate) struct WatchGuard(pub(crate) Arc<FetchWatch>);

impl Drop for WatchGuard {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}

/// The fetches that wait at one partition.
///
/// Invariant: at most twice as many entries as live fetches, plus a few: a fetch that is answered elsewhere leaves its
/// entry behind until the list has doubled.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    waiting: Vec<Arc<FetchWatch>>,
    /// The length at which entries that are over are swept out.
    sweep_at: usize,
}

/// Entries below which sweeping is not worth it.
const SWEEP_AT_LEAST: usize = 4;

impl Watchers {
    pub(super) fn add(&mut self, watch: &Arc<FetchWatch>) {
        if self.waiting.iter().any(|waiting| Arc::ptr_eq(waiting, watch)) {
            return;
        }
        if self.waiting.len() >= self.sweep_at.max(SWEEP_AT_LEAST) {
            self.waiting.retain(|waiting| !waiting.is_over());
            self.sweep_at = 2 * self.waiting.len();
        }
        self.waiting.push(Arc::clone(watch));
    }

    /// Wakes all and forgets them: who still waits comes back with its next question.
    pub(super) fn wake(&mut self) {
        for watch in self.waiting.drain(..) {
            watch.notify.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polls_of_an_idle_partition_leave_nothing_behind() {
        let mut watchers = Watchers::default();
        for _ in 0..1000 {
            let guard = WatchGuard::default();
            watchers.add(&guard.0);
        }
        assert!(watchers.waiting.len() <= SWEEP_AT_LEAST + 1, "{}", watchers.waiting.len());
        watchers.wake();
        assert!(watchers.waiting.is_empty());
    }
}
