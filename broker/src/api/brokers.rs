//! The brokers and the partitions as clients are told of them.

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::BrokerId as KafkaBrokerId;
use kafka_protocol::protocol::StrBytes;
use weir_protocol::metadata::{self, Image, PartitionState, Topic};
use weir_protocol::types::{BrokerId, TopicId};
use weir_wire::kafka::{LeaderHint, NodeEndpoint};

/// The listener that only the cluster's own nodes use: no client is ever told of it.
pub(crate) const INTERNAL_LISTENER: &str = "INTERNAL";

/// A broker as clients see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) id: i32,
    pub(super) host: StrBytes,
    pub(super) port: i32,
    pub(super) rack: Option<StrBytes>,
    pub(super) fenced: bool,
}

/// The brokers of an image, for one client.
#[derive(Debug, Clone)]
pub(super) struct Brokers<'a> {
    image: &'a Image,
    me: BrokerId,
    /// Where the client is told that this broker is.
    here: (StrBytes, i32),
}

impl<'a> Brokers<'a> {
    pub(super) fn new(image: &'a Image, me: BrokerId, here: (StrBytes, i32)) -> Brokers<'a> {
        Brokers { image, me, here }
    }

    /// All that serve, in the order of their ids, or those that are fenced too.
    pub(super) fn all(&self, fenced_too: bool) -> impl Iterator<Item = Shown> + '_ {
        let shown = self.image.brokers().filter(move |(_, broker)| fenced_too || !broker.fenced);
        shown.filter_map(|(id, broker)| self.show(id, broker))
    }

    /// One that serves.
    pub(super) fn serving(&self, id: BrokerId) -> Option<Shown> {
        let broker = self.image.broker(id).filter(|broker| !broker.fenced)?;
        self.show(id, broker)
    }

    fn show(&self, id: BrokerId, broker: &metadata::Broker) -> Option<Shown> {
        let (host, port) = if id == self.me {
            self.here.clone()
        } else {
            // What has no listener for clients is no broker to them.
            let endpoint = broker.endpoints.iter().find(|endpoint| endpoint.listener != INTERNAL_LISTENER)?;
            (StrBytes::from_string(endpoint.host.clone()), i32::from(endpoint.port))
        };
        let rack = broker.rack.clone().map(StrBytes::from_string);
        Some(Shown { id: id.0, host, port, rack, fenced: broker.fenced })
    }

    /// A live broker that takes the administration's requests, always (K5): this one, or the first that lives. Each of
    /// them hands on what the quorum's leader must decide, so that no client depends on knowing who that is.
    pub(super) fn controller(&self) -> KafkaBrokerId {
        let mut live = self.image.live_brokers().map(|(id, _)| id);
        let first = live.next();
        let me_lives = first == Some(self.me) || live.any(|id| id == self.me);
        KafkaBrokerId(if me_lives { self.me.0 } else { first.unwrap_or(self.me).0 })
    }
}

/// What a refusal tells about who leads instead (KIP-951): a client that is told goes there at once.
#[derive(Debug)]
pub(super) struct Hints<'a> {
    brokers: Brokers<'a>,
    /// The leaders that were named.
    endpoints: BTreeMap<i32, NodeEndpoint>,
}

impl<'a> Hints<'a> {
    pub(super) fn new(brokers: Brokers<'a>) -> Hints<'a> {
        Hints { brokers, endpoints: BTreeMap::new() }
    }

    /// The leader of a partition, named by its topic's id, or by name where there is no id. `None` if the error is about
    /// something else, or nobody leads who serves.
    pub(super) fn leader(
        &mut self,
        error: ResponseError,
        id: TopicId,
        name: &str,
        partition: i32,
    ) -> Option<LeaderHint> {
        if !matches!(error, ResponseError::NotLeaderOrFollower | ResponseError::FencedLeaderEpoch) {
            return None;
        }
        let image = self.brokers.image;
        let topic: &Topic = if id.is_zero() { image.topic_named(name)? } else { image.topic(id)? };
        let state = topic.partition(partition)?;
        let leader = self.brokers.serving(state.leader?)?;
        let hint = LeaderHint { leader_id: leader.id, leader_epoch: state.leader_epoch };
        let Shown { id: node_id, host, port, rack, .. } = leader;
        self.endpoints.entry(node_id).or_insert(NodeEndpoint { node_id, host, port, rack });
        Some(hint)
    }

    /// Where the leaders are that were named, each once.
    pub(super) fn into_endpoints(self) -> Vec<NodeEndpoint> {
        self.endpoints.into_values().collect()
    }
}

/// Ids as the protocol has them.
pub(super) fn ids(brokers: &[BrokerId]) -> Vec<KafkaBrokerId> {
    brokers.iter().map(|id| KafkaBrokerId(id.0)).collect()
}

/// The leader, or -1.
pub(super) fn leader_id(state: &PartitionState) -> KafkaBrokerId {
    KafkaBrokerId(state.leader.map_or(-1, |leader| leader.0))
}

/// Replicas whose brokers do not serve.
pub(super) fn offline(image: &Image, state: &PartitionState) -> Vec<KafkaBrokerId> {
    let is_offline = |id: &&BrokerId| image.broker(**id).is_none_or(|broker| broker.fenced);
    state.replicas.iter().filter(is_offline).map(|id| KafkaBrokerId(id.0)).collect()
}

/// 0, or that nobody leads.
pub(super) fn partition_error(state: &PartitionState) -> i16 {
    match state.leader {
        Some(_) => 0,
        None => ResponseError::LeaderNotAvailable.code(),
    }
}

#[cfg(test)]
#[path = "brokers_tests.rs"]
pub(super) mod tests;
