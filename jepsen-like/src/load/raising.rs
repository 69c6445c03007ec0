//! An operator who raises the feature level as soon as every broker knows it.

use std::time::Duration;

use weir_client::Admin;
use weir_runtime::simulation;

use super::churn::around;
use super::{Shared, connect};

/// Counted when the level is raised.
pub const LEVEL_RAISED: &str = "feature level raised";
/// How often it is tried.
const EVERY: Duration = Duration::from_millis(300);

/// Asks for the level again and again, until it is granted.
pub(super) async fn run(shared: Shared, level: i16) {
    let client = connect(shared.bootstrap.clone(), "operator".to_owned()).await;
    let admin = Admin::new(&client);
    while !shared.stopped() {
        shared.pause(around(EVERY)).await;
        match admin.raise_feature_level(level).await {
            Ok(()) => return simulation::situation(LEVEL_RAISED),
            Err(error) => simulation::trace("feature level not raised", || error.to_string()),
        }
    }
}
