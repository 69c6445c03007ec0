//! UnregisterBroker (key 64; KIP-500): a broker that does not come back is forgotten.

use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{UnregisterBrokerRequest, UnregisterBrokerResponse};
use kafka_protocol::protocol::StrBytes;
use weir_protocol::metadata::{Command, Image};
use weir_protocol::types::BrokerId;
use weir_runtime::time;

use super::configs::Refusal;
use super::{Api, errors};

/// The request has no time limit of its own.
const LIMIT: Duration = Duration::from_secs(30);

pub(super) async fn handle(api: &Arc<Api>, request: UnregisterBrokerRequest) -> UnregisterBrokerResponse {
    let response = UnregisterBrokerResponse::default().with_error_message(None);
    match unregister(api, BrokerId(request.broker_id.0)).await {
        Ok(()) => response,
        Err((error, text)) => {
            response.with_error_code(error.code()).with_error_message(Some(StrBytes::from_string(text)))
        }
    }
}

async fn unregister(api: &Arc<Api>, broker: BrokerId) -> Result<(), Refusal> {
    api.metadata.catch_up().await;
    check(&api.image.current().image, broker)?;
    match time::timeout(LIMIT, api.metadata.propose(Command::UnregisterBroker { broker })).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err((errors::of_proposal(&error), error.to_string())),
        Err(_) => Err((ResponseError::RequestTimedOut, "The broker may be forgotten later.".to_owned())),
    }
}

/// A broker that serves would not be there for the others, and go on: it is stopped first.
fn check(image: &Image, broker: BrokerId) -> Result<(), Refusal> {
    match image.broker(broker) {
        None => Err((ResponseError::BrokerIdNotRegistered, format!("Broker {broker} is not registered."))),
        Some(known) if !known.fenced => {
            Err((ResponseError::InvalidRequest, format!("Broker {broker} is alive: stop it first.")))
        }
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::brokers::tests::Three;
    use super::*;

    #[test]
    fn only_a_broker_that_does_not_serve_can_be_forgotten() {
        let mut three = Three::new();
        three.fence(2);
        let error = |id| check(&three.image, BrokerId(id)).map_err(|(error, _)| error);
        assert_eq!(error(1), Err(ResponseError::InvalidRequest));
        assert_eq!(error(2), Ok(()));
        assert_eq!(error(9), Err(ResponseError::BrokerIdNotRegistered));
    }
}
