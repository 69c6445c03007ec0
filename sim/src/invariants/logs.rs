//! The replicas' logs as their nodes told of them, and what of them is committed.

use std::collections::BTreeMap;

use weir_protocol::fact::BatchName;
use weir_protocol::types::{LeaderEpoch, LogId, Offset};

/// What one replica has.
#[derive(Debug, Default)]
pub(super) struct Replica {
    start: Offset,
    end: Offset,
    durable: Offset,
    /// By the offset of their first record.
    batches: BTreeMap<Offset, BatchName>,
    /// Tails that were cut off, the oldest first, by cuts that are not durable yet: a crash may bring one of them back.
    cut_off: Vec<BTreeMap<Offset, BatchName>>,
    /// Where it was found damaged.
    damaged: Option<Offset>,
    /// What it had when its disk was lost last.
    lost: Option<Box<Replica>>,
}

/// What no replica may lose.
#[derive(Debug, Default)]
struct Committed {
    /// The largest high watermark that any leader ever computed.
    end: Offset,
    /// By the offset of their first record.
    batches: BTreeMap<Offset, BatchName>,
}

/// All replicas of all partitions.
#[derive(Debug, Default)]
pub(super) struct Logs {
    replicas: BTreeMap<(LogId, u32), Replica>,
    committed: BTreeMap<LogId, Committed>,
    /// The records that each epoch has named.
    names: BTreeMap<(LogId, LeaderEpoch), BTreeMap<Offset, BatchName>>,
    /// Below these offsets some replica has compacted the log.
    compacted: BTreeMap<LogId, Offset>,
}

/// Whether two names are of one batch. Below `compacted` it may have lost records, and then has another checksum.
fn is_same(one: &BatchName, other: &BatchName, compacted: Offset) -> bool {
    let unsummed = |batch: &BatchName| BatchName { checksum: 0, ..*batch };
    one == other || one.base < compacted && unsummed(one) == unsummed(other)
}

impl Replica {
    fn cut(&mut self, end: Offset) -> BTreeMap<Offset, BatchName> {
        self.end = self.end.min(end);
        self.durable = self.durable.min(end);
        self.damaged = self.damaged.filter(|from| *from < end);
        self.batches.split_off(&end)
    }

    /// What stands below is durable, and so is every cut below it: the journal keeps their order.
    fn durable(&mut self, end: Offset) {
        self.durable = end;
        self.cut_off.retain(|tail| tail.keys().next().is_some_and(|first| end <= *first));
    }

    /// It was opened, and its last record is of this epoch. If that is not so here, a crash took back the cut that says otherwise.
    fn recall(&mut self, end: Offset, last_epoch: Option<LeaderEpoch>) {
        let ends_so = |batches: &BTreeMap<Offset, BatchName>| {
            let last = batches.range(..end).next_back();
            last.is_some_and(|(_, last)| last.next >= end && Some(last.epoch) == last_epoch)
        };
        let tails = std::mem::take(&mut self.cut_off);
        if let Some(tail) = tails.into_iter().rev().find(ends_so).filter(|_| !ends_so(&self.batches)) {
            let first = tail.keys().next().copied().unwrap_or(end);
            self.batches.split_off(&first);
            self.batches.extend(tail);
        }
    }

    /// Whether the batch stands here, or may be gone.
    fn has(&self, batch: &BatchName, compacted: Offset) -> bool {
        let may_be_gone = batch.base < self.start.max(compacted);
        self.batches.get(&batch.base).map_or(may_be_gone, |own| is_same(own, batch, compacted))
    }

    /// Whether its disk has everything below `end`, as far as the last batch below that tells.
    fn holds(&self, end: Offset, last: Option<&BatchName>, compacted: Offset) -> bool {
        self.durable >= end && last.is_none_or(|batch| batch.base < self.start || self.has(batch, compacted))
    }

    /// Whether every committed record from this one's start on stands here; else the first that does not.
    fn lacks(&self, committed: &Committed, compacted: Offset) -> Option<BatchName> {
        let mut from_start = committed.batches.range(self.start..).map(|(_, batch)| *batch);
        from_start.find(|batch| !self.has(batch, compacted))
    }
}

impl Logs {
    fn replica(&mut self, log: LogId, node: u32) -> &mut Replica {
        self.replicas.entry((log, node)).or_default()
    }

    /// A replica was opened. Returns its durable end of before.
    pub(super) fn opened(
        &mut self,
        log: LogId,
        node: u32,
        (start, end): (Offset, Offset),
        last_epoch: Option<LeaderEpoch>,
    ) -> Offset {
        let replica = self.replica(log, node);
        let durable = replica.durable;
        if end < durable {
            let batches = replica.batches.clone();
            let cut_off = Vec::new();
            replica.lost = Some(Box::new(Replica { batches, cut_off, lost: None, ..*replica }));
        }
        replica.recall(end, last_epoch);
        replica.cut(end);
        replica.damaged = None;
        (replica.start, replica.end, replica.durable) = (start, end, end);
        durable
    }

    /// Batches were appended. Returns two that have one name.
    pub(super) fn appended(
        &mut self,
        log: LogId,
        node: u32,
        batches: &[BatchName],
    ) -> Option<(BatchName, BatchName)> {
        let mut conflict = None;
        let compacted = self.compacted_below(log);
        for batch in batches {
            let names = self.names.entry((log, batch.epoch)).or_default();
            let below = names.range(..batch.next).next_back().map(|(_, known)| *known);
            match below.filter(|known| known.next > batch.base) {
                Some(known) if !is_same(&known, batch, compacted) => {
                    conflict = conflict.or(Some((known, *batch)))
                }
                Some(_) => {}
                None => drop(names.insert(batch.base, *batch)),
            }
            let replica = self.replica(log, node);
            replica.cut(batch.base);
            replica.batches.insert(batch.base, *batch);
            replica.end = batch.next;
        }
        conflict
    }

    /// A log was cut. What was durable nowhere and stands nowhere else was never known by its name.
    pub(super) fn cut(&mut self, log: LogId, node: u32, end: Offset) {
        let durable = self.replica(log, node).durable;
        let compacted = self.compacted_below(log);
        let tail = self.replica(log, node).cut(end);
        if !tail.is_empty() {
            self.replica(log, node).cut_off.push(tail.clone());
        }
        for (base, batch) in tail {
            let elsewhere = self.replicas.range((log, 0)..=(log, u32::MAX));
            let mut elsewhere = elsewhere.filter(|((_, other), _)| *other != node);
            let is_known = elsewhere.any(|(_, other)| {
                other.batches.get(&base).is_some_and(|other| is_same(other, &batch, compacted))
            });
            if base >= durable
                && !is_known
                && let Some(names) = self.names.get_mut(&(log, batch.epoch))
            {
                names.remove(&base);
            }
        }
    }

    pub(super) fn damaged(&mut self, log: LogId, node: u32, from: Offset) {
        self.replica(log, node).damaged = Some(from);
    }

    /// Whether a node's replica is damaged, as it said last.
    pub(super) fn is_damaged(&self, log: LogId, node: u32) -> bool {
        self.replicas.get(&(log, node)).is_some_and(|replica| replica.damaged.is_some())
    }

    pub(super) fn starts(&mut self, log: LogId, node: u32, start: Offset) {
        let replica = self.replica(log, node);
        replica.start = replica.start.max(start);
        // Beyond the end it is another log, which is kept when that is told.
        if start <= replica.end {
            replica.durable = replica.durable.max(start);
        }
        replica.end = replica.end.max(start);
    }

    pub(super) fn durable(&mut self, log: LogId, node: u32, end: Offset) {
        self.replica(log, node).durable(end);
    }

    /// A leader's high watermark is here. Returns what it calls committed where something else was.
    pub(super) fn commit(&mut self, log: LogId, node: u32, end: Offset) -> Option<(BatchName, BatchName)> {
        let compacted = self.compacted_below(log);
        let committed = self.committed.entry(log).or_default();
        let replica = self.replicas.entry((log, node)).or_default();
        let before = committed.end;
        committed.end = before.max(end);
        let mut conflict = None;
        for (base, batch) in replica.batches.range(before..end.max(before)) {
            let known = *committed.batches.entry(*base).or_insert(*batch);
            if !is_same(&known, batch, compacted) {
                conflict = conflict.or(Some((known, *batch)));
            }
        }
        conflict
    }

    /// The largest high watermark so far.
    pub(super) fn committed_end(&self, log: LogId) -> Offset {
        self.committed.get(&log).map_or(0, |committed| committed.end)
    }

    /// Whether a node's disk holds everything below `end`, as far as the last committed batch tells.
    pub(super) fn holds(&self, log: LogId, node: u32, end: Offset) -> bool {
        let Some(replica) = self.replicas.get(&(log, node)) else { return end <= 0 };
        replica.holds(end, self.last_below(log, end), self.compacted_below(log))
    }

    /// Whether a node's disk held everything below `end` before it was lost: the leader may hear of that later.
    pub(super) fn held(&self, log: LogId, node: u32, end: Offset) -> bool {
        let lost = self.replicas.get(&(log, node)).and_then(|replica| replica.lost.as_ref());
        lost.is_some_and(|lost| lost.holds(end, self.last_below(log, end), self.compacted_below(log)))
    }

    fn last_below(&self, log: LogId, end: Offset) -> Option<&BatchName> {
        let committed = self.committed.get(&log)?;
        committed.batches.range(..end).next_back().map(|(_, batch)| batch)
    }

    /// A replica compacts its log.
    pub(super) fn compacted(&mut self, log: LogId, below: Offset) {
        let compacted = self.compacted.entry(log).or_default();
        *compacted = below.max(*compacted);
    }

    fn compacted_below(&self, log: LogId) -> Offset {
        self.compacted.get(&log).copied().unwrap_or(0)
    }

    /// A committed batch that a replica should have and does not.
    pub(super) fn lacks(&self, log: LogId, node: u32) -> Option<BatchName> {
        let committed = self.committed.get(&log)?;
        match self.replicas.get(&(log, node)) {
            Some(replica) => replica.lacks(committed, self.compacted_below(log)),
            None => committed.batches.values().next().copied(),
        }
    }
}
