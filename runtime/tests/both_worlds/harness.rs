//! Runs a scenario in the world of this build.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use weir_runtime::disk::{Disk, DiskOptions};
use weir_runtime::net::{Listener, Stream};
use weir_runtime::simulation::{self, SimulationOptions, World};
use weir_runtime::task::{self, RuntimeOptions};
use weir_runtime::time;

/// Where a scenario runs.
#[derive(Clone)]
pub(crate) struct Place {
    /// A folder that does not exist yet, in one that does.
    pub(crate) folder: PathBuf,
    /// An address to listen on.
    pub(crate) ip: IpAddr,
}

pub(crate) type Scene = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Simulations of each scenario.
const SEEDS: u64 = 10;
/// Longer than any of these scenarios takes in either world.
const LIMIT: Duration = Duration::from_secs(30);

impl Place {
    pub(crate) async fn disk(&self) -> Disk {
        Disk::open(&self.folder, DiskOptions::default()).await.unwrap()
    }

    pub(crate) async fn listener(&self) -> (Listener, SocketAddr) {
        let listener = Listener::bind(SocketAddr::new(self.ip, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    /// Two ends of one connection.
    pub(crate) async fn connection(&self) -> (Stream, Stream) {
        let (listener, address) = self.listener().await;
        let connecting = task::spawn("connect", Stream::connect(address));
        let (accepted, peer) = listener.accept().await.unwrap();
        let connected = connecting.await.unwrap().unwrap();
        assert_eq!(connected.local_addr().unwrap(), peer);
        (connected, accepted)
    }
}

pub(crate) fn run(scenario: fn(Place) -> Scene) {
    for seed in 0..SEEDS {
        let Ok(outcome) = simulation::run(seed, SimulationOptions::default(), simulated(scenario)) else {
            return run_for_real(scenario);
        };
        if let Err(failure) = outcome.result {
            panic!("seed {seed}: {failure}");
        }
    }
}

fn simulated(scenario: fn(Place) -> Scene) -> impl FnOnce(World) -> Pin<Box<dyn Future<Output = ()>>> + Send {
    move |world| {
        Box::pin(async move {
            let place = Place { folder: "/data/broker".into(), ip: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)) };
            let node = world.add_node("node", place.ip, std::future::pending::<()>);
            let finished = time::timeout(LIMIT, world.spawn_on(node, scenario(place))).await;
            finished.expect("the scenario takes too long").unwrap();
        })
    }
}

fn run_for_real(scenario: fn(Place) -> Scene) {
    let scratch = tempfile::tempdir().unwrap();
    let place = Place { folder: scratch.path().join("broker"), ip: IpAddr::V4(Ipv4Addr::LOCALHOST) };
    let options = RuntimeOptions { worker_threads: Some(2), ..RuntimeOptions::default() };
    let in_time = task::block_on(options, time::timeout(LIMIT, scenario(place))).unwrap();
    in_time.expect("the scenario takes too long");
}

/// Makes a test of each scenario: `async fn name(place: Place)`.
#[macro_export]
macro_rules! both_worlds {
    ($($scenario:ident),+ $(,)?) => {
        mod tests {
            $(
                #[test]
                fn $scenario() {
                    $crate::harness::run(|place| Box::pin(super::$scenario(place)));
                }
            )+
        }
    };
}
