//! The quorum's log: an ordinary log of the store. An entry is a batch of one record; its offset is the entry's index,
//! its leader epoch the term, and its value the command. A leader's first entry has no value, a change of voters has the
//! key `voters`.

use bytes::Bytes;
use tokio::sync::mpsc;
use weir_protocol::raft::{Entry, EntryKind, Index, LogPosition, SnapshotPoint, Term};
use weir_protocol::types::LogId;
use weir_runtime::disk::Disk;
use weir_runtime::time;
use weir_storage::{
    AppendFailed, AppendInfo, Cut, CutSide, Durable, Log, LogConfig, Port, ReadError, ReadPlan, Store,
    StoreEvent,
};
use weir_wire::codec::Compression;
use weir_wire::records::{self, Batch, BatchBuilder};

use super::error::MetadataError;

/// Bytes that are read at a time when the log is replayed.
const READ_BYTES: usize = 1 << 20;

/// The key of an entry that changes the voters; commands have none.
const VOTERS_KEY: &[u8] = b"voters";

/// The quorum's log.
pub(super) struct MetadataLog {
    log: Log,
    events: mpsc::UnboundedReceiver<StoreEvent>,
    /// Keeps the events coming.
    _port: Port,
}

/// What of a log can be read.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// From the log's first entry on, without a gap.
    pub(super) entries: Vec<(Index, Entry)>,
    /// Why durable entries behind these are lost, if some are (contract 7).
    pub(super) damage: Option<String>,
}

impl MetadataLog {
    /// Opens the log, which is made if there is none, and reads all its entries up to the first that is damaged.
    pub(super) async fn open(
        store: &Store,
        disk: &Disk,
        config: LogConfig,
    ) -> Result<(MetadataLog, Found), MetadataError> {
        let (port, events) = store.port();
        let log = store.open_log(LogId::METADATA, config, &port).await?;
        let found = replay(&log, disk).await?;
        Ok((MetadataLog { log, events, _port: port }, found))
    }

    /// Another log in place of one that is to be dropped whole; its first entry stands at `start`.
    pub(super) async fn replace(
        store: &Store,
        disk: &Disk,
        config: LogConfig,
        start: Index,
    ) -> Result<MetadataLog, MetadataError> {
        store.delete_log(LogId::METADATA).await?;
        let (mut made, _) = MetadataLog::open(store, disk, config).await?;
        // A crash before this is durable leaves a log that is older than the snapshot, and dropped again.
        made.log.set_start(start);
        Ok(made)
    }

    /// The index of its first entry.
    pub(super) fn start(&self) -> Index {
        self.log.start()
    }

    /// The log's shape, for the core.
    pub(super) fn position(&self, found: &Found, snapshot: Option<&SnapshotPoint>) -> LogPosition {
        let first = self.log.start();
        let end = found.entries.last().map_or(first, |(index, _)| index + 1);
        let (start, term_before_start) = match (snapshot, found.entries.first()) {
            _ if first == 0 => (0, 0),
            (Some(at), _) if at.end == first => (first, at.term),
            // The term before the first entry is written nowhere: the first entry itself stands in for it.
            (_, Some((index, entry))) => (index + 1, entry.term),
            (_, None) => (first, 0),
        };
        let mut terms: Vec<(Term, Index)> = Vec::new();
        for (index, entry) in found.entries.iter().filter(|(index, _)| *index >= start) {
            if terms.last().is_none_or(|(term, _)| *term < entry.term) {
                terms.push((entry.term, *index));
            }
        }
        let changes = found.entries.iter().filter_map(|(index, entry)| Some((*index, entry.voters()?)));
        LogPosition { start, term_before_start, end, terms, voters: changes.collect() }
    }

    /// Appends an entry. It is durable when an event says so.
    pub(super) fn append(&mut self, index: Index, entry: &Entry) -> Result<(), MetadataError> {
        let now_ms = time::wall_ms();
        let (key, value) = match entry.kind {
            EntryKind::LeaderStart => (None, None),
            EntryKind::Command => (None, Some(entry.payload.as_ref())),
            EntryKind::Voters => (Some(VOTERS_KEY), Some(entry.payload.as_ref())),
        };
        let refused = |error: records::BatchError| MetadataError::Refused(error.to_string());
        let mut builder = BatchBuilder::new(Compression::None).at(index, entry.term);
        builder.push(now_ms, key, value, &[]).map_err(refused)?;
        let batch = builder.finish().map_err(refused)?;
        let info = AppendInfo {
            base_offset: index,
            last_offset: index,
            leader_epoch: entry.term,
            max_timestamp_ms: now_ms,
            bytes: batch.len() as u32,
            producers: Vec::new(),
        };
        self.log.append(vec![batch], info).map_err(MetadataError::Storage)
    }

    /// Cuts the log.
    pub(super) fn truncate(&mut self, to: Index) {
        self.log.truncate(to);
    }

    /// Drops entries below `to`, except the one before: at the next start it tells the term before the log's first.
    pub(super) fn compact(&mut self, to: Index) {
        self.log.set_start(to - 1);
    }

    /// Drops all entries, so that the next one stands at `start`. Returns the cut that must be durable for that; `None` if
    /// the log begins behind `start`, so that only another log can begin there.
    pub(super) fn reset(&mut self, start: Index) -> Option<AwaitedCut> {
        let first = self.log.start();
        if start < first {
            return None;
        }
        // First the terms of what is dropped, so that any term may follow.
        self.log.truncate(first);
        self.log.set_start(start);
        let side = if start == first { CutSide::End } else { CutSide::Start };
        Some(AwaitedCut { side, end: start })
    }

    /// Plans to read entries.
    pub(super) fn read(&self, from: Index, bytes_max: usize) -> Result<ReadPlan, ReadError> {
        self.log.read(from, bytes_max, self.log.end(), true)
    }

    /// What the store has to say. Cancel-safe. Pending for ever once the store is gone.
    pub(super) async fn event(&mut self) -> StoreEvent {
        match self.events.recv().await {
            Some(event) => event,
            None => std::future::pending().await,
        }
    }

    /// Takes in what has become durable; returns the durable end if it has moved.
    pub(super) fn on_durable(&mut self, durable: &Durable) -> Option<Index> {
        self.log.on_durable(durable)
    }

    /// Takes in that entries were cut because they could not be written; returns the new end.
    pub(super) fn on_append_failed(&mut self, failed: &AppendFailed) -> Option<Index> {
        self.log.on_append_failed(failed)
    }

    /// Takes in that a cut is durable.
    pub(super) fn on_cut(&mut self, cut: &Cut) -> Option<Index> {
        self.log.on_cut(cut)
    }
}

fn damaged(reason: String) -> MetadataError {
    MetadataError::Damaged { what: "the metadata quorum's log".to_owned(), reason }
}

/// A cut that the store has yet to report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AwaitedCut {
    /// Which end of the log is cut.
    pub(super) side: CutSide,
    /// The end of the log afterwards.
    pub(super) end: Index,
}

impl AwaitedCut {
    /// Whether this is the report.
    pub(super) fn is(&self, cut: &Cut) -> bool {
        self.side == cut.side && self.end == cut.end
    }
}

/// Only what does not read as it was written is damage. A read that the disk refuses may succeed at the next start.
fn unreadable(error: ReadError) -> MetadataError {
    match error {
        ReadError::Io(error) => MetadataError::Disk(error),
        error => damaged(error.to_string()),
    }
}

/// The entries that a read has brought.
pub(super) async fn entries(plan: ReadPlan, disk: &Disk) -> Result<Vec<(Index, Entry)>, MetadataError> {
    let read = plan.run(disk).await.map_err(unreadable)?;
    let mut entries = Vec::new();
    for batch in records::batches(Bytes::from(read.concat())) {
        let batch = batch.map_err(|error| damaged(error.to_string()))?;
        entries.push((batch.header.base_offset, entry(&batch)?));
    }
    Ok(entries)
}

/// Reads all entries before the first that is damaged.
async fn replay(log: &Log, disk: &Disk) -> Result<Found, MetadataError> {
    let mut found = Found::default();
    let whole_end = log.damaged().iter().map(|range| range.start).min().unwrap_or(log.end());
    if let Some(range) = log.damaged().first() {
        found.damage = Some(format!("from entry {} to {}", range.start, range.end));
    }
    let mut next = log.start();
    while next < whole_end {
        let plan = log.read(next, READ_BYTES, whole_end, true).map_err(unreadable);
        let read = match plan {
            Ok(plan) => entries(plan, disk).await,
            Err(error) => Err(error),
        };
        let damage = match read {
            Ok(read) => {
                let before = next;
                for (index, entry) in read.into_iter().take_while(|(index, _)| *index < whole_end) {
                    if index != next {
                        break;
                    }
                    found.entries.push((index, entry));
                    next = index + 1;
                }
                (next == before).then(|| format!("nothing can be read at entry {next}"))
            }
            Err(MetadataError::Damaged { reason, .. }) => Some(reason),
            Err(error) => return Err(error),
        };
        if damage.is_some() {
            found.damage = damage;
            break;
        }
    }
    Ok(found)
}

fn entry(batch: &Batch) -> Result<Entry, MetadataError> {
    let index = batch.header.base_offset;
    let records = batch.records(READ_BYTES).map_err(|error| damaged(error.to_string()))?;
    let mut values = records.iter();
    let (Some(Ok(record)), None) = (values.next(), values.next()) else {
        return Err(damaged(format!("entry {index} is not a batch of one record")));
    };
    let kind = match (record.key, record.value) {
        (None, None) => EntryKind::LeaderStart,
        (None, Some(_)) => EntryKind::Command,
        (Some(VOTERS_KEY), Some(_)) => EntryKind::Voters,
        _ => return Err(MetadataError::NewerFormat(format!("metadata entry {index} is of an unknown kind"))),
    };
    let payload = Bytes::copy_from_slice(record.value.unwrap_or_default());
    let entry = Entry { term: batch.header.leader_epoch, kind, payload };
    if kind == EntryKind::Voters && entry.voters().is_none() {
        return Err(MetadataError::NewerFormat(format!(
            "the voters in metadata entry {index} cannot be read"
        )));
    }
    Ok(entry)
}
