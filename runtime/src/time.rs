//! Time: a monotonic clock for durations, a wall clock for data, and timers.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::future::poll_fn;
use std::ops::{Add, AddAssign, Sub};
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::imp;

/// A point on the monotonic clock, in nanoseconds since the runtime's origin.
///
/// In a real process the origin is about the process's start; in a simulation it is the node's. Never compare instants of
/// two processes, and never store one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(u64);

impl Instant {
    /// The runtime's origin, before every instant that [`now`] returns.
    pub const ORIGIN: Instant = Instant(0);
    /// Later than every instant that is ever reached.
    pub const FAR_FUTURE: Instant = Instant(u64::MAX);

    /// The time since the runtime's origin.
    pub const fn since_origin(self) -> Duration {
        Duration::from_nanos(self.0)
    }

    /// The time since the runtime's origin, in ms.
    pub const fn since_origin_ms(self) -> i64 {
        (self.0 / 1_000_000) as i64
    }

    /// The point that lies this long after the origin; durations beyond 584 years end at [`Instant::FAR_FUTURE`].
    pub const fn from_origin(elapsed: Duration) -> Instant {
        let nanos = elapsed.as_nanos();
        if nanos > u64::MAX as u128 { Instant::FAR_FUTURE } else { Instant(nanos as u64) }
    }

    /// Nanoseconds since the runtime's origin.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The point this many nanoseconds after the origin.
    pub const fn from_nanos(nanos: u64) -> Instant {
        Instant(nanos)
    }

    /// How long ago this was; zero if it lies in the future.
    pub fn elapsed(self) -> Duration {
        now() - self
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}s", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    /// Saturates at [`Instant::FAR_FUTURE`].
    fn add(self, duration: Duration) -> Instant {
        Instant::from_origin(self.since_origin().saturating_add(duration))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub for Instant {
    type Output = Duration;

    /// The time from `earlier` to this point, zero if `earlier` is the later one.
    fn sub(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// The monotonic clock. All durations, deadlines and sessions are measured with it.
pub fn now() -> Instant {
    Instant(imp::time::now_ns())
}

/// The wall clock in milliseconds since 1970. It may jump both ways: it is data (timestamps, retention), never safety.
pub fn wall_ms() -> i64 {
    imp::time::wall_ms()
}

/// Waits this long.
pub async fn sleep(duration: Duration) {
    sleep_until(now() + duration).await;
}

/// Waits until the monotonic clock has reached `at`.
pub async fn sleep_until(at: Instant) {
    if now() >= at {
        return;
    }
    let mut timer = imp::time::Timer::new(at);
    poll_fn(|cx| timer.poll(cx)).await;
}

/// A future was not ready in time. It has been dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not done in time")]
pub struct Elapsed;

impl From<Elapsed> for std::io::Error {
    fn from(elapsed: Elapsed) -> Self {
        std::io::Error::new(std::io::ErrorKind::TimedOut, elapsed)
    }
}

/// Waits for `future` for at most `limit`. A future that is ready at its first poll wins even against a limit of zero, and
/// costs no timer.
pub async fn timeout<F: Future>(limit: Duration, future: F) -> Result<F::Output, Elapsed> {
    let at = now() + limit;
    let mut future = pin!(future);
    let mut timer = None;
    poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        timer.get_or_insert_with(|| imp::time::Timer::new(at)).poll(cx).map(|()| Err(Elapsed))
    })
    .await
}

/// One timer that can be set anew as often as its owner likes: the driver of a core sets it to the core's next deadline.
///
/// It keeps at most one timer of the runtime outstanding.
#[derive(Default)]
pub struct Alarm {
    at: Option<Instant>,
    timer: Option<imp::time::Timer>,
    /// Invariant: the timer, if there is one, is set to this instant.
    timer_at: Option<Instant>,
}

impl Alarm {
    /// An alarm that is not set.
    pub fn new() -> Alarm {
        Alarm::default()
    }

    /// Sets the alarm, earlier or later than before, or (with `None`) switches it off.
    pub fn set(&mut self, at: Option<Instant>) {
        self.at = at;
    }

    /// What the alarm is set to; `None` after it went off.
    pub fn at(&self) -> Option<Instant> {
        self.at
    }

    /// Waits until the alarm goes off, and switches it off then. Pending for ever while it is not set. Nothing is lost when
    /// the future is dropped.
    pub async fn wait(&mut self) {
        poll_fn(|cx| self.poll(cx)).await;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else { return Poll::Pending };
        if now() < at {
            if self.timer_at != Some(at) {
                match &mut self.timer {
                    Some(timer) => timer.reset(at),
                    None => self.timer = Some(imp::time::Timer::new(at)),
                }
                self.timer_at = Some(at);
            }
            if let Some(timer) = &mut self.timer
                && timer.poll(cx).is_pending()
            {
                return Poll::Pending;
            }
        }
        self.at = None;
        Poll::Ready(())
    }
}

impl fmt::Debug for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alarm").field("at", &self.at).finish_non_exhaustive()
    }
}

/// The name of one entry of a [`TimerQueue`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimerId {
    at: Instant,
    sequence: u64,
}

impl TimerId {
    /// When the entry is due.
    pub fn at(self) -> Instant {
        self.at
    }
}

/// Deadlines with a value each, ordered by time and then by insertion. Pure: it knows no clock.
///
/// Inserting, cancelling and popping cost a logarithm; a cancelled entry leaves nothing behind.
#[derive(Debug, Clone)]
pub struct TimerQueue<K> {
    entries: BTreeMap<TimerId, K>,
    next_sequence: u64,
}

impl<K> TimerQueue<K> {
    /// An empty queue.
    pub const fn new() -> TimerQueue<K> {
        TimerQueue { entries: BTreeMap::new(), next_sequence: 0 }
    }

    /// Adds a deadline.
    pub fn insert(&mut self, at: Instant, value: K) -> TimerId {
        let id = TimerId { at, sequence: self.next_sequence };
        self.next_sequence += 1;
        self.entries.insert(id, value);
        id
    }

    /// Takes an entry out; `None` if it was popped or cancelled before.
    pub fn cancel(&mut self, id: TimerId) -> Option<K> {
        self.entries.remove(&id)
    }

    /// The earliest deadline.
    pub fn next(&self) -> Option<Instant> {
        self.entries.first_key_value().map(|(id, _)| id.at)
    }

    /// Takes out the earliest entry that is due at `now`; entries due at the same time come in the order of insertion.
    pub fn pop_due(&mut self, now: Instant) -> Option<K> {
        let first = self.entries.first_entry()?;
        if first.key().at > now {
            return None;
        }
        Some(first.remove())
    }

    /// How many entries wait.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl<K> Default for TimerQueue<K> {
    fn default() -> Self {
        TimerQueue::new()
    }
}

#[cfg(test)]
#[path = "time_tests.rs"]
mod tests;
