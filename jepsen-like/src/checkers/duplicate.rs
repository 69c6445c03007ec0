//! `duplicate`: one value at two offsets of a partition, though its producer is idempotent, or never repeats.

use super::Checker;
use super::index::{Index, OpAt};
use super::verdict::{AnomalyKind, Findings};

pub(super) const CHECKER: Checker = Checker {
    kind: AnomalyKind::Duplicate,
    covers: |promise| !promise.allows_duplicates() && promise.keeps_what_it_showed(),
    check,
};

fn check(index: &Index<'_>, findings: &mut Findings<'_>) {
    for log in index.stable_logs() {
        let seen = log.seen.iter().map(|seen| (seen.value, seen.offset, seen.by));
        let acknowledged = log.acknowledged.iter().filter(|ack| index.promise.binds(ack.acks));
        let acknowledged = acknowledged.map(|ack| (ack.value, ack.offset, ack.by));
        let mut places: Vec<(u64, i64, OpAt)> = seen.chain(acknowledged).collect();
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
