//! Nodes that want the quorum's log introduce themselves to its voters, this one too.

use std::time::Duration;

use tokio::sync::mpsc;
use weir_protocol::types::{BrokerId, VoterId};
use weir_runtime::task;
use weir_runtime::time::{self, Instant};

use super::Driver;
use crate::membership::{DUPLICATE_PATIENCE, MembershipError};
use crate::metadata::formation;
use crate::metadata::quorum::Quorum;
use crate::node::Failure;
use crate::peer::Asked;
use crate::peer::message::{Belongs, QuorumQuestion, QuorumReply};

/// Nodes that have introduced themselves, voters and registered brokers aside.
const INTRODUCED_MAX: usize = 64;
/// For how long an introduction counts: who hears nothing introduces itself again.
const INTRODUCED_FOR: Duration = Duration::from_secs(60);
/// How long a node that only follows waits for a leader's messages before it introduces itself.
const SILENCE_MAX: Duration = Duration::from_secs(1);

/// What is known of another node that leads the quorum under this one's number.
pub(super) struct Twins {
    to: mpsc::Sender<Option<VoterId>>,
    /// What each round of introductions has found.
    pub(super) heard: mpsc::Receiver<Option<VoterId>>,
    /// Since when every round has found one.
    since: Option<Instant>,
}

impl Twins {
    pub(super) fn new() -> Twins {
        let (to, heard) = mpsc::channel(1);
        Twins { to, heard, since: None }
    }
}

impl Driver {
    pub(super) fn configured_voters(&self) -> Vec<BrokerId> {
        self.config.quorum_voters.iter().map(|voter| BrokerId(voter.node_id)).collect()
    }

    /// Says who this node is and to what it belongs, and gives the log to whoever asks.
    pub(super) fn on_question(&mut self, quorum: Option<&Quorum>, asked: Asked<QuorumQuestion, QuorumReply>) {
        let (who, at) = match asked.question {
            QuorumQuestion::Introduce { me, at, .. } => (me, at),
            QuorumQuestion::FeatureLevels => {
                // Whoever asked may have gone.
                let _ = asked.reply.send(QuorumReply::FeatureLevels(self.config.feature_levels));
                return;
            }
        };
        let belongs = self.first_voters.as_ref().map(|voters| Belongs {
            cluster_id: self.image.cluster_id(),
            first_voters: voters.ids().to_vec(),
            leader: quorum.and_then(Quorum::leading_voter),
        });
        // Whoever asked may have gone.
        let _ = asked.reply.send(QuorumReply::Introduced { me: self.me, belongs });
        self.introduced.retain(|_, (_, at)| at.elapsed() < INTRODUCED_FOR);
        let has_room = self.introduced.len() < INTRODUCED_MAX || self.introduced.contains_key(&who.broker);
        if who.broker != self.me.broker && who.broker == asked.from && has_room {
            self.introduced.insert(who.broker, (who, time::now()));
            self.peers.set_addresses(at.map(|at| (who.broker, at)));
            self.observers_changed = true;
        }
    }

    /// When this node has heard no leader for so long that it introduces itself.
    pub(super) fn silence_ends(&self, quorum: &Quorum) -> Option<Instant> {
        let alone = quorum.voters().ids() == [self.me] && self.config.quorum_voters.is_empty();
        if alone || quorum.leader().leader == Some(self.me.broker) {
            None
        } else {
            Some(self.heard + SILENCE_MAX)
        }
    }

    /// The leader may not know that this node follows.
    pub(super) fn introduce(&mut self, quorum: &Quorum) {
        self.heard = time::now();
        let voters = quorum.voters().ids().iter().map(|voter| voter.broker);
        let mut others: Vec<_> = self.configured_voters().into_iter().chain(voters).collect();
        others.sort_unstable();
        others.dedup();
        others.retain(|id| *id != self.me.broker);
        let introduction =
            formation::introduce(self.me, self.config.roles.controller, others, self.peers.clone());
        let twins = self.twins.to.clone();
        task::spawn("introduction", async move {
            let twin = introduction.await;
            // A driver that has ended asks no more.
            let _ = twins.send(twin).await;
        });
    }

    /// The voters say that the quorum is led by a node of this one's number, which has another folder: nobody gives this node the
    /// log, and nobody registers it. One that was killed a moment ago is forgotten soon.
    pub(super) fn on_twin(&mut self, twin: Option<VoterId>) {
        if twin.is_none() {
            self.twins.since = None;
            return;
        }
        let since = *self.twins.since.get_or_insert_with(time::now);
        if since.elapsed() >= DUPLICATE_PATIENCE {
            let duplicate = MembershipError::Duplicate(self.me.broker);
            self.failure.report(Failure::Membership(duplicate));
        }
    }
}
