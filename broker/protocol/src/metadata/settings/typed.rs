//! A topic's settings as the broker works with them.

use super::{Layers, parse_bool, topic_setting};

/// What becomes of old segments (`cleanup.policy`). Both may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cleanup {
    /// Deleted by age and size.
    pub delete: bool,
    /// Compacted to the last record of each key.
    pub compact: bool,
}

/// When an append counts as durable (`flush.messages`, contract 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// When it is synced: `flush.messages=1`.
    Sync,
    /// When it is written to the segment; the operating system syncs it at some time.
    Os,
}

/// Whose time a record carries (`message.timestamp.type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer's.
    CreateTime,
    /// The broker's at the append.
    LogAppendTime,
}

/// How batches are stored (`compression.type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicCompression {
    /// As the producer chose.
    Producer,
    /// Not compressed.
    Uncompressed,
    /// gzip.
    Gzip,
    /// snappy.
    Snappy,
    /// lz4.
    Lz4,
    /// zstd.
    Zstd,
}

/// All settings of one topic, resolved. Names and units are those of the table.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "each field is explained in the table under its Kafka name")]
pub struct TopicSettings {
    pub cleanup: Cleanup,
    pub compression: TopicCompression,
    pub compression_gzip_level: i32,
    pub compression_lz4_level: i32,
    pub compression_zstd_level: i32,
    pub delete_retention_ms: i64,
    pub file_delete_delay_ms: i64,
    pub flush: Flush,
    pub flush_ms: i64,
    pub index_interval_bytes: i32,
    pub max_compaction_lag_ms: i64,
    pub max_message_bytes: i32,
    pub message_timestamp_after_max_ms: i64,
    pub message_timestamp_before_max_ms: i64,
    pub message_timestamp_type: TimestampType,
    pub min_cleanable_dirty_ratio: f64,
    pub min_compaction_lag_ms: i64,
    /// As configured; what counts is `PartitionState::min_isr`.
    pub min_insync_replicas: i32,
    pub preallocate: bool,
    pub retention_bytes: i64,
    pub retention_ms: i64,
    /// `internal.segment.bytes` where that is set.
    pub segment_bytes: i32,
    pub segment_index_bytes: i32,
    pub segment_jitter_ms: i64,
    pub segment_ms: i64,
    pub unclean_leader_election_enable: bool,
}

/// Reads resolved values by name. Every name is in the table and every value has its type, as a test shows.
struct Reader<'a>(&'a Layers<'a>);

impl Reader<'_> {
    fn text(&self, name: &str) -> String {
        topic_setting(name).map(|setting| self.0.resolve(setting).value.into_owned()).unwrap_or_default()
    }

    fn long(&self, name: &str) -> i64 {
        self.text(name).parse().unwrap_or_default()
    }

    fn int(&self, name: &str) -> i32 {
        self.text(name).parse().unwrap_or_default()
    }

    fn double(&self, name: &str) -> f64 {
        self.text(name).parse().unwrap_or_default()
    }

    fn boolean(&self, name: &str) -> bool {
        parse_bool(&self.text(name)).unwrap_or_default()
    }
}

impl TopicSettings {
    /// What holds for a topic.
    pub fn resolve(layers: &Layers<'_>) -> TopicSettings {
        let read = Reader(layers);
        let cleanup = read.text("cleanup.policy");
        let cleanup_has = |policy: &str| cleanup.split(',').any(|item| item.trim() == policy);
        let segment_bytes = match read.int("internal.segment.bytes") {
            0 => read.int("segment.bytes"),
            small => small,
        };
        TopicSettings {
            cleanup: Cleanup { delete: cleanup_has("delete"), compact: cleanup_has("compact") },
            compression: match read.text("compression.type").as_str() {
                "uncompressed" => TopicCompression::Uncompressed,
                "gzip" => TopicCompression::Gzip,
                "snappy" => TopicCompression::Snappy,
                "lz4" => TopicCompression::Lz4,
                "zstd" => TopicCompression::Zstd,
                _ => TopicCompression::Producer,
            },
            compression_gzip_level: read.int("compression.gzip.level"),
            compression_lz4_level: read.int("compression.lz4.level"),
            compression_zstd_level: read.int("compression.zstd.level"),
            delete_retention_ms: read.long("delete.retention.ms"),
            file_delete_delay_ms: read.long("file.delete.delay.ms"),
            flush: if read.long("flush.messages") == 1 { Flush::Sync } else { Flush::Os },
            flush_ms: read.long("flush.ms"),
            index_interval_bytes: read.int("index.interval.bytes"),
            max_compaction_lag_ms: read.long("max.compaction.lag.ms"),
            max_message_bytes: read.int("max.message.bytes"),
            message_timestamp_after_max_ms: read.long("message.timestamp.after.max.ms"),
            message_timestamp_before_max_ms: read.long("message.timestamp.before.max.ms"),
            message_timestamp_type: match read.text("message.timestamp.type").as_str() {
                "LogAppendTime" => TimestampType::LogAppendTime,
                _ => TimestampType::CreateTime,
            },
            min_cleanable_dirty_ratio: read.double("min.cleanable.dirty.ratio"),
            min_compaction_lag_ms: read.long("min.compaction.lag.ms"),
            min_insync_replicas: read.int("min.insync.replicas"),
            preallocate: read.boolean("preallocate"),
            retention_bytes: read.long("retention.bytes"),
            retention_ms: read.long("retention.ms"),
            segment_bytes,
            segment_index_bytes: read.int("segment.index.bytes"),
            segment_jitter_ms: read.long("segment.jitter.ms"),
            segment_ms: read.long("segment.ms"),
            unclean_leader_election_enable: read.boolean("unclean.leader.election.enable"),
        }
    }
}
