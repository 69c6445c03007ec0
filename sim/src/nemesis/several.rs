//! Faults that concern several nodes, or whoever plays a part when their time has come.

use std::time::Duration;

use weir_runtime::simulation::{FaultKind, FaultRule, Keep, LinkQuality, NodeId};
use weir_runtime::time;

use super::{Nemesis, sleep_ms};
use crate::plan::{Blow, Fault, Files, Whom};
use crate::report::situation;

/// How fast a bad link is.
const BAD_LINK_BYTES_PER_SECOND: u64 = 10_000_000;
/// How long somebody else may take to play the part of one who was struck.
const CHASE_MAX: Duration = Duration::from_secs(3);

/// A link on which everything takes between so long and twice as long.
pub(super) fn slow(delay_ms: u64, loss: f64) -> LinkQuality {
    let delay = Duration::from_millis(delay_ms);
    LinkQuality {
        latency: (delay, delay * 2),
        loss,
        duplication: 0.0,
        bytes_per_second: BAD_LINK_BYTES_PER_SECOND,
    }
}

impl Nemesis {
    pub(super) async fn trouble_several(&self, fault: &Fault) {
        match fault {
            Fault::Split { groups, for_ms } => {
                self.struck(fault);
                self.split(groups, *for_ms).await;
            }
            Fault::Flap { groups, times, every_ms } => {
                self.struck(fault);
                for _ in 0..*times {
                    self.split(groups, every_ms / 2).await;
                    sleep_ms(every_ms / 2).await;
                }
            }
            Fault::Deaf { broker, to, for_ms } => {
                self.struck(fault);
                let links = to.iter().map(|from| (self.node(*from), self.node(*broker))).collect();
                self.cut_for(links, *for_ms).await;
            }
            Fault::Swizzle { order, back, step_ms } => self.swizzle(fault, order, back, *step_ms).await,
            Fault::BadLinks { broker, delay_ms, loss_percent, for_ms } => {
                self.struck(fault);
                let bad = slow(*delay_ms, f64::from(*loss_percent) / 100.0);
                let links = self.links_to_peers(*broker);
                let net = self.world.net();
                links.iter().for_each(|(from, to)| net.set_link(*from, *to, Some(bad.clone())));
                sleep_ms(*for_ms).await;
                links.iter().for_each(|(from, to)| net.set_link(*from, *to, None));
            }
            Fault::Uneven { links, for_ms } => self.unsettle(fault, links, *for_ms).await,
            Fault::HalfOpen { broker, for_ms } => {
                self.struck(fault);
                let net = self.world.net();
                let links = self.links_to_peers(*broker);
                links.iter().for_each(|(from, to)| net.cut(*from, *to));
                // What tells the others does not reach them.
                for (_, peer) in links.iter().filter(|(from, _)| *from == self.node(*broker)) {
                    net.forget_connections(self.node(*broker), *peer);
                }
                sleep_ms(*for_ms).await;
                links.iter().for_each(|(from, to)| net.mend(*from, *to));
            }
            Fault::Blackout { brokers, power, down_ms } => self.blackout(fault, brokers, *power, down_ms),
            Fault::Rolling { order, down_ms, pause_ms } => {
                self.struck(fault);
                for node in order {
                    self.stop_and_start_quietly(&Fault::Restart { broker: *node, down_ms: *down_ms }).await;
                    sleep_ms(*pause_ms).await;
                }
            }
            Fault::Hunt { whom, blow, for_ms } => {
                if let Some(broker) = self.find(*whom) {
                    self.struck(fault);
                    self.blow(broker, *blow, *for_ms).await;
                }
            }
            Fault::Chase { whom, blow, times, after_ms, for_ms } => {
                self.chase(fault, *whom, *blow, (*times, *after_ms, *for_ms)).await;
            }
            Fault::LateAnswer { .. } => self.answer_late(fault).await,
            Fault::Recast { .. } => self.recast(fault).await,
            Fault::FigureEight { .. } => self.figure_eight(fault).await,
            _ => {}
        }
    }

    async fn split(&self, groups: &[Vec<u32>], for_ms: u64) {
        let nodes: std::collections::BTreeSet<u32> = groups.iter().flatten().copied().collect();
        let together = |a: &u32, b: &u32| groups.iter().any(|group| group.contains(a) && group.contains(b));
        let pairs = nodes.iter().flat_map(|a| nodes.iter().map(move |b| (a, b)));
        let apart = pairs.filter(|(a, b)| a != b && !together(a, b));
        let links = apart.map(|(a, b)| (self.node(*a), self.node(*b))).collect();
        self.cut_for(links, for_ms).await;
    }

    async fn cut_for(&self, links: Vec<(NodeId, NodeId)>, for_ms: u64) {
        let net = self.world.net();
        links.iter().for_each(|(from, to)| net.cut(*from, *to));
        sleep_ms(for_ms).await;
        links.iter().for_each(|(from, to)| net.mend(*from, *to));
    }

    async fn unsettle(&self, fault: &Fault, links: &[(u32, u32, u64)], for_ms: u64) {
        self.struck(fault);
        let net = self.world.net();
        for (from, to, delay_ms) in links {
            net.set_link(self.node(*from), self.node(*to), Some(slow(*delay_ms, 0.0)));
        }
        sleep_ms(for_ms).await;
        links.iter().for_each(|(from, to, _)| net.set_link(self.node(*from), self.node(*to), None));
    }

    async fn swizzle(&self, fault: &Fault, order: &[u32], back: &[u32], step_ms: u64) {
        self.struck(fault);
        let net = self.world.net();
        for node in order {
            net.clog(self.node(*node), true, true);
            sleep_ms(step_ms).await;
        }
        for node in back {
            net.unclog(self.node(*node));
            sleep_ms(step_ms).await;
        }
    }

    /// Both directions between a node and each other one.
    pub(super) fn links_to_peers(&self, broker: u32) -> Vec<(NodeId, NodeId)> {
        let node = self.node(broker);
        let peers = self.brokers.iter().map(|peer| peer.node).filter(|peer| *peer != node);
        peers.flat_map(|peer| [(node, peer), (peer, node)]).collect()
    }

    fn blackout(&self, fault: &Fault, brokers: &[u32], power: bool, down_ms: &[u64]) {
        self.struck(fault);
        if brokers.len() == self.brokers.len() {
            self.world.record_event(None, situation::ALL_DOWN, "");
        }
        for (broker, down_ms) in brokers.iter().zip(down_ms) {
            let (broker, down_ms) = (*broker, *down_ms);
            let one =
                if power { Fault::PowerLoss { broker, down_ms } } else { Fault::Kill { broker, down_ms } };
            if self.world.is_running(self.node(broker)) {
                let nemesis = self.clone();
                self.begin(async move { nemesis.stop_and_start_quietly(&one).await });
            }
        }
    }

    /// Whoever plays a part now, unless it is down.
    pub(super) fn find(&self, whom: Whom) -> Option<u32> {
        self.watch.whom(whom).filter(|broker| self.is_up(*broker))
    }

    /// Strikes one after the other, so that each has hardly begun.
    async fn chase(&self, fault: &Fault, whom: Whom, blow: Blow, (times, after_ms, for_ms): (u32, u64, u64)) {
        let mut last = None;
        for _ in 0..times {
            let deadline = time::now() + CHASE_MAX;
            let found = loop {
                let found = self.find(whom).filter(|broker| last != Some(*broker));
                if found.is_some() || time::now() >= deadline {
                    break found;
                }
                sleep_ms(5).await;
            };
            let Some(broker) = found else { return };
            if last.replace(broker).is_none() {
                self.struck(fault);
            }
            sleep_ms(after_ms).await;
            if self.is_up(broker) {
                let nemesis = self.clone();
                self.begin(async move { nemesis.blow(broker, blow, for_ms).await });
            }
        }
    }

    pub(super) async fn blow(&self, broker: u32, blow: Blow, for_ms: u64) {
        let node = self.node(broker);
        match blow {
            Blow::Kill => self.stop_and_start_quietly(&Fault::Kill { broker, down_ms: for_ms }).await,
            Blow::Power => self.stop_and_start_quietly(&Fault::PowerLoss { broker, down_ms: for_ms }).await,
            Blow::Stop => self.stop_and_start_quietly(&Fault::Restart { broker, down_ms: for_ms }).await,
            Blow::Pause => {
                self.world.pause(node);
                sleep_ms(for_ms).await;
                self.world.resume(node);
            }
            Blow::Cut => self.cut_for(self.links_to_peers(broker), for_ms).await,
            Blow::Isolate => {
                self.world.net().clog(node, true, true);
                sleep_ms(for_ms).await;
                self.world.net().unclog(node);
            }
        }
    }

    pub(super) fn is_up(&self, broker: u32) -> bool {
        self.brokers.get(broker as usize).is_some_and(|broker| self.world.is_running(broker.node))
    }

    /// Faults after which a node comes back with less than it had.
    pub(super) async fn harm(&self, fault: &Fault, node: NodeId) {
        match *fault {
            Fault::Wipe { broker, down_ms } => {
                self.struck(fault);
                self.empty_disk(broker, node, down_ms).await;
            }
            Fault::LostWrite { broker, files, after_ms, down_ms } => {
                self.struck(fault);
                self.deeds().damaged.push(format!("writes to {files:?} of {node}"));
                self.world.disk(node).add_fault(FaultRule::once(FaultKind::LostWrite, Files::pattern(files)));
                sleep_ms(after_ms).await;
                self.hold(broker, 1);
                self.crash(node, true);
                sleep_ms(down_ms).await;
                self.let_go(broker);
            }
            _ => {}
        }
    }

    pub(super) async fn empty_disk(&self, broker: u32, node: NodeId, down_ms: u64) {
        self.deeds().damaged.push(format!("all of {node}"));
        self.hold(broker, 1);
        self.crash(node, true);
        self.world.disk(node).replace();
        sleep_ms(down_ms).await;
        self.let_go(broker);
    }

    /// Takes power or life, as a fault says that does both.
    pub(super) fn end(&self, node: NodeId, power: bool) {
        if power { self.world.power_loss(node, Keep::Drawn) } else { self.world.kill(node) }
    }
}
