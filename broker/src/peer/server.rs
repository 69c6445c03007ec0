//! The listener for the cluster's other nodes.

use std::collections::{BTreeMap, VecDeque};
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use uuid::Uuid;
use weir_protocol::types::VoterId;
use weir_runtime::net::{Listener, Stream};
use weir_runtime::time::{self, Alarm};
use weir_runtime::{task, watch};

use super::handshake::{self, Accepted, Identity, Lane};
use super::lane::{LaneError, PeerReader, PeerWriter};
use super::link::{Call, CallAnswer, Ground};
use super::message::{Note, Reply};
use super::{Inboxes, Peers, locked};
use crate::complaints::Complaints;
use crate::config::Secret;
use crate::node::{self, StartError};
use crate::server::Stage;
use crate::server::listener::is_of_one_connection;

/// Connections from other nodes, those included that have not proven who they are; one more is closed at once.
const CONNECTIONS_MAX: usize = 1024;
/// Questions of one peer that wait for their answer; one more is told that nobody answers it.
const ASKED_MAX: usize = 1024;
/// With more bytes under way to a peer its questions wait.
const WAITING_BYTES_MAX: usize = 4 << 20;
/// How long the listener pauses when the process has no more file descriptors.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// Binds the listener for other nodes. Without a secret only this machine may reach it.
///
/// # Errors
/// `PortInUse`, `Listen`, `NoSecret`.
pub(crate) async fn bind(
    host_port: &str,
    secret: Option<&Secret>,
) -> Result<(Listener, SocketAddr), StartError> {
    let (listener, address) = node::bind(host_port).await?;
    let is_open = secret.is_none_or(|secret| secret.bytes().is_empty());
    if is_open && !address.ip().is_loopback() {
        return Err(StartError::NoSecret { address });
    }
    Ok((listener, address))
}

/// A connection of another node for replicas' records.
#[derive(Debug)]
pub(crate) struct ReplicaLane {
    /// Whose.
    pub(crate) from: Identity,
    /// What it sends.
    pub(crate) reader: PeerReader,
    /// What it is sent.
    pub(crate) writer: PeerWriter,
}

struct Server {
    peers: Peers,
    ground: Arc<Ground>,
    replicas: mpsc::Sender<ReplicaLane>,
    complaints: Complaints,
    stage: watch::Receiver<Stage>,
    /// The newest control lane of each node: only its end says that the node is lost.
    newest: Mutex<BTreeMap<VoterId, u64>>,
}

/// Serves the cluster's other nodes until the connections are cut; then each connection ends by itself. A node without peers
/// serves nobody.
pub(crate) async fn serve(
    listener: Listener,
    peers: Peers,
    replicas: mpsc::Sender<ReplicaLane>,
    stage: watch::Receiver<Stage>,
) {
    let Some(net) = peers.net.clone() else { return };
    let server = Arc::new(Server {
        ground: Arc::clone(&net.ground),
        peers,
        replicas,
        complaints: Complaints::default(),
        stage: stage.clone(),
        newest: Mutex::default(),
    });
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut serial = 0;
    let mut stage = stage;
    loop {
        let accepted = weir_runtime::select! {
            accepted = listener.accept() => accepted,
            _ = stage.wait_for(|stage| *stage == Stage::Cut) => break,
        };
        let (stream, address) = match accepted {
            Ok(connection) => connection,
            Err(error) if is_of_one_connection(&error) => continue,
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections of other nodes");
                time::sleep(EXHAUSTED_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            server.ground.setup.metrics.peer_connections_refused.increment();
            server.complaints.about(address, &"refused: too many connections of other nodes are open");
            continue;
        };
        serial += 1;
        let server = Arc::clone(&server);
        task::spawn("peer", async move { server.connection(stream, address, place, serial).await });
    }
}

impl Server {
    async fn connection(
        &self,
        stream: Stream,
        address: SocketAddr,
        place: OwnedSemaphorePermit,
        serial: u64,
    ) {
        let mut stage = self.stage.clone();
        let limits = |lane| self.ground.setup.limits(lane);
        let accepted = weir_runtime::select! {
            accepted = handshake::accept(stream, self.ground.credentials(), limits) => accepted,
            _ = stage.wait_for(|stage| *stage == Stage::Cut) => return,
        };
        let Accepted { from, cluster, lane, mut reader, writer } = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                self.ground.setup.metrics.peer_connections_refused.increment();
                return self.complaints.about(address, &format_args!("another node: {error}"));
            }
        };
        reader.hold(place);
        match lane {
            Lane::Control => {
                weir_runtime::select! {
                    () = self.control((from, cluster), (reader, writer), address, serial) => {}
                    _ = stage.wait_for(|stage| *stage == Stage::Cut) => {}
                }
            }
            Lane::Replica => {
                if self.replicas.try_send(ReplicaLane { from, reader, writer }).is_err() {
                    self.complaints.about(address, &"closed: too many replica lanes wait to be served");
                }
            }
        }
    }

    async fn control(
        &self,
        (from, cluster): (Identity, Option<Uuid>),
        lane: (PeerReader, PeerWriter),
        address: SocketAddr,
        serial: u64,
    ) {
        let node = VoterId { broker: from.node, folder: from.folder };
        locked(&self.newest).insert(node, serial);
        self.peers.heard(from);
        let mut session = Session::new((from, cluster), lane, &self.peers.inboxes, &self.ground);
        let end = session.run().await;
        match end {
            LaneError::Closed | LaneError::Io(_) => {
                tracing::debug!(node = %from.node, error = %end, "a control lane has ended");
            }
            _ => self.complaints.about(address, &format_args!("node {} is cut off: {end}", from.node)),
        }
        let mut newest = locked(&self.newest);
        if newest.get(&node) == Some(&serial) {
            newest.remove(&node);
            self.peers.inboxes.lost(node);
        }
    }
}

type Answering<'a> = Pin<Box<dyn Future<Output = Option<Reply>> + Send + 'a>>;

/// A control lane of another node.
struct Session<'a> {
    from: Identity,
    /// The cluster that it belongs to, as far as it knew when the connection began.
    cluster: Option<Uuid>,
    reader: PeerReader,
    writer: PeerWriter,
    inboxes: &'a Inboxes,
    ground: &'a Ground,
    /// In the order of the questions; at most [`ASKED_MAX`].
    answers: VecDeque<(u64, Answering<'a>)>,
    idle: Duration,
    alarm: Alarm,
}

impl<'a> Session<'a> {
    fn new(
        (from, cluster): (Identity, Option<Uuid>),
        (reader, writer): (PeerReader, PeerWriter),
        inboxes: &'a Inboxes,
        ground: &'a Ground,
    ) -> Session<'a> {
        let (answers, alarm, idle) = (VecDeque::new(), Alarm::new(), ground.setup.timing.idle * 3);
        Session { from, cluster, reader, writer, inboxes, ground, answers, idle, alarm }
    }

    /// Runs until the connection ends, and says why.
    async fn run(&mut self) -> LaneError {
        self.alarm.set(Some(time::now() + self.idle));
        loop {
            let is_idle = self.writer.is_idle();
            let has_room = self.writer.waiting_bytes() < WAITING_BYTES_MAX;
            let step = weir_runtime::select! {
                flushed = self.writer.flush(), if !is_idle => flushed,
                (id, reply) = next_answer(&mut self.answers), if has_room => self.answer(id, reply),
                received = self.reader.receive::<Call>() => match received {
                    Ok((call, _)) => self.on_call(call),
                    Err(error) => Err(error),
                },
                () = self.alarm.wait() => Err(LaneError::Stalled),
            };
            if let Err(error) = step {
                return error;
            }
        }
    }

    fn on_call(&mut self, call: Call) -> Result<(), LaneError> {
        // This node may have learned since where it belongs.
        handshake::check_cluster(*locked(&self.ground.cluster), self.cluster)?;
        self.alarm.set(Some(time::now() + self.idle));
        match call {
            Call::Note(Note::Raft(envelope)) if envelope.from.broker != self.from.node => {
                return Err(LaneError::Impostor(envelope.from.broker));
            }
            Call::Note(note) => self.inboxes.deliver(note),
            Call::Ask(id, _) if self.answers.len() >= ASKED_MAX => {
                self.ground.setup.metrics.peer_questions_refused.increment();
                self.answer(id, None)?;
            }
            Call::Ask(id, question) => {
                self.answers.push_back((id, Box::pin(self.inboxes.ask(self.from.node, question))));
            }
            Call::Ping(id) => drop(self.writer.enqueue(&CallAnswer::Pong(id), [])?),
        }
        Ok(())
    }

    fn answer(&mut self, id: u64, reply: Option<Reply>) -> Result<(), LaneError> {
        match self.writer.enqueue(&CallAnswer::Reply(id, reply), []) {
            Err(LaneError::Frame(error)) => {
                tracing::warn!(node = %self.from.node, %error, "an answer cannot be sent");
                self.writer.enqueue(&CallAnswer::Reply(id, None), []).map(drop)
            }
            sent => sent.map(drop),
        }
    }
}

/// The next question that has its answer; pending while none has. Cancel-safe.
async fn next_answer(answers: &mut VecDeque<(u64, Answering<'_>)>) -> (u64, Option<Reply>) {
    poll_fn(|cx| {
        for index in 0..answers.len() {
            let (id, answering) = &mut answers[index];
            if let Poll::Ready(reply) = answering.as_mut().poll(cx) {
                let id = *id;
                answers.remove(index);
                return Poll::Ready((id, reply));
            }
        }
        Poll::Pending
    })
    .await
}
