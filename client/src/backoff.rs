//! How long to wait before the next attempt.

use std::time::Duration;

/// Doubles from `first` to `max`, and takes off up to a fifth at random, so that clients do not come back together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    pub(crate) first: Duration,
    pub(crate) max: Duration,
}

impl Backoff {
    /// The wait before attempt number `attempt`, counted from 1 for the first repetition.
    pub(crate) fn before(&self, attempt: u32) -> Duration {
        let doubled =
            self.first.saturating_mul(1u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX));
        let wait = doubled.min(self.max);
        let fifth_ns = u64::try_from(wait.as_nanos() / 5).unwrap_or(u64::MAX);
        wait.saturating_sub(Duration::from_nanos(weir_runtime::random::below(fifth_ns.saturating_add(1))))
    }
}
