//! Snapshots (§7): the log drops what they hold, and followers that are too far behind get them in pieces.

use bytes::Bytes;
use weir_defect::defect;

use super::interface::{Complaint, Effect};
use super::message::{AppendOutcome, Index, Message, Snapshot, SnapshotChunk, SnapshotPoint, Term};
use super::{Raft, Role};
use crate::types::VoterId;

/// No log that grows entry by entry comes near: a log that begins here can still grow.
const INDEX_MAX: Index = Index::MAX / 2;

/// A snapshot that is arriving.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Receiving {
    pub(super) snapshot: Snapshot,
    /// Invariant: `<= snapshot.bytes`
    received: u64,
    /// All of it has arrived, and is taking the log's place.
    pub(super) installing: bool,
}

impl Raft {
    /// What a snapshot says of itself that holds what all entries below `applied` have made: the driver writes it into
    /// one file together with that state, and then says [`super::Input::SnapshotPersisted`]. `None` if nothing is new.
    pub fn snapshot_point(&self, applied: Index) -> Option<SnapshotPoint> {
        // Z47: a snapshot that names what its state does not hold yet.
        let end = if defect!(snapshot_index_early) { self.commit } else { applied };
        let is_new = self.snapshot.as_ref().map_or(0, |snapshot| snapshot.at.end) < end;
        if is_new && end <= self.commit { self.log.point(end) } else { None }
    }

    /// The newest durable snapshot.
    pub fn snapshot(&self) -> Option<&Snapshot> {
        self.snapshot.as_ref()
    }

    pub(super) fn on_snapshot_persisted(&mut self, snapshot: Snapshot, effects: &mut Vec<Effect>) {
        let end = snapshot.at.end;
        let is_new = self.snapshot.as_ref().is_none_or(|older| older.at.end < end);
        // Another leader's snapshot may have taken the log's place meanwhile.
        if !is_new || self.commit < end || self.log.term_before(end) != Some(snapshot.at.term) {
            return;
        }
        self.snapshot = Some(snapshot);
        // Z45: the gap between snapshot and log is found at the next start.
        let retained = Index::from(self.limits.entries_retained);
        let to = if defect!(retention_past_snapshot) { self.commit } else { end - retained };
        if to > self.log.start() {
            self.log.compact(to);
            effects.push(Effect::CompactLog { to });
        }
    }

    /// Whether the log is being cut or replaced, so that nothing can be appended.
    pub(super) fn is_log_busy(&self) -> bool {
        self.log.is_cutting() || self.receiving.as_ref().is_some_and(|receiving| receiving.installing)
    }

    /// Reads the next piece for a follower that needs what the log no longer has.
    pub(super) fn read_snapshot(&mut self, to: VoterId, effects: &mut Vec<Effect>) {
        let (term, bytes_max) = (self.hard.term, self.limits.piece_bytes_max);
        let newest = self.snapshot.clone();
        let Some(progress) = self.progress(to) else { return };
        if progress.snapshot.is_none() {
            progress.snapshot = newest.map(|snapshot| (snapshot, 0));
        }
        let Some((snapshot, offset)) = progress.snapshot.clone() else { return };
        effects.push(Effect::ReadSnapshot { to, term, snapshot, offset, bytes_max });
    }

    pub(super) fn on_snapshot_read(
        &mut self,
        to: VoterId,
        term: Term,
        piece: (Snapshot, u64, Bytes),
        effects: &mut Vec<Effect>,
    ) {
        let current = term == self.hard.term;
        let Role::Leader(leading) = &mut self.role else { return };
        let round = leading.round;
        let Some(progress) = leading.followers.get_mut(&to) else { return };
        let (snapshot, offset, bytes) = piece;
        if !current || progress.snapshot.as_ref() != Some(&(snapshot.clone(), offset)) {
            return;
        }
        if bytes.is_empty() && offset < snapshot.bytes {
            // It is gone: the newest one is tried next.
            progress.snapshot = None;
            return;
        }
        let chunk = SnapshotChunk { term, snapshot, offset, bytes, round };
        self.send(to, Message::Snapshot(chunk), effects);
    }

    pub(super) fn on_snapshot(&mut self, from: VoterId, chunk: SnapshotChunk, effects: &mut Vec<Effect>) {
        let round = chunk.round;
        if !self.hear_leader(from, chunk.term, round, effects) {
            return;
        }
        if !self.is_sensible_chunk(&chunk) {
            effects.push(Effect::Complain { about: from, what: Complaint::Nonsense });
            return;
        }
        self.known_commit = self.known_commit.max(chunk.snapshot.at.end);
        let outcome = self.receive(chunk, effects);
        self.follow_commit(effects);
        self.answer_append(from, round, outcome, effects);
    }

    fn receive(&mut self, chunk: SnapshotChunk, effects: &mut Vec<Effect>) -> AppendOutcome {
        if self.is_log_busy() {
            return AppendOutcome::Busy;
        }
        let SnapshotChunk { snapshot, offset, bytes, .. } = chunk;
        let end = snapshot.at.end;
        // §7: a log that has the snapshot's last entry holds all of it, and keeps what follows.
        if end <= self.commit || self.log.term_before(end) == Some(snapshot.at.term) {
            self.receiving = None;
            self.matched_end = self.matched_end.max(end);
            return self.accepted();
        }
        let received = match &self.receiving {
            Some(receiving) if receiving.snapshot == snapshot && offset > 0 => receiving.received,
            _ => 0,
        };
        if offset != received {
            return AppendOutcome::Receiving { end, received };
        }
        let received = received + bytes.len() as u64;
        let installing = received == snapshot.bytes;
        self.receiving = Some(Receiving { snapshot: snapshot.clone(), received, installing });
        effects.push(Effect::WriteSnapshot { snapshot: snapshot.clone(), offset, bytes });
        if installing {
            effects.push(Effect::InstallSnapshot { snapshot });
            return AppendOutcome::Busy;
        }
        AppendOutcome::Receiving { end, received }
    }

    pub(super) fn on_snapshot_installed(&mut self, end: Index, effects: &mut Vec<Effect>) {
        let installed = |receiving: &mut Receiving| receiving.installing && receiving.snapshot.at.end == end;
        let Some(Receiving { snapshot, .. }) = self.receiving.take_if(installed) else { return };
        self.log.reset(&snapshot.at);
        self.commit = end;
        self.known_commit = self.known_commit.max(end);
        self.matched_end = end;
        self.snapshot = Some(snapshot);
        self.refresh_role();
        self.report_progress(effects);
        self.finish_recovery(effects);
    }

    pub(super) fn on_snapshot_refused(&mut self, end: Index, effects: &mut Vec<Effect>) {
        let refused = |receiving: &mut Receiving| receiving.installing && receiving.snapshot.at.end == end;
        if self.receiving.take_if(refused).is_none() {
            return;
        }
        if let Some(leader) = self.leader.filter(|leader| !self.is_me(*leader)) {
            effects.push(Effect::Complain { about: leader, what: Complaint::DamagedSnapshot });
            self.answer_append(leader, 0, AppendOutcome::Receiving { end, received: 0 }, effects);
        }
    }

    /// Whether a leader could say this.
    fn is_sensible_chunk(&self, chunk: &SnapshotChunk) -> bool {
        let Snapshot { at, bytes, .. } = &chunk.snapshot;
        let piece_end = chunk.offset.checked_add(chunk.bytes.len() as u64);
        (1..=INDEX_MAX).contains(&at.end)
            && at.term > 0
            && at.term <= chunk.term
            && !at.voters.ids().is_empty()
            && *bytes <= self.limits.snapshot_bytes_max
            && piece_end.is_some_and(|piece_end| piece_end <= *bytes)
            && (!chunk.bytes.is_empty() || chunk.offset == *bytes)
    }
}
