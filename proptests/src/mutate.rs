//! Inputs out of inputs: numbers blown up, bytes flipped, pieces cut, doubled and spliced.

/// A fast generator of uniform numbers (xorshift64*); the same seed gives the same inputs.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// A generator; nearby seeds give unrelated numbers.
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d).rotate_left(32)
    }

    /// A number below `bound`, which must not be 0.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.number() % bound as u64) as usize
    }
}

/// Values at which length checks go wrong.
const INTERESTING: [i64; 16] =
    [0, 1, -1, -2, 16, 48, 61, 127, 128, 255, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff, i64::MAX, i64::MIN];

/// Changes `input` in one to four places; `other` is what pieces are taken from. The result has at most
/// `bytes_max` bytes.
pub fn mutate(input: &mut Vec<u8>, other: &[u8], bytes_max: usize, random: &mut Random) {
    for _ in 0..=random.below(4) {
        if input.is_empty() {
            input.extend_from_slice(&other[..other.len().min(bytes_max)]);
            input.push(random.number() as u8);
        }
        let at = random.below(input.len());
        match random.below(9) {
            0 => input[at] ^= 1 << random.below(8),
            1 => input[at] = random.number() as u8,
            2 | 3 => put_number(input, at, random),
            4 => input.truncate(at),
            5 => {
                let end = at + random.below(input.len() - at + 1);
                input.drain(at..end);
            }
            6 => {
                let end = at + random.below((input.len() - at).min(64) + 1);
                let piece = input[at..end].to_vec();
                input.splice(at..at, piece);
            }
            7 => {
                // A varint that is long, and at times too long.
                let length = 1 + random.below(10);
                let varint: Vec<u8> =
                    (0..length).map(|_| random.number() as u8 | 0x80).chain([0x01]).collect();
                input.splice(at..at + 1, varint);
            }
            _ if other.is_empty() => input[at] = 0,
            _ => {
                let from = random.below(other.len());
                let piece = &other[from..from + random.below((other.len() - from).min(256) + 1)];
                input.splice(at..(at + piece.len()).min(input.len()), piece.iter().copied());
            }
        }
        input.truncate(bytes_max);
    }
}

/// Overwrites 1, 2, 4 or 8 bytes by a big-endian number.
fn put_number(input: &mut [u8], at: usize, random: &mut Random) {
    let number = INTERESTING[random.below(INTERESTING.len())].wrapping_add(random.below(3) as i64 - 1);
    let width = (1usize << random.below(4)).min(input.len() - at);
    input[at..at + width].copy_from_slice(&number.to_be_bytes()[8 - width..]);
}
