//! Scenarios of a leader: what is acknowledged, when, and what is not.

use super::epochs::EpochEntry;
use super::replication::{FetchPosition, FetchVerdict};
use super::*;
use crate::types::TopicId;

pub(super) const ME: BrokerId = BrokerId(1);
pub(super) const OTHER: BrokerId = BrokerId(2);
pub(super) const THIRD: BrokerId = BrokerId(3);

pub(super) fn log() -> LogId {
    LogId::new(TopicId(uuid::Uuid::from_u128(77)), 0)
}

/// `replicas` are all in sync; min ISR is the default, a majority.
pub(super) fn leadership(epoch: LeaderEpoch, replicas: &[BrokerId]) -> Leadership {
    Leadership {
        epoch,
        partition_epoch: epoch,
        replicas: replicas.to_vec(),
        isr: replicas.to_vec(),
        min_insync: replicas.len() / 2 + 1,
        broker_epochs: replicas.iter().map(|id| (*id, i64::from(id.0) * 10)).collect(),
    }
}

/// A replica whose laws are checked after each step.
pub(super) struct Bench {
    pub(super) partition: Partition,
    next_waiter: u64,
}

impl Bench {
    pub(super) fn new(state: LogState) -> Bench {
        let limits = Limits { waiters_max: 4, ..Limits::default() };
        Bench { partition: Partition::new(log(), ME, state, limits), next_waiter: 0 }
    }

    pub(super) fn leading(replicas: &[BrokerId]) -> Bench {
        let mut bench = Bench::new(LogState::EMPTY);
        bench.step(Input::BecomeLeader(leadership(1, replicas)));
        bench
    }

    pub(super) fn step(&mut self, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.partition.step(input, &mut effects);
        self.partition.invariants().expect("the laws hold after each step");
        effects
    }

    pub(super) fn append(&mut self, acks: Acks, count: u32) -> (WaiterId, Vec<Effect>) {
        self.next_waiter += 1;
        let waiter = WaiterId(self.next_waiter);
        (waiter, self.step(Input::Append { waiter, acks, count, epoch: None, producer: None, now_ms: 0 }))
    }

    pub(super) fn durable(&mut self, end: Offset) -> Vec<Effect> {
        self.step(Input::Durable { end })
    }

    pub(super) fn progress(&mut self, from: BrokerId, durable_end: Offset) -> Vec<Effect> {
        self.fetch(from, i64::from(from.0) * 10, durable_end, 0)
    }

    /// A follower fetches whose log is the leader's up to `offset`, all of it durable.
    pub(super) fn fetch(
        &mut self,
        from: BrokerId,
        broker_epoch: i64,
        offset: Offset,
        now_ms: i64,
    ) -> Vec<Effect> {
        let last_epoch = self.partition.epochs().epoch_at(offset - 1).unwrap_or(-1);
        let position =
            FetchPosition { epoch: self.partition.epoch(), offset, last_epoch, durable_end: offset };
        self.step(Input::ReplicaFetch { from, broker_epoch, position, now_ms })
    }

    /// The leader answers the present position, and sends nothing.
    pub(super) fn answer(&mut self, verdict: FetchVerdict) -> Vec<Effect> {
        self.receive(verdict, &[])
    }

    /// The leader answers the present position, and sends a record of each of these epochs.
    pub(super) fn receive(&mut self, verdict: FetchVerdict, records: &[LeaderEpoch]) -> Vec<Effect> {
        let (_, position) = self.partition.fetch_position().expect("it follows");
        let offsets = position.offset..;
        let mut epochs: Vec<_> =
            offsets.zip(records).map(|(start, epoch)| EpochEntry { epoch: *epoch, start }).collect();
        epochs.dedup_by_key(|entry| entry.epoch);
        let end = position.offset + records.len() as i64;
        let fetched = Fetched { position, verdict, end, epochs, producers: vec![], now_ms: 0 };
        self.step(Input::Fetched(Box::new(fetched)))
    }

    /// The quorum has committed another ISR in this reign.
    pub(super) fn committed_isr(&mut self, partition_epoch: i32, isr: &[BrokerId]) -> Vec<Effect> {
        let leadership = leadership(self.partition.epoch(), &[ME, OTHER, THIRD]);
        self.step(Input::BecomeLeader(Leadership { partition_epoch, isr: isr.to_vec(), ..leadership }))
    }
}

pub(super) fn completed(waiter: WaiterId, base_offset: Offset) -> Effect {
    Effect::CompleteAppend { waiter, base_offset }
}

pub(super) fn failed(waiter: WaiterId, reason: FailReason) -> Effect {
    Effect::FailAppend { waiter, reason }
}

#[test]
fn a_sole_replica_acknowledges_when_its_own_end_is_durable_and_moves_the_high_watermark_first() {
    let mut bench = Bench::leading(&[ME]);
    let (first, effects) = bench.append(Acks::All, 3);
    assert_eq!(effects, [Effect::WriteLog { waiter: first, base_offset: 0, epoch: 1 }]);
    let (second, effects) = bench.append(Acks::All, 2);
    assert_eq!(effects, [Effect::WriteLog { waiter: second, base_offset: 3, epoch: 1 }]);
    assert_eq!(bench.durable(3), [Effect::HighWatermark(3), completed(first, 0)]);
    assert_eq!(bench.durable(5), [Effect::HighWatermark(5), completed(second, 3)]);
}

#[test]
fn a_recovered_sole_replica_shows_what_it_recovered_once_it_leads_again() {
    let mut bench = Bench::new(LogState { start: 2, end: 9, durable_end: 9, high_watermark: 2 });
    assert_eq!(bench.partition.high_watermark(), 2);
    let effects = bench.step(Input::BecomeLeader(leadership(7, &[ME])));
    assert_eq!(effects, [Effect::BeginEpoch { epoch: 7, start: 9 }, Effect::HighWatermark(9)]);
}

#[test]
fn acks_one_waits_for_the_leaders_own_durable_end_and_acks_none_for_nothing() {
    let mut bench = Bench::leading(&[ME, OTHER, THIRD]);
    let (none, effects) = bench.append(Acks::None, 1);
    assert_eq!(effects, [Effect::WriteLog { waiter: none, base_offset: 0, epoch: 1 }, completed(none, 0)]);
    let (one, _) = bench.append(Acks::Leader, 1);
    let (all, _) = bench.append(Acks::All, 1);
    assert_eq!(bench.durable(3), [completed(one, 1)], "followers have not reported: nothing is committed");
    assert_eq!(bench.progress(OTHER, 3), []);
    assert_eq!(bench.progress(THIRD, 3), [Effect::HighWatermark(3), completed(all, 2)]);
}

#[test]
fn an_append_in_flight_does_not_survive_its_leader_epoch() {
    // Z57: leadership is lost and regained; another record takes the offset.
    let mut bench = Bench::leading(&[ME]);
    let (first, _) = bench.append(Acks::All, 1);
    let effects = bench.step(Input::BecomeFollower { epoch: 2, leader: OTHER });
    assert_eq!(effects, [failed(first, FailReason::NotLeader)]);
    let effects = bench.answer(FetchVerdict::Diverges { epoch: -1, end: 0 });
    assert_eq!(effects, [Effect::Truncate { to: 0 }]);
    bench.step(Input::BecomeLeader(leadership(3, &[ME])));
    let (second, _) = bench.append(Acks::All, 1);
    assert_eq!(bench.durable(1), [Effect::HighWatermark(1), completed(second, 0)]);
}

#[test]
fn a_new_epoch_of_the_same_leader_fails_the_waiters_of_the_old_one() {
    let mut bench = Bench::leading(&[ME]);
    let (first, _) = bench.append(Acks::Leader, 1);
    let effects = bench.step(Input::BecomeLeader(leadership(2, &[ME])));
    assert_eq!(effects, [failed(first, FailReason::NotLeader), Effect::BeginEpoch { epoch: 2, start: 1 }]);
}

#[test]
fn below_min_isr_acks_all_is_refused_and_the_high_watermark_stands() {
    // Z61
    let mut bench = Bench::leading(&[ME, OTHER, THIRD]);
    let (early, _) = bench.append(Acks::All, 1);
    bench.committed_isr(2, &[ME]);
    assert_eq!(bench.durable(1), []);
    let (late, effects) = bench.append(Acks::All, 1);
    assert_eq!(effects, [failed(late, FailReason::NotEnoughReplicas)]);
    let (weak, _) = bench.append(Acks::Leader, 1);
    assert_eq!(bench.durable(2), [completed(weak, 1)]);
    let effects = bench.step(Input::Expire { waiter: early });
    assert_eq!(effects, [failed(early, FailReason::NotEnoughReplicasAfterAppend)]);
    assert_eq!(bench.partition.high_watermark(), 0);
}

#[test]
fn a_full_disk_fails_what_was_cut_and_nothing_else() {
    let mut bench = Bench::leading(&[ME]);
    let (kept, _) = bench.append(Acks::All, 1);
    let (cut, _) = bench.append(Acks::All, 2);
    assert_eq!(bench.step(Input::AppendFailed { from: 1 }), [failed(cut, FailReason::StorageFailed)]);
    assert_eq!(bench.durable(1), [Effect::HighWatermark(1), completed(kept, 0)]);
    let (again, effects) = bench.append(Acks::All, 1);
    assert_eq!(effects, [Effect::WriteLog { waiter: again, base_offset: 1, epoch: 1 }]);
}

#[test]
fn a_leader_whose_cut_records_may_live_elsewhere_gives_their_names_to_no_other_record() {
    // Contract 4: the follower may hold (epoch 1, offset 0) already.
    let mut bench = Bench::leading(&[ME, OTHER]);
    let (cut, _) = bench.append(Acks::All, 1);
    bench.step(Input::Shipped { end: 1 });
    let effects = bench.step(Input::AppendFailed { from: 0 });
    assert_eq!(effects, [failed(cut, FailReason::NotLeader), Effect::RequestNewEpoch { epoch: 1 }]);
    let (refused, effects) = bench.append(Acks::All, 1);
    assert_eq!(effects, [failed(refused, FailReason::NotLeader)]);
    bench.step(Input::BecomeLeader(leadership(2, &[ME, OTHER])));
    let (again, effects) = bench.append(Acks::All, 1);
    assert_eq!(effects, [Effect::WriteLog { waiter: again, base_offset: 0, epoch: 2 }]);
}

#[test]
fn a_failed_folder_acknowledges_nothing_ever_again() {
    // Contract 8
    let mut bench = Bench::leading(&[ME]);
    let (first, _) = bench.append(Acks::All, 1);
    assert_eq!(bench.step(Input::FolderFailed), [failed(first, FailReason::StorageFailed)]);
    assert_eq!(bench.durable(1), []);
    assert_eq!(bench.step(Input::BecomeLeader(leadership(9, &[ME]))), []);
    let (second, effects) = bench.append(Acks::None, 1);
    assert_eq!(effects, [failed(second, FailReason::StorageFailed)]);
    assert_eq!(bench.partition.check_epoch(None), Err(FailReason::StorageFailed));
}

/// The only record of a batch of producer 7.
fn of_producer(waiter: u64, epoch: i16, sequence: i32) -> Input {
    let producer =
        Claim { producer: 7, epoch, first_sequence: sequence, last_sequence: sequence, max_timestamp_ms: -1 };
    Input::Append {
        waiter: WaiterId(waiter),
        acks: Acks::All,
        count: 1,
        epoch: None,
        producer: Some(producer),
        now_ms: 0,
    }
}

#[test]
fn a_repeated_batch_waits_under_the_same_rule_as_the_first() {
    // Z56, contract 4, K12
    let mut bench = Bench::leading(&[ME]);
    let written = |waiter, base_offset| Effect::WriteLog { waiter: WaiterId(waiter), base_offset, epoch: 1 };
    assert_eq!(bench.step(of_producer(100, 0, 0)), [written(100, 0)]);
    assert_eq!(bench.step(of_producer(101, 0, 1)), [written(101, 1)]);
    assert_eq!(bench.step(of_producer(102, 0, 0)), [], "the first is not committed yet");
    let effects = bench.durable(1);
    let answered = [Effect::HighWatermark(1), completed(WaiterId(100), 0), completed(WaiterId(102), 0)];
    assert_eq!(effects, answered);
    assert_eq!(bench.step(of_producer(103, 0, 0)), [completed(WaiterId(103), 0)]);
    assert_eq!(bench.durable(2), [Effect::HighWatermark(2), completed(WaiterId(101), 1)]);
}

#[test]
fn a_batch_out_of_its_order_and_a_fenced_producer_append_nothing() {
    // K12, contract 11
    let mut bench = Bench::leading(&[ME]);
    bench.step(of_producer(100, 1, 0));
    assert_eq!(bench.step(of_producer(101, 1, 2)), [failed(WaiterId(101), FailReason::OutOfOrderSequence)]);
    assert_eq!(bench.step(of_producer(102, 0, 1)), [failed(WaiterId(102), FailReason::InvalidProducerEpoch)]);
    assert_eq!(bench.partition.end(), 1);
}

#[test]
fn a_batch_that_was_cut_is_appended_when_it_comes_again() {
    let mut bench = Bench::leading(&[ME]);
    bench.step(of_producer(100, 0, 0));
    bench.step(of_producer(101, 0, 1));
    bench.step(Input::AppendFailed { from: 1 });
    let again = Effect::WriteLog { waiter: WaiterId(102), base_offset: 1, epoch: 1 };
    assert_eq!(bench.step(of_producer(102, 0, 1)), [again]);
}

#[test]
fn producers_that_are_idle_are_forgotten_here_and_in_storage() {
    let mut bench = Bench::leading(&[ME]);
    bench.step(of_producer(100, 0, 0));
    assert_eq!(bench.step(Input::ExpireProducers { now_ms: 9, idle_ms: 10 }), []);
    let effects = bench.step(Input::ExpireProducers { now_ms: 10, idle_ms: 10 });
    assert_eq!(effects, [Effect::ForgetProducers(vec![7])]);
    assert!(bench.partition.producers().is_empty());
}

#[test]
fn waiters_are_bounded() {
    let mut bench = Bench::leading(&[ME]);
    let waiting: Vec<_> = (0..4).map(|_| bench.append(Acks::All, 1).0).collect();
    let (refused, effects) = bench.append(Acks::All, 1);
    assert_eq!(effects, [failed(refused, FailReason::TooManyWaiters)]);
    assert_eq!(bench.partition.end(), 4, "nothing was appended");
    bench.step(Input::Expire { waiter: waiting[1] });
    let (_, effects) = bench.append(Acks::All, 1);
    assert!(matches!(effects[..], [Effect::WriteLog { base_offset: 4, .. }]));
}

#[test]
fn a_request_that_names_another_epoch_is_told_which_way_it_is_wrong() {
    // KIP-320, contract 10
    let mut bench = Bench::leading(&[ME]);
    assert_eq!(bench.partition.check_epoch(Some(0)), Err(FailReason::FencedLeaderEpoch));
    assert_eq!(bench.partition.check_epoch(Some(2)), Err(FailReason::UnknownLeaderEpoch));
    assert_eq!(bench.partition.check_epoch(Some(1)), Ok(1));
    let input = Input::Append {
        waiter: WaiterId(9),
        acks: Acks::All,
        count: 1,
        epoch: Some(0),
        producer: None,
        now_ms: 0,
    };
    assert_eq!(bench.step(input), [failed(WaiterId(9), FailReason::FencedLeaderEpoch)]);
}

#[test]
fn old_news_of_leadership_is_ignored() {
    let mut bench = Bench::leading(&[ME]);
    assert_eq!(bench.step(Input::BecomeLeader(leadership(1, &[ME]))), []);
    assert_eq!(bench.step(Input::Resign { epoch: 0 }), []);
    assert!(bench.partition.is_leader());
    bench.step(Input::Resign { epoch: 5 });
    assert_eq!(bench.step(Input::BecomeLeader(leadership(5, &[ME]))), []);
    assert_eq!(bench.partition.check_epoch(None), Err(FailReason::NotLeader));
}

#[test]
fn deleting_all_records_lifts_the_high_watermark_to_the_start() {
    // Z14
    let mut bench = Bench::leading(&[ME]);
    bench.append(Acks::All, 5);
    bench.durable(5);
    bench.step(Input::StartOffset { start: 3 });
    assert_eq!((bench.partition.start(), bench.partition.high_watermark()), (3, 5));
    bench.step(Input::Resign { epoch: 2 });
    assert_eq!(bench.step(Input::StartOffset { start: 8 }), [Effect::HighWatermark(8)]);
}
