//! Invariants that no node can check alone: they speak of several nodes, or of several lives of one.
//!
//! Nodes tell facts ([`weir_protocol::fact::Fact`]) as they happen; here they are held against each other, and against what the
//! quorum has committed by then. What one replica can check by itself is asserted where it happens (`Partition::invariants`,
//! `Raft::invariants`).

mod logs;
mod town;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use weir_protocol::fact::Fact;
use weir_protocol::raft::{Index, Term};
use weir_protocol::types::{BrokerId, LeaderEpoch, LogId, Offset, VoterId};
use weir_runtime::simulation::Observation;

use self::logs::Logs;
use self::town::Town;
use crate::plan::{Plan, Whom};
use crate::report::{Finding, situation};

/// A process: the number of its node, and how many that has had. A broker's id is the number of its node.
type Process = (u32, u64);

/// A process that tells nothing for longer may stand still.
const STANDSTILL_MS: f64 = 200.0;

/// What is broken, and how.
type Broken = Option<(&'static str, String)>;

/// What is known of a run beforehand.
#[derive(Debug, Clone, Default)]
pub struct Premises {
    /// It is about one node alone: then nothing is anywhere else.
    pub is_lone: bool,
    /// Nodes whose disks lie, or forget what a plan lets them forget: they may know less after a restart than before.
    pub forgetful: BTreeSet<u32>,
    /// A node alone loses what it has not synced.
    pub loses_records: bool,
    /// How long a leader of the metadata quorum may work on that has been replaced, in ms, if there is a limit.
    pub deposed_ms_max: Option<f64>,
}

impl Premises {
    /// What a plan does.
    pub fn of(plan: &Plan) -> Premises {
        let is_lone = plan.cluster.is_lone();
        let mut forgetful = plan.damaged();
        if plan.cluster.is_unsynced() {
            let cuts = plan.faults.iter().filter(|fault| fault.fault.takes_power());
            forgetful.extend(cuts.flat_map(|fault| fault.fault.nodes()));
        }
        let election = plan.cluster.settings.get("controller.quorum.election.timeout.ms");
        let election_ms: f64 = election.and_then(|value| value.parse().ok()).unwrap_or(1_000.0);
        Premises {
            is_lone,
            loses_records: plan.loses_records(),
            forgetful: forgetful.into_iter().map(|node| node + 1).collect(),
            // It notices after two election timeouts that no majority hears it.
            deposed_ms_max: Some(4.0 * election_ms + 500.0),
        }
    }
}

/// What the nodes have told so far, and what of it cannot all be true.
#[derive(Debug, Default)]
pub struct Invariants {
    premises: Premises,
    town: Town,
    logs: Logs,
    /// Who led a partition in an epoch.
    leaders: BTreeMap<(LogId, LeaderEpoch), Process>,
    /// The latest epoch of each partition in which a node was seen to lead it.
    epochs: BTreeMap<(LogId, u32), LeaderEpoch>,
    /// The high watermark that each process has told last.
    told: BTreeMap<(LogId, Process), Offset>,
    quorum_leaders: BTreeMap<Term, Process>,
    /// Whom each node takes for the quorum's leader.
    quorum_views: BTreeMap<u32, Option<BrokerId>>,
    /// Who leads the quorum as far as it knows itself. When it has been replaced: how long it has worked on since, and when it told
    /// something last, in ms.
    reigns: BTreeMap<Process, Option<(f64, f64)>>,
    committed: BTreeMap<Index, (Term, Bytes)>,
    /// Linearizable reads that have no answer yet, and the entries that were committed when each began.
    reads: BTreeMap<(Process, u64), Option<Index>>,
    /// Where each node's metadata log ends.
    metadata_ends: BTreeMap<u32, Offset>,
    broker_epochs: BTreeMap<BrokerId, (i64, Process)>,
    votes: BTreeMap<(VoterId, Term), VoterId>,
    images: BTreeMap<i64, u64>,
    /// Who told a follower of a partition last that it must cut its log, and in which epoch.
    parted: BTreeMap<(LogId, BrokerId), (LeaderEpoch, BrokerId)>,
    /// Replicas that were cut since they were opened, and by which process.
    cut: BTreeMap<(LogId, u32), u64>,
    /// Which process has opened a replica last.
    opened: BTreeMap<(LogId, u32), u64>,
    /// Under which broker epoch a member of an ISR came into it last.
    joined: BTreeMap<(LogId, BrokerId), i64>,
    met: BTreeSet<&'static str>,
    findings: Vec<Finding>,
}

impl Invariants {
    /// Nothing was told yet.
    pub fn new(premises: Premises) -> Invariants {
        Invariants { premises, ..Invariants::default() }
    }

    /// None of the damage was done that is planned for a node alone.
    pub fn trust_a_lone_disk(&mut self) {
        if self.premises.is_lone && !self.premises.loses_records {
            self.premises.forgetful.clear();
        }
    }

    /// Takes in what a node told; facts of other types are not meant for this.
    pub fn take(&mut self, observation: &Observation) {
        if let Some(fact) = observation.fact.downcast_ref::<Fact>() {
            let at_ms = observation.at.since_origin().as_secs_f64() * 1e3;
            self.check((observation.node.number(), observation.incarnation), at_ms, fact);
        }
    }

    /// What cannot all be true.
    pub fn findings(&self) -> Vec<Finding> {
        self.findings.clone()
    }

    /// The named situations that what was told is an example of.
    pub fn met(&self) -> BTreeSet<&'static str> {
        self.met.clone()
    }

    /// Whom a fault means now: the number of a node. `partitions` are those that the plan counts.
    pub fn whom(&self, whom: Whom, partitions: &[(String, i32)]) -> Option<u32> {
        let place = match whom {
            Whom::Quorum => return self.quorum_leaders.values().next_back().map(|(node, _)| *node),
            Whom::Leader(place) | Whom::Follower(place) => place as usize,
        };
        let (topic, number) = partitions.get(place % partitions.len().max(1))?;
        let (_, partition) = self.town.find(topic, *number)?;
        let found = match whom {
            Whom::Follower(_) => {
                partition.isr.iter().copied().find(|broker| Some(*broker) != partition.leader)
            }
            _ => partition.leader,
        };
        found.map(|broker| broker.0 as u32)
    }

    /// Whether a broker holds all that is committed of a partition in which it is not in sync: it is about to be. If a leader is
    /// named, the partition is one of its.
    pub fn has_caught_up(&self, broker: BrokerId, leader: Option<BrokerId>) -> bool {
        self.outside(broker).any(|(log, known)| {
            let end = self.logs.committed_end(log);
            (leader.is_none() || known == leader) && end > 0 && self.logs.holds(log, broker.0 as u32, end)
        })
    }

    /// Who leads a partition with committed records in which a broker is not in sync, other than `except`.
    pub fn awaits(&self, broker: BrokerId, except: BrokerId) -> Option<BrokerId> {
        let with_records = self.outside(broker).filter(|(log, _)| self.logs.committed_end(*log) > 0);
        with_records.filter_map(|(_, leader)| leader).find(|leader| ![broker, except].contains(leader))
    }

    /// Whether the quorum lets a broker lead and come into sync.
    pub fn serves(&self, broker: BrokerId) -> bool {
        self.town.serves(broker)
    }

    /// The partitions that a broker leads, and that two others have as well.
    pub fn led_by(&self, broker: BrokerId) -> Vec<LogId> {
        let led = self
            .town
            .partitions()
            .filter(|(_, _, partition)| partition.leader == Some(broker) && partition.replicas.len() > 2);
        led.map(|(_, log, _)| log).collect()
    }

    /// Who leads a partition, as the quorum has decided.
    pub fn leader(&self, log: LogId) -> Option<BrokerId> {
        self.town.partition(log)?.leader
    }

    /// In which epoch a follower was last told to cut its log, and by whom.
    pub fn parted(&self, log: LogId, follower: BrokerId) -> Option<(LeaderEpoch, BrokerId)> {
        self.parted.get(&(log, follower)).copied()
    }

    /// The newest term of the quorum that has a leader, and whose node that is.
    pub fn quorum_leader(&self) -> Option<(Term, u32)> {
        self.quorum_leaders.iter().next_back().map(|(term, (node, _))| (*term, *node))
    }

    /// Where a node's metadata log ends.
    pub fn metadata_end(&self, node: u32) -> Offset {
        self.metadata_ends.get(&node).copied().unwrap_or(0)
    }

    /// The newest term in which somebody has voted for somebody else, and who for whom.
    pub fn newest_vote(&self) -> Option<(Term, BrokerId, BrokerId)> {
        let votes =
            self.votes.iter().map(|((voter, term), candidate)| (*term, voter.broker, candidate.broker));
        votes.filter(|(_, voter, candidate)| voter != candidate).max()
    }

    /// The partitions in which a broker is not in sync although it is a replica, and their leaders.
    fn outside(&self, broker: BrokerId) -> impl Iterator<Item = (LogId, Option<BrokerId>)> + '_ {
        let partitions = self.town.partitions().filter(move |(_, _, partition)| {
            partition.replicas.contains(&broker) && !partition.isr.contains(&broker)
        });
        partitions.map(|(_, log, partition)| (log, partition.leader))
    }

    /// The latest epoch of a broker that its process has told.
    pub fn broker_epoch(&self, broker: BrokerId) -> Option<i64> {
        self.broker_epochs.get(&broker).map(|(epoch, _)| *epoch)
    }

    /// What keeps the cluster from being whole again, but for a broker that is down; `None`: nothing.
    pub fn lacks(&self, brokers: &[BrokerId], down: Option<BrokerId>) -> Option<String> {
        self.town.lacks(brokers, down)
    }

    /// Whether a node leads the metadata quorum, as far as it knows.
    pub fn quorum_is_led(&self) -> bool {
        self.quorum_views.iter().any(|(node, leader)| *leader == Some(BrokerId(*node as i32)))
    }

    /// Holds the replicas against each other once the cluster is whole again: each has every committed record that it retains.
    pub fn compare_replicas(&mut self) {
        let all: Vec<_> = self
            .town
            .partitions()
            .flat_map(|(_, log, partition)| partition.isr.iter().map(move |member| (log, *member)))
            .collect();
        for (log, member) in all {
            let node = member.0 as u32;
            if let Some(batch) = self.logs.lacks(log, node).filter(|_| !self.is_forgetful(node)) {
                self.report(
                    "replicas-differ",
                    format!("{log} on broker {member} lacks {batch:?} in the end"),
                );
            }
        }
    }

    fn is_forgetful(&self, node: u32) -> bool {
        self.premises.forgetful.contains(&node)
    }

    /// The first of a kind says what went wrong; the others follow from it.
    fn report(&mut self, name: &'static str, text: String) {
        if self.findings.iter().all(|finding| finding.name != name) {
            self.findings.push(Finding::new(name, text));
        }
    }

    fn check(&mut self, process: Process, at_ms: f64, fact: &Fact) {
        let (node, incarnation) = process;
        if let Some((name, text)) = self.works_on(process, at_ms) {
            self.report(name, text);
        }
        let broken = match fact {
            Fact::Opened { log, start, end, last_epoch } => {
                if self.cut.remove(&(*log, node)).is_some_and(|process| process != incarnation) {
                    self.met.insert(situation::TRUNCATED_THEN_CRASH);
                }
                self.opened.insert((*log, node), incarnation);
                self.opened(node, *log, (*start, *end), *last_epoch)
            }
            Fact::Appended { log, batches } if *log == LogId::METADATA => {
                let end = batches.last().map(|batch| batch.next);
                self.metadata_ends.extend(end.map(|end| (node, end)));
                None
            }
            Fact::Cut { log, end } if *log == LogId::METADATA => {
                self.metadata_ends.insert(node, *end);
                None
            }
            Fact::Kept { log, .. } | Fact::Starts { log, .. } if *log == LogId::METADATA => {
                None // the quorum has laws of its own
            }
            Fact::Appended { log, batches } => {
                self.logs.appended(*log, node, batches).map(|(known, other)| {
                    ("two-records", format!("{log}: {known:?} and {other:?} have one name"))
                })
            }
            Fact::Cut { log, end } => {
                self.logs.cut(*log, node, *end);
                self.cuts_committed(node, *log, *end)
            }
            Fact::Starts { log, start } => {
                self.logs.starts(*log, node, *start);
                None
            }
            Fact::Kept { log, end } => {
                self.logs.durable(*log, node, *end);
                None
            }
            Fact::Compacted { log, below } => self.compacted(*log, *below),
            Fact::Damaged { log, from } => {
                self.logs.damaged(*log, node, *from);
                None
            }
            Fact::Leads { log, epoch } => self.leads(process, *log, *epoch),
            Fact::HighWatermark { log, high_watermark, durable_end, .. } => {
                self.high_watermark(process, *log, *high_watermark, *durable_end)
            }
            Fact::LeadsQuorum { term } => {
                // Whoever wins an older term late has been replaced before it began.
                let is_newest = self.quorum_leaders.keys().next_back().is_none_or(|newest| newest < term);
                if is_newest {
                    self.reigns.values_mut().for_each(|reign| *reign = reign.or(Some((0.0, at_ms))));
                }
                self.reigns.insert(process, (!is_newest).then_some((0.0, at_ms)));
                if self.quorum_leaders.values().next_back().is_some_and(|(last, _)| *last != node) {
                    self.met.insert(situation::QUORUM_MOVED);
                }
                one_of_each(&mut self.quorum_leaders, *term, process).map(|other| {
                    ("two-quorum-leaders", format!("term {term} has two leaders, {other:?} too"))
                })
            }
            Fact::QuorumLeader { leader, .. } => {
                self.quorum_views.insert(node, *leader);
                if *leader == Some(BrokerId(node as i32)) {
                    self.reigns.entry(process).or_insert(None);
                } else {
                    self.reigns.remove(&process);
                }
                None
            }
            Fact::Committed { index, term, payload } => self.committed(*index, *term, payload),
            Fact::ReadBegan { read } => {
                let last = self.committed.keys().next_back().copied();
                self.reads.insert((process, *read), last);
                None
            }
            Fact::ReadDone { read, commit } => self.read_done(process, *read, *commit),
            Fact::Registered { broker, epoch } => self.registered(process, *broker, *epoch),
            Fact::Voted { voter, term, candidate } => {
                one_of_each(&mut self.votes, (*voter, *term), *candidate)
                    .map(|other| ("two-votes", format!("{voter} has voted for {other} in term {term}")))
            }
            Fact::Image { applied, digest } => one_of_each(&mut self.images, *applied, *digest)
                .map(|other| ("two-images", format!("another image at {applied} has the digest {other:x}"))),
            Fact::Truncated { log, .. } => {
                self.cut.insert((*log, node), incarnation);
                None
            }
            Fact::Parted { log, epoch, follower } => {
                self.parted.insert((*log, *follower), (*epoch, BrokerId(node as i32)));
                None
            }
            Fact::Follows { .. } | Fact::Durable { .. } | Fact::InSync { .. } => None,
        };
        if let Some((name, text)) = broken {
            let text =
                format!("{text}; told by process {incarnation} of node {node} at {at_ms:.3} ms: {fact:?}");
            self.report(name, text);
        }
    }

    /// A leader of the quorum that has been replaced, and does not hear from the others, notices that nobody follows it. While it stands
    /// still it notices nothing, and tells nothing.
    fn works_on(&mut self, process: Process, at_ms: f64) -> Broken {
        let max_ms = self.premises.deposed_ms_max?;
        let (worked_ms, last_ms) = self.reigns.get_mut(&process)?.as_mut()?;
        *worked_ms += (at_ms - *last_ms).min(STANDSTILL_MS);
        *last_ms = at_ms;
        let worked_ms = *worked_ms;
        (worked_ms > max_ms).then(|| {
            (
                "deposed-leader",
                format!("node {} has led on for {worked_ms:.0} ms after it was replaced", process.0),
            )
        })
    }

    /// Whether the only member of a partition's ISR is damaged, as it said last. Nobody else could lead without a loss, so that it is
    /// never mended, and what it holds beyond the damage is copied by nobody: only an operator goes on from there (contract 7).
    pub fn is_stranded(&self) -> bool {
        self.town.sole_members().any(|(log, broker)| self.logs.is_damaged(log, broker.0 as u32))
    }

    /// What was durable is there after a restart, and whoever counts as in sync or eligible holds what was shown.
    fn opened(
        &mut self,
        node: u32,
        log: LogId,
        (start, end): (Offset, Offset),
        last_epoch: Option<LeaderEpoch>,
    ) -> Broken {
        let durable = self.logs.opened(log, node, (start, end), last_epoch);
        let (shown, broker) = (self.logs.committed_end(log), BrokerId(node as i32));
        if self.is_excused(log, broker) {
            return None;
        }
        let is_member = self.premises.is_lone || self.town.members(log).contains(&broker);
        if end < shown && is_member {
            return Some((
                "lost-watermark",
                format!("{log} ends at {end}, its high watermark was at {shown}"),
            ));
        }
        (end < durable)
            .then(|| ("lost-durable", format!("{log} ends at {end}, and was durable up to {durable}")))
    }

    /// At most one process leads a partition in an epoch: the one that the quorum has chosen. A node's epochs do not go back. Whoever
    /// begins to lead holds everything that was committed.
    fn leads(&mut self, process: Process, log: LogId, epoch: LeaderEpoch) -> Broken {
        let node = process.0;
        let is_excused = self.premises.is_lone && self.is_forgetful(node);
        let latest = self.epochs.entry((log, node)).or_insert(epoch);
        let went_back = *latest > epoch && !is_excused;
        *latest = epoch.max(*latest);
        let latest = *latest;
        match one_of_each(&mut self.leaders, (log, epoch), process) {
            Some(other) if !is_excused => {
                return Some((
                    "two-leaders",
                    format!("{log} has two leaders in epoch {epoch}, {other:?} too"),
                ));
            }
            _ if went_back => {
                return Some(("epoch-went-back", format!("{log} was in epoch {latest} already")));
            }
            _ if is_excused => return None,
            _ => {}
        }
        if self.town.usurps(log, epoch, BrokerId(node as i32)) {
            return Some(("usurper", format!("{log}: nobody has made it the leader of epoch {epoch}")));
        }
        let decided = self.town.partition(log)?;
        let is_present = decided.leader_epoch == epoch && decided.unclean_epoch != Some(epoch);
        let missing = self.logs.lacks(log, node).filter(|_| is_present)?;
        Some(("leader-without-committed", format!("{log} lacks {missing:?}, which was committed")))
    }

    /// A member of ISR or ELR cuts nothing that was ever shown, unless its disk lies: it could lead, and the record would be gone.
    fn cuts_committed(&self, node: u32, log: LogId, end: Offset) -> Broken {
        let (shown, broker) = (self.logs.committed_end(log), BrokerId(node as i32));
        let is_member = end < shown && !self.premises.is_lone && self.town.members(log).contains(&broker);
        (is_member && !self.is_excused(log, broker)).then(|| {
            ("committed-cut", format!("{log}: a member cuts what it holds to {end}, shown was {shown}"))
        })
    }

    /// A replica drops nothing that may still be cut: the newer record with the same key would be lost, and the older one with it.
    fn compacted(&mut self, log: LogId, below: Offset) -> Broken {
        self.logs.compacted(log, below);
        let shown = self.logs.committed_end(log);
        (below > shown).then(|| {
            (
                "compacted-uncommitted",
                format!("{log} is compacted below {below}, committed is what lies below {shown}"),
            )
        })
    }

    /// Only what is durable in enough places is ever shown, and a leader never takes back what it has shown.
    fn high_watermark(
        &mut self,
        process: Process,
        log: LogId,
        high_watermark: Offset,
        durable_end: Offset,
    ) -> Broken {
        let before = self.told.insert((log, process), high_watermark).unwrap_or(0);
        if high_watermark > durable_end {
            let text =
                format!("{log} shows records up to {high_watermark}, durable are those to {durable_end}");
            return Some(("ghost-watermark", text));
        }
        if high_watermark < before {
            return Some(("watermark-went-back", format!("the high watermark of {log} was at {before}")));
        }
        let news = high_watermark > self.logs.committed_end(log);
        if let Some((known, other)) = self.logs.commit(log, process.0, high_watermark) {
            return Some(("two-records", format!("{log}: {known:?} was committed, and now {other:?} is")));
        }
        if !news || self.premises.is_lone {
            return None;
        }
        let partition = self.town.partition(log)?;
        // A disk that lies may be lost between a replica's report and the moment in which the leader counts it.
        let has_kept = |node: u32| {
            let held = || self.is_forgetful(node) && self.logs.held(log, node, high_watermark);
            self.logs.holds(log, node, high_watermark) || held()
        };
        let copies = partition.replicas.iter().filter(|broker| has_kept(broker.0 as u32)).count();
        let needed = self.town.copies(log)?;
        if copies < needed {
            let text = format!("{log}: {copies} replicas hold what is shown, {needed} must: {partition:?}");
            return Some(("too-few-copies", text));
        }
        self.members_hold(log)
    }

    /// A disk that lies excuses its broker for a log, but not once the broker's present process has been taken into the ISR: it was
    /// found to hold everything.
    fn is_excused(&self, log: LogId, broker: BrokerId) -> bool {
        let node = broker.0 as u32;
        let joined = self.joined.get(&(log, broker)).copied();
        let vouched = self.broker_epochs.get(&broker).is_some_and(|(epoch, (_, process))| {
            joined == Some(*epoch) && self.opened.get(&(log, node)) == Some(process)
        });
        self.is_forgetful(node) && (self.premises.is_lone || !vouched)
    }

    /// Every member of ISR and ELR holds on its disk what was ever shown, unless that disk lies.
    fn members_hold(&self, log: LogId) -> Broken {
        let shown = self.logs.committed_end(log);
        let members = self.town.members(log).into_iter();
        let mut sound = members.filter(|member| !self.is_excused(log, *member));
        let without = sound.find(|member| !self.logs.holds(log, member.0 as u32, shown))?;
        let text = format!(
            "{log}: broker {without} counts as in sync or eligible without records below {shown}: {:?}",
            self.town.partition(log)
        );
        Some(("member-without-committed", text))
    }

    /// All nodes agree for ever on what stands at an index. Unless disks lie: when the only copy's last entry and its checkpoint are
    /// both damaged, the entry cannot be told from a torn one, and the start says that it is not certain (seed 4696).
    fn committed(&mut self, index: Index, term: Term, payload: &Bytes) -> Broken {
        let is_excused = self.premises.is_lone && !self.premises.forgetful.is_empty();
        let (known_term, known) = self.committed.entry(index).or_insert_with(|| (term, payload.clone()));
        if (*known_term != term || known != payload) && !is_excused {
            let text = format!("another entry, of term {known_term}, was committed at {index}");
            return Some(("two-entries", text));
        }
        if is_excused {
            return None;
        }
        let decided = self.town.commit(index, payload);
        self.met.extend(&decided.met);
        self.joined.extend(decided.joined.iter().map(|(log, broker, epoch)| ((*log, *broker), *epoch)));
        let holds = || decided.members_changed.iter().find_map(|log| self.members_hold(*log));
        decided.broken.or_else(|| if self.premises.is_lone { None } else { holds() })
    }

    /// A read sees what was committed before it began, on whatever node.
    fn read_done(&mut self, process: Process, read: u64, commit: Index) -> Broken {
        let last = self.reads.remove(&(process, read)).flatten()?;
        let is_excused = self.premises.is_lone && self.is_forgetful(process.0);
        (commit <= last && !is_excused).then(|| {
            ("stale-read", format!("a read sees entries below {commit}; {last} was committed when it began"))
        })
    }

    /// Each process of a broker has a greater epoch than the one before.
    fn registered(&mut self, process: Process, broker: BrokerId, epoch: i64) -> Broken {
        let is_excused = self.premises.is_lone && self.is_forgetful(process.0);
        let before = self.broker_epochs.insert(broker, (epoch, process));
        before
            .filter(|(known, other)| *other != process && *known >= epoch)
            .filter(|_| !is_excused)
            .map(|(known, _)| ("broker-epoch-went-back", format!("{broker} had epoch {known} before")))
    }
}

/// Notes that this is the one; returns another that was before.
fn one_of_each<K: Ord, V: Copy + PartialEq>(known: &mut BTreeMap<K, V>, key: K, value: V) -> Option<V> {
    let first = *known.entry(key).or_insert(value);
    (first != value).then_some(first)
}

#[cfg(test)]
#[path = "invariants_tests.rs"]
mod tests;
