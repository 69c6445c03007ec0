//! Committed offsets of a group that this consumer is a member of: OffsetCommit, and OffsetFetch for what was assigned.

use std::collections::BTreeMap;
use std::sync::Arc;

use kafka_protocol::error::ResponseError;
use weir_runtime::time::{self, Instant};
use weir_wire::kafka::StrBytes;
use weir_wire::kafka::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use weir_wire::kafka::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use weir_wire::kafka::messages::{OffsetCommitRequest, OffsetFetchRequest, OffsetFetchResponse};

use super::coordinator;
use super::driver::Shared;
use super::membership::Identity;
use crate::TopicPartition;
use crate::call::Call;
use crate::cluster::{Client, Lane};
use crate::error::{Error, KafkaError};

/// An offset that a group has committed, or is to commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The offset that is read next.
    pub offset: i64,
    /// The epoch of the leader that appended the record before it, where it is known (KIP-320).
    pub leader_epoch: Option<i32>,
    /// Whatever the application adds.
    pub metadata: String,
}

impl CommittedOffset {
    /// An offset alone.
    pub fn at(offset: i64) -> Self {
        Self { offset, ..Self::default() }
    }
}

/// What a commit needs of a consumer. It goes on when a poll is dropped.
#[derive(Clone)]
pub(super) struct Committer {
    pub(super) client: Client,
    pub(super) lane: Arc<Lane>,
    pub(super) group: Arc<str>,
    pub(super) instance: Option<Arc<str>>,
    pub(super) shared: Arc<Shared>,
}

/// The right to commit as the member of one generation, whenever that is: the coordinator decides whether the generation
/// still counts.
#[derive(Clone)]
pub struct CommitTicket {
    committer: Committer,
    identity: Identity,
}

impl CommitTicket {
    /// As long as the member is in a generation.
    pub(super) fn new(committer: &Committer) -> Option<Self> {
        let identity = committer.shared.lock().identity.clone();
        let is_member = identity.generation >= 0 && !identity.member_id.is_empty();
        is_member.then(|| Self { committer: committer.clone(), identity })
    }

    /// The generation.
    pub fn generation(&self) -> i32 {
        self.identity.generation
    }

    /// The member's id.
    pub fn member_id(&self) -> &str {
        &self.identity.member_id
    }

    /// Commits these offsets with one request. Whether the member still owns the partitions is not asked.
    ///
    /// # Errors
    /// What the coordinator says, such as ILLEGAL_GENERATION; or that nobody knows, see [`Error::may_have_happened`].
    pub async fn commit(&self, offsets: &BTreeMap<TopicPartition, CommittedOffset>) -> Result<(), Error> {
        self.committer.commit_once(offsets, &self.identity).await
    }
}

impl Committer {
    /// Commits what this member holds; repeats what may pass until the deadline. `losses` is how often the application
    /// knows that it has lost its partitions: once it has lost them again, they are not its to commit.
    pub(super) async fn commit(
        &self,
        offsets: BTreeMap<TopicPartition, CommittedOffset>,
        losses: u64,
        deadline: Instant,
    ) -> Result<(), Error> {
        let backoff = self.client.backoff();
        let mut repetition = 0;
        loop {
            let identity = self.shared.lock().identity.clone();
            if identity.losses != losses || identity.member_id.is_empty() {
                let partition = offsets.keys().next();
                return partition.map_or(Ok(()), |lost| Err(Error::NotOwned { partition: lost.clone() }));
            }
            let error = match self.commit_once(&offsets, &identity).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            repetition += 1;
            let wait = backoff.before(repetition);
            if !may_pass(&error) || time::now() + wait >= deadline {
                return Err(error);
            }
            tracing::debug!(group = %self.group, %error, repetition, "committing again");
            time::sleep(wait).await;
        }
    }

    async fn commit_once(
        &self,
        offsets: &BTreeMap<TopicPartition, CommittedOffset>,
        identity: &Identity,
    ) -> Result<(), Error> {
        let broker = identity.coordinator.ok_or_else(|| self.no_coordinator())?;
        let request = commit_request(&self.group, offsets)
            .with_generation_id_or_member_epoch(identity.generation)
            .with_member_id(identity.member_id.clone())
            .with_group_instance_id(
                self.instance.as_ref().map(|instance| StrBytes::from_string(instance.to_string())),
            );
        let limit = self.client.config().request_timeout;
        let times = (limit, self.client.config().patience);
        let answer = coordinator::ask(&self.lane, &self.client, &self.group, broker, &request, times).await;
        let (address, response) = answer.inspect_err(|error| self.on_unreachable(broker, error))?;
        let mut failed = None;
        for topic in &response.topics {
            for answer in &topic.partitions {
                let Some(error) = KafkaError::from_code(answer.error_code) else { continue };
                let about = format!("{}-{} of group {}", &**topic.name, answer.partition_index, self.group);
                let (address, api) = (address.clone(), OffsetCommitRequest::NAME);
                failed.get_or_insert(Error::Kafka { address, api, about, error, message: None });
                self.on_refused(broker, identity.generation, &address_of(&failed), error);
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// What this group has committed for these partitions; partitions without a commit are missing. Repeats what may pass.
    pub(super) async fn committed(
        &self,
        partitions: Vec<TopicPartition>,
        require_stable: bool,
        deadline: Instant,
    ) -> Result<BTreeMap<TopicPartition, CommittedOffset>, Error> {
        self.client
            .retry(deadline, || async {
                let coordinator = self.shared.lock().identity.coordinator;
                let broker = coordinator.ok_or_else(|| self.no_coordinator())?;
                let asked = fetch_committed(
                    &self.client,
                    Some(&self.lane),
                    broker,
                    &self.group,
                    Some(&partitions),
                    require_stable,
                );
                asked.await.inspect_err(|error| match error.kafka() {
                    Some(kafka) => self.on_refused(broker, -1, &Arc::from(""), kafka),
                    None => self.on_unreachable(broker, error),
                })
            })
            .await
    }

    fn no_coordinator(&self) -> Error {
        Error::NoBroker { tried: format!("the coordinator of group {} is not known", self.group) }
    }

    fn on_unreachable(&self, broker: i32, error: &Error) {
        if error.is_retriable() {
            self.shared.lock().not_coordinator = Some(broker);
            self.shared.wake.notify_one();
        }
    }

    /// Tells the member's task what a refusal means for it.
    fn on_refused(&self, broker: i32, generation: i32, address: &Arc<str>, error: KafkaError) {
        use ResponseError as E;
        match error.kind() {
            E::NotCoordinator | E::CoordinatorNotAvailable => {
                self.shared.lock().not_coordinator = Some(broker)
            }
            E::UnknownMemberId | E::IllegalGeneration | E::FencedInstanceId | E::RebalanceInProgress => {
                let mut shared = self.shared.lock();
                // One of a kind says it all.
                if shared.refused.len() < 16 {
                    shared.refused.push((generation, address.clone(), error));
                }
            }
            _ => return,
        }
        self.shared.wake.notify_one();
    }
}

fn address_of(error: &Option<Error>) -> Arc<str> {
    match error {
        Some(Error::Kafka { address, .. }) => address.clone(),
        _ => Arc::from(""),
    }
}

/// Whether a commit may succeed later: also after the rebalance that is under way, for what was not given away is still
/// held after it.
fn may_pass(error: &Error) -> bool {
    error.is_retriable()
        || error.kafka().is_some_and(|kafka| {
            matches!(kafka.kind(), ResponseError::RebalanceInProgress | ResponseError::IllegalGeneration)
        })
}

/// The request without the member's part: as it is, it is that of an administrator (generation -1, no member).
pub(crate) fn commit_request(
    group: &str,
    offsets: &BTreeMap<TopicPartition, CommittedOffset>,
) -> OffsetCommitRequest {
    let mut topics: BTreeMap<Arc<str>, Vec<OffsetCommitRequestPartition>> = BTreeMap::new();
    for (partition, committed) in offsets {
        let one = OffsetCommitRequestPartition::default()
            .with_partition_index(partition.partition)
            .with_committed_offset(committed.offset)
            .with_committed_leader_epoch(committed.leader_epoch.unwrap_or(-1))
            .with_committed_metadata(Some(StrBytes::from_string(committed.metadata.clone())));
        topics.entry(partition.topic.clone()).or_default().push(one);
    }
    let topics = topics.into_iter().map(|(topic, partitions)| {
        let name = StrBytes::from_string(topic.to_string()).into();
        OffsetCommitRequestTopic::default().with_name(name).with_partitions(partitions)
    });
    OffsetCommitRequest::default()
        .with_group_id(StrBytes::from_string(group.to_owned()).into())
        .with_generation_id_or_member_epoch(-1)
        .with_topics(topics.collect())
}

/// Asks the coordinator, once; `None` asks for all that the group has committed.
pub(crate) async fn fetch_committed(
    client: &Client,
    lane: Option<&Lane>,
    broker: i32,
    group: &str,
    partitions: Option<&[TopicPartition]>,
    require_stable: bool,
) -> Result<BTreeMap<TopicPartition, CommittedOffset>, Error> {
    let topics = partitions.map(|partitions| {
        let mut topics: BTreeMap<&Arc<str>, Vec<i32>> = BTreeMap::new();
        for partition in partitions {
            topics.entry(&partition.topic).or_default().push(partition.partition);
        }
        let named = |(topic, partitions): (&Arc<str>, Vec<i32>)| {
            let name = StrBytes::from_string(topic.to_string()).into();
            OffsetFetchRequestTopics::default().with_name(name).with_partition_indexes(partitions)
        };
        topics.into_iter().map(named).collect()
    });
    let asked = OffsetFetchRequestGroup::default()
        .with_group_id(StrBytes::from_string(group.to_owned()).into())
        .with_topics(topics);
    let request = OffsetFetchRequest::default().with_groups(vec![asked]).with_require_stable(require_stable);
    let limit = client.config().request_timeout;
    let (address, response) = match lane {
        Some(lane) => {
            let times = (limit, client.config().patience);
            coordinator::ask(lane, client, group, broker, &request, times).await?
        }
        None => client.ask(broker, &request, limit).await?,
    };
    committed_in(&address, group, &response)
}

fn committed_in(
    address: &Arc<str>,
    group: &str,
    response: &OffsetFetchResponse,
) -> Result<BTreeMap<TopicPartition, CommittedOffset>, Error> {
    let api = OffsetFetchRequest::NAME;
    let Some(answer) = response.groups.iter().find(|answer| **answer.group_id == *group) else {
        let reason = format!("it says nothing about group {group}");
        return Err(Error::Protocol { address: address.clone(), api, reason });
    };
    coordinator::check::<OffsetFetchRequest>(address, group, answer.error_code)?;
    let mut committed = BTreeMap::new();
    for topic in &answer.topics {
        let name: Arc<str> = Arc::from(&**topic.name);
        for told in &topic.partitions {
            let partition = TopicPartition { topic: name.clone(), partition: told.partition_index };
            if let Some(error) = KafkaError::from_code(told.error_code) {
                let (address, about) = (address.clone(), format!("{partition} of group {group}"));
                return Err(Error::Kafka { address, api, about, error, message: None });
            }
            if told.committed_offset >= 0 {
                let leader_epoch = (told.committed_leader_epoch >= 0).then_some(told.committed_leader_epoch);
                let metadata = told.metadata.as_ref().map(|text| text.to_string()).unwrap_or_default();
                let offset = told.committed_offset;
                committed.insert(partition, CommittedOffset { offset, leader_epoch, metadata });
            }
        }
    }
    Ok(committed)
}
