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
