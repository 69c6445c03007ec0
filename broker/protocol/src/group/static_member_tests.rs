//! Members with names for good (KIP-345), as transcripts: `who what: answer`, and what is appended to the log.
//! `UPDATE_EXPECT=1 cargo test -p weir-protocol group` writes them anew.

use expect_test::expect;

use super::harness::*;
use super::*;

#[test]
fn k15_a_static_member_that_restarts_gets_its_assignment_back_and_nobody_joins_anew() {
    let mut bench = Bench::new();
    let (mut a, mut b) = (Client::fixed("a", "one"), Client::fixed("b", "two"));
    let joined = bench.join(&a);
    bench.take_over(&mut a, joined);
    let second = bench.join(&b);
    let first = bench.join(&a);
    bench.take_over(&mut a, first);
    bench.take_over(&mut b, second);
    bench.sync(&b, &[]);
    bench.sync(&a, &[(&a, "0-2"), (&b, "3-5")]);
    bench.text();
    bench.note("b restarts, then the leader");
    let mut again = Client::fixed("b", "two");
    let second = bench.join(&again);
    bench.take_over(&mut again, second);
    bench.sync(&again, &[]);
    let mut leader = Client::fixed("a", "one");
    let first = bench.join(&leader);
    bench.take_over(&mut leader, first);
    bench.sync(&leader, &[]);
    bench.note("their former selves are fenced");
    bench.heartbeat(&b);
    bench.commit(&a, 7);
    bench.note("z32: also after the coordinator has moved");
    bench.restart();
    bench.heartbeat(&again);
    bench.heartbeat(&b);
    expect![[r#"
        # b restarts, then the leader
        append: group g generation 2, one-1 has [0-2], two-4 has [3-5]
        b join: generation 2 as two-4, one-1 leads
        b sync: [3-5]
        append: group g generation 2, one-5 has [0-2], two-4 has [3-5]
        a join: generation 2 as one-5, one-5 leads, one-5 (one), two-4 (two), nothing to assign
        a sync: [0-2]
        # their former selves are fenced
        b heartbeat: FencedInstanceId
        a commit: FencedInstanceId
        # z32: also after the coordinator has moved
        b heartbeat: ok
        b heartbeat: FencedInstanceId
    "#]]
    .assert_eq(&bench.text());
}

#[test]
fn k15_a_static_member_that_comes_back_during_a_rebalance_is_not_fenced_after_a_restart() {
    let mut bench = Bench::new();
    let mut a = Client::fixed("a", "one");
    let joined = bench.join(&a);
    bench.take_over(&mut a, joined);
    bench.commits = false;
    let mut again = Client::fixed("again", "one");
    let joined = bench.join(&again);
    bench.note("it is told its id when the log has it");
    bench.commit_all();
    bench.take_over(&mut again, joined);
    bench.note("the broker restarts before anything is assigned");
    bench.restart();
    assert_eq!(bench.state(), "PreparingRebalance");
    bench.heartbeat(&again);
    bench.heartbeat(&a);
    bench.join(&again);
    expect![[r#"
        append: group g generation 1, one-1 has []
        a join: generation 1 as one-1, one-1 leads, one-1 (one)
        append: group g generation 2, one-2 has []
        # it is told its id when the log has it
        again join: generation 2 as one-2, one-2 leads, one-2 (one)
        # the broker restarts before anything is assigned
        again heartbeat: RebalanceInProgress
        a heartbeat: FencedInstanceId
        append: group g generation 3, one-2 has []
    "#]]
    .assert_eq(&bench.text());
}

#[test]
fn k15_a_static_member_that_was_thought_dead_is_not_fenced_after_a_restart() {
    let mut bench = Bench::new();
    let mut a = Client::fixed("a", "one");
    let joined = bench.join(&a);
    bench.take_over(&mut a, joined);
    bench.sync(&a, &[(&a, "0-5")]);
    bench.note("its session ends, and it begins anew");
    bench.commits = false;
    bench.pass(seconds(11));
    let mut again = Client::fixed("again", "one");
    let joined = bench.join(&again);
    bench.commit_all();
    bench.take_over(&mut again, joined);
    bench.restart();
    bench.join(&again);
    expect![[r#"
        append: group g generation 1, one-1 has []
        a join: generation 1 as one-1, one-1 leads, one-1 (one)
        append: group g generation 1, one-1 has [0-5]
        a sync: [0-5]
        # its session ends, and it begins anew
        append: group g generation 2
        append: group g generation 3, one-2 has []
        again join: generation 3 as one-2, one-2 leads, one-2 (one)
        append: group g generation 4, one-2 has []
    "#]]
    .assert_eq(&bench.text());
}

#[test]
fn k17_a_static_member_whose_new_id_is_not_kept_asks_again() {
    let mut bench = Bench::new();
    let mut a = Client::fixed("a", "one");
    let joined = bench.join(&a);
    bench.take_over(&mut a, joined);
    bench.commits = false;
    let again = Client::fixed("again", "one");
    bench.join(&again);
    bench.note("the disk is full");
    bench.fail_all();
    bench.join(&again);
    bench.commit_all();
    expect![[r#"
        append: group g generation 1, one-1 has []
        a join: generation 1 as one-1, one-1 leads, one-1 (one)
        append: group g generation 2, one-2 has []
        # the disk is full
        again join: CoordinatorNotAvailable 
        append: group g generation 2, one-3 has []
        again join: generation 2 as one-3, one-3 leads, one-3 (one)
    "#]]
    .assert_eq(&bench.text());
}

#[test]
fn z33_two_members_with_one_instance_id_while_a_rebalance_is_prepared() {
    let (mut bench, a, _) = Bench::pair();
    let x = Client::fixed("x", "one");
    bench.join(&x);
    bench.join(&Client::fixed("twin", "one"));
    bench.join(&a);
    bench.note("b does not come");
    bench.pass(seconds(61));
    expect![[r#"
        x join: FencedInstanceId one-4
        # b does not come
        append: group g generation 3, a-1 has [], one-5 has []
        a join: generation 3 as a-1, a-1 leads, a-1, one-5 (one)
        twin join: generation 3 as one-5, a-1 leads
        append: group g generation 4
    "#]]
    .assert_eq(&bench.text());
}

#[test]
fn static_members_that_give_a_rebalance_no_time_and_are_all_absent_are_waited_for() {
    let mut bench = Bench::new();
    let (mut a, b) = (Client::fixed("a", "one"), Client::fixed("b", "two"));
    let first = bench.join(&a);
    bench.take_over(&mut a, first);
    bench.sync(&a, &[(&a, "0-5")]);
    let no_time = |join: &mut JoinRequest| join.rebalance_timeout = Duration::ZERO;
    bench.join_with(&Client::fixed("a", "one"), no_time);
    bench.join_with(&b, no_time);
    bench.note("b has no time to sync, a is absent: until its session is over");
    bench.pass(seconds(10));
    expect![[r#"
        append: group g generation 1, one-1 has []
        a join: generation 1 as one-1, one-1 leads, one-1 (one)
        append: group g generation 1, one-1 has [0-5]
        a sync: [0-5]
        append: group g generation 1, one-2 has [0-5]
        a join: generation 1 as one-2, one-2 leads, one-2 (one), nothing to assign
        # b has no time to sync, a is absent: until its session is over
        append: group g generation 2, one-2 has [], two-3 has []
        b join: generation 2 as two-3, two-3 leads, one-2 (one), two-3 (two)
        append: group g generation 3
    "#]]
    .assert_eq(&bench.text());
}
