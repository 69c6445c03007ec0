//! `phantom`: a record is shown that nobody sent to this partition, or whose payload is not what any workload wrote.
//! Damaged or misdirected bytes that are served as good look like this, so no promise excuses it.

use super::Checker;
use super::index::Index;
use super::verdict::{AnomalyKind, Findings};

pub(super) const CHECKER: Checker = Checker { kind: AnomalyKind::Phantom, covers: |_| true, check };

fn check(index: &Index<'_>, findings: &mut Findings<'_>) {
    for log in &index.logs {
        for seen in &log.seen {
            let (value, offset) = (seen.value, seen.offset);
            let Some(&sent_by) = index.sends.get(&value) else {
                findings.add(Some(log.log), Some(offset), &[seen.by], || {
                    format!("value {value} is read at offset {offset} and was never sent")
                });
                continue;
            };
            let sent = index.op(sent_by);
            if let Some(meant) = sent.op.log().filter(|meant| *meant != log.log) {
                findings.add(Some(log.log), Some(offset), &[sent_by, seen.by], || {
                    format!("value {value} is read at offset {offset} and was sent to {meant}")
                });
            } else if index.op(seen.by).completed_at.is_some_and(|read_at| read_at < sent.invoked_at) {
                findings.add(Some(log.log), Some(offset), &[seen.by, sent_by], || {
                    format!("value {value} is read at offset {offset} before it was sent")
                });
            }
        }
        for &(offset, by) in &log.unreadable {
            findings.add(Some(log.log), Some(offset), &[by], || {
                format!("the payload at offset {offset} is not what any workload wrote")
            });
        }
    }
}
