//! Every run of a few quorum members within [`Bounds`]. The core is production's; around it stand disks that forget what
//! was not synced and a network that loses, delays and reorders.
//!
//! Time does not exist: with all durations of the core zero, any timeout may strike at any moment, nobody is bound to a
//! leader, and a leader's timer makes it send again. That allows more runs than any clock does.

pub mod suite;
mod world;

use weir_protocol::raft::{Term, VoterChange};

pub use world::World;

/// The laws, as in figure 3 of the paper, and what the core says of itself.
pub const LAWS: [&str; 6] = [
    "Election Safety",
    "Leader Completeness",
    "State Machine Safety",
    "Log Matching",
    "Linearizable Reads",
    "Invariants",
];

/// How much may happen in a run. Everything happens in every order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Nodes, of which the first `voters` vote in the beginning.
    pub nodes: usize,
    /// Voters in the beginning.
    pub voters: usize,
    /// Nobody campaigns for a later term.
    pub terms: Term,
    /// Commands that are proposed. Each term's leader adds an entry of its own.
    pub commands: u8,
    /// Times that power fails on a node, which restarts at once.
    pub crashes: u8,
    /// Times that a node loses durable entries or its vote in a power failure, and knows it.
    pub damages: u8,
    /// Such a node takes what is left for the whole: what the core's recovery is there to prevent.
    pub damage_untold: bool,
    /// Changes of voters.
    pub changes: u8,
    /// Snapshots that are taken.
    pub snapshots: u8,
    /// Linearizable reads.
    pub reads: u8,
    /// Times that a leader sends again what is under way.
    pub repeats: u8,
    /// Times that a leader hands its leadership over.
    pub hand_overs: u8,
    /// Messages on the way from one node to another; the oldest gives way to a newer one. They arrive in any order.
    pub per_link: usize,
    /// Entries become durable some time after they were written, not at once.
    pub late_logs: bool,
    /// So do votes.
    pub late_votes: bool,
    /// Pre-votes travel as messages. Otherwise everyone grants them at once, which allows more runs.
    pub pre_votes: bool,
    /// Who campaigns for each term; anyone if this is empty.
    pub campaigners: Vec<usize>,
    /// Two candidates may campaign in one term. Otherwise each takes the next term after all that there are.
    pub duels: bool,
}

impl Default for Bounds {
    /// The smallest that means anything: three nodes, two terms, two entries besides the leaders' own, a crash.
    fn default() -> Bounds {
        Bounds {
            nodes: 3,
            voters: 3,
            terms: 2,
            commands: 2,
            crashes: 1,
            damages: 0,
            damage_untold: false,
            changes: 0,
            snapshots: 0,
            reads: 0,
            repeats: 0,
            hand_overs: 0,
            per_link: 1,
            late_logs: true,
            late_votes: false,
            pre_votes: false,
            campaigners: Vec::new(),
            duels: true,
        }
    }
}

/// Something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A node's election timeout strikes, or its first try to be elected fails and it tries again.
    Campaign(usize),
    /// The message at this place arrives.
    Deliver(usize),
    /// A leader gets a command.
    Propose(usize),
    /// What a node's log holds becomes durable, a cut or a snapshot first.
    SyncLog(usize),
    /// A node's term and vote become durable.
    SyncVote(usize),
    /// Power fails on a node. `tail_back`: a cut that was not synced did not happen.
    Crash {
        /// Where.
        node: usize,
        /// Whether the cut tail is back.
        tail_back: bool,
    },
    /// Power fails on a node, and its log is damaged from this index on.
    DamageLog(usize, usize),
    /// Power fails on a node, and its term and vote cannot be read.
    DamageVote(usize),
    /// A leader is asked to change the voters.
    Change(usize, VoterChange),
    /// A node takes a snapshot.
    Snapshot(usize),
    /// A leader is asked to read.
    Read(usize),
    /// A leader sends again.
    Repeat(usize),
    /// A leader names its successor.
    HandOver(usize),
}
