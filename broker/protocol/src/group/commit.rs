//! OffsetCommit, OffsetDelete, DeleteGroups, and offsets that expire.

use std::time::Duration;

use weir_defect::defect;

use super::classic::{Group, State};
use super::interface::{CallId, CommitPart, CommittedOffset, GroupError, MemberRef, Name, Record, Reply};
use super::offsets::Partition;
use super::out::{Out, Then};

type Results = Vec<Result<(), GroupError>>;

/// Of a committed offset in the log, its texts aside.
const COMMIT_PART_BYTES: usize = 64;

impl Group {
    pub(super) fn on_commit(
        &mut self,
        call: CallId,
        member: &MemberRef,
        parts: &[CommitPart],
        out: &mut Out,
    ) {
        if let Err(error) = self.check_commit(member, out) {
            out.reply(call, Reply::Commit(Err(error)));
            return;
        }
        let bytes =
            |part: &CommitPart| COMMIT_PART_BYTES + self.id.len() + part.topic.len() + part.metadata.len();
        if parts.iter().map(bytes).sum::<usize>() > out.limits.append_bytes_max {
            out.reply(call, Reply::Commit(Err(GroupError::CommitTooLarge)));
            return;
        }
        let (mut results, mut records) = (Results::new(), Vec::new());
        for part in parts {
            if part.metadata.len() > out.limits.metadata_bytes_max {
                results.push(Err(GroupError::OffsetMetadataTooLarge));
                continue;
            }
            results.push(Ok(()));
            let value = CommittedOffset {
                offset: part.offset,
                leader_epoch: part.leader_epoch,
                metadata: part.metadata.clone(),
                committed_ms: out.now.wall_ms,
            };
            self.committed_at.insert(part.topic.clone(), out.at());
            records.push(self.write((part.topic.clone(), part.partition), Some(value), out));
        }
        if records.is_empty() {
            out.reply(call, Reply::Commit(Ok(results)));
            return;
        }
        let failed = Reply::Commit(Err(GroupError::CoordinatorNotAvailable));
        out.append(records, Then::Reply { call, committed: Reply::Commit(Ok(results)), failed });
    }

    /// Whether this member may commit. A commit says that it lives, too.
    fn check_commit(&mut self, member: &MemberRef, out: &mut Out) -> Result<(), GroupError> {
        if member.generation < 0 && self.members.is_empty() {
            // Somebody who does not take part in the group, or an administrator.
            return Ok(());
        }
        // Z38: a zombie commits with an old generation.
        let id = if defect!(skip_generation_check) {
            self.identify(member)?
        } else {
            self.identify_in_generation(member)?
        };
        if self.state == State::CompletingRebalance {
            return Err(GroupError::RebalanceInProgress);
        }
        self.heard_of(&id, out);
        Ok(())
    }

    /// Notes an offset as on its way with the next append.
    fn write(&mut self, partition: Partition, value: Option<CommittedOffset>, out: &Out) -> Record {
        let (topic, number) = partition.clone();
        self.offsets.append(out.next_seq(), partition, value.clone());
        Record::Offset { group: self.id.clone(), topic, partition: number, value }
    }

    pub(super) fn on_delete_offsets(&mut self, call: CallId, partitions: &[(Name, i32)], out: &mut Out) {
        let subscribed = self.subscribed();
        if !self.members.is_empty() && subscribed.is_none() {
            out.reply(call, Reply::DeleteOffsets(Err(GroupError::NonEmptyGroup)));
            return;
        }
        let (mut results, mut records) = (Results::new(), Vec::new());
        for partition in partitions {
            let is_read = subscribed.as_ref().is_some_and(|topics| topics.contains(&*partition.0));
            if is_read && !self.members.is_empty() {
                results.push(Err(GroupError::GroupSubscribedToTopic));
                continue;
            }
            results.push(Ok(()));
            if self.offsets.latest().any(|(known, _)| known == partition) {
                records.push(self.write(partition.clone(), None, out));
            }
        }
        if records.is_empty() {
            out.reply(call, Reply::DeleteOffsets(Ok(results)));
            return;
        }
        let failed = Reply::DeleteOffsets(Err(GroupError::CoordinatorNotAvailable));
        out.append(records, Then::Reply { call, committed: Reply::DeleteOffsets(Ok(results)), failed });
    }

    pub(super) fn on_delete(&mut self, call: CallId, out: &mut Out) {
        if self.state != State::Empty {
            out.reply(call, Reply::Delete(Err(GroupError::NonEmptyGroup)));
            return;
        }
        self.delete(Some(call), out);
    }

    /// Writes the group's end.
    fn delete(&mut self, call: Option<CallId>, out: &mut Out) {
        let partitions: Vec<Partition> =
            self.offsets.latest().map(|(partition, _)| partition.clone()).collect();
        let mut records: Vec<Record> =
            partitions.into_iter().map(|partition| self.write(partition, None, out)).collect();
        records.push(Record::Group { group: self.id.clone(), value: None });
        let then = Then::Delete { group: self.id.clone(), call };
        self.deleting = Some(out.append(records, then));
    }

    pub(super) fn on_topic_deleted(&mut self, topic: &str, out: &mut Out) {
        let partitions: Vec<Partition> = self.offsets.of_topic(topic).cloned().collect();
        self.remove_offsets(partitions, out);
    }

    fn remove_offsets(&mut self, partitions: Vec<Partition>, out: &mut Out) {
        let records: Vec<Record> =
            partitions.into_iter().map(|partition| self.write(partition, None, out)).collect();
        if !records.is_empty() {
            out.append(records, Then::Nothing);
        }
    }

    /// Removes offsets that nobody has needed for too long, and the group if nothing is left of it.
    ///
    /// Only the offsets of an empty group expire, and those of topics that the members of a stable one do not read. The
    /// time counts from the last commit, from the moment that the group was empty, or from its loading, whichever is
    /// the latest, by the monotonic clock (contract 12).
    pub(super) fn expire_offsets(&mut self, out: &mut Out) {
        if self.deleting.is_some() || self.offsets.has_pending() || !self.pending.is_empty() {
            return;
        }
        let now = out.at();
        let retention = out.limits.offsets_retention;
        let is_empty = self.state == State::Empty;
        let subscribed = self.subscribed();
        let is_read = |topic: &str| match (self.state, &subscribed) {
            (State::Empty, _) => false,
            (State::Stable, Some(topics)) => topics.contains(topic),
            // Z35: while a group rebalances, nobody knows what its members read.
            _ => !defect!(expire_offsets_while_rebalancing),
        };
        let since = |topic: &Name| {
            let committed = self.committed_at.get(topic).copied().unwrap_or(Duration::ZERO);
            if is_empty { committed.max(self.empty_since) } else { committed }
        };
        let over: Vec<Partition> = self
            .offsets
            .latest()
            .map(|(partition, _)| partition)
            .filter(|(topic, _)| !is_read(topic) && now.saturating_sub(since(topic)) >= retention)
            .cloned()
            .collect();
        let leaves_nothing = over.len() == self.offsets.latest().count();
        if is_empty && leaves_nothing && now.saturating_sub(self.empty_since) >= retention {
            self.delete(None, out);
        } else {
            self.remove_offsets(over, out);
        }
    }
}
