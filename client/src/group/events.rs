//! What a poll learns and starts: rebalances that arrive, commits that are due, committed offsets that are looked up.

use std::collections::BTreeMap;

use weir_runtime::time;

use super::membership::Notice;
use super::{CommittedOffset, GroupConsumer, Rebalance};
use crate::TopicPartition;
use crate::consumer::Start;
use crate::error::Error;

/// The end of something that was started by a poll.
pub(super) enum Event {
    Located {
        arrived: u64,
        asked: Vec<TopicPartition>,
        found: Result<BTreeMap<TopicPartition, CommittedOffset>, Error>,
    },
    Committed(Result<(), Error>),
}

impl GroupConsumer {
    pub(super) fn on_notice(&mut self, notice: Notice) {
        match notice {
            Notice::Failed(error) => self.failed = Some(error),
            Notice::Rebalance { number, losses, rebalance } => {
                (self.arrived, self.losses) = (number, losses);
                match &rebalance {
                    Rebalance::Assigned { partitions, .. } => {
                        self.revoked.retain(|partition, _| !partitions.contains(partition));
                        self.unlocated.extend(partitions.iter().cloned());
                    }
                    Rebalance::Revoked { partitions, .. } => {
                        let places =
                            partitions.iter().map(|partition| (partition.clone(), self.place(partition)));
                        let places: Vec<_> = places.collect();
                        self.revoked.extend(places);
                        self.remove(partitions);
                        self.commit_again = self.config.auto_commit.is_some();
                    }
                    Rebalance::Lost { partitions } => {
                        self.remove(partitions);
                        self.revoked.clear();
                    }
                }
                self.waiting.push_back((number, rebalance));
            }
        }
    }

    fn remove(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions {
            self.consumer.remove(partition);
            self.unlocated.remove(partition);
        }
    }

    /// What can be told: not what a commit is under way for.
    pub(super) fn tell(&mut self) -> Option<Vec<Rebalance>> {
        if self.waiting.is_empty() || self.committing || self.commit_again {
            return None;
        }
        self.told = self.waiting.back().map_or(self.told, |(number, _)| *number);
        Some(self.waiting.drain(..).map(|(_, rebalance)| rebalance).collect())
    }

    pub(super) fn commit_what_is_due(&mut self) {
        let Some(interval) = self.config.auto_commit else { return };
        if self.committing {
            return;
        }
        let now = time::now();
        let due = now >= self.commit_at && self.waiting.is_empty();
        if std::mem::take(&mut self.commit_again) || due {
            self.commit_at = now + interval;
            self.start_commit();
        }
    }

    fn start_commit(&mut self) {
        let positions = self.positions();
        if positions.is_empty() {
            return;
        }
        self.committing = true;
        let (committer, losses) = (self.committer.clone(), self.losses);
        let deadline = time::now() + committer.client.config().request_timeout;
        self.in_flight
            .push(async move { Event::Committed(committer.commit(positions, losses, deadline).await) });
    }

    /// Asks for the committed offsets of what was assigned.
    pub(super) fn locate(&mut self) {
        if self.unlocated.is_empty() || self.locating {
            return;
        }
        self.locating = true;
        let (committer, arrived, require_stable) =
            (self.committer.clone(), self.arrived, self.require_stable());
        let asked: Vec<TopicPartition> = self.unlocated.iter().cloned().collect();
        self.in_flight.push(async move {
            let deadline = committer.client.deadline();
            let found = committer.committed(asked.clone(), require_stable, deadline).await;
            Event::Located { arrived, asked, found }
        });
    }

    pub(super) fn on_event(&mut self, event: Event) {
        match event {
            Event::Committed(result) => {
                self.committing = false;
                if let Err(error) = result {
                    tracing::warn!(group = %self.committer.group, %error, "positions are not committed");
                }
            }
            Event::Located { arrived, asked, found } => {
                self.locating = false;
                // What came back in the meantime may have been committed by somebody else.
                if arrived == self.arrived {
                    self.on_located(asked, found);
                }
            }
        }
    }

    fn on_located(
        &mut self,
        asked: Vec<TopicPartition>,
        found: Result<BTreeMap<TopicPartition, CommittedOffset>, Error>,
    ) {
        let found = match found {
            Ok(found) => found,
            // The next poll asks again.
            Err(error) if error.is_retriable() => {
                return tracing::warn!(group = %self.committer.group, %error, "no committed offsets yet");
            }
            Err(error) => {
                self.failed = Some(error);
                return;
            }
        };
        for partition in asked {
            // It may have gone, or come back, in the meantime.
            if !self.unlocated.remove(&partition) {
                continue;
            }
            let committed = found.get(&partition).map(|committed| Start::Offset(committed.offset));
            match committed.or(self.config.start) {
                Some(start) => self.consumer.add([(partition, start)]),
                None => {
                    self.failed.get_or_insert_with(|| no_offset(&self.committer.group, &partition));
                }
            }
        }
    }
}

fn no_offset(group: &str, partition: &TopicPartition) -> Error {
    Error::Invalid(format!("group {group} has committed nothing for {partition}, and no start is configured"))
}
