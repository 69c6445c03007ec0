//! The task that drives some of the coordinators.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::mpsc;
use weir_defect::defect;
use weir_protocol::group::{Coordinator, Input, Limits, Name};
use weir_protocol::metadata::names;
use weir_protocol::types::{BrokerId, LeaderEpoch, LogId};
use weir_runtime::disk::Disk;
use weir_runtime::task::{self, JoinHandle};
use weir_runtime::time::{Alarm, Instant};
use weir_runtime::{select, simulation};

use super::active::{Active, Fate, Writer, Written};
use super::load::{LoadError, Loader};
use super::{Ask, GroupSetup, Message, Unavailable, What};
use crate::membership::Session;
use crate::metadata::{ImageReader, View};

/// Questions that wait until a coordinator is loaded; more are refused.
const LOADING_QUEUE_MAX: usize = 4096;
/// Messages between the tasks that help a coordinator and its owner.
const HELPERS_QUEUE: usize = 64;

type Loaded = (LogId, LeaderEpoch, Result<Coordinator, LoadError>);

enum Entry {
    Loading {
        log: LogId,
        epoch: LeaderEpoch,
        waiting: Vec<What>,
        /// Topics that were deleted meanwhile.
        deleted: Vec<Name>,
        loading: JoinHandle<()>,
    },
    Active(Box<Active>),
}

impl Entry {
    /// The log, and the leader epoch, that it was loaded from.
    fn source(&self) -> (LogId, LeaderEpoch) {
        match self {
            Entry::Loading { log, epoch, .. } => (*log, *epoch),
            Entry::Active(active) => (active.log, active.epoch),
        }
    }
}

/// Drives coordinators.
pub(super) struct Owner {
    me: BrokerId,
    image: ImageReader,
    /// What the coordinators know of the cluster.
    seen: Arc<View>,
    disk: Disk,
    limits: Limits,
    session: Session,
    writer: Writer,
    written: mpsc::Receiver<Written>,
    loaded_to: mpsc::Sender<Loaded>,
    loaded: mpsc::Receiver<Loaded>,
    /// By partition.
    entries: BTreeMap<i32, Entry>,
    alarm: Alarm,
}

impl Owner {
    pub(super) fn new(setup: &GroupSetup) -> Owner {
        let (written_to, written) = mpsc::channel(HELPERS_QUEUE);
        let (loaded_to, loaded) = mpsc::channel(HELPERS_QUEUE);
        Owner {
            me: setup.me,
            image: setup.image.clone(),
            seen: setup.image.current(),
            disk: setup.disk.clone(),
            limits: setup.limits,
            session: setup.session.clone(),
            writer: Writer { shards: setup.shards.clone(), written: written_to },
            written,
            loaded_to,
            loaded,
            entries: BTreeMap::new(),
            alarm: Alarm::new(),
        }
    }

    /// Works until it is told to stop.
    pub(super) async fn run(mut self, mut messages: mpsc::Receiver<Message>) {
        loop {
            self.alarm.set(self.next_deadline());
            select! {
                written = self.written.recv() => {
                    if let Some(written) = written {
                        self.on_written(written);
                    }
                }
                loaded = self.loaded.recv() => {
                    if let Some((log, epoch, result)) = loaded {
                        self.on_loaded(log, epoch, result);
                    }
                }
                message = messages.recv() => match message {
                    Some(Message::Ask(ask)) => self.on_ask(*ask),
                    Some(Message::Stop) | None => break,
                },
                () = self.alarm.wait() => self.on_deadline(),
                () = self.image.changed() => self.follow_image(),
            }
        }
        let partitions: Vec<i32> = self.entries.keys().copied().collect();
        partitions.into_iter().for_each(|partition| self.drop_entry(partition));
    }

    fn next_deadline(&self) -> Option<Instant> {
        let deadlines = self.entries.iter().filter_map(|(partition, entry)| match entry {
            Entry::Active(active) if !self.is_left_over(*partition, active) => active.core.next_deadline(),
            Entry::Active(_) | Entry::Loading { .. } => None,
        });
        deadlines.min().map(Instant::from_origin)
    }

    /// Z29: whether it should have been unloaded. Nobody asks it, so that it lies there as it was.
    fn is_left_over(&self, partition: i32, active: &Active) -> bool {
        defect!(keep_state_on_reload) && self.led(partition) != Some((active.log, active.epoch))
    }

    /// The log of a partition, and the leader epoch under which this broker leads it.
    fn led(&self, partition: i32) -> Option<(LogId, LeaderEpoch)> {
        let topic = self.seen.image.topic_named(names::CONSUMER_OFFSETS)?.id;
        let log = LogId::new(topic, partition);
        let (state, _) = self.image.decided(log)?;
        (state.leader == Some(self.me)).then_some((log, state.leader_epoch))
    }

    /// Ends coordinators whose partitions have another leader, or another epoch, and takes deleted topics in.
    fn follow_image(&mut self) {
        let view = self.image.current();
        if Arc::ptr_eq(&view, &self.seen) {
            return;
        }
        let before = std::mem::replace(&mut self.seen, Arc::clone(&view));
        let moved: Vec<i32> = self
            .entries
            .iter()
            // Z29: what is not unloaded is taken for the state of a later reign.
            .filter(|_| !defect!(keep_state_on_reload))
            .filter(|(partition, entry)| self.led(**partition) != Some(entry.source()))
            .map(|(partition, _)| *partition)
            .collect();
        moved.into_iter().for_each(|partition| self.drop_entry(partition));
        for topic in view.deleted_since(&before) {
            self.on_topic_deleted(&Name::from(topic.name.as_str()));
        }
    }

    /// Whether others may coordinate by now without this broker's having heard of it. What it knows is kept: it may be right.
    fn is_cut_off(&self) -> bool {
        let is_over = self.session.is_over(self.seen.image.applied().unwrap_or(-1));
        if is_over {
            simulation::situation("coordinator past its session");
        }
        is_over
    }

    fn on_ask(&mut self, ask: Ask) {
        let Ask { partition, what } = ask;
        // Whoever asks may know already what this task has not been woken for.
        self.follow_image();
        let led = self.led(partition);
        if self.entries.get(&partition).is_some_and(|entry| led != Some(entry.source())) {
            match (self.entries.get_mut(&partition), led) {
                (Some(Entry::Active(active)), led) if defect!(keep_state_on_reload) => {
                    active.epoch = led.map_or(active.epoch, |(_, epoch)| epoch);
                }
                _ => self.drop_entry(partition),
            }
        }
        let Some((log, epoch)) = led.filter(|_| !self.is_cut_off()) else {
            what.refuse(Unavailable::NotCoordinator);
            return;
        };
        let entry = self.entries.entry(partition).or_insert_with(|| {
            let loading = begin_loading(&self.writer, &self.disk, self.limits, &self.loaded_to, log, epoch);
            Entry::Loading { log, epoch, waiting: Vec::new(), deleted: Vec::new(), loading }
        });
        match entry {
            Entry::Loading { waiting, .. } if waiting.len() < LOADING_QUEUE_MAX => waiting.push(what),
            Entry::Loading { .. } => what.refuse(Unavailable::Loading),
            Entry::Active(active) => answer(active, what, &self.writer),
        }
    }

    fn on_loaded(&mut self, log: LogId, epoch: LeaderEpoch, result: Result<Coordinator, LoadError>) {
        let partition = log.partition;
        let is_awaited = matches!(self.entries.get(&partition), Some(entry @ Entry::Loading { .. })
            if entry.source() == (log, epoch));
        // Otherwise somebody else leads meanwhile, or another epoch has begun.
        let Some(Entry::Loading { waiting, deleted, .. }) =
            is_awaited.then(|| self.entries.remove(&partition)).flatten()
        else {
            return;
        };
        match result {
            Ok(core) => {
                tracing::debug!(%log, epoch, groups = core.len(), "a group coordinator is loaded");
                let mut active = Box::new(Active::new(core, log, epoch));
                for topic in deleted {
                    active.step(Input::TopicDeleted { topic }, &self.writer);
                }
                let is_over = self.is_cut_off();
                waiting.into_iter().for_each(|what| match is_over {
                    true => what.refuse(Unavailable::NotCoordinator),
                    false => answer(&mut active, what, &self.writer),
                });
                self.entries.insert(partition, Entry::Active(active));
            }
            Err(error) => {
                // The next request tries again.
                tracing::warn!(%log, %error, "a group coordinator cannot be loaded");
                let why = error.unavailable();
                waiting.into_iter().for_each(|what| what.refuse(why));
            }
        }
    }

    fn on_written(&mut self, written: Written) {
        let partition = written.partition;
        let Some(Entry::Active(active)) = self.entries.get_mut(&partition) else { return };
        let is_of_now = active.epoch == written.epoch || defect!(keep_state_on_reload);
        if is_of_now && active.on_written(written, &self.writer) == Fate::Ends {
            self.drop_entry(partition);
        }
    }

    fn on_topic_deleted(&mut self, topic: &Name) {
        for entry in self.entries.values_mut() {
            match entry {
                Entry::Active(active) => {
                    active.step(Input::TopicDeleted { topic: topic.clone() }, &self.writer);
                }
                Entry::Loading { deleted, .. } => deleted.push(topic.clone()),
            }
        }
    }

    fn on_deadline(&mut self) {
        let now = weir_runtime::time::now().since_origin();
        let is_due = |entry: &Entry, partition: i32| match entry {
            Entry::Active(active) => {
                active.core.next_deadline().is_some_and(|at| at <= now)
                    && !self.is_left_over(partition, active)
            }
            Entry::Loading { .. } => false,
        };
        let partitions = self.entries.iter().filter(|(partition, entry)| is_due(entry, **partition));
        let due: Vec<i32> = partitions.map(|(partition, _)| *partition).collect();
        for partition in due {
            if let Some(Entry::Active(active)) = self.entries.get_mut(&partition) {
                active.step(Input::Tick, &self.writer);
            }
        }
    }

    fn drop_entry(&mut self, partition: i32) {
        match self.entries.remove(&partition) {
            Some(Entry::Loading { waiting, loading, .. }) => {
                // It may wait for what will not come any more.
                loading.abort();
                waiting.into_iter().for_each(|what| what.refuse(Unavailable::NotCoordinator));
            }
            Some(Entry::Active(mut active)) => active.resign(&self.writer),
            None => {}
        }
    }
}

fn begin_loading(
    writer: &Writer,
    disk: &Disk,
    limits: Limits,
    done: &mpsc::Sender<Loaded>,
    log: LogId,
    epoch: LeaderEpoch,
) -> JoinHandle<()> {
    let loader = Loader { shards: writer.shards.clone(), disk: disk.clone(), limits, log, epoch };
    let done = done.clone();
    task::spawn("load-groups", async move {
        let result = loader.run().await;
        // A task that has ended coordinates nothing.
        let _ = done.send((log, epoch, result)).await;
    })
}

fn answer(active: &mut Active, what: What, writer: &Writer) {
    match what {
        What::Request { group, request, reply } => active.request(group, request, reply, writer),
        What::Look(look) => look(Ok(&active.core)),
    }
}
