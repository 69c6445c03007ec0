//! A state of the explored replicas, and how each action changes it.

mod disk;
mod laws;
mod register;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use weir_defect::defect;
use weir_protocol::metadata::IsrMember;
use weir_protocol::partition::epochs::EpochEntry;
use weir_protocol::partition::replication::{FetchPosition, FetchVerdict};
use weir_protocol::partition::{
    Acks, Effect, Fetched, Input, Leadership, Limits, LogState, Partition, WaiterId,
};
use weir_protocol::types::{BrokerId, LeaderEpoch, LogId, Offset};

use self::disk::{Disk, Record};
use self::register::Register;
use super::{Action, Bounds};
use crate::explore;

const LOG: LogId = LogId::METADATA;
/// Whoever is behind lags, and whatever waits for a time is due.
const TIMELESS: Limits = Limits { waiters_max: 16, replica_lag_ms_max: 0, isr_retry_ms: 0 };

fn broker(node: usize) -> BrokerId {
    BrokerId(node as i32)
}

#[derive(Clone, Debug, Hash)]
struct Node {
    core: Partition,
    disk: Disk,
    /// The partition epoch that it has heard of.
    heard: i32,
    broker_epoch: i64,
}

/// What is said.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Message {
    Fetch {
        broker_epoch: i64,
        position: FetchPosition,
    },
    Answer {
        position: FetchPosition,
        verdict: FetchVerdict,
        records: Vec<Record>,
    },
    Progress {
        broker_epoch: i64,
        epoch: LeaderEpoch,
        durable_end: Offset,
    },
    /// To the controller.
    Propose {
        epoch: LeaderEpoch,
        partition_epoch: i32,
        isr: Vec<IsrMemberKey>,
    },
}

/// (broker, broker epoch)
type IsrMemberKey = (i32, i64);

/// A message on its way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Flying {
    from: usize,
    /// One more than the last node: the controller.
    to: usize,
    message: Message,
}

/// What has happened so far, as far as laws and bounds ask for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Past {
    names: BTreeMap<(LeaderEpoch, usize), u8>,
    /// What was below a leader's high watermark, and in which epoch it first was.
    committed: Vec<(Record, LeaderEpoch)>,
    records: u8,
    crashes: u8,
    losses: u8,
    fences: u8,
    ticks: u8,
}

/// A state of the replicas.
#[derive(Clone, Debug)]
pub struct World {
    nodes: Vec<Arc<Node>>,
    hashes: Vec<u64>,
    register: Register,
    /// By link; within a link, the oldest first.
    network: Vec<Arc<Flying>>,
    past: Arc<Past>,
    broken: Option<(&'static str, String)>,
}

impl Hash for World {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.hashes.hash(state);
        self.register.hash(state);
        self.network.hash(state);
        self.past.hash(state);
        self.broken.hash(state);
    }
}

impl PartialEq for World {
    fn eq(&self, other: &World) -> bool {
        hash_of(self) == hash_of(other)
    }
}

fn hash_of(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

impl Node {
    fn start(node: usize, disk: Disk, broker_epoch: i64) -> Node {
        let end = disk.end();
        let state = LogState { start: 0, end, durable_end: end, high_watermark: 0 };
        let core = Partition::new(LOG, broker(node), state, TIMELESS).with_epochs(disk.epochs());
        Node { core, disk, heard: 0, broker_epoch }
    }
}

impl explore::World for World {
    type Bounds = Bounds;
    type Action = Action;
    const LAWS: [&'static str; 6] = super::LAWS;

    fn new(bounds: &Bounds) -> World {
        let register = Register {
            min_insync: bounds.min_insync,
            leader: Some(0),
            epoch: 1,
            partition_epoch: 1,
            isr: (0..bounds.in_sync).collect(),
            elr: Vec::new(),
            uncertain: Vec::new(),
            broker_epochs: vec![1; bounds.replicas],
        };
        let nodes =
            (0..bounds.replicas).map(|node| Arc::new(Node::start(node, Disk::default(), 1))).collect();
        let mut world = World {
            nodes,
            hashes: vec![0; bounds.replicas],
            register,
            network: Vec::new(),
            past: Arc::default(),
            broken: None,
        };
        (0..bounds.replicas).for_each(|node| world.learn(node, bounds));
        world.seal(bounds);
        world
    }

    fn actions(&self, bounds: &Bounds, actions: &mut Vec<Action>) {
        if self.broken.is_some() {
            return;
        }
        for node in 0..self.nodes.len() {
            self.actions_of(node, bounds, actions);
        }
        actions.extend((0..self.network.len()).map(Action::Deliver));
    }

    fn act(&mut self, bounds: &Bounds, action: Action) {
        let past = Arc::make_mut(&mut self.past);
        match action {
            Action::Fetch(node) => self.fetch(node, bounds),
            Action::Deliver(at) => {
                let flying = self.network.remove(at);
                self.deliver(&flying, bounds);
            }
            Action::Produce(node) => {
                past.records += 1;
                let waiter = WaiterId(u64::from(past.records));
                let input = Input::Append {
                    waiter,
                    acks: Acks::All,
                    count: 1,
                    epoch: None,
                    producer: None,
                    now_ms: 0,
                };
                self.step(node, bounds, input);
            }
            Action::Sync(node) => self.sync(node, bounds),
            Action::Learn(node) => self.learn(node, bounds),
            Action::Elect(node) => self.register.lead(Some(node)),
            Action::Fence(node) => {
                past.fences += 1;
                self.register.fence(node);
            }
            Action::Tick(node) => {
                past.ticks += 1;
                self.step(node, bounds, Input::Tick { now_ms: 0 });
            }
            Action::Crash { node, tail_back } => {
                past.crashes += 1;
                self.restart(node, |disk| disk.lose_power(tail_back), true);
            }
            Action::Lose(node, from) => {
                past.losses += 1;
                let lose = |disk: &mut Disk| {
                    disk.lose_power(false);
                    disk.log.truncate(from);
                    disk.durable_end = from;
                };
                self.restart(node, lose, false);
            }
        }
        self.seal(bounds);
    }

    fn broken(&self) -> Option<&'static str> {
        self.broken.as_ref().map(|(law, _)| *law)
    }
}

impl World {
    fn actions_of(&self, node: usize, bounds: &Bounds, actions: &mut Vec<Action>) {
        let (Node { core, disk, heard, .. }, past) = (&*self.nodes[node], &*self.past);
        let register = &self.register;
        if core.fetch_position().is_some_and(|(_, position)| !self.has_asked(node, &position, bounds.retries))
        {
            actions.push(Action::Fetch(node));
        }
        if past.records < bounds.records && core.admit(Acks::All, None).is_ok() {
            actions.push(Action::Produce(node));
        }
        if !disk.is_synced() {
            actions.push(Action::Sync(node));
        }
        if *heard < register.partition_epoch {
            actions.push(Action::Learn(node));
        }
        let may_elect = register.epoch < bounds.epochs;
        if may_elect && register.leader != Some(node) && register.candidates().contains(&node) {
            actions.push(Action::Elect(node));
        }
        let leads = register.leader == Some(node);
        if past.fences < bounds.fences && register.isr.contains(&node) && (may_elect || !leads) {
            actions.push(Action::Fence(node));
        }
        if past.ticks < bounds.ticks && core.is_leader() && self.says_more(node) {
            actions.push(Action::Tick(node));
        }
        // A leader that comes back takes a new epoch.
        if !may_elect && leads {
            return;
        }
        if past.crashes < bounds.crashes {
            actions.push(Action::Crash { node, tail_back: false });
            if disk.cut.as_ref().is_some_and(|tail| !tail.is_empty()) {
                actions.push(Action::Crash { node, tail_back: true });
            }
        }
        if past.losses < bounds.losses {
            actions.extend((0..disk.durable_end).map(|from| Action::Lose(node, from)));
        }
    }

    /// Whether what a follower would ask is on its way already, or is about to be answered.
    fn has_asked(&self, node: usize, position: &FetchPosition, retries: bool) -> bool {
        self.network.iter().any(|flying| match &flying.message {
            Message::Fetch { position: asked, .. } if flying.from == node => {
                asked == position || (!retries && asked.epoch == position.epoch)
            }
            Message::Answer { position: asked, .. } => {
                !retries && flying.to == node && asked.is_same_log(position)
            }
            _ => false,
        })
    }

    /// Whether a tick makes a leader ask for something.
    fn says_more(&self, node: usize) -> bool {
        let mut effects = Vec::new();
        self.nodes[node].core.clone().step(Input::Tick { now_ms: 0 }, &mut effects);
        !effects.is_empty()
    }

    fn seal(&mut self, bounds: &Bounds) {
        self.check_all(bounds);
        for (node, hash) in self.nodes.iter_mut().zip(&mut self.hashes) {
            if *hash == 0 {
                Arc::make_mut(node).core.forget_history();
                *hash = hash_of(node);
            }
        }
        let nodes = &self.nodes;
        self.network.retain(|flying| match (nodes.get(flying.to), &flying.message) {
            (Some(node), message) => !is_moot(message, &node.core),
            // Of what it has heard to be decided, a leader takes no refusal.
            (None, Message::Propose { partition_epoch, .. }) => *partition_epoch >= nodes[flying.from].heard,
            (None, _) => false,
        });
    }

    fn touch(&mut self, node: usize) -> &mut Node {
        self.hashes[node] = 0;
        Arc::make_mut(&mut self.nodes[node])
    }

    /// Power comes back at once: a node that is down does nothing that one that is slow does not do.
    fn restart(&mut self, node: usize, lose: impl Fn(&mut Disk), certain: bool) {
        let mut disk = self.nodes[node].disk.clone();
        lose(&mut disk);
        let held = (disk.last_epoch(), disk.end());
        self.register.register(node, (!certain).then_some(held));
        let broker_epoch = self.register.broker_epochs[node];
        *self.touch(node) = Node::start(node, disk, broker_epoch);
    }

    fn learn(&mut self, node: usize, bounds: &Bounds) {
        let Register { leader, epoch, partition_epoch, isr, min_insync, broker_epochs, .. } =
            self.register.clone();
        self.touch(node).heard = partition_epoch;
        let input = match leader {
            Some(leader) if leader == node => Input::BecomeLeader(Leadership {
                epoch,
                partition_epoch,
                replicas: (0..self.nodes.len()).map(broker).collect(),
                isr: isr.into_iter().map(broker).collect(),
                min_insync,
                broker_epochs: (0..).map(broker).zip(broker_epochs).collect(),
            }),
            Some(leader) => Input::BecomeFollower { epoch, leader: broker(leader) },
            None => Input::Resign { epoch },
        };
        let led = self.nodes[node].core.is_leader() && self.nodes[node].core.epoch() == epoch;
        self.step(node, bounds, input);
        if self.nodes[node].core.is_leader() && !led {
            self.check_leader(node);
        }
    }

    fn step(&mut self, node: usize, bounds: &Bounds, input: Input) {
        let core = &self.nodes[node].core;
        let before = core.is_leader().then(|| (core.epoch(), core.high_watermark()));
        let mut effects = Vec::new();
        self.touch(node).core.step(input, &mut effects);
        self.check_watermark(node, before);
        for effect in effects {
            self.carry_out(node, bounds, effect);
        }
        if !bounds.late_syncs && !self.nodes[node].disk.is_synced() {
            self.sync(node, bounds);
        }
    }

    fn carry_out(&mut self, node: usize, bounds: &Bounds, effect: Effect) {
        match effect {
            Effect::WriteLog { waiter, base_offset, epoch } => {
                let record = Record { epoch, value: waiter.0 as u8 };
                let log = &mut self.touch(node).disk.log;
                assert_eq!(base_offset as usize, log.len(), "records go to the end of the log");
                log.push(record);
                self.check_name(base_offset as usize, record);
            }
            Effect::Truncate { to } => self.touch(node).disk.truncate(to as usize),
            Effect::HighWatermark(end) => self.check_commit(node, end as usize),
            Effect::CompleteAppend { waiter, base_offset } => {
                self.check_acknowledged(waiter.0 as u8, base_offset as usize);
            }
            Effect::ReportProgress { epoch, durable_end } => {
                let leader = self.nodes[node].core.fetch_position().map(|(leader, _)| leader.0 as usize);
                if let Some(leader) = leader.filter(|_| bounds.progress) {
                    let broker_epoch = self.nodes[node].broker_epoch;
                    self.send(node, leader, Message::Progress { broker_epoch, epoch, durable_end }, bounds);
                }
            }
            Effect::ProposeIsr { epoch, partition_epoch, isr } => {
                let isr = isr.iter().map(|member| (member.broker.0, member.broker_epoch)).collect();
                let controller = self.nodes.len();
                self.send(node, controller, Message::Propose { epoch, partition_epoch, isr }, bounds);
            }
            // What was fetched is written where it arrives.
            Effect::WriteFetched { .. }
            | Effect::BeginEpoch { .. }
            | Effect::FailAppend { .. }
            | Effect::AdvanceStart { .. }
            | Effect::ForgetProducers(_)
            | Effect::RequestNewEpoch { .. } => {}
        }
    }

    fn fetch(&mut self, node: usize, bounds: &Bounds) {
        let Some((leader, position)) = self.nodes[node].core.fetch_position() else { return };
        let broker_epoch = self.nodes[node].broker_epoch;
        self.send(node, leader.0 as usize, Message::Fetch { broker_epoch, position }, bounds);
    }

    fn deliver(&mut self, flying: &Flying, bounds: &Bounds) {
        let (from, to) = (flying.from, flying.to);
        match &flying.message {
            Message::Fetch { broker_epoch, position } => {
                let (position, broker_epoch) = (*position, *broker_epoch);
                let input = Input::ReplicaFetch { from: broker(from), broker_epoch, position, now_ms: 0 };
                self.step(to, bounds, input);
                let verdict = self.nodes[to].core.judge(broker(from), broker_epoch, &position);
                let log = &self.nodes[to].disk.log;
                let records = match verdict {
                    FetchVerdict::Refused(_) => return,
                    FetchVerdict::Matches { .. } => log[position.offset as usize..].to_vec(),
                    FetchVerdict::Diverges { .. } | FetchVerdict::OutOfRange { .. } => Vec::new(),
                };
                let end = log.len() as Offset;
                self.send(to, from, Message::Answer { position, verdict, records }, bounds);
                self.step(to, bounds, Input::Shipped { end });
            }
            Message::Answer { position, verdict, records } => {
                self.receive(to, (*position, *verdict), records, bounds)
            }
            Message::Progress { broker_epoch, epoch, durable_end } => {
                let (broker_epoch, epoch, durable_end) = (*broker_epoch, *epoch, *durable_end);
                let from = broker(from);
                self.step(to, bounds, Input::ReplicaProgress { from, broker_epoch, epoch, durable_end });
            }
            Message::Propose { epoch, partition_epoch, isr } => {
                let members: Vec<_> = isr
                    .iter()
                    .map(|(id, broker_epoch)| IsrMember {
                        broker: BrokerId(*id),
                        broker_epoch: *broker_epoch,
                    })
                    .collect();
                let (epoch, partition_epoch) = (*epoch, *partition_epoch);
                if !self.register.change_isr(partition_epoch, &members) {
                    self.step(from, bounds, Input::IsrRefused { epoch, partition_epoch, now_ms: 0 });
                }
            }
        }
    }

    fn receive(
        &mut self,
        node: usize,
        (position, verdict): (FetchPosition, FetchVerdict),
        records: &[Record],
        bounds: &Bounds,
    ) {
        let mut epochs: Vec<EpochEntry> = (position.offset..)
            .zip(records)
            .map(|(start, record)| EpochEntry { epoch: record.epoch, start })
            .collect();
        epochs.dedup_by_key(|entry| entry.epoch);
        let end = position.offset + records.len() as Offset;
        let fetched = Fetched { position, verdict, end, epochs, producers: Vec::new(), now_ms: 0 };
        let before = self.nodes[node].core.end();
        // The records are at hand when the core asks for them to be written.
        let mut effects = Vec::new();
        self.touch(node).core.step(Input::Fetched(Box::new(fetched)), &mut effects);
        for effect in effects {
            if matches!(effect, Effect::WriteFetched { .. }) {
                assert_eq!(
                    before as usize,
                    self.nodes[node].disk.log.len(),
                    "records go to the end of the log"
                );
                self.touch(node).disk.log.extend(records);
            } else {
                self.carry_out(node, bounds, effect);
            }
        }
        if !bounds.late_syncs && !self.nodes[node].disk.is_synced() {
            self.sync(node, bounds);
        }
    }

    fn sync(&mut self, node: usize, bounds: &Bounds) {
        let disk = &mut self.touch(node).disk;
        disk.cut = None;
        disk.durable_end = disk.log.len();
        let end = disk.end();
        self.step(node, bounds, Input::Durable { end });
    }

    /// On each link the oldest message gives way.
    fn send(&mut self, from: usize, to: usize, message: Message, bounds: &Bounds) {
        let link = (from, to);
        let of = |flying: &Arc<Flying>| (flying.from, flying.to);
        self.network.retain(|flying| of(flying) != link || flying.message != message);
        let first = self.network.partition_point(|flying| of(flying) < link);
        let end = self.network.partition_point(|flying| of(flying) <= link);
        if end - first >= bounds.per_link {
            self.network.remove(first);
        }
        let end = self.network.partition_point(|flying| of(flying) <= link);
        self.network.insert(end, Arc::new(Flying { from, to, message }));
    }
}

/// Whether a message can change nothing any more: it is of an epoch that the node has left behind, or meant for a
/// leader that the node is not and cannot become in that epoch.
fn is_moot(message: &Message, core: &Partition) -> bool {
    let for_leader = |epoch| epoch < core.epoch() || (epoch == core.epoch() && !core.is_leader());
    match message {
        Message::Fetch { position, .. } => for_leader(position.epoch),
        Message::Progress { epoch, .. } => for_leader(*epoch),
        // Z9 takes in what was said of a log that is no more.
        Message::Answer { position, .. } => {
            core.is_leader() || (position.epoch < core.epoch() && !defect!(no_owner_check))
        }
        Message::Propose { .. } => true,
    }
}
