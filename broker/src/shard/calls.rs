//! Requests that a shard has taken in and not answered yet.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::oneshot;
use weir_protocol::partition::{Acks, WaiterId};
use weir_protocol::types::{LeaderEpoch, LogId};
use weir_runtime::time::{Instant, TimerId, TimerQueue};
use weir_wire::records::Batch;

use super::{
    Appended, DeleteRecordsCall, FetchCall, OffsetsCall, ProduceCall, ProduceDone, ProducersCall, ShardError,
    TailsCall,
};
use crate::server::budget::Charge;

/// Values with small numbers that are used again.
#[derive(Debug)]
pub(super) struct Slab<T> {
    slots: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Slab<T> {
    pub(super) fn new() -> Slab<T> {
        Slab { slots: Vec::new(), free: Vec::new() }
    }

    pub(super) fn insert(&mut self, value: T) -> u32 {
        if let Some(number) = self.free.pop() {
            self.slots[number as usize] = Some(value);
            return number;
        }
        self.slots.push(Some(value));
        (self.slots.len() - 1) as u32
    }

    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        self.slots.get_mut(number as usize)?.as_mut()
    }

    pub(super) fn remove(&mut self, number: u32) -> Option<T> {
        let value = self.slots.get_mut(number as usize)?.take()?;
        self.free.push(number);
        Some(value)
    }
}

/// One partition of a produce request.
pub(super) struct PendingPart {
    pub(super) log: LogId,
    index: u32,
    /// Until it is written.
    batch: Option<Batch>,
    pub(super) log_append_time: bool,
    epoch: Option<LeaderEpoch>,
    log_append_time_ms: i64,
    result: Option<Result<Appended, ShardError>>,
}

struct Pending {
    parts: Vec<PendingPart>,
    /// Parts without a result.
    open: usize,
    reply: Option<oneshot::Sender<Vec<ProduceDone>>>,
    timer: Option<TimerId>,
    acks: Acks,
    /// Given back when the last part has its result.
    _charge: Arc<Charge>,
}

/// Produce requests that wait for their partitions.
///
/// A waiter's id is the request's number and the part's place in it. Numbers are never used again: a part that waits
/// until its log is open may outlive its request, which was answered that it took too long.
pub(super) struct Produces {
    calls: BTreeMap<u64, Pending>,
    next: u64,
    timers: TimerQueue<u64>,
}

/// Bits of a waiter's id that hold the part. A request is far too small for more parts.
const PART_BITS: u32 = 24;

pub(super) fn waiter_id(call: u64, part: usize) -> WaiterId {
    WaiterId(call << PART_BITS | part as u64)
}

fn place(waiter: WaiterId) -> (u64, usize) {
    (waiter.0 >> PART_BITS, (waiter.0 & ((1 << PART_BITS) - 1)) as usize)
}

impl Produces {
    pub(super) fn new() -> Produces {
        Produces { calls: BTreeMap::new(), next: 0, timers: TimerQueue::new() }
    }

    /// Takes a request in. Returns its number and its partitions.
    pub(super) fn insert(&mut self, call: ProduceCall) -> (u64, Vec<LogId>) {
        let logs: Vec<LogId> = call.parts.iter().map(|part| part.log).collect();
        let waits_for_ever = call.reply.is_none() || call.deadline == Instant::FAR_FUTURE;
        let deadline = (!waits_for_ever).then_some(call.deadline);
        let parts: Vec<PendingPart> = call
            .parts
            .into_iter()
            .map(|part| PendingPart {
                log: part.log,
                index: part.index,
                batch: Some(part.batch),
                log_append_time: part.log_append_time,
                epoch: part.epoch,
                log_append_time_ms: -1,
                result: None,
            })
            .collect();
        let number = self.next;
        self.next += 1;
        let timer = deadline.map(|at| self.timers.insert(at, number));
        let pending = Pending {
            open: parts.len(),
            parts,
            reply: call.reply,
            timer,
            acks: call.acks,
            _charge: call.charge,
        };
        self.calls.insert(number, pending);
        (number, logs)
    }

    pub(super) fn acks(&self, call: u64) -> Option<Acks> {
        self.calls.get(&call).map(|pending| pending.acks)
    }

    /// The records of a waiter, once, and whether the broker's time goes into them.
    pub(super) fn take_batch(&mut self, waiter: WaiterId) -> Option<(Batch, bool)> {
        let part = self.part(waiter)?;
        Some((part.batch.take()?, part.log_append_time))
    }

    pub(super) fn note_append_time(&mut self, waiter: WaiterId, at_ms: i64) {
        if let Some(part) = self.part(waiter) {
            part.log_append_time_ms = at_ms;
        }
    }

    /// The records of a waiter as long as they are not written, and the leader epoch that they are meant for.
    pub(super) fn batch(&mut self, waiter: WaiterId) -> Option<(&Batch, Option<LeaderEpoch>)> {
        let part = self.part(waiter)?;
        Some((part.batch.as_ref()?, part.epoch))
    }

    fn part(&mut self, waiter: WaiterId) -> Option<&mut PendingPart> {
        let (call, part) = place(waiter);
        self.calls.get_mut(&call)?.parts.get_mut(part)
    }

    /// Notes the outcome of one part; the last one answers the request.
    pub(super) fn finish(&mut self, waiter: WaiterId, result: Result<(i64, i64), ShardError>) {
        let (number, part) = place(waiter);
        let Some(pending) = self.calls.get_mut(&number) else { return };
        let Some(part) = pending.parts.get_mut(part) else { return };
        if part.result.is_some() {
            return;
        }
        let log_append_time_ms = part.log_append_time_ms;
        part.result = Some(result.map(|(base_offset, log_start)| Appended {
            base_offset,
            log_append_time_ms,
            log_start,
        }));
        part.batch = None;
        pending.open -= 1;
        if pending.open == 0
            && let Some(pending) = self.calls.remove(&number)
        {
            if let Some(timer) = pending.timer {
                self.timers.cancel(timer);
            }
            pending.answer();
        }
    }

    /// When the next request has waited long enough.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// The parts of the next request that has waited long enough and still waits.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<Vec<(LogId, WaiterId)>> {
        let number = self.timers.pop_due(now)?;
        let Some(pending) = self.calls.get_mut(&number) else { return Some(Vec::new()) };
        pending.timer = None;
        let waiting = pending.parts.iter().enumerate().filter(|(_, part)| part.result.is_none());
        Some(waiting.map(|(place, part)| (part.log, waiter_id(number, place))).collect())
    }

    /// Answers everything that waits: the shard ends.
    pub(super) fn stop(&mut self) {
        for mut pending in std::mem::take(&mut self.calls).into_values() {
            for part in &mut pending.parts {
                part.result.get_or_insert(Err(ShardError::Stopping));
            }
            pending.answer();
        }
    }
}

impl Pending {
    fn answer(self) {
        let Some(reply) = self.reply else { return };
        let done = self
            .parts
            .into_iter()
            .filter_map(|part| part.result.map(|result| ProduceDone { index: part.index, result }))
            .collect();
        // Whoever asked may have gone.
        let _ = reply.send(done);
    }
}

/// A question that waits until its partitions are open.
pub(super) enum Question {
    Fetch(Box<FetchCall>),
    Offsets(Box<OffsetsCall>),
    DeleteRecords(Box<DeleteRecordsCall>),
    Producers(Box<ProducersCall>),
    Tails(Box<TailsCall>),
}

/// A question and the number of its partitions that are not open yet.
pub(super) struct Parked {
    pub(super) question: Question,
    pub(super) missing: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_used_again_only_after_it_was_freed() {
        let mut slab = Slab::new();
        let (first, second) = (slab.insert('a'), slab.insert('b'));
        assert_ne!(first, second);
        assert_eq!(slab.remove(first), Some('a'));
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.insert('c'), first);
        assert_eq!(slab.get_mut(second), Some(&mut 'b'));
    }

    #[test]
    fn a_waiters_id_names_request_and_part() {
        assert_eq!(place(waiter_id(7, 9)), (7, 9));
        assert_eq!(place(waiter_id(1 << 39, 0)), (1 << 39, 0));
    }
}
