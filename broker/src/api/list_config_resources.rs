//! ListConfigResources (key 74; KIP-1142). Version 0 is ListClientMetricsResources (KIP-714).

use kafka_protocol::ResponseError;
use kafka_protocol::messages::ListConfigResourcesRequest;
use kafka_protocol::messages::list_config_resources_response::{ConfigResource, ListConfigResourcesResponse};
use kafka_protocol::protocol::StrBytes;

use super::{Api, configs};

/// What can be asked for from version 1 on, in the order of the answer.
const KINDS: [i8; 5] =
    [configs::TOPIC, configs::BROKER, configs::BROKER_LOGGER, configs::CLIENT_METRICS, configs::GROUP];

pub(super) fn handle(
    api: &Api,
    request: &ListConfigResourcesRequest,
    version: i16,
) -> ListConfigResourcesResponse {
    let supported: &[i8] = if version == 0 { &[configs::CLIENT_METRICS] } else { &KINDS };
    let wanted = &request.resource_types;
    if wanted.iter().any(|kind| !supported.contains(kind)) {
        return ListConfigResourcesResponse::default()
            .with_error_code(ResponseError::UnsupportedVersion.code());
    }
    let view = api.image.current();
    let mut resources = Vec::new();
    for kind in supported.iter().filter(|kind| wanted.is_empty() || wanted.contains(kind)) {
        let mut add = |name: String| {
            let name = StrBytes::from_string(name);
            resources.push(ConfigResource::default().with_resource_type(*kind).with_resource_name(name));
        };
        match *kind {
            configs::TOPIC => view.image.topics().for_each(|topic| add(topic.name.clone())),
            configs::BROKER | configs::BROKER_LOGGER => {
                view.image.live_brokers().for_each(|(id, _)| add(id.to_string()));
            }
            // Groups and clients' metrics have no settings.
            _ => {}
        }
    }
    ListConfigResourcesResponse::default().with_config_resources(resources)
}
