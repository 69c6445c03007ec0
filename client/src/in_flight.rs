//! A few futures that run beside each other inside one task, without a task each.

use std::future::Future;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Futures under way. They go on only while [`InFlight::next`] is being awaited, and are dropped with it. Meant for a few
/// dozen: each wake polls them all, in the order in which they were added.
pub(crate) struct InFlight<'a, T> {
    futures: Vec<Boxed<'a, T>>,
}

impl<'a, T> InFlight<'a, T> {
    pub(crate) fn new() -> Self {
        Self { futures: Vec::new() }
    }

    pub(crate) fn push(&mut self, future: impl Future<Output = T> + Send + 'a) {
        self.futures.push(Box::pin(future));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.futures.is_empty()
    }

    /// The next result; pending while there is nothing under way. Cancel-safe.
    pub(crate) async fn next(&mut self) -> T {
        poll_fn(|cx| {
            for at in 0..self.futures.len() {
                if let Poll::Ready(result) = self.futures[at].as_mut().poll(cx) {
                    drop(self.futures.remove(at));
                    return Poll::Ready(result);
                }
            }
            Poll::Pending
        })
        .await
    }
}
