//! The follower's side of a lane: says where this broker's replicas stand, and hands on what comes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use weir_runtime::task;
use weir_runtime::time::{self, Alarm};

use super::check::{BadAnswer, check};
use super::mailbox::Mailbox;
use super::message::LeaderSays;
use super::serve::{Ended, receive};
use super::{HEARTBEAT, Replication};
use crate::peer::lane::{PeerReader, PeerWriter};
use crate::shard::{FetchedPart, Message};

/// Between two tries to reach a leader, at first and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// Bytes that are checked before others get their turn.
const YIELD_BYTES: usize = 64 << 10;

/// Fetches from every leader that this broker's replicas follow, each in a task of its own, until the broker stops.
pub(crate) async fn run(replication: Arc<Replication>, mut new: mpsc::UnboundedReceiver<Arc<Mailbox>>) {
    loop {
        let mailbox = weir_runtime::select! {
            mailbox = new.recv() => mailbox,
            () = replication.cut() => None,
        };
        let Some(mailbox) = mailbox else { return };
        let replication = Arc::clone(&replication);
        task::spawn("replica-fetch", async move {
            weir_runtime::select! {
                () = follow(&replication, &mailbox) => {}
                () = replication.cut() => {}
            }
        });
    }
}

async fn follow(replication: &Replication, mailbox: &Mailbox) {
    let leader = mailbox.leader();
    let mut backoff = BACKOFF.0;
    loop {
        while mailbox.is_idle() {
            mailbox.posted().await;
        }
        match replication.peers.open_replica_lane(leader).await {
            Ok((reader, writer)) => {
                let began = time::now();
                mailbox.begin();
                let ended = weir_runtime::select! {
                    ended = say(replication, mailbox, writer) => ended,
                    ended = hear(replication, reader) => ended,
                };
                if let Err(why) = ended {
                    if matches!(why, Ended::BadAnswer(_)) {
                        replication.metrics.replica_answers_bad.increment();
                        replication.complain(|| tracing::warn!(leader = leader.0, %why, "a leader's answer"));
                    }
                    tracing::debug!(leader = leader.0, %why, "the lane to a leader is over");
                }
                if time::now() - began >= BACKOFF.1 {
                    backoff = BACKOFF.0;
                }
            }
            Err(error) => tracing::debug!(leader = leader.0, %error, "no lane to a leader"),
        }
        time::sleep(backoff).await;
        backoff = (backoff * 2).min(BACKOFF.1);
    }
}

async fn say(replication: &Replication, mailbox: &Mailbox, mut writer: PeerWriter) -> Result<(), Ended> {
    let mut alarm = Alarm::new();
    let mut beat = true;
    loop {
        let broker_epoch = replication.image.broker_epoch(replication.me).unwrap_or(-1);
        while let Some(says) = mailbox.next(broker_epoch, std::mem::take(&mut beat)) {
            writer.send(&says, []).await?;
        }
        if alarm.at().is_none() {
            alarm.set(Some(time::now() + HEARTBEAT));
        }
        weir_runtime::select! {
            // Whoever else is about to post does so first.
            () = mailbox.posted() => task::yield_now().await,
            () = alarm.wait() => {
                if mailbox.is_idle() {
                    return Err(Ended::Idle);
                }
                beat = true;
                mailbox.beat();
            }
        }
    }
}

async fn hear(replication: &Replication, mut reader: PeerReader) -> Result<(), Ended> {
    let mut silence = Alarm::new();
    loop {
        let (says, mut tail) = receive::<LeaderSays>(&mut reader, &mut silence).await?;
        replication.metrics.replica_bytes_fetched.add(tail.len() as u64);
        let mut parts = Vec::with_capacity(says.answers.len());
        let mut left = tail.len();
        for answer in &says.answers {
            // Checksums take their time.
            if tail.len() + YIELD_BYTES < left {
                left = tail.len();
                task::yield_now().await;
            }
            let checked = check(answer, &mut tail, replication.limits.append_bytes)?;
            let (log, deletions_forgotten_to) = (answer.log, answer.deletions_forgotten_to);
            parts.push(FetchedPart { log, checked, deletions_forgotten_to, spent: answer.spends() });
        }
        if !tail.is_empty() {
            return Err(BadAnswer::TooLong(tail.len()).into());
        }
        let groups = replication.shards.group(parts, |part| part.log);
        for (shard, parts) in groups.into_iter().enumerate() {
            if !parts.is_empty() {
                replication.shards.send(shard, Message::Fetched(parts)).await?;
            }
        }
    }
}
