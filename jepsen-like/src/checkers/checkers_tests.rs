//! For each checker: a history that is clean, and one for each way to break it.

use std::collections::BTreeSet;

use super::*;
use crate::history::{Acks, Done, Event, Failure, Log, Op, OpId, ProcessId, Record, SeekTo, Span, Step};
use crate::workload::{Damage, Flush, Idempotence, Liveness};

/// Writes histories by hand. Each call is an operation that ends before the next begins, 1 ms long.
#[derive(Default)]
pub(super) struct Script {
    events: Vec<Event>,
    ids: u64,
    pub(super) now_ns: u64,
}

pub(super) const MS: u64 = 1_000_000;

impl Script {
    pub(super) fn begin(&mut self, process: u32, op: Op) -> (OpId, ProcessId) {
        let (id, process) = (OpId(self.ids), ProcessId(process));
        self.ids += 1;
        self.events.push(Event { id, process, time_ns: self.now_ns, step: Step::Invoke(op) });
        (id, process)
    }

    pub(super) fn end(&mut self, (id, process): (OpId, ProcessId), step: Step) {
        self.now_ns += MS;
        self.events.push(Event { id, process, time_ns: self.now_ns, step });
    }

    pub(super) fn run(mut self, process: u32, op: Op, step: Step) -> Self {
        let op = self.begin(process, op);
        self.end(op, step);
        self
    }

    pub(super) fn send(self, process: u32, value: u64, offset: i64) -> Self {
        let step = Step::Ok(Done::Sent { offset: Some(offset) });
        self.run(process, send_op(value), step)
    }

    pub(super) fn send_fails(self, process: u32, value: u64) -> Self {
        self.run(process, send_op(value), Step::Fail(Failure::Error("MESSAGE_TOO_LARGE".into())))
    }

    pub(super) fn send_unknown(self, process: u32, value: u64) -> Self {
        self.run(process, send_op(value), Step::Unknown(Failure::Error("timed out".into())))
    }

    pub(super) fn poll(self, process: u32, from: i64, records: &[(i64, u64)]) -> Self {
        let op = Op::Poll { log: log(), from: Some(from) };
        self.run(process, op, Step::Ok(Done::Polled { records: recs(records) }))
    }

    pub(super) fn seek(self, process: u32, to: SeekTo) -> Self {
        self.run(process, Op::Seek { log: log(), to }, Step::Ok(Done::Done))
    }

    pub(super) fn assign(self, process: u32) -> Self {
        self.run(process, Op::Assign { logs: vec![log()] }, Step::Ok(Done::Done))
    }

    pub(super) fn final_read(self, end: i64, records: &[(i64, u64)]) -> Self {
        self.final_read_with(0, end, records, &[])
    }

    pub(super) fn final_read_with(
        self,
        start: i64,
        end: i64,
        records: &[(i64, u64)],
        corrupt: &[(i64, i64)],
    ) -> Self {
        let corrupt = corrupt.iter().map(|&(from, to)| Span { from, to }).collect();
        let done = Done::Read { start, end, records: recs(records), corrupt };
        self.run(99, Op::FinalRead { log: log() }, Step::Ok(done))
    }

    pub(super) fn judge(&self, promise: &Promise) -> Verdict {
        judge(&History::from_events(self.events.clone()).unwrap(), promise)
    }

    /// The kinds found under the default promise.
    pub(super) fn kinds(&self) -> Vec<AnomalyKind> {
        let verdict = self.judge(&Promise::default());
        for anomaly in &verdict.anomalies {
            assert!(!anomaly.proof.is_empty(), "{anomaly}");
        }
        verdict.kinds()
    }
}

pub(super) fn log() -> Log {
    Log::new("t", 0)
}

pub(super) fn send_op(value: u64) -> Op {
    Op::Send { log: log(), value, acks: Acks::All, keyed: None }
}

pub(super) fn recs(records: &[(i64, u64)]) -> Vec<Record> {
    records.iter().map(|&(offset, value)| Record::new(offset, value)).collect()
}

pub(super) fn written() -> Script {
    Script::default().send(1, 10, 0).send(1, 11, 1).send_unknown(1, 12).send(1, 13, 3)
}

pub(super) const WHOLE: &[(i64, u64)] = &[(0, 10), (1, 11), (2, 12), (3, 13)];

#[test]
fn a_clean_history_is_clean_under_the_strictest_promise() {
    let strict = Promise {
        idempotent: Idempotence::All,
        liveness: Some(Liveness { healed_at_ns: 0, bound_ns: 5 * MS }),
        compacted: BTreeSet::from(["another".into()]),
        ..Promise::default()
    };
    let verdict = written()
        .assign(2)
        .poll(2, 0, &WHOLE[..2])
        .poll(2, 2, &[])
        .poll(2, 2, &WHOLE[2..])
        .seek(2, SeekTo::Offset(1))
        .poll(2, 1, &WHOLE[1..3])
        .send_fails(1, 14)
        .final_read(4, WHOLE)
        .judge(&strict);
    assert!(verdict.is_clean(), "{verdict}");
    assert_eq!(verdict.judged.len(), CHECKERS.len());
    assert_eq!(verdict.counts.acknowledged_sends, 3);
    assert_eq!(verdict.counts.records_read, 10);
}

#[test]
fn lost_write_when_the_final_read_passes_over_an_acknowledged_record() {
    assert_eq!(written().final_read(4, &[(0, 10), (2, 12), (3, 13)]).kinds(), [AnomalyKind::LostWrite]);
}

#[test]
fn lost_write_when_a_record_that_was_only_shown_is_gone() {
    let script = written().poll(2, 0, WHOLE);
    assert_eq!(script.final_read(4, &[(0, 10), (1, 11), (3, 13)]).kinds(), [AnomalyKind::LostWrite]);
}

#[test]
fn lost_write_when_the_logs_start_moves_without_retention() {
    let script = || written().final_read_with(1, 4, &WHOLE[1..], &[]);
    assert_eq!(script().kinds(), [AnomalyKind::LostWrite]);
    assert!(script().judge(&Promise { retention: true, ..Promise::default() }).is_clean());
}

fn deleted_before(offset: i64) -> Script {
    let op = Op::DeleteRecords { log: log(), before: offset };
    written().run(3, op, Step::Ok(Done::Deleted { start: offset }))
}

#[test]
fn a_log_may_begin_where_its_records_were_deleted_by_order_and_no_later() {
    assert!(deleted_before(1).final_read_with(1, 4, &WHOLE[1..], &[]).judge(&Promise::default()).is_clean());
    let further = deleted_before(1).final_read_with(2, 4, &WHOLE[2..], &[]);
    assert_eq!(further.kinds(), [AnomalyKind::LostWrite]);
}

#[test]
fn resurrected_when_deleted_records_are_there_again() {
    assert_eq!(deleted_before(2).final_read(4, WHOLE).kinds(), [AnomalyKind::Resurrected]);
}

#[test]
fn lost_write_without_a_final_read_when_a_consumer_passes_over_what_nobody_reads() {
    let promise = Promise { final_read: false, ..Promise::default() };
    let lossy = written().poll(2, 0, &[(0, 10), (2, 12), (3, 13)]);
    assert_eq!(lossy.judge(&promise).kinds(), [AnomalyKind::LostWrite]);
    let whole = written().poll(2, 0, WHOLE);
    assert!(whole.judge(&promise).is_clean());
    let not_yet_read = written().poll(2, 0, &WHOLE[..1]);
    assert!(not_yet_read.judge(&promise).is_clean());
}

#[test]
fn a_lost_write_is_excused_by_a_promise_that_does_not_cover_it() {
    let os_topic = Promise { flush: Flush::Os, ..Promise::default() };
    let lossy = || written().final_read(4, &[(0, 10), (2, 12), (3, 13)]);
    let verdict = lossy().judge(&os_topic);
    assert!(verdict.is_clean());
    assert!(verdict.not_judged.contains(&AnomalyKind::LostWrite));
    assert!(!lossy().judge(&Promise { power_loss: false, ..os_topic }).is_clean());
    let no_acks = Promise { durable_acks: BTreeSet::from([Acks::Leader]), ..Promise::default() };
    assert!(lossy().judge(&no_acks).is_clean());
}

#[test]
fn unseen_when_the_logs_end_is_missing() {
    assert_eq!(written().final_read(3, &WHOLE[..3]).kinds(), [AnomalyKind::Unseen]);
    assert_eq!(written().final_read(0, &[]).kinds(), [AnomalyKind::Unseen]);
}

#[test]
fn unseen_when_no_final_read_succeeds() {
    assert_eq!(written().kinds(), [AnomalyKind::Unseen]);
    let fails = Step::Fail(Failure::Error("timed out".into()));
    assert_eq!(written().run(9, Op::FinalRead { log: log() }, fails).kinds(), [AnomalyKind::Unseen]);
}

#[test]
fn a_record_acknowledged_after_the_final_read_began_is_not_owed() {
    let mut script = written();
    let read = script.begin(9, Op::FinalRead { log: log() });
    let mut script = script.send(1, 14, 4);
    let done = Done::Read { start: 0, end: 4, records: recs(WHOLE), corrupt: Vec::new() };
    script.end(read, Step::Ok(done));
    assert_eq!(script.kinds(), []);
}

#[test]
fn duplicate_only_where_the_producer_may_not_repeat() {
    let script = || written().final_read(5, &[(0, 10), (1, 11), (2, 12), (3, 13), (4, 12)]);
    assert_eq!(script().kinds(), []);
    let idempotent = Promise { idempotent: Idempotence::All, ..Promise::default() };
    assert_eq!(script().judge(&idempotent).kinds(), [AnomalyKind::Duplicate]);
    let no_retries = Promise { retries: false, ..Promise::default() };
    assert_eq!(script().judge(&no_retries).kinds(), [AnomalyKind::Duplicate]);
    let sender = |process| Idempotence::Of(BTreeSet::from([ProcessId(process)]));
    let judged =
        |process| script().judge(&Promise { idempotent: sender(process), ..Promise::default() }).kinds();
    assert_eq!(judged(1), [AnomalyKind::Duplicate]);
    assert_eq!(judged(2), [], "another producer is the idempotent one");
    // Acknowledged at one offset, read at another.
    let moved = Script::default().send(1, 10, 0).send(1, 11, 1).final_read(3, &[(0, 10), (2, 11)]);
    assert!(moved.judge(&idempotent).kinds().contains(&AnomalyKind::Duplicate));
}

#[test]
fn inconsistent_offsets_between_reads_and_against_an_acknowledgement() {
    let base = || Script::default().send(1, 10, 0).send_unknown(1, 11).send_unknown(1, 12);
    let reads = base().poll(2, 0, &[(0, 10), (1, 11)]).final_read(2, &[(0, 10), (1, 12)]);
    assert_eq!(reads.kinds(), [AnomalyKind::InconsistentOffsets]);
    let ack = base().final_read(1, &[(0, 12)]);
    assert_eq!(ack.kinds(), [AnomalyKind::InconsistentOffsets]);
    let two_acks = Script::default().send(1, 10, 0).send(2, 11, 0).final_read(1, &[(0, 10)]);
    assert_eq!(two_acks.kinds(), [AnomalyKind::InconsistentOffsets]);
}

#[test]
fn aborted_read_when_a_send_that_failed_is_shown() {
    let script = Script::default().send(1, 10, 0).send_fails(1, 11).final_read(2, &[(0, 10), (1, 11)]);
    assert_eq!(script.kinds(), [AnomalyKind::AbortedRead]);
}

#[test]
fn phantom_when_a_value_was_never_sent_or_sent_elsewhere_or_is_damaged() {
    let never = Script::default().send(1, 10, 0).final_read(2, &[(0, 10), (1, 77)]);
    assert_eq!(never.kinds(), [AnomalyKind::Phantom]);

    let elsewhere = Op::Send { log: Log::new("t", 1), value: 11, acks: Acks::None, keyed: None };
    let misdirected = Script::default()
        .send(1, 10, 0)
        .run(1, elsewhere, Step::Ok(Done::Sent { offset: None }))
        .final_read(2, &[(0, 10), (1, 11)]);
    assert_eq!(misdirected.kinds(), [AnomalyKind::Phantom]);

    let records = vec![Record::new(0, 10), Record { offset: 1, value: None }];
    let done = Done::Read { start: 0, end: 2, records, corrupt: Vec::new() };
    let damaged = Script::default().send(1, 10, 0).run(9, Op::FinalRead { log: log() }, Step::Ok(done));
    assert_eq!(damaged.kinds(), [AnomalyKind::Phantom]);

    let early = Script::default().poll(2, 0, &[(0, 10)]).send(1, 10, 0).final_read(1, &[(0, 10)]);
    assert_eq!(early.kinds(), [AnomalyKind::Phantom]);
}

#[test]
fn resurrected_when_a_deleted_record_is_shown_again() {
    let deleted = |step| {
        let topic = Op::DeleteTopic { topic: "t".into() };
        Script::default().send(1, 10, 0).run(3, topic, step)
    };
    let again = deleted(Step::Ok(Done::Done)).send(1, 11, 0).poll(2, 0, &[(0, 11)]).poll(4, 0, &[(0, 10)]);
    assert_eq!(again.kinds(), [AnomalyKind::Resurrected]);
    let fresh = deleted(Step::Ok(Done::Done)).send(1, 11, 0).poll(2, 0, &[(0, 11)]);
    assert_eq!(fresh.kinds(), []);
    let perhaps = deleted(Step::Unknown(Failure::Error("timed out".into()))).poll(2, 0, &[(0, 10)]);
    assert_eq!(perhaps.kinds(), []);
    let never = deleted(Step::Fail(Failure::Error("refused".into()))).poll(2, 0, &[(0, 10)]);
    assert_eq!(never.kinds(), [AnomalyKind::Unseen], "the topic is still there and owes a final read");
}

#[test]
fn damage_is_reported_where_it_was_planned_and_nowhere_else() {
    let script = || written().final_read_with(0, 4, &[(0, 10), (3, 13)], &[(1, 3)]);
    assert_eq!(script().kinds(), [AnomalyKind::UnexcusedDamage]);
    let planned = |from, to| {
        let damage = vec![Damage { log: Some(log()), span: Some(Span { from, to }) }];
        Promise { damage, ..Promise::default() }
    };
    assert!(script().judge(&planned(1, 3)).is_clean());
    assert_eq!(script().judge(&planned(2, 3)).kinds(), [AnomalyKind::UnexcusedDamage]);
    // A poll that meets damage, steps over it and goes on.
    let poll = Op::Poll { log: log(), from: Some(1) };
    let corrupt = Step::Fail(Failure::Corrupt(Span { from: 1, to: 2 }));
    let stepped = || {
        let script = written().poll(2, 0, &WHOLE[..1]).run(2, poll.clone(), corrupt.clone());
        script.seek(2, SeekTo::Offset(2)).poll(2, 2, &WHOLE[2..]).final_read(4, WHOLE)
    };
    assert_eq!(stepped().kinds(), [AnomalyKind::UnexcusedDamage]);
    assert!(stepped().judge(&planned(1, 2)).is_clean());
}

#[test]
fn planned_damage_does_not_excuse_a_record_that_is_missing_in_silence() {
    let damage = vec![Damage { log: None, span: None }];
    let promise = Promise { damage, ..Promise::default() };
    let script = written().final_read(4, &[(0, 10), (2, 12), (3, 13)]);
    assert_eq!(script.judge(&promise).kinds(), [AnomalyKind::LostWrite]);
}

#[test]
fn poll_skip_between_polls_inside_one_and_after_a_seek() {
    let between = written().poll(2, 0, &WHOLE[..2]).poll(2, 2, &WHOLE[3..]).final_read(4, WHOLE);
    assert_eq!(between.kinds(), [AnomalyKind::PollSkip]);
    let inside = written().poll(2, 0, &[(0, 10), (3, 13)]).final_read(4, WHOLE);
    assert_eq!(inside.kinds(), [AnomalyKind::PollSkip]);
    let after_seek = written().seek(2, SeekTo::Offset(1)).poll(2, 1, &WHOLE[2..]).final_read(4, WHOLE);
    assert_eq!(after_seek.kinds(), [AnomalyKind::PollSkip]);
    let own_jump = written().poll(2, 0, &WHOLE[..1]).poll(2, 3, &WHOLE[3..]).final_read(4, WHOLE);
    assert_eq!(own_jump.kinds(), [AnomalyKind::PollSkip], "a position that moves by itself is a skip too");
}

#[test]
fn a_gap_that_holds_no_record_and_a_jump_by_seek_or_assignment_are_no_skip() {
    let marker = Script::default().send(1, 10, 0).send(1, 11, 2);
    let marker = marker.poll(2, 0, &[(0, 10)]).poll(2, 1, &[(2, 11)]).final_read(3, &[(0, 10), (2, 11)]);
    assert_eq!(marker.kinds(), []);
    let seek =
        written().poll(2, 0, &WHOLE[..1]).seek(2, SeekTo::End).poll(2, 3, &WHOLE[3..]).final_read(4, WHOLE);
    assert_eq!(seek.kinds(), []);
    let assign = written().poll(2, 0, &WHOLE[..1]).assign(2).poll(2, 3, &WHOLE[3..]).final_read(4, WHOLE);
    assert_eq!(assign.kinds(), []);
}

#[test]
fn nonmonotonic_poll_between_polls_inside_one_and_in_the_final_read() {
    let between = written().poll(2, 0, &WHOLE[..3]).poll(2, 3, &WHOLE[1..]).final_read(4, WHOLE);
    assert_eq!(between.kinds(), [AnomalyKind::NonmonotonicPoll]);
    let inside = written().poll(2, 0, &[(0, 10), (1, 11), (1, 11), (2, 12)]).final_read(4, WHOLE);
    assert_eq!(inside.kinds(), [AnomalyKind::NonmonotonicPoll]);
    let at_the_end = written().final_read(4, &[(0, 10), (2, 12), (1, 11), (3, 13)]);
    assert_eq!(at_the_end.kinds(), [AnomalyKind::NonmonotonicPoll]);
    let sought =
        written().poll(2, 0, WHOLE).seek(2, SeekTo::Beginning).poll(2, 0, WHOLE).final_read(4, WHOLE);
    assert_eq!(sought.kinds(), []);
}

#[test]
fn unseen_cut_when_a_consumer_reads_on_behind_what_replaced_its_last_record() {
    let promise = Promise { flush: Flush::Os, ..Promise::default() };
    let cut = || {
        let script = Script::default().send(1, 10, 0).send(1, 11, 1).poll(2, 0, &[(0, 10), (1, 11)]);
        script.send(1, 12, 1).send(1, 13, 2)
    };
    let end = |script: Script| script.final_read(3, &[(0, 10), (1, 12), (2, 13)]).judge(&promise).kinds();
    assert_eq!(end(cut().poll(2, 2, &[(2, 13)])), [AnomalyKind::UnseenCut]);
    assert_eq!(end(cut().seek(2, SeekTo::Offset(2)).poll(2, 2, &[(2, 13)])), [], "it was told");
    let early = Script::default().send(1, 10, 0).send(1, 11, 1).send_unknown(1, 13);
    let early = early.poll(2, 0, &[(0, 10), (1, 11)]).send(1, 12, 1).poll(2, 2, &[(2, 13)]);
    assert_eq!(end(early), [], "it may have been read before the cut");
}

#[test]
fn nonmonotonic_send_when_a_later_send_gets_an_earlier_offset() {
    let back = Script::default().send(1, 10, 1).send(1, 11, 0).final_read(2, &[(0, 11), (1, 10)]);
    assert_eq!(back.kinds(), [AnomalyKind::NonmonotonicSend]);
    let two = Script::default().send(1, 10, 1).send(2, 11, 0).final_read(2, &[(0, 11), (1, 10)]);
    assert_eq!(two.kinds(), [], "another producer's order is its own");
}

#[test]
fn sends_that_overlap_may_change_places_only_without_a_promised_order() {
    let mut script = Script::default();
    let first = script.begin(1, send_op(10));
    let second = script.begin(1, send_op(11));
    script.end(second, Step::Ok(Done::Sent { offset: Some(0) }));
    script.end(first, Step::Ok(Done::Sent { offset: Some(1) }));
    let script = script.send(1, 12, 2).final_read(3, &[(0, 11), (1, 10), (2, 12)]);
    assert_eq!(script.kinds(), [AnomalyKind::NonmonotonicSend]);
    let free = Promise { ordered_sends: false, ..Promise::default() };
    assert!(script.judge(&free).is_clean());

    let mut late = Script::default().send(1, 10, 5);
    let open = late.begin(1, send_op(11));
    let mut late = late.send(1, 12, 6);
    late.end(open, Step::Ok(Done::Sent { offset: Some(4) }));
    let late = late.final_read(7, &[(4, 11), (5, 10), (6, 12)]);
    assert_eq!(late.judge(&free).kinds(), [AnomalyKind::NonmonotonicSend]);
}

#[test]
fn stuck_when_an_operation_outlives_its_bound() {
    let promise = |healed_at_ns| Promise {
        liveness: Some(Liveness { healed_at_ns, bound_ns: 10 * MS }),
        final_read: false,
        ..Promise::default()
    };
    let mut slow = Script::default();
    let open = slow.begin(1, send_op(10));
    slow.now_ns = 30 * MS;
    slow.end(open, Step::Ok(Done::Sent { offset: Some(0) }));
    assert_eq!(slow.judge(&promise(0)).kinds(), [AnomalyKind::Stuck]);
    assert!(slow.judge(&promise(25 * MS)).is_clean(), "faults were still going on");

    let mut never = Script::default();
    never.begin(1, send_op(10));
    assert!(never.judge(&promise(0)).is_clean(), "the history ends before the bound");
    never.now_ns = 30 * MS;
    let never = never.send(2, 11, 0);
    assert_eq!(never.judge(&promise(0)).kinds(), [AnomalyKind::Stuck]);

    let unanswered = Script { now_ns: 30 * MS, ..Script::default() }.send_unknown(1, 10);
    assert_eq!(unanswered.judge(&promise(0)).kinds(), [AnomalyKind::Stuck]);
    assert!(unanswered.judge(&promise(25 * MS)).is_clean(), "within the time to settle");
}

#[test]
fn a_verdict_tells_a_few_anomalies_in_full_and_counts_them_all() {
    let mut script = Script::default();
    for value in 0..20 {
        script = script.send(1, value, i64::try_from(value).unwrap());
    }
    let verdict = script
        .final_read(21, &[(20, 19)])
        .judge(&Promise { idempotent: Idempotence::All, ..Promise::default() });
    assert_eq!(verdict.totals[&AnomalyKind::LostWrite], 20);
    assert_eq!(verdict.anomalies.iter().filter(|a| a.kind == AnomalyKind::LostWrite).count(), 5);
    let text = verdict.to_string();
    assert!(text.contains("20 lost-write"), "{text}");
    assert!(text.contains("value 0 was acknowledged at offset 0 and is gone"), "{text}");
    let json = serde_json::to_string(&verdict).unwrap();
    assert_eq!(serde_json::from_str::<Verdict>(&json).unwrap(), verdict);
}
