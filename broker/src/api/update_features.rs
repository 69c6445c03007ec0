//! UpdateFeatures (key 57; KIP-584, KIP-778): the feature level that the cluster works at, raised when every broker has
//! been upgraded.

use std::collections::BTreeSet;
use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::update_features_request::{FeatureUpdateKey, UpdateFeaturesRequest};
use kafka_protocol::messages::update_features_response::{UpdatableFeatureResult, UpdateFeaturesResponse};
use kafka_protocol::protocol::StrBytes;
use weir_protocol::metadata::{Command, Image};
use weir_runtime::time;

use super::configs::Refusal;
use super::{Api, errors, millis};
use crate::metadata::ProposeError;

/// The name under which clients see Weir's feature level.
pub(super) const FEATURE: &str = "weir.version";

pub(super) async fn handle(
    api: &Arc<Api>,
    request: UpdateFeaturesRequest,
    version: i16,
) -> UpdateFeaturesResponse {
    let response = UpdateFeaturesResponse::default().with_error_message(None);
    let failed = |(error, text): Refusal| {
        let text = Some(StrBytes::from_string(text));
        UpdateFeaturesResponse::default().with_error_code(error.code()).with_error_message(text)
    };
    let outcome = match plan(&api.image.current().image, &request.feature_updates) {
        Ok(command) => update(api, command, &request).await,
        Err(refusal) => Err(refusal),
    };
    match outcome {
        Err(refusal) => failed(refusal),
        // From version 2 on there is one outcome for all.
        Ok(()) if version >= 2 => response,
        Ok(()) => {
            let done =
                |update: FeatureUpdateKey| UpdatableFeatureResult::default().with_feature(update.feature);
            response.with_results(request.feature_updates.into_iter().map(done).collect())
        }
    }
}

async fn update(api: &Arc<Api>, command: Command, request: &UpdateFeaturesRequest) -> Result<(), Refusal> {
    let refused = |error: ProposeError| (errors::of_proposal(&error), error.to_string());
    if request.validate_only {
        let mut trial = api.image.current().image.clone();
        return trial.try_out(&command).map(drop).map_err(|rejected| refused(rejected.into()));
    }
    match time::timeout(millis(request.timeout_ms), api.metadata.propose(command)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(refused(error)),
        Err(_) => Err((ResponseError::RequestTimedOut, "The level may change later.".to_owned())),
    }
}

/// The one thing that can be asked for: that the level is raised, or stays.
fn plan(image: &Image, updates: &[FeatureUpdateKey]) -> Result<Command, Refusal> {
    let refuse = |error: ResponseError, text: String| Err((error, text));
    let mut seen = BTreeSet::new();
    for update in updates {
        let (name, level) = (update.feature.as_str(), update.max_version_level);
        if !seen.insert(name) {
            return refuse(ResponseError::InvalidRequest, format!("Feature {name} is named twice."));
        }
        if name != FEATURE {
            let text = format!("There is no feature {name}; this cluster has {FEATURE}.");
            return refuse(ResponseError::InvalidUpdateVersion, text);
        }
        if level < 1 {
            let text = format!("{FEATURE} cannot be switched off.");
            return refuse(ResponseError::InvalidUpdateVersion, text);
        }
    }
    let Some(update) = updates.first() else {
        return refuse(ResponseError::InvalidRequest, "No feature is named.".to_owned());
    };
    let level = u16::try_from(update.max_version_level).unwrap_or_default();
    if level < image.feature_level() {
        let text = format!(
            "{FEATURE} is {} and cannot be lowered: the metadata hold what older brokers cannot read.",
            image.feature_level()
        );
        return refuse(ResponseError::InvalidUpdateVersion, text);
    }
    Ok(Command::SetFeatureLevel { level })
}

#[cfg(test)]
mod tests {
    use super::super::brokers::tests::Three;
    use super::*;

    fn update(name: &'static str, level: i16) -> FeatureUpdateKey {
        FeatureUpdateKey::default()
            .with_feature(StrBytes::from_static_str(name))
            .with_max_version_level(level)
    }

    #[test]
    fn the_level_is_raised_and_never_lowered() {
        let image = Three::new().image;
        let planned = |updates: &[FeatureUpdateKey]| plan(&image, updates).map_err(|(error, _)| error);
        assert_eq!(planned(&[update(FEATURE, 3)]), Ok(Command::SetFeatureLevel { level: 3 }));
        assert_eq!(planned(&[update(FEATURE, 1)]), Err(ResponseError::InvalidUpdateVersion));
        assert_eq!(planned(&[update(FEATURE, 0)]), Err(ResponseError::InvalidUpdateVersion));
        assert_eq!(planned(&[update("metadata.version", 3)]), Err(ResponseError::InvalidUpdateVersion));
        assert_eq!(planned(&[]), Err(ResponseError::InvalidRequest));
        let twice = [update(FEATURE, 3), update(FEATURE, 3)];
        assert_eq!(planned(&twice), Err(ResponseError::InvalidRequest));
    }
}
