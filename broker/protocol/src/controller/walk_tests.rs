//! Brokers that come, go, fall silent and lose their disks, proposals that wait or are refused, controllers that change, in
//! many random orders; then all is well again, and everything is led and served.

use super::harness::*;
use super::*;
use crate::metadata::LastStop;
use crate::random::Random;

struct Walk {
    world: World,
    random: Random,
    brokers: i32,
    recovered: bool,
}

impl Walk {
    fn new(seed: u64) -> Walk {
        let mut random = Random::new(seed);
        let brokers = 1 + random.below(4) as i32;
        Walk { world: World::new(brokers), random, brokers, recovered: false }
    }

    fn some_broker(&mut self) -> i32 {
        1 + self.random.below(self.brokers as usize) as i32
    }

    fn step(&mut self) {
        let id = self.some_broker();
        let world = &mut self.world;
        world.commits = self.random.below(3) > 0;
        match self.random.below(16) {
            0..=4 => {
                let wants = [Wants::Serve, Wants::Serve, Wants::Serve, Wants::Leave, Wants::Fenced];
                let applied = world.image.applied().unwrap_or(-1) - self.random.below(3) as i64;
                world.heartbeat_at(id, wants[self.random.below(5)], applied);
            }
            5 => world.lose_connection(id),
            6 | 7 => {
                let stops = [LastStop::Clean, LastStop::Certain, LastStop::Uncertain];
                if self.random.below(4) == 0 {
                    world.empty_disk(id);
                }
                world.register(id, stops[self.random.below(3)]);
            }
            8 | 9 => self.alter(),
            10 => {
                let (epoch, end) = (self.random.below(3) as i32, self.random.below(5) as i64);
                world.tails(id, epoch, end);
            }
            11 => {
                if let Some((Some(command), _)) = world.proposed.pop_front() {
                    world.step(Input::ProposalRefused { command });
                }
            }
            12 if self.random.below(4) == 0 => world.take_over(),
            13 => {
                world.commit_one();
            }
            _ => {
                let time = ms(self.random.below(500) as u64);
                world.pass(time);
            }
        }
    }

    fn alter(&mut self) {
        let leader = self.world.image.partition(LOG).and_then(|partition| partition.leader);
        let isr: Vec<_> = (1..=self.brokers)
            .filter(|id| leader == Some(BrokerId(*id)) || self.random.below(2) == 0)
            .collect();
        let command = self.world.alter(&isr);
        self.world.change(command);
    }

    /// Everybody comes back for good and answers what is asked.
    fn heal(&mut self) {
        let world = &mut self.world;
        world.commits = true;
        world.commit_all();
        world.pass(ms(2_000));
        for id in 1..=self.brokers {
            world.register(id, LastStop::Certain);
        }
        for _ in 0..40 {
            world.pass_with(ms(150), &(1..=self.brokers).collect::<Vec<_>>());
            for (broker, epoch) in std::mem::take(&mut world.asked) {
                if epoch == world.epoch(broker.0) {
                    self.recovered = true;
                    world.tails(broker.0, 0, i64::from(broker.0));
                }
            }
        }
        let transcript = || world.lines[world.lines.len().saturating_sub(60)..].join("\n");
        assert!((1..=self.brokers).all(|id| world.broker_state(id) == "InService"), "{}", transcript());
        assert!(world.image.partition(LOG).unwrap().leader.is_some(), "{}", transcript());
        assert_eq!(world.controller.in_flight(), 0, "{}", transcript());
    }
}

#[test]
fn whatever_brokers_do_the_laws_hold_and_in_the_end_all_is_led() {
    let mut recovered = 0;
    for seed in 1..=500 {
        let mut walk = Walk::new(seed);
        (0..200).for_each(|_| walk.step());
        walk.heal();
        recovered += usize::from(walk.recovered);
    }
    assert!(recovered > 50, "{recovered}");
}
