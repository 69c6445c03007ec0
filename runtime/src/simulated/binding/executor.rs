//! Nodes on madsim's executor, and the run itself.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::task::Poll;
use std::time::Duration;

use madsim::runtime::{Handle, Runtime};
use madsim::task::NodeId as TaskNode;

use super::shared::Shared;
use super::task;
use crate::simulated::events::Events;
use crate::simulated::machines::{Machines, WORLD};
use crate::simulation::{Failure, NodeId, NotSimulated, Observation, Outcome, SimulationOptions, World};
use crate::task::JoinHandle;
use crate::time::Instant;

/// After how many new tasks the finished ones are forgotten.
const PRUNE_EVERY_TASKS: u64 = 1024;
/// A simulation's thread runs deep futures.
const STACK_BYTES: usize = 16 << 20;

thread_local! {
    static SIMULATES: Cell<bool> = const { Cell::new(false) };
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// The nodes' processes.
#[derive(Clone)]
pub(crate) struct Executor {
    shared: Arc<Shared>,
    /// Emptied at the end of the run: the executor keeps the nodes' main functions, and they keep the world.
    handle: Arc<Mutex<Option<Handle>>>,
    nodes: Arc<Mutex<Vec<TaskNode>>>,
}

impl Executor {
    fn handle(&self) -> Handle {
        let handle = self.handle.lock().unwrap_or_else(PoisonError::into_inner);
        handle.clone().expect("the world is not used after its run")
    }

    fn task_node(&self, node: NodeId) -> TaskNode {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)[node.index()]
    }

    pub(crate) fn now(&self) -> Instant {
        self.shared.now()
    }

    pub(crate) fn poke(&self) {
        self.shared.poke();
    }

    pub(crate) fn add_node<F, Fut>(&self, world: &World, node: NodeId, name: &str, init: F)
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future + 'static,
    {
        let init = Arc::new(init);
        let world = world.clone();
        let main = move || {
            let (init, world) = (Arc::clone(&init), world.clone());
            async move {
                let incarnation = world.incarnation(node);
                init().await;
                // Its sockets and files close as with a kill, and what is in flight on the disk is let go.
                if world.incarnation(node) == incarnation {
                    world.exited(node);
                }
            }
        };
        let task_node = self.handle().create_node().name(name).init(main).build().id();
        self.shared.name_node(task_node, node.0);
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        debug_assert_eq!(nodes.len(), node.index(), "nodes are numbered in the order of their making");
        nodes.push(task_node);
    }

    pub(crate) fn kill(&self, node: NodeId) {
        self.shared.forget_process(node.0);
        self.handle().kill(self.task_node(node));
        self.poke();
    }

    pub(crate) fn restart(&self, node: NodeId) {
        self.handle().restart(self.task_node(node));
    }

    pub(crate) fn pause(&self, node: NodeId) {
        self.handle().pause(self.task_node(node));
    }

    pub(crate) fn resume(&self, node: NodeId) {
        self.handle().resume(self.task_node(node));
    }

    pub(crate) fn interrupt(&self, node: NodeId) {
        self.shared.interrupt(node.0);
    }

    pub(crate) fn forget_process(&self, node: NodeId) {
        self.shared.forget_process(node.0);
    }

    pub(crate) fn spawn_on<F>(&self, node: NodeId, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.shared.count_task();
        let spawner = self.handle().get_node(self.task_node(node)).expect("nodes are never removed");
        JoinHandle::from_imp(task::Handle::new("spawn_on", spawner.spawn(future)))
    }
}

/// An event of the product's, on the node whose task this is.
pub(crate) fn note(kind: &'static str, text: impl FnOnce() -> String) {
    let Some(shared) = Shared::try_current() else { return };
    let (now, node) = (shared.now(), shared.node());
    let events = shared.machines().events.clone();
    events.note(now, Some(node), kind, &[], text);
}

/// Something that the product tells, on the node whose task this is.
pub(crate) fn observe<T: Any + Send>(fact: impl FnOnce() -> T) {
    let Some(shared) = Shared::try_current() else { return };
    let (at, node) = (shared.now(), NodeId(shared.node()));
    let mut machines = shared.machines();
    let incarnation = machines.nodes.get(node.index()).map_or(0, |found| found.incarnation);
    machines.observations.push(Observation { at, node, incarnation, fact: Box::new(fact()) });
}

pub(crate) fn run<F, Fut>(
    seed: u64,
    options: SimulationOptions,
    simulation: F,
) -> Result<Outcome<Fut::Output>, NotSimulated>
where
    F: FnOnce(World) -> Fut + Send + 'static,
    Fut: Future + 'static,
    Fut::Output: Send + 'static,
{
    catch_panics();
    let thread = std::thread::Builder::new().name(format!("seed-{seed}")).stack_size(STACK_BYTES);
    let events = Events::new(options.traced);
    let record = events.clone();
    let running = thread.spawn(move || {
        SIMULATES.set(true);
        let runtime = Runtime::with_seed_and_config(seed, madsim::Config::default());
        let handle = Arc::new(Mutex::new(Some(runtime.handle().clone())));
        let run = || run_here(seed, options, events, simulation, &runtime, &handle);
        let result =
            catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| (Err(take_panic()), Duration::ZERO));
        // What a panic left behind is dropped when it is over: a second panic on the way would end the whole process.
        let left = catch_unwind(AssertUnwindSafe(move || {
            forget(&handle);
            drop(runtime);
            Shared::enter(None);
        }));
        match left {
            Err(_) if result.0.is_ok() => (Err(take_panic()), result.1),
            _ => result,
        }
    });
    let joined = running.map(std::thread::JoinHandle::join);
    let (result, simulated) = match joined {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => (Err(take_panic()), Duration::ZERO),
        Err(error) => {
            let message = format!("no thread for the simulation: {error}");
            (Err(Failure::Panicked { message }), Duration::ZERO)
        }
    };
    Ok(Outcome {
        result,
        event_hash: record.hash(),
        event_count: record.count(),
        counters: record.counters(),
        trace: record.take_trace(),
        simulated: simulated.max(record.last().since_origin()),
    })
}

fn run_here<F, Fut>(
    seed: u64,
    options: SimulationOptions,
    events: Events,
    simulation: F,
    runtime: &Runtime,
    handle: &Arc<Mutex<Option<Handle>>>,
) -> (Result<Fut::Output, Failure>, Duration)
where
    F: FnOnce(World) -> Fut + Send + 'static,
    Fut: Future + 'static,
    Fut::Output: Send + 'static,
{
    let limit = options.time_limit;
    let handle = Arc::clone(handle);
    runtime.block_on(async move {
        let machines = Machines::new(seed, events, options.net, options.disk);
        let shared = Shared::new(machines);
        Shared::enter(Some(Arc::clone(&shared)));
        let executor = Executor { shared: Arc::clone(&shared), handle, nodes: Arc::default() };
        let world = World { machines: Arc::clone(&shared.machines), executor };
        let result = Arc::new(Mutex::new(None));
        start(&world, simulation, &result);
        let deadline = Instant::from_origin(limit);
        let output = poll_fn(|cx| {
            if let Some(output) = result.lock().unwrap_or_else(PoisonError::into_inner).take() {
                return Poll::Ready(Ok(output));
            }
            if shared.now() >= deadline {
                return Poll::Ready(Err(Failure::TimeLimit { limit }));
            }
            shared.drive(cx.waker());
            shared.arm(Some(deadline));
            if shared.take_task_count(PRUNE_EVERY_TASKS) {
                world.executor.handle().metrics().num_tasks();
            }
            Poll::Pending
        })
        .await;
        let simulated = shared.now().since_origin();
        stop(&world).await;
        (output, simulated)
    })
}

/// Starts the simulation's closure on a node of its own, which can be stopped like any other.
fn start<F, Fut>(world: &World, simulation: F, result: &Arc<Mutex<Option<Fut::Output>>>)
where
    F: FnOnce(World) -> Fut + Send + 'static,
    Fut: Future + 'static,
    Fut::Output: Send + 'static,
{
    let once = Mutex::new(Some((simulation, world.clone())));
    let result = Arc::clone(result);
    let main = move || {
        let once = once.lock().unwrap_or_else(PoisonError::into_inner).take();
        let result = Arc::clone(&result);
        async move {
            let Some((simulation, world)) = once else { return };
            let shared = Arc::clone(&world.executor.shared);
            let output = simulation(world).await;
            *result.lock().unwrap_or_else(PoisonError::into_inner) = Some(output);
            shared.poke();
            // The node must not exit before the driver has seen the result.
            std::future::pending::<()>().await;
        }
    };
    let executor = &world.executor;
    let task_node = executor.handle().create_node().name("world").init(main).build().id();
    executor.shared.name_node(task_node, WORLD);
    executor.nodes.lock().unwrap_or_else(PoisonError::into_inner).push(task_node);
}

/// Drops all tasks of all nodes, and whatever refers to them.
async fn stop(world: &World) {
    let executor = &world.executor;
    let nodes = executor.nodes.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for node in &nodes {
        executor.handle().kill(*node);
    }
    // Killed tasks drop when they are run next; what they drop may wake others.
    for _ in 0..3 {
        madsim::time::sleep(Duration::from_millis(1)).await;
        executor.shared.clear();
    }
}

/// Lets go of the executor, which would keep the world, which keeps the executor.
fn forget(handle: &Mutex<Option<Handle>>) {
    let gone = handle.lock().unwrap_or_else(PoisonError::into_inner).take();
    drop(gone);
}

impl World {
    /// The main function of a node's process has returned.
    fn exited(&self, node: NodeId) {
        self.end_process(node, "node.exited", |machines, now| {
            if let Some(disk) = machines.disks.get_mut(node.index()) {
                disk.process_killed(now);
            }
            machines.net.process_died(node.0, now);
        });
        self.executor.forget_process(node);
    }
}

/// Keeps the message of a panic on a simulation's thread, instead of printing it.
fn catch_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !SIMULATES.try_with(Cell::get).unwrap_or(false) {
                return previous(info);
            }
            let message = describe(info);
            // The first panic is the cause; what follows is its wake.
            let kept = PANIC.try_with(|panic| {
                panic.borrow_mut().get_or_insert(message);
            });
            if kept.is_err() {
                previous(info);
            }
        }));
    });
}

fn describe(info: &PanicHookInfo<'_>) -> String {
    let payload = info.payload();
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    let text = text.unwrap_or_else(|| "a panic without words".to_owned());
    match info.location() {
        Some(location) => format!("{text} ({location})"),
        None => text,
    }
}

fn take_panic() -> Failure {
    let message = PANIC.with(|panic| panic.borrow_mut().take());
    Failure::Panicked { message: message.unwrap_or_else(|| "the thread died without a panic".to_owned()) }
}
