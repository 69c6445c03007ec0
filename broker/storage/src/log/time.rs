//! Finding records by their timestamps (ListOffsets, KIP-79 and KIP-734).

use bytes::Bytes;
use weir_protocol::types::{LeaderEpoch, Offset};
use weir_runtime::disk::Disk;
use weir_wire::records::{Batch, BatchHeader, TimestampType};

use super::Log;
use super::read::{Planned, PlannedSegment};
use crate::error::ReadError;
use crate::segment::{Cursor, Step};

/// Most bytes that the records of one batch may decompress to while their timestamps are looked at.
const BATCH_BYTES_MAX: usize = 256 << 20;

/// A record found by its timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimestampOffset {
    /// Its offset.
    pub offset: Offset,
    /// Its timestamp.
    pub timestamp_ms: i64,
    /// Its leader epoch.
    pub leader_epoch: LeaderEpoch,
}

/// A search by timestamp, ready to run.
pub struct TimePlan {
    planned: Planned,
    segments: Vec<PlannedSegment>,
    start: Offset,
    below: Offset,
    search: Search,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Search {
    /// The first record that is not earlier.
    NotBefore(i64),
    /// The first record with the largest timestamp.
    Largest,
}

impl Log {
    /// Plans to find the first record below `below` whose timestamp is at least `timestamp_ms`. Only what is written counts: that is
    /// all that is durable.
    pub fn offset_for_time(&self, timestamp_ms: i64, below: Offset) -> TimePlan {
        self.time_plan(Search::NotBefore(timestamp_ms), below)
    }

    /// Plans to find the first of the records below `below` with the largest timestamp (KIP-734).
    pub fn max_timestamp(&self, below: Offset) -> TimePlan {
        self.time_plan(Search::Largest, below)
    }

    fn time_plan(&self, search: Search, below: Offset) -> TimePlan {
        let below = below.min(self.end);
        let segments = self.all_written_segments(self.start, below);
        TimePlan { planned: self.planned(), segments, start: self.start, below, search }
    }
}

impl TimePlan {
    /// Searches. `None`: there is no such record. Damaged records are passed over: they have no timestamp.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn run(self, disk: &Disk) -> Result<Option<TimestampOffset>, ReadError> {
        self.planned.check_current(self.start)?;
        let found = match self.search {
            Search::NotBefore(timestamp_ms) => self.first_from(disk, timestamp_ms).await?,
            Search::Largest => match self.largest(disk).await? {
                Some(largest) => self.first_from(disk, largest).await?,
                None => None,
            },
        };
        self.planned.check_current(self.start)?;
        Ok(found)
    }

    async fn first_from(&self, disk: &Disk, timestamp_ms: i64) -> Result<Option<TimestampOffset>, ReadError> {
        for segment in &self.segments {
            let Some(file) = self.planned.open(disk, segment).await? else { continue };
            let index = self.planned.index(disk, segment, &file).await?;
            if index.with(|index| index.timestamp_bound) < timestamp_ms {
                continue;
            }
            let (position, offset) = index.with(|index| index.floor_by_time(timestamp_ms));
            let span = self.planned.span(segment, position, offset);
            let mut cursor = Cursor::new(disk, file, span).with_index(index);
            loop {
                match cursor.step().await? {
                    Step::Batch { header, at, .. } => {
                        if header.next_offset() > self.below {
                            return Ok(None);
                        }
                        if header.max_timestamp_ms >= timestamp_ms && header.next_offset() > self.start {
                            let bytes = cursor.window().0.slice(at);
                            if let Some(found) = first_record(header, bytes, timestamp_ms, self.start) {
                                return Ok(Some(found));
                            }
                        }
                    }
                    Step::Damage(_) => {}
                    Step::End => break,
                }
            }
        }
        Ok(None)
    }

    /// The largest timestamp of a batch. Where an index knows it, its segment is not read.
    async fn largest(&self, disk: &Disk) -> Result<Option<i64>, ReadError> {
        let mut largest = None;
        for segment in &self.segments {
            let Some(file) = self.planned.open(disk, segment).await? else { continue };
            let index = self.planned.index(disk, segment, &file).await?;
            let (bound, is_exact, next_offset) =
                index.with(|index| (index.timestamp_bound, index.largest_at.is_some(), index.next_offset));
            if largest.is_some_and(|largest| bound <= largest) {
                continue;
            }
            if is_exact && segment.base >= self.start && next_offset <= self.below {
                largest = Some(bound);
                continue;
            }
            let span = self.planned.span(segment, 0, segment.base);
            let mut cursor = Cursor::new(disk, file, span).with_index(index);
            loop {
                match cursor.step().await? {
                    Step::Batch { header, .. } => {
                        if header.next_offset() > self.below {
                            break;
                        }
                        if header.next_offset() > self.start {
                            largest = largest.max(Some(header.max_timestamp_ms));
                        }
                    }
                    Step::Damage(_) => {}
                    Step::End => break,
                }
            }
        }
        Ok(largest.filter(|largest| *largest > i64::MIN))
    }
}

/// The first record of a batch at or above `start` that is not earlier.
fn first_record(
    header: BatchHeader,
    bytes: Bytes,
    timestamp_ms: i64,
    start: Offset,
) -> Option<TimestampOffset> {
    let leader_epoch = header.leader_epoch;
    if header.timestamp_type() == TimestampType::LogAppendTime {
        let offset = header.base_offset.max(start);
        return Some(TimestampOffset { offset, timestamp_ms: header.max_timestamp_ms, leader_epoch });
    }
    let records = Batch { header, bytes }.records(BATCH_BYTES_MAX).ok()?;
    let mut readable = records.iter().map_while(Result::ok);
    let record = readable.find(|record| record.offset >= start && record.timestamp_ms >= timestamp_ms)?;
    Some(TimestampOffset { offset: record.offset, timestamp_ms: record.timestamp_ms, leader_epoch })
}
