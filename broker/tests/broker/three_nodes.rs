//! Three brokers as processes: one cluster, whose leaders move when one is killed or stops, and which loses nothing.

#![allow(clippy::disallowed_methods, reason = "settings and logs of processes are files of the test's own")]

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::MutexGuard;
use std::time::Duration;

use kafka_protocol::messages::MetadataResponse;
use weir_runtime::net::Listener;
use weir_runtime::time;

use crate::nodes;
use crate::support::{Client, PATIENCE, batch, run, values};

/// The kill of a process, or its being asked to stop.
const SIGKILL: &str = "-KILL";
const SIGTERM: &str = "-TERM";

struct Node {
    child: Child,
    address: SocketAddr,
}

/// Three nodes with their folders; killed when they are dropped.
struct Cluster {
    nodes: Vec<Option<Node>>,
    files: Vec<PathBuf>,
    folders: tempfile::TempDir,
    voters: String,
    _turn: MutexGuard<'static, ()>,
}

fn settings_of(id: i32, voters: &str, internal_port: u16, folder: &Path) -> String {
    format!(
        "node.id={id}\ncontroller.quorum.voters={voters}\n\
         listeners=PLAINTEXT://127.0.0.1:0,INTERNAL://127.0.0.1:{internal_port}\nlog.dirs={}\n\
         weir.journal.bytes=8388608\n",
        folder.display(),
    )
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in self.nodes.iter_mut().flatten() {
            // It may have ended before.
            let _ = node.child.kill();
            let _ = node.child.wait();
        }
    }
}

impl Cluster {
    /// Settings of three nodes on free ports.
    async fn prepare(roles: [&str; 3]) -> Cluster {
        let mut taken = Vec::new();
        for _ in 0..3 {
            taken.push(Listener::bind(([127, 0, 0, 1], 0).into()).await.expect("a port"));
        }
        let ports: Vec<u16> =
            taken.iter().map(|port| port.local_addr().expect("an address").port()).collect();
        let voters: Vec<String> = (1..)
            .zip(&ports)
            .zip(roles)
            .filter(|(_, role)| role.contains("controller"))
            .map(|((id, port), _)| format!("{id}@127.0.0.1:{port}"))
            .collect();
        let folders = tempfile::tempdir().expect("a folder");
        let mut files = Vec::new();
        for ((id, port), role) in (1..).zip(&ports).zip(roles) {
            let file = folders.path().join(format!("{id}.properties"));
            let folder = folders.path().join(id.to_string());
            let text = settings_of(id, &voters.join(","), *port, &folder);
            std::fs::write(&file, format!("{text}process.roles={role}\n")).expect("a file of settings");
            files.push(file);
        }
        Cluster {
            nodes: vec![None, None, None],
            files,
            folders,
            voters: voters.join(","),
            _turn: nodes::turn(),
        }
    }

    async fn start() -> Cluster {
        let mut cluster = Cluster::prepare(["broker,controller"; 3]).await;
        cluster.start_nodes(&[1, 2, 3]);
        cluster
    }

    fn spawn(&self, id: usize) -> Child {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.folders.path().join(format!("{id}.log")))
            .expect("a log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir-broker"));
        command
            .arg("--config")
            .arg(&self.files[id - 1])
            .env("RUST_LOG", std::env::var("RUST_LOG").unwrap_or_else(|_| "info".to_owned()));
        command.stdout(Stdio::piped()).stderr(log).spawn().expect("a process")
    }

    /// Starts nodes that wait for each other.
    fn start_nodes(&mut self, ids: &[usize]) {
        let children: Vec<_> = ids.iter().map(|id| (*id, self.spawn(*id))).collect();
        for (id, mut child) in children {
            let mut line = String::new();
            let stdout = child.stdout.take().expect("its output");
            BufReader::new(stdout).read_line(&mut line).expect("a line");
            let address = line.trim().strip_prefix("ready ").and_then(|address| address.parse().ok());
            let address =
                address.unwrap_or_else(|| panic!("no address in {line:?} of node {id}: {}", self.log(id)));
            self.nodes[id - 1] = Some(Node { child, address });
        }
    }

    fn log(&self, id: usize) -> String {
        std::fs::read_to_string(self.folders.path().join(format!("{id}.log"))).unwrap_or_default()
    }

    /// Ends a node. Returns when it is gone.
    fn end(&mut self, id: usize, signal: &str) {
        let mut node = self.nodes[id - 1].take().expect("it runs");
        let sent = Command::new("kill").arg(signal).arg(node.child.id().to_string()).status();
        assert!(sent.expect("kill").success());
        let status = node.child.wait().expect("it ends");
        assert!(signal == SIGKILL || status.success(), "{status}: {}", self.log(id));
    }

    async fn client(&self, id: usize) -> Client {
        Client::connect(self.nodes[id - 1].as_ref().expect("it runs").address).await
    }

    /// A client of some node that runs.
    async fn any_client(&self) -> Client {
        let id = (1..).zip(&self.nodes).find(|(_, node)| node.is_some()).expect("one runs").0;
        self.client(id).await
    }

    /// Waits until a node's metadata of the topic is as wanted.
    async fn until(
        &self,
        topic: &str,
        what: &str,
        wanted: impl Fn(&MetadataResponse) -> bool,
    ) -> MetadataResponse {
        let mut client = self.any_client().await;
        let deadline = time::now() + PATIENCE;
        loop {
            let metadata = client.metadata(9, Some(&[topic]), false).await;
            if wanted(&metadata) {
                return metadata;
            }
            assert!(
                time::now() < deadline,
                "not in time: {what}: {metadata:?}\n{}\n{}\n{}",
                self.log(1),
                self.log(2),
                self.log(3)
            );
            time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Produces with acks=all to whoever leads, as clients do: again until it is acknowledged.
    async fn produce(&self, topic: &str, partition: usize, value: &str) -> i64 {
        let deadline = time::now() + PATIENCE;
        loop {
            let metadata = self.until(topic, "a leader", |metadata| leader(metadata, partition) > 0).await;
            let id = leader(&metadata, partition) as usize;
            let mut why = "it is down".to_owned();
            if self.nodes[id - 1].is_some() {
                let mut client = self.client(id).await;
                let answer = client.produce(topic, partition as i32, batch(&[value.as_bytes()])).await;
                if answer.error_code == 0 {
                    return answer.base_offset;
                }
                why = format!("{answer:?}");
            }
            assert!(time::now() < deadline, "not acknowledged by {id}: {why}\n{}", self.log(id));
            time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Reads a partition from whoever leads it until it holds what is expected. A new leader shows its records once it knows
    /// them to be committed.
    async fn expect(&self, topic: &str, partition: usize, expected: &[String]) {
        let deadline = time::now() + PATIENCE;
        let mut found: Vec<String> = Vec::new();
        while found.len() < expected.len() {
            let metadata = self.until(topic, "a leader", |metadata| leader(metadata, partition) > 0).await;
            let mut client = self.client(leader(&metadata, partition) as usize).await;
            let fetched = client.fetch(topic, partition as i32, found.len() as i64).await;
            let more = values(fetched.records).into_iter().map(|(_, value)| value);
            found.extend(more.map(|value| String::from_utf8(value).expect("text")));
            assert!(
                time::now() < deadline,
                "only {found:?} of partition {partition}, code {}",
                fetched.error_code
            );
        }
        assert_eq!(found, expected, "partition {partition}");
    }

    /// A node that does not lead the metadata quorum.
    fn follower(&self) -> usize {
        [1, 2, 3].into_iter().find(|id| !self.leads(*id)).expect("one leads")
    }

    /// Whether a node has begun to lead the metadata quorum, which nobody has taken over since.
    fn leads(&self, id: usize) -> bool {
        self.log(id).contains("leads the metadata quorum")
    }
}

fn leader(metadata: &MetadataResponse, partition: usize) -> i32 {
    partitions(metadata).get(partition).map_or(-1, |partition| partition.0)
}

/// Leader and number of in-sync replicas of each partition, by number.
fn partitions(metadata: &MetadataResponse) -> Vec<(i32, usize)> {
    let mut found: Vec<_> = metadata.topics[0]
        .partitions
        .iter()
        .map(|partition| (partition.partition_index, partition.leader_id.0, partition.isr_nodes.len()))
        .collect();
    found.sort_unstable();
    found.into_iter().map(|(_, leader, isr)| (leader, isr)).collect()
}

const PARTITIONS: usize = 6;

async fn create(cluster: &Cluster, topic: &str) {
    let mut client = cluster.any_client().await;
    client.create(topic, PARTITIONS as i32, &[]).await;
    let ready = |metadata: &MetadataResponse| {
        let partitions = partitions(metadata);
        partitions.len() == PARTITIONS && partitions.iter().all(|(leader, isr)| *leader > 0 && *isr == 3)
    };
    let metadata = cluster.until(topic, "three replicas in sync", ready).await;
    let leaders: std::collections::BTreeSet<_> =
        partitions(&metadata).into_iter().map(|(id, _)| id).collect();
    assert_eq!(leaders.len(), 3, "every node leads something: {metadata:?}");
}

#[test]
fn leaders_move_from_a_killed_node_and_it_comes_back() {
    run(async {
        let mut cluster = Cluster::start().await;
        create(&cluster, "load").await;
        let mut written = vec![Vec::new(); PARTITIONS];
        for (id, round) in [1, 2, 3].into_iter().zip(0..) {
            for (partition, written) in written.iter_mut().enumerate() {
                let value = format!("{partition} before {round}");
                cluster.produce("load", partition, &value).await;
                written.push(value);
            }
            cluster.end(id, SIGKILL);
            let killed = time::now();
            let moved = |metadata: &MetadataResponse| {
                partitions(metadata).iter().all(|(leader, _)| *leader > 0 && *leader != id as i32)
            };
            cluster.until("load", "other leaders", moved).await;
            println!("node {id} was replaced after {:?}", killed.elapsed());
            for (partition, written) in written.iter_mut().enumerate() {
                let value = format!("{partition} after {round}");
                cluster.produce("load", partition, &value).await;
                written.push(value);
            }
            cluster.start_nodes(&[id]);
            let whole = |metadata: &MetadataResponse| partitions(metadata).iter().all(|(_, isr)| *isr == 3);
            cluster.until("load", "three replicas in sync again", whole).await;
        }
        for (partition, written) in written.iter().enumerate() {
            cluster.expect("load", partition, written).await;
        }
    });
}

#[test]
fn a_cluster_that_was_killed_as_a_whole_comes_back_with_everything() {
    run(async {
        let mut cluster = Cluster::start().await;
        create(&cluster, "load").await;
        for partition in 0..PARTITIONS {
            cluster.produce("load", partition, "kept").await;
        }
        for id in [1, 2, 3] {
            cluster.end(id, SIGKILL);
        }
        cluster.start_nodes(&[1, 2, 3]);
        for partition in 0..PARTITIONS {
            cluster.expect("load", partition, &["kept".to_owned()]).await;
        }
    });
}

#[test]
fn a_node_that_is_asked_to_stop_hands_its_leaders_over_first() {
    run(async {
        let mut cluster = Cluster::start().await;
        create(&cluster, "load").await;
        let began = time::now();
        cluster.end(2, SIGTERM);
        println!("a clean stop takes {:?}", began.elapsed());
        let metadata = cluster.until("load", "metadata", |_| true).await;
        assert!(partitions(&metadata).iter().all(|(leader, _)| [1, 3].contains(leader)), "{metadata:?}");
        cluster.produce("load", 0, "goes on").await;
        cluster.expect("load", 0, &["goes on".to_owned()]).await;
    });
}

/// Starts one more process with these settings, which does not go on, and returns its exit code and its log.
async fn refused(cluster: &Cluster, settings: &str) -> (Option<i32>, String) {
    let file = cluster.folders.path().join("other.properties");
    std::fs::write(&file, settings).expect("settings");
    let line_file = cluster.folders.path().join("other.log");
    let log = std::fs::File::create(&line_file).expect("a log");
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir-broker"));
    let mut other = command.arg("--config").arg(&file).stderr(log).spawn().expect("a process");
    let deadline = time::now() + PATIENCE;
    let status = loop {
        match other.try_wait().expect("a status") {
            Some(status) => break status,
            None if time::now() > deadline => {
                other.kill().expect("killed");
                break other.wait().expect("gone");
            }
            None => time::sleep(Duration::from_millis(10)).await,
        }
    };
    (status.code(), std::fs::read_to_string(&line_file).expect("its log"))
}

#[test]
fn a_second_node_of_the_same_number_is_refused() {
    run(async {
        let mut cluster = Cluster::start().await;
        let follower = cluster.follower();
        let leader = [1, 2, 3].into_iter().find(|id| cluster.leads(*id)).expect("one leads");
        // Nobody gives the quorum's log to a node that has its leader's number.
        for id in [follower, leader] {
            let folder = cluster.folders.path().join(format!("other-{id}"));
            let text = settings_of(id as i32, &cluster.voters, 0, &folder);
            let (code, said) = refused(&cluster, &text).await;
            assert_eq!(code, Some(7), "{said}");
            assert!(said.contains(&format!("broker {id} is alive with another data folder")), "{said}");
        }
        cluster.end(leader, SIGTERM);
        cluster.end(follower, SIGTERM);
    });
}

#[test]
fn a_node_with_the_folder_of_another_cluster_is_refused() {
    run(async {
        let mut cluster = Cluster::start().await;
        let id = cluster.follower();
        // It was a cluster of its own.
        let folder = cluster.folders.path().join("another");
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir-broker"));
        command.args(["--listen", "127.0.0.1:0", "--data-dir"]).arg(&folder).stdout(Stdio::piped());
        let mut alone = command.spawn().expect("a process");
        let mut line = String::new();
        BufReader::new(alone.stdout.take().expect("its output")).read_line(&mut line).expect("a line");
        alone.kill().expect("killed");
        alone.wait().expect("gone");
        cluster.end(id, SIGKILL);
        let text = settings_of(id as i32, &cluster.voters, 0, &folder);
        let (code, said) = refused(&cluster, &text).await;
        assert_eq!(code, Some(7), "{said}");
        assert!(said.contains("it belongs to cluster "), "{said}");
        // The others have taken nothing of it in, and the right one is welcome.
        cluster.start_nodes(&[id]);
    });
}

#[test]
fn nodes_with_one_role_each_make_a_cluster() {
    run(async {
        let mut cluster = Cluster::prepare(["broker", "controller", "broker"]).await;
        cluster.start_nodes(&[1, 2, 3]);
        let mut client = cluster.client(1).await;
        client.create("load", 2, &[]).await;
        let whole = |metadata: &MetadataResponse| partitions(metadata).iter().all(|(_, isr)| *isr == 2);
        let metadata = cluster.until("load", "two replicas", whole).await;
        let brokers: Vec<i32> = metadata.brokers.iter().map(|broker| broker.node_id.0).collect();
        assert_eq!(brokers, [1, 3], "who is no broker is no broker");
        cluster.produce("load", 0, "kept").await;
        // Without a controller nothing moves, and nothing that goes on stands still.
        cluster.end(2, SIGKILL);
        cluster.produce("load", 0, "kept too").await;
        cluster.start_nodes(&[2]);
        cluster.end(3, SIGTERM);
        cluster
            .until("load", "the other leads", |metadata| leader(metadata, 0) == 1 && leader(metadata, 1) == 1)
            .await;
        // One of two in sync commits nothing, what was committed before included.
        cluster.start_nodes(&[3]);
        cluster.expect("load", 0, &["kept".to_owned(), "kept too".to_owned()]).await;
    });
}
