//! DescribeConfigs (key 32; KIP-133, KIP-226, KIP-569): settings with where they come from (K20).

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_configs_request::{DescribeConfigsRequest, DescribeConfigsResource};
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResponse, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::protocol::StrBytes;
use weir_protocol::metadata::{Image, names};

use super::Api;
use super::configs::{self, Refusal};
use super::metadata::LOOK_AGAIN_LIMIT;
use crate::metadata::Described;

/// Settings that one response describes: a small request may name a resource many times.
const DESCRIBED_MAX: usize = 300_000;

/// What is asked of each setting.
#[derive(Clone, Copy)]
struct Detail {
    synonyms: bool,
    documentation: bool,
}

pub(super) async fn handle(api: &Api, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    // What was set through another broker is shown by this one.
    api.metadata.catch_up_within(LOOK_AGAIN_LIMIT).await;
    let view = api.image.current();
    let detail = Detail { synonyms: request.include_synonyms, documentation: request.include_documentation };
    let mut room = DESCRIBED_MAX;
    let mut results = Vec::with_capacity(request.resources.len());
    for resource in request.resources {
        let found = describe(api, &view.image, &resource, &mut room);
        let result = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name)
            .with_error_message(None);
        results.push(match found {
            Ok(found) => result
                .with_configs(found.into_iter().map(|setting| setting_result(setting, detail)).collect()),
            Err((error, text)) => {
                result.with_error_code(error.code()).with_error_message(Some(StrBytes::from_string(text)))
            }
        });
    }
    DescribeConfigsResponse::default().with_results(results)
}

/// The settings of a resource, as many as `room` allows for all resources together.
fn describe(
    api: &Api,
    image: &Image,
    resource: &DescribeConfigsResource,
    room: &mut usize,
) -> Result<Vec<Described>, Refusal> {
    let too_many = || {
        let text = "Too many settings for one response: ask for fewer resources at a time.";
        (ResponseError::InvalidRequest, text.to_owned())
    };
    if *room == 0 {
        return Err(too_many());
    }
    let mut found = settings_of(api, image, resource)?;
    if let Some(keys) = resource.configuration_keys.as_deref().filter(|keys| !keys.is_empty()) {
        found.retain(|setting| keys.iter().any(|key| key.as_str() == setting.name));
    }
    // What is refused must not be cheap to ask for again and again.
    let left = room.checked_sub(found.len().max(1));
    *room = left.unwrap_or(0);
    left.map(|_| found).ok_or_else(too_many)
}

fn settings_of(
    api: &Api,
    image: &Image,
    resource: &DescribeConfigsResource,
) -> Result<Vec<Described>, Refusal> {
    let name = resource.resource_name.as_str();
    let must_be_named = |what: &str| {
        let text = format!("{what} must not be empty");
        if name.is_empty() { Err((ResponseError::InvalidRequest, text)) } else { Ok(()) }
    };
    match resource.resource_type {
        configs::TOPIC => {
            names::check(name).map_err(|error| (ResponseError::InvalidTopicException, error.to_string()))?;
            let topic = image.topic_named(name).ok_or_else(|| {
                (ResponseError::UnknownTopicOrPartition, format!("The topic '{name}' does not exist."))
            })?;
            let replicas = topic.partitions.first().map_or(1, |partition| partition.replicas.len());
            Ok(api.resolver.describe_topic(image, &topic.configs, replicas))
        }
        configs::BROKER if name.is_empty() => Ok(api.resolver.describe_cluster(image)),
        configs::BROKER => {
            configs::check_broker_name(api, name)?;
            Ok(api.resolver.describe_broker(image))
        }
        // The levels of logs are set when a broker starts.
        configs::BROKER_LOGGER => {
            must_be_named("Broker id")?;
            configs::check_broker_name(api, name).map(|()| Vec::new())
        }
        configs::CLIENT_METRICS => must_be_named("Client metrics subscription name").map(|()| Vec::new()),
        configs::GROUP => must_be_named("Group name").map(|()| Vec::new()),
        kind => Err((ResponseError::InvalidRequest, format!("Unsupported resource type: {kind}"))),
    }
}

fn setting_result(setting: Described, detail: Detail) -> DescribeConfigsResourceResult {
    let value = setting.value().map(|value| StrBytes::from_string(value.to_owned()));
    let result = DescribeConfigsResourceResult::default()
        .with_name(StrBytes::from_static_str(setting.name))
        .with_value(value)
        .with_read_only(setting.read_only)
        .with_config_source(configs::source_id(setting.source()))
        // No setting of Weir's is a secret.
        .with_is_sensitive(false)
        .with_config_type(configs::kind_id(setting.kind))
        .with_documentation(detail.documentation.then(|| StrBytes::from_static_str(setting.doc)));
    if !detail.synonyms {
        return result;
    }
    let synonyms = setting.places.into_iter().map(|place| {
        DescribeConfigsSynonym::default()
            .with_name(StrBytes::from_static_str(place.name))
            .with_value(Some(StrBytes::from_string(place.value)))
            .with_source(configs::source_id(place.source))
    });
    result.with_synonyms(synonyms.collect())
}
