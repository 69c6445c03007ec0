//! An upgrade: nodes of an older and of a newer version in one cluster.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::update_features_request::{FeatureUpdateKey, UpdateFeaturesRequest};
use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use weir_runtime::time;

use crate::group_support::text;
use crate::nodes::{Nodes, VOTER};
use crate::support::{PATIENCE, batch, run, values};

/// What this version knows, and what a version knows that some nodes play.
const OLD: i16 = 2;
const NEW: i16 = 3;

async fn raise(nodes: &Nodes, via: usize, level: i16) -> i16 {
    try_to_raise(nodes, via, level).await.0
}

/// The error, and what is said about it.
async fn try_to_raise(nodes: &Nodes, via: usize, level: i16) -> (i16, String) {
    let update = FeatureUpdateKey::default()
        .with_feature(text("weir.version"))
        .with_max_version_level(level)
        .with_upgrade_type(1);
    let request = UpdateFeaturesRequest::default().with_timeout_ms(10_000).with_feature_updates(vec![update]);
    let answer = nodes.client(via).await.call(1, &request).await;
    let of_it = answer.results.iter().map(|result| result.error_code).find(|code| *code != 0);
    let said = answer.error_message.map(|said| said.to_string()).unwrap_or_default();
    (of_it.unwrap_or(answer.error_code), said)
}

/// What a node says of itself and of the cluster, once the cluster works at this level.
async fn at_level(nodes: &Nodes, id: usize, level: i16) -> ApiVersionsResponse {
    let request = ApiVersionsRequest::default()
        .with_client_software_name(text("tests"))
        .with_client_software_version(text("1"));
    let deadline = time::now() + PATIENCE;
    loop {
        let answer = nodes.client(id).await.call(3, &request).await;
        if answer.finalized_features.iter().any(|feature| feature.max_version_level == level) {
            return answer;
        }
        assert!(time::now() < deadline, "not in time: {answer:?}");
        time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

async fn produce(nodes: &Nodes, via: usize, value: &str) {
    let deadline = time::now() + PATIENCE;
    loop {
        let leader = nodes.leader(via, "kept", None).await;
        let answer = nodes.client(leader).await.produce("kept", 0, batch(&[value.as_bytes()])).await;
        if answer.error_code == 0 {
            return;
        }
        assert!(time::now() < deadline, "not in time: {answer:?}");
        time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[test]
fn versions_change_node_by_node_and_one_that_was_given_up_is_refused() {
    run(async {
        let mut nodes = Nodes::three(&[]);
        nodes.client(1).await.create("kept", 1, &[]).await;
        for id in 1..=3 {
            let refused = raise(&nodes, id, NEW).await;
            assert_eq!(refused, ResponseError::FeatureUpdateFailed.code(), "node {id} is an older one");
            produce(&nodes, id, &format!("before node {id}")).await;
            nodes.stop(id);
            nodes.set(id, "weir.feature.level.max=3");
            nodes.restart(id);
            let told = at_level(&nodes, id, OLD).await;
            assert_eq!(told.supported_features[0].max_version, NEW);
        }
        assert_eq!(raise(&nodes, 2, NEW).await, 0);
        for id in 1..=3 {
            at_level(&nodes, id, NEW).await;
        }
        assert_eq!(raise(&nodes, 3, OLD).await, ResponseError::InvalidUpdateVersion.code());

        nodes.stop(2);
        nodes.set(2, "weir.feature.level.max=2");
        let (code, said) = nodes.start_in_vain(2);
        let line = "the cluster works at feature level 3; this node knows levels 1 to 2: start a version of Weir \
                    that knows level 3";
        assert!(code == Some(7) && said.contains(line), "{code:?}: {said}");
        produce(&nodes, 1, "without node 2").await;
        nodes.set(2, "weir.feature.level.max=3");
        nodes.restart(2);
        produce(&nodes, 2, "after all").await;

        let leader = nodes.leader(2, "kept", None).await;
        let read = nodes.client(leader).await.fetch("kept", 0, 0).await;
        let read: Vec<_> = values(read.records).into_iter().map(|(_, value)| value).collect();
        let written = ["before node 1", "before node 2", "before node 3", "without node 2", "after all"];
        assert_eq!(read, written.map(|value| value.as_bytes().to_vec()));
    });
}

#[test]
fn a_node_that_only_votes_is_asked_before_the_level_is_raised() {
    run(async {
        let mut nodes = Nodes::two_and_a_voter();
        for id in 1..=2 {
            nodes.stop(id);
            nodes.set(id, "weir.feature.level.max=3");
            nodes.restart(id);
        }
        let refused = |said: &str| (ResponseError::FeatureUpdateFailed.code(), said.to_owned());
        nodes.stop(3);
        let silent =
            "voter 3 of the metadata quorum does not say which feature levels it knows: see that it runs";
        assert_eq!(try_to_raise(&nodes, 1, NEW).await, refused(silent));
        nodes.restart(3);
        let older = "voter 3 of the metadata quorum knows feature levels 1 to 2, not 3: upgrade it first";
        assert_eq!(try_to_raise(&nodes, 2, NEW).await, refused(older));
        nodes.stop(3);
        nodes.set(3, &format!("{VOTER}\nweir.feature.level.max=3"));
        nodes.restart(3);
        assert_eq!(raise(&nodes, 1, NEW).await, 0);
        for id in 1..=2 {
            at_level(&nodes, id, NEW).await;
        }
        nodes.stop(3);
    });
}
