//! The place of one connection: it is made once for all who ask, and they go on in the order in which they have asked.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use weir_runtime::task;

use crate::connection::{Connection, ConnectionOptions};
use crate::error::Error;

type Opened = Result<Connection, Error>;

#[derive(Default)]
enum State {
    #[default]
    Empty,
    /// Who waits, in the order in which they came.
    Opening(Vec<oneshot::Sender<Opened>>),
    Open(Connection),
}

/// See the module.
#[derive(Clone, Default)]
pub(crate) struct Slot(Arc<Mutex<State>>);

impl Slot {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is a connection that works, as far as is known.
    pub(crate) fn is_open(&self) -> bool {
        matches!(&*self.state(), State::Open(connection) if !connection.is_closed())
    }

    /// The connection; it is made if there is none. That takes a task of its own: whoever asks may not be polled for a
    /// while, and others wait for it too.
    ///
    /// # Errors
    /// Why it cannot be made.
    pub(crate) async fn connection(&self, address: Arc<str>, options: ConnectionOptions) -> Opened {
        let waiting = {
            let mut state = self.state();
            match &mut *state {
                State::Open(connection) if !connection.is_closed() => return Ok(connection.clone()),
                State::Opening(waiting) => {
                    let (told, opened) = oneshot::channel();
                    waiting.push(told);
                    opened
                }
                State::Open(_) | State::Empty => {
                    let (told, opened) = oneshot::channel();
                    *state = State::Opening(vec![told]);
                    task::spawn("connect", self.clone().open(address, options));
                    opened
                }
            }
        };
        waiting.await.unwrap_or(Err(Error::Closed))
    }

    async fn open(self, address: Arc<str>, options: ConnectionOptions) {
        let opened = Connection::open(address, &options).await;
        let mut state = self.state();
        let next = opened.as_ref().map_or(State::Empty, |connection| State::Open(connection.clone()));
        if let State::Opening(waiting) = std::mem::replace(&mut *state, next) {
            // All of them before anybody who comes later, who has to wait for the lock.
            for told in waiting {
                // Whoever asked may have gone.
                let _ = told.send(opened.clone());
            }
        }
    }
}
