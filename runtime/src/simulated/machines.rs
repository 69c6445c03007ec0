//! All machines of one simulated world in one place, without the executor that runs the nodes' tasks.

use std::net::{IpAddr, Ipv4Addr};

use super::clock::Clock;
use super::disk::{DiskProfile, SimulatedDisk};
use super::draw::Draw;
use super::events::Events;
use super::net::{NetProfile, Network};
use crate::simulation::Observation;
use crate::time::Instant;

/// The number of the world's own node, on which the simulation's closure runs.
pub(crate) const WORLD: u32 = 0;

/// What is known of a node besides its machines.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) running: bool,
    /// How many processes the node has had.
    pub(crate) incarnation: u64,
}

/// The machines of one world.
#[derive(Debug)]
pub(crate) struct Machines {
    pub(crate) events: Events,
    pub(crate) net: Network,
    /// Invariant: these three have one entry for each node, at its number.
    pub(crate) disks: Vec<SimulatedDisk>,
    pub(crate) clocks: Vec<Clock>,
    pub(crate) nodes: Vec<Node>,
    /// What the nodes told and nobody has taken yet.
    pub(crate) observations: Vec<Observation>,
    draw: Draw,
    disk_profile: DiskProfile,
    epoch_ms: i64,
}

impl Machines {
    pub(crate) fn new(seed: u64, events: Events, net: NetProfile, disk: DiskProfile) -> Self {
        let mut draw = Draw::new(seed);
        let network = Network::new(draw.fork(), events.clone(), net);
        // Some day in the years from 2024 on: nothing may depend on which.
        let epoch_ms = 1_704_067_200_000 + draw.below(4 * 365 * 86_400_000) as i64;
        let mut machines = Self {
            events,
            net: network,
            disks: Vec::new(),
            clocks: Vec::new(),
            nodes: Vec::new(),
            observations: Vec::new(),
            draw,
            disk_profile: disk,
            epoch_ms,
        };
        machines.add_node("world".to_owned(), IpAddr::V4(Ipv4Addr::new(10, 255, 255, 254)));
        machines
    }

    /// Adds a node with its disk, clock and host, and returns its number.
    pub(crate) fn add_node(&mut self, name: String, ip: IpAddr) -> u32 {
        let number = self.nodes.len() as u32;
        let disk =
            SimulatedDisk::new(number, self.draw.fork(), self.events.clone(), self.disk_profile.clone());
        self.disks.push(disk);
        self.clocks.push(Clock::new(self.epoch_ms));
        self.net.add_host(number, ip);
        self.nodes.push(Node { name, running: true, incarnation: 1 });
        number
    }

    /// When the next of the machines has something to do.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let disks = self.disks.iter().filter_map(SimulatedDisk::next_completion).min();
        [self.net.next_event(), disks].into_iter().flatten().min()
    }
}
