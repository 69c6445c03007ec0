//! `nonmonotonic-send`: successive sends of one producer to one partition get offsets that go back.
//!
//! Where the promise says that sends enter the log in the order of their invocations, that order is judged; otherwise
//! only sends of which one had ended before the other began.

use std::collections::HashMap;

use super::Checker;
use super::index::{Acknowledged, Index};
use super::verdict::{AnomalyKind, Findings};
use crate::history::ProcessId;

pub(super) const CHECKER: Checker =
    Checker { kind: AnomalyKind::NonmonotonicSend, covers: |promise| promise.keeps_what_it_showed(), check };

fn check(index: &Index<'_>, findings: &mut Findings<'_>) {
    for log in index.stable_logs() {
        let mut producers: HashMap<ProcessId, Producer> = HashMap::new();
        for &ack in log.acknowledged.iter().filter(|ack| index.promise.binds(ack.acks)) {
            let process = index.op(ack.by).process;
            let producer = producers.entry(process).or_default();
            let before = producer.highest_before(index, ack);
            if let Some(before) = before.filter(|before| before.offset >= ack.offset) {
                findings.add(Some(log.log), Some(ack.offset), &[before.by, ack.by], || {
                    format!(
                        "value {} got offset {}, and value {}, sent after it, got offset {}",
                        before.value, before.offset, ack.value, ack.offset
                    )
                });
            }
        }
    }
}

/// What one producer's sends to one partition got so far.
#[derive(Default)]
struct Producer {
    /// The send with the highest offset among those that count as earlier.
    highest: Option<Acknowledged>,
    /// Sends that were invoked and had not ended when the last one was looked at, by their end.
    open: std::collections::BTreeMap<usize, Acknowledged>,
}

impl Producer {
    fn highest_before(&mut self, index: &Index<'_>, ack: Acknowledged) -> Option<Acknowledged> {
        if index.promise.ordered_sends {
            let before = self.highest;
            self.raise(ack);
            return before;
        }
        let invoked_at = index.op(ack.by).invoked_at;
        while let Some(ended) = self.open.first_entry().filter(|entry| *entry.key() < invoked_at) {
            let ended = ended.remove();
            self.raise(ended);
        }
        if let Some(end) = index.op(ack.by).completed_at {
            self.open.insert(end, ack);
        }
        self.highest
    }

    fn raise(&mut self, ack: Acknowledged) {
        if self.highest.is_none_or(|highest| ack.offset > highest.offset) {
            self.highest = Some(ack);
        }
    }
}
