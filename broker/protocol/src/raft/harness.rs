//! A cluster in memory for tests: nodes with disks that forget what was not synced, and a network that loses, repeats
//! and reorders. The same seed gives the same run.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use super::*;
use crate::types::{BrokerId, FolderId};

/// xorshift64*
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        ((self.next() >> 33) % bound.max(1) as u64) as usize
    }

    pub(super) fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

pub(super) fn voter(node: usize, folder: u128) -> VoterId {
    VoterId { broker: BrokerId(node as i32), folder: FolderId(Uuid::from_u128(folder)) }
}

/// The first `nodes` nodes with the folder 1.
pub(super) fn voters(nodes: usize) -> Voters {
    Voters::new((0..nodes).map(|node| voter(node, 1))).expect("distinct nodes")
}

/// What a node's disk holds, and what of it would survive.
#[derive(Default)]
struct Disk {
    hard: HardState,
    hard_unsynced: VecDeque<(HardStateSeq, HardState)>,
    log: Vec<Entry>,
    durable_end: usize,
    /// A cut that is not synced, and the durable log as it was before it.
    cut: Option<(Index, Vec<Entry>)>,
}

pub(super) struct Node {
    pub(super) id: VoterId,
    /// `None` while it is down.
    pub(super) raft: Option<Raft>,
    disk: Disk,
    timer: Option<Duration>,
    held: Vec<(HardStateSeq, Envelope)>,
    reads: Vec<(VoterId, Term, Index)>,
    applied: usize,
}

/// The cluster, and what must hold of it for ever.
pub(super) struct Cluster {
    pub(super) random: Random,
    pub(super) now: Duration,
    pub(super) nodes: Vec<Node>,
    pub(super) network: Vec<Envelope>,
    /// Nodes that nobody can reach.
    pub(super) cut_off: BTreeSet<usize>,
    /// Processes that are stopped: they neither hear nor tick, but their disk goes on.
    pub(super) paused: BTreeSet<usize>,
    voters: Voters,
    leaders: BTreeMap<Term, VoterId>,
    pub(super) committed: Vec<Entry>,
    reads: BTreeMap<ReadId, usize>,
    next_id: u64,
    pub(super) reads_ready: usize,
    pub(super) broken: Option<String>,
}

pub(super) fn limits() -> Limits {
    Limits {
        entry_bytes_max: 64,
        append_bytes_max: 40,
        cache_bytes_max: 300,
        uncommitted_max: 16,
        reads_max: 4,
        observers_max: 8,
    }
}

impl Cluster {
    pub(super) fn new(nodes: usize, seed: u64) -> Cluster {
        Cluster::with_voters(nodes, voters(nodes), seed)
    }

    /// A cluster in which some nodes only follow.
    pub(super) fn with_voters(nodes: usize, voters: Voters, seed: u64) -> Cluster {
        let new_node = |id| Node {
            id,
            raft: None,
            disk: Disk::default(),
            timer: None,
            held: Vec::new(),
            reads: Vec::new(),
            applied: 0,
        };
        let mut cluster = Cluster {
            random: Random::new(seed),
            now: Duration::ZERO,
            nodes: (0..nodes).map(|node| new_node(voter(node, 1))).collect(),
            network: Vec::new(),
            cut_off: BTreeSet::new(),
            paused: BTreeSet::new(),
            voters,
            leaders: BTreeMap::new(),
            committed: Vec::new(),
            reads: BTreeMap::new(),
            next_id: 0,
            reads_ready: 0,
            broken: None,
        };
        (0..nodes).for_each(|node| cluster.restart(node));
        cluster
    }

    pub(super) fn restart(&mut self, node: usize) {
        let jitter = self.random.next();
        let Node { id, raft, disk, .. } = &mut self.nodes[node];
        if raft.is_some() {
            return;
        }
        let mut terms: Vec<(Term, Index)> = Vec::new();
        for (index, entry) in (0..).zip(&disk.log) {
            if terms.last().is_none_or(|(term, _)| *term < entry.term) {
                terms.push((entry.term, index));
            }
        }
        let changes = (0..).zip(&disk.log).filter_map(|(index, entry)| Some((index, entry.voters()?)));
        let voters = changes.collect();
        let log = LogPosition { end: disk.log.len() as Index, terms, voters, ..LogPosition::default() };
        let state =
            StartState { me: *id, voters: self.voters.clone(), hard_state: disk.hard, log, sound: true };
        let mut effects = Vec::new();
        let timing = Timing::default();
        *raft = Some(Raft::start(state, timing, limits(), self.now, jitter, &mut effects));
        self.nodes[node].applied = 0;
        self.carry_out(node, effects);
    }

    /// Power fails: what is not synced is lost, all or in part.
    pub(super) fn crash(&mut self, node: usize) {
        let Cluster { random, nodes, .. } = self;
        let Node { raft, disk, timer, held, reads, .. } = &mut nodes[node];
        (*raft, *timer) = (None, None);
        held.clear();
        reads.clear();
        disk.hard_unsynced.clear();
        match disk.cut.take() {
            Some((_, before)) if random.percent(50) => disk.log = before,
            Some((to, _)) => disk.log.truncate(to as usize),
            None => {
                let unsynced = disk.log.len() - disk.durable_end;
                disk.log.truncate(disk.durable_end + random.below(unsynced + 1));
            }
        }
        disk.durable_end = disk.log.len();
    }

    /// The disk is lost: the node comes back with an empty folder, which is another voter.
    pub(super) fn wipe(&mut self, node: usize) {
        self.crash(node);
        self.nodes[node].disk = Disk::default();
        self.nodes[node].id.folder = FolderId(Uuid::from_u128(2));
        self.restart(node);
        if let Some(leader) = self.leader() {
            self.tell_observers(leader);
        }
    }

    pub(super) fn step(&mut self, node: usize, input: Input) {
        let mut effects = Vec::new();
        let Some(raft) = &mut self.nodes[node].raft else { return };
        raft.step(self.now, input, &mut effects);
        if let Err(law) = raft.invariants() {
            self.broken.get_or_insert(law);
        }
        self.carry_out(node, effects);
    }

    fn carry_out(&mut self, node: usize, effects: Vec<Effect>) {
        let mut new_leader = false;
        for effect in effects {
            let Node { id, disk, timer, held, reads, .. } = &mut self.nodes[node];
            match effect {
                Effect::PersistHardState { seq, state } => disk.hard_unsynced.push_back((seq, state)),
                Effect::AppendEntries { first, entries } => {
                    assert_eq!(first as usize, disk.log.len(), "entries go to the end of the log");
                    assert!(disk.cut.is_none(), "nothing is appended while the log is cut");
                    disk.log.extend(entries);
                }
                Effect::TruncateLog { to } => {
                    disk.cut = Some((to, disk.log[..disk.durable_end].to_vec()));
                    disk.log.truncate(to as usize);
                    disk.durable_end = disk.durable_end.min(to as usize);
                }
                Effect::Send { to, message, after } => {
                    let envelope = Envelope { from: *id, to, message };
                    match after {
                        SyncPoint::Now => self.network.push(envelope),
                        SyncPoint::HardState(seq) => held.push((seq, envelope)),
                    }
                }
                Effect::SetTimer(at) => *timer = Some(at),
                Effect::ReadEntries { to, term, from, .. } => reads.push((to, term, from)),
                Effect::Commit { end } => self.check_commit(node, end as usize),
                Effect::BecameLeader { term } => {
                    self.check_leader(node, term);
                    new_leader = true;
                }
                Effect::ReadReady { id, commit } => self.check_read(id, commit as usize),
                Effect::Complain { about, what } => self.break_law(format!("{about}: {what}")),
                Effect::SnapshotNeeded { .. } => self.break_law("no log starts later than at 0".to_owned()),
                Effect::Resigned { .. }
                | Effect::Following { .. }
                | Effect::ProposalAccepted { .. }
                | Effect::ProposalRefused { .. }
                | Effect::ReadRefused { .. } => {}
            }
        }
        if new_leader {
            self.tell_observers(node);
        }
    }

    /// Everyone follows, whoever votes.
    fn tell_observers(&mut self, node: usize) {
        let everyone = self.nodes.iter().map(|node| node.id).collect();
        self.step(node, Input::Observers(everyone));
    }

    fn break_law(&mut self, law: String) {
        self.broken.get_or_insert(law);
    }

    /// Committed entries never change (State Machine Safety, figure 3).
    fn check_commit(&mut self, node: usize, end: usize) {
        for index in self.nodes[node].applied..end {
            let Some(entry) = self.nodes[node].disk.log.get(index).cloned() else {
                return self.break_law(format!("{index} is committed on {node} and not in its log"));
            };
            match self.committed.get(index) {
                Some(known) if *known != entry => {
                    return self.break_law(format!("{index} was committed as {known:?} and as {entry:?}"));
                }
                Some(_) => {}
                None => self.committed.push(entry),
            }
        }
        self.nodes[node].applied = end;
    }

    /// Election Safety and Leader Completeness (figure 3).
    fn check_leader(&mut self, node: usize, term: Term) {
        if let Some(other) = self.leaders.insert(term, self.nodes[node].id) {
            self.break_law(format!("{other} and {} lead term {term}", self.nodes[node].id));
        }
        if !self.nodes[node].disk.log.starts_with(&self.committed) {
            self.break_law(format!("the leader of term {term} lacks a committed entry"));
        }
    }

    /// A linearizable read sees all that was committed before it began (§8).
    fn check_read(&mut self, id: ReadId, commit: usize) {
        let Some(before) = self.reads.remove(&id) else { return };
        self.reads_ready += 1;
        if commit < before {
            self.break_law(format!("a read at {commit} began when {before} was committed"));
        }
    }

    /// Log Matching (figure 3): where two logs have an entry of one term at one index, they agree up to there.
    pub(super) fn check_logs(&mut self) {
        let logs: Vec<&Vec<Entry>> = self.nodes.iter().map(|node| &node.disk.log).collect();
        let mut broken = None;
        for (at, one) in logs.iter().enumerate() {
            for other in &logs[at + 1..] {
                let common = one.iter().zip(other.iter()).rposition(|(a, b)| a.term == b.term);
                let end = common.map_or(0, |index| index + 1);
                if one[..end] != other[..end] {
                    broken = Some(format!("logs agree at {end} and not before: {one:?} {other:?}"));
                }
            }
        }
        if let Some(law) = broken {
            self.break_law(law);
        }
    }

    pub(super) fn sync_hard_state(&mut self, node: usize) {
        let Node { disk, held, .. } = &mut self.nodes[node];
        let Some((seq, state)) = disk.hard_unsynced.pop_back() else { return };
        disk.hard_unsynced.clear();
        disk.hard = state;
        let (free, still): (Vec<_>, Vec<_>) = held.drain(..).partition(|(after, _)| *after <= seq);
        *held = still;
        self.network.extend(free.into_iter().map(|(_, envelope)| envelope));
        self.step(node, Input::HardStatePersisted { seq });
    }

    /// Syncs the log up to `end`, a cut first.
    pub(super) fn sync_log(&mut self, node: usize, end: usize) {
        let disk = &mut self.nodes[node].disk;
        if let Some((to, _)) = disk.cut.take() {
            self.step(node, Input::Truncated { to });
            return;
        }
        let end = end.min(disk.log.len());
        if end > disk.durable_end {
            disk.durable_end = end;
            self.step(node, Input::Persisted { end: end as Index });
        }
    }

    pub(super) fn sync_all(&mut self, node: usize) {
        self.sync_hard_state(node);
        self.sync_log(node, usize::MAX);
    }

    /// The disk is full: a part of what is not synced is cut again.
    pub(super) fn fail_append(&mut self, node: usize) {
        let Cluster { random, nodes, .. } = self;
        let disk = &mut nodes[node].disk;
        let unsynced = disk.log.len() - disk.durable_end;
        if disk.cut.is_some() || unsynced == 0 {
            return;
        }
        let from = disk.durable_end + random.below(unsynced);
        disk.log.truncate(from);
        self.step(node, Input::AppendFailed { from: from as Index });
    }

    pub(super) fn read_for_followers(&mut self, node: usize) {
        let Node { reads, disk, .. } = &mut self.nodes[node];
        let answers: Vec<_> = reads
            .drain(..)
            .map(|(to, term, from)| {
                let entries = disk.log.iter().skip(from as usize).take(3).cloned().collect();
                Input::EntriesRead { to, term, from, entries }
            })
            .collect();
        answers.into_iter().for_each(|input| self.step(node, input));
    }

    pub(super) fn deliver(&mut self, at: usize) {
        if self.paused.contains(&(self.network[at].to.broker.0 as usize)) {
            return;
        }
        let envelope = self.network.remove(at);
        let (from, to) = (envelope.from.broker.0 as usize, envelope.to.broker.0 as usize);
        if !self.cut_off.contains(&from) && !self.cut_off.contains(&to) {
            self.step(to, Input::Message(envelope));
        }
    }

    pub(super) fn pass_time(&mut self, time: Duration) {
        self.now += time;
        for node in 0..self.nodes.len() {
            if self.nodes[node].timer.is_some_and(|at| at <= self.now) && !self.paused.contains(&node) {
                self.nodes[node].timer = None;
                let jitter = self.random.next();
                self.step(node, Input::Tick { jitter });
            }
        }
    }

    pub(super) fn propose(&mut self, node: usize) {
        self.next_id += 1;
        let payload = Bytes::from(format!("{}", self.next_id));
        self.step(node, Input::Propose { id: ProposalId(self.next_id), payload });
    }

    pub(super) fn change_voters(&mut self, node: usize, change: VoterChange) {
        self.next_id += 1;
        self.step(node, Input::ChangeVoters { id: ProposalId(self.next_id), change });
    }

    pub(super) fn read(&mut self, node: usize) {
        self.next_id += 1;
        let id = ReadId(self.next_id);
        self.reads.insert(id, self.committed.len());
        self.step(node, Input::Read { id });
    }

    /// Runs a cluster that works, in order and without loss, for `time`.
    pub(super) fn run_well(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end && self.broken.is_none() {
            for _ in 0..5 {
                let waiting = std::mem::take(&mut self.network);
                for envelope in waiting {
                    self.network.push(envelope);
                    self.deliver(self.network.len() - 1);
                }
                for node in 0..self.nodes.len() {
                    self.sync_all(node);
                    self.read_for_followers(node);
                }
            }
            self.pass_time(Duration::from_millis(1));
        }
    }

    pub(super) fn leader(&self) -> Option<usize> {
        let leads = |node: &Node| node.raft.as_ref().filter(|raft| raft.is_leader()).map(|raft| raft.term());
        let newest = self.nodes.iter().filter_map(leads).max()?;
        self.nodes.iter().position(|node| leads(node) == Some(newest))
    }

    pub(super) fn raft(&self, node: usize) -> &Raft {
        self.nodes[node].raft.as_ref().expect("the node is up")
    }

    pub(super) fn raft_if_up(&self, node: usize) -> Option<&Raft> {
        self.nodes[node].raft.as_ref()
    }

    pub(super) fn log_of(&self, node: usize) -> &[Entry] {
        &self.nodes[node].disk.log
    }
}
