//! What all nodes of one simulation share: the machines, and who waits for what.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::time::Duration;

use crate::watch;
use madsim::task::NodeId as TaskNode;
use madsim::time::TimeHandle;

use super::disk::Pending;
use crate::simulated::disk::{BatchId, Completion};
use crate::simulated::machines::{Machines, WORLD};
use crate::simulated::net::{EndId, ListenerId, Ready};
use crate::time::{Instant, TimerId, TimerQueue};

thread_local! {
    static CURRENT: RefCell<Option<Arc<Shared>>> = const { RefCell::new(None) };
}

/// How often the nodes may look at the clock in a millisecond. Each step of a task takes 50 ns at least, so that nobody who waits
/// for anything comes near it.
const LOOKS_AT_CLOCK_MAX: u64 = 2_000_000;

/// One simulation. It belongs to one thread; the locks are there because the product's types are `Send` and `Sync`.
///
/// Nothing is woken, sent or dropped that could run foreign code while a lock is held.
pub(crate) struct Shared {
    pub(super) machines: Arc<Mutex<Machines>>,
    time: TimeHandle,
    waits: Mutex<Waits>,
    tasks: AtomicU64,
    /// The millisecond in which nodes looked at the clock last, and how often they did.
    looked_in_ms: AtomicU64,
    looks: AtomicU64,
}

#[derive(Default)]
struct Waits {
    timers: TimerQueue<Waker>,
    readers: BTreeMap<EndId, Waker>,
    writers: BTreeMap<EndId, Waker>,
    acceptors: BTreeMap<ListenerId, Vec<Waker>>,
    batches: BTreeMap<(u32, BatchId), Pending>,
    interrupts: BTreeMap<u32, watch::Sender<bool>>,
    /// The numbers of the executor's nodes.
    numbers: BTreeMap<TaskNode, u32>,
    /// Invariant: a timer of madsim will wake the driver no later than this.
    armed: Option<Instant>,
    driver: Option<Waker>,
}

impl Shared {
    pub(super) fn new(machines: Machines) -> Arc<Shared> {
        Arc::new(Shared {
            machines: Arc::new(Mutex::new(machines)),
            time: TimeHandle::current(),
            waits: Mutex::default(),
            tasks: AtomicU64::new(0),
            looked_in_ms: AtomicU64::new(0),
            looks: AtomicU64::new(0),
        })
    }

    /// Makes this the simulation of this thread; `None` ends it.
    pub(super) fn enter(shared: Option<Arc<Shared>>) {
        CURRENT.with(|current| *current.borrow_mut() = shared);
    }

    pub(super) fn try_current() -> Option<Arc<Shared>> {
        CURRENT.try_with(|current| current.borrow().clone()).ok().flatten()
    }

    /// The simulation that runs on this thread.
    pub(super) fn current() -> Arc<Shared> {
        Shared::try_current().expect("the product runs inside weir_runtime::simulation::run only")
    }

    pub(super) fn machines(&self) -> MutexGuard<'_, Machines> {
        self.machines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waits(&self) -> MutexGuard<'_, Waits> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> Instant {
        Instant::from_origin(self.time.elapsed())
    }

    /// What a node sees when it looks at the clock.
    ///
    /// # Panics
    /// If a task goes round without waiting for anything, so that the clock stands still: the simulation would never end.
    pub(super) fn look_at_clock(&self) -> Instant {
        let now = self.now();
        let ms = now.as_nanos() / 1_000_000;
        if self.looked_in_ms.swap(ms, Ordering::Relaxed) != ms {
            self.looks.store(0, Ordering::Relaxed);
        }
        let looks = self.looks.fetch_add(1, Ordering::Relaxed);
        assert!(looks < LOOKS_AT_CLOCK_MAX, "a task of node {} goes round without waiting", self.node());
        now
    }

    /// The number of the node whose task this is.
    pub(super) fn node(&self) -> u32 {
        self.waits().numbers.get(&madsim::plugin::node()).copied().unwrap_or(WORLD)
    }

    pub(super) fn name_node(&self, task_node: TaskNode, number: u32) {
        self.waits().numbers.insert(task_node, number);
    }

    pub(super) fn count_task(&self) {
        self.tasks.fetch_add(1, Ordering::Relaxed);
    }

    /// How many tasks were started since the last call.
    pub(super) fn take_task_count(&self, at_least: u64) -> bool {
        let many = self.tasks.load(Ordering::Relaxed) >= at_least;
        if many {
            self.tasks.store(0, Ordering::Relaxed);
        }
        many
    }

    pub(super) fn add_timer(&self, at: Instant, waker: Waker) -> TimerId {
        let id = self.waits().timers.insert(at, waker);
        self.arm(Some(at));
        id
    }

    pub(super) fn cancel_timer(&self, id: TimerId) {
        let cancelled = self.waits().timers.cancel(id);
        drop(cancelled);
    }

    pub(super) fn await_readable(&self, end: EndId, waker: &Waker) {
        let old = self.waits().readers.insert(end, waker.clone());
        drop(old);
    }

    pub(super) fn await_writable(&self, end: EndId, waker: &Waker) {
        let old = self.waits().writers.insert(end, waker.clone());
        drop(old);
    }

    pub(super) fn await_acceptable(&self, listener: ListenerId, waker: &Waker) {
        let mut waits = self.waits();
        let waiting = waits.acceptors.entry(listener).or_default();
        if !waiting.iter().any(|other| other.will_wake(waker)) {
            waiting.push(waker.clone());
        }
    }

    pub(super) fn forget_end(&self, end: EndId) {
        let mut waits = self.waits();
        let gone = (waits.readers.remove(&end), waits.writers.remove(&end));
        drop(waits);
        drop(gone);
    }

    pub(super) fn forget_listener(&self, listener: ListenerId) {
        let gone = self.waits().acceptors.remove(&listener);
        drop(gone);
    }

    pub(super) fn await_batch(&self, node: u32, batch: BatchId, pending: Pending) {
        self.waits().batches.insert((node, batch), pending);
    }

    /// Whether this node's process is asked to stop.
    pub(super) fn interrupts(&self, node: u32) -> watch::Receiver<bool> {
        self.waits().interrupts.entry(node).or_insert_with(|| watch::channel(false).0).subscribe()
    }

    pub(super) fn interrupt(&self, node: u32) {
        let mut waits = self.waits();
        let sender = waits.interrupts.entry(node).or_insert_with(|| watch::channel(false).0);
        sender.send_replace(true);
    }

    /// A node's process is dead: nobody waits for its batches, and nobody asks it to stop any more.
    pub(super) fn forget_process(&self, node: u32) {
        let mut waits = self.waits();
        let interrupt = waits.interrupts.remove(&node);
        let dead: Vec<_> = waits.batches.keys().filter(|(owner, _)| *owner == node).copied().collect();
        let batches: Vec<_> = dead.iter().filter_map(|key| waits.batches.remove(key)).collect();
        drop(waits);
        drop((interrupt, batches));
    }

    /// Wakes those whom what just happened on the network concerns, and sees to it that the driver comes in time.
    pub(super) fn settle(&self) {
        let (ready, next) = {
            let mut machines = self.machines();
            (machines.net.take_ready(), machines.next_due())
        };
        self.wake(ready);
        self.arm(next);
    }

    fn wake(&self, ready: Vec<Ready>) {
        let mut wakers = Vec::new();
        let mut waits = self.waits();
        for ready in ready {
            match ready {
                Ready::Readable(end) => wakers.extend(waits.readers.remove(&end)),
                Ready::Writable(end) => wakers.extend(waits.writers.remove(&end)),
                Ready::Acceptable(listener) => {
                    wakers.extend(waits.acceptors.remove(&listener).unwrap_or_default());
                }
            }
        }
        drop(waits);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Does all that is due, and makes sure that the driver is woken for the next.
    pub(super) fn drive(self: &Arc<Self>, driver: &Waker) {
        let now = self.now();
        {
            let mut waits = self.waits();
            waits.driver = Some(driver.clone());
            if waits.armed.is_some_and(|at| at <= now) {
                waits.armed = None;
            }
        }
        let completions: Vec<(u32, Completion)> = {
            let mut machines = self.machines();
            machines.net.advance(now);
            let disks = (0..).zip(machines.disks.iter_mut());
            disks
                .flat_map(|(node, disk)| disk.take_due(now).into_iter().map(move |done| (node, done)))
                .collect()
        };
        for (node, completion) in completions {
            let pending = self.waits().batches.remove(&(node, completion.batch));
            if let Some(pending) = pending {
                pending.complete(self, node, completion);
            }
        }
        let mut timers = Vec::new();
        while let Some(waker) = { self.waits().timers.pop_due(now) } {
            timers.push(waker);
        }
        timers.into_iter().for_each(Waker::wake);
        self.settle();
        let next = self.waits().timers.next();
        self.arm(next);
    }

    /// Lets the driver look at everything again.
    pub(super) fn poke(&self) {
        let driver = self.waits().driver.clone();
        if let Some(driver) = driver {
            driver.wake();
        }
    }

    /// Sees to it that the driver is woken at `at`, or earlier.
    pub(super) fn arm(&self, at: Option<Instant>) {
        let Some(at) = at.filter(|at| *at < Instant::FAR_FUTURE) else { return };
        let mut waits = self.waits();
        if waits.armed.is_some_and(|armed| armed <= at) {
            return;
        }
        let Some(driver) = waits.driver.clone() else { return };
        waits.armed = Some(at);
        drop(waits);
        let wait = at - self.now();
        if wait.is_zero() {
            driver.wake();
            return;
        }
        // A sleep lasts a millisecond at least, a sleep that is set anew does not. Polling it leaves a timer behind that wakes
        // the driver; the sleep itself is not needed for that.
        let mut sleep = self.time.sleep(Duration::ZERO);
        let mut sleep = Pin::new(&mut sleep);
        sleep.as_mut().reset(self.time.now_instant() + wait);
        let polled = Future::poll(sleep, &mut Context::from_waker(&driver));
        debug_assert!(polled.is_pending());
    }

    /// Lets go of everything that could keep tasks alive after the run.
    pub(super) fn clear(&self) {
        let waits = std::mem::take(&mut *self.waits());
        drop(waits);
    }
}
