//! JoinGroup.

use weir_defect::defect;

use super::classic::{Group, Pending, State};
use super::interface::{CallId, GroupError, JoinRefused, JoinRequest, Joined, MemberRef, Name, Reply};
use super::out::{Deadline, Out, Then};

/// The longest part of a member's id that is the client's own. The whole is a text of the protocol, of 16 bits.
const OWN_NAME_BYTES_MAX: usize = 32_000;

impl Group {
    pub(super) fn on_join(&mut self, call: CallId, request: &JoinRequest, out: &mut Out) {
        let outcome = if request.member_id.is_empty() {
            self.join_without_id(call, request, out)
        } else {
            self.join_with_id(call, request, out)
        };
        if let Err((error, member_id)) = outcome {
            out.reply(call, Reply::Join(Err(JoinRefused { error, member_id })));
        }
    }

    fn join_without_id(
        &mut self,
        call: CallId,
        request: &JoinRequest,
        out: &mut Out,
    ) -> Result<(), (GroupError, Name)> {
        let refused = |error| (error, Name::default());
        let known = request.instance_id.as_ref().and_then(|instance| self.statics.get(instance)).cloned();
        if known.is_none() && self.members.len() + self.pending.len() >= out.limits.members_max {
            return Err(refused(GroupError::GroupMaxSizeReached));
        }
        if !self.fits_without(known.as_ref(), request) {
            return Err(refused(GroupError::InconsistentGroupProtocol));
        }
        let named = request.instance_id.as_ref().unwrap_or(&request.client_id);
        let named = &named[..named.floor_char_boundary(OWN_NAME_BYTES_MAX)];
        let id = Name::from(format!("{named}-{}", uuid::Uuid::from_u128(request.fresh)));
        if let Some(old) = known {
            return self.rejoin_static(call, &old, id, request, out);
        }
        if request.requires_known_member_id && request.instance_id.is_none() {
            let expires = out.at().saturating_add(request.session_timeout);
            let awaited_until = expires.min(out.at().saturating_add(out.limits.pending_member_wait));
            self.pending.insert(id.clone(), Pending { awaited_until, expires });
            let deadline = Deadline::Pending { group: self.id.clone(), member: id.clone() };
            out.wake_at(expires, deadline);
            out.wake_at(awaited_until, Deadline::Rebalance { group: self.id.clone() });
            return Err((GroupError::MemberIdRequired, id));
        }
        self.join_new(call, id, request, out);
        Ok(())
    }

    fn join_with_id(
        &mut self,
        call: CallId,
        request: &JoinRequest,
        out: &mut Out,
    ) -> Result<(), (GroupError, Name)> {
        let id = request.member_id.clone();
        if !self.fits_without(Some(&id), request) {
            return Err((GroupError::InconsistentGroupProtocol, id));
        }
        if self.pending.contains_key(&id) && request.instance_id.is_none() {
            self.join_new(call, id, request, out);
            return Ok(());
        }
        let member =
            MemberRef { member_id: id.clone(), instance_id: request.instance_id.clone(), generation: -1 };
        self.identify(&member).map_err(|error| (error, id.clone()))?;
        let is_leader = self.leader.as_ref() == Some(&id);
        let same = self.members.get(&id).is_some_and(|member| member.matches(request));
        let repeats = match self.state {
            // The answer was lost: the member is told once more.
            State::CompletingRebalance => same,
            State::Stable => same && !is_leader,
            State::Empty | State::PreparingRebalance => false,
        };
        if repeats {
            let joined = self.joined(&id);
            self.heard_of(&id, out);
            out.reply(call, Reply::Join(Ok(Box::new(joined))));
            return Ok(());
        }
        self.update(&id, request, out);
        self.await_generation(&id, call, out);
        Ok(())
    }

    fn join_new(&mut self, call: CallId, id: Name, request: &JoinRequest, out: &mut Out) {
        self.add_member(id.clone(), request);
        if let Some(initial) = &mut self.initial {
            initial.has_newcomers = true;
        }
        self.await_generation(&id, call, out);
    }

    /// The member waits for the next generation.
    fn await_generation(&mut self, id: &Name, call: CallId, out: &mut Out) {
        if let Some(member) = self.members.get_mut(id) {
            member.join_call = Some(call);
        }
        self.heard_of(id, out);
        self.rebalance_or_go_on(out);
    }

    /// Takes over what a member says about itself. A join of its that still waits is refused.
    fn update(&mut self, id: &Name, request: &JoinRequest, out: &mut Out) {
        let Some(member) = self.members.get_mut(id) else { return };
        member.protocols = request.protocols.clone();
        member.session_timeout = request.session_timeout;
        member.rebalance_timeout = request.rebalance_timeout;
        if let Some(before) = member.join_call.take() {
            let error = GroupError::RebalanceInProgress;
            out.reply(before, Reply::Join(Err(JoinRefused { error, member_id: id.clone() })));
        }
    }

    /// Whether the request's protocols fit those of all others.
    fn fits_without(&self, id: Option<&Name>, request: &JoinRequest) -> bool {
        let is_alone = id.is_some_and(|id| self.members.len() == 1 && self.members.contains_key(id));
        is_alone || self.fits(request)
    }

    /// A static member is back, with a new id: whoever has the old one is fenced (KIP-345).
    fn rejoin_static(
        &mut self,
        call: CallId,
        old: &Name,
        new: Name,
        request: &JoinRequest,
        out: &mut Out,
    ) -> Result<(), (GroupError, Name)> {
        // Z33: two joins with one instance id while a rebalance is prepared.
        if defect!(replace_static_only_when_stable) && self.state != State::Stable {
            self.add_member(new.clone(), request);
            self.await_generation(&new, call, out);
            return Ok(());
        }
        let was_leader = self.leader.clone().unwrap_or_default();
        self.replace_static(old, new.clone(), out);
        self.update(&new, request, out);
        let keeps_protocol = self.protocol.is_some() && self.select_protocol() == self.protocol;
        let fits = self.record().bytes() <= out.limits.append_bytes_max;
        if self.state != State::Stable || !keeps_protocol || !fits {
            if !defect!(no_persist_static_rejoin) {
                self.unwritten.insert(new.clone());
            }
            self.await_generation(&new, call, out);
            return Ok(());
        }
        self.heard_of(&new, out);
        let joined = self.joined_again(&new, was_leader, request.skips_assignment);
        let committed = Reply::Join(Ok(Box::new(joined)));
        // Z32: the coordinator moves, and knows the old id alone.
        if defect!(no_persist_static_rejoin) {
            out.reply(call, committed);
            return Ok(());
        }
        let group = self.id.clone();
        let then = Then::ReplaceStatic { group, call, committed, old: old.clone(), new };
        out.append(vec![self.record()], then);
        Ok(())
    }

    /// The answer to a static member that comes back into a stable group: nothing is to be assigned. One that is the
    /// leader and does not understand that is told another leader, its former self (KIP-345, KIP-814).
    fn joined_again(&self, id: &Name, was_leader: Name, skips_assignment: bool) -> Joined {
        let is_leader = self.leader.as_ref() == Some(id);
        let mut joined = self.joined(id);
        if is_leader && skips_assignment {
            joined.skip_assignment = true;
        } else {
            joined.leader = was_leader;
            joined.members = Vec::new();
        }
        joined
    }

    /// Gives a static member another id. Whatever waits under the old one is fenced.
    pub(super) fn replace_static(&mut self, old: &Name, new: Name, out: &mut Out) {
        let Some(mut member) = self.members.get(old).cloned() else { return };
        let was_leader = self.leader.as_ref() == Some(old);
        self.take_member(old, GroupError::FencedInstanceId, out);
        (member.join_call, member.sync_call) = (None, None);
        member.forget_deadline();
        if let Some(instance) = &member.instance_id {
            self.statics.insert(instance.clone(), new.clone());
        }
        self.members.insert(new.clone(), member);
        if was_leader || self.leader.is_none() {
            self.leader = Some(new);
        }
    }
}
