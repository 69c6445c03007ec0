//! The randomness of the simulated world: one seeded stream, with the few shapes of draw that the models need.

use std::time::Duration;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, SeedableRng};

/// A seeded stream of draws. The same seed and the same calls give the same values on every machine.
#[derive(Debug, Clone)]
pub struct Draw(Xoshiro256PlusPlus);

impl Draw {
    /// The stream that belongs to `seed`.
    pub fn new(seed: u64) -> Self {
        Self(Xoshiro256PlusPlus::seed_from_u64(seed))
    }

    /// A stream of its own for a part of the world, so that what one part draws does not shift the others.
    pub fn fork(&mut self) -> Self {
        Self::new(self.u64())
    }

    /// 64 random bits.
    pub fn u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `bound`; 0 if `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.u64()) * u128::from(bound)) >> 64) as u64
    }

    /// A number in `low..=high`; `low` if the range is empty.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low).saturating_add(1))
    }

    /// `true` with this probability (0 = never, 1 = always).
    pub fn chance(&mut self, probability: f64) -> bool {
        if probability <= 0.0 {
            return false;
        }
        // 53 bits: the precision of an f64 in [0, 1).
        ((self.u64() >> 11) as f64) < probability * (1u64 << 53) as f64
    }

    /// A duration in `low..=high`.
    pub fn duration(&mut self, low: Duration, high: Duration) -> Duration {
        let (low, high) = (low.as_nanos() as u64, high.as_nanos() as u64);
        Duration::from_nanos(self.between(low, high.max(low)))
    }

    /// One of the items, or `None` if there are none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        if items.is_empty() { None } else { items.get(self.below(items.len() as u64) as usize) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same_and_another_seed_does_not() {
        let draws = |seed| {
            let mut draw = Draw::new(seed);
            (0..8).map(|_| draw.u64()).collect::<Vec<_>>()
        };
        assert_eq!(draws(7), draws(7));
        assert_ne!(draws(7), draws(8));
    }

    #[test]
    fn draws_stay_within_their_bounds() {
        let mut draw = Draw::new(1);
        assert_eq!(draw.below(0), 0);
        assert!(!draw.chance(0.0));
        assert!(draw.chance(1.0));
        for _ in 0..1000 {
            assert!(draw.below(3) < 3);
            assert!((5..=6).contains(&draw.between(5, 6)));
            let duration = draw.duration(Duration::from_micros(1), Duration::from_micros(2));
            assert!((1000..=2000).contains(&duration.as_nanos()));
        }
        assert_eq!(draw.between(9, 9), 9);
    }
}
