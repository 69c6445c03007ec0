//! Snapshots: this node's own, those that it gives to others, and those that it gets.

use bytes::{Bytes, BytesMut};
use weir_protocol::metadata::Image;
use weir_protocol::raft::{Index, Input, Snapshot};
use weir_runtime::disk::BatchError;
use weir_runtime::{simulation, task};

use super::{Happening, NOTHING, Progress, Quorum, READS_MAX, Read, Wanted};
use crate::metadata::error::MetadataError;
use crate::metadata::snapshot::{self, Held};

/// A snapshot that is arriving.
#[derive(Debug)]
pub(super) struct Arriving {
    snapshot: Snapshot,
    /// Invariant: at most `snapshot.bytes`, which the core bounds.
    content: BytesMut,
}

/// A snapshot that takes the place of log and image.
#[derive(Debug)]
pub(super) struct Installing {
    held: Held,
    image: Image,
    stage: Stage,
}

#[derive(Debug, PartialEq, Eq)]
enum Stage {
    /// This node's own snapshot is still being written.
    Waits,
    /// It becomes the newest snapshot.
    Stores,
    /// It is durable; the log is dropped.
    DropsLog,
}

impl Installing {
    /// Whether its file is being written.
    pub(super) fn is_storing(&self) -> bool {
        self.stage == Stage::Stores
    }
}

impl Quorum {
    /// Makes a snapshot of the image durable. The core hears of it afterwards.
    pub(in crate::metadata) fn take_snapshot(&mut self, held: Held) {
        self.storing = Some(held.snapshot.clone());
        self.store_snapshot(held);
    }

    fn store_snapshot(&mut self, held: Held) {
        let (disk, stored) = (self.disk.clone(), self.stored_to.clone());
        task::spawn("quorum-snapshot", async move {
            let result = snapshot::store(&disk, &held).await;
            // A quorum that has ended needs no news.
            let _ = stored.send(result).await;
        });
    }

    pub(super) fn on_snapshot_stored(
        &mut self,
        result: Result<(), BatchError>,
    ) -> Result<Progress, MetadataError> {
        let own = self.storing.take();
        let mut progress = Vec::new();
        match (own, result) {
            (Some(snapshot), Ok(())) => {
                simulation::situation("metadata snapshot taken");
                tracing::info!(end = snapshot.at.end, bytes = snapshot.bytes, "metadata snapshot taken");
                self.serving = None;
                self.feed(Input::SnapshotPersisted(snapshot), &mut progress)?;
            }
            (None, Ok(())) => self.drop_log()?,
            (own, Err(error)) if error.is_no_space() => {
                tracing::warn!(%error, "no room for a metadata snapshot");
                if own.is_none()
                    && let Some(installing) = self.installing.take()
                {
                    let end = installing.held.snapshot.at.end;
                    self.feed(Input::SnapshotRefused { end }, &mut progress)?;
                }
            }
            // What is on the disk is not known: contract 8.
            (_, Err(error)) => return Err(error.into()),
        }
        if let Some(installing) = self.installing.as_mut().filter(|it| it.stage == Stage::Waits) {
            installing.stage = Stage::Stores;
            let held = installing.held.clone();
            self.store_snapshot(held);
        }
        Ok(progress)
    }

    /// Keeps a piece of another node's snapshot. The core asks for pieces in order.
    pub(super) fn keep_piece(&mut self, snapshot: Snapshot, offset: u64, bytes: &Bytes) {
        if offset == 0 {
            self.arriving = Some(Arriving { snapshot, content: BytesMut::new() });
        } else if self.arriving.as_ref().is_none_or(|arriving| arriving.snapshot != snapshot) {
            return;
        }
        if let Some(arriving) = &mut self.arriving {
            arriving.content.extend_from_slice(bytes);
        }
    }

    /// All pieces are there. First the snapshot is durable, then the log is dropped, then the image is replaced: a crash
    /// in between leaves a log that does not join the snapshot, which the next start drops.
    pub(super) fn install(&mut self, snapshot: &Snapshot) {
        let end = snapshot.at.end;
        let arriving = self.arriving.take().filter(|arriving| arriving.snapshot == *snapshot);
        let Some(Arriving { snapshot, content }) = arriving else {
            self.follow_ups.push_back(Input::SnapshotRefused { end });
            return;
        };
        let held = Held { snapshot, content: content.freeze() };
        let image = match held.image() {
            Ok(image) => image,
            Err(error) => {
                tracing::warn!(end, %error, "a snapshot that has arrived cannot be used");
                self.follow_ups.push_back(Input::SnapshotRefused { end });
                return;
            }
        };
        let stage = if self.storing.is_some() { Stage::Waits } else { Stage::Stores };
        if stage == Stage::Stores {
            self.store_snapshot(held.clone());
        }
        self.installing = Some(Installing { held, image, stage });
    }

    /// The snapshot is durable: nothing of the log is needed any more.
    fn drop_log(&mut self) -> Result<(), MetadataError> {
        let Some(installing) = &mut self.installing else { return Ok(()) };
        installing.stage = Stage::DropsLog;
        let end: Index = installing.held.snapshot.at.end;
        let cut = self.log.as_mut().and_then(|log| log.reset(end));
        // A snapshot is installed because it reaches beyond the commit, and so beyond the log's start.
        let Some(cut) = cut else {
            return Err(MetadataError::Refused(format!("the log begins behind a snapshot's end {end}")));
        };
        self.awaited = Some((cut, Input::SnapshotInstalled { end }));
        Ok(())
    }

    /// The log is dropped: the image takes the place of the one before.
    pub(super) fn finish_install(&mut self, progress: &mut Progress) {
        let Some(Installing { held, image, .. }) = self.installing.take() else { return };
        simulation::situation("metadata snapshot installed");
        tracing::info!(end = held.snapshot.at.end, "a metadata snapshot has replaced log and image");
        self.pending.clear();
        self.serving = None;
        progress.push(Happening::Installed(Box::new(image)));
    }

    /// Reads a piece of the newest snapshot for a follower.
    pub(super) fn read_snapshot(&mut self, wanted: Wanted) {
        if let Some(held) = self.serving.as_ref().filter(|held| held.snapshot == wanted.snapshot) {
            let input = wanted.of(held);
            self.follow_ups.push_back(input);
            return;
        }
        if self.reads_under_way >= READS_MAX {
            return;
        }
        let (disk, done) = (self.disk.clone(), self.reads_to.clone());
        self.reads_under_way += 1;
        task::spawn("quorum-read", async move {
            let held = snapshot::load(&disk).await;
            // A quorum that has ended needs no news.
            let _ = done.send(Read::Snapshot { wanted, held }).await;
        });
    }

    pub(super) fn on_snapshot_loaded(
        &mut self,
        wanted: Wanted,
        held: Result<Option<Held>, MetadataError>,
    ) -> Result<Progress, MetadataError> {
        let held = match held {
            Ok(held) => held.filter(|held| held.snapshot == wanted.snapshot),
            Err(error) => {
                tracing::error!(%error, "the metadata snapshot cannot be read for another node");
                None
            }
        };
        let input = match &held {
            Some(held) => wanted.of(held),
            None => wanted.gone(),
        };
        self.serving = held.or(self.serving.take());
        self.step(input)
    }
}

impl Wanted {
    fn of(self, held: &Held) -> Input {
        let bytes = held.piece(self.offset, self.bytes_max);
        let Wanted { to, term, snapshot, offset, .. } = self;
        Input::SnapshotRead { to, term, snapshot, offset, bytes }
    }

    fn gone(self) -> Input {
        let Wanted { to, term, snapshot, offset, .. } = self;
        Input::SnapshotRead { to, term, snapshot, offset, bytes: NOTHING }
    }
}
