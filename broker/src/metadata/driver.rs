//! Applies what the quorum commits, publishes the image, and tells the shards.

mod introductions;
mod leaving;
mod raising;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tokio::sync::mpsc;
use weir_defect::defect;
use weir_protocol::fact::Fact;
use weir_protocol::metadata::{Change, Image};
use weir_protocol::raft::{Envelope, Index, Limits, Timing, Voters};
use weir_protocol::types::{BrokerId, LogId, VoterId};
use weir_runtime::disk::Disk;
use weir_runtime::time::{self, Instant};
use weir_runtime::{simulation, watch};
use weir_storage::{LogConfig, StorageError, Store};
use weir_wire::internal;

use self::introductions::Twins;
use self::raising::Raising;
use super::error::{MetadataError, UnknownLevel};
use super::formation::{self, Forming};
use super::news::{News, tell};
use super::quorum::{Committed, Event, Happening, LeaderView, Opened, Progress, Quorum, QuorumSetup};
use super::snapshot::{CONTENT_BYTES_MAX, Held};
use super::{Changed, ImageReader, Metadata, Process, Resolver, View};
use crate::config::Config;
use crate::controller::{ControllerClient, Controlling, Todo};
use crate::membership::INTERNAL;
use crate::metrics::Metrics;
use crate::node::{Failure, FailureFlag};
use crate::peer::message::{ControllerReply, NotDone, QuorumQuestion, QuorumReply};
use crate::peer::{Asked, Peers};
use crate::shard::{Message, Shards};

/// Messages of the quorum that are taken in per wake: they share a round of the journal.
const MESSAGES_PER_WAKE: usize = 64;
/// Messages that are taken in before the time is looked at.
const MESSAGES_PER_TICK: usize = 4_096;
/// What an entry takes besides its payload, roughly.
const ENTRY_OVERHEAD_BYTES: u64 = 100;

/// What a driver is made from.
pub(crate) struct DriverSetup {
    pub(crate) me: BrokerId,
    pub(crate) config: Arc<Config>,
    pub(crate) store: Store,
    pub(crate) disk: Disk,
    pub(crate) peers: Peers,
    pub(crate) raft: mpsc::Receiver<Envelope>,
    pub(crate) questions: mpsc::Receiver<Asked<QuorumQuestion, QuorumReply>>,
    pub(crate) controlling: Controlling,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) failure: FailureFlag,
}

/// The metadata of this broker.
pub(crate) struct Driver {
    me: VoterId,
    config: Arc<Config>,
    store: Store,
    disk: Disk,
    peers: Peers,
    metrics: Arc<Metrics>,
    failure: FailureFlag,
    /// What the folder knows, until the quorum is joined.
    opened: Option<Opened>,
    /// Who formed the cluster, once that is known.
    first_voters: Option<Voters>,
    image: Image,
    resolver: Resolver,
    view: watch::Sender<Arc<View>>,
    reader: ImageReader,
    leader: watch::Sender<LeaderView>,
    raft: mpsc::Receiver<Envelope>,
    questions: mpsc::Receiver<Asked<QuorumQuestion, QuorumReply>>,
    controlling: Controlling,
    news: News,
    /// Whether the image has this start's registration.
    is_registered: bool,
    /// Nodes that want the log and may be in no image yet.
    introduced: BTreeMap<BrokerId, (VoterId, Instant)>,
    twins: Twins,
    raising: Raising,
    /// Who gets the log may have changed.
    observers_changed: bool,
    /// When a leader was heard last.
    heard: Instant,
    /// Of entries that were applied since the last snapshot.
    since_snapshot_bytes: u64,
}

impl Driver {
    /// Opens what the folder knows of the quorum. [`Driver::run`] does the rest.
    ///
    /// # Errors
    /// What a node cannot start with.
    pub(crate) async fn start(setup: DriverSetup) -> Result<Driver, MetadataError> {
        let DriverSetup { config, store, disk, .. } = setup;
        let me = VoterId { broker: setup.me, folder: store.folder_id() };
        let opened = Opened::read(&store, &disk, me, quorum_setup(&config)).await?;
        if let Some(voters) = opened.first_voters() {
            setup.peers.set_cluster_id(formation::cluster_id(voters)); // before anybody is listened to
        }
        let (view, view_reader) = watch::channel(Arc::new(View::default()));
        let process =
            Process { broker: setup.me, folder: store.folder_id(), incarnation: store.incarnation() };
        Ok(Driver {
            me,
            resolver: Resolver::new(setup.me, config.clone()),
            config,
            store,
            disk,
            peers: setup.peers,
            metrics: setup.metrics,
            failure: setup.failure,
            opened: Some(opened),
            first_voters: None,
            image: Image::empty(),
            view,
            reader: ImageReader { process, view: view_reader },
            leader: watch::Sender::new(LeaderView::default()),
            raft: setup.raft,
            questions: setup.questions,
            controlling: setup.controlling,
            news: News::default(),
            is_registered: false,
            introduced: BTreeMap::new(),
            twins: Twins::new(),
            raising: Raising::new(),
            observers_changed: false,
            heard: time::now(),
            since_snapshot_bytes: 0,
        })
    }

    pub(crate) fn reader(&self) -> ImageReader {
        self.reader.clone()
    }

    pub(crate) fn handle(&self) -> Metadata {
        let client = ControllerClient::new(self.peers.clone(), self.leader());
        Metadata::new(client, self.reader())
    }

    pub(crate) fn resolver(&self) -> Resolver {
        self.resolver.clone()
    }

    /// Who leads the quorum.
    pub(crate) fn leader(&self) -> watch::Receiver<LeaderView> {
        self.leader.subscribe()
    }

    /// Works until it is told to stop.
    pub(crate) async fn run(mut self, shards: Shards, mut stop: mpsc::Receiver<()>) {
        if let Err(error) = self.work(&shards, &mut stop).await {
            self.failure.report(match error {
                MetadataError::Disk(source) => {
                    let doing = "writing the metadata quorum's state";
                    Failure::Folder(Arc::new(StorageError::Disk { doing, source }))
                }
                error => Failure::Metadata(Arc::new(error)),
            });
        }
    }

    async fn work(&mut self, shards: &Shards, stop: &mut mpsc::Receiver<()>) -> Result<(), MetadataError> {
        let Some((mut quorum, progress)) = self.join(stop).await? else { return Ok(()) };
        self.take_in(&mut quorum, progress)?;
        self.settle(shards).await;
        if defect!(delete_orphans_from_stale_metadata) {
            // Z54: an image that is behind, or was lost, does not know every topic.
            self.delete_orphans(shards).await;
        }
        let result = self.drive(&mut quorum, shards, stop).await;
        quorum.close().await;
        result
    }

    async fn drive(
        &mut self,
        quorum: &mut Quorum,
        shards: &Shards,
        stop: &mut mpsc::Receiver<()>,
    ) -> Result<(), MetadataError> {
        let mut messages = Vec::with_capacity(MESSAGES_PER_WAKE);
        let mut silence = time::Alarm::new();
        loop {
            silence.set(self.silence_ends(quorum));
            weir_runtime::select! {
                event = quorum.event() => {
                    if matches!(event, Event::Timer) {
                        self.catch_up(quorum)?;
                    }
                    let progress = quorum.on_event(event)?;
                    self.take_in(quorum, progress)?;
                }
                _ = self.raft.recv_many(&mut messages, MESSAGES_PER_WAKE) => {
                    for envelope in messages.drain(..) {
                        self.on_message(quorum, envelope)?;
                    }
                }
                event = self.controlling.event() => {
                    let todos = self.controlling.on_event(event, &self.image);
                    self.carry_out(quorum, todos)?;
                }
                Some(asked) = self.questions.recv() => self.on_question(Some(quorum), asked),
                () = silence.wait() => self.introduce(quorum),
                Some(twin) = self.twins.heard.recv() => self.on_twin(twin),
                Some(heard) = self.raising.heard.recv() => {
                    let progress = self.on_heard(quorum, heard)?;
                    self.take_in(quorum, progress)?;
                }
                _ = stop.recv() => return self.hand_over(quorum).await,
            }
            self.watch_observers(quorum)?;
            self.settle(shards).await;
        }
    }

    /// Takes in what has arrived before the time is looked at: a leader that was heard in time is there, even if this task
    /// was late.
    fn catch_up(&mut self, quorum: &mut Quorum) -> Result<(), MetadataError> {
        for _ in 0..MESSAGES_PER_TICK {
            let Ok(envelope) = self.raft.try_recv() else { break };
            self.on_message(quorum, envelope)?;
        }
        Ok(())
    }

    /// Finds out who formed the cluster, or forms it, and joins the quorum. `None`: the node stops before.
    async fn join(
        &mut self,
        stop: &mut mpsc::Receiver<()>,
    ) -> Result<Option<(Quorum, Progress)>, MetadataError> {
        let Some(mut opened) = self.opened.take() else { return Ok(None) };
        let voters = match opened.first_voters() {
            Some(voters) => voters.clone(),
            None => {
                let forming = Forming {
                    me: self.me,
                    may_vote: self.config.roles.controller,
                    configured: self.configured_voters(),
                    peers: self.peers.clone(),
                    disk: self.disk.clone(),
                    has_forgotten: !opened.is_empty(),
                };
                let answers = opened.is_empty();
                let Some(voters) = self.form(forming, answers, stop).await? else { return Ok(None) };
                voters
            }
        };
        self.peers.set_cluster_id(formation::cluster_id(&voters));
        if voters.ids() == [self.me] {
            let others = self.configured_voters().into_iter().filter(|id| *id != self.me.broker);
            formation::look_for_strangers(self.me, others, &self.peers).await?;
        }
        self.first_voters = Some(voters.clone());
        self.image = opened.take_image();
        self.check_level()?;
        if self.image.applied().is_some() {
            self.news.note_all(&Image::empty(), &self.image);
            self.note_registered();
        }
        self.heard = time::now();
        simulation::observe(|| Fact::QuorumLeader { leader: None, term: 0 });
        opened.join(&self.store, &self.disk, self.peers.clone(), voters).map(Some)
    }

    /// Forms the cluster, and answers others that do the same.
    async fn form(
        &mut self,
        forming: Forming,
        answers: bool,
        stop: &mut mpsc::Receiver<()>,
    ) -> Result<Option<Voters>, MetadataError> {
        let mut formed = std::pin::pin!(forming.run());
        loop {
            weir_runtime::select! {
                voters = &mut formed => return voters.map(Some),
                Some(asked) = self.questions.recv() => {
                    // Who has forgotten what it belongs to does not pass for empty.
                    if answers {
                        self.on_question(None, asked);
                    }
                }
                event = self.controlling.event() => {
                    // Nobody leads yet: there is nothing to do.
                    drop(self.controlling.on_event(event, &self.image));
                }
                _ = stop.recv() => return Ok(None),
            }
        }
    }

    fn on_message(&mut self, quorum: &mut Quorum, envelope: Envelope) -> Result<(), MetadataError> {
        if envelope.to == self.me && envelope.message.is_of_leader() {
            self.heard = time::now();
        }
        let progress = quorum.on_message(envelope)?;
        self.take_in(quorum, progress)
    }

    /// Gives the log to every broker of the image, and to nodes that are on their way into it.
    fn watch_observers(&mut self, quorum: &mut Quorum) -> Result<(), MetadataError> {
        if !std::mem::take(&mut self.observers_changed) {
            return Ok(());
        }
        self.reach();
        let brokers = self.image.brokers().map(|(id, broker)| VoterId { broker: id, folder: broker.folder });
        let introduced = self.introduced.values().map(|(id, _)| *id);
        let mut observers: Vec<_> = brokers.chain(introduced).filter(|id| *id != self.me).collect();
        observers.sort_unstable();
        observers.dedup();
        let progress = quorum.set_observers(observers)?;
        self.take_in(quorum, progress)
    }

    /// From here on this node reaches brokers where they say they are.
    fn reach(&self) {
        let internal = self.image.brokers().filter_map(|(id, broker)| {
            let endpoint = broker.endpoints.iter().find(|endpoint| endpoint.listener == INTERNAL)?;
            Some((id, (endpoint.host.clone(), endpoint.port)))
        });
        self.peers.set_addresses(internal);
    }

    /// Takes in what the quorum has brought, and what is done about that.
    fn take_in(&mut self, quorum: &mut Quorum, progress: Progress) -> Result<(), MetadataError> {
        let mut waiting = VecDeque::from(progress);
        while let Some(happening) = waiting.pop_front() {
            for todo in self.on_happening(quorum, happening)? {
                waiting.extend(self.do_it(quorum, todo)?);
            }
        }
        Ok(())
    }

    fn carry_out(&mut self, quorum: &mut Quorum, todos: Vec<Todo>) -> Result<(), MetadataError> {
        for todo in todos {
            let progress = self.do_it(quorum, todo)?;
            self.take_in(quorum, progress)?;
        }
        Ok(())
    }

    fn do_it(&mut self, quorum: &mut Quorum, todo: Todo) -> Result<Progress, MetadataError> {
        match todo {
            Todo::Propose { ticket, record } => quorum.propose(&record, Some(ticket)),
            Todo::RaiseLevel { ticket, level } => self.raise(quorum, ticket, level),
            Todo::ChangeVoters { ticket, change } => quorum.change_voters(change, ticket),
            Todo::Read { ticket } => quorum.read(ticket),
            Todo::DescribeQuorum { reply } => {
                let not_leading = || NotDone::NotController(quorum.leader().leader);
                let answer = quorum.describe().map(ControllerReply::Quorum);
                // Whoever asked may have gone.
                let _ = reply.send(answer.unwrap_or_else(|| ControllerReply::NotDone(not_leading())));
                Ok(Vec::new())
            }
        }
    }

    fn on_happening(
        &mut self,
        quorum: &mut Quorum,
        happening: Happening,
    ) -> Result<Vec<Todo>, MetadataError> {
        match happening {
            Happening::Committed(committed) => return self.apply(quorum, committed),
            Happening::Installed(image) => {
                let before = std::mem::replace(&mut self.image, *image);
                self.check_level()?;
                self.news.note_all(&before, &self.image);
                self.observers_changed = true;
                self.since_snapshot_bytes = 0;
                self.note_registered();
                self.observe_image(self.image.applied().unwrap_or(-1));
            }
            Happening::NotDone(ticket, why) => {
                return Ok(self.controlling.on_not_done(ticket, why, &self.image));
            }
            Happening::VotersRefused(ticket, refusal) => self.controlling.on_voters(ticket, Err(refusal)),
            Happening::Unknown(ticket) => self.controlling.on_unknown(ticket),
            Happening::Read(ticket, commit) => self.controlling.on_read(ticket, commit),
            Happening::Leader(view) => {
                simulation::observe(|| Fact::QuorumLeader { leader: view.leader, term: view.term });
                self.leader.send_replace(view);
                self.controlling.set_leader(view.leader);
                self.observers_changed = true;
            }
            Happening::Failed(error) => self.failure.report(Failure::Folder(error)),
        }
        Ok(Vec::new())
    }

    /// Applies a committed entry to the image.
    fn apply(&mut self, quorum: &mut Quorum, entry: Committed) -> Result<Vec<Todo>, MetadataError> {
        self.metrics.metadata_commits.increment();
        let Committed { index, record, ticket, .. } = entry;
        let outcome = match &record {
            Some(record) => self.image.apply_record(index, record),
            None => self.image.pass(index).map(|()| Change::Nothing),
        };
        debug_assert_eq!(self.image.invariants(), Ok(()));
        self.check_level()?;
        match &outcome {
            Ok(change) => self.note(change),
            Err(rejected) => tracing::debug!(index, %rejected, "a command was rejected"),
        }
        self.observe_image(index);
        self.news.applied = true;
        let voters_changed = ticket.filter(|_| entry.voters.is_some());
        let proposed = ticket.filter(|_| entry.voters.is_none());
        let mut todos = self.controlling.on_applied(index, proposed, &outcome, &self.image);
        if let Some(ticket) = voters_changed {
            self.controlling.on_voters(ticket, Ok(index));
        }
        if entry.begins {
            todos.extend(self.controlling.begin(&self.image));
        }
        self.since_snapshot_bytes += entry.bytes as u64 + ENTRY_OVERHEAD_BYTES;
        if self.since_snapshot_bytes >= self.config.metadata_snapshot_bytes {
            self.take_snapshot(quorum);
        }
        Ok(todos)
    }

    /// Whether this node knows the level that the cluster works at: what comes next may be nothing that it can read.
    fn check_level(&self) -> Result<(), MetadataError> {
        let (level, known) = (self.image.feature_level(), self.config.feature_levels);
        let knows = level == 0 || known.contains(level);
        if knows { Ok(()) } else { Err(UnknownLevel { level, known }.into()) }
    }

    /// Tells a simulation what the image is: the same on all nodes.
    fn observe_image(&self, applied: Index) {
        simulation::observe(|| {
            // What a snapshot could not hold has no digest either.
            let digest = internal::encode(&self.image).map_or(0, |bytes| u64::from(crc32c::crc32c(&bytes)));
            Fact::Image { applied, digest }
        });
    }

    fn note(&mut self, change: &Change) {
        self.news.note(change, &self.image);
        match change {
            Change::BrokerRegistered { .. } | Change::BrokerUnregistered { .. } => {
                self.observers_changed = true;
                self.note_registered();
            }
            Change::ClusterFormed => self.observers_changed = true,
            _ => {}
        }
    }

    /// From the registration of this start on the image says what this process may do (contract 4).
    fn note_registered(&mut self) {
        if !self.is_registered && self.reader.process().epoch(&self.image).is_some() {
            self.is_registered = true;
            self.news.registered = true;
            if let Some(broker) = self.image.broker(self.me.broker) {
                simulation::observe(|| Fact::Registered { broker: self.me.broker, epoch: broker.epoch });
            }
        }
    }

    /// Takes a snapshot of the image, unless one is under way: then the next entry tries again.
    fn take_snapshot(&mut self, quorum: &mut Quorum) {
        let applied = self.image.applied().map_or(0, |applied| applied + 1);
        let Some(at) = quorum.snapshot_point(applied) else { return };
        self.since_snapshot_bytes = 0;
        match Held::of(at, &self.image) {
            Ok(held) => quorum.take_snapshot(held),
            Err(error) => tracing::warn!(%error, "no snapshot is taken"),
        }
    }

    /// Publishes the image if it has changed, and then tells the shards.
    async fn settle(&mut self, shards: &Shards) {
        if !std::mem::take(&mut self.news.applied) && !self.news.all_topics {
            return;
        }
        let news = std::mem::take(&mut self.news);
        let before = Arc::clone(&self.view.borrow());
        let changed = if news.all_topics { Changed::All } else { Changed::Topics(&news.topics) };
        let view = View::after(&before, self.image.clone(), changed, &self.resolver);
        self.view.send_replace(Arc::new(view));
        if news.registered {
            let logs = self.image.topics().flat_map(|topic| topic.logs().map(|(log, _)| log)).collect();
            tell(shards, logs, Message::Changed).await;
            self.delete_orphans(shards).await;
        } else {
            tell(shards, news.changed, Message::Changed).await;
        }
        // Z54: an image that is still incomplete does not know what is not to be deleted.
        if defect!(delete_orphans_from_stale_metadata) {
            self.delete_orphans(shards).await;
        }
        tell(shards, news.deleted, Message::Delete).await;
    }

    /// Deletes logs whose topics are gone: what a deletion left over that a crash has interrupted. Only an image with
    /// the registration of this start is newer than all that an earlier one has made.
    async fn delete_orphans(&self, shards: &Shards) {
        let known = |log: &LogId| *log == LogId::METADATA || self.image.partition(*log).is_some();
        let orphans: Vec<LogId> = self.store.logs().into_iter().filter(|log| !known(log)).collect();
        if !orphans.is_empty() {
            tracing::info!(count = orphans.len(), "deleting what is left of deleted topics");
            tell(shards, orphans, Message::Delete).await;
        }
    }
}

fn quorum_setup(config: &Config) -> QuorumSetup {
    let limits = Limits {
        append_bytes_max: config.quorum_fetch_bytes_max,
        entries_retained: config.metadata_entries_retained,
        snapshot_bytes_max: CONTENT_BYTES_MAX as u64,
        ..Limits::default()
    };
    let log = LogConfig { segment_bytes: config.metadata_segment_bytes, ..LogConfig::default() };
    let alone = config.quorum_voters.iter().all(|voter| voter.node_id == config.node_id);
    let election = config.election_timeout;
    let timing = Timing { heartbeat: election / 4, election_min: election, election_spread: election };
    QuorumSetup { timing, limits, log, alone }
}
