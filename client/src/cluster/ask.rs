//! Requests: to which broker, and on which connection.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use weir_runtime::time;

use super::{Client, LaneId, SHARED_LANE};
use crate::TopicPartition;
use crate::call::Call;
use crate::connection::Connection;
use crate::error::Error;
use crate::in_flight::InFlight;
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
    /// addresses from the configuration. The next one is asked beside one that is silent, where that does no harm.
    pub(crate) async fn ask_any<R: Call>(&self, request: &R) -> Result<(Arc<str>, R::Response), Error> {
        let mut tried = Vec::new();
        let mut addresses = self.addresses().into_iter();
        let mut next = addresses.next();
        let mut asked = InFlight::new();
        loop {
            if let Some(address) = next.take() {
                asked.push(self.ask_at(address, request));
            }
            if asked.is_empty() {
                break;
            }
            let answer = if idempotent::<R>() {
                time::timeout(self.0.config.patience, asked.next()).await.ok()
            } else {
                Some(asked.next().await)
            };
            next = addresses.next();
            match answer {
                // It is silent.
                None => {}
                Some(Ok(answer)) => return Ok(answer),
                Some(Err(error)) if error.may_have_happened() && !idempotent::<R>() => return Err(error),
                Some(Err(error)) if !error.is_retriable() => return Err(error),
                Some(Err(error)) => tried.push(error),
            }
        }
        if tried.len() == 1 {
            return Err(tried.remove(0));
        }
        let tried: Vec<String> = tried.iter().map(Error::to_string).collect();
        Err(Error::NoBroker { tried: tried.join("; ") })
    }

    async fn ask_at<R: Call>(
        &self,
        address: Arc<str>,
        request: &R,
    ) -> Result<(Arc<str>, R::Response), Error> {
        let connection = self.connection_at(SHARED_LANE, address.clone()).await?;
        Ok((address, connection.request(request, self.0.config.request_timeout).await?))
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

    /// Asks the leader of these partitions. While it is silent for longer than `silence`, it is looked up whether it still
    /// leads; if it does not, its answer is not waited for any longer.
    ///
    /// # Errors
    /// As of [`Lane::ask`]; `Disconnected` where another broker leads.
    pub(crate) async fn ask_leader<R: Call>(
        &self,
        broker: i32,
        partitions: &[TopicPartition],
        request: &R,
        limit: Duration,
        silence: Duration,
    ) -> Result<(Arc<str>, R::Response), Error> {
        self.ask_unless(broker, request, limit, silence, || self.client.lead_elsewhere(broker, partitions))
            .await
    }

    /// Asks a broker by its id, and asks `moved` again and again while it is silent for longer than `silence`: when that
    /// says that another one is to be asked by now, the answer is not waited for any longer.
    ///
    /// # Errors
    /// As of [`Lane::ask`]; `Disconnected` where another one is to be asked.
    pub(crate) async fn ask_unless<R: Call, F: Future<Output = bool>>(
        &self,
        broker: i32,
        request: &R,
        limit: Duration,
        silence: Duration,
        moved: impl Fn() -> F,
    ) -> Result<(Arc<str>, R::Response), Error> {
        let mut answer = pin!(self.ask(broker, request, limit));
        loop {
            if let Ok(answered) = time::timeout(silence, &mut answer).await {
                return answered;
            }
            let moved = weir_runtime::select! {
                answered = &mut answer => return answered,
                moved = moved() => moved,
            };
            if moved {
                return Err(self.give_up(broker));
            }
        }
    }

    /// Forgets the connection to a broker: whatever came next on it would wait behind the answer that does not come.
    fn give_up(&self, broker: i32) -> Error {
        let address = self.client.metadata().brokers.get(&broker).map(BrokerInfo::address);
        let address: Arc<str> = Arc::from(address.unwrap_or_else(|| format!("broker {broker}")));
        self.client.connections().remove(&(self.id, address.clone()));
        Error::Disconnected { address, reason: "it is silent, and replaced by another".into(), sent: true }
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
        ApiKey::AddRaftVoter,
        ApiKey::RemoveRaftVoter,
        ApiKey::UnregisterBroker,
        ApiKey::UpdateFeatures,
    ];
    !once.iter().any(|key| *key as i16 == R::KEY)
}
