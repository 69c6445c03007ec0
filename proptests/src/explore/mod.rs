//! Exhaustive exploration of the production cores: every order of events of a few nodes within bounds, with Stateright
//! as the engine. `cargo run --release -p weir-proptests --bin explore -- --help` explores larger bounds than the tests.
//!
//! * [`raft`]: the metadata quorum.
//! * [`partition`]: the replicas of a partition.

pub mod partition;
pub mod raft;

use std::fmt::Debug;
use std::hash::Hash;
use std::time::{Duration, Instant};

use stateright::{Checker, HasDiscoveries, Model, Property};
use weir_defect::{Defect, switch_on};

/// A core in a few nodes, with the disks, the network and the register around them.
pub trait World: Clone + Debug + Hash + PartialEq + Send + Sync + Sized + 'static {
    /// How much may happen in a run.
    type Bounds: Clone + Debug + Send + Sync + 'static;
    /// Something that happens.
    type Action: Copy + Debug + PartialEq + Send + Sync + 'static;
    /// What must hold in every state.
    const LAWS: [&'static str; 6];

    /// In the beginning.
    fn new(bounds: &Self::Bounds) -> Self;

    /// What may happen next; nothing once a law is broken.
    fn actions(&self, bounds: &Self::Bounds, actions: &mut Vec<Self::Action>);

    /// It happens.
    fn act(&mut self, bounds: &Self::Bounds, action: Self::Action);

    /// The law that is broken, if one is.
    fn broken(&self) -> Option<&'static str>;
}

/// The model that is explored: a world's bounds, and the defects that are switched on.
#[derive(Clone, Debug)]
pub struct Bounded<W: World> {
    /// What may happen.
    pub bounds: W::Bounds,
    /// What is wrong.
    pub defects: Vec<Defect>,
}

impl<W: World> Model for Bounded<W> {
    type State = W;
    type Action = W::Action;

    fn init_states(&self) -> Vec<W> {
        switch_on(&self.defects);
        vec![W::new(&self.bounds)]
    }

    fn actions(&self, world: &W, actions: &mut Vec<W::Action>) {
        world.actions(&self.bounds, actions);
    }

    fn next_state(&self, world: &W, action: W::Action) -> Option<W> {
        // The switches belong to a thread, and the engine has its own.
        switch_on(&self.defects);
        let mut next = world.clone();
        next.act(&self.bounds, action);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Bounded<W>>> {
        fn law<W: World, const N: usize>(_: &Bounded<W>, world: &W) -> bool {
            world.broken().is_none_or(|broken| broken != W::LAWS[N])
        }
        vec![
            Property::always(W::LAWS[0], law::<W, 0>),
            Property::always(W::LAWS[1], law::<W, 1>),
            Property::always(W::LAWS[2], law::<W, 2>),
            Property::always(W::LAWS[3], law::<W, 3>),
            Property::always(W::LAWS[4], law::<W, 4>),
            Property::always(W::LAWS[5], law::<W, 5>),
        ]
    }
}

/// A named exploration.
#[derive(Clone, Debug)]
pub struct Part<B> {
    /// What it is about.
    pub name: &'static str,
    /// Within which bounds.
    pub bounds: B,
}

/// A defect, and bounds within which a law breaks when it is switched on.
#[derive(Clone, Debug)]
pub struct Hunt<B> {
    /// What is switched on.
    pub defect: Defect,
    /// Within which bounds it is hunted.
    pub bounds: B,
}

/// In which order states are visited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Needs least memory.
    DepthFirst,
    /// Finds a shortest run that breaks a law.
    BreadthFirst,
}

/// A law that a run breaks.
#[derive(Clone, Debug)]
pub struct Broken {
    /// Which.
    pub law: &'static str,
    /// The run, an action a line.
    pub run: Vec<String>,
}

/// What an exploration has found.
#[derive(Clone, Debug)]
pub struct Explored {
    /// Different states.
    pub states: usize,
    /// Steps from state to state.
    pub steps: usize,
    /// The longest run without a repeated state, as far as it was followed.
    pub depth: usize,
    /// Whether that is all there is within the bounds.
    pub complete: bool,
    /// Real time.
    pub took: Duration,
    /// The first law that was found broken.
    pub broken: Option<Broken>,
}

/// Explores until everything is seen, a law is broken or `time_max` has passed. `defects` are switched on in the
/// threads that explore, in a build that has switches.
#[expect(clippy::disallowed_methods, reason = "a tool that is never simulated")]
pub fn explore<W: World>(model: Bounded<W>, order: Order, threads: usize, time_max: Duration) -> Explored {
    let start = Instant::now();
    let builder = model.checker().threads(threads).timeout(time_max).finish_when(HasDiscoveries::AnyFailures);
    let explored = match order {
        Order::DepthFirst => summary(&builder.spawn_dfs().join()),
        Order::BreadthFirst => summary(&builder.spawn_bfs().join()),
    };
    let took = start.elapsed();
    Explored { complete: explored.broken.is_none() && took < time_max, took, ..explored }
}

fn summary<W: World>(checker: &impl Checker<Bounded<W>>) -> Explored {
    // In the order of their names, not of a hash map.
    let mut broken: Vec<_> = checker.discoveries().into_iter().collect();
    broken.sort_by_key(|(law, _)| *law);
    let broken = broken.into_iter().next().map(|(law, path)| {
        let run = path.into_actions().iter().map(|action| checker.model().format_action(action)).collect();
        Broken { law, run }
    });
    Explored {
        states: checker.unique_state_count(),
        steps: checker.state_count(),
        depth: checker.max_depth(),
        complete: false,
        took: Duration::ZERO,
        broken,
    }
}

/// Whether this build can switch these on; switches them on in this thread.
pub fn has_switches(defects: &[Defect]) -> bool {
    defects.is_empty() || switch_on(defects)
}
