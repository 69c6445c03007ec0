//! Several nodes of a cluster, each a process on this machine.

#![allow(clippy::disallowed_methods)] // it starts processes, and is never simulated

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kafka_protocol::messages::MetadataResponse;
use weir_runtime::time;

use crate::support::{Client, PATIENCE};

/// A cluster; node 1 is the first. What runs is killed when it is dropped.
pub(crate) struct Nodes {
    folder: tempfile::TempDir,
    external: Vec<u16>,
    internal: Vec<u16>,
    settings: Vec<String>,
    /// Of nodes by their number.
    own_settings: BTreeMap<usize, String>,
    children: Vec<Option<Child>>,
    /// One cluster at a time: a machine with few cores that runs many makes them look dead to each other.
    _turn: MutexGuard<'static, ()>,
}

/// The setting of a node that only votes.
pub(crate) const VOTER: &str = "process.roles=controller";

static TURN: Mutex<()> = Mutex::new(());

/// Waits until no other cluster of processes runs.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for child in self.children.iter_mut().flatten() {
            // It may have ended before.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<_> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
    listeners.iter().map(|listener| listener.local_addr().expect("its address").port()).collect()
}

impl Nodes {
    /// Three nodes, ready, each on a rack of its own, with these settings besides.
    pub(crate) fn three(settings: &[&str]) -> Nodes {
        Nodes::start(settings, BTreeMap::new())
    }

    /// Two nodes, and node 3, which only votes.
    pub(crate) fn two_and_a_voter() -> Nodes {
        Nodes::start(&[], BTreeMap::from([(3, VOTER.to_owned())]))
    }

    fn start(settings: &[&str], own_settings: BTreeMap<usize, String>) -> Nodes {
        let count = 3;
        let ports = free_ports(2 * count);
        let (external, internal) = ports.split_at(count);
        let mut nodes = Nodes {
            folder: tempfile::tempdir().expect("a folder"),
            external: external.to_vec(),
            internal: internal.to_vec(),
            settings: settings.iter().map(|line| (*line).to_owned()).collect(),
            own_settings,
            children: (0..count).map(|_| None).collect(),
            _turn: turn(),
        };
        (1..=count).for_each(|id| nodes.spawn(id));
        (1..=count).for_each(|id| nodes.wait_ready(id));
        nodes
    }

    fn command(&self, id: usize) -> Command {
        let voters: Vec<_> =
            self.internal.iter().zip(1..).map(|(port, id)| format!("{id}@127.0.0.1:{port}")).collect();
        let (external, internal) = (self.external[id - 1], self.internal[id - 1]);
        let mut lines = vec![
            format!("node.id={id}"),
            format!("broker.rack=rack-{id}"),
            format!("controller.quorum.voters={}", voters.join(",")),
            format!("listeners=PLAINTEXT://127.0.0.1:{external},INTERNAL://127.0.0.1:{internal}"),
            "weir.internal.secret=tests".to_owned(),
            "weir.shards=2".to_owned(),
            "weir.journal.bytes=16777216".to_owned(),
            "group.initial.rebalance.delay.ms=0".to_owned(),
            "offsets.topic.num.partitions=3".to_owned(),
        ];
        lines.extend(self.settings.iter().chain(self.own_settings.get(&id)).cloned());
        let file = self.folder.path().join(format!("{id}.properties"));
        std::fs::write(&file, lines.join("\n") + "\n").expect("written");
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir-broker"));
        command.arg("--config").arg(file).arg("--data-dir").arg(self.folder.path().join(id.to_string()));
        command.stdout(Stdio::piped()).env("RUST_LOG", "warn");
        command
    }

    fn spawn(&mut self, id: usize) {
        self.children[id - 1] = Some(self.command(id).spawn().expect("a process"));
    }

    /// The next start of a node finds these lines in its file too, and no others that were set for it.
    pub(crate) fn set(&mut self, id: usize, setting: &str) {
        self.own_settings.insert(id, setting.to_owned());
    }

    /// Starts a node that ends by itself. Returns its exit code and what it said.
    pub(crate) fn start_in_vain(&self, id: usize) -> (Option<i32>, String) {
        let ended = self.command(id).stderr(Stdio::piped()).output().expect("a process");
        (ended.status.code(), String::from_utf8_lossy(&ended.stderr).into_owned())
    }

    fn wait_ready(&mut self, id: usize) {
        let child = self.children[id - 1].as_mut().expect("it was started");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("its output")).read_line(&mut line).expect("a line");
        let only_votes = self.own_settings.get(&id).is_some_and(|lines| lines.contains(VOTER));
        let port = if only_votes { self.internal[id - 1] } else { self.external[id - 1] };
        assert_eq!(line.trim(), format!("ready 127.0.0.1:{port}"), "node {id}");
    }

    /// Starts a node again, on its folder.
    pub(crate) fn restart(&mut self, id: usize) {
        self.spawn(id);
        self.wait_ready(id);
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self, id: usize) {
        let mut child = self.children[id - 1].take().expect("it runs");
        child.kill().expect("killed");
        child.wait().expect("gone");
    }

    /// SIGTERM, a clean stop.
    pub(crate) fn stop(&mut self, id: usize) {
        self.signal(id, "-TERM");
        let mut child = self.children[id - 1].take().expect("it runs");
        assert!(child.wait().expect("gone").success(), "node {id} stops cleanly");
    }

    /// Any signal, such as `-STOP` and `-CONT`.
    pub(crate) fn signal(&self, id: usize, signal: &str) {
        let child = self.children[id - 1].as_ref().expect("it runs");
        let sent = Command::new("kill").args([signal, &child.id().to_string()]).status();
        assert!(sent.expect("a signal").success());
    }

    pub(crate) fn address(&self, id: usize) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.external[id - 1]))
    }

    pub(crate) async fn client(&self, id: usize) -> Client {
        Client::connect(self.address(id)).await
    }

    /// Metadata of node `id`, once they are as wanted.
    pub(crate) async fn metadata(
        &self,
        id: usize,
        topic: &str,
        what: &str,
        wanted: impl Fn(&MetadataResponse) -> bool,
    ) -> MetadataResponse {
        let mut client = self.client(id).await;
        let deadline = time::now() + PATIENCE;
        loop {
            let metadata = client.metadata(12, Some(&[topic]), false).await;
            if wanted(&metadata) {
                return metadata;
            }
            assert!(time::now() < deadline, "not in time: {what}: {metadata:?}");
            time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The node that leads partition 0 of a topic, other than `but`, as node `id` knows it.
    pub(crate) async fn leader(&self, id: usize, topic: &str, but: Option<usize>) -> usize {
        let leads = |metadata: &MetadataResponse| -> Option<usize> {
            let leader = metadata.topics[0].partitions.first()?.leader_id.0;
            usize::try_from(leader).ok().filter(|leader| Some(*leader) != but)
        };
        let metadata = self.metadata(id, topic, "a leader", |metadata| leads(metadata).is_some()).await;
        leads(&metadata).expect("a leader")
    }
}
