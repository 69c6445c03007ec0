//! What a follower has to say to one leader.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, mpsc};
use weir_protocol::partition::replication::{FetchPosition, Progress};
use weir_protocol::types::{BrokerId, LeaderEpoch, LogId, Offset};

use super::PARTS_MAX;
use super::message::{FollowerSays, Named};

/// The positions of this broker's replicas that follow one leader. Shards post them as they change.
///
/// Bounded by the partitions: of each there is one position, in at most one place of each queue.
#[derive(Debug)]
pub(crate) struct Mailbox {
    leader: BrokerId,
    state: Mutex<State>,
    posted: Notify,
}

#[derive(Debug, Default)]
struct State {
    positions: BTreeMap<LogId, Kept>,
    fetch: VecDeque<LogId>,
    progress: VecDeque<LogId>,
    gone: BTreeSet<LogId>,
    /// To be named again with the next heartbeat.
    later: BTreeSet<LogId>,
}

#[derive(Debug)]
struct Kept {
    position: FetchPosition,
    start: Offset,
    /// Whether it stands in that queue.
    fetch: bool,
    progress: bool,
}

impl State {
    fn put(&mut self, log: LogId, position: FetchPosition, start: Offset) {
        let new = Kept { position, start, fetch: false, progress: false };
        let kept = self.positions.entry(log).or_insert(new);
        (kept.position, kept.start) = (position, start);
    }

    /// The position is to be named.
    fn name(&mut self, log: LogId) {
        if let Some(kept) = self.positions.get_mut(&log)
            && !std::mem::replace(&mut kept.fetch, true)
        {
            self.fetch.push_back(log);
        }
    }
}

impl Mailbox {
    pub(crate) fn new(leader: BrokerId) -> Mailbox {
        Mailbox { leader, state: Mutex::default(), posted: Notify::new() }
    }

    pub(crate) fn leader(&self) -> BrokerId {
        self.leader
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A replica stands here now and wants an answer.
    pub(crate) fn fetch(&self, log: LogId, position: FetchPosition, start: Offset) {
        let mut state = self.state();
        state.put(log, position, start);
        state.name(log);
        drop(state);
        self.posted.notify_one();
    }

    /// The position is to be answered once more, but not at once: what came could not be taken.
    pub(crate) fn fetch_later(&self, log: LogId, position: FetchPosition, start: Offset) {
        let mut state = self.state();
        state.put(log, position, start);
        state.later.insert(log);
    }

    /// A replica is durable up to here, and its leader is to know at once.
    pub(crate) fn report(&self, log: LogId, epoch: LeaderEpoch, durable_end: Offset) {
        let mut state = self.state();
        let Some(kept) = state.positions.get_mut(&log).filter(|kept| kept.position.epoch == epoch) else {
            return;
        };
        kept.position.durable_end = durable_end;
        if kept.fetch || std::mem::replace(&mut kept.progress, true) {
            return;
        }
        state.progress.push_back(log);
        drop(state);
        self.posted.notify_one();
    }

    /// A replica does not follow this leader any more.
    pub(crate) fn leave(&self, log: LogId) {
        let mut state = self.state();
        if state.positions.remove(&log).is_some() {
            state.gone.insert(log);
            drop(state);
            self.posted.notify_one();
        }
    }

    /// A new connection: the leader knows nothing yet.
    pub(crate) fn begin(&self) {
        let mut state = self.state();
        state.gone.clear();
        state.later.clear();
        let logs: Vec<LogId> = state.positions.keys().copied().collect();
        for log in logs {
            state.name(log);
        }
    }

    /// What waited for the heartbeat is due.
    pub(crate) fn beat(&self) {
        let mut state = self.state();
        for log in std::mem::take(&mut state.later) {
            state.name(log);
        }
    }

    /// Whether nothing follows this leader.
    pub(crate) fn is_idle(&self) -> bool {
        self.state().positions.is_empty()
    }

    /// Waits until something was posted.
    pub(crate) async fn posted(&self) {
        self.posted.notified().await;
    }

    /// What is to be said next; `None` if there is nothing. `beat`: a heartbeat is due.
    pub(crate) fn next(&self, broker_epoch: i64, beat: bool) -> Option<FollowerSays> {
        let mut state = self.state();
        let mut says =
            FollowerSays { broker_epoch, beat, fetch: Vec::new(), gone: Vec::new(), progress: Vec::new() };
        let State { positions, fetch, progress, gone, .. } = &mut *state;
        while says.gone.len() < PARTS_MAX
            && let Some(log) = gone.pop_first()
        {
            says.gone.push(log);
        }
        // A log that has gone and come back is named after it has gone.
        while gone.is_empty()
            && says.fetch.len() < PARTS_MAX
            && let Some(log) = fetch.pop_front()
        {
            if let Some(kept) = positions.get_mut(&log).filter(|kept| kept.fetch) {
                kept.fetch = false;
                says.fetch.push(Named { log, position: kept.position, start: kept.start });
            }
        }
        while says.progress.len() < PARTS_MAX
            && let Some(log) = progress.pop_front()
        {
            if let Some(kept) = positions.get_mut(&log).filter(|kept| kept.progress) {
                kept.progress = false;
                let FetchPosition { epoch, durable_end, .. } = kept.position;
                says.progress.push(Progress { log, epoch, durable_end });
            }
        }
        let empty = says.fetch.is_empty() && says.gone.is_empty() && says.progress.is_empty();
        (beat || !empty).then_some(says)
    }
}

/// The mailboxes of a broker, by leader. Whoever runs the fetching hears of each new one.
#[derive(Debug, Clone)]
pub(crate) struct Mailboxes {
    all: Arc<Mutex<BTreeMap<BrokerId, Arc<Mailbox>>>>,
    /// Bounded by the brokers.
    made: mpsc::UnboundedSender<Arc<Mailbox>>,
}

impl Mailboxes {
    pub(crate) fn new() -> (Mailboxes, mpsc::UnboundedReceiver<Arc<Mailbox>>) {
        let (made, new) = mpsc::unbounded_channel();
        (Mailboxes { all: Arc::default(), made }, new)
    }

    /// The mailbox of a leader.
    pub(crate) fn of(&self, leader: BrokerId) -> Arc<Mailbox> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let mailbox = all.entry(leader).or_insert_with(|| {
            let mailbox = Arc::new(Mailbox::new(leader));
            // Without anyone who fetches, positions wait.
            let _ = self.made.send(Arc::clone(&mailbox));
            mailbox
        });
        Arc::clone(mailbox)
    }
}

#[cfg(test)]
#[path = "mailbox_tests.rs"]
mod tests;
