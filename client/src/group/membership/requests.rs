//! The requests of a member.

use std::time::Duration;

use bytes::Bytes;
use weir_defect::defect;
use weir_wire::consumer_protocol::{Partitions, Subscription};
use weir_wire::kafka::StrBytes;
use weir_wire::kafka::messages::join_group_request::JoinGroupRequestProtocol;
use weir_wire::kafka::messages::leave_group_request::MemberIdentity;
use weir_wire::kafka::messages::sync_group_request::SyncGroupRequestAssignment;
use weir_wire::kafka::messages::{
    GroupId, HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, SyncGroupRequest,
};

use super::{Effect, Membership, State};
use crate::error::Error;
use crate::group::assignor::{Assignments, Assignor};

/// The kind of group that consumers form.
pub(super) const PROTOCOL_TYPE: &str = "consumer";

impl Membership {
    fn group_id(&self) -> GroupId {
        StrBytes::from_string(self.config.group.to_string()).into()
    }

    fn instance_id(&self) -> Option<StrBytes> {
        self.config.instance.as_ref().map(|instance| StrBytes::from_string(instance.to_string()))
    }

    pub(super) fn join(&mut self) {
        let protocols = self.config.assignors.iter().map(|assignor| {
            let metadata = self
                .subscription(*assignor)
                .encode()
                .map_err(|error| Error::Invalid(format!("the subscription cannot be sent: {error}")))?;
            let name = StrBytes::from_static_str(assignor.name());
            Ok(JoinGroupRequestProtocol::default().with_name(name).with_metadata(metadata))
        });
        let protocols = match protocols.collect::<Result<Vec<_>, Error>>() {
            Ok(protocols) => protocols,
            Err(error) => return self.fail(error),
        };
        let request = JoinGroupRequest::default()
            .with_group_id(self.group_id())
            .with_session_timeout_ms(millis(self.config.session_timeout))
            .with_rebalance_timeout_ms(millis(self.config.poll_interval_max))
            .with_member_id(self.member_id.clone())
            .with_group_instance_id(self.instance_id())
            .with_protocol_type(StrBytes::from_static_str(PROTOCOL_TYPE))
            .with_protocols(protocols);
        self.rejoin = false;
        self.forget_answers();
        self.state = State::Joining;
        self.effects.push(Effect::Join(self.ticket, Box::new(request)));
    }

    fn subscription(&self, assignor: Assignor) -> Subscription {
        let mut owned = Partitions::new();
        if self.is_cooperative() {
            for claim in self.claim.0.iter().filter(|claim| self.topics.contains(&claim.topic)) {
                owned.entry(claim.topic.to_string()).or_default().push(claim.partition);
            }
        }
        let generation = if defect!(no_generation_in_owned) { None } else { Some(self.claim.1) };
        let generation = generation.filter(|generation| *generation >= 0);
        // Java's assignor of that name reads the generation from there where the subscription is older than version 2.
        let user_data = (assignor == Assignor::CooperativeSticky)
            .then(|| Bytes::copy_from_slice(&generation.unwrap_or(-1).to_be_bytes()));
        Subscription {
            topics: self.topics.iter().map(|topic| topic.to_string()).collect(),
            user_data,
            owned,
            generation,
            rack: self.config.rack.as_ref().map(|rack| rack.to_string()),
        }
    }

    pub(super) fn sync(&mut self, assignments: Assignments) {
        let assignments = assignments.into_iter().map(|(member, partitions)| {
            let mut by_topic = Partitions::new();
            for partition in partitions {
                by_topic.entry(partition.topic.to_string()).or_default().push(partition.partition);
            }
            let assignment =
                weir_wire::consumer_protocol::Assignment { partitions: by_topic, user_data: None };
            let assignment = assignment
                .encode()
                .map_err(|error| Error::Invalid(format!("an assignment cannot be sent: {error}")))?;
            let member = StrBytes::from_string(member);
            Ok(SyncGroupRequestAssignment::default().with_member_id(member).with_assignment(assignment))
        });
        let assignments = match assignments.collect::<Result<Vec<_>, Error>>() {
            Ok(assignments) => assignments,
            Err(error) => return self.fail(error),
        };
        let request = SyncGroupRequest::default()
            .with_group_id(self.group_id())
            .with_generation_id(self.generation)
            .with_member_id(self.member_id.clone())
            .with_group_instance_id(self.instance_id())
            .with_protocol_type(Some(StrBytes::from_static_str(PROTOCOL_TYPE)))
            .with_protocol_name(self.assignor.map(|assignor| StrBytes::from_static_str(assignor.name())))
            .with_assignments(assignments);
        self.state = State::Syncing;
        self.effects.push(Effect::Sync(self.ticket, Box::new(request)));
    }

    pub(super) fn heartbeat(&mut self) {
        let request = HeartbeatRequest::default()
            .with_group_id(self.group_id())
            .with_generation_id(self.generation)
            .with_member_id(self.member_id.clone())
            .with_group_instance_id(self.instance_id());
        self.heartbeat_ticket = Some(self.ticket);
        self.effects.push(Effect::Heartbeat(self.ticket, Box::new(request)));
    }

    /// Tells the coordinator not to wait for the end of the session. A static member does not (KIP-345).
    pub(super) fn leave(&mut self) {
        if self.config.instance.is_some() || self.member_id.is_empty() {
            return;
        }
        let identity = MemberIdentity::default().with_member_id(self.member_id.clone());
        let request =
            LeaveGroupRequest::default().with_group_id(self.group_id()).with_members(vec![identity]);
        self.effects.push(Effect::Leave(Box::new(request)));
    }
}

fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}
