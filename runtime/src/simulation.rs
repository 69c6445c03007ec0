//! Simulations: a seed decides a whole world of nodes, clocks, links and disks, on which the product runs as it is.
//!
//! The signatures are the same in both builds. Only a build with `--cfg madsim` can simulate; any other answers
//! [`run`] with [`NotSimulated`], so that a simulator that was built wrongly says so instead of testing nothing.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::simulated::clock::Clock;
use crate::simulated::disk::SimulatedDisk;
use crate::simulated::machines::Machines;
use crate::simulated::net::Network;
use crate::task::JoinHandle;
use crate::time::Instant;

pub use crate::simulated::control::{ClockControl, DiskControl, NetControl};
pub use crate::simulated::disk::{Damage, DiskProfile, FaultKind, FaultRule, Keep};
pub use crate::simulated::draw::Draw;
pub use crate::simulated::events::TraceEvent;
pub use crate::simulated::net::{LinkQuality, NetProfile};

#[cfg(not(madsim))]
use crate::simulated::absent::{self as executor, Executor};
#[cfg(madsim)]
use crate::simulated::binding::executor::{self, Executor};

/// This build cannot simulate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "this build cannot simulate: it needs --cfg madsim (RUSTFLAGS in the environment overrides cargo's alias)"
)]
pub struct NotSimulated;

/// Whether this build can simulate.
pub const AVAILABLE: bool = cfg!(madsim);

/// What a simulated world is like.
#[derive(Debug, Clone)]
pub struct SimulationOptions {
    /// When the run is given up, in simulated time.
    pub time_limit: Duration,
    /// How the network behaves unless it is told otherwise.
    pub net: NetProfile,
    /// How the disks behave unless they are told otherwise.
    pub disk: DiskProfile,
    /// Whether a trace is kept: [`Outcome::trace`].
    pub traced: bool,
}

impl Default for SimulationOptions {
    fn default() -> Self {
        Self {
            time_limit: Duration::from_secs(3600),
            net: NetProfile::default(),
            disk: DiskProfile::default(),
            traced: false,
        }
    }
}

/// Why a run has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// A task panicked, on whichever node.
    #[error("a task panicked: {message}")]
    Panicked {
        /// What the panic said, and where it was.
        message: String,
    },
    /// The run was not done within [`SimulationOptions::time_limit`].
    #[error("not done within {limit:?} of simulated time")]
    TimeLimit {
        /// The limit.
        limit: Duration,
    },
}

/// What came of a run.
#[derive(Debug)]
pub struct Outcome<T> {
    /// What the closure returned.
    pub result: Result<T, Failure>,
    /// The hash over all events: equal for two runs of one seed, or something is not deterministic.
    pub event_hash: u64,
    /// How many events there were.
    pub event_count: u64,
    /// How often each kind of event occurred; faults that struck begin with `fault.`.
    pub counters: BTreeMap<&'static str, u64>,
    /// What happened, if a trace was asked for.
    pub trace: Vec<TraceEvent>,
    /// How much simulated time passed.
    pub simulated: Duration,
}

/// Runs one simulation on a thread of its own, and waits for its end. The closure is the run: it adds nodes, works on them,
/// and returns when it has seen enough. Its future runs on a node of its own, which is called "world".
///
/// # Errors
/// [`NotSimulated`] in a build without the simulator.
pub fn run<F, Fut>(
    seed: u64,
    options: SimulationOptions,
    simulation: F,
) -> Result<Outcome<Fut::Output>, NotSimulated>
where
    F: FnOnce(World) -> Fut + Send + 'static,
    Fut: Future + 'static,
    Fut::Output: Send + 'static,
{
    executor::run(seed, options, simulation)
}

/// Notes that something worth counting happened in the product, such as "uncertain tail". Counted, hashed and traced in a
/// simulation; nothing at all in a normal build.
#[inline]
pub fn situation(name: &'static str) {
    executor::note(name, String::new);
}

/// As [`situation`], with particulars for the trace, which are only made when there is one.
#[inline]
pub fn trace(kind: &'static str, text: impl FnOnce() -> String) {
    executor::note(kind, text);
}

/// Tells whoever watches the simulation something of the product's own types ([`World::take_observations`]). Nothing at all in a
/// normal build.
#[inline]
pub fn observe<T: Any + Send>(fact: impl FnOnce() -> T) {
    executor::observe(fact);
}

/// What a node told with [`observe`].
#[derive(Debug)]
pub struct Observation {
    /// Simulated time.
    pub at: Instant,
    /// The node.
    pub node: NodeId,
    /// How many processes the node has had, this one included.
    pub incarnation: u64,
    /// What it told.
    pub fact: Box<dyn Any + Send>,
}

/// One node: a machine with a name, an address, a disk and a clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub(crate) u32);

impl NodeId {
    /// The number that [`TraceEvent::node`] uses; nodes are numbered from 1 in the order of [`World::add_node`], the world
    /// itself is 0.
    pub fn number(self) -> u32 {
        self.0
    }

    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {}", self.0)
    }
}

/// The simulated world, as seen from outside of its nodes. Clones are handles to the same world.
#[derive(Clone)]
#[cfg_attr(not(madsim), allow(dead_code, reason = "there is none in a build that cannot simulate"))]
pub struct World {
    pub(crate) machines: Arc<Mutex<Machines>>,
    pub(crate) executor: Executor,
}

impl World {
    fn machines(&self) -> MutexGuard<'_, Machines> {
        self.machines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works on the machines, and then lets those go on whom it concerns.
    fn with<T>(&self, act: impl FnOnce(&mut Machines, Instant) -> T) -> T {
        let result = act(&mut self.machines(), self.executor.now());
        self.executor.poke();
        result
    }

    fn note(&self, node: Option<NodeId>, kind: &'static str) {
        let machines = self.machines();
        let name = || node.and_then(|node| machines.nodes.get(node.index())).map(|found| found.name.clone());
        machines
            .events
            .note(self.executor.now(), node.map(|node| node.0), kind, &[], || name().unwrap_or_default());
    }

    pub(crate) fn with_disk<T>(&self, node: NodeId, act: impl FnOnce(&mut SimulatedDisk, Instant) -> T) -> T {
        self.with(|machines, now| {
            act(machines.disks.get_mut(node.index()).expect("every node id was made with its disk"), now)
        })
    }

    pub(crate) fn with_net<T>(&self, act: impl FnOnce(&mut Network, Instant) -> T) -> T {
        self.with(|machines, now| act(&mut machines.net, now))
    }

    pub(crate) fn with_clock<T>(
        &self,
        node: NodeId,
        kind: &'static str,
        act: impl FnOnce(&mut Clock, Instant) -> T,
    ) -> T {
        self.note(Some(node), kind);
        self.with(|machines, now| {
            act(machines.clocks.get_mut(node.index()).expect("every node id was made with its clock"), now)
        })
    }

    /// Adds a node and starts its process: `init` is its main function, called anew at each restart. When the future that it
    /// returns is done, the process has exited, and all its tasks with it. Other nodes reach it by its address and, through
    /// [`crate::net::resolve`], by its name.
    pub fn add_node<F, Fut>(&self, name: &str, ip: IpAddr, init: F) -> NodeId
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future + 'static,
    {
        let id = NodeId(self.machines().add_node(name.to_owned(), ip));
        self.note(Some(id), "node.added");
        self.executor.add_node(self, id, name, init);
        id
    }

    /// Kills a node's process, as SIGKILL does: tasks, sockets and locks are gone, the page cache stays, operations in flight
    /// happen or not. Does nothing to a process that is dead.
    pub fn kill(&self, node: NodeId) {
        self.end_process(node, "fault.process.kill", |machines, now| {
            if let Some(disk) = machines.disks.get_mut(node.index()) {
                disk.process_killed(now);
            }
            machines.net.process_died(node.0, now);
        });
        self.executor.kill(node);
    }

    /// Takes a node's power away: its process is gone, its disk keeps of what was not synced what `keep` says, and nobody on
    /// the network is told. Works on a dead process, too.
    pub fn power_loss(&self, node: NodeId, keep: Keep) {
        self.end_process(node, "fault.process.power_loss", |_, _| {});
        self.with(|machines, now| {
            if let Some(disk) = machines.disks.get_mut(node.index()) {
                disk.power_lost(keep, now);
            }
            machines.net.host_down(node.0, now);
        });
        self.executor.kill(node);
    }

    /// Does `act` if the node's process runs, and marks it as dead.
    pub(crate) fn end_process(
        &self,
        node: NodeId,
        kind: &'static str,
        act: impl FnOnce(&mut Machines, Instant),
    ) -> bool {
        let ran = {
            let mut machines = self.machines();
            machines.nodes.get_mut(node.index()).is_some_and(|found| std::mem::take(&mut found.running))
        };
        if ran {
            self.note(Some(node), kind);
            self.with(act);
        }
        ran
    }

    /// Starts a node's process anew; one that still runs is killed first. Brings the power back.
    pub fn restart(&self, node: NodeId) {
        self.kill(node);
        self.note(Some(node), "node.restarted");
        self.with(|machines, now| {
            machines.net.host_up(node.0, now);
            if let Some(found) = machines.nodes.get_mut(node.index()) {
                found.running = true;
                found.incarnation += 1;
            }
        });
        self.executor.restart(node);
    }

    /// Stops all tasks of a node until [`World::resume`], as SIGSTOP does: the clocks, the disk and the network go on.
    pub fn pause(&self, node: NodeId) {
        self.note(Some(node), "fault.process.pause");
        self.executor.pause(node);
    }

    /// Lets a paused node go on.
    pub fn resume(&self, node: NodeId) {
        self.note(Some(node), "node.resumed");
        self.executor.resume(node);
    }

    /// Asks a node's process to stop, as SIGTERM does: [`crate::task::interrupted`] returns there.
    pub fn interrupt(&self, node: NodeId) {
        self.note(Some(node), "node.interrupted");
        self.executor.interrupt(node);
    }

    /// Whether a node's process runs: neither killed nor exited.
    pub fn is_running(&self, node: NodeId) -> bool {
        self.machines().nodes.get(node.index()).is_some_and(|found| found.running)
    }

    /// How many processes the node has had.
    pub fn incarnation(&self, node: NodeId) -> u64 {
        self.machines().nodes.get(node.index()).map_or(0, |found| found.incarnation)
    }

    /// A node's name.
    pub fn name(&self, node: NodeId) -> String {
        self.machines().nodes.get(node.index()).map(|found| found.name.clone()).unwrap_or_default()
    }

    /// Starts a task in a node's process; it dies with the process.
    pub fn spawn_on<F>(&self, node: NodeId, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.executor.spawn_on(node, future)
    }

    /// A node's disk.
    #[cfg_attr(not(madsim), allow(unused_variables, reason = "there is no world to get here"))]
    pub fn disk(&self, node: NodeId) -> DiskControl {
        DiskControl { world: self.clone(), node }
    }

    /// The network.
    pub fn net(&self) -> NetControl {
        NetControl { world: self.clone() }
    }

    /// A node's wall clock.
    #[cfg_attr(not(madsim), allow(unused_variables, reason = "there is no world to get here"))]
    pub fn clock(&self, node: NodeId) -> ClockControl {
        ClockControl { world: self.clone(), node }
    }

    /// Simulated time.
    pub fn now(&self) -> Instant {
        self.executor.now()
    }

    /// What the nodes told since the last call, in the order in which they did.
    pub fn take_observations(&self) -> Vec<Observation> {
        std::mem::take(&mut self.machines().observations)
    }

    /// The hash over all events so far.
    pub fn event_hash(&self) -> u64 {
        self.machines().events.hash()
    }

    /// Takes an event of the caller's into hash, counters and trace.
    pub fn record_event(&self, node: Option<NodeId>, kind: &'static str, text: &str) {
        let facts = [crate::simulated::events::digest(text.as_bytes())];
        let now = self.executor.now();
        self.machines().events.note(now, node.map(|node| node.0), kind, &facts, || text.to_owned());
    }

    /// How often each kind of event occurred so far; faults that struck begin with `fault.`.
    pub fn events(&self) -> BTreeMap<&'static str, u64> {
        self.machines().events.counters()
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("nodes", &self.machines().nodes).finish_non_exhaustive()
    }
}
