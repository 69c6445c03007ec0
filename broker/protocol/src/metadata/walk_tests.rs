//! Three to five replicas with contents of their own, in many random orders: no election of the quorum's loses a committed
//! record while at most m - 1 disks are damaged (contracts 1 and 5).

use std::collections::{BTreeMap, BTreeSet};

use super::town::{LOG, Town};
use super::*;
use crate::random::Random;
use crate::types::{BrokerId, LeaderEpoch};

/// A replica's log: the epoch of each record. Everything in it is durable.
type Log = Vec<LeaderEpoch>;

struct Walk {
    town: Town,
    random: Random,
    logs: BTreeMap<BrokerId, Log>,
    up: BTreeSet<BrokerId>,
    /// Disks that were damaged, for good: at most m - 1.
    damaged: BTreeSet<BrokerId>,
    /// Every record that was ever committed.
    committed: Log,
    recoveries: usize,
    from_elr: usize,
}

impl Walk {
    fn new(seed: u64) -> Walk {
        let mut random = Random::new(seed);
        let brokers = 3 + random.below(3) as i32;
        let m = (1 + random.below(brokers as usize)).to_string();
        let town = Town::new(brokers, &[("min.insync.replicas", &m)]);
        let ids = || (1..=brokers).map(BrokerId);
        Walk {
            town,
            random,
            logs: ids().map(|id| (id, Log::new())).collect(),
            up: ids().collect(),
            damaged: BTreeSet::new(),
            committed: Log::new(),
            recoveries: 0,
            from_elr: 0,
        }
    }

    fn m(&self) -> usize {
        self.town.image.min_isr(LOG).unwrap()
    }

    fn some_broker(&mut self) -> BrokerId {
        BrokerId(1 + self.random.below(self.logs.len()) as i32)
    }

    fn step(&mut self) {
        let id = self.some_broker();
        match self.random.below(12) {
            0..=2 => self.write(),
            3 | 4 => self.replicate(id),
            5 => self.shrink(id),
            6 => self.stop(id),
            7 | 8 => self.start(id),
            9 => {
                if !self.up.contains(&id) {
                    self.town.fence(id.0);
                }
            }
            10 => {
                if self.up.contains(&id) {
                    self.town.unfence(id.0);
                }
            }
            _ => self.recover(),
        }
        self.judge();
    }

    fn leader(&self) -> Option<BrokerId> {
        self.town.partition().leader.filter(|id| self.up.contains(id))
    }

    /// The leader appends a record, and what the whole ISR has becomes committed.
    fn write(&mut self) {
        let Some(leader) = self.leader() else { return };
        let partition = self.town.partition();
        self.logs.get_mut(&leader).unwrap().push(partition.leader_epoch);
        self.commit();
    }

    fn commit(&mut self) {
        let Some(leader) = self.leader() else { return };
        let partition = self.town.partition();
        if partition.isr.len() < self.m() {
            return;
        }
        let log = &self.logs[&leader];
        let have = |id: &BrokerId| self.logs[id].iter().zip(log).take_while(|(a, b)| a == b).count();
        let end = partition.isr.iter().filter(|id| **id != leader).map(have).min().unwrap_or(log.len());
        if end > self.committed.len() {
            self.committed = log[..end].to_vec();
        }
    }

    /// `id` has the leader's log now, and joins the ISR.
    fn replicate(&mut self, id: BrokerId) {
        let Some(leader) = self.leader() else { return };
        if !self.up.contains(&id) || id == leader {
            return;
        }
        let log = self.logs[&leader].clone();
        self.logs.insert(id, log);
        let mut isr: Vec<_> = self.town.partition().isr.iter().map(|id| id.0).collect();
        if !isr.contains(&id.0) {
            isr.push(id.0);
            self.town.in_sync(&isr).ok();
        }
        self.commit();
    }

    fn shrink(&mut self, id: BrokerId) {
        let Some(leader) = self.leader() else { return };
        let isr: Vec<_> =
            self.town.partition().isr.iter().map(|id| id.0).filter(|other| *other != id.0).collect();
        if id != leader {
            self.town.in_sync(&isr).unwrap();
        }
    }

    fn stop(&mut self, id: BrokerId) {
        if self.random.below(4) == 0 && self.up.contains(&id) {
            self.town.wants_to_go(id.0);
        }
        self.up.remove(&id);
    }

    /// The process starts again. Its last round may be torn, or, within the contract, its disk may be damaged.
    fn start(&mut self, id: BrokerId) {
        if self.up.contains(&id) {
            return;
        }
        let may_be_damaged = self.damaged.len() + 1 < self.m() || self.damaged.contains(&id);
        match self.random.below(4) {
            0 if may_be_damaged => {
                self.damaged.insert(id);
                self.logs.insert(id, Log::new());
                self.town.start_empty(id.0);
            }
            1 => {
                if may_be_damaged {
                    self.damaged.insert(id);
                    self.logs.get_mut(&id).unwrap().pop();
                }
                self.town.start(id.0, LastStop::Uncertain);
            }
            _ => self.town.start(id.0, LastStop::Certain),
        }
        self.up.insert(id);
    }

    /// The controller has asked everybody who is up.
    fn recover(&mut self) {
        let partition = self.town.partition();
        let answered: Vec<_> =
            partition.uncertain.iter().filter(|id| self.up.contains(id)).copied().collect();
        let tail = |id: &BrokerId| (self.logs[id].last().copied().unwrap_or(-1), self.logs[id].len());
        let Some(most) = answered.iter().map(tail).max() else { return };
        let (most, less): (Vec<BrokerId>, Vec<BrokerId>) =
            answered.iter().copied().partition(|id| tail(id) == most);
        let ids = |ids: &[BrokerId]| ids.iter().map(|id| id.0).collect::<Vec<_>>();
        if self.town.recovered(most[0].0, &ids(&most[1..]), &ids(&less)).is_ok() {
            self.recoveries += 1;
        }
    }

    fn judge(&mut self) {
        let partition = self.town.partition();
        assert_eq!(partition.unclean_epoch, None);
        for id in partition.isr.iter().chain(&partition.elr).filter(|id| !self.damaged.contains(id)) {
            let log = &self.logs[id];
            let holds = log.starts_with(&self.committed);
            assert!(holds, "{id} lacks {:?}: {log:?}\n{}", self.committed, self.town.transcript());
        }
        if let Some(leader) = partition.leader {
            let holds = self.logs[&leader].starts_with(&self.committed);
            assert!(holds, "{leader} leads without {:?}\n{}", self.committed, self.town.transcript());
        }
        self.from_elr += usize::from(!partition.elr.is_empty());
    }

    /// Everybody comes back for good: somebody leads.
    fn heal(&mut self) {
        for id in self.logs.keys().copied().collect::<Vec<_>>() {
            if self.up.insert(id) {
                self.town.start(id.0, LastStop::Certain);
            }
            if self.town.image.broker(id).unwrap().shutting_down {
                self.town.start(id.0, LastStop::Clean);
            }
            self.town.unfence(id.0);
        }
        self.recover();
        self.judge();
        assert!(self.leader().is_some(), "{}", self.town.transcript());
    }
}

#[test]
fn no_election_loses_a_committed_record_while_the_contract_holds() {
    let (mut recoveries, mut eligible, mut committed) = (0, 0, 0);
    for seed in 1..=600 {
        let mut walk = Walk::new(seed);
        (0..250).for_each(|_| walk.step());
        walk.heal();
        recoveries += walk.recoveries;
        eligible += walk.from_elr;
        committed += walk.committed.len();
    }
    assert!(recoveries > 100 && eligible > 1_000 && committed > 1_000, "{recoveries} {eligible} {committed}");
}
