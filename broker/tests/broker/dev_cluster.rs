//! `weir-broker --dev-cluster`: three processes that start and stop together.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::{Client, run};

/// A running cluster; killed when it is dropped, and its nodes stop by themselves then.
pub(crate) struct DevCluster {
    child: Child,
    /// Where clients reach its nodes.
    pub(crate) addresses: Vec<SocketAddr>,
    /// The table before its last line.
    table: Vec<String>,
}

impl Drop for DevCluster {
    fn drop(&mut self) {
        // It may have ended before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir-broker"));
    command.args(["--dev-cluster", "3", "--data-dir"]).arg(folder).env("RUST_LOG", "warn");
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

impl DevCluster {
    pub(crate) fn start(folder: &Path) -> DevCluster {
        let child = command(folder).spawn().expect("a process");
        let mut cluster = DevCluster { child, addresses: Vec::new(), table: Vec::new() };
        let stdout = cluster.child.stdout.take().expect("its output");
        for line in BufReader::new(stdout).lines() {
            let line = line.expect("text");
            if let Some(addresses) = line.strip_prefix("ready ") {
                let addresses = addresses.split(',').map(|address| address.parse().expect("an address"));
                cluster.addresses = addresses.collect();
                return cluster;
            }
            cluster.table.push(line);
        }
        panic!("it ended without being ready: {:?}", cluster.table)
    }

    /// As Ctrl-C and a service manager do it.
    fn stop(mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a signal");
        self.child.wait().expect("its end").code()
    }
}

#[test]
fn a_cluster_of_processes_starts_and_stops_together() {
    let folder = tempfile::tempdir().expect("a folder");
    for _ in 0..2 {
        let cluster = DevCluster::start(folder.path());
        assert_eq!(cluster.addresses.len(), 3);
        assert_eq!(cluster.table.len(), 4, "{:?}", cluster.table);
        assert!(cluster.table[0].starts_with("node  clients"), "{:?}", cluster.table);
        assert!(cluster.table[2].contains(&cluster.addresses[1].to_string()), "{:?}", cluster.table);
        let addresses = cluster.addresses.clone();
        run(async move {
            for address in addresses {
                Client::connect(address).await.metadata(9, None, false).await;
            }
        });
        assert_eq!(cluster.stop(), Some(0));
    }
}

#[test]
fn a_node_that_does_not_start_ends_the_cluster_with_its_reason() {
    let folder = tempfile::tempdir().expect("a folder");
    let running = super::process::start(&folder.path().join("another"));
    let port = running.address.port();
    let mut command = command(folder.path());
    command.args(["--port", &(port - 1).to_string()]).stderr(Stdio::piped());
    let mut child = command.spawn().expect("a process");
    let mut log = String::new();
    child.stderr.take().expect("its log").read_to_string(&mut log).expect("text");
    assert!(matches!(child.wait().expect("its end").code(), Some(3)), "{log}");
    let last = log.lines().last().unwrap_or_default();
    // Its neighbours may be taken too.
    let reason = last.starts_with("weir-broker: node ") && last.ends_with(": the port is in use");
    assert!(reason, "{log}");
}
