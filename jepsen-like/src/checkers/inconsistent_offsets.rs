//! `inconsistent-offsets`: two values at one offset of a partition, between any two of: a read, another read, a
//! binding acknowledgement.

use super::Checker;
use super::index::{Index, OpAt};
use super::verdict::{AnomalyKind, Findings};

pub(super) const CHECKER: Checker = Checker {
    kind: AnomalyKind::InconsistentOffsets,
    covers: |promise| promise.keeps_what_it_showed(),
    check,
};

fn check(index: &Index<'_>, findings: &mut Findings<'_>) {
    for log in index.stable_logs() {
        let seen = log.seen.iter().map(|seen| (seen.offset, seen.value, seen.by));
        let acknowledged = log.acknowledged.iter().filter(|ack| index.promise.binds(ack.acks));
        let acknowledged = acknowledged.map(|ack| (ack.offset, ack.value, ack.by));
        let mut places: Vec<(i64, u64, OpAt)> = seen.chain(acknowledged).collect();
        places.sort_unstable();
        for pair in places.windows(2) {
            if let [(offset, first, by), (same, second, also)] = *pair
                && offset == same
                && first != second
            {
                findings.add(Some(log.log), Some(offset), &[by, also], || {
                    format!("offset {offset} holds value {first} and value {second}")
                });
            }
        }
    }
}
