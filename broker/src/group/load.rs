//! Reads a coordinator's state from its partition's log.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;
use weir_defect::defect;
use weir_protocol::group::{Coordinator, Limits, Now};
use weir_protocol::partition::FailReason;
use weir_protocol::types::{LeaderEpoch, LogId, Offset};
use weir_runtime::disk::Disk;
use weir_runtime::{simulation, task, time};
use weir_storage::ReadError;
use weir_wire::records;

use super::Unavailable;
use super::records::decode;
use crate::shard::{
    FetchCall, FetchPart, FetchWatch, Message, OffsetQuery, OffsetsCall, OffsetsFound, OffsetsPart, Readable,
    ShardError, Shards,
};

/// Bytes that are read at a time.
const READ_BYTES: usize = 1 << 20;
/// The most that one batch may decompress to.
const BATCH_BYTES_MAX: usize = 64 << 20;

/// Why a coordinator cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    #[error(transparent)]
    Shard(#[from] ShardError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("offset {offset}: {reason}")]
    Record { offset: Offset, reason: String },
}

impl LoadError {
    /// What whoever asked is told.
    pub(super) fn unavailable(&self) -> Unavailable {
        match self {
            LoadError::Shard(ShardError::Refused(FailReason::NotLeader | FailReason::FencedLeaderEpoch)) => {
                Unavailable::NotCoordinator
            }
            // The shard has not heard of its leadership yet.
            LoadError::Shard(ShardError::Refused(FailReason::UnknownLeaderEpoch)) => Unavailable::Loading,
            LoadError::Shard(_) | LoadError::Read(_) | LoadError::Record { .. } => Unavailable::Failed,
        }
    }
}

/// Loads one coordinator.
pub(super) struct Loader {
    pub(super) shards: Shards,
    pub(super) disk: Disk,
    pub(super) limits: Limits,
    pub(super) log: LogId,
    /// The leader epoch under which the state is loaded (contract 10).
    pub(super) epoch: LeaderEpoch,
}

impl Loader {
    /// Reads everything that was written before this leader epoch began, once that is committed.
    pub(super) async fn run(self) -> Result<Coordinator, LoadError> {
        let mut coordinator = Coordinator::new(self.limits);
        // Nothing is appended before the coordinator is loaded: where the log ends now, its own epoch begins.
        let end = self.offset(OffsetQuery::EndOfEpoch(self.epoch)).await?;
        let mut at = self.offset(OffsetQuery::Earliest).await?;
        while at < end {
            let watch = Arc::new(FetchWatch::default());
            let readable = self.fetch(at, &watch).await?;
            match readable.plan.filter(|plan| !plan.is_empty()) {
                Some(plan) => {
                    let read = plan.run(&self.disk).await;
                    if let Err(ReadError::Corrupt { log, from, .. }) = read {
                        // A replica that has others is repaired, and led by another meanwhile.
                        self.shards.send(self.shards.owner_of(log), Message::Damaged { log, from }).await?;
                    }
                    if let Err(ReadError::Changed(_)) = read {
                        // A segment was replaced by its compacted form; had the log been cut, the next fetch would say so.
                        simulation::situation("coordinator loaded while its log was compacted");
                        task::yield_now().await;
                        continue;
                    }
                    let next = self.take_over(&mut coordinator, read?, at)?;
                    if next == at && defect!(load_until_leo) {
                        watch.woken().await;
                    } else if next == at {
                        return Err(LoadError::Record {
                            offset: at,
                            reason: "nothing can be read".to_owned(),
                        });
                    }
                    at = next;
                }
                // Not committed yet.
                None if readable.high_watermark <= at => watch.woken().await,
                None => at = readable.high_watermark,
            }
            task::yield_now().await;
        }
        coordinator.loaded(now());
        if !coordinator.is_empty() {
            simulation::situation("coordinator loaded with groups");
        }
        Ok(coordinator)
    }

    /// Hands the records to the coordinator. Returns the offset behind the last.
    fn take_over(
        &self,
        coordinator: &mut Coordinator,
        chunks: Vec<Bytes>,
        at: Offset,
    ) -> Result<Offset, LoadError> {
        let mut next = at;
        for chunk in chunks {
            for batch in records::batches(chunk) {
                let wrong = |reason: String| LoadError::Record { offset: next, reason };
                let batch = batch.map_err(|error| wrong(error.to_string()))?;
                let decoded = batch.records(BATCH_BYTES_MAX).map_err(|error| wrong(error.to_string()))?;
                for record in &decoded {
                    let record = record.map_err(|error| wrong(error.to_string()))?;
                    let offset = record.offset;
                    let wrong = |reason: String| LoadError::Record { offset, reason };
                    let key = record.key.ok_or_else(|| wrong("it has no key".to_owned()))?;
                    let known = decode(key, record.value).map_err(|error| wrong(error.to_string()))?;
                    if let Some(known) = known.filter(|_| offset >= at) {
                        coordinator.load(known, now());
                    }
                }
                // Z31: a batch that compaction has emptied has no record to end with.
                if batch.header.count > 0 || !defect!(load_until_leo) {
                    next = batch.header.next_offset();
                }
            }
        }
        Ok(next)
    }

    async fn fetch(&self, offset: Offset, watch: &Arc<FetchWatch>) -> Result<Readable, ShardError> {
        let part = FetchPart {
            log: self.log,
            index: 0,
            offset,
            bytes_max: READ_BYTES,
            epoch: Some(self.epoch),
            last_fetched_epoch: None,
        };
        let (reply, answer) = oneshot::channel();
        let call = Box::new(FetchCall { parts: vec![part], watch: Some(Arc::clone(watch)), reply });
        self.shards.send(self.shards.owner_of(self.log), Message::Fetch(call)).await?;
        let done = answer.await.map_err(|_| ShardError::Stopping)?;
        done.into_iter().next().map_or(Err(ShardError::Stopping), |done| done.result)
    }

    async fn offset(&self, query: OffsetQuery) -> Result<Offset, ShardError> {
        let part = OffsetsPart { log: self.log, index: 0, epoch: Some(self.epoch), query };
        let (reply, answer) = oneshot::channel();
        let call = Box::new(OffsetsCall { parts: vec![part], reply });
        self.shards.send(self.shards.owner_of(self.log), Message::Offsets(call)).await?;
        let done = answer.await.map_err(|_| ShardError::Stopping)?;
        match done.into_iter().next().map(|done| done.result) {
            Some(Ok(OffsetsFound::Offset { offset, .. })) => Ok(offset),
            Some(Err(error)) => Err(error),
            Some(Ok(OffsetsFound::Search(_))) | None => Err(ShardError::Stopping),
        }
    }
}

/// Both clocks.
pub(super) fn now() -> Now {
    Now { at: time::now().since_origin(), wall_ms: time::wall_ms() }
}
