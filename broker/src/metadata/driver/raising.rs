//! Before the feature level is raised, voters for which no registration speaks are asked whether they know it.

use std::time::Duration;

use tokio::sync::mpsc;
use weir_defect::defect;
use weir_protocol::metadata::Command;
use weir_protocol::types::BrokerId;
use weir_runtime::{task, time};

use super::Driver;
use crate::controller::Ticket;
use crate::metadata::error::MetadataError;
use crate::metadata::quorum::{Happening, Progress, Quorum};
use crate::peer::Peers;
use crate::peer::message::{NotDone, QuorumQuestion, QuorumReply};

/// How long a voter has to answer.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Answers that may wait.
const HEARD_MAX: usize = 64;

/// A level that somebody wants, and what keeps it from being raised.
pub(super) struct Heard {
    ticket: Ticket,
    level: u16,
    outcome: Result<(), NotDone>,
}

/// Levels that are to be raised and wait for what voters say.
pub(super) struct Raising {
    to: mpsc::Sender<Heard>,
    /// Whose voters have answered, or have not in time.
    pub(super) heard: mpsc::Receiver<Heard>,
}

impl Raising {
    pub(super) fn new() -> Raising {
        let (to, heard) = mpsc::channel(HEARD_MAX);
        Raising { to, heard }
    }
}

impl Driver {
    /// Proposes the level once every voter knows it: a majority of them applies what comes next. Those that are registered
    /// brokers have said what they know.
    pub(super) fn raise(
        &mut self,
        quorum: &mut Quorum,
        ticket: Ticket,
        level: u16,
    ) -> Result<Progress, MetadataError> {
        let registered = |broker| self.image.broker(broker).map(|known| known.folder);
        let voters = quorum
            .voters()
            .ids()
            .iter()
            .filter(|voter| **voter != self.me && registered(voter.broker) != Some(voter.folder));
        let voters: Vec<_> = voters.map(|voter| voter.broker).collect();
        // Z65: only brokers are asked.
        if voters.is_empty() || defect!(raise_level_without_voters) {
            return quorum.propose(&Command::SetFeatureLevel { level }.into(), Some(ticket));
        }
        let (peers, to) = (self.peers.clone(), self.raising.to.clone());
        task::spawn("ask-levels", async move {
            let outcome = ask(&peers, voters, level).await;
            // A driver that has ended raises nothing.
            let _ = to.send(Heard { ticket, level, outcome }).await;
        });
        Ok(Vec::new())
    }

    /// The voters have answered, or one of them stands in the way.
    pub(super) fn on_heard(&mut self, quorum: &mut Quorum, heard: Heard) -> Result<Progress, MetadataError> {
        let Heard { ticket, level, outcome } = heard;
        match outcome {
            Ok(()) => quorum.propose(&Command::SetFeatureLevel { level }.into(), Some(ticket)),
            Err(why) => Ok(vec![Happening::NotDone(ticket, why)]),
        }
    }
}

/// Asks one voter after the other, until one stands in the way.
async fn ask(peers: &Peers, voters: Vec<BrokerId>, level: u16) -> Result<(), NotDone> {
    for voter in voters {
        let asking = peers.ask(voter, QuorumQuestion::FeatureLevels);
        match time::timeout(ANSWER_MAX, asking).await {
            Ok(Ok(QuorumReply::FeatureLevels(known))) if known.contains(level) => {}
            Ok(Ok(QuorumReply::FeatureLevels(known))) => {
                return Err(NotDone::OlderVoter { voter, level, known });
            }
            Ok(Ok(QuorumReply::Introduced { .. }) | Err(_)) | Err(_) => {
                return Err(NotDone::SilentVoter(voter));
            }
        }
    }
    Ok(())
}
