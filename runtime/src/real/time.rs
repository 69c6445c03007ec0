//! Clocks of the operating system, timers of tokio.

use std::future::Future;
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::time::Instant;

/// Farther ahead than any process lives, and yet far from overflowing the operating system's clock.
const AHEAD_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// The first instant that anybody asked for.
fn origin() -> tokio::time::Instant {
    static ORIGIN: OnceLock<std::time::Instant> = OnceLock::new();
    tokio::time::Instant::from_std(*ORIGIN.get_or_init(std::time::Instant::now))
}

pub(crate) fn now_ns() -> u64 {
    let origin = origin().into_std();
    u64::try_from(std::time::Instant::now().saturating_duration_since(origin).as_nanos()).unwrap_or(u64::MAX)
}

pub(crate) fn wall_ms() -> i64 {
    let ms = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => ms(since),
        Err(before) => -ms(before.duration()),
    }
}

/// One timer of tokio's wheel.
pub(crate) struct Timer(Pin<Box<tokio::time::Sleep>>);

impl Timer {
    pub(crate) fn new(at: Instant) -> Timer {
        Timer(Box::pin(tokio::time::sleep_until(instant(at))))
    }

    pub(crate) fn reset(&mut self, at: Instant) {
        self.0.as_mut().reset(instant(at));
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
    }
}

fn instant(at: Instant) -> tokio::time::Instant {
    let ahead = at - Instant::from_nanos(now_ns());
    if ahead > AHEAD_MAX { tokio::time::Instant::now() + AHEAD_MAX } else { origin() + at.since_origin() }
}
