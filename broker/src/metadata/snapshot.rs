//! Snapshots of the image: the image and where in the log it was taken, in one sealed file that takes its place at once.
//!
//! The content travels between nodes as it is: a format version (u16, big-endian) and the encoded image. What Raft says of
//! it, its checksum among that, stands beside it in the file.

use std::path::Path;

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use weir_protocol::metadata::Image;
use weir_protocol::raft::{Snapshot, SnapshotPoint};
use weir_runtime::disk::{BatchError, Disk};
use weir_wire::internal::{self, BlobError, BlobKind};

use super::error::MetadataError;

/// The file's name in the data folder.
const FILE: &str = "quorum-snapshot";

/// The largest content: what one encoded value may be.
pub(super) const CONTENT_BYTES_MAX: usize = internal::VALUE_BYTES_MAX - DESCRIPTION_BYTES_MAX;
/// More than the encoded [`Snapshot`] takes.
const DESCRIPTION_BYTES_MAX: usize = 4096;

const KIND: BlobKind = BlobKind { magic: *b"WqSn", version: 1, name: FILE };

/// The newest version of the content.
const CONTENT_VERSION: u16 = 1;

/// A snapshot with its content.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Held {
    pub(super) snapshot: Snapshot,
    /// Invariant: what `snapshot` says of its length and checksum holds.
    pub(super) content: Bytes,
}

impl Held {
    /// The snapshot of an image that holds what all entries below `at.end` have made.
    ///
    /// # Errors
    /// `Refused` if it is too large.
    pub(super) fn of(at: SnapshotPoint, image: &Image) -> Result<Held, MetadataError> {
        let refused = |reason: String| MetadataError::Refused(format!("a snapshot: {reason}"));
        let image = internal::encode(image).map_err(|error| refused(error.to_string()))?;
        let mut content = BytesMut::with_capacity(2 + image.len());
        content.put_u16(CONTENT_VERSION);
        content.put_slice(&image);
        if content.len() > CONTENT_BYTES_MAX {
            return Err(refused(format!("{} bytes are more than {CONTENT_BYTES_MAX}", content.len())));
        }
        let content = content.freeze();
        let snapshot = Snapshot { at, bytes: content.len() as u64, checksum: crc32c::crc32c(&content) };
        Ok(Held { snapshot, content })
    }

    /// The image in it, if the content is what the snapshot says of it.
    ///
    /// # Errors
    /// `Damaged` if it is not; `NewerFormat`.
    pub(super) fn image(&self) -> Result<Image, MetadataError> {
        let damaged = |reason: String| MetadataError::Damaged { what: FILE.to_owned(), reason };
        let Snapshot { at, bytes, checksum } = &self.snapshot;
        if *bytes != self.content.len() as u64 || *checksum != crc32c::crc32c(&self.content) {
            return Err(damaged("its content does not have its checksum".to_owned()));
        }
        let Some((version, content)) = self.content.split_first_chunk::<2>() else {
            return Err(damaged("it is empty".to_owned()));
        };
        let version = u16::from_be_bytes(*version);
        if version > CONTENT_VERSION {
            return Err(MetadataError::NewerFormat(format!("the image in {FILE} has version {version}")));
        }
        let image: Image = internal::decode(content, internal::VALUE_BYTES_MAX)
            .map_err(|error| damaged(error.to_string()))?;
        image.invariants().map_err(damaged)?;
        match image.applied() {
            Some(applied) if applied + 1 == at.end => Ok(image),
            applied => Err(damaged(format!("an image of {applied:?} is said to end at {}", at.end))),
        }
    }

    /// A piece of the content.
    pub(super) fn piece(&self, offset: u64, bytes_max: usize) -> Bytes {
        let len = self.content.len();
        let from = usize::try_from(offset).map_or(len, |offset| offset.min(len));
        self.content.slice(from..len.min(from.saturating_add(bytes_max)))
    }
}

/// Reads the newest snapshot; `None` if there is none.
///
/// # Errors
/// `Damaged` if it does not read as it was written; `NewerFormat`; what the disk says.
pub(super) async fn load(disk: &Disk) -> Result<Option<Held>, MetadataError> {
    let file_bytes_max = internal::VALUE_BYTES_MAX + internal::BLOB_HEADER_BYTES;
    let Some(bytes) = disk.read_file(FILE, file_bytes_max).await? else { return Ok(None) };
    let damaged = |reason: String| MetadataError::Damaged { what: FILE.to_owned(), reason };
    let blob = internal::open(&KIND, &bytes).map_err(|error| match error {
        BlobError::NewerFormat { .. } => MetadataError::NewerFormat(error.to_string()),
        BlobError::Truncated { .. } | BlobError::Damaged { .. } => damaged(error.to_string()),
    })?;
    internal::decode(blob.payload, internal::VALUE_BYTES_MAX)
        .map(Some)
        .map_err(|error| damaged(error.to_string()))
}

/// Replaces the snapshot. It is durable when this returns.
pub(super) async fn store(disk: &Disk, held: &Held) -> Result<(), BatchError> {
    // Bytes, numbers and names always have an encoding.
    let payload = internal::encode(held).unwrap_or_default();
    disk.replace_atomically(Path::new(FILE), vec![internal::seal(&KIND, &payload)]).await
}
