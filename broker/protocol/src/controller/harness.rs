//! For tests: a controller, the image that its commands make, and brokers that are told what to say.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use uuid::Uuid;

use super::*;
use crate::metadata::{Command, LastStop, NewPartition, town};

pub(super) const TOPIC: TopicId = TopicId(Uuid::from_u128(7));
pub(super) const LOG: LogId = LogId { topic: TOPIC, partition: 0 };

pub(super) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// The quorum's log, the image of everything committed, and the present controller.
pub(super) struct World {
    pub(super) now: Duration,
    pub(super) image: Image,
    pub(super) controller: Controller,
    pub(super) timing: Timing,
    index: i64,
    /// Proposed and not committed.
    pub(super) proposed: VecDeque<(Option<CommandId>, Record)>,
    /// Whether what is proposed is committed at once.
    pub(super) commits: bool,
    pub(super) answers: Vec<(RequestId, Answer)>,
    pub(super) asked: Vec<(BrokerId, i64)>,
    pub(super) timer: Option<Duration>,
    next_request: u64,
    folders: BTreeMap<i32, u128>,
    pub(super) lines: Vec<String>,
}

impl World {
    /// Brokers 1 to `brokers` in service, and a topic with one partition on all of them.
    pub(super) fn new(brokers: i32) -> World {
        let mut world = World::formed(brokers);
        world.create("t", TOPIC, brokers);
        world.lines.clear();
        world
    }

    pub(super) fn formed(brokers: i32) -> World {
        let mut image = Image::empty();
        let form = Command::FormCluster { cluster_id: Uuid::from_u128(9), feature_level: 2 };
        image.apply_record(0, &form.into()).unwrap();
        let mut effects = Vec::new();
        let timing = Timing::default();
        let controller = Controller::start(timing, Limits::default(), ms(0), &image, &mut effects);
        let mut world = World {
            now: ms(0),
            image,
            controller,
            timing,
            index: 0,
            proposed: VecDeque::new(),
            commits: true,
            answers: Vec::new(),
            asked: Vec::new(),
            timer: None,
            next_request: 0,
            folders: BTreeMap::new(),
            lines: Vec::new(),
        };
        world.carry_out(effects);
        for id in 1..=brokers {
            world.register(id, LastStop::Clean);
            world.heartbeat(id, Wants::Serve);
        }
        world.answers.clear();
        world.lines.clear();
        world
    }

    pub(super) fn create(&mut self, name: &str, id: TopicId, replicas: i32) {
        let partitions = vec![NewPartition { replicas: (1..=replicas).map(BrokerId).collect() }];
        let command =
            Command::CreateTopic { name: name.to_owned(), id, partitions, configs: BTreeMap::new() };
        self.proposed.push_back((None, command.into()));
        self.commit_all();
    }

    pub(super) fn step(&mut self, input: Input) {
        let mut effects = Vec::new();
        self.controller.step(self.now, &self.image, input, &mut effects);
        self.controller.invariants(&self.image).expect("the laws hold after each step");
        self.carry_out(effects);
        if self.commits {
            self.commit_all();
        }
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Propose { command, record } => self.proposed.push_back((Some(command), record)),
                Effect::Answer { request, answer } => {
                    self.line(format!("answers {}", describe(&answer)));
                    self.answers.push((request, answer));
                }
                Effect::AskTails { broker, broker_epoch, questions } => {
                    self.line(format!("asks {broker} for {} tails", questions.len()));
                    self.asked.push((broker, broker_epoch));
                }
                Effect::SetTimer(at) => self.timer = Some(at),
            }
        }
    }

    pub(super) fn line(&mut self, what: String) {
        self.lines.push(format!("{:<8} {what}", format!("{} ms", self.now.as_millis())));
    }

    /// Commits the oldest proposal.
    pub(super) fn commit_one(&mut self) -> bool {
        let Some((command, record)) = self.proposed.pop_front() else { return false };
        self.index += 1;
        let outcome = self.image.apply_record(self.index, &record);
        self.image.invariants().expect("the laws hold after each command");
        let what = match &outcome {
            Ok(_) => self.state(),
            Err(rejected) => format!("rejected: {rejected}"),
        };
        self.line(format!("commits {} → {what}", name(&record)));
        let mut effects = Vec::new();
        let applied = Input::Applied { index: self.index, command, outcome };
        self.controller.step(self.now, &self.image, applied, &mut effects);
        self.controller.invariants(&self.image).expect("the laws hold after each step");
        self.carry_out(effects);
        true
    }

    pub(super) fn commit_all(&mut self) {
        while self.commit_one() {}
    }

    /// Another node takes over; what was proposed may still be committed.
    pub(super) fn take_over(&mut self) {
        let mut effects = Vec::new();
        let next = Controller::start(self.timing, Limits::default(), self.now, &self.image, &mut effects);
        let mut last = Vec::new();
        std::mem::replace(&mut self.controller, next).resign(&mut last);
        self.carry_out(last);
        self.timer = None;
        self.proposed.iter_mut().for_each(|(command, _)| *command = None);
        self.line("another controller takes over".to_owned());
        self.carry_out(effects);
    }

    /// Time goes on, and the timer rings when it is due.
    pub(super) fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(at) = self.timer.filter(|at| *at <= until) {
            self.now = at.max(self.now);
            self.timer = None;
            self.step(Input::Tick);
        }
        self.now = until;
    }

    /// Time goes on while these brokers send heartbeats.
    pub(super) fn pass_with(&mut self, time: Duration, brokers: &[i32]) {
        let until = self.now + time;
        while self.now < until {
            brokers.iter().for_each(|id| self.heartbeat(*id, Wants::Serve));
            self.pass(HEARTBEAT_INTERVAL.min(until - self.now));
        }
    }

    pub(super) fn request(&mut self) -> RequestId {
        self.next_request += 1;
        RequestId(self.next_request)
    }

    pub(super) fn registration(&self, id: i32, last_stop: LastStop) -> Registration {
        let folders = self.folders.get(&id).copied().unwrap_or_default();
        town::registration(&self.image, id, folders, last_stop)
    }

    pub(super) fn register(&mut self, id: i32, last_stop: LastStop) {
        let (request, registration) = (self.request(), self.registration(id, last_stop));
        self.step(Input::Register { request, registration });
    }

    /// The broker has another disk from now on.
    pub(super) fn empty_disk(&mut self, id: i32) {
        *self.folders.entry(id).or_default() += 1;
    }

    pub(super) fn epoch(&self, id: i32) -> i64 {
        self.image.broker(BrokerId(id)).map_or(-1, |broker| broker.epoch)
    }

    /// A broker that has applied everything sends a heartbeat.
    pub(super) fn heartbeat(&mut self, id: i32, wants: Wants) {
        self.heartbeat_at(id, wants, self.index);
    }

    pub(super) fn heartbeat_at(&mut self, id: i32, wants: Wants, applied: i64) {
        let (request, broker_epoch) = (self.request(), self.epoch(id));
        let before = self.lines.len();
        self.step(Input::Heartbeat { request, broker: BrokerId(id), broker_epoch, applied, wants });
        // That everything is as it should be is no news.
        let lines = self.lines.split_off(before);
        self.lines
            .extend(lines.into_iter().filter(|line| wants == Wants::Leave || !line.contains("answers it")));
    }

    pub(super) fn lose_connection(&mut self, id: i32) {
        self.line(format!("the connection to {id} breaks"));
        self.step(Input::ConnectionLost { broker: BrokerId(id) });
    }

    pub(super) fn change(&mut self, command: ClusterCommand) -> RequestId {
        let request = self.request();
        self.step(Input::ChangePartition { request, command });
        request
    }

    pub(super) fn alter(&self, isr: &[i32]) -> ClusterCommand {
        let partition = self.image.partition(LOG).unwrap();
        let member =
            |id: i32| crate::metadata::IsrMember { broker: BrokerId(id), broker_epoch: self.epoch(id) };
        ClusterCommand::AlterIsr {
            log: LOG,
            leader: member(partition.leader.map_or(1, |leader| leader.0)),
            leader_epoch: partition.leader_epoch,
            partition_epoch: partition.partition_epoch,
            isr: isr.iter().copied().map(member).collect(),
        }
    }

    pub(super) fn tails(&mut self, id: i32, epoch: i32, end: i64) {
        self.line(format!("{id} has {end} records, the last of epoch {epoch}"));
        let (broker, broker_epoch) = (BrokerId(id), self.epoch(id));
        let leader_epoch = self.image.partition(LOG).unwrap().leader_epoch;
        let question = Question { log: LOG, leader_epoch };
        self.step(Input::Tails { broker, broker_epoch, tails: vec![(question, Tail { epoch, end })] });
    }

    /// The broker's state in the module's table.
    pub(super) fn broker_state(&self, id: i32) -> &'static str {
        match self.image.broker(BrokerId(id)) {
            None => "unknown",
            Some(broker) if broker.fenced => "Fenced",
            Some(broker) if broker.shutting_down => "Leaving",
            Some(_) => "InService",
        }
    }

    pub(super) fn state(&self) -> String {
        let Some(partition) = self.image.partition(LOG) else { return "no partition".to_owned() };
        let list = |ids: &[BrokerId]| ids.iter().map(|id| id.to_string()).collect::<Vec<_>>().join(",");
        let leader = partition.leader.map_or("nobody".to_owned(), |leader| leader.to_string());
        let mut text = format!("{leader} leads {}, isr {}", partition.leader_epoch, list(&partition.isr));
        for (name, ids) in
            [("elr", &partition.elr), ("uncertain", &partition.uncertain), ("adding", &partition.adding)]
        {
            if !ids.is_empty() {
                text += &format!(", {name} {}", list(ids));
            }
        }
        text
    }

    pub(super) fn transcript(&self) -> String {
        self.lines.join("\n")
    }
}

fn describe(answer: &Answer) -> String {
    match answer {
        Answer::Registered(Ok(epoch)) => format!("broker epoch {epoch}"),
        Answer::Heartbeat(Ok(Standing { fenced, may_go, .. })) => {
            format!(
                "it {}{}",
                if *fenced { "is fenced" } else { "serves" },
                if *may_go { ", may go" } else { "" }
            )
        }
        Answer::Partition(Ok(index)) => format!("entry {index}"),
        Answer::Registered(Err(refused))
        | Answer::Heartbeat(Err(refused))
        | Answer::Partition(Err(refused)) => format!("refused: {refused}"),
    }
}

fn name(record: &Record) -> String {
    match record {
        Record::V2(ClusterCommand::RegisterBroker(registration)) => {
            format!("start of {}", registration.broker)
        }
        Record::V2(ClusterCommand::Fence { broker, .. }) => format!("fence {broker}"),
        Record::V2(ClusterCommand::Unfence { broker, .. }) => format!("unfence {broker}"),
        Record::V2(ClusterCommand::BeginShutdown { broker, .. }) => format!("shutdown of {broker}"),
        Record::V2(ClusterCommand::AlterIsr { .. }) => "isr".to_owned(),
        Record::V2(ClusterCommand::ElectRecovered { leader, equals, behind, .. }) => {
            let equals: Vec<_> = equals.iter().map(|member| member.broker).collect();
            format!("recovered {}, as {equals:?}, {behind:?} less", leader.broker)
        }
        Record::V2(ClusterCommand::AddReplicas { .. }) => "more replicas".to_owned(),
        Record::V2(_) => "another change of the partition".to_owned(),
        Record::V1(_) => "a command of the first format".to_owned(),
    }
}
