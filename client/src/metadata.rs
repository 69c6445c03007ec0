//! What a client knows about a cluster: brokers, and the topics that it was asked about.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uuid::Uuid;
use weir_runtime::time::Instant;
use weir_wire::kafka::messages::MetadataResponse;
use weir_wire::kafka::messages::metadata_response::{MetadataResponsePartition, MetadataResponseTopic};

use crate::TopicPartition;
use crate::error::KafkaError;

/// A broker, as the cluster advertises it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerInfo {
    /// Its id.
    pub id: i32,
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: i32,
    /// Its rack, if it names one.
    pub rack: Option<String>,
}

impl BrokerInfo {
    /// `host:port`, with brackets around an IPv6 address.
    pub fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// A partition, as the cluster describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionInfo {
    /// Its number.
    pub partition: i32,
    /// The leader's broker id, if there is a leader.
    pub leader: Option<i32>,
    /// The leader's epoch; -1 where the broker does not tell.
    pub leader_epoch: i32,
    /// The brokers that hold it.
    pub replicas: Vec<i32>,
    /// Those that are in sync.
    pub isr: Vec<i32>,
    /// Those that are not in sync and may lead all the same: they hold every acknowledged record (KIP-966). `None` where the
    /// broker does not tell.
    pub elr: Option<Vec<i32>>,
    /// Those whose brokers do not serve.
    pub offline: Vec<i32>,
    /// What is wrong with it, if anything.
    pub error: Option<KafkaError>,
}

/// A topic in the cache.
#[derive(Clone, Debug)]
pub(crate) struct Topic {
    pub(crate) id: Uuid,
    pub(crate) partitions: BTreeMap<i32, PartitionInfo>,
    /// Why there is nothing more to tell.
    pub(crate) error: Option<KafkaError>,
    pub(crate) fetched_at: Instant,
}

/// Whom a broker names as a partition's leader in place of itself (KIP-951).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hint {
    pub(crate) leader: i32,
    pub(crate) epoch: i32,
    /// Where it is, if that was told too.
    pub(crate) at: Option<BrokerInfo>,
}

/// The cache. Pure: the client fills it.
#[derive(Debug, Default)]
pub(crate) struct Metadata {
    pub(crate) cluster_id: Option<String>,
    pub(crate) controller: Option<i32>,
    pub(crate) brokers: BTreeMap<i32, BrokerInfo>,
    pub(crate) topics: BTreeMap<Arc<str>, Arc<Topic>>,
    /// Topics about which a broker has said something else since they were fetched.
    stale: BTreeSet<Arc<str>>,
}

impl Metadata {
    pub(crate) fn mark_stale(&mut self, topic: &Arc<str>) {
        self.stale.insert(topic.clone());
    }

    /// The topic, if what is known is neither contradicted nor older than `age_max`, nor an error.
    pub(crate) fn fresh(&self, topic: &str, oldest: Instant) -> Option<&Arc<Topic>> {
        let known = self.topics.get(topic)?;
        (known.error.is_none() && known.fetched_at >= oldest && !self.stale.contains(topic)).then_some(known)
    }

    pub(crate) fn stale(&self) -> impl Iterator<Item = &Arc<str>> {
        self.stale.iter()
    }

    /// Takes in a hint. It counts if it is of a later epoch than what is known, so that no two brokers can send a client to
    /// and fro, and if the leader's address is known.
    pub(crate) fn take_hint(&mut self, partition: &TopicPartition, hint: Hint) -> bool {
        let Hint { leader, epoch, at } = hint;
        let is_found = self.brokers.contains_key(&leader) || at.is_some();
        let Some(topic) = self.topics.get_mut(&partition.topic).filter(|_| is_found && leader >= 0) else {
            return false;
        };
        let is_news =
            topic.partitions.get(&partition.partition).is_some_and(|info| info.leader_epoch < epoch);
        if !is_news {
            return false;
        }
        if let Some(info) = Arc::make_mut(topic).partitions.get_mut(&partition.partition) {
            info.leader = Some(leader);
            info.leader_epoch = epoch;
        }
        if let Some(at) = at {
            self.brokers.insert(leader, at);
        }
        true
    }

    /// Takes in an answer to a question about `asked`.
    pub(crate) fn merge(&mut self, asked: &BTreeSet<Arc<str>>, response: &MetadataResponse, now: Instant) {
        self.cluster_id = response.cluster_id.as_ref().map(|id| id.to_string());
        self.controller = (response.controller_id.0 >= 0).then_some(response.controller_id.0);
        self.brokers = brokers(response);
        for topic in &response.topics {
            let Some(name) = topic.name.as_ref().and_then(|name| asked.get(&***name)) else { continue };
            let known = self.topics.get(name).map(|known| &**known);
            let fetched = Arc::new(Topic::from_response(topic, known, now));
            self.stale.remove(name);
            self.topics.insert(name.clone(), fetched);
        }
    }
}

pub(crate) fn brokers(response: &MetadataResponse) -> BTreeMap<i32, BrokerInfo> {
    let info = |broker: &weir_wire::kafka::messages::metadata_response::MetadataResponseBroker| BrokerInfo {
        id: broker.node_id.0,
        host: broker.host.to_string(),
        port: broker.port,
        rack: broker.rack.as_ref().map(|rack| rack.to_string()),
    };
    response.brokers.iter().map(|broker| (broker.node_id.0, info(broker))).collect()
}

pub(crate) fn partition_info(partition: &MetadataResponsePartition) -> PartitionInfo {
    PartitionInfo {
        partition: partition.partition_index,
        leader: (partition.leader_id.0 >= 0).then_some(partition.leader_id.0),
        leader_epoch: partition.leader_epoch,
        replicas: partition.replica_nodes.iter().map(|id| id.0).collect(),
        isr: partition.isr_nodes.iter().map(|id| id.0).collect(),
        elr: None,
        offline: partition.offline_replicas.iter().map(|id| id.0).collect(),
        error: KafkaError::from_code(partition.error_code),
    }
}

impl Topic {
    /// A broker that lags may name a leader of an epoch that is over: for the same topic id the larger epoch stays.
    fn from_response(topic: &MetadataResponseTopic, known: Option<&Topic>, now: Instant) -> Self {
        let known = known.filter(|known| known.id == topic.topic_id);
        let partitions = topic.partitions.iter().map(|partition| {
            let fetched = partition_info(partition);
            let held = known.and_then(|known| known.partitions.get(&fetched.partition));
            let newer = held.filter(|held| held.leader_epoch > fetched.leader_epoch).cloned();
            (fetched.partition, newer.unwrap_or(fetched))
        });
        Self {
            id: topic.topic_id,
            partitions: partitions.collect(),
            error: KafkaError::from_code(topic.error_code),
            fetched_at: now,
        }
    }
}

#[cfg(test)]
mod tests {
    use weir_wire::kafka::StrBytes;

    use super::*;

    fn response(id: u128, leader: i32, epoch: i32) -> MetadataResponse {
        let partition = MetadataResponsePartition::default()
            .with_partition_index(0)
            .with_leader_id(leader.into())
            .with_leader_epoch(epoch);
        let name = StrBytes::from_static_str("t").into();
        let topic = MetadataResponseTopic::default()
            .with_name(Some(name))
            .with_topic_id(Uuid::from_u128(id))
            .with_partitions(vec![partition]);
        MetadataResponse::default().with_topics(vec![topic])
    }

    fn leader(metadata: &Metadata) -> Option<i32> {
        metadata.fresh("t", Instant::ORIGIN)?.partitions.get(&0)?.leader
    }

    #[test]
    fn a_broker_that_lags_does_not_bring_an_old_leader_back() {
        let asked = BTreeSet::from([Arc::from("t")]);
        let mut metadata = Metadata::default();
        metadata.merge(&asked, &response(1, 5, 3), Instant::ORIGIN);
        metadata.merge(&asked, &response(1, 4, 2), Instant::ORIGIN);
        assert_eq!(leader(&metadata), Some(5));
        metadata.merge(&asked, &response(2, 4, 0), Instant::ORIGIN);
        assert_eq!(leader(&metadata), Some(4), "a new topic of that name starts its epochs afresh");
    }

    #[test]
    fn a_topic_that_was_contradicted_is_not_fresh_until_it_is_fetched_again() {
        let (topic, asked) = (Arc::from("t"), BTreeSet::from([Arc::from("t")]));
        let mut metadata = Metadata::default();
        metadata.merge(&asked, &response(1, 5, 3), Instant::ORIGIN);
        metadata.mark_stale(&topic);
        assert_eq!(leader(&metadata), None);
        metadata.merge(&asked, &response(1, 6, 4), Instant::ORIGIN);
        assert_eq!(leader(&metadata), Some(6));
    }

    #[test]
    fn a_hint_counts_if_it_is_news_and_says_where_the_leader_is() {
        let at = |id: i32| BrokerInfo { id, host: "h".to_owned(), port: 9092, rack: None };
        let hint = |leader: i32, epoch: i32| Hint { leader, epoch, at: Some(at(leader)) };
        let partition = TopicPartition::new("t", 0);
        let mut metadata = Metadata::default();
        assert!(!metadata.take_hint(&partition, hint(6, 4)), "nothing is known about the topic");
        metadata.merge(&BTreeSet::from([Arc::from("t")]), &response(1, 5, 3), Instant::ORIGIN);
        assert!(!metadata.take_hint(&partition, hint(6, 3)), "an epoch has one leader");
        assert!(!metadata.take_hint(&partition, Hint { leader: 6, epoch: 4, at: None }), "where?");
        assert!(!metadata.take_hint(&partition, hint(-1, 4)), "nobody");
        assert_eq!(leader(&metadata), Some(5));
        assert!(metadata.take_hint(&partition, hint(6, 4)));
        assert_eq!((leader(&metadata), metadata.brokers.get(&6)), (Some(6), Some(&at(6))));
        assert!(metadata.take_hint(&partition, Hint { leader: 6, epoch: 5, at: None }), "known by now");
    }

    #[test]
    fn an_ipv6_address_gets_its_brackets() {
        let broker = |host: &str| BrokerInfo { id: 0, host: host.into(), port: 9092, rack: None }.address();
        assert_eq!(broker("::1"), "[::1]:9092");
        assert_eq!(broker("10.0.0.1"), "10.0.0.1:9092");
    }
}
