//! `resurrected`: a record that was in a topic when its deletion was ordered is shown after the deletion was
//! acknowledged, in a new topic of that name or in the old one.

use super::Checker;
use super::index::Index;
use super::verdict::{AnomalyKind, Findings};
use crate::history::Outcome;

pub(super) const CHECKER: Checker = Checker {
    kind: AnomalyKind::Resurrected,
    covers: |promise| promise.deletion_is_immediate && promise.keeps_what_it_showed(),
    check,
};

fn check(index: &Index<'_>, findings: &mut Findings<'_>) {
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
