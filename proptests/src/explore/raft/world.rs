//! A state of the explored cluster, and how each action changes it.

mod disk;
mod laws;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;
use weir_protocol::raft::{
    Damage, Effect, Entry, Envelope, HardState, HardStateSeq, Index, Input, Limits, Message, ProposalId,
    Raft, ReadId, Snapshot, StartState, SyncPoint, Term, Timing, VoterChange, Voters,
};
use weir_protocol::types::{BrokerId, FolderId, VoterId};

use self::disk::Disk;
use self::laws::{INVARIANTS, STATE_MACHINE};
use super::{Action, Bounds};
use crate::explore;

const NOW: Duration = Duration::ZERO;
const TIMELESS: Timing = Timing { heartbeat: NOW, election_min: NOW, election_spread: NOW };
const LIMITS: Limits = Limits {
    entry_bytes_max: 64,
    // One entry a message.
    append_bytes_max: 1,
    piece_bytes_max: 1,
    cache_bytes_max: 1 << 20,
    uncommitted_max: 64,
    reads_max: 8,
    observers_max: 8,
    entries_retained: 0,
    snapshot_bytes_max: 64,
};

fn voter(node: usize) -> VoterId {
    VoterId { broker: BrokerId(node as i32), folder: FolderId(Uuid::from_u128(1)) }
}

fn node_of(id: VoterId) -> usize {
    id.broker.0 as usize
}

#[derive(Clone, Debug)]
struct Node {
    raft: Raft,
    disk: Disk,
    /// The newest hard state that is not durable.
    hard_unsynced: Option<(HardStateSeq, HardState)>,
    /// Messages that wait for one.
    held: Vec<(HardStateSeq, VoterId, Arc<Message>)>,
    /// Everything below is applied.
    applied: usize,
    /// Of all of the above.
    hash: u64,
}

/// A message on its way.
#[derive(Clone, Debug)]
struct Flying {
    from: usize,
    to: usize,
    message: Arc<Message>,
    hash: u64,
}

/// What has happened so far, as far as laws and bounds ask for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Past {
    leaders: BTreeMap<Term, usize>,
    committed: Vec<Entry>,
    /// For each of them, in which term it was first known to be.
    committed_in: Vec<Term>,
    /// What was committed when a read began.
    reads: BTreeMap<ReadId, usize>,
    commands: u8,
    crashes: u8,
    damages: u8,
    changes: u8,
    snapshots: u8,
    reads_begun: u8,
    repeats: u8,
    hand_overs: u8,
}

/// A state of the cluster.
#[derive(Clone, Debug)]
pub struct World {
    nodes: Vec<Arc<Node>>,
    /// By link; within a link, the oldest first.
    network: Vec<Flying>,
    past: Arc<Past>,
    broken: Option<(&'static str, String)>,
}

impl Hash for World {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.nodes.iter().for_each(|node| state.write_u64(node.hash));
        for flying in &self.network {
            state.write_u64(flying.hash ^ ((flying.from << 8 | flying.to) as u64).rotate_left(48));
        }
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
    fn start(id: VoterId, voters: Voters, disk: Disk, jitter: u64, effects: &mut Vec<Effect>) -> Node {
        let start = StartState {
            me: id,
            voters,
            hard_state: disk.hard,
            snapshot: disk.snapshot.clone(),
            log: disk.position(),
            damage: disk.damage,
        };
        let applied = disk.snapshot.as_ref().map_or(0, |snapshot| snapshot.at.end as usize);
        let raft = Raft::start(start, TIMELESS, LIMITS, NOW, jitter, effects);
        Node { raft, disk, hard_unsynced: None, held: Vec::new(), applied, hash: 0 }
    }

    /// States that differ in nothing that matters are one.
    fn seal(&mut self) {
        self.raft.forget_history();
        self.hash = hash_of(&(&self.raft, &self.disk, &self.hard_unsynced, &self.held, self.applied));
    }
}

impl explore::World for World {
    type Bounds = Bounds;
    type Action = Action;
    const LAWS: [&'static str; 6] = super::LAWS;

    fn new(bounds: &Bounds) -> World {
        let mut world = World { nodes: Vec::new(), network: Vec::new(), past: Arc::default(), broken: None };
        for node in 0..bounds.nodes {
            let mut effects = Vec::new();
            let mut fresh = Node::start(voter(node), first_voters(bounds), Disk::default(), 0, &mut effects);
            fresh.seal();
            world.nodes.push(Arc::new(fresh));
        }
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
        let name = u64::from(past.commands) + 100 * u64::from(past.changes) + 10_000;
        match action {
            Action::Campaign(node) => self.campaign(node, bounds),
            Action::Deliver(at) => {
                let Flying { from, to, message, .. } = self.network.remove(at);
                let message = Message::clone(&message);
                let envelope = Envelope { from: voter(from), to: voter(to), message };
                self.step(to, bounds, Input::Message(envelope));
            }
            Action::Propose(node) => {
                past.commands += 1;
                let payload = Bytes::copy_from_slice(&[past.commands]);
                self.step(node, bounds, Input::Propose { id: ProposalId(name), payload });
            }
            Action::SyncLog(node) => self.sync_log(node, bounds),
            Action::SyncVote(node) => self.sync_vote(node, bounds),
            Action::Crash { node, tail_back } => {
                past.crashes += 1;
                self.crash_with(node, tail_back, bounds, |_| {});
            }
            Action::DamageLog(node, from) => {
                past.damages += 1;
                let told = if bounds.damage_untold { None } else { Some(Damage::Log) };
                self.crash_with(node, false, bounds, |disk| {
                    disk.truncate(from.min(disk.end()));
                    disk.damage = told;
                });
            }
            Action::DamageVote(node) => {
                past.damages += 1;
                let told = if bounds.damage_untold { None } else { Some(Damage::Vote) };
                self.crash_with(node, false, bounds, |disk| {
                    disk.hard = HardState::default();
                    disk.damage = told;
                });
            }
            Action::Change(node, change) => {
                past.changes += 1;
                self.step(node, bounds, Input::ChangeVoters { id: ProposalId(name), change });
            }
            Action::Snapshot(node) => {
                past.snapshots += 1;
                self.take_snapshot(node, bounds);
            }
            Action::Read(node) => {
                past.reads_begun += 1;
                let id = ReadId(u64::from(past.reads_begun));
                past.reads.insert(id, past.committed.len());
                self.step(node, bounds, Input::Read { id });
            }
            Action::Repeat(node) => {
                past.repeats += 1;
                self.step(node, bounds, Input::Tick { jitter: 0 });
            }
            Action::HandOver(node) => {
                past.hand_overs += 1;
                self.step(node, bounds, Input::HandOver);
            }
        }
        self.nodes.iter_mut().filter(|node| node.hash == 0).for_each(|node| Arc::make_mut(node).seal());
        let nodes = &self.nodes;
        if !bounds.late_votes {
            self.network.retain(|flying| !is_moot(&flying.message, &nodes[flying.to].raft));
        }
    }

    fn broken(&self) -> Option<&'static str> {
        self.broken.as_ref().map(|(law, _)| *law)
    }
}

impl World {
    fn actions_of(&self, node: usize, bounds: &Bounds, actions: &mut Vec<Action>) {
        let (Node { raft, disk, hard_unsynced, .. }, past) = (&*self.nodes[node], &*self.past);
        let leads = raft.is_leader();
        let newest = self.nodes.iter().map(|node| node.raft.term()).max().unwrap_or(0);
        let next_term = if bounds.duels { raft.term() } else { newest } + 1;
        // Where all are alike, the first to campaign may as well be the first.
        let symmetric = newest == 0 && bounds.voters == bounds.nodes;
        if !leads
            && raft.role_name() != "Observer"
            && next_term <= bounds.terms
            && bounds.campaigners.get(next_term as usize - 1).is_none_or(|campaigner| *campaigner == node)
            && (!symmetric || node == 0 || raft.role_name() != "Follower")
        {
            actions.push(Action::Campaign(node));
        }
        if disk.cut.is_some() || disk.installing.is_some() || disk.durable_end < disk.end() {
            actions.push(Action::SyncLog(node));
        }
        if hard_unsynced.is_some() {
            actions.push(Action::SyncVote(node));
        }
        if past.crashes < bounds.crashes && raft.term() > 0 {
            actions.push(Action::Crash { node, tail_back: false });
            if disk.cut.is_some() {
                actions.push(Action::Crash { node, tail_back: true });
            }
        }
        if past.damages < bounds.damages && raft.term() > 0 {
            actions.extend((disk.start..disk.durable_end).map(|from| Action::DamageLog(node, from)));
            actions.push(Action::DamageVote(node));
        }
        if past.snapshots < bounds.snapshots
            && raft.snapshot_point(self.nodes[node].applied as Index).is_some()
        {
            actions.push(Action::Snapshot(node));
        }
        if !leads {
            return;
        }
        let mut offer = |bound, used, action| {
            if used < bound {
                actions.push(action)
            }
        };
        offer(bounds.commands, past.commands, Action::Propose(node));
        offer(bounds.reads, past.reads_begun, Action::Read(node));
        offer(bounds.repeats, past.repeats, Action::Repeat(node));
        offer(bounds.hand_overs, past.hand_overs, Action::HandOver(node));
        for other in 0..self.nodes.len() {
            let change = match raft.voters().contains(voter(other)) {
                true => VoterChange::Remove(voter(other)),
                false => VoterChange::Add(voter(other)),
            };
            // One that is refused changes nothing.
            if past.changes < bounds.changes && accepts(raft, change) {
                offer(bounds.changes, past.changes, Action::Change(node, change));
            }
        }
    }

    fn campaign(&mut self, node: usize, bounds: &Bounds) {
        let newest = self.nodes.iter().map(|node| node.raft.term()).max().unwrap_or(0);
        if !bounds.duels && newest > self.nodes[node].raft.term() {
            // As a refused pre-vote says.
            self.hear(node, bounds, (node + 1) % self.nodes.len(), newest, false);
        }
        self.step(node, bounds, Input::Tick { jitter: 0 });
        if bounds.pre_votes {
            return;
        }
        for other in 0..self.nodes.len() {
            let term = self.nodes[node].raft.term() + 1;
            if self.nodes[node].raft.role_name() == "PreCandidate" && other != node {
                self.hear(node, bounds, other, term, true);
            }
        }
    }

    fn hear(&mut self, node: usize, bounds: &Bounds, from: usize, term: Term, granted: bool) {
        let message = Message::PreVoteAnswer { term, granted };
        let envelope = Envelope { from: voter(from), to: voter(node), message };
        self.step(node, bounds, Input::Message(envelope));
    }

    fn step(&mut self, node: usize, bounds: &Bounds, input: Input) {
        let mut effects = Vec::new();
        let this = self.touch(node);
        this.raft.step(NOW, input, &mut effects);
        if let Err(law) = this.raft.invariants() {
            self.break_law(INVARIANTS, law);
        }
        self.carry_out(node, bounds, effects);
    }

    fn touch(&mut self, node: usize) -> &mut Node {
        let node = Arc::make_mut(&mut self.nodes[node]);
        node.hash = 0;
        node
    }

    fn carry_out(&mut self, node: usize, bounds: &Bounds, effects: Vec<Effect>) {
        let mut later = Vec::new();
        for effect in effects {
            let Node { disk, hard_unsynced, held, .. } = Arc::make_mut(&mut self.nodes[node]);
            match effect {
                Effect::PersistHardState { seq, state } => *hard_unsynced = Some((seq, state)),
                Effect::AppendEntries { first, entries } => {
                    assert_eq!(first as usize, disk.end(), "entries go to the end of the log");
                    disk.log.extend(entries);
                }
                Effect::TruncateLog { to } => {
                    disk.damage = None;
                    disk.cut = Some((to, disk.log[to as usize - disk.start..].to_vec()));
                    let durable = disk.durable_end.saturating_sub(to as usize);
                    disk.cut.iter_mut().for_each(|(_, tail)| tail.truncate(durable));
                    disk.truncate(to as usize);
                }
                Effect::CompactLog { to } => disk.drop_below(to as usize),
                Effect::ResetLog { .. } => {
                    let snapshot = disk.snapshot.clone();
                    snapshot.iter().for_each(|snapshot| disk.begin_at(snapshot));
                    disk.cut = Some((disk.start as Index, Vec::new()));
                }
                Effect::Send { to, message, after } => match after {
                    SyncPoint::HardState(seq) => held.push((seq, to, Arc::new(message))),
                    SyncPoint::Now => self.send(node, to, Arc::new(message), bounds),
                },
                Effect::ReadSnapshot { to, term, snapshot, offset, .. } => {
                    let length = if disk.snapshot.as_ref() == Some(&snapshot) { 1 } else { 0 };
                    let bytes = Bytes::from_static(&[0][..length]);
                    later.push(Input::SnapshotRead { to, term, snapshot, offset, bytes });
                }
                Effect::InstallSnapshot { snapshot } => disk.installing = Some(snapshot),
                Effect::Commit { end } => self.check_commit(node, end as usize),
                Effect::BecameLeader { term } => {
                    self.check_leader(node, term);
                    let everyone = (0..self.nodes.len()).map(voter).collect();
                    later.push(Input::Observers(everyone));
                }
                Effect::ReadReady { id, commit } => self.check_read(id, commit as usize),
                Effect::Complain { about, what } => self.break_law(INVARIANTS, format!("{about}: {what}")),
                Effect::ReadEntries { .. }
                | Effect::WriteSnapshot { .. }
                | Effect::SetTimer(_)
                | Effect::Resigned { .. }
                | Effect::Following { .. }
                | Effect::ProposalAccepted { .. }
                | Effect::ProposalRefused { .. }
                | Effect::ReadRefused { .. } => {}
            }
        }
        self.check_logs(node);
        if !bounds.late_votes {
            self.sync_vote(node, bounds);
        }
        later.into_iter().for_each(|input| self.step(node, bounds, input));
        if !bounds.late_logs {
            self.sync_log(node, bounds);
        }
    }

    /// On each link the oldest message gives way.
    fn send(&mut self, from: usize, to: VoterId, message: Arc<Message>, bounds: &Bounds) {
        let to = node_of(to);
        let (hash, link) = (hash_of(&*message), (from, to));
        if matches!(*message, Message::PreVote(_) | Message::PreVoteAnswer { .. }) && !bounds.pre_votes {
            return;
        }
        if matches!(*message, Message::TimeoutNow { term } if term >= bounds.terms) {
            return;
        }
        let first = self.network.partition_point(|flying| (flying.from, flying.to) < link);
        let end = self.network.partition_point(|flying| (flying.from, flying.to) <= link);
        if let Some(same) = (first..end).find(|at| self.network[*at].hash == hash) {
            self.network.remove(same);
        } else if end - first >= bounds.per_link {
            self.network.remove(first);
        }
        let end = self.network.partition_point(|flying| (flying.from, flying.to) <= link);
        self.network.insert(end, Flying { from, to, message, hash });
    }

    fn sync_vote(&mut self, node: usize, bounds: &Bounds) {
        let this = self.touch(node);
        let Some((seq, state)) = this.hard_unsynced.take() else { return };
        this.disk.hard = state;
        this.disk.damage = this.disk.damage.filter(|damage| *damage != Damage::Vote);
        let (free, still): (Vec<_>, Vec<_>) = this.held.drain(..).partition(|(after, ..)| *after <= seq);
        this.held = still;
        free.into_iter().for_each(|(_, to, message)| self.send(node, to, message, bounds));
        self.step(node, bounds, Input::HardStatePersisted { seq });
    }

    fn sync_log(&mut self, node: usize, bounds: &Bounds) {
        let Node { disk, applied, .. } = self.touch(node);
        if let Some((to, _)) = disk.cut.take() {
            self.step(node, bounds, Input::Truncated { to });
        } else if let Some(snapshot) = disk.installing.take() {
            let at = snapshot.at.clone();
            disk.begin_at(&snapshot);
            disk.snapshot = Some(snapshot);
            *applied = at.end as usize;
            let known = (at.end as usize).checked_sub(1).and_then(|last| self.past.committed.get(last));
            if known.is_none_or(|entry| entry.term != at.term) {
                self.break_law(STATE_MACHINE, format!("{node} got a snapshot of what was not committed"));
            }
            self.step(node, bounds, Input::SnapshotInstalled { end: at.end });
        } else if disk.durable_end < disk.end() {
            disk.durable_end = disk.end();
            let end = disk.end() as Index;
            self.step(node, bounds, Input::Persisted { end });
        }
    }

    fn take_snapshot(&mut self, node: usize, bounds: &Bounds) {
        let this = self.touch(node);
        let Some(at) = this.raft.snapshot_point(this.applied as Index) else { return };
        let snapshot = Snapshot { at, bytes: 1, checksum: 0 };
        this.disk.snapshot = Some(snapshot.clone());
        self.step(node, bounds, Input::SnapshotPersisted(snapshot));
    }

    /// Power fails, and comes back at once: a node that is down does nothing that one that is slow does not do.
    fn crash_with(&mut self, node: usize, tail_back: bool, bounds: &Bounds, damage: impl Fn(&mut Disk)) {
        let mut disk = self.touch(node).disk.clone();
        match disk.cut.take() {
            Some((_, tail)) if tail_back => disk.log.extend(tail),
            Some(_) => {}
            None => disk.truncate(disk.durable_end),
        }
        damage(&mut disk);
        disk.durable_end = disk.end();
        disk.installing = None;
        // No two lives of a node draw the same.
        let jitter = u64::from(self.past.crashes + self.past.damages);
        let mut effects = Vec::new();
        *self.touch(node) = Node::start(voter(node), first_voters(bounds), disk, jitter, &mut effects);
        self.carry_out(node, bounds, effects);
    }
}

fn accepts(raft: &Raft, change: VoterChange) -> bool {
    let mut effects = Vec::new();
    raft.clone().step(NOW, Input::ChangeVoters { id: ProposalId(0), change }, &mut effects);
    matches!(effects.first(), Some(Effect::ProposalAccepted { .. }))
}

/// Whether a message can change nothing any more: an answer of an earlier term, or to what the node is not in its term
/// and cannot become in it. Nobody forgets a term but who lost it, and that one asks for nothing any more.
fn is_moot(message: &Message, raft: &Raft) -> bool {
    match message {
        Message::VoteAnswer { term, granted } => {
            let counts = *granted && raft.role_name() == "Candidate";
            *term < raft.term() || (*term == raft.term() && !counts)
        }
        Message::AppendAnswer { term, .. } => {
            *term < raft.term() || (*term == raft.term() && !raft.is_leader())
        }
        _ => false,
    }
}

fn first_voters(bounds: &Bounds) -> Voters {
    // Distinct nodes are always a set of voters.
    Voters::new((0..bounds.voters).map(voter)).unwrap_or_default()
}
