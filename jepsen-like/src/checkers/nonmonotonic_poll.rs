//! `nonmonotonic-poll`: successive records of one consumer, with no seek, assignment or rebalance between them, go back;
//! also inside one poll, and inside the final read.

use super::Checker;
use super::index::Index;
use super::verdict::{AnomalyKind, Findings};

pub(super) const CHECKER: Checker = Checker { kind: AnomalyKind::NonmonotonicPoll, covers: |_| true, check };

fn check(index: &Index<'_>, findings: &mut Findings<'_>) {
    for log in index.stable_logs() {
        for step in &log.steps_back {
            let proof: Vec<_> = step.after.into_iter().chain([step.by]).collect();
            findings.add(Some(log.log), Some(step.record.offset), &proof, || {
                format!("a consumer at position {} is given offset {}", step.position, step.record.offset)
            });
        }
    }
}
