//! The leader's side of a lane: hears where a follower stands, and answers.

use std::sync::Arc;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, oneshot};
use weir_protocol::partition::replication::{FetchVerdict, Progress};
use weir_protocol::types::LogId;
use weir_runtime::task;
use weir_runtime::time::{self, Alarm};
use weir_storage::{ReadError, ReadPlan};

use super::check::outside_crc;
use super::lane::{Lane, POSITIONS_MAX, Standing};
use super::message::{Answer, FollowerSays, LeaderSays};
use super::{HEARTBEAT, PARTS_MAX, Replication, SHARD_PARTS_MAX, SILENCE_MAX};
use crate::peer::lane::{LaneError, PeerReader, PeerWriter};
use crate::peer::server::ReplicaLane;
use crate::shard::{Judged, Message, PositionsCall, ProgressCall, ReplicaReadCall, ShardError};

/// Chunks that are gathered before others get their turn.
const YIELD_CHUNKS: usize = 32;

/// Why a lane is over.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error(transparent)]
    Lane(#[from] LaneError),
    #[error("nothing was heard for {SILENCE_MAX:?}")]
    Silence,
    #[error("it names more than {POSITIONS_MAX} partitions")]
    TooMany,
    #[error("it comes from a former life of the broker")]
    Former,
    #[error("the broker is stopping")]
    Stopping,
    #[error(transparent)]
    BadAnswer(#[from] super::check::BadAnswer),
    #[error("nothing is followed there any more")]
    Idle,
}

impl From<ShardError> for Ended {
    fn from(_: ShardError) -> Ended {
        Ended::Stopping
    }
}

/// Serves every lane that comes, each in a task of its own.
pub(super) async fn accept(replication: Arc<Replication>, mut lanes: mpsc::Receiver<ReplicaLane>) {
    loop {
        let lane = weir_runtime::select! {
            lane = lanes.recv() => lane,
            () = replication.cut() => None,
        };
        let Some(lane) = lane else { return };
        task::spawn("replica-serve", serve(Arc::clone(&replication), lane));
    }
}

/// Serves one follower until its lane ends.
async fn serve(replication: Arc<Replication>, lane: ReplicaLane) {
    let ReplicaLane { from, reader, writer } = lane;
    let follower = from.node;
    let lane = Arc::new(Lane::new(follower));
    replication.metrics.replica_lanes_served.increment();
    let ended = weir_runtime::select! {
        ended = hear(&replication, &lane, reader) => ended,
        ended = answer(&replication, &lane, writer) => ended,
        () = replication.cut() => Err(Ended::Stopping),
    };
    lane.end();
    if let Err(why) = ended {
        tracing::debug!(follower = follower.0, %why, "a follower's lane is over");
    }
}

/// Waits for the next message. What takes long to arrive is no silence.
pub(super) async fn receive<T: DeserializeOwned>(
    reader: &mut PeerReader,
    silence: &mut Alarm,
) -> Result<(T, Bytes), Ended> {
    loop {
        silence.set(Some(time::now() + SILENCE_MAX));
        let before = reader.bytes_heard();
        weir_runtime::select! {
            received = reader.receive() => return Ok(received?),
            () = silence.wait() => {}
        }
        if reader.bytes_heard() == before {
            return Err(Ended::Silence);
        }
    }
}

async fn hear(replication: &Replication, lane: &Arc<Lane>, mut reader: PeerReader) -> Result<(), Ended> {
    let mut silence = Alarm::new();
    loop {
        let (says, _) = receive::<FollowerSays>(&mut reader, &mut silence).await?;
        if says.broker_epoch < replication.image.broker_epoch(lane.follower()).unwrap_or(-1) {
            return Err(Ended::Former);
        }
        let named = lane.take_in(&says).ok_or(Ended::TooMany)?;
        report(replication, lane, says.broker_epoch, says.progress).await?;
        if says.beat {
            count(replication, lane, lane.standings(), true).await?;
        } else {
            count(replication, lane, named, false).await?;
        }
    }
}

/// Has the shards count where the follower stands.
async fn count(
    replication: &Replication,
    lane: &Arc<Lane>,
    standings: Vec<Standing>,
    is_beat: bool,
) -> Result<(), Ended> {
    let groups = replication.shards.group(standings, |standing| standing.log);
    for (shard, standings) in groups.into_iter().enumerate() {
        for parts in standings.chunks(SHARD_PARTS_MAX) {
            let call = PositionsCall { lane: Arc::clone(lane), is_beat, parts: parts.to_vec() };
            replication.shards.send(shard, Message::Positions(Box::new(call))).await?;
        }
    }
    Ok(())
}

async fn report(
    replication: &Replication,
    lane: &Lane,
    broker_epoch: i64,
    progress: Vec<Progress>,
) -> Result<(), Ended> {
    let groups = replication.shards.group(progress, |progress| progress.log);
    for (shard, parts) in groups.into_iter().enumerate() {
        if !parts.is_empty() {
            let call = ProgressCall { from: lane.follower(), broker_epoch, parts };
            replication.shards.send(shard, Message::Progress(Box::new(call))).await?;
        }
    }
    Ok(())
}

async fn answer(replication: &Replication, lane: &Arc<Lane>, mut writer: PeerWriter) -> Result<(), Ended> {
    loop {
        lane.woken().await;
        loop {
            let gathered = gather(replication, lane, &mut writer).await?;
            let beat = lane.take_beat();
            if gathered.says.answers.is_empty() && !beat {
                break;
            }
            replication.metrics.replica_bytes_served.add(gathered.bytes as u64);
            writer.send(&gathered.says, gathered.tail).await?;
        }
    }
}

/// Gathers an answer. A disk that takes its time is no silence: the follower hears that this broker is there.
async fn gather<'a>(
    replication: &'a Replication,
    lane: &'a Arc<Lane>,
    writer: &mut PeerWriter,
) -> Result<Gathering<'a>, Ended> {
    let mut gathering = std::pin::pin!(Gathering::new(replication, lane).run());
    let mut alarm = Alarm::new();
    loop {
        alarm.set(Some(time::now() + HEARTBEAT));
        weir_runtime::select! {
            gathered = &mut gathering => return gathered,
            () = alarm.wait() => writer.send(&LeaderSays { answers: Vec::new() }, []).await?,
        }
    }
}

/// One answer as it grows.
struct Gathering<'a> {
    replication: &'a Replication,
    lane: &'a Arc<Lane>,
    says: LeaderSays,
    tail: Vec<Bytes>,
    bytes: usize,
    /// With how many chunks others get their turn.
    yield_at: usize,
}

impl<'a> Gathering<'a> {
    fn new(replication: &'a Replication, lane: &'a Arc<Lane>) -> Gathering<'a> {
        let says = LeaderSays { answers: Vec::new() };
        Gathering { replication, lane, says, tail: Vec::new(), bytes: 0, yield_at: YIELD_CHUNKS }
    }

    fn is_full(&self) -> bool {
        self.bytes >= self.replication.limits.answer_bytes || self.says.answers.len() >= PARTS_MAX
    }

    async fn run(mut self) -> Result<Gathering<'a>, Ended> {
        while !self.is_full() {
            let standings = self.lane.next(SHARD_PARTS_MAX);
            if standings.is_empty() {
                break;
            }
            let mut judged = self.ask(&standings).await?;
            for (at, standing) in standings.iter().enumerate() {
                if self.is_full() {
                    self.lane.put_back(&standings[at..]);
                    break;
                }
                if let Some(judged) = judged[at].take()
                    && !self.take(standing, judged).await
                {
                    self.lane.put_back(&standings[at..]);
                    return Ok(self);
                }
            }
        }
        Ok(self)
    }

    /// What the shards say to these, in their order; nothing to some.
    async fn ask(&self, standings: &[Standing]) -> Result<Vec<Option<Judged>>, Ended> {
        let shards = &self.replication.shards;
        let mut replies = Vec::new();
        let numbered = standings.iter().copied().enumerate();
        for (shard, parts) in shards.group(numbered, |(_, standing)| standing.log).into_iter().enumerate() {
            if parts.is_empty() {
                continue;
            }
            let (reply, judged) = oneshot::channel();
            let bytes_max = self.replication.limits.partition_bytes;
            let lane = Arc::clone(self.lane);
            let call = ReplicaReadCall { lane, bytes_max, parts, reply };
            shards.send(shard, Message::ReplicaRead(Box::new(call))).await?;
            replies.push(judged);
        }
        let mut all: Vec<Option<Judged>> = Vec::new();
        all.resize_with(standings.len(), || None);
        for reply in replies {
            for (at, judged) in reply.await.map_err(|_| Ended::Stopping)? {
                all[at] = Some(judged);
            }
        }
        Ok(all)
    }

    /// Takes one partition's answer in; false if its records find no room.
    async fn take(&mut self, standing: &Standing, judged: Judged) -> bool {
        let Judged { verdict, deletions_forgotten_to, plan } = judged;
        let mut records = Vec::new();
        if let Some(plan) = plan {
            match self.read(standing.log, plan).await {
                // The log was cut meanwhile, or cannot be read: its replica says something else soon, or nothing.
                None => return true,
                // A heartbeat finds it again.
                Some(read) if read.is_empty() && self.bytes == 0 => return true,
                Some(read) if read.is_empty() => return false,
                Some(read) => records = read,
            }
        }
        let records_bytes: usize = records.iter().map(Bytes::len).sum();
        let Ok(records_bytes) = u32::try_from(records_bytes) else { return true };
        let Standing { log, position, .. } = *standing;
        let outside_crc = outside_crc(&records);
        let answer = Answer { log, position, verdict, deletions_forgotten_to, records_bytes, outside_crc };
        let told = match verdict {
            FetchVerdict::Matches { high_watermark, start } => Some((high_watermark, start)),
            _ => None,
        };
        self.lane.answered(log, &position, told, answer.spends());
        self.says.answers.push(answer);
        self.tail.extend(records);
        self.bytes += records_bytes as usize;
        true
    }

    async fn read(&mut self, log: LogId, mut plan: ReadPlan) -> Option<Vec<Bytes>> {
        // What is in memory does not wait, and others want their turn.
        if self.tail.len() >= self.yield_at {
            self.yield_at = self.tail.len() + YIELD_CHUNKS;
            task::yield_now().await;
        }
        plan.limit(self.replication.limits.answer_bytes.saturating_sub(self.bytes), self.bytes == 0);
        match plan.run(&self.replication.disk).await {
            Ok(records) => return Some(records),
            Err(ReadError::Changed(_)) => drop(self.lane.mark(log)),
            Err(ReadError::Corrupt { from, .. }) => {
                self.replication.metrics.reads_damaged.increment();
                self.replication.damaged(log, from).await;
            }
            Err(error) => {
                self.replication.complain(|| tracing::warn!(%log, %error, "a follower cannot be served"));
            }
        }
        None
    }
}
