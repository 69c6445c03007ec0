//! Batches on their way to the threads.

use std::collections::VecDeque;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::{Lock, file, run};
use crate::disk::{BatchError, Done, Op};

pub(super) enum Work {
    Batch(Job),
    /// Closing a file can take long: a removed one gives its blocks back only now.
    Close(fs::File),
}

pub(super) struct Job {
    pub(super) ops: Vec<Op>,
    pub(super) reply: oneshot::Sender<Result<Vec<Done>, BatchError>>,
    pub(super) lock: Lock,
}

/// The queues of one folder. Dropping them lets the threads end when they have finished what is queued.
pub(super) struct Queues {
    pub(super) journal: Arc<Queue>,
    pub(super) pool: Arc<Queue>,
}

impl Drop for Queues {
    fn drop(&mut self) {
        self.journal.close();
        self.pool.close();
    }
}

/// What threads work off. It has no bound of its own: who submits has one, in bytes, and waits for completions.
pub(super) struct Queue {
    state: Mutex<State>,
    ready: Condvar,
}

struct State {
    works: VecDeque<Work>,
    /// No more work will come: threads end when the queue is empty.
    closed: bool,
}

impl Queue {
    pub(super) fn new() -> Arc<Queue> {
        let state = State { works: VecDeque::new(), closed: false };
        Arc::new(Queue { state: Mutex::new(state), ready: Condvar::new() })
    }

    /// Nothing that can panic runs under the lock.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues work. In a closed queue it is dropped: the reply of a batch, which tells the one who waits, or the file.
    pub(super) fn push(&self, work: Work) {
        let mut state = self.state();
        if state.closed {
            drop(state);
            drop(work);
            return;
        }
        state.works.push_back(work);
        drop(state);
        self.ready.notify_one();
    }

    fn close(&self) {
        self.state().closed = true;
        self.ready.notify_all();
    }

    /// The next work; `None` when there will not be any more.
    fn pop(&self) -> Option<Work> {
        let mut state = self.state();
        loop {
            if let Some(work) = state.works.pop_front() {
                return Some(work);
            }
            if state.closed {
                return None;
            }
            state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A thread's life.
    pub(super) fn work(&self, root: &Path, closer: &Arc<Queue>) {
        let _guard = FailOnPanic(self);
        while let Some(work) = self.pop() {
            match work {
                Work::Close(file) => drop(file),
                Work::Batch(Job { ops, reply, lock }) => {
                    let mut behind = Vec::new();
                    let result = run::batch(root, closer, ops, &mut behind);
                    // First the lock and then the answer, so that whoever has all answers and drops the disk can open it again.
                    drop(lock);
                    // A failing send means that nobody waits any more, which is allowed.
                    let _ = reply.send(result);
                    file::begin_write_back(behind.iter());
                }
            }
        }
    }
}

/// If a thread panics in spite of everything, its queue takes no more work and says so, instead of never answering.
struct FailOnPanic<'a>(&'a Queue);

impl Drop for FailOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("a disk thread panicked: the data folder takes no more work");
            let works = {
                let mut state = self.0.state();
                state.closed = true;
                std::mem::take(&mut state.works)
            };
            drop(works);
            self.0.ready.notify_all();
        }
    }
}
