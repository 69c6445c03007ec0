//! Protobuf-style variable-length numbers, zigzag as records use them and unsigned as flexible messages do.

use bytes::BufMut;

/// Takes a zigzag varint of at most 32 bits off the front. `None`: cut off, or longer than 32 bits.
#[inline]
pub(crate) fn take_i32(bytes: &mut &[u8]) -> Option<i32> {
    let raw = take_u32(bytes)?;
    Some(((raw >> 1) as i32) ^ -((raw & 1) as i32))
}

/// Takes a zigzag varint of at most 64 bits off the front. `None`: cut off, or longer than 64 bits.
#[inline]
pub(crate) fn take_i64(bytes: &mut &[u8]) -> Option<i64> {
    let raw = take_u64(bytes)?;
    Some(((raw >> 1) as i64) ^ -((raw & 1) as i64))
}

/// Takes an unsigned varint of at most 32 bits off the front. `None`: cut off, or longer than 32 bits.
#[inline]
pub(crate) fn take_u32(bytes: &mut &[u8]) -> Option<u32> {
    match take_short(bytes) {
        Some(value) => Some(value),
        None => u32::try_from(take_long(bytes, 5)?).ok(),
    }
}

#[inline]
fn take_u64(bytes: &mut &[u8]) -> Option<u64> {
    match take_short(bytes) {
        Some(value) => Some(u64::from(value)),
        None => take_long(bytes, 10),
    }
}

/// The common lengths, one and two bytes, without a loop.
#[inline(always)]
fn take_short(bytes: &mut &[u8]) -> Option<u32> {
    match **bytes {
        [first, ref rest @ ..] if first < 0x80 => {
            *bytes = rest;
            Some(u32::from(first))
        }
        [first, second, ref rest @ ..] if second < 0x80 => {
            *bytes = rest;
            Some(u32::from(first & 0x7f) | u32::from(second) << 7)
        }
        _ => None,
    }
}

#[cold]
fn take_long(bytes: &mut &[u8], bytes_max: usize) -> Option<u64> {
    let mut value = 0u64;
    for (index, &byte) in bytes.iter().take(bytes_max).enumerate() {
        let part = u64::from(byte & 0x7f);
        // The tenth byte holds the 64th bit only.
        if index == 9 && part > 1 {
            return None;
        }
        value |= part << (7 * index);
        if byte < 0x80 {
            *bytes = &bytes[index + 1..];
            return Some(value);
        }
    }
    None
}

/// Appends a zigzag varint.
pub(crate) fn put_i32(out: &mut impl BufMut, value: i32) {
    put_u64(out, u64::from(((value << 1) ^ (value >> 31)) as u32));
}

/// Appends a zigzag varint.
pub(crate) fn put_i64(out: &mut impl BufMut, value: i64) {
    put_u64(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// Appends an unsigned varint.
pub(crate) fn put_u64(out: &mut impl BufMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8((value as u8) | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Bytes of `value` as a zigzag varint.
pub(crate) fn len_i32(value: i32) -> usize {
    len_u64(u64::from(((value << 1) ^ (value >> 31)) as u32))
}

/// Bytes of `value` as a zigzag varint.
pub(crate) fn len_i64(value: i64) -> usize {
    len_u64(((value << 1) ^ (value >> 63)) as u64)
}

fn len_u64(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}
