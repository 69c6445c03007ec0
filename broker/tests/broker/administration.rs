//! Topics: created, created on the way, deleted; and what is said about the cluster.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_topics_request::{CreatableReplicaAssignment, CreateTopicsRequest};
use kafka_protocol::messages::delete_topics_request::{DeleteTopicState, DeleteTopicsRequest};
use weir_broker::Config;

use crate::support::{Broker, Client, batch, config, create_request, run, topic, until, values};

#[test]
fn k21_metadata_creates_a_topic_only_where_both_sides_allow_it() {
    run(async {
        for (broker_allows, client_allows) in [(true, true), (true, false), (false, true), (false, false)] {
            let broker = Broker::with(Config { auto_create_topics: broker_allows, ..config() }).await;
            let mut client = broker.client().await;
            let metadata = client.metadata(9, Some(&["wanted"]), client_allows).await;
            let created = broker_allows && client_allows;
            let expected = if created { 0 } else { ResponseError::UnknownTopicOrPartition.code() };
            assert_eq!(metadata.topics[0].error_code, expected, "{broker_allows} {client_allows}");
            assert_eq!(metadata.topics[0].partitions.len(), usize::from(created));
            if created {
                let answer = client.produce("wanted", 0, batch(&[b"at once"])).await;
                assert_eq!(answer.error_code, 0, "it can be used as soon as it is named");
            }
            let bad = client.metadata(9, Some(&["no/name"]), true).await;
            assert_eq!(bad.topics[0].error_code, ResponseError::InvalidTopicException.code());
        }
    });
}

async fn refusal(client: &mut Client, request: &CreateTopicsRequest) -> (i16, String) {
    let response = client.try_create(7, request).await;
    let topic = &response.topics[0];
    (topic.error_code, topic.error_message.as_ref().map(|text| text.to_string()).unwrap_or_default())
}

#[test]
fn a_topic_that_cannot_be_is_refused_with_the_reason() {
    run(async {
        let broker = Broker::start().await;
        let mut client = broker.client().await;
        client.create("taken", 1, &[]).await;
        let three_replicas = {
            let mut request = create_request("replicated", 1, &[]);
            request.topics[0].replication_factor = 3;
            request
        };
        let elsewhere = {
            let mut request = create_request("assigned", -1, &[]);
            let assignment = CreatableReplicaAssignment::default().with_broker_ids(vec![99.into()]);
            request.topics[0].assignments = vec![assignment];
            request
        };
        let twice = {
            let mut request = create_request("twice", 1, &[]);
            request.topics.push(request.topics[0].clone());
            request
        };
        let cases = [
            (create_request("taken", 1, &[]), ResponseError::TopicAlreadyExists),
            (create_request("a/b", 1, &[]), ResponseError::InvalidTopicException),
            (create_request("", 1, &[]), ResponseError::InvalidTopicException),
            (create_request("none", 0, &[]), ResponseError::InvalidPartitions),
            (create_request("huge", 100_001, &[]), ResponseError::InvalidPartitions),
            (create_request("config", 1, &[("no.such.setting", "1")]), ResponseError::InvalidConfig),
            (create_request("config", 1, &[("retention.ms", "soon")]), ResponseError::InvalidConfig),
            (three_replicas, ResponseError::InvalidReplicationFactor),
            (elsewhere, ResponseError::InvalidReplicaAssignment),
            (twice, ResponseError::InvalidRequest),
        ];
        for (request, error) in cases {
            let (code, text) = refusal(&mut client, &request).await;
            assert_eq!(code, error.code(), "{}: {text}", request.topics[0].name.as_str());
            assert!(!text.is_empty(), "a person is told why");
        }
        let metadata = client.metadata(9, None, false).await;
        assert_eq!(metadata.topics.len(), 1, "nothing was created");
    });
}

#[test]
fn a_request_that_only_validates_creates_nothing() {
    run(async {
        let broker = Broker::start().await;
        let mut client = broker.client().await;
        let mut request = create_request("maybe", 7, &[("retention.ms", "1000")]);
        request.validate_only = true;
        let response = client.try_create(7, &request).await;
        let topic = &response.topics[0];
        assert_eq!((topic.error_code, topic.num_partitions, topic.replication_factor), (0, 7, 1));
        let configs = topic.configs.as_ref().expect("its settings");
        let retention =
            configs.iter().find(|config| config.name.as_str() == "retention.ms").expect("one of them");
        assert_eq!(retention.value.as_ref().map(|value| value.to_string()), Some("1000".to_owned()));
        assert_eq!(client.metadata(9, None, false).await.topics.len(), 0);
    });
}

#[test]
fn what_would_be_refused_is_refused_when_it_is_only_validated() {
    run(async {
        let broker = Broker::start().await;
        let mut client = broker.client().await;
        client.create("a.b", 1, &[]).await;
        let elsewhere = {
            let mut request = create_request("assigned", -1, &[]);
            let assignment = CreatableReplicaAssignment::default().with_broker_ids(vec![99.into()]);
            request.topics[0].assignments = vec![assignment];
            request
        };
        let colliding = create_request("a_b", 1, &[]);
        let cases = [
            (colliding, ResponseError::InvalidTopicException),
            (elsewhere, ResponseError::InvalidReplicaAssignment),
        ];
        for (mut request, error) in cases {
            request.validate_only = true;
            let (code, text) = refusal(&mut client, &request).await;
            assert_eq!(code, error.code(), "{}: {text}", request.topics[0].name.as_str());
        }
        let mut both = create_request("c.d", 1, &[]);
        both.topics.extend(create_request("c_d", 1, &[]).topics);
        both.validate_only = true;
        let response = client.try_create(7, &both).await;
        let codes: Vec<_> = response.topics.iter().map(|topic| topic.error_code).collect();
        assert_eq!(codes, [0, ResponseError::InvalidTopicException.code()], "they collide with each other");
        let metadata = client.metadata(9, None, false).await;
        assert_eq!(metadata.topics.len(), 1, "nothing was created");
    });
}

#[test]
fn a_deleted_topic_is_gone_and_its_name_is_free() {
    run(async {
        let broker = Broker::start().await;
        let mut client = broker.client().await;
        client.create("phoenix", 2, &[]).await;
        client.produce("phoenix", 0, batch(&[b"old"])).await;
        client.fetch("phoenix", 1, 0).await;
        let by_name =
            DeleteTopicsRequest::default().with_topic_names(vec![topic("phoenix")]).with_timeout_ms(5_000);
        assert_eq!(client.call(4, &by_name).await.responses[0].error_code, 0);
        assert_eq!(client.call(4, &by_name).await.responses[0].error_code, 3, "there is none any more");
        assert_eq!(client.fetch("phoenix", 0, 0).await.error_code, 3);
        let metrics = broker.node.metrics();
        until("its logs are closed", || metrics.partitions_closed.get() == 2).await;
        client.create("phoenix", 1, &[]).await;
        let fetched = client.fetch("phoenix", 0, 0).await;
        assert_eq!((fetched.error_code, fetched.high_watermark), (0, 0), "nothing of the old one is there");
        client.produce("phoenix", 0, batch(&[b"new"])).await;
        assert_eq!(values(client.fetch("phoenix", 0, 0).await.records), [(0, b"new".to_vec())]);
        let id = client.metadata(12, Some(&["phoenix"]), false).await.topics[0].topic_id;
        let by_id = DeleteTopicsRequest::default()
            .with_topics(vec![DeleteTopicState::default().with_name(None).with_topic_id(id)])
            .with_timeout_ms(5_000);
        let response = client.call(6, &by_id).await;
        assert_eq!(response.responses[0].error_code, 0);
        assert_eq!(
            response.responses[0].name.as_ref().map(|name| name.to_string()),
            Some("phoenix".to_owned())
        );
        let again = client.call(6, &by_id).await;
        assert_eq!(again.responses[0].error_code, ResponseError::UnknownTopicId.code());
    });
}

#[test]
fn a_parked_fetch_hears_that_its_topic_is_deleted() {
    run(async {
        let broker = Broker::start().await;
        let (mut consumer, mut admin) = (broker.client().await, broker.client().await);
        admin.create("short", 1, &[]).await;
        assert_eq!(consumer.fetch("short", 0, 0).await.error_code, 0);
        let mut parked = crate::support::fetch_request("short", 0, 0);
        parked.max_wait_ms = 15_000;
        consumer.send(11, &parked).await;
        let request =
            DeleteTopicsRequest::default().with_topic_names(vec![topic("short")]).with_timeout_ms(5_000);
        // The fetch is parked, or not read yet; either way it is answered.
        assert_eq!(admin.call(4, &request).await.responses[0].error_code, 0);
        let (_, response) = consumer.answer::<kafka_protocol::messages::FetchRequest>(11).await;
        assert_eq!(response.responses[0].partitions[0].error_code, 3);
    });
}
