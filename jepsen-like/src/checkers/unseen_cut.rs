//! `unseen-cut`: a log was cut below a consumer's position, others were written in the place of what it had read, and it reads
//! on behind them without having been told (KIP-320).
//!
//! The proof: once the consumer had its last record, another one was sent, and acknowledged at the same offset; after that the
//! record was sent which the consumer is given next. Logs of topics that are not synced are cut when power fails: consumers
//! must notice.

use std::collections::HashMap;

use super::Checker;
use super::index::{Acknowledged, Index, LogIndex, Onward};
use super::verdict::{AnomalyKind, Findings};

pub(super) const CHECKER: Checker = Checker { kind: AnomalyKind::UnseenCut, covers: |_| true, check };

fn check(index: &Index<'_>, findings: &mut Findings<'_>) {
    for log in index.stable_logs() {
        let acknowledged = by_offset(index, log);
        for step in &log.onwards {
            let Onward { last, after, first, by } = step;
            let sent = first.value.and_then(|value| index.sends.get(&value));
            let others = acknowledged.get(&last.offset).map_or(&[][..], Vec::as_slice);
            let other = others.iter().find(|other| replaced(index, step, other));
            if let (Some(sent), Some(other)) = (sent, other) {
                findings.add(Some(log.log), Some(last.offset), &[*after, other.by, *sent, *by], || {
                    format!(
                        "a consumer has read another record at offset {} than {}",
                        last.offset, other.value
                    )
                });
            }
        }
    }
}

fn by_offset<'a>(index: &Index<'_>, log: &'a LogIndex<'_>) -> HashMap<i64, Vec<&'a Acknowledged>> {
    let mut acknowledged: HashMap<i64, Vec<_>> = HashMap::new();
    // A leader that is deposed may acknowledge others, and loses them.
    for send in log.acknowledged.iter().filter(|send| index.promise.durable_acks.contains(&send.acks)) {
        acknowledged.entry(send.offset).or_default().push(send);
    }
    acknowledged
}

/// Whether this one stood in the place of the consumer's last record before its next record was sent.
fn replaced(index: &Index<'_>, step: &Onward, other: &Acknowledged) -> bool {
    let Onward { last, after, first, .. } = step;
    let Some(sent) = first.value.and_then(|value| index.sends.get(&value)) else { return false };
    let (read, other_sent) = (index.op(*after).completed_at, index.op(other.by));
    last.value.is_some_and(|value| value != other.value)
        && first.offset > last.offset
        && read.is_some_and(|read| read < other_sent.invoked_at)
        && other_sent.completed_at.is_some_and(|done| done < index.op(*sent).invoked_at)
}
