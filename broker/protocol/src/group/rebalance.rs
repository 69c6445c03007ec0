//! From one generation to the next.

use std::time::Duration;

use weir_defect::defect;

use super::classic::{Group, InitialWait, State};
use super::interface::{GroupError, JoinRefused, Name, Record, Reply};
use super::out::{Deadline, Out, Then};

/// How long a rebalance is at least put off that cannot be ended: the members' own time may be none at all.
const WAIT_AGAIN_MIN: Duration = Duration::from_secs(1);

impl Group {
    /// Something has changed that the members must agree on anew.
    pub(super) fn prepare_rebalance(&mut self, out: &mut Out) {
        self.abandon_assignment(GroupError::RebalanceInProgress, out);
        let now = out.at();
        let timeout = self.rebalance_timeout();
        let delay = out.limits.initial_rebalance_delay;
        let ends_by = now.saturating_add(timeout);
        let join_by = if self.state == State::Empty && !delay.is_zero() {
            self.initial = Some(InitialWait { ends_by, has_newcomers: false });
            ends_by.min(now.saturating_add(delay))
        } else {
            self.initial = None;
            ends_by
        };
        self.enter(State::PreparingRebalance, out);
        self.set_join_by(join_by, out);
        self.complete_join_if_all_are_there(out);
    }

    fn set_join_by(&mut self, at: Duration, out: &mut Out) {
        self.join_by = Some(at);
        out.wake_at(at, Deadline::Rebalance { group: self.id.clone() });
    }

    /// Nobody will get the assignment that was being made.
    fn abandon_assignment(&mut self, error: GroupError, out: &mut Out) {
        self.assigning = None;
        self.sync_by = None;
        self.unsynced.clear();
        if self.state != State::CompletingRebalance {
            return;
        }
        for member in self.members.values_mut() {
            member.assignment = bytes::Bytes::new();
            if let Some(call) = member.sync_call.take() {
                out.reply(call, Reply::Sync(Err(error)));
            }
        }
    }

    /// Somebody has joined: the rebalance begins, or comes nearer to its end.
    pub(super) fn rebalance_or_go_on(&mut self, out: &mut Out) {
        match self.state {
            State::PreparingRebalance => self.complete_join_if_all_are_there(out),
            _ => self.prepare_rebalance(out),
        }
    }

    /// Somebody has gone: the others share what it had.
    pub(super) fn after_leaving(&mut self, out: &mut Out) {
        match self.state {
            State::Empty => {}
            State::PreparingRebalance => self.complete_join_if_all_are_there(out),
            State::CompletingRebalance | State::Stable => self.prepare_rebalance(out),
        }
    }

    pub(super) fn complete_join_if_all_are_there(&mut self, out: &mut Out) {
        if self.state != State::PreparingRebalance || self.initial.is_some() && !self.members.is_empty() {
            return;
        }
        // K14: who was given an id is waited for, but not for long.
        let awaited = self.pending.values().map(|pending| pending.awaited_until).max();
        if awaited.is_some_and(|until| until > out.at()) {
            return;
        }
        if self.members.values().all(|member| member.join_call.is_some()) {
            self.complete_join(out);
        }
    }

    /// The time of a rebalance, or of the wait for its assignment, may be over.
    pub(super) fn on_rebalance_deadline(&mut self, out: &mut Out) {
        let now = out.at();
        if self.join_by.is_some_and(|by| by <= now) {
            match &mut self.initial {
                Some(initial) if initial.has_newcomers && now < initial.ends_by => {
                    initial.has_newcomers = false;
                    let again = now.saturating_add(out.limits.initial_rebalance_delay).min(initial.ends_by);
                    self.set_join_by(again, out);
                }
                _ => self.complete_join(out),
            }
        }
        self.complete_join_if_all_are_there(out);
        if self.sync_by.is_some_and(|by| by <= now) {
            self.sync_by = None;
            let mut late: Vec<Name> = std::mem::take(&mut self.unsynced).into_iter().collect();
            // Z34
            if defect!(no_new_member_timeout) {
                late.retain(|id| self.members.get(id).is_some_and(|member| !member.is_new));
            }
            for member in &late {
                self.take_member(member, GroupError::UnknownMemberId, out);
            }
            if !late.is_empty() {
                self.after_leaving(out);
            }
        }
    }

    /// The next generation begins with those who are there. Static members may come later (KIP-345).
    fn complete_join(&mut self, out: &mut Out) {
        self.initial = None;
        let absent: Vec<Name> = self
            .members
            .iter()
            .filter(|(_, member)| member.join_call.is_none() && member.instance_id.is_none())
            .map(|(id, _)| id.clone())
            .collect();
        for member in &absent {
            self.take_member(member, GroupError::UnknownMemberId, out);
        }
        if self.members.is_empty() {
            self.become_empty(out);
            return;
        }
        let has_joined = |id: &Name| self.members.get(id).is_some_and(|member| member.join_call.is_some());
        if !self.leader.as_ref().is_some_and(has_joined) {
            let Some(leader) = self.members.keys().find(|id| has_joined(id)).cloned() else {
                // Only absent static members are left: until one comes, or their sessions are over.
                let again = out.at().saturating_add(self.rebalance_timeout().max(WAIT_AGAIN_MIN));
                self.set_join_by(again, out);
                return;
            };
            self.leader = Some(leader);
        }
        let next = self.generation.saturating_add(1);
        if (self.written < next || !self.unwritten.is_empty()) && self.writes_generation(next, out) {
            return;
        }
        self.generation = next;
        self.protocol = self.select_protocol();
        self.join_by = None;
        self.enter(State::CompletingRebalance, out);
        self.answer_joins(out);
        let sync_by = out.at().saturating_add(self.rebalance_timeout());
        self.sync_by = Some(sync_by);
        out.wake_at(sync_by, Deadline::Rebalance { group: self.id.clone() });
    }

    /// Writes that this generation begins, if it can be written; its members are told of it afterwards. So a coordinator
    /// that comes to be later never gives its number to another generation, nor fences the members that it has (KIP-345).
    fn writes_generation(&mut self, next: i32, out: &mut Out) -> bool {
        if self.writing.is_some() {
            return true;
        }
        let mut record = self.record_with(self.select_protocol());
        if let Record::Group { value: Some(state), .. } = &mut record {
            (state.generation, state.leader) = (next, None);
            state.members.iter_mut().for_each(|member| member.assignment = bytes::Bytes::new());
        }
        if record.bytes() > out.limits.append_bytes_max {
            // Nor will there be an assignment: the leader is told why.
            self.unwritten.clear();
            return false;
        }
        let (group, ids) = (self.id.clone(), self.unwritten.iter().cloned().collect());
        let then = Then::BeginGeneration { group, generation: next, ids };
        self.writing = Some(out.append(vec![record], then));
        true
    }

    /// The log knows that this generation begins, and these ids.
    pub(super) fn on_generation_written(&mut self, generation: i32, ids: &[Name], out: &mut Out) {
        self.writing = None;
        self.written = generation;
        self.unwritten.retain(|id| !ids.contains(id));
        // Those may have left meanwhile for whom it waited, and others may have come.
        let now = out.at();
        self.complete_join_if_all_are_there(out);
        if self.state == State::PreparingRebalance && self.join_by.is_some_and(|by| by <= now) {
            self.complete_join(out);
        }
    }

    /// The log does not know it: whoever waits asks again.
    pub(super) fn on_generation_failed(&mut self, ids: &[Name], out: &mut Out) {
        self.writing = None;
        for (id, member) in &mut self.members {
            let Some(call) = member.join_call.take() else { continue };
            let member_id = if ids.contains(id) { Name::default() } else { id.clone() };
            let error = GroupError::CoordinatorNotAvailable;
            out.reply(call, Reply::Join(Err(JoinRefused { error, member_id })));
        }
        if self.state == State::PreparingRebalance {
            let again = out.at().saturating_add(self.rebalance_timeout().max(WAIT_AGAIN_MIN));
            self.set_join_by(again, out);
        }
    }

    fn answer_joins(&mut self, out: &mut Out) {
        let ids: Vec<Name> = self.members.keys().cloned().collect();
        for id in ids {
            let joined = self.joined(&id);
            let Some(member) = self.members.get_mut(&id) else { continue };
            member.assignment = bytes::Bytes::new();
            let Some(call) = member.join_call.take() else { continue };
            out.reply(call, Reply::Join(Ok(Box::new(joined))));
            self.unsynced.insert(id.clone());
            self.heard_of(&id, out);
        }
    }

    fn become_empty(&mut self, out: &mut Out) {
        self.generation = self.generation.saturating_add(1);
        (self.protocol, self.leader, self.join_by, self.writing) = (None, None, None, None);
        self.written = self.generation;
        self.empty_since = out.at();
        self.enter(State::Empty, out);
        out.append(vec![self.record()], Then::Nothing);
    }

    /// The leader's assignment was not kept: it is to be made once more.
    pub(super) fn on_assignment_failed(&mut self, out: &mut Out) {
        self.abandon_assignment(GroupError::CoordinatorNotAvailable, out);
        self.prepare_rebalance(out);
    }
}
