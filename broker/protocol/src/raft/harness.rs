//! A cluster in memory for tests: nodes with disks that forget what was not synced, and a network that loses, repeats
//! and reorders. The same seed gives the same run.

mod disk;
mod trace;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use self::disk::Disk;
use self::trace::Trace;
use super::*;
use crate::random::Random;
use crate::types::{BrokerId, FolderId};

pub(super) fn voter(node: usize, folder: u128) -> VoterId {
    VoterId { broker: BrokerId(node as i32), folder: FolderId(Uuid::from_u128(folder)) }
}

/// The first `nodes` nodes with the folder 1.
pub(super) fn voters(nodes: usize) -> Voters {
    Voters::new((0..nodes).map(|node| voter(node, 1))).expect("distinct nodes")
}

pub(super) struct Node {
    pub(super) id: VoterId,
    /// `None` while it is down.
    pub(super) raft: Option<Raft>,
    disk: Disk,
    timer: Option<Duration>,
    held: Vec<(HardStateSeq, Envelope)>,
    reads: Vec<(VoterId, Term, Index)>,
    snapshot_reads: Vec<(VoterId, Term, Snapshot, u64)>,
    /// The state machine: what was applied. Behind the commit by what the node has not got around to.
    state: Vec<Entry>,
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
    /// For each of them, in which term it was first known to be.
    committed_in: Vec<Term>,
    reads: BTreeMap<ReadId, usize>,
    next_id: u64,
    pub(super) reads_ready: usize,
    pub(super) snapshots_installed: usize,
    pub(super) broken: Option<String>,
    trace: Trace,
}

pub(super) fn limits() -> Limits {
    Limits {
        entry_bytes_max: 64,
        append_bytes_max: 40,
        piece_bytes_max: 40,
        cache_bytes_max: 300,
        uncommitted_max: 16,
        reads_max: 4,
        observers_max: 8,
        entries_retained: 3,
        snapshot_bytes_max: 1 << 20,
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
            snapshot_reads: Vec::new(),
            state: Vec::new(),
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
            committed_in: Vec::new(),
            reads: BTreeMap::new(),
            next_id: 0,
            reads_ready: 0,
            snapshots_installed: 0,
            broken: None,
            trace: Trace::default(),
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
        let (snapshot, state) = disk.snapshot.clone().unzip();
        let start = StartState {
            me: *id,
            voters: self.voters.clone(),
            hard_state: disk.hard,
            snapshot,
            log: disk.position(),
            damage: disk.damage,
        };
        let mut effects = Vec::new();
        let timing = Timing::default();
        *raft = Some(Raft::start(start, timing, limits(), self.now, jitter, &mut effects));
        self.nodes[node].state = state.unwrap_or_default();
        // What a snapshot holds is what the entries below its end have made.
        let snapshot_end = self.nodes[node].disk.snapshot.as_ref().map_or(0, |(snapshot, _)| snapshot.at.end);
        if self.committed.get(..snapshot_end as usize) != Some(&self.nodes[node].state) {
            self.break_law(format!("the snapshot of {node} at {snapshot_end} is not the state there"));
        }
        self.carry_out(node, effects);
    }

    /// Power fails: what is not synced is lost, all or in part.
    pub(super) fn crash(&mut self, node: usize) {
        let Cluster { random, nodes, committed, .. } = self;
        let Node { raft, disk, timer, held, reads, snapshot_reads, .. } = &mut nodes[node];
        (*raft, *timer) = (None, None);
        held.clear();
        reads.clear();
        snapshot_reads.clear();
        disk.hard_unsynced.clear();
        match disk.cut.take() {
            Some((_, before)) if random.percent(50) => disk.log = before,
            Some((to, _)) => disk.truncate(to as usize),
            None => {
                let unsynced = disk.end() - disk.durable_end;
                disk.truncate(disk.durable_end + random.below(unsynced + 1));
            }
        }
        disk.durable_end = disk.end();
        if disk.installing && random.percent(50) {
            let (snapshot, _) = disk.arriving.take().expect("what is installed has arrived");
            let made_by = &committed[..snapshot.at.end as usize];
            disk.install(snapshot, made_by, random.percent(50));
        }
        (disk.arriving, disk.installing, disk.reset) = (None, false, None);
    }

    /// Power fails, and a part of the log does not come back, or the vote does not.
    pub(super) fn crash_and_damage(&mut self, node: usize, vote: bool) {
        self.crash(node);
        let Cluster { random, nodes, .. } = self;
        let disk = &mut nodes[node].disk;
        if vote {
            disk.hard = HardState::default();
            disk.damage = Some(Damage::Vote);
        } else if !disk.log.is_empty() {
            let to = disk.start + random.below(disk.log.len());
            disk.truncate(to);
            disk.damage = Some(Damage::Log);
        }
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
            let Node { id, disk, timer, held, reads, snapshot_reads, .. } = &mut self.nodes[node];
            self.trace.effect(node, &effect);
            match effect {
                Effect::PersistHardState { seq, state } => disk.hard_unsynced.push_back((seq, state)),
                Effect::AppendEntries { first, entries } => {
                    assert_eq!(first as usize, disk.end(), "entries go to the end of the log");
                    assert!(disk.cut.is_none(), "nothing is appended while the log is cut");
                    disk.log.extend(entries);
                }
                Effect::TruncateLog { to } => {
                    disk.damage = None;
                    disk.cut = Some((to, disk.log[..disk.durable_end - disk.start].to_vec()));
                    disk.truncate(to as usize);
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
                // At leisure: some do so at once, some never.
                Effect::CompactLog { to } if node.is_multiple_of(2) && disk.cut.is_none() => {
                    disk.drop_below(to as usize)
                }
                Effect::CompactLog { .. } => {}
                Effect::ResetLog { start } => {
                    let (snapshot, made_by) = disk.snapshot.take().expect("a snapshot beyond the log");
                    assert_eq!(snapshot.at.end, start);
                    disk.install(snapshot, &made_by, true);
                    disk.reset = Some(start);
                }
                Effect::ReadSnapshot { to, term, snapshot, offset, .. } => {
                    snapshot_reads.push((to, term, snapshot, offset));
                }
                Effect::WriteSnapshot { snapshot, offset, bytes } => {
                    let before =
                        disk.arriving.take().filter(|(arriving, _)| offset > 0 && *arriving == snapshot);
                    assert_eq!(before.map_or(0, |(_, received)| received), offset, "pieces arrive in order");
                    disk.arriving = Some((snapshot, offset + bytes.len() as u64));
                }
                Effect::InstallSnapshot { snapshot } => {
                    assert_eq!(disk.arriving, Some((snapshot.clone(), snapshot.bytes)));
                    disk.installing = true;
                }
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
        // A state machine may be behind.
        let lag = if self.random.percent(20) { self.random.below(3) } else { 0 };
        for index in self.nodes[node].state.len()..end {
            let Some(entry) = self.nodes[node].disk.get(index).cloned() else {
                return self.break_law(format!("{index} is committed on {node} and not in its log"));
            };
            match self.committed.get(index) {
                Some(known) if *known != entry => {
                    return self.break_law(format!("{index} was committed as {known:?} and as {entry:?}"));
                }
                Some(_) => {}
                None => {
                    self.committed.push(entry.clone());
                    self.committed_in.push(self.raft(node).term());
                }
            }
            if index + lag < end {
                self.nodes[node].state.push(entry);
            }
        }
    }

    /// Election Safety and Leader Completeness (figure 3).
    fn check_leader(&mut self, node: usize, term: Term) {
        if let Some(other) = self.leaders.insert(term, self.nodes[node].id) {
            self.break_law(format!("{other} and {} lead term {term}", self.nodes[node].id));
        }
        let disk = &self.nodes[node].disk;
        let lacks = |(index, entry)| {
            index >= disk.start && self.committed_in[index] < term && disk.get(index) != Some(entry)
        };
        if self.committed.iter().enumerate().any(lacks) {
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
        let disks: Vec<&Disk> = self.nodes.iter().map(|node| &node.disk).collect();
        let mut broken = None;
        for (at, one) in disks.iter().enumerate() {
            for other in &disks[at + 1..] {
                let both = one.start.max(other.start)..one.end().min(other.end());
                let term = |disk: &Disk, index| disk.get(index).map(|entry| entry.term);
                let common = both.clone().rev().find(|index| term(one, *index) == term(other, *index));
                let agree = |index: &usize| one.get(*index) == other.get(*index);
                if let Some(last) = common.filter(|last| !(both.start..*last).all(|index| agree(&index))) {
                    broken = Some(format!("logs agree at {last} and not before"));
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
        disk.damage = disk.damage.filter(|damage| *damage != Damage::Vote);
        let (free, still): (Vec<_>, Vec<_>) = held.drain(..).partition(|(after, _)| *after <= seq);
        *held = still;
        self.network.extend(free.into_iter().map(|(_, envelope)| envelope));
        self.step(node, Input::HardStatePersisted { seq });
    }

    /// Syncs the log up to `end`, a cut or a snapshot first.
    pub(super) fn sync_log(&mut self, node: usize, end: usize) {
        let Node { disk, state, .. } = &mut self.nodes[node];
        if let Some((to, _)) = disk.cut.take() {
            self.step(node, Input::Truncated { to });
            return;
        }
        if let Some(to) = disk.reset.take() {
            self.step(node, Input::Truncated { to });
            return;
        }
        if disk.installing {
            let (snapshot, _) = disk.arriving.take().expect("what is installed has arrived");
            let at = snapshot.at.clone();
            *state = self.committed[..at.end as usize].to_vec();
            self.snapshots_installed += 1;
            disk.install(snapshot, state, true);
            self.step(node, Input::SnapshotInstalled { end: at.end });
            return;
        }
        let end = end.min(disk.end());
        if end > disk.durable_end {
            disk.durable_end = end;
            self.step(node, Input::Persisted { end: end as Index });
        }
    }

    /// Takes a snapshot of what is applied.
    pub(super) fn take_snapshot(&mut self, node: usize) {
        let Node { raft: Some(raft), disk, state, .. } = &mut self.nodes[node] else { return };
        let Some(at) = raft.snapshot_point(state.len() as Index) else { return };
        // The pieces' content is not looked at: its length and the point name it.
        let bytes = 1 + at.end as u64 * 7;
        let snapshot = Snapshot { at, bytes, checksum: 1 };
        disk.snapshot = Some((snapshot.clone(), state.clone()));
        self.step(node, Input::SnapshotPersisted(snapshot));
    }

    pub(super) fn sync_all(&mut self, node: usize) {
        self.sync_hard_state(node);
        self.sync_log(node, usize::MAX);
    }

    /// The disk is full: a part of what is not synced is cut again.
    pub(super) fn fail_append(&mut self, node: usize) {
        let Cluster { random, nodes, .. } = self;
        let disk = &mut nodes[node].disk;
        let unsynced = disk.end() - disk.durable_end;
        if disk.cut.is_some() || unsynced == 0 {
            return;
        }
        let from = disk.durable_end + random.below(unsynced);
        disk.truncate(from);
        self.step(node, Input::AppendFailed { from: from as Index });
    }

    pub(super) fn read_for_followers(&mut self, node: usize) {
        let Node { reads, snapshot_reads, disk, .. } = &mut self.nodes[node];
        let entries = reads.drain(..).map(|(to, term, from)| {
            let skipped = (from as usize).saturating_sub(disk.start);
            let entries = disk.log.iter().skip(skipped).take(3).cloned().collect();
            Input::EntriesRead { to, term, from, entries }
        });
        let newest = disk.snapshot.as_ref().map(|(snapshot, _)| snapshot);
        let pieces = snapshot_reads.drain(..).map(|(to, term, snapshot, offset)| {
            let left = if newest == Some(&snapshot) { snapshot.bytes - offset } else { 0 };
            let bytes = vec![0; left.min(32) as usize].into();
            Input::SnapshotRead { to, term, snapshot, offset, bytes }
        });
        let answers: Vec<_> = entries.chain(pieces).collect();
        answers.into_iter().for_each(|input| self.step(node, input));
    }

    pub(super) fn deliver(&mut self, at: usize) {
        if self.paused.contains(&(self.network[at].to.broker.0 as usize)) {
            return;
        }
        let envelope = self.network.remove(at);
        let (from, to) = (envelope.from.broker.0 as usize, envelope.to.broker.0 as usize);
        if !self.cut_off.contains(&from) && !self.cut_off.contains(&to) {
            self.trace.message(&envelope);
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

    pub(super) fn log_end_of(&self, node: usize) -> usize {
        self.nodes[node].disk.end()
    }

    pub(super) fn state_of(&self, node: usize) -> &[Entry] {
        &self.nodes[node].state
    }
}
