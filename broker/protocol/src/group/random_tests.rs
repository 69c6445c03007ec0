//! Members that come, go, repeat themselves and vanish, with appends that fail and coordinators that restart, in many
//! random orders.

use std::collections::BTreeMap;

use super::harness::*;
use super::*;
use crate::random::Random;

struct Walk {
    bench: Bench,
    random: Random,
    clients: Vec<Client>,
    joins: BTreeMap<CallId, usize>,
    syncs: BTreeMap<CallId, (usize, i32)>,
    /// Who owns what in which generation, as the members were told.
    owners: BTreeMap<(i32, u32), Name>,
    committed: i64,
}

impl Walk {
    fn new(seed: u64) -> Walk {
        let clients = (0..5).map(|number| match number {
            0 | 1 => Client::fixed(&format!("c{number}"), "twin"),
            2 => Client::fixed("c2", "lone"),
            _ => Client::new(&format!("c{number}")),
        });
        Walk {
            bench: Bench::new(),
            random: Random::new(seed),
            clients: clients.collect(),
            joins: BTreeMap::new(),
            syncs: BTreeMap::new(),
            owners: BTreeMap::new(),
            committed: 0,
        }
    }

    fn step(&mut self) {
        let at = self.random.below(self.clients.len());
        let client = self.clients[at].clone();
        self.bench.commits = self.random.below(4) > 0;
        match self.random.below(16) {
            0..=4 => {
                let call = self.bench.join(&client);
                self.joins.insert(call, at);
            }
            5..=7 => self.sync(at),
            8 | 9 => self.bench.heartbeat(&client),
            10 => self.bench.leave(&client),
            11 => {
                self.committed += 1;
                self.bench.commit(&client, self.committed);
            }
            12 => self.bench.commit_all(),
            13 => self.bench.fail_all(),
            14 if self.random.below(8) == 0 => self.restart(),
            _ => {
                let pause = seconds(self.random.below(30) as u64);
                self.bench.pass(pause);
            }
        }
        self.hear();
    }

    /// The leader gives everybody a part; who it does not know gets nothing.
    fn sync(&mut self, at: usize) {
        let client = self.clients[at].clone();
        const PARTS: [&str; 5] = ["0", "1", "2", "3", "4"];
        let known: Vec<Client> = self.clients.clone();
        let parts: Vec<(&Client, &'static str)> = known.iter().zip(PARTS).collect();
        let call = self.bench.sync(&client, &parts);
        self.syncs.insert(call, (at, client.generation));
    }

    fn restart(&mut self) {
        let log = self.bench.log.clone();
        self.bench.restart();
        assert_eq!(self.bench.log, log, "who only reads writes nothing");
    }

    /// What the members were told since.
    fn hear(&mut self) {
        for (call, reply) in std::mem::take(&mut self.bench.replies) {
            match (reply, self.joins.remove(&call), self.syncs.remove(&call)) {
                (Reply::Join(Ok(joined)), Some(at), _) => {
                    self.clients[at].id = joined.member_id;
                    self.clients[at].generation = joined.generation;
                }
                (Reply::Join(Err(refused)), Some(at), _) => self.clients[at].id = refused.member_id,
                (Reply::Sync(Ok(synced)), _, Some((at, generation))) => {
                    let Some(part) = synced.assignment.first() else { continue };
                    let id = self.clients[at].id.clone();
                    let owner = self.owners.entry((generation, u32::from(*part))).or_insert(id.clone());
                    let instance_took_over = self.clients[at].instance.is_some();
                    assert!(*owner == id || instance_took_over, "two owners in one generation");
                }
                _ => {}
            }
        }
        let shown = self.bench.coordinator.offset("g", "t", 0).map_or(0, |committed| committed.offset);
        let in_log = self.bench.log.iter().rev().find_map(|record| match record {
            Record::Offset { value, .. } => Some(value.as_ref().map_or(0, |value| value.offset)),
            Record::Group { .. } => None,
        });
        assert_eq!(shown, in_log.unwrap_or(0), "what is shown is what is in the log");
    }
}

#[test]
fn the_laws_hold_whatever_members_and_disks_do() {
    for seed in 1..=400 {
        let mut walk = Walk::new(seed);
        (0..300).for_each(|_| walk.step());
    }
}
