//! Three nodes on this machine, of ours or of Apache Kafka's, to be measured side by side.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

use super::broker::build_broker;

/// How many nodes.
const NODES: usize = 3;

/// Nodes on free ports, with empty folders; they are killed when this is dropped.
pub(crate) struct Cluster {
    /// Where clients begin.
    pub(crate) bootstrap: String,
    pub(crate) processes: Vec<Child>,
}

impl Cluster {
    /// Our own, with settings of its own, each as `name=value`.
    pub(crate) fn start_weir(root: &Path, work: &Path, settings: &[String]) -> Result<Cluster> {
        let binary = build_broker(root)?;
        let (external, internal) = (free_ports()?, free_ports()?);
        let voters: Vec<_> =
            internal.iter().zip(1..).map(|(port, id)| format!("{id}@127.0.0.1:{port}")).collect();
        start(&external, |number| {
            let folder = work.join(format!("weir-{}", number + 1));
            empty(&folder)?;
            let mut lines = vec![
                format!("node.id={}", number + 1),
                format!("controller.quorum.voters={}", voters.join(",")),
                format!(
                    "listeners=PLAINTEXT://127.0.0.1:{},INTERNAL://127.0.0.1:{}",
                    external[number], internal[number]
                ),
                "weir.internal.secret=measured".to_owned(),
            ];
            lines.extend_from_slice(settings);
            let config = folder.join("server.properties");
            std::fs::write(&config, lines.join("\n") + "\n")?;
            let mut command = Command::new(&binary);
            command.arg("--config").arg(config).arg("--data-dir").arg(folder.join("data"));
            command.stderr(File::create(folder.join("broker.log"))?);
            Ok(command)
        })
    }

    /// Apache Kafka's, which its script installs first.
    pub(crate) fn start_apache_kafka(root: &Path, work: &Path) -> Result<Cluster> {
        let (external, internal) = (free_ports()?, free_ports()?);
        let voters: Vec<_> =
            internal.iter().zip(1..).map(|(port, id)| format!("{id}@127.0.0.1:{port}")).collect();
        start(&external, |number| {
            let mut command = Command::new(root.join("jepsen-like/interop/apache-kafka/node"));
            command.arg(work.join(format!("kafka-{}", number + 1)));
            command.args([(number + 1).to_string(), external[number].to_string(), voters.join(",")]);
            command.env("WORK", root.join("target/interop"));
            Ok(command)
        })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill(); // one that has ended by itself has failed its clients already
            let _ = process.wait();
        }
    }
}

/// Starts all nodes before it waits for any: none is ready alone.
fn start(external: &[u16], command: impl Fn(usize) -> Result<Command>) -> Result<Cluster> {
    let addresses: Vec<_> = external.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let mut cluster = Cluster { bootstrap: addresses.join(","), processes: Vec::new() };
    for number in 0..external.len() {
        let process =
            command(number)?.stdout(Stdio::piped()).spawn().context("a node could not be started")?;
        cluster.processes.push(process);
    }
    for (process, number) in cluster.processes.iter_mut().zip(1..) {
        let output = process.stdout.take().context("a node has no output")?;
        let mut lines = BufReader::new(output).lines().map_while(Result::ok);
        if !lines.any(|line| line.starts_with("ready ")) {
            bail!("node {number} did not become ready; see its log");
        }
    }
    Ok(cluster)
}

fn free_ports() -> Result<Vec<u16>> {
    // All at once, so that they differ.
    let listeners: Vec<_> = (0..NODES).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

fn empty(folder: &Path) -> Result<()> {
    if folder.exists() {
        std::fs::remove_dir_all(folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))
}
