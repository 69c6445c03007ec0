//! Opening a log: what the catalog says of it, brought together with what its folder holds.

use std::collections::VecDeque;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use weir_defect::defect;
use weir_protocol::partition::producers::Producers;
use weir_protocol::types::{LogId, Offset};
use weir_runtime::disk::{BatchError, Disk, File, Lane, Op, OpenMode};
use weir_runtime::time;

use super::{Log, LogHandle, Segment};
use crate::catalog::{LogState, SlotId, Tail};
use crate::config::{Flush, LogConfig};
use crate::error::StorageError;
use crate::inbox::{Command, Opened};
use crate::journal::Compacted;
use crate::layout;
use crate::segment::{IndexData, ScanRange, Scanned, SegmentIndex, load, scan};
use crate::store::{Lease, Shared};

/// Which log is opened, by whom.
pub(crate) struct Opening {
    pub(crate) lease: Arc<Lease>,
    pub(crate) slot: SlotId,
    pub(crate) port: u32,
    pub(crate) id: LogId,
    pub(crate) config: LogConfig,
    /// Whether journal and checkpoint do not know it.
    pub(crate) announce: bool,
}

/// Opens the log of a slot that was marked as open. `state` is the catalog's.
pub(crate) async fn open(
    shared: Arc<Shared>,
    opening: Opening,
    mut state: LogState,
) -> Result<Log, StorageError> {
    let Opening { lease, slot, port, id, config, announce } = opening;
    let announce = announce || state.os != (config.flush == Flush::Os);
    // A checkpoint that was lost does not tell.
    state.os |= state.rebuild && config.flush == Flush::Os;
    if state.rebuild && config.compact {
        state.compacted.gaps_below = Offset::MAX;
    }
    let known_epochs = state.epochs.clone();
    let loader = Loader {
        disk: shared.disk.clone(),
        shared: Arc::clone(&shared),
        id,
        interval_bytes: config.index_interval_bytes,
        state,
        sizes: Vec::new(),
        damaged: Vec::new(),
        dirty: Vec::new(),
        has_removed: false,
        end_max: None,
    };
    let loaded = loader.run().await?;
    let Loader { mut state, sizes, mut damaged, dirty, has_removed, .. } = loaded.loader;
    if has_removed {
        shared.files.remove_log(slot);
        shared.indexes.remove_log(slot);
    }
    damaged.retain(|range| range.end > state.start);
    damaged.iter_mut().for_each(|range| range.start = range.start.max(state.start));
    for range in &damaged {
        tracing::error!(log = %id, from = range.start, to = range.end, "records are damaged");
    }
    state.os = config.flush == Flush::Os;
    let active = Arc::new(SegmentIndex::new(loaded.index));
    let handle = Arc::new(LogHandle::new(state.start));
    shared.inbox.push(Command::Open(Opened {
        slot,
        port,
        announce,
        state: Box::new(state.clone()),
        active: active.clone(),
        handle: handle.clone(),
        dirty,
    }));
    // Epochs of batches that were found, and that no round of the journal tells of.
    for entry in state.epochs.entries().iter().filter(|entry| !known_epochs.entries().contains(entry)) {
        shared.inbox.push(Command::Epoch { slot, epoch: entry.epoch, start: entry.start });
    }
    Ok(Log {
        id,
        slot,
        shared,
        _lease: lease,
        handle,
        config,
        start: state.start,
        end: state.end,
        durable_end: state.end,
        epochs: Arc::new(state.epochs),
        segments: sizes,
        active,
        unwritten: VecDeque::new(),
        generation: 0,
        pending_cuts: Vec::new(),
        compacted: state.compacted,
        layout: 0,
        replacing: Vec::new(),
        damaged,
        producers: state.producers,
    })
}

struct Loader {
    disk: Disk,
    shared: Arc<Shared>,
    id: LogId,
    interval_bytes: u32,
    state: LogState,
    /// The segments, oldest first.
    sizes: Vec<Segment>,
    damaged: Vec<Range<Offset>>,
    dirty: Vec<Offset>,
    /// Whether segments were removed.
    has_removed: bool,
    /// The log cannot reach beyond this.
    end_max: Option<Offset>,
}

struct Loaded {
    loader: Loader,
    index: IndexData,
}

impl Loader {
    async fn run(mut self) -> Result<Loaded, StorageError> {
        self.sizes = self.list().await?;
        tracing::debug!(log = %self.id, state = ?self.state, segments = ?self.sizes, "opening");
        if self.state.rebuild || self.state.tail == Tail::Unknown {
            self.rebuild().await?;
        } else if self.state.tail != Tail::Known {
            self.extend().await?;
        }
        self.note_missing_end();
        let start = self.state.start;
        self.state.set_start(start);
        self.state.epochs.bound(self.state.end);
        self.state.compacted.cut(self.state.end);
        self.remove_above().await?;
        self.remove_below().await?;
        let index = self.active_index().await?;
        Ok(Loaded { loader: self, index })
    }

    /// The segments' files, by base offset.
    async fn list(&self) -> Result<Vec<Segment>, StorageError> {
        let entries = match self.disk.list(layout::log_dir(self.id)).await {
            Ok(entries) => entries,
            Err(error) if error.is_not_found() => return Ok(Vec::new()),
            Err(error) => return Err(StorageError::disk("list a log's folder")(error)),
        };
        for left in entries.iter().filter(|entry| layout::is_cleaned_file(&entry.name)) {
            let path = layout::log_dir(self.id).join(&left.name);
            self.disk.remove(path).await.map_err(StorageError::disk("remove what compaction has left"))?;
        }
        let segments = entries.iter().filter_map(|entry| {
            let base = layout::parse_segment_file(&entry.name)?;
            // An empty one between others holds nothing, whether or not it did.
            let counts = entry.len > 0 || base >= self.state.segment_base;
            counts.then_some(Segment { base, bytes: entry.len })
        });
        Ok(segments.collect())
    }

    /// Whether nothing may stand between these offsets.
    fn allows_gap(&self, from: Offset, to: Offset) -> bool {
        Compacted::allows_gap(self.state.compacted.gaps_below, from, to)
    }

    async fn sync(&self, file: &File) -> Result<(), StorageError> {
        self.disk.sync(file).await.map_err(|error| self.fail_folder("sync a segment", error))
    }

    async fn sync_folder(&self, folder: PathBuf) -> Result<(), StorageError> {
        let synced = self.disk.sync_dir(folder).await;
        synced.map_err(|error| self.fail_folder("sync a log's folder", error))
    }

    /// A sync that fails has lost what a later one would not miss: the folder fails, not this opening alone (contract 8).
    fn fail_folder(&self, doing: &'static str, error: BatchError) -> StorageError {
        let source = error.source.kind().into();
        let same = BatchError { index: error.index, op: error.op.clone(), source, done: Vec::new() };
        self.shared.inbox.push(Command::Failed(StorageError::disk(doing)(error)));
        StorageError::disk(doing)(same)
    }

    async fn open_segment(&self, base: Offset) -> Result<File, StorageError> {
        let path = layout::segment_file(self.id, base);
        let opened = self.disk.open_file(path, OpenMode::ReadWrite).await;
        opened.map(|(file, _)| file).map_err(StorageError::disk("open a segment"))
    }

    /// The checkpoint was lost: the epochs, and the end if the journal did not tell it, come from the batches themselves.
    async fn rebuild(&mut self) -> Result<(), StorageError> {
        let is_end_known = self.state.tail == Tail::Known;
        let replayed = std::mem::take(&mut self.state.epochs);
        self.state.producers = Producers::default();
        let segments = self.sizes.clone();
        if let Some(first) = segments.first() {
            self.state.start = self.state.start.max(first.base);
        }
        let mut end = (self.state.start, self.state.start, 0);
        let mut damaged = Vec::new();
        for (at, segment) in segments.iter().enumerate() {
            if is_end_known && segment.base > self.state.segment_base {
                break;
            }
            if at > 0 && !self.allows_gap(end.0, segment.base) {
                damaged.push(end.0..segment.base);
            }
            let known_end = segments.get(at + 1).map(|next| next.base);
            let is_last = is_end_known && segment.base == self.state.segment_base;
            let (limit, known_end) = match known_end {
                _ if is_last => (segment.bytes.min(self.state.position), Some(self.state.end)),
                next => (segment.bytes, next),
            };
            let scanned = self.scan(IndexData::empty(segment.base), limit, known_end).await?;
            for (epoch, start) in &scanned.epochs {
                self.state.epochs.begin(*epoch, *start);
            }
            self.note_producers(&scanned);
            damaged.extend(scanned.damaged);
            if scanned.index.covered > 0 {
                end = (scanned.index.next_offset, segment.base, scanned.index.covered);
            }
        }
        if !is_end_known {
            (self.state.end, self.state.segment_base, self.state.position) = end;
            tracing::warn!(log = %self.id, end = end.0, "the log's end was found by reading it");
        }
        for entry in replayed.entries() {
            self.state.epochs.begin(entry.epoch, entry.start);
        }
        self.state.epochs.trim(self.state.start);
        self.damaged.extend(damaged);
        self.state.rebuild = false;
        self.state.tail = Tail::Known;
        Ok(())
    }

    /// Whose batches were found. The time that they were idle for is not known: it begins anew.
    fn note_producers(&mut self, scanned: &Scanned) {
        for batch in &scanned.producers {
            self.state.producers.note(batch, time::now().since_origin_ms());
        }
    }

    /// Whether the first thing beyond the known end that is no batch ends the log.
    fn may_be_torn(&self) -> bool {
        self.state.os || self.state.tail == Tail::AtLeast
    }

    /// Valid batches beyond the known end belong to the log.
    async fn extend(&mut self) -> Result<(), StorageError> {
        if self.state.os {
            self.shorten().await?;
        }
        let known_end = self.state.end;
        for segment in self.sizes.clone() {
            let is_last = segment.base == self.state.segment_base;
            if segment.base < self.state.segment_base || is_last && segment.bytes <= self.state.position {
                continue;
            }
            let mut known = IndexData::empty(segment.base);
            if is_last {
                (known.covered, known.next_offset) = (self.state.position, self.state.end);
            }
            let expected = self.state.end.max(self.state.start);
            if self.may_be_torn() && !self.allows_gap(expected, segment.base) {
                break;
            }
            let mut scanned = self.scan(known, segment.bytes, None).await?;
            if let Some(max) = self.end_max.filter(|max| scanned.index.next_offset > *max) {
                let (position, offset) = scanned.index.floor(max);
                scanned.index.cut(position, offset);
                scanned.epochs.retain(|(_, start)| *start < offset);
                scanned.producers.retain(|batch| batch.base_offset < offset);
            }
            let index = &scanned.index;
            if index.next_offset <= self.state.end {
                continue;
            }
            if !is_last && !self.allows_gap(expected, segment.base) {
                self.damaged.push(expected..segment.base);
            }
            for (epoch, start) in &scanned.epochs {
                self.state.epochs.begin(*epoch, *start);
            }
            self.note_producers(&scanned);
            self.damaged.extend(scanned.damaged.iter().cloned());
            self.state.segment_base = segment.base;
            (self.state.end, self.state.position) = (index.next_offset, index.covered);
            if !self.state.os {
                let file = self.open_segment(segment.base).await?;
                self.sync(&file).await?;
            }
            self.dirty.push(segment.base);
            if self.may_be_torn() && self.state.position < segment.bytes {
                break;
            }
        }
        if self.state.end > known_end && !self.state.os {
            // These batches count as durable from now on: so must the names of their files.
            for folder in [layout::log_dir(self.id), PathBuf::new()] {
                self.sync_folder(folder).await?;
            }
        }
        if self.state.end > known_end {
            tracing::info!(log = %self.id, from = known_end, to = self.state.end, "batches beyond the known end are kept");
        }
        self.state.tail = Tail::Known;
        Ok(())
    }

    /// An `os` log ends where its segments do: what they have lost was not promised. Finds the segment from which it is read on.
    async fn shorten(&mut self) -> Result<(), StorageError> {
        let LogState { segment_base, position, start, end, .. } = self.state;
        let reached = segment_base.max(start);
        let keep = self.sizes.partition_point(|segment| segment.base <= reached);
        let last = self.sizes[..keep].last().copied();
        let is_as_known = last.is_some_and(|last| last.base == segment_base && last.bytes >= position);
        // Of a segment that was begun and has nothing in it yet, nothing can be lost; what lies below was synced.
        if is_as_known || position == 0 {
            return Ok(());
        }
        let base = last.map_or(start, |last| last.base);
        if base < segment_base {
            // The log had gone on in that segment, which is lost: what an earlier one holds beyond is from before a cut.
            self.end_max = Some(segment_base);
        }
        if end > start {
            tracing::warn!(log = %self.id, from = end, segment = base, "the log may have lost its tail: it is read again");
        }
        let compacted = self.state.compacted;
        self.state.cut(base, base, 0);
        // What is read again may be compacted.
        self.state.compacted = compacted;
        Ok(())
    }

    /// What a damaged round is known to have appended, and is nowhere: the log's end does not move back (contract 7).
    fn note_missing_end(&mut self) {
        let end = std::mem::take(&mut self.state.end_at_least);
        if self.state.end < end {
            self.damaged.push(self.state.end..end);
            (self.state.end, self.state.segment_base, self.state.position) = (end, end, 0);
        }
    }

    async fn scan(&self, known: IndexData, limit: u64, end: Option<Offset>) -> Result<Scanned, StorageError> {
        let file = self.open_segment(known.base).await?;
        let range = ScanRange {
            known,
            limit,
            end,
            gaps_below: self.state.compacted.gaps_below,
            epochs: None,
            // The journal may know epochs that began beyond the known end.
            epoch_min: self.state.epochs.epoch_at(self.state.end),
            interval_bytes: self.interval_bytes,
            may_be_torn: self.may_be_torn() && end.is_none(),
        };
        scan(&self.disk, file, range).await.map_err(StorageError::disk("read a segment"))
    }

    /// What lies beyond the log's end was never acknowledged.
    async fn remove_above(&mut self) -> Result<(), StorageError> {
        let (base, position) = (self.state.segment_base, self.state.position);
        let keep = self.sizes.partition_point(|segment| segment.base <= base);
        let above = self.sizes.split_off(keep);
        let has_above = !above.is_empty();
        for segment in above {
            tracing::info!(log = %self.id, segment = segment.base, "a segment beyond the log's end is removed");
            self.remove_segment(segment.base).await?;
        }
        if let Some(last) = self.sizes.last_mut().filter(|last| last.base == base) {
            if last.bytes > position {
                let cut = last.bytes - position;
                last.bytes = position;
                tracing::info!(log = %self.id, segment = base, bytes = cut, "bytes beyond the log's end are cut");
                let file = self.open_segment(base).await?;
                let cut = vec![Op::Truncate { file: file.clone(), len: position }];
                self.disk.submit(Lane::Pool, cut).await.map_err(StorageError::disk("cut a segment"))?;
                self.sync(&file).await?;
                self.dirty.push(base);
            }
        } else {
            self.sizes.push(Segment { base, bytes: 0 });
        }
        if has_above {
            // What was cut must not come back under what is appended now.
            self.sync_folder(layout::log_dir(self.id)).await?;
        }
        Ok(())
    }

    /// Segments wholly below the start are left over from a stop.
    async fn remove_below(&mut self) -> Result<(), StorageError> {
        let below = self.sizes.partition_point(|segment| segment.base <= self.state.start).saturating_sub(1);
        for segment in self.sizes.drain(..below).collect::<Vec<_>>() {
            self.remove_segment(segment.base).await?;
        }
        Ok(())
    }

    async fn remove_segment(&mut self, base: Offset) -> Result<(), StorageError> {
        self.has_removed = true;
        for path in [layout::segment_file(self.id, base), layout::index_file(self.id, base)] {
            match self.disk.submit(Lane::Pool, vec![Op::Remove { path }]).await {
                Ok(_) => {}
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(StorageError::disk("remove a segment")(error)),
            }
        }
        Ok(())
    }

    /// The index of the segment in which the log ends: from its file, and from the batches beyond that.
    async fn active_index(&mut self) -> Result<IndexData, StorageError> {
        let LogState { segment_base: base, position, end, .. } = self.state;
        let empty = IndexData::empty(base);
        if position == 0 {
            return Ok(empty);
        }
        let on_disk = self.sizes.last().map_or(0, |last| last.bytes);
        if on_disk < position {
            tracing::error!(log = %self.id, segment = base, on_disk, position, "a segment is shorter than it was");
        }
        // The log's end does not move back: what is missing is missing, and new records get new offsets.
        if let Some(last) = self.sizes.last_mut() {
            last.bytes = position;
        }
        let loaded = load(&self.disk, self.id, base, &self.state.epochs)
            .await
            .map_err(StorageError::disk("read an index"))?;
        let usable = loaded.filter(|data| data.covered <= position.min(on_disk) && data.next_offset <= end);
        if let Some(data) = usable.as_ref().filter(|data| data.covered == position && data.next_offset == end)
        {
            return Ok(data.clone());
        }
        if on_disk == 0 {
            self.damaged.push(base.max(self.state.start)..end);
            self.sizes.push(Segment { base: end, bytes: 0 });
            (self.state.segment_base, self.state.position) = (end, 0);
            return Ok(IndexData::empty(end));
        }
        if usable.is_none() {
            tracing::debug!(log = %self.id, segment = base, "the index is rebuilt");
        }
        let file = self.open_segment(base).await?;
        let range = ScanRange {
            known: usable.unwrap_or(empty),
            limit: position,
            end: Some(end),
            gaps_below: self.state.compacted.gaps_below,
            epochs: Some(Arc::new(self.state.epochs.clone())),
            epoch_min: None,
            interval_bytes: self.interval_bytes,
            may_be_torn: false,
        };
        let scanned =
            scan(&self.disk, file.clone(), range).await.map_err(StorageError::disk("read a segment"))?;
        let mut index = scanned.index;
        // The next checkpoint writes the index's file.
        self.dirty.push(base);
        if let Some(first) = scanned.damaged.first()
            && defect!(corrupt_as_torn)
        {
            let (position, offset) = index.floor(first.start);
            self.state.cut(offset, base, position);
            index.cut(position, offset);
            if let Some(last) = self.sizes.last_mut() {
                last.bytes = position;
            }
            self.disk.truncate(&file, position).await.map_err(StorageError::disk("cut a segment"))?;
            return Ok(index);
        }
        self.damaged.extend(scanned.damaged);
        if index.next_offset != end || index.covered != position {
            // The segment does not reach the log's end: records are missing there, or the log was cut at a start inside of a batch.
            self.sizes.push(Segment { base: end, bytes: 0 });
            (self.state.segment_base, self.state.position) = (end, 0);
            return Ok(IndexData::empty(end));
        }
        Ok(index)
    }
}
