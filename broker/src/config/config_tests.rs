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
         log.retention.\\\n  hours=1\nnum.io.threads=8\n",
    )
    .expect("a file that Kafka takes");
    assert_eq!((config.node_id, config.partitions), (7, 3));
    assert_eq!(config.listen, "0.0.0.0:19092");
    assert_eq!(config.advertised, Some(("broker.example".to_owned(), 9092)));
    assert_eq!(config.topic_defaults["log.flush.interval.messages"], "10000");
    assert_eq!(config.topic_defaults["log.retention.ms"], "3600000");
    assert_eq!(config.ignored_keys, ["num.io.threads"]);
}

#[test]
fn every_key_is_shown_with_its_value_unless_it_is_another_name() {
    let names = |config: &Config| -> Vec<&str> {
        config.static_settings().iter().map(|setting| setting.name).collect()
    };
    let own = documented_keys().map(|key| key.name).filter(|name| settings::broker_setting(name).is_none());
    let other_names = [
        "broker.id",
        "log.dir",
        "log.retention.minutes",
        "log.retention.hours",
        "weir.offsets.retention.ms",
        "listener.security.protocol.map",
        "controller.quorum.bootstrap.servers",
        "weir.internal.secret",
        "weir.internal.secret.file",
    ];
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

const ONE_OF_THREE: &str = "node.id=2\ncontroller.quorum.voters=1@a:9093,2@b:9093,3@c:9093\n\
     listeners=PLAINTEXT://:9092,INTERNAL://:9093\nweir.internal.secret.file=/etc/weir/secret\n";

fn completed(text: &str) -> Result<Config, ConfigError> {
    let mut config = parse(text)?;
    config.complete()?;
    Ok(config)
}

fn misfit(text: &str) -> String {
    completed(text).expect_err("it does not fit together").to_string()
}

#[test]
fn a_small_file_makes_a_node_of_a_cluster() {
    let config = completed(ONE_OF_THREE).expect("all that is needed");
    assert!(config.is_clustered());
    assert_eq!(config.roles, Roles { broker: true, controller: true });
    assert_eq!(
        (config.listen.as_str(), config.internal_listen.as_deref()),
        ("0.0.0.0:9092", Some("0.0.0.0:9093"))
    );
    assert_eq!(
        config.advertised,
        Some(("b".to_owned(), 9092)),
        "its entry among the voters names its machine"
    );
    assert_eq!(config.internal_advertised, Some(("b".to_owned(), 9093)));
    assert_eq!(config.quorum_voters[2], QuorumVoter { node_id: 3, host: "c".to_owned(), port: 9093 });
    let advertised = "advertised.listeners=PLAINTEXT://public.example:1,INTERNAL://inside:2\n";
    let config = completed(&format!("{ONE_OF_THREE}{advertised}")).expect("both are named");
    assert_eq!(config.advertised, Some(("public.example".to_owned(), 1)));
    assert_eq!(config.internal_advertised, Some(("inside".to_owned(), 2)));
}

#[test]
fn a_file_of_a_kraft_node_is_understood() {
    let config = completed(
        "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.bootstrap.servers=localhost:9093\n\
         listeners=PLAINTEXT://:9092,CONTROLLER://:9093\ninter.broker.listener.name=PLAINTEXT\n\
         advertised.listeners=PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093\n\
         controller.listener.names=CONTROLLER\n\
         listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_SSL:SASL_SSL\n",
    )
    .expect("Kafka's own sample");
    assert!(!config.is_clustered(), "a node alone");
    assert_eq!(
        (config.listen.as_str(), config.internal_listen.as_deref()),
        ("0.0.0.0:9092", Some("0.0.0.0:9093"))
    );
    assert_eq!(config.advertised, Some(("localhost".to_owned(), 9092)));
    let config = completed(
        "process.roles=controller\nnode.id=1\ncontroller.quorum.voters=1@localhost:9093\n\
         listeners=CONTROLLER://localhost:9093\ncontroller.listener.names=CONTROLLER\n",
    )
    .expect("a controller without clients");
    assert_eq!(config.internal_listen.as_deref(), Some("localhost:9093"));
    let config = parse(
        "listeners=CLIENT://:1,BROKERS://:2\ninter.broker.listener.name=BROKERS\n\
         listener.security.protocol.map=CLIENT:PLAINTEXT,BROKERS:PLAINTEXT\n",
    )
    .expect("names of one's own");
    assert_eq!((config.listen.as_str(), config.internal_listen.as_deref()), ("0.0.0.0:1", Some("0.0.0.0:2")));
}

#[test]
fn listeners_that_cannot_be_told_apart_are_refused_with_what_to_do() {
    let refused = |text: &str| parse(text).expect_err("refused").to_string();
    let error = refused("node.id=1\nlisteners=PLAINTEXT://:1,SASL_SSL://:2\n");
    assert!(error.starts_with("server.properties:2: listeners: PLAINTEXT is the only protocol"), "{error}");
    assert!(error.contains("SASL_SSL:PLAINTEXT") && error.contains("INTERNAL"), "{error}");
    let error = refused("listeners=PLAINTEXT://:1,B://:2\nlistener.security.protocol.map=B:PLAINTEXT\n");
    assert!(error.contains("PLAINTEXT and B are both for clients"), "{error}");
    assert!(refused("listeners=PLAINTEXT://:1,PLAINTEXT://:2\n").contains("twice"));
    assert!(parse("advertised.listeners=PLAINTEXT://a:1,INTERNAL://0.0.0.0:2").is_err(), "a wildcard");
}

#[test]
fn settings_that_do_not_fit_together_are_refused_with_what_to_do() {
    let voters = "node.id=2\ncontroller.quorum.voters=1@a:9093,2@b:9093\n";
    assert!(misfit(voters).contains("listeners=PLAINTEXT://:9092,INTERNAL://:9093"));
    assert!(misfit("process.roles=broker\n").contains("controller.quorum.voters"));
    assert!(misfit(&format!("{ONE_OF_THREE}process.roles=broker\n")).contains("leave out 'controller'"));
    assert!(misfit("broker.heartbeat.interval.ms=600\n").contains("broker.session.timeout.ms"));
    assert!(misfit(&format!("{ONE_OF_THREE}weir.internal.secret=s\n")).contains("not both"));
    let stranger = ONE_OF_THREE.replace("node.id=2", "node.id=9");
    assert!(misfit(&stranger).contains("advertised.listeners=PLAINTEXT://HOST:9092,INTERNAL://HOST:9093"));
    for voters in ["1@a:1,1@b:1", "a:1", "1@:9093", "1@a:0", "x@a:1", "1@a"] {
        assert!(parse(&format!("controller.quorum.voters={voters}")).is_err(), "{voters}");
    }
    let several = parse("controller.quorum.bootstrap.servers=a:1,b:1").expect_err("whose voters are unknown");
    assert!(several.to_string().contains("controller.quorum.voters"), "{several}");
}

#[test]
fn secrets_are_never_shown() {
    let mut config =
        completed(&ONE_OF_THREE.replace("secret.file=/etc/weir/secret", "secret=hunter2")).expect("valid");
    assert!(!format!("{config:?}").contains("hunter2"));
    assert!(config.static_settings().iter().all(|setting| !setting.name.contains("secret")));
    config.take_secret(Path::new("f"), "of the file\n").expect("a secret");
    assert_eq!(config.internal_secret, Some(Secret::new("of the file")));
    assert!(config.take_secret(Path::new("f"), "\n").is_err(), "an empty file is no secret");
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
                ConfigError::Unreadable { .. } | ConfigError::Misfit(_) => 0,
            };
            prop_assert!((1..=text.lines().count()).contains(&line), "{error}");
            prop_assert!(!error.to_string().is_empty());
        }
    }
}
