//! Where a partition's replicas begin: deleted records must be gone from all that are in sync before that is told, or a
//! change of leaders would bring them back (KIP-107).

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::oneshot;
use weir_protocol::partition::Partition;
use weir_protocol::types::{BrokerId, Offset};
use weir_storage::StorageError;

use super::ShardError;

type Reply = oneshot::Sender<Result<Offset, ShardError>>;

/// The starts of one partition's replicas, as they are durable.
#[derive(Default)]
pub(super) struct Starts {
    /// This replica's.
    pub(super) own: Offset,
    /// As the followers have said in this leader epoch.
    followers: BTreeMap<BrokerId, Offset>,
    /// Who waits until every replica in sync begins there or above.
    waiting: Vec<(Offset, Reply)>,
}

impl Starts {
    pub(super) fn new(own: Offset) -> Starts {
        Starts { own, ..Starts::default() }
    }

    /// A follower begins there.
    pub(super) fn note(&mut self, follower: BrokerId, start: Offset) {
        self.followers.insert(follower, start);
    }

    /// Where a follower begins; -1 if it has not said that in this leader epoch.
    pub(super) fn of(&self, follower: BrokerId) -> Offset {
        self.followers.get(&follower).copied().unwrap_or(-1)
    }

    /// Another leader epoch: followers say it again.
    pub(super) fn forget(&mut self) {
        self.followers.clear();
    }

    /// Answers once every replica in sync begins at `start` or above.
    pub(super) fn wait_for(&mut self, start: Offset, reply: Reply) {
        self.waiting.retain(|(_, reply)| !reply.is_closed());
        self.waiting.push((start, reply));
    }

    /// Answers those whose time has come, or who wait in vain because this replica does not lead.
    pub(super) fn settle(&mut self, core: &Partition, me: BrokerId) {
        if self.waiting.is_empty() {
            return;
        }
        let leads = core.check_epoch(None);
        let others = core.isr().iter().filter(|id| **id != me);
        let low = others.map(|id| self.of(*id)).fold(self.own, Offset::min);
        for (start, reply) in std::mem::take(&mut self.waiting) {
            // Whoever asked may have gone.
            match leads {
                Err(reason) => drop(reply.send(Err(ShardError::Refused(reason)))),
                Ok(_) if start <= low => drop(reply.send(Ok(low))),
                Ok(_) => self.waiting.push((start, reply)),
            }
        }
    }

    /// Nothing more becomes durable.
    pub(super) fn fail(&mut self, error: &Arc<StorageError>) {
        for (_, reply) in self.waiting.drain(..) {
            let _ = reply.send(Err(ShardError::Storage(Arc::clone(error))));
        }
    }
}
