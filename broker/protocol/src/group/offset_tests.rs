//! Offsets that are committed, shown, deleted and forgotten, as transcripts: `who what: answer`, and what is appended to the
//! log.
//! `UPDATE_EXPECT=1 cargo test -p weir-protocol group` writes them anew.

use expect_test::expect;

use super::harness::*;
use super::*;

#[test]
fn z38_offsets_are_committed_by_members_of_this_generation_and_by_nobody_else() {
    let (mut bench, a, b) = Bench::pair();
    bench.commit(&a, 5);
    bench.commit(&Client { generation: 1, ..a.clone() }, 3);
    bench.commit(&Client { id: name("stranger"), ..a.clone() }, 3);
    bench.commit(&Client::new("outsider"), 3);
    bench.leave(&b);
    bench.note("the group rebalances: what was read before may still be committed");
    bench.commit(&a, 6);
    bench.join(&a);
    bench.commit(&Client { generation: 3, ..a.clone() }, 7);
    let committed = bench.coordinator.offset("g", "t", 0).expect("an offset");
    assert_eq!((committed.offset, committed.leader_epoch, &*committed.metadata), (6, 4, "m"), "K19");
    expect![[r#"
        append: offset t-0 is 5
        a commit: ok
        a commit: IllegalGeneration
        a commit: UnknownMemberId
        outsider commit: UnknownMemberId
        b leave: ok
        # the group rebalances: what was read before may still be committed
        append: offset t-0 is 6
        a commit: ok
        append: group g generation 3, a-1 has []
        a join: generation 3 as a-1, a-1 leads, a-1
        a commit: RebalanceInProgress
    "#]]
    .assert_eq(&bench.text());
}

#[test]
fn k17_nothing_is_answered_or_shown_before_it_is_committed() {
    let (mut bench, a, b) = Bench::pair();
    bench.commits = false;
    bench.commit(&a, 5);
    bench.note("not committed");
    assert_eq!(bench.coordinator.offset("g", "t", 0), None);
    bench.commit_all();
    assert_eq!(bench.coordinator.offset("g", "t", 0).map(|committed| committed.offset), Some(5));
    bench.commit(&a, 6);
    bench.commit(&b, 7);
    bench.note("the disk is full");
    bench.fail_all();
    assert_eq!(bench.coordinator.offset("g", "t", 0).map(|committed| committed.offset), Some(5));
    expect![[r#"
        append: offset t-0 is 5
        # not committed
        a commit: ok
        append: offset t-0 is 6
        append: offset t-0 is 7
        # the disk is full
        b commit: CoordinatorNotAvailable
        a commit: CoordinatorNotAvailable
    "#]]
    .assert_eq(&bench.text());
}

#[test]
fn a_group_is_deleted_with_its_offsets_when_nobody_is_in_it() {
    let (mut bench, a, b) = Bench::pair();
    bench.commit(&a, 5);
    bench.call("delete", Request::Delete);
    bench.call("delete offset", Request::DeleteOffsets(vec![(name("t"), 0), (name("u"), 0)]));
    bench.leave(&a);
    bench.leave(&b);
    bench.commits = false;
    bench.call("delete", Request::Delete);
    bench.note("until that is committed the group takes nothing in");
    bench.join(&Client::new("c"));
    bench.commit_all();
    assert_eq!((bench.state(), bench.coordinator.len()), ("Dead", 0));
    bench.call("delete", Request::Delete);
    expect![[r#"
        append: offset t-0 is 5
        a commit: ok
        delete: NonEmptyGroup
        delete offset: GroupSubscribedToTopic ok
        a leave: ok
        b leave: ok
        append: group g generation 3
        append: offset t-0 is gone
        append: group g is gone
        # until that is committed the group takes nothing in
        c join: CoordinatorNotAvailable 
        delete: ok
        delete: GroupIdNotFound
    "#]]
    .assert_eq(&bench.text());
}

#[test]
fn z35_offsets_expire_when_nobody_needs_them_and_not_while_a_group_rebalances() {
    let limits = Limits {
        initial_rebalance_delay: Duration::ZERO,
        offsets_retention: seconds(100),
        retention_check: seconds(10),
        session_timeout_max: seconds(1000),
        ..Limits::default()
    };
    let mut bench = Bench::with(limits);
    bench.coordinator.loaded(bench.now);
    let mut a = Client::new("a");
    let joined = bench.join_with(&a, |join| {
        join.session_timeout = seconds(1000);
        join.rebalance_timeout = seconds(1000);
    });
    bench.take_over(&mut a, joined);
    bench.sync(&a, &[(&a, "0-5")]);
    bench.commit(&a, 5);
    bench.join(&Client::new("b"));
    bench.note("a rebalance that takes longer than offsets are kept");
    bench.pass(seconds(150));
    assert!(bench.coordinator.offset("g", "t", 0).is_some());
    bench.leave(&a);
    bench.pass(seconds(99));
    assert!(bench.coordinator.offset("g", "t", 0).is_some(), "the group is empty for less than that");
    bench.pass(seconds(100));
    assert_eq!(bench.coordinator.len(), 0, "nothing is left");
    expect![[r#"
        append: group g generation 1, a-1 has []
        a join: generation 1 as a-1, a-1 leads, a-1
        append: group g generation 1, a-1 has [0-5]
        a sync: [0-5]
        append: offset t-0 is 5
        a commit: ok
        # a rebalance that takes longer than offsets are kept
        a leave: ok
        append: group g generation 2, b-2 has []
        b join: generation 2 as b-2, b-2 leads, b-2
        append: group g generation 3
        append: offset t-0 is gone
        append: group g is gone
    "#]]
    .assert_eq(&bench.text());
}
