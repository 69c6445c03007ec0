//! Replicas in memory for tests: disks that forget what was not synced, a network that loses, repeats and reorders, and
//! the quorum as a register of which each node hears at some time. The same seed gives the same run.

use std::collections::{BTreeMap, BTreeSet};

use super::epochs::{EpochEntry, EpochHistory};
use super::replication::{FetchPosition, FetchVerdict};
use super::*;
use crate::metadata::IsrMember;
use crate::random::Random;

const NODES: usize = 3;
const MIN_INSYNC: usize = 2;

pub(super) type Record = (LeaderEpoch, u64);

#[derive(Clone, Debug)]
enum Message {
    Fetch { broker_epoch: i64, position: FetchPosition },
    Answer { position: FetchPosition, verdict: FetchVerdict, records: Vec<Record> },
    Progress { broker_epoch: i64, epoch: LeaderEpoch, durable_end: Offset },
    Propose { epoch: LeaderEpoch, partition_epoch: i32, isr: Vec<IsrMember> },
}

pub(super) struct Node {
    pub(super) core: Partition,
    pub(super) log: Vec<Record>,
    durable_end: usize,
    heard: i32,
    broker_epoch: i64,
}

/// The replicas, and what must hold of them for ever.
pub(super) struct Cluster {
    pub(super) random: Random,
    pub(super) now_ms: i64,
    pub(super) nodes: Vec<Node>,
    /// (from, to); one past the last node is the controller.
    network: Vec<(usize, usize, Message)>,
    leader: usize,
    epoch: LeaderEpoch,
    partition_epoch: i32,
    pub(super) isr: BTreeSet<usize>,
    elr: BTreeSet<usize>,
    broker_epochs: Vec<i64>,
    names: BTreeMap<(LeaderEpoch, Offset), u64>,
    pub(super) committed: Vec<Record>,
    next_value: u64,
    pub(super) acknowledged: usize,
    pub(super) cuts: usize,
    pub(super) broken: Option<String>,
    trace: Option<Vec<String>>,
}

fn broker(node: usize) -> BrokerId {
    BrokerId(node as i32)
}

fn open(node: usize, log: &[Record]) -> Partition {
    let end = log.len() as Offset;
    let mut epochs = EpochHistory::new();
    for (offset, (epoch, _)) in (0..).zip(log) {
        epochs.begin(*epoch, offset);
    }
    let state = LogState { start: 0, end, durable_end: end, high_watermark: 0 };
    let limits = Limits { waiters_max: 8, replica_lag_ms_max: 300, isr_retry_ms: 100 };
    Partition::new(LogId::METADATA, broker(node), state, limits).with_epochs(epochs)
}

impl Cluster {
    pub(super) fn new(seed: u64) -> Cluster {
        let new_node =
            |node| Node { core: open(node, &[]), log: vec![], durable_end: 0, heard: 0, broker_epoch: 1 };
        let mut cluster = Cluster {
            random: Random::new(seed),
            now_ms: 0,
            nodes: (0..NODES).map(new_node).collect(),
            network: Vec::new(),
            leader: 0,
            epoch: 1,
            partition_epoch: 1,
            isr: (0..NODES).collect(),
            elr: BTreeSet::new(),
            broker_epochs: vec![1; NODES],
            names: BTreeMap::new(),
            committed: Vec::new(),
            next_value: 0,
            acknowledged: 0,
            cuts: 0,
            broken: None,
            trace: None,
        };
        (0..NODES).for_each(|node| cluster.learn(node));
        cluster
    }

    /// Writes down what happens from now on.
    pub(super) fn watch(&mut self) {
        self.trace = Some(Vec::new());
    }

    pub(super) fn transcript(&mut self) -> String {
        assert_eq!(self.broken, None);
        self.trace.take().unwrap_or_default().join("\n")
    }

    pub(super) fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(line());
        }
    }

    fn break_law(&mut self, law: String) {
        self.broken.get_or_insert(law);
    }

    pub(super) fn produce(&mut self, node: usize) {
        self.next_value += 1;
        let waiter = WaiterId(self.next_value);
        let input = Input::Append {
            waiter,
            acks: Acks::All,
            count: 1,
            epoch: None,
            producer: None,
            now_ms: self.now_ms,
        };
        self.step(node, input, &[]);
    }

    pub(super) fn sync(&mut self, node: usize) {
        let this = &mut self.nodes[node];
        this.durable_end = this.log.len();
        let end = this.log.len() as Offset;
        self.step(node, Input::Durable { end }, &[]);
    }

    pub(super) fn tick(&mut self, node: usize) {
        self.step(node, Input::Tick { now_ms: self.now_ms }, &[]);
    }

    pub(super) fn fetch(&mut self, node: usize) {
        let broker_epoch = self.nodes[node].broker_epoch;
        if let Some((leader, position)) = self.nodes[node].core.fetch_position() {
            self.network.push((node, leader.0 as usize, Message::Fetch { broker_epoch, position }));
        }
    }

    /// Delivers a message at random; `repeat`: and keeps it.
    pub(super) fn deliver(&mut self, repeat: bool) {
        if self.network.is_empty() {
            return;
        }
        let at = self.random.below(self.network.len());
        let flying = if repeat { self.network[at].clone() } else { self.network.swap_remove(at) };
        self.arrive(flying);
    }

    /// Delivers everything, in order.
    pub(super) fn settle(&mut self) {
        while !self.network.is_empty() {
            let flying = self.network.remove(0);
            self.arrive(flying);
        }
    }

    pub(super) fn lose(&mut self) {
        if !self.network.is_empty() {
            let at = self.random.below(self.network.len());
            self.network.swap_remove(at);
        }
    }

    fn arrive(&mut self, (from, to, message): (usize, usize, Message)) {
        match message {
            Message::Fetch { broker_epoch, position } => {
                let now_ms = self.now_ms;
                self.step(
                    to,
                    Input::ReplicaFetch { from: broker(from), broker_epoch, position, now_ms },
                    &[],
                );
                let verdict = self.nodes[to].core.judge(broker(from), broker_epoch, &position);
                let FetchPosition { offset, last_epoch, durable_end, .. } = position;
                self.note(|| {
                    format!("{from} > {to}  at {offset} after epoch {last_epoch}, durable to {durable_end}: {verdict:?}")
                });
                let log = &self.nodes[to].log;
                let most = 1 + self.random.below(3);
                let records = match verdict {
                    FetchVerdict::Refused(_) => return,
                    FetchVerdict::Matches { .. } => {
                        log[offset as usize..].iter().take(most).copied().collect()
                    }
                    _ => Vec::new(),
                };
                let end = offset + records.len() as Offset;
                self.network.push((to, from, Message::Answer { position, verdict, records }));
                self.step(to, Input::Shipped { end }, &[]);
            }
            Message::Answer { position, verdict, records } => {
                let mut epochs: Vec<_> = (position.offset..)
                    .zip(&records)
                    .map(|(start, (epoch, _))| EpochEntry { epoch: *epoch, start })
                    .collect();
                epochs.dedup_by_key(|entry| entry.epoch);
                let end = position.offset + records.len() as Offset;
                let fetched =
                    Fetched { position, verdict, end, epochs, producers: vec![], now_ms: self.now_ms };
                self.step(to, Input::Fetched(Box::new(fetched)), &records);
            }
            Message::Progress { broker_epoch, epoch, durable_end } => {
                let from = broker(from);
                self.step(to, Input::ReplicaProgress { from, broker_epoch, epoch, durable_end }, &[]);
            }
            Message::Propose { epoch, partition_epoch, isr } => {
                let known =
                    |member: &IsrMember| self.broker_epochs[member.broker.0 as usize] == member.broker_epoch;
                if partition_epoch == self.partition_epoch && isr.iter().all(known) {
                    self.set_isr(isr.iter().map(|member| member.broker.0 as usize).collect());
                } else {
                    let now_ms = self.now_ms;
                    self.step(from, Input::IsrRefused { epoch, partition_epoch, now_ms }, &[]);
                }
            }
        }
    }

    fn set_isr(&mut self, isr: BTreeSet<usize>) {
        self.elr.extend(self.isr.difference(&isr));
        self.isr = isr;
        self.partition_epoch += 1;
        if self.isr.len() >= MIN_INSYNC {
            self.elr.clear();
        }
        self.elr.retain(|node| !self.isr.contains(node));
        let (isr, elr) = (&self.isr, &self.elr);
        let line = format!("          ISR {isr:?}, ELR {elr:?}");
        self.note(|| line);
    }

    /// The controller takes a broker for dead; the next one that is eligible leads.
    pub(super) fn fence(&mut self, node: usize) {
        let mut rest = self.isr.clone();
        // The last one stays: nobody else has what may have been acknowledged.
        if rest.remove(&node) && !rest.is_empty() {
            self.set_isr(rest);
            if self.leader == node {
                let at = self.random.below(self.isr.len());
                self.elect(self.isr.iter().copied().nth(at).unwrap_or(node));
            }
        }
    }

    pub(super) fn elect(&mut self, node: usize) {
        if self.isr.contains(&node) {
            (self.leader, self.epoch) = (node, self.epoch + 1);
            self.partition_epoch += 1;
        }
    }

    pub(super) fn learn(&mut self, node: usize) {
        let (epoch, partition_epoch) = (self.epoch, self.partition_epoch);
        if self.nodes[node].heard == partition_epoch {
            return;
        }
        self.nodes[node].heard = partition_epoch;
        let input = if self.leader == node {
            Input::BecomeLeader(Leadership {
                epoch,
                partition_epoch,
                replicas: (0..NODES).map(broker).collect(),
                isr: self.isr.iter().copied().map(broker).collect(),
                min_insync: MIN_INSYNC,
                broker_epochs: (0..).map(broker).zip(self.broker_epochs.iter().copied()).collect(),
            })
        } else {
            Input::BecomeFollower { epoch, leader: broker(self.leader) }
        };
        self.step(node, input, &[]);
        if self.leader == node
            && self.nodes[node].log.get(..self.committed.len()) != Some(&self.committed[..])
        {
            self.break_law(format!("{node} leads epoch {epoch} without all that is committed"));
        }
    }

    /// Power fails, and comes back.
    pub(super) fn crash(&mut self, node: usize) {
        self.note(|| format!("    {node}  loses power"));
        self.broker_epochs[node] += 1;
        if self.leader == node {
            self.elect(node);
        }
        let (broker_epoch, this) = (self.broker_epochs[node], &mut self.nodes[node]);
        this.log.truncate(this.durable_end);
        this.core = open(node, &this.log);
        (this.heard, this.broker_epoch) = (0, broker_epoch);
    }

    fn step(&mut self, node: usize, input: Input, records: &[Record]) {
        let mut effects = Vec::new();
        self.nodes[node].core.step(input, &mut effects);
        for effect in effects {
            self.carry_out(node, effect, records);
        }
        if let Err(law) = self.nodes[node].core.invariants() {
            self.break_law(law);
        }
    }

    fn carry_out(&mut self, node: usize, effect: Effect, records: &[Record]) {
        let this = &mut self.nodes[node];
        match effect {
            Effect::BeginEpoch { epoch, start } => {
                self.note(|| format!("    {node}  leads epoch {epoch} from {start} on"));
            }
            Effect::WriteLog { waiter, base_offset, epoch } => {
                assert_eq!(base_offset as usize, this.log.len());
                this.log.push((epoch, waiter.0));
                if self.names.insert((epoch, base_offset), waiter.0).is_some() {
                    self.break_law(format!("two records are at {base_offset} in epoch {epoch}"));
                }
                self.note(|| format!("    {node}  appends at {base_offset}"));
            }
            Effect::WriteFetched { base, end } => {
                assert_eq!((base as usize, end as usize), (this.log.len(), this.log.len() + records.len()));
                this.log.extend(records);
                self.note(|| format!("    {node}  writes {base} to {end}"));
            }
            Effect::Truncate { to } => {
                this.log.truncate(to as usize);
                this.durable_end = this.durable_end.min(to as usize);
                self.cuts += 1;
                self.note(|| format!("    {node}  cuts its log to {to}"));
            }
            Effect::ReportProgress { epoch, durable_end } => {
                let leader = this.core.fetch_position().map(|(leader, _)| leader.0 as usize);
                let message = Message::Progress { broker_epoch: this.broker_epoch, epoch, durable_end };
                self.network.extend(leader.map(|leader| (node, leader, message)));
            }
            Effect::ProposeIsr { epoch, partition_epoch, isr } => {
                let ids: Vec<_> = isr.iter().map(|member| member.broker).collect();
                self.network.push((node, NODES, Message::Propose { epoch, partition_epoch, isr }));
                self.note(|| format!("    {node}  asks for the ISR {ids:?}"));
            }
            Effect::HighWatermark(end) => self.check_commit(node, end as usize),
            Effect::CompleteAppend { waiter, base_offset } => {
                self.acknowledged += 1;
                if self.committed.get(base_offset as usize).is_none_or(|(_, value)| *value != waiter.0) {
                    self.break_law(format!(
                        "{waiter:?} is acknowledged, and another record is at {base_offset}"
                    ));
                }
                self.note(|| format!("    {node}  acknowledges {base_offset}"));
            }
            Effect::FailAppend { reason, .. } => self.note(|| format!("    {node}  refuses: {reason}")),
            Effect::AdvanceStart { .. } | Effect::ForgetProducers(_) | Effect::RequestNewEpoch { .. } => {}
        }
    }

    fn check_commit(&mut self, node: usize, end: usize) {
        for offset in 0..end {
            let record = self.nodes[node].log[offset];
            match self.committed.get(offset) {
                None => self.committed.push(record),
                Some(known) if *known == record => {}
                Some(_) => self.break_law(format!("{node} shows another record at {offset}")),
            }
        }
        for member in self.isr.union(&self.elr).copied().collect::<Vec<_>>() {
            let Node { log, durable_end, .. } = &self.nodes[member];
            if log[..*durable_end].get(..self.committed.len()) != Some(&self.committed[..]) {
                self.break_law(format!("{member} may be elected, and does not keep all that is committed"));
            }
        }
        self.note(|| format!("    {node}  shows what lies below {end}"));
    }
}
