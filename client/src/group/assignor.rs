//! How the leader of a group divides partitions among its members. Pure, and the same for every member that leads: the
//! results agree with the assignors of Kafka's Java client that have these names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::sticky;
use crate::TopicPartition;

/// How partitions are divided. All members of a group have at least one in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Assignor {
    /// Topic by topic, each member a range of neighbours: equal partitions of several topics come together.
    Range,
    /// All partitions of all topics in turn.
    RoundRobin,
    /// Each member keeps what it has as far as balance allows, and a rebalance stops only what moves (KIP-429).
    CooperativeSticky,
}

/// A member, as the leader sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) id: String,
    pub(super) instance: Option<String>,
    pub(super) topics: BTreeSet<Arc<str>>,
    /// What it claims to hold.
    pub(super) owned: BTreeSet<TopicPartition>,
    /// The generation in which it was given that.
    pub(super) generation: Option<i32>,
}

impl Member {
    /// Static members come first, in the order of their instance ids; the others follow by their member ids.
    fn rank(&self) -> (bool, &str) {
        match &self.instance {
            Some(instance) => (false, instance),
            None => (true, &self.id),
        }
    }
}

/// Partitions by member id.
pub(super) type Assignments = BTreeMap<String, BTreeSet<TopicPartition>>;

/// How many partitions each topic has; topics that do not exist are missing.
pub(super) type Counts = BTreeMap<Arc<str>, i32>;

impl Assignor {
    /// All of them.
    pub const ALL: [Assignor; 3] = [Assignor::Range, Assignor::RoundRobin, Assignor::CooperativeSticky];

    /// The name in `partition.assignment.strategy`, and in the protocol.
    pub fn name(self) -> &'static str {
        match self {
            Assignor::Range => "range",
            Assignor::RoundRobin => "roundrobin",
            Assignor::CooperativeSticky => "cooperative-sticky",
        }
    }

    /// The assignor of that name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|assignor| assignor.name() == name)
    }

    /// Whether members keep their partitions while they join.
    pub fn is_cooperative(self) -> bool {
        self == Assignor::CooperativeSticky
    }

    /// Divides the partitions. Every member is in the answer; with [`Assignor::CooperativeSticky`] a partition that moves
    /// is nobody's until its owner has given it back and joined again.
    pub(super) fn assign(self, mut members: Vec<Member>, counts: &Counts) -> Assignments {
        members.sort_by(|a, b| a.rank().cmp(&b.rank()));
        match self {
            Assignor::Range => range(&members, counts),
            Assignor::RoundRobin => round_robin(&members, counts),
            Assignor::CooperativeSticky => sticky::assign(&members, counts),
        }
    }
}

/// Everybody with nothing.
pub(super) fn nothing(members: &[Member]) -> Assignments {
    members.iter().map(|member| (member.id.clone(), BTreeSet::new())).collect()
}

/// The topics that somebody reads and that exist, with their sizes.
pub(super) fn wanted<'a>(members: &'a [Member], counts: &Counts) -> BTreeMap<&'a Arc<str>, i32> {
    let topics: BTreeSet<&Arc<str>> = members.iter().flat_map(|member| &member.topics).collect();
    topics.into_iter().filter_map(|topic| counts.get(topic).map(|count| (topic, *count))).collect()
}

fn range(members: &[Member], counts: &Counts) -> Assignments {
    let mut assignments = nothing(members);
    for (topic, count) in wanted(members, counts) {
        let readers: Vec<&Member> = members.iter().filter(|member| member.topics.contains(topic)).collect();
        let each = usize::try_from(count).unwrap_or_default() / readers.len();
        let more = usize::try_from(count).unwrap_or_default() % readers.len();
        let mut partitions = (0..count).map(|partition| TopicPartition { topic: topic.clone(), partition });
        for (at, reader) in readers.into_iter().enumerate() {
            let share = each + usize::from(at < more);
            if let Some(assigned) = assignments.get_mut(&reader.id) {
                assigned.extend(partitions.by_ref().take(share));
            }
        }
    }
    assignments
}

fn round_robin(members: &[Member], counts: &Counts) -> Assignments {
    let mut assignments = nothing(members);
    let mut turn = 0;
    for (topic, count) in wanted(members, counts) {
        for partition in 0..count {
            // Somebody reads it, or it would not be wanted.
            while !members[turn % members.len()].topics.contains(topic) {
                turn += 1;
            }
            if let Some(assigned) = assignments.get_mut(&members[turn % members.len()].id) {
                assigned.insert(TopicPartition { topic: topic.clone(), partition });
            }
            turn += 1;
        }
    }
    assignments
}

#[cfg(test)]
#[path = "assignor_tests.rs"]
mod tests;
