//! Does to the world what the plan says, when it says so, and heals everything in the end.

mod several;
mod staged;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use weir_runtime::simulation::{FaultKind, FaultRule, LinkQuality, NodeId, World};
use weir_runtime::task::{self, JoinHandle};
use weir_runtime::time;

use crate::cluster::{Broker, DAMAGED};
use crate::load;
use crate::plan::{Direction, Fault, Files, TimedFault};
use crate::report::situation;
use crate::watch::Watch;

/// How long a supervisor waits before it starts a broker that ended by itself.
const SUPERVISOR_PAUSE: Duration = Duration::from_millis(200);
/// Starts in a row that tell an operator that a folder is damaged for good.
const TRIES: usize = 5;
/// How long a clean stop may take before the process is killed.
const STOP_MAX: Duration = Duration::from_secs(60);

/// What the nemesis has done.
#[derive(Debug, Default)]
pub struct Deeds {
    /// How often each kind of fault struck.
    pub struck: BTreeMap<&'static str, u64>,
    /// Files whose bits were flipped, from the top of the node's file system.
    pub damaged: Vec<String>,
    /// What it could not do as planned.
    pub complaints: Vec<String>,
}

/// Whoever does the plan's deeds to the cluster.
#[derive(Clone)]
pub struct Nemesis {
    world: World,
    brokers: Arc<Vec<Broker>>,
    clients: Arc<Vec<NodeId>>,
    watch: Watch,
    deeds: Arc<Mutex<Deeds>>,
    /// Brokers that a fault keeps down; the supervisor leaves them alone.
    held: Arc<Mutex<BTreeMap<u32, u32>>>,
    /// The newest version that was installed, by the feature level that it knows.
    newest: Arc<AtomicU16>,
    /// Faults that may not have ended yet.
    under_way: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Nemesis {
    /// A nemesis of this cluster.
    pub fn new(world: World, brokers: Vec<Broker>, clients: Vec<NodeId>, watch: Watch) -> Nemesis {
        Nemesis {
            world,
            watch,
            brokers: Arc::new(brokers),
            clients: Arc::new(clients),
            deeds: Arc::default(),
            held: Arc::default(),
            newest: Arc::default(),
            under_way: Arc::default(),
        }
    }

    /// What it has done so far.
    pub fn deeds(&self) -> MutexGuard<'_, Deeds> {
        self.deeds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Strikes as planned, and returns when the last fault's time has come. Faults that last end by themselves.
    pub async fn strike(&self, faults: &[TimedFault]) {
        let start = time::now();
        for planned in faults {
            time::sleep_until(start + Duration::from_millis(planned.at_ms)).await;
            let (nemesis, fault) = (self.clone(), planned.fault.clone());
            self.begin(async move { nemesis.perform(&fault).await });
        }
    }

    /// Lets a fault, or a part of one, take its course until everything is healed.
    fn begin(&self, fault: impl Future<Output = ()> + Send + 'static) {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        under_way.push(task::spawn("fault", fault));
    }

    /// Starts brokers that ended by themselves, for ever. What is damaged beyond a start comes back with an empty disk, as the
    /// operator of a cluster sees to it.
    pub async fn supervise(&self) {
        loop {
            time::sleep(SUPERVISOR_PAUSE).await;
            for (number, broker) in self.brokers.iter().enumerate() {
                if !self.world.is_running(broker.node) && !self.is_held(number as u32) {
                    let is_damaged = self.brokers.len() > 1 && !self.deeds().damaged.is_empty();
                    if is_damaged && broker.seen.is_hopeless(DAMAGED, TRIES) {
                        self.deeds().damaged.push(format!("all of {}", broker.node));
                        self.world.disk(broker.node).replace();
                    }
                    self.world.restart(broker.node);
                }
            }
        }
    }

    /// Ends every fault for good and starts every broker.
    pub fn heal(&self) {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        under_way.drain(..).for_each(|fault| fault.abort());
        self.world.net().heal();
        self.held.lock().unwrap_or_else(PoisonError::into_inner).clear();
        for broker in self.brokers.iter() {
            broker.install(self.newest.load(Ordering::Relaxed));
            self.world.disk(broker.node).heal();
            self.world.clock(broker.node).heal();
            self.world.resume(broker.node);
            if !self.world.is_running(broker.node) {
                self.world.restart(broker.node);
            }
        }
    }

    /// Stops a node cleanly, and keeps it down.
    pub async fn stop(&self, broker: u32) {
        self.hold(broker, 1);
        self.stop_cleanly(self.node(broker)).await;
    }

    /// Starts a node that was stopped so.
    pub fn start(&self, broker: u32) {
        self.let_go(broker);
    }

    fn is_held(&self, broker: u32) -> bool {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).get(&broker).is_some_and(|holds| *holds > 0)
    }

    fn hold(&self, broker: u32, change: i64) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let holds = held.entry(broker).or_default();
        *holds = holds.saturating_add_signed(change as i32);
    }

    fn node(&self, broker: u32) -> NodeId {
        self.brokers[broker as usize].node
    }

    fn struck(&self, fault: &Fault) {
        *self.deeds().struck.entry(fault.name()).or_default() += 1;
        let node = if let [broker] = fault.nodes()[..] { Some(self.node(broker)) } else { None };
        self.world.record_event(node, "fault", fault.name());
    }

    async fn perform(&self, fault: &Fault) {
        let [broker] = fault.nodes()[..] else { return self.trouble_several(fault).await };
        let node = self.node(broker);
        let running = self.world.is_running(node);
        match *fault {
            Fault::Kill { .. }
            | Fault::PowerLoss { .. }
            | Fault::CrashInRecovery { .. }
            | Fault::Restart { .. }
            | Fault::RestartThenCrash { .. }
            | Fault::BitRot { .. }
            | Fault::Wipe { .. }
            | Fault::Relapse { .. }
            | Fault::Overtake { .. }
            | Fault::LostWrite { .. }
            | Fault::Pause { .. }
                if !running => {} // somebody else's fault holds it down: this one does not strike
            Fault::Kill { .. }
            | Fault::PowerLoss { .. }
            | Fault::CrashInRecovery { .. }
            | Fault::Restart { .. }
            | Fault::RestartThenCrash { .. } => self.stop_and_start(fault).await,
            Fault::Install { level, down_ms, .. } => self.install(fault, broker, level, down_ms).await,
            Fault::BitRot { .. } => self.rot(fault, node).await,
            Fault::Wipe { .. } | Fault::LostWrite { .. } => self.harm(fault, node).await,
            Fault::Relapse { .. } => self.relapse(fault, node).await,
            Fault::Overtake { .. } => self.overtake(fault, node).await,
            Fault::Pause { for_ms, .. } => {
                self.world.pause(node);
                self.struck(fault);
                sleep_ms(for_ms).await;
                self.world.resume(node);
            }
            Fault::ReadError { .. }
            | Fault::WriteError { .. }
            | Fault::SyncError { .. }
            | Fault::DiskFull { .. }
            | Fault::SlowDisk { .. }
            | Fault::StuckDisk { .. } => self.trouble_disk(fault, node).await,
            Fault::Cut { .. } | Fault::Reset { .. } | Fault::SlowLink { .. } => {
                self.trouble_links(fault, node).await
            }
            Fault::ClockJump { by_ms, .. } => {
                self.struck(fault);
                let (clock, step) = (self.world.clock(node), Duration::from_millis(by_ms.unsigned_abs()));
                if by_ms < 0 { clock.jump_backwards(step) } else { clock.jump_forwards(step) }
            }
            Fault::ClockFreeze { for_ms, .. } => {
                self.struck(fault);
                self.world.clock(node).freeze();
                sleep_ms(for_ms).await;
                self.world.clock(node).heal();
            }
            Fault::Split { .. }
            | Fault::Flap { .. }
            | Fault::Deaf { .. }
            | Fault::Swizzle { .. }
            | Fault::BadLinks { .. }
            | Fault::Uneven { .. }
            | Fault::HalfOpen { .. }
            | Fault::Blackout { .. }
            | Fault::Rolling { .. }
            | Fault::Hunt { .. }
            | Fault::Chase { .. }
            | Fault::LateAnswer { .. }
            | Fault::Recast { .. }
            | Fault::FigureEight { .. } => self.trouble_several(fault).await,
        }
    }

    /// Faults that end the process, and what follows on them.
    async fn stop_and_start(&self, fault: &Fault) {
        self.struck(fault);
        self.stop_and_start_quietly(fault).await;
    }

    /// The same, as a part of another fault.
    async fn stop_and_start_quietly(&self, fault: &Fault) {
        let [broker] = fault.nodes()[..] else { return };
        let node = self.node(broker);
        self.hold(broker, 1);
        match *fault {
            Fault::Kill { down_ms, .. } => {
                self.crash(node, false);
                sleep_ms(down_ms).await;
            }
            Fault::PowerLoss { down_ms, .. } => {
                self.crash(node, true);
                sleep_ms(down_ms).await;
            }
            Fault::CrashInRecovery { down_ms, after_ms, power, .. } => {
                self.crash(node, power);
                sleep_ms(down_ms).await;
                self.world.restart(node);
                sleep_ms(after_ms).await;
                self.crash(node, power);
            }
            Fault::Restart { down_ms, .. } => {
                self.stop_cleanly(node).await;
                sleep_ms(down_ms).await;
            }
            Fault::RestartThenCrash { down_ms, after_ms, power, .. } => {
                self.stop_cleanly(node).await;
                sleep_ms(down_ms).await;
                self.world.restart(node);
                sleep_ms(after_ms).await;
                self.crash(node, power);
            }
            _ => {}
        }
        self.let_go(broker);
    }

    /// The fault is over: the node starts again, unless another one holds it down.
    fn let_go(&self, broker: u32) {
        let node = self.node(broker);
        self.hold(broker, -1);
        if !self.world.is_running(node) && !self.is_held(broker) {
            self.world.restart(node);
        }
    }

    /// Ends the process, or takes its power. Counts it if the broker was not ready yet.
    fn crash(&self, node: NodeId, power: bool) {
        let broker = self.brokers.iter().find(|broker| broker.node == node);
        if broker.is_some_and(|broker| self.world.is_running(node) && !broker.seen.is_ready()) {
            self.world.record_event(Some(node), situation::CRASH_IN_RECOVERY, "");
        }
        if self.world.events().contains_key(load::DELETED) {
            self.world.record_event(Some(node), situation::DELETE_THEN_CRASH, "");
        }
        self.end(node, power);
    }

    async fn stop_cleanly(&self, node: NodeId) {
        self.world.interrupt(node);
        let deadline = time::now() + STOP_MAX;
        while self.world.is_running(node) {
            if time::now() >= deadline {
                self.deeds().complaints.push(format!("a clean stop of {node} takes more than {STOP_MAX:?}"));
                self.world.kill(node);
            }
            time::sleep(Duration::from_millis(5)).await; // a look at the process table, as a supervisor has it
        }
    }

    /// Another version takes over. One that the cluster refuses is started again and again, until a newer one is installed.
    async fn install(&self, fault: &Fault, broker: u32, level: u16, down_ms: u64) {
        self.struck(fault);
        self.hold(broker, 1);
        self.stop_cleanly(self.node(broker)).await;
        self.brokers[broker as usize].install(level);
        self.newest.fetch_max(level, Ordering::Relaxed);
        sleep_ms(down_ms).await;
        self.let_go(broker);
    }

    async fn rot(&self, fault: &Fault, node: NodeId) {
        let Fault::BitRot { broker, files, after_ms, down_ms, power } = *fault else { return };
        let Some(damage) = self.world.disk(node).rot(files.pattern(), None) else { return };
        self.struck(fault);
        self.deeds().damaged.push(damage.path);
        sleep_ms(after_ms).await;
        self.hold(broker, 1);
        self.crash(node, power);
        sleep_ms(down_ms).await;
        self.let_go(broker);
    }

    async fn trouble_disk(&self, fault: &Fault, node: NodeId) {
        let disk = self.world.disk(node);
        let once = |kind, files: Files| disk.add_fault(FaultRule::once(kind, files.pattern()));
        self.struck(fault);
        match *fault {
            Fault::ReadError { files, .. } => once(FaultKind::ReadError, files),
            Fault::WriteError { files, .. } => once(FaultKind::WriteError, files),
            Fault::SyncError { files, .. } => once(FaultKind::SyncLost, files),
            Fault::DiskFull { room_bytes, for_ms, .. } => {
                disk.set_capacity_bytes(Some(disk.used_bytes() + room_bytes));
                sleep_ms(for_ms).await;
                disk.set_capacity_bytes(None);
            }
            Fault::SlowDisk { factor, for_ms, .. } => {
                disk.slow_down(f64::from(factor));
                sleep_ms(for_ms).await;
                disk.slow_down(1.0);
            }
            Fault::StuckDisk { for_ms, .. } => {
                disk.stick();
                sleep_ms(for_ms).await;
                disk.release();
            }
            _ => {}
        }
    }

    async fn trouble_links(&self, fault: &Fault, node: NodeId) {
        let net = self.world.net();
        self.struck(fault);
        match *fault {
            Fault::Cut { client, direction, for_ms, .. } => {
                let one = client.and_then(|number| self.clients.get(number as usize));
                let clients = one.map_or(self.clients.to_vec(), |client| vec![*client]);
                let links = clients.iter().flat_map(|client| match direction {
                    Direction::FromBroker => vec![(node, *client)],
                    Direction::ToBroker => vec![(*client, node)],
                    Direction::Both => vec![(node, *client), (*client, node)],
                });
                let links: Vec<_> = links.collect();
                links.iter().for_each(|(from, to)| net.cut(*from, *to));
                sleep_ms(for_ms).await;
                links.iter().for_each(|(from, to)| net.mend(*from, *to));
            }
            Fault::Reset { .. } => {
                net.reset_connections(Some(node), None, 1.0);
            }
            Fault::SlowLink { delay_ms, for_ms, .. } => {
                let delay = Duration::from_millis(delay_ms);
                let slow = LinkQuality {
                    latency: (delay, delay * 2),
                    loss: 0.0,
                    duplication: 0.0,
                    bytes_per_second: 10_000_000,
                };
                for client in self.clients.iter() {
                    net.set_link(node, *client, Some(slow.clone()));
                    net.set_link(*client, node, Some(slow.clone()));
                }
                sleep_ms(for_ms).await;
                for client in self.clients.iter() {
                    net.set_link(node, *client, None);
                    net.set_link(*client, node, None);
                }
            }
            _ => {}
        }
    }
}

async fn sleep_ms(ms: u64) {
    time::sleep(Duration::from_millis(ms)).await;
}
