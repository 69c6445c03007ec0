//! One partition as the quorum has decided it, and how it changes.
//!
//! A change first says who leaves or joins; [`PartitionState::settle`] then draws the consequences: who leads, who stays
//! eligible, which epochs grow. So every command that touches brokers or in-sync replicas elects by the same rules:
//!
//! | who is left | who leads | KIP |
//! |---|---|---|
//! | the leader is in sync and can lead | it goes on | |
//! | an in-sync replica that can lead | the first one in the order of the replicas | KIP-841 |
//! | none in sync, an eligible leader replica that can lead | it, alone in the ISR | KIP-966 |
//! | only replicas that are not certain, unclean election is off | nobody, until the controller has asked them (contract 5) | |
//! | any replica that can lead, unclean election is on | the last leader, an uncertain one, any other that has something, the first one: acknowledged records may be lost | KIP-106 |
//! | none that can lead | nobody | |

use serde::{Deserialize, Serialize};
use weir_defect::defect;

use super::Rejected;
use super::placement::default_min_insync;
use crate::types::{BrokerId, LeaderEpoch};

/// What the quorum has decided about a partition.
///
/// Every member of `isr` and `elr` holds every committed record, and every member of `uncertain` does unless its disk was
/// damaged: while the ISR has fewer than m members, nothing is committed (contract 1), so whoever leaves it then keeps
/// what is needed to lead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionState {
    /// In the order of preference for leading. Invariant: not empty, no broker twice.
    pub replicas: Vec<BrokerId>,
    /// Replicas that were added and have not been in sync since: m does not count them.
    /// Invariant: a proper subset of `replicas`, none of them in sync or eligible.
    pub adding: Vec<BrokerId>,
    /// Invariant: a subset of `replicas`, in their order; no member is fenced.
    pub isr: Vec<BrokerId>,
    /// Eligible leader replicas (KIP-966): they left the ISR when it had fewer than m members, and their logs are certain.
    /// Invariant: a subset of `replicas`, in their order, none of them in sync; empty while the ISR has m members.
    pub elr: Vec<BrokerId>,
    /// Members of ISR or ELR that came back without a certain tail, or with another folder (contract 5), until they have caught
    /// up or m others are in sync: also beside a leader that had more than they had.
    /// Invariant: as `elr`, and none of them in it.
    pub uncertain: Vec<BrokerId>,
    /// Replicas that came back with another folder and have not been in sync since: an unclean election prefers any other.
    /// Invariant: a subset of `replicas`, none of them in sync.
    pub emptied: Vec<BrokerId>,
    /// Invariant: a member of `isr`; `None` exactly when `isr` is empty.
    pub leader: Option<BrokerId>,
    /// The last leader; `None` before the second one.
    pub last_leader: Option<BrokerId>,
    /// Invariant: grows whenever the leader changes, and whenever a new incarnation of it leads (contract 4).
    pub leader_epoch: LeaderEpoch,
    /// The last leader epoch that began with an unclean election: only there do committed records vanish.
    /// Invariant: `<= leader_epoch`.
    pub unclean_epoch: Option<LeaderEpoch>,
    /// Counts the changes of this state, except those of `emptied`, which no proposal depends on. Invariant: grows with each.
    pub partition_epoch: i32,
}

/// What a partition's consequences depend on, besides its own state.
pub(super) struct Circumstances<'a> {
    /// Whether a broker can lead: registered, not fenced, not shutting down.
    pub(super) can_lead: &'a dyn Fn(BrokerId) -> bool,
    /// `min.insync.replicas` as configured for the topic or for all brokers.
    pub(super) min_insync: Option<i32>,
    /// `unclean.leader.election.enable`
    pub(super) unclean: bool,
    /// The partition epoch moves even if nothing else does.
    pub(super) decided: bool,
    /// The leader takes a new epoch even if it stays.
    pub(super) renew: bool,
}

impl PartitionState {
    /// A new partition: its first replica in `isr` leads.
    pub(super) fn new(replicas: Vec<BrokerId>, isr: Vec<BrokerId>) -> PartitionState {
        PartitionState {
            replicas,
            adding: Vec::new(),
            leader: isr.first().copied(),
            isr,
            elr: Vec::new(),
            uncertain: Vec::new(),
            emptied: Vec::new(),
            last_leader: None,
            leader_epoch: 0,
            unclean_epoch: None,
            partition_epoch: 0,
        }
    }

    /// m of contract 1: how many in-sync replicas an acknowledged record has, for a configured
    /// `min.insync.replicas`. Replicas that are being added do not count.
    pub fn min_isr(&self, configured: i32) -> usize {
        usize::try_from(configured).unwrap_or(1).clamp(1, self.established())
    }

    /// How many replicas have been in sync since they were added.
    fn established(&self) -> usize {
        self.replicas.len().saturating_sub(self.adding.len()).max(1)
    }

    /// m, where `None` is the default: a majority.
    pub(super) fn m(&self, configured: Option<i32>) -> usize {
        configured
            .map_or_else(|| default_min_insync(self.established()), |configured| self.min_isr(configured))
    }

    /// Every replica that holds all committed records, unless its disk was damaged: C of contract 5.
    pub fn candidates(&self) -> impl Iterator<Item = BrokerId> + '_ {
        [&self.isr, &self.elr, &self.uncertain].into_iter().flatten().copied()
    }

    /// From how many of its uncertain members the controller must hear before one of them is elected (contract 5).
    pub(super) fn answers_needed(&self, min_insync: Option<i32>) -> usize {
        self.m(min_insync).min(self.candidates().count())
    }

    /// `broker` is out of service; `certain` says whether its log is what it was. Returns whether anything changed.
    pub(super) fn retire(&mut self, broker: BrokerId, certain: bool) -> bool {
        let was_in_sync = remove(&mut self.isr, broker);
        let was_eligible = !was_in_sync && !certain && remove(&mut self.elr, broker);
        if was_in_sync || was_eligible {
            let list = if certain { &mut self.elr } else { &mut self.uncertain };
            list.push(broker);
        }
        was_in_sync || was_eligible
    }

    /// `broker` came back with another folder.
    pub(super) fn empty(&mut self, broker: BrokerId) {
        if !self.emptied.contains(&broker) {
            self.emptied.push(broker);
        }
    }

    /// `broker` says itself that its log is damaged: it is no candidate for anything (contract 7).
    pub(super) fn forget(&mut self, broker: BrokerId) {
        for list in [&mut self.isr, &mut self.elr, &mut self.uncertain] {
            remove(list, broker);
        }
    }

    /// The leader has these in-sync replicas from now on; who left it stays eligible as far as m asks for it.
    pub(super) fn set_isr(&mut self, isr: &[BrokerId]) {
        let left: Vec<_> = self.isr.iter().filter(|id| !isr.contains(id)).copied().collect();
        self.elr.retain(|id| !isr.contains(id));
        self.uncertain.retain(|id| !isr.contains(id));
        self.elr.extend(left);
        self.isr = isr.to_vec();
    }

    /// Draws the consequences of what changed since `before`; returns whether anything did.
    ///
    /// # Errors
    /// `Exhausted`, when an epoch has no successor.
    pub(super) fn settle(&mut self, before: &Self, around: &Circumstances<'_>) -> Result<bool, Rejected> {
        let unclean = self.elect(around);
        self.adding.retain(|id| !self.isr.contains(id));
        self.emptied.retain(|id| !self.isr.contains(id));
        if self.isr.len() >= self.m(around.min_insync) {
            self.elr.clear();
            self.uncertain.clear();
        }
        let place = |id: &BrokerId| self.replicas.iter().position(|replica| replica == id);
        for list in [&mut self.isr, &mut self.elr, &mut self.uncertain] {
            list.sort_by_key(place);
        }
        if self.leader != before.leader && before.leader.is_some() {
            self.last_leader = before.leader;
        }
        let renewed = around.renew && self.leader.is_some();
        if self.leader != before.leader || renewed {
            let next = self.leader_epoch.checked_add(1);
            self.leader_epoch = next.ok_or_else(|| Rejected::Exhausted("leader epochs".to_owned()))?;
        }
        if unclean {
            self.unclean_epoch = Some(self.leader_epoch);
        }
        let emptied = self.emptied.clone();
        if !around.decided && *self == (PartitionState { emptied, ..before.clone() }) {
            return Ok(self.emptied != before.emptied);
        }
        let next = self.partition_epoch.checked_add(1);
        self.partition_epoch = next.ok_or_else(|| Rejected::Exhausted("partition epochs".to_owned()))?;
        Ok(true)
    }

    /// Chooses the leader by this module's table; returns whether it may lack acknowledged records.
    fn elect(&mut self, around: &Circumstances<'_>) -> bool {
        let can_lead = |id: &&BrokerId| (around.can_lead)(**id);
        if self.leader.is_some_and(|id| self.isr.contains(&id) && (around.can_lead)(id)) {
            return false;
        }
        let among =
            |list: &[BrokerId]| self.replicas.iter().filter(|id| list.contains(id)).find(can_lead).copied();
        self.leader = among(&self.isr);
        if self.leader.is_some() || !self.isr.is_empty() {
            return false;
        }
        if let Some(eligible) = among(&self.elr) {
            remove(&mut self.elr, eligible);
            self.lead_alone(eligible);
            return false;
        }
        if !around.unclean {
            return false;
        }
        let has_something = |id: &BrokerId| !self.emptied.contains(id);
        let full = |list: &[BrokerId]| list.iter().copied().filter(has_something).collect::<Vec<_>>();
        let last: Vec<_> = self.last_leader.into_iter().collect();
        let preferences = [full(&last), full(&self.uncertain), full(&self.replicas), self.replicas.clone()];
        match preferences.iter().find_map(|list| among(list)) {
            Some(any) => {
                self.elr.clear();
                self.uncertain.clear();
                self.lead_alone(any);
                true
            }
            None => false,
        }
    }

    pub(super) fn lead_alone(&mut self, leader: BrokerId) {
        self.leader = Some(leader);
        self.isr = vec![leader];
    }

    pub(super) fn invariants(&self, min_insync: Option<i32>) -> Result<(), String> {
        let law = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
        law(!self.replicas.is_empty(), "has a replica")?;
        let distinct = self.replicas.iter().collect::<std::collections::BTreeSet<_>>().len();
        law(distinct == self.replicas.len(), "no replica twice")?;
        let in_order =
            |list: &[BrokerId]| self.replicas.iter().filter(|id| list.contains(id)).eq(list.iter());
        law(in_order(&self.isr), "the ISR is a subset of the replicas, in their order")?;
        law(in_order(&self.elr), "the ELR is a subset of the replicas, in their order")?;
        law(in_order(&self.uncertain), "the uncertain are a subset of the replicas, in their order")?;
        let known = |id: &BrokerId| self.replicas.contains(id) && !self.isr.contains(id);
        law(self.emptied.iter().all(known), "who came back empty is a replica that is not in sync")?;
        law(self.adding.iter().all(|id| self.replicas.contains(id)), "who is added is a replica")?;
        law(self.adding.len() < self.replicas.len(), "not every replica is being added")?;
        let candidates: Vec<_> = self.candidates().collect();
        let distinct = candidates.iter().collect::<std::collections::BTreeSet<_>>().len();
        law(distinct == candidates.len(), "nobody is both of in sync, eligible and uncertain")?;
        law(!self.adding.iter().any(|id| candidates.contains(id)), "who is being added is no candidate")?;
        law(self.leader.is_none_or(|leader| self.isr.contains(&leader)), "the leader is in the ISR")?;
        // Z12 leaves a broker in the ISR that cannot lead.
        let led = self.leader.is_some() || self.isr.is_empty() || defect!(isr_allow_fenced);
        law(led, "without a leader nobody is in sync")?;
        law(self.unclean_epoch <= Some(self.leader_epoch), "an unclean election was an election")?;
        let enough = self.isr.len() >= self.m(min_insync);
        law(!enough || candidates.len() == self.isr.len(), "with m in sync nobody else is eligible")
    }
}

/// Returns whether it was there.
fn remove(list: &mut Vec<BrokerId>, broker: BrokerId) -> bool {
    let before = list.len();
    list.retain(|id| *id != broker);
    list.len() < before
}
