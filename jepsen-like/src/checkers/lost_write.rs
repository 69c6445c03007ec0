//! `lost-write`: a record known to be committed is not there in the end, though a later one of its partition is.
//!
//! Known to be committed is what was acknowledged under a binding promise, and what any consumer was shown. It is
//! lost where the final read passes over its offset; where it was never read at all, also where any consumer passes
//! over it. What the final read answers with CORRUPT_MESSAGE is reported, not lost; whether that was planned is judged
//! by `unexcused-damage`.

use super::Checker;
use super::index::{FinalRead, Index, LogIndex, OpAt};
use super::verdict::{AnomalyKind, Findings};
use crate::history::Span;

pub(super) const CHECKER: Checker =
    Checker { kind: AnomalyKind::LostWrite, covers: |promise| promise.keeps_what_it_showed(), check };

fn check(index: &Index<'_>, findings: &mut Findings<'_>) {
    for log in index.complete_logs() {
        for read in &log.final_reads {
            against_final_read(index, log, read, findings);
        }
        if log.final_reads.is_empty() {
            against_gaps(index, log, findings);
        }
    }
}

/// A record that must be in the log.
#[derive(Clone, Copy)]
pub(super) struct Committed {
    pub(super) offset: i64,
    pub(super) value: u64,
    pub(super) by: OpAt,
    /// By an acknowledgement; otherwise a consumer was shown it.
    pub(super) acknowledged: bool,
}

/// What must be in the log when the final read starts, once per offset and value, by offset.
pub(super) fn committed(index: &Index<'_>, log: &LogIndex<'_>, read: &FinalRead<'_>) -> Vec<Committed> {
    let read_from = index.op(read.by).invoked_at;
    let known = |by: OpAt| by != read.by && index.op(by).completed_at.is_some_and(|at| at < read_from);
    let acknowledged = log.acknowledged.iter().filter(|ack| index.promise.binds(ack.acks));
    let acknowledged = acknowledged.map(|ack| Committed {
        offset: ack.offset,
        value: ack.value,
        by: ack.by,
        acknowledged: true,
    });
    let shown = log.seen.iter();
    let shown = shown.map(|s| Committed { offset: s.offset, value: s.value, by: s.by, acknowledged: false });
    let mut all: Vec<Committed> = acknowledged.chain(shown).filter(|record| known(record.by)).collect();
    all.sort_by_key(|record| (record.offset, record.value, !record.acknowledged));
    all.dedup_by_key(|record| (record.offset, record.value));
    all
}

/// The records of the final read, by offset, for lookups.
pub(super) struct FinalRecords(Vec<(i64, Option<u64>)>);

impl FinalRecords {
    pub(super) fn of(read: &FinalRead<'_>) -> Self {
        let mut sorted: Vec<_> = read.records.iter().map(|record| (record.offset, record.value)).collect();
        sorted.sort_unstable();
        Self(sorted)
    }

    /// Whether any record stands at this offset. Another value there is `inconsistent-offsets`.
    pub(super) fn has(&self, offset: i64) -> bool {
        self.0.binary_search_by_key(&offset, |record| record.0).is_ok()
    }
}

fn against_final_read(
    index: &Index<'_>,
    log: &LogIndex<'_>,
    read: &FinalRead<'_>,
    findings: &mut Findings<'_>,
) {
    let records = FinalRecords::of(read);
    for record in committed(index, log, read) {
        let Committed { offset, value, by, acknowledged } = record;
        let cut_off = log.may_be_cut_off(offset, read.start, index.promise);
        let last = read.last.unwrap_or(-1);
        if records.has(offset) || cut_off || read.reports(offset) || offset > last {
            continue;
        }
        findings.add(Some(log.log), Some(offset), &[by, read.by], || {
            let known = if acknowledged { "was acknowledged" } else { "was shown to a consumer" };
            format!(
                "value {value} {known} at offset {offset} and is gone from the final read, which goes on to offset {last}"
            )
        });
    }
}

/// Without a final read: acknowledged, never read by anyone, and passed over by some consumer.
fn against_gaps(index: &Index<'_>, log: &LogIndex<'_>, findings: &mut Findings<'_>) {
    let mut gaps: Vec<(Span, OpAt)> = log.gaps.iter().map(|gap| (gap.span, gap.by)).collect();
    gaps.sort_unstable_by_key(|(span, _)| span.from);
    // The end of the gap that reaches furthest among those up to each place, with the poll that made it.
    let mut furthest: Vec<(i64, OpAt)> = Vec::with_capacity(gaps.len());
    for (span, by) in &gaps {
        let before = furthest.last().copied().unwrap_or((i64::MIN, *by));
        furthest.push(if span.to > before.0 { (span.to, *by) } else { before });
    }
    for ack in log.acknowledged.iter().filter(|ack| index.promise.binds(ack.acks)) {
        let before = gaps.partition_point(|(span, _)| span.from <= ack.offset);
        let Some(&(end, by)) = before.checked_sub(1).and_then(|at| furthest.get(at)) else { continue };
        // A consumer that passed before the acknowledgement passed all the same: records do not appear behind it.
        if end <= ack.offset || !log.seen_at(ack.offset).is_empty() {
            continue;
        }
        findings.add(Some(log.log), Some(ack.offset), &[ack.by, by], || {
            format!(
                "value {} was acknowledged at offset {} and a consumer passed over it",
                ack.value, ack.offset
            )
        });
    }
}
