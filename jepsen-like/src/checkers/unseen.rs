//! `unseen`: a record that was acknowledged, or shown to a consumer, is not in the final read, and nothing behind it
//! is either: the log's end is missing.

use super::Checker;
use super::index::{FinalRead, Index, LogIndex};
use super::lost_write::committed;
use super::verdict::{AnomalyKind, Findings};

pub(super) const CHECKER: Checker = Checker {
    kind: AnomalyKind::Unseen,
    covers: |promise| promise.keeps_what_it_showed() && promise.final_read,
    check,
};

fn check(index: &Index<'_>, findings: &mut Findings<'_>) {
    for log in index.stable_logs() {
        if log.final_reads.is_empty() {
            let binding = log.acknowledged.iter().rfind(|ack| index.promise.binds(ack.acks));
            if let Some(ack) = binding {
                findings.add(Some(log.log), Some(ack.offset), &[ack.by], || {
                    "records were acknowledged, and no final read of the partition succeeded".to_owned()
                });
            }
        }
        // Of a compacted one `stale-key` knows what must be there.
        for read in log.final_reads.iter().filter(|_| !log.compacted) {
            against_final_read(index, log, read, findings);
        }
    }
}

fn against_final_read(
    index: &Index<'_>,
    log: &LogIndex<'_>,
    read: &FinalRead<'_>,
    findings: &mut Findings<'_>,
) {
    for record in committed(index, log, read) {
        let offset = record.offset;
        let behind_the_end = read.last.is_none_or(|last| offset > last);
        let cut_off = log.may_be_cut_off(offset, read.start, index.promise);
        if !behind_the_end || cut_off || read.reports(offset) {
            continue;
        }
        findings.add(Some(log.log), Some(offset), &[record.by, read.by], || {
            let known = if record.acknowledged { "was acknowledged" } else { "was shown to a consumer" };
            let (value, end) = (record.value, read.end);
            format!("value {value} {known} at offset {offset}, and the final read ends at {end} without it")
        });
    }
}
