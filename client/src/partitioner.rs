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
