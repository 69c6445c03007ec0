//! A coordinator that is loaded: its requests and its appends.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use weir_defect::defect;
use weir_protocol::group::{AppendSeq, CallId, Coordinator, Effect, Input, Name, Record, Reply, Request};
use weir_protocol::partition::{Acks, FailReason};
use weir_protocol::types::{LeaderEpoch, LogId};
use weir_runtime::task;
use weir_runtime::time::Instant;

use super::load::now;
use super::{Unavailable, records};
use crate::server::budget::Charge;
use crate::shard::{Message, ProduceCall, ProducePart, ShardError, Shards};

/// Records of one batch, more or less: those of one append stay together.
const BATCH_RECORDS_MAX: usize = 2_000;

/// Bytes of one batch, where one append is not larger.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// Groups up to which the core's laws are checked after each step, where they are checked at all.
const CHECKED_GROUPS_MAX: usize = 100;

/// What became of a batch.
pub(super) struct Written {
    pub(super) partition: i32,
    pub(super) epoch: LeaderEpoch,
    pub(super) last: AppendSeq,
    pub(super) result: Result<(), ShardError>,
}

/// Whether a coordinator goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Stays,
    /// Its state is to be loaded anew, by whoever leads then.
    Ends,
}

/// Where batches go.
#[derive(Clone)]
pub(super) struct Writer {
    pub(super) shards: Shards,
    pub(super) written: mpsc::Sender<Written>,
}

/// A loaded coordinator.
pub(super) struct Active {
    pub(super) core: Coordinator,
    pub(super) log: LogId,
    /// The leader epoch under which it was loaded, and writes.
    pub(super) epoch: LeaderEpoch,
    calls: BTreeMap<CallId, oneshot::Sender<Result<Reply, Unavailable>>>,
    next_call: u64,
    /// Records that wait for the batch before them.
    waiting: VecDeque<(AppendSeq, Vec<Record>)>,
    /// The appends of the batch that is on its way.
    in_flight: Option<(AppendSeq, AppendSeq)>,
    effects: Vec<Effect>,
}

impl Active {
    pub(super) fn new(core: Coordinator, log: LogId, epoch: LeaderEpoch) -> Active {
        Active {
            core,
            log,
            epoch,
            calls: BTreeMap::new(),
            next_call: 0,
            waiting: VecDeque::new(),
            in_flight: None,
            effects: Vec::new(),
        }
    }

    pub(super) fn request(
        &mut self,
        group: Name,
        request: Request,
        reply: oneshot::Sender<Result<Reply, Unavailable>>,
        writer: &Writer,
    ) {
        let call = CallId(self.next_call);
        self.next_call += 1;
        self.calls.insert(call, reply);
        self.step(Input::Request { call, group, request }, writer);
    }

    /// Feeds the core and carries out what follows.
    pub(super) fn step(&mut self, input: Input, writer: &Writer) {
        let mut effects = std::mem::take(&mut self.effects);
        self.core.step(now(), input, &mut effects);
        // All groups are looked at: with very many, that would be all that a test does.
        debug_assert!(self.core.len() > CHECKED_GROUPS_MAX || self.core.invariants() == Ok(()));
        for effect in effects.drain(..) {
            match effect {
                Effect::Append { seq, records } => self.waiting.push_back((seq, records)),
                Effect::Reply { call, reply } => {
                    if let Some(asked) = self.calls.remove(&call) {
                        // Whoever asked may have gone.
                        let _ = asked.send(Ok(reply));
                    }
                }
            }
        }
        self.effects = effects;
        self.write(writer);
    }

    /// Sends the next batch, if none is on its way.
    fn write(&mut self, writer: &Writer) {
        if self.in_flight.is_some() {
            return;
        }
        let mut batch: Vec<Record> = Vec::new();
        let (mut first, mut last, mut bytes) = (None, None, 0);
        while batch.len() < BATCH_RECORDS_MAX
            && let Some((_, records)) = self.waiting.front()
        {
            bytes += records.iter().map(Record::bytes).sum::<usize>();
            if bytes > BATCH_BYTES_MAX && first.is_some() {
                break;
            }
            let Some((seq, records)) = self.waiting.pop_front() else { break };
            batch.extend(records);
            first = first.or(Some(seq));
            last = Some(seq);
        }
        let (Some(first), Some(last)) = (first, last) else { return };
        self.in_flight = Some((first, last));
        let (log, epoch, writer) = (self.log, self.epoch, writer.clone());
        task::spawn("group-append", async move {
            let result = append(&writer.shards, log, epoch, &batch).await;
            // A task that has ended needs no news.
            let _ = writer.written.send(Written { partition: log.partition, epoch, last, result }).await;
        });
    }

    /// Takes in what became of the batch.
    pub(super) fn on_written(&mut self, written: Written, writer: &Writer) -> Fate {
        let Some((first, last)) = self.in_flight.filter(|(_, last)| *last == written.last) else {
            return Fate::Stays;
        };
        self.in_flight = None;
        match written.result {
            Ok(()) => self.step(Input::Committed { seq: last }, writer),
            Err(error) if is_certain(&error) => {
                tracing::warn!(log = %self.log, %error, "a coordinator's records were refused");
                // The core takes back what waits as well.
                self.waiting.clear();
                self.step(Input::AppendFailed { seq: first }, writer);
            }
            // Z29: what is not unloaded outlives its leadership, as if only the last records had been lost with it.
            Err(ShardError::Refused(_)) if defect!(keep_state_on_reload) => self.outlive(first),
            Err(error) => {
                tracing::info!(log = %self.log, %error, "a coordinator ends");
                return Fate::Ends;
            }
        }
        Fate::Stays
    }

    /// Takes back what was not committed, and keeps what follows from that until somebody asks again. Whoever waits is not told.
    fn outlive(&mut self, first: AppendSeq) {
        let (mut effects, waiting) = (Vec::new(), std::mem::take(&mut self.waiting));
        tracing::info!(log = %self.log, lost = waiting.len() + 1, "a coordinator outlives its leadership");
        self.core.step(now(), Input::AppendFailed { seq: first }, &mut effects);
        self.waiting.extend(effects.into_iter().filter_map(|effect| match effect {
            Effect::Append { seq, records } => Some((seq, records)),
            Effect::Reply { .. } => None,
        }));
    }

    /// Answers everybody that another broker, or a later load, is in charge.
    pub(super) fn resign(&mut self, writer: &Writer) {
        self.step(Input::Resign, writer);
        // The core has answered everybody that it knows of.
        for asked in std::mem::take(&mut self.calls).into_values() {
            // Whoever asked may have gone.
            let _ = asked.send(Err(Unavailable::NotCoordinator));
        }
    }
}

/// Whether nothing of the batch is in the log, nor ever will be.
fn is_certain(error: &ShardError) -> bool {
    match error {
        ShardError::Overloaded => true,
        ShardError::Refused(reason) => {
            matches!(reason, FailReason::NotEnoughReplicas | FailReason::TooManyWaiters)
        }
        ShardError::Storage(error) => error.is_no_space() || error.is_refusal(),
        ShardError::UnknownPartition
        | ShardError::OffsetNotAvailable
        | ShardError::Read(_)
        | ShardError::Stopping => false,
    }
}

/// Appends a batch and waits until it is committed, however long that takes: what becomes of it must be known.
async fn append(shards: &Shards, log: LogId, epoch: LeaderEpoch, batch: &[Record]) -> Result<(), ShardError> {
    let batch = records::batch(batch.iter()).map_err(|error| {
        tracing::error!(%log, %error, "a coordinator's records make no batch");
        ShardError::Overloaded
    })?;
    let (reply, answer) = oneshot::channel();
    let part = ProducePart { log, index: 0, batch, log_append_time: false, epoch: Some(epoch) };
    let call = ProduceCall {
        acks: Acks::All,
        deadline: Instant::FAR_FUTURE,
        parts: vec![part],
        charge: Arc::new(Charge::free()),
        reply: Some(reply),
    };
    shards.send(shards.owner_of(log), Message::Produce(Box::new(call))).await?;
    let done = answer.await.map_err(|_| ShardError::Stopping)?;
    done.into_iter().next().map_or(Err(ShardError::Stopping), |done| done.result.map(drop))
}
