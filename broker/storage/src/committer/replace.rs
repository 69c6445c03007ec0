//! What compaction has left of segments takes their place.

use weir_protocol::types::Offset;
use weir_runtime::disk::{Lane, Op};

use super::commit::remove;
use super::gather::Next;
use super::round::Round;
use super::{Committer, LogSlot};
use crate::StorageError;
use crate::cache::lock;
use crate::catalog::SlotId;
use crate::event::{Replaced, StoreEvent};
use crate::inbox::{Command, Replace, Replacement};
use crate::journal::{Compacted, Entry};
use crate::layout;

impl LogSlot {
    /// The log was cut in this segment: the journal may write to it again, and a checkpoint that was begun before says nothing of that.
    pub(super) fn unsettle(&mut self, base: Offset) {
        self.checkpointed = self.checkpointed.min(base);
        self.handle.unsettle(base);
    }
}

impl Committer {
    /// That there may be gaps, and which deletions are forgotten, must be durable before anything is gone.
    pub(super) fn on_replace(&mut self, round: &mut Round, replace: Replace) -> Next {
        if self.is_controlled(replace.slot) {
            return Next::Later(Command::Replace(replace));
        }
        self.control(replace.slot);
        self.on_compacted(round, replace.slot, replace.before);
        round.replaces.push(replace);
        Next::Command
    }

    pub(super) fn on_compacted(&mut self, round: &mut Round, slot: SlotId, compacted: Compacted) {
        let Some(entry) = self.slot(slot) else { return };
        let (log, flags) = (entry.log, u32::from(entry.os));
        let mut catalog = lock(&self.shared.catalog);
        let Some(known) = catalog.get_mut(slot) else { return };
        // A checkpoint that says so before the journal does is none too many.
        known.state.compacted.raise(compacted);
        let start = known.state.start;
        round.push_entry(Entry::Create { log, start, flags, compacted }, 0);
    }

    /// Logs go on in segments that are empty yet.
    pub(super) fn carry_out_rolls(&mut self, rolls: &[(SlotId, Offset)]) {
        let mut catalog = lock(&self.shared.catalog);
        for (slot, base) in rolls {
            if let Some(entry) = catalog.get_mut(*slot).filter(|entry| entry.state.end == *base) {
                (entry.state.segment_base, entry.state.position) = (*base, 0);
            }
        }
    }

    /// Replaces segments, oldest first, each durably before the next: what a tombstone has deleted must be gone before it is.
    pub(super) async fn carry_out_replaces(&mut self, replaces: Vec<Replace>) -> Result<(), StorageError> {
        for Replace { slot, segments, after, .. } in replaces {
            for segment in segments {
                self.replace_segment(slot, segment).await?;
            }
            if let Some(entry) = lock(&self.shared.catalog).get_mut(slot) {
                entry.state.compacted.raise(after);
            }
        }
        Ok(())
    }

    async fn replace_segment(&mut self, slot: SlotId, segment: Replacement) -> Result<(), StorageError> {
        let doing = "replace a segment by its compacted form";
        let Some(entry) = self.slot(slot) else { return Ok(()) };
        let (log, port, handle) = (entry.log, entry.port, entry.handle.clone());
        let Replacement { base, bytes } = segment;
        let disk = self.shared.disk.clone();
        // The index of what was there must not be taken for one of what will be.
        remove(&disk, layout::index_file(log, base)).await?;
        disk.sync_dir(layout::log_dir(log)).await.map_err(StorageError::disk(doing))?;
        let (from, to) = (layout::cleaned_file(log, base), layout::segment_file(log, base));
        let ops = match bytes {
            0 => vec![Op::Remove { path: to }, Op::Remove { path: from }],
            _ => vec![Op::Rename { from, to }],
        };
        let layout = handle.begin_layout();
        disk.submit(Lane::Pool, ops).await.map_err(StorageError::disk(doing))?;
        self.shared.files.remove((slot, base));
        self.shared.indexes.remove((slot, base));
        if bytes == 0 {
            self.dirty.segments.remove(&(slot, base));
        }
        self.shared.send(port, StoreEvent::Replaced(Replaced { log, segment, layout }));
        disk.sync_dir(layout::log_dir(log)).await.map_err(StorageError::disk(doing))
    }
}
