//! `aborted-read` (G1a): a record is shown whose send certainly failed. Records of aborted transactions join it with
//! the workloads that make them.

use super::Checker;
use super::index::Index;
use super::verdict::{AnomalyKind, Findings};
use crate::history::Outcome;

pub(super) const CHECKER: Checker = Checker { kind: AnomalyKind::AbortedRead, covers: |_| true, check };

fn check(index: &Index<'_>, findings: &mut Findings<'_>) {
    for log in &index.logs {
        for seen in &log.seen {
            let Some(&sent_by) = index.sends.get(&seen.value) else { continue };
            if matches!(index.op(sent_by).outcome, Outcome::Fail(_)) {
                findings.add(Some(log.log), Some(seen.offset), &[sent_by, seen.by], || {
                    format!("value {} failed for certain and is read at offset {}", seen.value, seen.offset)
                });
            }
        }
    }
}
