//! The names of the files in a data folder.

use std::path::PathBuf;

use uuid::Uuid;
use weir_protocol::types::{LogId, Offset, TopicId};

/// The folder's identity.
pub(crate) const IDENTITY: &str = "folder";
/// There after a clean stop.
pub(crate) const CLEAN: &str = "clean";
/// The checkpoint.
pub(crate) const CHECKPOINT: &str = "checkpoint";
/// The journal's folder.
pub(crate) const JOURNAL: &str = "journal";
/// Logs that are being removed.
pub(crate) const DELETED: &str = "deleted";

/// The folder of a log.
pub(crate) fn log_dir(log: LogId) -> PathBuf {
    PathBuf::from(log.to_string())
}

/// Where a log's folder goes to be removed.
pub(crate) fn deleted_dir(log: LogId) -> PathBuf {
    PathBuf::from(DELETED).join(log.to_string())
}

/// A segment's batches.
pub(crate) fn segment_file(log: LogId, base: Offset) -> PathBuf {
    PathBuf::from(format!("{log}/{base:020}.log"))
}

/// What compaction has left of a segment, before it takes its place.
pub(crate) fn cleaned_file(log: LogId, base: Offset) -> PathBuf {
    PathBuf::from(format!("{log}/{base:020}.cleaned"))
}

/// Whether a file of this name is one of those, left over from a stop.
pub(crate) fn is_cleaned_file(name: &str) -> bool {
    name.ends_with(".cleaned")
}

/// A segment's index.
pub(crate) fn index_file(log: LogId, base: Offset) -> PathBuf {
    PathBuf::from(format!("{log}/{base:020}.index"))
}

/// The log whose folder has this name.
pub(crate) fn parse_log_dir(name: &str) -> Option<LogId> {
    let (topic, partition) = (name.get(..36)?, name.get(36..)?);
    let topic = TopicId(Uuid::try_parse(topic).ok()?);
    let partition = partition.strip_prefix('-')?.parse().ok().filter(|partition| *partition >= 0)?;
    let log = LogId::new(topic, partition);
    (log.to_string() == name).then_some(log)
}

/// The base offset of the segment whose file has this name.
pub(crate) fn parse_segment_file(name: &str) -> Option<Offset> {
    let digits = name.strip_suffix(".log").filter(|digits| digits.len() == 20)?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        let log = LogId::new(TopicId(Uuid::from_u128(77)), 12);
        assert_eq!(parse_log_dir(&log.to_string()), Some(log));
        assert_eq!(
            segment_file(log, 42).to_str(),
            Some("00000000-0000-0000-0000-00000000004d-12/00000000000000000042.log")
        );
        assert_eq!(parse_segment_file("00000000000000000042.log"), Some(42));
    }

    #[test]
    fn other_names_are_left_alone() {
        for name in ["journal", "lost+found", "x-0", "00000000-0000-0000-0000-00000000004D-1", "ä", ""] {
            assert_eq!(parse_log_dir(name), None, "{name}");
        }
        for partition in ["--1", "-", "-01", "-1x", "1"] {
            assert_eq!(parse_log_dir(&format!("00000000-0000-0000-0000-00000000004d{partition}")), None);
        }
        for name in
            ["42.log", "00000000000000000042.index", "+0000000000000000042.log", "99999999999999999999.log"]
        {
            assert_eq!(parse_segment_file(name), None, "{name}");
        }
    }
}
