//! One step of a replica: an input goes in, and what follows from it is carried out.

use std::sync::Arc;

use weir_protocol::fact::Fact;
use weir_protocol::partition::{Effect, Input, WaiterId};
use weir_protocol::types::{LeaderEpoch, LogId, Offset};
use weir_runtime::{simulation, time};
use weir_storage::{AppendInfo, StorageError, producer_batch};
use weir_wire::records;

use super::calls::Produces;
use super::entry::{Entry, Open, failure};
use super::owner::Owner;
use crate::metrics::Metrics;

impl Owner {
    /// Feeds one input to a replica and carries out what follows from it. `cause` is what storage said, if it failed.
    pub(super) fn step(&mut self, log: LogId, input: Input, cause: Option<&Arc<StorageError>>) {
        let Some(Entry::Open(open)) = self.entries.get_mut(&log) else { return };
        let mut effects = std::mem::take(&mut self.effects);
        open.core.step(input, &mut effects);
        let mut at = 0;
        let mut refusal: Option<Arc<StorageError>> = None;
        let mut reported = false;
        while at < effects.len() {
            let effect = std::mem::replace(&mut effects[at], Effect::HighWatermark(0));
            at += 1;
            let Some(Entry::Open(open)) = self.entries.get_mut(&log) else { break };
            let written = match effect {
                Effect::WriteLog { waiter, base_offset, epoch } => {
                    write(open, &mut self.produces, &self.metrics, (waiter, base_offset, epoch))
                        .map_err(|error| (base_offset, error))
                }
                Effect::WriteFetched { .. } => self.write_fetched(log),
                Effect::ReportProgress { .. } => {
                    reported = true;
                    Ok(())
                }
                effect => {
                    self.carry_out(log, effect, refusal.as_ref().or(cause));
                    Ok(())
                }
            };
            if let Err((from, error)) = written {
                tracing::debug!(%log, from, %error, "an append was refused");
                refusal = Some(Arc::new(error));
                if let Some(Entry::Open(open)) = self.entries.get_mut(&log) {
                    open.core.step(Input::AppendFailed { from }, &mut effects);
                }
            }
        }
        effects.clear();
        self.effects = effects;
        if let Some(Entry::Open(open)) = self.entries.get(&log) {
            debug_assert_eq!(open.core.invariants(), Ok(()));
        }
        self.show(log, reported);
    }

    /// Carries out an effect that cannot fail.
    fn carry_out(&mut self, log: LogId, effect: Effect, cause: Option<&Arc<StorageError>>) {
        let Some(Entry::Open(open)) = self.entries.get_mut(&log) else { return };
        match effect {
            Effect::BeginEpoch { epoch, .. } => open.log.begin_epoch(epoch),
            Effect::Truncate { to } => {
                let epoch = open.core.epoch();
                simulation::situation("follower truncated");
                simulation::observe(|| Fact::Truncated { log, epoch, to });
                self.metrics.truncations.increment();
                open.log.truncate(to);
            }
            Effect::AdvanceStart { start } => open.log.set_start(start),
            Effect::HighWatermark(high_watermark) => {
                simulation::observe(|| Fact::HighWatermark {
                    log,
                    epoch: open.core.epoch(),
                    high_watermark,
                    durable_end: open.log.durable_end(),
                });
                open.watchers.wake();
            }
            Effect::CompleteAppend { waiter, base_offset } => {
                self.produces.finish(waiter, Ok((base_offset, open.core.start())));
            }
            Effect::FailAppend { waiter, reason } => {
                self.produces.finish(waiter, Err(failure(reason, cause)));
            }
            Effect::ForgetProducers(producers) => {
                self.metrics.producers_expired.add(producers.len() as u64);
                open.log.forget_producers(producers);
            }
            Effect::ProposeIsr { epoch, partition_epoch, isr } => {
                self.propose_isr(log, (epoch, partition_epoch), isr);
            }
            Effect::RequestNewEpoch { epoch } => self.changes.renew(log, epoch),
            Effect::WriteLog { .. } | Effect::WriteFetched { .. } | Effect::ReportProgress { .. } => {}
        }
    }

    /// Appends what a leader has sent. An error comes with the offset from which on nothing was written.
    fn write_fetched(&mut self, log: LogId) -> Result<(), (Offset, StorageError)> {
        let Some(Entry::Open(open)) = self.entries.get_mut(&log) else { return Ok(()) };
        for (bytes, info) in self.appends.drain(..) {
            let from = info.base_offset;
            let size_bytes = u64::from(info.bytes);
            open.log.append(vec![bytes], info).map_err(|error| (from, error))?;
            self.metrics.replica_bytes_appended.add(size_bytes);
        }
        Ok(())
    }
}

/// Writes the records of a waiter: base offset and leader epoch are filled in, the rest is what the client sent.
fn write(
    open: &mut Open,
    produces: &mut Produces,
    metrics: &Metrics,
    (waiter, base_offset, epoch): (WaiterId, Offset, LeaderEpoch),
) -> Result<(), StorageError> {
    let Some((batch, log_append_time)) = produces.take_batch(waiter) else { return Ok(()) };
    let append_time_ms = log_append_time.then(time::wall_ms);
    let assigned = records::assign(&batch, base_offset, epoch, append_time_ms);
    if let Some(at_ms) = append_time_ms {
        produces.note_append_time(waiter, at_ms);
    }
    let bytes = assigned.header.size_bytes();
    let info = AppendInfo {
        base_offset,
        last_offset: assigned.header.last_offset(),
        leader_epoch: epoch,
        max_timestamp_ms: assigned.header.max_timestamp_ms,
        bytes: bytes as u32,
        producers: producer_batch(&assigned.header).into_iter().collect(),
    };
    open.log.append(Vec::from(assigned.chunks), info)?;
    metrics.batches_appended.increment();
    metrics.bytes_appended.add(bytes as u64);
    Ok(())
}
