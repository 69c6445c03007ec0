//! The clients of a simulated run: the load that runs with real processes have too, each client on a machine of its own.

use weir_runtime::simulation::{NodeId, World};
use weir_runtime::task::JoinHandle;

use crate::cluster;
use crate::plan::Load;

pub use weir_jepsen::load::{
    DELETED, FIRST_LATE_PROCESS, Shared, ask_groups, clients, compacted, connect, final_read, keyed_process,
    log_of, members, partitions, probe,
};

/// Adds a machine for a client; what it does is spawned there.
pub fn add_client(world: &World, number: u32) -> NodeId {
    world.add_node(&format!("client-{number}"), cluster::client_address(number), std::future::pending::<()>)
}

/// Starts all clients on their machines. Each is done when it has ended all its operations.
pub fn start(world: &World, nodes: &[NodeId], load: &Load, shared: &Shared) -> Vec<JoinHandle<()>> {
    let works = weir_jepsen::load::work(load, shared);
    works.into_iter().map(|work| world.spawn_on(nodes[work.machine], work.run)).collect()
}
