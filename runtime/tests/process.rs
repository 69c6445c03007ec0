//! What only a real process has: signals, panicking tasks, a runtime of its own.
#![cfg(not(madsim))]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::pin::pin;
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};
use tokio::sync::oneshot;
use weir_runtime::task::{JoinError, RuntimeOptions, block_on, interrupted, spawn};
use weir_runtime::time::timeout;

fn run<F: Future>(future: F) -> F::Output {
    let limited = timeout(Duration::from_secs(30), future);
    block_on(RuntimeOptions { worker_threads: Some(1), thread_name: "process-test" }, limited)
        .unwrap()
        .unwrap()
}

#[test]
fn signals_interrupt() {
    run(async {
        for signal in [Signal::TERM, Signal::INT] {
            let mut waiting = pin!(interrupted());
            let early = timeout(Duration::from_millis(1), waiting.as_mut()).await;
            assert!(early.is_err(), "nobody asked yet");
            kill_process(getpid(), signal).unwrap();
            waiting.await;
        }
    });
}

#[test]
fn a_panic_ends_its_task_alone() {
    run(async {
        let task = spawn("careless", async { panic!("by {}", "intent") });
        let error: JoinError = task.await.unwrap_err();
        assert_eq!(error, JoinError::Panicked { name: "careless", message: "by intent".to_owned() });
        assert_eq!(error.to_string(), "task careless panicked: by intent");
        assert_eq!(spawn("next", async { 1 }).await, Ok(1));
    });
}

#[test]
fn the_end_of_the_main_future_drops_the_other_tasks() {
    let (held, dropped) = oneshot::channel::<()>();
    run(async {
        drop(spawn("forever", async move {
            std::future::pending::<()>().await;
            drop(held);
        }));
    });
    assert!(dropped.blocking_recv().is_err());
}

#[test]
fn tasks_run_on_the_named_threads() {
    run(async {
        let name = spawn("who", async { std::thread::current().name().map(str::to_owned) }).await.unwrap();
        assert_eq!(name.as_deref(), Some("process-test"));
    });
}
