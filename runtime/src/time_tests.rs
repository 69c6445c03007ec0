use super::*;

fn at(seconds: u64) -> Instant {
    Instant::ORIGIN + Duration::from_secs(seconds)
}

#[test]
fn instants_saturate_instead_of_wrapping() {
    assert_eq!(at(1) - at(3), Duration::ZERO);
    assert_eq!(at(3) - at(1), Duration::from_secs(2));
    assert_eq!(at(3) + Duration::MAX, Instant::FAR_FUTURE);
    assert_eq!(at(3).since_origin(), Duration::from_secs(3));
    assert_eq!(format!("{:?}", at(3) + Duration::from_nanos(7)), "3.000000007s");
}

#[test]
fn timers_come_by_time_and_then_by_insertion() {
    let mut queue = TimerQueue::new();
    assert_eq!(queue.next(), None);
    queue.insert(at(2), "second");
    queue.insert(at(1), "first");
    queue.insert(at(2), "third");
    assert_eq!((queue.len(), queue.next()), (3, Some(at(1))));
    assert_eq!(queue.pop_due(Instant::ORIGIN), None, "not due yet");
    let popped: Vec<_> = std::iter::from_fn(|| queue.pop_due(at(2))).collect();
    assert_eq!(popped, ["first", "second", "third"]);
    assert!(queue.is_empty());
}

#[test]
fn a_cancelled_timer_does_not_come_and_leaves_nothing_behind() {
    let mut queue = TimerQueue::new();
    let id = queue.insert(at(1), 'a');
    queue.insert(at(1), 'b');
    assert_eq!(id.at(), at(1));
    assert_eq!(queue.cancel(id), Some('a'));
    assert_eq!(queue.cancel(id), None);
    assert_eq!(queue.pop_due(at(1)), Some('b'));
    assert!(queue.is_empty());
}
