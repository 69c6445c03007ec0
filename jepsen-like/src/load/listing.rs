//! Somebody who looks on: lists the topics, as every tool does that shows a cluster.

use std::collections::BTreeSet;
use std::time::Duration;

use weir_client::Admin;

use super::churn::around;
use super::{Shared, connect};

/// Lists all topics now and then. Those that exist from the start are always among them.
pub(super) async fn run(shared: Shared, every: Duration, topics: BTreeSet<String>) {
    let client = connect(shared.bootstrap.clone(), "onlooker".to_owned()).await;
    let admin = Admin::new(&client);
    while !shared.stopped() {
        shared.pause(around(every)).await;
        // Whether anybody answers is the nemesis' choice.
        let Ok(listed) = admin.list_topics().await else { continue };
        if let Some(missing) = topics.iter().find(|name| listed.iter().all(|topic| topic.name != **name)) {
            shared.complain(format!("{missing} is not listed, only {} other topics", listed.len()));
        }
    }
}
