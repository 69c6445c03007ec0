//! The task of one shard.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use weir_protocol::fact::Fact;
use weir_protocol::partition::{Acks, Effect, FailReason, Input, Limits};
use weir_protocol::types::{BrokerId, LogId};
use weir_runtime::time::{self, Alarm};
use weir_runtime::{select, simulation, task};
use weir_storage::{AppendInfo, Log, Port, StorageError, Store, StoreEvent, producer_batch};

use super::calls::{Parked, Produces, Question, Slab, waiter_id};
use super::compact::Compacted;
use super::entry::{Decided, Entry, OPENING_QUEUE_MAX, Open, Queued};
use super::repair::Looked;
use super::{Message, ProduceCall, ProducerExpiry, ShardError, ShardSetup};
use crate::complaints::Complaints;
use crate::controller::{Changed, PartitionChanges};
use crate::metadata::ImageReader;
use crate::metrics::Metrics;
use crate::node::{Failure, FailureFlag};
use crate::replica::lane::Lane;
use crate::replica::mailbox::Mailboxes;

/// Messages that are taken in per wake.
const MESSAGES_PER_WAKE: usize = 64;
/// Logs that one shard opens at a time.
const OPENS_MAX: usize = 32;

type Opened = (LogId, Result<Log, StorageError>);

/// Owns partitions.
pub(super) struct Owner {
    pub(super) number: usize,
    /// How many shards there are.
    pub(super) shards: usize,
    pub(super) me: BrokerId,
    pub(super) store: Store,
    pub(super) image: ImageReader,
    pub(super) metrics: Arc<Metrics>,
    pub(super) failure: FailureFlag,
    pub(super) port: Arc<Port>,
    pub(super) events: mpsc::UnboundedReceiver<StoreEvent>,
    /// Ordered, because what is done for all partitions must be done in one order in every run.
    pub(super) entries: BTreeMap<LogId, Entry>,
    pub(super) to_open: VecDeque<LogId>,
    pub(super) opening: usize,
    pub(super) opened_to: mpsc::Sender<Opened>,
    pub(super) opened: mpsc::Receiver<Opened>,
    pub(super) produces: Produces,
    pub(super) parked: Slab<Parked>,
    pub(super) alarm: Alarm,
    pub(super) expiry: ProducerExpiry,
    /// When producers are looked at that may have expired.
    pub(super) expiry_alarm: Alarm,
    pub(super) effects: Vec<Effect>,
    pub(super) complaints: Complaints,
    /// Followers' lanes, by the partition that they want to hear of.
    pub(super) lanes: BTreeMap<LogId, Vec<Arc<Lane>>>,
    /// Open replicas that have others.
    pub(super) replicated: BTreeSet<LogId>,
    /// Replicas that have others and could not be opened.
    pub(super) failed: BTreeSet<LogId>,
    /// Where the round of ticks has got to; `None` between two rounds.
    pub(super) ticked: Option<LogId>,
    pub(super) tick_alarm: Alarm,
    /// What goes with the answer of a leader that is being taken in.
    pub(super) appends: Vec<(Bytes, AppendInfo)>,
    /// Open replicas that are damaged.
    pub(super) damaged: BTreeSet<LogId>,
    /// Whether one of them is being read.
    pub(super) looking: bool,
    pub(super) looked_to: mpsc::Sender<(LogId, Looked)>,
    pub(super) looked: mpsc::Receiver<(LogId, Looked)>,
    pub(super) compact_every: Option<Duration>,
    pub(super) compact_alarm: Alarm,
    /// Whether a log is being compacted.
    pub(super) compacting: bool,
    /// Where this round of compactions has got to; `None` between two rounds.
    pub(super) compacted_last: Option<LogId>,
    pub(super) compacted_to: mpsc::Sender<Compacted>,
    pub(super) compacted: mpsc::Receiver<Compacted>,
    pub(super) limits: Limits,
    pub(super) mailboxes: Mailboxes,
    pub(super) changes: PartitionChanges,
    /// What has come of them. Bounded: each partition has at most one under way.
    pub(super) changed_to: mpsc::UnboundedSender<Changed>,
    pub(super) changed: mpsc::UnboundedReceiver<Changed>,
}

impl Owner {
    pub(super) fn new(setup: &ShardSetup, number: usize) -> Owner {
        let (port, events) = setup.store.port();
        let (opened_to, opened) = mpsc::channel(OPENS_MAX);
        let (changed_to, changed) = mpsc::unbounded_channel();
        let (looked_to, looked) = mpsc::channel(1);
        let (compacted_to, compacted) = mpsc::channel(1);
        Owner {
            number,
            shards: setup.count.max(1),
            me: setup.me,
            store: setup.store.clone(),
            image: setup.image.clone(),
            metrics: Arc::clone(&setup.metrics),
            failure: setup.failure.clone(),
            port: Arc::new(port),
            events,
            entries: BTreeMap::new(),
            to_open: VecDeque::new(),
            opening: 0,
            opened_to,
            opened,
            produces: Produces::new(),
            parked: Slab::new(),
            alarm: Alarm::new(),
            expiry: setup.producer_expiry,
            expiry_alarm: Alarm::new(),
            effects: Vec::new(),
            complaints: Complaints::default(),
            lanes: BTreeMap::new(),
            replicated: BTreeSet::new(),
            failed: BTreeSet::new(),
            ticked: None,
            tick_alarm: Alarm::new(),
            appends: Vec::new(),
            damaged: BTreeSet::new(),
            looking: false,
            looked_to,
            looked,
            compact_every: setup.compact_every,
            compact_alarm: Alarm::new(),
            compacting: false,
            compacted_last: None,
            compacted_to,
            compacted,
            limits: setup.limits,
            mailboxes: setup.mailboxes.clone(),
            changes: setup.changes.clone(),
            changed_to,
            changed,
        }
    }

    /// Works until it is told to stop.
    pub(super) async fn run(mut self, mut messages: mpsc::Receiver<Message>) {
        let mut taken = Vec::with_capacity(MESSAGES_PER_WAKE);
        self.expiry_alarm.set(Some(time::now() + self.expiry.check));
        self.compact_alarm.set(self.compact_every.map(|every| time::now() + every));
        self.open_all_replicated();
        loop {
            self.alarm.set(self.produces.next_deadline());
            select! {
                // What became durable goes first: it answers requests and gives back their bytes.
                event = self.events.recv() => match event {
                    Some(event) => self.on_event(event),
                    None => break,
                },
                opened = self.opened.recv() => {
                    if let Some((log, result)) = opened {
                        self.on_opened(log, result);
                    }
                }
                count = messages.recv_many(&mut taken, MESSAGES_PER_WAKE) => {
                    if count == 0 {
                        break;
                    }
                    for message in taken.drain(..) {
                        if matches!(message, Message::Stop) {
                            self.stop();
                            return;
                        }
                        self.on_message(message);
                    }
                }
                changed = self.changed.recv() => {
                    if let Some(changed) = changed {
                        self.on_changed(changed);
                    }
                }
                looked = self.looked.recv() => {
                    if let Some((log, looked)) = looked {
                        self.on_looked(log, looked);
                    }
                }
                () = self.alarm.wait() => self.on_deadline(),
                () = self.tick_alarm.wait() => self.tick(),
                () = self.expiry_alarm.wait() => self.expire_producers(),
                compacted = self.compacted.recv() => {
                    if let Some(compacted) = compacted {
                        self.on_compacted(compacted);
                    }
                }
                () = self.compact_alarm.wait() => self.compact(),
            }
        }
        self.stop();
    }

    fn stop(&mut self) {
        self.produces.stop();
        tracing::debug!(shard = self.number, partitions = self.entries.len(), "shard ends");
    }

    fn on_message(&mut self, message: Message) {
        match message {
            Message::Produce(call) => self.on_produce(*call),
            Message::Fetch(call) => {
                let logs: Vec<LogId> = call.parts.iter().map(|part| part.log).collect();
                self.on_question(Question::Fetch(call), &logs);
            }
            Message::Offsets(call) => {
                let logs: Vec<LogId> = call.parts.iter().map(|part| part.log).collect();
                self.on_question(Question::Offsets(call), &logs);
            }
            Message::DeleteRecords(call) => {
                let log = call.log;
                self.on_question(Question::DeleteRecords(call), &[log]);
            }
            Message::Sizes(call) => self.answer_sizes(*call),
            Message::Producers(call) => {
                let log = call.log;
                self.on_question(Question::Producers(call), &[log]);
            }
            Message::Tails(call) => {
                let logs: Vec<LogId> = call.questions.iter().map(|question| question.log).collect();
                self.on_question(Question::Tails(call), &logs);
            }
            Message::Changed(logs) => {
                for log in &logs {
                    self.follow_image(*log);
                }
                self.open_replicated(logs);
            }
            Message::Delete(logs) => self.on_delete(logs),
            Message::Positions(call) => self.on_positions(*call),
            Message::Progress(call) => self.on_progress(*call),
            Message::ReplicaRead(call) => self.on_replica_read(*call),
            Message::Fetched(parts) => self.on_fetched(parts),
            Message::Damaged { log, from } => self.on_damage(log, from),
            Message::Stop => {}
        }
    }

    fn on_produce(&mut self, call: ProduceCall) {
        let (number, logs) = self.produces.insert(call);
        for (part, log) in logs.into_iter().enumerate() {
            let outcome = match self.entry(log) {
                Err(error) => Err(error),
                Ok(Entry::Open(_)) => {
                    self.append(log, number, part);
                    Ok(())
                }
                Ok(Entry::Opening { queue, .. }) if queue.len() < OPENING_QUEUE_MAX => {
                    queue.push(Queued::Produce { call: number, part });
                    Ok(())
                }
                Ok(Entry::Opening { .. }) => Err(ShardError::Overloaded),
                Ok(Entry::Failed(error)) => Err(ShardError::Storage(Arc::clone(error))),
            };
            if let Err(error) = outcome {
                self.refuse(number, part, error);
            }
        }
    }

    fn refuse(&mut self, call: u64, part: usize, error: ShardError) {
        if matches!(error, ShardError::Overloaded) {
            self.metrics.shard_overloads.increment();
        }
        self.produces.finish(waiter_id(call, part), Err(error));
    }

    /// Hands one part of a produce request to its replica.
    fn append(&mut self, log: LogId, call: u64, part: usize) {
        let waiter = waiter_id(call, part);
        let Some(acks) = self.produces.acks(call) else { return };
        let Some((batch, epoch)) = self.produces.batch(waiter) else { return };
        let count = batch.header.count.max(1) as u32;
        let producer = producer_batch(&batch.header).map(|batch| batch.claim);
        // With acks=0 nobody waits, but the bytes count against the budget until they are durable.
        let acks = if acks == Acks::None { Acks::Leader } else { acks };
        let now_ms = time::now().since_origin_ms();
        self.step(log, Input::Append { waiter, acks, count, epoch, producer, now_ms }, None);
    }

    /// The entry of a log; a log that was not used before, or could not be opened, begins to open.
    pub(super) fn entry(&mut self, log: LogId) -> Result<&mut Entry, ShardError> {
        if !matches!(self.entries.get(&log), Some(Entry::Opening { .. } | Entry::Open(_))) {
            if let Some(error) = self.cannot_hold(log) {
                self.entries.remove(&log);
                return Err(error);
            }
            self.entries.insert(log, Entry::Opening { queue: Vec::new(), doomed: false });
            self.to_open.push_back(log);
            self.open_next();
        }
        self.entries.get_mut(&log).ok_or(ShardError::UnknownPartition)
    }

    /// Starts to open logs, as many as may be opened at a time.
    fn open_next(&mut self) {
        while self.opening < OPENS_MAX
            && let Some(log) = self.to_open.pop_front()
        {
            self.opening += 1;
            let (store, port, done) = (self.store.clone(), Arc::clone(&self.port), self.opened_to.clone());
            let config = self.image.log_config(log);
            task::spawn("open-log", async move {
                let result = store.open_log(log, config, &port).await;
                // A shard that has ended opens nothing more.
                let _ = done.send((log, result)).await;
            });
        }
    }

    fn on_opened(&mut self, log: LogId, result: Result<Log, StorageError>) {
        self.opening -= 1;
        self.open_next();
        let Some(Entry::Opening { queue, doomed }) = self.entries.remove(&log) else { return };
        match result {
            Ok(opened) if doomed => {
                drop(opened);
                self.delete(vec![log]);
            }
            Ok(opened) => {
                simulation::observe(|| Fact::Opened {
                    log,
                    start: opened.start(),
                    end: opened.durable_end(),
                    last_epoch: opened.epochs().epoch_at(opened.durable_end() - 1),
                });
                let open = Open::new(log, self.me, opened, self.limits);
                self.entries.insert(log, Entry::Open(Box::new(open)));
                self.metrics.partitions_opened.increment();
                self.follow_image(log);
                self.on_opened_damaged(log);
            }
            Err(error) => {
                tracing::error!(%log, %error, "a partition's log cannot be opened");
                if !doomed {
                    self.entries.insert(log, Entry::Failed(Arc::new(error)));
                    self.open_again(log);
                }
            }
        }
        for queued in queue {
            match queued {
                Queued::Produce { call, part } => match self.entries.get(&log) {
                    Some(Entry::Open(_)) => self.append(log, call, part),
                    Some(Entry::Failed(error)) => {
                        let error = ShardError::Storage(Arc::clone(error));
                        self.refuse(call, part, error);
                    }
                    _ => self.refuse(call, part, ShardError::UnknownPartition),
                },
                Queued::Question(number) => self.one_less_missing(number),
            }
        }
    }

    /// Brings an open replica in line with the image.
    pub(super) fn follow_image(&mut self, log: LogId) {
        let Some(Entry::Open(open)) = self.entries.get_mut(&log) else { return };
        open.log.set_config(self.image.log_config(log));
        let decided = self.image.decided(log).map(|(partition, min_insync)| Decided {
            leader: partition.leader,
            leader_epoch: partition.leader_epoch,
            partition_epoch: partition.partition_epoch,
            broker_epochs: self.image.broker_epochs(&partition.replicas),
            replicas: partition.replicas,
            isr: partition.isr,
            min_insync,
        });
        let input = open.input_for(self.me, decided.as_ref());
        let replicas = decided.map_or(0, |decided| decided.replicas.len());
        self.note_replicated(log, replicas);
        if let Some(input) = input {
            let Some(Entry::Open(open)) = self.entries.get_mut(&log) else { return };
            observe_role(log, open, &input);
            self.step(log, input, None);
        }
        self.repair(log);
    }

    pub(super) fn open_entry(&mut self, log: LogId) -> Result<&mut Open, ShardError> {
        if !self.entries.contains_key(&log) {
            return Err(self.cannot_hold(log).unwrap_or(ShardError::UnknownPartition));
        }
        match self.entries.get_mut(&log) {
            Some(Entry::Open(open)) => Ok(open),
            Some(Entry::Failed(error)) => Err(ShardError::Storage(Arc::clone(error))),
            Some(Entry::Opening { .. }) => {
                self.metrics.shard_overloads.increment();
                Err(ShardError::Overloaded)
            }
            None => Err(ShardError::UnknownPartition),
        }
    }

    /// Why this broker has no replica of a partition; `None`: it has. Nobody's question makes a log of one that others hold, or of
    /// one that was deleted: before this process is registered, its image may be older than what its former self has done.
    fn cannot_hold(&self, log: LogId) -> Option<ShardError> {
        if self.image.own_epoch().is_none() {
            return Some(ShardError::Refused(FailReason::NotLeader));
        }
        let view = self.image.current();
        match view.image.partition(log) {
            None => Some(ShardError::UnknownPartition),
            Some(partition) if partition.replicas.contains(&self.me) => None,
            Some(_) => Some(ShardError::Refused(FailReason::NotLeader)),
        }
    }

    fn on_event(&mut self, event: StoreEvent) {
        match event {
            StoreEvent::Durable(logs) => {
                self.metrics.durable_rounds.increment();
                for (log, durable) in logs {
                    let Some(Entry::Open(open)) = self.entries.get_mut(&log) else { continue };
                    if let Some(end) = open.log.on_durable(&durable) {
                        simulation::observe(|| durable_fact(log, open));
                        self.step(log, Input::Durable { end }, None);
                    }
                }
            }
            StoreEvent::AppendFailed(failed) => {
                let log = failed.log;
                let Some(Entry::Open(open)) = self.entries.get_mut(&log) else { return };
                let cause = Arc::clone(&failed.error);
                if let Some(from) = open.log.on_append_failed(&failed) {
                    simulation::situation("write refused, disk full");
                    // A follower that has no room asks again, but not at once.
                    open.later = true;
                    self.complain(|left_out| {
                        tracing::warn!(%log, from, error = %cause, left_out, "appends were cut");
                    });
                    self.step(log, Input::AppendFailed { from }, Some(&cause));
                }
            }
            StoreEvent::Cut(cut) => {
                let log = cut.log;
                let Some(Entry::Open(open)) = self.entries.get_mut(&log) else { return };
                let durable = open.log.on_cut(&cut);
                open.starts.own = open.starts.own.max(cut.start);
                if let Some(end) = durable {
                    simulation::observe(|| durable_fact(log, open));
                    self.step(log, Input::Durable { end }, None);
                }
                self.show(log, false);
            }
            StoreEvent::Replaced(replaced) => self.on_replaced(&replaced),
            StoreEvent::FolderFailed(error) => {
                self.failure.report(Failure::Folder(Arc::clone(&error)));
                let open: Vec<LogId> = self.entries.keys().copied().collect();
                for log in open {
                    self.step(log, Input::FolderFailed, Some(&error));
                    if let Some(Entry::Open(open)) = self.entries.get_mut(&log) {
                        open.watchers.wake();
                        open.starts.fail(&error);
                    }
                }
            }
        }
    }

    /// Writes a line of the log, unless too many were written; it says how many were left out.
    pub(super) fn complain(&self, line: impl FnOnce(u64)) {
        if let Some(left_out) = self.complaints.admit(time::now()) {
            line(left_out);
        }
    }

    fn on_deadline(&mut self) {
        while let Some(waiters) = self.produces.pop_due(time::now()) {
            for (log, waiter) in waiters {
                if matches!(self.entries.get(&log), Some(Entry::Open(_))) {
                    self.step(log, Input::Expire { waiter }, None);
                } else {
                    // It still waits until its log is open, and nothing of it was appended.
                    let reason = FailReason::TimedOut;
                    self.produces.finish(waiter, Err(ShardError::Refused(reason)));
                }
            }
        }
    }

    fn expire_producers(&mut self) {
        let now = time::now();
        self.expiry_alarm.set(Some(now + self.expiry.check));
        let idle_ms = i64::try_from(self.expiry.idle.as_millis()).unwrap_or(i64::MAX);
        let is_open = |(log, entry): (&LogId, &Entry)| matches!(entry, Entry::Open(_)).then_some(*log);
        let open: Vec<LogId> = self.entries.iter().filter_map(is_open).collect();
        for log in open {
            self.step(log, Input::ExpireProducers { now_ms: now.since_origin_ms(), idle_ms }, None);
        }
    }

    fn on_delete(&mut self, logs: Vec<LogId>) {
        let mut gone = Vec::with_capacity(logs.len());
        for log in logs {
            match self.entries.get_mut(&log) {
                Some(Entry::Opening { doomed, .. }) => *doomed = true,
                Some(Entry::Open(open)) => {
                    let epoch = open.core.epoch();
                    self.step(log, Input::Resign { epoch }, None);
                    self.replicated.remove(&log);
                    self.damaged.remove(&log);
                    self.lanes.remove(&log);
                    if let Some(Entry::Open(mut open)) = self.entries.remove(&log) {
                        open.watchers.wake();
                        self.metrics.partitions_closed.increment();
                    }
                    gone.push(log);
                }
                Some(Entry::Failed(_)) | None => {
                    self.entries.remove(&log);
                    gone.push(log);
                }
            }
        }
        self.delete(gone);
    }

    /// Deletes logs that are not open, one after the other, in a task of its own.
    fn delete(&self, logs: Vec<LogId>) {
        if logs.is_empty() {
            return;
        }
        let store = self.store.clone();
        task::spawn("delete-logs", async move {
            for log in logs {
                match store.delete_log(log).await {
                    Ok(()) => tracing::debug!(%log, "deleted"),
                    // What is left is deleted at the next start.
                    Err(error) => tracing::warn!(%log, %error, "a log is not deleted yet"),
                }
            }
        });
    }
}

fn durable_fact(log: LogId, open: &Open) -> Fact {
    let end = open.log.durable_end();
    let last_epoch = open.log.epochs().epoch_at(end - 1).unwrap_or(-1);
    Fact::Durable { log, epoch: open.core.epoch(), last_epoch, end }
}

/// Tells a simulation what the quorum has decided about a replica.
fn observe_role(log: LogId, open: &Open, input: &Input) {
    match input {
        Input::BecomeLeader(leadership) => {
            let epoch = leadership.epoch;
            if epoch != open.core.epoch() || !open.core.is_leader() {
                simulation::observe(|| Fact::Leads { log, epoch });
            }
            simulation::observe(|| Fact::InSync {
                log,
                epoch,
                partition_epoch: leadership.partition_epoch,
                isr: leadership.isr.clone(),
            });
        }
        Input::BecomeFollower { epoch, leader } if *epoch > open.core.epoch() => {
            simulation::observe(|| Fact::Follows { log, epoch: *epoch, leader: *leader });
        }
        _ => {}
    }
}
