//! Damage in a replica's log (contract 7).
//!
//! Nothing is altered while the replica counts for anything: it first asks the controller to take it out of the ISR and of
//! those that may lead. While it is leaving it posts no position, and whoever leads then does so in a new epoch, so that
//! only what it shows from then on earns credit. Then the log is cut where the damage begins, and fetched again from
//! there. As long as nobody else could lead, the rest is served, and reads of the damage fail.

use bytes::BytesMut;
use weir_protocol::fact::Fact;
use weir_protocol::metadata::{ClusterCommand, IsrMember};
use weir_protocol::partition::Input;
use weir_protocol::types::{LogId, Offset};
use weir_runtime::{simulation, task};
use weir_storage::{ReadError, ReadPlan};
use weir_wire::records;

use super::entry::{Entry, Open};
use super::owner::Owner;
use super::replicate::post;
use crate::controller::ChangeOutcome;

/// What is read at a time while the beginning of the damage is looked for.
const LOOK_BYTES: usize = 1 << 20;

/// How far a damaged replica is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repair {
    /// The damage lies above this offset; where it begins is being looked for.
    Looking { from: Offset },
    /// It begins here.
    Known { from: Offset },
    /// The controller was asked to take the replica out.
    Leaving { from: Offset },
    /// It has, in this entry of the metadata quorum's log.
    Left { from: Offset, index: i64 },
}

/// What a read has found.
pub(super) enum Looked {
    /// Good records up to here.
    Good(Offset),
    /// Damage from here on.
    Damaged(Offset),
    /// The log has changed meanwhile.
    Changed,
    /// It cannot be read now.
    Failed(ReadError),
}

impl Repair {
    /// Whether it must not be counted any more.
    pub(super) fn is_leaving(&self) -> bool {
        matches!(self, Repair::Leaving { .. } | Repair::Left { .. })
    }
}

impl Owner {
    /// What was found when the log was opened.
    pub(super) fn on_opened_damaged(&mut self, log: LogId) {
        let Some(Entry::Open(open)) = self.entries.get(&log) else { return };
        if let Some(from) = open.log.damaged().iter().map(|range| range.start).min() {
            self.on_damage(log, from);
        }
    }

    /// A log is damaged at `from`, or a little below. A replica without others keeps what it has.
    pub(super) fn on_damage(&mut self, log: LogId, from: Offset) {
        let Some(Entry::Open(open)) = self.entries.get_mut(&log) else { return };
        if open.repair.is_some() || !self.replicated.contains(&log) {
            return;
        }
        // What was read may begin in the midst of it.
        let bases = open.log.segments().map(|(base, _)| base);
        let base = bases.take_while(|base| *base <= from).last().unwrap_or(from);
        let from = base.max(open.log.start());
        simulation::situation("a replica found damage");
        open.repair = Some(Repair::Looking { from });
        self.damaged.insert(log);
        self.repair(log);
    }

    /// Goes on with all that are damaged.
    pub(super) fn repair_all(&mut self) {
        for log in self.damaged.clone() {
            self.repair(log);
        }
    }

    /// Goes on with a damaged replica, as far as that is possible now.
    pub(super) fn repair(&mut self, log: LogId) {
        if !self.damaged.contains(&log) {
            return;
        }
        let Some(Entry::Open(open)) = self.entries.get_mut(&log) else { return };
        match open.repair {
            Some(Repair::Looking { from }) if !self.looking => {
                self.looking = look(log, open, from, self.looked_to.clone(), &self.store);
                if !self.looking {
                    self.forget_damage(log);
                }
            }
            Some(Repair::Known { from }) => self.leave_isr(log, from),
            Some(Repair::Left { from, index }) => self.cut_damage(log, from, index),
            Some(Repair::Looking { .. } | Repair::Leaving { .. }) | None => {}
        }
    }

    fn forget_damage(&mut self, log: LogId) {
        self.damaged.remove(&log);
        if let Some(Entry::Open(open)) = self.entries.get_mut(&log) {
            open.repair = None;
        }
    }

    pub(super) fn on_looked(&mut self, log: LogId, looked: Looked) {
        self.looking = false;
        let Some(Entry::Open(open)) = self.entries.get_mut(&log) else { return self.repair_all() };
        let Some(Repair::Looking { from }) = open.repair else { return self.repair_all() };
        match looked {
            Looked::Good(next) if next > from && next < open.log.end() => {
                open.repair = Some(Repair::Looking { from: next });
            }
            Looked::Damaged(from) => {
                tracing::error!(%log, from, "this replica is damaged: it is fetched again from there once others lead");
                simulation::observe(|| Fact::Damaged { log, from });
                open.repair = Some(Repair::Known { from });
            }
            Looked::Good(_) | Looked::Changed => self.forget_damage(log),
            // The next tick tries again.
            Looked::Failed(error) => {
                tracing::warn!(%log, %error, "a damaged log cannot be read");
                return;
            }
        }
        self.repair(log);
        self.repair_all();
    }

    /// Asks to be taken out, if somebody else could lead.
    fn leave_isr(&mut self, log: LogId, from: Offset) {
        let Some(broker_epoch) = self.image.own_epoch() else { return };
        let Some(Entry::Open(open)) = self.entries.get_mut(&log) else { return };
        if open.asking || !self.image.another_could_lead(log, self.me) {
            return;
        }
        open.asking = true;
        open.repair = Some(Repair::Leaving { from });
        post(log, open, false, &self.mailboxes);
        simulation::situation("a damaged replica leaves");
        let command = ClusterCommand::LeaveIsr { log, member: IsrMember { broker: self.me, broker_epoch } };
        self.changes.request(log, command, self.changed_to.clone());
    }

    /// The controller has answered.
    pub(super) fn on_left(&mut self, log: LogId, outcome: &ChangeOutcome) {
        let Some(Entry::Open(open)) = self.entries.get_mut(&log) else { return };
        let Some(Repair::Leaving { from }) = open.repair else { return };
        match outcome {
            ChangeOutcome::Applied(index) => {
                open.repair = Some(Repair::Left { from, index: *index });
                self.repair(log);
            }
            // Nothing was altered: it counts as before, until the next tick asks again.
            ChangeOutcome::Refused(_) | ChangeOutcome::NotDone | ChangeOutcome::Unknown => {
                open.repair = Some(Repair::Known { from });
                post(log, open, false, &self.mailboxes);
            }
        }
    }

    /// Cuts the damage away once this replica knows that it counts for nothing.
    fn cut_damage(&mut self, log: LogId, from: Offset, index: i64) {
        let Some((partition, _)) = self.image.decided(log) else { return };
        let Some(Entry::Open(open)) = self.entries.get_mut(&log) else { return };
        let is_current = self.image.current().image.applied().is_some_and(|applied| applied >= index);
        if !is_current || open.core.epoch() != partition.leader_epoch {
            return;
        }
        if partition.candidates().any(|id| id == self.me) || open.core.is_leader() {
            open.repair = Some(Repair::Known { from });
            return self.repair(log);
        }
        if partition.leader.is_none() {
            // Whom to fetch from?
            return;
        }
        self.forget_damage(log);
        self.metrics.replicas_repaired.increment();
        simulation::situation("damage cut, to be fetched again");
        tracing::warn!(%log, from, "damage is cut and fetched again");
        self.step(log, Input::Damaged { from }, None);
    }
}

/// Starts to read from `from` on. Returns whether it could.
fn look(
    log: LogId,
    open: &Open,
    from: Offset,
    done: tokio::sync::mpsc::Sender<(LogId, Looked)>,
    store: &weir_storage::Store,
) -> bool {
    let Ok(plan) = open.log.read(from, LOOK_BYTES, open.log.end(), true) else { return false };
    let disk = store.disk().clone();
    task::spawn("look-for-damage", async move {
        let looked = run(plan, &disk, from).await;
        // A shard that has ended repairs nothing more.
        let _ = done.send((log, looked)).await;
    });
    true
}

async fn run(plan: ReadPlan, disk: &weir_runtime::disk::Disk, from: Offset) -> Looked {
    match plan.run(disk).await {
        Ok(chunks) => {
            let mut bytes = BytesMut::new();
            chunks.iter().for_each(|chunk| bytes.extend_from_slice(chunk));
            let ends = records::batches(bytes.freeze()).filter_map(Result::ok);
            Looked::Good(ends.map(|batch| batch.header.next_offset()).last().unwrap_or(from))
        }
        Err(ReadError::Corrupt { from, .. }) => Looked::Damaged(from),
        Err(ReadError::Changed(_)) => Looked::Changed,
        Err(error) => Looked::Failed(error),
    }
}
