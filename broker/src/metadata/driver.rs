//! Applies what the quorum commits, publishes the image, and tells the shards.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;
use weir_protocol::fact::Fact;
use weir_protocol::metadata::{
    Change, Command, Endpoint, FEATURE_LEVEL_MAX, FeatureRange, Image, IsrMember, Rejected,
};
use weir_protocol::types::{BrokerId, LeaderEpoch, LogId, TopicId, VoterId};
use weir_runtime::disk::{BatchError, Disk};
use weir_runtime::watch;
use weir_runtime::{random, simulation};
use weir_storage::{StorageError, Store};

use super::quorum::{Progress, Quorum, Reply};
use super::{Changed, ImageReader, Metadata, PROPOSALS_MAX, Process, Proposal, ProposeError, Resolver, View};
use crate::config::Config;
use crate::metrics::Metrics;
use crate::node::{Failure, FailureFlag};
use crate::shard::{Message, Shards};

/// Proposals that are taken in per wake: they share a round of the journal.
const PROPOSALS_PER_WAKE: usize = 64;

/// Why the metadata quorum cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    /// The store refuses its log.
    #[error("the metadata quorum's log: {0}")]
    Storage(#[from] StorageError),
    /// Its hard state cannot be read or written.
    #[error("the metadata quorum's state: {0}")]
    Disk(#[from] BatchError),
    /// Its log or hard state is damaged: this voter neither votes nor leads until it is repaired (contract 6).
    #[error("{what} is damaged: {reason}")]
    Damaged {
        /// Which.
        what: String,
        /// How it shows.
        reason: String,
    },
    /// It was written by a newer version.
    #[error("{0}: start the newer version of Weir")]
    NewerFormat(String),
    /// A command that a broker's start needs was refused.
    #[error("the metadata quorum refuses this broker: {0}")]
    Refused(String),
}

/// What a driver is made from.
pub(crate) struct DriverSetup {
    pub(crate) me: BrokerId,
    pub(crate) config: Arc<Config>,
    pub(crate) store: Store,
    pub(crate) disk: Disk,
    pub(crate) endpoint: Endpoint,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) failure: FailureFlag,
}

/// What the shards must be told about an applied command.
#[derive(Debug, Default)]
struct News {
    changed: Vec<LogId>,
    deleted: Vec<LogId>,
    /// Topics whose settings must be worked out anew.
    topics: Vec<TopicId>,
    /// All of them.
    all_topics: bool,
}

/// The metadata of this broker.
pub(crate) struct Driver {
    me: BrokerId,
    store: Store,
    metrics: Arc<Metrics>,
    failure: FailureFlag,
    quorum: Quorum,
    image: Image,
    resolver: Resolver,
    view: watch::Sender<Arc<View>>,
    reader: ImageReader,
    handle: Metadata,
    proposals: mpsc::Receiver<Proposal>,
    renewals: mpsc::UnboundedReceiver<(LogId, LeaderEpoch)>,
    /// Outcomes to be told once the image is published.
    outcomes: VecDeque<(Reply, Result<Change, Rejected>)>,
    news: News,
}

impl Driver {
    /// Replays the log, leads the quorum, forms the cluster if there is none, and registers this incarnation of the
    /// broker, with which each partition that it leads takes a new leader epoch (contract 4).
    pub(crate) async fn start(setup: DriverSetup) -> Result<Driver, MetadataError> {
        let voter = VoterId { broker: setup.me, folder: setup.store.folder_id() };
        let (quorum, progress) = Quorum::open(&setup.store, &setup.disk, voter).await?;
        let (handle, proposals) = mpsc::channel(PROPOSALS_MAX);
        let (renewals_to, renewals) = mpsc::unbounded_channel();
        let (view, view_reader) = watch::channel(Arc::new(View::default()));
        let process = Process {
            broker: setup.me,
            folder: setup.store.folder_id(),
            incarnation: setup.store.incarnation(),
        };
        let mut driver = Driver {
            me: setup.me,
            resolver: Resolver::new(setup.me, setup.config.clone()),
            store: setup.store,
            metrics: setup.metrics,
            failure: setup.failure,
            quorum,
            image: Image::empty(),
            view,
            reader: ImageReader { process, view: view_reader, renewals: renewals_to },
            handle: Metadata { proposals: handle },
            proposals,
            renewals,
            outcomes: VecDeque::new(),
            news: News::default(),
        };
        driver.apply(progress);
        driver.join(&setup.config, setup.endpoint).await?;
        driver.news.all_topics = true;
        driver.publish();
        driver.news = News::default();
        Ok(driver)
    }

    pub(crate) fn reader(&self) -> ImageReader {
        self.reader.clone()
    }

    pub(crate) fn handle(&self) -> Metadata {
        self.handle.clone()
    }

    pub(crate) fn resolver(&self) -> Resolver {
        self.resolver.clone()
    }

    async fn join(&mut self, config: &Config, endpoint: Endpoint) -> Result<(), MetadataError> {
        // The first entry of its own term commits all before it.
        while !self.quorum.is_current() {
            self.settle().await?;
        }
        if self.image.cluster_id().is_none() {
            let cluster_id = Uuid::from_bytes(random::uuid_bytes());
            self.commit(Command::FormCluster { cluster_id, feature_level: FEATURE_LEVEL_MAX }).await?;
            tracing::info!(%cluster_id, "a new cluster of one");
        }
        self.commit(Command::RegisterBroker {
            broker: self.me,
            folder: self.store.folder_id(),
            incarnation: self.store.incarnation(),
            endpoints: vec![endpoint],
            rack: config.rack.clone(),
            features: FeatureRange { min: 1, max: FEATURE_LEVEL_MAX },
        })
        .await?;
        if let Some(broker) = self.image.broker(self.me) {
            simulation::observe(|| Fact::Registered { broker: self.me, epoch: broker.epoch });
        }
        Ok(())
    }

    /// Waits for the quorum's next event and applies what it commits.
    async fn settle(&mut self) -> Result<(), MetadataError> {
        let event = self.quorum.event().await;
        let progress = self.quorum.on_event(event)?;
        self.take_in(progress)
    }

    /// Applies what is committed while the broker starts; there is nobody yet to be told.
    fn take_in(&mut self, progress: Progress) -> Result<(), MetadataError> {
        if let Some(error) = &progress.failed {
            return Err(MetadataError::Storage(StorageError::FolderFailed(Arc::clone(error))));
        }
        if progress.resigned {
            return Err(MetadataError::Refused("its log cannot be written".to_owned()));
        }
        self.apply(progress);
        self.answer();
        Ok(())
    }

    /// Commits a command while the broker starts.
    async fn commit(&mut self, command: Command) -> Result<(), MetadataError> {
        let (reply, mut outcome) = oneshot::channel();
        let progress = self.quorum.propose(command, Some(reply))?;
        self.take_in(progress)?;
        loop {
            match outcome.try_recv() {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(error)) => return Err(MetadataError::Refused(error.to_string())),
                Err(oneshot::error::TryRecvError::Empty) => self.settle().await?,
                Err(oneshot::error::TryRecvError::Closed) => {
                    return Err(MetadataError::Refused("the command has no outcome".to_owned()));
                }
            }
        }
    }

    /// Works until it is told to stop.
    pub(crate) async fn run(mut self, shards: Shards, mut stop: mpsc::Receiver<()>) {
        self.delete_orphans(&shards).await;
        if let Err(error) = self.work(&shards, &mut stop).await {
            self.failure.report(match error {
                MetadataError::Disk(source) => {
                    let doing = "writing the metadata quorum's state";
                    Failure::Folder(Arc::new(StorageError::Disk { doing, source }))
                }
                error => Failure::Task(error.to_string()),
            });
        }
    }

    async fn work(&mut self, shards: &Shards, stop: &mut mpsc::Receiver<()>) -> Result<(), MetadataError> {
        let mut taken = Vec::with_capacity(PROPOSALS_PER_WAKE);
        loop {
            let progress = weir_runtime::select! {
                event = self.quorum.event() => self.quorum.on_event(event)?,
                renewal = self.renewals.recv() => match renewal {
                    Some((log, epoch)) => self.renew(log, epoch)?,
                    None => Progress::default(),
                },
                count = self.proposals.recv_many(&mut taken, PROPOSALS_PER_WAKE) => {
                    if count == 0 {
                        return Ok(());
                    }
                    let mut all = Progress::default();
                    for Proposal { command, reply } in taken.drain(..) {
                        all.append(self.quorum.propose(command, Some(reply))?);
                    }
                    all
                }
                _ = stop.recv() => return Ok(()),
            };
            self.on_progress(progress, shards).await;
        }
    }

    /// Gives a partition a new leader epoch under the same leader.
    fn renew(&mut self, log: LogId, epoch: LeaderEpoch) -> Result<Progress, MetadataError> {
        let Some(partition) = self.image.partition(log) else { return Ok(Progress::default()) };
        if partition.leader_epoch != epoch || partition.leader != Some(self.me) {
            return Ok(Progress::default());
        }
        let epoch_of = |id: BrokerId| self.image.broker(id).map_or(-1, |broker| broker.epoch);
        let isr =
            partition.isr.iter().map(|id| IsrMember { broker: *id, broker_epoch: epoch_of(*id) }).collect();
        let command = Command::ChangePartition {
            log,
            partition_epoch: partition.partition_epoch,
            leader: partition.leader,
            isr,
            renew_epoch: true,
        };
        self.quorum.propose(command, None)
    }

    async fn on_progress(&mut self, progress: Progress, shards: &Shards) {
        if let Some(error) = &progress.failed {
            self.failure.report(Failure::Folder(Arc::clone(error)));
        }
        if progress.committed.is_empty() {
            return;
        }
        self.apply(progress);
        self.publish();
        let news = std::mem::take(&mut self.news);
        tell(shards, news.changed, Message::Changed).await;
        tell(shards, news.deleted, Message::Delete).await;
        self.answer();
    }

    /// Applies committed entries to the image.
    fn apply(&mut self, progress: Progress) {
        for entry in progress.committed {
            self.metrics.metadata_commits.increment();
            let outcome = match &entry.record {
                Some(record) => self.image.apply_record(entry.index, record),
                None => self.image.pass(entry.index).map(|()| Change::Nothing),
            };
            match &outcome {
                Ok(change) => self.news.note(change, &self.image),
                Err(rejected) => tracing::debug!(index = entry.index, %rejected, "a command was rejected"),
            }
            if let Some(reply) = entry.reply {
                self.outcomes.push_back((reply, outcome));
            }
        }
        debug_assert_eq!(self.image.invariants(), Ok(()));
    }

    /// Publishes the image: from here on every shard and every request sees it.
    fn publish(&self) {
        let before = Arc::clone(&self.view.borrow());
        let changed = if self.news.all_topics { Changed::All } else { Changed::Topics(&self.news.topics) };
        let view = View::after(&before, self.image.clone(), changed, &self.resolver);
        self.view.send_replace(Arc::new(view));
    }

    fn answer(&mut self) {
        while let Some((reply, outcome)) = self.outcomes.pop_front() {
            // Whoever asked may have gone.
            let _ = reply.send(outcome.map_err(ProposeError::Rejected));
        }
    }

    /// Deletes logs whose topics are gone: what a deletion left over that a crash has interrupted. Only a node that
    /// leads the quorum, and has applied everything that is committed, knows that.
    async fn delete_orphans(&self, shards: &Shards) {
        let known = |log: &LogId| *log == LogId::METADATA || self.image.partition(*log).is_some();
        let orphans: Vec<LogId> = self.store.logs().into_iter().filter(|log| !known(log)).collect();
        if !orphans.is_empty() {
            tracing::info!(count = orphans.len(), "deleting what is left of deleted topics");
            tell(shards, orphans, Message::Delete).await;
        }
    }
}

impl News {
    fn note(&mut self, change: &Change, image: &Image) {
        let logs_of = |id: &TopicId| -> Vec<LogId> {
            image.topic(*id).map(|topic| topic.logs().map(|(log, _)| log).collect()).unwrap_or_default()
        };
        match change {
            Change::TopicCreated { id } | Change::PartitionsAdded { id, .. } => self.topics.push(*id),
            Change::TopicConfigChanged { id } => {
                self.topics.push(*id);
                self.changed.extend(logs_of(id));
            }
            Change::TopicDeleted { topic } => {
                self.topics.push(topic.id);
                self.deleted.extend(topic.logs().map(|(log, _)| log));
            }
            Change::BrokerRegistered { partitions, .. }
            | Change::BrokerFenced { partitions, .. }
            | Change::BrokerShuttingDown { partitions, .. }
            | Change::ReplicasAdded { partitions } => self.changed.extend(partitions),
            Change::PartitionChanged { log } => self.changed.push(*log),
            Change::BrokerConfigChanged { .. } => {
                self.all_topics = true;
                self.changed.extend(image.topics().flat_map(|topic| topic.logs().map(|(log, _)| log)));
            }
            Change::Nothing
            | Change::ClusterFormed
            | Change::BrokerUnregistered { .. }
            | Change::ProducerIdsAllocated { .. }
            | Change::FeatureLevelChanged { .. } => {}
        }
    }
}

/// Hands each shard what concerns its logs.
async fn tell(shards: &Shards, logs: Vec<LogId>, message: impl Fn(Vec<LogId>) -> Message) {
    for (shard, logs) in shards.group(logs, |log| *log).into_iter().enumerate() {
        if !logs.is_empty() {
            // A shard that has ended has nothing to be told.
            let _ = shards.send(shard, message(logs)).await;
        }
    }
}
