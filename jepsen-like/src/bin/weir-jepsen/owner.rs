//! Which process has the other end of a connection on this machine, as the kernel's tables say. So the links between two
//! nodes can be told apart though each node has one address for all of its peers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// The nodes' processes, by node.
#[derive(Clone, Default)]
pub(crate) struct Owners {
    pids: Arc<Mutex<BTreeMap<u32, u32>>>,
}

impl Owners {
    /// From now on the node is this process.
    pub(crate) fn set(&self, node: u32, pid: u32) {
        self.pids.lock().unwrap_or_else(PoisonError::into_inner).insert(node, pid);
    }

    /// The node that connected from `local` to `remote`; `None` if no node did, or it is gone already.
    pub(crate) fn of_connection(&self, local: SocketAddr, remote: SocketAddr) -> Option<u32> {
        let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
        let inode = inode_of(&table, local, remote)?;
        let socket = format!("socket:[{inode}]");
        let pids = self.pids.lock().unwrap_or_else(PoisonError::into_inner).clone();
        pids.into_iter().find(|(_, pid)| has_open(*pid, &socket)).map(|(node, _)| node)
    }
}

fn has_open(pid: u32, file: &str) -> bool {
    let Ok(open) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    open.flatten().any(|entry| std::fs::read_link(entry.path()).is_ok_and(|path| path.as_os_str() == file))
}

/// The inode of the socket that is bound to `local` and connected to `remote`, from the text of `/proc/net/tcp`.
fn inode_of(table: &str, local: SocketAddr, remote: SocketAddr) -> Option<&str> {
    let (local, remote) = (in_table(local)?, in_table(remote)?);
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let is_it = fields.next()? == local && fields.next()? == remote;
        // After the addresses: state, queues, timer, retransmissions, user, timeout, inode.
        is_it.then(|| fields.nth(6)).flatten()
    })
}

/// An IPv4 address as the table has it: hexadecimal, the address in the machine's byte order.
fn in_table(address: SocketAddr) -> Option<String> {
    let SocketAddr::V4(address) = address else { return None };
    Some(format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:2384 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 100 1 0000000000000000 100 0 0 10 0
   1: 0100007F:D2F0 0100007F:2384 01 00000000:00000000 00:00000000 00000000     0        0 4711 1 0000000000000000 20 4 30 10 -1
   2: 0100007F:2384 0100007F:D2F0 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0000000000000000 20 4 30 10 -1
";

    #[test]
    #[cfg(target_endian = "little")]
    fn the_connecting_end_of_a_connection_is_found() {
        let (server, client) = ("127.0.0.1:9092".parse().unwrap(), "127.0.0.1:54000".parse().unwrap());
        assert_eq!(inode_of(TABLE, client, server), Some("4711"));
        assert_eq!(inode_of(TABLE, server, client), Some("4712"));
        assert_eq!(inode_of(TABLE, client, "127.0.0.1:9093".parse().unwrap()), None);
    }

    #[test]
    fn a_connection_of_this_process_is_its_own() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let remote = listener.local_addr().unwrap();
        let stream = std::net::TcpStream::connect(remote).unwrap();
        let owners = Owners::default();
        assert_eq!(owners.of_connection(stream.local_addr().unwrap(), remote), None);
        owners.set(2, std::process::id());
        assert_eq!(owners.of_connection(stream.local_addr().unwrap(), remote), Some(2));
    }
}
