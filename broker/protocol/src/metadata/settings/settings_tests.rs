//! The table of settings, and where a value comes from.

use super::*;

fn values(pairs: &[(&str, &str)]) -> Values {
    pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

#[test]
fn the_table_is_sorted_and_its_defaults_are_valid() {
    assert!(TOPIC_SETTINGS.is_sorted_by(|a, b| a.name < b.name));
    for setting in TOPIC_SETTINGS {
        if let Fallback::Value(value) = setting.default {
            assert!(setting.takes(value), "{}", setting.name);
        }
        assert!(topic_setting(setting.name).is_some());
        assert!(broker_setting(setting.broker_name).is_some());
    }
}

#[test]
fn values_of_the_wrong_type_or_out_of_range_are_refused_and_others_are_not() {
    let good = [
        ("retention.ms", "-1"),
        ("retention.ms", " 5 "),
        ("cleanup.policy", "compact,delete"),
        ("cleanup.policy", "compact, delete"),
        ("min.cleanable.dirty.ratio", "0.01"),
        ("preallocate", "TRUE"),
        ("flush.messages", "9223372036854775807"),
        ("compression.type", "zstd"),
    ];
    for (name, value) in good {
        assert_eq!(check_topic(name, value), Ok(()), "{name}={value}");
    }
    let bad = [
        ("retention.ms", "-2"),
        ("retention.ms", "a week"),
        ("max.message.bytes", "2147483648"),
        ("cleanup.policy", ""),
        ("cleanup.policy", "shred"),
        ("min.cleanable.dirty.ratio", "1.5"),
        ("min.cleanable.dirty.ratio", "NaN"),
        ("preallocate", "yes"),
        ("min.insync.replicas", "0"),
        ("segment.bytes", "1024"),
        ("compression.gzip.level", "10"),
        ("compression.type", "none"),
    ];
    for (name, value) in bad {
        assert!(matches!(check_topic(name, value), Err(InvalidSetting::Value { .. })), "{name}={value}");
    }
    assert!(matches!(check_topic("log.retention.ms", "1"), Err(InvalidSetting::Unknown { .. })));
    assert_eq!(check_broker("log.retention.ms", "1"), Ok(()));
    assert!(matches!(check_broker("retention.ms", "1"), Err(InvalidSetting::Unknown { .. })));
}

#[test]
fn k20_a_value_is_taken_from_the_nearest_place_that_has_one() {
    let topic = values(&[("retention.ms", "1")]);
    let defaults = values(&[("log.retention.ms", "2"), ("log.segment.bytes", "2097152")]);
    let file = values(&[("log.retention.ms", "3"), ("message.max.bytes", "17"), ("log.roll.ms", "nonsense")]);
    let layers =
        Layers { topic: &topic, broker: None, broker_defaults: &defaults, file: Some(&file), replicas: 1 };
    let sources: Vec<_> = layers
        .synonyms(topic_setting("retention.ms").unwrap())
        .into_iter()
        .map(|found| (found.name, found.value.into_owned(), found.source))
        .collect();
    let expected = [
        ("retention.ms", "1", Source::Topic),
        ("log.retention.ms", "2", Source::DynamicDefaultBroker),
        ("log.retention.ms", "3", Source::StaticBroker),
        ("log.retention.ms", "604800000", Source::Default),
    ];
    assert_eq!(sources, expected.map(|(name, value, source)| (name, value.to_owned(), source)));
    let settings = TopicSettings::resolve(&layers);
    assert_eq!(
        (settings.retention_ms, settings.segment_bytes, settings.max_message_bytes),
        (1, 2_097_152, 17)
    );
    assert_eq!(settings.segment_ms, 604_800_000, "a value that does not fit counts as not set");
}

#[test]
fn defaults_are_safe() {
    // Contract 3
    let none = Values::new();
    for (replicas, min_insync) in [(1, 1), (2, 2), (3, 2), (5, 3)] {
        let settings = TopicSettings::resolve(&Layers::of_topic(&none, &none, replicas));
        assert_eq!(settings.min_insync_replicas, min_insync);
        assert_eq!(settings.flush, Flush::Sync);
        assert!(!settings.unclean_leader_election_enable);
        assert_eq!(settings.cleanup, Cleanup { delete: true, compact: false });
        assert_eq!(settings.message_timestamp_type, TimestampType::CreateTime);
        assert_eq!(settings.compression, TopicCompression::Producer);
    }
}

#[test]
fn each_typed_setting_follows_the_value_that_was_set() {
    let none = Values::new();
    let topic = values(&[
        ("cleanup.policy", "compact"),
        ("compression.type", "lz4"),
        ("flush.messages", "10000"),
        ("internal.segment.bytes", "4096"),
        ("message.timestamp.type", "LogAppendTime"),
        ("min.cleanable.dirty.ratio", "0.25"),
        ("unclean.leader.election.enable", "true"),
    ]);
    let settings = TopicSettings::resolve(&Layers::of_topic(&topic, &none, 3));
    assert_eq!(settings.cleanup, Cleanup { delete: false, compact: true });
    assert_eq!(settings.compression, TopicCompression::Lz4);
    assert_eq!(settings.flush, Flush::Os);
    assert_eq!(settings.segment_bytes, 4096);
    assert_eq!(settings.message_timestamp_type, TimestampType::LogAppendTime);
    assert_eq!(settings.min_cleanable_dirty_ratio, 0.25);
    assert!(settings.unclean_leader_election_enable);
}
