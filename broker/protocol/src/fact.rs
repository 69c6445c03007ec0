//! What a node tells whoever watches a simulation: the raw material of the invariants that no node can check alone, because they
//! speak of several nodes, or of several lives of one.

use bytes::Bytes;

use crate::raft::{Index, Term};
use crate::types::{BrokerId, LeaderEpoch, LogId, Offset, VoterId};

/// Something that is the case on a node from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// A replica was opened, as its storage has it.
    Opened {
        /// Which.
        log: LogId,
        /// The offset of its first record.
        start: Offset,
        /// The offset after its last durable record.
        end: Offset,
        /// The leader epoch of its last record, if it has any.
        last_epoch: Option<LeaderEpoch>,
    },
    /// A replica leads its partition.
    Leads {
        /// Which.
        log: LogId,
        /// In which leader epoch.
        epoch: LeaderEpoch,
    },
    /// A leader's high watermark has moved: consumers may see what lies below.
    HighWatermark {
        /// Whose.
        log: LogId,
        /// In which leader epoch.
        epoch: LeaderEpoch,
        /// The high watermark.
        high_watermark: Offset,
        /// Up to here records are durable on this node, as its storage says.
        durable_end: Offset,
    },
    /// A replica follows its partition's leader.
    Follows {
        /// Which.
        log: LogId,
        /// In which leader epoch.
        epoch: LeaderEpoch,
        /// Whom.
        leader: BrokerId,
    },
    /// A leader tells a follower that it cannot go on from where it stands: their logs have parted, or it stands outside of the leader's.
    Parted {
        /// Which partition's.
        log: LogId,
        /// In which leader epoch the follower asks.
        epoch: LeaderEpoch,
        /// Who asks.
        follower: BrokerId,
    },
    /// A replica was cut, because its leader does not have what lay above.
    Truncated {
        /// Which.
        log: LogId,
        /// In which leader epoch.
        epoch: LeaderEpoch,
        /// Its end from now on.
        to: Offset,
    },
    /// A replica holds everything below durably.
    Durable {
        /// Which.
        log: LogId,
        /// The newest leader epoch that it has heard of.
        epoch: LeaderEpoch,
        /// The leader epoch of the last record below `end`; -1 if there is none.
        last_epoch: LeaderEpoch,
        /// Its durable end.
        end: Offset,
    },
    /// A leader knows who is in sync.
    InSync {
        /// Of which partition.
        log: LogId,
        /// In which leader epoch.
        epoch: LeaderEpoch,
        /// Counts the quorum's decisions about the partition.
        partition_epoch: i32,
        /// The in-sync replicas.
        isr: Vec<BrokerId>,
    },
    /// Batches stand in a replica's log, durable or not; whoever wrote them, this replica as its leader or another one.
    Appended {
        /// Whose.
        log: LogId,
        /// What they are known by, in the order of their offsets.
        batches: Vec<BatchName>,
    },
    /// A replica's log was cut: nothing stands in it from `end` on.
    Cut {
        /// Whose.
        log: LogId,
        /// The log's end from now on.
        end: Offset,
    },
    /// A replica's log starts later, and ends there if it ended before.
    Starts {
        /// Whose.
        log: LogId,
        /// The first offset that is retained.
        start: Offset,
    },
    /// A replica found its log damaged, and knows where that begins. It holds until the log is cut there.
    Damaged {
        /// Whose.
        log: LogId,
        /// The first damaged offset.
        from: Offset,
    },
    /// Storage keeps what a replica has, as its topic's flush policy understands it.
    Kept {
        /// Whose.
        log: LogId,
        /// Records below are kept.
        end: Offset,
    },
    /// Records of a replica's log may be gone, because newer ones have the same key. Told before anything changes on disk.
    Compacted {
        /// Whose.
        log: LogId,
        /// Only records below are.
        below: Offset,
    },
    /// A voter is bound to a candidate: the answer may leave from now on.
    Voted {
        /// Who votes. With another folder it is another voter.
        voter: VoterId,
        /// In which term.
        term: Term,
        /// For whom.
        candidate: VoterId,
    },
    /// A node's image of the metadata, in one number: all nodes have the same at the same index.
    Image {
        /// The last entry that was applied.
        applied: i64,
        /// Of the image's bytes.
        digest: u64,
    },
    /// A node leads the metadata quorum.
    LeadsQuorum {
        /// In which term.
        term: Term,
    },
    /// Whom a node takes for the leader of the metadata quorum from now on.
    QuorumLeader {
        /// Who; `None`: nobody that it has heard of.
        leader: Option<BrokerId>,
        /// In which term.
        term: Term,
    },
    /// A node knows that an entry of the metadata log is committed.
    Committed {
        /// Which.
        index: Index,
        /// The term in which it was proposed.
        term: Term,
        /// Its content.
        payload: Bytes,
    },
    /// Somebody asks a node how far a linearizable read must see.
    ReadBegan {
        /// Which question; the process numbers its own.
        read: u64,
    },
    /// The node has answered.
    ReadDone {
        /// Which question.
        read: u64,
        /// Entries below are to be seen.
        commit: Index,
    },
    /// A broker has registered itself for the time of its process.
    Registered {
        /// Which.
        broker: BrokerId,
        /// Its new epoch.
        epoch: i64,
    },
}

/// What a record batch is known by: the same record on every replica has the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchName {
    /// The offset of its first record.
    pub base: Offset,
    /// The offset after its last record.
    pub next: Offset,
    /// The leader epoch in which it was written.
    pub epoch: LeaderEpoch,
    /// The checksum in its header, which covers its records.
    pub checksum: u32,
}
