//! The client's picture of a cluster, and its connections.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use weir_runtime::time::{self, Instant};
use weir_wire::kafka::StrBytes;
use weir_wire::kafka::messages::metadata_request::MetadataRequestTopic;
use weir_wire::kafka::messages::{MetadataRequest, MetadataResponse};

use crate::TopicPartition;
use crate::backoff::Backoff;
use crate::call::Call;
use crate::connection::{Connection, ConnectionOptions};
use crate::error::Error;
use crate::metadata::{BrokerInfo, Metadata, PartitionInfo, Topic};
use crate::slot::Slot;

/// How a client reaches its cluster.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Brokers to begin with, as `host:port`.
    pub bootstrap: Vec<String>,
    /// What the client calls itself to brokers.
    pub client_id: String,
    /// How long [`Client::connect`] tries again while no broker answers; never longer than `operation_timeout`.
    pub bootstrap_timeout: Duration,
    /// How long a connection may take to be made and to agree upon versions.
    pub connect_timeout: Duration,
    /// How long an answer may take.
    pub request_timeout: Duration,
    /// How long an operation may take with all its repetitions, where it has no limit of its own.
    pub operation_timeout: Duration,
    /// The wait before the first repetition; it doubles.
    pub retry_backoff: Duration,
    /// The longest wait before a repetition.
    pub retry_backoff_max: Duration,
    /// How old knowledge about a topic may become.
    pub metadata_age_max: Duration,
    /// The broker may create a topic that is asked for and does not exist, if it allows that itself (K21).
    pub auto_create_topics: bool,
    /// The largest answer that is accepted, in bytes.
    pub response_bytes_max: usize,
    /// How many requests may wait for their answers on one connection.
    pub requests_in_flight_max: usize,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            bootstrap: vec!["127.0.0.1:9092".to_owned()],
            client_id: "weir-client".to_owned(),
            bootstrap_timeout: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            operation_timeout: Duration::from_secs(60),
            retry_backoff: Duration::from_millis(100),
            retry_backoff_max: Duration::from_secs(1),
            metadata_age_max: Duration::from_secs(300),
            auto_create_topics: false,
            response_bytes_max: 128 << 20,
            requests_in_flight_max: 64,
        }
    }
}

/// Who leads a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Leader {
    pub(crate) broker: i32,
    pub(crate) epoch: i32,
}

/// A client of one cluster. Clones share its connections and what it knows.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    config: ClientConfig,
    options: ConnectionOptions,
    metadata: Mutex<Metadata>,
    /// By lane and address.
    connections: Mutex<BTreeMap<(LaneId, Arc<str>), Slot>>,
    next_lane: AtomicU64,
    /// Held while metadata are fetched, so that those who need the same wait for the same answer.
    refreshing: tokio::sync::Mutex<()>,
}

/// Who shares a connection. Answers leave a broker in the order of the requests (K9), so that a fetch that waits for
/// records, or a produce that waits for replicas, holds up everything behind it: each consumer and producer has its own.
type LaneId = u64;

/// Questions about the cluster, and administration.
const SHARED_LANE: LaneId = 0;

impl Client {
    /// Connects to the first broker that answers and learns who else is there.
    ///
    /// # Errors
    /// Where none of the addresses leads to a broker in time: what came of the only one,
    /// or [`Error::NoBroker`] with what came of each.
    pub async fn connect(config: ClientConfig) -> Result<Self, Error> {
        let options = ConnectionOptions {
            client_id: StrBytes::from_string(config.client_id.clone()),
            connect_timeout: config.connect_timeout,
            request_timeout: config.request_timeout,
            response_bytes_max: config.response_bytes_max,
            requests_in_flight_max: config.requests_in_flight_max,
        };
        let client = Self(Arc::new(Inner {
            config,
            options,
            metadata: Mutex::default(),
            connections: Mutex::default(),
            next_lane: AtomicU64::new(SHARED_LANE + 1),
            refreshing: tokio::sync::Mutex::default(),
        }));
        let limit = client.0.config.bootstrap_timeout.min(client.0.config.operation_timeout);
        let deadline = time::now() + limit;
        client.retry(deadline, || client.refresh_brokers()).await?;
        Ok(client)
    }

    /// How it was made.
    pub fn config(&self) -> &ClientConfig {
        &self.0.config
    }

    /// The cluster's id, if it has told.
    pub fn cluster_id(&self) -> Option<String> {
        self.metadata().cluster_id.clone()
    }

    /// The brokers, as last heard of.
    pub fn brokers(&self) -> Vec<BrokerInfo> {
        self.metadata().brokers.values().cloned().collect()
    }

    /// The partitions of a topic, in order, fetched if they are not known.
    ///
    /// # Errors
    /// What the cluster says about the topic, once the operation's time has passed.
    pub async fn partitions(&self, topic: &str) -> Result<Vec<PartitionInfo>, Error> {
        let topic = self.topic(&Arc::from(topic), self.deadline()).await?;
        Ok(topic.partitions.values().cloned().collect())
    }

    pub(crate) fn deadline(&self) -> Instant {
        time::now() + self.0.config.operation_timeout
    }

    pub(crate) fn backoff(&self) -> Backoff {
        Backoff { first: self.0.config.retry_backoff, max: self.0.config.retry_backoff_max }
    }

    /// The topic, from the cache or fetched, with repetitions until the deadline.
    pub(crate) async fn topic(&self, topic: &Arc<str>, deadline: Instant) -> Result<Arc<Topic>, Error> {
        if let Some(known) = self.known_topic(topic) {
            return Ok(known);
        }
        self.retry(deadline, || self.topic_once(topic)).await
    }

    /// The leader, if it is known and nobody has contradicted it.
    pub(crate) fn known_leader(&self, partition: &TopicPartition) -> Option<Leader> {
        let oldest = self.oldest();
        let metadata = self.metadata();
        let info = metadata.fresh(&partition.topic, oldest)?.partitions.get(&partition.partition)?;
        let broker = info.leader.filter(|id| metadata.brokers.contains_key(id))?;
        Some(Leader { broker, epoch: info.leader_epoch })
    }

    /// Why [`Client::known_leader`] knows none.
    pub(crate) fn no_leader(&self, partition: &TopicPartition) -> Error {
        let metadata = self.metadata();
        let reason = match metadata.topics.get(&partition.topic).map(|topic| &**topic) {
            None => "nothing is known about the topic".to_owned(),
            Some(Topic { error: Some(error), .. }) => error.to_string(),
            Some(topic) => match topic.partitions.get(&partition.partition) {
                None => format!("the topic has {} partitions", topic.partitions.len()),
                Some(PartitionInfo { error: Some(error), .. }) => error.to_string(),
                Some(PartitionInfo { leader: None, .. }) => "LEADER_NOT_AVAILABLE".to_owned(),
                Some(_) => "what is known about it is out of date".to_owned(),
            },
        };
        Error::NoLeader { partition: partition.clone(), reason }
    }

    /// Notes that a broker has contradicted what is known about the topic.
    pub(crate) fn mark_stale(&self, topic: &Arc<str>) {
        self.metadata().mark_stale(topic);
    }

    /// Fetches what is missing or out of date about these topics, once.
    pub(crate) async fn refresh(&self, topics: &BTreeSet<Arc<str>>) -> Result<(), Error> {
        let _alone = self.0.refreshing.lock().await;
        let oldest = self.oldest();
        let needed: BTreeSet<Arc<str>> = {
            let metadata = self.metadata();
            let complete = |topic: &Arc<str>| {
                metadata
                    .fresh(topic, oldest)
                    .is_some_and(|t| t.partitions.values().all(|p| p.leader.is_some()))
            };
            topics.iter().filter(|&topic| !complete(topic)).chain(metadata.stale()).cloned().collect()
        };
        if needed.is_empty() {
            return Ok(());
        }
        self.fetch_metadata(&needed).await
    }

    /// Asks who the brokers and the controller are.
    pub(crate) async fn refresh_brokers(&self) -> Result<(), Error> {
        self.fetch_metadata(&BTreeSet::new()).await
    }

    /// How many partitions each of these topics has, asked for anew; topics that do not exist are missing.
    pub(crate) async fn partition_counts(
        &self,
        topics: &BTreeSet<Arc<str>>,
    ) -> Result<BTreeMap<Arc<str>, i32>, Error> {
        if topics.is_empty() {
            return Ok(BTreeMap::new());
        }
        {
            let _alone = self.0.refreshing.lock().await;
            self.fetch_metadata(topics).await?;
        }
        let count = |topic: &Arc<str>| {
            let partitions = self.known_topic(topic)?.partitions.len();
            Some((topic.clone(), i32::try_from(partitions).unwrap_or(i32::MAX)))
        };
        Ok(topics.iter().filter_map(count).collect())
    }

    /// Whether the broker's address is known.
    pub(crate) fn knows_broker(&self, broker: i32) -> bool {
        self.metadata().brokers.contains_key(&broker)
    }

    fn known_topic(&self, topic: &str) -> Option<Arc<Topic>> {
        let oldest = self.oldest();
        self.metadata().fresh(topic, oldest).filter(|topic| !topic.partitions.is_empty()).cloned()
    }

    async fn topic_once(&self, topic: &Arc<str>) -> Result<Arc<Topic>, Error> {
        if let Some(known) = self.known_topic(topic) {
            return Ok(known);
        }
        self.refresh(&BTreeSet::from([topic.clone()])).await?;
        if let Some(known) = self.known_topic(topic) {
            return Ok(known);
        }
        let error = self.metadata().topics.get(topic).and_then(|known| known.error);
        let partition = TopicPartition { topic: topic.clone(), partition: 0 };
        let Some(error) = error else { return Err(self.no_leader(&partition)) };
        let address = Arc::from("the cluster");
        Err(Error::Kafka {
            address,
            api: MetadataRequest::NAME,
            about: topic.to_string(),
            error,
            message: None,
        })
    }

    /// Asks any broker about these topics, and about all brokers.
    async fn fetch_metadata(&self, topics: &BTreeSet<Arc<str>>) -> Result<(), Error> {
        let asked = topics.iter().map(|topic| {
            let name = StrBytes::from_string(topic.to_string());
            MetadataRequestTopic::default().with_name(Some(name.into()))
        });
        let request = MetadataRequest::default()
            .with_topics(Some(asked.collect()))
            .with_allow_auto_topic_creation(self.0.config.auto_create_topics);
        let response: MetadataResponse = self.ask_any(&request).await?.1;
        self.metadata().merge(topics, &response, time::now());
        Ok(())
    }

    /// All topics; what comes back does not enter the cache.
    pub(crate) async fn all_metadata(&self) -> Result<MetadataResponse, Error> {
        let request = MetadataRequest::default().with_topics(None);
        Ok(self.ask_any(&request).await?.1)
    }

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

    /// Repeats what may be repeated, with growing waits, until the deadline.
    pub(crate) async fn retry<T, F>(
        &self,
        deadline: Instant,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let backoff = self.backoff();
        for repetition in 1.. {
            let error = match attempt().await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let wait = backoff.before(repetition);
            if !error.is_retriable() || time::now() + wait >= deadline {
                return Err(error);
            }
            tracing::debug!(%error, repetition, ?wait, "trying again");
            time::sleep(wait).await;
        }
        Err(Error::Closed)
    }

    fn oldest(&self) -> Instant {
        let now = time::now().since_origin();
        Instant::from_origin(now.saturating_sub(self.0.config.metadata_age_max))
    }

    fn metadata(&self) -> MutexGuard<'_, Metadata> {
        // Each change replaces whole entries.
        self.0.metadata.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connections(&self) -> MutexGuard<'_, BTreeMap<(LaneId, Arc<str>), Slot>> {
        self.0.connections.lock().unwrap_or_else(PoisonError::into_inner)
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

#[cfg(test)]
#[path = "cluster_tests.rs"]
mod tests;
