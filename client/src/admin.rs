//! Administration: topics, settings, groups, offsets, the cluster.

mod configs;
mod groups;
pub(crate) mod offsets;

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;
use weir_runtime::time::{self, Instant};
use weir_wire::kafka::StrBytes;
use weir_wire::kafka::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use weir_wire::kafka::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use weir_wire::kafka::messages::delete_topics_request::DeleteTopicsRequest;
use weir_wire::kafka::messages::{
    CreateTopicsRequest, DeleteRecordsRequest, DescribeClusterRequest, MetadataRequest,
};

use crate::TopicPartition;
use crate::call::Call;
use crate::cluster::Client;
use crate::consumer::IsolationLevel;
use crate::error::{Error, KafkaError};
use crate::metadata::{self, BrokerInfo, PartitionInfo};
pub use configs::{ConfigChange, ConfigEntry, ConfigResource, ConfigSource};
pub use groups::{GroupDescription, GroupListing, GroupMember};
pub use offsets::{OffsetAt, OffsetSpec};

/// A topic to create.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// How many partitions; `None` leaves it to the cluster.
    pub partitions: Option<i32>,
    /// How many replicas each; `None` leaves it to the cluster.
    pub replication_factor: Option<i16>,
    /// The brokers of each partition; where given, the two above stay `None`.
    pub assignments: BTreeMap<i32, Vec<i32>>,
    /// Settings.
    pub configs: BTreeMap<String, String>,
}

impl NewTopic {
    /// A topic with this many partitions, and the cluster's replication.
    pub fn new(name: impl Into<String>, partitions: i32) -> Self {
        Self { name: name.into(), partitions: Some(partitions), ..Self::default() }
    }

    /// With a setting.
    #[must_use]
    pub fn config(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.configs.insert(name.into(), value.into());
        self
    }
}

/// A topic in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicListing {
    /// Its name.
    pub name: String,
    /// Its id; nil where the broker does not tell.
    pub id: Uuid,
    /// The cluster's own.
    pub is_internal: bool,
    /// How many partitions.
    pub partitions: usize,
    /// How many replicas a partition has; the largest number, where they differ.
    pub replicas: usize,
}

/// A topic and its partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicDescription {
    /// Its name.
    pub name: String,
    /// Its id; nil where the broker does not tell.
    pub id: Uuid,
    /// The cluster's own.
    pub is_internal: bool,
    /// In the order of their numbers.
    pub partitions: Vec<PartitionInfo>,
}

/// The cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterDescription {
    /// Its id.
    pub id: String,
    /// The broker to which administration goes, if one is named.
    pub controller: Option<i32>,
    /// Its brokers, in the order of their ids.
    pub brokers: Vec<BrokerInfo>,
}

/// Administers a cluster.
///
/// What may pass is repeated. A repetition may find that the first attempt has succeeded: TOPIC_ALREADY_EXISTS or
/// UNKNOWN_TOPIC_OR_PARTITION after an attempt without an answer count as success.
#[derive(Clone)]
pub struct Admin {
    client: Client,
}

const TOPIC_ALREADY_EXISTS: i16 = 36;
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;

impl Admin {
    /// For the client's cluster.
    pub fn new(client: &Client) -> Self {
        Self { client: client.clone() }
    }

    /// Creates a topic and returns its id (nil where the broker does not tell).
    ///
    /// # Errors
    /// What the controller says, such as TOPIC_ALREADY_EXISTS or INVALID_REPLICATION_FACTOR.
    pub async fn create_topic(&self, topic: &NewTopic) -> Result<Uuid, Error> {
        let assignments = topic.assignments.iter().map(|(&partition, brokers)| {
            let brokers = brokers.iter().map(|&id| id.into()).collect();
            CreatableReplicaAssignment::default().with_partition_index(partition).with_broker_ids(brokers)
        });
        let configs = topic.configs.iter().map(|(name, value)| {
            let value = Some(StrBytes::from_string(value.clone()));
            CreatableTopicConfig::default().with_name(StrBytes::from_string(name.clone())).with_value(value)
        });
        let creatable = CreatableTopic::default()
            .with_name(StrBytes::from_string(topic.name.clone()).into())
            .with_num_partitions(topic.partitions.unwrap_or(-1))
            .with_replication_factor(topic.replication_factor.unwrap_or(-1))
            .with_assignments(assignments.collect())
            .with_configs(configs.collect());
        let request =
            CreateTopicsRequest::default().with_timeout_ms(self.timeout_ms()).with_topics(vec![creatable]);
        let mut attempts = Attempts::new(&self.client);
        loop {
            let result = self.client.ask_controller(&request).await.and_then(|(address, response)| {
                let answer = response.topics.iter().find(|answer| **answer.name == *topic.name);
                let answer = answer.ok_or_else(|| silent::<CreateTopicsRequest>(&address, &topic.name))?;
                let message = answer.error_message.as_ref().map(|message| message.to_string());
                check::<CreateTopicsRequest>(&address, &topic.name, answer.error_code, message)?;
                Ok(answer.topic_id)
            });
            match result {
                Ok(id) => return Ok(id),
                Err(error) if attempts.maybe_done && is(&error, TOPIC_ALREADY_EXISTS) => {
                    return Ok(self.describe_topic(&topic.name).await?.id);
                }
                Err(error) => attempts.wait_after(error).await?,
            }
        }
    }

    /// Deletes a topic.
    ///
    /// # Errors
    /// What the controller says, such as UNKNOWN_TOPIC_OR_PARTITION.
    pub async fn delete_topic(&self, name: &str) -> Result<(), Error> {
        let request = DeleteTopicsRequest::default()
            .with_timeout_ms(self.timeout_ms())
            .with_topic_names(vec![StrBytes::from_string(name.to_owned()).into()]);
        let mut attempts = Attempts::new(&self.client);
        loop {
            let result = self.client.ask_controller(&request).await.and_then(|(address, response)| {
                let named =
                    |answer: &&weir_wire::kafka::messages::delete_topics_response::DeletableTopicResult| {
                        answer.name.as_ref().is_some_and(|found| ***found == *name)
                    };
                let answer = response.responses.iter().find(named);
                let answer = answer.ok_or_else(|| silent::<DeleteTopicsRequest>(&address, name))?;
                let message = answer.error_message.as_ref().map(|message| message.to_string());
                check::<DeleteTopicsRequest>(&address, name, answer.error_code, message)
            });
            match result {
                Ok(()) => break,
                Err(error) if attempts.maybe_done && is(&error, UNKNOWN_TOPIC_OR_PARTITION) => break,
                Err(error) if is(&error, UNKNOWN_TOPIC_OR_PARTITION) => return Err(error),
                Err(error) => attempts.wait_after(error).await?,
            }
        }
        self.client.mark_stale(&Arc::from(name));
        Ok(())
    }

    /// All topics, by name.
    ///
    /// # Errors
    /// Where no broker answers in time.
    pub async fn list_topics(&self) -> Result<Vec<TopicListing>, Error> {
        let response = self.client.retry(self.client.deadline(), || self.client.all_metadata()).await?;
        let listed = response.topics.iter().map(|topic| TopicListing {
            name: topic.name.as_ref().map(|name| name.to_string()).unwrap_or_default(),
            id: topic.topic_id,
            is_internal: topic.is_internal,
            partitions: topic.partitions.len(),
            replicas: topic.partitions.iter().map(|p| p.replica_nodes.len()).max().unwrap_or_default(),
        });
        let mut listed: Vec<TopicListing> = listed.collect();
        listed.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(listed)
    }

    /// A topic and its partitions, asked for anew.
    ///
    /// # Errors
    /// What the cluster says about the topic, such as UNKNOWN_TOPIC_OR_PARTITION.
    pub async fn describe_topic(&self, name: &str) -> Result<TopicDescription, Error> {
        use weir_wire::kafka::messages::metadata_request::MetadataRequestTopic;
        let asked =
            MetadataRequestTopic::default().with_name(Some(StrBytes::from_string(name.to_owned()).into()));
        let request =
            MetadataRequest::default().with_topics(Some(vec![asked])).with_allow_auto_topic_creation(false);
        let deadline = self.client.deadline();
        let (address, response) = self.client.retry(deadline, || self.client.ask_any(&request)).await?;
        let topic =
            response.topics.iter().find(|topic| topic.name.as_ref().is_some_and(|found| ***found == *name));
        let topic = topic.ok_or_else(|| silent::<MetadataRequest>(&address, name))?;
        check::<MetadataRequest>(&address, name, topic.error_code, None)?;
        let mut partitions: Vec<PartitionInfo> =
            topic.partitions.iter().map(metadata::partition_info).collect();
        partitions.sort_by_key(|partition| partition.partition);
        let (name, id, is_internal) = (name.to_owned(), topic.topic_id, topic.is_internal);
        Ok(TopicDescription { name, id, is_internal, partitions })
    }

    /// The cluster and its brokers. A broker that does not know DescribeCluster (KIP-700) is asked for its metadata.
    ///
    /// # Errors
    /// Where no broker answers in time.
    pub async fn describe_cluster(&self) -> Result<ClusterDescription, Error> {
        let request = DescribeClusterRequest::default();
        let asked = self.client.retry(self.client.deadline(), || self.client.ask_any(&request)).await;
        let (address, response) = match asked {
            Err(Error::Version { .. }) => return self.describe_cluster_by_metadata().await,
            asked => asked?,
        };
        let message = response.error_message.as_ref().map(|message| message.to_string());
        check::<DescribeClusterRequest>(&address, "the cluster", response.error_code, message)?;
        let mut brokers: Vec<BrokerInfo> = response
            .brokers
            .iter()
            .map(|broker| BrokerInfo {
                id: broker.broker_id.0,
                host: broker.host.to_string(),
                port: broker.port,
                rack: broker.rack.as_ref().map(|rack| rack.to_string()),
            })
            .collect();
        brokers.sort_by_key(|broker| broker.id);
        let controller = (response.controller_id.0 >= 0).then_some(response.controller_id.0);
        Ok(ClusterDescription { id: response.cluster_id.to_string(), controller, brokers })
    }

    async fn describe_cluster_by_metadata(&self) -> Result<ClusterDescription, Error> {
        let request = MetadataRequest::default().with_topics(Some(Vec::new()));
        let (_, response) = self.client.ask_any(&request).await?;
        Ok(ClusterDescription {
            id: response.cluster_id.as_ref().map(|id| id.to_string()).unwrap_or_default(),
            controller: (response.controller_id.0 >= 0).then_some(response.controller_id.0),
            brokers: metadata::brokers(&response).into_values().collect(),
        })
    }

    /// The offset that is asked for, in each partition; `None` where no record is as late as that. Each partition has its
    /// own answer, and what may pass is repeated for it alone.
    pub async fn list_offsets(
        &self,
        questions: &[(TopicPartition, OffsetSpec)],
    ) -> Vec<Result<Option<OffsetAt>, Error>> {
        let deadline = self.client.deadline();
        let mut answers: Vec<offsets::OffsetAnswer> = questions.iter().map(|_| Err(Error::Closed)).collect();
        let mut open: Vec<usize> = (0..questions.len()).collect();
        for repetition in 1.. {
            self.list_offsets_once(questions, &open, &mut answers, deadline).await;
            open.retain(|&at| answers[at].as_ref().is_err_and(Error::is_retriable));
            let wait = self.client.backoff().before(repetition);
            if open.is_empty() || time::now() + wait >= deadline {
                break;
            }
            time::sleep(wait).await;
        }
        answers
    }

    async fn list_offsets_once(
        &self,
        questions: &[(TopicPartition, OffsetSpec)],
        open: &[usize],
        answers: &mut [offsets::OffsetAnswer],
        deadline: Instant,
    ) {
        // A request may ask about a partition once: the second question about it goes into another request.
        let mut asked_before: BTreeMap<&TopicPartition, u32> = BTreeMap::new();
        let mut requests: BTreeMap<(i32, u32), (Vec<usize>, Vec<offsets::Question>)> = BTreeMap::new();
        for &at in open {
            let (partition, spec) = &questions[at];
            if self.client.known_leader(partition).is_none()
                && let Err(error) = self.client.topic(&partition.topic, deadline).await
            {
                answers[at] = Err(error);
                continue;
            }
            let Some(leader) = self.client.known_leader(partition) else {
                answers[at] = Err(self.client.no_leader(partition));
                self.client.mark_stale(&partition.topic);
                continue;
            };
            let turn = asked_before.entry(partition).or_default();
            let (places, asked) = requests.entry((leader.broker, *turn)).or_default();
            *turn += 1;
            places.push(at);
            asked.push((partition.clone(), leader.epoch, *spec));
        }
        for ((broker, _), (places, asked)) in requests {
            let told =
                offsets::ask_leader(&self.client, broker, &asked, IsolationLevel::ReadUncommitted).await;
            let told = told.unwrap_or_else(|error| places.iter().map(|_| Err(error.clone())).collect());
            for (at, answer) in places.into_iter().zip(told) {
                if answer.is_err() {
                    self.client.mark_stale(&questions[at].0.topic);
                }
                answers[at] = answer;
            }
        }
    }

    /// Deletes all records of a partition before an offset (KIP-107), and returns the log's first offset afterwards.
    /// `before` may be -1: everything up to the high watermark. Repeating it does no harm.
    ///
    /// # Errors
    /// What the leader says, such as OFFSET_OUT_OF_RANGE for an offset behind the high watermark.
    pub async fn delete_records(&self, partition: &TopicPartition, before: i64) -> Result<i64, Error> {
        let mut attempts = Attempts::new(&self.client);
        loop {
            match self.delete_records_once(partition, before, attempts.deadline).await {
                Ok(start) => return Ok(start),
                Err(error) => {
                    self.client.mark_stale(&partition.topic);
                    attempts.wait_after(error).await?;
                }
            }
        }
    }

    async fn delete_records_once(
        &self,
        partition: &TopicPartition,
        before: i64,
        deadline: Instant,
    ) -> Result<i64, Error> {
        self.client.topic(&partition.topic, deadline).await?;
        let Some(leader) = self.client.known_leader(partition) else {
            return Err(self.client.no_leader(partition));
        };
        let asked =
            DeleteRecordsPartition::default().with_partition_index(partition.partition).with_offset(before);
        let topic = DeleteRecordsTopic::default()
            .with_name(StrBytes::from_string(partition.topic.to_string()).into())
            .with_partitions(vec![asked]);
        let request =
            DeleteRecordsRequest::default().with_timeout_ms(self.timeout_ms()).with_topics(vec![topic]);
        let limit = self.client.config().request_timeout;
        let (address, response) = self.client.ask(leader.broker, &request, limit).await?;
        let topic = response.topics.iter().find(|topic| **topic.name == *partition.topic);
        let mut partitions = topic.into_iter().flat_map(|topic| &topic.partitions);
        let about = partition.to_string();
        let answer = partitions.find(|answer| answer.partition_index == partition.partition);
        let answer = answer.ok_or_else(|| silent::<DeleteRecordsRequest>(&address, &about))?;
        check::<DeleteRecordsRequest>(&address, &about, answer.error_code, None)?;
        Ok(answer.low_watermark)
    }

    fn timeout_ms(&self) -> i32 {
        i32::try_from(self.client.config().request_timeout.as_millis()).unwrap_or(i32::MAX)
    }
}

/// The repetitions of one request that changes something.
struct Attempts<'a> {
    client: &'a Client,
    deadline: Instant,
    repetition: u32,
    /// An attempt ended without saying whether it was carried out.
    maybe_done: bool,
}

impl<'a> Attempts<'a> {
    fn new(client: &'a Client) -> Self {
        Self { client, deadline: client.deadline(), repetition: 0, maybe_done: false }
    }

    /// Waits before the next attempt, or gives the error back where there is none.
    async fn wait_after(&mut self, error: Error) -> Result<(), Error> {
        self.repetition += 1;
        let wait = self.client.backoff().before(self.repetition);
        if !error.is_retriable() || time::now() + wait >= self.deadline {
            return Err(if self.maybe_done { Error::Unsettled { source: Box::new(error) } } else { error });
        }
        self.maybe_done |= error.may_have_happened();
        time::sleep(wait).await;
        // Another broker may be the controller by now.
        let forgotten = self.client.refresh_brokers().await;
        if let Err(error) = forgotten {
            tracing::debug!(%error, "the controller cannot be looked up");
        }
        Ok(())
    }
}

fn is(error: &Error, code: i16) -> bool {
    error.kafka().is_some_and(|kafka| kafka.code() == code)
}

fn silent<R: Call>(address: &Arc<str>, about: &str) -> Error {
    Error::Protocol {
        address: address.clone(),
        api: R::NAME,
        reason: format!("it says nothing about {about}"),
    }
}

fn check<R: Call>(address: &Arc<str>, about: &str, code: i16, message: Option<String>) -> Result<(), Error> {
    match KafkaError::from_code(code) {
        None => Ok(()),
        Some(error) => Err(Error::Kafka {
            address: address.clone(),
            api: R::NAME,
            about: about.to_owned(),
            error,
            message,
        }),
    }
}
