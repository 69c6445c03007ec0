//! DescribeCluster (key 60; KIP-700).

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_cluster_response::{DescribeClusterBroker, DescribeClusterResponse};
use kafka_protocol::messages::{BrokerId, DescribeClusterRequest};
use kafka_protocol::protocol::StrBytes;

use super::metadata::{CLUSTER_OPERATIONS, cluster_id};
use super::{Api, Origin};

/// The endpoints that clients use.
const BROKERS: i8 = 1;
/// The controllers' endpoints (KIP-919).
const CONTROLLERS: i8 = 2;

pub(super) fn handle(api: &Api, origin: Origin, request: &DescribeClusterRequest) -> DescribeClusterResponse {
    let view = api.image.current();
    let brokers = api.brokers(&view.image, origin);
    let mut response = DescribeClusterResponse::default()
        .with_endpoint_type(request.endpoint_type)
        .with_cluster_id(cluster_id(&view))
        .with_controller_id(brokers.controller());
    if request.endpoint_type != BROKERS {
        let error = match request.endpoint_type {
            CONTROLLERS => ResponseError::MismatchedEndpointType,
            _ => ResponseError::UnsupportedEndpointType,
        };
        let text = "This is a broker's endpoint: ask for the brokers' type, 1.";
        return response
            .with_error_code(error.code())
            .with_error_message(Some(StrBytes::from_static_str(text)));
    }
    response.brokers = brokers
        .all(request.include_fenced_brokers)
        .map(|broker| {
            DescribeClusterBroker::default()
                .with_broker_id(BrokerId(broker.id))
                .with_host(broker.host)
                .with_port(broker.port)
                .with_rack(broker.rack)
                .with_is_fenced(broker.fenced)
        })
        .collect();
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = CLUSTER_OPERATIONS;
    }
    response
}
