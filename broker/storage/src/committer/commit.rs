//! A round on its way to disk, and what it leaves.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use weir_defect::defect;
use weir_protocol::types::{LogId, Offset};
use weir_runtime::disk::{BatchError, Done, File, Lane, Op, OpenMode};
use weir_runtime::time;

use super::Committer;
use super::keeper::Job;
use super::round::{Deletion, Round, RoundCut, RoundStart, SegmentWrite};
use crate::StorageError;
use crate::cache::lock;
use crate::catalog::SlotId;
use crate::event::{AppendFailed, Cut, CutSide, Durable, StoreEvent};
use crate::inbox::CutPlace;
use crate::journal::Entry;
use crate::layout;
use crate::segment::{Cursor, Span, Step};

/// How many operations open a segment.
const OPEN_OPS: usize = 2;

/// Opens a write's segment. Its log's folder comes with its first segment.
fn open_ops(write: &SegmentWrite) -> [Op; OPEN_OPS] {
    let path = layout::segment_file(write.log, write.segment_base);
    [Op::CreateDir { path: layout::log_dir(write.log) }, Op::Open { path, mode: OpenMode::Create }]
}

/// A write that found no room, and with it all later ones of its log.
struct NoRoom {
    /// The place of the write in the round.
    write: usize,
    error: Arc<StorageError>,
}

impl Committer {
    /// Makes a round durable and tells everybody.
    pub(super) async fn commit(&mut self, mut round: Round) -> Result<(), StorageError> {
        tracing::trace!(%round, sequence = self.journal.next_sequence());
        self.resolve_cuts(&mut round).await?;
        let files = self.open_segments(&round.writes).await?;
        let (files, mut no_room) = files;
        // Both writes are on their way from here on.
        let first = self.submit_writes(&round.writes, &files, 0, &no_room);
        if !round.entries.is_empty() {
            let write = self.begin_journal(&round.entries).await?;
            let journal = self.shared.disk.submit(Lane::Journal, vec![write.into_op()]);
            self.finish_writes(&round.writes, &files, first, &mut no_room).await?;
            let written = journal.await;
            self.on_journal_written(written)?;
        } else {
            self.finish_writes(&round.writes, &files, first, &mut no_room).await?;
        }
        if defect!(ack_before_segment_write) {
            no_room.clear();
        }
        self.on_complete(round, no_room).await
    }

    /// Finds out where a cut is whose place in its segment is not known: behind the last batch that ends at or below it.
    async fn resolve_cuts(&mut self, round: &mut Round) -> Result<(), StorageError> {
        for cut in &mut round.cuts {
            let CutPlace::Behind { position, offset, limit } = cut.place else { continue };
            let position = self
                .find_end(cut.slot, cut.log, cut.segment_base, (position, offset, limit), cut.end)
                .await?;
            cut.place = CutPlace::At(position);
            if let Some(Entry::Truncate { position: journalled, .. }) =
                cut.entry.and_then(|entry| round.entries.get_mut(entry))
            {
                *journalled = position;
            }
        }
        Ok(())
    }

    async fn find_end(
        &self,
        slot: SlotId,
        log: LogId,
        base: Offset,
        (position, offset, limit): (u64, Offset, u64),
        end: Offset,
    ) -> Result<u64, StorageError> {
        let (gaps_below, epochs) = match lock(&self.shared.catalog).get(slot) {
            Some(entry) => (entry.state.compacted.gaps_below, Arc::new(entry.state.epochs.clone())),
            None => return Ok(position),
        };
        let path = layout::segment_file(log, base);
        let (file, len) = match self.shared.disk.open_file(path, OpenMode::ReadWrite).await {
            Ok(opened) => opened,
            Err(error) if error.is_not_found() => return Ok(position),
            Err(error) => return Err(StorageError::disk("cut a segment")(error)),
        };
        let span =
            Span { position, offset, limit: limit.min(len), end: None, gaps_below, epochs: Some(epochs) };
        let mut cursor = Cursor::new(&self.shared.disk, file, span);
        loop {
            let before = cursor.position();
            match cursor.step().await.map_err(StorageError::disk("cut a segment"))? {
                Step::Batch { header, .. } if header.next_offset() <= end => {}
                Step::Damage(range) if range.end <= end => {}
                // The damage, or the batch, lies across the cut: what is whole before it is kept.
                Step::Damage(_) | Step::Batch { .. } | Step::End => return Ok(before),
            }
        }
    }

    /// The files of these writes, opened and created as needed, in the order of the writes; `None` where there was no room.
    async fn open_segments(
        &mut self,
        writes: &[SegmentWrite],
    ) -> Result<(Vec<Option<File>>, Vec<NoRoom>), StorageError> {
        let mut files: Vec<Option<File>> = Vec::with_capacity(writes.len());
        let mut missing = Vec::new();
        for (at, write) in writes.iter().enumerate() {
            let found = self.shared.files.get((write.slot, write.segment_base));
            missing.extend(found.as_ref().err().map(|moment| (at, *moment)));
            files.push(found.ok());
        }
        let mut no_room: Vec<NoRoom> = Vec::new();
        let mut rest = missing.as_slice();
        while !rest.is_empty() {
            let ops = rest.iter().flat_map(|(at, _)| open_ops(&writes[*at]));
            let (done, error) = match self.shared.disk.submit(Lane::Pool, ops.collect()).await {
                Ok(done) => (done, None),
                Err(BatchError { op, source, done, index }) => (done, Some((index, op, source))),
            };
            let opened = done.into_iter().filter_map(|done| match done {
                Done::Opened { file, len } => Some((file, len)),
                _ => None,
            });
            for ((file, len), (at, moment)) in opened.zip(rest) {
                let write = &writes[*at];
                if len == 0 {
                    self.dirty.folders.insert(write.slot);
                }
                self.shared.files.insert((write.slot, write.segment_base), file.clone(), 1, *moment);
                files[*at] = Some(file);
            }
            let Some((index, op, source)) = error else { break };
            let error = BatchError { index, op, source, done: Vec::new() };
            rest = &rest[index / OPEN_OPS..];
            let [(at, _), others @ ..] = rest else { break };
            no_room.push(NoRoom { write: *at, error: no_space(error, "create a segment")? });
            rest = others;
        }
        Ok((files, no_room))
    }

    /// Starts the writes from place `from` on, but those of logs that found no room.
    fn submit_writes(
        &self,
        writes: &[SegmentWrite],
        files: &[Option<File>],
        from: usize,
        no_room: &[NoRoom],
    ) -> Started {
        let mut started = Started { places: Vec::new(), submission: None };
        let mut batch = Vec::with_capacity(writes.len() - from);
        for (at, (write, file)) in writes.iter().zip(files).enumerate().skip(from) {
            let Some(file) = file else { continue };
            let is_cut = |no_room: &NoRoom| writes[no_room.write].slot == write.slot && no_room.write <= at;
            if no_room.iter().any(is_cut) {
                continue;
            }
            batch.push(Op::Write { file: file.clone(), offset: write.position, data: write.data.clone() });
            started.places.push(at);
        }
        if !batch.is_empty() {
            started.submission = Some(self.shared.disk.submit(Lane::Pool, batch));
        }
        started
    }

    /// Waits for the writes. Where one finds no room, its log is left out and the others go on.
    async fn finish_writes(
        &self,
        writes: &[SegmentWrite],
        files: &[Option<File>],
        mut started: Started,
        no_room: &mut Vec<NoRoom>,
    ) -> Result<(), StorageError> {
        while let Some(submission) = started.submission.take() {
            let Err(error) = submission.await else { return Ok(()) };
            let Some(at) = started.places.get(error.index).copied() else {
                return Err(StorageError::disk("write a segment")(error));
            };
            no_room.push(NoRoom { write: at, error: no_space(error, "write a segment")? });
            started = self.submit_writes(writes, files, at + 1, no_room);
        }
        Ok(())
    }

    /// The round is durable, but for what found no room.
    async fn on_complete(&mut self, mut round: Round, mut no_room: Vec<NoRoom>) -> Result<(), StorageError> {
        self.shared.inbox.release_backlog(round.append_bytes);
        self.shared.counters.appends.fetch_add(round.appends, Ordering::Relaxed);
        self.shared.counters.append_bytes.fetch_add(round.append_bytes as u64, Ordering::Relaxed);
        no_room.sort_by_key(|no_room| no_room.write);
        let mut failures = Vec::new();
        let mut events: Vec<Vec<(LogId, Durable)>> = Vec::new();
        {
            let shared = self.shared.clone();
            let mut catalog = lock(&shared.catalog);
            for (slot, epoch, start) in &round.epochs {
                if let Some(entry) = catalog.get_mut(*slot) {
                    entry.state.epochs.begin(*epoch, *start);
                }
            }
            let now_ms = time::now().since_origin_ms();
            for (slot, batch) in &round.producers {
                if let Some(entry) = catalog.get_mut(*slot) {
                    entry.state.producers.note(batch, now_ms);
                }
            }
            for touched in &round.touched {
                let Some(entry) = catalog.get_mut(touched.slot) else { continue };
                let state = &mut entry.state;
                state.compacted.gap_before(touched.gaps_below);
                let failed = no_room.iter().find(|no_room| round.writes[no_room.write].slot == touched.slot);
                if let Some(failed) = failed {
                    let write = &round.writes[failed.write];
                    state.cut(write.from, write.segment_base, write.position);
                    let same = |cut: &&RoundCut| cut.slot == touched.slot && cut.end <= write.from;
                    if !round.cuts.iter().any(|cut| same(&cut)) {
                        failures.push((touched.slot, failed.write, failed.error.clone()));
                    }
                } else {
                    state.end = touched.end;
                    (state.segment_base, state.position) = (touched.segment_base, touched.position);
                }
                let port = touched.port as usize;
                if events.len() <= port {
                    events.resize_with(port + 1, Vec::new);
                }
                let durable = Durable { end: state.end, generation: touched.generation };
                events[port].push((entry.log, durable));
            }
        }
        self.carry_out_rolls(&round.rolls);
        for write in &round.writes {
            self.mark_dirty(write.slot, write.segment_base);
        }
        for (slot, write, error) in failures {
            self.cut_failed_appends(&mut round, slot, write, error);
        }
        for (port, durable) in events.into_iter().enumerate().filter(|(_, durable)| !durable.is_empty()) {
            self.shared.send(port as u32, StoreEvent::Durable(durable));
        }
        for (log, data) in round.sealed {
            let _ = self.jobs.send(Job::StoreIndex { log, data });
        }
        self.carry_out_cuts(round.cuts).await?;
        self.carry_out_starts(round.starts);
        self.carry_out_replaces(round.replaces).await?;
        self.carry_out_deletions(round.deletions).await?;
        for barrier in round.barriers {
            let _ = barrier.send(());
        }
        Ok(())
    }

    /// Appends of a log, from a write on, found no room and no later truncation has removed them: the next round cuts them, and
    /// until the owner knows, nothing more is taken. A truncation of this round to beyond them is off.
    fn cut_failed_appends(
        &mut self,
        round: &mut Round,
        slot: SlotId,
        write: usize,
        error: Arc<StorageError>,
    ) {
        let write = &round.writes[write];
        let Some(entry) = self.slots.get_mut(slot as usize).and_then(Option::as_mut) else { return };
        self.shared.counters.appends_failed.fetch_add(1, Ordering::Relaxed);
        entry.failing = Some(write.from);
        // Later segments of this round may have been created.
        let later = round.writes.iter().filter(|later| later.slot == slot);
        let removed =
            later.map(|later| later.segment_base).filter(|base| *base > write.segment_base).collect();
        self.failed_cuts.push(RoundCut {
            slot,
            log: write.log,
            port: entry.port,
            os: entry.os,
            generation: entry.generation,
            end: write.from,
            segment_base: write.segment_base,
            place: CutPlace::At(write.position),
            removed,
            entry: None,
            failed: Some(error),
        });
        round.cuts.retain(|cut| cut.slot != slot);
    }

    /// Cuts segments whose cut is in the journal, and says so.
    async fn carry_out_cuts(&mut self, cuts: Vec<RoundCut>) -> Result<(), StorageError> {
        for cut in cuts {
            let CutPlace::At(position) = cut.place else { continue };
            self.cut_segment(&cut, position).await?;
            let start = {
                let mut catalog = lock(&self.shared.catalog);
                let Some(entry) = catalog.get_mut(cut.slot) else { continue };
                if cut.failed.is_none() {
                    entry.state.cut(cut.end, cut.segment_base, position);
                }
                entry.state.start
            };
            let latest_epoch = self.latest_epoch(cut.slot);
            if let Some(slot) = self.slot(cut.slot) {
                slot.latest_epoch = latest_epoch;
                slot.generation = slot.generation.max(cut.generation);
                slot.unsettle(cut.segment_base);
            }
            let RoundCut { log, end, generation, port, .. } = cut;
            let event = match cut.failed {
                Some(error) => StoreEvent::AppendFailed(AppendFailed { log, from: end, error, generation }),
                None => StoreEvent::Cut(Cut { log, start, end, side: CutSide::End, generation }),
            };
            self.shared.send(port, event);
        }
        Ok(())
    }

    fn latest_epoch(&self, slot: SlotId) -> Option<i32> {
        lock(&self.shared.catalog).get(slot)?.state.epochs.latest().map(|latest| latest.epoch)
    }

    async fn cut_segment(&mut self, cut: &RoundCut, position: u64) -> Result<(), StorageError> {
        let disk = self.shared.disk.clone();
        let doing = "cut a segment";
        for base in cut.removed.iter().chain([&cut.segment_base]) {
            remove(&disk, layout::index_file(cut.log, *base)).await?;
        }
        for base in &cut.removed {
            remove(&disk, layout::segment_file(cut.log, *base)).await?;
            self.dirty.segments.remove(&(cut.slot, *base));
        }
        // Only now: whoever had opened one of them before it was gone must not leave it in the cache.
        for base in cut.removed.iter().chain([&cut.segment_base]) {
            self.shared.files.remove((cut.slot, *base));
            self.shared.indexes.remove((cut.slot, *base));
        }
        let path = layout::segment_file(cut.log, cut.segment_base);
        match disk.open_file(path, OpenMode::ReadWrite).await {
            Ok((file, len)) if len > position => {
                let mut batch = vec![Op::Truncate { file: file.clone(), len: position }];
                if cut.os {
                    batch.push(Op::Sync { file });
                }
                disk.submit(Lane::Pool, batch).await.map_err(StorageError::disk(doing))?;
            }
            Ok(_) => {}
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(StorageError::disk(doing)(error)),
        }
        if cut.os && !cut.removed.is_empty() {
            disk.sync_dir(layout::log_dir(cut.log)).await.map_err(StorageError::disk(doing))?;
        }
        self.mark_dirty(cut.slot, cut.segment_base);
        self.dirty.folders.insert(cut.slot);
        Ok(())
    }

    /// Moves starts that are in the journal. The segments below go in the background.
    fn carry_out_starts(&mut self, starts: Vec<RoundStart>) {
        for RoundStart { slot, log, port, generation, start, removed } in starts {
            let (start, end) = {
                let mut catalog = lock(&self.shared.catalog);
                let Some(entry) = catalog.get_mut(slot) else { continue };
                entry.state.set_start(start);
                (entry.state.start, entry.state.end)
            };
            for base in &removed {
                self.shared.files.remove((slot, *base));
                self.shared.indexes.remove((slot, *base));
                self.dirty.segments.remove(&(slot, *base));
            }
            if !removed.is_empty() {
                self.dirty.folders.insert(slot);
                let _ = self.jobs.send(Job::RemoveSegments { log, bases: removed });
            }
            let latest_epoch = self.latest_epoch(slot);
            if let Some(entry) = self.slot(slot) {
                entry.latest_epoch = latest_epoch;
                entry.generation = entry.generation.max(generation);
            }
            self.shared
                .send(port, StoreEvent::Cut(Cut { log, start, end, side: CutSide::Start, generation }));
        }
    }

    /// Takes deleted logs out of sight. The journal has the deletions already.
    async fn carry_out_deletions(&mut self, deletions: Vec<Deletion>) -> Result<(), StorageError> {
        for Deletion { slot, log, reply } in deletions {
            if let Some(slot) = slot {
                lock(&self.shared.catalog).remove(slot);
                self.shared.files.remove_log(slot);
                self.shared.indexes.remove_log(slot);
                self.dirty.segments.retain(|(other, _)| *other != slot);
                self.dirty.folders.remove(&slot);
                if let Some(entry) = self.slots.get_mut(slot as usize) {
                    *entry = None;
                }
            }
            let gone = layout::deleted_dir(log);
            let batch = vec![
                Op::CreateDir { path: layout::DELETED.into() },
                Op::Rename { from: layout::log_dir(log), to: gone.clone() },
            ];
            match self.shared.disk.submit(Lane::Pool, batch).await {
                Ok(_) => {
                    let _ = self.jobs.send(Job::RemoveFolder(gone));
                }
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(StorageError::disk("delete a log")(error)),
            }
            let _ = reply.send(Ok(()));
        }
        Ok(())
    }
}

/// Writes on their way.
struct Started {
    /// The place of each operation's write in the round.
    places: Vec<usize>,
    submission: Option<weir_runtime::disk::Submission>,
}

/// Any error but a full disk is final.
fn no_space(error: BatchError, doing: &'static str) -> Result<Arc<StorageError>, StorageError> {
    let error = StorageError::disk(doing)(error);
    if error.is_no_space() { Ok(Arc::new(error)) } else { Err(error) }
}

pub(super) async fn remove(
    disk: &weir_runtime::disk::Disk,
    path: std::path::PathBuf,
) -> Result<(), StorageError> {
    match disk.remove(path).await {
        Ok(()) => Ok(()),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(StorageError::disk("remove a segment")(error)),
    }
}
