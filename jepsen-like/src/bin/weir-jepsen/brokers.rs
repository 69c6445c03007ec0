//! The broker processes: their folders, their settings, and the signals that they get.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use weir_runtime::{time, watch};

use crate::Failure;
use crate::links::Links;
use crate::owner::Owners;
use crate::plan::Plan;
use crate::proxy::{Proxy, Sources};

/// How often the process table is looked at, as a supervisor does.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long a clean stop may take.
const STOP_MAX: Duration = Duration::from_secs(60);

/// The processes, each with a proxy in front of each of its listeners.
#[derive(Clone)]
pub(crate) struct Brokers(Arc<Inner>);

struct Inner {
    binary: PathBuf,
    nodes: Vec<Node>,
    owners: Owners,
    /// What a broker did that it must not do.
    complaints: Mutex<Vec<String>>,
}

struct Node {
    folder: PathBuf,
    /// Clients reach the node here.
    proxy: Proxy,
    life: Mutex<Life>,
    /// How often the node has become ready.
    ready: Arc<watch::Sender<u64>>,
}

#[derive(Default)]
struct Life {
    process: Option<Child>,
    /// Faults that keep the node down; the supervisor leaves it alone.
    holds: u32,
}

impl Brokers {
    /// Prepares the folders and the proxies of a plan's brokers, and starts them.
    ///
    /// # Errors
    /// When a folder cannot be written, there is no free port, or the binary does not start.
    pub(crate) async fn start(
        binary: &Path,
        folder: &Path,
        plan: &Plan,
        links: &Links,
    ) -> Result<Brokers, Failure> {
        let owners = Owners::default();
        let own = |count: u32| -> io::Result<Vec<SocketAddr>> {
            // All at once, so that they differ; a broker takes its own again after each start.
            let free: io::Result<Vec<TcpListener>> =
                (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect();
            free?.iter().map(TcpListener::local_addr).collect()
        };
        let (external, internal) = (own(plan.nodes)?, own(plan.nodes)?);
        let (mut nodes, mut inside) = (Vec::new(), Vec::new());
        for number in 0..plan.nodes {
            let at = number as usize;
            let proxy = Proxy::start(number, external[at], Sources::Clients, links.clone()).await?;
            let sources = Sources::Nodes(owners.clone());
            inside.push(Proxy::start(number, internal[at], sources, links.clone()).await?);
            let folder = folder.join(format!("node-{}", number + 1));
            std::fs::create_dir_all(&folder)?;
            nodes.push(Node {
                folder,
                proxy,
                life: Mutex::default(),
                ready: Arc::new(watch::Sender::new(0)),
            });
        }
        for (number, node) in nodes.iter().enumerate() {
            let settings = settings(plan, number, node, &external, &internal, &inside);
            std::fs::write(node.folder.join("server.properties"), settings)?;
        }
        let inner = Inner { binary: binary.to_owned(), nodes, owners, complaints: Mutex::default() };
        let brokers = Brokers(Arc::new(inner));
        for number in 0..plan.nodes {
            brokers.launch(number)?;
        }
        Ok(brokers)
    }

    /// Waits until every node has said that it serves.
    ///
    /// # Errors
    /// When one does not in time.
    pub(crate) async fn until_ready(&self, limit: Duration) -> Result<(), Failure> {
        for node in &self.0.nodes {
            let mut ready = node.ready.subscribe();
            if time::timeout(limit, ready.wait_for(|times| *times > 0)).await.is_err() {
                return Err(Failure::NotReady { folder: node.folder.clone(), limit });
            }
        }
        Ok(())
    }

    /// Where clients reach the nodes.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.0.nodes.iter().map(|node| node.proxy.address().to_string()).collect()
    }

    /// Starts brokers that ended by themselves, for ever, and writes down that they did.
    pub(crate) async fn supervise(&self) {
        loop {
            time::sleep(LOOK_EVERY).await;
            for number in 0..self.0.nodes.len() as u32 {
                let ended = {
                    let mut life = self.life(number);
                    if life.holds > 0 {
                        continue;
                    }
                    life.process.as_mut().and_then(|process| process.try_wait().ok().flatten())
                };
                if let Some(status) = ended {
                    self.complain(format!("node {} ended by itself: {status}", number + 1));
                    self.launch_or_complain(number);
                }
            }
        }
    }

    /// Kills the process at once, and keeps it down until [`Brokers::release`].
    pub(crate) fn kill(&self, node: u32) {
        let mut life = self.life(node);
        life.holds += 1;
        if let Some(mut process) = life.process.take() {
            // It may have ended already; whoever kills it waits for nothing but the kernel.
            drop(process.kill());
            drop(process.wait());
        }
    }

    /// Removes all data of a node that is kept down.
    pub(crate) fn wipe(&self, node: u32) {
        match std::fs::remove_dir_all(self.0.nodes[node as usize].folder.join("data")) {
            // It was killed before it had made its folder.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => self.complain(format!("the data of node {} cannot be removed: {error}", node + 1)),
            Ok(()) => {}
        }
    }

    /// Asks the process to stop, waits until it has, and keeps it down until [`Brokers::release`].
    pub(crate) async fn stop_cleanly(&self, node: u32) {
        let process = {
            let mut life = self.life(node);
            life.holds += 1;
            life.process.take()
        };
        let Some(mut process) = process else { return };
        send(&process, Signal::TERM);
        send(&process, Signal::CONT); // another fault may have stopped it, and would no longer find it
        match until_ended(&mut process).await {
            Some(status) if status.success() => {}
            Some(status) => self.complain(format!("a clean stop of node {} ended with {status}", node + 1)),
            None => {
                self.complain(format!("a clean stop of node {} takes more than {STOP_MAX:?}", node + 1));
                drop(process.kill());
                drop(process.wait());
            }
        }
    }

    /// The process stands still.
    pub(crate) fn pause(&self, node: u32) {
        self.life(node).process.iter().for_each(|process| send(process, Signal::STOP));
    }

    /// The process goes on.
    pub(crate) fn resume(&self, node: u32) {
        self.life(node).process.iter().for_each(|process| send(process, Signal::CONT));
    }

    /// Starts the node if nothing else keeps it down.
    pub(crate) fn release(&self, node: u32) {
        let is_due = {
            let mut life = self.life(node);
            life.holds = life.holds.saturating_sub(1);
            life.holds == 0 && life.process.is_none()
        };
        if is_due {
            self.launch_or_complain(node);
        }
    }

    /// Stops all nodes cleanly, side by side, and says how long the slowest took.
    pub(crate) async fn stop_all(&self) {
        let stops: Vec<_> = (0..self.0.nodes.len() as u32)
            .map(|node| {
                let brokers = self.clone();
                weir_runtime::task::spawn("clean stop", async move { brokers.stop_cleanly(node).await })
            })
            .collect();
        for stop in stops {
            if let Err(error) = stop.await {
                self.complain(error.to_string());
            }
        }
    }

    /// What the brokers did that they must not do; each is told once.
    pub(crate) fn take_complaints(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.complaints.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Writes down what must not be.
    pub(crate) fn complain(&self, what: String) {
        self.0.complaints.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    fn life(&self, node: u32) -> MutexGuard<'_, Life> {
        self.0.nodes[node as usize].life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn launch_or_complain(&self, node: u32) {
        if let Err(error) = self.launch(node) {
            self.complain(format!("node {} cannot be started: {error}", node + 1));
        }
    }

    fn launch(&self, number: u32) -> io::Result<()> {
        let node = &self.0.nodes[number as usize];
        let log = OpenOptions::new().create(true).append(true).open(node.folder.join("broker.log"))?;
        let mut process = Command::new(&self.0.binary)
            .arg("--config")
            .arg(node.folder.join("server.properties"))
            .arg("--data-dir")
            .arg(node.folder.join("data"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()?;
        self.0.owners.set(number, process.id());
        if let Some(output) = process.stdout.take() {
            let ready = node.ready.clone();
            // A process' output can only be waited for by a thread; it ends with the process.
            std::thread::spawn(move || {
                let lines = BufReader::new(output).lines().map_while(Result::ok);
                for _ in lines.filter(|line| line.starts_with("ready ")) {
                    ready.send_modify(|times| *times += 1);
                }
            });
        }
        self.life(number).process = Some(process);
        Ok(())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        for node in &self.nodes {
            let life = node.life.lock().unwrap_or_else(PoisonError::into_inner).process.take();
            if let Some(mut process) = life {
                drop(process.kill());
                drop(process.wait());
            }
        }
    }
}

async fn until_ended(process: &mut Child) -> Option<ExitStatus> {
    let deadline = time::now() + STOP_MAX;
    while time::now() < deadline {
        match process.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) => time::sleep(LOOK_EVERY).await, // a look at the process table
            Err(_) => return None,
        }
    }
    None
}

/// Sends a signal to a process of ours. One that has ended gets none.
fn send(process: &Child, signal: Signal) {
    if let Some(pid) = i32::try_from(process.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// A node's `server.properties`.
fn settings(
    plan: &Plan,
    number: usize,
    node: &Node,
    external: &[SocketAddr],
    internal: &[SocketAddr],
    inside: &[Proxy],
) -> String {
    let mut lines = vec![format!("node.id={}", number + 1)];
    let (mut listeners, mut advertised) =
        (format!("PLAINTEXT://{}", external[number]), format!("PLAINTEXT://{}", node.proxy.address()));
    if plan.nodes > 1 {
        listeners += &format!(",INTERNAL://{}", internal[number]);
        advertised += &format!(",INTERNAL://{}", inside[number].address());
        let voter = |(id, proxy): (usize, &Proxy)| format!("{}@{}", id + 1, proxy.address());
        let voters: Vec<String> = inside.iter().enumerate().map(voter).collect();
        lines.push(format!("controller.quorum.voters={}", voters.join(",")));
        lines.push("weir.internal.secret=a secret of this run".to_owned());
    }
    lines.push(format!("listeners={listeners}"));
    lines.push(format!("advertised.listeners={advertised}"));
    lines.extend(plan.settings.iter().map(|(name, value)| format!("{name}={value}")));
    lines.join("\n") + "\n"
}

/// The last lines of a node's log in which it complains.
pub(crate) fn warnings(folder: &Path, nodes: u32) -> Vec<String> {
    const LINES_MAX: usize = 8;
    let mut found = Vec::new();
    for number in 1..=nodes {
        let Ok(log) = File::open(folder.join(format!("node-{number}/broker.log"))) else { continue };
        let lines = BufReader::new(log).lines().map_while(Result::ok);
        let marks = [" ERROR ", "panicked", "weir-broker: "];
        let own: Vec<_> = lines.filter(|line| marks.iter().any(|mark| line.contains(mark))).collect();
        let last = own.len().saturating_sub(LINES_MAX);
        found.extend(own[last..].iter().map(|line| format!("node {number}> {line}")));
    }
    found
}
