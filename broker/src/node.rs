//! A node, wired from its parts, in a process and in the simulator alike.

mod failure;
mod parts;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use weir_protocol::types::BrokerId;
use weir_runtime::disk::Disk;
use weir_runtime::net::Listener;
use weir_runtime::task::{self, JoinHandle};
use weir_runtime::{time, watch};
use weir_storage::{StorageError, Store};

use crate::config::Config;
use crate::group::Groups;
use crate::membership::Membership;
use crate::metadata::LeaderView;
use crate::metrics::Metrics;
use crate::peer::Peers;
use crate::server::{Stage, listener};
use crate::shard::Shards;

use self::parts::Entrance;
pub(crate) use failure::FailureFlag;
pub use failure::{Failure, StartError};

/// How long a clean stop waits for requests under way.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// How long a node whose folder has failed waits until the controller knows.
const TELL_MAX: Duration = Duration::from_millis(300);

/// A running node: a broker, a voter of the metadata quorum, or both.
pub struct Node {
    address: SocketAddr,
    http_address: Option<SocketAddr>,
    metrics: Arc<Metrics>,
    stage: watch::Sender<Stage>,
    failure: FailureFlag,
    store: Store,
    shards: Shards,
    groups: Groups,
    /// The task that takes clients' connections; none unless this node is a broker that serves.
    accepting: Option<JoinHandle<()>>,
    /// The tasks of the group coordinators, guarded as the shards are.
    coordinators: Vec<JoinHandle<()>>,
    /// Shards, each under a guard that reports its end.
    owners: Vec<JoinHandle<()>>,
    driver_stop: mpsc::Sender<()>,
    driver: JoinHandle<()>,
    /// Who leads the quorum.
    leader: watch::Receiver<LeaderView>,
    peers: Peers,
    /// The configured voters but for this node.
    other_voters: Vec<BrokerId>,
    /// None unless this node is a broker.
    membership: Option<Membership>,
    /// How long a clean stop waits until others lead; zero for a node alone.
    leave_max: Duration,
}

impl Node {
    /// Starts a node on an open data folder: takes its ports, recovers the folder, finds or forms its cluster, registers
    /// this process, and serves. A node of a cluster waits until enough of the others are there.
    ///
    /// # Errors
    /// See [`StartError`]; nothing is left running.
    pub async fn start(config: Config, disk: Disk) -> Result<Node, StartError> {
        let config = Arc::new(config);
        for key in &config.ignored_keys {
            tracing::info!(key, "this key has no meaning for Weir and is passed over");
        }
        let (mut node, entrance) = Node::assemble(config, disk).await?;
        match node.joined().await {
            Ok(()) => {
                node.open(entrance);
                Ok(node)
            }
            Err(error) => {
                node.end().await;
                Err(error)
            }
        }
    }

    /// Waits until this node is what its roles say.
    async fn joined(&self) -> Result<(), StartError> {
        let joined = async {
            if let Some(membership) = &self.membership {
                return membership.joined().await.map_err(StartError::from);
            }
            let mut leader = self.leader.clone();
            // A driver that ends says why.
            let _ = leader.wait_for(|view| view.leader.is_some()).await;
            Ok(())
        };
        weir_runtime::select! {
            failure = self.failure.wait() => Err(StartError::from(failure)),
            joined = joined => joined,
            error = self.peers.shut_out(&self.other_voters) => Err(StartError::ShutOut(error.to_string())),
        }
    }

    /// Lets clients in.
    fn open(&mut self, entrance: Entrance) {
        let Entrance { clients, http, api } = entrance;
        let stage = || self.stage.subscribe();
        if let Some(http) = http {
            tracing::info!(address = ?http.local_addr(), "metrics and health over HTTP");
            task::spawn("http-listener", crate::server::http::serve(http, Arc::clone(&api), stage()));
        }
        self.accepting =
            clients.map(|clients| task::spawn("listener", listener::accept(clients, api, stage())));
    }

    /// The address that it listens on, with the port that was picked: for clients, or for the other nodes if it is no broker.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of the HTTP endpoint, if there is one.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http_address
    }

    /// The counters.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Waits until the node cannot go on, and says why. One whose folder has failed has told the controller then, if that
    /// was to be had.
    pub async fn failed(&self) -> Failure {
        let failure = self.failure.wait().await;
        if let (Failure::Folder(_), Some(membership)) = (&failure, &self.membership)
            && !self.leave_max.is_zero()
        {
            membership.fenced(TELL_MAX).await;
        }
        failure
    }

    /// Stops cleanly: others lead what this broker led, requests under way are answered, what is appended becomes durable,
    /// and the folder is marked so that the next start has nothing to recover.
    ///
    /// # Errors
    /// The store's, if the folder cannot be closed; then the next start recovers it.
    pub async fn stop(mut self) -> Result<(), StorageError> {
        if let Some(membership) = &self.membership
            && !self.leave_max.is_zero()
        {
            let has_left = weir_runtime::select! {
                has_left = membership.leave(self.leave_max) => has_left,
                // Nobody waits for a node that cannot go on: the others notice that it has ended.
                _ = self.failure.wait() => false,
            };
            if !has_left {
                tracing::warn!("stops although nobody has taken over what this broker leads");
            }
        }
        self.stage.send_replace(Stage::Draining);
        if let Some(mut accepting) = self.accepting.take()
            && time::timeout(DRAIN_MAX, &mut accepting).await.is_err()
        {
            tracing::warn!("requests are still under way, their connections are cut");
            self.stage.send_replace(Stage::Cut);
            report_end(accepting.await);
        }
        let store = self.store.clone();
        self.end().await;
        store.close().await
    }

    /// Ends all tasks.
    async fn end(self) {
        self.stage.send_replace(Stage::Cut);
        self.groups.stop().await;
        for coordinators in self.coordinators {
            report_end(coordinators.await);
        }
        self.shards.stop().await;
        for owner in self.owners {
            report_end(owner.await);
        }
        if let Some(membership) = &self.membership {
            membership.stop();
        }
        // A driver that has ended already needs no telling.
        let _ = self.driver_stop.send(()).await;
        report_end(self.driver.await);
        self.peers.close();
    }
}

fn report_end(ended: Result<(), task::JoinError>) {
    if let Err(error) = ended {
        tracing::warn!(%error, "while stopping");
    }
}

pub(crate) async fn bind(host_port: &str) -> Result<(Listener, SocketAddr), StartError> {
    listener::bind(host_port).await.map_err(|source| {
        let address = host_port.to_owned();
        match source.kind() {
            std::io::ErrorKind::AddrInUse => StartError::PortInUse { address },
            _ => StartError::Listen { address, source },
        }
    })
}
