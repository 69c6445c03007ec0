//! The links between the clients and the nodes, and what is wrong with each direction of each.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use weir_runtime::watch;

/// Who is at an end of a link. Nodes are counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Party {
    /// Every client.
    Clients,
    /// One broker process.
    Node(u32),
}

/// What is wrong with one direction of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// Nothing arrives. What was sent arrives when the link is mended, as it does when TCP repeats it.
    pub(crate) is_cut: bool,
    /// Everything arrives so much later.
    pub(crate) delay: Duration,
}

/// The links, as all proxies see them.
#[derive(Clone)]
pub(crate) struct Links {
    troubles: Arc<Mutex<BTreeMap<(Party, Party), Trouble>>>,
    /// Counts the changes.
    changed: Arc<watch::Sender<u64>>,
    /// For each node, how often all its connections were reset.
    resets: Arc<watch::Sender<BTreeMap<u32, u64>>>,
}

impl Links {
    /// Links with which nothing is wrong.
    pub(crate) fn new() -> Links {
        Links {
            troubles: Arc::default(),
            changed: Arc::new(watch::Sender::new(0)),
            resets: Arc::new(watch::Sender::new(BTreeMap::new())),
        }
    }

    /// What is sent on these directions is held back until they are mended.
    pub(crate) fn cut(&self, directions: &[(Party, Party)]) {
        self.change(|troubles| {
            for direction in directions {
                troubles.entry(*direction).or_default().is_cut = true;
            }
        });
    }

    /// What is sent on these directions arrives so much later.
    pub(crate) fn slow_down(&self, directions: &[(Party, Party)], delay: Duration) {
        self.change(|troubles| {
            for direction in directions {
                troubles.entry(*direction).or_default().delay = delay;
            }
        });
    }

    /// Nothing is wrong with these directions any more.
    pub(crate) fn mend(&self, directions: &[(Party, Party)]) {
        self.change(|troubles| {
            for direction in directions {
                troubles.remove(direction);
            }
        });
    }

    /// Nothing is wrong with any link any more.
    pub(crate) fn heal(&self) {
        self.change(BTreeMap::clear);
    }

    /// Resets every connection that the node has at either end.
    pub(crate) fn reset(&self, node: u32) {
        self.resets.send_modify(|resets| *resets.entry(node).or_default() += 1);
    }

    /// How late what is sent in this direction arrives.
    pub(crate) fn delay(&self, from: Party, to: Party) -> Duration {
        self.lock().get(&(from, to)).map_or(Duration::ZERO, |trouble| trouble.delay)
    }

    /// Waits until something can pass in this direction. Cancel-safe.
    pub(crate) async fn until_open(&self, from: Party, to: Party) {
        let mut changed = self.changed.subscribe();
        while self.lock().get(&(from, to)).is_some_and(|trouble| trouble.is_cut) {
            if changed.changed().await.is_err() {
                pending::<()>().await; // the run is over
            }
        }
    }

    /// Waits until the connections of one of these parties are reset. Cancel-safe.
    pub(crate) async fn until_reset(&self, of: [Party; 2]) {
        let count = |resets: &BTreeMap<u32, u64>| {
            let one = |party: Party| match party {
                Party::Node(node) => resets.get(&node).copied().unwrap_or(0),
                Party::Clients => 0,
            };
            of.map(one)
        };
        let mut resets = self.resets.subscribe();
        let before = count(&resets.borrow());
        if resets.wait_for(|resets| count(resets) != before).await.is_err() {
            pending::<()>().await; // the run is over
        }
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<(Party, Party), Trouble>)) {
        change(&mut self.lock());
        self.changed.send_modify(|changes| *changes += 1);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(Party, Party), Trouble>> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
