//! `--dev-cluster N`: a cluster of processes on this machine, to try things out.
//!
//! Each node is this program again, with a file of its own. Its standard input is a pipe whose end tells it to stop, so that
//! no node outlives this process, however that ends.

#![allow(
    clippy::disallowed_methods,
    reason = "it starts brokers and is none itself; it never runs in a simulation"
)]

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::mpsc;
use weir_runtime::{random, task, time};

use crate::{EXIT_FAILURE, EXIT_FOLDER, EXIT_USAGE, Exit};

/// The hidden flag of the nodes.
pub(crate) const STOP_WITH_STDIN: &str = "--stop-with-stdin";
/// Nodes of a cluster at most.
pub(crate) const NODES_MAX: u16 = 9;
/// How long nodes may take to stop before they are killed.
const STOP_MAX: Duration = Duration::from_secs(30);
/// The journal of each node: three of the usual size are much for a machine on which things are tried out.
const JOURNAL_BYTES: u64 = 64 << 20;

/// What the command line asks for.
#[derive(Debug, Clone)]
pub(crate) struct DevCluster {
    /// How many nodes.
    pub(crate) nodes: u16,
    /// Holds the nodes' folders and files.
    pub(crate) folder: PathBuf,
    /// The first node's port, others follow; `None` picks free ones.
    pub(crate) port: Option<u16>,
    /// Settings for all nodes.
    pub(crate) config: Option<PathBuf>,
}

/// A node as it is started.
#[derive(Debug, Clone)]
struct Plan {
    id: u16,
    clients: SocketAddr,
    internal: SocketAddr,
    folder: PathBuf,
    file: PathBuf,
}

/// A node that was started.
struct Node {
    plan: Plan,
    child: Child,
    last_line: Arc<Mutex<String>>,
    is_ready: bool,
    has_ended: bool,
}

/// What a node does.
#[derive(Debug)]
enum Event {
    Ready(u16),
    Ended(u16),
}

/// Starts the nodes and stays until it is asked to stop.
pub(crate) async fn run(cluster: DevCluster) -> Result<(), Exit> {
    let plans = plan(&cluster)?;
    write_files(&cluster, &plans)?;
    let (events, mut happening) = mpsc::unbounded_channel();
    let mut nodes = Vec::new();
    for plan in plans {
        match start(&plan, &events) {
            Ok(node) => nodes.push(node),
            Err(error) => {
                stop(&mut nodes, &mut happening).await;
                return Err(Exit(EXIT_FAILURE, format!("node {} cannot be started: {error}", plan.id)));
            }
        }
    }
    let outcome = watch(&mut nodes, &mut happening).await;
    stop(&mut nodes, &mut happening).await;
    outcome
}

/// Announces the cluster once it serves; ends when it is asked to, or when there is nothing left.
async fn watch(nodes: &mut [Node], happening: &mut mpsc::UnboundedReceiver<Event>) -> Result<(), Exit> {
    let mut interrupted = Box::pin(task::interrupted());
    loop {
        let event = weir_runtime::select! {
            event = happening.recv() => event,
            () = &mut interrupted => return Ok(()),
        };
        match event {
            Some(Event::Ready(id)) => {
                let node = of(nodes, id)?;
                node.is_ready = true;
                if nodes.iter().all(|node| node.is_ready) {
                    announce(nodes)?;
                }
            }
            Some(Event::Ended(id)) => {
                let was_ready = nodes.iter().all(|node| node.is_ready);
                let node = of(nodes, id)?;
                let (code, how) = node.end();
                if !was_ready {
                    let line = locked(&node.last_line).clone();
                    let why = line.strip_prefix("weir-broker: ").unwrap_or(&how);
                    return Err(Exit(code, format!("node {id} has not started: {why}")));
                }
                if nodes.iter().all(|node| node.has_ended) {
                    return Err(Exit(code, format!("all nodes have ended, node {id} as the last: {how}")));
                }
                eprintln!("weir-broker: node {id} has ended: {how}; the others go on");
            }
            None => return Err(Exit(EXIT_FAILURE, "nobody watches the nodes any more".to_owned())),
        }
    }
}

fn of(nodes: &mut [Node], id: u16) -> Result<&mut Node, Exit> {
    let found = nodes.iter_mut().find(|node| node.plan.id == id);
    found.ok_or_else(|| Exit(EXIT_FAILURE, format!("there is no node {id}")))
}

/// Tells all nodes to stop, and kills those that take too long.
async fn stop(nodes: &mut [Node], happening: &mut mpsc::UnboundedReceiver<Event>) {
    for node in nodes.iter_mut() {
        drop(node.child.stdin.take());
    }
    let deadline = time::now() + STOP_MAX;
    while nodes.iter().any(|node| !node.has_ended) {
        match time::timeout(deadline - time::now(), happening.recv()).await {
            Ok(Some(Event::Ended(id))) => {
                if let Ok(node) = of(nodes, id) {
                    node.end();
                }
            }
            Ok(Some(Event::Ready(_))) => {}
            Ok(None) | Err(_) => break,
        }
    }
    for node in nodes.iter_mut().filter(|node| !node.has_ended) {
        eprintln!("weir-broker: node {} does not stop and is killed", node.plan.id);
        // It may have ended in between.
        let _ = node.child.kill();
        node.end();
    }
}

impl Node {
    /// Takes its end in: the exit code to pass on, and words for it.
    fn end(&mut self) -> (u8, String) {
        self.has_ended = true;
        match self.child.wait() {
            Ok(status) => (code(status), status.to_string()),
            Err(error) => (EXIT_FAILURE, error.to_string()),
        }
    }
}

fn code(status: ExitStatus) -> u8 {
    status.code().and_then(|code| u8::try_from(code).ok()).filter(|code| *code != 0).unwrap_or(EXIT_FAILURE)
}

fn announce(nodes: &[Node]) -> Result<(), Exit> {
    let mut out = io::stdout().lock();
    let mut say = || {
        writeln!(out, "{:<5} {:<22} {:<22} data", "node", "clients", "other nodes")?;
        for Node { plan, .. } in nodes {
            let (clients, internal) = (plan.clients.to_string(), plan.internal.to_string());
            writeln!(out, "{:<5} {clients:<22} {internal:<22} {}", plan.id, plan.folder.display())?;
        }
        let all: Vec<String> = nodes.iter().map(|node| node.plan.clients.to_string()).collect();
        writeln!(out, "ready {}", all.join(","))?;
        out.flush()
    };
    say().map_err(|error| Exit(EXIT_FAILURE, format!("cannot write to standard output: {error}")))
}

/// Ports and paths of all nodes.
fn plan(cluster: &DevCluster) -> Result<Vec<Plan>, Exit> {
    let DevCluster { nodes, folder, port, .. } = cluster;
    if !(1..=NODES_MAX).contains(nodes) {
        return Err(Exit(EXIT_USAGE, format!("a cluster on one machine has 1 to {NODES_MAX} nodes")));
    }
    fs::create_dir_all(folder)
        .and_then(|()| fs::canonicalize(folder))
        .map_err(|error| Exit(EXIT_FOLDER, format!("{}: {error}", folder.display())))
        .and_then(|folder| {
            let ports = match port {
                Some(first) if first.checked_add(2 * nodes).is_some() => {
                    (*first..first + 2 * nodes).collect()
                }
                Some(first) => return Err(Exit(EXIT_USAGE, format!("port {first} is too high"))),
                None => free_ports(2 * nodes)?,
            };
            let local = |index: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, ports[usize::from(index)]));
            let plans = (0..*nodes).map(|index| Plan {
                id: index + 1,
                clients: local(index),
                internal: local(nodes + index),
                folder: folder.join(format!("node-{}", index + 1)),
                file: folder.join(format!("node-{}.properties", index + 1)),
            });
            Ok(plans.collect())
        })
}

/// Ports that nobody listens on now. All are held until all are known, so that none is found twice.
fn free_ports(count: u16) -> Result<Vec<u16>, Exit> {
    let failed = |error| Exit(EXIT_FAILURE, format!("no free ports: {error}"));
    let bind = |_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let held: Vec<TcpListener> = (0..count).map(bind).collect::<io::Result<_>>().map_err(failed)?;
    let port = |listener: &TcpListener| listener.local_addr().map(|address| address.port());
    held.iter().map(port).collect::<io::Result<_>>().map_err(failed)
}

/// Writes each node's file, and the secret of this run.
fn write_files(cluster: &DevCluster, plans: &[Plan]) -> Result<(), Exit> {
    let common = match &cluster.config {
        Some(file) => crate::read(file)?,
        None => String::new(),
    };
    let Some(folder) = plans.first().and_then(|plan| plan.file.parent()) else { return Ok(()) };
    let secret = folder.join("secret");
    let random: String = (0..4).map(|_| format!("{:016x}", random::u64())).collect();
    let failed = |path: &Path, error| Exit(EXIT_FOLDER, format!("cannot write {}: {error}", path.display()));
    write_private(&secret, &random).map_err(|error| failed(&secret, error))?;
    let voters: Vec<String> = plans.iter().map(|plan| format!("{}@{}", plan.id, plan.internal)).collect();
    for plan in plans {
        let text = format!(
            "# Written by weir-broker --dev-cluster at each start.\nweir.journal.bytes={JOURNAL_BYTES}\n{common}\n\
             node.id={}\ncontroller.quorum.voters={}\nlisteners=PLAINTEXT://{},INTERNAL://{}\n\
             weir.internal.secret.file={}\nlog.dirs={}\n",
            plan.id,
            voters.join(","),
            plan.clients,
            plan.internal,
            secret.display(),
            plan.folder.display(),
        );
        fs::write(&plan.file, text).map_err(|error| failed(&plan.file, error))?;
    }
    Ok(())
}

/// Writes a file that only its owner reads.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?.write_all(text.as_bytes())
}

fn start(plan: &Plan, events: &mpsc::UnboundedSender<Event>) -> io::Result<Node> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--config").arg(&plan.file).arg(STOP_WITH_STDIN);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let last_line = Arc::new(Mutex::new(String::new()));
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (id, line) = (plan.id, Arc::clone(&last_line));
    let log = thread::spawn(move || {
        if let Some(stderr) = stderr {
            pass_on(id, BufReader::new(stderr), &line);
        }
    });
    let events = events.clone();
    thread::spawn(move || {
        for line in stdout.into_iter().flat_map(|stdout| BufReader::new(stdout).lines().map_while(Result::ok))
        {
            if line.starts_with("ready ") {
                // Whoever is not there any more needs no news.
                let _ = events.send(Event::Ready(id));
            }
        }
        // What it said last is known before its end.
        let _ = log.join();
        let _ = events.send(Event::Ended(id));
    });
    Ok(Node { plan: plan.clone(), child, last_line, is_ready: false, has_ended: false })
}

/// Passes a node's log on, line by line, and remembers the last one.
fn pass_on(id: u16, mut log: impl BufRead, last_line: &Mutex<String>) {
    let mut line = Vec::new();
    while log.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        eprintln!("node {id} | {text}");
        text.clone_into(&mut locked(last_line));
        line.clear();
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for the end of standard input, as a node of such a cluster does.
pub(crate) async fn stdin_ends() {
    let (ended, end) = tokio::sync::oneshot::channel::<()>();
    thread::spawn(move || {
        let mut rest = [0; 64];
        while io::stdin().read(&mut rest).is_ok_and(|read| read > 0) {}
        // Whoever has stopped already needs no telling.
        let _ = ended.send(());
    });
    // Its other end is dropped at the end too, whatever happens there.
    let _ = end.await;
}
