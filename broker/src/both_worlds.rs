//! Runs a test's scenario in the world of this build: once in the real one, with several seeds in the simulated one.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use weir_runtime::simulation::{self, SimulationOptions};
use weir_runtime::task::{self, RuntimeOptions};
use weir_runtime::time;

/// Longer than any scenario takes in either world.
const LIMIT: Duration = Duration::from_secs(60);
const SEEDS: u64 = 10;

/// Where a scenario takes place.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) ip: IpAddr,
    /// A folder for folders; it is empty, and removed afterwards.
    pub(crate) root: PathBuf,
}

pub(crate) type Scene = Pin<Box<dyn Future<Output = ()> + Send>>;

pub(crate) fn run(scenario: fn(Site) -> Scene) {
    for seed in 0..SEEDS {
        let simulated = move |world: simulation::World| async move {
            let ip = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
            let node = world.add_node("node", ip, std::future::pending::<()>);
            let site = Site { ip, root: PathBuf::from("/data") };
            let finished = time::timeout(LIMIT, world.spawn_on(node, scenario(site))).await;
            finished.expect("the scenario takes too long").expect("no panic");
        };
        let Ok(outcome) = simulation::run(seed, SimulationOptions::default(), simulated) else {
            return run_for_real(scenario);
        };
        if let Err(failure) = outcome.result {
            panic!("seed {seed}: {failure}");
        }
    }
}

fn run_for_real(scenario: fn(Site) -> Scene) {
    let folder = tempfile::tempdir().unwrap();
    let site = Site { ip: IpAddr::V4(Ipv4Addr::LOCALHOST), root: folder.path().to_owned() };
    let options = RuntimeOptions { worker_threads: Some(2), ..RuntimeOptions::default() };
    task::block_on(options, time::timeout(LIMIT, scenario(site)))
        .expect("a runtime")
        .expect("the scenario takes too long");
}

/// Makes a test of each of these functions, which take a [`Site`].
macro_rules! scenarios {
    ($($name:ident),+ $(,)?) => {
        mod scenarios {
            $(
                #[test]
                fn $name() {
                    crate::both_worlds::run(|site| Box::pin(super::$name(site)));
                }
            )+
        }
    };
}
pub(crate) use scenarios;
