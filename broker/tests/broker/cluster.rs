//! What is said about brokers, folders and partitions, and partitions that are added.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_partitions_request::{
    CreatePartitionsAssignment, CreatePartitionsRequest, CreatePartitionsTopic,
};
use kafka_protocol::messages::describe_log_dirs_request::{DescribableLogDirTopic, DescribeLogDirsRequest};
use kafka_protocol::messages::describe_topic_partitions_request::{
    Cursor, DescribeTopicPartitionsRequest, TopicRequest,
};
use kafka_protocol::messages::describe_topic_partitions_response::DescribeTopicPartitionsResponse;
use kafka_protocol::messages::{
    ApiVersionsRequest, DescribeClusterRequest, DescribeLogDirsResponse, ListConfigResourcesRequest,
};
use kafka_protocol::protocol::StrBytes;
use weir_wire::kafka::ApiKey;

use crate::support::{Broker, Client, batch, create_request, run, topic, values};

fn more(name: &str, count: i32) -> CreatePartitionsRequest {
    let wanted =
        CreatePartitionsTopic::default().with_name(topic(name)).with_count(count).with_assignments(None);
    CreatePartitionsRequest::default().with_topics(vec![wanted]).with_timeout_ms(10_000)
}

fn assigned(name: &str, count: i32, brokers: &[&[i32]]) -> CreatePartitionsRequest {
    let assignments = brokers.iter().map(|ids| {
        CreatePartitionsAssignment::default().with_broker_ids(ids.iter().map(|id| (*id).into()).collect())
    });
    let mut request = more(name, count);
    request.topics[0].assignments = Some(assignments.collect());
    request
}

async fn partitions(client: &mut Client, name: &str) -> usize {
    client.metadata(9, Some(&[name]), false).await.topics[0].partitions.len()
}

#[test]
fn added_partitions_can_be_used_at_once_and_survive_a_restart() {
    run(async {
        let broker = Broker::start().await;
        let mut client = broker.client().await;
        client.create("grown", 1, &[]).await;
        client.produce("grown", 0, batch(&[b"before"])).await;
        for version in 0..=3 {
            let count = i32::from(version) + 2;
            let response = client.call(version, &more("grown", count)).await;
            let result = &response.results[0];
            assert_eq!((result.error_code, result.name.as_str()), (0, "grown"), "version {version}");
            let answer = client.produce("grown", count - 1, batch(&[b"new"])).await;
            assert_eq!(answer.error_code, 0, "version {version}");
        }
        assert_eq!(client.call(3, &assigned("grown", 6, &[&[1]])).await.results[0].error_code, 0);
        let broker = broker.restart().await;
        let mut client = broker.client().await;
        assert_eq!(partitions(&mut client, "grown").await, 6);
        assert_eq!(values(client.fetch("grown", 0, 0).await.records), [(0, b"before".to_vec())]);
        assert_eq!(values(client.fetch("grown", 4, 0).await.records), [(0, b"new".to_vec())]);
    });
}

#[test]
fn partitions_that_cannot_be_are_refused_with_the_reason() {
    run(async {
        let broker = Broker::start().await;
        let mut client = broker.client().await;
        client.create("fixed", 3, &[]).await;
        let twice = {
            let mut request = more("fixed", 4);
            request.topics.push(request.topics[0].clone());
            request
        };
        use ResponseError::*;
        let cases = [
            (more("absent", 2), UnknownTopicOrPartition),
            (more("fixed", 3), InvalidPartitions),
            (more("fixed", 2), InvalidPartitions),
            (more("fixed", 0), InvalidPartitions),
            (more("fixed", -1), InvalidPartitions),
            (more("fixed", 100_001), InvalidPartitions),
            (more("fixed", i32::MAX), InvalidPartitions),
            (assigned("fixed", 5, &[&[1]]), InvalidReplicaAssignment),
            (assigned("fixed", 4, &[&[]]), InvalidReplicaAssignment),
            (assigned("fixed", 4, &[&[99]]), InvalidReplicaAssignment),
            (assigned("fixed", 4, &[&[1, 1]]), InvalidReplicaAssignment),
            (twice, InvalidRequest),
        ];
        for (request, error) in cases {
            let response = client.call(3, &request).await;
            assert_eq!(response.results.len(), 1);
            let result = &response.results[0];
            assert_eq!(result.error_code, error.code(), "{request:?}");
            assert!(result.error_message.as_ref().is_some_and(|text| !text.is_empty()), "told why");
        }
        let mut check = more("fixed", 9);
        check.validate_only = true;
        assert_eq!(client.call(3, &check).await.results[0].error_code, 0);
        assert_eq!(partitions(&mut client, "fixed").await, 3, "nothing was added");
    });
}

fn describe_request(
    topics: &[&str],
    limit: i32,
    cursor: Option<(&str, i32)>,
) -> DescribeTopicPartitionsRequest {
    let cursor = cursor.map(|(name, partition)| {
        Cursor::default().with_topic_name(topic(name)).with_partition_index(partition)
    });
    DescribeTopicPartitionsRequest::default()
        .with_topics(topics.iter().map(|name| TopicRequest::default().with_name(topic(name))).collect())
        .with_response_partition_limit(limit)
        .with_cursor(cursor)
}

/// Each topic with its partitions, and the cursor.
type Page = (Vec<(String, Vec<i32>)>, Option<(String, i32)>);

fn page(response: &DescribeTopicPartitionsResponse) -> Page {
    let topics = response.topics.iter().map(|topic| {
        let name = topic.name.as_ref().map(|name| name.to_string()).unwrap_or_default();
        (name, topic.partitions.iter().map(|partition| partition.partition_index).collect())
    });
    let cursor = response.next_cursor.as_ref();
    (topics.collect(), cursor.map(|next| (next.topic_name.to_string(), next.partition_index)))
}

#[test]
fn partitions_are_described_page_by_page() {
    run(async {
        let broker = Broker::start().await;
        let mut client = broker.client().await;
        for (name, count) in [("c", 1), ("a", 3), ("b", 2)] {
            client.create(name, count, &[]).await;
        }
        let named = |name: &str, partitions: &[i32]| (name.to_owned(), partitions.to_vec());
        let at = |name: &str, partition| Some((name.to_owned(), partition));
        let pages = [
            (vec![named("a", &[0, 1])], at("a", 2)),
            (vec![named("a", &[2]), named("b", &[0])], at("b", 1)),
            (vec![named("b", &[1]), named("c", &[0])], None),
        ];
        let mut cursor: Option<(String, i32)> = None;
        for expected in pages {
            let from = cursor.as_ref().map(|(name, partition)| (name.as_str(), *partition));
            let found = page(&client.call(0, &describe_request(&[], 2, from)).await);
            assert_eq!(found, expected);
            cursor = found.1;
        }
        let whole = page(&client.call(0, &describe_request(&["c", "a", "a"], 3, None)).await);
        assert_eq!(whole, (vec![named("a", &[0, 1, 2])], at("c", 0)), "sorted, each once");
        let least = page(&client.call(0, &describe_request(&["b"], 0, None)).await);
        assert_eq!(least, (vec![named("b", &[0])], at("b", 1)), "one at least");
        let gone = page(&client.call(0, &describe_request(&[], 10, Some(("aa", 5)))).await);
        assert_eq!(gone.0, [named("b", &[0, 1]), named("c", &[0])], "the cursor's topic is gone");
    });
}

#[test]
fn a_described_partition_has_its_leader_and_what_is_unknown_is_named() {
    run(async {
        let broker = Broker::start().await;
        let mut client = broker.client().await;
        client.create("known", 1, &[]).await;
        let response = client.call(0, &describe_request(&["known", "absent", "a/b"], 100, None)).await;
        let errors: Vec<_> = response.topics.iter().map(|topic| topic.error_code).collect();
        let invalid = ResponseError::InvalidTopicException.code();
        let unknown = ResponseError::UnknownTopicOrPartition.code();
        assert_eq!(errors, [invalid, unknown, 0]);
        let known = &response.topics[2];
        let metadata = client.metadata(12, Some(&["known"]), false).await;
        assert_eq!(known.topic_id, metadata.topics[0].topic_id);
        let partition = &known.partitions[0];
        assert_eq!((partition.leader_id.0, partition.leader_epoch), (1, 0));
        assert_eq!((partition.replica_nodes.len(), partition.isr_nodes.len()), (1, 1));
        assert!(partition.offline_replicas.is_empty());
        let elsewhere = client.call(0, &describe_request(&["known"], 100, Some(("other", 0)))).await;
        assert_eq!(elsewhere.topics[0].error_code, ResponseError::InvalidRequest.code());
        let negative = client.call(0, &describe_request(&["known"], 100, Some(("known", -1)))).await;
        assert_eq!(negative.topics[0].error_code, ResponseError::InvalidRequest.code());
    });
}

#[test]
fn the_cluster_is_described_in_every_version() {
    run(async {
        let broker = Broker::start().await;
        let port = broker.node.address().port();
        let mut client = broker.client().await;
        let id = client.metadata(9, None, false).await.cluster_id;
        for version in 0..=2 {
            let request = DescribeClusterRequest::default().with_include_cluster_authorized_operations(true);
            let response = client.call(version, &request).await;
            assert_eq!((response.error_code, response.controller_id.0), (0, 1), "version {version}");
            assert_eq!(Some(&response.cluster_id), id.as_ref());
            let brokers: Vec<_> =
                response.brokers.iter().map(|broker| (broker.broker_id.0, broker.port)).collect();
            assert_eq!(brokers, [(1, i32::from(port))]);
            assert!(response.cluster_authorized_operations > 0);
        }
        let wrong = [(2, ResponseError::MismatchedEndpointType), (9, ResponseError::UnsupportedEndpointType)];
        for (kind, error) in wrong {
            let request = DescribeClusterRequest::default().with_endpoint_type(kind);
            assert_eq!(client.call(1, &request).await.error_code, error.code());
        }
    });
}

fn sizes(response: &DescribeLogDirsResponse) -> Vec<(String, i32, i64)> {
    assert_eq!((response.results.len(), response.results[0].error_code), (1, 0));
    let topics = response.results[0].topics.iter();
    let of = |name: &str, partition: i32, size: i64| (name.to_owned(), partition, size);
    topics
        .flat_map(|topic| {
            let partitions = topic.partitions.iter();
            partitions.map(|found| of(&topic.name, found.partition_index, found.partition_size))
        })
        .collect()
}

#[test]
fn the_sizes_of_logs_are_told_whether_they_are_open_or_not() {
    run(async {
        let broker = Broker::start().await;
        let mut client = broker.client().await;
        client.create("large", 2, &[]).await;
        client.create("empty", 1, &[]).await;
        let records = batch(&[&[7; 3_000]]);
        let length = records.len() as i64;
        for _ in 0..2 {
            client.produce("large", 1, records.clone()).await;
        }
        let expected =
            [("empty".to_owned(), 0, 0), ("large".to_owned(), 0, 0), ("large".to_owned(), 1, 2 * length)];
        let all = DescribeLogDirsRequest::default().with_topics(None);
        for version in 1..=4 {
            let response = client.call(version, &all).await;
            assert_eq!(sizes(&response), expected, "version {version}");
            let folder = &response.results[0];
            assert_eq!(folder.log_dir.as_str(), broker.folder.path().display().to_string());
            let told = folder.usable_bytes > 0 && folder.usable_bytes <= folder.total_bytes;
            assert_eq!(told, version >= 4, "{} of {}", folder.usable_bytes, folder.total_bytes);
        }
        let broker = broker.restart().await;
        let mut client = broker.client().await;
        assert_eq!(sizes(&client.call(4, &all).await), expected, "no log is open");
        assert_eq!(broker.node.metrics().partitions_opened.get(), 0, "and none was opened for it");
        let wanted = [("large", vec![1, 7]), ("absent", vec![0])].map(|(name, partitions)| {
            DescribableLogDirTopic::default().with_topic(topic(name)).with_partitions(partitions)
        });
        let some = DescribeLogDirsRequest::default().with_topics(Some(wanted.to_vec()));
        assert_eq!(sizes(&client.call(4, &some).await), expected[2..], "what is not here is left out");
    });
}

#[test]
fn resources_that_have_settings_are_listed() {
    run(async {
        let broker = Broker::start().await;
        let mut client = broker.client().await;
        client.create("listed", 1, &[]).await;
        let all = ListConfigResourcesRequest::default();
        let metrics_only = client.call(0, &all).await;
        assert_eq!((metrics_only.error_code, metrics_only.config_resources.len()), (0, 0), "KIP-714");
        let listed = |response: kafka_protocol::messages::ListConfigResourcesResponse| -> Vec<(i8, String)> {
            assert_eq!(response.error_code, 0);
            let resources = response.config_resources.iter();
            resources.map(|found| (found.resource_type, found.resource_name.to_string())).collect()
        };
        let everything = listed(client.call(1, &all).await);
        let expected = [(2, "listed"), (4, "1"), (8, "1")];
        assert_eq!(everything, expected.map(|(kind, name)| (kind, name.to_owned())));
        let brokers = ListConfigResourcesRequest::default().with_resource_types(vec![4, 32]);
        assert_eq!(listed(client.call(1, &brokers).await), [(4, "1".to_owned())]);
        let unknown = ListConfigResourcesRequest::default().with_resource_types(vec![3]);
        let refused = client.call(1, &unknown).await;
        assert_eq!(refused.error_code, ResponseError::UnsupportedVersion.code());
    });
}

#[test]
fn every_version_of_create_topics_creates_one_and_says_how_it_is_set() {
    run(async {
        let broker = Broker::start().await;
        let mut client = broker.client().await;
        for version in 2..=7 {
            let mut request = create_request(&format!("v{version}"), 1, &[("retention.ms", "1000")]);
            request.topics[0].replication_factor = 1;
            let response = client.try_create(version, &request).await;
            assert_eq!(response.topics[0].error_code, 0, "version {version}");
            let again = client.try_create(version, &request).await;
            assert_eq!(again.topics[0].error_code, ResponseError::TopicAlreadyExists.code());
            if version >= 5 {
                let configs = response.topics[0].configs.as_ref().expect("its settings");
                let retention = configs.iter().find(|config| config.name.as_str() == "retention.ms");
                let retention = retention.expect("what was set is among them");
                assert_eq!(retention.value, Some(StrBytes::from_static_str("1000")));
                assert_eq!((retention.config_source, retention.read_only), (1, false));
            }
        }
    });
}

#[test]
fn what_is_advertised_of_the_administration_is_served() {
    run(async {
        let broker = Broker::start().await;
        let mut client = broker.client().await;
        let request = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str("test"))
            .with_client_software_version(StrBytes::from_static_str("1.0"));
        let response = client.call(3, &request).await;
        let range = |key: ApiKey| {
            let found = response.api_keys.iter().find(|range| range.api_key == key as i16)?;
            Some((found.min_version, found.max_version))
        };
        let expected = [
            (ApiKey::DescribeConfigs, (1, 4)),
            (ApiKey::AlterConfigs, (0, 2)),
            (ApiKey::DescribeLogDirs, (1, 4)),
            (ApiKey::CreatePartitions, (0, 3)),
            (ApiKey::IncrementalAlterConfigs, (0, 1)),
            (ApiKey::DescribeCluster, (0, 2)),
            (ApiKey::ListConfigResources, (0, 1)),
            (ApiKey::DescribeTopicPartitions, (0, 0)),
        ];
        for (key, versions) in expected {
            assert_eq!(range(key), Some(versions), "{key:?}");
        }
    });
}
