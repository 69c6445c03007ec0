//! Checkers: one file for each anomaly, each judging what the promise covers.
//!
//! All of them read one [`index::Index`] of the history, which is built once in n log n; each checker is linear in
//! what it reads, with a binary search where it asks for an offset.
//!
//! The anomalies of transactions (`precommitted-read`, `torn-transaction`, `G0`, `G1c`) get their place in [`CHECKERS`]
//! when the workloads that make them do.

mod aborted_read;
mod double_ownership;
mod duplicate;
mod groups;
mod inconsistent_offsets;
mod index;
mod lost_write;
mod nonmonotonic_poll;
mod nonmonotonic_send;
mod offset_regression;
mod phantom;
mod phantom_offset;
mod poll_skip;
mod resurrected;
mod stale_key;
mod stuck;
mod tenures;
mod unexcused_damage;
mod unseen;
mod unseen_cut;
mod verdict;
mod walks;
mod zombie_commit;

pub use verdict::{Anomaly, AnomalyKind, Counts, Evidence, Verdict};

use self::index::Index;
use self::verdict::Findings;
use crate::history::History;
use crate::workload::Promise;

/// One checker: the anomaly that it looks for, when it may judge, and how.
struct Checker {
    kind: AnomalyKind,
    covers: fn(&Promise) -> bool,
    check: fn(&Index<'_>, &mut Findings<'_>),
}

const CHECKERS: &[Checker] = &[
    lost_write::CHECKER,
    unseen::CHECKER,
    duplicate::CHECKER,
    inconsistent_offsets::CHECKER,
    aborted_read::CHECKER,
    phantom::CHECKER,
    resurrected::CHECKER,
    unexcused_damage::CHECKER,
    poll_skip::CHECKER,
    nonmonotonic_poll::CHECKER,
    nonmonotonic_send::CHECKER,
    unseen_cut::CHECKER,
    stale_key::CHECKER,
    offset_regression::CHECKER,
    phantom_offset::CHECKER,
    zombie_commit::CHECKER,
    double_ownership::CHECKER,
    stuck::CHECKER,
];

/// Holds a history against the promise of its run.
pub fn judge(history: &History, promise: &Promise) -> Verdict {
    let index = Index::build(history, promise);
    let mut verdict = Verdict { counts: index.counts(), ..Verdict::default() };
    for checker in CHECKERS {
        if !(checker.covers)(promise) {
            verdict.not_judged.push(checker.kind);
            continue;
        }
        verdict.judged.push(checker.kind);
        let mut findings = Findings::new(checker.kind, &index);
        (checker.check)(&index, &mut findings);
        findings.into_verdict(&mut verdict);
    }
    verdict
}

#[cfg(test)]
#[path = "checkers/group_model_tests.rs"]
mod group_model_tests;
#[cfg(test)]
#[path = "checkers/groups_tests.rs"]
mod groups_tests;
#[cfg(test)]
#[path = "checkers/model_tests.rs"]
mod model_tests;
#[cfg(test)]
#[path = "checkers/stale_key_tests.rs"]
mod stale_key_tests;
#[cfg(test)]
#[path = "checkers/checkers_tests.rs"]
mod tests;
