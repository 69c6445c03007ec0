//! Invariants that no node can check alone: they speak of several nodes, or of several lives of one.
//!
//! Nodes tell facts ([`weir_protocol::fact::Fact`]) as they happen; here they are held against each other. What one replica can
//! check by itself is asserted where it happens (`Partition::invariants`, `Raft::invariants`).

use std::collections::BTreeMap;

use bytes::Bytes;
use weir_protocol::fact::Fact;
use weir_protocol::raft::{Index, Term};
use weir_protocol::types::{BrokerId, LeaderEpoch, LogId, Offset};
use weir_runtime::simulation::Observation;

use crate::report::Finding;

/// A process: the number of its node, and how many that has had.
type Process = (u32, u64);

/// What the nodes have told so far, and what of it cannot all be true.
#[derive(Debug, Default)]
pub struct Invariants {
    /// Disks lie in this run: then a restarted node may know less than it did.
    forgetful: bool,
    /// Who led a partition in an epoch.
    leaders: BTreeMap<(LogId, LeaderEpoch), Process>,
    /// The latest epoch of each partition that a leader was seen in.
    epochs: BTreeMap<LogId, LeaderEpoch>,
    /// The high watermark that each process has told last.
    told: BTreeMap<(LogId, Process), Offset>,
    /// The highest of all high watermarks.
    high_watermarks: BTreeMap<LogId, Offset>,
    quorum_leaders: BTreeMap<Term, Process>,
    committed: BTreeMap<Index, (Term, Bytes)>,
    broker_epochs: BTreeMap<BrokerId, (i64, Process)>,
    findings: Vec<Finding>,
}

impl Invariants {
    /// Nothing was told yet. `forgetful`: whether damage was done to disks.
    pub fn new(forgetful: bool) -> Invariants {
        Invariants { forgetful, ..Invariants::default() }
    }

    /// Takes in what a node told; facts of other types are not meant for this.
    pub fn take(&mut self, observation: &Observation) {
        if let Some(fact) = observation.fact.downcast_ref::<Fact>() {
            let at_ms = observation.at.since_origin().as_secs_f64() * 1e3;
            self.check((observation.node.number(), observation.incarnation), at_ms, fact);
        }
    }

    /// What cannot all be true.
    pub fn findings(self) -> Vec<Finding> {
        self.findings
    }

    fn check(&mut self, process: Process, at_ms: f64, fact: &Fact) {
        let broken = match fact {
            Fact::Opened { log, end, .. } => self.opened(*log, *end),
            Fact::Leads { log, epoch } => self.leads(process, *log, *epoch),
            Fact::HighWatermark { log, high_watermark, durable_end, .. } => {
                self.high_watermark(process, *log, *high_watermark, *durable_end)
            }
            Fact::LeadsQuorum { term } => one_of_each(&mut self.quorum_leaders, *term, process)
                .map(|other| ("two-quorum-leaders", format!("term {term} has two leaders, {other:?} too"))),
            Fact::Committed { index, term, payload } => self.committed(*index, *term, payload),
            Fact::Registered { broker, epoch } => self.registered(process, *broker, *epoch),
            Fact::Follows { .. } | Fact::Truncated { .. } | Fact::Durable { .. } | Fact::InSync { .. } => {
                None
            }
        };
        if let Some((name, text)) = broken {
            let (node, incarnation) = process;
            let text =
                format!("{text}; told by process {incarnation} of node {node} at {at_ms:.3} ms: {fact:?}");
            // The first of a kind says what went wrong; the others follow from it.
            if self.findings.iter().all(|finding| finding.name != name) {
                self.findings.push(Finding::new(name, text));
            }
        }
    }

    /// What consumers may have seen is still there after a restart: a replica never opens below a high watermark.
    fn opened(&mut self, log: LogId, end: Offset) -> Option<(&'static str, String)> {
        let seen = self.high_watermarks.get(&log).copied().unwrap_or(0);
        (end < seen && !self.forgetful)
            .then(|| ("lost-watermark", format!("{log} ends at {end}, its high watermark was at {seen}")))
    }

    /// At most one process leads a partition in an epoch, and epochs do not go back.
    fn leads(&mut self, process: Process, log: LogId, epoch: LeaderEpoch) -> Option<(&'static str, String)> {
        let latest = self.epochs.entry(log).or_insert(epoch);
        let went_back = *latest > epoch && !self.forgetful;
        *latest = epoch.max(*latest);
        let latest = *latest;
        match one_of_each(&mut self.leaders, (log, epoch), process) {
            Some(other) if !self.forgetful => {
                Some(("two-leaders", format!("{log} has two leaders in epoch {epoch}, {other:?} too")))
            }
            _ => went_back.then(|| ("epoch-went-back", format!("{log} was in epoch {latest} already"))),
        }
    }

    /// Only what is durable is ever shown, and a leader never takes back what it has shown.
    fn high_watermark(
        &mut self,
        process: Process,
        log: LogId,
        high_watermark: Offset,
        durable_end: Offset,
    ) -> Option<(&'static str, String)> {
        let highest = self.high_watermarks.entry(log).or_default();
        *highest = high_watermark.max(*highest);
        let before = self.told.insert((log, process), high_watermark).unwrap_or(0);
        if high_watermark > durable_end {
            let text =
                format!("{log} shows records up to {high_watermark}, durable are those to {durable_end}");
            return Some(("ghost-watermark", text));
        }
        (high_watermark < before)
            .then(|| ("watermark-went-back", format!("the high watermark of {log} was at {before}")))
    }

    /// All nodes agree for ever on what stands at an index. Unless disks lie: when the only copy's last entry and its checkpoint are
    /// both damaged, the entry cannot be told from a torn one, and the start says that it is not certain (seed 4696).
    fn committed(&mut self, index: Index, term: Term, payload: &Bytes) -> Option<(&'static str, String)> {
        let (known_term, known) = self.committed.entry(index).or_insert_with(|| (term, payload.clone()));
        ((*known_term != term || known != payload) && !self.forgetful).then(|| {
            ("two-entries", format!("another entry, of term {known_term}, was committed at {index}"))
        })
    }

    /// Each process of a broker has a greater epoch than the one before.
    fn registered(
        &mut self,
        process: Process,
        broker: BrokerId,
        epoch: i64,
    ) -> Option<(&'static str, String)> {
        let before = self.broker_epochs.insert(broker, (epoch, process));
        before
            .filter(|(known, other)| *other != process && *known >= epoch)
            .filter(|_| !self.forgetful)
            .map(|(known, _)| ("broker-epoch-went-back", format!("{broker} had epoch {known} before")))
    }
}

/// Notes that `process` is the one; returns another that was before.
fn one_of_each<K: Ord>(known: &mut BTreeMap<K, Process>, key: K, process: Process) -> Option<Process> {
    let first = *known.entry(key).or_insert(process);
    (first != process).then_some(first)
}

#[cfg(test)]
#[path = "invariants_tests.rs"]
mod tests;
