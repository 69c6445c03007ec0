//! What answers do to a member.

use std::collections::BTreeSet;
use std::sync::Arc;

use kafka_protocol::error::ResponseError;
use weir_defect::defect;
use weir_runtime::time::Instant;
use weir_wire::consumer_protocol::Subscription;
use weir_wire::kafka::messages::join_group_response::JoinGroupResponseMember;
use weir_wire::kafka::messages::{
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, SyncGroupRequest,
    SyncGroupResponse,
};

use super::requests::PROTOCOL_TYPE;
use super::{Coordinator, Joined, Membership, State};
use crate::TopicPartition;
use crate::call::Call;
use crate::error::{Error, KafkaError};
use crate::group::assignor::{Assignments, Assignor, Counts, Member};

/// What an error of the coordinator asks for.
enum Cure {
    /// Another broker, or this one later, may know.
    SearchAgain,
    /// The same again, later.
    Repeat,
    /// A join: the group is between two generations.
    Rejoin,
    /// A join as somebody new, or (false) under the same id: this member was given up.
    StartOver(bool),
    /// Nothing helps.
    End,
}

fn cure(error: KafkaError) -> Cure {
    use ResponseError as E;
    match error.kind() {
        E::CoordinatorNotAvailable | E::NotCoordinator => Cure::SearchAgain,
        E::CoordinatorLoadInProgress | E::RequestTimedOut | E::UnknownServerError => Cure::Repeat,
        E::RebalanceInProgress => Cure::Rejoin,
        E::UnknownMemberId => Cure::StartOver(true),
        E::IllegalGeneration => Cure::StartOver(false),
        _ if error.is_retriable() => Cure::Repeat,
        _ => Cure::End,
    }
}

impl Membership {
    /// Who coordinates the group.
    pub(in crate::group) fn on_coordinator(&mut self, found: Result<i32, Error>, now: Instant) {
        if self.coordinator != Coordinator::Asked {
            return;
        }
        match found {
            Ok(broker) => self.coordinator = Coordinator::Known(broker),
            Err(error) => {
                self.coordinator = Coordinator::Unknown;
                if !error.is_retriable() && self.needs_coordinator() {
                    return self.fail(error);
                }
                tracing::debug!(group = %self.config.group, %error, "no coordinator yet");
                self.back_off(now);
            }
        }
        self.advance(now);
    }

    /// A request got no answer: the coordinator may be another by now.
    fn on_unreachable(&mut self, error: &Error, now: Instant) {
        tracing::debug!(group = %self.config.group, %error, "the coordinator does not answer");
        self.coordinator = Coordinator::Unknown;
        self.back_off(now);
    }

    pub(in crate::group) fn on_joined(&mut self, ticket: u64, joined: Result<Joined, Error>, now: Instant) {
        if ticket != self.ticket || self.state != State::Joining {
            return;
        }
        match joined {
            Ok((address, response)) => match KafkaError::from_code(response.error_code) {
                None => self.on_generation(&address, response),
                Some(error) if error.kind() == ResponseError::MemberIdRequired => {
                    // The second step of a join (KIP-394): the same under the id that was given.
                    self.member_id = response.member_id;
                    self.state = State::Unjoined;
                }
                Some(error) => self.on_refused(JoinGroupRequest::NAME, &address, error, now),
            },
            Err(error) if error.is_retriable() => {
                self.state = State::Unjoined;
                self.on_unreachable(&error, now);
            }
            Err(error) => self.fail(error),
        }
        self.advance(now);
    }

    /// A generation has begun.
    fn on_generation(&mut self, address: &Arc<str>, response: JoinGroupResponse) {
        let name = response.protocol_name.as_ref().map(|name| name.to_string()).unwrap_or_default();
        let assignor = Assignor::by_name(&name);
        let offered = assignor.is_some_and(|assignor| self.config.assignors.contains(&assignor));
        let kind = response.protocol_type.as_ref().is_none_or(|kind| &**kind == PROTOCOL_TYPE);
        if !offered || !kind {
            let reason = format!("the group divides its partitions by {name:?}, which was not offered");
            let (address, api) = (address.clone(), JoinGroupRequest::NAME);
            return self.fail(Error::Protocol { address, api, reason });
        }
        self.assignor = assignor;
        self.member_id = response.member_id;
        self.generation = response.generation_id;
        if response.leader != self.member_id {
            return self.sync(Assignments::new());
        }
        let members: Vec<Member> = response.members.iter().map(member).collect();
        self.group_topics = members.iter().flat_map(|member| member.topics.iter().cloned()).collect();
        if response.skip_assignment {
            // A static leader came back and the others never stopped (KIP-814).
            return self.sync(Assignments::new());
        }
        self.state = State::Assigning(members);
        self.counting = true;
        self.effects.push(super::Effect::Count(self.ticket, self.group_topics.clone()));
    }

    /// How many partitions the group's topics have.
    pub(in crate::group) fn on_counts(&mut self, ticket: u64, counts: Result<Counts, Error>, now: Instant) {
        if ticket != self.ticket || !self.counting {
            return;
        }
        self.counting = false;
        match (&mut self.state, counts) {
            (State::Assigning(members), Ok(counts)) => {
                let members = std::mem::take(members);
                let assignments = self.assignor.map(|assignor| assignor.assign(members, &counts));
                self.divided = Some(counts);
                self.sync(assignments.unwrap_or_default());
            }
            (State::Assigning(_), Err(error)) => {
                // The others wait for the leader: a new rebalance tells them that there is trouble.
                tracing::warn!(group = %self.config.group, %error, "topics cannot be looked up: joining again");
                self.state = State::Unjoined;
                self.back_off(now);
            }
            (State::Stable, Ok(counts)) => {
                self.rejoin |= self.divided.as_ref().is_some_and(|divided| *divided != counts);
                self.divided = Some(counts);
            }
            (_, Ok(_)) => {}
            (_, Err(error)) => {
                tracing::debug!(group = %self.config.group, %error, "topics cannot be looked up")
            }
        }
        self.advance(now);
    }

    pub(in crate::group) fn on_synced(
        &mut self,
        ticket: u64,
        synced: Result<(Arc<str>, SyncGroupResponse), Error>,
        now: Instant,
    ) {
        if ticket != self.ticket || self.state != State::Syncing {
            return;
        }
        match synced {
            Ok((address, response)) => match KafkaError::from_code(response.error_code) {
                None => {
                    if let Err(error) = self.take(response.assignment, now) {
                        self.fail(error);
                    }
                }
                Some(error) => self.on_refused(SyncGroupRequest::NAME, &address, error, now),
            },
            Err(error) if error.is_retriable() => {
                self.state = State::Unjoined;
                self.on_unreachable(&error, now);
            }
            Err(error) => self.fail(error),
        }
        self.advance(now);
    }

    pub(in crate::group) fn on_heartbeat(
        &mut self,
        ticket: u64,
        answer: Result<(Arc<str>, HeartbeatResponse), Error>,
        now: Instant,
    ) {
        if ticket != self.ticket || self.heartbeat_ticket != Some(ticket) {
            return;
        }
        self.heartbeat_ticket = None;
        match answer {
            Ok((address, response)) => match KafkaError::from_code(response.error_code) {
                None => self.attempts = 0,
                Some(error) => self.on_told(HeartbeatRequest::NAME, &address, error, now),
            },
            Err(error) if error.is_retriable() => self.on_unreachable(&error, now),
            Err(error) => self.fail(error),
        }
        self.advance(now);
    }

    /// A commit of this generation was refused.
    pub(in crate::group) fn on_commit_refused(
        &mut self,
        generation: i32,
        address: &Arc<str>,
        error: KafkaError,
        now: Instant,
    ) {
        if self.state == State::Stable && self.generation == generation {
            self.on_told("OffsetCommit", address, error, now);
            self.advance(now);
        }
    }

    /// The coordinator refuses a stable member.
    fn on_told(&mut self, api: &'static str, address: &Arc<str>, error: KafkaError, now: Instant) {
        match cure(error) {
            Cure::SearchAgain => self.coordinator = Coordinator::Unknown,
            Cure::Repeat => self.heartbeat_at = now + self.config.backoff.before(1),
            Cure::Rejoin => self.rejoin = true,
            Cure::StartOver(forget_id) => self.start_over(forget_id, error),
            Cure::End => self.fail(self.refusal(api, address, error)),
        }
    }

    /// The coordinator refuses a member that is not stable.
    fn on_refused(&mut self, api: &'static str, address: &Arc<str>, error: KafkaError, now: Instant) {
        self.state = State::Unjoined;
        match cure(error) {
            Cure::SearchAgain => {
                self.coordinator = Coordinator::Unknown;
                self.back_off(now);
            }
            Cure::Repeat => self.back_off(now),
            // A sync that comes too late: the next generation begins at once.
            Cure::Rejoin if api == SyncGroupRequest::NAME => {}
            Cure::Rejoin => self.back_off(now),
            Cure::StartOver(forget_id) => {
                self.start_over(forget_id, error);
                self.back_off(now);
            }
            Cure::End => self.fail(self.refusal(api, address, error)),
        }
    }

    fn start_over(&mut self, forget_id: bool, error: KafkaError) {
        tracing::info!(group = %self.config.group, member = &*self.member_id, %error, "the group went on without this member");
        self.reset(forget_id);
    }

    fn refusal(&self, api: &'static str, address: &Arc<str>, error: KafkaError) -> Error {
        let about = format!("group {}", self.config.group);
        Error::Kafka { address: address.clone(), api, about, error, message: None }
    }
}

/// A member as it describes itself; one that cannot be understood reads nothing.
fn member(told: &JoinGroupResponseMember) -> Member {
    let subscription = Subscription::decode(told.metadata.clone()).unwrap_or_else(|error| {
        tracing::warn!(member = &*told.member_id, %error, "a member's subscription cannot be read");
        Subscription::default()
    });
    let in_user_data = || subscription.user_data.as_ref().and_then(|data| data.first_chunk::<4>().copied());
    let generation = match subscription.generation {
        Some(generation) => Some(generation),
        None => in_user_data().map(i32::from_be_bytes).filter(|generation| *generation >= 0),
    };
    let mut owned = BTreeSet::new();
    for (topic, partitions) in &subscription.owned {
        let topic: Arc<str> = Arc::from(topic.as_str());
        let named = |&partition| TopicPartition { topic: topic.clone(), partition };
        owned.extend(partitions.iter().map(named));
    }
    Member {
        id: told.member_id.to_string(),
        instance: told.group_instance_id.as_ref().map(|instance| instance.to_string()),
        topics: subscription.topics.iter().map(|topic| Arc::from(topic.as_str())).collect(),
        owned,
        generation: generation.filter(|_| !defect!(no_generation_in_owned)),
    }
}
