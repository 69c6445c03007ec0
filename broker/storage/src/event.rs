//! What the store tells the owners of logs.

use std::sync::Arc;

use weir_protocol::types::{LogId, Offset};

use crate::StorageError;
use crate::inbox::Replacement;

/// A message of the store to a port's owner. Hand each part to the log it names: [`crate::Log::on_durable`] and so on say what
/// it means for the log as it is now, since truncations may have overtaken it.
#[derive(Debug, Clone)]
pub enum StoreEvent {
    /// A round is complete: for each log of this port that it touched, how far the log is durable now.
    Durable(Vec<(LogId, Durable)>),
    /// Appends could not be written and were cut.
    AppendFailed(AppendFailed),
    /// A truncation or a new start is durable.
    Cut(Cut),
    /// What compaction has left of a segment has taken its place: [`crate::Log::on_replaced`].
    Replaced(Replaced),
    /// A sync or a journal write failed: final, nothing more will become durable (contract 8).
    FolderFailed(Arc<StorageError>),
}

/// How far a log is durable: in the journal and written (`sync` logs), or written (`os` logs).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Durable {
    /// The log's durable end.
    pub end: Offset,
    /// Which of the log's cuts the round had seen.
    pub(crate) generation: u32,
}

/// Appends were not written (the disk is full), and everything from `from` on was cut; the cut is durable.
/// The log accepts appends again once [`crate::Log::on_append_failed`] was called.
#[derive(Debug, Clone)]
pub struct AppendFailed {
    /// The log.
    pub log: LogId,
    /// Everything from here on is gone.
    pub from: Offset,
    /// Why.
    pub error: Arc<StorageError>,
    pub(crate) generation: u32,
}

/// A truncation or a new start of a log is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// The log.
    pub log: LogId,
    /// The log's start.
    pub start: Offset,
    /// The log's end after the cut; everything below is durable.
    pub end: Offset,
    /// Which end of the log was cut.
    pub side: CutSide,
    pub(crate) generation: u32,
}

/// A segment of a log was replaced by what compaction left of it.
#[derive(Debug, Clone)]
pub struct Replaced {
    /// The log.
    pub log: LogId,
    pub(crate) segment: Replacement,
    /// Counts replacements.
    pub(crate) layout: u32,
}

/// Which end of a log was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CutSide {
    /// Its start moved: [`crate::Log::set_start`].
    Start,
    /// It was truncated: [`crate::Log::truncate`].
    End,
}
