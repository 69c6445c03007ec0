//! The quorum's hard state: the term and whom this voter has voted for in it, in a small sealed file.

use std::path::Path;

use serde::Deserialize;
use weir_protocol::raft::{HardState, Standing, Term};
use weir_protocol::types::VoterId;
use weir_runtime::disk::{BatchError, Disk};
use weir_wire::internal::{self, BlobError, BlobKind};

use super::error::MetadataError;

/// The file's name in the data folder.
const FILE: &str = "quorum-state";
/// It holds a number and a name.
const FILE_BYTES_MAX: usize = 4096;

const KIND: BlobKind = BlobKind { magic: *b"WqSt", version: 2, name: FILE };

/// Version 1: nothing was ever lost.
#[derive(Deserialize)]
struct HardStateV1 {
    term: Term,
    vote: Option<VoterId>,
}

/// Reads the state; `None` if there has never been one.
pub(super) async fn load(disk: &Disk) -> Result<Option<HardState>, MetadataError> {
    let Some(bytes) = disk.read_file(FILE, FILE_BYTES_MAX).await? else { return Ok(None) };
    let damaged = |reason: String| MetadataError::Damaged { what: FILE.to_owned(), reason };
    let blob = internal::open(&KIND, &bytes).map_err(|error| match error {
        BlobError::NewerFormat { .. } => MetadataError::NewerFormat(error.to_string()),
        BlobError::Truncated { .. } | BlobError::Damaged { .. } => damaged(error.to_string()),
    })?;
    let state =
        match blob.version {
            0 | 1 => internal::decode(blob.payload, FILE_BYTES_MAX)
                .map(|HardStateV1 { term, vote }| HardState { term, vote, standing: Standing::Whole }),
            _ => internal::decode(blob.payload, FILE_BYTES_MAX),
        };
    state.map(Some).map_err(|error| damaged(error.to_string()))
}

/// Replaces the state. It is durable when this returns.
pub(super) async fn store(disk: &Disk, state: &HardState) -> Result<(), BatchError> {
    // Two numbers and a name always have an encoding.
    let payload = internal::encode(state).unwrap_or_default();
    disk.replace_atomically(Path::new(FILE), vec![internal::seal(&KIND, &payload)]).await
}
