//! Nodes of a cluster talk to each other on a listener of their own, which no client reaches.
//!
//! Two *lanes* lead from a node to each other: notes and questions go over the control lane, replicas' records over
//! another one, so that a large answer keeps no heartbeat waiting. A connection begins with a handshake: both sides
//! prove that they know the cluster's secret, and say who they are and which cluster they belong to.
//!
//! Whoever is this node itself is asked in the same way, without a connection.

pub(crate) mod message;

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use weir_protocol::raft::Envelope;
use weir_protocol::types::BrokerId;

use message::{
    Ask, BrokerQuestion, BrokerReply, ControllerQuestion, ControllerReply, Note, Question, QuorumQuestion,
    QuorumReply, Reply,
};

/// Questions that may wait for each of those who answer them; whoever asks one more is told so.
const INBOX_MAX: usize = 4096;

/// Why a peer has not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PeerError {
    /// No connection, or none any more: it may have heard the question.
    #[error("node {0} cannot be reached")]
    Unreachable(BrokerId),
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
    lost: mpsc::UnboundedSender<BrokerId>,
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
    pub(crate) lost: mpsc::UnboundedReceiver<BrokerId>,
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
    pub(crate) fn lost(&self, node: BrokerId) {
        // A driver that has ended needs no news.
        let _ = self.lost.send(node);
    }
}

async fn put<Q, R>(inbox: &mpsc::Sender<Asked<Q, R>>, from: BrokerId, question: Q) -> Option<R> {
    let (reply, answer) = oneshot::channel();
    inbox.try_send(Asked { from, question, reply }).ok()?;
    answer.await.ok()
}

/// Talks to the other nodes. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Peers {
    me: BrokerId,
    inboxes: Inboxes,
    addresses: Arc<std::sync::Mutex<BTreeMap<BrokerId, (String, u16)>>>,
}

impl Peers {
    /// A node's peers; `inboxes` are its own.
    pub(crate) fn new(me: BrokerId, inboxes: Inboxes) -> Peers {
        Peers { me, inboxes, addresses: Arc::default() }
    }

    /// This node.
    pub(crate) fn me(&self) -> BrokerId {
        self.me
    }

    /// Where nodes are to be reached, by host and port. Those that are not named stay where they were.
    pub(crate) fn set_addresses(&self, addresses: impl IntoIterator<Item = (BrokerId, (String, u16))>) {
        let mut known = self.addresses.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        known.extend(addresses);
    }

    /// Says something. It may be lost, and is if the peer cannot be reached now.
    pub(crate) fn tell(&self, to: BrokerId, note: Note) {
        if to == self.me {
            self.inboxes.deliver(note);
        }
    }

    /// Asks. Dropping the future takes nothing back. There is no time limit: a connection that is lost, or a peer that does
    /// not show that it is there, ends the waiting.
    pub(crate) async fn ask<Q: Ask>(&self, to: BrokerId, question: Q) -> Result<Q::Reply, PeerError> {
        if to != self.me {
            return Err(PeerError::Unreachable(to));
        }
        let reply = self.inboxes.ask(self.me, question.into()).await.ok_or(PeerError::Overloaded(to))?;
        Q::reply(reply).ok_or(PeerError::Misfit(to))
    }
}
