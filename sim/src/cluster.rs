//! The simulated nodes: production's `Node` on simulated machines, with a supervisor that starts what has ended.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use weir_broker::config::{QuorumVoter, Roles, Secret};
use weir_broker::{Config, Node};
use weir_protocol::metadata::FEATURE_LEVEL_MAX;
use weir_runtime::disk::{Disk, DiskOptions, OpenError};
use weir_runtime::simulation::{self, NodeId, World};
use weir_runtime::{select, task};

use crate::plan::Cluster;
use crate::report::situation;

/// The port of every broker.
pub const PORT: u16 = 9092;
/// The port on which the nodes of a cluster talk to each other.
pub const INTERNAL_PORT: u16 = 9093;
/// What the nodes of a cluster know of each other.
const SECRET: &str = "of the simulation";
/// The data folder on each broker's disk.
pub const FOLDER: &str = "/data";

/// The exit code by which a broker says that what it cannot do without is damaged.
pub const DAMAGED: u8 = 5;

/// The exit code by which a node says that the cluster refuses it.
pub const REFUSED: u8 = 7;

/// How a broker's process ended by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// The exit code, as `weir-broker` documents it.
    pub code: u8,
    /// The line on standard error.
    pub line: String,
    /// Whether the feature level may not be raised beyond what it knows: a broker that serves, or a voter on which no newer
    /// version was ever installed.
    pub heeded: bool,
}

/// What the outside of a broker sees of it: its log line when it ends, and whether it is ready.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    exits: Arc<Mutex<Vec<Exit>>>,
    /// How often a process started, and which of them became ready last.
    lives: Arc<Mutex<(u64, u64)>>,
}

impl Seen {
    fn exits(&self) -> MutexGuard<'_, Vec<Exit>> {
        self.exits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How all processes so far ended that ended by themselves.
    pub fn all_exits(&self) -> Vec<Exit> {
        self.exits().clone()
    }

    fn lives(&self) -> MutexGuard<'_, (u64, u64)> {
        self.lives.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether so many processes in a row ended with this code, and none of them became ready.
    pub fn is_hopeless(&self, code: u8, times: usize) -> bool {
        let (started, ready) = *self.lives();
        let exits = self.exits();
        started >= ready + times as u64
            && exits.len() >= times
            && exits[exits.len() - times..].iter().all(|exit| exit.code == code)
    }

    /// Whether the process that started last became ready.
    pub fn is_ready(&self) -> bool {
        let (started, ready) = *self.lives();
        started == ready
    }
}

/// One broker.
#[derive(Debug, Clone)]
pub struct Broker {
    /// Its machine.
    pub node: NodeId,
    /// What is seen of it from outside.
    pub seen: Seen,
    versions: Arc<Versions>,
}

/// Which versions were installed on a broker, by the newest feature level that they know; 0: this version.
#[derive(Debug, Default)]
struct Versions {
    /// What the next start runs.
    installed: AtomicU16,
    newest: AtomicU16,
}

impl Broker {
    /// Installs another version, which the next start runs.
    pub fn install(&self, feature_level: u16) {
        self.versions.installed.store(feature_level, Ordering::Relaxed);
        self.versions.newest.fetch_max(feature_level, Ordering::Relaxed);
    }
}

/// The address of a broker.
pub fn address(number: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1 + number as u8))
}

/// The address of a client.
pub fn client_address(number: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 1, 1 + number as u8))
}

/// What a node reads from its command line.
fn config(cluster: &Cluster, number: u32) -> Config {
    let mut config = Config {
        node_id: number as i32 + 1,
        listen: format!("{}:{PORT}", address(number)),
        ..Config::default()
    };
    if !cluster.is_lone() {
        let role = cluster.role(number);
        config.roles = Roles { broker: role.is_broker(), controller: role.is_controller() };
        config.internal_listen = Some(format!("{}:{INTERNAL_PORT}", address(number)));
        config.internal_secret = Some(Secret::new(SECRET));
        let voter = |node: u32| QuorumVoter {
            node_id: node as i32 + 1,
            host: address(node).to_string(),
            port: INTERNAL_PORT,
        };
        config.quorum_voters = cluster.voting().map(voter).collect();
    }
    config
}

/// What a node reads from its file.
fn properties(cluster: &Cluster, number: u32) -> String {
    let mut settings = cluster.settings.clone();
    if let Some(member) = cluster.members.get(number as usize) {
        settings.extend(member.settings.clone());
    }
    settings.iter().map(|(name, value)| format!("{name}={value}\n")).collect()
}

/// Adds a node to the world and starts it.
pub fn add_broker(world: &World, number: u32, cluster: &Cluster) -> Broker {
    let seen = Seen::default();
    let (config, properties) = (config(cluster, number), properties(cluster, number));
    let (inside, versions) = (seen.clone(), Arc::<Versions>::default());
    let version = Arc::clone(&versions);
    let node = world.add_node(&format!("broker-{number}"), address(number), move || {
        let (seen, config, mut properties) = (inside.clone(), config.clone(), properties.clone());
        if let level @ 1.. = version.installed.load(Ordering::Relaxed) {
            properties += &format!("weir.feature.level.max={level}\n");
        }
        seen.lives().0 += 1;
        let upgraded = version.newest.load(Ordering::Relaxed) > FEATURE_LEVEL_MAX;
        async move {
            let Roles { broker, controller } = config.roles;
            if let Some(mut exit) = process(config, &properties, &seen).await {
                exit.heeded = (broker && seen.is_ready()) || (controller && !upgraded);
                if exit.code == REFUSED {
                    simulation::situation(situation::VERSION_REFUSED);
                }
                simulation::trace("broker exits", || format!("{} {}", exit.code, exit.line));
                seen.exits().push(exit);
            }
        }
    });
    Broker { node, seen, versions }
}

/// What `main` does in the production binary. Returns how it ended, unless it was asked to end and could.
async fn process(mut config: Config, properties: &str, seen: &Seen) -> Option<Exit> {
    let exit = |code, line: String| Some(Exit { code, line, heeded: false });
    if let Err(error) = config.apply(Path::new("server.properties"), properties) {
        return exit(2, error.to_string());
    }
    config.data_dir = FOLDER.into();
    let disk = match Disk::open(Path::new(FOLDER), DiskOptions { pool_threads: config.disk_threads }).await {
        Ok(disk) => disk,
        Err(error @ (OpenError::Locked { .. } | OpenError::NotWritable { .. })) => {
            return exit(4, error.to_string());
        }
        Err(error) => return exit(1, error.to_string()),
    };
    let started = select! {
        started = Box::pin(Node::start(config, disk)) => started,
        // A node that waits for others has nothing to close.
        () = task::interrupted() => return None,
    };
    let node = match started {
        Ok(node) => node,
        Err(error) => return exit(error.exit_code(), error.to_string()),
    };
    {
        let mut lives = seen.lives();
        lives.1 = lives.0;
    }
    select! {
        failure = node.failed() => {
            if failure.exit_code() == 6 {
                simulation::situation(situation::FOLDER_FAILED);
            }
            exit(failure.exit_code(), failure.to_string())
        },
        () = task::interrupted() => match node.stop().await {
            Ok(()) => None,
            Err(error) => exit(6, error.to_string()),
        },
    }
}
