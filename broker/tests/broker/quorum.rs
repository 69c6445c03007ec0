//! What is asked of a cluster as a whole: feature levels, brokers that are forgotten, replicas that move. A broker alone
//! is a cluster too.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_partition_reassignments_request::{
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsTopics,
};
use kafka_protocol::messages::update_features_request::{FeatureUpdateKey, UpdateFeaturesRequest};
use kafka_protocol::messages::{ApiVersionsRequest, UnregisterBrokerRequest, UpdateFeaturesResponse};
use kafka_protocol::protocol::StrBytes;

use crate::support::{Broker, Client, run, topic};

const FEATURE: &str = "weir.version";

async fn versions(client: &mut Client, version: i16) -> kafka_protocol::messages::ApiVersionsResponse {
    let request = ApiVersionsRequest::default()
        .with_client_software_name(StrBytes::from_static_str("test"))
        .with_client_software_version(StrBytes::from_static_str("1.0"));
    client.call(version, &request).await
}

#[test]
fn api_versions_tell_the_level_of_the_cluster_and_those_of_the_broker() {
    run(async {
        let broker = Broker::start().await;
        let mut client = broker.client().await;
        assert_eq!(versions(&mut client, 2).await.supported_features.len(), 0, "there are none yet");
        for version in 3..=4 {
            let response = versions(&mut client, version).await;
            let supported = &response.supported_features[0];
            assert_eq!((supported.name.as_str(), supported.min_version), (FEATURE, 1));
            let finalized = &response.finalized_features[0];
            assert_eq!(finalized.name.as_str(), FEATURE);
            assert!((1..=supported.max_version).contains(&finalized.max_version_level));
            assert!(response.finalized_features_epoch >= 0);
        }
    });
}

fn update(name: &str, level: i16, validate_only: bool) -> UpdateFeaturesRequest {
    let update = FeatureUpdateKey::default()
        .with_feature(StrBytes::from_string(name.to_owned()))
        .with_max_version_level(level);
    UpdateFeaturesRequest::default()
        .with_feature_updates(vec![update])
        .with_timeout_ms(10_000)
        .with_validate_only(validate_only)
}

#[test]
fn the_feature_level_is_raised_as_far_as_every_broker_can_work_with_it() {
    run(async {
        let broker = Broker::start().await;
        let mut client = broker.client().await;
        let response = versions(&mut client, 4).await;
        let highest = response.supported_features[0].max_version;
        use ResponseError::*;
        for version in 0..=2 {
            let error = |response: UpdateFeaturesResponse| response.error_code;
            // There is no validation before version 1.
            let validate = version >= 1;
            let high = error(client.call(version, &update(FEATURE, highest + 1, validate)).await);
            assert_eq!(high, FeatureUpdateFailed.code(), "version {version}");
            let other = error(client.call(version, &update("metadata.version", 20, validate)).await);
            assert_eq!(other, InvalidUpdateVersion.code(), "version {version}");
            let raised = client.call(version, &update(FEATURE, highest, false)).await;
            assert_eq!(raised.error_code, 0, "version {version}: {:?}", raised.error_message);
            let results = usize::from(version < 2);
            assert_eq!(raised.results.len(), results, "from version 2 on there is one outcome for all");
            let lowered = error(client.call(version, &update(FEATURE, highest - 1, false)).await);
            assert_eq!(lowered, InvalidUpdateVersion.code(), "version {version}");
        }
        let finalized = versions(&mut client, 4).await.finalized_features;
        assert_eq!(finalized[0].max_version_level, highest);
    });
}

#[test]
fn a_broker_that_serves_is_not_forgotten() {
    run(async {
        let broker = Broker::start().await;
        let mut client = broker.client().await;
        let mut forget = async |id: i32| {
            let request = UnregisterBrokerRequest::default().with_broker_id(id.into());
            let response = client.call(0, &request).await;
            (ResponseError::try_from_code(response.error_code), response.error_message.is_some())
        };
        assert_eq!(forget(1).await, (Some(ResponseError::InvalidRequest), true));
        assert_eq!(forget(7).await, (Some(ResponseError::BrokerIdNotRegistered), true));
    });
}

#[test]
fn a_partition_that_gets_no_replicas_is_not_being_reassigned() {
    run(async {
        let broker = Broker::start().await;
        let mut client = broker.client().await;
        client.create("still", 2, &[]).await;
        let wanted = ["still", "absent"].map(|name| {
            ListPartitionReassignmentsTopics::default()
                .with_name(topic(name))
                .with_partition_indexes(vec![0, 9])
        });
        for topics in [None, Some(wanted.to_vec())] {
            let request = ListPartitionReassignmentsRequest::default().with_topics(topics);
            let response = client.call(0, &request).await;
            assert_eq!((response.error_code, response.topics.len()), (0, 0));
        }
    });
}
