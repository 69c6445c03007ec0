//! Those that formed the cluster, in a small sealed file: who votes before the metadata log's first change of voters
//! (contract 6). A folder of a node alone has no such file.

use std::path::Path;

use weir_protocol::raft::Voters;
use weir_runtime::disk::{BatchError, Disk};
use weir_wire::internal::{self, BlobError, BlobKind};

use super::error::MetadataError;

/// The file's name in the data folder.
const FILE: &str = "quorum-voters";
/// It holds at most [`weir_protocol::raft::VOTERS_MAX`] names.
const FILE_BYTES_MAX: usize = 4096;

const KIND: BlobKind = BlobKind { magic: *b"WqVo", version: 1, name: FILE };

/// Reads them; `None` if there is no such file.
///
/// # Errors
/// `Damaged` if it does not read as it was written.
pub(super) async fn load(disk: &Disk) -> Result<Option<Voters>, MetadataError> {
    let Some(bytes) = disk.read_file(FILE, FILE_BYTES_MAX).await? else { return Ok(None) };
    let damaged = |reason: String| MetadataError::Damaged { what: FILE.to_owned(), reason };
    let blob = internal::open(&KIND, &bytes).map_err(|error| match error {
        BlobError::NewerFormat { .. } => MetadataError::NewerFormat(error.to_string()),
        BlobError::Truncated { .. } | BlobError::Damaged { .. } => damaged(error.to_string()),
    })?;
    Voters::decode(blob.payload).map(Some).map_err(|error| damaged(error.to_string()))
}

/// Writes them. They are durable when this returns.
pub(super) async fn store(disk: &Disk, voters: &Voters) -> Result<(), BatchError> {
    disk.replace_atomically(Path::new(FILE), vec![internal::seal(&KIND, &voters.encode())]).await
}
