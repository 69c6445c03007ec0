//! The handles by which a plan works on one part of the world.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;

use super::disk::{Damage, FaultRule, Keep, SimulatedDisk};
use super::net::{LinkQuality, NetProfile, Network};
use crate::simulation::{NodeId, World};
use crate::time::Instant;

/// The disk of one node, which outlives the node's processes.
#[derive(Clone, Debug)]
pub struct DiskControl {
    pub(crate) world: World,
    pub(crate) node: NodeId,
}

impl DiskControl {
    fn with<T>(&self, act: impl FnOnce(&mut SimulatedDisk, Instant) -> T) -> T {
        self.world.with_disk(self.node, act)
    }

    /// [`World::kill`] for this disk's node.
    pub fn kill_process(&self) {
        self.world.kill(self.node);
    }

    /// [`World::power_loss`] for this disk's node.
    pub fn power_loss(&self) {
        self.world.power_loss(self.node, Keep::Drawn);
    }

    /// Puts a fault in store.
    pub fn add_fault(&self, rule: FaultRule) {
        self.with(|disk, _| disk.add_fault(rule));
    }

    /// Takes all faults back, lets a stuck disk go on, restores speed and room. Damage that was done stays.
    pub fn heal(&self) {
        self.with(SimulatedDisk::heal);
    }

    /// Limits the room for the files' content, or lifts the limit.
    pub fn set_capacity_bytes(&self, capacity: Option<u64>) {
        self.with(|disk, _| disk.set_capacity_bytes(capacity));
    }

    /// Bytes that files take up.
    pub fn used_bytes(&self) -> u64 {
        self.with(|disk, _| disk.used_bytes())
    }

    /// Makes operations that start from now on take this many times as long.
    pub fn slow_down(&self, factor: f64) {
        self.with(|disk, now| disk.slow_down(now, factor));
    }

    /// Lets no operation end until [`DiskControl::release`].
    pub fn stick(&self) {
        self.with(SimulatedDisk::stick);
    }

    /// Lets a stuck disk go on.
    pub fn release(&self) {
        self.with(SimulatedDisk::release);
    }

    /// Lets power losses show old blocks instead of zeros where data was lost.
    pub fn show_stale_blocks(&self, shown: bool) {
        self.with(|disk, _| disk.show_stale_blocks(shown));
    }

    /// Flips bits at rest in files whose path matches (`*` stands for anything); in `range`, or anywhere in them. `None` when
    /// there is nothing to damage.
    pub fn rot(&self, pattern: &str, range: Option<Range<u64>>) -> Option<Damage> {
        self.with(|disk, now| disk.rot(pattern, range, now))
    }

    /// Damages a folder: one of the files whose path matches has no name any more. Returns its path; `None`: there is none.
    pub fn lose_file(&self, pattern: &str) -> Option<String> {
        self.with(|disk, now| disk.lose_file(pattern, now))
    }

    /// Forgets clean pages, so that reads come from the medium: shows what a failed sync lost.
    pub fn drop_caches(&self) {
        self.with(SimulatedDisk::drop_caches);
    }

    /// Kills the node's process and puts an empty disk in. Restart the node yourself.
    pub fn replace(&self) {
        self.world.kill(self.node);
        self.with(SimulatedDisk::replaced);
    }

    /// What a file would hold after a power loss that keeps nothing; `None` when its name would be gone. For checkers. The
    /// path starts at the top of the node's file system: the data folder comes first.
    pub fn durable_content(&self, path: &str) -> Option<Bytes> {
        self.with(|disk, _| disk.durable_content(path))
    }

    /// What a file holds as the node's processes see it. For checkers.
    pub fn content(&self, path: &str) -> Option<Bytes> {
        self.with(|disk, _| disk.content(path))
    }

    /// All files with their lengths, by path from the top of the node's file system.
    pub fn files(&self) -> Vec<(String, u64)> {
        self.with(|disk, _| disk.files())
    }
}

/// The network between the nodes.
#[derive(Clone, Debug)]
pub struct NetControl {
    pub(crate) world: World,
}

impl NetControl {
    fn with<T>(&self, act: impl FnOnce(&mut Network, Instant) -> T) -> T {
        self.world.with_net(act)
    }

    /// Lets nothing through from one node to the other; the other way stays open.
    pub fn cut(&self, from: NodeId, to: NodeId) {
        self.with(|net, now| net.cut(from.0, to.0, now));
    }

    /// Undoes [`NetControl::cut`].
    pub fn mend(&self, from: NodeId, to: NodeId) {
        self.with(|net, now| net.mend(from.0, to.0, now));
    }

    /// Cuts all links between the two groups, both ways.
    pub fn partition(&self, one: &[NodeId], other: &[NodeId]) {
        for (a, b) in pairs(one, other) {
            self.cut(a, b);
            self.cut(b, a);
        }
    }

    /// Undoes [`NetControl::partition`].
    pub fn unite(&self, one: &[NodeId], other: &[NodeId]) {
        for (a, b) in pairs(one, other) {
            self.mend(a, b);
            self.mend(b, a);
        }
    }

    /// Lets nothing into a node and nothing out of it.
    pub fn isolate(&self, node: NodeId) {
        self.clog(node, true, true);
    }

    /// Lets nothing into a node, or nothing out of it, or both.
    pub fn clog(&self, node: NodeId, inwards: bool, outwards: bool) {
        self.with(|net, now| net.clog(node.0, inwards, outwards, now));
    }

    /// Undoes [`NetControl::isolate`] and [`NetControl::clog`].
    pub fn unclog(&self, node: NodeId) {
        self.with(|net, now| net.unclog(node.0, now));
    }

    /// Mends all links and restores their quality. Nodes without power stay unreachable.
    pub fn heal(&self) {
        self.with(Network::mend_all);
    }

    /// Says how one direction behaves from now on; `None`: as it was drawn at first.
    pub fn set_link(&self, from: NodeId, to: NodeId, quality: Option<LinkQuality>) {
        self.with(|net, now| net.set_link(from.0, to.0, quality, now));
    }

    /// Changes what holds for links and connections that are used first from now on.
    pub fn set_profile(&self, profile: NetProfile) {
        self.with(|net, _| net.set_profile(profile));
    }

    /// Resets connections between two nodes (`None`: any), each with this probability, in the middle of what is on its way.
    /// Returns how many.
    pub fn reset_connections(&self, one: Option<NodeId>, other: Option<NodeId>, probability: f64) -> u64 {
        self.with(|net, now| {
            net.reset_connections(one.map(|node| node.0), other.map(|node| node.0), probability, now)
        })
    }

    /// A node's ends of its connections to another one fail, and the other side does not hear of it: they are half open. Cut the
    /// links first, or the next thing that the other side sends tells it. Returns how many.
    pub fn forget_connections(&self, node: NodeId, other: NodeId) -> u64 {
        self.with(|net, now| net.forget_connections(node.0, other.0, now))
    }

    /// Whether nothing gets through from one node to the other, for whatever reason.
    pub fn is_severed(&self, from: NodeId, to: NodeId) -> bool {
        self.with(|net, _| net.is_severed(from.0, to.0))
    }
}

fn pairs(one: &[NodeId], other: &[NodeId]) -> Vec<(NodeId, NodeId)> {
    one.iter().flat_map(|a| other.iter().map(move |b| (*a, *b))).filter(|(a, b)| a != b).collect()
}

/// The wall clock of one node.
#[derive(Clone, Debug)]
pub struct ClockControl {
    pub(crate) world: World,
    pub(crate) node: NodeId,
}

impl ClockControl {
    fn with<T>(&self, kind: &'static str, act: impl FnOnce(&mut super::clock::Clock, Instant) -> T) -> T {
        self.world.with_clock(self.node, kind, act)
    }

    /// Sets the clock forwards: a skew at the start of a run, a jump later.
    pub fn jump_forwards(&self, step: Duration) {
        self.with("fault.clock.jump_forwards", |clock, now| clock.jump_forwards(now, step));
    }

    /// Sets the clock back.
    pub fn jump_backwards(&self, step: Duration) {
        self.with("fault.clock.jump_backwards", |clock, now| clock.jump_backwards(now, step));
    }

    /// Lets the clock run this many parts per million too fast (negative: too slow).
    pub fn drift(&self, parts_per_million: i64) {
        self.with("fault.clock.drift", |clock, now| clock.drift(now, parts_per_million));
    }

    /// Stops the clock.
    pub fn freeze(&self) {
        self.with("fault.clock.freeze", |clock, now| clock.freeze(now));
    }

    /// Lets a stopped clock run on, and at the right pace.
    pub fn heal(&self) {
        self.with("clock.healed", |clock, now| {
            clock.thaw(now);
            clock.drift(now, 0);
        });
    }

    /// What the clock shows, in milliseconds since 1970.
    pub fn wall_ms(&self) -> i64 {
        self.with("clock.read", |clock, now| clock.wall_ms(now))
    }
}
