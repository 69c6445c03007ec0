//! Randomness from a generator seeded by the operating system.

pub(crate) fn u64() -> u64 {
    rand::random()
}
