//! The replay of the journal: by position, so that doing it twice does no harm.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use weir_defect::defect;
use weir_protocol::partition::producers::ProducerBatch;
use weir_protocol::types::{LogId, Offset};
use weir_runtime::disk::{Disk, Done, File, Lane, Op, OpenMode, Submission};
use weir_runtime::time;
use weir_wire::records::BatchHeader;

use super::{DamagedRange, RecoveryReport, journal_error};
use crate::append::producer_batch;
use crate::cache::SegmentKey;
use crate::catalog::{Catalog, LogState, SlotId, Tail};
use crate::committer::Dirty;
use crate::error::StorageError;
use crate::journal::{self, DamagedRound, Entry, Replayed};
use crate::layout;

/// Bytes that are gathered before they are written, so that the many small appends to one log become one write.
const BATCH_BYTES: usize = 16 << 20;
/// Files that are kept open meanwhile.
const FILES_MAX: usize = 1024;

/// Brings catalog and segments up to date with the journal.
pub(super) async fn replay(
    disk: &Disk,
    mut replayed: Replayed,
    catalog: &mut Catalog,
    dirty: &mut Dirty,
    report: &mut RecoveryReport,
) -> Result<(), StorageError> {
    let verdict = replayed.verdict().clone();
    let mut replay = Replay {
        disk,
        catalog,
        dirty,
        touched: BTreeSet::new(),
        writes: Vec::new(),
        last: BTreeMap::new(),
        write_bytes: 0,
        on_its_way: None,
        files: BTreeMap::new(),
        bytes: 0,
    };
    let mut damage = verdict.damaged.iter().peekable();
    while let Some(round) = replayed.next(disk).await.map_err(journal_error)? {
        while let Some(damaged) = damage.next_if(|damaged| *damaged.sequences.start() < round.sequence) {
            replay.note_damage(damaged, report);
        }
        report.rounds_replayed += 1;
        for entry in round.entries {
            replay.apply(entry).await?;
        }
    }
    for damaged in damage {
        replay.note_damage(damaged, report);
    }
    replay.flush().await?;
    let is_uncertain = verdict.tail != journal::Tail::Clean || !verdict.earlier.is_empty();
    if verdict.damaged.iter().any(|damaged| damaged.touched.is_none()) {
        replay.keep_tails_of_all(Tail::Damaged);
    } else if is_uncertain {
        replay.keep_tails_of_all(Tail::AtLeast);
    }
    report.bytes_replayed = replay.bytes;
    report.logs_touched = replay.touched.len();
    report.is_certain &= !is_uncertain && verdict.damaged.is_empty();
    describe(&verdict, report);
    Ok(())
}

fn describe(verdict: &journal::Verdict, report: &mut RecoveryReport) {
    let replayed = format!(
        "replayed {} journal rounds with {} bytes for {} logs",
        report.rounds_replayed, report.bytes_replayed, report.logs_touched
    );
    report.notes.push(replayed);
    for damaged in &verdict.damaged {
        let (first, last) = (damaged.sequences.start(), damaged.sequences.end());
        let whom = match &damaged.touched {
            Some(touched) => format!("{} logs are concerned", touched.len()),
            None => "any log may be concerned".to_owned(),
        };
        report.notes.push(format!("the journal's rounds {first} to {last} are damaged: {whom}"));
    }
    if let journal::Tail::Uncertain { sequence, .. } = verdict.tail {
        report.notes.push(format!(
            "round {sequence} of the journal does not read: it was torn or, if it was acknowledged, damaged"
        ));
    }
}

/// The batches of an append that have a producer. The round's checksum covers them: what does not parse is none.
fn producers_of(data: &[Bytes]) -> Vec<ProducerBatch> {
    let mut found = Vec::new();
    // Bytes of the current batch that lie in later chunks.
    let mut skip = 0;
    for chunk in data {
        let mut rest = chunk.as_ref();
        loop {
            let skipped = skip.min(rest.len());
            rest = &rest[skipped..];
            skip -= skipped;
            if rest.is_empty() {
                break;
            }
            let Ok(header) = BatchHeader::parse(rest) else { return found };
            skip = header.size_bytes();
            found.extend(producer_batch(&header));
        }
    }
    found
}

struct Replay<'a> {
    disk: &'a Disk,
    catalog: &'a mut Catalog,
    dirty: &'a mut Dirty,
    touched: BTreeSet<SlotId>,
    /// Not written yet, those of a segment in order; contiguous ones are one.
    writes: Vec<Write>,
    /// The place of each segment's last write in `writes`.
    last: BTreeMap<SegmentKey, usize>,
    write_bytes: usize,
    /// The writes before them.
    on_its_way: Option<Submission>,
    files: BTreeMap<SegmentKey, File>,
    bytes: u64,
}

struct Write {
    key: SegmentKey,
    log: LogId,
    position: u64,
    bytes: u64,
    data: Vec<Bytes>,
}

impl Replay<'_> {
    async fn apply(&mut self, entry: Entry) -> Result<(), StorageError> {
        let log = entry.log();
        let is_deletion =
            matches!(entry, Entry::Delete { .. } | Entry::Truncate { .. } | Entry::StartOffset { .. });
        if is_deletion && defect!(replay_without_deletions) {
            return Ok(());
        }
        if let Entry::Delete { .. } = entry {
            return self.delete(log).await;
        }
        let slot = self.catalog.ensure(log);
        self.touched.insert(slot);
        if let Entry::Append { segment_base, position, base_offset, .. } = entry {
            let behind = self.state(slot).is_some_and(|state| {
                state.tail == Tail::Known
                    && (base_offset < state.end
                        || segment_base == state.segment_base && position < state.position)
            });
            if behind {
                // The truncation before it was in a round that is damaged.
                self.truncate(slot, log, base_offset, segment_base, position).await?;
            }
        }
        match entry {
            Entry::Append {
                leader_epoch, base_offset, next_offset, segment_base, position, data, ..
            } => {
                let bytes = data.iter().map(Bytes::len).sum::<usize>();
                let now_ms = time::now().since_origin_ms();
                if let Some(state) = self.state(slot) {
                    if state.epochs.latest().is_none_or(|latest| latest.epoch != leader_epoch) {
                        state.epochs.begin(leader_epoch, base_offset);
                    }
                    if state.follows(base_offset, segment_base, position) {
                        for batch in producers_of(&data) {
                            state.producers.note(&batch, now_ms);
                        }
                        (state.end, state.segment_base) = (next_offset, segment_base);
                        state.position = position + bytes as u64;
                        state.tail = Tail::Known;
                    } else {
                        state.know_end(next_offset);
                    }
                }
                self.write(slot, log, segment_base, position, data).await
            }
            Entry::Truncate { end, segment_base, position, .. } => {
                self.truncate(slot, log, end, segment_base, position).await
            }
            Entry::StartOffset { start, .. } => {
                if let Some(state) = self.state(slot) {
                    state.set_start(start);
                }
                Ok(())
            }
            Entry::Epoch { epoch, start, .. } => {
                if let Some(state) = self.state(slot) {
                    state.epochs.begin(epoch, start);
                }
                Ok(())
            }
            Entry::Create { start, flags, compacted, .. } => {
                self.create(slot, start, flags & 1 != 0);
                if let Some(state) = self.state(slot) {
                    state.compacted.raise(compacted);
                }
                Ok(())
            }
            Entry::Delete { .. } => Ok(()),
        }
    }

    fn state(&mut self, slot: SlotId) -> Option<&mut LogState> {
        self.catalog.get_mut(slot).map(|entry| &mut entry.state)
    }

    fn create(&mut self, slot: SlotId, start: Offset, os: bool) {
        let Some(entry) = self.catalog.get_mut(slot) else { return };
        entry.state.os = os;
        if os && entry.state.tail == Tail::Known {
            entry.state.tail = Tail::AtLeast;
        }
        if !entry.announced {
            entry.announced = true;
            entry.state.set_start(start);
        }
    }

    async fn write(
        &mut self,
        slot: SlotId,
        log: LogId,
        base: Offset,
        position: u64,
        data: Vec<Bytes>,
    ) -> Result<(), StorageError> {
        let bytes = data.iter().map(Bytes::len).sum::<usize>();
        self.bytes += bytes as u64;
        self.write_bytes += bytes;
        let key = (slot, base);
        let last = self.last.get(&key).and_then(|last| self.writes.get_mut(*last));
        match last.filter(|last| last.position + last.bytes == position) {
            Some(last) => {
                last.bytes += bytes as u64;
                last.data.extend(data);
            }
            None => {
                self.last.insert(key, self.writes.len());
                self.writes.push(Write { key, log, position, bytes: bytes as u64, data });
            }
        }
        if self.write_bytes >= BATCH_BYTES { self.begin_writes().await } else { Ok(()) }
    }

    /// Sends off what was gathered, when what was sent before it has arrived.
    async fn begin_writes(&mut self) -> Result<(), StorageError> {
        if self.writes.is_empty() {
            return Ok(());
        }
        let writes = std::mem::take(&mut self.writes);
        self.last.clear();
        self.write_bytes = 0;
        self.open_all(&writes).await?;
        let mut batch = Vec::with_capacity(writes.len());
        for write in writes {
            let file = self.open(write.key, write.log).await?;
            batch.push(Op::Write { file, offset: write.position, data: write.data });
        }
        self.end_writes().await?;
        self.on_its_way = Some(self.disk.submit(Lane::Pool, batch));
        if self.files.len() > FILES_MAX {
            self.files.clear();
        }
        Ok(())
    }

    async fn end_writes(&mut self) -> Result<(), StorageError> {
        let Some(submission) = self.on_its_way.take() else { return Ok(()) };
        submission.await.map(drop).map_err(StorageError::disk("replay the journal"))
    }

    /// All that was gathered is written.
    async fn flush(&mut self) -> Result<(), StorageError> {
        self.begin_writes().await?;
        self.end_writes().await
    }

    /// Opens the files of all these writes with one batch.
    async fn open_all(&mut self, writes: &[Write]) -> Result<(), StorageError> {
        let mut missing = BTreeMap::new();
        for write in writes.iter().filter(|write| !self.files.contains_key(&write.key)) {
            missing.insert(write.key, write.log);
        }
        let open = |(key, log): (&SegmentKey, &LogId)| {
            let path = layout::segment_file(*log, key.1);
            [Op::CreateDir { path: layout::log_dir(*log) }, Op::Open { path, mode: OpenMode::Create }]
        };
        let batch = missing.iter().flat_map(open).collect();
        let done = self.disk.submit(Lane::Pool, batch).await;
        let done = done.map_err(StorageError::disk("replay the journal"))?;
        let opened = done.into_iter().filter_map(|done| match done {
            Done::Opened { file, .. } => Some(file),
            _ => None,
        });
        for (key, file) in missing.into_keys().zip(opened) {
            self.opened(key, file);
        }
        Ok(())
    }

    fn opened(&mut self, key: SegmentKey, file: File) {
        // Even a file that was there may have no durable name yet.
        self.dirty.folders.insert(key.0);
        self.dirty.segments.insert(key);
        self.files.insert(key, file);
    }

    async fn open(&mut self, key: SegmentKey, log: LogId) -> Result<File, StorageError> {
        if let Some(file) = self.files.get(&key) {
            return Ok(file.clone());
        }
        let doing = "replay the journal";
        let path = layout::segment_file(log, key.1);
        let (file, _) = match self.disk.open_file(path.clone(), OpenMode::Create).await {
            Err(error) if error.is_not_found() => {
                self.disk.create_dir(layout::log_dir(log)).await.map_err(StorageError::disk(doing))?;
                self.disk.open_file(path, OpenMode::Create).await.map_err(StorageError::disk(doing))?
            }
            opened => opened.map_err(StorageError::disk(doing))?,
        };
        self.opened(key, file.clone());
        Ok(file)
    }

    async fn truncate(
        &mut self,
        slot: SlotId,
        log: LogId,
        end: Offset,
        segment_base: Offset,
        position: u64,
    ) -> Result<(), StorageError> {
        if let Some(state) = self.state(slot).filter(|state| state.os) {
            // What followed is in the segments alone, and so was the cut if it was acknowledged. Epochs are known from the journal
            // also where they begin beyond the end that it knows.
            state.epochs.truncate(end);
            state.producers.cut(end);
            if end <= state.end {
                state.cut(end, segment_base, position);
                state.tail = Tail::AtLeast;
            }
            return Ok(());
        }
        self.flush().await?;
        let doing = "replay a truncation";
        let entries = match self.disk.list(layout::log_dir(log)).await {
            Ok(entries) => entries,
            Err(error) if error.is_not_found() => Vec::new(),
            Err(error) => return Err(StorageError::disk(doing)(error)),
        };
        let mut batch = Vec::new();
        for entry in &entries {
            let Some(base) = layout::parse_segment_file(&entry.name) else { continue };
            if base > segment_base {
                self.files.remove(&(slot, base));
                self.dirty.segments.remove(&(slot, base));
                batch.push(Op::Remove { path: layout::segment_file(log, base) });
            } else if base == segment_base {
                // The process before this one may have cut it and died before that was durable.
                self.dirty.segments.insert((slot, base));
                if entry.len <= position {
                    continue;
                }
                let file = self.open((slot, base), log).await?;
                batch.push(Op::Truncate { file, len: position });
            } else {
                continue;
            }
            let index = layout::index_file(log, base);
            if entries.iter().any(|entry| index.ends_with(&entry.name)) {
                batch.push(Op::Remove { path: index });
            }
        }
        self.dirty.folders.insert(slot);
        self.disk.submit(Lane::Pool, batch).await.map_err(StorageError::disk(doing))?;
        if let Some(state) = self.state(slot) {
            state.end_at_least = state.end_at_least.min(end);
            if state.tail == Tail::Damaged && end > state.end {
                // What lies between is still to be read.
                state.epochs.truncate(end);
                state.compacted.cut(end);
            } else {
                state.cut(end, segment_base, position);
                state.tail = Tail::Known;
            }
        }
        Ok(())
    }

    async fn delete(&mut self, log: LogId) -> Result<(), StorageError> {
        self.flush().await?;
        if let Some(slot) = self.catalog.find(log) {
            self.catalog.remove(slot);
            self.touched.remove(&slot);
            self.files.retain(|(other, _), _| *other != slot);
            self.dirty.segments.retain(|(other, _)| *other != slot);
            self.dirty.folders.remove(&slot);
        }
        match self.disk.remove_dir(layout::log_dir(log)).await {
            Ok(()) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(StorageError::disk("replay a deletion")(error)),
        }
    }

    /// A round that does not read: the logs that it touched keep what their segments hold beyond what the journal tells.
    fn note_damage(&mut self, damaged: &DamagedRound, report: &mut RecoveryReport) {
        for touched in damaged.touched.iter().flatten() {
            let slot = self.catalog.ensure(touched.log);
            let Some(state) = self.state(slot) else { continue };
            let offsets = state.end..touched.end.max(state.end);
            state.end_at_least = state.end_at_least.max(touched.end);
            if state.tail == Tail::Known {
                state.tail = Tail::Damaged;
            }
            report.damaged.push(DamagedRange { log: touched.log, offsets });
        }
    }

    fn keep_tails_of_all(&mut self, tail: Tail) {
        let logs: Vec<LogId> = self.catalog.iter().map(|slot| slot.log).collect();
        for log in logs {
            if let Some(slot) = self.catalog.find(log)
                && let Some(state) = self.state(slot)
                && state.tail == Tail::Known
            {
                state.tail = tail;
            }
        }
    }
}
