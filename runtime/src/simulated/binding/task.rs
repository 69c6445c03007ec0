//! Tasks are madsim's.

use std::future::{Future, pending, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::shared::Shared;
use crate::task::{JoinError, RuntimeOptions};

pub(crate) struct Handle<T> {
    name: &'static str,
    inner: madsim::task::JoinHandle<T>,
}

impl<T> Handle<T> {
    pub(super) fn new(name: &'static str, inner: madsim::task::JoinHandle<T>) -> Handle<T> {
        Handle { name, inner }
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<T, JoinError>> {
        // A panic ends the whole run, so that a task without a result was aborted.
        Pin::new(&mut self.inner).poll(cx).map_err(|_| JoinError::Aborted { name: self.name })
    }

    pub(crate) fn abort(&self) {
        self.inner.abort();
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.inner.is_finished()
    }
}

pub(crate) fn spawn<F>(name: &'static str, future: F) -> Handle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    Shared::current().count_task();
    Handle::new(name, madsim::task::spawn(future))
}

pub(crate) fn block_on<F: Future>(_options: RuntimeOptions, _future: F) -> io::Result<F::Output> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "in a simulation the simulation is the runtime"))
}

pub(crate) async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

pub(crate) async fn interrupted() {
    let shared = Shared::current();
    let mut asked = shared.interrupts(shared.node());
    // The sender goes with the process, and this task with it.
    if asked.wait_for(|asked| *asked).await.is_err() {
        pending::<()>().await;
    }
}
