//! What a compacted log may show of its keys in the end, and what it may not.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::tests::{Script, log, recs};
use super::*;
use crate::history::{Acks, Done, Failure, Keyed, Op, Step};
use crate::workload::Idempotence;

fn at(offset: i64) -> Step {
    Step::Ok(Done::Sent { offset: Some(offset) })
}

fn unknown() -> Step {
    Step::Unknown(Failure::Error("timed out".into()))
}

impl Script {
    fn set(self, key: &str, value: u64, step: Step) -> Self {
        self.write(key, value, false, step)
    }

    fn delete(self, key: &str, value: u64, step: Step) -> Self {
        self.write(key, value, true, step)
    }

    fn write(self, key: &str, value: u64, tombstone: bool, step: Step) -> Self {
        let keyed = Some(Keyed { key: key.into(), tombstone });
        self.run(1, Op::Send { log: log(), value, acks: Acks::All, keyed }, step)
    }
}

/// One compacted topic, and producers that are idempotent.
fn compacted() -> Promise {
    let topics: BTreeSet<Arc<str>> = BTreeSet::from(["t".into()]);
    Promise { compacted: topics, idempotent: Idempotence::All, ..Promise::default() }
}

fn kinds(script: &Script) -> Vec<AnomalyKind> {
    let verdict = script.judge(&compacted());
    assert!(verdict.anomalies.iter().all(|anomaly| !anomaly.proof.is_empty()), "{verdict}");
    verdict.kinds()
}

/// Key a is set twice, key b set and deleted.
fn written() -> Script {
    Script::default().set("a", 10, at(0)).set("b", 11, at(1)).set("a", 12, at(2)).delete("b", 13, at(3))
}

#[test]
fn what_compaction_leaves_is_clean() {
    let all: &[(i64, u64)] = &[(0, 10), (1, 11), (2, 12), (3, 13)];
    for left in [all, &all[1..], &all[2..], &all[2..3], &[(0, 10), (2, 12), (3, 13)]] {
        assert_eq!(kinds(&written().final_read(4, left)), [], "{left:?}");
    }
}

#[test]
fn an_older_record_of_a_key_is_stale() {
    assert_eq!(kinds(&written().final_read(4, &[(0, 10), (3, 13)])), [AnomalyKind::StaleKey]);
}

#[test]
fn a_key_that_was_set_last_is_not_gone() {
    assert_eq!(kinds(&written().final_read(4, &[(3, 13)])), [AnomalyKind::StaleKey]);
}

#[test]
fn a_deleted_key_does_not_come_back() {
    assert_eq!(kinds(&written().final_read(4, &[(1, 11), (2, 12)])), [AnomalyKind::StaleKey]);
}

#[test]
fn a_deleted_key_does_not_come_back_in_a_later_read_either() {
    let read = written().final_read(4, &[(2, 12)]);
    assert_eq!(kinds(&read.final_read(4, &[(1, 11), (2, 12)])), [AnomalyKind::StaleKey]);
}

#[test]
fn each_final_read_counts_and_not_only_the_last() {
    let read = written().final_read(4, &[(3, 13)]);
    assert_eq!(kinds(&read.final_read(4, &[(2, 12), (3, 13)])), [AnomalyKind::StaleKey]);
}

#[test]
fn what_a_consumer_was_shown_counts_though_nobody_acknowledged_it() {
    let shown = written().set("b", 14, unknown()).poll(2, 4, &[(4, 14)]);
    assert_eq!(kinds(&shown.final_read(5, &[(2, 12), (3, 13)])), [AnomalyKind::StaleKey]);
}

#[test]
fn a_send_that_may_have_happened_may_be_the_last() {
    let set = || written().set("b", 14, unknown());
    assert_eq!(kinds(&set().final_read(5, &[(2, 12), (4, 14)])), []);
    assert_eq!(kinds(&set().final_read(5, &[(2, 12)])), [], "it did not happen");
    let deleted = || written().delete("a", 14, unknown());
    assert_eq!(kinds(&deleted().final_read(5, &[(3, 13)])), [], "it happened, and was dropped");
    assert_eq!(kinds(&deleted().final_read(5, &[(0, 10)])), [AnomalyKind::StaleKey], "older all the same");
}

#[test]
fn one_replica_may_have_dropped_a_deletion_that_another_one_still_shows() {
    let deleted = written().delete("a", 14, unknown()).final_read(5, &[(3, 13)]);
    assert_eq!(kinds(&deleted.final_read(5, &[(2, 12), (4, 14)])), []);
}

#[test]
fn a_send_that_ended_before_the_last_one_began_does_not_come_behind_it() {
    let late = || written().delete("a", 14, unknown()).set("a", 15, at(4));
    assert_eq!(kinds(&late().final_read(5, &[(3, 13)])), [AnomalyKind::StaleKey]);
    let repeats = Promise { idempotent: Idempotence::None, ..compacted() };
    let verdict = late().final_read(5, &[(3, 13)]).judge(&repeats);
    assert!(verdict.is_clean(), "a repetition may arrive late: {verdict}");
}

#[test]
fn a_send_that_certainly_failed_explains_nothing() {
    let failed = written().delete("a", 14, Step::Fail(Failure::Error("refused".into())));
    assert_eq!(kinds(&failed.final_read(4, &[(3, 13)])), [AnomalyKind::StaleKey]);
}

#[test]
fn damage_that_is_reported_is_not_stale() {
    let read = written().final_read_with(0, 4, &[(3, 13)], &[(2, 3)]);
    assert_eq!(kinds(&read), [AnomalyKind::UnexcusedDamage]);
}

#[test]
fn keys_that_nobody_reads_in_the_end_are_told() {
    assert_eq!(kinds(&written()), [AnomalyKind::Unseen]);
}

#[test]
fn values_of_a_compacted_log_must_have_been_written_and_stay_where_they_are() {
    assert_eq!(kinds(&written().final_read(5, &[(2, 12), (4, 99)])), [AnomalyKind::Phantom]);
    let moved = written().final_read(4, &[(1, 12)]);
    assert!(kinds(&moved).contains(&AnomalyKind::Duplicate));
}

#[test]
fn other_topics_keep_every_record() {
    let written = written();
    let verdict = written.final_read(4, &[(2, 12), (3, 13)]).judge(&Promise::default());
    assert_eq!(verdict.kinds(), [AnomalyKind::LostWrite]);
    assert!(verdict.not_judged.contains(&AnomalyKind::StaleKey));
}

#[test]
fn a_consumer_passes_over_what_was_compacted() {
    let late = written().assign(2).poll(2, 0, &[(0, 10)]).poll(2, 1, &[(3, 13)]);
    let done = Done::Polled { records: recs(&[(1, 11), (2, 12)]) };
    let early = late.run(3, Op::Poll { log: log(), from: Some(1) }, Step::Ok(done));
    assert_eq!(kinds(&early.final_read(4, &[(2, 12), (3, 13)])), []);
}
