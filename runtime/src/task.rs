//! Tasks, and the main function of a process.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::imp;

/// How the runtime of a real process is built.
#[derive(Debug, Clone)]
pub struct RuntimeOptions {
    /// Worker threads; `None`: one per core.
    pub worker_threads: Option<usize>,
    /// The name of the worker threads.
    pub thread_name: &'static str,
}

impl Default for RuntimeOptions {
    fn default() -> Self {
        RuntimeOptions { worker_threads: None, thread_name: "weir-worker" }
    }
}

/// Why a task has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// The task was aborted, or its runtime or node has stopped.
    #[error("task {name} was aborted")]
    Aborted {
        /// The name under which the task was spawned.
        name: &'static str,
    },
    /// The task panicked.
    #[error("task {name} panicked: {message}")]
    Panicked {
        /// The name under which the task was spawned.
        name: &'static str,
        /// What the panic said.
        message: String,
    },
}

/// A running task. Await it for its result; drop it and the task runs on.
pub struct JoinHandle<T>(imp::task::Handle<T>);

impl<T> JoinHandle<T> {
    #[cfg_attr(not(madsim), allow(dead_code, reason = "the simulation starts tasks on other nodes"))]
    pub(crate) fn from_imp(handle: imp::task::Handle<T>) -> JoinHandle<T> {
        JoinHandle(handle)
    }

    /// Stops the task at its next await. Does nothing when it has finished.
    pub fn abort(&self) {
        self.0.abort();
    }

    /// Whether the task has ended, for whatever reason.
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll(cx)
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle").field("is_finished", &self.is_finished()).finish()
    }
}

/// Starts a task. `name` shows up in logs when it panics, and in a simulation's trace.
pub fn spawn<F>(name: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    JoinHandle(imp::task::spawn(name, future))
}

/// Lets other tasks run before this one goes on.
pub async fn yield_now() {
    imp::task::yield_now().await;
}

/// Runs a future to its end on a new runtime: the main function of a real process. Tasks that still run when the future is
/// done are dropped.
///
/// # Errors
/// When the runtime's threads cannot be started; in a simulation always, because there the simulation is the runtime.
pub fn block_on<F: Future>(options: RuntimeOptions, future: F) -> io::Result<F::Output> {
    imp::task::block_on(options, future)
}

/// Waits until the process is asked to stop with SIGINT or SIGTERM. In a simulation
/// [`crate::simulation::World::interrupt`] asks.
///
/// From the first call on these signals no longer end the process by themselves; one that comes while nobody waits is lost,
/// so make one future and keep it.
pub async fn interrupted() {
    imp::task::interrupted().await;
}
