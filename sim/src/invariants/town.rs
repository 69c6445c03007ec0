//! The cluster's metadata as the committed entries make it: what every node's image must be some day.

use std::collections::BTreeMap;

use weir_protocol::metadata::{Image, PartitionState, Record};
use weir_protocol::raft::{Index, Voters};
use weir_protocol::types::{BrokerId, LeaderEpoch, LogId};
use weir_wire::internal;

use crate::report::situation;

/// No entry is larger.
const ENTRY_BYTES_MAX: usize = 16 << 20;

/// What the quorum has decided so far.
#[derive(Debug, Default)]
pub(super) struct Town {
    image: Image,
    /// The next entry that is missing; `None` before the first.
    next: Option<Index>,
    /// An entry was left out, so that the image says nothing any more.
    is_blind: bool,
    /// Whom the quorum has made the leader of each epoch.
    leaders: BTreeMap<(LogId, LeaderEpoch), BrokerId>,
}

/// What a partition's change is an example of.
fn met(was: &PartitionState, now: &PartitionState, needed: usize) -> Vec<&'static str> {
    let new_leader = now.leader.filter(|leader| was.leader != Some(*leader));
    let is_among = |replicas: &[BrokerId]| new_leader.is_some_and(|leader| replicas.contains(&leader));
    let examples = [
        (new_leader.is_some() && was.leader.is_some(), situation::LEADER_MOVED),
        (now.leader.is_none(), situation::NO_LEADER),
        (is_among(&was.elr) && !is_among(&was.isr), situation::LEADER_FROM_ELR),
        (is_among(&was.uncertain), situation::LEADER_FROM_UNCERTAIN),
        (is_among(&was.uncertain) && was.uncertain.len() > 1, situation::LEADER_FROM_SEVERAL_UNCERTAIN),
        (
            now.leader.is_some() && now.leader == was.leader && now.leader_epoch > was.leader_epoch,
            situation::EPOCH_RENEWED,
        ),
        (!was.isr.is_empty() && now.isr.len() < needed, situation::TOO_FEW_IN_SYNC),
        (now.isr.len() > was.isr.len(), situation::JOINED_ISR),
    ];
    examples.into_iter().filter(|(is_one, _)| *is_one).map(|(_, name)| name).collect()
}

/// What an entry has changed.
#[derive(Debug, Default)]
pub(super) struct Decided {
    /// Partitions whose in-sync or eligible replicas have changed.
    pub(super) members_changed: Vec<LogId>,
    /// Who came into sync, and under which broker epoch.
    pub(super) joined: Vec<(LogId, BrokerId, i64)>,
    /// What must not be.
    pub(super) broken: Option<(&'static str, String)>,
    /// Situations that the entry shows.
    pub(super) met: Vec<&'static str>,
}

impl Town {
    /// Takes in a committed entry. One that was taken in before changes nothing.
    pub(super) fn commit(&mut self, index: Index, payload: &[u8]) -> Decided {
        let next = *self.next.get_or_insert(index);
        if index < next || self.is_blind {
            return Decided::default();
        }
        if index > next {
            self.is_blind = true;
            return Decided::default();
        }
        self.next = Some(index + 1);
        // A leader's first entry carries nothing, and voters are not the image's.
        if payload.is_empty() || Voters::decode(payload).is_ok() {
            return Decided::default();
        }
        let Ok(record) = internal::decode::<Record>(payload, ENTRY_BYTES_MAX) else {
            self.is_blind = true; // of a unit test, or of a format that is not known here
            return Decided::default();
        };
        let before = self.image.clone();
        // A command that does not fit is refused by all nodes alike.
        let _ = self.image.apply_record(index, &record);
        self.compare(&before)
    }

    fn compare(&mut self, before: &Image) -> Decided {
        let mut decided = Decided::default();
        if let Err(law) = self.image.invariants() {
            decided.broken = Some(("image-law", law));
        }
        let image = self.image.clone();
        for (log, now) in image.topics().flat_map(|topic| topic.logs()) {
            if let Some(leader) = now.leader {
                self.leaders.entry((log, now.leader_epoch)).or_insert(leader);
            }
            let Some(was) = before.partition(log) else { continue };
            if was == now {
                continue;
            }
            let needed = image.min_isr(log).unwrap_or(1);
            decided.met.extend(met(was, now, needed));
            if was.isr != now.isr || was.elr != now.elr {
                decided.members_changed.push(log);
            }
            for member in now.isr.iter().filter(|member| !was.isr.contains(member)) {
                decided.joined.extend(image.broker(*member).map(|broker| (log, *member, broker.epoch)));
                // KIP-841: a broker that nobody hears comes into no ISR.
                if !image.can_lead(*member) {
                    let text = format!("{log}: broker {member} joins: {now:?}");
                    decided.broken = Some(("fenced-in-sync", text));
                }
            }
            if now.leader_epoch < was.leader_epoch || now.partition_epoch < was.partition_epoch {
                decided.broken =
                    Some(("partition-epoch-went-back", format!("{log} was {was:?} and is {now:?}")));
            }
        }
        decided
    }

    /// A partition as it was decided last.
    pub(super) fn partition(&self, log: LogId) -> Option<&PartitionState> {
        if self.is_blind { None } else { self.image.partition(log) }
    }

    /// In how many places an acknowledged record of the partition must be.
    pub(super) fn copies(&self, log: LogId) -> Option<usize> {
        if self.is_blind { None } else { self.image.min_isr(log) }
    }

    /// The members of ISR and ELR, each of which holds every committed record.
    pub(super) fn members(&self, log: LogId) -> Vec<BrokerId> {
        let members =
            |partition: &PartitionState| partition.isr.iter().chain(&partition.elr).copied().collect();
        self.partition(log).map(members).unwrap_or_default()
    }

    /// Partitions with replicas on several brokers whose ISR and ELR are one broker together.
    pub(super) fn sole_members(&self) -> impl Iterator<Item = (LogId, BrokerId)> {
        let replicated = self.partitions().filter(|(_, _, partition)| partition.replicas.len() > 1);
        replicated.filter_map(|(_, log, partition)| match (&*partition.isr, &*partition.elr) {
            ([sole], []) => Some((log, *sole)),
            _ => None,
        })
    }

    /// Whether somebody else was made the leader in this epoch, or nobody.
    pub(super) fn usurps(&self, log: LogId, epoch: LeaderEpoch, broker: BrokerId) -> bool {
        self.partition(log).is_some() && self.leaders.get(&(log, epoch)) != Some(&broker)
    }

    /// All partitions, with their topics' names.
    pub(super) fn partitions(&self) -> impl Iterator<Item = (&str, LogId, &PartitionState)> {
        let topics = (!self.is_blind).then(|| self.image.topics()).into_iter().flatten();
        topics.flat_map(|topic| topic.logs().map(|(log, partition)| (topic.name.as_str(), log, partition)))
    }

    /// Partition `number` of a topic, and its log.
    pub(super) fn find(&self, topic: &str, number: i32) -> Option<(LogId, &PartitionState)> {
        let topic = self.image.topic_named(topic)?;
        Some((LogId::new(topic.id, number), topic.partition(number)?))
    }

    /// Whether a broker may lead and come into sync.
    pub(super) fn serves(&self, broker: BrokerId) -> bool {
        !self.is_blind && self.image.can_lead(broker)
    }

    /// What keeps the cluster from being whole again, but for a broker that is down; `None`: nothing. Partitions of less than three
    /// replicas do not count while one of these is down.
    pub(super) fn lacks(&self, brokers: &[BrokerId], down: Option<BrokerId>) -> Option<String> {
        let is_up = |broker: &BrokerId| Some(*broker) != down;
        if let Some(missing) = brokers.iter().find(|broker| is_up(broker) && !self.image.can_lead(**broker)) {
            return Some(format!("broker {missing} does not serve: {:?}", self.image.broker(*missing)));
        }
        let is_whole = |partition: &PartitionState| {
            let mut up = partition.replicas.iter().filter(|replica| is_up(replica));
            partition.leader.as_ref().is_some_and(is_up) && up.all(|replica| partition.isr.contains(replica))
                || partition.replicas.len() < 3 && !partition.replicas.iter().all(is_up)
        };
        let mut lacking = self.partitions().filter(|(_, _, partition)| !is_whole(partition));
        lacking.next().map(|(topic, log, partition)| format!("{topic}-{}: {partition:?}", log.partition))
    }
}
