//! The storage of one data folder: partitions' logs in segments, one journal that makes appends durable, a checkpoint and
//! recovery.
//!
//! [`Store`] is the folder. A shard asks it for a [`Port`], opens its logs through it and owns them: [`Log`]'s methods never wait.
//! What becomes durable, is cut or fails arrives as [`StoreEvent`]s at the port, and is handed to the log concerned. Reads are
//! planned by the log ([`ReadPlan`], [`TimePlan`]) and run wherever the caller likes.
//!
//! # Files of a data folder
//! | path | content |
//! |---|---|
//! | `folder` | the folder's id and incarnation |
//! | `clean` | there after a clean stop: nothing needs to be recovered |
//! | `checkpoint` | each log's durable end, start and epochs, and where replay begins |
//! | `journal/` | the journal |
//! | `<topic id>-<partition>/<base offset>.log` | record batches, as on the wire |
//! | `<topic id>-<partition>/<base offset>.cleaned` | what compaction leaves of the segment, before it takes its place |
//! | `<topic id>-<partition>/<base offset>.index` | the segment's sparse index, rebuilt when it is missing or wrong |
//! | `deleted/` | logs that are being removed |

mod append;
mod blob;
mod cache;
mod catalog;
mod checkpoint;
mod committer;
mod config;
mod error;
mod event;
mod identity;
mod inbox;
/// Public for property tests and fuzzing, no interface for others.
#[doc(hidden)]
pub mod journal;
mod layout;
mod log;
/// Public for property tests and fuzzing, no interface for others.
#[doc(hidden)]
pub mod parsers;
mod recovery;
mod segment;
mod store;

pub use append::{AppendInfo, producer_batch};
pub use config::{Flush, LogConfig, StoreConfig};
pub use error::{ReadError, StorageError};
pub use event::{AppendFailed, Cut, CutSide, Durable, Replaced, StoreEvent};
pub use log::{
    Cleaned, CompactionFigures, CompactionLimits, CompactionPlan, Log, ReadPlan, TimePlan, TimestampOffset,
};
pub use recovery::{DamagedRange, RecoveryReport};
pub use store::{Port, Store, StoreStats};
pub use weir_protocol::partition::epochs::{EpochEntry, EpochHistory};
