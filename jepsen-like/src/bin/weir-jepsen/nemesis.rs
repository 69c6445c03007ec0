//! Does to the processes and their links what the plan says, when it says so, and heals everything in the end.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use weir_jepsen::load::Shared;
use weir_runtime::task::{self, JoinHandle};
use weir_runtime::time;

use crate::brokers::Brokers;
use crate::links::{Links, Party};
use crate::operator;
use crate::plan::{Fault, Plan, TimedFault};

/// A fault that struck, in nanoseconds of the history's clock.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Struck {
    /// What it was.
    pub(crate) fault: Fault,
    /// When it began.
    pub(crate) at_ns: u64,
    /// When it was mended; the processes that it ended may still be starting then.
    pub(crate) mended_ns: u64,
}

/// Whoever does the plan's deeds.
#[derive(Clone)]
pub(crate) struct Nemesis {
    brokers: Brokers,
    links: Links,
    nodes: u32,
    struck: Arc<Mutex<Vec<Struck>>>,
    /// What it does now, for whoever watches.
    doing: Arc<Mutex<Vec<&'static str>>>,
}

impl Nemesis {
    /// A nemesis of these brokers.
    pub(crate) fn new(brokers: Brokers, links: Links, plan: &Plan) -> Nemesis {
        Nemesis { brokers, links, nodes: plan.nodes, struck: Arc::default(), doing: Arc::default() }
    }

    /// Strikes as planned. The faults' tasks come back when the last one's time has come; those that last end by themselves.
    pub(crate) async fn strike(&self, faults: &[TimedFault]) -> Vec<JoinHandle<()>> {
        let start = time::now();
        let mut under_way = Vec::new();
        for planned in faults {
            time::sleep_until(start + Duration::from_millis(planned.at_ms)).await;
            let (nemesis, planned) = (self.clone(), planned.clone());
            under_way.push(task::spawn("fault", async move { nemesis.perform(&planned).await }));
        }
        under_way
    }

    /// What is wrong now.
    pub(crate) fn doing(&self) -> String {
        self.doing.lock().unwrap_or_else(PoisonError::into_inner).join(", ")
    }

    /// What struck, in the order of time.
    pub(crate) fn take_struck(&self) -> Vec<Struck> {
        let mut struck = std::mem::take(&mut *self.struck.lock().unwrap_or_else(PoisonError::into_inner));
        struck.sort_by_key(|struck| struck.at_ns);
        struck
    }

    /// Everybody but this node.
    fn others(&self, node: u32) -> Vec<Party> {
        let peers = (0..self.nodes).filter(|other| *other != node).map(Party::Node);
        peers.chain([Party::Clients]).collect()
    }

    fn directions(&self, fault: &Fault) -> Vec<(Party, Party)> {
        let both = |node: u32, others: Vec<Party>| {
            others
                .into_iter()
                .flat_map(|other| [(Party::Node(node), other), (other, Party::Node(node))])
                .collect()
        };
        match *fault {
            Fault::CutOff { node } | Fault::Slow { node, .. } => both(node, self.others(node)),
            Fault::CutFromPeers { node } => {
                both(node, self.others(node).into_iter().filter(|other| *other != Party::Clients).collect())
            }
            Fault::CutLink { node, other } => both(node, vec![Party::Node(other)]),
            Fault::Mute { node } => {
                self.others(node).into_iter().map(|other| (Party::Node(node), other)).collect()
            }
            Fault::Deafen { node } => {
                self.others(node).into_iter().map(|other| (other, Party::Node(node))).collect()
            }
            Fault::Kill { .. }
            | Fault::KillAll
            | Fault::Wipe { .. }
            | Fault::Stop { .. }
            | Fault::Restart { .. }
            | Fault::Reset { .. } => Vec::new(),
        }
    }

    async fn perform(&self, planned: &TimedFault) {
        let (fault, lasts) = (&planned.fault, Duration::from_millis(planned.for_ms));
        let directions = self.directions(fault);
        self.doing.lock().unwrap_or_else(PoisonError::into_inner).push(fault.name());
        let at_ns = Shared::now_ns();
        match *fault {
            Fault::Kill { node } => {
                self.brokers.kill(node);
                time::sleep(lasts).await;
                self.brokers.release(node);
            }
            Fault::KillAll => {
                (0..self.nodes).for_each(|node| self.brokers.kill(node));
                time::sleep(lasts).await;
                (0..self.nodes).for_each(|node| self.brokers.release(node));
            }
            Fault::Wipe { node } => {
                self.brokers.kill(node);
                self.brokers.wipe(node);
                time::sleep(lasts).await;
                self.brokers.release(node);
                if let Err(why) = operator::admit(self.brokers.addresses(), node).await {
                    self.brokers.complain(why);
                }
            }
            Fault::Stop { node } => {
                self.brokers.pause(node);
                time::sleep(lasts).await;
                self.brokers.resume(node);
            }
            Fault::Restart { node } => {
                self.brokers.stop_cleanly(node).await;
                time::sleep(lasts).await;
                self.brokers.release(node);
            }
            Fault::CutOff { .. }
            | Fault::CutFromPeers { .. }
            | Fault::CutLink { .. }
            | Fault::Mute { .. }
            | Fault::Deafen { .. } => {
                self.links.cut(&directions);
                time::sleep(lasts).await;
                self.links.mend(&directions);
            }
            Fault::Reset { node } => self.links.reset(node),
            Fault::Slow { delay_ms, .. } => {
                self.links.slow_down(&directions, Duration::from_millis(delay_ms));
                time::sleep(lasts).await;
                self.links.mend(&directions);
            }
        }
        let struck = Struck { fault: fault.clone(), at_ns, mended_ns: Shared::now_ns() };
        self.struck.lock().unwrap_or_else(PoisonError::into_inner).push(struck);
        let mut doing = self.doing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = doing.iter().position(|name| *name == fault.name()) {
            doing.remove(at);
        }
    }
}
