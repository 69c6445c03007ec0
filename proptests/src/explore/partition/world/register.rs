//! The metadata quorum, as far as it decides about one partition: a register that changes at once.

use weir_protocol::metadata::IsrMember;
use weir_protocol::types::LeaderEpoch;

/// What is decided.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Register {
    pub(super) min_insync: usize,
    pub(super) leader: Option<usize>,
    pub(super) epoch: LeaderEpoch,
    /// Grows with each change.
    pub(super) partition_epoch: i32,
    pub(super) isr: Vec<usize>,
    /// Left the ISR when it had fewer than `min_insync` members, and has been certain ever since (KIP-966).
    pub(super) elr: Vec<usize>,
    /// Of those that were certain last, these lost their tails. They have answered, with (last epoch, end).
    pub(super) uncertain: Vec<(usize, (LeaderEpoch, i64))>,
    pub(super) broker_epochs: Vec<i64>,
}

impl Register {
    /// Who may lead: the ISR; the ELR if there is nobody in it; and of those that are all uncertain, the one with the
    /// longest log, once enough have said what they have (contract 5).
    pub(super) fn candidates(&self) -> Vec<usize> {
        if !self.isr.is_empty() {
            return self.isr.clone();
        }
        if !self.elr.is_empty() {
            return self.elr.clone();
        }
        if self.uncertain.len() < self.min_insync {
            return Vec::new();
        }
        let best = self.uncertain.iter().map(|(_, held)| *held).max();
        let of_best = self.uncertain.iter().filter(|(_, held)| Some(*held) == best);
        of_best.map(|(node, _)| *node).collect()
    }

    pub(super) fn lead(&mut self, leader: Option<usize>) {
        self.leader = leader;
        self.epoch += 1;
        self.partition_epoch += 1;
        let Some(leader) = leader else { return };
        if !self.isr.contains(&leader) {
            self.set_isr(vec![leader]);
        }
    }

    /// Below min ISR those who leave stay eligible: nothing is committed until there are enough again.
    fn set_isr(&mut self, isr: Vec<usize>) {
        let left = self.isr.iter().filter(|node| !isr.contains(node));
        self.elr.extend(left);
        self.elr.sort_unstable();
        self.isr = isr;
        if self.isr.len() >= self.min_insync {
            self.elr.clear();
        }
        self.elr.retain(|node| !self.isr.contains(node));
        if !self.isr.is_empty() {
            self.uncertain.clear();
        }
    }

    /// A broker's session has ended.
    pub(super) fn fence(&mut self, node: usize) {
        let rest = self.isr.iter().copied().filter(|member| *member != node).collect();
        self.set_isr(rest);
        self.partition_epoch += 1;
        if self.leader == Some(node) {
            self.lead(None);
        }
    }

    /// A broker has come back, with a tail of which it is certain or not.
    pub(super) fn register(&mut self, node: usize, lost: Option<(LeaderEpoch, i64)>) {
        self.broker_epochs[node] += 1;
        let was_eligible = self.isr.contains(&node) || self.elr.contains(&node);
        if let Some(held) = lost.filter(|_| was_eligible) {
            self.isr.retain(|member| *member != node);
            self.elr.retain(|member| *member != node);
            self.uncertain.push((node, held));
            self.uncertain.sort_unstable();
            self.partition_epoch += 1;
        }
        if self.leader == Some(node) {
            // Each incarnation that leads has an epoch of its own (contract 4).
            self.lead(if lost.is_some() { None } else { Some(node) });
        }
    }

    /// Whether the proposal was carried out.
    pub(super) fn change_isr(&mut self, partition_epoch: i32, isr: &[IsrMember]) -> bool {
        let known = |member: &IsrMember| self.broker_epochs[member.broker.0 as usize] == member.broker_epoch;
        if partition_epoch != self.partition_epoch || !isr.iter().all(known) {
            return false;
        }
        self.set_isr(isr.iter().map(|member| member.broker.0 as usize).collect());
        self.partition_epoch += 1;
        true
    }
}
