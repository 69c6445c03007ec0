//! Tasks on tokio's multi-thread runtime.

use std::any::Any;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::task::{JoinError, RuntimeOptions};

/// How long the end of a runtime waits for its threads.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(2);

pub(crate) struct Handle<T> {
    name: &'static str,
    task: tokio::task::JoinHandle<T>,
}

impl<T> Handle<T> {
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<T, JoinError>> {
        let name = self.name;
        Pin::new(&mut self.task).poll(cx).map(|joined| {
            joined.map_err(|error| match error.try_into_panic() {
                Ok(panic) => JoinError::Panicked { name, message: message(panic.as_ref()) },
                Err(_) => JoinError::Aborted { name },
            })
        })
    }

    pub(crate) fn abort(&self) {
        self.task.abort();
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.task.is_finished()
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("(no message)").to_owned()
}

/// Logs the name of a task that panics, for nobody may be waiting for it.
struct PanicReport(&'static str);

impl Drop for PanicReport {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(task = self.0, "task panicked");
        }
    }
}

pub(crate) fn spawn<F>(name: &'static str, future: F) -> Handle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let task = tokio::spawn(async move {
        let _report = PanicReport(name);
        future.await
    });
    Handle { name, task }
}

pub(crate) async fn yield_now() {
    tokio::task::yield_now().await;
}

pub(crate) fn block_on<F: Future>(options: RuntimeOptions, future: F) -> io::Result<F::Output> {
    super::memory::keep_freed();
    super::open_files::raise_limit();
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = options.worker_threads {
        builder.worker_threads(threads.max(1));
    }
    let runtime = builder.thread_name(options.thread_name).enable_all().build()?;
    let output = runtime.block_on(future);
    // Tasks are dropped; a resolver that hangs in a blocking thread is not waited for.
    runtime.shutdown_timeout(SHUTDOWN_LIMIT);
    Ok(output)
}

pub(crate) async fn interrupted() {
    let signals = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    let (mut interrupt, mut terminate) = match signals {
        (Ok(interrupt), Ok(terminate)) => (interrupt, terminate),
        (Err(error), _) | (_, Err(error)) => {
            tracing::warn!(%error, "signals cannot be handled: only SIGKILL will stop this process cleanly");
            return std::future::pending().await;
        }
    };
    crate::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
