//! The cooperative-sticky assignor (KIP-429): balance first, then as few moves as possible, and no partition changes hands
//! within one rebalance.

use std::collections::{BTreeMap, BTreeSet};

use weir_defect::defect;

use super::assignor::{Assignments, Counts, Member, nothing, wanted};
use crate::TopicPartition;

/// Divides the partitions among members that are sorted by rank.
pub(super) fn assign(members: &[Member], counts: &Counts) -> Assignments {
    let all: BTreeSet<TopicPartition> = wanted(members, counts)
        .into_iter()
        .flat_map(|(topic, count)| {
            (0..count).map(|partition| TopicPartition { topic: topic.clone(), partition })
        })
        .collect();
    let held = valid_claims(members, &all);
    let mut balance = Balance::new(members, &held);
    balance.place(&all);
    balance.even_out();
    let mut assignments = nothing(members);
    for (member, partitions) in members.iter().zip(balance.assigned) {
        assignments.insert(member.id.clone(), partitions);
    }
    withhold_what_moves(members, &held, &mut assignments);
    assignments
}

/// Which of its claims each member may rely on. Of several claims to one partition the one of the newest generation stands
/// (KIP-792): a member that comes back after it was given up may claim what is somebody else's by now. Among claims of the
/// same generation none does.
fn valid_claims(members: &[Member], all: &BTreeSet<TopicPartition>) -> Vec<BTreeSet<TopicPartition>> {
    let mut held: Vec<BTreeSet<TopicPartition>> = members
        .iter()
        .map(|member| {
            let readable =
                |claim: &&TopicPartition| all.contains(*claim) && member.topics.contains(&claim.topic);
            member.owned.iter().filter(readable).cloned().collect()
        })
        .collect();
    if defect!(no_generation_in_owned) {
        return held;
    }
    let mut newest: BTreeMap<TopicPartition, (i32, Option<usize>)> = BTreeMap::new();
    for (at, (member, claims)) in members.iter().zip(&held).enumerate() {
        let generation = member.generation.unwrap_or(-1);
        for claim in claims {
            let standing = newest.entry(claim.clone()).or_insert((generation, Some(at)));
            if generation > standing.0 {
                *standing = (generation, Some(at));
            } else if generation == standing.0 && standing.1 != Some(at) {
                standing.1 = None;
            }
        }
    }
    for (at, claims) in held.iter_mut().enumerate() {
        claims.retain(|claim| newest.get(claim).is_some_and(|(_, holder)| *holder == Some(at)));
    }
    held
}

/// Members and what they have, ordered by how much it is.
struct Balance<'a> {
    members: &'a [Member],
    assigned: Vec<BTreeSet<TopicPartition>>,
    /// Number of partitions and place among the members, of each of them.
    loads: BTreeSet<(usize, usize)>,
}

impl<'a> Balance<'a> {
    fn new(members: &'a [Member], held: &[BTreeSet<TopicPartition>]) -> Self {
        let loads = held.iter().enumerate().map(|(at, partitions)| (partitions.len(), at)).collect();
        Self { members, assigned: held.to_vec(), loads }
    }

    fn put(&mut self, at: usize, partition: TopicPartition) {
        self.loads.remove(&(self.assigned[at].len(), at));
        self.assigned[at].insert(partition);
        self.loads.insert((self.assigned[at].len(), at));
    }

    fn take(&mut self, at: usize, partition: &TopicPartition) {
        self.loads.remove(&(self.assigned[at].len(), at));
        self.assigned[at].remove(partition);
        self.loads.insert((self.assigned[at].len(), at));
    }

    /// The member with the fewest partitions among those that read the topic.
    fn idlest(&self, partition: &TopicPartition) -> Option<(usize, usize)> {
        self.loads.iter().copied().find(|&(_, at)| self.members[at].topics.contains(&partition.topic))
    }

    /// Gives out what nobody has: first what the fewest may read.
    fn place(&mut self, all: &BTreeSet<TopicPartition>) {
        let taken: BTreeSet<&TopicPartition> = self.assigned.iter().flatten().collect();
        let readers = |partition: &TopicPartition| {
            self.members.iter().filter(|member| member.topics.contains(&partition.topic)).count()
        };
        let mut by_topic = BTreeMap::new();
        let free = all.iter().filter(|partition| !taken.contains(partition));
        let mut free: Vec<(usize, TopicPartition)> = free
            .map(|partition| {
                let readers = *by_topic.entry(&partition.topic).or_insert_with(|| readers(partition));
                (readers, partition.clone())
            })
            .collect();
        free.sort();
        for (_, partition) in free {
            if let Some((_, at)) = self.idlest(&partition) {
                self.put(at, partition);
            }
        }
    }

    /// Moves partitions from those that have more to those that have at least two fewer. Each move makes the sum of the
    /// squares of the loads smaller, so there is an end.
    fn even_out(&mut self) {
        loop {
            let mut moved = false;
            let busiest: Vec<usize> = self.loads.iter().rev().map(|&(_, at)| at).collect();
            for from in busiest {
                let partitions: Vec<TopicPartition> = self.assigned[from].iter().rev().cloned().collect();
                for partition in partitions {
                    let Some((load, to)) = self.idlest(&partition) else { continue };
                    if load + 2 > self.assigned[from].len() || self.assigned[to].contains(&partition) {
                        continue;
                    }
                    self.take(from, &partition);
                    self.put(to, partition);
                    moved = true;
                }
            }
            if !moved {
                return;
            }
        }
    }
}

/// Takes out what its new owner does not hold yet while another member claims it, rightly or not: that one stops first,
/// joins again, and the next rebalance hands it over.
fn withhold_what_moves(members: &[Member], held: &[BTreeSet<TopicPartition>], assignments: &mut Assignments) {
    let mut claims: BTreeMap<&TopicPartition, usize> = BTreeMap::new();
    for claim in members.iter().flat_map(|member| &member.owned) {
        *claims.entry(claim).or_default() += 1;
    }
    for (member, held) in members.iter().zip(held) {
        let Some(assigned) = assignments.get_mut(&member.id) else { continue };
        assigned.retain(|partition| {
            let by_others = claims.get(partition).copied().unwrap_or_default()
                - usize::from(member.owned.contains(partition));
            held.contains(partition) || by_others == 0
        });
    }
}
