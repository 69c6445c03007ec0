//! A value that one side changes and many sides follow: `tokio::sync::watch`, but deterministic.
//!
//! Tokio's wakes its receivers in an order that is drawn from a generator of its own, which no seed controls. Here they are
//! woken in the order in which they began to wait.

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::Notify;

/// Makes a value and its first follower.
pub fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
    let sender = Sender::new(value);
    let receiver = sender.subscribe();
    (sender, receiver)
}

#[derive(Debug)]
struct Shared<T> {
    value: RwLock<T>,
    /// Grows with each change.
    version: AtomicU64,
    closed: AtomicBool,
    changed: Notify,
}

impl<T> Shared<T> {
    // A panic while the value is held leaves it as it is: there is no half-done state that a lock would have to guard.
    fn read(&self) -> RwLockReadGuard<'_, T> {
        self.value.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.value.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The side that changes the value. When it is dropped, nothing changes any more, and those who wait are told.
#[derive(Debug)]
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Sender<T> {
    /// A value without followers.
    pub fn new(value: T) -> Sender<T> {
        let shared = Shared {
            value: RwLock::new(value),
            version: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            changed: Notify::new(),
        };
        Sender { shared: Arc::new(shared) }
    }

    /// A follower that has seen the value as it is now.
    pub fn subscribe(&self) -> Receiver<T> {
        Receiver { seen: self.shared.version.load(Ordering::Acquire), shared: Arc::clone(&self.shared) }
    }

    /// The value, locked while it is looked at.
    pub fn borrow(&self) -> Ref<'_, T> {
        Ref(self.shared.read())
    }

    /// Replaces the value and returns the old one.
    pub fn send_replace(&self, value: T) -> T {
        let old = std::mem::replace(&mut *self.shared.write(), value);
        self.tell();
        old
    }

    /// Changes the value.
    pub fn send_modify(&self, change: impl FnOnce(&mut T)) {
        change(&mut self.shared.write());
        self.tell();
    }

    /// Changes the value, and tells followers if `change` says that it did.
    pub fn send_if_modified(&self, change: impl FnOnce(&mut T) -> bool) -> bool {
        let changed = change(&mut self.shared.write());
        if changed {
            self.tell();
        }
        changed
    }

    fn tell(&self) {
        self.shared.version.fetch_add(1, Ordering::AcqRel);
        self.shared.changed.notify_waiters();
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Release);
        self.shared.changed.notify_waiters();
    }
}

/// The other side is gone: the value does not change any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the value does not change any more")]
pub struct Closed;

/// A side that follows the value.
#[derive(Debug)]
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    seen: u64,
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Receiver<T> {
        Receiver { shared: Arc::clone(&self.shared), seen: self.seen }
    }
}

impl<T> Receiver<T> {
    /// The value, locked while it is looked at.
    pub fn borrow(&self) -> Ref<'_, T> {
        Ref(self.shared.read())
    }

    /// Whether the value cannot change any more.
    pub fn is_closed(&self) -> bool {
        self.shared.closed.load(Ordering::Acquire)
    }

    /// Waits until the value has changed since this was last asked; cancel-safe.
    ///
    /// # Errors
    /// [`Closed`] when it cannot change any more.
    pub async fn changed(&mut self) -> Result<(), Closed> {
        loop {
            // Registered before the look, or a change between the two would be missed.
            let mut change = std::pin::pin!(self.shared.changed.notified());
            change.as_mut().enable();
            let version = self.shared.version.load(Ordering::Acquire);
            if version != self.seen {
                self.seen = version;
                return Ok(());
            }
            if self.shared.closed.load(Ordering::Acquire) {
                return Err(Closed);
            }
            change.await;
        }
    }

    /// Waits until the value is as wanted, and returns it, locked; cancel-safe.
    ///
    /// # Errors
    /// [`Closed`] when it is not and cannot change any more.
    pub async fn wait_for(&mut self, wanted: impl Fn(&T) -> bool) -> Result<Ref<'_, T>, Closed> {
        let shared = &*self.shared;
        loop {
            let mut change = std::pin::pin!(shared.changed.notified());
            change.as_mut().enable();
            let closed = shared.closed.load(Ordering::Acquire);
            if wanted(&shared.read()) {
                break;
            }
            if closed {
                return Err(Closed);
            }
            change.await;
        }
        self.seen = shared.version.load(Ordering::Acquire);
        Ok(Ref(shared.read()))
    }
}

/// The value, locked while it is looked at.
#[derive(Debug)]
pub struct Ref<'a, T>(RwLockReadGuard<'a, T>);

impl<T> Deref for Ref<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

#[cfg(all(test, not(madsim)))] // the same code in either build; driven by the real one
mod tests {
    use super::*;
    use crate::task::{self, RuntimeOptions};

    #[test]
    fn a_follower_sees_changes_and_the_end() {
        let run = async {
            let (sender, mut receiver) = channel(1);
            let follower = task::spawn("follower", async move {
                let four = *receiver.wait_for(|value| *value == 4).await.unwrap();
                let ended = receiver.wait_for(|value| *value == 5).await.is_err();
                (four, ended, *receiver.borrow())
            });
            sender.send_replace(3);
            task::yield_now().await;
            sender.send_modify(|value| *value += 1);
            assert!(!sender.send_if_modified(|_| false));
            task::yield_now().await;
            drop(sender);
            assert_eq!(follower.await.unwrap(), (4, true, 4));
        };
        task::block_on(RuntimeOptions::default(), run).unwrap();
    }

    #[test]
    fn a_change_is_seen_once() {
        let run = async {
            let (sender, mut receiver) = channel(());
            sender.send_replace(());
            assert_eq!(receiver.changed().await, Ok(()));
            drop(sender);
            assert_eq!(receiver.changed().await, Err(Closed));
        };
        task::block_on(RuntimeOptions::default(), run).unwrap();
    }
}
