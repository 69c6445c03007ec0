//! What becomes of the settings that a request names.

use super::*;

const TOPIC_TARGET: Target = Target::Topic { id: TopicId(uuid::Uuid::from_u128(7)), replicas: 1 };

const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

fn change(name: &'static str, operation: i8, value: &'static str) -> Change {
    let value = (operation != DELETE).then(|| StrBytes::from_static_str(value));
    Change { name: StrBytes::from_static_str(name), operation, value }
}

fn values(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

fn changes(pairs: &[(&str, Option<&str>)]) -> Changes {
    pairs.iter().map(|(name, value)| (name.to_string(), value.map(str::to_owned))).collect()
}

/// Plans changes of a topic with these settings; what it has none for is `compact`.
fn planned(set: &[(&str, &str)], wanted: &[Change], mode: Mode) -> Result<Changes, Refusal> {
    plan(&TOPIC_TARGET, Some(&values(set)), wanted, mode, |_| "compact".to_owned())
}

fn refusal(target: Target, wanted: Change) -> ResponseError {
    let refused = plan(&target, None, &[wanted], Mode::Named, |_| String::new());
    refused.expect_err("refused").0
}

#[test]
fn the_named_settings_change_and_the_others_stay() {
    let set = [("retention.ms", "1"), ("segment.ms", "2")];
    let wanted = [change("retention.ms", SET, "5"), change("retention.bytes", DELETE, "")];
    let planned = planned(&set, &wanted, Mode::Named);
    assert_eq!(planned, Ok(changes(&[("retention.ms", Some("5")), ("retention.bytes", None)])));
}

#[test]
fn the_older_request_takes_away_what_it_does_not_name() {
    let set = [("retention.ms", "1"), ("segment.ms", "2")];
    let wanted = [change("retention.ms", SET, "5")];
    assert_eq!(
        planned(&set, &wanted, Mode::All),
        Ok(changes(&[("retention.ms", Some("5")), ("segment.ms", None)]))
    );
    assert_eq!(
        planned(&set, &[], Mode::All),
        Ok(changes(&[("retention.ms", None), ("segment.ms", None)])),
        "naming none takes all away"
    );
}

#[test]
fn items_are_added_to_lists_once_and_taken_away() {
    let cases = [
        (Some("delete"), APPEND, "compact", "delete,compact"),
        (Some("delete"), APPEND, "delete,compact", "delete,compact"),
        (Some("compact, delete"), SUBTRACT, "delete", "compact"),
        (Some("delete"), SUBTRACT, "compact", "delete"),
        (None, APPEND, "delete", "compact,delete"),
    ];
    for (list, operation, items, expected) in cases {
        let set: Vec<_> = list.map(|list| ("cleanup.policy", list)).into_iter().collect();
        let planned = planned(&set, &[change("cleanup.policy", operation, items)], Mode::Named);
        assert_eq!(
            planned,
            Ok(changes(&[("cleanup.policy", Some(expected))])),
            "{list:?} {operation} {items}"
        );
    }
    let last = planned(&[], &[change("cleanup.policy", SUBTRACT, "compact")], Mode::Named);
    assert_eq!(last.map_err(|(error, _)| error), Err(ResponseError::InvalidConfig), "no policy is left");
}

#[test]
fn what_cannot_be_is_refused_as_kafka_refuses_it() {
    use ResponseError::{InvalidConfig, InvalidRequest};
    let without = Target::Without { what: "group setting", error: InvalidConfig };
    let cases = [
        (TOPIC_TARGET, change("no.such.setting", SET, "1"), InvalidConfig),
        (TOPIC_TARGET, change("no.such.setting", APPEND, "1"), InvalidConfig),
        (TOPIC_TARGET, change("retention.ms", SET, "soon"), InvalidConfig),
        (TOPIC_TARGET, change("retention.ms", APPEND, "1"), InvalidConfig),
        (TOPIC_TARGET, change("log.retention.ms", SET, "1"), InvalidConfig),
        (TOPIC_TARGET, change("compression.type", SET, "zstd"), InvalidConfig),
        (TOPIC_TARGET, change("retention.ms", 4, "1"), InvalidRequest),
        (Target::Cluster, change("retention.ms", SET, "1"), InvalidRequest),
        (Target::Cluster, change("num.partitions", SET, "1"), InvalidRequest),
        (Target::Cluster, change("log.retention.ms", SET, "soon"), InvalidRequest),
        (Target::Broker(BrokerId(1)), change("log.segment.bytes", APPEND, "1"), InvalidConfig),
        (without, change("any", SET, "1"), InvalidConfig),
        (without, change("any", DELETE, ""), InvalidConfig),
    ];
    for (target, wanted, error) in cases {
        let name = wanted.name.to_string();
        assert_eq!(refusal(target, wanted), error, "{target:?} {name}");
    }
    let set = |name| change(name, SET, "1");
    assert_eq!(check_shape(&[set("a"), set("b")]), Ok(()));
    assert_eq!(check_shape(&[set("a"), set("a")]).map_err(|(error, _)| error), Err(InvalidRequest));
    let null = Change { value: None, ..set("a") };
    assert_eq!(check_shape(&[null]).map_err(|(error, _)| error), Err(InvalidRequest));
}
