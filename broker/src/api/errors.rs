//! The one place where our errors become Kafka's error codes (K13: the real error, never UNKNOWN_SERVER_ERROR).

use kafka_protocol::ResponseError;
use weir_protocol::group::GroupError;
use weir_protocol::metadata::Rejected;
use weir_protocol::partition::FailReason;
use weir_storage::{ReadError, StorageError};
use weir_wire::records::BatchError;

use crate::controller::AskError;
use crate::metadata::ProposeError;
use crate::peer::message::NotDone;
use crate::shard::ShardError;

/// A shard's refusal.
pub(crate) fn of_shard(error: &ShardError) -> ResponseError {
    match error {
        ShardError::UnknownPartition => ResponseError::UnknownTopicOrPartition,
        ShardError::Refused(reason) => of_refusal(*reason),
        // Nothing was appended and every client tries again.
        ShardError::Overloaded => ResponseError::RequestTimedOut,
        ShardError::Storage(error) => of_storage(error),
        ShardError::Read(error) => of_read(error),
        ShardError::OffsetNotAvailable => ResponseError::OffsetNotAvailable,
        // Clients look for another leader.
        ShardError::Stopping => ResponseError::NotLeaderOrFollower,
    }
}

fn of_refusal(reason: FailReason) -> ResponseError {
    match reason {
        FailReason::NotLeader => ResponseError::NotLeaderOrFollower,
        FailReason::FencedLeaderEpoch => ResponseError::FencedLeaderEpoch,
        FailReason::UnknownLeaderEpoch => ResponseError::UnknownLeaderEpoch,
        FailReason::NotEnoughReplicas => ResponseError::NotEnoughReplicas,
        FailReason::NotEnoughReplicasAfterAppend => ResponseError::NotEnoughReplicasAfterAppend,
        FailReason::OutOfOrderSequence => ResponseError::OutOfOrderSequenceNumber,
        FailReason::InvalidProducerEpoch => ResponseError::InvalidProducerEpoch,
        FailReason::TooManyWaiters | FailReason::TimedOut => ResponseError::RequestTimedOut,
        FailReason::StorageFailed => ResponseError::KafkaStorageError,
    }
}

/// A group coordinator's refusal.
pub(crate) fn of_group(error: GroupError) -> ResponseError {
    match error {
        GroupError::InvalidGroupId => ResponseError::InvalidGroupId,
        GroupError::InvalidSessionTimeout => ResponseError::InvalidSessionTimeout,
        GroupError::UnknownMemberId => ResponseError::UnknownMemberId,
        GroupError::MemberIdRequired => ResponseError::MemberIdRequired,
        GroupError::FencedInstanceId => ResponseError::FencedInstanceId,
        GroupError::IllegalGeneration => ResponseError::IllegalGeneration,
        GroupError::RebalanceInProgress => ResponseError::RebalanceInProgress,
        GroupError::InconsistentGroupProtocol => ResponseError::InconsistentGroupProtocol,
        GroupError::GroupMaxSizeReached => ResponseError::GroupMaxSizeReached,
        GroupError::GroupIdNotFound => ResponseError::GroupIdNotFound,
        GroupError::NonEmptyGroup => ResponseError::NonEmptyGroup,
        GroupError::GroupSubscribedToTopic => ResponseError::GroupSubscribedToTopic,
        GroupError::OffsetMetadataTooLarge => ResponseError::OffsetMetadataTooLarge,
        GroupError::CommitTooLarge => ResponseError::InvalidCommitOffsetSize,
        GroupError::GroupTooLarge => ResponseError::MessageTooLarge,
        GroupError::CoordinatorNotAvailable => ResponseError::CoordinatorNotAvailable,
        GroupError::CoordinatorLoadInProgress => ResponseError::CoordinatorLoadInProgress,
        // Clients look for the coordinator again, and know that the commit may be there.
        GroupError::OutcomeUnknown => ResponseError::RequestTimedOut,
        GroupError::NotCoordinator => ResponseError::NotCoordinator,
    }
}

/// The store's refusal. A full disk, too, is a storage error to clients: they try again.
pub(crate) fn of_storage(error: &StorageError) -> ResponseError {
    match error {
        StorageError::Backlog { .. } => ResponseError::RequestTimedOut,
        StorageError::Closed => ResponseError::NotLeaderOrFollower,
        _ => ResponseError::KafkaStorageError,
    }
}

/// A read that gives nothing.
pub(crate) fn of_read(error: &ReadError) -> ResponseError {
    match error {
        ReadError::OutOfRange { .. } => ResponseError::OffsetOutOfRange,
        ReadError::Corrupt { .. } => ResponseError::CorruptMessage,
        // The log was cut or deleted meanwhile: clients ask for the leader and come again.
        ReadError::Changed(_) => ResponseError::NotLeaderOrFollower,
        ReadError::Io(_) | ReadError::Failed => ResponseError::KafkaStorageError,
    }
}

/// Records that a producer should not have sent (K10, K11).
pub(crate) fn of_batch(error: &BatchError) -> ResponseError {
    match error {
        BatchError::Truncated { .. }
        | BatchError::Length { .. }
        | BatchError::Checksum { .. }
        | BatchError::Codec(_) => ResponseError::CorruptMessage,
        BatchError::UnknownCodec { .. } => ResponseError::UnsupportedCompressionType,
        BatchError::Timestamp { .. } => ResponseError::InvalidTimestamp,
        BatchError::TooLarge { .. } => ResponseError::MessageTooLarge,
        BatchError::Magic { .. }
        | BatchError::Offsets { .. }
        | BatchError::Count { .. }
        | BatchError::Attributes { .. }
        | BatchError::Producer { .. }
        | BatchError::Record { .. }
        | BatchError::OffsetDelta { .. }
        | BatchError::TrailingBytes { .. }
        | BatchError::KeyMissing { .. }
        | BatchError::Batches { .. } => ResponseError::InvalidRecord,
    }
}

/// A command that the quorum did not take.
pub(crate) fn of_proposal(error: &ProposeError) -> ResponseError {
    match error {
        ProposeError::Rejected(rejected) => of_rejected(rejected),
        ProposeError::NotController => ResponseError::NotController,
        ProposeError::Unknown | ProposeError::Overloaded => ResponseError::RequestTimedOut,
        ProposeError::Stopping => ResponseError::NotController,
        ProposeError::TooLarge => ResponseError::InvalidRequest,
        ProposeError::Voter(_) => ResponseError::FeatureUpdateFailed,
    }
}

/// Why the quorum's leader has not answered.
pub(crate) fn of_ask(error: &AskError) -> ResponseError {
    match error {
        AskError::NotDone(NotDone::TooLarge) => ResponseError::InvalidRequest,
        AskError::NotDone(NotDone::SilentVoter(_) | NotDone::OlderVoter { .. }) => {
            ResponseError::FeatureUpdateFailed
        }
        AskError::NotDone(NotDone::Overloaded) | AskError::Unknown => ResponseError::RequestTimedOut,
        AskError::NotDone(NotDone::NotController(_)) | AskError::Stopping => ResponseError::NotController,
    }
}

/// The same for a request that names its topic: a topic that was deleted meanwhile has no id that the client knows.
pub(crate) fn of_proposal_by_name(error: &ProposeError) -> ResponseError {
    match of_proposal(error) {
        ResponseError::UnknownTopicId => ResponseError::UnknownTopicOrPartition,
        error => error,
    }
}

pub(crate) fn of_rejected(rejected: &Rejected) -> ResponseError {
    match rejected {
        Rejected::InvalidTopicName(_) | Rejected::TopicCollides { .. } => {
            ResponseError::InvalidTopicException
        }
        Rejected::TopicExists(_) => ResponseError::TopicAlreadyExists,
        Rejected::UnknownTopic(_) => ResponseError::UnknownTopicId,
        Rejected::UnknownPartition(_) => ResponseError::UnknownTopicOrPartition,
        Rejected::InvalidPartitions(_) => ResponseError::InvalidPartitions,
        Rejected::InvalidReplicas(_) => ResponseError::InvalidReplicaAssignment,
        Rejected::InvalidSetting(_) => ResponseError::InvalidConfig,
        Rejected::StalePartitionEpoch { .. } => ResponseError::InvalidUpdateVersion,
        Rejected::StaleBrokerEpoch { .. } | Rejected::StaleIncarnation(_) => ResponseError::StaleBrokerEpoch,
        Rejected::UnknownBroker(_) => ResponseError::BrokerIdNotRegistered,
        Rejected::UnsupportedFeature(_) | Rejected::Downgrade { .. } => ResponseError::FeatureUpdateFailed,
        Rejected::FeatureLevel { .. } => ResponseError::UnsupportedVersion,
        Rejected::NotLeader { .. } => ResponseError::FencedLeaderEpoch,
        Rejected::IneligibleReplica { .. } => ResponseError::IneligibleReplica,
        Rejected::ElectionNotNeeded(_) => ResponseError::ElectionNotNeeded,
        Rejected::NoEligibleLeader(_) => ResponseError::EligibleLeadersNotAvailable,
        Rejected::NotFormed | Rejected::AlreadyFormed => ResponseError::NotController,
        Rejected::OutOfOrder { .. }
        | Rejected::InvalidTopicId(_)
        | Rejected::BrokerInUse(_)
        | Rejected::InvalidIsr(_)
        | Rejected::Exhausted(_) => ResponseError::InvalidRequest,
    }
}
