//! The simulated brokers: production's `Node` on simulated machines, with a supervisor that starts what has ended.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use weir_broker::{Config, Node};
use weir_runtime::disk::{Disk, DiskOptions, OpenError};
use weir_runtime::simulation::{self, NodeId, World};
use weir_runtime::{select, task};

use crate::report::situation;

/// The port of every broker.
pub const PORT: u16 = 9092;
/// The data folder on each broker's disk.
pub const FOLDER: &str = "/data";

/// How a broker's process ended by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// The exit code, as `weir-broker` documents it.
    pub code: u8,
    /// The line on standard error.
    pub line: String,
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
}

/// The address of a broker.
pub fn address(number: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1 + number as u8))
}

/// The address of a client.
pub fn client_address(number: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 1, 1 + number as u8))
}

/// Adds a broker to the world and starts it.
pub fn add_broker(world: &World, number: u32, settings: &BTreeMap<String, String>) -> Broker {
    let seen = Seen::default();
    let properties: String = settings.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    let inside = seen.clone();
    let node = world.add_node(&format!("broker-{number}"), address(number), move || {
        let (seen, properties) = (inside.clone(), properties.clone());
        seen.lives().0 += 1;
        async move {
            if let Some(exit) = process(number, &properties, &seen).await {
                simulation::trace("broker exits", || format!("{} {}", exit.code, exit.line));
                seen.exits().push(exit);
            }
        }
    });
    Broker { node, seen }
}

/// What `main` does in the production binary. Returns how it ended, unless it was asked to end and could.
async fn process(number: u32, properties: &str, seen: &Seen) -> Option<Exit> {
    let exit = |code, line: String| Some(Exit { code, line });
    let mut config = Config {
        node_id: number as i32 + 1,
        listen: format!("{}:{PORT}", address(number)),
        ..Config::default()
    };
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
    let node = match Node::start(config, disk).await {
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
