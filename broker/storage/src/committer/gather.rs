//! From the inbox into a round.

use std::sync::Arc;

use weir_defect::defect;
use weir_protocol::types::Offset;

use super::round::{By, Deletion, Round, RoundCut, RoundStart};
use super::{Committer, LogSlot};
use crate::StorageError;
use crate::cache::lock;
use crate::event::{Cut, CutSide, StoreEvent};
use crate::inbox::{Append, Command, CutPlace, Opened, SetStart, Truncate};
use crate::journal::Entry;

/// Whether gathering goes on.
pub(super) enum Next {
    Command,
    /// This command belongs to a later round.
    Later(Command),
    /// The round ends here.
    End,
}

impl Committer {
    /// Takes commands off the queue, as many as fit into a round.
    pub(super) fn gather(&mut self) -> Result<Round, StorageError> {
        self.round_number += 1;
        let (mut round, round_max) = (Round::default(), self.round_max());
        for mut cut in std::mem::take(&mut self.failed_cuts) {
            if !round.has_room(0, round_max) {
                self.failed_cuts.push(cut);
                continue;
            }
            let start = lock(&self.shared.catalog).get(cut.slot).map_or(0, |entry| entry.state.start);
            if cut.end < start {
                // The log begins anew beyond what failed.
                (cut.end, cut.segment_base, cut.place) = (start, start, CutPlace::At(0));
                if let Some(entry) = self.slot(cut.slot) {
                    entry.failing = entry.failing.map(|from| from.max(start));
                }
            }
            self.push_cut(&mut round, cut);
        }
        if !self.failed_cuts.is_empty() {
            return Ok(round);
        }
        while let Some(command) = self.queue.pop_front() {
            if !round.has_room(0, round_max) {
                self.queue.push_front(command);
                break;
            }
            match self.take(&mut round, command)? {
                Next::Command => {}
                Next::Later(command) => {
                    self.queue.push_front(command);
                    break;
                }
                Next::End => break,
            }
        }
        Ok(round)
    }

    /// What the journal takes at once, and no more than is wanted.
    fn round_max(&self) -> usize {
        self.shared.config.round_bytes_max.min(self.journal.max_round_bytes())
    }

    fn take(&mut self, round: &mut Round, command: Command) -> Result<Next, StorageError> {
        match command {
            Command::Append(append) => return Ok(self.on_append(round, append)),
            Command::Open(opened) => self.on_open(round, opened),
            Command::Roll { slot, sealed, active, empty_at } => {
                if let Some(entry) = self.slot(slot) {
                    entry.active = active;
                    let log = entry.log;
                    let data = sealed.with(|index| index.clone());
                    if data.covered > 0 {
                        round.sealed.push((log, data));
                    }
                    round.rolls.extend(empty_at.map(|base| (slot, base)));
                }
            }
            Command::Replace(replace) => return Ok(self.on_replace(round, replace)),
            Command::Compacted { slot, compacted } => {
                if self.is_controlled(slot) {
                    return Ok(Next::Later(Command::Compacted { slot, compacted }));
                }
                self.on_compacted(round, slot, compacted);
            }
            Command::Settle => self.settle = true,
            Command::Truncate(truncate) => return Ok(self.on_truncate(round, truncate)),
            Command::SetStart(set_start) => return Ok(self.on_set_start(round, set_start)),
            Command::Epoch { slot, epoch, start } => {
                if self.is_controlled(slot) {
                    return Ok(Next::Later(Command::Epoch { slot, epoch, start }));
                }
                if let Some(entry) = self.slot(slot).filter(|entry| entry.failing.is_none()) {
                    entry.latest_epoch = Some(epoch);
                    let log = entry.log;
                    round.push_entry(Entry::Epoch { log, epoch, start }, 0);
                    round.epochs.push((slot, epoch, start));
                }
            }
            Command::ForgetProducers { slot, producers } => {
                if let Some(entry) = lock(&self.shared.catalog).get_mut(slot) {
                    entry.state.producers.forget(&producers);
                }
            }
            Command::Resume { slot, generation, active } => {
                if self.is_controlled(slot) {
                    return Ok(Next::Later(Command::Resume { slot, generation, active }));
                }
                self.on_resume(slot, generation, active);
            }
            Command::Close { slot } => {
                if let Some(entry) = self.slot(slot) {
                    entry.is_open = false;
                }
            }
            Command::Delete { log, reply } => {
                let slot = lock(&self.shared.catalog).find(log);
                if slot.is_some_and(|slot| self.is_controlled(slot) || self.is_touched(slot)) {
                    return Ok(Next::Later(Command::Delete { log, reply }));
                }
                if let Some(slot) = slot {
                    self.control(slot);
                }
                round.push_entry(Entry::Delete { log }, 0);
                round.deletions.push(Deletion { slot, log, reply });
            }
            Command::Barrier { reply } => round.barriers.push(reply),
            Command::Stop { reply } => {
                self.stopping = Some(reply);
                return Ok(Next::End);
            }
            Command::Abandon => {
                self.abandoned = true;
                return Ok(Next::End);
            }
            background => self.on_background(background)?,
        }
        Ok(Next::Command)
    }

    fn on_open(&mut self, round: &mut Round, opened: Opened) {
        let Opened { slot, port, announce, state, active, handle, dirty } = opened;
        let compacted = state.compacted;
        let (os, start) = (state.os, state.start);
        let latest_epoch = state.epochs.latest().map(|latest| latest.epoch);
        let log = {
            let mut catalog = lock(&self.shared.catalog);
            let Some(entry) = catalog.get_mut(slot) else { return };
            entry.state = *state;
            entry.announced = true;
            entry.log
        };
        if self.slots.len() <= slot as usize {
            self.slots.resize_with(slot as usize + 1, || None);
        }
        self.slots[slot as usize] = Some(LogSlot {
            log,
            port,
            os,
            is_open: true,
            generation: 0,
            latest_epoch,
            active,
            handle,
            checkpointed: Offset::MIN,
            failing: None,
            touched: (0, 0),
            controlled: 0,
            dirty: (0, 0),
            is_named: false,
        });
        for base in dirty {
            self.mark_dirty(slot, base);
            self.dirty.folders.insert(slot);
        }
        if announce {
            round.push_entry(Entry::Create { log, start, flags: u32::from(os), compacted }, 0);
        }
    }

    fn on_append(&mut self, round: &mut Round, append: Append) -> Next {
        let number = self.round_number;
        let bytes = append.bytes as usize;
        if !round.has_room(bytes, self.round_max()) {
            return Next::Later(Command::Append(append));
        }
        let Some(entry) = self.slots.get_mut(append.slot as usize).and_then(Option::as_mut) else {
            self.shared.inbox.release_backlog(bytes);
            return Next::Command;
        };
        if entry.failing.is_some() {
            self.shared.inbox.release_backlog(bytes);
            return Next::Command;
        }
        if entry.controlled == number {
            return Next::Later(Command::Append(append));
        }
        if entry.latest_epoch != Some(append.leader_epoch) {
            entry.latest_epoch = Some(append.leader_epoch);
            round.epochs.push((append.slot, append.leader_epoch, append.base_offset));
        }
        let by = By { log: entry.log, port: entry.port, os: entry.os, generation: entry.generation };
        let touched = (entry.touched.0 == number).then_some(entry.touched.1);
        entry.touched = (number, round.push_append(append, by, touched));
        Next::Command
    }

    fn on_truncate(&mut self, round: &mut Round, truncate: Truncate) -> Next {
        let must_be_read = matches!(truncate.place, CutPlace::Behind { .. });
        let slot = truncate.slot;
        if self.is_controlled(slot) || must_be_read && self.is_touched(slot) {
            return Next::Later(Command::Truncate(truncate));
        }
        let Truncate { generation, end, segment_base, place, removed, active, .. } = truncate;
        let Some(entry) = self.slot(slot) else { return Next::Command };
        if entry.failing.is_some_and(|from| from < end) {
            // The owner will hear that its log is shorter than that.
            return Next::Command;
        }
        entry.failing = None;
        entry.active = active;
        let (log, port, os) = (entry.log, entry.port, entry.os);
        let cut = RoundCut {
            slot,
            log,
            port,
            os,
            generation,
            end,
            segment_base,
            place,
            removed,
            entry: None,
            failed: None,
        };
        self.push_cut(round, cut);
        Next::Command
    }

    /// Cuts of `os` logs are made durable in the segments themselves, too: the journal does not know what follows on them.
    fn push_cut(&mut self, round: &mut Round, mut cut: RoundCut) {
        self.control(cut.slot);
        if !defect!(truncate_not_durable) {
            cut.entry = Some(round.entries.len());
            let position = if let CutPlace::At(position) = cut.place { position } else { 0 };
            let (log, end, segment_base) = (cut.log, cut.end, cut.segment_base);
            round.push_entry(Entry::Truncate { log, end, segment_base, position }, 0);
        }
        round.cuts.push(cut);
    }

    fn on_set_start(&mut self, round: &mut Round, set_start: SetStart) -> Next {
        if self.is_controlled(set_start.slot) {
            return Next::Later(Command::SetStart(set_start));
        }
        let SetStart { slot, generation, start, removed, active } = set_start;
        let Some(entry) = self.slot(slot) else { return Next::Command };
        entry.active = active;
        let (log, port) = (entry.log, entry.port);
        self.control(slot);
        round.push_entry(Entry::StartOffset { log, start }, 0);
        round.starts.push(RoundStart { slot, log, port, generation, start, removed });
        Next::Command
    }

    /// The owner has cut its log where the store had. That cut is durable.
    fn on_resume(&mut self, slot: u32, generation: u32, active: Arc<crate::segment::SegmentIndex>) {
        let Some(entry) = self.slot(slot) else { return };
        let Some(end) = entry.failing.take() else { return };
        entry.generation = generation;
        entry.active = active;
        let (log, port) = (entry.log, entry.port);
        let start = lock(&self.shared.catalog).get(slot).map_or(0, |entry| entry.state.start);
        let end = end.max(start);
        self.shared.send(port, StoreEvent::Cut(Cut { log, start, end, side: CutSide::End, generation }));
    }

    pub(super) fn is_controlled(&self, slot: u32) -> bool {
        let entry = self.slots.get(slot as usize).and_then(Option::as_ref);
        entry.is_some_and(|entry| entry.controlled == self.round_number)
    }

    fn is_touched(&self, slot: u32) -> bool {
        let entry = self.slots.get(slot as usize).and_then(Option::as_ref);
        entry.is_some_and(|entry| entry.touched.0 == self.round_number)
    }

    pub(super) fn control(&mut self, slot: u32) {
        let number = self.round_number;
        if let Some(entry) = self.slot(slot) {
            entry.controlled = number;
        }
    }
}
