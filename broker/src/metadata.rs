//! What this broker knows of the cluster, and how it changes it.
//!
//! The driver runs the quorum's core over a log of the store. What is committed is applied to the image, which is
//! published whole: whoever needs it takes the current one and keeps it as long as it likes.

mod describe;
pub(crate) mod driver;
pub(crate) mod error;
mod first_voters;
#[cfg(test)]
mod format_tests;
mod formation;
mod hard_state;
mod log;
mod news;
mod quorum;
#[cfg(test)]
mod quorum_tests;
mod snapshot;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use weir_protocol::metadata::settings::{self, Layers, TopicSettings};
use weir_protocol::metadata::{Change, Command, Image, PartitionState, Record, Rejected, Topic};
use weir_protocol::raft::Index;
use weir_protocol::types::{BrokerId, FolderId, Incarnation, LogId, TopicId};
use weir_runtime::{time, watch};
use weir_storage::{Flush, LogConfig};

use crate::config::Config;
use crate::controller::{AskError, ControllerClient};
use crate::peer::message::{ControllerQuestion, ControllerReply, NotDone};

pub(crate) use describe::{Described, Level};
pub(crate) use quorum::LeaderView;

/// The image, and what is derived from it.
#[derive(Debug, Default)]
pub(crate) struct View {
    pub(crate) image: Image,
    settings: BTreeMap<TopicId, Arc<TopicSettings>>,
    /// Grows whenever a topic may have gone.
    deletions: u64,
}

impl View {
    /// The topics of an earlier view that are gone in this one.
    pub(crate) fn deleted_since<'a>(&'a self, before: &'a View) -> impl Iterator<Item = &'a Arc<Topic>> {
        let may_be = self.deletions != before.deletions;
        let topics = may_be.then(|| before.image.topics()).into_iter().flatten();
        topics.filter(|topic| self.image.topic(topic.id).is_none())
    }

    /// The settings in force for a topic.
    pub(crate) fn settings(&self, topic: TopicId) -> Option<&Arc<TopicSettings>> {
        self.settings.get(&topic)
    }

    /// A view of an image in which `changed` topics, or all, differ from the view before.
    fn after(before: &View, image: Image, changed: Changed<'_>, resolver: &Resolver) -> View {
        let resolve = |topic: &Topic| (topic.id, Arc::new(resolver.topic(&image, topic)));
        let mut deletions = before.deletions;
        let settings = match changed {
            Changed::All => {
                deletions += 1;
                image.topics().map(|topic| resolve(topic)).collect()
            }
            Changed::Topics(ids) => {
                let mut settings = before.settings.clone();
                for id in ids {
                    match image.topic(*id) {
                        Some(topic) => drop(settings.insert(*id, Arc::new(resolver.topic(&image, topic)))),
                        None => {
                            settings.remove(id);
                            deletions += 1;
                        }
                    }
                }
                settings
            }
        };
        View { image, settings, deletions }
    }
}

/// Whose settings must be worked out anew.
enum Changed<'a> {
    All,
    Topics(&'a [TopicId]),
}

/// Works out settings: the topic's own, the cluster's, the broker's file, the defaults.
#[derive(Debug, Clone)]
pub(crate) struct Resolver {
    me: BrokerId,
    config: Arc<Config>,
}

impl Resolver {
    pub(crate) fn new(me: BrokerId, config: Arc<Config>) -> Resolver {
        Resolver { me, config }
    }

    fn layers<'a>(
        &'a self,
        image: &'a Image,
        own: &'a BTreeMap<String, String>,
        replicas: usize,
    ) -> Layers<'a> {
        Layers {
            topic: own,
            broker: image.broker_configs(self.me),
            broker_defaults: image.broker_defaults(),
            file: Some(&self.config.topic_defaults),
            replicas,
        }
    }

    fn topic(&self, image: &Image, topic: &Topic) -> TopicSettings {
        let replicas = topic.partitions.first().map_or(1, |partition| partition.replicas.len());
        TopicSettings::resolve(&self.layers(image, &topic.configs, replicas))
    }
}

/// A process of a broker: a start of its data folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process {
    /// Which broker.
    pub(crate) broker: BrokerId,
    /// Its folder.
    pub(crate) folder: FolderId,
    /// Which start of the folder.
    pub(crate) incarnation: Incarnation,
}

impl Process {
    /// The broker epoch under which `image` has this process registered; `None` if it has not, or another one.
    pub(crate) fn epoch(&self, image: &Image) -> Option<i64> {
        let known = image.broker(self.broker)?;
        let is_this = known.folder == self.folder && known.incarnation == self.incarnation;
        is_this.then_some(known.epoch)
    }
}

/// An image that a test publishes.
#[cfg(test)]
pub(crate) struct ImageByHand {
    view: watch::Sender<Arc<View>>,
    resolver: Resolver,
    pub(crate) reader: ImageReader,
}

#[cfg(test)]
impl ImageByHand {
    pub(crate) fn new(process: Process) -> ImageByHand {
        let (view, receiver) = watch::channel(Arc::new(View::default()));
        let resolver = Resolver::new(process.broker, Arc::new(Config::default()));
        ImageByHand { view, resolver, reader: ImageReader { process, view: receiver } }
    }

    pub(crate) fn publish(&self, image: Image) {
        let before = Arc::clone(&self.view.borrow());
        self.view.send_replace(Arc::new(View::after(&before, image, Changed::All, &self.resolver)));
    }
}

/// Reads the image. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct ImageReader {
    process: Process,
    view: watch::Receiver<Arc<View>>,
}

impl ImageReader {
    /// The image as it is now.
    pub(crate) fn current(&self) -> Arc<View> {
        Arc::clone(&self.view.borrow())
    }

    /// Waits until the image has changed since this was asked last. For ever, when it changes no more.
    pub(crate) async fn changed(&mut self) {
        if self.view.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until the image is as wanted; cancel-safe.
    ///
    /// # Errors
    /// The metadata's driver has ended: it does not change any more.
    pub(crate) async fn wait_for(&self, wanted: impl Fn(&Image) -> bool) -> Result<Arc<View>, watch::Closed> {
        let mut view = self.view.clone();
        let found = view.wait_for(|view| wanted(&view.image)).await?;
        Ok(Arc::clone(&found))
    }

    /// Waits until the entry at `index` is applied and published.
    ///
    /// # Errors
    /// The metadata's driver has ended before.
    pub(crate) async fn wait_applied(&self, index: Index) -> Result<(), watch::Closed> {
        self.wait_for(|image| image.applied().is_some_and(|applied| index <= applied)).await.map(drop)
    }

    /// Waits until the image cannot change any more: the metadata's driver has ended.
    pub(crate) async fn closed(&self) {
        let mut view = self.view.clone();
        while view.changed().await.is_ok() {}
    }

    /// Whether the image cannot change any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.view.is_closed()
    }

    /// This process.
    pub(crate) fn process(&self) -> Process {
        self.process
    }

    /// This process's own broker epoch, once the image has it registered.
    pub(crate) fn own_epoch(&self) -> Option<i64> {
        self.process.epoch(&self.view.borrow().image)
    }

    /// What the quorum has decided about a partition, and how many replicas must be in sync for acks=all. Nothing before
    /// the image has this process registered: what was decided about its former self is none of its business
    /// (contract 4).
    pub(crate) fn decided(&self, log: LogId) -> Option<(PartitionState, usize)> {
        let view = self.view.borrow();
        self.process.epoch(&view.image)?;
        let partition = view.image.partition(log)?;
        let min_isr = view.settings(log.topic).map_or(1, |settings| settings.min_insync_replicas);
        // The quorum elects by what the whole cluster knows; this broker's own setting may only ask for more.
        let min_isr = partition.min_isr(min_isr).max(view.image.min_isr(log)?);
        Some((partition.clone(), min_isr))
    }

    /// The broker epochs of those of `brokers` that may join an ISR, and this one's.
    pub(crate) fn broker_epochs(&self, brokers: &[BrokerId]) -> BTreeMap<BrokerId, i64> {
        let view = self.view.borrow();
        let may_join = |id: &&BrokerId| **id == self.process.broker || view.image.can_lead(**id);
        let epoch = |id: &BrokerId| Some((*id, view.image.broker(*id)?.epoch));
        brokers.iter().filter(may_join).filter_map(epoch).collect()
    }

    /// Whether a replica other than `broker`'s could lead a partition without a loss.
    pub(crate) fn another_could_lead(&self, log: LogId, broker: BrokerId) -> bool {
        let view = self.view.borrow();
        let Some(partition) = view.image.partition(log) else { return false };
        let mut others = partition.isr.iter().chain(&partition.elr).filter(|id| **id != broker);
        others.any(|id| view.image.can_lead(*id))
    }

    /// A broker's epoch, if it is registered.
    pub(crate) fn broker_epoch(&self, broker: BrokerId) -> Option<i64> {
        self.view.borrow().image.broker(broker).map(|broker| broker.epoch)
    }

    /// How a partition's log is kept.
    pub(crate) fn log_config(&self, log: LogId) -> LogConfig {
        let view = self.view.borrow();
        let Some(settings) = view.settings(log.topic) else { return LogConfig::default() };
        LogConfig {
            segment_bytes: u32::try_from(settings.segment_bytes).unwrap_or(u32::MAX),
            index_interval_bytes: u32::try_from(settings.index_interval_bytes).unwrap_or(u32::MAX),
            flush: match settings.flush {
                settings::Flush::Sync => Flush::Sync,
                settings::Flush::Os => Flush::Os,
            },
            compact: settings.cleanup.compact,
        }
    }

    /// How a partition's log is compacted; `None`: it is not.
    pub(crate) fn compaction(&self, log: LogId) -> Option<Compaction> {
        let view = self.view.borrow();
        let settings = view.settings(log.topic).filter(|settings| settings.cleanup.compact)?;
        let duration = |ms: i64| Duration::from_millis(u64::try_from(ms).unwrap_or(0));
        Some(Compaction {
            segment_age_max: duration(settings.segment_ms.min(settings.max_compaction_lag_ms)),
            delete_retention_ms: settings.delete_retention_ms,
            min_lag_ms: settings.min_compaction_lag_ms,
            lag_max: (settings.max_compaction_lag_ms < i64::MAX)
                .then(|| duration(settings.max_compaction_lag_ms)),
            dirty_ratio_min: settings.min_cleanable_dirty_ratio,
        })
    }
}

/// How a topic's logs are compacted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Compaction {
    /// After so long a segment is sealed, `segment.ms` or earlier: what is appended to is not compacted.
    pub(crate) segment_age_max: Duration,
    /// `delete.retention.ms`.
    pub(crate) delete_retention_ms: i64,
    /// `min.compaction.lag.ms`.
    pub(crate) min_lag_ms: i64,
    /// `max.compaction.lag.ms`, if it is set.
    pub(crate) lag_max: Option<Duration>,
    /// `min.cleanable.dirty.ratio`.
    pub(crate) dirty_ratio_min: f64,
}

/// Why a command was not committed, or may not have been.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ProposeError {
    /// It does not fit the image. It has changed nothing.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// Another node leads the quorum, or none does.
    #[error("this node does not lead the metadata quorum")]
    NotController,
    /// It may be committed, or not.
    #[error("leadership of the metadata quorum was lost before the outcome was known")]
    Unknown,
    /// Too many proposals are under way.
    #[error("too many proposals are under way")]
    Overloaded,
    /// It is larger than an entry may be.
    #[error("the command is too large")]
    TooLarge,
    /// A voter stands in the way of a feature level.
    #[error("{0}")]
    Voter(NotDone),
    /// The broker stops.
    #[error("the broker is stopping")]
    Stopping,
}

/// How long a proposal that was certainly not done is tried again. Whoever waits may give up before.
const PROPOSE_FOR: Duration = Duration::from_secs(30);

/// How long is waited for what was committed before, at most: what is asked for next takes its own time.
const CATCH_UP_FOR: Duration = Duration::from_secs(2);

/// Proposes changes. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Metadata {
    client: ControllerClient,
    reader: ImageReader,
    /// When the last question began how far the image must be; held while there is one.
    caught_up: Arc<Mutex<Option<time::Instant>>>,
}

impl Metadata {
    /// Proposes to whoever leads the quorum; what comes of it is waited for in this broker's own image.
    pub(crate) fn new(client: ControllerClient, reader: ImageReader) -> Metadata {
        Metadata { client, reader, caught_up: Arc::default() }
    }

    /// Asks whoever leads the quorum, until it is answered or the time is over.
    pub(crate) async fn ask(
        &self,
        question: ControllerQuestion,
        until: time::Instant,
    ) -> Result<ControllerReply, AskError> {
        self.client.ask(question, until).await
    }

    /// Waits until this broker's image has everything that was committed when this was called: what a client has done
    /// through another broker, and who serves by now. Where nobody knows what is committed, the image stays as it is.
    pub(crate) async fn catch_up(&self) {
        self.catch_up_within(CATCH_UP_FOR).await;
    }

    /// The same, for at most so long. However many ask, one question is under way at a time.
    pub(crate) async fn catch_up_within(&self, limit: Duration) {
        let came = time::now();
        let Ok(mut last) = time::timeout(limit, self.caught_up.lock()).await else { return };
        // What was asked after this was called answers this, too.
        if last.is_some_and(|began| began > came) {
            return;
        }
        let (began, until) = (time::now(), came + limit);
        if let Ok(ControllerReply::Read(index)) = self.client.ask(ControllerQuestion::Read, until).await {
            // An image that does not change any more is not waited for.
            let _ = time::timeout(until - time::now(), self.reader.wait_applied(index - 1)).await;
        }
        *last = Some(began);
    }

    /// Proposes a command and waits until it is committed and this broker's image has it. Dropping the future takes
    /// nothing back.
    pub(crate) async fn propose(&self, command: Command) -> Result<Change, ProposeError> {
        let question = ControllerQuestion::Propose(Record::from(command));
        match self.client.ask(question, time::now() + PROPOSE_FOR).await {
            Ok(ControllerReply::Proposed { index, outcome }) => {
                self.reader.wait_applied(index).await.map_err(|watch::Closed| ProposeError::Stopping)?;
                outcome.map_err(ProposeError::Rejected)
            }
            Err(AskError::NotDone(NotDone::NotController(_))) => Err(ProposeError::NotController),
            Err(AskError::NotDone(NotDone::Overloaded)) => Err(ProposeError::Overloaded),
            Err(AskError::NotDone(NotDone::TooLarge)) => Err(ProposeError::TooLarge),
            Err(AskError::NotDone(why @ (NotDone::SilentVoter(_) | NotDone::OlderVoter { .. }))) => {
                Err(ProposeError::Voter(why))
            }
            Err(AskError::Stopping) => Err(ProposeError::Stopping),
            // No answer to this question.
            Ok(_) | Err(AskError::Unknown) => Err(ProposeError::Unknown),
        }
    }
}
