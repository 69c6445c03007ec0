//! Time passes, and alarms go off when they should.

use std::time::Duration;

use weir_runtime::time::{Alarm, Instant, now, sleep, sleep_until, timeout, wall_ms};
use weir_runtime::{select, task};

use crate::both_worlds;
use crate::harness::Place;

both_worlds!(
    sleeping_is_never_too_short,
    the_wall_clock_is_in_this_century,
    an_alarm_goes_off_once_and_not_before_its_time,
    an_alarm_is_set_earlier_and_later,
    an_alarm_that_is_not_set_waits_for_ever,
    a_dropped_wait_loses_nothing,
    a_timeout_elapses,
    a_timeout_lets_what_is_ready_pass,
    the_first_ready_branch_wins,
);

const SHORT: Duration = Duration::from_millis(20);
const LONG: Duration = Duration::from_secs(600);

async fn sleeping_is_never_too_short(_place: Place) {
    for micros in [0, 1, 500, 1000, 1500, 20_000] {
        let start = now();
        sleep(Duration::from_micros(micros)).await;
        assert!(start.elapsed() >= Duration::from_micros(micros));
        sleep_until(start).await;
    }
    sleep_until(Instant::ORIGIN).await;
}

async fn the_wall_clock_is_in_this_century(_place: Place) {
    let ms = wall_ms();
    assert!(ms > 946_684_800_000 && ms < 4_102_444_800_000, "{ms}");
}

async fn an_alarm_goes_off_once_and_not_before_its_time(_place: Place) {
    let mut alarm = Alarm::new();
    for _ in 0..3 {
        let at = now() + SHORT;
        alarm.set(Some(at));
        alarm.wait().await;
        assert!(now() >= at);
        assert_eq!(alarm.at(), None);
        assert!(timeout(SHORT, alarm.wait()).await.is_err(), "once");
    }
    alarm.set(Some(Instant::ORIGIN));
    alarm.wait().await;
}

async fn an_alarm_is_set_earlier_and_later(_place: Place) {
    let mut alarm = Alarm::new();
    alarm.set(Some(Instant::FAR_FUTURE));
    assert!(timeout(SHORT, alarm.wait()).await.is_err());
    let earlier = now() + SHORT;
    alarm.set(Some(earlier));
    timeout(LONG, alarm.wait()).await.unwrap();
    assert!(now() >= earlier);

    alarm.set(Some(now() + SHORT));
    assert!(timeout(SHORT / 4, alarm.wait()).await.is_err());
    let later = now() + 4 * SHORT;
    alarm.set(Some(later));
    alarm.wait().await;
    assert!(now() >= later, "the first setting no longer counts");
}

async fn an_alarm_that_is_not_set_waits_for_ever(_place: Place) {
    let mut alarm = Alarm::new();
    assert!(timeout(SHORT, alarm.wait()).await.is_err());
    alarm.set(Some(now() + SHORT / 2));
    assert!(timeout(SHORT / 8, alarm.wait()).await.is_err());
    alarm.set(None);
    assert!(timeout(2 * SHORT, alarm.wait()).await.is_err(), "switched off");
}

async fn a_dropped_wait_loses_nothing(_place: Place) {
    let mut alarm = Alarm::new();
    let at = now() + SHORT;
    alarm.set(Some(at));
    let mut dropped = 0;
    while timeout(SHORT / 10, alarm.wait()).await.is_err() {
        dropped += 1;
    }
    assert!(now() >= at);
    assert!(dropped > 0);
    alarm.set(Some(now() + SHORT / 4));
    sleep(SHORT).await;
    timeout(Duration::ZERO, alarm.wait()).await.expect("it was due while nobody waited");
}

async fn a_timeout_elapses(_place: Place) {
    let start = now();
    let elapsed = timeout(SHORT, std::future::pending::<()>()).await.unwrap_err();
    assert!(start.elapsed() >= SHORT);
    assert_eq!(std::io::Error::from(elapsed).kind(), std::io::ErrorKind::TimedOut);
    assert!(timeout(Duration::ZERO, std::future::pending::<()>()).await.is_err());
}

async fn a_timeout_lets_what_is_ready_pass(_place: Place) {
    assert_eq!(timeout(Duration::ZERO, async { 1 }).await, Ok(1));
    let later = async {
        sleep(SHORT).await;
        2
    };
    assert_eq!(timeout(Duration::MAX, later).await, Ok(2));
}

async fn the_first_ready_branch_wins(_place: Place) {
    for _ in 0..100 {
        let winner = select! {
            () = std::future::pending() => "pending",
            () = async {} => "first",
            () = async {} => "second",
        };
        assert_eq!(winner, "first");
    }
    let slow = task::spawn("slow", sleep(LONG));
    let winner = select! {
        _ = slow => "slow",
        () = sleep(SHORT) => "fast",
    };
    assert_eq!(winner, "fast");
}
