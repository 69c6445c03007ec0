//! The quorum's log: an ordinary log of the store. An entry is a batch of one record; its offset is the entry's index,
//! its leader epoch the term, and its value the command. A leader's first entry has no value, a change of voters has the
//! key `voters`.

use bytes::Bytes;
use tokio::sync::mpsc;
use weir_protocol::raft::{Entry, EntryKind, Index, LogPosition};
use weir_protocol::types::LogId;
use weir_runtime::disk::Disk;
use weir_runtime::time;
use weir_storage::{
    AppendFailed, AppendInfo, Cut, Durable, Log, LogConfig, Port, ReadError, Store, StoreEvent,
};
use weir_wire::codec::Compression;
use weir_wire::records::{self, Batch, BatchBuilder};

use super::driver::MetadataError;

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

impl MetadataLog {
    /// Opens the log, which is made if there is none, and reads all its entries.
    pub(super) async fn open(
        store: &Store,
        disk: &Disk,
    ) -> Result<(MetadataLog, Vec<(Index, Entry)>), MetadataError> {
        let (port, events) = store.port();
        let log = store.open_log(LogId::METADATA, LogConfig::default(), &port).await?;
        if let Some(damage) = log.damaged().first() {
            return Err(damaged(format!("from entry {} to {}", damage.start, damage.end)));
        }
        let entries = replay(&log, disk).await?;
        Ok((MetadataLog { log, events, _port: port }, entries))
    }

    /// The log's shape, for the core.
    pub(super) fn position(&self, entries: &[(Index, Entry)]) -> LogPosition {
        LogPosition {
            start: self.log.start(),
            term_before_start: 0,
            end: self.log.end(),
            terms: self.log.epochs().entries().iter().map(|entry| (entry.epoch, entry.start)).collect(),
            voters: entries
                .iter()
                .filter_map(|(index, entry)| entry.voters().map(|voters| (*index, voters)))
                .collect(),
        }
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

/// Only what does not read as it was written is damage. A read that the disk refuses may succeed at the next start.
fn unreadable(error: ReadError) -> MetadataError {
    match error {
        ReadError::Io(error) => MetadataError::Disk(error),
        error => damaged(error.to_string()),
    }
}

async fn replay(log: &Log, disk: &Disk) -> Result<Vec<(Index, Entry)>, MetadataError> {
    let mut entries = Vec::new();
    let mut next = log.start();
    while next < log.end() {
        let plan = log.read(next, READ_BYTES, log.end(), true).map_err(unreadable)?;
        let read = plan.run(disk).await.map_err(unreadable)?;
        let before = next;
        for batch in records::batches(Bytes::from(read.concat())) {
            let batch = batch.map_err(|error| damaged(error.to_string()))?;
            entries.push((batch.header.base_offset, entry(&batch)?));
            next = batch.header.next_offset();
        }
        if next == before {
            return Err(damaged(format!("nothing can be read at entry {next}")));
        }
    }
    Ok(entries)
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
