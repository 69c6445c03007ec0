//! `resurrected`: a record that was in a topic when its deletion was ordered is shown after the deletion was
//! acknowledged, in a new topic of that name or in the old one; or a log begins again before the offset to which its
//! records were deleted.

use super::Checker;
use super::index::{Index, LogIndex};
use super::verdict::{AnomalyKind, Findings};
use crate::history::Outcome;

pub(super) const CHECKER: Checker = Checker {
    kind: AnomalyKind::Resurrected,
    covers: |promise| promise.deletion_is_immediate && promise.keeps_what_it_showed(),
    check,
};

fn check(index: &Index<'_>, findings: &mut Findings<'_>) {
    for log in index.stable_logs() {
        deleted_records(index, log, findings);
    }
    deleted_topics(index, findings);
}

fn deleted_records(index: &Index<'_>, log: &LogIndex<'_>, findings: &mut Findings<'_>) {
    let Some(read) = log.final_reads.last() else { return };
    let read_from = index.op(read.by).invoked_at;
    let before =
        log.starts.iter().filter(|(_, by)| index.op(*by).completed_at.is_some_and(|at| at < read_from));
    let Some(&(start, by)) = before.max_by_key(|(start, _)| *start) else { return };
    let returned = read.records.iter().map(|record| record.offset).find(|offset| *offset < start);
    if read.start < start || returned.is_some() {
        findings.add(Some(log.log), Some(returned.unwrap_or(read.start)), &[by, read.by], || {
            format!("records before offset {start} were deleted, and the log begins at {} again", read.start)
        });
    }
}

fn deleted_topics(index: &Index<'_>, findings: &mut Findings<'_>) {
    for log in index.logs.iter().filter(|log| log.deleted) {
        let Some(deletions) = index.deletions.get(&*log.log.topic) else { continue };
        for seen in &log.seen {
            let Some(&sent_by) = index.sends.get(&seen.value) else { continue };
            let sent = index.op(sent_by);
            // A send that is not known to have ended may still arrive in the new topic.
            let (Outcome::Ok(_), Some(sent_at)) = (&sent.outcome, sent.completed_at) else { continue };
            let read_from = index.op(seen.by).invoked_at;
            let between = deletions.iter().copied().find(|&at| {
                let deletion = index.op(at);
                sent_at < deletion.invoked_at && deletion.completed_at.is_some_and(|end| end < read_from)
            });
            let Some(deletion) = between else { continue };
            findings.add(Some(log.log), Some(seen.offset), &[sent_by, deletion, seen.by], || {
                format!(
                    "value {} was deleted with its topic and is read at offset {}",
                    seen.value, seen.offset
                )
            });
        }
    }
}
