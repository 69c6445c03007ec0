//! The client against a real broker, whichever `WEIR_TEST_BOOTSTRAP` names: Weir, or Apache Kafka, so that a failure tells
//! whose fault it is. Without the variable the tests are skipped.
#![allow(clippy::unwrap_used)] // a test that cannot go on says where

mod admin;
mod command;
mod groups;
mod producing;

use std::time::Duration;

use weir_client::{Admin, Client, ClientConfig, NewTopic};
use weir_runtime::{random, task, time};

/// Runs a test with a client, or says that it is skipped.
fn with_broker<F: Future<Output = ()>>(name: &str, test: impl FnOnce(Client) -> F) {
    let Ok(bootstrap) = std::env::var("WEIR_TEST_BOOTSTRAP") else {
        println!("{name}: skipped, WEIR_TEST_BOOTSTRAP names no broker");
        return;
    };
    let test = async {
        let bootstrap = bootstrap.split(',').map(str::to_owned).collect();
        let config = ClientConfig { bootstrap, ..ClientConfig::default() };
        test(Client::connect(config).await.unwrap()).await;
    };
    let ended =
        task::block_on(task::RuntimeOptions::default(), time::timeout(Duration::from_secs(120), test));
    ended.unwrap().expect("the test takes too long");
}

/// A name that no other run uses.
fn fresh(name: &str) -> String {
    format!("{name}-{:08x}", random::u64() as u32)
}

async fn topic(client: &Client, name: &str, partitions: i32) -> String {
    let name = fresh(name);
    Admin::new(client).create_topic(&NewTopic::new(&name, partitions)).await.unwrap();
    name
}
