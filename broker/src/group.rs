//! Consumer groups: drives the coordinators, one for each partition of `__consumer_offsets` that this broker leads.
//!
//! A coordinator is loaded from its partition's log when it is first asked, under the leader epoch of that moment. Its
//! records are appended under that epoch (contract 10), one batch at a time: what gathers meanwhile is the next batch.
//! When another broker, or another epoch, leads the partition, it ends, and whoever waits for it is sent to look for
//! the coordinator again.

mod active;
mod load;
mod owner;
pub(crate) mod records;

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use weir_protocol::group::{Coordinator, GroupError, Limits, Listed, Name, Reply, Request};
use weir_protocol::metadata::names;
use weir_protocol::types::BrokerId;
use weir_runtime::disk::Disk;
use weir_runtime::task::{self, JoinHandle};

use crate::membership::Session;
use crate::metadata::ImageReader;
use crate::shard::Shards;

/// Messages that may wait for one task; whoever sends one more waits.
const QUEUE_MESSAGES: usize = 1024;
/// The most tasks that coordinators share.
const TASKS_MAX: usize = 8;

/// What a task is asked.
enum Message {
    Ask(Box<Ask>),
    /// Everything before was taken in; answer who waits and end.
    Stop,
}

/// A question for one coordinator.
struct Ask {
    partition: i32,
    what: What,
}

/// Takes the coordinator, or why there is none.
type Look = Box<dyn FnOnce(Result<&Coordinator, Unavailable>) + Send>;

enum What {
    /// A request that may change the group.
    Request { group: Name, request: Request, reply: oneshot::Sender<Result<Reply, Unavailable>> },
    /// A look at what is there.
    Look(Look),
}

impl What {
    fn refuse(self, why: Unavailable) {
        match self {
            // Whoever asked may have gone.
            What::Request { reply, .. } => drop(reply.send(Err(why))),
            What::Look(look) => look(Err(why)),
        }
    }
}

/// Why a coordinator does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unavailable {
    /// Another broker, or none, leads the partition; or the broker stops.
    #[error("this broker does not coordinate the group")]
    NotCoordinator,
    /// It is being loaded and too many wait for that already.
    #[error("the coordinator is being loaded")]
    Loading,
    /// Its log cannot be read or written.
    #[error("the coordinator's log cannot be used")]
    Failed,
}

impl From<Unavailable> for GroupError {
    fn from(unavailable: Unavailable) -> GroupError {
        match unavailable {
            Unavailable::NotCoordinator => GroupError::NotCoordinator,
            Unavailable::Loading => GroupError::CoordinatorLoadInProgress,
            Unavailable::Failed => GroupError::CoordinatorNotAvailable,
        }
    }
}

/// What the tasks are made from.
pub(crate) struct GroupSetup {
    pub(crate) me: BrokerId,
    pub(crate) image: ImageReader,
    pub(crate) shards: Shards,
    pub(crate) disk: Disk,
    pub(crate) limits: Limits,
    /// Past it another broker may coordinate.
    pub(crate) session: Session,
}

/// The group coordinators, from outside.
#[derive(Clone)]
pub(crate) struct Groups {
    me: BrokerId,
    image: ImageReader,
    queues: Arc<[mpsc::Sender<Message>]>,
}

impl Groups {
    /// Starts the tasks. They end after [`Groups::stop`].
    pub(crate) fn start(setup: &GroupSetup) -> (Groups, Vec<JoinHandle<()>>) {
        let count = setup.shards.count().clamp(1, TASKS_MAX);
        let (mut queues, mut tasks) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for _ in 0..count {
            let (queue, messages) = mpsc::channel(QUEUE_MESSAGES);
            queues.push(queue);
            tasks.push(task::spawn("groups", owner::Owner::new(setup).run(messages)));
        }
        (Groups { me: setup.me, image: setup.image.clone(), queues: queues.into() }, tasks)
    }

    /// The partition that a group belongs to: as in Kafka, by the hash of its id as Java has it.
    ///
    /// `None`: there is no `__consumer_offsets` yet.
    pub(crate) fn partition_of(&self, group: &str) -> Option<i32> {
        let view = self.image.current();
        let partitions = view.image.topic_named(names::CONSUMER_OFFSETS)?.partitions.len();
        Some(java_hash(group).checked_abs().unwrap_or(0) % partitions as i32)
    }

    /// The broker that coordinates a group; `None` if there is none now.
    pub(crate) fn coordinator_of(&self, group: &str) -> Option<BrokerId> {
        let partition = self.partition_of(group)?;
        let view = self.image.current();
        view.image.topic_named(names::CONSUMER_OFFSETS)?.partition(partition)?.leader
    }

    /// Hands a request to its group's coordinator and waits for the reply.
    pub(crate) async fn request(&self, group: &str, request: Request) -> Result<Reply, Unavailable> {
        let partition = self.partition_of(group).ok_or(Unavailable::NotCoordinator)?;
        let (reply, answer) = oneshot::channel();
        let what = What::Request { group: Name::from(group), request, reply };
        self.send(partition, what).await?;
        answer.await.map_err(|_| Unavailable::NotCoordinator)?
    }

    /// Looks at a group's coordinator.
    pub(crate) async fn look<T: Send + 'static>(
        &self,
        group: &str,
        look: impl FnOnce(&Coordinator) -> T + Send + 'static,
    ) -> Result<T, Unavailable> {
        let partition = self.partition_of(group).ok_or(Unavailable::NotCoordinator)?;
        self.look_at(partition, look).await
    }

    async fn look_at<T: Send + 'static>(
        &self,
        partition: i32,
        look: impl FnOnce(&Coordinator) -> T + Send + 'static,
    ) -> Result<T, Unavailable> {
        let (reply, answer) = oneshot::channel();
        let what = What::Look(Box::new(move |coordinator| {
            // Whoever asked may have gone.
            let _ = reply.send(coordinator.map(look));
        }));
        self.send(partition, what).await?;
        answer.await.map_err(|_| Unavailable::NotCoordinator)?
    }

    /// All groups that this broker coordinates.
    pub(crate) async fn list(&self) -> Result<Vec<Listed>, Unavailable> {
        let mine: Vec<i32> = {
            let view = self.image.current();
            let Some(topic) = view.image.topic_named(names::CONSUMER_OFFSETS) else { return Ok(Vec::new()) };
            let led = topic.logs().filter(|(_, partition)| partition.leader == Some(self.me));
            led.map(|(log, _)| log.partition).collect()
        };
        let mut listed = Vec::new();
        for partition in mine {
            match self.look_at(partition, |coordinator| coordinator.list().collect::<Vec<_>>()).await {
                Ok(groups) => listed.extend(groups),
                // Another broker coordinates them meanwhile, and lists them.
                Err(Unavailable::NotCoordinator) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(listed)
    }

    async fn send(&self, partition: i32, what: What) -> Result<(), Unavailable> {
        let queue = &self.queues[partition as usize % self.queues.len()];
        let message = Message::Ask(Box::new(Ask { partition, what }));
        queue.send(message).await.map_err(|_| Unavailable::NotCoordinator)
    }

    /// Tells all tasks to end, after what was sent before.
    pub(crate) async fn stop(&self) {
        for queue in self.queues.iter() {
            // A task that has ended already needs no telling.
            let _ = queue.send(Message::Stop).await;
        }
    }
}

/// The settings of `__consumer_offsets`: it is compacted, as in Kafka.
pub(crate) fn offsets_topic_settings() -> [(&'static str, &'static str); 3] {
    [("cleanup.policy", "compact"), ("segment.bytes", "104857600"), ("compression.type", "producer")]
}

/// `String.hashCode` of Java: over UTF-16.
fn java_hash(text: &str) -> i32 {
    text.encode_utf16().fold(0, |hash: i32, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_spread_as_javas_hash_code_has_it() {
        assert_eq!(java_hash(""), 0);
        assert_eq!(java_hash("hello"), 99_162_322);
        assert_eq!(java_hash("polygenelubricants"), i32::MIN);
    }
}
