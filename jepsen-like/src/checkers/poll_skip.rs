//! `poll-skip`: successive records of one consumer, with no seek, assignment or rebalance between them, leave out a
//! record that somebody read. Compaction and markers leave gaps in the offsets, so a gap alone proves nothing.
//!
//! Also a group's: a member that gets a partition starts behind a record that lies before no offset at which the group
//! can have stood.

use super::Checker;
use super::index::Index;
use super::tenures;
use super::verdict::{AnomalyKind, Findings};

pub(super) const CHECKER: Checker =
    Checker { kind: AnomalyKind::PollSkip, covers: |promise| promise.keeps_what_it_showed(), check };

fn check(index: &Index<'_>, findings: &mut Findings<'_>) {
    for log in index.complete_logs() {
        for gap in &log.gaps {
            let Some(left_out) = log.seen_within(gap.span).first() else { continue };
            let proof: Vec<_> = gap.after.into_iter().chain([gap.by, left_out.by]).collect();
            findings.add(Some(log.log), Some(left_out.offset), &proof, || {
                format!(
                    "a consumer at position {} is given offset {} next and never value {} at offset {}",
                    gap.span.from, gap.span.to, left_out.value, left_out.offset
                )
            });
        }
    }
    if index.promise.keeps_groups() {
        late_starts(index, findings);
    }
}

fn late_starts(index: &Index<'_>, findings: &mut Findings<'_>) {
    for (name, group) in &index.groups {
        for late in tenures::walk(index, group).starts {
            let Some(log) = index.complete_logs().find(|log| log.log == late.log) else { continue };
            // Where the log's beginning was cut off, the member starts at its new one.
            let left_out = log.seen_within(late.left_out).iter();
            let mut left_out = left_out.filter(|seen| seen.offset >= log.ordered_start);
            let Some(left_out) = left_out.next().filter(|_| !index.promise.retention) else { continue };
            findings.add(Some(late.log), Some(left_out.offset), &[late.stood_by, late.by, left_out.by], || {
                format!(
                    "group {name} stood at {} at most, and a member starts at {} without value {} at offset {}",
                    late.left_out.from, late.left_out.to, left_out.value, left_out.offset
                )
            });
        }
    }
}
