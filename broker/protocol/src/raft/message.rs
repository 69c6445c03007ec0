//! What voters say to each other, and what they keep.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::voters::Voters;
use crate::types::{LeaderEpoch, Offset, VoterId};

/// A term; 0 before the first election. The leader epoch of the metadata log.
pub type Term = LeaderEpoch;

/// The position of an entry, from 0; an *end* is the index after the last entry. The offset in the metadata log.
pub type Index = Offset;

/// What an entry is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum EntryKind {
    /// A leader's first entry in its term (§8): carries nothing, but what precedes it commits with it.
    LeaderStart,
    /// A command of the state machine above.
    Command,
    /// The voters from this entry on, committed or not (thesis §4.1); see [`Voters::encode`].
    Voters,
}

/// An entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Entry {
    /// In which it was proposed.
    pub term: Term,
    /// What it is for.
    pub kind: EntryKind,
    /// Opaque to Raft.
    pub payload: Bytes,
}

impl Entry {
    /// The voters that this entry makes, if that is its kind. `None` too if they cannot be read: [`Entry::is_sensible`].
    pub fn voters(&self) -> Option<Voters> {
        match self.kind {
            EntryKind::Voters => Voters::decode(&self.payload).ok(),
            EntryKind::LeaderStart | EntryKind::Command => None,
        }
    }

    /// Whether a leader could have written this.
    pub(super) fn is_sensible(&self) -> bool {
        let readable =
            self.kind != EntryKind::Voters || self.voters().is_some_and(|voters| !voters.ids().is_empty());
        self.term > 0 && readable
    }

    /// About what it takes in memory and on the wire.
    pub(super) fn size_bytes(&self) -> usize {
        self.payload.len() + 32
    }
}

/// Whether what a voter has said before can be held against it (contract 6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Standing {
    /// Log and vote are whole.
    #[default]
    Whole,
    /// Entries are lost that may have been acknowledged. Until it has caught up it neither votes nor campaigns, and what
    /// it holds does not count.
    Recovering,
    /// The term and the vote are lost: nobody knows whom it may have promised what. It only follows, for good; removed
    /// and added again with another folder id it is another voter.
    Forgotten,
}

/// What a voter must not forget (§5.2): written and synced before anything is said that depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HardState {
    /// The newest term heard of.
    pub term: Term,
    /// Who got this voter's vote in that term.
    pub vote: Option<VoterId>,
    /// Whether anything is lost.
    pub standing: Standing,
}

/// Where in the log a snapshot was taken (§7).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SnapshotPoint {
    /// The snapshot holds what all entries below have made. Invariant: they are committed.
    pub end: Index,
    /// The term of the last of them.
    pub term: Term,
    /// The voters that they have made.
    pub voters: Voters,
}

/// A snapshot without its content, which is the driver's: one file that holds this description and the state, both
/// sealed with checksums, and that takes its place at once.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Snapshot {
    /// Where it was taken.
    pub at: SnapshotPoint,
    /// The length of its content.
    pub bytes: u64,
    /// The CRC-32C of its content: who receives it checks it before it takes the log's place.
    pub checksum: u32,
}

/// A message with its sender and addressee. Messages may be lost, repeated and reordered.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Envelope {
    /// Who says it.
    pub from: VoterId,
    /// Who it is for: another folder of the same node does not answer.
    pub to: VoterId,
    /// What is said.
    pub message: Message,
}

/// What a candidate shows of itself (§5.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Candidacy {
    /// The term that is campaigned for.
    pub term: Term,
    /// The term of the candidate's last entry.
    pub last_term: Term,
    /// The end of its log.
    pub end: Index,
}

/// A message between voters.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Message {
    /// "Would you vote for me?" Changes nothing at the receiver (Ongaro's thesis, §9.6).
    PreVote(Candidacy),
    /// The answer to [`Message::PreVote`].
    PreVoteAnswer {
        /// Granted: the term asked for. Refused: the receiver's own term.
        term: Term,
        /// Whether it would.
        granted: bool,
    },
    /// "Vote for me."
    Vote(Candidacy),
    /// The answer to [`Message::Vote`].
    VoteAnswer {
        /// The receiver's term.
        term: Term,
        /// Whether it did.
        granted: bool,
    },
    /// Entries of the leader's log, or none: a heartbeat.
    Append(Append),
    /// A piece of a snapshot, for a follower that needs entries from before the log's start (§7).
    Snapshot(SnapshotChunk),
    /// The answer to [`Message::Append`] and [`Message::Snapshot`].
    AppendAnswer {
        /// The follower's term.
        term: Term,
        /// [`Append::round`], or the chunk's, of the message that is answered.
        round: u64,
        /// How it went.
        outcome: AppendOutcome,
        /// Whether what it holds counts.
        voice: Voice,
    },
    /// "Campaign at once, with [`Message::VoteAtOnce`]": a leader that is about to stop names its successor (Ongaro's thesis, §3.10).
    TimeoutNow {
        /// The leader's term.
        term: Term,
    },
    /// [`Message::Vote`] of whom the leader has named: granted although a leader is there (§4.2.3 there).
    VoteAtOnce(Candidacy),
}

impl Message {
    /// Whether only a leader says this.
    pub fn is_of_leader(&self) -> bool {
        matches!(self, Message::Append(_) | Message::Snapshot(_) | Message::TimeoutNow { .. })
    }

    /// The sender's term, or the one it campaigns for.
    pub fn term(&self) -> Term {
        match self {
            Message::PreVote(candidacy) | Message::Vote(candidacy) | Message::VoteAtOnce(candidacy) => {
                candidacy.term
            }
            Message::PreVoteAnswer { term, .. }
            | Message::VoteAnswer { term, .. }
            | Message::TimeoutNow { term }
            | Message::AppendAnswer { term, .. } => *term,
            Message::Append(append) => append.term,
            Message::Snapshot(chunk) => chunk.term,
        }
    }
}

/// Entries of the leader's log (§5.3).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Append {
    /// The leader's term.
    pub term: Term,
    /// The index of the first entry.
    pub base: Index,
    /// The term of the entry before that.
    pub previous_term: Term,
    /// From `base` on.
    pub entries: Vec<Entry>,
    /// Everything below is committed.
    pub commit: Index,
    /// Counts the leader's rounds of heartbeats for reads (§8): an answer confirms the leader up to this round.
    pub round: u64,
    /// How far a recovering follower must hold this log.
    pub recovery: Option<Recovery>,
}

/// Whether a voter's answers count, as [`Standing`] says. Who is not whole names its recovery, which no other has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Voice {
    /// They do.
    Whole,
    /// It knows its term, so that it confirms a leader; what it holds does not count towards the commit.
    Recovering(u64),
    /// It confirms nothing.
    Forgotten(u64),
}

/// What a leader tells a follower that has lost entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Recovery {
    /// The recovery that is meant, as the follower has named it.
    pub name: u64,
    /// Where the leader's log ended when it heard of this recovery. What the follower may have acknowledged before, and
    /// was committed or still may be, lies below.
    pub end: Index,
}

/// A piece of the leader's snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SnapshotChunk {
    /// The leader's term.
    pub term: Term,
    /// Of which this is a piece.
    pub snapshot: Snapshot,
    /// Where in the content the piece begins.
    pub offset: u64,
    /// The piece.
    pub bytes: Bytes,
    /// As [`Append::round`].
    pub round: u64,
}

/// How an [`Append`] or a [`SnapshotChunk`] went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum AppendOutcome {
    /// The follower's log agrees with the leader's.
    Accepted {
        /// Up to here; written, but maybe not synced.
        matched_end: Index,
        /// Up to here, synced. Only this counts towards the commit. `<= matched_end`.
        durable_end: Index,
    },
    /// The follower has no entry of `previous_term` before `base`. It offers the largest term that is not larger, and
    /// where that ends, so that each round skips a whole term (§5.3; KIP-595).
    Diverged {
        /// A term that the follower's log has, or the one before its start.
        term: Term,
        /// Where that term ends in the follower's log.
        end: Index,
    },
    /// The follower is cutting its log, or puts a snapshot in its place, and takes nothing until that is durable.
    Busy,
    /// The follower takes the snapshot in.
    Receiving {
        /// [`SnapshotPoint::end`] of which.
        end: Index,
        /// How many bytes of it have arrived.
        received: u64,
    },
}
