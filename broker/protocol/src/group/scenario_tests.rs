//! Scenarios of groups, as transcripts: `who what: answer`, and what is appended to the log.
//! `UPDATE_EXPECT=1 cargo test -p weir-protocol group` writes them anew.

use expect_test::expect;

use super::harness::*;
use super::*;

#[test]
fn members_form_a_generation_and_get_what_the_leader_has_decided() {
    let mut bench = Bench::new();
    let (mut a, mut b) = (Client::new("a"), Client::new("b"));
    let joined = bench.join(&a);
    bench.take_over(&mut a, joined);
    bench.sync(&a, &[(&a, "0-5")]);
    bench.note("another one comes");
    let second = bench.join(&b);
    bench.heartbeat(&a);
    let first = bench.join(&a);
    bench.take_over(&mut a, first);
    bench.take_over(&mut b, second);
    bench.sync(&b, &[]);
    bench.sync(&a, &[(&a, "0-2"), (&b, "3-5")]);
    bench.heartbeat(&b);
    bench.note("and goes");
    bench.leave(&b);
    let first = bench.join(&a);
    bench.take_over(&mut a, first);
    bench.sync(&a, &[(&a, "0-5")]);
    bench.leave(&a);
    expect![[r#"
        append: group g generation 1, a-1 has []
        a join: generation 1 as a-1, a-1 leads, a-1
        append: group g generation 1, a-1 has [0-5]
        a sync: [0-5]
        # another one comes
        a heartbeat: RebalanceInProgress
        append: group g generation 2, a-1 has [], b-2 has []
        a join: generation 2 as a-1, a-1 leads, a-1, b-2
        b join: generation 2 as b-2, a-1 leads
        append: group g generation 2, a-1 has [0-2], b-2 has [3-5]
        a sync: [0-2]
        b sync: [3-5]
        b heartbeat: ok
        # and goes
        b leave: ok
        append: group g generation 3, a-1 has []
        a join: generation 3 as a-1, a-1 leads, a-1
        append: group g generation 3, a-1 has [0-5]
        a sync: [0-5]
        a leave: ok
        append: group g generation 4
    "#]]
    .assert_eq(&bench.text());
}

#[test]
fn an_empty_group_waits_a_little_for_more_members() {
    let mut bench = Bench::with(Limits { initial_rebalance_delay: seconds(3), ..Limits::default() });
    bench.join(&Client::new("a"));
    bench.pass(seconds(2));
    bench.join(&Client::new("b"));
    bench.pass(seconds(2));
    bench.note("there was a newcomer: three seconds more");
    bench.pass(seconds(2));
    expect![[r#"
        # there was a newcomer: three seconds more
        append: group g generation 1, a-1 has [], b-2 has []
        a join: generation 1 as a-1, a-1 leads, a-1, b-2
        b join: generation 1 as b-2, a-1 leads
    "#]]
    .assert_eq(&bench.text());
}

#[test]
fn k14_a_member_joins_in_two_steps() {
    let mut bench = Bench::new();
    let mut a = Client::new("a");
    let refused = bench.join_in_two_steps(&a);
    bench.take_over(&mut a, refused);
    bench.join_in_two_steps(&a);
    expect![[r#"
        a join: MemberIdRequired a-1
        append: group g generation 1, a-1 has []
        a join: generation 1 as a-1, a-1 leads, a-1
    "#]]
    .assert_eq(&bench.text());
}

#[test]
fn k14_a_member_that_never_comes_back_does_not_hold_up_the_group_for_its_whole_timeout() {
    let (mut bench, mut a, b) = Bench::pair();
    bench.join_in_two_steps(&Client::new("lost"));
    let mut c = Client::new("c");
    let third = bench.join(&c);
    bench.join(&b);
    let first = bench.join(&a);
    bench.note("all are there but the one who was given an id");
    bench.pass(seconds(4));
    bench.take_over(&mut a, first);
    bench.take_over(&mut c, third);
    bench.note("who came is in the generation; the id is good until its session is over");
    bench.pass(seconds(10));
    expect![[r#"
        lost join: MemberIdRequired lost-4
        # all are there but the one who was given an id
        append: group g generation 3, a-1 has [], b-2 has [], c-5 has []
        a join: generation 3 as a-1, a-1 leads, a-1, b-2, c-5
        b join: generation 3 as b-2, a-1 leads
        c join: generation 3 as c-5, a-1 leads
        # who came is in the generation; the id is good until its session is over
        append: group g generation 4
    "#]]
    .assert_eq(&bench.text());
}

#[test]
fn a_member_that_is_silent_is_removed_and_one_that_does_not_join_again_too() {
    let (mut bench, a, b) = Bench::pair();
    bench.pass(seconds(9));
    bench.heartbeat(&a);
    bench.pass(seconds(2));
    bench.note("b was silent for too long");
    bench.heartbeat(&b);
    bench.heartbeat(&a);
    bench.join(&b);
    bench.note("a goes on sending heartbeats and does not join");
    for _ in 0..10 {
        bench.pass(seconds(6));
        bench.heartbeat(&a);
    }
    bench.pass(seconds(1));
    expect![[r#"
        a heartbeat: ok
        # b was silent for too long
        b heartbeat: UnknownMemberId
        a heartbeat: RebalanceInProgress
        b join: UnknownMemberId b-2
        # a goes on sending heartbeats and does not join
        a heartbeat: RebalanceInProgress
        a heartbeat: RebalanceInProgress
        a heartbeat: RebalanceInProgress
        a heartbeat: RebalanceInProgress
        a heartbeat: RebalanceInProgress
        a heartbeat: RebalanceInProgress
        a heartbeat: RebalanceInProgress
        a heartbeat: RebalanceInProgress
        a heartbeat: RebalanceInProgress
        append: group g generation 3
        a heartbeat: UnknownMemberId
    "#]]
    .assert_eq(&bench.text());
}

#[test]
fn z34_a_new_member_that_vanishes_before_it_syncs_is_removed() {
    let (mut bench, a, b) = Bench::pair();
    bench.join(&Client::new("new"));
    bench.join(&a);
    bench.join(&b);
    bench.note("the newcomer is never heard of again");
    for _ in 0..3 {
        bench.pass(seconds(5));
        bench.heartbeat(&Client { generation: 3, ..a.clone() });
        bench.heartbeat(&Client { generation: 3, ..b.clone() });
    }
    expect![[r#"
        append: group g generation 3, a-1 has [], b-2 has [], new-4 has []
        a join: generation 3 as a-1, a-1 leads, a-1, b-2, new-4
        b join: generation 3 as b-2, a-1 leads
        new join: generation 3 as new-4, a-1 leads
        # the newcomer is never heard of again
        a heartbeat: ok
        b heartbeat: ok
        a heartbeat: RebalanceInProgress
        b heartbeat: RebalanceInProgress
        a heartbeat: RebalanceInProgress
        b heartbeat: RebalanceInProgress
    "#]]
    .assert_eq(&bench.text());
}

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
fn a_generation_that_was_told_is_never_given_to_others() {
    let (mut bench, a, b) = Bench::pair();
    let again = bench.join(&a);
    bench.join(&b);
    let mut told = a.clone();
    bench.take_over(&mut told, again);
    bench.note("the broker restarts before anything is assigned");
    bench.restart();
    bench.commit(&a, 3);
    bench.join(&told);
    bench.join(&b);
    bench.commit(&told, 4);
    expect![[r#"
        append: group g generation 3, a-1 has [], b-2 has []
        a join: generation 3 as a-1, a-1 leads, a-1, b-2
        b join: generation 3 as b-2, a-1 leads
        # the broker restarts before anything is assigned
        a commit: IllegalGeneration
        append: group g generation 4, a-1 has [], b-2 has []
        a join: generation 4 as a-1, a-1 leads, a-1, b-2
        b join: generation 4 as b-2, a-1 leads
        a commit: IllegalGeneration
    "#]]
    .assert_eq(&bench.text());
}

#[test]
fn k17_an_assignment_that_is_not_kept_is_made_again() {
    let mut bench = Bench::new();
    let mut a = Client::new("a");
    let joined = bench.join(&a);
    bench.commits = false;
    bench.take_over(&mut a, joined);
    bench.sync(&a, &[(&a, "0-5")]);
    bench.note("the disk is full");
    bench.fail_all();
    let joined = bench.join(&a);
    bench.commit_all();
    bench.take_over(&mut a, joined);
    bench.sync(&a, &[(&a, "0-5")]);
    bench.commit_all();
    expect![[r#"
        append: group g generation 1, a-1 has []
        a join: generation 1 as a-1, a-1 leads, a-1
        append: group g generation 1, a-1 has [0-5]
        # the disk is full
        a sync: CoordinatorNotAvailable
        append: group g generation 2, a-1 has []
        a join: generation 2 as a-1, a-1 leads, a-1
        append: group g generation 2, a-1 has [0-5]
        a sync: [0-5]
    "#]]
    .assert_eq(&bench.text());
}

#[test]
fn a_coordinator_that_restarts_in_the_middle_of_a_rebalance_goes_on_from_the_last_generation() {
    let (mut bench, a, b) = Bench::pair();
    bench.commit(&a, 5);
    let c = Client::new("c");
    bench.join(&c);
    bench.join(&a);
    bench.note("the broker restarts");
    bench.restart();
    bench.heartbeat(&b);
    bench.commit(&b, 9);
    bench.join(&c);
    bench.join(&a);
    bench.join(&b);
    expect![[r#"
        append: offset t-0 is 5
        a commit: ok
        # the broker restarts
        a join: NotCoordinator a-1
        c join: NotCoordinator c-4
        b heartbeat: ok
        append: offset t-0 is 9
        b commit: ok
        append: group g generation 3, a-1 has [], b-2 has [], c-6 has []
        a join: generation 3 as a-1, a-1 leads, a-1, b-2, c-6
        b join: generation 3 as b-2, a-1 leads
        c join: generation 3 as c-6, a-1 leads
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

#[test]
fn requests_that_cannot_be_are_refused() {
    let (mut bench, a, _) = Bench::pair();
    bench.join_with(&Client::new("quick"), |join| join.session_timeout = seconds(1));
    bench.join_with(&Client::new("other"), |join| join.protocol_type = name("connect"));
    bench.join_with(&Client::new("other"), |join| join.protocols[0].0 = name("sticky"));
    bench.join_with(&Client::new("other"), |join| join.protocols.clear());
    bench.join(&Client { id: name("stranger"), ..Client::new("stranger") });
    bench.sync(&Client { generation: 9, ..a.clone() }, &[]);
    let long = "m".repeat(4097);
    let part = |metadata: &str| CommitPart {
        topic: name("t"),
        partition: 0,
        offset: 1,
        leader_epoch: -1,
        metadata: name(metadata),
    };
    let parts = vec![part(&long), part("short")];
    bench.call("long metadata", Request::Commit { member: a.member(), parts });
    expect![[r#"
        quick join: InvalidSessionTimeout 
        other join: InconsistentGroupProtocol 
        other join: InconsistentGroupProtocol 
        other join: InconsistentGroupProtocol 
        stranger join: UnknownMemberId stranger
        a sync: IllegalGeneration
        append: offset t-0 is 1
        long metadata: OffsetMetadataTooLarge ok
    "#]]
    .assert_eq(&bench.text());
}

#[test]
fn a_thousand_members_form_one_generation() {
    let mut bench = Bench::with(Limits { initial_rebalance_delay: seconds(3), ..Limits::default() });
    let mut members: Vec<(Client, CallId)> = Vec::new();
    for number in 0..1000 {
        let client = Client::new(&format!("c{number}"));
        let call = bench.join(&client);
        members.push((client, call));
    }
    bench.pass(seconds(7));
    let mut clients = Vec::new();
    for (mut client, call) in members {
        bench.take_over(&mut client, call);
        clients.push(client);
    }
    assert!(clients.iter().all(|client| client.generation == 1));
    let Some(Reply::Join(Ok(joined))) = bench.replies.get(&CallId(0)) else { panic!("not joined") };
    let leader = clients.iter().find(|client| client.id == joined.leader).expect("a leader").clone();
    clients.iter().filter(|client| client.id != leader.id).for_each(|client| {
        bench.sync(client, &[]);
    });
    bench.sync(&leader, &[]);
    assert_eq!(bench.state(), "Stable");
}
