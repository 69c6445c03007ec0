//! The seed's randomness.

use madsim::rand::RngCore;

pub(crate) fn u64() -> u64 {
    madsim::rand::thread_rng().next_u64()
}
