//! Consuming as a member of a group: the members divide the partitions of their topics among themselves (the classic
//! protocol, with static members after KIP-345 and cooperative rebalances after KIP-429).
//!
//! A task of its own keeps the membership alive ([`membership`] decides, [`driver`] carries out); everything that the
//! application sees changes inside of [`GroupConsumer::poll`] only.

mod assignor;
pub(crate) mod commit;
mod config;
pub(crate) mod coordinator;
mod driver;
mod events;
mod membership;
mod sticky;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use weir_runtime::task;
use weir_runtime::time::{self, Instant};

pub use assignor::Assignor;
pub use commit::{CommitTicket, CommittedOffset};
pub use config::GroupConfig;

use crate::TopicPartition;
use crate::cluster::Client;
use crate::consumer::{Consumer, IsolationLevel, Polled, Start};
use crate::error::Error;
use crate::in_flight::InFlight;
use commit::Committer;
use driver::{Driver, Ending, Shared};
use events::Event;
use membership::{MemberConfig, Membership, Notice};

/// A change of what a member reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rebalance {
    /// A rebalance is over, and these partitions are new to this member; maybe none are.
    Assigned {
        /// The group's generation.
        generation: i32,
        /// In order.
        partitions: Vec<TopicPartition>,
    },
    /// These partitions go to others. Until the next poll they can be committed.
    Revoked {
        /// The generation that ends for them.
        generation: i32,
        /// In order.
        partitions: Vec<TopicPartition>,
    },
    /// The group has given this member up: others may read these partitions already, and commits are refused.
    Lost {
        /// In order.
        partitions: Vec<TopicPartition>,
    },
}

/// What a poll of a group's member gives. Changes come before records, and never in one answer with them.
#[derive(Clone, Debug, Default)]
pub struct GroupPolled {
    /// What changed, in order.
    pub rebalances: Vec<Rebalance>,
    /// Records, and what is wrong with partitions.
    pub polled: Polled,
}

impl GroupPolled {
    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.rebalances.is_empty() && self.polled.is_empty()
    }
}

/// A member of a group.
pub struct GroupConsumer {
    config: GroupConfig,
    consumer: Consumer,
    committer: Committer,
    notices: mpsc::UnboundedReceiver<Notice>,
    /// Arrived, not told.
    waiting: VecDeque<(u64, Rebalance)>,
    /// Told in the last answer: the next poll says that they were noted.
    told: u64,
    failed: Option<Error>,
    /// Partitions that were revoked since the last poll began, with their positions: they may still be committed.
    revoked: BTreeMap<TopicPartition, Option<CommittedOffset>>,
    /// Assigned, waiting for their committed offsets.
    unlocated: BTreeSet<TopicPartition>,
    locating: bool,
    /// How often the group has given this member up, as far as it was noticed.
    losses: u64,
    /// How many notices have arrived: what was asked before the last one is void.
    arrived: u64,
    in_flight: InFlight<'static, Event>,
    /// A commit is under way. One at a time, or an older one that is repeated would undo a newer one.
    committing: bool,
    /// Another one must end before the rebalance that waits is told.
    commit_again: bool,
    commit_at: Instant,
    ended: bool,
}

impl GroupConsumer {
    /// Joins a group to read these topics. The member takes part from now on, polled or not.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a configuration that makes no sense.
    pub fn new<T: Into<Arc<str>>>(
        client: &Client,
        config: GroupConfig,
        topics: impl IntoIterator<Item = T>,
    ) -> Result<Self, Error> {
        config.check()?;
        let topics = topics.into_iter().map(Into::into).collect();
        let (group, instance) = (Arc::from(config.group.as_str()), config.instance.as_deref().map(Arc::from));
        let member_config = MemberConfig {
            group: Arc::clone(&group),
            instance: instance.clone(),
            assignors: config.assignors.clone(),
            session_timeout: config.session_timeout,
            poll_interval_max: config.poll_interval_max,
            heartbeat_interval: config.heartbeat_interval,
            topics_check_interval: client.config().metadata_age_max,
            rack: config.rack.as_deref().map(Arc::from),
            backoff: client.backoff(),
        };
        let member = Membership::new(member_config.clone(), topics, time::now());
        let shared = Arc::new(Shared::new(member.identity()));
        // Bounded by the rebalances of one member that nobody has taken note of: two.
        let (tell, notices) = mpsc::unbounded_channel();
        let lane = client.lane();
        let driver = Driver::new(client, lane.clone(), member_config, member, shared.clone(), tell);
        task::spawn("group member", driver.run());
        let consumer = Consumer::new(client, config.consumer.clone());
        let commit_at = time::now() + config.auto_commit.unwrap_or_default();
        Ok(Self {
            config,
            consumer,
            committer: Committer { client: client.clone(), lane, group, instance, shared },
            notices,
            waiting: VecDeque::new(),
            told: 0,
            failed: None,
            revoked: BTreeMap::new(),
            unlocated: BTreeSet::new(),
            locating: false,
            losses: 0,
            arrived: 0,
            in_flight: InFlight::new(),
            committing: false,
            commit_again: false,
            commit_at,
            ended: false,
        })
    }

    /// Reads these topics from the next rebalance on, which begins now.
    pub fn subscribe<T: Into<Arc<str>>>(&mut self, topics: impl IntoIterator<Item = T>) {
        self.committer.shared.lock().topics = Some(topics.into_iter().map(Into::into).collect());
        self.committer.shared.wake.notify_one();
    }

    /// The partitions that are read.
    pub fn assignment(&self) -> impl Iterator<Item = &TopicPartition> {
        self.consumer.assignment().chain(&self.unlocated)
    }

    /// The offset that is read next in a partition; `None` while it is not known, or not assigned.
    pub fn position(&self, partition: &TopicPartition) -> Option<i64> {
        self.consumer.position(partition)
    }

    /// Goes to another place in a partition.
    ///
    /// # Errors
    /// [`Error::NotOwned`] where the partition is not assigned.
    pub fn seek(&mut self, partition: &TopicPartition, to: Start) -> Result<(), Error> {
        if self.unlocated.remove(partition) {
            self.consumer.add([(partition.clone(), to)]);
            return Ok(());
        }
        self.consumer.seek(partition, to).map_err(|_| Error::NotOwned { partition: partition.clone() })
    }

    /// The group's generation and this member's id, once it is in one.
    pub fn generation(&self) -> Option<(i32, String)> {
        let shared = self.committer.shared.lock();
        let identity = &shared.identity;
        (identity.generation >= 0).then(|| (identity.generation, identity.member_id.to_string()))
    }

    /// What has changed, or else the next records; waits for either for at most `wait_max`. Calling it says that whatever
    /// earlier answers told was acted upon: records are processed, and partitions that were revoked are let go.
    ///
    /// Nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// What ends the membership for good, such as FENCED_INSTANCE_ID or GROUP_AUTHORIZATION_FAILED, or
    /// INCONSISTENT_GROUP_PROTOCOL where no assignor is common to the members. It is the answer to every poll from then on.
    pub async fn poll(&mut self, wait_max: Duration) -> Result<GroupPolled, Error> {
        let _polling = Polling::begin(&self.committer.shared, self.told);
        self.revoked.clear();
        let deadline = time::now() + wait_max;
        loop {
            while let Ok(notice) = self.notices.try_recv() {
                self.on_notice(notice);
            }
            self.commit_what_is_due();
            if let Some(rebalances) = self.tell() {
                return Ok(GroupPolled { rebalances, polled: Polled::default() });
            }
            if let Some(error) = self.failed.as_ref().filter(|_| self.waiting.is_empty()) {
                return Err(error.clone());
            }
            self.locate();
            let left = deadline - time::now();
            weir_runtime::select! {
                notice = self.notices.recv(), if !self.ended => match notice {
                    Some(notice) => self.on_notice(notice),
                    None => self.ended = true,
                },
                event = self.in_flight.next() => self.on_event(event),
                polled = self.consumer.poll(left) => {
                    if !polled.is_empty() || time::now() >= deadline {
                        return Ok(GroupPolled { rebalances: Vec::new(), polled });
                    }
                }
            }
        }
    }

    /// Commits the position behind everything that was handed out, for each partition that is read or was revoked by the
    /// last poll. Errors that pass are sat out, a rebalance too.
    ///
    /// # Errors
    /// [`Error::NotOwned`] where the group has given this member up, or what the coordinator says.
    pub async fn commit(&mut self) -> Result<(), Error> {
        let positions = self.positions();
        self.commit_offsets(positions).await
    }

    /// Commits these offsets, for partitions that are read or were revoked by the last poll.
    ///
    /// # Errors
    /// [`Error::NotOwned`] for another partition, or where the group has given this member up; else what the coordinator
    /// says, such as OFFSET_METADATA_TOO_LARGE.
    pub async fn commit_offsets(
        &mut self,
        offsets: BTreeMap<TopicPartition, CommittedOffset>,
    ) -> Result<(), Error> {
        if let Some(foreign) = offsets.keys().find(|partition| !self.may_commit(partition)) {
            return Err(Error::NotOwned { partition: foreign.clone() });
        }
        if offsets.is_empty() {
            return Ok(());
        }
        self.finish_commits().await;
        let deadline = self.committer.client.deadline();
        self.committer.commit(offsets, self.losses, deadline).await
    }

    /// Waits for a commit that a poll has begun.
    async fn finish_commits(&mut self) {
        while self.committing {
            let event = self.in_flight.next().await;
            self.on_event(event);
        }
    }

    /// The right to commit as what this member is now: for applications that repeat a commit, or leave it, as they like.
    /// `None` while it is in no generation.
    pub fn ticket(&self) -> Option<CommitTicket> {
        CommitTicket::new(&self.committer)
    }

    /// What the group has committed for these partitions; partitions without a commit are missing.
    ///
    /// # Errors
    /// What the coordinator says, once the operation's time has passed.
    pub async fn committed(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, CommittedOffset>, Error> {
        let deadline = self.committer.client.deadline();
        self.committer.committed(partitions.to_vec(), self.require_stable(), deadline).await
    }

    /// Ends: commits, where that is automatic, and leaves the group. A static member leaves nothing: whoever comes back
    /// under its name within the session goes on with its partitions.
    ///
    /// # Errors
    /// That of the last commit. The member has left all the same.
    pub async fn close(mut self) -> Result<(), Error> {
        let committed = if self.config.auto_commit.is_some() && self.failed.is_none() {
            self.finish_commits().await;
            self.revoked.clear();
            let (positions, limit) = (self.positions(), self.committer.client.config().request_timeout);
            let commit = self.committer.commit(positions, self.losses, time::now() + limit);
            commit.await
        } else {
            Ok(())
        };
        let (left, told) = oneshot::channel();
        self.committer.shared.end(Ending::Leave(Some(left)));
        // The task may have ended before, with the error that every poll tells.
        let _ = told.await;
        committed
    }

    /// Ends as a crash would: without a commit and without leaving the group.
    pub fn vanish(self) {
        self.committer.shared.end(Ending::Vanish);
    }

    fn may_commit(&self, partition: &TopicPartition) -> bool {
        self.consumer.is_assigned(partition)
            || self.unlocated.contains(partition)
            || self.revoked.contains_key(partition)
    }

    fn require_stable(&self) -> bool {
        self.config.consumer.isolation == IsolationLevel::ReadCommitted
    }

    /// Behind what was handed out.
    fn positions(&self) -> BTreeMap<TopicPartition, CommittedOffset> {
        let read = self.consumer.assignment().map(|partition| (partition, self.place(partition)));
        let revoked = self.revoked.iter().map(|(partition, place)| (partition, place.clone()));
        read.chain(revoked).filter_map(|(partition, place)| Some((partition.clone(), place?))).collect()
    }

    fn place(&self, partition: &TopicPartition) -> Option<CommittedOffset> {
        let (offset, leader_epoch) = self.consumer.position_and_epoch(partition)?;
        Some(CommittedOffset { offset, leader_epoch, metadata: String::new() })
    }
}

impl Drop for GroupConsumer {
    fn drop(&mut self) {
        self.committer.shared.end(Ending::Leave(None));
    }
}

/// The time inside of a poll, during which no other has to come.
struct Polling(Arc<Shared>);

impl Polling {
    fn begin(shared: &Arc<Shared>, noted: u64) -> Self {
        let wake = {
            let mut state = shared.lock();
            let wake = state.idle || state.noted != noted;
            (state.polling, state.noted) = (true, noted);
            wake
        };
        if wake {
            shared.wake.notify_one();
        }
        Self(Arc::clone(shared))
    }
}

impl Drop for Polling {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        (state.polling, state.polled_at) = (false, time::now());
    }
}

#[cfg(test)]
#[path = "group/group_tests.rs"]
mod tests;
