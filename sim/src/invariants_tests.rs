//! Each invariant sees what breaks it, and only that.

use uuid::Uuid;
use weir_protocol::types::TopicId;

use super::*;

const FIRST: Process = (1, 1);
const RESTARTED: Process = (1, 2);
const OTHER: Process = (2, 1);

fn log() -> LogId {
    LogId::new(TopicId(Uuid::from_u128(7)), 0)
}

fn watermark(high_watermark: Offset, durable_end: Offset) -> Fact {
    Fact::HighWatermark { log: log(), epoch: 1, high_watermark, durable_end }
}

fn opened(end: Offset) -> Fact {
    Fact::Opened { log: log(), start: 0, end }
}

fn leads(epoch: LeaderEpoch) -> Fact {
    Fact::Leads { log: log(), epoch }
}

fn committed(index: Index, term: Term, payload: &'static str) -> Fact {
    Fact::Committed { index, term, payload: Bytes::from_static(payload.as_bytes()) }
}

fn registered(epoch: i64) -> Fact {
    Fact::Registered { broker: BrokerId(1), epoch }
}

/// The names of what these facts break.
fn broken(forgetful: bool, facts: &[(Process, Fact)]) -> Vec<String> {
    let forgetful = if forgetful { BTreeSet::from([1]) } else { BTreeSet::new() };
    let mut invariants = Invariants::new(Premises { is_lone: true, forgetful });
    for (process, fact) in facts {
        invariants.check(*process, 0.0, fact);
    }
    invariants.findings().into_iter().map(|finding| finding.name).collect()
}

#[test]
fn an_ordinary_life_breaks_nothing() {
    let facts = [
        (FIRST, Fact::LeadsQuorum { term: 1 }),
        (FIRST, committed(0, 1, "a")),
        (FIRST, registered(4)),
        (FIRST, opened(0)),
        (FIRST, leads(1)),
        (FIRST, watermark(3, 3)),
        (FIRST, watermark(5, 9)),
        (RESTARTED, Fact::LeadsQuorum { term: 2 }),
        (RESTARTED, committed(0, 1, "a")),
        (RESTARTED, registered(9)),
        (RESTARTED, opened(5)),
        (RESTARTED, leads(2)),
        (RESTARTED, watermark(5, 5)),
    ];
    assert_eq!(broken(false, &facts), Vec::<String>::new());
}

#[test]
fn records_that_are_not_durable_must_not_be_shown() {
    assert_eq!(broken(false, &[(FIRST, watermark(4, 3))]), ["ghost-watermark"]);
    assert_eq!(broken(true, &[(FIRST, watermark(4, 3))]), ["ghost-watermark"], "damage is no excuse");
}

#[test]
fn a_leader_takes_back_nothing_that_it_has_shown() {
    assert_eq!(broken(false, &[(FIRST, watermark(4, 4)), (FIRST, watermark(3, 4))]), ["watermark-went-back"]);
}

#[test]
fn what_was_shown_is_there_after_a_restart() {
    let facts = [(FIRST, watermark(4, 4)), (RESTARTED, opened(3))];
    assert_eq!(broken(false, &facts), ["lost-watermark"]);
    assert_eq!(broken(true, &facts), Vec::<String>::new());
}

#[test]
fn an_epoch_has_one_leader() {
    assert_eq!(broken(false, &[(FIRST, leads(1)), (OTHER, leads(1))]), ["two-leaders"]);
    assert_eq!(broken(false, &[(FIRST, leads(1)), (RESTARTED, leads(1))]), ["two-leaders"]);
    assert_eq!(broken(false, &[(FIRST, leads(2)), (RESTARTED, leads(1))]), ["epoch-went-back"]);
}

#[test]
fn a_term_has_one_leader() {
    let term = |term| Fact::LeadsQuorum { term };
    assert_eq!(broken(true, &[(FIRST, term(1)), (OTHER, term(1))]), ["two-quorum-leaders"]);
}

#[test]
fn what_is_committed_never_changes() {
    assert_eq!(
        broken(false, &[(FIRST, committed(0, 1, "a")), (OTHER, committed(0, 1, "b"))]),
        ["two-entries"]
    );
    assert_eq!(
        broken(false, &[(FIRST, committed(0, 1, "a")), (OTHER, committed(0, 2, "a"))]),
        ["two-entries"]
    );
}

#[test]
fn a_new_process_gets_a_greater_broker_epoch() {
    assert_eq!(
        broken(false, &[(FIRST, registered(4)), (RESTARTED, registered(4))]),
        ["broker-epoch-went-back"]
    );
}
