//! What goes into the core and what comes out of it.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::message::{Entry, Envelope, HardState, Index, Message, Snapshot, Term};
use super::voters::{VoterChange, Voters};
use crate::types::VoterId;

/// The driver's name for a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProposalId(pub u64);

/// The driver's name for a linearizable read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadId(pub u64);

/// Counts the hard states that were to be persisted, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HardStateSeq(pub u64);

/// What the core starts from: what recovery found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartState {
    /// This node with its folder.
    pub me: VoterId,
    /// The voters before the log's first change of voters: the snapshot's, or those that formed the cluster. A node
    /// whose id is here with another folder is none of them (contract 6).
    pub voters: Voters,
    /// As last persisted; the default in a new folder.
    pub hard_state: HardState,
    /// The newest snapshot, if there is one: the state machine starts from it.
    pub snapshot: Option<Snapshot>,
    /// The log as recovered, all of it durable.
    pub log: LogPosition,
    /// What is known to be lost (contract 6).
    pub damage: Option<Damage>,
}

/// What recovery found to be lost. The core has it written down before anything is altered, so that no later restart
/// takes what is left for the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Damage {
    /// The log ends early: behind [`LogPosition::end`] durable entries are damaged or missing. What is left there stays
    /// until [`Effect::TruncateLog`]. Damage in the middle ends the log there.
    Log,
    /// The hard state cannot be read. It is lost together with whatever it said about the log.
    Vote,
    /// Both.
    Both,
}

/// The shape of a recovered log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogPosition {
    /// The index of the first entry. Everything below is in a snapshot, and committed.
    pub start: Index,
    /// The term of the entry before `start`; 0 if there is none.
    pub term_before_start: Term,
    /// The index that the next entry gets.
    pub end: Index,
    /// Each term in the log with the index of its first entry, both growing: storage's epoch history.
    pub terms: Vec<(Term, Index)>,
    /// The changes of voters in the log: the index of each such entry, growing, with what it holds.
    pub voters: Vec<(Index, Voters)>,
}

/// What happens to the core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The time of [`Effect::SetTimer`] has come. Too early or too often does no harm.
    Tick {
        /// A random number: the next election timeout is drawn with it.
        jitter: u64,
    },
    /// A peer says something.
    Message(Envelope),
    /// A command for the log.
    Propose {
        /// Under which name the outcome is reported.
        id: ProposalId,
        /// Opaque, at most [`Limits::entry_bytes_max`].
        payload: Bytes,
    },
    /// Change the voters; the outcome is reported as a proposal's. At most one change is under way, a leader changes
    /// nothing before an entry of its own term is committed, and who is added must hold what is committed.
    ChangeVoters {
        /// Under which name the outcome is reported.
        id: ProposalId,
        /// What to change.
        change: VoterChange,
    },
    /// Who gets the log besides the voters, replacing those before: brokers that only follow, and nodes that are to
    /// become voters. More than [`Limits::observers_max`] are not served.
    Observers(Vec<VoterId>),
    /// A linearizable read: how far must the state machine have applied?
    Read {
        /// Under which name the outcome is reported.
        id: ReadId,
    },
    /// The log is durable up to `end`.
    Persisted {
        /// Every entry below is synced.
        end: Index,
    },
    /// Every hard state up to this one is durable.
    HardStatePersisted {
        /// The newest one that is.
        seq: HardStateSeq,
    },
    /// The cut of [`Effect::TruncateLog`] or [`Effect::ResetLog`] is durable. After this no [`Input::Persisted`] speaks of what was cut.
    Truncated {
        /// As asked for.
        to: Index,
    },
    /// The log could not take entries (a full disk): everything from `from` on was cut again, durably.
    AppendFailed {
        /// The new end of the log.
        from: Index,
    },
    /// The answer to [`Effect::ReadEntries`].
    EntriesRead {
        /// As asked.
        to: VoterId,
        /// As asked: entries that another term asked for are not sent.
        term: Term,
        /// As asked.
        from: Index,
        /// From there on, as many as fit; none if they cannot be read.
        entries: Vec<Entry>,
    },
    /// A snapshot of the state machine is durable: see [`super::Raft::snapshot_point`].
    SnapshotPersisted(Snapshot),
    /// The answer to [`Effect::ReadSnapshot`].
    SnapshotRead {
        /// As asked.
        to: VoterId,
        /// As asked.
        term: Term,
        /// As asked.
        snapshot: Snapshot,
        /// As asked.
        offset: u64,
        /// From there on; none if the snapshot is gone or cannot be read.
        bytes: Bytes,
    },
    /// The snapshot of [`Effect::InstallSnapshot`] has durably replaced the log and the state machine's state. After
    /// this no [`Input::Persisted`] speaks of the log before.
    SnapshotInstalled {
        /// [`super::SnapshotPoint::end`] of which.
        end: Index,
    },
    /// What arrived does not have the snapshot's checksum, or cannot be read; log and state are as they were.
    SnapshotRefused {
        /// [`super::SnapshotPoint::end`] of which.
        end: Index,
    },
    /// Lead no longer and do not campaign for one election timeout.
    Resign,
    /// A clean stop: a leader takes no more proposals, lets a voter that holds all of its log campaign at once (Ongaro's
    /// thesis, §3.10), and resigns after one election timeout at the latest. Any other node does as with [`Input::Resign`].
    HandOver,
}

/// What a message waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncPoint {
    /// Nothing: send it.
    Now,
    /// The hard state with this number must be durable first. A message that waits may be dropped, never sent early.
    HardState(HardStateSeq),
}

/// What the driver must do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Make this durable, then say so with [`Input::HardStatePersisted`]. Only the newest need be written.
    PersistHardState {
        /// Its number.
        seq: HardStateSeq,
        /// Replaces the one before.
        state: HardState,
    },
    /// Append to the log, make it durable, then say so with [`Input::Persisted`].
    AppendEntries {
        /// The index of the first: the end of the log.
        first: Index,
        /// In order.
        entries: Vec<Entry>,
    },
    /// Cut the log, make that durable, then say so with [`Input::Truncated`]. Never below what is committed.
    TruncateLog {
        /// The new end.
        to: Index,
    },
    /// Send a message, from this node.
    Send {
        /// To whom.
        to: VoterId,
        /// What.
        message: Message,
        /// Not before this.
        after: SyncPoint,
    },
    /// Everything below `end` is committed: apply it, in order.
    Commit {
        /// Grows with each.
        end: Index,
    },
    /// This node leads. Its state machine is up to date when the first entry of this term is committed.
    BecameLeader {
        /// From now on.
        term: Term,
    },
    /// This node led and leads no longer: what was proposed and is not committed has an unknown outcome.
    Resigned {
        /// In which it led.
        term: Term,
    },
    /// Another node leads.
    Following {
        /// In which term.
        term: Term,
        /// Who.
        leader: VoterId,
    },
    /// The proposal stands in the log. It has succeeded when an entry of this term is committed at this index; when
    /// another term's entry is, it has failed.
    ProposalAccepted {
        /// Which.
        id: ProposalId,
        /// Where.
        index: Index,
        /// In which.
        term: Term,
    },
    /// The proposal does not stand in the log.
    ProposalRefused {
        /// Which.
        id: ProposalId,
        /// Why.
        reason: Refusal,
    },
    /// The read sees everything that was committed before it began once the state machine has applied up to `commit`.
    ReadReady {
        /// Which.
        id: ReadId,
        /// Everything below must be applied.
        commit: Index,
    },
    /// The read must be tried again, perhaps elsewhere.
    ReadRefused {
        /// Which.
        id: ReadId,
        /// Why.
        reason: Refusal,
    },
    /// Read entries from the log for a follower that is far behind; answer with [`Input::EntriesRead`].
    ReadEntries {
        /// For whom.
        to: VoterId,
        /// The term that asks.
        term: Term,
        /// The first.
        from: Index,
        /// At least one entry, and not many more bytes than this.
        bytes_max: usize,
    },
    /// Entries below may be dropped, at leisure: a snapshot holds what they have made.
    CompactLog {
        /// The new start.
        to: Index,
    },
    /// The log and the snapshot do not join: the log is older, because a crash kept the snapshot from taking its place,
    /// or there is a gap. Drop the whole log, make that durable, then say so with [`Input::Truncated`].
    ResetLog {
        /// The index of the next entry.
        start: Index,
    },
    /// Read a piece of a snapshot for a follower; answer with [`Input::SnapshotRead`].
    ReadSnapshot {
        /// For whom.
        to: VoterId,
        /// The term that asks.
        term: Term,
        /// Which. One that a newer one has replaced may be gone.
        snapshot: Snapshot,
        /// From where.
        offset: u64,
        /// At most so much.
        bytes_max: usize,
    },
    /// Keep a piece of a snapshot aside. A piece at 0 begins anew: whatever was kept before is dropped.
    WriteSnapshot {
        /// Of which.
        snapshot: Snapshot,
        /// Where it begins: at the end of the pieces before.
        offset: u64,
        /// The piece.
        bytes: Bytes,
    },
    /// All pieces are there: check the content's length and checksum, make it durable as the newest snapshot, then
    /// drop the whole log so that it begins at the snapshot's end, give the state to the state machine, and say so with
    /// [`Input::SnapshotInstalled`]; or touch nothing and say [`Input::SnapshotRefused`]. Everything below the snapshot's
    /// end is committed; no [`Effect::Commit`] says so.
    InstallSnapshot {
        /// Which.
        snapshot: Snapshot,
    },
    /// A peer said what cannot be: log it and count it.
    Complain {
        /// Who.
        about: VoterId,
        /// What cannot be.
        what: Complaint,
    },
    /// Give an [`Input::Tick`] at this time; replaces the timer before.
    SetTimer(Duration),
}

/// Why a proposal or a read is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// Another node leads, as far as is known.
    #[error("this node does not lead the metadata quorum")]
    NotLeader(Option<VoterId>),
    /// A bound of [`Limits`] is reached.
    #[error("too much is waiting for the metadata quorum")]
    Overloaded,
    /// Larger than [`Limits::entry_bytes_max`].
    #[error("the entry is too large")]
    TooLarge,
    /// The voters may not be changed so, or not yet.
    #[error(transparent)]
    Change(#[from] ChangeRefusal),
}

/// Why the voters are not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum ChangeRefusal {
    /// A leader that has not committed an entry of its term does not know whether it may change the voters.
    #[error("the leader's term has no committed entry yet")]
    TermNotCommitted,
    /// The change before is not committed.
    #[error("another change of voters is under way")]
    ChangeUnderWay,
    /// Who is to vote does not hold what is committed, or is no observer.
    #[error("the new voter has not caught up")]
    NotCaughtUp,
    /// The node votes already, with this or another folder: remove that one first.
    #[error("the node is a voter already")]
    VoterExists,
    /// Nobody to remove.
    #[error("there is no such voter")]
    NoSuchVoter,
    /// A quorum has at least one voter, and a bounded number of them.
    #[error("a quorum cannot have so few or so many voters")]
    BadNumberOfVoters,
}

/// What cannot be, unless a peer or a disk lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Complaint {
    /// Another leader in the term that this node leads.
    #[error("another node claims to lead the term that this node leads")]
    SecondLeader,
    /// A leader without an entry that is committed.
    #[error("the leader's log contradicts a committed entry")]
    ContradictsCommitted,
    /// Indexes that no log has.
    #[error("the message's indexes or terms make no sense")]
    Nonsense,
    /// Damaged on the way, or on the peer's disk.
    #[error("the snapshot does not have its checksum")]
    DamagedSnapshot,
}

/// How long to wait for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Timing {
    /// How often a leader shows that it is there.
    pub heartbeat: Duration,
    /// The shortest time without a leader after which a node campaigns. A follower that heard its leader less long ago
    /// votes for nobody else, and a leader that did not hear a majority for so long resigns.
    pub election_min: Duration,
    /// An election timeout is longer than `election_min` by a random part of this.
    pub election_spread: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            heartbeat: Duration::from_millis(50),
            election_min: Duration::from_millis(200),
            election_spread: Duration::from_millis(200),
        }
    }
}

/// Bounds of the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// The largest payload.
    pub entry_bytes_max: usize,
    /// The largest message with entries; one entry is always sent.
    pub append_bytes_max: usize,
    /// The largest piece of a snapshot.
    pub piece_bytes_max: usize,
    /// The newest entries that are kept in memory for followers.
    pub cache_bytes_max: usize,
    /// How many entries a leader takes that are not committed.
    pub uncommitted_max: usize,
    /// How many reads may wait.
    pub reads_max: usize,
    /// How many nodes that do not vote get the log.
    pub observers_max: usize,
    /// How many entries behind a snapshot stay in the log, for followers that are not far behind.
    pub entries_retained: u32,
    /// The largest snapshot that is taken from a leader.
    pub snapshot_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            entry_bytes_max: 1 << 20,
            append_bytes_max: 1 << 20,
            piece_bytes_max: 1 << 20,
            cache_bytes_max: 4 << 20,
            uncommitted_max: 4_096,
            reads_max: 4_096,
            observers_max: 1_024,
            entries_retained: 10_000,
            snapshot_bytes_max: 4 << 30,
        }
    }
}
