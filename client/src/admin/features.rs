//! The feature level: which versions of the brokers can work together.

use weir_wire::kafka::StrBytes;
use weir_wire::kafka::messages::update_features_request::FeatureUpdateKey;
use weir_wire::kafka::messages::{ApiVersionsRequest, UpdateFeaturesRequest};

use super::{Admin, Attempts, check};
use crate::error::Error;

/// The name of the feature whose level all brokers must know.
const FEATURE: &str = "weir.version";

/// Which versions can work together in a cluster of Weir's (KIP-584).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeatureLevel {
    /// What the cluster works at.
    pub level: i16,
    /// What the broker that has answered can work at, from the first to the last.
    pub known: (i16, i16),
}

impl Admin {
    /// Which versions of Weir's brokers can work together here (KIP-584); `None` where the brokers are not Weir's.
    ///
    /// # Errors
    /// Where no broker answers in time.
    pub async fn feature_level(&self) -> Result<Option<FeatureLevel>, Error> {
        let request = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str("weir"))
            .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")));
        let (address, response) = self.ask_any(&request).await?;
        check::<ApiVersionsRequest>(&address, "the feature level", response.error_code, None)?;
        let finalized = response.finalized_features.iter().find(|feature| &*feature.name == FEATURE);
        let supported = response.supported_features.iter().find(|feature| &*feature.name == FEATURE);
        Ok(finalized.zip(supported).map(|(finalized, supported)| FeatureLevel {
            level: finalized.max_version_level,
            known: (supported.min_version, supported.max_version),
        }))
    }

    /// Raises the feature level, once every broker knows it; it is never lowered. Then only versions that know it can be started.
    ///
    /// # Errors
    /// What the controller says, such as FEATURE_UPDATE_FAILED where a broker does not know the level.
    pub async fn raise_feature_level(&self, level: i16) -> Result<(), Error> {
        let update = FeatureUpdateKey::default()
            .with_feature(StrBytes::from_static_str(FEATURE))
            .with_max_version_level(level)
            .with_upgrade_type(1);
        let request = UpdateFeaturesRequest::default()
            .with_timeout_ms(self.timeout_ms())
            .with_feature_updates(vec![update]);
        let about = format!("feature level {level}");
        let mut attempts = Attempts::new(&self.client);
        loop {
            let result = self.client.ask_controller(&request).await.and_then(|(address, response)| {
                let said = |message: &Option<StrBytes>| message.as_ref().map(|message| message.to_string());
                let message = said(&response.error_message);
                check::<UpdateFeaturesRequest>(&address, &about, response.error_code, message)?;
                response.results.iter().try_for_each(|result| {
                    check::<UpdateFeaturesRequest>(
                        &address,
                        &about,
                        result.error_code,
                        said(&result.error_message),
                    )
                })
            });
            match result {
                Err(error) => attempts.wait_after(error).await?,
                Ok(()) => return Ok(()),
            }
        }
    }
}
