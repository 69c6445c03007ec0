//! Versions, addresses, and the order of answers.

use bytes::{Buf, BufMut, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::DeleteTopicsRequest;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::{
    ApiVersionsRequest, ApiVersionsResponse, FetchRequest, MetadataRequest, ProduceRequest,
};
use kafka_protocol::protocol::StrBytes;
use weir_wire::kafka::ApiKey;

use crate::support::{
    Broker, batch, config, create_request, fetch_request, metadata_request, produce_request, raw_frame, run,
    topic,
};

fn named() -> ApiVersionsRequest {
    ApiVersionsRequest::default()
        .with_client_software_name(StrBytes::from_static_str("test"))
        .with_client_software_version(StrBytes::from_static_str("1.0"))
}

fn range(response: &ApiVersionsResponse, key: ApiKey) -> Option<(i16, i16)> {
    let found = response.api_keys.iter().find(|range| range.api_key == key as i16)?;
    Some((found.min_version, found.max_version))
}

#[test]
fn k01_a_version_of_api_versions_that_is_too_new_is_answered_in_version_0() {
    run(async {
        let broker = Broker::start().await;
        let mut client = broker.client().await;
        client.send_bytes(raw_frame(18, 99, 7, &[0xff; 12])).await;
        let mut frame = client.frame().await.expect("an answer, and no closed connection");
        assert_eq!(frame.get_i32(), 7, "the correlation id, and no tagged fields behind it");
        assert_eq!(frame.get_i16(), 35, "UNSUPPORTED_VERSION");
        let count = frame.get_i32();
        assert!(count > 0, "the ranges come with it");
        assert_eq!(frame.remaining(), 6 * count as usize, "version 0 ends behind the ranges");
        let response = client.call(4, &named()).await;
        assert_eq!(response.error_code, 0, "the connection goes on");
    });
}

#[test]
fn k01_every_advertised_version_of_api_versions_is_answered() {
    run(async {
        let broker = Broker::start().await;
        let mut client = broker.client().await;
        for version in 0..=4 {
            let response = client.call(version, &named()).await;
            assert_eq!(response.error_code, 0, "version {version}");
            assert_eq!(range(&response, ApiKey::ApiVersions), Some((0, 4)), "version {version}");
        }
        let nameless = client.call(3, &ApiVersionsRequest::default()).await;
        assert_eq!(nameless.error_code, ResponseError::InvalidRequest.code(), "KIP-511");
    });
}

#[test]
fn k02_produce_is_advertised_from_0_and_its_old_versions_are_refused_with_an_error() {
    run(async {
        let broker = Broker::start().await;
        let mut client = broker.client().await;
        let response = client.call(3, &named()).await;
        assert_eq!(range(&response, ApiKey::Produce).map(|range| range.0), Some(0));
        for version in 0..3 {
            let mut body = BytesMut::new();
            body.put_i16(1);
            body.put_i32(1000);
            body.put_i32(1);
            body.put_i16(1);
            body.put_slice(b"t");
            body.put_i32(1);
            body.put_i32(5);
            body.put_i32(3);
            body.put_slice(b"old");
            client.send_bytes(raw_frame(0, version, 40 + i32::from(version), &body)).await;
            let mut frame = client.frame().await.expect("an answer, and no closed connection");
            assert_eq!(frame.get_i32(), 40 + i32::from(version));
            assert_eq!((frame.get_i32(), frame.get_i16(), frame.get_u8()), (1, 1, b't'));
            assert_eq!((frame.get_i32(), frame.get_i32()), (1, 5));
            assert_eq!(frame.get_i16(), 35, "UNSUPPORTED_VERSION in version {version}");
        }
    });
}

#[test]
fn k03_produce_12_is_not_advertised_without_transactions() {
    run(async {
        let broker = Broker::start().await;
        let mut client = broker.client().await;
        let response = client.call(3, &named()).await;
        assert_eq!(range(&response, ApiKey::Produce), Some((0, 11)));
        assert_eq!(range(&response, ApiKey::EndTxn), None, "what is not built is not advertised");
        client.send_bytes(raw_frame(0, 12, 1, &[0; 16])).await;
        assert!(client.is_closed().await, "a version that was not advertised");
    });
}

#[test]
fn k04_topics_have_ids_in_metadata_and_are_fetched_by_them() {
    run(async {
        let broker = Broker::start().await;
        let mut client = broker.client().await;
        client.create("ids", 1, &[]).await;
        client.produce("ids", 0, batch(&[b"one"])).await;
        let metadata = client.metadata(12, Some(&["ids"]), false).await;
        let id = metadata.topics[0].topic_id;
        assert!(!id.is_nil());
        let by_id = |name: Option<&str>, id| {
            let mut request = metadata_request(Some(&["ids"]), false);
            if let Some(topics) = &mut request.topics {
                topics[0].name = name.map(topic);
                topics[0].topic_id = id;
            }
            request
        };
        // Java's Admin sends an empty name beside an id.
        for name in [None, Some("")] {
            let found = &client.call(12, &by_id(name, id)).await.topics[0];
            assert_eq!((found.error_code, &found.name, found.topic_id), (0, &Some(topic("ids")), id));
            let nobodys = uuid::Uuid::from_u128(77);
            let unknown = &client.call(12, &by_id(name, nobodys)).await.topics[0];
            assert_eq!(unknown.error_code, ResponseError::UnknownTopicId.code());
            assert_eq!((&unknown.name, unknown.topic_id), (&None, nobodys));
        }
        let mut request = fetch_request("", 0, 0);
        request.topics[0].topic_id = id;
        request.replica_id = (-1).into();
        let fetched = client.call(16, &request).await;
        assert_eq!(fetched.responses[0].topic_id, id);
        assert_eq!(crate::support::values(fetched.responses[0].partitions[0].records.clone()).len(), 1);
        request.topics[0].topic_id = uuid::Uuid::from_u128(77);
        let unknown = client.call(16, &request).await;
        assert_eq!(
            unknown.responses[0].partitions[0].error_code,
            ResponseError::UnknownTopicId.code(),
            "an id that nobody has"
        );
    });
}

#[test]
fn k05_the_controller_lives_and_a_wildcard_is_never_advertised() {
    run(async {
        let broker = Broker::with(weir_broker::Config { listen: "0.0.0.0:0".to_owned(), ..config() }).await;
        let port = broker.node.address().port();
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
        let mut client = crate::support::Client::connect(address).await;
        for version in 0..=13 {
            let topics: Option<&[&str]> = if version == 0 { Some(&[]) } else { None };
            let metadata = client.metadata(version, topics, true).await;
            assert_eq!(metadata.brokers.len(), 1, "version {version}");
            let (host, at) = (metadata.brokers[0].host.to_string(), metadata.brokers[0].port);
            assert_eq!((host.as_str(), at), ("127.0.0.1", i32::from(port)), "what the client has reached");
            if version >= 1 {
                assert_eq!(metadata.controller_id, metadata.brokers[0].node_id, "version {version}");
            }
        }
    });
}

#[test]
fn k09_responses_leave_in_request_order() {
    run(async {
        let broker = Broker::start().await;
        let mut client = broker.client().await;
        client.create("order", 4, &[]).await;
        // The first is parked for a while, the second waits for the disk, the others are ready at once.
        let mut parked = fetch_request("order", 3, 0);
        parked.max_wait_ms = 300;
        let mut sent = vec![client.send(11, &parked).await];
        for partition in 0..3 {
            let request = produce_request("order", partition, -1, batch(&[b"value"]));
            sent.push(client.send(9, &request).await);
            sent.push(client.send(3, &named()).await);
            sent.push(client.send(9, &metadata_request(Some(&["order"]), false)).await);
        }
        let (id, _) = client.answer::<FetchRequest>(11).await;
        assert_eq!(id, sent[0]);
        for expected in sent[1..].chunks(3) {
            assert_eq!(client.answer::<ProduceRequest>(9).await.0, expected[0]);
            assert_eq!(client.answer::<ApiVersionsRequest>(3).await.0, expected[1]);
            assert_eq!(client.answer::<MetadataRequest>(9).await.0, expected[2]);
        }
    });
}

#[test]
fn k09_more_requests_than_are_processed_at_a_time_are_all_answered_in_order() {
    run(async {
        let broker = Broker::with(weir_broker::Config { in_flight_max: 2, ..config() }).await;
        let mut client = broker.client().await;
        client.create("many", 1, &[]).await;
        for _ in 0..100 {
            client.send(9, &produce_request("many", 0, -1, batch(&[b"value"]))).await;
        }
        let mut last = -1;
        for _ in 0..100 {
            let (_, response) = client.answer::<ProduceRequest>(9).await;
            let partition = &response.responses[0].partition_responses[0];
            assert_eq!(partition.error_code, 0);
            assert_eq!(partition.base_offset, last + 1, "appended in the order of the requests");
            last = partition.base_offset;
        }
    });
}

#[test]
fn every_advertised_version_of_every_api_gets_an_answer() {
    run(async {
        let broker = Broker::start().await;
        let mut client = broker.client().await;
        let advertised = client.call(3, &named()).await;
        client.create("all", 1, &[]).await;
        let versions = |key: ApiKey, first: i16| {
            let (_, last) = range(&advertised, key).expect("advertised");
            first..=last
        };
        for version in versions(ApiKey::Produce, 3) {
            let response = client.call(version, &produce_request("all", 0, 1, batch(&[b"x"]))).await;
            assert_eq!(response.responses[0].partition_responses[0].error_code, 0, "Produce {version}");
            let response = client.call(version, &produce_request("nowhere", 0, 1, batch(&[b"x"]))).await;
            assert_eq!(response.responses[0].partition_responses[0].error_code, 3, "Produce {version}");
        }
        for version in versions(ApiKey::Metadata, 0) {
            let response = client.metadata(version, Some(&["all", "no/name"]), true).await;
            let errors: Vec<i16> = response.topics.iter().map(|topic| topic.error_code).collect();
            assert_eq!(errors, [0, 17], "Metadata {version}");
        }
        let id = client.metadata(12, Some(&["all"]), true).await.topics[0].topic_id;
        for version in versions(ApiKey::Fetch, 4) {
            let mut request = fetch_request("all", 0, 0);
            if version >= 13 {
                request.topics[0].topic = Default::default();
                request.topics[0].topic_id = id;
            }
            if version >= 15 {
                request.replica_id = (-1).into();
            }
            let response = client.call(version, &request).await;
            let partition = &response.responses[0].partitions[0];
            assert_eq!((partition.error_code, partition.high_watermark), (0, 9), "Fetch {version}");
        }
        for version in versions(ApiKey::CreateTopics, 2) {
            let name = format!("created-{version}");
            let response = client.try_create(version, &create_request(&name, 1, &[])).await;
            assert_eq!(response.topics[0].error_code, 0, "CreateTopics {version}");
            let response = client.try_create(version, &create_request(&name, 1, &[])).await;
            assert_eq!(response.topics[0].error_code, 36, "CreateTopics {version}");
        }
        for version in versions(ApiKey::DeleteTopics, 1) {
            let name = topic(&format!("created-{}", version.max(2)));
            let mut request = DeleteTopicsRequest::default().with_timeout_ms(5_000);
            if version >= 6 {
                request.topics = vec![DeleteTopicState::default().with_name(Some(name))];
            } else {
                request.topic_names = vec![name];
            }
            let error = client.call(version, &request).await.responses[0].error_code;
            assert_eq!(error, if version == 2 { 3 } else { 0 }, "DeleteTopics {version}");
        }
    });
}

#[test]
fn librdkafkas_metadata_request_for_all_topics_is_answered_although_it_is_three_bytes_too_long() {
    run(async {
        let broker = Broker::start().await;
        let mut client = broker.client().await;
        client.create("listed", 1, &[]).await;
        // Tagged fields of the header, a null array, three bytes too many, and what belongs behind the array.
        client.send_bytes(raw_frame(3, 13, 9, &[0, 0, 0, 0, 0, 1, 0, 0])).await;
        let (id, response) = client.answer::<MetadataRequest>(13).await;
        assert_eq!((id, response.topics.len()), (9, 1));
    });
}
