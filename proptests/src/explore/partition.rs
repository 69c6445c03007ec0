//! Every run of the replicas of one partition within [`Bounds`]. The replicas' core is production's; around it stand
//! disks that forget what was not synced, a network that loses, delays and reorders, and the metadata quorum as one
//! register that changes at once and of which each node hears at some time.
//!
//! Time does not exist: a follower that is not wholly in sync may be found to lag at any moment.

pub mod suite;
mod world;

pub use world::World;

/// The laws: contracts 1, 2, 4 and 9, and what the core says of itself.
pub const LAWS: [&str; 6] = [
    "Acknowledged Records Survive",
    "One Name, One Record",
    "Committed Prefix",
    "Monotonic High Watermark",
    "Durable Homes",
    "Invariants",
];

/// How much may happen in a run. Everything happens in every order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Replicas.
    pub replicas: usize,
    /// Those in sync in the beginning, from the first on; the first one leads.
    pub in_sync: usize,
    /// `min.insync.replicas`
    pub min_insync: usize,
    /// Leader epochs.
    pub epochs: i32,
    /// Records that are produced with acks=all.
    pub records: u8,
    /// Times that power fails on a node, which restarts at once.
    pub crashes: u8,
    /// Times that a node loses its durable tail in a power failure and knows that its tail is uncertain (contract 5).
    pub losses: u8,
    /// Times that the controller takes a broker for dead.
    pub fences: u8,
    /// Times that a leader looks for followers that lag, or sends a proposal again.
    pub ticks: u8,
    /// A follower may ask again while its request or the answer is on its way: what is lost or slow is asked for again.
    pub retries: bool,
    /// Followers say between fetches how far they are durable.
    pub progress: bool,
    /// Messages on the way from one node to another; the oldest gives way to a newer one. They arrive in any order.
    pub per_link: usize,
    /// Records become durable some time after they were written, not at once.
    pub late_syncs: bool,
    /// What the core says of itself is a law: not where a defect must be found from outside.
    pub invariants: bool,
}

impl Default for Bounds {
    /// The smallest that means anything: three replicas, two epochs, two records, a crash.
    fn default() -> Bounds {
        Bounds {
            replicas: 3,
            in_sync: 3,
            min_insync: 2,
            epochs: 2,
            records: 2,
            crashes: 1,
            losses: 0,
            fences: 0,
            ticks: 0,
            retries: false,
            progress: false,
            per_link: 1,
            late_syncs: true,
            invariants: true,
        }
    }
}

/// Something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A follower asks its leader for records.
    Fetch(usize),
    /// The message at this place arrives.
    Deliver(usize),
    /// A leader gets a record.
    Produce(usize),
    /// What a node's log holds becomes durable, a cut first.
    Sync(usize),
    /// A node hears what the quorum has decided.
    Learn(usize),
    /// The controller makes another replica the leader.
    Elect(usize),
    /// The controller takes a broker for dead.
    Fence(usize),
    /// A leader looks for followers that lag, or sends its proposal again.
    Tick(usize),
    /// Power fails on a node. `tail_back`: a cut that was not synced did not happen.
    Crash {
        /// Where.
        node: usize,
        /// Whether the cut tail is back.
        tail_back: bool,
    },
    /// Power fails on a node, and nothing from this offset on can be read any more.
    Lose(usize, usize),
}
