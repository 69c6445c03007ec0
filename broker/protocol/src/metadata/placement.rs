//! Which brokers a new topic's replicas go to.

use std::collections::BTreeMap;

use thiserror::Error;

use super::{Image, NewPartition, PartitionState};
use crate::types::BrokerId;

/// How many replicas a topic gets that does not ask for a number, where there are that many brokers (contract 3).
pub const REPLICATION_FACTOR_DEFAULT: usize = 3;

/// Why replicas cannot be placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PlacementError {
    /// More replicas than brokers, or none.
    #[error("replication factor {wanted} with {registered} registered brokers")]
    ReplicationFactor {
        /// Asked for.
        wanted: usize,
        /// Brokers that are registered, fenced ones included.
        registered: usize,
    },
    /// Nobody could lead.
    #[error("every broker is fenced or about to go")]
    NobodyServes,
}

/// min(3, brokers): the default replication factor, for internal topics too. Brokers that are away for a while count: a topic
/// that is made just then is as safe as any other.
pub fn default_replication_factor(image: &Image) -> usize {
    image.brokers().count().min(REPLICATION_FACTOR_DEFAULT)
}

/// replicas / 2 + 1: the default of `min.insync.replicas`.
pub fn default_min_insync(replicas: usize) -> usize {
    replicas / 2 + 1
}

/// A broker and its rack.
type Placed<'a> = (BrokerId, Option<&'a str>);

/// Spreads `partitions` over the live brokers: leaders in turn, followers on other racks where there are any. Where these are
/// too few, the others follow once they are back, as in Kafka.
/// `first` turns the order and is drawn at random by the caller, so that small topics do not all start on one broker.
pub fn place(
    image: &Image,
    partitions: usize,
    replication_factor: usize,
    first: u64,
) -> Result<Vec<NewPartition>, PlacementError> {
    let brokers = alternating_racks(image);
    let (live, registered) = (brokers.len(), image.brokers().count());
    if replication_factor == 0 || replication_factor > registered {
        return Err(PlacementError::ReplicationFactor { wanted: replication_factor, registered });
    }
    if live == 0 {
        return Err(PlacementError::NobodyServes);
    }
    let away = image.brokers().filter(|(id, _)| !image.can_lead(*id));
    let away: Vec<Placed<'_>> = away.map(|(id, broker)| (id, broker.rack.as_deref())).collect();
    let turn = (first % live as u64) as usize;
    let place_one = |number: usize| {
        let leader = (turn + number) % live;
        // Each time around, followers stand one further on, so that a broker's load spreads over all when it fails.
        let shift = if live > 1 { (turn + number) / live % (live - 1) } else { 0 };
        let order = (0..live.saturating_sub(1)).map(|step| (leader + 1 + (step + shift) % (live - 1)) % live);
        let mut chosen = vec![brokers[leader]];
        follow(&mut chosen, order.map(|at| brokers[at]), replication_factor);
        let skipped = (turn + number) % away.len().max(1);
        let others = away.iter().cycle().skip(skipped).take(away.len());
        follow(&mut chosen, others.copied(), replication_factor);
        NewPartition { replicas: chosen.into_iter().map(|(id, _)| id).collect() }
    };
    Ok((0..partitions).map(place_one).collect())
}

/// Adds candidates until so many are `chosen`: in their order, those first that are on racks of their own.
fn follow<'a>(chosen: &mut Vec<Placed<'a>>, candidates: impl Iterator<Item = Placed<'a>>, wanted: usize) {
    let mut passed_over = Vec::new();
    for candidate in candidates {
        let rack_is_taken = candidate.1.is_some() && chosen.iter().any(|other| other.1 == candidate.1);
        if rack_is_taken { passed_over.push(candidate) } else { chosen.push(candidate) }
    }
    chosen.append(&mut passed_over);
    chosen.truncate(wanted);
}

/// How many replicas each live broker holds.
pub fn replicas_by_broker(image: &Image) -> BTreeMap<BrokerId, usize> {
    let mut load: BTreeMap<_, _> = image.live_brokers().map(|(id, _)| (id, 0)).collect();
    for partition in image.topics().flat_map(|topic| &topic.partitions) {
        for id in &partition.replicas {
            load.entry(*id).and_modify(|count| *count += 1);
        }
    }
    load
}

/// Whom to add to a partition's replicas until there are `wanted`: live brokers on racks that have none of them first,
/// then those that hold the least. `load` counts them in.
pub fn more_replicas(
    image: &Image,
    partition: &PartitionState,
    wanted: usize,
    load: &mut BTreeMap<BrokerId, usize>,
) -> Vec<BrokerId> {
    let rack = |id: BrokerId| image.broker(id).and_then(|broker| broker.rack.as_deref());
    let mut replicas = partition.replicas.clone();
    while replicas.len() < wanted {
        let shares_rack = |id: BrokerId| {
            let own = rack(id);
            own.is_some() && replicas.iter().any(|other| rack(*other) == own)
        };
        let others = load.iter().filter(|(id, _)| !replicas.contains(id));
        let Some(next) = others.map(|(id, count)| (shares_rack(*id), *count, *id)).min() else { break };
        load.entry(next.2).and_modify(|count| *count += 1);
        replicas.push(next.2);
    }
    replicas.split_off(partition.replicas.len())
}

/// The live brokers, one of each rack in turn.
fn alternating_racks(image: &Image) -> Vec<Placed<'_>> {
    let mut racks: BTreeMap<Option<&str>, Vec<BrokerId>> = BTreeMap::new();
    for (id, broker) in image.live_brokers() {
        racks.entry(broker.rack.as_deref()).or_default().push(id);
    }
    let mut ordered: Vec<_> = racks
        .iter()
        .flat_map(|(rack, ids)| ids.iter().enumerate().map(move |(round, id)| (round, *rack, *id)))
        .collect();
    ordered.sort();
    ordered.into_iter().map(|(_, rack, id)| (id, rack)).collect()
}
