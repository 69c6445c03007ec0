//! What replicas ask of the controller: changes of their partitions.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use weir_protocol::controller::Refused;
use weir_protocol::metadata::{ClusterCommand, IsrMember};
use weir_protocol::raft::Index;
use weir_protocol::types::{BrokerId, LeaderEpoch, LogId};
use weir_runtime::{task, time};

use super::{AskError, ControllerClient};
use crate::metadata::ImageReader;
use crate::peer::message::{ControllerQuestion, ControllerReply};

/// Requests under way; further ones wait.
const UNDER_WAY_MAX: usize = 256;
/// How long a request that was certainly not done is tried again.
const TRY_FOR: Duration = Duration::from_secs(2);
/// How long to wait before the same is asked for again.
const PAUSE: Duration = Duration::from_millis(50);

/// The outcome of a request, for the shard that made it.
#[derive(Debug)]
pub(crate) struct Changed {
    /// Of which partition.
    pub(crate) log: LogId,
    /// What was asked for.
    pub(crate) command: Box<ClusterCommand>,
    /// What has come of it.
    pub(crate) outcome: ChangeOutcome,
}

/// What has come of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ChangeOutcome {
    /// It is committed in the entry at this index. To be acted on only when this broker's own image has that entry.
    Applied(Index),
    /// Nothing has changed, for this reason.
    Refused(Refused),
    /// No controller was found that takes it. Nothing has changed.
    NotDone,
    /// It may be committed, or not: an image will tell.
    Unknown,
}

/// Asks the controller for changes of partitions. Cheap to clone.
#[derive(Clone)]
pub(crate) struct PartitionChanges {
    me: BrokerId,
    client: ControllerClient,
    image: ImageReader,
    under_way: Arc<Semaphore>,
}

impl PartitionChanges {
    /// Of this broker, whose image is `image`.
    pub(crate) fn new(me: BrokerId, client: ControllerClient, image: ImageReader) -> PartitionChanges {
        PartitionChanges { me, client, image, under_way: Arc::new(Semaphore::new(UNDER_WAY_MAX)) }
    }

    /// Asks for `AlterIsr`, `LeaveIsr`, `RenewEpoch` or an election. `done` hears of the outcome. Whoever asks has one
    /// request of a partition under way at a time.
    pub(crate) fn request(&self, log: LogId, command: ClusterCommand, done: mpsc::UnboundedSender<Changed>) {
        let changes = self.clone();
        task::spawn("partition-change", async move {
            let Ok(_place) = changes.under_way.acquire().await else { return };
            let outcome = changes.ask(command.clone()).await;
            tracing::debug!(%log, ?command, ?outcome, "asked the controller");
            // A shard that has ended needs no news.
            let _ = done.send(Changed { log, command: Box::new(command), outcome });
        });
    }

    /// Asks for a new leader epoch under the same leader, until this broker's image has another one than `epoch`, or
    /// it is refused for good. The image says what has come of it.
    pub(crate) fn renew(&self, log: LogId, epoch: LeaderEpoch) {
        let changes = self.clone();
        task::spawn("renew-epoch", async move {
            loop {
                let Some(broker_epoch) = changes.leads_in(log, epoch) else { return };
                let leader = IsrMember { broker: changes.me, broker_epoch };
                let command = ClusterCommand::RenewEpoch { log, leader, leader_epoch: epoch };
                let Ok(place) = changes.under_way.acquire().await else { return };
                let outcome = changes.ask(command).await;
                drop(place);
                tracing::debug!(%log, epoch, ?outcome, "asked for a new leader epoch");
                // The image may be behind the refusal, but then it is on its way.
                time::sleep(PAUSE).await;
            }
        });
    }

    /// This process's broker epoch, if it leads the partition in this leader epoch as far as its image says.
    fn leads_in(&self, log: LogId, epoch: LeaderEpoch) -> Option<i64> {
        let (partition, _) = self.image.decided(log)?;
        let leads = partition.leader == Some(self.me) && partition.leader_epoch == epoch;
        self.image.own_epoch().filter(|_| leads && !self.image.is_closed())
    }

    async fn ask(&self, command: ClusterCommand) -> ChangeOutcome {
        let until = time::now() + TRY_FOR;
        loop {
            let question = ControllerQuestion::ChangePartition(command.clone());
            let outcome = match self.client.ask(question, until).await {
                Ok(ControllerReply::Partition(Ok(index))) => ChangeOutcome::Applied(index),
                Ok(ControllerReply::Partition(Err(refused))) => ChangeOutcome::Refused(refused),
                // No answer to this question.
                Ok(_) => ChangeOutcome::Unknown,
                Err(AskError::NotDone(_) | AskError::Stopping) => ChangeOutcome::NotDone,
                Err(AskError::Unknown) => ChangeOutcome::Unknown,
            };
            if outcome != ChangeOutcome::Refused(Refused::Busy) || time::now() >= until {
                return outcome;
            }
            time::sleep(PAUSE).await;
        }
    }
}
