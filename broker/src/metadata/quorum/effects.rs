//! Carries out what the core asks for.

use std::time::Duration;

use weir_protocol::fact::Fact;
use weir_protocol::metadata::Record;
use weir_protocol::raft::{
    Effect, Entry, EntryKind, Envelope, HardStateSeq, Index, Input, Limits, Message, Refusal, SyncPoint, Term,
};
use weir_protocol::types::VoterId;
use weir_runtime::time::{self, Instant};
use weir_runtime::{simulation, task};
use weir_storage::CutSide;
use weir_wire::internal;

use super::{Committed, HELD_MAX, Happening, LeaderView, Progress, Quorum, READS_MAX, Read, Wanted};
use crate::metadata::error::MetadataError;
use crate::metadata::hard_state;
use crate::metadata::log::{self, AwaitedCut, MetadataLog};
use crate::peer::message::{NotDone, Note};

/// How long to wait before the hard state is written again after a full disk had no room for it.
const NO_SPACE_PAUSE: Duration = Duration::from_millis(100);

impl Quorum {
    /// Carries out the core's effects, in their order.
    pub(super) fn carry_out(&mut self, progress: &mut Progress) -> Result<(), MetadataError> {
        for effect in std::mem::take(&mut self.effects) {
            match effect {
                Effect::PersistHardState { seq, state } => {
                    self.next_state = Some((seq, state));
                    self.write_state();
                }
                Effect::AppendEntries { first, entries } => self.append(first, entries),
                Effect::TruncateLog { to } => self.truncate(to),
                Effect::ResetLog { start } => self.reset(start),
                Effect::CompactLog { to } => {
                    if let Some(log) = &mut self.log {
                        log.compact(to);
                    }
                }
                Effect::Send { to, message, after } => self.send(to, message, after),
                Effect::Commit { end } => self.commit(end, progress)?,
                Effect::BecameLeader { .. } | Effect::Resigned { .. } | Effect::Following { .. } => {
                    self.on_role(&effect, progress);
                }
                Effect::ProposalAccepted { id, index, term } => self.tickets.accept(id.0, index, term),
                Effect::ProposalRefused { id, reason } => self.refuse(id.0, reason, progress),
                Effect::ReadReady { id, commit } => {
                    simulation::observe(|| Fact::ReadDone { read: id.0, commit });
                    progress.extend(self.tickets.take(id.0).map(|ticket| Happening::Read(ticket, commit)));
                }
                Effect::ReadRefused { id, reason } => self.refuse(id.0, reason, progress),
                Effect::ReadEntries { to, term, from, bytes_max } => {
                    self.read_entries(to, term, from, bytes_max)
                }
                Effect::ReadSnapshot { to, term, snapshot, offset, bytes_max } => {
                    self.read_snapshot(Wanted { to, term, snapshot, offset, bytes_max });
                }
                Effect::WriteSnapshot { snapshot, offset, bytes } => {
                    self.keep_piece(snapshot, offset, &bytes)
                }
                Effect::InstallSnapshot { snapshot } => self.install(&snapshot),
                Effect::Complain { about, what } => {
                    tracing::warn!(%about, %what, "a voter says what cannot be");
                }
                Effect::SetTimer(at) => self.alarm.set(Some(Instant::from_origin(at))),
            }
        }
        Ok(())
    }

    fn append(&mut self, first: Index, entries: Vec<Entry>) {
        let Some(log) = &mut self.log else { return };
        for (index, entry) in (first..).zip(entries) {
            if let Err(error) = log.append(index, &entry) {
                tracing::warn!(index, %error, "a metadata entry is refused");
                self.follow_ups.push_back(Input::AppendFailed { from: index });
                break;
            }
            self.pending.push_back((index, entry));
        }
    }

    fn truncate(&mut self, to: Index) {
        self.pending.retain(|(index, _)| *index < to);
        if let Some(log) = &mut self.log {
            log.truncate(to);
            self.awaited = Some((AwaitedCut { side: CutSide::End, end: to }, Input::Truncated { to }));
        }
    }

    fn reset(&mut self, start: Index) {
        simulation::situation("metadata log reset");
        tracing::info!(start, "the metadata log does not join the snapshot and is dropped");
        self.pending.clear();
        let Some(log) = &mut self.log else { return };
        if let Some(cut) = log.reset(start) {
            self.awaited = Some((cut, Input::Truncated { to: start }));
            return;
        }
        // The log begins behind that: another one takes its place.
        let old = self.log.take();
        let (store, disk, config) = (self.store.clone(), self.disk.clone(), self.setup.log);
        let done = self.reads_to.clone();
        self.reads_under_way += 1;
        task::spawn("quorum-log", async move {
            drop(old);
            let log = MetadataLog::replace(&store, &disk, config, start).await;
            // A quorum that has ended needs no news.
            let _ = done.send(Read::Log(Box::new(log), start)).await;
        });
    }

    fn send(&mut self, to: VoterId, message: Message, after: SyncPoint) {
        let envelope = Envelope { from: self.me, to, message };
        match after {
            SyncPoint::Now => self.tell(envelope),
            SyncPoint::HardState(seq) => {
                if self.held.len() >= HELD_MAX {
                    self.held.pop_front();
                }
                self.held.push_back((seq, envelope));
            }
        }
    }

    /// The hard state is durable: what was said under it may be heard.
    pub(super) fn release(&mut self, seq: HardStateSeq) {
        while let Some((_, envelope)) = self.held.pop_front_if(|(after, _)| *after <= seq) {
            self.tell(envelope);
        }
    }

    fn tell(&self, envelope: Envelope) {
        if let Message::VoteAnswer { term, granted: true } = envelope.message {
            simulation::observe(|| Fact::Voted { voter: self.me, term, candidate: envelope.to });
        }
        self.peers.tell(envelope.to.broker, Note::Raft(envelope));
    }

    fn on_role(&mut self, effect: &Effect, progress: &mut Progress) {
        match *effect {
            Effect::BecameLeader { term } => {
                simulation::observe(|| Fact::LeadsQuorum { term });
                simulation::situation("metadata leader elected");
                tracing::info!(term, "leads the metadata quorum");
                let view = LeaderView { leader: Some(self.me.broker), term, is_me: false };
                self.say_leader(view, progress);
            }
            Effect::Resigned { term } => {
                tracing::info!(term, "leads the metadata quorum no longer");
                self.serving = None;
                self.say_leader(LeaderView { leader: None, term, is_me: false }, progress);
                // What was proposed may be committed, or not: nobody knows yet.
                progress.extend(self.tickets.forget().map(Happening::Unknown));
            }
            Effect::Following { term, leader } => {
                tracing::info!(term, %leader, "follows in the metadata quorum");
            }
            _ => {}
        }
    }

    fn refuse(&mut self, number: u64, reason: Refusal, progress: &mut Progress) {
        let Some(ticket) = self.tickets.take(number) else { return };
        progress.push(match reason {
            Refusal::NotLeader(leader) => {
                let leader = leader.map(|leader| leader.broker);
                Happening::NotDone(ticket, NotDone::NotController(leader))
            }
            Refusal::Overloaded => Happening::NotDone(ticket, NotDone::Overloaded),
            Refusal::TooLarge => Happening::NotDone(ticket, NotDone::TooLarge),
            Refusal::Change(refusal) => Happening::VotersRefused(ticket, refusal),
        });
    }

    fn read_entries(&mut self, to: VoterId, term: Term, from: Index, bytes_max: usize) {
        let Some(log) = self.log.as_ref().filter(|_| self.reads_under_way < READS_MAX) else { return };
        // What is below the log's start by now is in a snapshot: the core finds that out when it tries again.
        let Ok(plan) = log.read(from, bytes_max) else { return };
        let (disk, done) = (self.disk.clone(), self.reads_to.clone());
        self.reads_under_way += 1;
        task::spawn("quorum-read", async move {
            let entries = log::entries(plan, &disk).await;
            let entries = entries.map(|entries| entries.into_iter().map(|(_, entry)| entry).collect());
            // A quorum that has ended needs no news.
            let _ = done.send(Read::Entries { to, term, from, entries }).await;
        });
    }

    /// Hands out everything below `end`.
    fn commit(&mut self, end: Index, progress: &mut Progress) -> Result<(), MetadataError> {
        while let Some((index, entry)) = self.pending.pop_front_if(|(index, _)| *index < end) {
            let ticket = match self.tickets.commit(index, entry.term) {
                Some((ticket, true)) => Some(ticket),
                Some((ticket, false)) => {
                    // Another leader's entry stands where the proposal stood.
                    let leader = self.raft.leader().map(|leader| leader.broker);
                    progress.push(Happening::NotDone(ticket, NotDone::NotController(leader)));
                    None
                }
                None => None,
            };
            simulation::observe(|| Fact::Committed {
                index,
                term: entry.term,
                payload: entry.payload.clone(),
            });
            let leads = self.raft.is_leader() && entry.term == self.raft.term();
            let begins = leads && entry.kind == EntryKind::LeaderStart;
            let voters = entry.voters();
            if voters.is_some() {
                simulation::situation("metadata voters changed");
            }
            let (record, bytes) = (decode(index, &entry)?, entry.payload.len());
            progress.push(Happening::Committed(Committed { index, record, ticket, begins, voters, bytes }));
            if begins {
                let view = LeaderView { leader: Some(self.me.broker), term: entry.term, is_me: true };
                self.say_leader(view, progress);
            }
        }
        Ok(())
    }

    /// Writes the newest hard state, one at a time.
    pub(super) fn write_state(&mut self) {
        if self.writing_state {
            return;
        }
        let Some((seq, state)) = self.next_state.take() else { return };
        self.writing_state = true;
        self.votes_for_itself = (state.vote == Some(self.me)).then_some(state.term);
        let (disk, written) = (self.disk.clone(), self.state_to.clone());
        task::spawn("quorum-state", async move {
            let result = loop {
                match hard_state::store(&disk, &state).await {
                    // Nothing was said under it yet, and nothing will be before there is room.
                    Err(error) if error.is_no_space() => {
                        tracing::warn!(%error, "no room for the metadata quorum's state");
                        time::sleep(NO_SPACE_PAUSE).await;
                    }
                    result => break result,
                }
            };
            // A quorum that has ended needs no news.
            let _ = written.send((seq, result)).await;
        });
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
