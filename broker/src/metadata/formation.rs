//! Forms a cluster, or finds the one that this node belongs to (contract 6; KIP-853 names voters as this does).
//!
//! A cluster is formed once: when every configured first voter answers, and all their folders are empty. Each then keeps
//! who they are, nodes with their folders, before it says anything as a voter. A node with an empty folder that finds
//! somebody who belongs already takes that one's first voters: unless its own folder is among them, it only follows.

use std::collections::BTreeMap;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use uuid::Uuid;
use weir_protocol::raft::{HardState, Voters};
use weir_protocol::types::{BrokerId, VoterId};
use weir_runtime::disk::Disk;
use weir_runtime::time::{self, Instant};
use weir_runtime::{simulation, task};

use super::error::MetadataError;
use super::{first_voters, hard_state};
use crate::peer::handshake::Refusal;
use crate::peer::message::{Belongs, QuorumQuestion, QuorumReply};
use crate::peer::{PeerError, Peers};

/// How long one round of questions waits.
const ROUND: Duration = Duration::from_secs(1);
/// How long it is until the next one.
const PAUSE: Duration = Duration::from_millis(100);
/// How often it is said for what this node waits.
const SAY_EVERY: Duration = Duration::from_secs(5);

/// The id of the cluster that these have formed. Every node can tell it from its folder, before it knows any metadata, so that
/// nothing that another cluster says ever reaches a folder (contract 6).
pub(super) fn cluster_id(first: &Voters) -> Uuid {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&Sha256::digest(first.encode())[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

/// A node that looks for its cluster.
pub(super) struct Forming {
    pub(super) me: VoterId,
    /// Whether this node has the role of a voter.
    pub(super) may_vote: bool,
    /// `controller.quorum.voters`.
    pub(super) configured: Vec<BrokerId>,
    pub(super) peers: Peers,
    pub(super) disk: Disk,
    /// The folder is not empty and has lost the names of the first voters: it forms no cluster.
    pub(super) has_forgotten: bool,
}

/// What one round of questions has brought.
enum Found {
    /// A cluster, or its first voters.
    Voters(Voters),
    /// These do not answer, or wait for others.
    Waiting(Vec<BrokerId>),
}

type Answers = BTreeMap<BrokerId, (VoterId, Option<Belongs>)>;

impl Forming {
    /// Asks until it is known who forms the cluster, and keeps that.
    ///
    /// # Errors
    /// `Refused` if the configured voters belong to different clusters; what the disk says.
    pub(super) async fn run(self) -> Result<Voters, MetadataError> {
        let mut said: Option<Instant> = None;
        loop {
            let answers = self.ask_everyone().await;
            match self.decide(&answers)? {
                Found::Voters(voters) => {
                    self.keep(&voters).await?;
                    return Ok(voters);
                }
                Found::Waiting(missing) => {
                    if said.is_none_or(|said| said.elapsed() >= SAY_EVERY) {
                        said = Some(time::now());
                        tracing::info!(?missing, "waits for the metadata quorum's first voters");
                    }
                }
            }
            time::sleep(PAUSE).await;
        }
    }

    async fn ask_everyone(&self) -> Answers {
        let others: Vec<_> = self.configured.iter().copied().filter(|id| *id != self.me.broker).collect();
        let (to, mut answered) = mpsc::channel(others.len().max(1));
        for other in others {
            let (peers, to) = (self.peers.clone(), to.clone());
            let question = introduction(self.me, self.may_vote, &self.peers);
            task::spawn("introduction", async move {
                if let Ok(Ok(reply)) = time::timeout(ROUND, peers.ask(other, question)).await {
                    // Nobody waits after the round.
                    let _ = to.send((other, reply)).await;
                }
            });
        }
        drop(to);
        let mut answers = BTreeMap::new();
        while let Some((other, reply)) = answered.recv().await {
            match reply {
                QuorumReply::Introduced { me, belongs } if me.broker == other => {
                    answers.insert(other, (me, belongs));
                }
                QuorumReply::Introduced { .. } | QuorumReply::FeatureLevels(_) => {}
            }
        }
        answers
    }

    fn decide(&self, answers: &Answers) -> Result<Found, MetadataError> {
        let refused = |reason: String| MetadataError::Refused(reason);
        let mut known: Option<Voters> = None;
        for (other, (_, belongs)) in answers {
            let Some(belongs) = belongs else { continue };
            let voters = Voters::new(belongs.first_voters.iter().copied())
                .map_err(|error| refused(format!("the first voters that node {other} names: {error}")))?;
            match &known {
                Some(before) if *before != voters => {
                    return Err(refused("the configured voters belong to different clusters".to_owned()));
                }
                _ => known = Some(voters),
            }
        }
        if let Some(voters) = known {
            return Ok(Found::Voters(voters));
        }
        let own = (self.may_vote && !self.has_forgotten).then_some(self.me);
        let named = answers.values().map(|(id, _)| *id).chain(own);
        let found: BTreeMap<BrokerId, VoterId> = named.map(|id| (id.broker, id)).collect();
        let missing: Vec<_> = self.configured.iter().copied().filter(|id| !found.contains_key(id)).collect();
        if !missing.is_empty() || !self.configured.contains(&self.me.broker) {
            return Ok(Found::Waiting(missing));
        }
        let voters = self.configured.iter().filter_map(|id| found.get(id).copied());
        let voters = Voters::new(voters).map_err(|error| refused(format!("the first voters: {error}")))?;
        simulation::situation("metadata quorum formed");
        let names: Vec<_> = voters.ids().iter().map(ToString::to_string).collect();
        tracing::info!(voters = names.join(", "), "the metadata quorum is formed");
        Ok(Found::Voters(voters))
    }

    /// The hard state is there before the first voters are: who has these and no hard state has lost it.
    async fn keep(&self, voters: &Voters) -> Result<(), MetadataError> {
        if !self.has_forgotten {
            hard_state::store(&self.disk, &HardState::default()).await?;
        }
        first_voters::store(&self.disk, voters).await?;
        Ok(())
    }
}

/// A voter that needs nobody else to lead looks before it does: whoever answers may belong to another cluster, which others
/// than this node expect here.
///
/// # Errors
/// `Refused`.
pub(super) async fn look_for_strangers(
    me: VoterId,
    others: impl Iterator<Item = BrokerId>,
    peers: &Peers,
) -> Result<(), MetadataError> {
    let deadline = time::now() + ROUND;
    for other in others {
        let asked =
            time::timeout(deadline - time::now(), peers.ask(other, introduction(me, true, peers))).await;
        if let Ok(Err(error @ PeerError::Refused(_, Refusal::OtherCluster { .. }))) = asked {
            return Err(MetadataError::Refused(error.to_string()));
        }
    }
    Ok(())
}

fn introduction(me: VoterId, may_vote: bool, peers: &Peers) -> QuorumQuestion {
    QuorumQuestion::Introduce { me, may_vote, at: peers.address(me.broker) }
}

/// Introduces a node that only follows to all of `others`, so that the leader among them gives it the log. Returns whom one of
/// them takes for the leader that has this node's number and another folder.
pub(super) async fn introduce(
    me: VoterId,
    may_vote: bool,
    others: Vec<BrokerId>,
    peers: Peers,
) -> Option<VoterId> {
    let mut twin = None;
    for other in others {
        let question = introduction(me, may_vote, &peers);
        let asked: Result<Result<QuorumReply, PeerError>, _> =
            time::timeout(ROUND, peers.ask(other, question)).await;
        match asked {
            Ok(Ok(QuorumReply::Introduced { belongs, .. })) => {
                let leader = belongs.and_then(|belongs| belongs.leader);
                let is_twin = |leader: &VoterId| leader.broker == me.broker && leader.folder != me.folder;
                twin = twin.or(leader.filter(is_twin));
            }
            _ => tracing::debug!(%other, "does not answer an introduction"),
        }
    }
    twin
}
