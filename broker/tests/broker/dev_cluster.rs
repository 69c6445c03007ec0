//! `weir-broker --dev-cluster`: three processes that start and stop together.

#![allow(clippy::disallowed_methods)] // it starts processes, and is never simulated

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use weir_runtime::time;

use crate::nodes;
use crate::support::{Client, PATIENCE, batch, run};

const UNKNOWN_TOPIC: i16 = 3;
const NOT_LEADER: i16 = 6;

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
    let _turn = nodes::turn();
    let folder = tempfile::tempdir().expect("a folder");
    for round in 0..2 {
        let cluster = DevCluster::start(folder.path());
        assert_eq!(cluster.addresses.len(), 3);
        assert_eq!(cluster.table.len(), 4, "{:?}", cluster.table);
        assert!(cluster.table[0].starts_with("node  clients"), "{:?}", cluster.table);
        assert!(cluster.table[2].contains(&cluster.addresses[1].to_string()), "{:?}", cluster.table);
        run(async {
            let mut client = Client::connect(cluster.addresses[0]).await;
            if round == 0 {
                client.create("orders", 1, &[]).await;
            }
            let leader = leader(&mut client, &cluster.addresses).await;
            let mut client = Client::connect(leader).await;
            let mut appended = client.produce("orders", 0, batch(&[b"one"])).await;
            let deadline = time::now() + PATIENCE;
            // The leader may be the last to hear that it leads.
            while [NOT_LEADER, UNKNOWN_TOPIC].contains(&appended.error_code) && time::now() < deadline {
                time::sleep(Duration::from_millis(5)).await;
                appended = client.produce("orders", 0, batch(&[b"one"])).await;
            }
            assert_eq!((appended.error_code, appended.base_offset), (0, round), "what was written is there");
        });
        assert_eq!(cluster.stop(), Some(0));
    }
}

/// The address of a topic's leader, once the three know each other and it has three replicas in sync.
async fn leader(client: &mut Client, addresses: &[SocketAddr]) -> SocketAddr {
    let deadline = time::now() + PATIENCE;
    loop {
        let metadata = client.metadata(9, Some(&["orders"]), false).await;
        let ports: BTreeSet<i32> = metadata.brokers.iter().map(|broker| broker.port).collect();
        let expected = addresses.iter().map(|address| i32::from(address.port())).collect();
        assert!(ports.is_subset(&expected), "{metadata:?}");
        let partition = metadata.topics[0].partitions.first();
        if let Some(partition) = partition.filter(|partition| partition.isr_nodes.len() == 3)
            && let Some(broker) = metadata.brokers.iter().find(|broker| broker.node_id == partition.leader_id)
        {
            return SocketAddr::from(([127, 0, 0, 1], broker.port as u16));
        }
        assert!(time::now() < deadline, "not in sync: {metadata:?}");
        time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn a_node_with_another_secret_ends_with_its_reason() {
    let _turn = nodes::turn();
    let folder = tempfile::tempdir().expect("a folder");
    let _cluster = DevCluster::start(folder.path());
    let settings = std::fs::read_to_string(folder.path().join("node-1.properties")).expect("its file");
    let voters =
        settings.lines().find(|line| line.starts_with("controller.quorum.voters=")).expect("its voters");
    let file = folder.path().join("stranger.properties");
    let stranger = format!(
        "node.id=4\n{voters}\nlisteners=PLAINTEXT://127.0.0.1:0,INTERNAL://127.0.0.1:0\nweir.internal.secret=guessed\n"
    );
    std::fs::write(&file, stranger).expect("a file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir-broker"));
    command.arg("--config").arg(&file).arg("--data-dir").arg(folder.path().join("stranger"));
    let output = command.stdin(Stdio::null()).output().expect("a process");
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(7), "{log}");
    let last = log.lines().last().unwrap_or_default();
    assert!(last.starts_with("weir-broker: none of controller.quorum.voters talks to this node"), "{log}");
    assert!(last.contains("weir.internal.secret") && !log.contains("guessed"), "{log}");
}

#[test]
fn a_node_that_does_not_start_ends_the_cluster_with_its_reason() {
    let _turn = nodes::turn();
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
