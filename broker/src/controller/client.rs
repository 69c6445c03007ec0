//! Asks whoever leads the metadata quorum, this node or another one.

use std::sync::Arc;
use std::time::Duration;

use weir_protocol::metadata::ClusterCommand;
use weir_protocol::types::BrokerId;
use weir_runtime::time::{self, Instant};
use weir_runtime::watch;

use crate::metadata::LeaderView;
use crate::peer::message::{ControllerQuestion, ControllerReply, NotDone};
use crate::peer::{Lanes, PeerError, Peers};

/// How long to wait before the same question is asked again, unless another leader is heard of before.
const PAUSE: Duration = Duration::from_millis(20);

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AskError {
    /// Nothing was done.
    #[error("{0}")]
    NotDone(NotDone),
    /// It may be done, or not.
    #[error("what was asked of the controller may be done, or not")]
    Unknown,
    /// This node stops.
    #[error("this node stops")]
    Stopping,
}

/// Asks the quorum's leader. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct ControllerClient {
    peers: Peers,
    leader: watch::Receiver<LeaderView>,
    /// Who may know who leads, when this node does not.
    voters: Arc<[BrokerId]>,
}

/// What one try has brought.
enum Try {
    Answer(ControllerReply),
    /// No answer, and there will be none.
    None,
    /// It was not heard.
    Unheard,
    /// Another node leads, as far as is known.
    LeaderChanged,
    Late,
}

impl ControllerClient {
    /// `leader` says who leads the quorum, as far as this node knows.
    pub(crate) fn new(peers: Peers, leader: watch::Receiver<LeaderView>) -> ControllerClient {
        ControllerClient { peers, leader, voters: Arc::default() }
    }

    /// A client that asks these others who leads while this node has not heard of anybody.
    pub(crate) fn with_voters(self, voters: impl IntoIterator<Item = BrokerId>) -> ControllerClient {
        let me = self.peers.me();
        let voters = voters.into_iter().filter(|id| *id != me).collect();
        ControllerClient { voters, ..self }
    }

    /// Watches this node's connections from now on.
    pub(crate) fn lanes(&self) -> Lanes {
        self.peers.lanes()
    }

    /// Waits until this node hears of another leader of the quorum; cancel-safe. For ever, once the node stops.
    pub(crate) async fn leader_changed(&mut self) {
        if self.leader.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Asks, and asks again what was certainly not done, or may be done twice, until it is answered or the time is over.
    /// [`ControllerReply::NotDone`] and [`ControllerReply::Unknown`] come back as errors.
    ///
    /// # Errors
    /// See [`AskError`]; what is not done when the time is over was not done at all.
    pub(crate) async fn ask(
        &self,
        question: ControllerQuestion,
        until: Instant,
    ) -> Result<ControllerReply, AskError> {
        let repeatable = is_repeatable(&question);
        let mut leader = self.leader.clone();
        let mut hint = None;
        let mut others = self.voters.iter().copied().cycle();
        loop {
            // A voter that does not lead has not done what it is asked for, but one that is not heard may have.
            let known = leader.borrow().leader.or_else(|| others.next().filter(|_| repeatable));
            let why = match hint.or(known) {
                None => NotDone::NotController(None),
                Some(whom) => match self.ask_one(whom, &question, &mut leader, until).await {
                    Try::Answer(ControllerReply::NotDone(NotDone::NotController(other))) => {
                        let other = other.filter(|other| *other != whom);
                        // One step aside, then what this node knows itself.
                        if hint.is_none() && other.is_some() && time::now() < until {
                            hint = other;
                            continue;
                        }
                        NotDone::NotController(other)
                    }
                    Try::Answer(ControllerReply::NotDone(why)) if why.is_final() => {
                        return Err(AskError::NotDone(why));
                    }
                    Try::Answer(ControllerReply::NotDone(why)) => why,
                    Try::Answer(ControllerReply::Unknown) | Try::None if repeatable => {
                        NotDone::NotController(None)
                    }
                    Try::Answer(ControllerReply::Unknown) | Try::None => {
                        return Err(if leader.is_closed() { AskError::Stopping } else { AskError::Unknown });
                    }
                    Try::Answer(reply) => return Ok(reply),
                    Try::LeaderChanged => {
                        hint = None;
                        continue;
                    }
                    Try::Unheard => NotDone::NotController(None),
                    Try::Late if repeatable => NotDone::NotController(None),
                    Try::Late => return Err(AskError::Unknown),
                },
            };
            hint = None;
            let left = until - time::now();
            if left.is_zero() {
                return Err(AskError::NotDone(why));
            }
            if let Ok(Err(watch::Closed)) = time::timeout(PAUSE.min(left), leader.changed()).await {
                return Err(AskError::Stopping);
            }
        }
    }

    async fn ask_one(
        &self,
        whom: BrokerId,
        question: &ControllerQuestion,
        leader: &mut watch::Receiver<LeaderView>,
        until: Instant,
    ) -> Try {
        let asking = self.peers.ask(whom, question.clone());
        let left = until - time::now();
        if !is_repeatable(question) {
            return match time::timeout(left, asking).await {
                Ok(Ok(reply)) => Try::Answer(reply),
                Ok(Err(PeerError::Unreachable(_) | PeerError::Refused(..))) => Try::Unheard,
                Ok(Err(_)) => Try::None,
                Err(time::Elapsed) => Try::Late,
            };
        }
        // A leader that was cut off or stopped keeps nobody waiting: somebody else leads soon.
        let another = async {
            loop {
                if leader.changed().await.is_err() {
                    return std::future::pending().await;
                }
                let known = leader.borrow().leader;
                if known.is_some_and(|known| known != whom) {
                    return;
                }
            }
        };
        weir_runtime::select! {
            answered = time::timeout(left, asking) => match answered {
                Ok(Ok(reply)) => Try::Answer(reply),
                Ok(Err(PeerError::Unreachable(_) | PeerError::Refused(..))) => Try::Unheard,
                Ok(Err(_)) => Try::None,
                Err(time::Elapsed) => Try::Late,
            },
            () = another => Try::LeaderChanged,
        }
    }
}

/// Whether asked twice it does the same as asked once.
fn is_repeatable(question: &ControllerQuestion) -> bool {
    match question {
        // The same start that says again where it is keeps its epoch.
        ControllerQuestion::Register(_)
        | ControllerQuestion::Heartbeat { .. }
        | ControllerQuestion::Read
        | ControllerQuestion::DescribeQuorum => true,
        // Replicas' requests name the epochs that they build on, and replicas know that a refusal may be that of a second
        // copy.
        ControllerQuestion::ChangePartition(command) => matches!(
            command,
            ClusterCommand::AlterIsr { .. }
                | ClusterCommand::RenewEpoch { .. }
                | ClusterCommand::LeaveIsr { .. }
        ),
        ControllerQuestion::Propose(_) | ControllerQuestion::ChangeVoters(_) => false,
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
