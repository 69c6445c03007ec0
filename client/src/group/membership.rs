//! A member of a classic group, as a pure state machine: answers and time in, requests and notices out.
//!
//! | state     | waits for                                     | then                                             |
//! |-----------|-----------------------------------------------|--------------------------------------------------|
//! | Unjoined  | a coordinator, its backoff                    | Joining                                          |
//! | Joining   | JoinGroup                                     | Assigning (it leads), Syncing, Unjoined (refused) |
//! | Assigning | the sizes of the group's topics               | Syncing, Unjoined                                |
//! | Syncing   | SyncGroup                                     | Stable, Unjoined (the next rebalance has begun)  |
//! | Stable    | heartbeats that tell of a rebalance           | Joining, Unjoined (it was given up)              |
//! | Idle      | a poll: none came within `max.poll.interval`  | Unjoined                                         |
//! | Ended     | nothing                                       |                                                  |
//!
//! Before a join is sent, the application has taken note of everything that it was told to give back. Until then the member
//! stays in its old generation, heartbeats go on, and commits are accepted.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use weir_runtime::time::Instant;
use weir_wire::consumer_protocol::Assignment;
use weir_wire::kafka::StrBytes;
use weir_wire::kafka::messages::{
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, SyncGroupRequest,
};

use super::Rebalance;
use super::assignor::{Assignor, Counts, Member};
use crate::TopicPartition;
use crate::backoff::Backoff;
use crate::error::Error;

mod answers;
mod requests;

/// How soon a leader looks again for topics that do not exist.
const MISSING_TOPICS_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// What does not change while a member lives.
#[derive(Clone, Debug)]
pub(super) struct MemberConfig {
    pub(super) group: Arc<str>,
    pub(super) instance: Option<Arc<str>>,
    pub(super) assignors: Vec<Assignor>,
    pub(super) session_timeout: Duration,
    pub(super) poll_interval_max: Duration,
    pub(super) heartbeat_interval: Duration,
    /// How often the leader looks whether topics have grown.
    pub(super) topics_check_interval: Duration,
    pub(super) rack: Option<Arc<str>>,
    pub(super) backoff: Backoff,
}

/// What is to be done. Requests that are numbered are answered with the number; an answer with another one is void.
#[derive(Debug)]
pub(super) enum Effect {
    /// Ask who coordinates the group.
    FindCoordinator,
    /// Send, and hand the answer to [`Membership::on_joined`].
    Join(u64, Box<JoinGroupRequest>),
    /// Ask how many partitions these topics have, anew; the answer goes to [`Membership::on_counts`].
    Count(u64, BTreeSet<Arc<str>>),
    /// Send, and hand the answer to [`Membership::on_synced`].
    Sync(u64, Box<SyncGroupRequest>),
    /// Send, and hand the answer to [`Membership::on_heartbeat`].
    Heartbeat(u64, Box<HeartbeatRequest>),
    /// Send; nobody waits for the answer.
    Leave(Box<LeaveGroupRequest>),
    /// Tell the application. What it may no longer use is told before any request that gives it away.
    Tell(Notice),
}

/// What the application is told.
#[derive(Clone, Debug)]
pub(super) enum Notice {
    /// Its partitions change. It takes note of the number by polling again; with `losses` it can commit.
    Rebalance { number: u64, losses: u64, rebalance: Rebalance },
    /// The member ends.
    Failed(Error),
}

/// Who coordinates the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coordinator {
    Unknown,
    Asked,
    Known(i32),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Unjoined,
    Joining,
    /// With everybody's subscriptions.
    Assigning(Vec<Member>),
    Syncing,
    Stable,
    Idle,
    Ended,
}

/// The member.
#[derive(Debug)]
pub(super) struct Membership {
    config: MemberConfig,
    topics: BTreeSet<Arc<str>>,
    state: State,
    coordinator: Coordinator,
    /// Empty until the coordinator has given one.
    member_id: StrBytes,
    /// -1 outside a generation.
    generation: i32,
    assignor: Option<Assignor>,
    /// Partitions in the application's hands. Invariant: empty in Idle and Ended, and with an eager assignor outside of
    /// Stable.
    owned: BTreeSet<TopicPartition>,
    /// What the last assignment gave, and its generation: what is claimed at the next join. It outlives the membership: a
    /// member that was given up claims what it had, and gets it back if nobody else has it by then.
    claim: (BTreeSet<TopicPartition>, i32),
    /// All topics of the group; empty where this member does not lead.
    group_topics: BTreeSet<Arc<str>>,
    /// Their sizes when they were divided.
    divided: Option<Counts>,
    rejoin: bool,
    /// How often it lost what it had. A commit of before is void.
    losses: u64,
    /// Number of the last notice, of the last one that holds up a join, and of the last one that was noted.
    told: u64,
    hold: u64,
    noted: u64,
    ticket: u64,
    counting: bool,
    heartbeat_ticket: Option<u64>,
    attempts: u32,
    /// No join, no search before this.
    not_before: Instant,
    heartbeat_at: Instant,
    check_at: Instant,
    /// When the application must have polled; `None` while it is polling.
    poll_deadline: Option<Instant>,
    effects: Vec<Effect>,
}

/// By what a commit is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) coordinator: Option<i32>,
    pub(super) member_id: StrBytes,
    pub(super) generation: i32,
    pub(super) losses: u64,
}

impl Membership {
    pub(super) fn new(config: MemberConfig, topics: BTreeSet<Arc<str>>, now: Instant) -> Self {
        let mut member = Self {
            config,
            topics,
            state: State::Unjoined,
            coordinator: Coordinator::Unknown,
            member_id: StrBytes::default(),
            generation: -1,
            assignor: None,
            owned: BTreeSet::new(),
            claim: (BTreeSet::new(), -1),
            group_topics: BTreeSet::new(),
            divided: None,
            rejoin: false,
            losses: 0,
            told: 0,
            hold: 0,
            noted: 0,
            ticket: 0,
            counting: false,
            heartbeat_ticket: None,
            attempts: 0,
            not_before: Instant::ORIGIN,
            heartbeat_at: Instant::ORIGIN,
            check_at: Instant::ORIGIN,
            poll_deadline: None,
            effects: Vec::new(),
        };
        member.advance(now);
        member
    }

    /// What is to be done, in this order.
    pub(super) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    pub(super) fn identity(&self) -> Identity {
        Identity {
            coordinator: self.coordinator_id(),
            member_id: self.member_id.clone(),
            generation: self.generation,
            losses: self.losses,
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.state == State::Idle
    }

    pub(super) fn has_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// When [`Membership::on_time`] has something to do next.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let searching = self.needs_coordinator() && self.coordinator == Coordinator::Unknown;
        let known = self.coordinator_id().is_some();
        let stable = self.state == State::Stable;
        let times = [
            self.poll_deadline.filter(|_| self.is_watched()),
            searching.then_some(self.not_before),
            (self.state == State::Unjoined && known && self.may_join()).then_some(self.not_before),
            (stable && known && self.rejoin && self.noted >= self.hold).then_some(self.not_before),
            (stable && known && self.heartbeat_ticket.is_none()).then_some(self.heartbeat_at),
            (stable && !self.group_topics.is_empty() && !self.counting).then_some(self.check_at),
        ];
        times.into_iter().flatten().min()
    }

    /// Time has passed.
    pub(super) fn on_time(&mut self, now: Instant) {
        self.advance(now);
    }

    /// The application polls, or stops: `deadline` is when it must be back. It has noted everything up to `noted`.
    pub(super) fn on_poll(&mut self, deadline: Option<Instant>, noted: u64, now: Instant) {
        self.poll_deadline = deadline;
        self.noted = self.noted.max(noted);
        if self.state == State::Idle && deadline.is_none_or(|deadline| now < deadline) {
            self.state = State::Unjoined;
        }
        self.advance(now);
    }

    /// The application reads other topics from now on.
    pub(super) fn on_subscription(&mut self, topics: BTreeSet<Arc<str>>, now: Instant) {
        if self.topics != topics {
            self.topics = topics;
            self.rejoin = true;
            self.advance(now);
        }
    }

    /// The application ends. A static member only stops: its partitions wait for it until the session is over.
    pub(super) fn on_leave(&mut self) {
        self.leave();
        self.end();
    }

    /// A commit found that this coordinator is none.
    pub(super) fn on_coordinator_refused(&mut self, broker: i32, now: Instant) {
        if self.coordinator == Coordinator::Known(broker) {
            self.coordinator = Coordinator::Unknown;
            self.advance(now);
        }
    }

    /// Does whatever is due.
    fn advance(&mut self, now: Instant) {
        if self.is_watched() && self.poll_deadline.is_some_and(|deadline| now >= deadline) {
            self.on_poll_overdue();
        }
        if self.needs_coordinator() && self.coordinator == Coordinator::Unknown && now >= self.not_before {
            self.coordinator = Coordinator::Asked;
            self.effects.push(Effect::FindCoordinator);
        }
        match self.state {
            State::Unjoined
                if self.may_join() && now >= self.not_before && self.coordinator_id().is_some() =>
            {
                self.join();
            }
            State::Stable => self.advance_stable(now),
            _ => {}
        }
    }

    fn advance_stable(&mut self, now: Instant) {
        if self.rejoin && self.noted >= self.hold {
            self.give_back();
        }
        if self.rejoin && self.noted >= self.hold {
            if self.topics.is_empty() {
                self.leave();
                self.reset(true);
            } else if self.coordinator_id().is_some() && now >= self.not_before {
                return self.join();
            }
        }
        if self.coordinator_id().is_some() && self.heartbeat_ticket.is_none() && now >= self.heartbeat_at {
            self.heartbeat_at = now + self.config.heartbeat_interval;
            self.heartbeat();
        }
        if !self.group_topics.is_empty() && !self.counting && now >= self.check_at {
            self.check_at = now + self.topics_check_wait();
            self.counting = true;
            self.effects.push(Effect::Count(self.ticket, self.group_topics.clone()));
        }
    }

    /// Tells the application to give back what the next generation may give to others: with an eager assignor everything,
    /// else what it does not read any more.
    fn give_back(&mut self) {
        let cooperative = self.is_cooperative();
        let goes = |partition: &TopicPartition| !cooperative || !self.topics.contains(&partition.topic);
        let partitions: BTreeSet<TopicPartition> = self.owned.iter().filter(|p| goes(p)).cloned().collect();
        self.revoke(partitions);
    }

    fn revoke(&mut self, partitions: BTreeSet<TopicPartition>) {
        if partitions.is_empty() {
            return;
        }
        self.owned.retain(|partition| !partitions.contains(partition));
        self.claim.0.retain(|partition| !partitions.contains(partition));
        let partitions = partitions.into_iter().collect();
        self.tell(Rebalance::Revoked { generation: self.generation, partitions });
        self.hold = self.told;
    }

    fn tell(&mut self, rebalance: Rebalance) {
        self.told += 1;
        let (number, losses) = (self.told, self.losses);
        self.effects.push(Effect::Tell(Notice::Rebalance { number, losses, rebalance }));
    }

    /// Takes what the group has given.
    fn take(&mut self, assignment: Bytes, now: Instant) -> Result<(), Error> {
        let assignment = Assignment::decode(assignment)
            .map_err(|error| Error::Invalid(format!("an assignment that cannot be read: {error}")))?;
        let mut given = BTreeSet::new();
        for (topic, partitions) in assignment.partitions {
            // A topic that is not read any more: the next join will say so.
            let Some(topic) = self.topics.get(&*topic) else { continue };
            let named = |partition| TopicPartition { topic: topic.clone(), partition };
            given.extend(partitions.into_iter().map(named));
        }
        let claimed = std::mem::replace(&mut self.claim, (given.clone(), self.generation)).0;
        // Somebody waits for what was claimed and is not given any more.
        self.rejoin |= self.is_cooperative() && !claimed.is_subset(&given);
        let gone: BTreeSet<TopicPartition> = self.owned.difference(&given).cloned().collect();
        let new: Vec<TopicPartition> = given.difference(&self.owned).cloned().collect();
        self.state = State::Stable;
        self.attempts = 0;
        self.heartbeat_at = now + self.config.heartbeat_interval;
        self.check_at = now + self.topics_check_wait();
        self.revoke(gone);
        self.owned = given;
        self.tell(Rebalance::Assigned { generation: self.generation, partitions: new });
        Ok(())
    }

    /// The group goes on without this member: what it had may be somebody else's.
    fn reset(&mut self, forget_id: bool) {
        if forget_id {
            self.member_id = StrBytes::default();
        }
        self.generation = -1;
        self.losses += 1;
        self.state = State::Unjoined;
        self.rejoin = false;
        self.forget_answers();
        let owned: Vec<TopicPartition> = std::mem::take(&mut self.owned).into_iter().collect();
        if !owned.is_empty() {
            self.tell(Rebalance::Lost { partitions: owned });
        }
    }

    fn forget_answers(&mut self) {
        self.ticket += 1;
        self.counting = false;
        self.heartbeat_ticket = None;
        self.divided = None;
        self.group_topics = BTreeSet::new();
    }

    /// Nobody has polled for too long: the partitions go to members that are read.
    fn on_poll_overdue(&mut self) {
        tracing::warn!(group = %self.config.group, limit = ?self.config.poll_interval_max, "not polled in time: leaving the group");
        self.leave();
        self.reset(true);
        self.state = State::Idle;
    }

    fn fail(&mut self, error: Error) {
        self.end();
        self.effects.push(Effect::Tell(Notice::Failed(error)));
    }

    fn end(&mut self) {
        self.reset(true);
        self.state = State::Ended;
    }

    fn back_off(&mut self, now: Instant) {
        self.attempts += 1;
        self.not_before = now + self.config.backoff.before(self.attempts);
    }

    fn coordinator_id(&self) -> Option<i32> {
        match self.coordinator {
            Coordinator::Known(broker) => Some(broker),
            Coordinator::Unknown | Coordinator::Asked => None,
        }
    }

    fn needs_coordinator(&self) -> bool {
        match self.state {
            State::Unjoined => self.may_join(),
            State::Stable => true,
            _ => false,
        }
    }

    fn may_join(&self) -> bool {
        !self.topics.is_empty() && self.noted >= self.hold
    }

    /// Whether the application must poll.
    fn is_watched(&self) -> bool {
        !matches!(self.state, State::Idle | State::Ended) && !self.topics.is_empty()
    }

    /// Members keep their partitions through a rebalance only where every assignor of theirs does.
    fn is_cooperative(&self) -> bool {
        self.config.assignors.iter().all(|assignor| assignor.is_cooperative())
    }

    /// How long until the leader looks at the topics again: not long where some do not exist yet.
    fn topics_check_wait(&self) -> Duration {
        let known = |topic| self.divided.as_ref().is_some_and(|divided| divided.contains_key(topic));
        let interval = self.config.topics_check_interval;
        if self.group_topics.iter().all(known) {
            interval
        } else {
            interval.min(MISSING_TOPICS_CHECK_INTERVAL)
        }
    }

    /// What must always hold.
    #[cfg(test)]
    pub(super) fn invariants(&self) {
        if matches!(self.state, State::Idle | State::Ended) {
            assert!(self.owned.is_empty(), "{self:?}");
        }
        if !self.is_cooperative() && self.state != State::Stable {
            assert!(self.owned.is_empty(), "an eager member joins with empty hands: {self:?}");
        }
        assert!(self.noted <= self.told && self.hold <= self.told);
        assert!(self.owned.is_empty() || self.generation >= 0);
        assert!(self.owned.iter().all(|partition| self.claim.0.contains(partition)), "{self:?}");
    }

    #[cfg(test)]
    pub(super) fn owned(&self) -> &BTreeSet<TopicPartition> {
        &self.owned
    }
}

/// What a join was answered with, where it was not refused.
type Joined = (Arc<str>, JoinGroupResponse);

#[cfg(test)]
#[path = "membership_tests.rs"]
mod tests;
