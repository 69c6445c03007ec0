//! ApiVersions (key 18; KIP-35, KIP-511, KIP-584).

use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiVersionsRequest;
use kafka_protocol::messages::api_versions_response::{
    ApiVersion, ApiVersionsResponse, FinalizedFeatureKey, SupportedFeatureKey,
};
use kafka_protocol::protocol::StrBytes;
use weir_protocol::metadata::{FeatureRange, Image};
use weir_wire::versions;

use super::FEATURES;
use super::update_features::FEATURE;

pub(super) fn handle(
    image: &Image,
    known: FeatureRange,
    request: &ApiVersionsRequest,
    version: i16,
) -> ApiVersionsResponse {
    // From version 3 on clients name themselves, in letters, digits, dots and dashes (KIP-511).
    let named = |text: &str| {
        let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
        let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        text.chars().all(inner) && ends(text.chars().next()) && ends(text.chars().last())
    };
    if version >= 3 && !(named(&request.client_software_name) && named(&request.client_software_version)) {
        return ApiVersionsResponse::default().with_error_code(ResponseError::InvalidRequest.code());
    }
    let response = ApiVersionsResponse::default().with_api_keys(ranges());
    // Before version 3 there are no features.
    if version >= 3 { with_features(response, known, image) } else { response }
}

/// The levels that this broker can work at, and the one that the cluster works at.
fn with_features(response: ApiVersionsResponse, known: FeatureRange, image: &Image) -> ApiVersionsResponse {
    let name = StrBytes::from_static_str(FEATURE);
    let level = |level: u16| i16::try_from(level).unwrap_or(i16::MAX);
    let supported = SupportedFeatureKey::default()
        .with_name(name.clone())
        .with_min_version(level(known.min))
        .with_max_version(level(known.max));
    let response = response.with_supported_features(vec![supported]);
    let Some(epoch) = image.applied().filter(|_| image.feature_level() > 0) else {
        return response.with_finalized_features_epoch(-1);
    };
    let finalized = FinalizedFeatureKey::default()
        .with_name(name)
        .with_min_version_level(level(image.feature_level()))
        .with_max_version_level(level(image.feature_level()));
    response.with_finalized_features(vec![finalized]).with_finalized_features_epoch(epoch)
}

/// The answer to a version that is too new: the error and all ranges (K1).
pub(super) fn unsupported() -> ApiVersionsResponse {
    ApiVersionsResponse::default()
        .with_error_code(ResponseError::UnsupportedVersion.code())
        .with_api_keys(ranges())
}

fn ranges() -> Vec<ApiVersion> {
    versions::advertised(FEATURES)
        .map(|range| {
            ApiVersion::default()
                .with_api_key(range.key as i16)
                .with_min_version(range.advertised_min)
                .with_max_version(range.max)
        })
        .collect()
}
