//! The wall clock of one simulated node: what it shows may be skewed, jump, drift or stand still. The monotonic clock is
//! the simulation's own and knows nothing of this.

use std::time::Duration;

use crate::time::Instant;

/// One node's wall clock.
#[derive(Debug, Clone)]
pub struct Clock {
    /// What the clock shows at `since`, in nanoseconds since 1970.
    shown_ns: i128,
    /// The moment from which on it runs at `drift_ppm`.
    since: Instant,
    /// Parts per million that it runs too fast (negative: too slow).
    drift_ppm: i64,
    frozen: bool,
}

impl Clock {
    /// A correct clock that shows `epoch_ms` (milliseconds since 1970) at the simulation's origin.
    pub fn new(epoch_ms: i64) -> Self {
        Self {
            shown_ns: i128::from(epoch_ms) * 1_000_000,
            since: Instant::ORIGIN,
            drift_ppm: 0,
            frozen: false,
        }
    }

    fn shown_ns_at(&self, now: Instant) -> i128 {
        if self.frozen {
            return self.shown_ns;
        }
        let passed = (now - self.since).as_nanos() as i128;
        self.shown_ns + passed + passed * i128::from(self.drift_ppm) / 1_000_000
    }

    fn settle(&mut self, now: Instant) {
        self.shown_ns = self.shown_ns_at(now);
        self.since = now;
    }

    /// What the clock shows, in milliseconds since 1970.
    pub fn wall_ms(&self, now: Instant) -> i64 {
        i64::try_from(self.shown_ns_at(now).div_euclid(1_000_000)).unwrap_or(i64::MAX)
    }

    /// Sets the clock forwards by `step`: a skew when done at the start, a jump later.
    pub fn jump_forwards(&mut self, now: Instant, step: Duration) {
        self.settle(now);
        self.shown_ns += step.as_nanos() as i128;
    }

    /// Sets the clock back by `step`.
    pub fn jump_backwards(&mut self, now: Instant, step: Duration) {
        self.settle(now);
        self.shown_ns -= step.as_nanos() as i128;
    }

    /// Lets the clock run this many parts per million too fast from now on; 0 is the right pace.
    pub fn drift(&mut self, now: Instant, parts_per_million: i64) {
        self.settle(now);
        self.drift_ppm = parts_per_million.max(-1_000_000);
    }

    /// Stops the clock.
    pub fn freeze(&mut self, now: Instant) {
        self.settle(now);
        self.frozen = true;
    }

    /// Lets a stopped clock run on from what it shows.
    pub fn thaw(&mut self, now: Instant) {
        self.settle(now);
        self.frozen = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: i64 = 1_700_000_000_000;

    fn after(ms: u64) -> Instant {
        Instant::ORIGIN + Duration::from_millis(ms)
    }

    #[test]
    fn a_correct_clock_follows_the_simulation() {
        let clock = Clock::new(EPOCH);
        assert_eq!(clock.wall_ms(after(0)), EPOCH);
        assert_eq!(clock.wall_ms(after(1500)), EPOCH + 1500);
    }

    #[test]
    fn a_jump_moves_the_clock_once_in_either_direction() {
        let mut clock = Clock::new(EPOCH);
        clock.jump_forwards(after(10), Duration::from_secs(60));
        assert_eq!(clock.wall_ms(after(20)), EPOCH + 60_020);
        clock.jump_backwards(after(30), Duration::from_secs(3600));
        assert_eq!(clock.wall_ms(after(40)), EPOCH + 60_040 - 3_600_000);
    }

    #[test]
    fn drift_adds_up_and_is_kept_when_it_ends() {
        let mut clock = Clock::new(EPOCH);
        clock.drift(after(0), 100_000);
        assert_eq!(clock.wall_ms(after(1000)), EPOCH + 1100);
        clock.drift(after(1000), 0);
        assert_eq!(clock.wall_ms(after(2000)), EPOCH + 2100);
        clock.drift(after(2000), -500_000);
        assert_eq!(clock.wall_ms(after(3000)), EPOCH + 2600);
    }

    #[test]
    fn a_frozen_clock_stands_still_and_runs_on_from_there() {
        let mut clock = Clock::new(EPOCH);
        clock.freeze(after(5));
        assert_eq!(clock.wall_ms(after(500)), EPOCH + 5);
        clock.jump_forwards(after(500), Duration::from_millis(10));
        assert_eq!(clock.wall_ms(after(900)), EPOCH + 15);
        clock.thaw(after(1000));
        assert_eq!(clock.wall_ms(after(1001)), EPOCH + 16);
    }
}
