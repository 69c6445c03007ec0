//! The coordinator of consumer groups: one for each partition of `__consumer_offsets`.
//!
//! A request and the time go in; records to append and replies come out (contract 10, K17). A reply that depends on a record
//! waits until it is committed. What was appended counts for later decisions at once and is taken back if it is not kept;
//! what others ask for is answered from what is committed.
//!
//! # States of a group
//! A test derives this table from the code. What is not listed leaves the state as it is.
//!
//! | state | input | next state |
//! |---|---|---|
//! | Empty | Join, new member | PreparingRebalance |
//! | PreparingRebalance | Join, the leader | CompletingRebalance |
//! | PreparingRebalance | Leave, the last that has not joined | CompletingRebalance |
//! | PreparingRebalance | Tick, a session is over | CompletingRebalance |
//! | CompletingRebalance | Join, new member | PreparingRebalance |
//! | CompletingRebalance | Leave, the last that has not joined | Empty |
//! | CompletingRebalance | Tick, a session is over | Empty |
//! | CompletingRebalance | Committed, the assignment | Stable |
//! | CompletingRebalance | AppendFailed, the assignment | PreparingRebalance |
//! | Stable | Join, new member | PreparingRebalance |
//! | Stable | Join, the leader | CompletingRebalance |
//! | Stable | Leave, the last that has not joined | Empty |
//! | Stable | Tick, a session is over | Empty |
//!
//! In PreparingRebalance another member has joined and the one that is named has not: without it, the others are all. A leader
//! that is alone joins its own rebalance at once, and so is in the next generation.

mod classic;
mod commit;
mod interface;
mod join;
mod offsets;
mod out;
mod rebalance;
mod subscription;
mod sync;
mod timers;

#[cfg(test)]
mod harness;
#[cfg(test)]
mod offset_tests;
#[cfg(test)]
mod random_tests;
#[cfg(test)]
mod scenario_tests;
#[cfg(test)]
mod static_member_tests;
#[cfg(test)]
mod table_tests;

use std::collections::BTreeMap;
use std::time::Duration;

pub use interface::{
    AppendSeq, CallId, CommitPart, CommittedOffset, Description, Effect, GroupError, GroupState, Input,
    JoinRefused, JoinRequest, Joined, Limits, MemberRef, MemberState, Name, Now, Record, Reply, Request,
    SyncRequest, Synced,
};

pub use subscription::topics as subscribed_topics;

use self::classic::Group;
use self::out::{Appended, Deadline, Out, Then, refusal};

/// What [`Coordinator::list`] tells of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The group.
    pub group: Name,
    /// Such as `consumer`; empty for one that never had members.
    pub protocol_type: Name,
    /// Kafka's name of its state.
    pub state: &'static str,
}

/// The groups of one partition of `__consumer_offsets`.
#[derive(Debug)]
pub struct Coordinator {
    groups: BTreeMap<Name, Group>,
    out: Out,
}

impl Coordinator {
    /// A coordinator that knows of no groups yet.
    pub fn new(limits: Limits) -> Coordinator {
        Coordinator { groups: BTreeMap::new(), out: Out::new(limits) }
    }

    /// Takes over a record of the log. In their order, before anything else.
    pub fn load(&mut self, record: Record, now: Now) {
        match record {
            Record::Group { group, value: Some(value) } => self.ensure(&group, now).load(&value),
            Record::Group { group, value: None } => {
                // Its offsets have tombstones of their own.
                if let Some(known) = self.groups.get_mut(&group) {
                    let offsets = std::mem::take(&mut known.offsets);
                    *known = Group::new(group.clone(), now);
                    known.offsets = offsets;
                }
                self.sweep(&group);
            }
            Record::Offset { group, topic, partition, value } => {
                self.ensure(&group, now).offsets.load(topic, partition, value);
                self.sweep(&group);
            }
        }
    }

    /// All records were taken over: members begin their sessions.
    pub fn loaded(&mut self, now: Now) {
        self.out.now = now;
        for group in self.groups.values_mut() {
            group.loaded(&mut self.out);
        }
        let check = now.at.saturating_add(self.out.limits.retention_check);
        self.out.wake_at(check, Deadline::Retention);
    }

    fn ensure(&mut self, group: &Name, now: Now) -> &mut Group {
        self.groups.entry(group.clone()).or_insert_with(|| Group::new(group.clone(), now))
    }

    /// Forgets a group of which nothing is left.
    fn sweep(&mut self, group: &Name) {
        if self.groups.get(group).is_some_and(Group::is_trace_less) {
            self.groups.remove(group);
        }
    }

    /// Takes one input in and appends what must be done to `effects`.
    pub fn step(&mut self, now: Now, input: Input, effects: &mut Vec<Effect>) {
        self.out.now = now;
        match input {
            Input::Request { call, group, request } => self.on_request(call, group, request),
            Input::Committed { seq } => self.on_committed(seq),
            Input::AppendFailed { seq } => self.on_append_failed(seq),
            Input::TopicDeleted { topic } => {
                for group in self.groups.values_mut().filter(|group| group.deleting.is_none()) {
                    group.on_topic_deleted(&topic, &mut self.out);
                }
            }
            Input::Tick => self.on_tick(),
            Input::Resign => self.resign(),
        }
        effects.append(&mut self.out.effects);
    }

    /// When [`Input::Tick`] is due.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.out.timers.next()
    }

    fn on_request(&mut self, call: CallId, name: Name, request: Request) {
        let outcome = match &request {
            Request::Join(join) => self.admit(&name, join),
            Request::Commit { member, .. } if member.generation < 0 => self.make_room(&name),
            Request::Commit { .. } => self.known(&name, GroupError::IllegalGeneration),
            Request::Sync(_) | Request::Heartbeat(_) | Request::Leave(_) => {
                self.known(&name, GroupError::UnknownMemberId)
            }
            Request::DeleteOffsets(_) | Request::Delete => self.known(&name, GroupError::GroupIdNotFound),
        };
        let now = self.out.now;
        let out = &mut self.out;
        if let Err(error) = outcome {
            out.reply(call, refusal(&request, error));
            return;
        }
        let group = self.groups.entry(name.clone()).or_insert_with(|| Group::new(name.clone(), now));
        if group.deleting.is_some() {
            out.reply(call, refusal(&request, GroupError::CoordinatorNotAvailable));
            return;
        }
        match &request {
            Request::Join(join) => group.on_join(call, join, out),
            Request::Sync(sync) => group.on_sync(call, sync, out),
            Request::Heartbeat(member) => group.on_heartbeat(call, member, out),
            Request::Leave(members) => group.on_leave(call, members, out),
            Request::Commit { member, parts } => group.on_commit(call, member, parts, out),
            Request::DeleteOffsets(partitions) => group.on_delete_offsets(call, partitions, out),
            Request::Delete => group.on_delete(call, out),
        }
        self.sweep(&name);
    }

    fn known(&self, group: &Name, error: GroupError) -> Result<(), GroupError> {
        if self.groups.contains_key(group) { Ok(()) } else { Err(error) }
    }

    fn make_room(&self, group: &Name) -> Result<(), GroupError> {
        let has_room = self.groups.len() < self.out.limits.groups_max || self.groups.contains_key(group);
        if has_room { Ok(()) } else { Err(GroupError::CoordinatorNotAvailable) }
    }

    fn admit(&self, group: &Name, join: &JoinRequest) -> Result<(), GroupError> {
        let Limits { session_timeout_min, session_timeout_max, .. } = self.out.limits;
        if group.is_empty() {
            return Err(GroupError::InvalidGroupId);
        }
        if !(session_timeout_min..=session_timeout_max).contains(&join.session_timeout) {
            return Err(GroupError::InvalidSessionTimeout);
        }
        if join.protocol_type.is_empty() || join.protocols.is_empty() {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        if !join.member_id.is_empty() {
            return self.known(group, GroupError::UnknownMemberId);
        }
        self.make_room(group)
    }

    fn on_tick(&mut self) {
        while let Some(deadline) = self.out.timers.pop_due(self.out.now.at) {
            match deadline {
                Deadline::Session { group, member } => self.on_session_deadline(&group, &member),
                Deadline::Pending { group, member } => self.on_pending_deadline(&group, &member),
                Deadline::Rebalance { group } => {
                    if let Some(group) = self.groups.get_mut(&group) {
                        group.on_rebalance_deadline(&mut self.out);
                    }
                }
                Deadline::Retention => {
                    self.groups.retain(|_, group| !group.is_trace_less());
                    for group in self.groups.values_mut() {
                        group.expire_offsets(&mut self.out);
                    }
                    let next = self.out.now.at.saturating_add(self.out.limits.retention_check);
                    self.out.wake_at(next, Deadline::Retention);
                }
            }
        }
    }

    fn on_session_deadline(&mut self, name: &Name, member: &Name) {
        let out = &mut self.out;
        let Some(group) = self.groups.get_mut(name) else { return };
        if group.is_over(member, out) {
            group.take_member(member, GroupError::UnknownMemberId, out);
            group.after_leaving(out);
        }
    }

    fn on_pending_deadline(&mut self, name: &Name, member: &Name) {
        let Some(group) = self.groups.get_mut(name) else { return };
        if group.pending.get(member).is_some_and(|pending| pending.expires <= self.out.now.at) {
            group.pending.remove(member);
            group.complete_join_if_all_are_there(&mut self.out);
        }
        self.sweep(name);
    }

    /// Appends up to this one are committed: what they say holds, and whoever waited is told.
    fn on_committed(&mut self, seq: AppendSeq) {
        while let Some(append) = self.out.appends.pop_front_if(|append| append.seq <= seq) {
            let Appended { seq, records, then } = append;
            for record in &records {
                if let Record::Offset { group, topic, partition, .. } = record
                    && let Some(group) = self.groups.get_mut(group)
                {
                    group.offsets.commit(seq, &(topic.clone(), *partition));
                }
            }
            self.follow(seq, &records, then);
        }
    }

    fn follow(&mut self, seq: AppendSeq, records: &[Record], then: Then) {
        let out = &mut self.out;
        match then {
            Then::Nothing => {}
            Then::Reply { call, committed, .. } => out.reply(call, committed),
            Then::Assign { group } => {
                let Some(group) = self.groups.get_mut(&group) else { return };
                if group.assigning == Some(seq)
                    && let Some(Record::Group { value: Some(state), .. }) = records.first()
                {
                    group.on_assigned(state, out);
                }
            }
            Then::BeginGeneration { group, generation, ids } => {
                if let Some(group) = self.groups.get_mut(&group).filter(|group| group.writing == Some(seq)) {
                    group.on_generation_written(generation, &ids, out);
                }
            }
            Then::ReplaceStatic { call, committed, .. } => out.reply(call, committed),
            Then::Delete { group, call } => {
                self.groups.remove(&group);
                if let Some(call) = call {
                    out.reply(call, Reply::Delete(Ok(())));
                }
            }
        }
    }

    /// This append and all later ones are gone: what they said is taken back, and whoever waited is told.
    fn on_append_failed(&mut self, seq: AppendSeq) {
        let first = self.out.appends.partition_point(|append| append.seq < seq);
        // All of them, before what follows appends anew.
        let failed = self.out.appends.split_off(first);
        for append in failed.iter().rev() {
            for record in &append.records {
                if let Record::Offset { group, topic, partition, .. } = record
                    && let Some(group) = self.groups.get_mut(group)
                {
                    group.offsets.revert(append.seq, &(topic.clone(), *partition));
                }
            }
        }
        for append in failed.into_iter().rev() {
            self.take_back(append.seq, append.then);
        }
    }

    fn take_back(&mut self, seq: AppendSeq, then: Then) {
        let out = &mut self.out;
        match then {
            Then::Nothing => {}
            Then::Reply { call, failed, .. } => out.reply(call, failed),
            Then::Assign { group } => {
                if let Some(group) = self.groups.get_mut(&group)
                    && group.assigning == Some(seq)
                {
                    group.on_assignment_failed(out);
                }
            }
            Then::BeginGeneration { group, ids, .. } => {
                if let Some(group) = self.groups.get_mut(&group).filter(|group| group.writing == Some(seq)) {
                    group.on_generation_failed(&ids, out);
                }
            }
            Then::ReplaceStatic { group, call, old, new, .. } => {
                if let Some(group) = self.groups.get_mut(&group) {
                    group.replace_static(&new, old.clone(), out);
                    group.heard_of(&old, out);
                }
                let error = GroupError::CoordinatorNotAvailable;
                out.reply(call, Reply::Join(Err(JoinRefused { error, member_id: Name::default() })));
            }
            Then::Delete { group, call } => {
                if let Some(group) = self.groups.get_mut(&group) {
                    group.deleting = None;
                }
                if let Some(call) = call {
                    out.reply(call, Reply::Delete(Err(GroupError::CoordinatorNotAvailable)));
                }
            }
        }
    }

    /// Whoever waits is to look for the new coordinator. What was appended may be committed, or not, and whoever waits for
    /// that is told so.
    fn resign(&mut self) {
        let error = GroupError::NotCoordinator;
        let out = &mut self.out;
        for Appended { then, .. } in std::mem::take(&mut out.appends) {
            match then {
                Then::Reply { call, committed, .. } => {
                    out.reply(call, refused_like(&committed, GroupError::OutcomeUnknown));
                }
                Then::ReplaceStatic { call, committed, .. } => {
                    out.reply(call, refused_like(&committed, error));
                }
                Then::Delete { call: Some(call), .. } => {
                    out.reply(call, Reply::Delete(Err(GroupError::OutcomeUnknown)));
                }
                Then::Delete { call: None, .. }
                | Then::Assign { .. }
                | Then::BeginGeneration { .. }
                | Then::Nothing => {}
            }
        }
        for mut group in std::mem::take(&mut self.groups).into_values() {
            let members: Vec<Name> = group.members.keys().cloned().collect();
            members.iter().for_each(|member| group.take_member(member, error, out));
        }
        out.timers.clear();
    }

    // What others ask for

    /// A committed offset.
    pub fn offset(&self, group: &str, topic: &str, partition: i32) -> Option<&CommittedOffset> {
        self.groups.get(group)?.offsets.committed(topic, partition)
    }

    /// All committed offsets of a group, by topic and partition.
    pub fn offsets(&self, group: &str) -> impl Iterator<Item = (&(Name, i32), &CommittedOffset)> {
        self.groups.get(group).into_iter().flat_map(|group| group.offsets.all_committed())
    }

    /// A group as it is.
    pub fn describe(&self, group: &str) -> Option<Description> {
        self.groups.get(group).map(Group::describe)
    }

    /// All groups, by name.
    pub fn list(&self) -> impl Iterator<Item = Listed> {
        self.groups.values().map(|group| Listed {
            group: group.id.clone(),
            protocol_type: group.protocol_type.clone().unwrap_or_default(),
            state: group.state.name(),
        })
    }

    /// How many groups there are.
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// The laws that stand on the fields. Tests and the simulator ask after each step; an error names what is broken.
    pub fn invariants(&self) -> Result<(), String> {
        let rising = self.out.appends.iter().is_sorted_by(|a, b| a.seq < b.seq);
        if !rising {
            return Err("appends are in their order".to_owned());
        }
        for (name, group) in &self.groups {
            if *name != group.id {
                return Err(format!("group {} stands under {name}", group.id));
            }
            group.invariants()?;
        }
        Ok(())
    }
}

/// A refusal in the shape of this reply.
fn refused_like(reply: &Reply, error: GroupError) -> Reply {
    match reply {
        Reply::Join(_) => Reply::Join(Err(JoinRefused { error, member_id: Name::default() })),
        Reply::Sync(_) => Reply::Sync(Err(error)),
        Reply::Heartbeat(_) => Reply::Heartbeat(Err(error)),
        Reply::Leave(_) => Reply::Leave(Err(error)),
        Reply::Commit(_) => Reply::Commit(Err(error)),
        Reply::DeleteOffsets(_) => Reply::DeleteOffsets(Err(error)),
        Reply::Delete(_) => Reply::Delete(Err(error)),
    }
}
