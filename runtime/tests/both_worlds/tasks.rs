//! Tasks and randomness.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;
use weir_runtime::task::{JoinError, spawn, yield_now};
use weir_runtime::{random, time};

use crate::both_worlds;
use crate::harness::Place;

both_worlds!(
    a_task_gives_its_result,
    a_task_runs_on_when_its_handle_is_dropped,
    an_aborted_task_stops_and_drops_what_it_holds,
    yielding_lets_others_run,
    random_numbers_differ_and_keep_their_bounds,
);

async fn a_task_gives_its_result(_place: Place) {
    let tasks: Vec<_> = (0..100).map(|n| spawn("number", async move { n })).collect();
    let mut sum = 0;
    for task in tasks {
        sum += task.await.unwrap();
    }
    assert_eq!(sum, 4950);
}

async fn a_task_runs_on_when_its_handle_is_dropped(_place: Place) {
    let (done, waiting) = oneshot::channel();
    drop(spawn("detached", async move {
        time::sleep(Duration::from_millis(5)).await;
        done.send("done").unwrap();
    }));
    assert_eq!(waiting.await, Ok("done"));
}

async fn an_aborted_task_stops_and_drops_what_it_holds(_place: Place) {
    let (held, dropped) = oneshot::channel::<()>();
    let task = spawn("aborted", async move {
        std::future::pending::<()>().await;
        drop(held);
    });
    yield_now().await;
    assert!(!task.is_finished());
    task.abort();
    assert!(dropped.await.is_err());
    assert_eq!(task.await, Err(JoinError::Aborted { name: "aborted" }));

    let finished = spawn("finished", async { 5 });
    while !finished.is_finished() {
        yield_now().await;
    }
    finished.abort();
    assert_eq!(finished.await, Ok(5), "too late to be aborted");
}

async fn yielding_lets_others_run(_place: Place) {
    let count = Arc::new(AtomicU32::new(0));
    let other = count.clone();
    let task = spawn("count", async move { other.fetch_add(1, Ordering::Relaxed) });
    let limit = time::now() + Duration::from_secs(10);
    while count.load(Ordering::Relaxed) == 0 {
        assert!(time::now() < limit);
        yield_now().await;
    }
    task.await.unwrap();
}

async fn random_numbers_differ_and_keep_their_bounds(_place: Place) {
    let numbers: BTreeSet<u64> = (0..1000).map(|_| random::u64()).collect();
    assert_eq!(numbers.len(), 1000);
    let small: BTreeSet<u64> = (0..1000).map(|_| random::below(5)).collect();
    assert_eq!(small, BTreeSet::from([0, 1, 2, 3, 4]));
    assert_eq!((random::below(0), random::below(1)), (0, 0));
    let id = random::uuid_bytes();
    assert_eq!((id[6] >> 4, id[8] >> 6), (4, 2), "version and variant of RFC 9562");
    assert_ne!(id, random::uuid_bytes());
}
