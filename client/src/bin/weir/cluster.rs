//! `weir cluster`

use clap::Subcommand;
use serde_json::json;

use crate::output::{self, Columns};
use crate::{Context, failure::Failure};

#[derive(Debug, Subcommand)]
pub(crate) enum Cluster {
    /// The cluster's id, its brokers, and who of them takes care of administration
    #[command(
        after_help = "Examples:\n  weir cluster describe\n  weir -o json cluster describe | jq -r '.brokers[].host'"
    )]
    Describe,
}

pub(crate) async fn run(context: &Context, cluster: Cluster) -> Result<(), Failure> {
    let Cluster::Describe = cluster;
    let told = context.admin.describe_cluster().await?;
    if context.output.is_json() {
        let brokers = told.brokers.iter().map(|broker| {
            json!({ "id": broker.id, "host": broker.host, "port": broker.port, "rack": broker.rack })
        });
        let brokers: Vec<_> = brokers.collect();
        return output::json(&json!({ "id": told.id, "controller": told.controller, "brokers": brokers }));
    }
    output::line(&format!("cluster {}", told.id))?;
    let mut columns = Columns::new(&["broker>", "address", "rack?", "controller"]);
    for broker in &told.brokers {
        let controller = if Some(broker.id) == told.controller { "yes" } else { "" };
        let rack = broker.rack.clone().unwrap_or_default();
        columns.row(vec![broker.id.to_string(), broker.address(), rack, controller.to_owned()]);
    }
    columns.print()
}
