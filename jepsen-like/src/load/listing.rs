//! Somebody who looks on: lists the topics, as every tool does that shows a cluster.

use std::time::Duration;

use weir_client::Admin;

use super::churn::around;
use super::{Shared, connect};

/// Lists all topics now and then, through whatever broker answers. What is to be seen at least, the quorum's reads say; a broker that does not
/// hear of the quorum shows what it knew last.
pub(super) async fn run(shared: Shared, every: Duration) {
    let client = connect(shared.bootstrap.clone(), "onlooker".to_owned()).await;
    let admin = Admin::new(&client);
    while !shared.stopped() {
        shared.pause(around(every)).await;
        // Whether anybody answers is the nemesis' choice.
        drop(admin.list_topics().await);
    }
}
