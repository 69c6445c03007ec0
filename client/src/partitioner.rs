//! Which partition a record goes to.

use std::collections::BTreeMap;
use std::sync::Arc;

use weir_runtime::random;

/// Chooses the partition of records that do not name one.
pub trait Partitioner: Send {
    /// The partition, at least 0 and below `partitions`, of a record that takes `record_bytes` bytes in its batch.
    fn partition(
        &mut self,
        topic: &Arc<str>,
        key: Option<&[u8]>,
        partitions: i32,
        record_bytes: usize,
    ) -> i32;
}

/// As the Java client does: records with a key by its murmur2 hash, so that both agree; records without one stay with a
/// random partition until a batch is full, then with another (KIP-794).
#[derive(Debug)]
pub struct DefaultPartitioner {
    batch_bytes: usize,
    sticky: BTreeMap<Arc<str>, Sticky>,
}

#[derive(Debug)]
struct Sticky {
    partition: i32,
    bytes: usize,
}

impl DefaultPartitioner {
    /// `batch_bytes`: after how many bytes records without a key go to another partition.
    pub fn new(batch_bytes: usize) -> Self {
        Self { batch_bytes, sticky: BTreeMap::new() }
    }
}

impl Partitioner for DefaultPartitioner {
    fn partition(
        &mut self,
        topic: &Arc<str>,
        key: Option<&[u8]>,
        partitions: i32,
        record_bytes: usize,
    ) -> i32 {
        if partitions <= 1 {
            return 0;
        }
        if let Some(key) = key {
            return (murmur2(key) & i32::MAX) % partitions;
        }
        let draw = || i32::try_from(random::below(u64::from(partitions.unsigned_abs()))).unwrap_or_default();
        let sticky =
            self.sticky.entry(topic.clone()).or_insert_with(|| Sticky { partition: draw(), bytes: 0 });
        if sticky.bytes >= self.batch_bytes || sticky.partition >= partitions {
            *sticky = Sticky { partition: draw(), bytes: 0 };
        }
        sticky.bytes += record_bytes;
        sticky.partition
    }
}

/// MurmurHash 2, 32 bits, with the seed that Kafka's Java client uses for keys.
pub fn murmur2(data: &[u8]) -> i32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    // The length enters modulo 2^32, as it does in Java, where it is an int.
    let mut hash = SEED ^ (data.len() as u32);
    let (words, rest) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> R;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !rest.is_empty() {
        for (at, &byte) in rest.iter().enumerate() {
            hash ^= u32::from(byte) << (8 * at);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^= hash >> 15;
    hash.cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values of Apache Kafka's own test of its hash (UtilsTest).
    #[test]
    fn murmur2_agrees_with_java() {
        let cases: [(&[u8], i32); 6] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
        ];
        for (key, hash) in cases {
            assert_eq!(murmur2(key), hash, "{}", String::from_utf8_lossy(key));
        }
    }

    /// What kafka-clients 4.1.1 says of `Utils.murmur2(key)` and `Utils.toPositive(hash) % partitions`, for keys of all
    /// remainders by 4, with bytes that are negative in Java.
    #[test]
    fn keys_go_where_the_java_client_puts_them() {
        let cases: [(usize, i32, [i32; 3]); 16] = [
            (0, 275_646_681, [0, 9, 31]),
            (1, 1_812_488_388, [0, 0, 38]),
            (2, -1_529_615_496, [2, 8, 2]),
            (3, -1_975_200_350, [0, 6, 48]),
            (4, 1_109_086_302, [0, 6, 2]),
            (5, 1_148_372_989, [1, 1, 39]),
            (6, 1_518_241_923, [0, 3, 23]),
            (7, -469_004_157, [2, 11, 41]),
            (8, 245_613_044, [2, 8, 44]),
            (9, 1_201_972_679, [2, 11, 29]),
            (15, -667_833_058, [1, 10, 40]),
            (16, -1_651_223_569, [1, 7, 29]),
            (17, 927_182_356, [1, 4, 6]),
            (31, -1_007_310_185, [0, 3, 13]),
            (64, -1_977_010_594, [1, 10, 4]),
            (257, -1_968_122_439, [2, 5, 9]),
        ];
        let (topic, mut partitioner) = (Arc::from("t"), DefaultPartitioner::new(1000));
        for (length, hash, expected) in cases {
            let key: Vec<u8> = (0..length).map(|at| ((at * 89 + length * 37 + 200) % 256) as u8).collect();
            assert_eq!(murmur2(&key), hash, "a key of {length} bytes");
            let chosen =
                [3, 12, 50].map(|partitions| partitioner.partition(&topic, Some(&key), partitions, 100));
            assert_eq!(chosen, expected, "a key of {length} bytes");
        }
    }

    #[test]
    fn records_without_a_key_stay_until_a_batch_is_full() {
        let (topic, mut partitioner) = (Arc::from("t"), DefaultPartitioner::new(1000));
        let mut seen = Vec::new();
        for _ in 0..200 {
            let of_one: Vec<i32> = (0..10).map(|_| partitioner.partition(&topic, None, 7, 100)).collect();
            assert!(of_one.iter().all(|partition| *partition == of_one[0]), "{of_one:?}");
            seen.push(of_one[0]);
        }
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, [0, 1, 2, 3, 4, 5, 6]);
    }
}
