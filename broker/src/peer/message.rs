//! What nodes of a cluster say to each other. Encoded as `wire::internal` says; a new kind is added at the end of its
//! enum, and used only once the cluster's feature level says that everyone knows it.

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use weir_protocol::controller::{Question as TailQuestion, Refused, Standing, Tail, Wants};
use weir_protocol::metadata::{Change, ClusterCommand, FeatureRange, Record, Registration, Rejected};
use weir_protocol::raft::{ChangeRefusal, Envelope, Index, Term, VoterChange};
use weir_protocol::types::{BrokerId, VoterId};

/// What needs no answer. It may be lost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Note {
    /// A message of the metadata quorum.
    Raft(Envelope),
}

/// What wants an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Question {
    /// To a node that votes.
    Quorum(QuorumQuestion),
    /// To the quorum's leader.
    Controller(Box<ControllerQuestion>),
    /// To a broker.
    Broker(BrokerQuestion),
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// To [`Question::Quorum`].
    Quorum(QuorumReply),
    /// To [`Question::Controller`].
    Controller(ControllerReply),
    /// To [`Question::Broker`].
    Broker(BrokerReply),
}

/// What any voter can answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum QuorumQuestion {
    /// Asked by a node that does not belong to a cluster yet, or to see where a cluster's leader is.
    Introduce {
        /// Who asks.
        me: VoterId,
        /// Whether it votes, as far as it knows.
        may_vote: bool,
        /// Where it listens, by host and port: one that is no configured voter is known to nobody before it is registered.
        at: Option<(String, u16)>,
    },
    /// Which feature levels does the node know?
    FeatureLevels,
}

/// The answer to a [`QuorumQuestion`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum QuorumReply {
    /// To [`QuorumQuestion::Introduce`].
    Introduced {
        /// Who answers.
        me: VoterId,
        /// What it belongs to; `None`: its folder is empty.
        belongs: Option<Belongs>,
    },
    /// To [`QuorumQuestion::FeatureLevels`].
    FeatureLevels(FeatureRange),
}

/// To which quorum a node belongs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Belongs {
    /// As far as the node knows it.
    pub(crate) cluster_id: Option<Uuid>,
    /// Those that formed the cluster.
    pub(crate) first_voters: Vec<VoterId>,
    /// Who leads the quorum, as far as the node knows.
    pub(crate) leader: Option<VoterId>,
}

/// What the quorum's leader is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum ControllerQuestion {
    /// See `controller::Input::Register`.
    Register(Registration),
    /// See `controller::Input::Heartbeat`.
    Heartbeat {
        /// Who.
        broker: BrokerId,
        /// As registered.
        broker_epoch: i64,
        /// The last metadata entry that it has applied; -1 before the first.
        applied: i64,
        /// What it wants to be.
        wants: BrokerWants,
    },
    /// See `controller::Input::ChangePartition`.
    ChangePartition(ClusterCommand),
    /// A command that needs no controller but the quorum's leader.
    Propose(Record),
    /// Change the voters (KIP-853).
    ChangeVoters(VoterChange),
    /// How far must a state machine have applied that sees everything committed so far?
    Read,
    /// How far voters and observers are (DescribeQuorum).
    DescribeQuorum,
}

/// The answer to a [`ControllerQuestion`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum ControllerReply {
    /// Its broker epoch.
    Registered(Result<i64, Refused>),
    /// Where it stands.
    Heartbeat(Result<Standing, Refused>),
    /// The index of the entry that changed the partition.
    Partition(Result<i64, Refused>),
    /// The command was committed at this index, with this outcome.
    Proposed {
        /// Of the entry.
        index: Index,
        /// What applying it has brought.
        outcome: Result<Change, Rejected>,
    },
    /// The voters have changed in the entry at this index, or why they have not.
    Voters(Result<Index, ChangeRefusal>),
    /// The state machine must have applied everything below.
    Read(Index),
    /// See [`QuorumState`].
    Quorum(QuorumState),
    /// Nothing was done.
    NotDone(NotDone),
    /// It may be done, or not: leadership was lost on the way.
    Unknown,
}

/// Why the quorum's leader has done nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub(crate) enum NotDone {
    /// Another node leads, perhaps this one.
    #[error("nobody is known to lead the metadata quorum now")]
    NotController(Option<BrokerId>),
    /// Too much is under way.
    #[error("the leader of the metadata quorum has too much to do")]
    Overloaded,
    /// The command is too large.
    #[error("it is too large for the metadata quorum")]
    TooLarge,
    /// The feature level cannot be raised: a voter does not say what it knows.
    #[error("voter {0} of the metadata quorum does not say which feature levels it knows: see that it runs")]
    SilentVoter(BrokerId),
    /// The feature level cannot be raised: a voter does not know it.
    #[error(
        "voter {voter} of the metadata quorum knows feature levels {known}, not {level}: upgrade it first"
    )]
    OlderVoter {
        /// Which.
        voter: BrokerId,
        /// The level.
        level: u16,
        /// What it knows.
        known: FeatureRange,
    },
}

impl NotDone {
    /// Whether the same question is refused again, as long as nobody does something about it.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            NotDone::TooLarge | NotDone::SilentVoter(_) | NotDone::OlderVoter { .. } => true,
            NotDone::NotController(_) | NotDone::Overloaded => false,
        }
    }
}

/// How far the quorum's nodes are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct QuorumState {
    /// Who leads.
    pub(crate) leader: VoterId,
    /// In which term.
    pub(crate) term: Term,
    /// Everything below is committed.
    pub(crate) commit: Index,
    /// Voters first, the leader among them.
    pub(crate) nodes: Vec<QuorumNode>,
}

/// How far one node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct QuorumNode {
    /// Which.
    pub(crate) id: VoterId,
    /// Whether it votes.
    pub(crate) votes: bool,
    /// Where its log ends, as far as the leader knows; -1: it does not.
    pub(crate) end: Index,
    /// How long ago it was heard, in ms; -1: never in this term.
    pub(crate) heard_ms_ago: i64,
}

/// `controller::Wants`, as it is sent.
pub(crate) type BrokerWants = Wants;

/// What the controller asks a broker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum BrokerQuestion {
    /// See `controller::Effect::AskTails`.
    Tails {
        /// The epoch that the broker must have when it answers.
        broker_epoch: i64,
        /// About which partitions.
        questions: Vec<TailQuestion>,
    },
}

/// The answer to a [`BrokerQuestion`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum BrokerReply {
    /// How far its replicas reach; questions that it cannot answer yet are left out.
    Tails {
        /// Its own.
        broker_epoch: i64,
        /// See `controller::Input::Tails`.
        tails: Vec<(TailQuestion, Tail)>,
    },
}

/// A question with the kind of its answer.
pub(crate) trait Ask: Into<Question> {
    /// The answer.
    type Reply;

    /// The answer, if it is of the right kind.
    fn reply(reply: Reply) -> Option<Self::Reply>;
}

macro_rules! ask {
    ($question:ty, $reply:ty, $kind:ident, $wrap:expr) => {
        impl From<$question> for Question {
            fn from(question: $question) -> Question {
                Question::$kind($wrap(question))
            }
        }

        impl Ask for $question {
            type Reply = $reply;

            fn reply(reply: Reply) -> Option<$reply> {
                match reply {
                    Reply::$kind(reply) => Some(reply),
                    _ => None,
                }
            }
        }
    };
}

ask!(QuorumQuestion, QuorumReply, Quorum, std::convert::identity);
ask!(ControllerQuestion, ControllerReply, Controller, Box::new);
ask!(BrokerQuestion, BrokerReply, Broker, std::convert::identity);
