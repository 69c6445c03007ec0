//! The client's picture of a cluster, and its connections.

mod ask;
mod config;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use weir_runtime::time::{self, Instant};
use weir_wire::kafka::StrBytes;
use weir_wire::kafka::messages::metadata_request::MetadataRequestTopic;
use weir_wire::kafka::messages::{MetadataRequest, MetadataResponse};

use crate::TopicPartition;
use crate::backoff::Backoff;
use crate::call::Call;
use crate::connection::ConnectionOptions;
use crate::error::Error;
use crate::metadata::{BrokerInfo, Hint, Metadata, PartitionInfo, Topic};
use crate::slot::Slot;
pub(crate) use ask::Lane;
pub use config::ClientConfig;

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

    /// Takes in whom a broker has named as the partition's leader, in place of itself (KIP-951). `false`: it names nobody who
    /// is news, and the cluster must be asked.
    pub(crate) fn take_hint(&self, partition: &TopicPartition, hint: Hint) -> bool {
        self.metadata().take_hint(partition, hint)
    }

    /// Asks the cluster whether another broker leads one of these partitions.
    pub(crate) async fn lead_elsewhere(&self, broker: i32, partitions: &[TopicPartition]) -> bool {
        let topics: BTreeSet<Arc<str>> = partitions.iter().map(|partition| partition.topic.clone()).collect();
        let refreshed = {
            let _alone = self.0.refreshing.lock().await;
            self.fetch_metadata(&topics).await
        };
        if let Err(error) = refreshed {
            tracing::debug!(%error, broker, "a leader is silent, and nobody says whether it still leads");
            return false;
        }
        partitions.iter().any(|at| self.known_leader(at).is_some_and(|leader| leader.broker != broker))
    }

    /// Fetches what is missing or out of date about these topics, once.
    pub(crate) async fn refresh(&self, topics: &BTreeSet<Arc<str>>) -> Result<(), Error> {
        let _alone = self.0.refreshing.lock().await;
        let oldest = self.oldest();
        let needed: BTreeSet<Arc<str>> = {
            let metadata = self.metadata();
            let complete = |topic: &Arc<str>| {
                // A leader without an address is none: later answers about other topics may leave its broker out.
                let is_led = |partition: &PartitionInfo| {
                    partition.leader.is_some_and(|id| metadata.brokers.contains_key(&id))
                };
                metadata.fresh(topic, oldest).is_some_and(|t| t.partitions.values().all(is_led))
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

#[cfg(test)]
#[path = "cluster_tests.rs"]
mod tests;
