//! The table of topic settings (Kafka 4.1's, without tiered storage).

use super::Kind::{Boolean, Double, Int, List, Long, String};
use super::Rule::{Any, AtLeast, Between, OneOf, SomeOf};
use super::{Fallback, Kind, Rule, Setting};

const FOREVER: &str = "9223372036854775807";

const fn setting(
    name: &'static str,
    broker_name: &'static str,
    kind: Kind,
    default: &'static str,
    rule: Rule,
    doc: &'static str,
) -> Setting {
    Setting { name, broker_name, kind, default: Fallback::Value(default), rule, doc }
}

/// Every setting that a topic has, sorted by name.
#[rustfmt::skip]
pub static TOPIC_SETTINGS: &[Setting] = &[
    setting("cleanup.policy", "log.cleanup.policy", List, "delete", SomeOf(&["compact", "delete"]),
        "What becomes of old segments: deleted by age and size, or compacted to the last record of each key."),
    setting("compression.gzip.level", "compression.gzip.level", Int, "-1", Between(-1.0, 9.0),
        "The level for gzip, when the broker compresses; -1 is the codec's own default."),
    setting("compression.lz4.level", "compression.lz4.level", Int, "9", Between(1.0, 17.0),
        "The level for lz4, when the broker compresses."),
    setting("compression.type", "compression.type", String, "producer",
        OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]),
        "How batches are stored; 'producer' keeps what the producer chose."),
    setting("compression.zstd.level", "compression.zstd.level", Int, "3", Between(-131_072.0, 22.0),
        "The level for zstd, when the broker compresses."),
    setting("delete.retention.ms", "log.cleaner.delete.retention.ms", Long, "86400000", AtLeast(0),
        "How long a compacted topic keeps its delete markers."),
    setting("file.delete.delay.ms", "log.segment.delete.delay.ms", Long, "60000", AtLeast(0),
        "How long a file waits before it is deleted from the disk."),
    setting("flush.messages", "log.flush.interval.messages", Long, "1", AtLeast(1),
        "1: records are synced to disk before they are acknowledged. Any other value leaves that to the operating system."),
    setting("flush.ms", "log.flush.interval.ms", Long, FOREVER, AtLeast(0),
        "Where flush.messages is not 1: how long records may stay unsynced."),
    setting("follower.replication.throttled.replicas", "follower.replication.throttled.replicas", List, "", Any,
        "Replicas whose replication is slowed down on the follower's side."),
    setting("index.interval.bytes", "log.index.interval.bytes", Int, "4096", AtLeast(0),
        "How far apart the offset index has entries."),
    setting("internal.segment.bytes", "internal.segment.bytes", Int, "0", AtLeast(0),
        "For tests: a segment size below segment.bytes' minimum; 0 means not set."),
    setting("leader.replication.throttled.replicas", "leader.replication.throttled.replicas", List, "", Any,
        "Replicas whose replication is slowed down on the leader's side."),
    setting("max.compaction.lag.ms", "log.cleaner.max.compaction.lag.ms", Long, FOREVER, AtLeast(1),
        "After how long a record is compacted at the latest."),
    setting("max.message.bytes", "message.max.bytes", Int, "1048588", AtLeast(0),
        "The largest record batch that is accepted."),
    setting("message.timestamp.after.max.ms", "log.message.timestamp.after.max.ms", Long, "3600000", AtLeast(0),
        "How far ahead of the broker's clock a record's timestamp may be."),
    setting("message.timestamp.before.max.ms", "log.message.timestamp.before.max.ms", Long, FOREVER, AtLeast(0),
        "How far behind the broker's clock a record's timestamp may be."),
    setting("message.timestamp.type", "log.message.timestamp.type", String, "CreateTime",
        OneOf(&["CreateTime", "LogAppendTime"]),
        "Whose time a record carries: the producer's, or the broker's at the append."),
    setting("min.cleanable.dirty.ratio", "log.cleaner.min.cleanable.ratio", Double, "0.5", Between(0.0, 1.0),
        "How much of a log must be uncompacted before it is compacted."),
    setting("min.compaction.lag.ms", "log.cleaner.min.compaction.lag.ms", Long, "0", AtLeast(0),
        "How long a record stays uncompacted at least."),
    Setting {
        name: "min.insync.replicas", broker_name: "min.insync.replicas", kind: Int,
        default: Fallback::Majority, rule: AtLeast(1),
        doc: "How many replicas must have a record before acks=all is answered. Default: a majority of the replicas.",
    },
    setting("preallocate", "log.preallocate", Boolean, "false", Any,
        "Whether a segment's file gets its whole size at once."),
    setting("retention.bytes", "log.retention.bytes", Long, "-1", AtLeast(-1),
        "How large a partition may become before old segments are deleted; -1: no bound."),
    setting("retention.ms", "log.retention.ms", Long, "604800000", AtLeast(-1),
        "How old a segment may become before it is deleted; -1: no bound."),
    setting("segment.bytes", "log.segment.bytes", Int, "1073741824", AtLeast(1_048_576),
        "How large a segment becomes before a new one is begun."),
    setting("segment.index.bytes", "log.index.size.max.bytes", Int, "10485760", AtLeast(4),
        "How large a segment's index may become."),
    setting("segment.jitter.ms", "log.roll.jitter.ms", Long, "0", AtLeast(0),
        "A random time up to this is taken off segment.ms, so that segments do not end together."),
    setting("segment.ms", "log.roll.ms", Long, "604800000", AtLeast(1),
        "How old a segment becomes before a new one is begun."),
    setting("unclean.leader.election.enable", "unclean.leader.election.enable", Boolean, "false", Any,
        "Whether a replica that is not in sync may lead when no other is left: loses acknowledged records."),
];
