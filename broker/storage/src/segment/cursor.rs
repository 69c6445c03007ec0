//! The walk over a segment's batches, on disk, past whatever is damaged.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use weir_protocol::types::Offset;
use weir_runtime::disk::{BatchError, Disk, File};
use weir_wire::records::{BatchHeader, CRC_START, HEADER_BYTES, MAGIC};

use super::index::SegmentIndex;
use weir_protocol::partition::epochs::EpochHistory;

/// Bytes that one read takes, unless a batch is larger.
pub(crate) const READ_BYTES: usize = 256 << 10;
/// Where a batch's magic stands.
const MAGIC_AT: usize = 16;

/// The part of a segment that is walked.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    /// Where a batch begins.
    pub(crate) position: u64,
    /// That batch's offset.
    pub(crate) offset: Offset,
    /// Bytes of the segment that belong to the log.
    pub(crate) limit: u64,
    /// The offset after the last record below `limit`; `None` if nobody knows: then the walk ends before trailing bytes that are no
    /// batch.
    pub(crate) end: Option<Offset>,
    /// Below, offsets may have gaps.
    pub(crate) gaps_below: Offset,
    /// The epochs that the batches must have, if they are known.
    pub(crate) epochs: Option<Arc<EpochHistory>>,
}

/// What comes next in a segment.
#[derive(Debug)]
pub(crate) enum Step {
    /// A batch whose structure, place and checksum are right.
    Batch {
        header: BatchHeader,
        position: u64,
        /// Its bytes in [`Cursor::window`].
        at: Range<usize>,
    },
    /// The records in this range are not there as they were written. The walk goes on behind them.
    Damage(Range<Offset>),
    /// The span's end.
    End,
}

/// Where a segment's bytes are.
enum Source<'a> {
    Disk(&'a Disk, File),
    /// For property tests and fuzzing.
    Memory(Bytes),
}

impl Source<'_> {
    /// Fewer than `len` bytes at the end.
    async fn read(&self, position: u64, len: usize) -> Result<Bytes, BatchError> {
        match self {
            Source::Disk(disk, file) => disk.read(file, position, len).await,
            Source::Memory(bytes) => {
                let start = usize::try_from(position).map_or(bytes.len(), |start| start.min(bytes.len()));
                Ok(bytes.slice(start..bytes.len().min(start.saturating_add(len))))
            }
        }
    }
}

/// A walk over a segment.
pub(crate) struct Cursor<'a> {
    source: Source<'a>,
    /// Leads past damage.
    index: Option<Arc<SegmentIndex>>,
    span: Span,
    read_bytes: usize,
    window: Bytes,
    window_at: u64,
    /// Counts windows, so that ranges of one are told from ranges of another.
    window_number: u64,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(disk: &'a Disk, file: File, span: Span) -> Cursor<'a> {
        Cursor::over(Source::Disk(disk, file), span)
    }

    /// A walk over a segment's bytes.
    pub(crate) fn in_memory(bytes: Bytes, span: Span) -> Cursor<'static> {
        Cursor::over(Source::Memory(bytes), span)
    }

    fn over(source: Source<'_>, span: Span) -> Cursor<'_> {
        let window_at = span.position;
        Cursor {
            source,
            index: None,
            span,
            read_bytes: READ_BYTES,
            window: Bytes::new(),
            window_at,
            window_number: 0,
        }
    }

    /// Uses the segment's index to find the way past damage.
    pub(crate) fn with_index(mut self, index: Arc<SegmentIndex>) -> Self {
        self.index = Some(index);
        self
    }

    /// Reads about this many bytes at a time.
    pub(crate) fn with_read_bytes(mut self, read_bytes: usize) -> Self {
        self.read_bytes = read_bytes.clamp(4096, READ_BYTES);
        self
    }

    /// Where the next batch begins.
    pub(crate) fn position(&self) -> u64 {
        self.span.position
    }

    /// The bytes that were read last, and which window this is.
    pub(crate) fn window(&self) -> (&Bytes, u64) {
        (&self.window, self.window_number)
    }

    /// The next batch, or damage.
    pub(crate) async fn step(&mut self) -> Result<Step, BatchError> {
        let complete = self.span.end == Some(self.span.offset);
        if complete || self.span.position >= self.span.limit {
            return Ok(self.at_limit());
        }
        // Of a sealed segment that was cut it is known only how long it is at most. Without gaps the offsets tell where it ends.
        if self.span.offset < self.span.gaps_below && !self.fill(self.span.position, 1).await? {
            return Ok(self.at_limit());
        }
        match self.batch_at(self.span.position, Expect::Next).await? {
            Some(header) => {
                let position = self.span.position;
                let start = (position - self.window_at) as usize;
                let at = start..start + header.size_bytes();
                self.span.position += header.size_bytes() as u64;
                self.span.offset = header.next_offset();
                Ok(Step::Batch { header, position, at })
            }
            None => self.resynchronise().await,
        }
    }

    /// All bytes are read. Records that should have been in them are missing.
    fn at_limit(&mut self) -> Step {
        match self.span.end {
            Some(end) if self.span.offset.max(self.span.gaps_below) < end => {
                let missing = self.span.offset.max(self.span.gaps_below)..end;
                self.span.offset = end;
                Step::Damage(missing)
            }
            _ => Step::End,
        }
    }

    /// There is no valid batch at the present position: goes on to the next one.
    async fn resynchronise(&mut self) -> Result<Step, BatchError> {
        let from = self.span.offset;
        let mut position = self.span.position;
        // Records may be missing without a trace; or it is the base offset that is damaged, which no checksum covers.
        if let Some(header) = self.batch_at(position, Expect::Later).await?
            && self.is_followed(position, header).await?
        {
            self.span.offset = header.base_offset;
            return Ok(Step::Damage(from..header.base_offset));
        }
        loop {
            let known = self.index.as_ref().and_then(|index| index.with(|data| data.above(position)));
            let known = known.filter(|(position, offset)| *position < self.span.limit && *offset > from);
            let search_end = known.map_or(self.span.limit, |(position, _)| position);
            if let Some((found, header)) = self.search(position + 1, search_end).await? {
                (self.span.position, self.span.offset) = (found, header.base_offset);
                return Ok(Step::Damage(from..header.base_offset));
            }
            // What the index knows is looked at even if the search has found nothing up to there.
            let Some((next, offset)) = known else { break };
            if self.batch_at(next, Expect::At(offset)).await?.is_some() {
                (self.span.position, self.span.offset) = (next, offset);
                return Ok(Step::Damage(from..offset));
            }
            position = next;
        }
        let Some(end) = self.span.end.filter(|end| *end > from) else {
            self.span.limit = self.span.position;
            return Ok(Step::End);
        };
        (self.span.position, self.span.offset) = (self.span.limit, end);
        Ok(Step::Damage(from..end))
    }

    /// Whether what comes after a batch agrees with its offsets.
    async fn is_followed(&mut self, position: u64, header: BatchHeader) -> Result<bool, BatchError> {
        let next = position + header.size_bytes() as u64;
        if next >= self.span.limit {
            return Ok(self.span.end == Some(header.next_offset()));
        }
        Ok(self.batch_at(next, Expect::At(header.next_offset())).await?.is_some())
    }

    /// The first valid batch that begins from `from` on, below `end`.
    async fn search(&mut self, from: u64, end: u64) -> Result<Option<(u64, BatchHeader)>, BatchError> {
        let mut position = from;
        while let Some(candidate) = self.candidate(position, end).await? {
            if let Some(header) = self.batch_at(candidate, Expect::Later).await? {
                return Ok(Some((candidate, header)));
            }
            position = candidate + 1;
        }
        Ok(None)
    }

    /// The next position from `from` on, below `end`, where a batch may begin.
    async fn candidate(&mut self, from: u64, end: u64) -> Result<Option<u64>, BatchError> {
        let mut position = from;
        while position < end {
            if !self.fill(position, HEADER_BYTES).await? {
                return Ok(None);
            }
            let start = (position - self.window_at) as usize;
            let last = self.window.len() - HEADER_BYTES;
            for at in start..=last {
                if self.window[at + MAGIC_AT] == MAGIC as u8
                    && self.fits(&self.window[at..], self.window_at + at as u64, Expect::Later).is_some()
                {
                    let found = self.window_at + at as u64;
                    return Ok((found < end).then_some(found));
                }
            }
            position = self.window_at + last as u64 + 1;
        }
        Ok(None)
    }

    /// The whole and valid batch that begins at `position`.
    async fn batch_at(&mut self, position: u64, expect: Expect) -> Result<Option<BatchHeader>, BatchError> {
        if !self.fill(position, HEADER_BYTES).await? {
            return Ok(None);
        }
        let start = (position - self.window_at) as usize;
        let Some(header) = self.fits(&self.window[start..], position, expect) else { return Ok(None) };
        if !self.fill(position, header.size_bytes()).await? {
            return Ok(None);
        }
        let start = (position - self.window_at) as usize;
        let batch = &self.window[start..start + header.size_bytes()];
        Ok((crc32c::crc32c(&batch[CRC_START..]) == header.crc).then_some(header))
    }

    /// Whether a header may stand here. The checksum does not cover the base offset and the leader epoch: what is around must.
    fn fits(&self, bytes: &[u8], position: u64, expect: Expect) -> Option<BatchHeader> {
        let header = BatchHeader::parse(bytes).ok()?;
        let offset_fits = match expect {
            Expect::Next => {
                let (next, base) = (self.span.offset, header.base_offset);
                base == next || base > next && base <= self.span.gaps_below
            }
            Expect::Later => header.base_offset > self.span.offset,
            Expect::At(offset) => header.base_offset == offset,
        };
        let end_fits = self.span.end.is_none_or(|end| header.next_offset() <= end);
        let size_fits = position + header.size_bytes() as u64 <= self.span.limit;
        // The history begins with the log's start, which may lie behind this batch or inside of it.
        let epoch = self.span.epochs.as_ref().and_then(|epochs| epochs.epoch_at(header.last_offset()));
        let epoch_fits = epoch.is_none_or(|epoch| epoch == header.leader_epoch);
        (offset_fits && end_fits && size_fits && epoch_fits).then_some(header)
    }

    /// Makes sure that `len` bytes from `position` on are in the window. `false`: the span or the file ends before.
    async fn fill(&mut self, position: u64, len: usize) -> Result<bool, BatchError> {
        let window_end = self.window_at + self.window.len() as u64;
        if position >= self.window_at && position + len as u64 <= window_end {
            return Ok(true);
        }
        let room = usize::try_from(self.span.limit.saturating_sub(position)).unwrap_or(usize::MAX);
        if len > room {
            return Ok(false);
        }
        let wanted = len.max(self.read_bytes).min(room);
        self.window = self.source.read(position, wanted).await?;
        self.window_at = position;
        self.window_number += 1;
        Ok(self.window.len() >= len)
    }
}

/// Which offset a batch must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    /// The one that comes next.
    Next,
    /// One behind it: something in between is damaged.
    Later,
    /// This one.
    At(Offset),
}
