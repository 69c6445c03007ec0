//! Consumer groups: members that come, go, crash and come back, and what their group has committed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::history::{self, Done, Failure, Op, Pending, ProcessId, SeekTo};
use weir_client::{
    Admin, Assignor, Client, CommitTicket, CommittedOffset, ConsumerConfig, Error, GroupConfig,
    GroupConsumer, OffsetSpec, PartitionFailure, Rebalance, Start, TopicPartition,
};
use weir_runtime::time::{self, Instant};
use weir_runtime::{random, simulation, watch};

use super::plan;
use super::{Shared, connect, consuming, log_of};

/// Counted with each commit of a generation that is over.
pub const LATE_COMMIT: &str = "commit of a generation that is over";
/// How long one poll waits.
const POLL: Duration = Duration::from_millis(100);
/// How long a group may take to read everything once all faults are over.
const DRAIN_MAX: Duration = Duration::from_secs(45);
/// How often it is asked what a group has committed.
const WATCH_EVERY: Duration = Duration::from_millis(300);

/// A group of the plan.
#[derive(Clone)]
pub(super) struct GroupRun {
    shared: Shared,
    plan: plan::Group,
    topics: Vec<Arc<str>>,
    /// Turns true when the group has read everything, or is given up.
    drained: watch::Receiver<bool>,
    drained_to: Arc<watch::Sender<bool>>,
}

/// One member's machine.
#[derive(Clone)]
pub(super) struct Member {
    group: GroupRun,
    number: u32,
    /// Counts the lives so far.
    lives: Arc<AtomicU64>,
    /// Lives that have not ended: two of them share one name.
    alive: Arc<AtomicU64>,
}

impl GroupRun {
    pub(super) fn new(plan: &plan::Group, topics: &[plan::Topic], shared: &Shared) -> GroupRun {
        let (drained_to, drained) = watch::channel(false);
        GroupRun {
            shared: shared.clone(),
            plan: plan.clone(),
            topics: topics.iter().map(|topic| Arc::from(topic.name.as_str())).collect(),
            drained,
            drained_to: Arc::new(drained_to),
        }
    }

    pub(super) fn member(&self, number: u32) -> Member {
        Member { group: self.clone(), number, lives: Arc::default(), alive: Arc::default() }
    }

    fn name(&self) -> Arc<str> {
        Arc::from(self.plan.name.as_str())
    }

    /// A static member that restarts between the two steps of a cooperative rebalance takes up its old assignment, and the
    /// second step, in which others get what it has given up, never comes (KIP-345 with KIP-429, in Kafka as well).
    fn must_drain(&self) -> bool {
        !(self.plan.is_static && self.plan.assignor == "cooperative-sticky")
    }

    fn is_drained(&self) -> bool {
        *self.drained.borrow()
    }

    /// Asks what the group has committed, all the time; after the load until that is everything.
    pub(super) async fn watch(self, partitions: Vec<TopicPartition>) {
        let process = self.shared.new_process();
        let client = connect(self.shared.bootstrap.clone(), format!("watcher-{}", self.plan.name)).await;
        let admin = Admin::new(&client);
        let mut give_up_at: Option<Instant> = None;
        loop {
            let committed = self.committed(&admin, process, &partitions).await;
            if self.shared.stopped() {
                let give_up_at = *give_up_at.get_or_insert_with(|| time::now() + DRAIN_MAX);
                if !self.must_drain() || self.has_all(&admin, &partitions, committed.as_ref()).await {
                    break;
                }
                if time::now() >= give_up_at {
                    let name = &self.plan.name;
                    self.shared.complain(format!("{name} has not read everything {DRAIN_MAX:?} after the last fault: it has committed {committed:?}"));
                    break;
                }
            }
            time::sleep(WATCH_EVERY).await;
        }
        self.drained_to.send_replace(true);
    }

    async fn committed(
        &self,
        admin: &Admin,
        process: ProcessId,
        partitions: &[TopicPartition],
    ) -> Option<BTreeMap<TopicPartition, i64>> {
        let asked: Vec<(&TopicPartition, Pending)> = partitions
            .iter()
            .map(|partition| {
                let op = Op::FetchOffset { group: self.name(), log: log_of(partition) };
                (partition, self.shared.recorder.invoke(process, Shared::now_ns(), op))
            })
            .collect();
        let answer = admin.list_group_offsets(&self.plan.name, None).await;
        let now = Shared::now_ns();
        match answer {
            Ok(found) => {
                let mut committed = BTreeMap::new();
                for (partition, pending) in asked {
                    let offset = found.get(partition).map(|committed| committed.offset);
                    committed.extend(offset.map(|offset| (partition.clone(), offset)));
                    pending.ok(now, Done::Offset { offset });
                }
                Some(committed)
            }
            Err(error) => {
                for (_, pending) in asked {
                    pending.fail(now, Failure::Error(error.to_string()));
                }
                None
            }
        }
    }

    async fn has_all(
        &self,
        admin: &Admin,
        partitions: &[TopicPartition],
        committed: Option<&BTreeMap<TopicPartition, i64>>,
    ) -> bool {
        let Some(committed) = committed else { return false };
        let asked: Vec<_> =
            partitions.iter().map(|partition| (partition.clone(), OffsetSpec::Latest)).collect();
        let ends = admin.list_offsets(&asked).await;
        partitions.iter().zip(ends).all(|(partition, end)| match end {
            Ok(Some(end)) => end.offset == 0 || committed.get(partition).is_some_and(|at| *at >= end.offset),
            _ => false,
        })
    }
}

/// How a life ended.
enum End {
    /// It left, or crashed: the next life may begin.
    Over,
    /// The group has read everything.
    Drained,
}

impl Member {
    /// One life after the other, until the group has read everything.
    pub(super) async fn run(self) {
        while !self.group.is_drained() {
            let is_twin_due =
                self.group.plan.is_static && !self.group.shared.stopped() && random::below(6) == 0;
            if is_twin_due {
                // Two clients with one identity: the older one is to be fenced.
                let (older, younger) = (self.life(), self.late_life());
                let _ = tokio::join!(older, younger);
            } else if let End::Drained = self.life().await {
                return;
            }
            // Long enough for what the last life has sent to arrive before.
            let pause = Duration::from_millis(20 + random::below(800));
            drop(time::timeout(pause, self.group.drained.clone().wait_for(|drained| *drained)).await);
        }
    }

    /// Joins now and then and vanishes soon, as a process does that is killed while it starts. It has no name for good.
    pub(super) async fn visit(self) {
        let shared = self.group.shared.clone();
        let client = connect(shared.bootstrap.clone(), format!("visitor-{}", self.group.plan.name)).await;
        while !shared.stopped() {
            time::sleep(Duration::from_millis(random::below(2_000))).await;
            let Some(mut life) = Life::begin(&self, &client, None) else { return };
            let ends_at = time::now() + Duration::from_millis(1 + random::below(600));
            while time::now() < ends_at && life.step().await.is_ok() {}
            life.crash();
        }
    }

    async fn late_life(&self) -> End {
        time::sleep(Duration::from_millis(random::below(1_500))).await;
        self.life().await
    }

    async fn life(&self) -> End {
        let number = self.lives.fetch_add(1, Ordering::Relaxed) + 1;
        let is_alone = self.alive.fetch_add(1, Ordering::Relaxed) == 0;
        let end = self.live(number, is_alone).await;
        self.alive.fetch_sub(1, Ordering::Relaxed);
        end
    }

    /// `is_alone`: nobody else has the name when the life begins.
    async fn live(&self, number: u64, is_alone: bool) -> End {
        let shared = &self.group.shared;
        let name = format!("{}-{}-{number}", self.group.plan.name, self.number);
        let client = connect(shared.bootstrap.clone(), name).await;
        let instance = self.group.plan.is_static.then(|| format!("{}-{}", self.group.plan.name, self.number));
        let Some(mut life) = Life::begin(self, &client, instance) else { return End::Over };
        life.number = is_alone.then_some(number);
        let ends_at = time::now() + Duration::from_millis(1 + random::below(2 * self.group.plan.life_ms));
        loop {
            if self.group.is_drained() {
                life.leave().await;
                return End::Drained;
            }
            if time::now() >= ends_at && !shared.stopped() {
                match random::below(2) {
                    0 => life.leave().await,
                    _ => life.crash(),
                }
                return End::Over;
            }
            if life.step().await.is_err() {
                life.crash();
                return End::Over;
            }
        }
    }
}

/// A member from its first request to its last.
struct Life<'a> {
    member: &'a Member,
    /// Its number, if nobody else had its name when it began.
    number: Option<u64>,
    process: ProcessId,
    consumer: GroupConsumer,
    owned: BTreeSet<TopicPartition>,
    joining: Option<Pending>,
    commit_at: Instant,
    /// A commit that is to arrive late.
    zombie: Option<(Instant, CommitTicket, BTreeMap<TopicPartition, CommittedOffset>)>,
}

impl<'a> Life<'a> {
    fn begin(member: &'a Member, client: &Client, instance: Option<String>) -> Option<Life<'a>> {
        let GroupRun { shared, plan, topics, .. } = &member.group;
        let process = shared.new_process();
        let op = Op::Subscribe {
            group: member.group.name(),
            instance: instance.as_deref().map(Arc::from),
            topics: topics.clone(),
        };
        let subscribed = shared.recorder.invoke(process, Shared::now_ns(), op);
        let config = GroupConfig {
            instance,
            assignors: vec![Assignor::by_name(&plan.assignor)?],
            session_timeout: Duration::from_millis(plan.session_timeout_ms),
            poll_interval_max: Duration::from_millis(plan.poll_interval_max_ms),
            heartbeat_interval: Duration::from_millis(plan.session_timeout_ms / 4),
            start: Some(Start::Beginning),
            auto_commit: None,
            consumer: ConsumerConfig {
                fetch_wait_max: Duration::from_millis(100),
                fetch_bytes_max: 64 << 10,
                partition_bytes_max: 16 << 10,
                ..ConsumerConfig::default()
            },
            ..GroupConfig::new(plan.name.clone())
        };
        let consumer = GroupConsumer::new(client, config, topics.iter().cloned()).ok()?;
        subscribed.ok(Shared::now_ns(), Done::Done);
        let mut life = Life {
            member,
            number: None,
            process,
            consumer,
            owned: BTreeSet::new(),
            joining: None,
            commit_at: time::now(),
            zombie: None,
        };
        life.begin_join();
        Some(life)
    }

    fn shared(&self) -> &'a Shared {
        &self.member.group.shared
    }

    fn invoke(&self, op: Op) -> Pending {
        self.shared().recorder.invoke(self.process, Shared::now_ns(), op)
    }

    fn begin_join(&mut self) {
        if self.joining.is_none() {
            self.joining = Some(self.invoke(Op::Join { group: self.member.group.name() }));
        }
    }

    /// One poll, and what is due besides. An error ends the life.
    async fn step(&mut self) -> Result<(), Error> {
        let polled = match self.consumer.poll(POLL).await {
            Ok(polled) => polled,
            Err(error) => {
                self.on_end(&error);
                return Err(error);
            }
        };
        for rebalance in polled.rebalances {
            self.on_rebalance(rebalance);
        }
        for part in polled.polled.partitions {
            let pending = self.invoke(Op::Poll { log: log_of(&part.partition), from: Some(part.from) });
            let records = part.records.iter().map(consuming::seen).collect();
            pending.ok(Shared::now_ns(), Done::Polled { records });
        }
        for failure in polled.polled.failures {
            let op = Op::Poll { log: log_of(&failure.partition), from: Some(failure.offset) };
            self.invoke(op).fail(Shared::now_ns(), consuming::reason(&failure));
            self.seek_past(&failure);
        }
        if time::now() >= self.commit_at {
            let pause = random::below(2 * self.member.group.plan.commit_every_ms + 1);
            self.commit_at = time::now() + Duration::from_millis(pause);
            self.commit().await;
        }
        self.haunt().await;
        if random::below(200) == 0 && !self.shared().stopped() {
            // The application is busy, maybe for longer than the group waits for it.
            let pause = random::below(2 * self.member.group.plan.poll_interval_max_ms);
            time::sleep(Duration::from_millis(pause)).await;
        }
        Ok(())
    }

    /// A member may be fenced only when somebody has taken over its name.
    fn on_end(&mut self, error: &Error) {
        let is_newest = self.number == Some(self.member.lives.load(Ordering::Relaxed));
        let is_fenced = error.to_string().contains("FENCED_INSTANCE_ID");
        simulation::trace("member ends", || error.to_string());
        if is_fenced && is_newest && !self.shared().requests_may_be_late {
            let Member { group, number, .. } = self.member;
            self.shared().complain(format!(
                "member {number} of {} was fenced, and nobody has taken over its name",
                group.plan.name
            ));
        }
    }

    fn on_rebalance(&mut self, rebalance: Rebalance) {
        match rebalance {
            Rebalance::Assigned { generation, partitions } => {
                let kept: Vec<_> = self.owned.iter().map(log_of).collect();
                self.owned.extend(partitions);
                let assigned = self.owned.iter().map(log_of).collect();
                self.begin_join();
                let Some(joining) = self.joining.take() else { return };
                let now = Shared::now_ns();
                match self.consumer.generation() {
                    Some((_, id)) => {
                        let member = history::Member { id: Arc::from(id), generation };
                        joining.ok(now, Done::Joined { member, assigned, kept });
                    }
                    None => joining.unknown(now, Failure::Error("lost again".to_owned())),
                }
            }
            Rebalance::Revoked { partitions, .. } => self.release(partitions, false),
            Rebalance::Lost { partitions } => self.release(partitions, true),
        }
    }

    fn release(&mut self, partitions: Vec<TopicPartition>, lost: bool) {
        self.owned.retain(|partition| !partitions.contains(partition));
        let logs = partitions.iter().map(log_of).collect();
        let op = Op::Release { group: self.member.group.name(), logs, lost };
        self.shared().recorder.note(self.process, Shared::now_ns(), op);
        self.begin_join();
    }

    fn seek_past(&mut self, failure: &PartitionFailure) {
        let (to, recorded) = match &failure.error {
            Error::Corrupt { offset, .. } => (Start::Offset(offset + 1), SeekTo::Offset(offset + 1)),
            _ => (Start::Beginning, SeekTo::Beginning),
        };
        let pending = self.invoke(Op::Seek { log: log_of(&failure.partition), to: recorded });
        match self.consumer.seek(&failure.partition, to) {
            Ok(()) => pending.ok(Shared::now_ns(), Done::Done),
            Err(error) => pending.fail(Shared::now_ns(), Failure::Error(error.to_string())),
        }
    }

    /// Commits where it stands, with one request.
    async fn commit(&mut self) {
        let position = |partition: &TopicPartition| {
            let at = self.consumer.position(partition)?;
            Some((partition.clone(), CommittedOffset::at(at)))
        };
        let offsets: BTreeMap<_, _> = self.owned.iter().filter_map(position).collect();
        let Some(ticket) = self.consumer.ticket().filter(|_| !offsets.is_empty()) else { return };
        if self.member.group.plan.zombies && self.zombie.is_none() && random::below(4) == 0 {
            let at = time::now() + Duration::from_millis(random::below(3_000));
            self.zombie = Some((at, ticket.clone(), offsets.clone()));
        }
        self.commit_with(&ticket, &offsets).await;
    }

    /// Sends a commit of a generation that is over, if it is.
    async fn haunt(&mut self) {
        let Some((_, ticket, offsets)) = self.zombie.take_if(|(at, ..)| time::now() >= *at) else { return };
        let is_over = self.consumer.ticket().is_some_and(|now| now.generation() > ticket.generation());
        if is_over {
            simulation::situation(LATE_COMMIT);
            self.commit_with(&ticket, &offsets).await;
        }
    }

    async fn commit_with(
        &mut self,
        ticket: &CommitTicket,
        offsets: &BTreeMap<TopicPartition, CommittedOffset>,
    ) {
        let member = history::Member { id: Arc::from(ticket.member_id()), generation: ticket.generation() };
        let begun: Vec<Pending> = offsets
            .iter()
            .map(|(partition, committed)| {
                self.invoke(Op::Commit {
                    group: self.member.group.name(),
                    log: log_of(partition),
                    offset: committed.offset,
                    member: Some(member.clone()),
                })
            })
            .collect();
        let outcome = ticket.commit(offsets).await;
        let now = Shared::now_ns();
        for pending in begun {
            match &outcome {
                Ok(()) => pending.ok(now, Done::Done),
                Err(error) if error.may_have_happened() => {
                    pending.unknown(now, Failure::Error(error.to_string()));
                }
                Err(error) => pending.fail(now, Failure::Error(error.to_string())),
            }
        }
    }

    fn end_join(&mut self) {
        if let Some(joining) = self.joining.take() {
            joining.unknown(Shared::now_ns(), Failure::Error("the member ends".to_owned()));
        }
    }

    async fn leave(mut self) {
        self.end_join();
        let pending = self.invoke(Op::Leave { group: self.member.group.name() });
        match self.consumer.close().await {
            Ok(()) => pending.ok(Shared::now_ns(), Done::Done),
            Err(error) => pending.unknown(Shared::now_ns(), Failure::Error(error.to_string())),
        }
    }

    fn crash(mut self) {
        self.end_join();
        self.shared().recorder.note(self.process, Shared::now_ns(), Op::Crash);
        self.consumer.vanish();
    }
}
