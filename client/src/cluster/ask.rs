//! Requests: to which broker, and on which connection.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Client, LaneId, SHARED_LANE};
use crate::call::Call;
use crate::connection::Connection;
use crate::error::Error;
use crate::metadata::BrokerInfo;
use crate::slot::Slot;

impl Client {
    /// Asks a broker by its id, on the connection that everybody shares.
    pub(crate) async fn ask<R: Call>(
        &self,
        broker: i32,
        request: &R,
        limit: Duration,
    ) -> Result<(Arc<str>, R::Response), Error> {
        self.ask_on(SHARED_LANE, broker, request, limit).await
    }

    async fn ask_on<R: Call>(
        &self,
        lane: LaneId,
        broker: i32,
        request: &R,
        limit: Duration,
    ) -> Result<(Arc<str>, R::Response), Error> {
        let connection = self.connection_to(lane, broker).await?;
        let response = connection.request(request, limit).await?;
        Ok((connection.address().clone(), response))
    }

    /// Connections of one's own.
    pub(crate) fn lane(&self) -> Arc<Lane> {
        let id = self.0.next_lane.fetch_add(1, Ordering::Relaxed);
        Arc::new(Lane { client: self.clone(), id })
    }

    /// Asks the controller, or any broker where none is known: brokers pass such requests on.
    pub(crate) async fn ask_controller<R: Call>(
        &self,
        request: &R,
    ) -> Result<(Arc<str>, R::Response), Error> {
        let controller = self.metadata().controller;
        match controller {
            Some(broker) => self.ask(broker, request, self.0.config.request_timeout).await,
            None => self.ask_any(request).await,
        }
    }

    /// Asks brokers in turn until one answers: those with a connection first, then the others that are known, then the
    /// addresses from the configuration.
    pub(crate) async fn ask_any<R: Call>(&self, request: &R) -> Result<(Arc<str>, R::Response), Error> {
        let mut tried = Vec::new();
        for address in self.addresses() {
            let answer = match self.connection_at(SHARED_LANE, address.clone()).await {
                Ok(connection) => connection.request(request, self.0.config.request_timeout).await,
                Err(error) => Err(error),
            };
            match answer {
                Ok(response) => return Ok((address, response)),
                Err(error) if error.may_have_happened() && !idempotent::<R>() => return Err(error),
                Err(error) if !error.is_retriable() => return Err(error),
                Err(error) => tried.push(error),
            }
        }
        if tried.len() == 1 {
            return Err(tried.remove(0));
        }
        let tried: Vec<String> = tried.iter().map(Error::to_string).collect();
        Err(Error::NoBroker { tried: tried.join("; ") })
    }

    fn addresses(&self) -> Vec<Arc<str>> {
        let mut addresses: Vec<Arc<str>> =
            self.metadata().brokers.values().map(|broker| Arc::from(broker.address())).collect();
        for bootstrap in &self.0.config.bootstrap {
            if !addresses.iter().any(|address| **address == **bootstrap) {
                addresses.push(Arc::from(bootstrap.as_str()));
            }
        }
        let connections = self.connections();
        let connected =
            |address: &Arc<str>| connections.get(&(SHARED_LANE, address.clone())).is_some_and(Slot::is_open);
        addresses.sort_by_key(|address| !connected(address));
        addresses
    }

    async fn connection_to(&self, lane: LaneId, broker: i32) -> Result<Connection, Error> {
        let address = self.metadata().brokers.get(&broker).map(BrokerInfo::address);
        let Some(address) = address else {
            return Err(Error::NoBroker { tried: format!("broker {broker} is not known") });
        };
        self.connection_at(lane, Arc::from(address)).await
    }

    async fn connection_at(&self, lane: LaneId, address: Arc<str>) -> Result<Connection, Error> {
        let slot = self.connections().entry((lane, address.clone())).or_default().clone();
        slot.connection(address, self.0.options.clone()).await
    }
}

/// Connections that nobody else uses; they close with it.
pub(crate) struct Lane {
    client: Client,
    id: LaneId,
}

impl Lane {
    /// Asks a broker by its id.
    pub(crate) async fn ask<R: Call>(
        &self,
        broker: i32,
        request: &R,
        limit: Duration,
    ) -> Result<(Arc<str>, R::Response), Error> {
        self.client.ask_on(self.id, broker, request, limit).await
    }

    /// Sends a broker what it does not answer.
    pub(crate) async fn tell<R: Call>(&self, broker: i32, request: &R, limit: Duration) -> Result<(), Error> {
        self.client.connection_to(self.id, broker).await?.send(request, limit).await
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.client.connections().retain(|(lane, _), _| *lane != self.id);
    }
}

/// Whether asking twice does no harm.
fn idempotent<R: Call>() -> bool {
    use weir_wire::kafka::messages::ApiKey;
    let once = [
        ApiKey::Produce,
        ApiKey::CreateTopics,
        ApiKey::DeleteTopics,
        ApiKey::CreatePartitions,
        ApiKey::IncrementalAlterConfigs,
    ];
    !once.iter().any(|key| *key as i16 == R::KEY)
}
