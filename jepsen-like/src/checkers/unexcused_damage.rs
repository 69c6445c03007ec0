//! `unexcused-damage`: the broker answers CORRUPT_MESSAGE for an offset that the plan's atlas did not damage.

use super::Checker;
use super::index::Index;
use super::verdict::{AnomalyKind, Findings};

pub(super) const CHECKER: Checker = Checker { kind: AnomalyKind::UnexcusedDamage, covers: |_| true, check };

/// How many offsets of one answer are asked about one by one.
const OFFSETS_PER_SPAN_MAX: i64 = 10_000;

fn check(index: &Index<'_>, findings: &mut Findings<'_>) {
    for log in &index.logs {
        for &(span, by) in &log.corrupt {
            let until = span.to.min(span.from.saturating_add(OFFSETS_PER_SPAN_MAX));
            let Some(offset) = (span.from..until).find(|&offset| !index.promise.excuses(log.log, offset))
            else {
                continue;
            };
            findings.add(Some(log.log), Some(offset), &[by], || {
                format!("offset {offset} is reported as damaged, and no damage was planned there")
            });
        }
    }
}
