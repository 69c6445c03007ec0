//! Clocks, and timers that can be moved and cancelled.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::shared::Shared;
use crate::time::{Instant, TimerId};

pub(crate) fn now_ns() -> u64 {
    Shared::current().look_at_clock().as_nanos()
}

pub(crate) fn wall_ms() -> i64 {
    let shared = Shared::current();
    let (now, node) = (shared.now(), shared.node());
    shared.machines().clocks.get(node as usize).map_or(0, |clock| clock.wall_ms(now))
}

/// An entry in the driver's queue.
pub(crate) struct Timer {
    shared: Arc<Shared>,
    at: Instant,
    /// The entry, and whom it wakes.
    waiting: Option<(TimerId, Waker)>,
}

impl Timer {
    pub(crate) fn new(at: Instant) -> Timer {
        Timer { shared: Shared::current(), at, waiting: None }
    }

    pub(crate) fn reset(&mut self, at: Instant) {
        self.cancel();
        self.at = at;
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.shared.now() >= self.at {
            self.cancel();
            return Poll::Ready(());
        }
        if self.waiting.as_ref().is_none_or(|(_, waker)| !waker.will_wake(cx.waker())) {
            self.cancel();
            let id = self.shared.add_timer(self.at, cx.waker().clone());
            self.waiting = Some((id, cx.waker().clone()));
        }
        Poll::Pending
    }

    fn cancel(&mut self) {
        if let Some((id, _)) = self.waiting.take() {
            self.shared.cancel_timer(id);
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.cancel();
    }
}
