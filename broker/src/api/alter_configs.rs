//! AlterConfigs (key 33; KIP-133): replaces all settings of a resource. Clients are moving to IncrementalAlterConfigs.

use std::sync::Arc;

use kafka_protocol::messages::alter_configs_request::AlterConfigsRequest;
use kafka_protocol::messages::alter_configs_response::{AlterConfigsResourceResponse, AlterConfigsResponse};
use kafka_protocol::protocol::StrBytes;

use super::Api;
use super::configs::{self, Change, Mode, Wanted};

pub(super) async fn handle(api: &Arc<Api>, request: AlterConfigsRequest) -> AlterConfigsResponse {
    let resources: Vec<Wanted> = request
        .resources
        .into_iter()
        .map(|resource| {
            let changes = resource.configs.into_iter().map(|config| Change {
                name: config.name,
                operation: configs::SET,
                value: config.value,
            });
            Wanted { kind: resource.resource_type, name: resource.resource_name, settings: changes.collect() }
        })
        .collect();
    let outcomes = configs::alter(api, &resources, Mode::All, request.validate_only).await;
    let responses = resources
        .into_iter()
        .zip(outcomes)
        .map(|(resource, outcome)| {
            let response = AlterConfigsResourceResponse::default()
                .with_resource_type(resource.kind)
                .with_resource_name(resource.name)
                .with_error_message(None);
            match outcome {
                Ok(()) => response,
                Err((error, text)) => response
                    .with_error_code(error.code())
                    .with_error_message(Some(StrBytes::from_string(text))),
            }
        })
        .collect();
    AlterConfigsResponse::default().with_responses(responses)
}
