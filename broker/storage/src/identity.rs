//! Who the folder is, and whether it was left in order.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use uuid::Uuid;
use weir_protocol::types::{FolderId, Incarnation};
use weir_runtime::disk::{Disk, Lane, Op};
use weir_runtime::random;

use crate::StorageError;
use crate::blob::{self, BlobError, Kind};
use crate::catalog::Catalog;
use crate::checkpoint;
use crate::layout;

const IDENTITY_KIND: Kind = Kind { magic: *b"WEIRfold", version: 1 };
const CLEAN_KIND: Kind = Kind { magic: *b"WEIRcln\n", version: 1 };
const LEN_MAX: usize = 4096;

/// The folder's identity, as its file has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) folder: FolderId,
    /// Starts of this folder so far, the present one included.
    pub(crate) incarnation: Incarnation,
}

impl Identity {
    pub(crate) fn encode(self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_slice(self.folder.0.as_bytes());
        out.put_u64_le(self.incarnation.0);
        blob::seal(IDENTITY_KIND, &out)
    }

    pub(crate) fn decode(bytes: &Bytes) -> Result<Identity, BlobError> {
        let (_, mut content) = blob::open(IDENTITY_KIND, bytes)?;
        if content.len() < 24 {
            return Err(BlobError::Damaged("it is too short".to_owned()));
        }
        let mut id = [0; 16];
        content.copy_to_slice(&mut id);
        let incarnation = Incarnation(content.get_u64_le());
        if incarnation.0 == u64::MAX {
            return Err(BlobError::Damaged("no folder has been started so often".to_owned()));
        }
        Ok(Identity { folder: FolderId(Uuid::from_bytes(id)), incarnation })
    }

    /// The identity with one more start.
    pub(crate) fn next(self) -> Identity {
        Identity { incarnation: Incarnation(self.incarnation.0 + 1), ..self }
    }
}

/// Reads the folder's identity and counts this start. A folder without any file of ours gets an identity.
///
/// A damaged identity is an error and never replaced by a new one: whoever trusts this folder's id trusts its content (contracts 5
/// and 6), and only an operator may take it away.
pub(crate) async fn begin_incarnation(disk: &Disk) -> Result<(Identity, bool), StorageError> {
    let read = disk.read_file(layout::IDENTITY, LEN_MAX).await;
    let (before, created) = match read.map_err(StorageError::disk("read the folder's identity"))? {
        Some(bytes) => {
            (Identity::decode(&bytes).map_err(|e| blob_error(layout::IDENTITY, IDENTITY_KIND, e))?, false)
        }
        None => {
            refuse_content_without_identity(disk).await?;
            let folder = FolderId(Uuid::from_bytes(random::uuid_bytes()));
            // It comes first: a folder that has an identity has a checkpoint.
            let checkpoint = checkpoint::encode(folder, 1, false, &Catalog::default(), 0);
            disk.replace_atomically(layout::CHECKPOINT, vec![checkpoint])
                .await
                .map_err(StorageError::disk("write the checkpoint"))?;
            (Identity { folder, incarnation: Incarnation(0) }, true)
        }
    };
    let now = before.next();
    disk.replace_atomically(layout::IDENTITY, vec![now.encode()])
        .await
        .map_err(StorageError::disk("write the folder's identity"))?;
    Ok((now, created))
}

async fn refuse_content_without_identity(disk: &Disk) -> Result<(), StorageError> {
    let entries = disk.list("").await.map_err(StorageError::disk("list the data folder"))?;
    let ours = entries.iter().find(|entry| {
        let files = [layout::CLEAN, layout::JOURNAL];
        files.contains(&entry.name.as_str()) || layout::parse_log_dir(&entry.name).is_some()
    });
    match ours {
        None => Ok(()),
        Some(entry) => Err(StorageError::Damaged {
            file: layout::IDENTITY.to_owned(),
            reason: format!("it is missing, although there is data ({})", entry.name),
        }),
    }
}

/// Names the file in a frame's error.
pub(crate) fn blob_error(file: &str, kind: Kind, error: BlobError) -> StorageError {
    match error {
        BlobError::Newer { found } => {
            StorageError::NewerFormat { file: file.to_owned(), found, known: kind.version }
        }
        BlobError::Damaged(reason) => StorageError::Damaged { file: file.to_owned(), reason },
    }
}

/// Whether the folder was closed in order the last time.
pub(crate) async fn is_clean(disk: &Disk) -> Result<bool, StorageError> {
    let read = disk.read_file(layout::CLEAN, LEN_MAX).await;
    let Some(bytes) = read.map_err(StorageError::disk("read the clean-shutdown marker"))? else {
        return Ok(false);
    };
    is_clean_mark(&bytes).map_err(|newer| blob_error(layout::CLEAN, CLEAN_KIND, newer))
}

/// Whether a file's content marks a clean stop. One that is damaged does not.
pub(crate) fn is_clean_mark(bytes: &Bytes) -> Result<bool, BlobError> {
    match blob::open(CLEAN_KIND, bytes) {
        Ok(_) => Ok(true),
        Err(BlobError::Damaged(_)) => Ok(false),
        Err(newer @ BlobError::Newer { .. }) => Err(newer),
    }
}

/// The content of the marker.
pub(crate) fn clean_mark() -> Bytes {
    blob::seal(CLEAN_KIND, &[])
}

/// Leaves the marker of a clean stop.
pub(crate) async fn mark_clean(disk: &Disk) -> Result<(), StorageError> {
    disk.replace_atomically(layout::CLEAN, vec![clean_mark()])
        .await
        .map_err(StorageError::disk("write the clean-shutdown marker"))
}

/// Removes the marker of a clean stop, for good.
pub(crate) async fn clear_clean_mark(disk: &Disk) -> Result<(), StorageError> {
    let batch = vec![Op::Remove { path: layout::CLEAN.into() }, Op::SyncDir { path: "".into() }];
    match disk.submit(Lane::Pool, batch).await {
        Ok(_) => Ok(()),
        Err(error) if error.index == 0 && error.is_not_found() => Ok(()),
        Err(error) => Err(StorageError::disk("remove the clean-shutdown marker")(error)),
    }
}
