use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> Result<Config, ConfigError> {
    let mut config = Config::default();
    config.apply(Path::new("server.properties"), text)?;
    Ok(config)
}

#[test]
fn a_file_of_kafkas_is_understood() {
    let config = parse(
        "# a comment\n! another\n\nnode.id=7\nnum.partitions : 3\nlisteners=PLAINTEXT://:19092\n\
         advertised.listeners=PLAINTEXT://broker.example:9092\nlog.flush.interval.messages=10000\n\
         log.retention.\\\n  hours=1\nprocess.roles=broker,controller\n",
    )
    .expect("a file that Kafka takes");
    assert_eq!((config.node_id, config.partitions), (7, 3));
    assert_eq!(config.listen, "0.0.0.0:19092");
    assert_eq!(config.advertised, Some(("broker.example".to_owned(), 9092)));
    assert_eq!(config.topic_defaults["log.flush.interval.messages"], "10000");
    assert_eq!(config.topic_defaults["log.retention.ms"], "3600000");
    assert_eq!(config.ignored_keys, ["process.roles"]);
}

#[test]
fn every_key_is_shown_with_its_value_unless_it_is_another_name() {
    let names = |config: &Config| -> Vec<&str> {
        config.static_settings().iter().map(|setting| setting.name).collect()
    };
    let own = documented_keys().map(|key| key.name).filter(|name| settings::broker_setting(name).is_none());
    let other_names =
        ["broker.id", "log.dir", "log.retention.minutes", "log.retention.hours", "weir.offsets.retention.ms"];
    let expected: Vec<&str> = own.filter(|name| !other_names.contains(name)).collect();
    assert_eq!(names(&Config::default()), expected);
    let config =
        parse("num.partitions=1\nfetch.max.bytes=4096\nlisteners=PLAINTEXT://[::1]:9\n").expect("valid");
    let set: Vec<_> = config
        .static_settings()
        .into_iter()
        .filter_map(|setting| Some((setting.name, setting.set?)))
        .collect();
    let expected =
        [("listeners", "PLAINTEXT://[::1]:9"), ("num.partitions", "1"), ("fetch.max.bytes", "4096")];
    assert_eq!(set, expected.map(|(name, value)| (name, value.to_owned())), "even if it is the default");
    // What is shown can be put into a file.
    for setting in config.static_settings() {
        let Some(value) = setting.set.or(setting.default) else { continue };
        let again = parse(&format!("{}={value}\n", setting.name)).expect(setting.name);
        let shown = again.static_settings().into_iter().find(|found| found.name == setting.name);
        assert_eq!(shown.and_then(|found| found.set), Some(value), "{}", setting.name);
    }
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_its_nearest_neighbour() {
    let error = parse("node.id=1\nnum.partition=3\n").expect_err("a typo");
    assert_eq!(
        error.to_string(),
        "server.properties:2: unknown key 'num.partition'; did you mean 'num.partitions'?"
    );
    let error = parse("utterly.foreign.thing.of.another.world=3\n").expect_err("nonsense");
    assert!(error.to_string().ends_with("world'"), "no neighbour is invented: {error}");
}

#[test]
fn a_value_out_of_its_range_is_explained_with_its_unit() {
    let error = parse("socket.request.max.bytes=12GB").expect_err("not a number");
    assert_eq!(
        error.to_string(),
        "server.properties:1: socket.request.max.bytes: '12GB' is not a number of bytes from 1024 to 2147483647"
    );
    assert!(parse("log.segment.bytes=17").is_err());
    assert!(parse("auto.create.topics.enable=yes").is_err());
    assert!(parse("just words").is_err());
    assert!(matches!(parse("lonely"), Err(ConfigError::NotAPair { line: 1, .. })));
}

#[test]
fn k05_a_wildcard_is_never_advertised() {
    for wildcard in ["PLAINTEXT://0.0.0.0:9092", "PLAINTEXT://:9092", "PLAINTEXT://[::]:9092"] {
        assert!(parse(&format!("advertised.listeners={wildcard}")).is_err(), "{wildcard}");
    }
}

#[test]
fn blanks_of_any_width_end_a_key() {
    for line in ["node.id 7", "node.id\t= 7", "node.id\u{a0}7", "node.id\u{2003}:\u{2003}7", "node.id=7"] {
        assert_eq!(parse(line).map(|config| config.node_id), Ok(7), "{line:?}");
    }
    let config = parse("listeners PLAINTEXT://:19092").expect("the blank ends the key, not the colon");
    assert_eq!(config.listen, "0.0.0.0:19092");
}

/// A line of known keys, odd separators and any values.
fn line() -> impl Strategy<Value = String> {
    let keys: Vec<&str> = documented_keys().map(|key| key.name).collect();
    let key = prop_oneof![4 => proptest::sample::select(keys).prop_map(str::to_owned), 1 => ".{0,20}"];
    let separator = proptest::sample::select(vec!["=", ":", " ", " = ", "\u{a0}", "\\\n", ""]);
    let value = prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        proptest::sample::select(vec!["true", "PLAINTEXT://h:1", "[::1]:9", ":", "://", "[", "delete"])
            .prop_map(str::to_owned),
        ".{0,20}",
    ];
    (key, separator, value).prop_map(|(key, separator, value)| format!("{key}{separator}{value}\n"))
}

proptest! {
    #[test]
    fn any_file_is_understood_or_refused_with_its_line(lines in proptest::collection::vec(line(), 0..8)) {
        let text = lines.concat();
        if let Err(error) = parse(&text) {
            let line = match &error {
                ConfigError::NotAPair { line, .. }
                | ConfigError::UnknownKey { line, .. }
                | ConfigError::BadValue { line, .. } => *line,
                ConfigError::Unreadable { .. } => 0,
            };
            prop_assert!((1..=text.lines().count()).contains(&line), "{error}");
            prop_assert!(!error.to_string().is_empty());
        }
    }
}
