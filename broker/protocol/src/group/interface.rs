//! What goes into a group coordinator and what comes out of it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;

use crate::types::{LeaderEpoch, Offset};

/// A group's, member's or topic's name. Cheap to clone.
pub type Name = Arc<str>;

/// The driver's name for a request that waits for its reply. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// Counts the appends of one coordinator. They become committed in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppendSeq(pub u64);

/// Both clocks. Durations come from the first (contract 12); the second is data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Monotonic, since the runtime's origin.
    pub at: Duration,
    /// Milliseconds since 1970.
    pub wall_ms: i64,
}

/// Why a request is refused. Named as Kafka names its errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum GroupError {
    /// The group's id is empty where it must not be.
    #[error("the group id is not valid")]
    InvalidGroupId,
    /// The session timeout lies outside of what the broker allows.
    #[error("the session timeout is outside of what the broker allows")]
    InvalidSessionTimeout,
    /// The group has no such member.
    #[error("the group has no such member")]
    UnknownMemberId,
    /// The member is to come back with the id that it is given now (KIP-394).
    #[error("the member has been given an id, with which it is to join again")]
    MemberIdRequired,
    /// Another member has taken over the instance id (KIP-345).
    #[error("another member has taken over the instance id")]
    FencedInstanceId,
    /// The request is of another generation.
    #[error("the request is of another generation of the group")]
    IllegalGeneration,
    /// The members are to join anew.
    #[error("the group rebalances")]
    RebalanceInProgress,
    /// The member's protocols have nothing in common with the other members'.
    #[error("the member's protocols do not fit the group's")]
    InconsistentGroupProtocol,
    /// The group has as many members as it may have (KIP-389).
    #[error("the group is full")]
    GroupMaxSizeReached,
    /// There is no such group.
    #[error("there is no such group")]
    GroupIdNotFound,
    /// The group has members.
    #[error("the group has members")]
    NonEmptyGroup,
    /// The group's members read the topic.
    #[error("the group is subscribed to the topic")]
    GroupSubscribedToTopic,
    /// The metadata of an offset is too long.
    #[error("the metadata of the offset is too long")]
    OffsetMetadataTooLarge,
    /// The offsets of one commit do not fit into one append.
    #[error("the commit is too large")]
    CommitTooLarge,
    /// What the members say, and what they are assigned, does not fit into one append.
    #[error("the group's subscriptions and assignments are too large together")]
    GroupTooLarge,
    /// What the coordinator wrote for the request was not kept: nothing has changed.
    #[error("the coordinator could not write")]
    CoordinatorNotAvailable,
    /// The coordinator's log is being read.
    #[error("the coordinator is being loaded")]
    CoordinatorLoadInProgress,
    /// The coordinator ended before it knew whether what it wrote is kept.
    #[error("the coordinator ended before the outcome was known")]
    OutcomeUnknown,
    /// This broker coordinates the group no longer.
    #[error("this broker does not coordinate the group")]
    NotCoordinator,
}

/// A member's request to take part in the next generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinRequest {
    /// Empty: the member has no id yet.
    pub member_id: Name,
    /// `group.instance.id` of a static member (KIP-345).
    pub instance_id: Option<Name>,
    /// As the client calls itself.
    pub client_id: Name,
    /// Where it is.
    pub client_host: Name,
    /// A member that is not heard of for so long is removed.
    pub session_timeout: Duration,
    /// How long the group waits for it when it rebalances.
    pub rebalance_timeout: Duration,
    /// Such as `consumer`.
    pub protocol_type: Name,
    /// What it can do, the preferred first, with what the leader is to know about it.
    pub protocols: Vec<(Name, Bytes)>,
    /// Whether a new member must come back with the id that it is given (KIP-394): from version 4 on.
    pub requires_known_member_id: bool,
    /// Whether a static leader that comes back understands that it has nothing to assign (KIP-814): from version 9 on.
    pub skips_assignment: bool,
    /// Random, for an id that nobody had before.
    pub fresh: u128,
}

/// A member's question for its assignment; from the leader with everybody's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncRequest {
    /// Who asks.
    pub member: MemberRef,
    /// What it believes the protocol type to be (KIP-559).
    pub protocol_type: Option<Name>,
    /// What it believes the protocol to be (KIP-559).
    pub protocol: Option<Name>,
    /// The leader's decision, by member id.
    pub assignments: Vec<(Name, Bytes)>,
}

/// Who a member says that it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberRef {
    /// Its id.
    pub member_id: Name,
    /// Its instance id, if it is static.
    pub instance_id: Option<Name>,
    /// The generation that it knows; negative is none.
    pub generation: i32,
}

/// An offset to be committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitPart {
    /// The topic.
    pub topic: Name,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: Offset,
    /// The epoch of the record before it; -1 is unknown (K19).
    pub leader_epoch: LeaderEpoch,
    /// The client's own (K19).
    pub metadata: Name,
}

/// A request to a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// JoinGroup
    Join(Box<JoinRequest>),
    /// SyncGroup
    Sync(Box<SyncRequest>),
    /// Heartbeat
    Heartbeat(MemberRef),
    /// LeaveGroup; the generation does not count.
    Leave(Vec<MemberRef>),
    /// OffsetCommit
    Commit {
        /// Who commits; without id and generation it is somebody outside of the group.
        member: MemberRef,
        /// What.
        parts: Vec<CommitPart>,
    },
    /// OffsetDelete (KIP-496)
    DeleteOffsets(Vec<(Name, i32)>),
    /// DeleteGroups
    Delete,
}

/// What happens to a coordinator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A client asks.
    Request {
        /// Under which name it is answered.
        call: CallId,
        /// Which group.
        group: Name,
        /// What.
        request: Request,
    },
    /// The append is committed.
    Committed {
        /// Which.
        seq: AppendSeq,
    },
    /// The append, and with it all later ones, was not kept and will never be.
    AppendFailed {
        /// The first of them.
        seq: AppendSeq,
    },
    /// A topic was deleted: offsets in it have no meaning.
    TopicDeleted {
        /// Which.
        topic: Name,
    },
    /// The time that [`super::Coordinator::next_deadline`] has named has come.
    Tick,
    /// Another broker coordinates these groups from now on, or this one in a new leader epoch.
    Resign,
}

/// What the driver must do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Append these records as one batch and report what became of it.
    Append {
        /// Under which name.
        seq: AppendSeq,
        /// What.
        records: Vec<Record>,
    },
    /// Answer a client.
    Reply {
        /// Whom.
        call: CallId,
        /// What.
        reply: Reply,
    },
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To JoinGroup.
    Join(Result<Box<Joined>, JoinRefused>),
    /// To SyncGroup.
    Sync(Result<Synced, GroupError>),
    /// To Heartbeat.
    Heartbeat(Result<(), GroupError>),
    /// To LeaveGroup: one for each member that was named.
    Leave(Result<Vec<Result<(), GroupError>>, GroupError>),
    /// To OffsetCommit: one for each part.
    Commit(Result<Vec<Result<(), GroupError>>, GroupError>),
    /// To OffsetDelete: one for each partition.
    DeleteOffsets(Result<Vec<Result<(), GroupError>>, GroupError>),
    /// To DeleteGroups.
    Delete(Result<(), GroupError>),
}

/// A join that is refused, with the id that the member has or is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinRefused {
    /// Why.
    pub error: GroupError,
    /// The id.
    pub member_id: Name,
}

/// A member of a new generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The generation.
    pub generation: i32,
    /// The protocol type.
    pub protocol_type: Name,
    /// The protocol that all have in common.
    pub protocol: Name,
    /// Who assigns.
    pub leader: Name,
    /// The member's id.
    pub member_id: Name,
    /// Whether the leader is to leave the assignment as it is (KIP-814).
    pub skip_assignment: bool,
    /// For the leader: everybody, with instance id and metadata.
    pub members: Vec<(Name, Option<Name>, Bytes)>,
}

/// A member's assignment (K15: the whole of it).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synced {
    /// The protocol type.
    pub protocol_type: Option<Name>,
    /// The protocol.
    pub protocol: Option<Name>,
    /// The assignment.
    pub assignment: Bytes,
}

/// A change that a coordinator writes to its log, in the meaning of Kafka's own records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A group's generation; `None`: the group is gone.
    Group {
        /// Which.
        group: Name,
        /// How it is from now on.
        value: Option<GroupState>,
    },
    /// A committed offset; `None`: it is gone.
    Offset {
        /// The group.
        group: Name,
        /// The topic.
        topic: Name,
        /// The partition.
        partition: i32,
        /// What it is from now on.
        value: Option<CommittedOffset>,
    },
}

impl Record {
    /// About as many bytes as it takes in the log; hardly more.
    pub fn bytes(&self) -> usize {
        /// Of lengths, numbers and what a batch adds to each record.
        const FIXED_BYTES: usize = 64;
        let text = |name: &Option<Name>| name.as_ref().map_or(0, |name| name.len());
        let members = |members: &[MemberState]| -> usize {
            members.iter().map(|member| FIXED_BYTES + member.bytes() + text(&member.instance_id)).sum()
        };
        FIXED_BYTES
            + match self {
                Record::Group { group, value } => {
                    let value = value.as_ref().map_or(0, |state| {
                        let texts = text(&state.protocol) + text(&state.leader);
                        state.protocol_type.len() + texts + members(&state.members)
                    });
                    group.len() + value
                }
                Record::Offset { group, topic, value, .. } => {
                    group.len() + topic.len() + value.as_ref().map_or(0, |offset| offset.metadata.len())
                }
            }
    }
}

/// A generation as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupState {
    /// Such as `consumer`; empty for a group that never had members.
    pub protocol_type: Name,
    /// The generation.
    pub generation: i32,
    /// The protocol; none without members.
    pub protocol: Option<Name>,
    /// Who assigns; none without members.
    pub leader: Option<Name>,
    /// When it came to be so, in ms since 1970.
    pub since_ms: i64,
    /// Its members.
    pub members: Vec<MemberState>,
}

/// A member as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberState {
    /// Its id.
    pub member_id: Name,
    /// Its instance id.
    pub instance_id: Option<Name>,
    /// As the client calls itself.
    pub client_id: Name,
    /// Where it is.
    pub client_host: Name,
    /// See [`JoinRequest::rebalance_timeout`].
    pub rebalance_timeout: Duration,
    /// See [`JoinRequest::session_timeout`].
    pub session_timeout: Duration,
    /// What it said about the protocol that was chosen.
    pub subscription: Bytes,
    /// What it was assigned.
    pub assignment: Bytes,
}

impl MemberState {
    /// Of what has no fixed size, its instance id aside.
    fn bytes(&self) -> usize {
        let texts = self.member_id.len() + self.client_id.len() + self.client_host.len();
        texts + self.subscription.len() + self.assignment.len()
    }
}

/// A committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The offset.
    pub offset: Offset,
    /// The epoch of the record before it; -1 is unknown.
    pub leader_epoch: LeaderEpoch,
    /// The client's own.
    pub metadata: Name,
    /// When it was committed, in ms since 1970.
    pub committed_ms: i64,
}

/// A group as DescribeGroups shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Kafka's name of the state.
    pub state: &'static str,
    /// Such as `consumer`.
    pub protocol_type: Name,
    /// Empty without one.
    pub protocol: Name,
    /// The members; subscription and assignment are empty unless the group is stable.
    pub members: Vec<MemberState>,
}

/// Bounds and times. Kafka's settings of the same meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `group.min.session.timeout.ms`
    pub session_timeout_min: Duration,
    /// `group.max.session.timeout.ms`
    pub session_timeout_max: Duration,
    /// `group.initial.rebalance.delay.ms`: how long an empty group waits for more members.
    pub initial_rebalance_delay: Duration,
    /// `group.max.size`
    pub members_max: usize,
    /// `offset.metadata.max.bytes`
    pub metadata_bytes_max: usize,
    /// `offsets.retention.minutes`: offsets of a group that has no members for so long are removed.
    pub offsets_retention: Duration,
    /// `offsets.retention.check.interval.ms`
    pub retention_check: Duration,
    /// A new member that has joined and is not heard of again is removed after this time.
    pub new_member_timeout: Duration,
    /// A member that was given an id holds up a rebalance for so long at most, until it comes back (K14).
    pub pending_member_wait: Duration,
    /// Groups of one coordinator; one more is refused.
    pub groups_max: usize,
    /// The most that is appended for one request, by [`Record::bytes`].
    pub append_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            session_timeout_min: Duration::from_secs(6),
            session_timeout_max: Duration::from_secs(30 * 60),
            initial_rebalance_delay: Duration::from_secs(3),
            members_max: 100_000,
            metadata_bytes_max: 4096,
            offsets_retention: Duration::from_secs(7 * 24 * 3600),
            retention_check: Duration::from_secs(10 * 60),
            new_member_timeout: Duration::from_secs(5 * 60),
            pending_member_wait: Duration::from_secs(3),
            groups_max: 1 << 20,
            append_bytes_max: 16 << 20,
        }
    }
}
