//! InitProducerId (key 22; KIP-98, KIP-360): an id for an idempotent producer.

use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};

use super::Api;

/// A producer without transactions has a new id each time it asks, and with it begins at epoch 0: nobody shares the id, so
/// there is no older self to be fenced. That is also how it goes on after it has lost its sequence (KIP-360).
pub(super) async fn handle(api: &Arc<Api>, request: InitProducerIdRequest) -> InitProducerIdResponse {
    let response = InitProducerIdResponse::default();
    let refused = |error: ResponseError| {
        InitProducerIdResponse::default()
            .with_error_code(error.code())
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1)
    };
    if request.transactional_id.is_some() {
        tracing::debug!("a transactional producer is refused");
        return refused(ResponseError::InvalidRequest);
    }
    match api.producer_ids.next().await {
        Ok(id) => response.with_producer_id(ProducerId(id)).with_producer_epoch(0),
        Err(error) => {
            tracing::warn!(%error, "no producer ids can be had");
            // Clients try again on this one whatever else it means (K13).
            refused(ResponseError::CoordinatorNotAvailable)
        }
    }
}
