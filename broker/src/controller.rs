//! The controller of the cluster, while this node leads the metadata quorum: drives `weir_protocol::controller` inside the
//! quorum's driver, and answers what a leader of the quorum is asked.
//!
//! It never waits. What it wants of the quorum it hands to the driver as [`Todo`]s, each under a [`Ticket`] with which the
//! outcome comes back.

mod changes;
mod client;
#[cfg(test)]
#[path = "controller/controller_tests.rs"]
mod tests;

use std::collections::BTreeMap;

use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;
use weir_protocol::controller::{
    Answer, CommandId, Controller, Effect, Input, Limits, Question as TailQuestion, Refused, RequestId,
    Timing,
};
use weir_protocol::metadata::{Change, ClusterCommand, Command, FeatureRange, Image, Record, Rejected};
use weir_protocol::raft::{ChangeRefusal, Index, VoterChange};
use weir_protocol::types::{BrokerId, VoterId};
use weir_runtime::time::{self, Alarm, Instant};
use weir_runtime::{random, simulation, task};

use crate::complaints::Complaints;
use crate::peer::message::{BrokerQuestion, BrokerReply, ControllerQuestion, ControllerReply, NotDone};
use crate::peer::{Asked, Peers};

#[allow(unused_imports, reason = "its users are being built")]
pub(crate) use changes::{ChangeOutcome, Changed, PartitionChanges};
pub(crate) use client::{AskError, ControllerClient};

/// Questions that may wait for an outcome; one more is refused.
const WAITING_MAX: usize = 8_192;
/// Questions that are taken in per wake: their commands share a round of the journal.
const QUESTIONS_PER_WAKE: usize = 64;
/// Questions that are taken in before the time is looked at: a heartbeat that has arrived in time counts, even if this task was
/// late.
const QUESTIONS_PER_TICK: usize = 4_096;
/// Questions for tails that one broker may have at a time; the core asks again.
const TAILS_PER_BROKER: usize = 16;
/// Answers to them that may wait.
const TAILS_QUEUE: usize = 64;

/// Names a proposal, or another wish, until its outcome is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ticket {
    /// The controller's own.
    Command(CommandId),
    /// Somebody has asked for it.
    Request(u64),
}

/// What the quorum's driver is to do for the controller, in order.
#[derive(Debug)]
pub(crate) enum Todo {
    /// Propose a command. Its outcome: `on_applied`, `on_not_done` or `on_unknown`.
    Propose {
        /// Under which name.
        ticket: Ticket,
        /// What.
        record: Record,
    },
    /// Propose this feature level once all voters know it. Its outcome is that of [`Todo::Propose`].
    RaiseLevel {
        /// Under which name.
        ticket: Ticket,
        /// The level.
        level: u16,
    },
    /// Change the quorum's voters. Its outcome: `on_voters`, `on_not_done` or `on_unknown`.
    ChangeVoters {
        /// Under which name.
        ticket: Ticket,
        /// How.
        change: VoterChange,
    },
    /// A linearizable read. Its outcome: `on_read` or `on_not_done`.
    Read {
        /// Under which name.
        ticket: Ticket,
    },
    /// Say how far the quorum's nodes are.
    DescribeQuorum {
        /// To whom.
        reply: oneshot::Sender<ControllerReply>,
    },
}

/// Something that has happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// Nodes have asked.
    Questions(Vec<Asked<ControllerQuestion, ControllerReply>>),
    /// The control lane from a node broke.
    Lost(VoterId),
    /// A broker has answered how far its replicas reach, or has not.
    Tails {
        /// Which.
        broker: BrokerId,
        /// What it said.
        reply: Option<BrokerReply>,
    },
    /// The time that the core has set has come.
    Timer,
}

/// The controller and what surrounds it.
pub(crate) struct Controlling {
    peers: Peers,
    arrivals: mpsc::Receiver<Asked<ControllerQuestion, ControllerReply>>,
    lost: mpsc::UnboundedReceiver<VoterId>,
    timing: Timing,
    limits: Limits,
    /// What this node can work at.
    features: FeatureRange,
    /// While this node leads the quorum and knows everything that was committed before.
    core: Option<Controller>,
    /// Who leads the quorum, as far as is known.
    leader: Option<BrokerId>,
    /// Who waits for an outcome. Invariant: at most [`WAITING_MAX`].
    waiting: BTreeMap<u64, oneshot::Sender<ControllerReply>>,
    next_request: u64,
    /// The driver's name of the core's command 0. The names go on from one term's core to the next, so that what becomes of
    /// a former one's command is not taken for this one's.
    first_command: u64,
    /// Invariant: above every name given out.
    next_command: u64,
    /// Nodes whose control lane to this one broke, and when, as long as this node does not control. Bounded by the nodes.
    lost_lately: BTreeMap<BrokerId, Instant>,
    /// How many questions each broker has not answered. Invariant: from 1 to [`TAILS_PER_BROKER`].
    asking: BTreeMap<BrokerId, usize>,
    tails_to: mpsc::Sender<(BrokerId, Option<BrokerReply>)>,
    tails: mpsc::Receiver<(BrokerId, Option<BrokerReply>)>,
    alarm: Alarm,
    taken: Vec<Asked<ControllerQuestion, ControllerReply>>,
    effects: Vec<Effect>,
    complaints: Complaints,
}

impl Controlling {
    /// Of a node that does not lead yet.
    pub(crate) fn new(
        peers: Peers,
        arrivals: mpsc::Receiver<Asked<ControllerQuestion, ControllerReply>>,
        lost: mpsc::UnboundedReceiver<VoterId>,
        timing: Timing,
        limits: Limits,
    ) -> Controlling {
        let (tails_to, tails) = mpsc::channel(TAILS_QUEUE);
        Controlling {
            peers,
            arrivals,
            lost,
            timing,
            limits,
            features: FeatureRange::KNOWN,
            core: None,
            leader: None,
            waiting: BTreeMap::new(),
            next_request: 0,
            first_command: 0,
            next_command: 0,
            lost_lately: BTreeMap::new(),
            asking: BTreeMap::new(),
            tails_to,
            tails,
            alarm: Alarm::new(),
            taken: Vec::new(),
            effects: Vec::new(),
            complaints: Complaints::default(),
        }
    }

    /// The same, of a node that works at these feature levels.
    pub(crate) fn with_feature_levels(self, features: FeatureRange) -> Controlling {
        Controlling { features, ..self }
    }

    /// What happens next. Cancel-safe.
    pub(crate) async fn event(&mut self) -> Event {
        weir_runtime::select! {
            () = self.alarm.wait() => Event::Timer,
            answered = self.tails.recv() => match answered {
                Some((broker, reply)) => Event::Tails { broker, reply },
                // This side holds a sender.
                None => std::future::pending().await,
            },
            lost = self.lost.recv() => match lost {
                Some(broker) => Event::Lost(broker),
                None => std::future::pending().await,
            },
            count = self.arrivals.recv_many(&mut self.taken, QUESTIONS_PER_WAKE) => match count {
                // Nobody can ask any more.
                0 => std::future::pending().await,
                _ => Event::Questions(std::mem::take(&mut self.taken)),
            },
        }
    }

    /// Takes in what has happened; `image` is the newest committed one.
    pub(crate) fn on_event(&mut self, event: Event, image: &Image) -> Vec<Todo> {
        let mut todos = Vec::new();
        match event {
            Event::Questions(questions) => {
                for asked in questions {
                    self.on_question(asked, image, &mut todos);
                }
            }
            // It may be another node that claims its number.
            Event::Lost(node)
                if image.broker(node.broker).is_some_and(|known| known.folder != node.folder) => {}
            Event::Lost(node) if self.core.is_none() => {
                self.lost_lately.insert(node.broker, time::now());
            }
            Event::Lost(node) => {
                self.step(image, Input::ConnectionLost { broker: node.broker }, &mut todos);
            }
            Event::Tails { broker, reply } => self.on_tails(broker, reply, image, &mut todos),
            Event::Timer => {
                for _ in 0..QUESTIONS_PER_TICK {
                    let Ok(asked) = self.arrivals.try_recv() else { break };
                    self.on_question(asked, image, &mut todos);
                }
                self.step(image, Input::Tick, &mut todos);
            }
        }
        todos
    }

    /// This node leads the quorum and has applied the first entry of its term: it controls from here on. The first of all
    /// forms the cluster.
    pub(crate) fn begin(&mut self, image: &Image) -> Vec<Todo> {
        self.resign();
        let mut todos = Vec::new();
        self.leader = Some(self.peers.me());
        self.first_command = self.next_command;
        let core = Controller::start(self.timing, self.limits, now(), image, &mut self.effects);
        self.core = Some(core);
        self.carry_out(&mut todos);
        // The former controller's machine has been lost with it, most likely.
        let session = self.timing.session;
        for (broker, at) in std::mem::take(&mut self.lost_lately) {
            if at.elapsed() < session {
                self.step(image, Input::ConnectionLost { broker }, &mut todos);
            }
        }
        if image.cluster_id().is_none() {
            let cluster_id =
                self.peers.cluster_id().unwrap_or_else(|| Uuid::from_bytes(random::uuid_bytes()));
            tracing::info!(%cluster_id, "a new cluster");
            let command = Command::FormCluster { cluster_id, feature_level: self.features.max };
            // Nobody waits for it; when it is lost, the next leader forms the cluster.
            todos.push(Todo::Propose { ticket: self.ticket(), record: command.into() });
        }
        todos
    }

    /// An entry was applied; `image` is as of that entry. To be said of each entry, in order.
    pub(crate) fn on_applied(
        &mut self,
        index: Index,
        ticket: Option<Ticket>,
        outcome: &Result<Change, Rejected>,
        image: &Image,
    ) -> Vec<Todo> {
        note_situation(outcome);
        let mut todos = Vec::new();
        let command = match ticket {
            Some(Ticket::Request(request)) => {
                self.reply(request, ControllerReply::Proposed { index, outcome: outcome.clone() });
                None
            }
            Some(Ticket::Command(command)) => self.own(command),
            None => None,
        };
        self.step(image, Input::Applied { index, command, outcome: outcome.clone() }, &mut todos);
        todos
    }

    /// A read sees everything committed before it once the entries below `commit` are applied.
    pub(crate) fn on_read(&mut self, ticket: Ticket, commit: Index) {
        if let Ticket::Request(request) = ticket {
            self.reply(request, ControllerReply::Read(commit));
        }
    }

    /// A change of voters was committed in the entry at this index, or refused.
    pub(crate) fn on_voters(&mut self, ticket: Ticket, outcome: Result<Index, ChangeRefusal>) {
        if let Ticket::Request(request) = ticket {
            self.reply(request, ControllerReply::Voters(outcome));
        }
    }

    /// Nothing was done, and nothing stands in the log.
    pub(crate) fn on_not_done(&mut self, ticket: Ticket, why: NotDone, image: &Image) -> Vec<Todo> {
        let mut todos = Vec::new();
        match ticket {
            Ticket::Request(request) => self.reply(request, ControllerReply::NotDone(why)),
            Ticket::Command(command) => {
                if let Some(command) = self.own(command) {
                    self.step(image, Input::ProposalRefused { command }, &mut todos);
                }
            }
        }
        todos
    }

    /// It stood in the log when this node ceased to lead: it may be committed, or not.
    pub(crate) fn on_unknown(&mut self, ticket: Ticket) {
        // Whoever waits for a command of the core's hears of it when the core resigns.
        if let Ticket::Request(request) = ticket {
            self.reply(request, ControllerReply::Unknown);
        }
    }

    /// Who leads the quorum, as far as is known. When it is not this node, it controls no longer.
    pub(crate) fn set_leader(&mut self, leader: Option<BrokerId>) {
        self.leader = leader;
        if leader != Some(self.peers.me()) {
            self.resign();
        }
    }

    fn resign(&mut self) {
        self.alarm.set(None);
        let Some(core) = self.core.take() else { return };
        core.resign(&mut self.effects);
        // Requests that are still in flight: their commands may be committed, or not.
        for effect in std::mem::take(&mut self.effects) {
            if let Effect::Answer { request, .. } = effect {
                self.reply(request.0, ControllerReply::Unknown);
            }
        }
    }

    fn on_question(
        &mut self,
        asked: Asked<ControllerQuestion, ControllerReply>,
        image: &Image,
        todos: &mut Vec<Todo>,
    ) {
        let Asked { from, question, reply } = asked;
        let refused = if self.core.is_none() {
            Some(NotDone::NotController(self.leader))
        } else if self.waiting.len() >= WAITING_MAX {
            Some(NotDone::Overloaded)
        } else {
            None
        };
        if let Some(why) = refused {
            // Whoever asked may have gone.
            let _ = reply.send(ControllerReply::NotDone(why));
            return;
        }
        if !speaks_for_itself(from, &question) {
            if let Some(left_out) = self.complaints.admit(time::now()) {
                tracing::warn!(%from, left_out, ?question, "a node asks for another one");
            }
            // Dropped unanswered: whoever asks is told that there is no answer.
            return;
        }
        match question {
            ControllerQuestion::Register(registration) => {
                let request = self.wait(reply);
                self.step(image, Input::Register { request, registration }, todos);
            }
            ControllerQuestion::Heartbeat { broker, broker_epoch, applied, wants } => {
                let request = self.wait(reply);
                let input = Input::Heartbeat { request, broker, broker_epoch, applied, wants };
                self.step(image, input, todos);
            }
            ControllerQuestion::ChangePartition(command) => {
                let request = self.wait(reply);
                self.step(image, Input::ChangePartition { request, command }, todos);
            }
            ControllerQuestion::Propose(record) => self.propose(record, reply, image, todos),
            ControllerQuestion::ChangeVoters(change) => {
                let ticket = Ticket::Request(self.wait(reply).0);
                todos.push(Todo::ChangeVoters { ticket, change });
            }
            ControllerQuestion::Read => {
                let ticket = Ticket::Request(self.wait(reply).0);
                todos.push(Todo::Read { ticket });
            }
            ControllerQuestion::DescribeQuorum => todos.push(Todo::DescribeQuorum { reply }),
        }
    }

    /// Passes a command on that needs no decision of the controller's.
    fn propose(
        &mut self,
        record: Record,
        reply: oneshot::Sender<ControllerReply>,
        image: &Image,
        todos: &mut Vec<Todo>,
    ) {
        let permitted = image.permits(&record).and_then(|()| self.knows(&record));
        match permitted {
            Ok(()) => {
                let ticket = Ticket::Request(self.wait(reply).0);
                todos.push(match record {
                    Record::V1(Command::SetFeatureLevel { level }) => Todo::RaiseLevel { ticket, level },
                    record => Todo::Propose { ticket, record },
                });
            }
            Err(rejected) => {
                // It would be rejected in any later entry too, and must not stand in the log.
                let index = image.applied().unwrap_or(-1);
                // Whoever asked may have gone.
                let _ = reply.send(ControllerReply::Proposed { index, outcome: Err(rejected) });
            }
        }
    }

    /// Whether this node knows the level that the cluster is to be raised to: it must be able to go on controlling.
    fn knows(&self, record: &Record) -> Result<(), Rejected> {
        match record {
            Record::V1(Command::SetFeatureLevel { level }) if !self.features.contains(*level) => {
                Err(Rejected::UnsupportedFeature(*level))
            }
            _ => Ok(()),
        }
    }

    fn on_tails(
        &mut self,
        broker: BrokerId,
        reply: Option<BrokerReply>,
        image: &Image,
        todos: &mut Vec<Todo>,
    ) {
        if let Some(open) = self.asking.get_mut(&broker) {
            *open -= 1;
            if *open == 0 {
                self.asking.remove(&broker);
            }
        }
        if let Some(BrokerReply::Tails { broker_epoch, tails }) = reply {
            self.step(image, Input::Tails { broker, broker_epoch, tails }, todos);
        }
    }

    /// Feeds the core, if this node controls, and carries out what follows.
    fn step(&mut self, image: &Image, input: Input, todos: &mut Vec<Todo>) {
        let Some(core) = &mut self.core else { return };
        core.step(now(), image, input, &mut self.effects);
        debug_assert_eq!(core.invariants(image), Ok(()));
        self.carry_out(todos);
    }

    fn carry_out(&mut self, todos: &mut Vec<Todo>) {
        for effect in std::mem::take(&mut self.effects) {
            match effect {
                Effect::Propose { command, record } => {
                    let name = self.first_command + command.0;
                    self.next_command = self.next_command.max(name + 1);
                    todos.push(Todo::Propose { ticket: Ticket::Command(CommandId(name)), record });
                }
                Effect::Answer { request, answer } => self.reply(request.0, reply_of(answer)),
                Effect::AskTails { broker, broker_epoch, questions } => {
                    self.ask_tails(broker, broker_epoch, questions);
                }
                Effect::SetTimer(at) => self.alarm.set(Some(Instant::from_origin(at))),
            }
        }
    }

    /// Asks a broker in a task of its own.
    fn ask_tails(&mut self, broker: BrokerId, broker_epoch: i64, questions: Vec<TailQuestion>) {
        let open = self.asking.entry(broker).or_insert(0);
        if *open >= TAILS_PER_BROKER {
            return;
        }
        *open += 1;
        let (peers, answered, time_max) = (self.peers.clone(), self.tails_to.clone(), self.timing.session);
        task::spawn("ask-tails", async move {
            let asking = peers.ask(broker, BrokerQuestion::Tails { broker_epoch, questions });
            let reply = match time::timeout(time_max, asking).await {
                Ok(Ok(reply)) => Some(reply),
                Ok(Err(_)) | Err(_) => None,
            };
            // A driver that has ended needs no answers.
            let _ = answered.send((broker, reply)).await;
        });
    }

    fn ticket(&mut self) -> Ticket {
        let request = self.next_request;
        self.next_request += 1;
        Ticket::Request(request)
    }

    /// Keeps who waits under a new name.
    fn wait(&mut self, reply: oneshot::Sender<ControllerReply>) -> RequestId {
        let request = self.next_request;
        self.next_request += 1;
        self.waiting.insert(request, reply);
        RequestId(request)
    }

    fn reply(&mut self, request: u64, reply: ControllerReply) {
        if let Some(waiting) = self.waiting.remove(&request) {
            // Whoever asked may have gone.
            let _ = waiting.send(reply);
        }
    }

    /// The core's own name of a command; `None` if it is a former core's.
    fn own(&self, command: CommandId) -> Option<CommandId> {
        command.0.checked_sub(self.first_command).map(CommandId)
    }
}

fn now() -> std::time::Duration {
    time::now().since_origin()
}

/// Whether a node asks about itself where only it may ask.
fn speaks_for_itself(from: BrokerId, question: &ControllerQuestion) -> bool {
    match question {
        ControllerQuestion::Register(registration) => registration.broker == from,
        ControllerQuestion::Heartbeat { broker, .. } => *broker == from,
        ControllerQuestion::ChangePartition(command) => match command {
            ClusterCommand::AlterIsr { leader, .. } | ClusterCommand::RenewEpoch { leader, .. } => {
                leader.broker == from
            }
            ClusterCommand::LeaveIsr { member, .. } => member.broker == from,
            _ => true,
        },
        ControllerQuestion::Propose(Record::V1(command)) => match command {
            Command::RegisterBroker { broker, .. } | Command::AllocateProducerIds { broker, .. } => {
                *broker == from
            }
            // Who is fenced, and who leads, the controller decides.
            Command::SetFenced { .. } | Command::ChangePartition { .. } | Command::FormCluster { .. } => {
                false
            }
            _ => true,
        },
        ControllerQuestion::Propose(Record::V2(command)) => {
            matches!(command, ClusterCommand::AddReplicas { .. })
        }
        ControllerQuestion::ChangeVoters(_)
        | ControllerQuestion::Read
        | ControllerQuestion::DescribeQuorum => true,
    }
}

fn reply_of(answer: Answer) -> ControllerReply {
    match answer {
        Answer::Registered(Err(Refused::NotController)) | Answer::Partition(Err(Refused::NotController)) => {
            ControllerReply::Unknown
        }
        Answer::Registered(registered) => ControllerReply::Registered(registered),
        Answer::Heartbeat(standing) => ControllerReply::Heartbeat(standing),
        Answer::Partition(changed) => ControllerReply::Partition(changed),
    }
}

/// Tells a simulation what has become of the brokers.
fn note_situation(outcome: &Result<Change, Rejected>) {
    match outcome {
        Ok(Change::BrokerFenced { fenced: true, .. }) => simulation::situation("broker fenced"),
        Ok(Change::BrokerFenced { fenced: false, .. }) => simulation::situation("broker unfenced"),
        Ok(Change::BrokerShuttingDown { .. }) => simulation::situation("broker wants to go"),
        _ => {}
    }
}
