//! The metadata quorum's consensus: Raft (Ongaro, Ousterhout 2014; section numbers are that paper's extended version),
//! with pre-vote and check-quorum (Ongaro's thesis, §9.6 and §6.2).
//!
//! The driver feeds [`Input`]s with the time and carries out the [`Effect`]s in their order. The log's content, the
//! sockets and the clock are the driver's. Time is a `Duration` since any fixed origin of a monotonic clock.
//!
//! # Roles
//! A test derives this table from the code. What is not listed leaves the role as it is.
//!
//! | role | input | next role |
//! |---|---|---|
//! | Observer | a change admits it | Follower |
//! | Follower | timeout | PreCandidate |
//! | Follower | its leader hands over | Candidate |
//! | Follower | its removal is committed | Observer |
//! | PreCandidate | newer term | Follower |
//! | PreCandidate | a leader of the term | Follower |
//! | PreCandidate | pre-votes of a majority | Candidate |
//! | PreCandidate | its leader hands over | Candidate |
//! | PreCandidate | resign | Follower |
//! | PreCandidate | hand over | Follower |
//! | PreCandidate | its removal is committed | Observer |
//! | Candidate | timeout | PreCandidate |
//! | Candidate | newer term | Follower |
//! | Candidate | a leader of the term | Follower |
//! | Candidate | votes of a majority | Leader |
//! | Candidate | resign | Follower |
//! | Candidate | hand over | Follower |
//! | Candidate | its removal is committed | Observer |
//! | Leader | newer term | Follower |
//! | Leader | no majority heard | Follower |
//! | Leader | own log failed | Follower |
//! | Leader | resign | Follower |
//! | Leader | its removal is committed | Observer |
//!
//! An `Observer` follows and does not campaign: a node that is not among the voters with its folder, or one whose log or
//! vote is damaged (contract 6). It gives its vote to who knows it as a voter, unless it is damaged or empty.
//!
//! # What is synced before what
//! Each message waits for the hard state that it was said under ([`SyncPoint`]), a candidate's own vote counts when it
//! is durable, and an entry counts towards the commit on a node, the leader included, when it is durable there. A
//! leader sends entries before its own disk has them.

mod election;
mod follow;
mod handover;
mod interface;
mod lead;
mod log;
mod membership;
mod message;
mod progress;
mod reads;
mod recovery;
mod replicate;
mod snapshot;
mod voters;

#[cfg(test)]
mod cluster_tests;
#[cfg(test)]
mod handover_tests;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod membership_tests;
#[cfg(test)]
mod recovery_tests;
#[cfg(test)]
mod scenario_tests;
#[cfg(test)]
mod snapshot_tests;
#[cfg(test)]
mod table_tests;
#[cfg(test)]
mod transcript_tests;
#[cfg(test)]
mod voters_tests;

use std::collections::BTreeSet;
use std::time::Duration;

use weir_defect::defect;

pub use interface::{
    ChangeRefusal, Complaint, Damage, Effect, HardStateSeq, Input, Limits, LogPosition, ProposalId, ReadId,
    Refusal, StartState, SyncPoint, Timing,
};
pub use message::{
    Append, AppendOutcome, Candidacy, Entry, EntryKind, Envelope, HardState, Index, Message, Recovery,
    Snapshot, SnapshotChunk, SnapshotPoint, Standing, Term, Voice,
};
pub use voters::{VOTERS_MAX, VoterChange, Voters, VotersError};

use self::lead::Leading;
use self::log::LogView;
use self::recovery::{Left, Recovering};
use self::snapshot::Receiving;
use crate::types::VoterId;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Role {
    /// Follows, without a voice.
    Observer,
    /// Campaigns when no leader is heard until `deadline`.
    Follower { deadline: Duration },
    /// Asks whether a campaign would succeed.
    PreCandidate { deadline: Duration, grants: BTreeSet<VoterId> },
    /// Campaigns in its term.
    Candidate { deadline: Duration, grants: BTreeSet<VoterId> },
    /// Leads its term.
    Leader(Box<Leading>),
}

/// One node of the metadata quorum.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Raft {
    me: VoterId,
    /// How a node that is not whole becomes so.
    recovery: Recovering,
    /// Who gets the log besides the voters while this node leads.
    observers: BTreeSet<VoterId>,
    timing: Timing,
    limits: Limits,
    /// Invariant: the term never goes back; within a term the vote is given once.
    hard: HardState,
    /// The number of `hard`.
    hard_seq: HardStateSeq,
    /// Invariant: `<= hard_seq`.
    hard_durable: HardStateSeq,
    log: LogView,
    /// The newest one. Invariant: its end is `<= commit` and not before the log's start.
    snapshot: Option<Snapshot>,
    /// Another node's, which is arriving.
    receiving: Option<Receiving>,
    /// Invariant: never goes back; `<=` durable end, so that no restart goes back behind what was applied.
    commit: Index,
    /// The largest commit that any leader has spoken of: this log may not hold all of it, or not the same.
    known_commit: Index,
    /// How far the log is known to agree with that of the term's leader. Invariant: `<=` log end.
    matched_end: Index,
    /// The leader of the current term, once heard of.
    leader: Option<VoterId>,
    /// When that leader was heard last.
    leader_heard: Duration,
    role: Role,
    /// Drawn by the driver; decides the next election timeout.
    jitter: u64,
    /// The latest time that was passed in.
    now: Duration,
    /// The timer that is set.
    armed: Option<Duration>,
}

impl Raft {
    /// A node as recovery found it. It follows, whatever it was before.
    pub fn start(
        state: StartState,
        timing: Timing,
        limits: Limits,
        now: Duration,
        jitter: u64,
        effects: &mut Vec<Effect>,
    ) -> Raft {
        let base = match &state.snapshot {
            Some(snapshot) => (snapshot.at.end, snapshot.at.voters.clone()),
            None => (state.log.start, state.voters),
        };
        let log = LogView::new(state.log, base, limits.cache_bytes_max);
        let left = Left::of(log, state.snapshot.as_ref(), state.hard_state.standing, state.damage);
        let Left { log, standing, repair } = left;
        let start = state.snapshot.as_ref().map_or(log.start(), |snapshot| snapshot.at.end);
        // An entry of a newer term may be durable although the hard state was not yet: the term is known all the same.
        let hard = match log.last_term() {
            newer if newer > state.hard_state.term => HardState { term: newer, vote: None, standing },
            _ => HardState { standing, ..state.hard_state },
        };
        let mut raft = Raft {
            me: state.me,
            recovery: Recovering::default(),
            observers: BTreeSet::new(),
            timing,
            limits,
            hard,
            hard_seq: HardStateSeq(0),
            hard_durable: HardStateSeq(0),
            log,
            snapshot: state.snapshot,
            receiving: None,
            commit: start,
            known_commit: start,
            matched_end: start,
            leader: None,
            leader_heard: now,
            role: Role::Observer,
            jitter,
            now,
            armed: None,
        };
        raft.begin_recovery(state.hard_state, repair, effects);
        raft.refresh_role();
        if !matches!(raft.role, Role::Observer) {
            // Z42: what it led before the restart may have lost its tail; the term is over.
            let led = hard.vote == Some(raft.me) && raft.log.last_term() == hard.term;
            if led && defect!(resume_same_epoch) {
                raft.become_leader(effects);
            } else if raft.votes() && raft.majority() == 1 {
                raft.campaign(false, effects);
            }
        }
        raft.arm(effects);
        raft
    }

    /// Takes one input in at the time `now` and appends what must be done to `effects`.
    pub fn step(&mut self, now: Duration, input: Input, effects: &mut Vec<Effect>) {
        self.now = self.now.max(now);
        match input {
            Input::Tick { jitter } => self.on_tick(jitter, effects),
            Input::Message(envelope) => self.on_message(envelope, effects),
            Input::Propose { id, payload } => self.on_propose(id, payload, effects),
            Input::ChangeVoters { id, change } => self.on_change_voters(id, change, effects),
            Input::Observers(observers) => self.on_observers(observers, effects),
            Input::Read { id } => self.on_read(id, effects),
            Input::Persisted { end } => self.on_persisted(end, effects),
            Input::HardStatePersisted { seq } => {
                self.hard_durable = self.hard_durable.max(seq.min(self.hard_seq));
                self.repair_log(effects);
                self.count_votes(effects);
            }
            Input::Truncated { to } => self.on_truncated(to, effects),
            Input::AppendFailed { from } => self.on_append_failed(from, effects),
            Input::EntriesRead { to, term, from, entries } => {
                self.on_entries_read(to, term, from, entries, effects);
            }
            Input::SnapshotPersisted(snapshot) => self.on_snapshot_persisted(snapshot, effects),
            Input::SnapshotRead { to, term, snapshot, offset, bytes } => {
                self.on_snapshot_read(to, term, (snapshot, offset, bytes), effects);
            }
            Input::SnapshotInstalled { end } => self.on_snapshot_installed(end, effects),
            Input::SnapshotRefused { end } => self.on_snapshot_refused(end, effects),
            Input::Resign => self.resign(effects),
            Input::HandOver => self.on_hand_over(effects),
        }
        self.arm(effects);
    }

    fn on_message(&mut self, envelope: Envelope, effects: &mut Vec<Effect>) {
        let Envelope { from, to, message } = envelope;
        // Z58: whoever asks means the voter with the folder that it knows.
        if !self.is_me(to) || from == self.me {
            return;
        }
        let newer = message.term() > self.hard.term;
        match message {
            Message::PreVote(candidacy) => self.on_pre_vote(from, candidacy, effects),
            Message::PreVoteAnswer { granted: true, term } => self.on_pre_vote_granted(from, term, effects),
            Message::Vote(candidacy) => self.on_vote(from, candidacy, false, effects),
            Message::VoteAtOnce(candidacy) => self.on_vote(from, candidacy, true, effects),
            Message::Append(append) => self.on_append(from, append, effects),
            Message::Snapshot(chunk) => self.on_snapshot(from, chunk, effects),
            _ if newer => self.become_follower(message.term(), None, effects),
            Message::PreVoteAnswer { granted: false, .. } => {}
            Message::TimeoutNow { term } => self.on_timeout_now(term, effects),
            Message::VoteAnswer { term, granted } => self.on_vote_answer(from, term, granted, effects),
            Message::AppendAnswer { term, round, outcome, voice } => {
                self.on_append_answer(from, term, (round, outcome, voice), effects);
            }
        }
    }

    /// Follows in `term`, whatever it was before.
    fn become_follower(&mut self, term: Term, leader: Option<VoterId>, effects: &mut Vec<Effect>) {
        self.leave_leadership(effects);
        if term > self.hard.term {
            self.set_hard_state(HardState { term, vote: None, ..self.hard }, effects);
            self.forget_recovery_end();
            self.leader = None;
            self.matched_end = self.log.start();
        }
        if let Some(leader) = leader
            && self.leader != Some(leader)
        {
            effects.push(Effect::Following { term, leader });
        }
        self.leader = leader;
        if !matches!(self.role, Role::Observer) {
            self.role = Role::Follower { deadline: self.election_deadline() };
        }
        self.refresh_role();
    }

    /// Leads no longer, and does not campaign for one election timeout.
    fn resign(&mut self, effects: &mut Vec<Effect>) {
        if !matches!(self.role, Role::Observer) {
            let leader = self.leader.filter(|leader| *leader != self.me);
            self.become_follower(self.hard.term, leader, effects);
        }
    }

    fn leave_leadership(&mut self, effects: &mut Vec<Effect>) {
        if let Role::Leader(leading) = &mut self.role {
            effects.push(Effect::Resigned { term: self.hard.term });
            leading.refuse_reads(effects);
            // Until another leader says otherwise: its own log agrees with itself, but that no longer counts.
            self.matched_end = self.log.start();
            self.role = Role::Follower { deadline: self.election_deadline() };
        }
    }

    fn set_hard_state(&mut self, state: HardState, effects: &mut Vec<Effect>) {
        self.hard = state;
        self.hard_seq = HardStateSeq(self.hard_seq.0 + 1);
        effects.push(Effect::PersistHardState { seq: self.hard_seq, state });
    }

    /// What a message of now waits for.
    fn sync_point(&self) -> SyncPoint {
        if self.hard_durable < self.hard_seq { SyncPoint::HardState(self.hard_seq) } else { SyncPoint::Now }
    }

    fn send(&self, to: VoterId, message: Message, effects: &mut Vec<Effect>) {
        effects.push(Effect::Send { to, message, after: self.sync_point() });
    }

    fn peers(&self) -> impl Iterator<Item = VoterId> + '_ {
        self.log.voters().ids().iter().copied().filter(|voter| !self.is_me(*voter))
    }

    /// How many of the voters are a majority.
    fn majority(&self) -> usize {
        self.log.voters().majority()
    }

    /// Z58: a node that returns with an empty folder has forgotten its votes and its entries; it is another voter.
    fn is_same(a: VoterId, b: VoterId) -> bool {
        if defect!(wiped_voter_votes) { a.broker == b.broker } else { a == b }
    }

    fn is_me(&self, voter: VoterId) -> bool {
        Raft::is_same(voter, self.me)
    }

    /// The voter that `id` is, if it is one.
    fn voter(&self, id: VoterId) -> Option<VoterId> {
        self.log.voters().ids().iter().copied().find(|voter| Raft::is_same(*voter, id))
    }

    fn election_deadline(&self) -> Duration {
        let spread_ns = u64::try_from(self.timing.election_spread.as_nanos()).unwrap_or(u64::MAX);
        let extra = if spread_ns == 0 { 0 } else { self.jitter % spread_ns };
        self.now + self.timing.election_min + Duration::from_nanos(extra)
    }

    /// Sets the timer, unless it is set for an earlier time: then that tick comes too early, and sets it again.
    fn arm(&mut self, effects: &mut Vec<Effect>) {
        let next = match &self.role {
            Role::Observer => None,
            Role::Follower { deadline }
            | Role::PreCandidate { deadline, .. }
            | Role::Candidate { deadline, .. } => Some(*deadline),
            Role::Leader(leading) => leading.next_deadline(),
        };
        let Some(next) = next else { return };
        if self.armed.is_none_or(|armed| next < armed) {
            self.armed = Some(next);
            effects.push(Effect::SetTimer(next));
        }
    }

    /// This node with its folder.
    pub fn me(&self) -> VoterId {
        self.me
    }

    /// The voters of this node's log, committed or not.
    pub fn voters(&self) -> &Voters {
        self.log.voters()
    }

    /// The newest term heard of.
    pub fn term(&self) -> Term {
        self.hard.term
    }

    /// Who leads the current term, as far as is known.
    pub fn leader(&self) -> Option<VoterId> {
        self.leader
    }

    /// Whether this node leads the current term. Another node may lead a newer one: ask with [`Input::Read`].
    pub fn is_leader(&self) -> bool {
        matches!(self.role, Role::Leader(_))
    }

    /// Everything below is committed.
    pub fn commit(&self) -> Index {
        self.commit
    }

    /// The index of the first entry in the log.
    pub fn log_start(&self) -> Index {
        self.log.start()
    }

    /// The index that the next entry gets.
    pub fn log_end(&self) -> Index {
        self.log.end()
    }

    /// Every entry below is synced on this node.
    pub fn durable_end(&self) -> Index {
        self.log.durable_end()
    }

    /// Entries from `from` on, if they are still in memory: at least one, and about `bytes_max`.
    pub fn cached_entries(&self, from: Index, bytes_max: usize) -> Option<Vec<Entry>> {
        self.log.cached(from, bytes_max)
    }

    /// The name of the role, as in the table of this module.
    pub fn role_name(&self) -> &'static str {
        match self.role {
            Role::Observer => "Observer",
            Role::Follower { .. } => "Follower",
            Role::PreCandidate { .. } => "PreCandidate",
            Role::Candidate { .. } => "Candidate",
            Role::Leader(_) => "Leader",
        }
    }

    /// Forgets what no later step depends on: how often something was persisted, and what the past has drawn. An
    /// exhaustive exploration takes states for one that differ in nothing else.
    pub fn forget_history(&mut self) {
        if self.hard_durable == self.hard_seq {
            (self.hard_durable, self.hard_seq) = (HardStateSeq(0), HardStateSeq(0));
        }
        (self.jitter, self.armed) = (0, None);
        if self.is_whole() {
            self.recovery = Recovering::default();
        }
        if let Role::Leader(leading) = &mut self.role {
            leading.followers.values_mut().for_each(|progress| progress.forget_history(self.now));
        }
    }

    /// The laws that stand on the fields. Tests and the simulator ask after each step; an error names what is broken.
    pub fn invariants(&self) -> Result<(), String> {
        let law = |holds: bool, what: &str| {
            if holds { Ok(()) } else { Err(format!("{}: {what}: {self:?}", self.me)) }
        };
        self.log.invariants()?;
        law(
            self.log.start() <= self.commit && self.commit <= self.log.durable_end(),
            "the commit is durable here",
        )?;
        law(
            self.snapshot.as_ref().map_or(0, |snapshot| snapshot.at.end) >= self.log.start(),
            "the snapshot reaches the log's start",
        )?;
        law(
            self.snapshot.as_ref().is_none_or(|snapshot| snapshot.at.end <= self.commit),
            "what a snapshot holds is committed",
        )?;
        law(self.matched_end <= self.log.end(), "what matches the leader lies in the log")?;
        law(self.hard_durable <= self.hard_seq, "what is durable was asked for")?;
        law(self.log.last_term() <= self.hard.term, "no entry is newer than the term")?;
        if let Role::Leader(leading) = &self.role {
            law(self.leader == Some(self.me), "a leader knows that it leads")?;
            law(self.log.last_term() == self.hard.term, "a leader's log ends in its term")?;
            law(!self.is_log_busy(), "a leader cuts nothing")?;
            leading.invariants(self)?;
        }
        Ok(())
    }
}
