//! SyncGroup, Heartbeat and LeaveGroup.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::classic::{Group, State};
use super::interface::{CallId, GroupError, GroupState, MemberRef, Name, Record, Reply, SyncRequest, Synced};
use super::out::{Out, Then};

impl Group {
    pub(super) fn on_sync(&mut self, call: CallId, request: &SyncRequest, out: &mut Out) {
        match self.check_sync(request) {
            Err(error) => out.reply(call, Reply::Sync(Err(error))),
            Ok(id) => self.sync(call, id, request, out),
        }
    }

    fn check_sync(&self, request: &SyncRequest) -> Result<Name, GroupError> {
        let id = self.identify_in_generation(&request.member)?;
        let differs = |said: &Option<Name>, known: &Option<Name>| said.is_some() && said != known;
        if differs(&request.protocol_type, &self.protocol_type) || differs(&request.protocol, &self.protocol)
        {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        match self.state {
            State::Empty => Err(GroupError::UnknownMemberId),
            State::PreparingRebalance => Err(GroupError::RebalanceInProgress),
            State::CompletingRebalance | State::Stable => Ok(id),
        }
    }

    fn sync(&mut self, call: CallId, id: Name, request: &SyncRequest, out: &mut Out) {
        let is_leader = self.leader.as_ref() == Some(&id);
        let decides = self.state == State::CompletingRebalance && is_leader && self.assigning.is_none();
        let assigned = decides.then(|| self.assigned(&request.assignments));
        if assigned.as_ref().is_some_and(|record| record.bytes() > out.limits.append_bytes_max) {
            // It may decide otherwise, until it is removed as one that has not synced.
            out.reply(call, Reply::Sync(Err(GroupError::GroupTooLarge)));
            return;
        }
        self.unsynced.remove(&id);
        if self.unsynced.is_empty() {
            self.sync_by = None;
        }
        if let Some(member) = self.members.get_mut(&id) {
            member.is_new = false;
            if self.state == State::CompletingRebalance
                && let Some(before) = member.sync_call.replace(call)
            {
                out.reply(before, Reply::Sync(Err(GroupError::RebalanceInProgress)));
            }
        }
        self.heard_of(&id, out);
        if self.state == State::Stable {
            out.reply(call, Reply::Sync(Ok(self.synced(&id))));
        } else if let Some(record) = assigned {
            // It holds, and is told, when it is committed (K17).
            let then = Then::Assign { group: self.id.clone() };
            self.assigning = Some(out.append(vec![record], then));
        }
    }

    /// The group as the leader has decided.
    fn assigned(&self, assignments: &[(Name, Bytes)]) -> Record {
        let assigned: BTreeMap<&Name, &Bytes> = assignments.iter().map(|(id, bytes)| (id, bytes)).collect();
        let mut record = self.record();
        if let Record::Group { value: Some(GroupState { members, .. }), .. } = &mut record {
            for member in members {
                let assignment = assigned.get(&member.member_id);
                member.assignment = assignment.map(|bytes| (*bytes).clone()).unwrap_or_default();
            }
        }
        record
    }

    /// The assignment is committed.
    pub(super) fn on_assigned(&mut self, state: &GroupState, out: &mut Out) {
        self.assigning = None;
        for assigned in &state.members {
            if let Some(member) = self.members.get_mut(&assigned.member_id) {
                member.assignment = assigned.assignment.clone();
            }
        }
        self.enter(State::Stable, out);
        let ids: Vec<Name> = self.members.keys().cloned().collect();
        for id in ids {
            let synced = self.synced(&id);
            let Some(call) = self.members.get_mut(&id).and_then(|member| member.sync_call.take()) else {
                continue;
            };
            out.reply(call, Reply::Sync(Ok(synced)));
            self.heard_of(&id, out);
        }
    }

    fn synced(&self, id: &Name) -> Synced {
        Synced {
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            assignment: self.members.get(id).map(|member| member.assignment.clone()).unwrap_or_default(),
        }
    }

    pub(super) fn on_heartbeat(&mut self, call: CallId, member: &MemberRef, out: &mut Out) {
        let result = self.heartbeat(member, out);
        out.reply(call, Reply::Heartbeat(result));
    }

    fn heartbeat(&mut self, member: &MemberRef, out: &mut Out) -> Result<(), GroupError> {
        let id = self.identify_in_generation(member)?;
        if let Some(member) = self.members.get_mut(&id) {
            member.is_new = false;
        }
        self.heard_of(&id, out);
        match self.state {
            State::PreparingRebalance => Err(GroupError::RebalanceInProgress),
            _ => Ok(()),
        }
    }

    pub(super) fn on_leave(&mut self, call: CallId, members: &[MemberRef], out: &mut Out) {
        let mut results = Vec::with_capacity(members.len());
        for member in members {
            results.push(self.leave(member, out));
        }
        let has_gone = results.iter().any(Result::is_ok);
        out.reply(call, Reply::Leave(Ok(results)));
        if has_gone {
            self.after_leaving(out);
        }
    }

    /// Takes a member out. Whoever names an instance id alone is an administrator.
    fn leave(&mut self, member: &MemberRef, out: &mut Out) -> Result<(), GroupError> {
        if self.pending.remove(&member.member_id).is_some() {
            return Ok(());
        }
        let id = match &member.instance_id {
            Some(instance) if member.member_id.is_empty() => {
                self.statics.get(instance).cloned().ok_or(GroupError::UnknownMemberId)?
            }
            _ => self.identify(member)?,
        };
        self.take_member(&id, GroupError::UnknownMemberId, out);
        Ok(())
    }
}
