//! Nodes of a cluster talk to each other on a listener of their own, which no client reaches.
//!
//! Two *lanes* lead from a node to each other: notes and questions go over the control lane, replicas' records over
//! another one, so that a large answer keeps no heartbeat waiting. A connection begins with a handshake: both sides
//! prove that they know the cluster's secret, and say who they are and which cluster they belong to.
//!
//! Whoever is this node itself is asked in the same way, without a connection.

mod by_hand;
pub(crate) mod handshake;
pub(crate) mod lane;
mod link;
pub(crate) mod message;
pub(crate) mod server;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;
use weir_protocol::raft::Envelope;
use weir_protocol::types::{BrokerId, VoterId};
use weir_runtime::{task, watch};
use weir_wire::peer_frame::FrameLimits;

use crate::config::{Config, Secret};
use crate::metrics::Metrics;
pub(crate) use by_hand::{reencode_message, sample_message};
use handshake::{Identity, Lane, Refusal};
use lane::{HEAD_BYTES_MAX, PeerReader, PeerWriter};
use link::{Ground, Outgoing};
use message::{
    Ask, BrokerQuestion, BrokerReply, ControllerQuestion, ControllerReply, Note, Question, QuorumQuestion,
    QuorumReply, Reply,
};

/// Questions that may wait for each of those who answer them; whoever asks one more is told so.
const INBOX_MAX: usize = 4096;

/// Why a peer has not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PeerError {
    /// No connection: it has not heard the question. For a short time after a failure this is said without another try.
    #[error("node {0} cannot be reached")]
    Unreachable(BrokerId),
    /// The connection ended before the answer came: it may have heard the question.
    #[error("the connection to node {0} was lost")]
    Lost(BrokerId),
    /// One of the two nodes does not want the other; it has not heard the question.
    #[error("node {0} and this one do not belong together: {1}")]
    Refused(BrokerId, Refusal),
    /// Nobody there takes the question.
    #[error("node {0} has too much to do")]
    Overloaded(BrokerId),
    /// It answered something else.
    #[error("node {0} gave an answer that does not fit the question")]
    Misfit(BrokerId),
}

/// A question that has arrived, and where its answer goes. Dropped unanswered, it tells the asker at once that there
/// will be no answer.
#[derive(Debug)]
pub(crate) struct Asked<Q, R> {
    /// Who asks.
    pub(crate) from: BrokerId,
    /// What.
    pub(crate) question: Q,
    /// Takes the answer.
    pub(crate) reply: oneshot::Sender<R>,
}

/// Where what arrives goes.
#[derive(Debug, Clone)]
pub(crate) struct Inboxes {
    raft: mpsc::Sender<Envelope>,
    quorum: mpsc::Sender<Asked<QuorumQuestion, QuorumReply>>,
    controller: mpsc::Sender<Asked<ControllerQuestion, ControllerReply>>,
    broker: mpsc::Sender<Asked<BrokerQuestion, BrokerReply>>,
    lost: mpsc::UnboundedSender<VoterId>,
}

/// What has arrived, for those who answer it.
#[derive(Debug)]
pub(crate) struct Arrivals {
    /// Messages of the quorum.
    pub(crate) raft: mpsc::Receiver<Envelope>,
    /// For the quorum's driver.
    pub(crate) quorum: mpsc::Receiver<Asked<QuorumQuestion, QuorumReply>>,
    /// For the controller.
    pub(crate) controller: mpsc::Receiver<Asked<ControllerQuestion, ControllerReply>>,
    /// For this broker.
    pub(crate) broker: mpsc::Receiver<Asked<BrokerQuestion, BrokerReply>>,
    /// Nodes whose control lane to this node broke. Bounded by the connections.
    pub(crate) lost: mpsc::UnboundedReceiver<VoterId>,
}

impl Inboxes {
    /// New inboxes.
    pub(crate) fn new() -> (Inboxes, Arrivals) {
        let (raft, raft_arrivals) = mpsc::channel(INBOX_MAX);
        let (quorum, quorum_arrivals) = mpsc::channel(INBOX_MAX);
        let (controller, controller_arrivals) = mpsc::channel(INBOX_MAX);
        let (broker, broker_arrivals) = mpsc::channel(INBOX_MAX);
        let (lost, lost_arrivals) = mpsc::unbounded_channel();
        let arrivals = Arrivals {
            raft: raft_arrivals,
            quorum: quorum_arrivals,
            controller: controller_arrivals,
            broker: broker_arrivals,
            lost: lost_arrivals,
        };
        (Inboxes { raft, quorum, controller, broker, lost }, arrivals)
    }

    /// Hands a note over. One that finds no room is lost, as on the way.
    pub(crate) fn deliver(&self, note: Note) {
        match note {
            Note::Raft(envelope) => drop(self.raft.try_send(envelope)),
        }
    }

    /// Hands a question over and waits for its answer; `None`: nobody answers it.
    pub(crate) async fn ask(&self, from: BrokerId, question: Question) -> Option<Reply> {
        match question {
            Question::Quorum(question) => put(&self.quorum, from, question).await.map(Reply::Quorum),
            Question::Controller(question) => {
                put(&self.controller, from, *question).await.map(Reply::Controller)
            }
            Question::Broker(question) => put(&self.broker, from, question).await.map(Reply::Broker),
        }
    }

    /// The control lane from that node broke.
    pub(crate) fn lost(&self, node: VoterId) {
        // A driver that has ended needs no news.
        let _ = self.lost.send(node);
    }
}

async fn put<Q, R>(inbox: &mpsc::Sender<Asked<Q, R>>, from: BrokerId, question: Q) -> Option<R> {
    let (reply, answer) = oneshot::channel();
    inbox.try_send(Asked { from, question, reply }).ok()?;
    answer.await.ok()
}

/// How long a node waits for its peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PeerTiming {
    /// For a connection and its handshake.
    pub(crate) connect: Duration,
    /// After how long without a sign of life a peer to which something was sent is asked for one.
    pub(crate) ping_after: Duration,
    /// How long it has to answer that; then the connection is taken for broken.
    pub(crate) pong_max: Duration,
    /// After the first failure, doubled after each further one.
    pub(crate) backoff_min: Duration,
    /// Between two tries at most.
    pub(crate) backoff_max: Duration,
    /// A lane without anything to say shows after this time that it is there, and is closed when it has not for three times as
    /// long.
    pub(crate) idle: Duration,
}

impl Default for PeerTiming {
    fn default() -> PeerTiming {
        PeerTiming {
            connect: Duration::from_millis(1_000),
            ping_after: Duration::from_millis(250),
            pong_max: Duration::from_millis(750),
            backoff_min: Duration::from_millis(20),
            backoff_max: Duration::from_millis(500),
            idle: Duration::from_secs(10),
        }
    }
}

/// What a node needs to talk to others.
#[derive(Debug, Clone)]
pub(crate) struct PeerSetup {
    /// Who it is.
    pub(crate) me: Identity,
    /// What the cluster's nodes prove that they know.
    pub(crate) secret: Option<Secret>,
    /// The longest tail on a replica lane.
    pub(crate) tail_bytes_max: usize,
    /// How long it waits.
    pub(crate) timing: PeerTiming,
    /// Counts what happens.
    pub(crate) metrics: Arc<Metrics>,
}

impl PeerSetup {
    /// What the settings say, with the usual times, and counters of its own.
    pub(crate) fn new(config: &Config, me: Identity) -> PeerSetup {
        PeerSetup {
            me,
            secret: config.internal_secret.clone(),
            // What a fetch may bring, and a batch of the largest size that a broker takes in.
            tail_bytes_max: config.request_bytes_max.saturating_add(config.replica_fetch_response_bytes_max),
            timing: PeerTiming::default(),
            metrics: Arc::default(),
        }
    }

    fn limits(&self, lane: Lane) -> FrameLimits {
        let tail_bytes_max = match lane {
            Lane::Control => 0,
            Lane::Replica => self.tail_bytes_max,
        };
        FrameLimits { head_bytes_max: HEAD_BYTES_MAX, tail_bytes_max }
    }
}

/// Talks to the other nodes. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Peers {
    me: BrokerId,
    inboxes: Inboxes,
    /// `None`: this node is alone.
    net: Option<Arc<Net>>,
}

/// The way to the other nodes.
#[derive(Debug)]
struct Net {
    ground: Arc<Ground>,
    /// A task for each peer that was ever talked to. `None` once the node has stopped.
    links: Mutex<Option<BTreeMap<BrokerId, mpsc::Sender<Outgoing>>>>,
}

impl Peers {
    /// A node that has no peers; `inboxes` are its own.
    pub(crate) fn new(me: BrokerId, inboxes: Inboxes) -> Peers {
        Peers { me, inboxes, net: None }
    }

    /// A node of a cluster; `inboxes` are its own. It connects when there is something to say to a node whose address it has
    /// been told.
    pub(crate) fn connecting(setup: PeerSetup, inboxes: Inboxes) -> Peers {
        let me = setup.me.node;
        let net = Net { ground: Arc::new(Ground::new(setup)), links: Mutex::new(Some(BTreeMap::new())) };
        Peers { me, inboxes, net: Some(Arc::new(net)) }
    }

    /// This node.
    pub(crate) fn me(&self) -> BrokerId {
        self.me
    }

    /// Where nodes are to be reached, by host and port. Those that are not named stay where they were.
    pub(crate) fn set_addresses(&self, addresses: impl IntoIterator<Item = (BrokerId, (String, u16))>) {
        if let Some(net) = &self.net {
            locked(&net.ground.addresses).extend(addresses);
        }
    }

    /// Where a node is to be reached, as far as this one knows.
    pub(crate) fn address(&self, of: BrokerId) -> Option<(String, u16)> {
        locked(&self.net.as_ref()?.ground.addresses).get(&of).cloned()
    }

    /// The cluster that this node belongs to, as far as it knows.
    pub(crate) fn cluster_id(&self) -> Option<Uuid> {
        *locked(&self.net.as_ref()?.ground.cluster)
    }

    /// The cluster that this node belongs to: from now on it talks to nobody who belongs to another one.
    pub(crate) fn set_cluster_id(&self, cluster: Uuid) {
        if let Some(net) = &self.net {
            *locked(&net.ground.cluster) = Some(cluster);
        }
    }

    /// Says something. It may be lost, and is if the peer cannot be reached now.
    pub(crate) fn tell(&self, to: BrokerId, note: Note) {
        if to == self.me {
            self.inboxes.deliver(note);
        } else {
            // Whatever is in its way, it is lost, and counted.
            let _ = self.put(to, Outgoing::Note(note));
        }
    }

    /// Asks. Dropping the future takes nothing back. There is no time limit: a connection that is lost, or a peer that does
    /// not show that it is there, ends the waiting.
    ///
    /// # Errors
    /// See [`PeerError`]. Whoever asks again at once is answered at once, so pause.
    pub(crate) async fn ask<Q: Ask>(&self, to: BrokerId, question: Q) -> Result<Q::Reply, PeerError> {
        let reply = if to == self.me {
            self.inboxes.ask(self.me, question.into()).await
        } else {
            let (reply, answer) = oneshot::channel();
            self.put(to, Outgoing::Ask { question: question.into(), reply })?;
            answer.await.map_err(|_| PeerError::Lost(to))??
        };
        Q::reply(reply.ok_or(PeerError::Overloaded(to))?).ok_or(PeerError::Misfit(to))
    }

    /// A new connection for replicas' records, of which the caller takes care.
    ///
    /// # Errors
    /// `Unreachable`, `Refused`.
    pub(crate) async fn open_replica_lane(
        &self,
        to: BrokerId,
    ) -> Result<(PeerReader, PeerWriter), PeerError> {
        let net = self.net.as_ref().ok_or(PeerError::Unreachable(to))?;
        net.ground.connect(to, Lane::Replica).await.map(|(_, reader, writer)| (reader, writer))
    }

    /// Waits until none of `others` talks to this node, for reasons that do not go away by themselves, and names one of them.
    pub(crate) async fn shut_out(&self, others: &[BrokerId]) -> PeerError {
        let Some(net) = self.net.as_ref().filter(|_| !others.is_empty()) else {
            return std::future::pending().await;
        };
        let mut refusals = net.ground.refusals.subscribe();
        loop {
            let all = others.iter().map(|other| Some((*other, refusals.borrow().get(other)?.clone())));
            if let Some((node, refusal)) =
                all.collect::<Option<Vec<_>>>().and_then(|all| all.into_iter().next())
            {
                return PeerError::Refused(node, refusal);
            }
            if refusals.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Watches the control lanes to others from now on.
    pub(crate) fn lanes(&self) -> Lanes {
        Lanes { broken: self.net.as_ref().map(|net| net.ground.broken.subscribe()) }
    }

    /// Ends all control lanes to others: what is under way is not answered any more.
    pub(crate) fn close(&self) {
        if let Some(net) = &self.net {
            *locked(&net.links) = None;
        }
    }

    /// A node has shown itself: it is worth a try at once.
    fn heard(&self, peer: Identity) {
        let Some(net) = &self.net else { return };
        let known = locked(&net.links).as_ref().and_then(|links| links.get(&peer.node).cloned());
        if let Some(link) = known {
            // One that is full has no need of it.
            let _ = link.try_send(Outgoing::Heard(peer));
        }
    }

    fn put(&self, to: BrokerId, what: Outgoing) -> Result<(), PeerError> {
        let net = self.net.as_ref().ok_or(PeerError::Unreachable(to))?;
        let mut links = locked(&net.links);
        let links = links.as_mut().ok_or(PeerError::Unreachable(to))?;
        if links.get(&to).is_none_or(mpsc::Sender::is_closed) {
            // A node that nobody has an address of gets no task.
            if !locked(&net.ground.addresses).contains_key(&to) {
                return Err(PeerError::Unreachable(to));
            }
            let (sender, queue) = mpsc::channel(link::QUEUE_MAX);
            task::spawn("peer-link", link::run(to, Arc::clone(&net.ground), queue));
            links.insert(to, sender);
        }
        let link = links.get(&to).ok_or(PeerError::Unreachable(to))?;
        link.try_send(what).map_err(|error| {
            let (what, error) = match error {
                mpsc::error::TrySendError::Full(what) => (what, PeerError::Overloaded(to)),
                mpsc::error::TrySendError::Closed(what) => (what, PeerError::Unreachable(to)),
            };
            net.ground.count_lost(&what, &error);
            error
        })
    }
}

/// Tells of control lanes that break.
pub(crate) struct Lanes {
    broken: Option<watch::Receiver<u64>>,
}

impl Lanes {
    /// Waits until a control lane of this node to another one breaks; for ever, if there is none. Cancel-safe.
    pub(crate) async fn lost(&mut self) {
        let ended = match &mut self.broken {
            Some(broken) => broken.changed().await.is_err(),
            None => true,
        };
        if ended {
            std::future::pending::<()>().await;
        }
    }
}

/// A panic while one of these is held leaves it as it is.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "peer/peer_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "peer/fault_tests.rs"]
mod fault_tests;

#[cfg(test)]
#[path = "peer/stranger_tests.rs"]
mod stranger_tests;
