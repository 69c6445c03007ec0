//! Exhaustive exploration of the production cores: every order of events of a few nodes within bounds, with Stateright
//! as the engine. `cargo run --release -p weir-proptests --bin explore -- --help` explores larger bounds than the tests.
//!
//! * [`raft`]: the metadata quorum.
//! * [`partition`]: the replicas of a partition.

pub mod partition;
pub mod raft;

use std::time::{Duration, Instant};

use stateright::{Checker, HasDiscoveries, Model};
use weir_defect::{Defect, switch_on};

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
pub fn explore<M>(model: M, order: Order, threads: usize, time_max: Duration) -> Explored
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + std::fmt::Debug + std::hash::Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + std::fmt::Debug + PartialEq + Send + Sync + 'static,
{
    let start = Instant::now();
    let builder = model.checker().threads(threads).timeout(time_max).finish_when(HasDiscoveries::AnyFailures);
    let explored = match order {
        Order::DepthFirst => summary(&builder.spawn_dfs().join()),
        Order::BreadthFirst => summary(&builder.spawn_bfs().join()),
    };
    let took = start.elapsed();
    Explored { complete: explored.broken.is_none() && took < time_max, took, ..explored }
}

fn summary<M>(checker: &impl Checker<M>) -> Explored
where
    M: Model,
    M::State: Clone + std::fmt::Debug + std::hash::Hash + PartialEq,
    M::Action: Clone + std::fmt::Debug + PartialEq,
{
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
