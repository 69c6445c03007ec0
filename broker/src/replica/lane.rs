//! What a leader knows of one follower's connection.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use weir_protocol::partition::replication::{FetchPosition, Progress};
use weir_protocol::types::{BrokerId, LogId, Offset};

use super::message::{FollowerSays, Named};

/// Partitions that one follower may follow here; one that names more is cut off.
pub(super) const POSITIONS_MAX: usize = 1 << 18;

/// The high watermark and the start of a leader's log, as a follower was told.
pub(crate) type Told = (Offset, Offset);

/// A position as the shards are asked about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) log: LogId,
    pub(crate) position: FetchPosition,
    /// Where the follower's log begins.
    pub(crate) start: Offset,
    /// What the follower was told last in this epoch; `None` if nothing.
    pub(crate) told: Option<Told>,
}

/// A follower's connection. Shards mark the partitions that there is something to say about.
#[derive(Debug)]
pub(crate) struct Lane {
    follower: BrokerId,
    state: Mutex<State>,
    ready: Notify,
}

#[derive(Debug, Default)]
struct State {
    positions: BTreeMap<LogId, Kept>,
    /// In the order in which they are served. Invariant: exactly the partitions that are `queued`.
    queue: VecDeque<LogId>,
    broker_epoch: i64,
    /// Whether a heartbeat waits for an answer.
    beat: bool,
    over: bool,
}

#[derive(Debug)]
struct Kept {
    position: FetchPosition,
    start: Offset,
    told: Option<Told>,
    /// See the module `replica`.
    armed: bool,
    queued: bool,
}

impl Lane {
    pub(crate) fn new(follower: BrokerId) -> Lane {
        let state = State { broker_epoch: -1, ..State::default() };
        Lane { follower, state: Mutex::new(state), ready: Notify::new() }
    }

    pub(crate) fn follower(&self) -> BrokerId {
        self.follower
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The follower's broker epoch; -1 before it has spoken.
    pub(crate) fn broker_epoch(&self) -> i64 {
        self.state().broker_epoch
    }

    /// Takes in what the follower says. Returns the positions that the shards must count; `None` if it names too many.
    pub(crate) fn take_in(&self, says: &FollowerSays) -> Option<Vec<Standing>> {
        let mut state = self.state();
        state.broker_epoch = state.broker_epoch.max(says.broker_epoch);
        state.beat |= says.beat;
        for log in &says.gone {
            state.positions.remove(log);
        }
        let positions = &mut state.positions;
        for Progress { log, epoch, durable_end } in &says.progress {
            if let Some(kept) = positions.get_mut(log).filter(|kept| kept.position.epoch == *epoch) {
                let reached = (*durable_end).min(kept.position.offset);
                kept.position.durable_end = kept.position.durable_end.max(reached);
            }
        }
        let mut named = Vec::with_capacity(says.fetch.len());
        for fetch in &says.fetch {
            let Named { log, position, start } = *fetch;
            let before = positions.get(&log);
            let told = before.filter(|kept| kept.position.epoch == position.epoch).and_then(|kept| kept.told);
            let queued = before.is_some_and(|kept| kept.queued);
            positions.insert(log, Kept { position, start, told, armed: true, queued });
            named.push(Standing { log, position, start, told });
        }
        let fits = positions.len() <= POSITIONS_MAX;
        drop(state);
        self.ready.notify_one();
        fits.then_some(named)
    }

    /// All positions: a heartbeat names them again.
    pub(crate) fn standings(&self) -> Vec<Standing> {
        let of = |(log, kept): (&LogId, &Kept)| kept.standing(*log);
        self.state().positions.iter().map(of).collect()
    }

    /// There is something to say about a partition. Returns false once the follower does not ask for it here any more.
    pub(crate) fn mark(&self, log: LogId) -> bool {
        let mut state = self.state();
        if state.over {
            return false;
        }
        let State { positions, queue, .. } = &mut *state;
        let Some(kept) = positions.get_mut(&log) else { return false };
        if kept.armed && !kept.queued {
            kept.queued = true;
            queue.push_back(log);
            drop(state);
            self.ready.notify_one();
        }
        true
    }

    /// Waits until there may be something to do.
    pub(crate) async fn woken(&self) {
        self.ready.notified().await;
    }

    /// Whether a heartbeat has come since this was asked last.
    pub(crate) fn take_beat(&self) -> bool {
        std::mem::take(&mut self.state().beat)
    }

    /// The next partitions that there is something to say about, at most `max`.
    pub(crate) fn next(&self, max: usize) -> Vec<Standing> {
        let mut state = self.state();
        let State { positions, queue, .. } = &mut *state;
        let mut next = Vec::new();
        while next.len() < max
            && let Some(log) = queue.pop_front()
        {
            let Some(kept) = positions.get_mut(&log) else { continue };
            kept.queued = false;
            if kept.armed {
                next.push(kept.standing(log));
            }
        }
        next
    }

    /// These were taken and found no room in the answer: they come first the next time.
    pub(crate) fn put_back(&self, standings: &[Standing]) {
        let mut state = self.state();
        let State { positions, queue, .. } = &mut *state;
        for Standing { log, .. } in standings.iter().rev() {
            if let Some(kept) = positions.get_mut(log)
                && kept.armed
                && !kept.queued
            {
                kept.queued = true;
                queue.push_front(*log);
            }
        }
        drop(state);
        self.ready.notify_one();
    }

    /// A position was answered. `told` is what the follower knows now; `spent`: it has to name its next position.
    pub(crate) fn answered(&self, log: LogId, position: &FetchPosition, told: Option<Told>, spent: bool) {
        let mut state = self.state();
        let Some(kept) = state.positions.get_mut(&log) else { return };
        // It may have named another one meanwhile.
        if kept.position.is_same_log(position) {
            kept.armed &= !spent;
        }
        if kept.position.epoch == position.epoch && told.is_some() {
            kept.told = told;
        }
    }

    /// The connection is gone: shards forget the lane when they come across it.
    pub(crate) fn end(&self) {
        let mut state = self.state();
        state.over = true;
        state.positions.clear();
        state.queue.clear();
    }
}

impl Kept {
    fn standing(&self, log: LogId) -> Standing {
        Standing { log, position: self.position, start: self.start, told: self.told }
    }
}
