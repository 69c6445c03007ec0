//! Replication: a broker fetches what it follows, from each leader over a lane of its own, and serves those that follow it.
//!
//! What each side knows of a lane belongs to the connection. The follower names a position when it has changed, and says
//! how far it is durable as soon as that moves; the leader keeps the positions and answers those that it has something to
//! say about. So a partition in which nothing happens takes no byte, however many there are.
//!
//! | | leader | follower |
//! |---|---|---|
//! | what is known of a lane | [`lane::Lane`] | [`mailbox::Mailbox`] |
//! | its task | [`serve`] | [`fetch`] |
//! | what the shards do | judge positions, plan reads, mark lanes whose partition has grown | write what came, post new positions |
//!
//! A position is *armed* from when it is named until it is answered with something that changes the follower's log. News
//! of the high watermark alone leaves it armed. The shards count a position as a fetch when it is named, and again with
//! each heartbeat: a follower that is cut off sends none, and is no longer in sync after `replica.lag.time.max.ms`.

pub(crate) mod check;
pub(crate) mod fetch;
pub(crate) mod lane;
pub(crate) mod mailbox;
pub(crate) mod message;
pub(crate) mod serve;

#[cfg(test)]
mod scenario_tests;
#[cfg(test)]
mod town;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use weir_protocol::types::{BrokerId, LogId, Offset};
use weir_runtime::disk::Disk;
use weir_runtime::{task, time, watch};

use self::mailbox::Mailbox;
use crate::complaints::Complaints;
use crate::metadata::ImageReader;
use crate::metrics::Metrics;
use crate::peer::Peers;
use crate::peer::server::ReplicaLane;
use crate::server::Stage;
use crate::shard::{Message, Shards};

/// How often a follower is heard, if it has nothing else to say. Its leader answers at once.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// After how long without a byte a lane is taken for broken, and opened again: both sides are heard twice in this time. As long as
/// a connection is silent, its follower holds acks=all up; as long as none can be made, until it leaves the ISR.
const SILENCE_MAX: Duration = Duration::from_secs(1);
/// Partitions that one message names.
const PARTS_MAX: usize = 1024;
/// Partitions that a shard is asked about at once.
const SHARD_PARTS_MAX: usize = 128;

/// How much one answer carries.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FetchLimits {
    /// `replica.fetch.max.bytes`: of one partition, its first batch aside.
    pub(crate) partition_bytes: usize,
    /// `replica.fetch.response.max.bytes`: of all partitions, the first batch aside.
    pub(crate) answer_bytes: usize,
    /// Of what a follower appends together, where it is more than one batch.
    pub(crate) append_bytes: usize,
}

/// Starts to serve followers and to fetch from leaders, until connections are cut.
pub(crate) fn start(
    replication: Replication,
    mailboxes: mpsc::UnboundedReceiver<Arc<Mailbox>>,
    lanes: mpsc::Receiver<ReplicaLane>,
) {
    let replication = Arc::new(replication);
    task::spawn("replica-lanes", serve::accept(Arc::clone(&replication), lanes));
    task::spawn("replica-fetches", fetch::run(replication, mailboxes));
}

/// What both sides of all lanes of a broker have in common.
pub(crate) struct Replication {
    pub(crate) me: BrokerId,
    pub(crate) peers: Peers,
    pub(crate) shards: Shards,
    pub(crate) image: ImageReader,
    pub(crate) disk: Disk,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) limits: FetchLimits,
    pub(crate) stage: watch::Receiver<Stage>,
    pub(crate) complaints: Complaints,
}

impl Replication {
    /// Waits until connections are cut: the broker stops.
    async fn cut(&self) {
        // Without anyone to say so, the node is gone.
        let _ = self.stage.clone().wait_for(|stage| *stage == Stage::Cut).await;
    }

    /// Writes a line of the log, unless too many of them were written.
    fn complain(&self, line: impl FnOnce()) {
        if self.complaints.admit(time::now()).is_some() {
            line();
        }
    }

    /// A read has found damage in a log of this broker (contract 7).
    async fn damaged(&self, log: LogId, from: Offset) {
        let shard = self.shards.owner_of(log);
        // A shard that has ended repairs nothing more.
        let _ = self.shards.send(shard, Message::Damaged { log, from }).await;
    }
}
