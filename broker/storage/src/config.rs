//! Settings of a folder and of a log.

/// Settings of a data folder.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// The journal's files together, in bytes. A checkpoint is due when about half of it is used.
    pub journal_bytes: u64,
    /// How many files these are, at least two. Each is recycled as a whole.
    pub journal_files: u32,
    /// Most bytes of appends in one journal round; a larger append has a round of its own.
    pub round_bytes_max: usize,
    /// Most bytes that may wait for their round; [`crate::Log::append`] refuses what is beyond. The broker's own budget should
    /// stop earlier.
    pub backlog_bytes_max: usize,
    /// Most segment files kept open. Each costs a file descriptor.
    pub open_files_max: usize,
    /// Most memory for the indexes of sealed segments, in bytes.
    pub index_cache_bytes: usize,
}

impl Default for StoreConfig {
    fn default() -> Self {
        StoreConfig {
            journal_bytes: 256 << 20,
            journal_files: 8,
            round_bytes_max: 4 << 20,
            backlog_bytes_max: 256 << 20,
            open_files_max: 2048,
            index_cache_bytes: 16 << 20,
        }
    }
}

/// When an append counts as durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Flush {
    /// When it is synced (`flush.messages=1`, Weir's default): it goes through the journal.
    #[default]
    Sync,
    /// When the operating system has it (any other `flush.messages`): it survives the process, not the machine.
    Os,
}

/// Settings of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogConfig {
    /// `segment.bytes`: a segment is sealed before it would grow beyond this. A larger append has a segment of its own.
    pub segment_bytes: u32,
    /// `index.interval.bytes`: at most one index entry per this many bytes.
    pub index_interval_bytes: u32,
    /// From `flush.messages`.
    pub flush: Flush,
    /// Whether `cleanup.policy` has `compact`.
    pub compact: bool,
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig { segment_bytes: 1 << 30, index_interval_bytes: 4096, flush: Flush::Sync, compact: false }
    }
}
