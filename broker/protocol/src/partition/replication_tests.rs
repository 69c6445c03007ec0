//! Scenarios of a follower, and of a leader's dealings with followers.

use super::epochs::{EpochEntry, EpochHistory};
use super::replication::{FetchPosition, FetchRefusal, FetchVerdict};
use super::scenario_tests::{Bench, ME, OTHER, THIRD, completed, failed, leadership, log};
use super::*;
use crate::metadata::IsrMember;

const MATCHES: FetchVerdict = FetchVerdict::Matches { high_watermark: 0, start: 0 };

/// A follower of the other broker, with records of these epochs in its log, all durable.
fn following(epoch: LeaderEpoch, records: &[LeaderEpoch]) -> Bench {
    let end = records.len() as Offset;
    let mut bench = Bench::new(LogState { start: 0, end, durable_end: end, high_watermark: 0 });
    let mut epochs = EpochHistory::new();
    for (offset, epoch) in (0..).zip(records) {
        epochs.begin(*epoch, offset);
    }
    bench.partition = bench.partition.with_epochs(epochs);
    bench.step(Input::BecomeFollower { epoch, leader: OTHER });
    bench
}

fn position(epoch: LeaderEpoch, offset: Offset, last_epoch: LeaderEpoch) -> FetchPosition {
    FetchPosition { epoch, offset, last_epoch, durable_end: offset }
}

/// A leader of epoch 3 whose log holds these epochs' records, all durable.
fn leading_after(records: &[LeaderEpoch], replicas: &[BrokerId]) -> Bench {
    let mut bench = following(2, records);
    bench.step(Input::BecomeLeader(leadership(3, replicas)));
    bench
}

fn members(ids: &[BrokerId]) -> Vec<IsrMember> {
    ids.iter().map(|id| IsrMember { broker: *id, broker_epoch: i64::from(id.0) * 10 }).collect()
}

fn proposes(partition_epoch: i32, ids: &[BrokerId]) -> Effect {
    Effect::ProposeIsr { epoch: 1, partition_epoch, isr: members(ids) }
}

#[test]
fn a_follower_writes_what_it_is_sent_and_reports_what_is_durable_at_once() {
    // Contract 2
    let mut bench = following(1, &[]);
    assert_eq!(bench.partition.fetch_position(), Some((OTHER, position(1, 0, -1))));
    assert_eq!(bench.receive(MATCHES, &[1, 1]), [Effect::WriteFetched { base: 0, end: 2 }]);
    let written = FetchPosition { epoch: 1, offset: 2, last_epoch: 1, durable_end: 0 };
    assert_eq!(bench.partition.fetch_position(), Some((OTHER, written)));
    assert_eq!(bench.durable(2), [Effect::ReportProgress { epoch: 1, durable_end: 2 }]);
}

#[test]
fn a_follower_takes_the_high_watermark_over_as_far_as_it_is_durable() {
    let mut bench = following(1, &[]);
    bench.receive(FetchVerdict::Matches { high_watermark: 2, start: 0 }, &[1, 1, 1]);
    assert_eq!(bench.partition.high_watermark(), 0);
    bench.durable(1);
    assert_eq!(bench.partition.high_watermark(), 1);
    bench.durable(3);
    assert_eq!(bench.partition.high_watermark(), 2);
}

#[test]
fn a_follower_begins_where_its_leader_does_once_it_is_durable_up_to_there() {
    // c272 of the simulator: it is told only once, and comes into no ISR as long as it begins below its leader
    let mut bench = following(1, &[1, 1]);
    bench.receive(FetchVerdict::Matches { high_watermark: 4, start: 3 }, &[1, 1]);
    assert_eq!(bench.partition.start(), 2, "what it has durably is gone");
    let effects = bench.durable(4);
    assert_eq!(
        effects,
        [Effect::AdvanceStart { start: 3 }, Effect::ReportProgress { epoch: 1, durable_end: 4 }]
    );
    assert_eq!(bench.partition.start(), 3);
}

#[test]
fn a_follower_whose_leader_restarts_keeps_what_lies_above_its_high_watermark() {
    // Z1, KIP-101
    let mut bench = following(2, &[1, 1]);
    assert_eq!(bench.partition.high_watermark(), 0);
    assert_eq!(bench.partition.end(), 2);
    assert_eq!(bench.answer(MATCHES), []);
    assert_eq!(bench.partition.end(), 2);
}

#[test]
fn logs_that_part_are_cut_where_the_last_common_epoch_ends_in_either() {
    // KIP-279: the leader may not know the follower's last epoch, nor the follower the leader's
    let mut bench = following(5, &[1, 1, 2, 2, 4]);
    let effects = bench.answer(FetchVerdict::Diverges { epoch: 3, end: 4 });
    assert_eq!(effects, [Effect::Truncate { to: 4 }], "epoch 3 is not here: back to the end of epoch 2");
    assert_eq!(bench.partition.fetch_position(), Some((OTHER, position(5, 4, 2))));
    let effects = bench.answer(FetchVerdict::Diverges { epoch: 2, end: 3 });
    assert_eq!(effects, [Effect::Truncate { to: 3 }], "epoch 2 ends sooner there");
    assert_eq!(bench.answer(MATCHES), []);
}

#[test]
fn an_answer_that_comes_late_or_twice_changes_nothing() {
    // Z9
    let mut bench = following(3, &[1, 1, 2]);
    let before = bench.partition.fetch_position().expect("it follows").1;
    let diverged = || Fetched {
        position: before,
        verdict: FetchVerdict::Diverges { epoch: 1, end: 2 },
        end: 3,
        epochs: vec![],
        producers: vec![],
        now_ms: 0,
    };
    bench.step(Input::Fetched(Box::new(diverged())));
    bench.receive(MATCHES, &[3]);
    assert_eq!(bench.step(Input::Fetched(Box::new(diverged()))), [], "the same length, another log");
    bench.step(Input::BecomeFollower { epoch: 4, leader: THIRD });
    assert_eq!(bench.step(Input::Fetched(Box::new(diverged()))), []);
    assert_eq!(bench.partition.end(), 3);
}

#[test]
fn nothing_is_reported_before_the_logs_match() {
    let mut bench = following(1, &[]);
    bench.receive(MATCHES, &[1, 1]);
    bench.step(Input::BecomeFollower { epoch: 2, leader: THIRD });
    assert_eq!(bench.durable(2), [], "the new leader may not have these records");
}

#[test]
fn records_that_no_leader_can_have_sent_are_not_written() {
    // Contract 14
    let mut bench = following(2, &[1]);
    for epochs in
        [vec![], vec![(1, 2)], vec![(3, 1)], vec![(0, 1)], vec![(2, 1), (1, 2)], vec![(1, 1), (2, 9)]]
    {
        let epochs = epochs.into_iter().map(|(epoch, start)| EpochEntry { epoch, start }).collect();
        let fetched = Fetched {
            position: position(2, 1, 1),
            verdict: MATCHES,
            end: 3,
            epochs,
            producers: vec![],
            now_ms: 0,
        };
        assert_eq!(bench.step(Input::Fetched(Box::new(fetched))), []);
    }
    assert_eq!(bench.partition.end(), 1);
}

#[test]
fn a_follower_behind_the_leaders_start_begins_there() {
    let mut bench = following(2, &[1]);
    let effects = bench.answer(FetchVerdict::OutOfRange { start: 7, end: 9 });
    assert_eq!(effects[0], Effect::AdvanceStart { start: 7 });
    assert_eq!(bench.partition.fetch_position(), Some((OTHER, position(2, 7, -1))));
}

#[test]
fn a_new_leader_knows_the_producers_whose_batches_it_was_sent() {
    // Z23, K12
    let mut bench = following(1, &[]);
    let claim = Claim { producer: 7, epoch: 0, first_sequence: 0, last_sequence: 0, max_timestamp_ms: -1 };
    let fetched = Fetched {
        position: position(1, 0, -1),
        verdict: MATCHES,
        end: 1,
        epochs: vec![EpochEntry { epoch: 1, start: 0 }],
        producers: vec![producers::ProducerBatch { claim, base_offset: 0, next_offset: 1 }],
        now_ms: 0,
    };
    bench.step(Input::Fetched(Box::new(fetched)));
    bench.durable(1);
    bench.step(Input::BecomeLeader(leadership(2, &[ME])));
    let waiter = WaiterId(9);
    let again =
        Input::Append { waiter, acks: Acks::All, count: 1, epoch: None, producer: Some(claim), now_ms: 0 };
    assert_eq!(bench.step(again), [completed(waiter, 0)]);
}

#[test]
fn a_leader_says_where_the_logs_part() {
    // KIP-595, KIP-279
    let bench = leading_after(&[1, 1, 2], &[ME, OTHER]);
    let judge = |offset, last_epoch| bench.partition.judge(OTHER, 20, &position(3, offset, last_epoch));
    assert_eq!(judge(3, 2), FetchVerdict::Matches { high_watermark: 0, start: 0 });
    assert_eq!(judge(0, -1), FetchVerdict::Matches { high_watermark: 0, start: 0 });
    assert_eq!(judge(3, 1), FetchVerdict::Diverges { epoch: 1, end: 2 });
    assert_eq!(judge(2, 0), FetchVerdict::Diverges { epoch: 0, end: 0 });
    assert_eq!(judge(5, 2), FetchVerdict::Diverges { epoch: 2, end: 3 });
    assert_eq!(judge(5, -1), FetchVerdict::OutOfRange { start: 0, end: 3 });
}

#[test]
fn whoever_is_of_another_epoch_or_none_of_the_replicas_is_refused() {
    // Contract 11, KIP-903
    let bench = leading_after(&[1], &[ME, OTHER]);
    let judge = |from, broker_epoch, position| match bench.partition.judge(from, broker_epoch, &position) {
        FetchVerdict::Refused(refusal) => Some(refusal),
        _ => None,
    };
    assert_eq!(judge(OTHER, 20, position(2, 1, 1)), Some(FetchRefusal::FencedLeaderEpoch));
    assert_eq!(judge(OTHER, 20, position(4, 1, 1)), Some(FetchRefusal::UnknownLeaderEpoch));
    assert_eq!(judge(OTHER, 19, position(3, 1, 1)), Some(FetchRefusal::FencedBrokerEpoch));
    assert_eq!(judge(THIRD, 30, position(3, 1, 1)), Some(FetchRefusal::NotAReplica));
    assert_eq!(judge(OTHER, 20, position(3, 1, 4)), Some(FetchRefusal::Senseless));
    assert_eq!(judge(OTHER, 21, position(3, 1, 1)), None, "registered anew");
}

#[test]
fn a_log_that_parts_earns_no_credit() {
    // Z8
    let mut bench = leading_after(&[1], &[ME, OTHER]);
    let fetch = |position| Input::ReplicaFetch { from: OTHER, broker_epoch: 20, position, now_ms: 0 };
    assert_eq!(bench.step(fetch(position(3, 1, 0))), []);
    assert_eq!(bench.step(fetch(position(3, 1, 1))), [Effect::HighWatermark(1)]);
}

#[test]
fn progress_counts_only_after_a_fetch_of_the_same_epochs() {
    let mut bench = Bench::leading(&[ME, OTHER]);
    bench.append(Acks::Leader, 2);
    bench.durable(2);
    let progress = |broker_epoch, epoch, durable_end| Input::ReplicaProgress {
        from: OTHER,
        broker_epoch,
        epoch,
        durable_end,
    };
    assert_eq!(bench.step(progress(20, 1, 1)), [], "it has not shown its log in this epoch");
    bench.progress(OTHER, 0);
    assert_eq!(bench.step(progress(20, 0, 1)), []);
    assert_eq!(bench.step(progress(19, 1, 1)), []);
    assert_eq!(bench.step(progress(20, 1, 1)), [Effect::HighWatermark(1)]);
    assert_eq!(bench.progress(OTHER, 0), [], "overtaken on its way");
    assert_eq!(bench.step(progress(20, 1, 2)), [Effect::HighWatermark(2)]);
}

#[test]
fn a_proposed_member_counts_at_once_and_a_proposed_removal_only_when_committed() {
    // Z62
    let mut bench = Bench::leading(&[ME, OTHER, THIRD]);
    bench.step(Input::Tick { now_ms: 0 });
    let (first, _) = bench.append(Acks::All, 1);
    bench.durable(1);
    assert_eq!(bench.fetch(OTHER, 20, 1, 29_000), []);
    assert_eq!(bench.step(Input::Tick { now_ms: 29_999 }), []);
    assert_eq!(bench.step(Input::Tick { now_ms: 30_000 }), [proposes(1, &[ME, OTHER])]);
    let effects = bench.committed_isr(2, &[ME, OTHER]);
    assert_eq!(effects, [Effect::HighWatermark(1), completed(first, 0)]);

    assert_eq!(bench.fetch(THIRD, 30, 1, 31_000), [proposes(2, &[ME, OTHER, THIRD])]);
    let (second, _) = bench.append(Acks::All, 1);
    bench.durable(2);
    assert_eq!(bench.fetch(OTHER, 20, 2, 31_000), [], "the third may be in the ISR already");
    let effects = bench.fetch(THIRD, 30, 2, 31_000);
    assert_eq!(effects, [Effect::HighWatermark(2), completed(second, 1)]);
}

#[test]
fn a_follower_joins_once_it_has_reached_the_start_of_the_leaders_epoch() {
    // Z55
    let mut bench = following(2, &[1, 1]);
    let leadership = leadership(3, &[ME, OTHER, THIRD]);
    bench.step(Input::BecomeLeader(Leadership { isr: vec![ME, OTHER], ..leadership }));
    assert_eq!(bench.partition.high_watermark(), 0, "the other has not reported");
    assert_eq!(bench.fetch(THIRD, 30, 1, 0), []);
    let effects = bench.fetch(THIRD, 30, 2, 0);
    assert!(matches!(effects[..], [Effect::ProposeIsr { .. }]));
}

#[test]
fn a_proposal_is_sent_again_until_its_fate_is_known_with_the_broker_epochs_that_it_had() {
    // Z11, KIP-903
    let mut bench = Bench::leading(&[ME, OTHER, THIRD]);
    bench.committed_isr(2, &[ME, OTHER]);
    let proposal = proposes(2, &[ME, OTHER, THIRD]);
    assert_eq!(bench.fetch(THIRD, 30, 0, 0), std::slice::from_ref(&proposal));
    bench.fetch(THIRD, 31, 0, 500);
    assert_eq!(bench.step(Input::Tick { now_ms: 999 }), []);
    assert_eq!(bench.step(Input::Tick { now_ms: 1_000 }), [proposal], "of its former self");
}

#[test]
fn an_addition_that_was_refused_counts_until_the_partition_epoch_has_moved() {
    let mut bench = Bench::leading(&[ME, OTHER, THIRD]);
    bench.committed_isr(2, &[ME, OTHER]);
    bench.fetch(THIRD, 30, 0, 0);
    bench.step(Input::IsrRefused { epoch: 1, partition_epoch: 2, now_ms: 0 });
    let (first, _) = bench.append(Acks::All, 1);
    bench.durable(1);
    assert_eq!(bench.progress(OTHER, 1), [], "another copy of the request may have been carried out");
    assert_eq!(bench.step(Input::Tick { now_ms: 1 }), [proposes(2, &[ME, OTHER])], "so that none will be");
    let effects = bench.committed_isr(3, &[ME, OTHER]);
    assert_eq!(effects, [Effect::HighWatermark(1), completed(first, 0)]);
    assert_eq!(bench.fetch(THIRD, 30, 1, 999), [], "not again at once");
    assert_eq!(bench.fetch(THIRD, 30, 1, 1_000), [proposes(3, &[ME, OTHER, THIRD])]);
}

#[test]
fn a_dead_follower_holds_nobody_up() {
    // KIP-841: what it reported last makes it no candidate while the quorum would not take it
    let mut bench = Bench::leading(&[ME, OTHER, THIRD]);
    bench.progress(OTHER, 0);
    bench.progress(THIRD, 0);
    let fenced = |may_join: &[BrokerId], partition_epoch| {
        let replicas = [ME, OTHER, THIRD];
        let leadership = leadership(1, &replicas);
        let broker_epochs = may_join.iter().map(|id| (*id, i64::from(id.0) * 10)).collect();
        Input::BecomeLeader(Leadership { partition_epoch, isr: vec![ME, OTHER], broker_epochs, ..leadership })
    };
    bench.step(fenced(&[ME, OTHER], 2));
    assert_eq!(bench.step(Input::Tick { now_ms: 1_000 }), []);
    let (first, _) = bench.append(Acks::All, 1);
    bench.durable(1);
    let effects = bench.fetch(OTHER, 20, 1, 1_000);
    assert_eq!(effects, [Effect::HighWatermark(1), completed(first, 0)]);
    assert_eq!(bench.fetch(THIRD, 30, 1, 1_500), [], "it may catch up meanwhile");
    bench.step(fenced(&[ME, OTHER, THIRD], 2));
    assert_eq!(bench.step(Input::Tick { now_ms: 2_000 }), [proposes(2, &[ME, OTHER, THIRD])]);
}

#[test]
fn a_member_that_comes_back_without_committed_records_leaves_the_isr() {
    // Contract 5: the leader does not wait for the controller to find out
    let mut bench = Bench::leading(&[ME, OTHER]);
    bench.append(Acks::All, 1);
    bench.durable(1);
    bench.progress(OTHER, 1);
    assert_eq!(bench.partition.high_watermark(), 1);
    let effects = bench.fetch(OTHER, 21, 0, 0);
    let isr = members(&[ME]);
    assert_eq!(effects, [Effect::ProposeIsr { epoch: 1, partition_epoch: 1, isr }]);
}

#[test]
fn a_new_leader_says_what_is_latest_only_when_it_knows_it() {
    // KIP-207
    let mut bench = leading_after(&[1, 1], &[ME, OTHER]);
    assert_eq!(bench.partition.latest_offset(), None);
    bench.progress(OTHER, 1);
    assert_eq!((bench.partition.high_watermark(), bench.partition.latest_offset()), (1, None));
    bench.progress(OTHER, 2);
    assert_eq!(bench.partition.latest_offset(), Some(2));
}

#[test]
fn min_isr_follows_the_topics_setting_within_a_reign() {
    let mut bench = Bench::leading(&[ME, OTHER]);
    let change =
        Leadership { min_insync: 1, isr: vec![ME], partition_epoch: 2, ..leadership(1, &[ME, OTHER]) };
    bench.step(Input::BecomeLeader(change.clone()));
    let (first, _) = bench.append(Acks::All, 1);
    bench.step(Input::BecomeLeader(Leadership { min_insync: 2, ..change }));
    assert_eq!(bench.durable(1), []);
    let (second, effects) = bench.append(Acks::All, 1);
    assert_eq!(effects, [failed(second, FailReason::NotEnoughReplicas)]);
    let effects = bench.step(Input::Expire { waiter: first });
    assert_eq!(effects, [failed(first, FailReason::NotEnoughReplicasAfterAppend)]);
}

#[test]
fn a_follower_with_a_full_disk_asks_again_from_where_it_was_cut() {
    let mut bench = following(1, &[]);
    bench.receive(MATCHES, &[1, 1]);
    assert_eq!(bench.step(Input::AppendFailed { from: 0 }), []);
    assert_eq!(bench.partition.fetch_position(), Some((OTHER, position(1, 0, -1))));
    assert_eq!(bench.partition.log(), log());
}
