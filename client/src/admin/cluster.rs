//! The cluster as a whole: its brokers, its quorum, and who leads what.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;
use weir_wire::kafka::StrBytes;
use weir_wire::kafka::messages::describe_quorum_request::{PartitionData, TopicData};
use weir_wire::kafka::messages::describe_quorum_response::ReplicaState;
use weir_wire::kafka::messages::elect_leaders_request::TopicPartitions;
use weir_wire::kafka::messages::{
    AddRaftVoterRequest, DescribeClusterRequest, DescribeClusterResponse, DescribeQuorumRequest,
    DescribeQuorumResponse, ElectLeadersRequest, ElectLeadersResponse, MetadataRequest,
    RemoveRaftVoterRequest, UnregisterBrokerRequest,
};

use super::{Admin, Attempts, TopicDescription, check, is, silent};
use crate::TopicPartition;
use crate::error::Error;
use crate::metadata::{self, BrokerInfo};

/// The topic whose partition 0 is the quorum's log (KIP-595).
const METADATA_TOPIC: &str = "__cluster_metadata";

const DUPLICATE_VOTER: i16 = 126;
const VOTER_NOT_FOUND: i16 = 127;
const BROKER_ID_NOT_REGISTERED: i16 = 102;

/// The cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterDescription {
    /// Its id.
    pub id: String,
    /// The broker to which administration goes, if one is named.
    pub controller: Option<i32>,
    /// Its brokers, in the order of their ids.
    pub brokers: Vec<BrokerDescription>,
}

/// A broker of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerDescription {
    /// Who and where it is.
    pub info: BrokerInfo,
    /// It is registered and does not serve: it is stopped, or cannot be reached. Brokers that do not know KIP-1073 name
    /// only those that serve.
    pub is_fenced: bool,
}

/// The metadata quorum (KIP-595).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuorumDescription {
    /// The node that leads it: the controller.
    pub leader: i32,
    /// Counts the leaders.
    pub epoch: i32,
    /// Everything below is committed.
    pub high_watermark: i64,
    /// Who votes, in the order of their ids.
    pub voters: Vec<QuorumMember>,
    /// Who only follows, in the order of their ids.
    pub observers: Vec<QuorumMember>,
}

/// A node that follows the quorum's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuorumMember {
    /// The node.
    pub id: i32,
    /// Its data folder (KIP-853); `None` where the cluster does not tell.
    pub directory: Option<Uuid>,
    /// Where its log ends; `None`: the leader does not know.
    pub log_end: Option<i64>,
    /// When the leader last heard it, by the leader's clock, in ms since 1970.
    pub heard_ms: Option<i64>,
    /// When it last had everything, likewise.
    pub caught_up_ms: Option<i64>,
}

/// Which leader an election is to bring (KIP-460).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Election {
    /// The first replica, if it is in sync.
    Preferred,
    /// Where nobody may lead: somebody, even if acknowledged records are lost.
    Unclean,
}

/// What came of elections, by partition.
pub type Elected = BTreeMap<TopicPartition, Result<(), Error>>;

impl Admin {
    /// The cluster and its brokers. A broker that does not know DescribeCluster (KIP-700) is asked for its metadata.
    ///
    /// # Errors
    /// Where no broker answers in time.
    pub async fn describe_cluster(&self) -> Result<ClusterDescription, Error> {
        let with_fenced = DescribeClusterRequest::default().with_include_fenced_brokers(true);
        let asked = match self.ask_any(&with_fenced).await {
            // It is too old for the question about fenced brokers.
            Err(Error::Invalid(_)) => self.ask_any(&DescribeClusterRequest::default()).await,
            asked => asked,
        };
        let (address, response) = match asked {
            Err(Error::Version { .. }) => return self.describe_cluster_by_metadata().await,
            asked => asked?,
        };
        let message = response.error_message.as_ref().map(|message| message.to_string());
        check::<DescribeClusterRequest>(&address, "the cluster", response.error_code, message)?;
        Ok(described(&response))
    }

    async fn describe_cluster_by_metadata(&self) -> Result<ClusterDescription, Error> {
        let request = MetadataRequest::default().with_topics(Some(Vec::new()));
        let (_, response) = self.client.ask_any(&request).await?;
        let serving = |info| BrokerDescription { info, is_fenced: false };
        Ok(ClusterDescription {
            id: response.cluster_id.as_ref().map(|id| id.to_string()).unwrap_or_default(),
            controller: (response.controller_id.0 >= 0).then_some(response.controller_id.0),
            brokers: metadata::brokers(&response).into_values().map(serving).collect(),
        })
    }

    pub(super) async fn ask_any<R: crate::call::Call>(
        &self,
        request: &R,
    ) -> Result<(Arc<str>, R::Response), Error> {
        self.client.retry(self.client.deadline(), || self.client.ask_any(request)).await
    }

    /// All topics with their partitions, by name, as one broker knows them. Eligible leader replicas are not among it.
    ///
    /// # Errors
    /// Where no broker answers in time.
    pub async fn describe_topics(&self) -> Result<Vec<TopicDescription>, Error> {
        let response = self.client.retry(self.client.deadline(), || self.client.all_metadata()).await?;
        let mut topics: Vec<TopicDescription> = response.topics.iter().map(TopicDescription::of).collect();
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(topics)
    }

    /// The metadata quorum.
    ///
    /// # Errors
    /// Where nobody knows who leads it.
    pub async fn describe_quorum(&self) -> Result<QuorumDescription, Error> {
        let topic = TopicData::default()
            .with_topic_name(StrBytes::from_static_str(METADATA_TOPIC).into())
            .with_partitions(vec![PartitionData::default().with_partition_index(0)]);
        let request = DescribeQuorumRequest::default().with_topics(vec![topic]);
        let deadline = self.client.deadline();
        self.client
            .retry(deadline, || async {
                let (address, response) = self.client.ask_any(&request).await?;
                quorum(&address, &response)
            })
            .await
    }

    /// A node votes on the metadata from now on (KIP-853). It must follow the quorum's log already.
    ///
    /// # Errors
    /// What the quorum's leader says, such as DUPLICATE_VOTER.
    pub async fn add_voter(&self, id: i32, directory: Uuid) -> Result<(), Error> {
        let request = AddRaftVoterRequest::default()
            .with_cluster_id(None)
            .with_voter_id(id)
            .with_voter_directory_id(directory)
            .with_timeout_ms(self.timeout_ms());
        let about = format!("node {id}");
        let mut attempts = Attempts::new(&self.client);
        loop {
            let result = self.client.ask_controller(&request).await.and_then(|(address, response)| {
                let message = response.error_message.as_ref().map(|message| message.to_string());
                check::<AddRaftVoterRequest>(&address, &about, response.error_code, message)
            });
            match result {
                Err(error) if attempts.maybe_done && is(&error, DUPLICATE_VOTER) => return Ok(()),
                Err(error) => attempts.wait_after(error).await?,
                Ok(()) => return Ok(()),
            }
        }
    }

    /// A node votes no longer.
    ///
    /// # Errors
    /// What the quorum's leader says, such as VOTER_NOT_FOUND.
    pub async fn remove_voter(&self, id: i32, directory: Uuid) -> Result<(), Error> {
        let request = RemoveRaftVoterRequest::default()
            .with_cluster_id(None)
            .with_voter_id(id)
            .with_voter_directory_id(directory);
        let about = format!("node {id}");
        let mut attempts = Attempts::new(&self.client);
        loop {
            let result = self.client.ask_controller(&request).await.and_then(|(address, response)| {
                let message = response.error_message.as_ref().map(|message| message.to_string());
                check::<RemoveRaftVoterRequest>(&address, &about, response.error_code, message)
            });
            match result {
                Err(error) if attempts.maybe_done && is(&error, VOTER_NOT_FOUND) => return Ok(()),
                Err(error) => attempts.wait_after(error).await?,
                Ok(()) => return Ok(()),
            }
        }
    }

    /// Forgets a broker that does not come back.
    ///
    /// # Errors
    /// What the controller says; a broker that serves or holds replicas is not forgotten.
    pub async fn unregister_broker(&self, id: i32) -> Result<(), Error> {
        let request = UnregisterBrokerRequest::default().with_broker_id(id.into());
        let about = format!("broker {id}");
        let mut attempts = Attempts::new(&self.client);
        loop {
            let result = self.client.ask_controller(&request).await.and_then(|(address, response)| {
                let message = response.error_message.as_ref().map(|message| message.to_string());
                check::<UnregisterBrokerRequest>(&address, &about, response.error_code, message)
            });
            match result {
                Err(error) if attempts.maybe_done && is(&error, BROKER_ID_NOT_REGISTERED) => return Ok(()),
                Err(error) => attempts.wait_after(error).await?,
                Ok(()) => return Ok(()),
            }
        }
    }

    /// Elects leaders of these partitions, or of all where `None` is given: then those that need none are left out. Each
    /// partition has its own outcome, such as ELECTION_NOT_NEEDED.
    ///
    /// # Errors
    /// Of the request as a whole.
    pub async fn elect_leaders(
        &self,
        election: Election,
        partitions: Option<&[TopicPartition]>,
    ) -> Result<Elected, Error> {
        let named = partitions.map(|partitions| {
            let mut topics: BTreeMap<&Arc<str>, Vec<i32>> = BTreeMap::new();
            for partition in partitions {
                topics.entry(&partition.topic).or_default().push(partition.partition);
            }
            let topic = |(topic, partitions): (&Arc<str>, Vec<i32>)| {
                let name = StrBytes::from_string(topic.to_string()).into();
                TopicPartitions::default().with_topic(name).with_partitions(partitions)
            };
            topics.into_iter().map(topic).collect()
        });
        let request = ElectLeadersRequest::default()
            .with_election_type(match election {
                Election::Preferred => 0,
                Election::Unclean => 1,
            })
            .with_topic_partitions(named)
            .with_timeout_ms(self.timeout_ms());
        // Asked twice it does no harm: what has its leader by then needs no election.
        let deadline = self.client.deadline();
        let asked = self.client.retry(deadline, || self.client.ask_controller(&request)).await;
        let (address, response) = asked?;
        check::<ElectLeadersRequest>(&address, "the cluster", response.error_code, None)?;
        Ok(elected(&address, &response))
    }
}

fn described(response: &DescribeClusterResponse) -> ClusterDescription {
    let mut brokers: Vec<BrokerDescription> = response
        .brokers
        .iter()
        .map(|broker| BrokerDescription {
            info: BrokerInfo {
                id: broker.broker_id.0,
                host: broker.host.to_string(),
                port: broker.port,
                rack: broker.rack.as_ref().map(|rack| rack.to_string()),
            },
            is_fenced: broker.is_fenced,
        })
        .collect();
    brokers.sort_by_key(|broker| broker.info.id);
    let controller = (response.controller_id.0 >= 0).then_some(response.controller_id.0);
    ClusterDescription { id: response.cluster_id.to_string(), controller, brokers }
}

fn quorum(address: &Arc<str>, response: &DescribeQuorumResponse) -> Result<QuorumDescription, Error> {
    let message = response.error_message.as_ref().map(|message| message.to_string());
    check::<DescribeQuorumRequest>(address, "the quorum", response.error_code, message)?;
    let partition = response.topics.iter().flat_map(|topic| &topic.partitions).next();
    let partition = partition.ok_or_else(|| silent::<DescribeQuorumRequest>(address, "the quorum"))?;
    let message = partition.error_message.as_ref().map(|message| message.to_string());
    check::<DescribeQuorumRequest>(address, "the quorum", partition.error_code, message)?;
    let members = |replicas: &[ReplicaState]| {
        let known = |number: i64| (number >= 0).then_some(number);
        let mut members: Vec<QuorumMember> = replicas
            .iter()
            .map(|replica| QuorumMember {
                id: replica.replica_id.0,
                directory: Some(replica.replica_directory_id).filter(|id| !id.is_nil()),
                log_end: known(replica.log_end_offset),
                heard_ms: known(replica.last_fetch_timestamp),
                caught_up_ms: known(replica.last_caught_up_timestamp),
            })
            .collect();
        members.sort_by_key(|member| member.id);
        members
    };
    Ok(QuorumDescription {
        leader: partition.leader_id.0,
        epoch: partition.leader_epoch,
        high_watermark: partition.high_watermark,
        voters: members(&partition.current_voters),
        observers: members(&partition.observers),
    })
}

fn elected(address: &Arc<str>, response: &ElectLeadersResponse) -> Elected {
    let mut elected = Elected::new();
    for topic in &response.replica_election_results {
        let name: Arc<str> = Arc::from(&**topic.topic);
        for result in &topic.partition_result {
            let partition = TopicPartition { topic: name.clone(), partition: result.partition_id };
            let message = result.error_message.as_ref().map(|message| message.to_string());
            let about = partition.to_string();
            let outcome = check::<ElectLeadersRequest>(address, &about, result.error_code, message);
            elected.insert(partition, outcome);
        }
    }
    elected
}
