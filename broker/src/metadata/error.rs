//! What a node cannot start with, or go on after.

use weir_protocol::metadata::FeatureRange;
use weir_runtime::disk::BatchError;
use weir_storage::StorageError;

/// The cluster works at a level that this node does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the cluster works at feature level {level}; this node knows levels {known}: start a version of Weir that knows \
     level {level}"
)]
pub struct UnknownLevel {
    /// The cluster's.
    pub level: u16,
    /// This node's.
    pub known: FeatureRange,
}

/// Why the metadata quorum cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    /// The store refuses its log.
    #[error("the metadata quorum's log: {0}")]
    Storage(#[from] StorageError),
    /// Its hard state cannot be read or written.
    #[error("the metadata quorum's state: {0}")]
    Disk(#[from] BatchError),
    /// Its log or hard state is damaged: this voter neither votes nor leads until it is repaired (contract 6).
    #[error("{what} is damaged: {reason}")]
    Damaged {
        /// Which.
        what: String,
        /// How it shows.
        reason: String,
    },
    /// It was written by a newer version.
    #[error("{0}: start the newer version of Weir")]
    NewerFormat(String),
    /// The cluster has gone on to a level that this node does not know.
    #[error(transparent)]
    FeatureLevel(#[from] UnknownLevel),
    /// A command that a broker's start needs was refused.
    #[error("the metadata quorum refuses this broker: {0}")]
    Refused(String),
}
