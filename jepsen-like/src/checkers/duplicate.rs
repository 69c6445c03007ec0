//! `duplicate`: one value at two offsets of a partition, though its producer is idempotent, or never repeats. Judged
//! for each producer by itself: a run may mix them.

use super::Checker;
use super::index::{Index, OpAt};
use super::verdict::{AnomalyKind, Findings};
use crate::workload::Idempotence;

pub(super) const CHECKER: Checker = Checker {
    kind: AnomalyKind::Duplicate,
    covers: |promise| {
        (!promise.retries || promise.idempotent != Idempotence::None) && promise.keeps_what_it_showed()
    },
    check,
};

fn check(index: &Index<'_>, findings: &mut Findings<'_>) {
    for log in index.stable_logs() {
        let seen = log.seen.iter().map(|seen| (seen.value, seen.offset, seen.by));
        let acknowledged = log.acknowledged.iter().filter(|ack| index.promise.binds(ack.acks));
        let acknowledged = acknowledged.map(|ack| (ack.value, ack.offset, ack.by));
        let mut places: Vec<(u64, i64, OpAt)> =
            seen.chain(acknowledged).filter(|&(value, ..)| may_stand_once_only(index, value)).collect();
        places.sort_unstable();
        for pair in places.windows(2) {
            if let [(value, first, by), (same, second, also)] = *pair
                && value == same
                && first != second
            {
                findings.add(Some(log.log), Some(second), &[by, also], || {
                    format!("value {value} stands at offset {first} and at offset {second}")
                });
            }
        }
    }
}

/// A value that nobody sent is a phantom, and no producer's duplicate.
fn may_stand_once_only(index: &Index<'_>, value: u64) -> bool {
    index.sends.get(&value).is_some_and(|&by| !index.promise.allows_duplicates(index.op(by).process))
}
