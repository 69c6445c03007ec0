//! The control lane from this node to another: connected when there is something to say, and again after a failure.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;
use weir_protocol::types::BrokerId;
use weir_runtime::net::{self, Stream};
use weir_runtime::time::{self, Alarm, Instant};
use weir_runtime::watch;

use super::handshake::{self, Credentials, HandshakeError, Identity, Lane, Refusal};
use super::lane::{LaneError, PeerReader, PeerWriter};
use super::message::{Note, Question, Reply};
use super::{PeerError, PeerSetup, PeerTiming, locked};
use crate::config::Secret;

/// Notes and questions that wait for their way; beyond, notes are lost and questions refused.
pub(super) const QUEUE_MAX: usize = 4096;
/// Questions of one lane that wait for their answer; one more is refused.
const ASKED_MAX: usize = 4096;
/// With more bytes under way nothing more is taken from the queue.
const WAITING_BYTES_MAX: usize = 4 << 20;

/// What goes to a peer.
#[derive(Debug)]
pub(super) enum Outgoing {
    Note(Note),
    Ask {
        question: Question,
        reply: oneshot::Sender<Answered>,
    },
    /// The peer has shown itself, in this life of it.
    Heard(Identity),
}

/// What becomes of a question; `None`: nobody there answers it.
type Answered = Result<Option<Reply>, PeerError>;

/// What the connecting side of a control lane sends.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Call {
    Note(Note),
    /// Answered with [`CallAnswer::Reply`] of the same number, in any order.
    Ask(u64, Question),
    /// Answered at once with [`CallAnswer::Pong`] of the same number.
    Ping(u64),
}

/// What the other side sends.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum CallAnswer {
    /// `None`: nobody answers it.
    Reply(u64, Option<Reply>),
    Pong(u64),
}

/// What all connections of a node have in common.
#[derive(Debug)]
pub(super) struct Ground {
    pub(super) setup: PeerSetup,
    pub(super) cluster: Mutex<Option<Uuid>>,
    pub(super) addresses: Mutex<BTreeMap<BrokerId, (String, u16)>>,
    /// Why nodes did not talk to this one when that was tried last, where another try ends in the same way.
    pub(super) refusals: watch::Sender<BTreeMap<BrokerId, Refusal>>,
    /// Counts control lanes that broke.
    pub(super) broken: watch::Sender<u64>,
}

impl Ground {
    pub(super) fn new(setup: PeerSetup) -> Ground {
        let refusals = watch::Sender::new(BTreeMap::new());
        let broken = watch::Sender::new(0);
        Ground { setup, cluster: Mutex::default(), addresses: Mutex::default(), refusals, broken }
    }

    /// Counts what does not go out.
    pub(super) fn count_lost(&self, outgoing: &Outgoing, error: &PeerError) {
        match (outgoing, error) {
            (Outgoing::Note(_), _) => self.setup.metrics.peer_notes_lost.increment(),
            (Outgoing::Ask { .. }, PeerError::Overloaded(_)) => {
                self.setup.metrics.peer_questions_refused.increment();
            }
            _ => {}
        }
    }

    /// Answers a question that does not go out.
    fn fail(&self, outgoing: Outgoing, error: &PeerError) {
        self.count_lost(&outgoing, error);
        match outgoing {
            // Whoever has asked may not wait any more.
            Outgoing::Ask { reply, .. } => drop(reply.send(Err(error.clone()))),
            Outgoing::Note(_) | Outgoing::Heard(_) => {}
        }
    }

    pub(super) fn credentials(&self) -> Credentials<'_> {
        let secret = self.setup.secret.as_ref().map_or(&[][..], Secret::bytes);
        Credentials { me: self.setup.me, cluster: *locked(&self.cluster), secret }
    }

    /// Connects, and shakes hands.
    pub(super) async fn connect(
        &self,
        to: BrokerId,
        lane: Lane,
    ) -> Result<(Identity, PeerReader, PeerWriter), PeerError> {
        let stream = match time::timeout(self.setup.timing.connect, self.reach(to)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::debug!(node = %to, %error, "no connection");
                return Err(PeerError::Unreachable(to));
            }
            Err(elapsed) => {
                tracing::debug!(node = %to, %elapsed, "no connection");
                return Err(PeerError::Unreachable(to));
            }
        };
        let limits = self.setup.limits(lane);
        match handshake::connect(stream, self.credentials(), lane, to, limits).await {
            Ok(connected) => {
                self.refusals.send_if_modified(|refusals| refusals.remove(&to).is_some());
                Ok(connected)
            }
            Err(HandshakeError::Refused(refusal)) => {
                if refusal.is_final() {
                    self.refusals.send_modify(|refusals| refusals.extend([(to, refusal.clone())]));
                }
                Err(PeerError::Refused(to, refusal))
            }
            Err(error) => {
                tracing::debug!(node = %to, %error, "no handshake");
                Err(PeerError::Unreachable(to))
            }
        }
    }

    /// Tries the addresses that the peer's name has now, one after the other.
    async fn reach(&self, to: BrokerId) -> std::io::Result<Stream> {
        let known = locked(&self.addresses).get(&to).cloned();
        let unknown = || std::io::Error::new(std::io::ErrorKind::NotFound, "its address is not known");
        let (host, port) = known.ok_or_else(unknown)?;
        let host_port =
            if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let addresses = net::resolve(&host_port).await?;
        let each = self.setup.timing.connect / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
        let mut last = unknown();
        for address in addresses {
            match time::timeout(each, Stream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = error,
                Err(elapsed) => last = elapsed.into(),
            }
        }
        Err(last)
    }
}

/// Carries what is in the queue to a peer, until nobody can put anything there any more.
pub(super) async fn run(to: BrokerId, ground: std::sync::Arc<Ground>, mut queue: mpsc::Receiver<Outgoing>) {
    let mut failures = Failures::new(to, ground.setup.timing);
    while let Some(first) = queue.recv().await {
        if matches!(first, Outgoing::Heard(_)) {
            failures.forgive();
            continue;
        }
        if let Some(error) = failures.hold_off() {
            ground.fail(first, error);
            continue;
        }
        match ground.connect(to, Lane::Control).await {
            Ok((peer, reader, writer)) => {
                ground.setup.metrics.peer_connections_made.increment();
                failures.connected();
                let mut session = Session::new(peer, reader, writer, ground.setup.timing);
                let end = session.run(first, &mut queue).await;
                session.fail_all();
                let Some(error) = end else { return };
                ground.setup.metrics.peer_connections_failed.increment();
                failures.lost(&error);
                ground.broken.send_modify(|broken| *broken += 1);
            }
            Err(error) => {
                ground.setup.metrics.peer_connections_failed.increment();
                failures.refused(&error);
                ground.fail(first, &error);
                while let Ok(next) = queue.try_recv() {
                    ground.fail(next, &error);
                }
            }
        }
    }
}

/// When to try again, and what was said about it.
struct Failures {
    to: BrokerId,
    timing: PeerTiming,
    /// The last one, and when it is tried again.
    last: Option<(PeerError, Instant)>,
    backoff: Duration,
    /// What the log says; each state is said once.
    said: Option<Option<Refusal>>,
}

impl Failures {
    fn new(to: BrokerId, timing: PeerTiming) -> Failures {
        Failures { to, timing, last: None, backoff: timing.backoff_min, said: None }
    }

    /// Why it is not tried now.
    fn hold_off(&self) -> Option<&PeerError> {
        self.last.as_ref().filter(|(_, until)| time::now() < *until).map(|(error, _)| error)
    }

    fn forgive(&mut self) {
        self.last = None;
        self.backoff = self.timing.backoff_min;
    }

    fn connected(&mut self) {
        self.forgive();
        if self.said.take().is_some() {
            tracing::info!(node = %self.to, "reached again");
        }
    }

    /// A connection that was good has ended: the next try costs nothing but the shortest pause.
    fn lost(&mut self, error: &LaneError) {
        tracing::debug!(node = %self.to, %error, "the connection has ended");
        self.last = Some((PeerError::Unreachable(self.to), time::now() + self.backoff));
    }

    fn refused(&mut self, error: &PeerError) {
        let why = match error {
            PeerError::Refused(_, refusal) => Some(refusal.clone()),
            _ => None,
        };
        if self.said.as_ref() != Some(&why) {
            tracing::warn!("{error}");
            self.said = Some(why);
        }
        self.last = Some((error.clone(), time::now() + self.backoff));
        self.backoff = (self.backoff * 2).min(self.timing.backoff_max);
    }
}

/// One connection.
struct Session {
    peer: Identity,
    timing: PeerTiming,
    reader: PeerReader,
    writer: PeerWriter,
    asked: BTreeMap<u64, oneshot::Sender<Answered>>,
    /// Of questions and pings.
    next_id: u64,
    /// When to ping, or while a ping is out, when to give up.
    alarm: Alarm,
    ping: Option<u64>,
    /// Whether something was sent since the last ping.
    spoken: bool,
}

impl Session {
    fn new(peer: Identity, reader: PeerReader, writer: PeerWriter, timing: PeerTiming) -> Session {
        let mut alarm = Alarm::new();
        alarm.set(Some(time::now() + timing.idle));
        Session {
            peer,
            timing,
            reader,
            writer,
            asked: BTreeMap::new(),
            next_id: 0,
            alarm,
            ping: None,
            spoken: false,
        }
    }

    /// Runs until the connection ends, and says why; `None`: nobody has anything more to say.
    async fn run(&mut self, first: Outgoing, queue: &mut mpsc::Receiver<Outgoing>) -> Option<LaneError> {
        let mut step = self.put(first);
        while step.is_ok() {
            let has_room = self.writer.waiting_bytes() < WAITING_BYTES_MAX;
            let is_idle = self.writer.is_idle();
            step = weir_runtime::select! {
                flushed = self.writer.flush(), if !is_idle => flushed,
                received = self.reader.receive::<CallAnswer>() => {
                    received.map(|(answer, _)| self.on_answer(answer))
                }
                next = queue.recv(), if has_room => self.put(next?),
                () = self.alarm.wait() => self.on_alarm(),
            };
        }
        step.err()
    }

    fn put(&mut self, outgoing: Outgoing) -> Result<(), LaneError> {
        let (call, reply) = match outgoing {
            Outgoing::Heard(peer) => return self.on_heard(peer),
            Outgoing::Note(note) => (Call::Note(note), None),
            Outgoing::Ask { question, reply } => {
                if self.asked.len() >= ASKED_MAX {
                    self.asked.retain(|_, reply| !reply.is_closed());
                }
                if self.asked.len() >= ASKED_MAX {
                    drop(reply.send(Err(PeerError::Overloaded(self.peer.node))));
                    return Ok(());
                }
                self.next_id += 1;
                (Call::Ask(self.next_id, question), Some(reply))
            }
        };
        match (self.writer.enqueue(&call, []), reply) {
            (Ok(_), Some(reply)) => drop(self.asked.insert(self.next_id, reply)),
            (Ok(_), None) => {}
            (Err(error), reply) => {
                tracing::warn!(node = %self.peer.node, %error, "a message cannot be sent");
                if let Some(reply) = reply {
                    drop(reply.send(Err(PeerError::Overloaded(self.peer.node))));
                }
                return Ok(());
            }
        }
        if !std::mem::replace(&mut self.spoken, true) && self.ping.is_none() {
            self.alarm.set(Some(time::now() + self.timing.ping_after));
        }
        Ok(())
    }

    /// A later life of the peer shows that nobody is at the other end any more.
    fn on_heard(&self, peer: Identity) -> Result<(), LaneError> {
        let is_later = peer.folder == self.peer.folder && peer.incarnation > self.peer.incarnation;
        if is_later { Err(LaneError::Closed) } else { Ok(()) }
    }

    fn on_answer(&mut self, answer: CallAnswer) {
        match answer {
            CallAnswer::Reply(id, reply) => {
                // Whoever has asked may not wait any more.
                if let Some(asker) = self.asked.remove(&id) {
                    drop(asker.send(Ok(reply)));
                }
            }
            CallAnswer::Pong(id) => {
                if self.ping == Some(id) {
                    self.ping = None;
                }
            }
        }
        self.wait_on();
    }

    /// The peer is there: how long until it must show that again?
    fn wait_on(&mut self) {
        let within = match self.ping {
            Some(_) => self.timing.pong_max,
            None if self.spoken || !self.asked.is_empty() => self.timing.ping_after,
            None => self.timing.idle,
        };
        self.alarm.set(Some(time::now() + within));
    }

    fn on_alarm(&mut self) -> Result<(), LaneError> {
        if self.ping.is_some() {
            return Err(LaneError::Stalled);
        }
        self.next_id += 1;
        self.writer.enqueue(&Call::Ping(self.next_id), [])?;
        self.ping = Some(self.next_id);
        self.spoken = false;
        self.wait_on();
        Ok(())
    }

    fn fail_all(&mut self) {
        for (_, reply) in std::mem::take(&mut self.asked) {
            drop(reply.send(Err(PeerError::Lost(self.peer.node))));
        }
    }
}
