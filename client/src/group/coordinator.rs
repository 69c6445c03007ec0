//! Who coordinates a group.

use std::sync::Arc;
use std::time::Duration;

use weir_wire::kafka::StrBytes;
use weir_wire::kafka::messages::FindCoordinatorRequest;

use crate::call::Call;
use crate::cluster::{Client, Lane};
use crate::error::{Error, KafkaError};

/// Asks any broker, once.
pub(crate) async fn find(client: &Client, group: &str) -> Result<i32, Error> {
    let key = StrBytes::from_string(group.to_owned());
    let request = FindCoordinatorRequest::default().with_key_type(0).with_coordinator_keys(vec![key]);
    let (address, response) = client.ask_any(&request).await?;
    let api = FindCoordinatorRequest::NAME;
    let Some(found) = response.coordinators.iter().find(|found| *found.key == *group) else {
        let reason = format!("it says nothing about group {group}");
        return Err(Error::Protocol { address, api, reason });
    };
    if let Some(error) = KafkaError::from_code(found.error_code) {
        let message = found.error_message.as_ref().map(|message| message.to_string());
        return Err(Error::Kafka { address, api, about: format!("group {group}"), error, message });
    }
    if !client.knows_broker(found.node_id.0) {
        client.refresh_brokers().await?;
    }
    Ok(found.node_id.0)
}

/// Asks a group's coordinator. While it is silent for longer than `silence`, it is looked up who coordinates the group; if
/// that is another broker, the answer is not waited for any longer.
pub(super) async fn ask<R: Call>(
    lane: &Lane,
    client: &Client,
    group: &str,
    broker: i32,
    request: &R,
    (limit, silence): (Duration, Duration),
) -> Result<(Arc<str>, R::Response), Error> {
    let moved = || async { find(client, group).await.is_ok_and(|found| found != broker) };
    lane.ask_unless(broker, request, limit, silence, moved).await
}

/// The error of a whole answer about a group.
pub(crate) fn check<R: Call>(address: &Arc<str>, group: &str, code: i16) -> Result<(), Error> {
    match KafkaError::from_code(code) {
        None => Ok(()),
        Some(error) => {
            let (address, about) = (address.clone(), format!("group {group}"));
            Err(Error::Kafka { address, api: R::NAME, about, error, message: None })
        }
    }
}
