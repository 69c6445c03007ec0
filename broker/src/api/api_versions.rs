//! ApiVersions (key 18; KIP-35, KIP-511, KIP-584).

use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiVersionsRequest;
use kafka_protocol::messages::api_versions_response::{ApiVersion, ApiVersionsResponse};
use weir_wire::versions;

use super::FEATURES;

pub(super) fn handle(request: &ApiVersionsRequest, version: i16) -> ApiVersionsResponse {
    // From version 3 on clients name themselves, in letters, digits, dots and dashes (KIP-511).
    let named = |text: &str| {
        let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
        let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        text.chars().all(inner) && ends(text.chars().next()) && ends(text.chars().last())
    };
    if version >= 3 && !(named(&request.client_software_name) && named(&request.client_software_version)) {
        return ApiVersionsResponse::default().with_error_code(ResponseError::InvalidRequest.code());
    }
    ApiVersionsResponse::default().with_api_keys(ranges()).with_finalized_features_epoch(-1)
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
