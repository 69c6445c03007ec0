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
//! | Idle | FolderFailed | Failed | |
//! | Leader | BecomeLeader, newer epoch | Leader | waiters fail, the epoch begins at the log's end |
//! | Leader | Resign, same or newer epoch | Idle | waiters fail |
//! | Leader | AppendFailed, others may hold the tail | Idle | waiters fail, a new epoch is asked for |
//! | Leader | FolderFailed | Failed | waiters fail |
//!
//! `Failed` is final (contract 8): only a restart of the broker leaves it. The follower's role joins this table with
//! replication.
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

mod interface;
mod leader;
pub mod producers;
mod waiters;

#[cfg(test)]
mod producers_tests;
#[cfg(test)]
mod scenario_tests;
#[cfg(test)]
mod table_tests;

use weir_defect::defect;

pub use interface::{Acks, Effect, FailReason, Input, Leadership, Limits, LogState};
pub use waiters::WaiterId;

use self::leader::Leader;
use self::producers::{Claim, ProducerBatch, Producers, Verdict};
use self::waiters::Waiter;
use crate::types::{BrokerId, LeaderEpoch, LogId, Offset};

#[derive(Debug)]
enum Role {
    Idle,
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
#[derive(Debug)]
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
            producers: Producers::default(),
        }
    }

    /// The same replica, with what storage knows of its producers.
    #[must_use]
    pub fn with_producers(mut self, producers: Producers) -> Partition {
        self.producers = producers;
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
            Input::Truncated { end } => self.on_truncated(end),
            Input::StartOffset { start } => self.on_start_offset(start, effects),
            Input::FolderFailed => {
                self.leave_leadership(FailReason::StorageFailed, effects);
                self.role = Role::Failed;
            }
            Input::Shipped { end } => {
                if let Role::Leader(leader) = &mut self.role {
                    leader.shipped_end = leader.shipped_end.max(end.min(self.end));
                }
            }
            Input::FollowerProgress { from, epoch, durable_end } => {
                let durable_end = durable_end.min(self.end);
                if let Some(leader) = self.leader_of(epoch) {
                    leader.note_progress(from, durable_end);
                    self.advance(effects);
                }
            }
            Input::IsrProposed { isr } => {
                if let Role::Leader(leader) = &mut self.role {
                    leader.proposed_isr = isr;
                    self.advance(effects);
                }
            }
            Input::IsrCommitted { epoch, isr } => {
                if let Some(leader) = self.leader_of(epoch) {
                    leader.commit_isr(isr);
                    self.advance(effects);
                }
            }
        }
    }

    fn on_become_leader(&mut self, leadership: Leadership, effects: &mut Vec<Effect>) {
        if leadership.epoch <= self.epoch || !leadership.isr.contains(&self.me) {
            return;
        }
        let survivors = self.leave_leadership(FailReason::NotLeader, effects);
        self.epoch = leadership.epoch;
        // Z4: a leader that has not written anything yet has begun its epoch all the same.
        if !defect!(cache_epoch_on_append_only) {
            effects.push(Effect::BeginEpoch { epoch: self.epoch, start: self.end });
        }
        let mut leader = Leader::new(self.me, leadership, self.end);
        leader.waiters = survivors;
        self.role = Role::Leader(Box::new(leader));
        self.advance(effects);
    }

    fn on_resign(&mut self, epoch: LeaderEpoch, effects: &mut Vec<Effect>) {
        if epoch < self.epoch {
            return;
        }
        self.epoch = epoch;
        self.leave_leadership(FailReason::NotLeader, effects);
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
        let Role::Leader(leader) = &mut self.role else { return };
        let base_offset = self.end;
        self.end += i64::from(count.max(1));
        if let Some(claim) = producer {
            self.producers.note(&ProducerBatch { claim, base_offset, next_offset: self.end }, now_ms);
        }
        effects.push(Effect::WriteLog { waiter, base_offset, epoch: self.epoch });
        let entry = Waiter { id: waiter, base_offset, next_offset: self.end };
        match acks {
            Acks::None => effects.push(Effect::CompleteAppend { waiter, base_offset }),
            Acks::Leader => leader.waiters.durable.insert(entry),
            Acks::All => leader.waiters.committed.insert(entry),
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
        let Role::Leader(leader) = &mut self.role else { return };
        let (queue, reached) = match acks {
            Acks::None => (None, 0),
            Acks::Leader => (Some(&mut leader.waiters.durable), durable_end),
            Acks::All => (Some(&mut leader.waiters.committed), high_watermark),
        };
        match queue {
            Some(queue) if entry.next_offset > reached && !defect!(dup_ack_before_commit) => {
                queue.insert(entry)
            }
            _ => effects.push(Effect::CompleteAppend { waiter: entry.id, base_offset: entry.base_offset }),
        }
    }

    fn on_expire(&mut self, waiter: WaiterId, effects: &mut Vec<Effect>) {
        let Role::Leader(leader) = &mut self.role else { return };
        let reason = if leader.waiters.durable.remove(waiter) {
            FailReason::TimedOut
        } else if leader.waiters.committed.remove(waiter) {
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
        self.durable_end = self.durable_end.max(end.min(self.end));
        self.advance(effects);
    }

    fn on_append_failed(&mut self, from: Offset, effects: &mut Vec<Effect>) {
        let from = from.max(self.durable_end);
        if from >= self.end {
            return;
        }
        self.end = from;
        self.producers.cut(from);
        let Role::Leader(leader) = &mut self.role else { return };
        for id in leader.waiters.cut(from) {
            effects.push(Effect::FailAppend { waiter: id, reason: FailReason::StorageFailed });
        }
        if leader.shipped_end > from {
            let epoch = self.epoch;
            self.leave_leadership(FailReason::NotLeader, effects);
            effects.push(Effect::RequestNewEpoch { epoch });
        }
    }

    fn on_truncated(&mut self, end: Offset) {
        if matches!(self.role, Role::Idle) && end < self.end {
            self.end = end;
            self.producers.cut(end);
            self.durable_end = self.durable_end.min(end);
            self.high_watermark = self.high_watermark.min(end);
            // A log that was cut down to nothing starts, ends and is committed at one offset.
            self.start = self.start.min(end);
        }
    }

    fn on_start_offset(&mut self, start: Offset, effects: &mut Vec<Effect>) {
        self.start = self.start.max(start);
        self.end = self.end.max(self.start);
        self.durable_end = self.durable_end.max(self.start);
        // Z14: a high watermark behind the start would make a leader that nobody can read from.
        if self.high_watermark < self.start && !defect!(no_hw_bump_on_full_truncation) {
            self.high_watermark = self.start;
            effects.push(Effect::HighWatermark(self.high_watermark));
        }
        self.advance(effects);
    }

    /// Moves the high watermark as far as the maximal ISR allows and answers those who waited for it.
    fn advance(&mut self, effects: &mut Vec<Effect>) {
        let Role::Leader(leader) = &mut self.role else { return };
        if let Some(committed) = leader.committed_end(self.durable_end)
            && committed > self.high_watermark
        {
            self.high_watermark = committed;
            effects.push(Effect::HighWatermark(committed));
        }
        leader.waiters.durable.complete(self.durable_end, effects);
        leader.waiters.committed.complete(self.high_watermark, effects);
    }

    /// Leaves the leader's role, if it is held; all who wait are told `reason`.
    fn leave_leadership(&mut self, reason: FailReason, effects: &mut Vec<Effect>) -> leader::Waiting {
        let Role::Leader(leader) = std::mem::replace(&mut self.role, Role::Idle) else {
            return leader::Waiting::default();
        };
        // Z57: a waiter that outlives its epoch is acknowledged by another record's offset.
        if defect!(waiter_survives_epoch) && reason == FailReason::NotLeader {
            return leader.waiters;
        }
        for id in leader.waiters.into_ids() {
            effects.push(Effect::FailAppend { waiter: id, reason });
        }
        leader::Waiting::default()
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
        if acks != Acks::None && leader.waiters.len() >= self.limits.waiters_max {
            return Err(FailReason::TooManyWaiters);
        }
        Ok(())
    }

    /// Whether this replica leads in the epoch that a request names (KIP-320); returns that epoch.
    pub fn check_epoch(&self, requested: Option<LeaderEpoch>) -> Result<LeaderEpoch, FailReason> {
        match self.role {
            Role::Failed => return Err(FailReason::StorageFailed),
            Role::Idle => return Err(FailReason::NotLeader),
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

    /// How many appends wait for their acknowledgement.
    pub fn waiting(&self) -> usize {
        match &self.role {
            Role::Leader(leader) => leader.waiters.len(),
            Role::Idle | Role::Failed => 0,
        }
    }

    /// The name of the role, as in the table of this module.
    pub fn role_name(&self) -> &'static str {
        match self.role {
            Role::Idle => "Idle",
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
        let Role::Leader(leader) = &self.role else { return Ok(()) };
        law(leader.epoch == self.epoch, "the leader's epoch is the partition's")?;
        law(leader.is_in_isr(self.me), "the leader is in the ISR")?;
        law(leader.shipped_end <= self.end, "shipped end <= log end")?;
        law(
            leader.lowest_known_durable_end(self.durable_end) >= self.high_watermark,
            "high watermark <= every known durable end in the maximal ISR",
        )?;
        law(leader.waiters.len() <= self.limits.waiters_max, "the number of waiters is bounded")?;
        law(
            leader.waiters.durable.all_within(self.durable_end, self.end),
            "who waits for durability has not got it",
        )?;
        law(
            leader.waiters.committed.all_within(self.high_watermark, self.end),
            "who waits for the commit has not got it",
        )
    }
}
