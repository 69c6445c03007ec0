//! What the leader of the metadata quorum does besides replicating the log: it keeps the brokers' sessions, fences and
//! unfences, moves leaders, takes the leaders' requests, and grows internal topics.
//!
//! It decides nothing alone: it proposes commands, and the image with the committed ones comes with every step. So a new
//! controller needs nothing from the one before: it starts from the committed image with fresh sessions. The driver makes
//! one when this node leads the quorum and has applied the first entry of its own term, and drops it with
//! [`Controller::resign`] when it leads no longer.
//!
//! # Brokers
//! What a registered broker is stands in the image. A test derives this table from the code. What is not listed leaves it
//! as it is.
//!
//! | state | input | next state | what happens |
//! |---|---|---|---|
//! | Fenced | Heartbeat, serves and has applied its registration | InService | it leads what nobody else can |
//! | InService | Heartbeat, wants to be fenced | Fenced | its leaders move, every ISR loses it |
//! | InService | Heartbeat, wants to leave | Leaving | its leaders move, every ISR loses it |
//! | InService | Tick, the session is over | Fenced | its leaders move, every ISR loses it |
//! | InService | ConnectionLost, and no word in time | Fenced | its leaders move, every ISR loses it |
//! | InService | Register, another incarnation | Fenced | its leaders move, every ISR loses it |
//! | Leaving | Heartbeat, the others have applied it | Fenced | it may go |
//! | Leaving | Heartbeat, wants to be fenced | Fenced | |
//! | Leaving | Tick, the session is over | Fenced | |
//! | Leaving | ConnectionLost, and no word in time | Fenced | |
//! | Leaving | Register, another incarnation | Fenced | |
//!
//! A fenced broker that wants to leave may go at once.

mod balance;
mod grow;
mod interface;
mod recover;
mod sessions;

#[cfg(test)]
mod harness;
#[cfg(test)]
mod scenario_tests;
#[cfg(test)]
mod table_tests;
#[cfg(test)]
mod walk_tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub use interface::{
    Answer, CommandId, Effect, HEARTBEAT_INTERVAL, Input, Limits, Question, Refused, RequestId, Standing,
    Tail, Timing, Wants,
};

use self::recover::Recovery;
use self::sessions::Session;
use crate::metadata::{Change, ClusterCommand, Image, Record, Registration, Rejected};
use crate::types::{BrokerId, LogId, TopicId};

/// What a command in flight is about. One command at a time is about the same thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Broker(BrokerId),
    Partition(LogId),
    /// The replicas of an internal topic.
    Growth(TopicId),
}

/// A command that was proposed and is not applied.
#[derive(Clone, Copy, Debug)]
struct InFlight {
    subject: Subject,
    /// Who waits for it.
    request: Option<RequestId>,
}

/// The controller of one term.
#[derive(Debug)]
pub struct Controller {
    timing: Timing,
    limits: Limits,
    /// Invariant: exactly the registered brokers, each in its present epoch.
    sessions: BTreeMap<BrokerId, Session>,
    next_command: u64,
    in_flight: BTreeMap<CommandId, InFlight>,
    /// Invariant: exactly the subjects of `in_flight`, each once.
    busy: BTreeSet<Subject>,
    /// Partitions whose uncertain members are asked (contract 5). Invariant: none of them has a leader.
    recoveries: BTreeMap<LogId, Recovery>,
    /// When uncertain members are asked again.
    recover_at: Option<Duration>,
    /// When leaders go back to the first replicas.
    balance_at: Option<Duration>,
    /// What was refused is tried again at this time.
    retry_at: Option<Duration>,
    /// When the controller is woken.
    timer: Option<Duration>,
}

impl Controller {
    /// Begins to control the cluster that `image` shows.
    pub fn start(
        timing: Timing,
        limits: Limits,
        now: Duration,
        image: &Image,
        effects: &mut Vec<Effect>,
    ) -> Controller {
        let mut controller = Controller {
            timing,
            limits,
            sessions: BTreeMap::new(),
            next_command: 0,
            in_flight: BTreeMap::new(),
            busy: BTreeSet::new(),
            recoveries: BTreeMap::new(),
            recover_at: None,
            balance_at: timing.balance.map(|interval| now + interval),
            retry_at: None,
            timer: None,
        };
        for (id, broker) in image.brokers() {
            let leaving_since = broker.shutting_down.then(|| image.applied().unwrap_or(-1));
            let session = Session::unheard(broker.epoch, now + timing.first_session, leaving_since);
            controller.sessions.insert(id, session);
        }
        controller.watch_all(image);
        controller.ask(now, image, effects);
        controller.grow(image, effects);
        controller.set_timer(now, image, effects);
        controller
    }

    /// Takes one input in and appends what must be done to `effects`. `image` is the newest committed one.
    pub fn step(&mut self, now: Duration, image: &Image, input: Input, effects: &mut Vec<Effect>) {
        self.forgive_if_late(now);
        match input {
            Input::Register { request, registration } => {
                self.on_register(now, image, request, registration, effects);
            }
            Input::Heartbeat { request, broker, broker_epoch, applied, wants } => {
                let heard = self.on_heartbeat(now, image, broker, broker_epoch, applied, wants);
                if heard.is_ok() {
                    self.consider(broker, now, image, effects);
                }
                let answer = heard.map(|()| self.standing(broker, now, image)).map_err(Refused::Rejected);
                effects.push(Effect::Answer { request, answer: Answer::Heartbeat(answer) });
            }
            Input::ConnectionLost { broker } => self.on_connection_lost(now, broker),
            Input::ChangePartition { request, command } => {
                self.on_change_partition(image, request, command, effects);
            }
            Input::Tails { broker, broker_epoch, tails } => {
                self.on_tails(now, image, broker, broker_epoch, tails, effects);
            }
            Input::Applied { index, command, outcome } => {
                self.on_applied(now, image, index, command, outcome, effects);
            }
            Input::ProposalRefused { command } => self.on_proposal_refused(now, command, effects),
            Input::Tick => self.on_tick(now, image, effects),
        }
        self.set_timer(now, image, effects);
    }

    /// This node controls no longer: whoever waits has to ask elsewhere.
    pub fn resign(self, effects: &mut Vec<Effect>) {
        for InFlight { subject, request } in self.in_flight.into_values() {
            if let Some(request) = request {
                effects.push(Effect::Answer { request, answer: refusal(subject, Refused::NotController) });
            }
        }
    }

    fn on_register(
        &mut self,
        now: Duration,
        image: &Image,
        request: RequestId,
        registration: Registration,
        effects: &mut Vec<Effect>,
    ) {
        let id = registration.broker;
        let other_folder = image.broker(id).is_some_and(|known| known.folder != registration.folder);
        let refused = if other_folder && self.is_alive(id, now, image) {
            Some(Refused::DuplicateBroker(id))
        } else {
            let record = ClusterCommand::RegisterBroker(registration).into();
            self.propose(image, Subject::Broker(id), Some(request), record, effects).err()
        };
        if let Some(refused) = refused {
            effects.push(Effect::Answer { request, answer: Answer::Registered(Err(refused)) });
        }
    }

    fn on_change_partition(
        &mut self,
        image: &Image,
        request: RequestId,
        command: ClusterCommand,
        effects: &mut Vec<Effect>,
    ) {
        let refused = match check_request(image, &command) {
            Ok(log) => {
                let subject = Subject::Partition(log);
                self.propose(image, subject, Some(request), command.into(), effects).err()
            }
            Err(refused) => Some(refused),
        };
        if let Some(refused) = refused {
            effects.push(Effect::Answer { request, answer: Answer::Partition(Err(refused)) });
        }
    }

    /// Proposes a command unless one about the same thing is in flight.
    fn propose(
        &mut self,
        image: &Image,
        subject: Subject,
        request: Option<RequestId>,
        record: Record,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Refused> {
        image.permits(&record)?;
        if self.busy.contains(&subject) || self.in_flight.len() >= self.limits.in_flight_max {
            return Err(Refused::Busy);
        }
        let command = CommandId(self.next_command);
        self.next_command += 1;
        self.busy.insert(subject);
        self.in_flight.insert(command, InFlight { subject, request });
        effects.push(Effect::Propose { command, record });
        Ok(())
    }

    /// Proposes what the controller wants itself; what cannot be now is tried again.
    fn want(
        &mut self,
        now: Duration,
        image: &Image,
        subject: Subject,
        command: ClusterCommand,
        effects: &mut Vec<Effect>,
    ) {
        if !self.busy.contains(&subject)
            && self.propose(image, subject, None, command.into(), effects) == Err(Refused::Busy)
        {
            self.retry_later(now);
        }
    }

    fn retry_later(&mut self, now: Duration) {
        self.retry_at = self.retry_at.or(Some(now + self.timing.retry));
    }

    fn on_applied(
        &mut self,
        now: Duration,
        image: &Image,
        index: i64,
        command: Option<CommandId>,
        outcome: Result<Change, Rejected>,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(InFlight { subject, request }) =
            command.and_then(|command| self.in_flight.remove(&command))
        {
            self.busy.remove(&subject);
            if let Some(request) = request {
                let answer = match (&outcome, subject) {
                    (Ok(Change::BrokerRegistered { epoch, .. }), _) => Answer::Registered(Ok(*epoch)),
                    (Ok(_), _) => Answer::Partition(Ok(index)),
                    (Err(rejected), subject) => refusal(subject, Refused::Rejected(rejected.clone())),
                };
                effects.push(Effect::Answer { request, answer });
            }
        }
        if let Ok(change) = outcome {
            self.on_change(now, image, index, &change, effects);
        }
    }

    fn on_change(
        &mut self,
        now: Duration,
        image: &Image,
        index: i64,
        change: &Change,
        effects: &mut Vec<Effect>,
    ) {
        match change {
            Change::BrokerRegistered { broker, epoch, partitions } => {
                let session = Session::heard(*epoch, now + self.timing.session);
                self.sessions.insert(*broker, session);
                self.watch(image, partitions);
                self.ask(now, image, effects);
            }
            Change::BrokerFenced { broker, fenced, partitions } => {
                self.watch(image, partitions);
                self.ask(now, image, effects);
                self.consider(*broker, now, image, effects);
                if !fenced {
                    self.grow(image, effects);
                }
            }
            Change::BrokerShuttingDown { broker, partitions } => {
                if let Some(session) = self.sessions.get_mut(broker) {
                    session.leaving_since = Some(index);
                }
                self.watch(image, partitions);
                self.ask(now, image, effects);
            }
            Change::BrokerUnregistered { broker } => {
                self.sessions.remove(broker);
            }
            Change::PartitionChanged { log } => {
                let before = self.recoveries.len();
                self.watch(image, &[*log]);
                if self.recoveries.len() > before {
                    self.ask(now, image, effects);
                }
            }
            Change::TopicCreated { .. } | Change::PartitionsAdded { .. } | Change::ReplicasAdded { .. } => {
                self.grow(image, effects);
            }
            Change::TopicDeleted { .. }
            | Change::TopicConfigChanged { .. }
            | Change::BrokerConfigChanged { .. } => {
                self.unwatch(image);
            }
            Change::Nothing
            | Change::ClusterFormed
            | Change::ProducerIdsAllocated { .. }
            | Change::FeatureLevelChanged { .. } => {}
        }
    }

    fn on_proposal_refused(&mut self, now: Duration, command: CommandId, effects: &mut Vec<Effect>) {
        let Some(InFlight { subject, request }) = self.in_flight.remove(&command) else { return };
        self.busy.remove(&subject);
        match request {
            Some(request) => {
                effects.push(Effect::Answer { request, answer: refusal(subject, Refused::Busy) })
            }
            None => self.retry_later(now),
        }
    }

    fn on_tick(&mut self, now: Duration, image: &Image, effects: &mut Vec<Effect>) {
        self.timer = self.timer.filter(|timer| *timer > now);
        self.retry_at = self.retry_at.filter(|at| *at > now);
        let brokers: Vec<_> = self.sessions.keys().copied().collect();
        for broker in brokers {
            self.consider(broker, now, image, effects);
        }
        if self.recover_at.is_some_and(|at| at <= now) {
            self.recover(now, image, effects);
        }
        self.balance(now, image, effects);
        self.grow(image, effects);
    }

    /// Asks to be woken when the next thing is due. A timer that is early stays as it is.
    fn set_timer(&mut self, now: Duration, image: &Image, effects: &mut Vec<Effect>) {
        let sessions = self.sessions.iter().filter(|(id, _)| {
            let serves = image.broker(**id).is_some_and(|broker| !broker.fenced);
            serves && !self.busy.contains(&Subject::Broker(**id))
        });
        // What was refused just now is tried again then, and not at once.
        let waits = |ends: &Duration| *ends > now || self.retry_at.is_none();
        let ends = sessions.map(|(_, session)| session.ends).filter(waits);
        let Some(due) = ends.chain(self.recover_at).chain(self.balance_at).chain(self.retry_at).min() else {
            return;
        };
        if self.timer.is_none_or(|timer| due < timer) {
            self.timer = Some(due);
            effects.push(Effect::SetTimer(due));
        }
    }

    /// How many commands are proposed and not applied.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// The laws that stand on the fields. Tests and the simulator ask after each step with the image of that step; an
    /// error names what is broken.
    pub fn invariants(&self, image: &Image) -> Result<(), String> {
        let law = |holds: bool, what: &str| if holds { Ok(()) } else { Err(format!("{what}: {self:?}")) };
        let subjects: BTreeSet<_> = self.in_flight.values().map(|flight| flight.subject).collect();
        law(subjects == self.busy, "what is in flight is busy")?;
        law(subjects.len() == self.in_flight.len(), "one command at a time about the same thing")?;
        law(
            self.in_flight.len() <= self.limits.in_flight_max,
            "the number of commands in flight is bounded",
        )?;
        let known = self.sessions.iter().map(|(id, session)| (*id, session.epoch));
        let registered = image.brokers().map(|(id, broker)| (id, broker.epoch));
        law(known.eq(registered), "a session for each registered broker, in its epoch")?;
        let leaderless =
            |log: &LogId| image.partition(*log).is_some_and(|partition| partition.leader.is_none());
        law(self.recoveries.keys().all(leaderless), "only a partition without a leader is recovered")
    }
}

/// Which partition a request is about, if it may be made and fits the image.
fn check_request(image: &Image, command: &ClusterCommand) -> Result<LogId, Refused> {
    match command {
        ClusterCommand::AlterIsr { log, leader, leader_epoch, partition_epoch, isr } => {
            image.check_alter_isr(*log, *leader, *leader_epoch, *partition_epoch, isr)?;
            Ok(*log)
        }
        ClusterCommand::RenewEpoch { log, leader, leader_epoch } => {
            image.check_leader(*log, *leader, *leader_epoch)?;
            Ok(*log)
        }
        ClusterCommand::LeaveIsr { log, .. }
        | ClusterCommand::ElectPreferred { log, .. }
        | ClusterCommand::ElectUnclean { log, .. } => match image.partition(*log) {
            Some(_) => Ok(*log),
            None => Err(Refused::Rejected(Rejected::UnknownPartition(*log))),
        },
        ClusterCommand::RegisterBroker(_)
        | ClusterCommand::Fence { .. }
        | ClusterCommand::Unfence { .. }
        | ClusterCommand::BeginShutdown { .. }
        | ClusterCommand::ElectRecovered { .. }
        | ClusterCommand::AddReplicas { .. } => Err(Refused::NotForRequests),
    }
}

fn refusal(subject: Subject, refused: Refused) -> Answer {
    match subject {
        Subject::Broker(_) => Answer::Registered(Err(refused)),
        Subject::Partition(_) | Subject::Growth(_) => Answer::Partition(Err(refused)),
    }
}
