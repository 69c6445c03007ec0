//! Randomness: the operating system's in a real process, the seed's in a simulation.

use crate::imp;

/// 64 random bits.
pub fn u64() -> u64 {
    imp::random::u64()
}

/// A number below `n`, all equally likely; 0 when `n` is 0.
pub fn below(n: u64) -> u64 {
    if n == 0 {
        return 0;
    }
    // Lemire's method: the high half of the product, drawn again in the few cases that would favour some results.
    let threshold = n.wrapping_neg() % n;
    loop {
        let product = u128::from(u64()) * u128::from(n);
        if product as u64 >= threshold {
            return (product >> 64) as u64;
        }
    }
}

/// The bytes of a random UUID (version 4, RFC 9562).
pub fn uuid_bytes() -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&u64().to_le_bytes());
    bytes[8..].copy_from_slice(&u64().to_le_bytes());
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    bytes
}
