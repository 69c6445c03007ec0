//! Runs a scenario in the world of this build.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use weir_runtime::disk::{Disk, DiskOptions};
use weir_runtime::net::{Listener, Stream};
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
