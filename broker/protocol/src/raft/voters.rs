//! Who votes, and the history of that in the log.

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use crate::types::{BrokerId, FolderId, VoterId};

/// The most voters that a quorum may have.
pub const VOTERS_MAX: usize = 32;

/// The version of an entry's payload.
const VERSION: u8 = 1;
const HEADER_BYTES: usize = 3;
const VOTER_BYTES: usize = 20;

/// A set of voters, each a node with its folder (contract 6; KIP-853). No node stands in it with two folders.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Vec<VoterId>", into = "Vec<VoterId>")]
pub struct Voters {
    /// Invariant: sorted, no node twice, at most [`VOTERS_MAX`].
    ids: Vec<VoterId>,
}

/// What is no set of voters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum VotersError {
    /// Written by a newer version, or no set of voters at all.
    #[error("voters of format {0} are not known")]
    Version(u8),
    /// The bytes end early or late.
    #[error("the voters' length does not fit")]
    Length,
    /// A node stands there with two folders.
    #[error("a node votes twice")]
    Repeated,
    /// More than [`VOTERS_MAX`].
    #[error("too many voters")]
    TooMany,
}

/// What a change of voters changes: one at a time, so that the majorities before and after overlap (thesis §4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum VoterChange {
    /// This one votes from now on.
    Add(VoterId),
    /// This one votes no longer.
    Remove(VoterId),
}

impl Voters {
    /// The set of these.
    ///
    /// # Errors
    /// A node that stands there with two folders, or too many.
    pub fn new(ids: impl IntoIterator<Item = VoterId>) -> Result<Voters, VotersError> {
        let mut ids: Vec<_> = ids.into_iter().collect();
        ids.sort_unstable();
        ids.dedup();
        if ids.len() > VOTERS_MAX {
            return Err(VotersError::TooMany);
        }
        let distinct = ids.windows(2).all(|pair| pair[0].broker != pair[1].broker);
        if distinct { Ok(Voters { ids }) } else { Err(VotersError::Repeated) }
    }

    /// Sorted.
    pub fn ids(&self) -> &[VoterId] {
        &self.ids
    }

    /// Whether this node votes with this folder.
    pub fn contains(&self, id: VoterId) -> bool {
        self.ids.binary_search(&id).is_ok()
    }

    /// How many are a majority.
    pub fn majority(&self) -> usize {
        self.ids.len() / 2 + 1
    }

    /// The set after a change.
    ///
    /// # Errors
    /// As [`Voters::new`]. A set that the change leaves as it was is no error.
    pub fn after(&self, change: VoterChange) -> Result<Voters, VotersError> {
        match change {
            VoterChange::Add(added) => Voters::new(self.ids.iter().copied().chain([added])),
            VoterChange::Remove(removed) => Voters::new(self.ids.iter().copied().filter(|id| *id != removed)),
        }
    }

    /// The payload of an entry that makes these the voters: a version, their number, and for each its node and folder,
    /// all big-endian.
    pub fn encode(&self) -> Bytes {
        let mut payload = BytesMut::with_capacity(HEADER_BYTES + VOTER_BYTES * self.ids.len());
        payload.put_u8(VERSION);
        payload.put_u16(self.ids.len() as u16);
        for id in &self.ids {
            payload.put_i32(id.broker.0);
            payload.put_slice(id.folder.0.as_bytes());
        }
        payload.freeze()
    }

    /// Reads what [`Voters::encode`] wrote.
    ///
    /// # Errors
    /// Whatever is not that.
    pub fn decode(payload: &[u8]) -> Result<Voters, VotersError> {
        let [version, high, low, ids @ ..] = payload else { return Err(VotersError::Length) };
        if *version != VERSION {
            return Err(VotersError::Version(*version));
        }
        let (ids, rest) = ids.as_chunks::<VOTER_BYTES>();
        if !rest.is_empty() || ids.len() != usize::from(u16::from_be_bytes([*high, *low])) {
            return Err(VotersError::Length);
        }
        Voters::new(ids.iter().map(|bytes| {
            let [a, b, c, d, folder @ ..] = *bytes;
            let broker = BrokerId(i32::from_be_bytes([a, b, c, d]));
            VoterId { broker, folder: FolderId(Uuid::from_bytes(folder)) }
        }))
    }
}

impl TryFrom<Vec<VoterId>> for Voters {
    type Error = VotersError;

    fn try_from(ids: Vec<VoterId>) -> Result<Voters, VotersError> {
        Voters::new(ids)
    }
}

impl From<Voters> for Vec<VoterId> {
    fn from(voters: Voters) -> Vec<VoterId> {
        voters.ids
    }
}
