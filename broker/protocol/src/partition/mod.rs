//! One replica of one partition: who leads it, what is committed, and which produce requests may be answered.
//!
//! The driver (a shard) feeds [`Input`]s and carries out the [`Effect`]s in their order. A step never waits. The
//! log's content lives in storage; this core knows its offsets only.
//!
//! # Roles
//! A test derives this table from the code. What is not listed leaves the role as it is.
//!
//! | role | input | next role | what happens |
//! |---|---|---|---|
//! | Idle | BecomeLeader, newer epoch | Leader | the epoch begins at the log's end |
//! | Idle | BecomeFollower, newer epoch | Follower | |
//! | Idle | FolderFailed | Failed | |
//! | Follower | BecomeLeader, newer epoch | Leader | the epoch begins at the log's end |
//! | Follower | Resign, same or newer epoch | Idle | |
//! | Follower | FolderFailed | Failed | |
//! | Leader | BecomeLeader, newer epoch | Leader | waiters fail, the epoch begins at the log's end |
//! | Leader | BecomeFollower, newer epoch | Follower | waiters fail |
//! | Leader | Resign, same or newer epoch | Idle | waiters fail |
//! | Leader | AppendFailed, others may hold the tail | Idle | waiters fail, a new epoch is asked for |
//! | Leader | FolderFailed | Failed | waiters fail |
//!
//! `Failed` is final (contract 8): only a restart of the broker leaves it.
//!
//! # How replicas become alike
//! A follower asks with its position ([`Partition::fetch_position`]), in which the last epoch and the offset name the
//! whole log. The leader counts it ([`Input::ReplicaFetch`]) and answers ([`Partition::judge`]): the logs match, and
//! here is more; or they part, and where. Then the follower cuts, and asks again. Only a position that matches in the
//! present epoch earns credit, and credit is for what is durable. The leader asks the quorum for changes of the ISR by
//! itself (module `isr`).
//!
//! # What an acknowledgement promises (contracts 1 and 2)
//! | acks | answered when |
//! |---|---|
//! | `None` | appended |
//! | `Leader` | the leader's own *durable end* has passed the records |
//! | `All` | the high watermark has passed the records |
//!
//! The durable end is what storage reports: in a `sync` topic the synced end, in an `os` topic the end of what is
//! written to the segment. So acks=1 on a `sync` topic waits for the leader's sync, as in Kafka, whose
//! `flush.messages=1` syncs inside the append. It never promises less than acks=1 in an `os` topic: written to the
//! segment, so a full disk cannot show up after the answer.

pub mod epochs;
mod follower;
mod interface;
mod isr;
mod leader;
pub mod producers;
pub mod replication;
mod waiters;

#[cfg(test)]
mod cluster_tests;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod producers_tests;
#[cfg(test)]
mod replication_tests;
#[cfg(test)]
mod scenario_tests;
#[cfg(test)]
mod table_tests;

use weir_defect::defect;

pub use follower::Fetched;
pub use interface::{Acks, Effect, FailReason, Input, Leadership, Limits, LogState};
pub use waiters::WaiterId;

use self::epochs::EpochHistory;
use self::follower::Follower;
use self::leader::{Leader, Waiting};
use self::producers::{Claim, ProducerBatch, Producers, Verdict};
use self::waiters::Waiter;
use crate::types::{BrokerId, LeaderEpoch, LogId, Offset};

#[derive(Clone, Debug, Hash)]
enum Role {
    Idle,
    Follower(Follower),
    Leader(Box<Leader>),
    Failed,
}

/// See [`Input::Append`].
struct NewAppend {
    waiter: WaiterId,
    acks: Acks,
    count: u32,
    epoch: Option<LeaderEpoch>,
    producer: Option<Claim>,
    now_ms: i64,
}

/// One replica of one partition.
#[derive(Clone, Debug, Hash)]
pub struct Partition {
    log: LogId,
    me: BrokerId,
    limits: Limits,
    /// Invariant: `start <= high_watermark`.
    start: Offset,
    /// Invariant: goes back only with a truncation below it, which happens only outside the ISR.
    /// Invariant: in a leader, `high_watermark <=` every known durable end in the maximal ISR.
    high_watermark: Offset,
    /// Invariant: `high_watermark <= durable_end <= end`.
    durable_end: Offset,
    end: Offset,
    /// The newest leader epoch heard of; -1 before the first.
    ///
    /// Invariant: never goes back.
    epoch: LeaderEpoch,
    role: Role,
    /// Who waits. Invariant: all were appended in this epoch by this leader.
    waiters: Waiting,
    /// Invariant: no epoch in it begins above the log's end.
    epochs: EpochHistory,
    producers: Producers,
}

impl Partition {
    /// A replica that leads nothing yet.
    pub fn new(log: LogId, me: BrokerId, state: LogState, limits: Limits) -> Partition {
        Partition {
            log,
            me,
            limits,
            start: state.start,
            high_watermark: state.high_watermark.clamp(state.start, state.durable_end.max(state.start)),
            durable_end: state.durable_end,
            end: state.end,
            epoch: -1,
            role: Role::Idle,
            waiters: Waiting::default(),
            epochs: EpochHistory::new(),
            producers: Producers::default(),
        }
    }

    /// The same replica, with what storage knows of its producers.
    #[must_use]
    pub fn with_producers(mut self, producers: Producers) -> Partition {
        self.producers = producers;
        self
    }

    /// The same replica, with its log's history of leader epochs.
    #[must_use]
    pub fn with_epochs(mut self, epochs: EpochHistory) -> Partition {
        self.epochs = epochs;
        self.epochs.bound(self.end);
        self
    }

    /// Takes one input in and appends what must be done to `effects`.
    pub fn step(&mut self, input: Input, effects: &mut Vec<Effect>) {
        if matches!(self.role, Role::Failed) {
            self.refuse_when_failed(&input, effects);
            return;
        }
        match input {
            Input::BecomeLeader(leadership) => self.on_become_leader(leadership, effects),
            Input::BecomeFollower { epoch, leader } => self.on_become_follower(epoch, leader, effects),
            Input::Resign { epoch } => self.on_resign(epoch, effects),
            Input::Append { waiter, acks, count, epoch, producer, now_ms } => {
                self.on_append(NewAppend { waiter, acks, count, epoch, producer, now_ms }, effects);
            }
            Input::ExpireProducers { now_ms, idle_ms } => {
                let forgotten = self.producers.expire(now_ms, idle_ms);
                if !forgotten.is_empty() {
                    effects.push(Effect::ForgetProducers(forgotten));
                }
            }
            Input::Expire { waiter } => self.on_expire(waiter, effects),
            Input::Durable { end } => self.on_durable(end, effects),
            Input::AppendFailed { from } => self.on_append_failed(from, effects),
            Input::StartOffset { start } => self.on_start_offset(start, effects),
            Input::Damaged { from } => self.on_damaged(from, effects),
            Input::FolderFailed => {
                self.leave_leadership(FailReason::StorageFailed, effects);
                self.role = Role::Failed;
            }
            Input::Shipped { end } => {
                if let Role::Leader(leader) = &mut self.role {
                    leader.shipped_end = leader.shipped_end.max(end.min(self.end));
                }
            }
            Input::ReplicaFetch { from, broker_epoch, position, now_ms } => {
                self.on_replica_fetch((from, broker_epoch), &position, now_ms, effects);
            }
            Input::ReplicaProgress { from, broker_epoch, epoch, durable_end } => {
                self.on_progress((from, broker_epoch), epoch, durable_end, effects);
            }
            Input::Fetched(fetched) => self.on_fetched(*fetched, effects),
            Input::IsrRefused { epoch, partition_epoch, now_ms } => {
                self.on_isr_refused(epoch, partition_epoch, now_ms);
            }
            Input::Tick { now_ms } => self.on_tick(now_ms, effects),
        }
    }

    fn on_become_leader(&mut self, leadership: Leadership, effects: &mut Vec<Effect>) {
        if let Some(leader) = self.leader_of(leadership.epoch) {
            leader.update(leadership);
            return self.advance(effects);
        }
        if leadership.epoch <= self.epoch || !leadership.isr.contains(&self.me) {
            return;
        }
        self.leave_leadership(FailReason::NotLeader, effects);
        self.epoch = leadership.epoch;
        // Z4: a leader that has not written anything yet has begun its epoch all the same.
        if !defect!(cache_epoch_on_append_only) {
            self.epochs.begin(self.epoch, self.end);
            effects.push(Effect::BeginEpoch { epoch: self.epoch, start: self.end });
        }
        self.role = Role::Leader(Box::new(Leader::new(self.me, leadership, self.end)));
        self.advance(effects);
    }

    fn on_resign(&mut self, epoch: LeaderEpoch, effects: &mut Vec<Effect>) {
        if epoch < self.epoch {
            return;
        }
        self.epoch = epoch;
        self.leave_leadership(FailReason::NotLeader, effects);
        self.role = Role::Idle;
    }

    fn on_append(&mut self, append: NewAppend, effects: &mut Vec<Effect>) {
        let NewAppend { waiter, acks, count, epoch, producer, now_ms } = append;
        let verdict = self.check_epoch(epoch).and_then(|_| self.check_producer(producer.as_ref()));
        let admitted = match verdict {
            Ok(Some((base_offset, next_offset))) => {
                self.await_existing(acks, Waiter { id: waiter, base_offset, next_offset }, effects);
                return;
            }
            Ok(None) => self.admit(acks, epoch),
            Err(reason) => Err(reason),
        };
        if let Err(reason) = admitted {
            effects.push(Effect::FailAppend { waiter, reason });
            return;
        }
        let base_offset = self.end;
        self.end += i64::from(count.max(1));
        if let Some(claim) = producer {
            self.producers.note(&ProducerBatch { claim, base_offset, next_offset: self.end }, now_ms);
        }
        // Where the epoch was cut away with its first records, it begins again.
        self.epochs.begin(self.epoch, base_offset);
        effects.push(Effect::WriteLog { waiter, base_offset, epoch: self.epoch });
        let entry = Waiter { id: waiter, base_offset, next_offset: self.end };
        match acks {
            Acks::None => effects.push(Effect::CompleteAppend { waiter, base_offset }),
            Acks::Leader => self.waiters.durable.insert(entry),
            Acks::All => self.waiters.committed.insert(entry),
        }
    }

    /// Where a repeated batch is; `None` for one that is to be appended.
    fn check_producer(&self, claim: Option<&Claim>) -> Result<Option<(Offset, Offset)>, FailReason> {
        match claim.map(|claim| self.producers.check(claim)) {
            None | Some(Verdict::Append) => Ok(None),
            Some(Verdict::Repeated { base_offset, next_offset }) => Ok(Some((base_offset, next_offset))),
            Some(Verdict::OutOfOrder) => Err(FailReason::OutOfOrderSequence),
            Some(Verdict::Fenced) => Err(FailReason::InvalidProducerEpoch),
        }
    }

    /// A repeated batch: nothing is written, but its answer waits under the acks rule of the first (contract 4).
    fn await_existing(&mut self, acks: Acks, entry: Waiter, effects: &mut Vec<Effect>) {
        // A repeat is answered even when the ISR is too small to take new records: it may be committed already.
        let acks_to_enter = if acks == Acks::All { Acks::Leader } else { acks };
        if let Err(reason) = self.admit(acks_to_enter, None) {
            effects.push(Effect::FailAppend { waiter: entry.id, reason });
            return;
        }
        let (durable_end, high_watermark) = (self.durable_end, self.high_watermark);
        let (queue, reached) = match acks {
            Acks::None => (None, 0),
            Acks::Leader => (Some(&mut self.waiters.durable), durable_end),
            Acks::All => (Some(&mut self.waiters.committed), high_watermark),
        };
        match queue {
            Some(queue) if entry.next_offset > reached && !defect!(dup_ack_before_commit) => {
                queue.insert(entry)
            }
            _ => effects.push(Effect::CompleteAppend { waiter: entry.id, base_offset: entry.base_offset }),
        }
    }

    fn on_expire(&mut self, waiter: WaiterId, effects: &mut Vec<Effect>) {
        let Role::Leader(leader) = &self.role else { return };
        let reason = if self.waiters.durable.remove(waiter) {
            FailReason::TimedOut
        } else if self.waiters.committed.remove(waiter) {
            if leader.under_min_isr() {
                FailReason::NotEnoughReplicasAfterAppend
            } else {
                FailReason::TimedOut
            }
        } else {
            return;
        };
        effects.push(Effect::FailAppend { waiter, reason });
    }

    fn on_durable(&mut self, end: Offset, effects: &mut Vec<Effect>) {
        let end = end.min(self.end);
        if end <= self.durable_end {
            return;
        }
        self.durable_end = end;
        self.follow_bounds(effects);
        match &self.role {
            // Before the logs match, nobody knows whose records these are.
            Role::Follower(Follower { matched: true, .. }) => {
                effects.push(Effect::ReportProgress { epoch: self.epoch, durable_end: end });
            }
            _ => self.advance(effects),
        }
    }

    fn on_append_failed(&mut self, from: Offset, effects: &mut Vec<Effect>) {
        let from = from.max(self.durable_end);
        if from >= self.end {
            return;
        }
        self.end = from;
        self.producers.cut(from);
        self.epochs.truncate(from);
        let Role::Leader(leader) = &self.role else { return };
        self.epochs.begin(self.epoch, from);
        let is_shipped = leader.shipped_end > from;
        // What a follower may hold can still be committed: nobody is told that it was not written.
        let reason = if is_shipped { FailReason::NotLeader } else { FailReason::StorageFailed };
        for id in self.waiters.cut(from) {
            effects.push(Effect::FailAppend { waiter: id, reason });
        }
        if is_shipped {
            let epoch = self.epoch;
            self.leave_leadership(FailReason::NotLeader, effects);
            self.role = Role::Idle;
            effects.push(Effect::RequestNewEpoch { epoch });
        }
    }

    fn on_start_offset(&mut self, start: Offset, effects: &mut Vec<Effect>) {
        self.start = self.start.max(start);
        self.end = self.end.max(self.start);
        self.durable_end = self.durable_end.max(self.start);
        self.epochs.trim(self.start);
        // Z14: a high watermark behind the start would make a leader that nobody can read from.
        if self.high_watermark < self.start && !defect!(no_hw_bump_on_full_truncation) {
            self.high_watermark = self.start;
            effects.push(Effect::HighWatermark(self.high_watermark));
        }
        self.advance(effects);
    }

    /// Moves the high watermark as far as the maximal ISR allows and answers those who waited for it.
    fn advance(&mut self, effects: &mut Vec<Effect>) {
        let Role::Leader(leader) = &self.role else { return };
        if let Some(committed) = leader.committed_end(self.durable_end)
            && committed > self.high_watermark
        {
            self.high_watermark = committed;
            effects.push(Effect::HighWatermark(committed));
        }
        self.waiters.durable.complete(self.durable_end, effects);
        self.waiters.committed.complete(self.high_watermark, effects);
    }

    /// A reign is over, if there was one: all who wait are told `reason`.
    fn leave_leadership(&mut self, reason: FailReason, effects: &mut Vec<Effect>) {
        // Z57: a waiter that outlives its epoch is acknowledged by another record's offset.
        if defect!(waiter_survives_epoch) && reason == FailReason::NotLeader {
            return;
        }
        for id in std::mem::take(&mut self.waiters).into_ids() {
            effects.push(Effect::FailAppend { waiter: id, reason });
        }
    }

    fn refuse_when_failed(&self, input: &Input, effects: &mut Vec<Effect>) {
        if let Input::Append { waiter, .. } = input {
            effects.push(Effect::FailAppend { waiter: *waiter, reason: FailReason::StorageFailed });
        }
    }

    /// Whether an append would be taken in now. Says so before a request's records are prepared; `step` asks again.
    pub fn admit(&self, acks: Acks, epoch: Option<LeaderEpoch>) -> Result<(), FailReason> {
        self.check_epoch(epoch)?;
        let Role::Leader(leader) = &self.role else { return Err(FailReason::NotLeader) };
        if acks == Acks::All && leader.under_min_isr() {
            return Err(FailReason::NotEnoughReplicas);
        }
        if acks != Acks::None && self.waiters.len() >= self.limits.waiters_max {
            return Err(FailReason::TooManyWaiters);
        }
        Ok(())
    }

    /// Whether this replica leads in the epoch that a request names (KIP-320); returns that epoch.
    pub fn check_epoch(&self, requested: Option<LeaderEpoch>) -> Result<LeaderEpoch, FailReason> {
        match self.role {
            Role::Failed => return Err(FailReason::StorageFailed),
            Role::Idle | Role::Follower(_) => return Err(FailReason::NotLeader),
            Role::Leader(_) => {}
        }
        match requested {
            Some(epoch) if epoch < self.epoch && !defect!(no_fetch_epoch_check) => {
                Err(FailReason::FencedLeaderEpoch)
            }
            Some(epoch) if epoch > self.epoch && !defect!(no_fetch_epoch_check) => {
                Err(FailReason::UnknownLeaderEpoch)
            }
            _ => Ok(self.epoch),
        }
    }

    fn leader_of(&mut self, epoch: LeaderEpoch) -> Option<&mut Leader> {
        match &mut self.role {
            Role::Leader(leader) if epoch == self.epoch => Some(leader),
            _ => None,
        }
    }

    /// Which log this replica belongs to.
    pub fn log(&self) -> LogId {
        self.log
    }

    /// Whether this replica leads.
    pub fn is_leader(&self) -> bool {
        matches!(self.role, Role::Leader(_))
    }

    /// The newest leader epoch that this replica has heard of; -1 before the first.
    pub fn epoch(&self) -> LeaderEpoch {
        self.epoch
    }

    /// The first offset that can be read.
    pub fn start(&self) -> Offset {
        self.start
    }

    /// Everything below is committed: consumers read below it, and nothing above (contract 9).
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// Everything below is as durable on this replica as the topic's flush policy promises.
    pub fn durable_end(&self) -> Offset {
        self.durable_end
    }

    /// The offset that the next record gets. Followers read below it.
    pub fn end(&self) -> Offset {
        self.end
    }

    /// The idempotent producers that are remembered.
    pub fn producers(&self) -> &Producers {
        &self.producers
    }

    /// Which leader epoch began where.
    pub fn epochs(&self) -> &EpochHistory {
        &self.epochs
    }

    /// The offset after the last committed record, as clients ask for it. `None` while a new leader does not know all
    /// that its predecessors have committed, so that the answer never goes back (KIP-207).
    pub fn latest_offset(&self) -> Option<Offset> {
        let Role::Leader(leader) = &self.role else { return None };
        (self.high_watermark >= leader.epoch_start).then_some(self.high_watermark)
    }

    /// The in-sync replicas as a leader knows them to be committed; empty in any other role.
    pub fn isr(&self) -> &[BrokerId] {
        match &self.role {
            Role::Leader(leader) => &leader.isr,
            _ => &[],
        }
    }

    /// How many appends wait for their acknowledgement.
    pub fn waiting(&self) -> usize {
        self.waiters.len()
    }

    /// Forgets what no later step depends on but through the clock. An exhaustive exploration, which has none, takes
    /// states for one that differ in nothing else.
    pub fn forget_history(&mut self) {
        if let Role::Leader(leader) = &mut self.role {
            leader.forget_history();
        }
    }

    /// The name of the role, as in the table of this module.
    pub fn role_name(&self) -> &'static str {
        match self.role {
            Role::Idle => "Idle",
            Role::Follower(_) => "Follower",
            Role::Leader(_) => "Leader",
            Role::Failed => "Failed",
        }
    }

    /// The laws that stand on the fields. Tests and the simulator ask after each step; an error names what is broken.
    pub fn invariants(&self) -> Result<(), String> {
        let law = |holds: bool, what: &str| {
            if holds { Ok(()) } else { Err(format!("{}: {what}: {self:?}", self.log)) }
        };
        law(self.start <= self.high_watermark, "start <= high watermark")?;
        law(self.high_watermark <= self.durable_end, "high watermark <= durable end")?;
        law(self.durable_end <= self.end, "durable end <= log end")?;
        self.producers.invariants(self.end).map_err(|what| format!("{}: {what}", self.log))?;
        law(
            self.epochs.latest().is_none_or(|latest| latest.start <= self.end),
            "epochs begin within the log",
        )?;
        let Role::Leader(leader) = &self.role else {
            return law(self.waiters.len() == 0, "only a leader keeps anyone waiting");
        };
        law(leader.epoch == self.epoch, "the leader's epoch is the partition's")?;
        law(leader.is_in_isr(self.me), "the leader is in the ISR")?;
        law(leader.is_sound(), "min ISR lies between 1 and the number of replicas")?;
        law(leader.shipped_end <= self.end, "shipped end <= log end")?;
        law(
            leader.lowest_known_durable_end(self.durable_end) >= self.high_watermark,
            "high watermark <= every known durable end in the maximal ISR",
        )?;
        law(self.waiters.len() <= self.limits.waiters_max, "the number of waiters is bounded")?;
        law(
            self.waiters.durable.all_within(self.durable_end, self.end),
            "who waits for durability has not got it",
        )?;
        law(
            self.waiters.committed.all_within(self.high_watermark, self.end),
            "who waits for the commit has not got it",
        )
    }
}
