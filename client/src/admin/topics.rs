//! Topics: created, listed, described, deleted.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;
use weir_wire::kafka::StrBytes;
use weir_wire::kafka::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use weir_wire::kafka::messages::delete_topics_request::DeleteTopicsRequest;
use weir_wire::kafka::messages::describe_topic_partitions_request::{Cursor, TopicRequest};
use weir_wire::kafka::messages::describe_topic_partitions_response::DescribeTopicPartitionsResponsePartition;
use weir_wire::kafka::messages::metadata_response::MetadataResponseTopic;
use weir_wire::kafka::messages::{
    BrokerId, CreateTopicsRequest, DescribeTopicPartitionsRequest, MetadataRequest,
};

use super::{Admin, Attempts, UNKNOWN_TOPIC_OR_PARTITION, check, is, silent};
use crate::error::{Error, KafkaError};
use crate::metadata::{self, PartitionInfo};

/// Partitions that are asked for at a time, as many as Kafka gives at most.
const PAGE_PARTITIONS: i32 = 2_000;

const TOPIC_ALREADY_EXISTS: i16 = 36;

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

impl Admin {
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

    /// A topic and its partitions, asked for anew. A broker that does not know DescribeTopicPartitions (KIP-966) is asked for
    /// its metadata.
    ///
    /// # Errors
    /// What the cluster says about the topic, such as UNKNOWN_TOPIC_OR_PARTITION.
    pub async fn describe_topic(&self, name: &str) -> Result<TopicDescription, Error> {
        let mut found: Option<TopicDescription> = None;
        let mut request = DescribeTopicPartitionsRequest::default()
            .with_topics(vec![
                TopicRequest::default().with_name(StrBytes::from_string(name.to_owned()).into()),
            ])
            .with_response_partition_limit(PAGE_PARTITIONS);
        loop {
            let deadline = self.client.deadline();
            let asked = self.client.retry(deadline, || self.client.ask_any(&request)).await;
            let (address, response) = match asked {
                Err(Error::Version { .. }) => return self.describe_topic_by_metadata(name).await,
                asked => asked?,
            };
            let page = response
                .topics
                .iter()
                .find(|topic| topic.name.as_ref().is_some_and(|found| ***found == *name))
                .ok_or_else(|| silent::<DescribeTopicPartitionsRequest>(&address, name))?;
            check::<DescribeTopicPartitionsRequest>(&address, name, page.error_code, None)?;
            let topic = found.get_or_insert_with(|| TopicDescription {
                name: name.to_owned(),
                id: page.topic_id,
                is_internal: page.is_internal,
                partitions: Vec::new(),
            });
            topic.partitions.extend(page.partitions.iter().map(described));
            let Some(next) = response.next_cursor.filter(|next| **next.topic_name == *name) else { break };
            let cursor =
                Cursor::default().with_topic_name(next.topic_name).with_partition_index(next.partition_index);
            request.cursor = Some(cursor);
        }
        let mut topic = found.ok_or(Error::Closed)?;
        topic.partitions.sort_by_key(|partition| partition.partition);
        Ok(topic)
    }

    async fn describe_topic_by_metadata(&self, name: &str) -> Result<TopicDescription, Error> {
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
        Ok(TopicDescription::of(topic))
    }
}

impl TopicDescription {
    pub(super) fn of(topic: &MetadataResponseTopic) -> TopicDescription {
        let mut partitions: Vec<PartitionInfo> =
            topic.partitions.iter().map(metadata::partition_info).collect();
        partitions.sort_by_key(|partition| partition.partition);
        let name = topic.name.as_ref().map(|name| name.to_string()).unwrap_or_default();
        TopicDescription { name, id: topic.topic_id, is_internal: topic.is_internal, partitions }
    }
}

fn described(partition: &DescribeTopicPartitionsResponsePartition) -> PartitionInfo {
    let ids = |ids: &[BrokerId]| ids.iter().map(|id| id.0).collect::<Vec<_>>();
    PartitionInfo {
        partition: partition.partition_index,
        leader: (partition.leader_id.0 >= 0).then_some(partition.leader_id.0),
        leader_epoch: partition.leader_epoch,
        replicas: ids(&partition.replica_nodes),
        isr: ids(&partition.isr_nodes),
        elr: partition.eligible_leader_replicas.as_deref().map(ids),
        offline: ids(&partition.offline_replicas),
        error: KafkaError::from_code(partition.error_code),
    }
}
