//! The commands that a cluster needs besides those of the first format.

use serde::{Deserialize, Serialize};

use super::{Endpoint, FeatureRange, IsrMember};
use crate::types::{BrokerId, FolderId, Incarnation, LeaderEpoch, LogId, TopicId};

/// A command of the second format, from feature level 2 on. The first format's commands for topics, settings, producer
/// ids and feature levels stay in use; those for brokers and in-sync replicas have their successors here.
///
/// Each command carries its consequences: applying it moves leaders and shrinks in-sync replicas in the same entry, by
/// the rules of `partition_state`, so that no image ever shows a leader that cannot lead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClusterCommand {
    /// A broker has started. Its broker epoch is the index of this entry. It is fenced, and out of every ISR, until
    /// [`ClusterCommand::Unfence`].
    RegisterBroker(Registration),
    /// The broker's session has ended, or it asked for it: it leads nothing and is in no ISR (KIP-841).
    Fence {
        /// Which.
        broker: BrokerId,
        /// Its broker epoch: one that has registered anew is not meant.
        broker_epoch: i64,
    },
    /// The broker has caught up with the metadata: it may lead, and leads what nobody else can.
    Unfence {
        /// Which.
        broker: BrokerId,
        /// Its broker epoch.
        broker_epoch: i64,
    },
    /// The broker wants to go: its leaders move, and it leaves every ISR, while it still serves (KIP-841). Only a new
    /// registration ends this.
    BeginShutdown {
        /// Which.
        broker: BrokerId,
        /// Its broker epoch.
        broker_epoch: i64,
    },
    /// A leader's request: who is in sync (KIP-497, KIP-903).
    AlterIsr {
        /// Which partition.
        log: LogId,
        /// Who asks: refused unless it leads the partition, as this incarnation.
        leader: IsrMember,
        /// In which epoch it leads.
        leader_epoch: LeaderEpoch,
        /// The partition epoch that it saw.
        partition_epoch: i32,
        /// The in-sync replicas from now on, the leader among them, each as the incarnation that the leader saw fetch.
        isr: Vec<IsrMember>,
    },
    /// A leader's request: a new epoch for the same leader, see `partition::Effect::RequestNewEpoch`.
    RenewEpoch {
        /// Which partition.
        log: LogId,
        /// Who asks.
        leader: IsrMember,
        /// The epoch that is over.
        leader_epoch: LeaderEpoch,
    },
    /// A replica whose log is damaged leaves ISR and ELR, before it alters its log (contract 7). Refused when nobody
    /// else could lead. Whoever leads takes a new epoch, in which only what the replica shows anew counts.
    LeaveIsr {
        /// Which partition.
        log: LogId,
        /// The damaged replica.
        member: IsrMember,
    },
    /// The first replica leads, if it is in sync (KIP-460).
    ElectPreferred {
        /// Which partition.
        log: LogId,
        /// The partition epoch that the proposer saw.
        partition_epoch: i32,
    },
    /// Somebody leads, even if acknowledged records are lost: an operator's order (KIP-460).
    ElectUnclean {
        /// Which partition.
        log: LogId,
        /// The partition epoch that the proposer saw.
        partition_epoch: i32,
    },
    /// No certain member is left that could lead; the controller has asked the uncertain ones for (last epoch, verified
    /// end) and elects the largest (contract 5).
    ElectRecovered {
        /// Which partition.
        log: LogId,
        /// The partition epoch that the proposer saw.
        partition_epoch: i32,
        /// The leader from now on: nobody who answered has more.
        leader: IsrMember,
        /// Others that answered with as much: they stay eligible.
        equals: Vec<IsrMember>,
        /// Others that answered with less, a lost disk included: they stay uncertain.
        behind: Vec<BrokerId>,
    },
    /// Adds replicas to a topic's partitions (contract 3). They catch up and join the ISR as any follower does.
    AddReplicas {
        /// Which topic.
        id: TopicId,
        /// All or none of them change.
        partitions: Vec<AddedReplicas>,
    },
}

/// A broker's start, as [`ClusterCommand::RegisterBroker`] tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// Which.
    pub broker: BrokerId,
    /// Its data folder. Another one than before holds none of the data that the broker is known for.
    pub folder: FolderId,
    /// Counts the starts of the folder.
    pub incarnation: Incarnation,
    /// Where clients and brokers reach it.
    pub endpoints: Vec<Endpoint>,
    /// `broker.rack`
    pub rack: Option<String>,
    /// The feature levels that it can work with.
    pub features: FeatureRange,
    /// What recovery found.
    pub last_stop: LastStop,
    /// Its own file says that topics are `os` topics, unless they say otherwise (`log.flush.interval.messages`).
    pub flush_os: bool,
}

/// How a folder's last life ended, and what is known of its logs' tails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LastStop {
    /// Everything was synced and sealed.
    Clean,
    /// Killed or without power; the journal's last round reads, so that every synced record is there. Records of `os`
    /// topics may be lost.
    Certain,
    /// The journal's last round is torn or damaged: nobody knows whether it was acknowledged.
    Uncertain,
}

/// Replicas that one partition gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddedReplicas {
    /// Which partition.
    pub partition: i32,
    /// The partition epoch that the proposer saw.
    pub partition_epoch: i32,
    /// Who gets one, after those that are there.
    pub replicas: Vec<BrokerId>,
}
