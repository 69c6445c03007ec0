use super::*;

fn history(entries: &[(LeaderEpoch, Offset)]) -> EpochHistory {
    let mut history = EpochHistory::new();
    for (epoch, start) in entries {
        assert!(history.begin(*epoch, *start));
    }
    history
}

#[test]
fn the_end_of_an_epoch_is_the_start_of_the_next_one_kip_279() {
    let history = history(&[(2, 5), (4, 10), (7, 10), (9, 30)]);
    assert_eq!(history.end_of(9, 42), Some((9, 42)), "the latest ends with the log");
    assert_eq!(history.end_of(10, 42), None, "nothing is known of the future");
    assert_eq!(history.end_of(7, 42), Some((7, 30)));
    assert_eq!(history.end_of(4, 42), Some((4, 10)), "an epoch followed by one without records");
    assert_eq!(
        history.end_of(5, 42),
        Some((4, 10)),
        "an unknown epoch: the one below, so that the asker tries again"
    );
    assert_eq!(history.end_of(1, 42), Some((1, 5)), "below all");
    assert_eq!(EpochHistory::new().end_of(0, 42), None);
}

#[test]
fn an_epoch_begins_once() {
    let mut history = history(&[(1, 0), (3, 8)]);
    assert!(!history.begin(3, 12), "a second append of the epoch");
    assert_eq!(history.latest(), Some(EpochEntry { epoch: 3, start: 8 }));
}

#[test]
fn a_cut_forgets_the_epochs_above_it_and_empty_ones_at_it() {
    let mut history = history(&[(1, 0), (3, 8), (4, 8), (5, 20)]);
    history.truncate(9);
    assert_eq!(history.latest(), Some(EpochEntry { epoch: 4, start: 8 }));
    history.truncate(8);
    assert_eq!(history.entries(), [EpochEntry { epoch: 1, start: 0 }]);
    assert_eq!(history.epoch_at(3), Some(1));
    assert_eq!(history.epoch_at(-1), None);
}

#[test]
fn entries_that_were_left_over_give_way() {
    let mut history = history(&[(1, 0), (5, 20)]);
    assert!(history.begin(5, 10));
    assert_eq!(history.entries(), [EpochEntry { epoch: 1, start: 0 }, EpochEntry { epoch: 5, start: 10 }]);
    assert!(history.begin(4, 10), "a record of epoch 4 at 10: epoch 5 cannot have begun there");
    assert_eq!(history.entries(), [EpochEntry { epoch: 1, start: 0 }, EpochEntry { epoch: 4, start: 10 }]);
}

#[test]
fn an_epoch_goes_on_before_one_that_is_known_to_follow() {
    let mut history = history(&[(5, 55), (7, 81), (8, 157)]);
    assert!(!history.begin(7, 145));
    assert_eq!(history.end_of(7, 200), Some((7, 157)));
    assert!(history.begin(6, 70));
    assert_eq!(history.end_of(6, 200), Some((6, 81)));
    history.bound(157);
    assert_eq!(history.latest(), Some(EpochEntry { epoch: 8, start: 157 }));
    history.bound(156);
    assert_eq!(history.latest(), Some(EpochEntry { epoch: 7, start: 81 }));
}

#[test]
fn a_new_start_moves_the_oldest_epoch() {
    let mut history = history(&[(1, 0), (3, 8), (5, 20)]);
    history.trim(12);
    assert_eq!(history.entries(), [EpochEntry { epoch: 3, start: 12 }, EpochEntry { epoch: 5, start: 20 }]);
    history.trim(12);
    history.trim(40);
    assert_eq!(
        history.entries(),
        [EpochEntry { epoch: 5, start: 40 }],
        "the log is empty, the epoch is known"
    );
}
