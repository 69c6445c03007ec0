//! `stuck`: after the last fault was healed, an operation does not end within its bound, or one that was started when
//! everything must have settled ends without an answer.

use std::collections::HashMap;

use super::Checker;
use super::index::{Index, OpAt};
use super::verdict::{AnomalyKind, Findings};
use crate::history::{Failure, Op, Operation, Outcome, ProcessId};

pub(super) const CHECKER: Checker =
    Checker { kind: AnomalyKind::Stuck, covers: |promise| promise.liveness.is_some(), check };

fn check(index: &Index<'_>, findings: &mut Findings<'_>) {
    let Some(liveness) = index.promise.liveness else { return };
    let settled_ns = liveness.healed_at_ns.saturating_add(liveness.bound_ns);
    let crashes = crashes(index);
    for (at, operation) in index.history.operations().iter().enumerate() {
        let deadline_ns = operation.invoked_ns.max(liveness.healed_at_ns).saturating_add(liveness.bound_ns);
        let why = match operation.completed_ns {
            Some(end) if end > deadline_ns => "ended too late",
            None if crashes.get(&operation.process).is_some_and(|at| *at > operation.invoked_at) => continue,
            None if index.history.end_ns() > deadline_ns => "did not end",
            Some(_) if operation.invoked_ns >= settled_ns && unanswered(operation) => "got no answer",
            _ => continue,
        };
        let at = OpAt::try_from(at).expect("a history has fewer than 2^32 operations");
        findings.add(operation.op.log(), None, &[at], || {
            let after_ms = deadline_ns.saturating_sub(operation.invoked_ns) / 1_000_000;
            let of = operation.op.group().map(|group| format!(" of group {group}")).unwrap_or_default();
            format!("an operation{of} {why}; it had {after_ms} ms")
        });
    }
}

/// When each process ended that did so without a word: nobody waits any more for what it had under way.
fn crashes(index: &Index<'_>) -> HashMap<ProcessId, usize> {
    let crashed = index.history.operations().iter().filter(|operation| operation.op == Op::Crash);
    crashed.map(|operation| (operation.process, operation.invoked_at)).collect()
}

/// Whether an operation that ended did so without an answer that counts. A final read that fails leaves part of a
/// log unread: nothing is then known about it.
fn unanswered(operation: &Operation) -> bool {
    match &operation.outcome {
        Outcome::Ok(_) | Outcome::Unknown(Some(Failure::Corrupt(_))) => false,
        Outcome::Fail(_) => matches!(operation.op, Op::FinalRead { .. }),
        Outcome::Unknown(_) => true,
    }
}
