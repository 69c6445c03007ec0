//! Groups: for each of their checkers a history that breaks the law, and histories that only look as if they did.

use super::tests::*;
use super::*;
use crate::history::{Acks, Done, Failure, Log, Member, Op, OpId, ProcessId, SeekTo, Step};
use crate::workload::{Damage, Liveness};

const G: &str = "g";

fn member(id: &str, generation: i32) -> Member {
    Member { id: id.into(), generation }
}

fn other_log() -> Log {
    Log::new("t", 1)
}

fn commit_op(member: Option<Member>, offset: i64) -> Op {
    Op::Commit { group: G.into(), log: log(), offset, member }
}

fn unknown() -> Step {
    Step::Unknown(Failure::Error("timed out".into()))
}

fn refused() -> Step {
    Step::Fail(Failure::Error("ILLEGAL_GENERATION".into()))
}

fn ok() -> Step {
    Step::Ok(Done::Done)
}

fn joined(id: &str, generation: i32, assigned: &[Log], kept: &[Log]) -> Step {
    let (assigned, kept) = (assigned.to_vec(), kept.to_vec());
    Step::Ok(Done::Joined { member: member(id, generation), assigned, kept })
}

impl Script {
    fn subscribe(self, process: u32, instance: Option<&str>) -> Self {
        let (instance, topics) = (instance.map(Into::into), vec!["t".into()]);
        self.run(process, Op::Subscribe { group: G.into(), instance, topics }, ok())
    }

    /// The member is given the one partition, and starts from the group's offset.
    fn join(self, process: u32, id: &str, generation: i32) -> Self {
        self.run(process, Op::Join { group: G.into() }, joined(id, generation, &[log()], &[]))
    }

    fn join_keeping(self, process: u32, id: &str, generation: i32) -> Self {
        self.run(process, Op::Join { group: G.into() }, joined(id, generation, &[log()], &[log()]))
    }

    fn join_without(self, process: u32, id: &str, generation: i32) -> Self {
        self.run(process, Op::Join { group: G.into() }, joined(id, generation, &[], &[]))
    }

    fn commit(self, process: u32, id: &str, generation: i32, offset: i64) -> Self {
        self.commit_ends(process, id, generation, offset, ok())
    }

    fn commit_ends(self, process: u32, id: &str, generation: i32, offset: i64, step: Step) -> Self {
        self.run(process, commit_op(Some(member(id, generation)), offset), step)
    }

    fn fetch(self, offset: impl Into<Option<i64>>) -> Self {
        let op = Op::FetchOffset { group: G.into(), log: log() };
        self.run(50, op, Step::Ok(Done::Offset { offset: offset.into() }))
    }

    fn reset(self, to: i64, step: Step) -> Self {
        self.run(60, Op::ResetOffset { group: G.into(), log: log(), to }, step)
    }

    fn release(self, process: u32, lost: bool) -> Self {
        self.run(process, Op::Release { group: G.into(), logs: vec![log()], lost }, ok())
    }
}

/// Two members, one after the other: 1 as `a` in generation 1, then 2 as `b` in generation 2.
fn handed_over() -> Script {
    let first = Script::default().subscribe(1, None).join(1, "a", 1).commit(1, "a", 1, 10);
    first.subscribe(2, None).join_without(1, "a", 2).join(2, "b", 2).fetch(10).commit(2, "b", 2, 20)
}

const EXPIRING: fn() -> Promise = || Promise { groups_expire: true, ..Promise::default() };

#[test]
fn a_group_that_keeps_the_law_is_clean() {
    let script = handed_over().fetch(20).commit(2, "b", 2, 25).fetch(25);
    assert_eq!(script.kinds(), []);
    assert!(script.judge(&EXPIRING()).is_clean());
}

#[test]
fn offset_regression_when_a_fetch_shows_what_was_replaced() {
    assert_eq!(handed_over().fetch(10).kinds(), [AnomalyKind::OffsetRegression]);
    assert_eq!(handed_over().fetch(None).kinds(), [AnomalyKind::OffsetRegression]);
    let within =
        Script::default().subscribe(1, None).join(1, "a", 1).commit(1, "a", 1, 10).commit(1, "a", 1, 20);
    assert_eq!(within.fetch(10).kinds(), [AnomalyKind::OffsetRegression]);
    let nobodys = Script::default().run(1, commit_op(None, 5), ok()).run(1, commit_op(None, 8), ok());
    assert_eq!(
        nobodys.fetch(5).kinds(),
        [AnomalyKind::OffsetRegression],
        "a consumer without membership, too"
    );
}

#[test]
fn a_fetch_that_overlaps_a_commit_may_see_it_or_not() {
    for told in [10, 20] {
        let mut script = Script::default().subscribe(1, None).join(1, "a", 1).commit(1, "a", 1, 10);
        let commit = script.begin(1, commit_op(Some(member("a", 1)), 20));
        let mut script = script.fetch(told);
        script.end(commit, ok());
        assert_eq!(script.fetch(20).kinds(), []);
    }
}

#[test]
fn what_one_fetch_showed_binds_the_next() {
    let seen = |then| {
        let script = Script::default().subscribe(1, None).join(1, "a", 1).commit(1, "a", 1, 10);
        script.commit_ends(1, "a", 1, 20, unknown()).fetch(20).fetch(then)
    };
    assert_eq!(seen(20).kinds(), []);
    assert_eq!(seen(10).kinds(), [AnomalyKind::OffsetRegression]);
}

#[test]
fn a_commit_of_unknown_outcome_may_take_effect_late_but_not_in_a_later_generation() {
    let late = || {
        let script = Script::default().subscribe(1, None).join(1, "a", 1).commit(1, "a", 1, 10);
        script.commit_ends(1, "a", 1, 12, unknown()).commit(1, "a", 1, 20)
    };
    assert_eq!(late().fetch(12).kinds(), []);
    assert_eq!(late().fetch(20).fetch(12).kinds(), [], "it was still under way");
    assert_eq!(late().fetch(10).kinds(), [AnomalyKind::OffsetRegression], "that one had ended");
    let next = || late().join_without(1, "a", 2).subscribe(2, None).join(2, "b", 2);
    assert_eq!(next().fetch(12).commit(2, "b", 2, 15).fetch(15).kinds(), []);
    assert_eq!(next().commit(2, "b", 2, 20).fetch(12).kinds(), [AnomalyKind::OffsetRegression]);
    let fetched_meanwhile = Promise { groups_expire: true, ..Promise::default() };
    assert_eq!(
        next().commit(2, "b", 2, 20).fetch(12).judge(&fetched_meanwhile).kinds(),
        [],
        "where the group may have been removed, generations prove nothing"
    );
}

#[test]
fn commits_that_overlap_may_come_in_any_order() {
    for told in [10, 20] {
        let mut script = Script::default().subscribe(1, None).join(1, "a", 1);
        let first = script.begin(1, commit_op(Some(member("a", 1)), 10));
        let second = script.begin(1, commit_op(Some(member("a", 1)), 20));
        script.end(second, ok());
        script.end(first, ok());
        let script = script.fetch(told).join_without(1, "a", 2).subscribe(2, None).join(2, "b", 2);
        assert_eq!(script.commit(2, "b", 2, told + 1).kinds(), []);
    }
}

#[test]
fn a_commit_that_is_repeated_may_undo_what_its_member_committed_since() {
    let script =
        Script::default().subscribe(1, None).join(1, "a", 1).commit(1, "a", 1, 10).commit(1, "a", 1, 20);
    let script = script.fetch(10);
    assert!(script.judge(&Promise { commit_retries: true, ..Promise::default() }).is_clean());
    let retries = Promise { commit_retries: true, ..Promise::default() };
    let later = handed_over().fetch(10);
    assert_eq!(later.judge(&retries).kinds(), [AnomalyKind::OffsetRegression], "not in a later generation");
}

#[test]
fn an_order_to_go_back_is_no_regression() {
    let reset = || handed_over().reset(3, ok());
    assert_eq!(reset().fetch(3).commit(2, "b", 2, 21).fetch(21).kinds(), []);
    assert_eq!(reset().fetch(20).kinds(), [AnomalyKind::OffsetRegression], "the order was undone");
    let follows = reset().join_without(2, "b", 3).subscribe(3, None).join(3, "c", 3).commit(3, "c", 3, 4);
    assert_eq!(follows.kinds(), []);
    let perhaps = || handed_over().reset(3, unknown());
    assert_eq!(perhaps().fetch(3).kinds(), []);
    assert_eq!(perhaps().fetch(20).kinds(), []);
    assert_eq!(perhaps().join(3, "c", 3).commit(3, "c", 3, 4).kinds(), []);
    let never = handed_over().reset(3, refused());
    assert_eq!(never.fetch(3).kinds(), [AnomalyKind::PhantomOffset]);
    let deleted = || handed_over().run(60, Op::DeleteOffset { group: G.into(), log: log() }, ok());
    assert_eq!(deleted().fetch(None).kinds(), []);
    assert_eq!(deleted().fetch(20).kinds(), [AnomalyKind::OffsetRegression]);
    assert_eq!(deleted().join(3, "c", 3).commit(3, "c", 3, 1).kinds(), []);
    let group = handed_over().run(60, Op::DeleteGroup { group: G.into() }, ok()).fetch(None);
    assert_eq!(group.join(3, "c", 1).commit(3, "c", 1, 1).fetch(1).kinds(), [], "generations start again");
}

#[test]
fn offset_regression_when_a_member_commits_before_where_it_can_have_started() {
    let script = || handed_over().join_without(2, "b", 3).subscribe(3, None).join(3, "c", 3);
    assert_eq!(script().commit(3, "c", 3, 20).kinds(), []);
    assert_eq!(script().commit(3, "c", 3, 15).kinds(), [AnomalyKind::OffsetRegression]);
    let sought = script().seek(3, SeekTo::Beginning).commit(3, "c", 3, 5).commit(3, "c", 3, 7);
    assert_eq!(sought.kinds(), []);
    // Its successor starts from there.
    let sought = script().seek(3, SeekTo::Beginning).commit_ends(3, "c", 3, 5, unknown());
    let sought = sought.join_without(3, "c", 4).subscribe(4, None).join(4, "d", 4).commit(4, "d", 4, 6);
    assert_eq!(sought.kinds(), []);
}

#[test]
fn the_deletion_of_a_group_takes_its_offsets_in_every_partition() {
    let other = |script: Script, offset| {
        let op = Op::Commit { group: G.into(), log: other_log(), offset, member: Some(member("b", 2)) };
        script.run(2, op, ok())
    };
    let deleted = |step| {
        let script = other(handed_over(), 30).run(60, Op::DeleteGroup { group: G.into() }, step);
        let both = joined("c", 3, &[log(), other_log()], &[]);
        let script = script.subscribe(3, None).run(3, Op::Join { group: G.into() }, both);
        let op = Op::Commit { group: G.into(), log: other_log(), offset: 1, member: Some(member("c", 3)) };
        script.commit(3, "c", 3, 1).run(3, op, ok()).fetch(1)
    };
    assert_eq!(deleted(ok()).kinds(), []);
    assert_eq!(deleted(unknown()).kinds(), []);
    assert_eq!(deleted(refused()).kinds(), [AnomalyKind::OffsetRegression]);
}

#[test]
fn offset_regression_when_a_member_commits_before_its_own_last_commit() {
    let held = || Script::default().subscribe(1, None).join(1, "a", 1).commit(1, "a", 1, 10);
    assert_eq!(held().commit(1, "a", 1, 9).kinds(), [AnomalyKind::OffsetRegression]);
    assert_eq!(held().seek(1, SeekTo::Beginning).commit(1, "a", 1, 9).kinds(), []);
    assert_eq!(held().join_keeping(1, "a", 2).commit(1, "a", 2, 9).kinds(), [AnomalyKind::OffsetRegression]);
    let unclear = held().commit_ends(1, "a", 1, 4, unknown());
    assert_eq!(unclear.kinds(), [], "nobody took it");
}

#[test]
fn an_offset_may_be_gone_only_if_the_group_may_have_been_empty() {
    let gone = || handed_over().fetch(None);
    assert_eq!(gone().kinds(), [AnomalyKind::OffsetRegression]);
    assert!(gone().judge(&EXPIRING()).is_clean());
    let alive = gone().commit(2, "b", 2, 30);
    assert_eq!(
        alive.judge(&EXPIRING()).kinds(),
        [AnomalyKind::OffsetRegression],
        "it had a member all along"
    );
    let elsewhere = Op::Subscribe { group: G.into(), instance: None, topics: vec!["u".into()] };
    let alive = gone().commit(2, "b", 2, 30).run(3, elsewhere, ok());
    assert!(alive.judge(&EXPIRING()).is_clean(), "offsets of topics without subscription expire");
    let mut topic = handed_over().run(60, Op::DeleteTopic { topic: "t".into() }, ok());
    topic = topic.fetch(None);
    assert_eq!(topic.kinds(), [], "the topic was deleted");
}

#[test]
fn phantom_offset_when_nobody_set_it() {
    assert_eq!(handed_over().fetch(21).kinds(), [AnomalyKind::PhantomOffset]);
    let refused = handed_over().commit_ends(1, "a", 1, 15, refused()).fetch(15);
    assert_eq!(refused.kinds(), [AnomalyKind::PhantomOffset]);
}

#[test]
fn zombie_commit_when_a_commit_of_an_old_generation_is_taken() {
    assert_eq!(handed_over().commit(1, "a", 1, 30).kinds(), [AnomalyKind::ZombieCommit]);
    let back = handed_over().commit(1, "a", 1, 15).fetch(15);
    assert_eq!(back.kinds(), [AnomalyKind::OffsetRegression, AnomalyKind::ZombieCommit]);
    assert_eq!(handed_over().commit_ends(1, "a", 1, 15, refused()).fetch(20).kinds(), []);
    assert_eq!(handed_over().commit_ends(1, "a", 1, 15, unknown()).fetch(20).kinds(), []);
    let mut asked_before = Script::default().subscribe(1, None).join(1, "a", 1);
    let commit = asked_before.begin(1, commit_op(Some(member("a", 1)), 10));
    let mut asked_before = asked_before.join(2, "b", 2);
    asked_before.end(commit, ok());
    assert_eq!(asked_before.kinds(), []);
    // A generation that starts again belongs to another life of the group.
    let again = handed_over().join_without(3, "c", 1).commit(3, "c", 1, 20);
    assert!(again.judge(&EXPIRING()).is_clean());
    assert_eq!(again.kinds(), [AnomalyKind::ZombieCommit]);
}

#[test]
fn zombie_commit_when_a_static_members_process_was_replaced() {
    let replaced = |id| {
        let script = Script::default().subscribe(1, Some("x")).join(1, "a", 1).commit(1, "a", 1, 10);
        script.subscribe(2, Some("x")).join(2, id, 1).commit(1, "a", 1, 11)
    };
    assert_eq!(replaced("a2").kinds(), [AnomalyKind::ZombieCommit]);
    let script = Script::default().subscribe(1, Some("x")).join(1, "a", 1).subscribe(2, Some("y"));
    assert_eq!(script.join_without(2, "b", 1).commit(1, "a", 1, 11).kinds(), [], "another name");
    let script = Script::default().subscribe(1, Some("x")).subscribe(2, Some("x")).join(1, "a", 1);
    assert_eq!(script.join(2, "b", 1).commit(1, "a", 1, 11).kinds(), [], "nobody knows who came first");
}

#[test]
fn double_ownership_in_one_generation_only() {
    let base = || Script::default().subscribe(1, None).subscribe(2, None).join(1, "a", 1);
    assert_eq!(base().join(2, "b", 1).kinds(), [AnomalyKind::DoubleOwnership]);
    assert_eq!(base().join(2, "b", 2).kinds(), [], "the first may not know yet");
    let polls_on = base().send(9, 10, 0).join(2, "b", 2).poll(1, 0, &[(0, 10)]).poll(2, 0, &[(0, 10)]);
    assert_eq!(polls_on.final_read(1, &[(0, 10)]).kinds(), []);
    let others = base().run(2, Op::Join { group: G.into() }, joined("b", 1, &[other_log()], &[]));
    assert_eq!(others.kinds(), []);
    let elsewhere = base().run(2, Op::Join { group: "h".into() }, joined("b", 1, &[log()], &[]));
    assert_eq!(elsewhere.kinds(), [], "another group");
    // Where the group may have been removed in between, the generation may be another one of that number.
    assert!(base().join(2, "b", 1).judge(&EXPIRING()).is_clean());
    let alive = base().join(2, "b", 1).commit(1, "a", 1, 5).commit(2, "b", 1, 6);
    assert_eq!(alive.judge(&EXPIRING()).kinds(), [AnomalyKind::DoubleOwnership]);
}

#[test]
fn a_static_members_new_process_owns_what_the_old_one_had() {
    let script =
        |id| Script::default().subscribe(1, Some("x")).join(1, "a", 1).subscribe(2, Some("x")).join(2, id, 1);
    assert_eq!(script("a2").kinds(), []);
    assert_eq!(script("a").kinds(), [AnomalyKind::DoubleOwnership], "one member id for two processes");
}

#[test]
fn groups_are_not_judged_where_their_log_may_be_damaged_or_lost() {
    let script = handed_over().fetch(10);
    let damaged = |log| Promise { damage: vec![Damage { log, span: None }], ..Promise::default() };
    assert!(script.judge(&damaged(None)).is_clean());
    assert!(script.judge(&damaged(Some(Log::new("__consumer_offsets", 3)))).is_clean());
    assert_eq!(script.judge(&damaged(Some(log()))).kinds(), [AnomalyKind::OffsetRegression]);
    assert!(script.judge(&Promise { tail_damage: true, ..Promise::default() }).is_clean());
}

#[test]
fn positions_end_with_a_rebalance_except_where_the_member_stays() {
    let polled = || {
        let script = written().subscribe(2, None).join(2, "a", 1);
        script.poll(2, 0, &WHOLE[..3])
    };
    let end = |script: Script| script.final_read(4, WHOLE).kinds();
    assert_eq!(end(polled().join(2, "a", 2).poll(2, 1, &WHOLE[1..])), [], "delivered again");
    assert_eq!(end(polled().release(2, true).poll(2, 0, WHOLE)), []);
    assert_eq!(end(polled().join_keeping(2, "a", 2).poll(2, 3, &WHOLE[3..])), []);
    let back = polled().join_keeping(2, "a", 2).poll(2, 1, &WHOLE[1..]);
    assert_eq!(end(back), [AnomalyKind::NonmonotonicPoll]);
    let skip = written().subscribe(2, None).join(2, "a", 1).poll(2, 0, &WHOLE[..1]);
    let skip = skip.join_keeping(2, "a", 2).poll(2, 3, &WHOLE[3..]);
    assert_eq!(end(skip), [AnomalyKind::PollSkip]);
}

#[test]
fn poll_skip_when_a_member_starts_behind_where_its_group_stood() {
    let next = |script: Script| script.join_without(1, "a", 2).subscribe(2, None).join(2, "b", 2);
    let committed =
        || written().subscribe(1, None).join(1, "a", 1).poll(1, 0, &WHOLE[..1]).commit(1, "a", 1, 1);
    let end = |script: Script, from: i64| {
        let records = &WHOLE[usize::try_from(from).unwrap()..];
        script.poll(2, from, records).final_read(4, WHOLE).kinds()
    };
    assert_eq!(end(next(committed()), 1), []);
    assert_eq!(end(next(committed()), 2), [AnomalyKind::PollSkip]);
    let perhaps = committed().commit_ends(1, "a", 1, 2, unknown());
    assert_eq!(end(next(perhaps), 2), []);
    assert_eq!(end(next(committed()).seek(2, SeekTo::End), 3), []);
    assert_eq!(end(next(committed()).reset(3, ok()), 3), []);
    let deleted = Op::DeleteOffset { group: G.into(), log: log() };
    assert_eq!(end(next(committed().run(60, deleted, unknown())), 3), [], "it may start where it likes");
    let uncommitted = written().subscribe(1, None).join(1, "a", 1).poll(1, 0, &WHOLE[..1]);
    assert_eq!(end(next(uncommitted), 2), []);
    let marker = Script::default().send(1, 10, 0).send(1, 11, 2).subscribe(1, None).join(1, "a", 1);
    let marker = next(marker.commit(1, "a", 1, 1)).poll(2, 2, &[(2, 11)]);
    assert_eq!(marker.final_read(3, &[(0, 10), (2, 11)]).kinds(), [], "no record is left out");
}

#[test]
fn a_rebalance_inside_a_poll_voids_the_position_that_the_poll_began_with() {
    let poll = |from| Op::Poll { log: log(), from: Some(from) };
    let polled = |records: &[(i64, u64)]| Step::Ok(Done::Polled { records: recs(records) });
    let mut script = written().subscribe(2, None).join(2, "a", 1).poll(2, 0, &WHOLE[..3]);
    let open: (OpId, ProcessId) = script.begin(2, poll(3));
    let mut script = script.join(2, "a", 2);
    script.end(open, polled(&WHOLE[1..2]));
    let script = script.poll(2, 2, &WHOLE[2..]).final_read(4, WHOLE);
    assert_eq!(script.kinds(), []);
    // So does a seek.
    let mut script = written().assign(2).poll(2, 0, &WHOLE[..3]);
    let open = script.begin(2, poll(3));
    let mut script = script.seek(2, SeekTo::Beginning);
    script.end(open, polled(&WHOLE[..2]));
    assert_eq!(script.poll(2, 2, &WHOLE[2..]).final_read(4, WHOLE).kinds(), []);
}

#[test]
fn stuck_when_a_rebalance_does_not_end_unless_the_member_is_dead() {
    let liveness = Some(Liveness { healed_at_ns: 0, bound_ns: 10 * MS });
    let promise = Promise { liveness, final_read: false, ..Promise::default() };
    let waiting = || {
        let mut script = Script::default().subscribe(1, None);
        script.begin(1, Op::Join { group: G.into() });
        script
    };
    let later = |mut script: Script| {
        script.now_ns += 30 * MS;
        let op = Op::Send { log: log(), value: 1, acks: Acks::All, keyed: None };
        script.run(9, op, Step::Ok(Done::Sent { offset: Some(0) })).judge(&promise).kinds()
    };
    assert_eq!(later(waiting()), [AnomalyKind::Stuck]);
    assert_eq!(later(waiting().run(1, Op::Crash, ok())), []);
    assert_eq!(later(waiting().run(2, Op::Crash, ok())), [AnomalyKind::Stuck], "another one died");
    let mut again = Script::default();
    again.begin(1, Op::Leave { group: G.into() });
    assert_eq!(later(again), [AnomalyKind::Stuck]);
}
