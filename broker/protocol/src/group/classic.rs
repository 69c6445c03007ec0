//! A group whose members agree among themselves (the classic protocol): who is in it, and in which generation.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use weir_defect::defect;

use super::interface::{
    AppendSeq, CallId, Description, GroupError, GroupState, JoinRequest, Joined, MemberRef, MemberState,
    Name, Record, Reply,
};
use super::offsets::Offsets;
use super::out::{Deadline, Out};
use super::subscription;

/// Where a group stands. The table of transitions is in the documentation of [`super`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    Empty,
    PreparingRebalance,
    CompletingRebalance,
    Stable,
}

impl State {
    /// Kafka's name.
    pub(super) fn name(self) -> &'static str {
        match self {
            State::Empty => "Empty",
            State::PreparingRebalance => "PreparingRebalance",
            State::CompletingRebalance => "CompletingRebalance",
            State::Stable => "Stable",
        }
    }
}

/// A member.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) instance_id: Option<Name>,
    pub(super) client_id: Name,
    pub(super) client_host: Name,
    pub(super) session_timeout: Duration,
    pub(super) rebalance_timeout: Duration,
    /// The preferred first.
    pub(super) protocols: Vec<(Name, Bytes)>,
    pub(super) assignment: Bytes,
    /// Invariant: only while the group prepares a rebalance.
    pub(super) join_call: Option<CallId>,
    /// Invariant: only while the group completes a rebalance.
    pub(super) sync_call: Option<CallId>,
    /// It was not heard of since it joined for the first time.
    pub(super) is_new: bool,
    /// When it is removed unless it is heard of. `None`: never.
    deadline: Option<Duration>,
    /// The next time that the deadline is looked at.
    looked_at: Option<Duration>,
}

impl Member {
    pub(super) fn new(request: &JoinRequest) -> Member {
        Member {
            instance_id: request.instance_id.clone(),
            client_id: request.client_id.clone(),
            client_host: request.client_host.clone(),
            session_timeout: request.session_timeout,
            rebalance_timeout: request.rebalance_timeout,
            protocols: request.protocols.clone(),
            assignment: Bytes::new(),
            join_call: None,
            sync_call: None,
            is_new: true,
            deadline: None,
            looked_at: None,
        }
    }

    fn loaded(state: &MemberState, protocol: &Name) -> Member {
        Member {
            instance_id: state.instance_id.clone(),
            client_id: state.client_id.clone(),
            client_host: state.client_host.clone(),
            session_timeout: state.session_timeout,
            rebalance_timeout: state.rebalance_timeout,
            protocols: vec![(protocol.clone(), state.subscription.clone())],
            assignment: state.assignment.clone(),
            join_call: None,
            sync_call: None,
            is_new: false,
            deadline: None,
            looked_at: None,
        }
    }

    /// Its session belongs to another id from now on.
    pub(super) fn forget_deadline(&mut self) {
        (self.deadline, self.looked_at) = (None, None);
    }

    pub(super) fn metadata(&self, protocol: &str) -> Bytes {
        let found = self.protocols.iter().find(|(name, _)| **name == *protocol);
        found.map(|(_, metadata)| metadata.clone()).unwrap_or_default()
    }

    fn supports(&self, protocol: &str) -> bool {
        self.protocols.iter().any(|(name, _)| **name == *protocol)
    }

    /// Whether a request says the same about protocols.
    pub(super) fn matches(&self, request: &JoinRequest) -> bool {
        self.protocols == request.protocols
    }

    fn state(&self, id: &Name, protocol: &str) -> MemberState {
        MemberState {
            member_id: id.clone(),
            instance_id: self.instance_id.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            rebalance_timeout: self.rebalance_timeout,
            session_timeout: self.session_timeout,
            subscription: self.metadata(protocol),
            assignment: self.assignment.clone(),
        }
    }
}

/// Somebody who was given an id and has not come back with it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    /// Until then a rebalance waits for it.
    pub(super) awaited_until: Duration,
    /// Until then the id is good.
    pub(super) expires: Duration,
}

/// The time that an empty group waits for more members, so that not each of them causes a rebalance.
#[derive(Clone, Copy, Debug)]
pub(super) struct InitialWait {
    pub(super) ends_by: Duration,
    /// Somebody has joined since the wait began anew.
    pub(super) has_newcomers: bool,
}

/// A group.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) id: Name,
    pub(super) state: State,
    /// Invariant: never goes back.
    pub(super) generation: i32,
    /// `None`: it never had members.
    pub(super) protocol_type: Option<Name>,
    pub(super) protocol: Option<Name>,
    /// Invariant: a member.
    pub(super) leader: Option<Name>,
    pub(super) members: BTreeMap<Name, Member>,
    /// Members by instance id. Invariant: exactly the members that have one.
    pub(super) statics: BTreeMap<Name, Name>,
    /// Invariant: no members.
    pub(super) pending: BTreeMap<Name, Pending>,
    /// When the rebalance goes on without those who have not come.
    pub(super) join_by: Option<Duration>,
    pub(super) initial: Option<InitialWait>,
    /// When members that have not asked for their assignment are removed.
    pub(super) sync_by: Option<Duration>,
    pub(super) unsynced: BTreeSet<Name>,
    /// The leader's assignment, on its way to the log.
    pub(super) assigning: Option<AppendSeq>,
    /// The latest generation of which the log knows.
    pub(super) written: i32,
    /// Static members whose ids the log does not know. Invariant: static members, and none once a generation has begun.
    pub(super) unwritten: BTreeSet<Name>,
    /// The next generation and their ids, on their way to the log.
    pub(super) writing: Option<AppendSeq>,
    /// The group's end, on its way to the log.
    pub(super) deleting: Option<AppendSeq>,
    /// When it came to be in this state, for people.
    pub(super) since_ms: i64,
    /// When its last member left, or it was loaded.
    pub(super) empty_since: Duration,
    /// When offsets of a topic were last committed, or loaded.
    pub(super) committed_at: BTreeMap<Name, Duration>,
    pub(super) offsets: Offsets,
}

impl Group {
    pub(super) fn new(id: Name, now: super::interface::Now) -> Group {
        Group {
            id,
            state: State::Empty,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            statics: BTreeMap::new(),
            pending: BTreeMap::new(),
            join_by: None,
            initial: None,
            sync_by: None,
            unsynced: BTreeSet::new(),
            assigning: None,
            written: 0,
            unwritten: BTreeSet::new(),
            writing: None,
            deleting: None,
            since_ms: now.wall_ms,
            empty_since: now.at,
            committed_at: BTreeMap::new(),
            offsets: Offsets::default(),
        }
    }

    /// Takes over what the log says. Members that cannot be together were not written by a coordinator: they join anew.
    pub(super) fn load(&mut self, state: &GroupState) {
        let protocol = state.protocol.clone().unwrap_or_default();
        self.generation = state.generation.max(0);
        self.written = self.generation;
        self.protocol_type = (!state.protocol_type.is_empty()).then(|| state.protocol_type.clone());
        self.protocol = state.protocol.clone();
        self.since_ms = state.since_ms;
        self.members =
            state.members.iter().map(|m| (m.member_id.clone(), Member::loaded(m, &protocol))).collect();
        let statics = self.members.iter().filter_map(|(id, m)| Some((m.instance_id.clone()?, id.clone())));
        self.statics = statics.collect();
        self.leader = state.leader.clone().filter(|leader| self.members.contains_key(leader));
        let named = self.members.values().filter(|member| member.instance_id.is_some()).count();
        if self.protocol.is_none() || self.statics.len() != named {
            (self.members, self.statics) = (BTreeMap::new(), BTreeMap::new());
            (self.leader, self.protocol) = (None, None);
        }
        self.state = if self.members.is_empty() { State::Empty } else { State::Stable };
    }

    /// Its members begin their sessions anew: nobody knows how long they were silent. Without a leader the group was
    /// between two generations.
    pub(super) fn loaded(&mut self, out: &mut Out) {
        self.empty_since = out.at();
        self.committed_at = self.offsets.topics().into_iter().map(|topic| (topic, out.at())).collect();
        let members: Vec<Name> = self.members.keys().cloned().collect();
        members.iter().for_each(|member| self.heard_of(member, out));
        if self.state == State::Stable && self.leader.is_none() {
            self.leader = members.into_iter().next();
            self.prepare_rebalance(out);
        }
    }

    /// Whether nothing tells it from a group that never was.
    pub(super) fn is_trace_less(&self) -> bool {
        self.state == State::Empty
            && self.generation == 0
            && self.pending.is_empty()
            && self.offsets.is_empty()
            && self.deleting.is_none()
    }

    pub(super) fn enter(&mut self, state: State, out: &Out) {
        self.state = state;
        self.since_ms = out.now.wall_ms;
    }

    // Members

    /// Who a member is, if its id is good and nobody has taken over its instance id.
    pub(super) fn identify(&self, member: &MemberRef) -> Result<Name, GroupError> {
        if let Some(instance) = &member.instance_id {
            return match self.statics.get(instance) {
                None => Err(GroupError::UnknownMemberId),
                Some(current) if *current != member.member_id => Err(GroupError::FencedInstanceId),
                Some(current) => Ok(current.clone()),
            };
        }
        match self.members.contains_key(&member.member_id) {
            true => Ok(member.member_id.clone()),
            false => Err(GroupError::UnknownMemberId),
        }
    }

    /// The same, in the current generation (contract 11).
    pub(super) fn identify_in_generation(&self, member: &MemberRef) -> Result<Name, GroupError> {
        let id = self.identify(member)?;
        if member.generation != self.generation { Err(GroupError::IllegalGeneration) } else { Ok(id) }
    }

    pub(super) fn add_member(&mut self, id: Name, request: &JoinRequest) {
        self.pending.remove(&id);
        if let Some(instance) = &request.instance_id {
            self.statics.insert(instance.clone(), id.clone());
            // The log may have another id for it, of a member that is gone.
            self.unwritten.insert(id.clone());
        }
        self.protocol_type.get_or_insert_with(|| request.protocol_type.clone());
        if self.members.is_empty() {
            self.protocol_type = Some(request.protocol_type.clone());
        }
        self.leader.get_or_insert_with(|| id.clone());
        self.members.insert(id, Member::new(request));
    }

    /// Takes a member out. Whatever it waits for is refused.
    pub(super) fn take_member(&mut self, id: &Name, error: GroupError, out: &mut Out) {
        let Some(member) = self.members.remove(id) else { return };
        if let Some(call) = member.join_call {
            let member_id = id.clone();
            out.reply(call, Reply::Join(Err(super::interface::JoinRefused { error, member_id })));
        }
        if let Some(call) = member.sync_call {
            out.reply(call, Reply::Sync(Err(error)));
        }
        if let Some(instance) = &member.instance_id
            && self.statics.get(instance) == Some(id)
        {
            self.statics.remove(instance);
        }
        self.unsynced.remove(id);
        self.unwritten.remove(id);
        if self.leader.as_ref() == Some(id) {
            let joined = self.members.iter().find(|(_, member)| member.join_call.is_some());
            let next = joined.or_else(|| self.members.first_key_value());
            self.leader = next.map(|(id, _)| id.clone());
        }
    }

    /// The member lives: its session begins anew.
    pub(super) fn heard_of(&mut self, id: &Name, out: &mut Out) {
        let Some(member) = self.members.get_mut(id) else { return };
        let timeout = if member.is_new && member.join_call.is_some() {
            out.limits.new_member_timeout
        } else {
            member.session_timeout
        };
        // Z34: nobody looks after a member that goes away before it has taken part.
        if defect!(no_new_member_timeout) && member.is_new {
            return;
        }
        let deadline = out.at().saturating_add(timeout);
        member.deadline = Some(deadline);
        if member.looked_at.is_none_or(|looked_at| deadline < looked_at) {
            member.looked_at = Some(deadline);
            out.wake_at(deadline, Deadline::Session { group: self.id.clone(), member: id.clone() });
        }
    }

    /// Whether the member's session is over, now that somebody looks.
    pub(super) fn is_over(&mut self, id: &Name, out: &mut Out) -> bool {
        let Some(member) = self.members.get_mut(id) else { return false };
        if member.looked_at.is_some_and(|looked_at| looked_at > out.at()) {
            return false;
        }
        member.looked_at = None;
        let Some(mut deadline) = member.deadline else { return false };
        // Whoever waits for an answer of ours need not say that it lives, except that a new one may never have come back.
        if member.sync_call.is_some() || member.join_call.is_some() && !member.is_new {
            deadline = deadline.max(out.at().saturating_add(member.session_timeout));
            member.deadline = Some(deadline);
        }
        if deadline <= out.at() {
            return true;
        }
        member.looked_at = Some(deadline);
        out.wake_at(deadline, Deadline::Session { group: self.id.clone(), member: id.clone() });
        false
    }

    /// The longest that a member may take to join again.
    pub(super) fn rebalance_timeout(&self) -> Duration {
        self.members.values().map(|member| member.rebalance_timeout).max().unwrap_or_default()
    }

    // Protocols

    /// Whether a member with these protocols would leave one that all have in common.
    pub(super) fn fits(&self, request: &JoinRequest) -> bool {
        if self.members.is_empty() {
            return true;
        }
        self.protocol_type.as_ref() == Some(&request.protocol_type)
            && request
                .protocols
                .iter()
                .any(|(name, _)| self.members.values().all(|member| member.supports(name)))
    }

    /// The protocol that most members prefer among those that all have.
    pub(super) fn select_protocol(&self) -> Option<Name> {
        let common = |name: &Name| self.members.values().all(|member| member.supports(name));
        let mut votes: BTreeMap<&Name, usize> = BTreeMap::new();
        for member in self.members.values() {
            let preferred = member.protocols.iter().map(|(name, _)| name).find(|name| common(name));
            *votes.entry(preferred?).or_default() += 1;
        }
        let most = votes.values().copied().max()?;
        votes.into_iter().find(|(_, count)| *count == most).map(|(name, _)| name.clone())
    }

    /// The topics that its members read, as far as they can be known: consumers of a group that is stable.
    pub(super) fn subscribed(&self) -> Option<BTreeSet<String>> {
        if self.protocol_type.as_deref() != Some("consumer") {
            return None;
        }
        let protocol = self.protocol.as_deref()?;
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            topics.append(&mut subscription::topics(&member.metadata(protocol))?);
        }
        Some(topics)
    }

    // What is told and written

    /// The answer to a member that has joined this generation.
    pub(super) fn joined(&self, id: &Name) -> Joined {
        let protocol = self.protocol.clone().unwrap_or_default();
        let leader = self.leader.clone().unwrap_or_default();
        let members = if leader == *id { self.metadata_of_all(&protocol) } else { Vec::new() };
        Joined {
            generation: self.generation,
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            protocol,
            leader,
            member_id: id.clone(),
            skip_assignment: false,
            members,
        }
    }

    pub(super) fn metadata_of_all(&self, protocol: &str) -> Vec<(Name, Option<Name>, Bytes)> {
        let all = self.members.iter();
        all.map(|(id, member)| (id.clone(), member.instance_id.clone(), member.metadata(protocol))).collect()
    }

    /// The group as it is, as a record.
    pub(super) fn record(&self) -> Record {
        self.record_with(self.protocol.clone())
    }

    /// The group as it would be with this protocol.
    pub(super) fn record_with(&self, protocol: Option<Name>) -> Record {
        let subscribed_by = protocol.clone().unwrap_or_default();
        let value = GroupState {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol,
            leader: self.leader.clone(),
            since_ms: self.since_ms,
            members: self.members.iter().map(|(id, member)| member.state(id, &subscribed_by)).collect(),
        };
        Record::Group { group: self.id.clone(), value: Some(value) }
    }

    pub(super) fn describe(&self) -> Description {
        let is_stable = self.state == State::Stable;
        let protocol = if is_stable { self.protocol.clone().unwrap_or_default() } else { Name::default() };
        let members = self.members.iter().map(|(id, member)| {
            let mut state = member.state(id, &protocol);
            if !is_stable {
                state.assignment = Bytes::new();
            }
            state
        });
        Description {
            state: self.state.name(),
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            members: members.collect(),
            protocol,
        }
    }

    /// The laws that stand on the fields; an error names what is broken.
    pub(super) fn invariants(&self) -> Result<(), String> {
        let law = |holds: bool, what: &str| {
            if holds { Ok(()) } else { Err(format!("group {}: {what}: {self:?}", self.id)) }
        };
        law(self.leader.as_ref().is_none_or(|id| self.members.contains_key(id)), "the leader is a member")?;
        law(self.members.is_empty() == self.leader.is_none(), "who has members has a leader")?;
        let statics: BTreeMap<Name, Name> = self
            .members
            .iter()
            .filter_map(|(id, member)| Some((member.instance_id.clone()?, id.clone())))
            .collect();
        law(statics == self.statics, "each instance id has one member")?;
        law(self.pending.keys().all(|id| !self.members.contains_key(id)), "who is awaited is no member")?;
        law(self.unsynced.iter().all(|id| self.members.contains_key(id)), "who has not synced is a member")?;
        let any = |is: fn(&Member) -> bool| self.members.values().any(is);
        let preparing = self.state == State::PreparingRebalance;
        law(preparing || !any(|m| m.join_call.is_some()), "joins wait while a rebalance is prepared")?;
        law(preparing == self.join_by.is_some(), "a rebalance has an end")?;
        let ids: BTreeSet<&Name> = self.statics.values().collect();
        law(self.unwritten.iter().all(|id| ids.contains(id)), "who has a new id is a static member")?;
        law(preparing || self.unwritten.is_empty(), "a generation begins when the log knows all ids")?;
        let completing = self.state == State::CompletingRebalance;
        law(completing || !any(|m| m.sync_call.is_some()), "syncs wait while a rebalance is completed")?;
        law(completing || self.assigning.is_none(), "an assignment is on its way while one is made")?;
        let has_protocol =
            self.protocol.as_ref().is_some_and(|p| self.members.values().all(|m| m.supports(p)));
        match self.state {
            State::Empty => law(self.members.is_empty(), "an empty group has no members"),
            State::PreparingRebalance => Ok(()),
            State::CompletingRebalance | State::Stable => {
                law(!self.members.is_empty() && has_protocol, "all members have the protocol")
            }
        }
    }
}
