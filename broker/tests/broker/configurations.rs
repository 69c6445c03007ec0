//! Settings of topics and brokers: described, changed, and in force.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_configs_request::{
    AlterConfigsRequest, AlterConfigsResource as ReplacedResource, AlterableConfig as ReplacedConfig,
};
use kafka_protocol::messages::describe_configs_request::{DescribeConfigsRequest, DescribeConfigsResource};
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult,
};
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::protocol::StrBytes;
use weir_broker::Config;

use crate::support::{Broker, Client, batch, config, run};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const BROKER_LOGGER: i8 = 8;
const CLIENT_METRICS: i8 = 16;
const GROUP: i8 = 32;

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// Where a value comes from, as the protocol numbers it.
mod source {
    pub(super) const TOPIC: i8 = 1;
    pub(super) const DYNAMIC_BROKER: i8 = 2;
    pub(super) const DYNAMIC_DEFAULT_BROKER: i8 = 3;
    pub(super) const STATIC_BROKER: i8 = 4;
    pub(super) const DEFAULT: i8 = 5;
}

fn describe_request(kind: i8, name: &str, keys: Option<&[&str]>) -> DescribeConfigsRequest {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configuration_keys(keys.map(|keys| keys.iter().map(|key| text(key)).collect()));
    DescribeConfigsRequest::default().with_resources(vec![resource]).with_include_synonyms(true)
}

async fn describe(client: &mut Client, kind: i8, name: &str) -> DescribeConfigsResult {
    let mut response = client.call(4, &describe_request(kind, name, None)).await;
    response.results.remove(0)
}

/// One setting of a resource that has it.
async fn setting(client: &mut Client, kind: i8, name: &str, key: &str) -> DescribeConfigsResourceResult {
    let described = describe(client, kind, name).await;
    assert_eq!(described.error_code, 0, "{:?}", described.error_message);
    described.configs.into_iter().find(|config| config.name.as_str() == key).expect("the setting")
}

/// A setting's value and source.
async fn value(client: &mut Client, kind: i8, name: &str, key: &str) -> (String, i8) {
    let found = setting(client, kind, name, key).await;
    (found.value.map(|value| value.to_string()).unwrap_or_default(), found.config_source)
}

fn resource(kind: i8, name: &str, changes: &[(&str, i8, Option<&str>)]) -> AlterConfigsResource {
    let configs = changes.iter().map(|(name, operation, value)| {
        AlterableConfig::default()
            .with_name(text(name))
            .with_config_operation(*operation)
            .with_value(value.map(text))
    });
    AlterConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configs(configs.collect())
}

async fn alter(
    client: &mut Client,
    kind: i8,
    name: &str,
    changes: &[(&str, i8, Option<&str>)],
) -> AlterConfigsResourceResponse {
    let request =
        IncrementalAlterConfigsRequest::default().with_resources(vec![resource(kind, name, changes)]);
    client.call(1, &request).await.responses.remove(0)
}

async fn set(client: &mut Client, kind: i8, name: &str, key: &str, value: &str) {
    let response = alter(client, kind, name, &[(key, SET, Some(value))]).await;
    assert_eq!(response.error_code, 0, "{:?}", response.error_message);
}

#[test]
fn k20_a_topics_settings_are_named_with_source_type_and_synonyms() {
    run(async {
        let mut config = config();
        config.topic_defaults.insert("log.retention.ms".to_owned(), "3000".to_owned());
        let broker = Broker::with(config).await;
        let mut client = broker.client().await;
        client.create("shown", 1, &[("retention.ms", "1000")]).await;
        set(&mut client, BROKER, "", "log.retention.ms", "2000").await;
        let retention = setting(&mut client, TOPIC, "shown", "retention.ms").await;
        assert_eq!(retention.value, Some(text("1000")));
        assert_eq!((retention.config_source, retention.config_type), (source::TOPIC, 5));
        assert_eq!((retention.read_only, retention.is_sensitive), (false, false));
        assert_eq!(retention.documentation, None, "nobody asked for it");
        let synonyms: Vec<_> = retention
            .synonyms
            .iter()
            .map(|found| (found.name.as_str(), found.value.as_deref().unwrap_or_default(), found.source))
            .collect();
        let expected = [
            ("retention.ms", "1000", source::TOPIC),
            ("log.retention.ms", "2000", source::DYNAMIC_DEFAULT_BROKER),
            ("log.retention.ms", "3000", source::STATIC_BROKER),
            ("log.retention.ms", "604800000", source::DEFAULT),
        ];
        assert_eq!(synonyms, expected);
        let kinds =
            [("cleanup.policy", 7), ("preallocate", 1), ("segment.bytes", 3), ("compression.type", 2)];
        for (key, kind) in kinds.into_iter().chain([("min.cleanable.dirty.ratio", 6)]) {
            assert_eq!(setting(&mut client, TOPIC, "shown", key).await.config_type, kind, "{key}");
        }
    });
}

#[test]
fn every_version_of_describe_configs_is_answered_with_what_it_has() {
    run(async {
        let broker = Broker::start().await;
        let mut client = broker.client().await;
        client.create("shown", 1, &[]).await;
        for version in 1..=4 {
            let mut request = describe_request(TOPIC, "shown", Some(&["flush.messages", "no.such.key"]));
            request.include_documentation = version >= 3;
            let response = client.call(version, &request).await;
            let configs = &response.results[0].configs;
            assert_eq!((response.results[0].error_code, configs.len()), (0, 1), "version {version}");
            assert_eq!(configs[0].value, Some(text("1")), "version {version}");
            assert_eq!(configs[0].config_source, source::DEFAULT, "version {version}");
            assert_eq!(configs[0].synonyms.len(), 1, "version {version}");
            if version >= 3 {
                assert!(configs[0].documentation.as_ref().is_some_and(|doc| doc.contains("synced")));
            }
        }
        let mut plain = describe_request(TOPIC, "shown", Some(&[]));
        plain.include_synonyms = false;
        let response = client.call(4, &plain).await;
        assert!(response.results[0].configs.len() > 20, "no keys: all of them");
        assert!(response.results[0].configs.iter().all(|config| config.synonyms.is_empty()));
    });
}

#[test]
fn k20_a_brokers_settings_are_read_only_unless_topics_fall_back_to_them() {
    run(async {
        let broker = Broker::with(Config { partitions: 7, ..config() }).await;
        let mut client = broker.client().await;
        let partitions = setting(&mut client, BROKER, "1", "num.partitions").await;
        assert_eq!(partitions.value, Some(text("7")));
        assert_eq!((partitions.config_source, partitions.config_type), (source::STATIC_BROKER, 3));
        assert!(partitions.read_only);
        let synonyms: Vec<_> = partitions.synonyms.iter().map(|found| found.source).collect();
        assert_eq!(synonyms, [source::STATIC_BROKER, source::DEFAULT]);
        assert_eq!(value(&mut client, BROKER, "1", "node.id").await, ("1".to_owned(), source::DEFAULT));
        let replicas = value(&mut client, BROKER, "1", "default.replication.factor").await;
        assert_eq!(replicas, ("1".to_owned(), source::DEFAULT), "min(3, brokers)");
        let rack = setting(&mut client, BROKER, "1", "broker.rack").await;
        assert_eq!((rack.value, rack.config_source), (None, source::DEFAULT), "none is set");
        let segment = setting(&mut client, BROKER, "1", "log.segment.bytes").await;
        assert!(!segment.read_only, "topics fall back to it, and it can be changed while the broker runs");
        set(&mut client, BROKER, "1", "log.segment.bytes", "2097152").await;
        let segment = setting(&mut client, BROKER, "1", "log.segment.bytes").await;
        assert_eq!(segment.config_source, source::DYNAMIC_BROKER);
        let cluster = describe(&mut client, BROKER, "").await;
        assert!(cluster.configs.is_empty(), "nothing is set for all brokers: {cluster:?}");
        set(&mut client, BROKER, "", "log.segment.bytes", "3145728").await;
        let cluster = describe(&mut client, BROKER, "").await;
        assert_eq!(cluster.configs.len(), 1);
        assert_eq!(cluster.configs[0].config_source, source::DYNAMIC_DEFAULT_BROKER);
        let own = value(&mut client, BROKER, "1", "log.segment.bytes").await;
        assert_eq!(own, ("2097152".to_owned(), source::DYNAMIC_BROKER), "the broker's own comes first");
    });
}

#[test]
fn what_has_no_settings_is_described_without_any_and_what_cannot_be_is_refused() {
    run(async {
        let broker = Broker::start().await;
        let mut client = broker.client().await;
        let unknown = ResponseError::UnknownTopicOrPartition;
        let cases = [
            (BROKER_LOGGER, "1", None),
            (GROUP, "any", None),
            (CLIENT_METRICS, "any", None),
            (TOPIC, "absent", Some(unknown)),
            (TOPIC, "a/b", Some(ResponseError::InvalidTopicException)),
            (BROKER, "2", Some(ResponseError::InvalidRequest)),
            (BROKER, "one", Some(ResponseError::InvalidRequest)),
            (BROKER_LOGGER, "", Some(ResponseError::InvalidRequest)),
            (GROUP, "", Some(ResponseError::InvalidRequest)),
            (CLIENT_METRICS, "", Some(ResponseError::InvalidRequest)),
            (1, "any", Some(ResponseError::InvalidRequest)),
            (64, "", Some(ResponseError::InvalidRequest)),
        ];
        for (kind, name, error) in cases {
            let described = describe(&mut client, kind, name).await;
            assert_eq!(described.error_code, error.map_or(0, |error| error.code()), "{kind} {name}");
            assert_eq!((described.resource_type, described.resource_name.as_str()), (kind, name));
            assert!(described.configs.is_empty(), "{kind} {name}");
            assert_eq!(described.error_message.is_some(), error.is_some(), "a person is told why");
        }
    });
}

#[test]
fn a_response_does_not_grow_without_bounds_when_a_resource_is_named_again_and_again() {
    run(async {
        let broker = Broker::start().await;
        let mut client = broker.client().await;
        client.create("again", 1, &[]).await;
        let mut request = describe_request(TOPIC, "again", None);
        request.include_synonyms = false;
        request.resources = vec![request.resources[0].clone(); 20_000];
        let response = client.call(4, &request).await;
        let described: usize = response.results.iter().map(|result| result.configs.len()).sum();
        assert!((200_000..=300_000).contains(&described), "{described}");
        let last = response.results.last().expect("one for each");
        assert_eq!((response.results.len(), last.error_code), (20_000, ResponseError::InvalidRequest.code()));
    });
}

#[test]
fn a_topics_setting_takes_effect_when_it_is_changed_and_survives_a_restart() {
    run(async {
        let broker = Broker::start().await;
        let mut client = broker.client().await;
        client.create("bounded", 1, &[]).await;
        let large = || batch(&[&[7; 2_000]]);
        assert_eq!(client.produce("bounded", 0, large()).await.error_code, 0);
        set(&mut client, TOPIC, "bounded", "max.message.bytes", "1000").await;
        let too_large = ResponseError::MessageTooLarge.code();
        assert_eq!(client.produce("bounded", 0, large()).await.error_code, too_large);
        let broker = broker.restart().await;
        let mut client = broker.client().await;
        assert_eq!(client.produce("bounded", 0, large()).await.error_code, too_large);
        let response = alter(&mut client, TOPIC, "bounded", &[("max.message.bytes", DELETE, None)]).await;
        assert_eq!(response.error_code, 0);
        assert_eq!(client.produce("bounded", 0, large()).await.error_code, 0, "the default is back");
        let (_, from) = value(&mut client, TOPIC, "bounded", "max.message.bytes").await;
        assert_eq!(from, source::DEFAULT);
    });
}

#[test]
fn a_brokers_dynamic_setting_is_what_topics_fall_back_to() {
    run(async {
        let broker = Broker::start().await;
        let mut client = broker.client().await;
        client.create("plain", 1, &[]).await;
        client.create("own", 1, &[("max.message.bytes", "1000000")]).await;
        let large = || batch(&[&[7; 2_000]]);
        set(&mut client, BROKER, "", "message.max.bytes", "1000").await;
        let too_large = ResponseError::MessageTooLarge.code();
        assert_eq!(client.produce("plain", 0, large()).await.error_code, too_large);
        assert_eq!(client.produce("own", 0, large()).await.error_code, 0, "a topic's own comes first");
        set(&mut client, BROKER, "1", "message.max.bytes", "500000").await;
        assert_eq!(client.produce("plain", 0, large()).await.error_code, 0, "the broker's own comes next");
        let found = value(&mut client, TOPIC, "plain", "max.message.bytes").await;
        assert_eq!(found, ("500000".to_owned(), source::DYNAMIC_BROKER));
        let broker = broker.restart().await;
        let mut client = broker.client().await;
        let found = value(&mut client, TOPIC, "plain", "max.message.bytes").await;
        assert_eq!(found, ("500000".to_owned(), source::DYNAMIC_BROKER), "it survives a restart");
    });
}

#[test]
fn the_older_request_replaces_all_settings_of_a_topic() {
    run(async {
        let broker = Broker::start().await;
        let mut client = broker.client().await;
        for version in 0..=2 {
            let name = format!("replaced-{version}");
            client.create(&name, 1, &[("retention.ms", "1000"), ("segment.ms", "2000")]).await;
            let config =
                ReplacedConfig::default().with_name(text("retention.ms")).with_value(Some(text("5000")));
            let resource = ReplacedResource::default()
                .with_resource_type(TOPIC)
                .with_resource_name(text(&name))
                .with_configs(vec![config]);
            let request = AlterConfigsRequest::default().with_resources(vec![resource]);
            let mut check = request.clone();
            check.validate_only = true;
            assert_eq!(client.call(version, &check).await.responses[0].error_code, 0);
            let retention = value(&mut client, TOPIC, &name, "retention.ms").await;
            assert_eq!(retention, ("1000".to_owned(), source::TOPIC), "it was only checked");
            assert_eq!(client.call(version, &request).await.responses[0].error_code, 0);
            let retention = value(&mut client, TOPIC, &name, "retention.ms").await;
            assert_eq!(retention, ("5000".to_owned(), source::TOPIC));
            assert_eq!(value(&mut client, TOPIC, &name, "segment.ms").await.1, source::DEFAULT);
        }
        let logger = ReplacedResource::default()
            .with_resource_type(BROKER_LOGGER)
            .with_resource_name(text("1"))
            .with_configs(Vec::new());
        let request = AlterConfigsRequest::default().with_resources(vec![logger]);
        let response = client.call(2, &request).await;
        assert_eq!(response.responses[0].error_code, ResponseError::InvalidRequest.code(), "KIP-412");
    });
}

#[test]
fn a_change_that_cannot_be_is_refused_with_the_reason_and_changes_nothing() {
    run(async {
        let broker = Broker::start().await;
        let mut client = broker.client().await;
        client.create("kept", 1, &[]).await;
        let set = |key: &'static str, value: &'static str| (key, SET, Some(value));
        use ResponseError::*;
        let cases = [
            (TOPIC, "kept", vec![set("retention.ms", "7"), set("no.such.setting", "1")], InvalidConfig),
            (TOPIC, "kept", vec![set("retention.ms", "7"), set("segment.ms", "soon")], InvalidConfig),
            (TOPIC, "kept", vec![set("retention.ms", "7"), set("retention.ms", "8")], InvalidRequest),
            (TOPIC, "kept", vec![set("retention.ms", "7"), ("segment.ms", SET, None)], InvalidRequest),
            (TOPIC, "kept", vec![("retention.ms", 9, Some("7"))], InvalidRequest),
            (TOPIC, "kept", vec![("retention.ms", APPEND, Some("7"))], InvalidConfig),
            (TOPIC, "absent", vec![set("retention.ms", "7")], UnknownTopicOrPartition),
            (TOPIC, "", vec![set("retention.ms", "7")], InvalidRequest),
            (BROKER, "2", vec![set("log.retention.ms", "7")], InvalidRequest),
            (BROKER, "1", vec![set("num.partitions", "7")], InvalidRequest),
            (BROKER, "", vec![set("log.retention.ms", "soon")], InvalidRequest),
            (BROKER_LOGGER, "1", vec![set("root", "DEBUG")], InvalidConfig),
            (GROUP, "any", vec![set("consumer.session.timeout.ms", "7")], InvalidConfig),
            (CLIENT_METRICS, "any", vec![set("interval.ms", "7")], InvalidRequest),
            (1, "any", vec![], InvalidRequest),
        ];
        for (kind, name, changes, error) in cases {
            let response = alter(&mut client, kind, name, &changes).await;
            assert_eq!(response.error_code, error.code(), "{kind} {name} {changes:?}");
            assert_eq!((response.resource_type, response.resource_name.as_str()), (kind, name));
            assert!(response.error_message.is_some_and(|text| !text.is_empty()), "a person is told why");
        }
        let twice = resource(TOPIC, "kept", &[set("retention.ms", "7")]);
        let other = resource(BROKER, "", &[set("log.segment.bytes", "2097152")]);
        let request =
            IncrementalAlterConfigsRequest::default().with_resources(vec![twice.clone(), other, twice]);
        let codes: Vec<i16> =
            client.call(1, &request).await.responses.iter().map(|response| response.error_code).collect();
        assert_eq!(codes, [InvalidRequest.code(), 0, InvalidRequest.code()], "each at most once");
        let mut check = IncrementalAlterConfigsRequest::default().with_resources(vec![resource(
            TOPIC,
            "kept",
            &[set("retention.ms", "7")],
        )]);
        check.validate_only = true;
        assert_eq!(client.call(0, &check).await.responses[0].error_code, 0);
        assert_eq!(value(&mut client, TOPIC, "kept", "retention.ms").await.1, source::DEFAULT);
    });
}

#[test]
fn what_is_as_it_is_asked_for_costs_no_commit() {
    run(async {
        let broker = Broker::start().await;
        let mut client = broker.client().await;
        client.create("same", 1, &[("retention.ms", "1000")]).await;
        let before = broker.node.metrics().metadata_commits.get();
        let changes =
            [("retention.ms", SET, Some("1000")), ("segment.ms", DELETE, None), ("unknown", DELETE, None)];
        assert_eq!(alter(&mut client, TOPIC, "same", &changes).await.error_code, 0);
        assert_eq!(broker.node.metrics().metadata_commits.get(), before);
    });
}

#[test]
fn items_that_two_clients_add_to_a_list_at_once_are_all_there() {
    run(async {
        let broker = Broker::start().await;
        let (mut one, mut two) = (broker.client().await, broker.client().await);
        one.create("list", 1, &[]).await;
        let key = "leader.replication.throttled.replicas";
        for number in 0..10 {
            for (client, side) in [(&mut one, "a"), (&mut two, "b")] {
                let item = format!("{number}:{side}");
                let changes = [(key, APPEND, Some(item.as_str()))];
                let request = IncrementalAlterConfigsRequest::default()
                    .with_resources(vec![resource(TOPIC, "list", &changes)]);
                client.send(1, &request).await;
            }
        }
        for client in [&mut one, &mut two] {
            for _ in 0..10 {
                let (_, response) = client.answer::<IncrementalAlterConfigsRequest>(1).await;
                assert_eq!(response.responses[0].error_code, 0);
            }
        }
        let (list, _) = value(&mut one, TOPIC, "list", key).await;
        assert_eq!(list.split(',').count(), 20, "{list}");
    });
}
