//! Scenarios of [`super::producers`].

use super::producers::*;

fn claim(producer: i64, epoch: i16, first_sequence: i32, count: i32) -> Claim {
    let last = (i64::from(first_sequence) + i64::from(count) - 1) & i64::from(i32::MAX);
    Claim { producer, epoch, first_sequence, last_sequence: last as i32, max_timestamp_ms: 7 }
}

/// Appends if the table lets it.
fn append(table: &mut Producers, claim: Claim, base_offset: i64, count: i64) -> Verdict {
    let verdict = table.check(&claim);
    if verdict == Verdict::Append {
        table.note(&ProducerBatch { claim, base_offset, next_offset: base_offset + count }, 0);
        assert_eq!(table.invariants(base_offset + count), Ok(()));
    }
    verdict
}

#[test]
fn the_last_five_batches_are_recognized_and_no_older_one() {
    // K12
    let mut table = Producers::default();
    for number in 0..7 {
        assert_eq!(
            append(&mut table, claim(1, 0, number * 10, 10), i64::from(number) * 10, 10),
            Verdict::Append
        );
    }
    for number in 2..7 {
        let base_offset = i64::from(number) * 10;
        let repeated = Verdict::Repeated { base_offset, next_offset: base_offset + 10 };
        assert_eq!(table.check(&claim(1, 0, number * 10, 10)), repeated);
    }
    assert_eq!(table.check(&claim(1, 0, 10, 10)), Verdict::OutOfOrder);
    assert_eq!(table.check(&claim(1, 0, 60, 9)), Verdict::OutOfOrder, "another batch");
    assert_eq!(table.check(&claim(1, 0, 80, 1)), Verdict::OutOfOrder, "one is missing between");
    assert_eq!(table.check(&claim(1, 0, 70, 1)), Verdict::Append);
}

#[test]
fn the_sequence_wraps_to_zero() {
    // K12
    let mut table = Producers::default();
    append(&mut table, claim(1, 0, i32::MAX - 1, 4), 0, 4);
    assert_eq!(
        table.check(&claim(1, 0, i32::MAX - 1, 4)),
        Verdict::Repeated { base_offset: 0, next_offset: 4 }
    );
    assert_eq!(table.check(&claim(1, 0, 3, 1)), Verdict::OutOfOrder);
    assert_eq!(append(&mut table, claim(1, 0, 2, 1), 4, 1), Verdict::Append);
    append(&mut table, claim(2, 0, i32::MAX, 1), 5, 1);
    assert_eq!(table.check(&claim(2, 0, 0, 1)), Verdict::Append);
}

#[test]
fn a_log_that_is_gone_through_tells_that_its_leader_had_forgotten_the_producer() {
    // K12
    let mut table = Producers::default();
    for (first_sequence, base_offset) in [(0, 0), (5, 5), (90, 10)] {
        let claim = claim(1, 0, first_sequence, 5);
        table.note(&ProducerBatch { claim, base_offset, next_offset: base_offset + 5 }, 0);
        assert_eq!(table.invariants(base_offset + 5), Ok(()));
    }
    assert_eq!(table.check(&claim(1, 0, 5, 5)), Verdict::OutOfOrder, "forgotten is forgotten");
    table.cut(10);
    assert_eq!(table.invariants(10), Ok(()));
    assert_eq!(table.check(&claim(1, 0, 90, 5)), Verdict::Append);
}

#[test]
fn a_newer_epoch_begins_at_zero_and_fences_the_older() {
    let mut table = Producers::default();
    append(&mut table, claim(1, 3, 0, 5), 0, 5);
    assert_eq!(table.check(&claim(1, 4, 5, 1)), Verdict::OutOfOrder);
    assert_eq!(append(&mut table, claim(1, 4, 0, 1), 5, 1), Verdict::Append);
    assert_eq!(table.check(&claim(1, 3, 5, 1)), Verdict::Fenced);
    assert_eq!(table.check(&claim(1, 3, 0, 5)), Verdict::Fenced, "also its old batches");
}

#[test]
fn a_producer_whose_state_expired_may_start_again_anywhere() {
    // K12
    let mut table = Producers::default();
    append(&mut table, claim(1, 0, 0, 5), 0, 5);
    append(&mut table, claim(2, 0, 0, 5), 5, 5);
    table.note(&ProducerBatch { claim: claim(2, 0, 5, 1), base_offset: 10, next_offset: 11 }, 50);
    assert_eq!(table.expire(100, 60), [1]);
    assert_eq!(table.check(&claim(1, 0, 5, 1)), Verdict::Append);
    assert_eq!(table.check(&claim(2, 0, 9, 1)), Verdict::OutOfOrder);
}

#[test]
fn what_was_cut_is_expected_anew() {
    let mut table = Producers::default();
    for number in 0..4 {
        append(&mut table, claim(1, 0, number, 1), i64::from(number), 1);
    }
    append(&mut table, claim(2, 5, 40, 1), 4, 1);
    table.cut(2);
    assert_eq!(table.invariants(2), Ok(()));
    assert_eq!(table.check(&claim(1, 0, 1, 1)), Verdict::Repeated { base_offset: 1, next_offset: 2 });
    assert_eq!(table.check(&claim(1, 0, 3, 1)), Verdict::OutOfOrder);
    assert_eq!(append(&mut table, claim(1, 0, 2, 1), 2, 1), Verdict::Append);
    assert_eq!(append(&mut table, claim(2, 5, 40, 1), 3, 1), Verdict::Append);
}

#[test]
fn going_through_a_log_twice_changes_nothing() {
    let mut table = Producers::default();
    let batch = |number: i32| ProducerBatch {
        claim: claim(1, 0, number, 1),
        base_offset: number.into(),
        next_offset: i64::from(number) + 1,
    };
    (0..8).for_each(|number| table.note(&batch(number), 0));
    let once = table.clone();
    (0..8).for_each(|number| table.note(&batch(number), 0));
    assert_eq!(table, once);
}

#[test]
fn the_number_of_producers_is_bounded() {
    let mut table = Producers::default();
    for id in 0..=PRODUCERS_MAX as i64 {
        let batch = ProducerBatch { claim: claim(id, 0, 0, 1), base_offset: id, next_offset: id + 1 };
        table.note(&batch, id);
    }
    assert!(table.len() <= PRODUCERS_MAX);
    assert_eq!(table.check(&claim(0, 0, 0, 1)), Verdict::Append, "idle for longest");
    assert!(matches!(table.check(&claim(PRODUCERS_MAX as i64, 0, 0, 1)), Verdict::Repeated { .. }));
}
