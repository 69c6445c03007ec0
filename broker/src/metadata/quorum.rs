//! The quorum as this node takes part in it: drives the Raft core over the log, the hard state and the snapshots.

mod effects;
mod open;
mod snapshots;
mod tickets;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use weir_protocol::fact::Fact;
use weir_protocol::metadata::{Image, Record};
use weir_protocol::raft::Envelope;
use weir_protocol::raft::{
    ChangeRefusal, Effect, Entry, HardState, HardStateSeq, Index, Input, Limits, ProposalId, Raft, ReadId,
    Snapshot, SnapshotPoint, Term, VoterChange, Voters,
};
use weir_protocol::types::{BrokerId, VoterId};
use weir_runtime::disk::{BatchError, Disk};
use weir_runtime::time::{self, Alarm};
use weir_runtime::{random, simulation};
use weir_storage::{StorageError, Store, StoreEvent};
use weir_wire::internal;

use self::snapshots::{Arriving, Installing};
use self::tickets::Tickets;
use super::error::MetadataError;
use super::log::{AwaitedCut, MetadataLog};
use super::snapshot::Held;
use crate::controller::Ticket;
use crate::peer::Peers;
use crate::peer::message::{NotDone, QuorumNode, QuorumState};

pub(super) use self::open::{Opened, QuorumSetup};

/// Messages that may wait for the hard state; the oldest is dropped for one more.
const HELD_MAX: usize = 4096;

/// Reads of entries and snapshots that may be under way; whoever needs one more asks again.
const READS_MAX: usize = 64;

/// How long a stop waits for what is being written.
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// A committed entry.
#[derive(Debug)]
pub(super) struct Committed {
    pub(super) index: Index,
    /// `None`: a leader's first entry, or a change of voters.
    pub(super) record: Option<Record>,
    /// Under which name it was proposed here.
    pub(super) ticket: Option<Ticket>,
    /// The first entry of the term that this node leads: from here on its image is up to date.
    pub(super) begins: bool,
    /// From this entry on these vote.
    pub(super) voters: Option<Voters>,
    /// Of its payload.
    pub(super) bytes: usize,
}

/// Who leads the quorum, as far as this node knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct LeaderView {
    /// Who; `None`: nobody that this node has heard of.
    pub(crate) leader: Option<BrokerId>,
    /// In which term.
    pub(crate) term: Term,
    /// Whether it is this node, and its image is up to date.
    pub(crate) is_me: bool,
}

/// Something has happened.
#[derive(Debug)]
pub(super) enum Event {
    Store(StoreEvent),
    HardState(HardStateSeq, Result<(), BatchError>),
    /// A file of a snapshot was written.
    SnapshotStored(Result<(), BatchError>),
    /// What was to be read has been.
    Read(Read),
    Timer,
}

/// What was read for a follower.
#[derive(Debug)]
pub(super) enum Read {
    Entries {
        to: VoterId,
        term: Term,
        from: Index,
        entries: Result<Vec<Entry>, MetadataError>,
    },
    Snapshot {
        wanted: Wanted,
        held: Result<Option<Held>, MetadataError>,
    },
    /// Another log in place of the one that was to be dropped.
    Log(Box<Result<MetadataLog, MetadataError>>, Index),
}

/// A piece of a snapshot that a follower needs.
#[derive(Debug)]
pub(super) struct Wanted {
    to: VoterId,
    term: Term,
    snapshot: Snapshot,
    offset: u64,
    bytes_max: usize,
}

/// What an event has brought, in order.
#[derive(Debug)]
pub(super) enum Happening {
    Committed(Committed),
    /// Another node's snapshot has taken the place of everything before.
    Installed(Box<Image>),
    /// What was asked for is not done.
    NotDone(Ticket, NotDone),
    /// The voters are not changed.
    VotersRefused(Ticket, ChangeRefusal),
    /// It may be committed, or not.
    Unknown(Ticket),
    /// The read sees what was committed once everything below is applied.
    Read(Ticket, Index),
    /// Another leader, or none, or another term.
    Leader(LeaderView),
    /// The folder has failed.
    Failed(Arc<StorageError>),
}

/// What an event has brought.
pub(super) type Progress = Vec<Happening>;

/// This node's part in the quorum.
pub(super) struct Quorum {
    me: VoterId,
    raft: Raft,
    /// `None` while another one is made in its place.
    log: Option<MetadataLog>,
    store: Store,
    disk: Disk,
    peers: Peers,
    setup: QuorumSetup,
    limits: Limits,
    /// Entries that are not committed yet. Invariant: consecutive indexes, in order.
    pending: VecDeque<(Index, Entry)>,
    /// A hard state that waits until the one before is written.
    next_state: Option<(HardStateSeq, HardState)>,
    writing_state: bool,
    /// The term in which the hard state that is being written gives this node's vote to itself.
    votes_for_itself: Option<Term>,
    state_to: mpsc::Sender<(HardStateSeq, Result<(), BatchError>)>,
    state_written: mpsc::Receiver<(HardStateSeq, Result<(), BatchError>)>,
    /// Messages that wait for a hard state.
    held: VecDeque<(HardStateSeq, Envelope)>,
    reads_under_way: usize,
    reads_to: mpsc::Sender<Read>,
    reads: mpsc::Receiver<Read>,
    /// The cut that the core waits for.
    awaited: Option<(AwaitedCut, Input)>,
    arriving: Option<Arriving>,
    installing: Option<Installing>,
    /// This node's own snapshot that is being written.
    storing: Option<Snapshot>,
    stored_to: mpsc::Sender<Result<(), BatchError>>,
    stored: mpsc::Receiver<Result<(), BatchError>>,
    /// The snapshot that a follower gets.
    serving: Option<Held>,
    alarm: Alarm,
    tickets: Tickets,
    observers: Vec<VoterId>,
    /// What was published last.
    leader: LeaderView,
    effects: Vec<Effect>,
    /// What the core must hear of after the effects of the step before.
    follow_ups: VecDeque<Input>,
}

impl Quorum {
    /// Who leads.
    pub(super) fn leader(&self) -> LeaderView {
        self.leader
    }

    /// Who leads, with its folder.
    pub(super) fn leading_voter(&self) -> Option<VoterId> {
        self.raft.leader()
    }

    /// Who votes, as far as this node's log says.
    pub(super) fn voters(&self) -> &Voters {
        self.raft.voters()
    }

    /// Where a snapshot would be taken of an image that holds all below `applied`; `None` if one is being written, or
    /// arriving, or nothing is new.
    pub(super) fn snapshot_point(&self, applied: Index) -> Option<SnapshotPoint> {
        let busy = self.storing.is_some() || self.installing.is_some();
        if busy { None } else { self.raft.snapshot_point(applied) }
    }

    /// Proposes a command.
    ///
    /// # Errors
    /// What the quorum cannot go on after.
    pub(super) fn propose(
        &mut self,
        record: &Record,
        ticket: Option<Ticket>,
    ) -> Result<Progress, MetadataError> {
        let payload = match internal::encode(record) {
            Ok(payload) if payload.len() <= self.limits.entry_bytes_max => payload,
            Ok(_) | Err(_) => {
                let refused = ticket.map(|ticket| Happening::NotDone(ticket, NotDone::TooLarge));
                return Ok(refused.into_iter().collect());
            }
        };
        let id = ProposalId(self.tickets.number(ticket));
        self.step(Input::Propose { id, payload })
    }

    /// Proposes a change of the voters.
    ///
    /// # Errors
    /// What the quorum cannot go on after.
    pub(super) fn change_voters(
        &mut self,
        change: VoterChange,
        ticket: Ticket,
    ) -> Result<Progress, MetadataError> {
        let id = ProposalId(self.tickets.number(Some(ticket)));
        self.step(Input::ChangeVoters { id, change })
    }

    /// Asks how far a linearizable read must see.
    ///
    /// # Errors
    /// What the quorum cannot go on after.
    pub(super) fn read(&mut self, ticket: Ticket) -> Result<Progress, MetadataError> {
        let id = ReadId(self.tickets.number(Some(ticket)));
        simulation::observe(|| Fact::ReadBegan { read: id.0 });
        self.step(Input::Read { id })
    }

    /// Gives the log to these nodes too, while this node leads.
    ///
    /// # Errors
    /// What the quorum cannot go on after.
    pub(super) fn set_observers(&mut self, observers: Vec<VoterId>) -> Result<Progress, MetadataError> {
        if self.observers == observers {
            return Ok(Vec::new());
        }
        self.observers.clone_from(&observers);
        self.step(Input::Observers(observers))
    }

    /// Takes in what another node says.
    ///
    /// # Errors
    /// What the quorum cannot go on after.
    pub(super) fn on_message(&mut self, envelope: Envelope) -> Result<Progress, MetadataError> {
        self.step(Input::Message(envelope))
    }

    /// This node stops: if it leads, it lets another voter take over. [`Quorum::has_handed_over`] says when that is done.
    ///
    /// # Errors
    /// What the quorum cannot go on after.
    pub(super) fn hand_over(&mut self) -> Result<Progress, MetadataError> {
        self.step(Input::HandOver)
    }

    /// Whether another node leads, or this one has neither a leadership to hand over nor a vote in who gets it.
    pub(super) fn has_handed_over(&self) -> bool {
        let alone = self.raft.voters().ids() == [self.me];
        alone || self.raft.leader().is_some_and(|leader| leader != self.me)
    }

    /// Within this time a leader has handed over, or resigned.
    pub(super) fn hand_over_max(&self) -> Duration {
        self.setup.timing.election_min
    }

    /// How far the quorum's nodes are; `None` unless this node leads.
    pub(super) fn describe(&self) -> Option<QuorumState> {
        if !self.raft.is_leader() {
            return None;
        }
        let now = now();
        let voters = self.raft.voters();
        let own = QuorumNode {
            id: self.me,
            votes: voters.contains(self.me),
            end: self.raft.log_end(),
            heard_ms_ago: 0,
        };
        let others = self.raft.reached().into_iter().map(|(id, end, heard)| {
            let heard_ms_ago = i64::try_from(now.saturating_sub(heard).as_millis()).unwrap_or(i64::MAX);
            QuorumNode { id, votes: voters.contains(id), end, heard_ms_ago }
        });
        let (voting, observing): (Vec<_>, Vec<_>) =
            [own].into_iter().chain(others).partition(|node| node.votes);
        let nodes = voting.into_iter().chain(observing).collect();
        Some(QuorumState { leader: self.me, term: self.raft.term(), commit: self.raft.commit(), nodes })
    }

    /// What happens next. Cancel-safe.
    pub(super) async fn event(&mut self) -> Event {
        let log = &mut self.log;
        let store_event = async move {
            match log {
                Some(log) => log.event().await,
                None => std::future::pending().await,
            }
        };
        // This side holds a sender of each channel.
        weir_runtime::select! {
            Some((seq, result)) = self.state_written.recv() => Event::HardState(seq, result),
            Some(result) = self.stored.recv() => Event::SnapshotStored(result),
            Some(read) = self.reads.recv() => Event::Read(read),
            event = store_event => Event::Store(event),
            () = self.alarm.wait() => Event::Timer,
        }
    }

    /// Takes in what has happened.
    ///
    /// # Errors
    /// What the quorum cannot go on after.
    pub(super) fn on_event(&mut self, event: Event) -> Result<Progress, MetadataError> {
        match event {
            Event::Timer => self.step(Input::Tick { jitter: random::u64() }),
            Event::HardState(seq, result) => {
                self.writing_state = false;
                // A vote that may or may not be on the disk: contract 8.
                result?;
                if let Some(term) = self.votes_for_itself.take() {
                    let me = self.me;
                    simulation::observe(|| Fact::Voted { voter: me, term, candidate: me });
                }
                self.write_state();
                self.release(seq);
                self.step(Input::HardStatePersisted { seq })
            }
            Event::SnapshotStored(result) => self.on_snapshot_stored(result),
            Event::Read(read) => self.on_read(read),
            Event::Store(event) => self.on_store_event(event),
        }
    }

    fn on_store_event(&mut self, event: StoreEvent) -> Result<Progress, MetadataError> {
        let Some(log) = &mut self.log else { return Ok(Vec::new()) };
        match event {
            StoreEvent::Durable(logs) => {
                let mut end = None;
                for (_, durable) in logs {
                    end = log.on_durable(&durable).or(end);
                }
                match end {
                    Some(end) => self.step(Input::Persisted { end }),
                    None => Ok(Vec::new()),
                }
            }
            StoreEvent::AppendFailed(failed) => {
                tracing::warn!(from = failed.from, error = %failed.error, "metadata entries cannot be written");
                match log.on_append_failed(&failed) {
                    Some(from) => self.step(Input::AppendFailed { from }),
                    None => Ok(Vec::new()),
                }
            }
            StoreEvent::Cut(cut) => {
                let durable = log.on_cut(&cut);
                let mut progress = match self.awaited.take_if(|(awaited, _)| awaited.is(&cut)) {
                    Some((_, input)) => self.on_cut(input)?,
                    None => Vec::new(),
                };
                if let Some(end) = durable {
                    progress.append(&mut self.step(Input::Persisted { end })?);
                }
                Ok(progress)
            }
            // The metadata log is never compacted: it has snapshots.
            StoreEvent::Replaced(_) => Ok(Vec::new()),
            StoreEvent::FolderFailed(error) => Ok(vec![Happening::Failed(error)]),
        }
    }

    /// The cut that the core waits for is durable.
    fn on_cut(&mut self, input: Input) -> Result<Progress, MetadataError> {
        let mut progress = Vec::new();
        if matches!(input, Input::SnapshotInstalled { .. }) {
            self.finish_install(&mut progress);
        }
        self.feed(input, &mut progress)?;
        Ok(progress)
    }

    fn on_read(&mut self, read: Read) -> Result<Progress, MetadataError> {
        self.reads_under_way = self.reads_under_way.saturating_sub(1);
        match read {
            Read::Entries { to, term, from, entries } => match entries {
                Ok(entries) => self.step(Input::EntriesRead { to, term, from, entries }),
                Err(error) => {
                    tracing::error!(from, %error, "metadata entries cannot be read for another node");
                    // Another node may be able to.
                    self.step(Input::Resign)
                }
            },
            Read::Snapshot { wanted, held } => self.on_snapshot_loaded(wanted, held),
            Read::Log(log, to) => {
                self.log = Some((*log)?);
                self.step(Input::Truncated { to })
            }
        }
    }

    fn step(&mut self, input: Input) -> Result<Progress, MetadataError> {
        let mut progress = Vec::new();
        self.feed(input, &mut progress)?;
        Ok(progress)
    }

    /// Gives the core an input, and those that follow from its effects.
    fn feed(&mut self, input: Input, progress: &mut Progress) -> Result<(), MetadataError> {
        self.follow_ups.push_back(input);
        while let Some(input) = self.follow_ups.pop_front() {
            if let Input::AppendFailed { from } = &input {
                self.pending.retain(|(index, _)| index < from);
            }
            self.raft.step(now(), input, &mut self.effects);
            debug_assert_eq!(self.raft.invariants(), Ok(()));
            self.carry_out(progress)?;
        }
        self.note_leader(progress);
        Ok(())
    }

    /// Carries out what the core has asked for at its start.
    fn start(&mut self, progress: &mut Progress) -> Result<(), MetadataError> {
        self.carry_out(progress)?;
        while let Some(input) = self.follow_ups.pop_front() {
            self.feed(input, progress)?;
        }
        self.note_leader(progress);
        Ok(())
    }

    /// Says who leads, if that has changed.
    fn note_leader(&mut self, progress: &mut Progress) {
        let leader = self.raft.leader().map(|voter| voter.broker);
        let (term, leads) = (self.raft.term(), self.raft.is_leader());
        let view = LeaderView { leader, term, is_me: leads && self.leader.is_me && self.leader.term == term };
        self.say_leader(view, progress);
    }

    fn say_leader(&mut self, view: LeaderView, progress: &mut Progress) {
        if view != self.leader {
            self.leader = view;
            progress.push(Happening::Leader(view));
        }
    }

    /// Waits until what is being written to small files is written: another start of this folder may follow. On a full
    /// disk, no longer than [`CLOSE_MAX`].
    pub(super) async fn close(mut self) {
        if time::timeout(CLOSE_MAX, self.finish_writes()).await.is_err() {
            tracing::warn!("the metadata quorum's files are not written");
        }
    }

    async fn finish_writes(&mut self) {
        while self.writing_state {
            let Some((_, result)) = self.state_written.recv().await else { break };
            self.writing_state = false;
            if let Err(error) = result {
                tracing::warn!(%error, "the metadata quorum's state was not written");
            }
            self.write_state();
        }
        if self.storing.is_some() || self.installing.as_ref().is_some_and(Installing::is_storing) {
            // A snapshot that was not written is taken again.
            drop(self.stored.recv().await);
        }
    }
}

impl std::fmt::Debug for MetadataLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MetadataLog")
    }
}

pub(super) fn now() -> std::time::Duration {
    time::now().since_origin()
}

/// Nothing of a snapshot.
const NOTHING: Bytes = Bytes::new();
