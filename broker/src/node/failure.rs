//! Why a node does not start, or cannot go on.

use std::net::SocketAddr;
use std::sync::Arc;

use weir_runtime::watch;
use weir_storage::StorageError;

use crate::membership::MembershipError;
use crate::metadata::error::MetadataError;

/// The exit code of a node that its cluster refuses.
const EXIT_REFUSED: u8 = 7;

/// Why a broker does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is in use.
    #[error("cannot listen on {address}: the port is in use")]
    PortInUse {
        /// As configured.
        address: String,
    },
    /// The address cannot be listened on for another reason.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// As configured.
        address: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// Other machines reach the listener for other nodes, and nodes prove nothing to each other.
    #[error(
        "the internal listener {address} can be reached from other machines: set weir.internal.secret or \
         weir.internal.secret.file to the same value on all nodes, or listen on a loopback address"
    )]
    NoSecret {
        /// What it listens on.
        address: SocketAddr,
    },
    /// The data folder's content cannot be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The metadata quorum's log or state cannot be used.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// The cluster does not take this node.
    #[error(transparent)]
    Membership(#[from] MembershipError),
    /// None of the quorum's other voters talks to this node, and waiting does not change that.
    #[error("none of controller.quorum.voters talks to this node: {0}")]
    ShutOut(String),
    /// Something has failed before the node was ready.
    #[error(transparent)]
    Failed(Failure),
}

impl StartError {
    /// The process's exit code, as documented for `weir-broker`.
    pub fn exit_code(&self) -> u8 {
        match self {
            StartError::PortInUse { .. } => 3,
            StartError::Listen { .. } | StartError::NoSecret { .. } => 2,
            StartError::Storage(error) => storage_exit_code(error),
            StartError::Metadata(error) => metadata_exit_code(error),
            StartError::Membership(_) | StartError::ShutOut(_) => EXIT_REFUSED,
            StartError::Failed(failure) => failure.exit_code(),
        }
    }
}

fn metadata_exit_code(error: &MetadataError) -> u8 {
    match error {
        MetadataError::Storage(error) => storage_exit_code(error),
        MetadataError::Damaged { .. } | MetadataError::NewerFormat(_) => 5,
        MetadataError::Disk(_) => 1,
        MetadataError::Refused(_) | MetadataError::FeatureLevel(_) => EXIT_REFUSED,
    }
}

fn storage_exit_code(error: &StorageError) -> u8 {
    match error {
        StorageError::NewerFormat { .. } | StorageError::Damaged { .. } => 5,
        StorageError::FolderFailed(_) => 6,
        _ => 1,
    }
}

/// Why a running broker cannot go on.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Failure {
    /// A sync or a journal write failed: final until the next start (contract 8).
    #[error("the data folder has failed: {0}")]
    Folder(Arc<StorageError>),
    /// A task ended that the broker cannot do without.
    #[error("{0}")]
    Task(String),
    /// The metadata quorum cannot go on.
    #[error(transparent)]
    Metadata(Arc<MetadataError>),
    /// It is no member of the cluster any more.
    #[error(transparent)]
    Membership(MembershipError),
}

impl Failure {
    /// The process's exit code, as documented for `weir-broker`.
    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::Folder(_) => 6,
            Failure::Task(_) => 1,
            Failure::Metadata(error) => metadata_exit_code(error),
            Failure::Membership(_) => EXIT_REFUSED,
        }
    }
}

/// Says once that the broker cannot go on. The first report counts.
#[derive(Debug, Clone)]
pub(crate) struct FailureFlag(Arc<watch::Sender<Option<Failure>>>);

impl FailureFlag {
    pub(crate) fn new() -> FailureFlag {
        FailureFlag(Arc::new(watch::Sender::new(None)))
    }

    pub(crate) fn report(&self, failure: Failure) {
        self.0.send_if_modified(|reported| {
            if reported.is_some() {
                return false;
            }
            tracing::error!(%failure, "the broker cannot go on");
            *reported = Some(failure);
            true
        });
    }

    /// Waits until the broker cannot go on.
    pub(crate) async fn wait(&self) -> Failure {
        let mut reported = self.0.subscribe();
        if reported.wait_for(Option::is_some).await.is_err() {
            // The flag lives as long as its holders.
            return std::future::pending().await;
        }
        self.get().unwrap_or_else(|| Failure::Task("unknown".to_owned()))
    }

    pub(crate) fn get(&self) -> Option<Failure> {
        self.0.borrow().clone()
    }
}

impl From<Failure> for StartError {
    fn from(failure: Failure) -> StartError {
        match failure {
            Failure::Folder(error) => StartError::Storage(StorageError::FolderFailed(error)),
            Failure::Membership(error) => StartError::Membership(error),
            failure => StartError::Failed(failure),
        }
    }
}
