//! Groups and their offsets, looked at and changed from outside.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weir_wire::consumer_protocol::Assignment;
use weir_wire::kafka::StrBytes;
use weir_wire::kafka::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use weir_wire::kafka::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use weir_wire::kafka::messages::{
    ConsumerGroupDescribeRequest, DeleteGroupsRequest, DescribeGroupsRequest, GroupId, ListGroupsRequest,
    OffsetCommitRequest, OffsetDeleteRequest, consumer_group_describe_response,
};

use super::{Admin, Attempts, check, is, silent};
use crate::TopicPartition;
use crate::call::Call;
use crate::error::{Error, KafkaError};
use crate::group::{CommittedOffset, commit, coordinator};

const GROUP_ID_NOT_FOUND: i16 = 69;

/// A group in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupListing {
    /// Its name.
    pub id: String,
    /// What its members are, such as `consumer`; empty where it has only offsets.
    pub protocol_type: String,
    /// Such as `Stable`, `Empty`, `PreparingRebalance`; empty where the broker does not tell.
    pub state: String,
    /// `classic` or `consumer` (KIP-848); empty where the broker does not tell.
    pub kind: String,
}

/// A group and its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupDescription {
    /// Its name.
    pub id: String,
    /// Such as `Stable`, `Empty`, `PreparingRebalance`, `Dead`.
    pub state: String,
    /// What its members are, such as `consumer`.
    pub protocol_type: String,
    /// How they divide their partitions.
    pub assignor: String,
    /// The broker that coordinates it.
    pub coordinator: i32,
    /// In the order of their ids.
    pub members: Vec<GroupMember>,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMember {
    /// The id that the coordinator gave.
    pub id: String,
    /// Its name for good, if it has one (KIP-345).
    pub instance: Option<String>,
    /// What its client calls itself.
    pub client_id: String,
    /// Where it connects from.
    pub host: String,
    /// What it reads.
    pub partitions: BTreeSet<TopicPartition>,
}

impl Admin {
    /// All groups of the cluster, by name.
    ///
    /// # Errors
    /// Where a broker does not answer: its groups would be missing.
    pub async fn list_groups(&self) -> Result<Vec<GroupListing>, Error> {
        let limit = self.client.config().request_timeout;
        let mut groups = BTreeMap::new();
        let brokers = self.describe_cluster().await?.brokers;
        for broker in brokers.into_iter().filter(|broker| !broker.is_fenced).map(|broker| broker.info) {
            let request = ListGroupsRequest::default();
            let ask = || async {
                let (address, response) = self.client.ask(broker.id, &request, limit).await?;
                let about = format!("broker {}", broker.id);
                check::<ListGroupsRequest>(&address, &about, response.error_code, None)?;
                Ok(response)
            };
            for group in self.client.retry(self.client.deadline(), ask).await?.groups {
                let listing = GroupListing {
                    id: group.group_id.to_string(),
                    protocol_type: group.protocol_type.to_string(),
                    state: group.group_state.to_string(),
                    kind: group.group_type.to_string(),
                };
                groups.insert(listing.id.clone(), listing);
            }
        }
        Ok(groups.into_values().collect())
    }

    /// A group and its members, classic or of KIP-848.
    ///
    /// # Errors
    /// GROUP_ID_NOT_FOUND where there is none of this name, or what its coordinator says.
    pub async fn describe_group(&self, group: &str) -> Result<GroupDescription, Error> {
        self.client.retry(self.client.deadline(), || self.describe_group_once(group)).await
    }

    async fn describe_group_once(&self, group: &str) -> Result<GroupDescription, Error> {
        let broker = coordinator::find(&self.client, group).await?;
        let request = DescribeGroupsRequest::default().with_groups(vec![group_id(group)]);
        let limit = self.client.config().request_timeout;
        let (address, response) = self.client.ask(broker, &request, limit).await?;
        let answer = response.groups.iter().find(|answer| **answer.group_id == *group);
        let answer = answer.ok_or_else(|| silent::<DescribeGroupsRequest>(&address, group))?;
        let message = answer.error_message.as_ref().map(|message| message.to_string());
        let checked = check::<DescribeGroupsRequest>(&address, group, answer.error_code, message);
        // Before version 6 a group that does not exist is a dead one.
        let missing = checked.as_ref().is_err_and(|error| is(error, GROUP_ID_NOT_FOUND))
            || (checked.is_ok() && &*answer.group_state == "Dead");
        if missing {
            return match self.describe_consumer_group(broker, group).await {
                // A broker without KIP-848: there is no other kind of group.
                Err(Error::Version { .. }) => {
                    check::<DescribeGroupsRequest>(&address, group, GROUP_ID_NOT_FOUND, None)?;
                    checked.map(|()| described(group, broker, answer))
                }
                other => other,
            };
        }
        checked.map(|()| described(group, broker, answer))
    }

    async fn describe_consumer_group(&self, broker: i32, group: &str) -> Result<GroupDescription, Error> {
        let request = ConsumerGroupDescribeRequest::default().with_group_ids(vec![group_id(group)]);
        let limit = self.client.config().request_timeout;
        let (address, response) = self.client.ask(broker, &request, limit).await?;
        let answer = response.groups.iter().find(|answer| **answer.group_id == *group);
        let answer = answer.ok_or_else(|| silent::<ConsumerGroupDescribeRequest>(&address, group))?;
        let message = answer.error_message.as_ref().map(|message| message.to_string());
        check::<ConsumerGroupDescribeRequest>(&address, group, answer.error_code, message)?;
        let mut members: Vec<GroupMember> = answer.members.iter().map(consumer_member).collect();
        members.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(GroupDescription {
            id: group.to_owned(),
            state: answer.group_state.to_string(),
            protocol_type: "consumer".to_owned(),
            assignor: answer.assignor_name.to_string(),
            coordinator: broker,
            members,
        })
    }

    /// Deletes a group with its offsets. It must have no members.
    ///
    /// # Errors
    /// NON_EMPTY_GROUP, GROUP_ID_NOT_FOUND, or what else its coordinator says.
    pub async fn delete_group(&self, group: &str) -> Result<(), Error> {
        let request = DeleteGroupsRequest::default().with_groups_names(vec![group_id(group)]);
        let mut attempts = Attempts::new(&self.client);
        loop {
            let result = self.ask_coordinator(group, &request).await.and_then(|(address, response)| {
                let answer = response.results.iter().find(|answer| **answer.group_id == *group);
                let answer = answer.ok_or_else(|| silent::<DeleteGroupsRequest>(&address, group))?;
                check::<DeleteGroupsRequest>(&address, &about(group), answer.error_code, None)
            });
            match result {
                Ok(()) => return Ok(()),
                Err(error) if attempts.maybe_done && is(&error, GROUP_ID_NOT_FOUND) => return Ok(()),
                Err(error) => attempts.wait_after(error).await?,
            }
        }
    }

    /// What a group has committed, for these partitions or (`None`) for all that it has ever read.
    ///
    /// # Errors
    /// What the coordinator says.
    pub async fn list_group_offsets(
        &self,
        group: &str,
        partitions: Option<&[TopicPartition]>,
    ) -> Result<BTreeMap<TopicPartition, CommittedOffset>, Error> {
        self.client
            .retry(self.client.deadline(), || async {
                let broker = coordinator::find(&self.client, group).await?;
                commit::fetch_committed(&self.client, None, broker, group, partitions, false).await
            })
            .await
    }

    /// Commits offsets for a group that has no members; the group is made where it does not exist. Each partition has its
    /// own answer.
    ///
    /// # Errors
    /// UNKNOWN_MEMBER_ID where the group has members, or what else its coordinator says of the whole.
    pub async fn alter_group_offsets(
        &self,
        group: &str,
        offsets: &BTreeMap<TopicPartition, CommittedOffset>,
    ) -> Result<BTreeMap<TopicPartition, Result<(), Error>>, Error> {
        let request = commit::commit_request(group, offsets);
        let mut attempts = Attempts::new(&self.client);
        loop {
            let result = self.ask_coordinator(group, &request).await.map(|(address, response)| {
                let mut answers = BTreeMap::new();
                for topic in &response.topics {
                    let name: Arc<str> = Arc::from(&**topic.name);
                    for told in &topic.partitions {
                        let partition =
                            TopicPartition { topic: name.clone(), partition: told.partition_index };
                        let about = format!("{partition} of group {group}");
                        let answer = check::<OffsetCommitRequest>(&address, &about, told.error_code, None);
                        answers.insert(partition, answer);
                    }
                }
                answers
            });
            // Committing twice does no harm: as long as one of them may pass, all are tried again.
            let passing = |answers: &BTreeMap<_, Result<(), Error>>| {
                answers
                    .values()
                    .find_map(|answer| answer.as_ref().err().filter(|error| error.is_retriable()).cloned())
            };
            match result {
                Ok(answers) => match passing(&answers) {
                    None => return Ok(answers),
                    Some(error) => {
                        if attempts.wait_after(error).await.is_err() {
                            return Ok(answers);
                        }
                    }
                },
                Err(error) => attempts.wait_after(error).await?,
            }
        }
    }

    /// Forgets what a group has committed for these partitions. Each partition has its own answer.
    ///
    /// # Errors
    /// GROUP_ID_NOT_FOUND, or what else the coordinator says of the whole. A partition whose topic the group is reading
    /// answers GROUP_SUBSCRIBED_TO_TOPIC.
    pub async fn delete_group_offsets(
        &self,
        group: &str,
        partitions: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, Result<(), Error>>, Error> {
        let mut topics: BTreeMap<&Arc<str>, Vec<OffsetDeleteRequestPartition>> = BTreeMap::new();
        for partition in partitions {
            let one = OffsetDeleteRequestPartition::default().with_partition_index(partition.partition);
            topics.entry(&partition.topic).or_default().push(one);
        }
        let topics = topics.into_iter().map(|(topic, partitions)| {
            let name = StrBytes::from_string(topic.to_string()).into();
            OffsetDeleteRequestTopic::default().with_name(name).with_partitions(partitions)
        });
        let request =
            OffsetDeleteRequest::default().with_group_id(group_id(group)).with_topics(topics.collect());
        let mut attempts = Attempts::new(&self.client);
        loop {
            let result = self.ask_coordinator(group, &request).await.and_then(|(address, response)| {
                check::<OffsetDeleteRequest>(&address, &about(group), response.error_code, None)?;
                let mut answers = BTreeMap::new();
                for topic in &response.topics {
                    let name: Arc<str> = Arc::from(&**topic.name);
                    for told in &topic.partitions {
                        let partition =
                            TopicPartition { topic: name.clone(), partition: told.partition_index };
                        let about = format!("{partition} of group {group}");
                        let answer = check::<OffsetDeleteRequest>(&address, &about, told.error_code, None);
                        answers.insert(partition, answer);
                    }
                }
                Ok(answers)
            });
            match result {
                Ok(answers) => return Ok(answers),
                Err(error) => attempts.wait_after(error).await?,
            }
        }
    }

    async fn ask_coordinator<R: Call>(
        &self,
        group: &str,
        request: &R,
    ) -> Result<(Arc<str>, R::Response), Error> {
        let broker = coordinator::find(&self.client, group).await?;
        self.client.ask(broker, request, self.client.config().request_timeout).await
    }
}

fn group_id(group: &str) -> GroupId {
    StrBytes::from_string(group.to_owned()).into()
}

fn about(group: &str) -> String {
    format!("group {group}")
}

fn described(group: &str, coordinator: i32, answer: &DescribedGroup) -> GroupDescription {
    let mut members: Vec<GroupMember> = answer.members.iter().map(classic_member).collect();
    members.sort_by(|a, b| a.id.cmp(&b.id));
    GroupDescription {
        id: group.to_owned(),
        state: answer.group_state.to_string(),
        protocol_type: answer.protocol_type.to_string(),
        assignor: answer.protocol_data.to_string(),
        coordinator,
        members,
    }
}

fn classic_member(told: &DescribedGroupMember) -> GroupMember {
    // Members that are no consumers put there what they like.
    let assignment = Assignment::decode(told.member_assignment.clone()).unwrap_or_default();
    let partitions = assignment.partitions.into_iter().flat_map(|(topic, partitions)| {
        let topic: Arc<str> = Arc::from(topic);
        partitions.into_iter().map(move |partition| TopicPartition { topic: topic.clone(), partition })
    });
    GroupMember {
        id: told.member_id.to_string(),
        instance: told.group_instance_id.as_ref().map(|instance| instance.to_string()),
        client_id: told.client_id.to_string(),
        host: told.client_host.to_string(),
        partitions: partitions.collect(),
    }
}

fn consumer_member(told: &consumer_group_describe_response::Member) -> GroupMember {
    let partitions = told.assignment.topic_partitions.iter().flat_map(|topic| {
        let name: Arc<str> = Arc::from(&**topic.topic_name);
        topic.partitions.iter().map(move |&partition| TopicPartition { topic: name.clone(), partition })
    });
    GroupMember {
        id: told.member_id.to_string(),
        instance: told.instance_id.as_ref().map(|instance| instance.to_string()),
        client_id: told.client_id.to_string(),
        host: told.client_host.to_string(),
        partitions: partitions.collect(),
    }
}

impl KafkaError {
    /// Whether it says that a group does not exist.
    pub fn is_group_not_found(self) -> bool {
        self.code() == GROUP_ID_NOT_FOUND
    }
}
