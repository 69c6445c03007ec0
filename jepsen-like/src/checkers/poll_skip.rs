//! `poll-skip`: successive records of one consumer, with no seek, assignment or rebalance between them, leave out a
//! record that somebody read. Compaction and markers leave gaps in the offsets, so a gap alone proves nothing.

use super::Checker;
use super::index::Index;
use super::verdict::{AnomalyKind, Findings};

pub(super) const CHECKER: Checker = Checker {
    kind: AnomalyKind::PollSkip,
    covers: |promise| promise.keeps_what_it_showed() && !promise.compaction,
    check,
};

fn check(index: &Index<'_>, findings: &mut Findings<'_>) {
    for log in index.stable_logs() {
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
}
