//! The quorum as this node takes part in it: drives the Raft core over the log and the hard state.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use weir_protocol::fact::Fact;
use weir_protocol::metadata::{Change, Record};
use weir_protocol::raft::{
    Effect, Entry, EntryKind, HardState, HardStateSeq, Index, Input, Limits, ProposalId, Raft, Refusal,
    StartState, Term, Timing, Voters,
};
use weir_protocol::types::VoterId;
use weir_runtime::disk::{BatchError, Disk};
use weir_runtime::time::{self, Alarm, Instant};
use weir_runtime::{random, simulation, task};
use weir_storage::{StorageError, Store, StoreEvent};
use weir_wire::internal;

use super::ProposeError;
use super::driver::MetadataError;
use super::hard_state;
use super::log::MetadataLog;

/// Who waits for a command's outcome.
pub(super) type Reply = oneshot::Sender<Result<Change, ProposeError>>;

/// A committed entry.
#[derive(Debug)]
pub(super) struct Committed {
    pub(super) index: Index,
    /// `None`: a leader's first entry, or a change of voters.
    pub(super) record: Option<Record>,
    /// Who proposed it here and waits.
    pub(super) reply: Option<Reply>,
}

/// Something has happened.
#[derive(Debug)]
pub(super) enum Event {
    Store(StoreEvent),
    HardState(HardStateSeq, Result<(), BatchError>),
    Timer,
}

/// What an event has brought.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// In order.
    pub(super) committed: Vec<Committed>,
    /// This node led and leads no longer.
    pub(super) resigned: bool,
    /// The folder has failed.
    pub(super) failed: Option<Arc<StorageError>>,
}

/// This node's part in the quorum.
pub(super) struct Quorum {
    raft: Raft,
    log: MetadataLog,
    disk: Disk,
    limits: Limits,
    /// Entries that are not committed yet. Invariant: consecutive indexes, in order.
    pending: VecDeque<(Index, Entry)>,
    /// A hard state that waits until the one before is written.
    next_state: Option<(HardStateSeq, HardState)>,
    writing_state: bool,
    state_to: mpsc::Sender<(HardStateSeq, Result<(), BatchError>)>,
    state_written: mpsc::Receiver<(HardStateSeq, Result<(), BatchError>)>,
    alarm: Alarm,
    next_proposal: u64,
    /// Proposals that the core has not answered.
    proposed: BTreeMap<ProposalId, Reply>,
    /// Proposals that stand in the log, by index, with their term.
    accepted: BTreeMap<Index, (Term, Reply)>,
    effects: Vec<Effect>,
}

impl Quorum {
    /// Reads log and hard state and joins: a quorum of one begins a new term at once.
    ///
    /// # Errors
    /// `Damaged` if either cannot be trusted: a voter that has forgotten what it said may not speak (contract 6).
    pub(super) async fn open(
        store: &Store,
        disk: &Disk,
        me: VoterId,
    ) -> Result<(Quorum, Progress), MetadataError> {
        let (log, entries) = MetadataLog::open(store, disk).await?;
        let hard_state = match hard_state::load(disk).await? {
            Some(state) => state,
            None if entries.is_empty() => HardState::default(),
            None => {
                let reason = "the file is missing, and the log is not empty".to_owned();
                return Err(MetadataError::Damaged { what: "quorum-state".to_owned(), reason });
            }
        };
        let position = log.position(&entries);
        let voters = Voters::new([me]).map_err(|error| MetadataError::Refused(error.to_string()))?;
        let start = StartState { me, voters, hard_state, snapshot: None, log: position, damage: None };
        let limits = Limits::default();
        let mut effects = Vec::new();
        let raft = Raft::start(start, Timing::default(), limits, now(), random::u64(), &mut effects);
        let (state_to, state_written) = mpsc::channel(1);
        let mut quorum = Quorum {
            raft,
            log,
            disk: disk.clone(),
            limits,
            pending: entries.into(),
            next_state: None,
            writing_state: false,
            state_to,
            state_written,
            alarm: Alarm::new(),
            next_proposal: 0,
            proposed: BTreeMap::new(),
            accepted: BTreeMap::new(),
            effects,
        };
        let mut progress = Progress::default();
        quorum.carry_out(&mut progress)?;
        Ok((quorum, progress))
    }

    /// Whether this node leads and everything in its log is committed.
    pub(super) fn is_current(&self) -> bool {
        self.raft.is_leader() && self.raft.commit() == self.raft.log_end()
    }

    /// Proposes a command. `reply` hears of it when it is committed, or will not be.
    pub(super) fn propose(
        &mut self,
        record: impl Into<Record>,
        reply: Option<Reply>,
    ) -> Result<Progress, MetadataError> {
        let payload = internal::encode(&record.into());
        let payload = match payload {
            Ok(payload) if payload.len() <= self.limits.entry_bytes_max => payload,
            Ok(_) | Err(_) => {
                refuse(reply, ProposeError::TooLarge);
                return Ok(Progress::default());
            }
        };
        let id = ProposalId(self.next_proposal);
        self.next_proposal += 1;
        if let Some(reply) = reply {
            self.proposed.insert(id, reply);
        }
        self.step(Input::Propose { id, payload })
    }

    /// What happens next. Cancel-safe.
    pub(super) async fn event(&mut self) -> Event {
        weir_runtime::select! {
            written = self.state_written.recv() => match written {
                Some((seq, result)) => Event::HardState(seq, result),
                // This side holds a sender.
                None => std::future::pending().await,
            },
            event = self.log.event() => Event::Store(event),
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
                self.write_state();
                self.step(Input::HardStatePersisted { seq })
            }
            Event::Store(StoreEvent::Durable(logs)) => {
                let mut end = None;
                for (_, durable) in logs {
                    end = self.log.on_durable(&durable).or(end);
                }
                match end {
                    Some(end) => self.step(Input::Persisted { end }),
                    None => Ok(Progress::default()),
                }
            }
            Event::Store(StoreEvent::AppendFailed(failed)) => {
                tracing::warn!(from = failed.from, error = %failed.error, "metadata entries cannot be written");
                match self.log.on_append_failed(&failed) {
                    Some(from) => self.step(Input::AppendFailed { from }),
                    None => Ok(Progress::default()),
                }
            }
            Event::Store(StoreEvent::Cut(cut)) => {
                let durable = self.log.on_cut(&cut);
                let mut progress = self.step(Input::Truncated { to: cut.end })?;
                if let Some(end) = durable {
                    progress.append(self.step(Input::Persisted { end })?);
                }
                Ok(progress)
            }
            Event::Store(StoreEvent::FolderFailed(error)) => {
                Ok(Progress { failed: Some(error), ..Progress::default() })
            }
        }
    }

    fn step(&mut self, input: Input) -> Result<Progress, MetadataError> {
        let mut progress = Progress::default();
        self.feed(input, &mut progress)?;
        Ok(progress)
    }

    fn feed(&mut self, input: Input, progress: &mut Progress) -> Result<(), MetadataError> {
        if let Input::AppendFailed { from } = &input {
            self.pending.retain(|(index, _)| index < from);
        }
        self.raft.step(now(), input, &mut self.effects);
        debug_assert_eq!(self.raft.invariants(), Ok(()));
        self.carry_out(progress)
    }

    /// Carries out the core's effects, in their order.
    fn carry_out(&mut self, progress: &mut Progress) -> Result<(), MetadataError> {
        let mut refused_from = None;
        for effect in std::mem::take(&mut self.effects) {
            match effect {
                Effect::PersistHardState { seq, state } => {
                    self.next_state = Some((seq, state));
                    self.write_state();
                }
                Effect::AppendEntries { first, entries } => {
                    for (index, entry) in (first..).zip(entries) {
                        if let Err(error) = self.log.append(index, &entry) {
                            tracing::warn!(index, %error, "a metadata entry is refused");
                            refused_from = Some(index);
                            break;
                        }
                        self.pending.push_back((index, entry));
                    }
                }
                Effect::TruncateLog { to } => {
                    self.pending.retain(|(index, _)| *index < to);
                    self.log.truncate(to);
                }
                Effect::Commit { end } => self.commit(end, progress)?,
                Effect::BecameLeader { term } => {
                    simulation::observe(|| Fact::LeadsQuorum { term });
                    tracing::info!(term, "leads the metadata quorum");
                }
                Effect::Resigned { term } => {
                    tracing::info!(term, "leads the metadata quorum no longer");
                    progress.resigned = true;
                    self.forget_proposals();
                }
                Effect::Following { term, leader } => {
                    tracing::info!(term, %leader, "follows in the metadata quorum");
                }
                Effect::ProposalAccepted { id, index, term } => {
                    if let Some(reply) = self.proposed.remove(&id) {
                        self.accepted.insert(index, (term, reply));
                    }
                }
                Effect::ProposalRefused { id, reason } => {
                    refuse(self.proposed.remove(&id), of_refusal(reason));
                }
                Effect::SetTimer(at) => self.alarm.set(Some(Instant::from_origin(at))),
                Effect::Complain { about, what } => {
                    tracing::warn!(%about, %what, "a voter says what cannot be")
                }
                // A quorum of one has nobody to talk to, no reads of its own and no snapshots: the transport between
                // voters and the snapshots' files join here.
                Effect::Send { .. }
                | Effect::ReadEntries { .. }
                | Effect::CompactLog { .. }
                | Effect::ResetLog { .. }
                | Effect::ReadSnapshot { .. }
                | Effect::WriteSnapshot { .. }
                | Effect::InstallSnapshot { .. }
                | Effect::ReadReady { .. }
                | Effect::ReadRefused { .. } => {
                    tracing::error!(?effect, "a quorum of one has no use for this");
                }
            }
        }
        match refused_from {
            Some(from) => self.feed(Input::AppendFailed { from }, progress),
            None => Ok(()),
        }
    }

    /// Hands out everything below `end`.
    fn commit(&mut self, end: Index, progress: &mut Progress) -> Result<(), MetadataError> {
        while let Some((index, entry)) = self.pending.pop_front_if(|(index, _)| *index < end) {
            let reply = match self.accepted.remove(&index) {
                Some((term, reply)) if term == entry.term => Some(reply),
                Some((_, reply)) => {
                    // Another leader's entry stands where the proposal stood.
                    refuse(Some(reply), ProposeError::NotController);
                    None
                }
                None => None,
            };
            simulation::observe(|| Fact::Committed {
                index,
                term: entry.term,
                payload: entry.payload.clone(),
            });
            progress.committed.push(Committed { index, record: decode(index, &entry)?, reply });
        }
        Ok(())
    }

    /// What was proposed may be committed, or not: nobody knows yet.
    fn forget_proposals(&mut self) {
        for (_, (_, reply)) in std::mem::take(&mut self.accepted) {
            refuse(Some(reply), ProposeError::Unknown);
        }
    }

    /// Writes the newest hard state, one at a time.
    fn write_state(&mut self) {
        if self.writing_state {
            return;
        }
        let Some((seq, state)) = self.next_state.take() else { return };
        self.writing_state = true;
        let (disk, written) = (self.disk.clone(), self.state_to.clone());
        task::spawn("quorum-state", async move {
            let result = hard_state::store(&disk, &state).await;
            // A quorum that has ended needs no news.
            let _ = written.send((seq, result)).await;
        });
    }
}

impl Progress {
    /// Adds what came after.
    pub(super) fn append(&mut self, mut later: Progress) {
        self.committed.append(&mut later.committed);
        self.resigned |= later.resigned;
        self.failed = self.failed.take().or(later.failed);
    }
}

fn now() -> std::time::Duration {
    time::now().since_origin()
}

fn refuse(reply: Option<Reply>, error: ProposeError) {
    if let Some(reply) = reply {
        // Whoever asked may have gone.
        let _ = reply.send(Err(error));
    }
}

fn of_refusal(reason: Refusal) -> ProposeError {
    match reason {
        // A command changes no voters.
        Refusal::NotLeader(_) | Refusal::Change(_) => ProposeError::NotController,
        Refusal::Overloaded => ProposeError::Overloaded,
        Refusal::TooLarge => ProposeError::TooLarge,
    }
}

fn decode(index: Index, entry: &Entry) -> Result<Option<Record>, MetadataError> {
    match entry.kind {
        EntryKind::LeaderStart | EntryKind::Voters => return Ok(None),
        EntryKind::Command => {}
    }
    match internal::decode(&entry.payload, Limits::default().entry_bytes_max) {
        Ok(record) => Ok(Some(record)),
        Err(error) => Err(MetadataError::NewerFormat(format!("metadata entry {index}: {error}"))),
    }
}
