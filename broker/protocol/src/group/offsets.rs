//! The committed offsets of one group.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::interface::{AppendSeq, CommittedOffset, Name};

/// A partition, by its topic's name.
pub(super) type Partition = (Name, i32);

/// What is committed for a partition, and what is on its way.
///
/// What was appended counts as the latest at once, so that later decisions see it; it is shown to others when it is
/// committed, and leaves no trace if it is not (contract 10).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Entry {
    committed: Option<CommittedOffset>,
    /// Invariant: in the order of the appends.
    pending: VecDeque<(AppendSeq, Option<CommittedOffset>)>,
}

impl Entry {
    fn latest(&self) -> Option<&CommittedOffset> {
        self.pending.back().map_or(self.committed.as_ref(), |(_, value)| value.as_ref())
    }
}

/// The offsets of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Offsets {
    entries: BTreeMap<Partition, Entry>,
}

impl Offsets {
    /// An offset that was committed, as others see it.
    pub(super) fn committed(&self, topic: &str, partition: i32) -> Option<&CommittedOffset> {
        // The map's key owns its name.
        self.entries.get(&(Name::from(topic), partition))?.committed.as_ref()
    }

    /// All that are committed.
    pub(super) fn all_committed(&self) -> impl Iterator<Item = (&Partition, &CommittedOffset)> {
        self.entries.iter().filter_map(|(partition, entry)| Some((partition, entry.committed.as_ref()?)))
    }

    /// The partitions that have an offset once all that is on its way has arrived.
    pub(super) fn latest(&self) -> impl Iterator<Item = (&Partition, &CommittedOffset)> {
        self.entries.iter().filter_map(|(partition, entry)| Some((partition, entry.latest()?)))
    }

    /// Whether nothing is there and nothing on its way.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether anything is on its way.
    pub(super) fn has_pending(&self) -> bool {
        self.entries.values().any(|entry| !entry.pending.is_empty())
    }

    /// A record of the log, when it is loaded.
    pub(super) fn load(&mut self, topic: Name, partition: i32, value: Option<CommittedOffset>) {
        match value {
            Some(value) => self.entries.entry((topic, partition)).or_default().committed = Some(value),
            None => drop(self.entries.remove(&(topic, partition))),
        }
    }

    /// A value is on its way.
    pub(super) fn append(&mut self, seq: AppendSeq, partition: Partition, value: Option<CommittedOffset>) {
        self.entries.entry(partition).or_default().pending.push_back((seq, value));
    }

    /// The append has arrived.
    pub(super) fn commit(&mut self, seq: AppendSeq, partition: &Partition) {
        let Some(entry) = self.entries.get_mut(partition) else { return };
        while let Some((_, value)) = entry.pending.pop_front_if(|(pending, _)| *pending <= seq) {
            entry.committed = value;
        }
        self.sweep(partition);
    }

    /// The append was not kept, and none of the later ones.
    pub(super) fn revert(&mut self, seq: AppendSeq, partition: &Partition) {
        let Some(entry) = self.entries.get_mut(partition) else { return };
        entry.pending.retain(|(pending, _)| *pending < seq);
        self.sweep(partition);
    }

    fn sweep(&mut self, partition: &Partition) {
        let gone = |entry: &Entry| entry.committed.is_none() && entry.pending.is_empty();
        if self.entries.get(partition).is_some_and(gone) {
            self.entries.remove(partition);
        }
    }

    /// The partitions of these topics that have an offset.
    pub(super) fn of_topic<'a>(&'a self, topic: &'a str) -> impl Iterator<Item = &'a Partition> {
        self.latest().map(|(partition, _)| partition).filter(move |(name, _)| **name == *topic)
    }

    /// The topics that have an offset.
    pub(super) fn topics(&self) -> BTreeSet<Name> {
        self.latest().map(|((topic, _), _)| topic.clone()).collect()
    }
}
