//! A store beside a model of it: what was acknowledged must be there after any stop, and what is read must be what was written.
#![allow(dead_code, reason = "not every test binary uses all of it")]
#![allow(unreachable_pub, reason = "shared by test binaries")]

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc::UnboundedReceiver;
use weir_protocol::types::{LogId, Offset, TopicId};
use weir_runtime::disk::{Disk, DiskOptions, OpenError};
use weir_runtime::time;
use weir_storage::{
    AppendInfo, CutSide, Flush, Log, LogConfig, Port, ReadError, StorageError, Store, StoreConfig, StoreEvent,
};
use weir_wire::codec::Compression;
use weir_wire::records::{BatchBuilder, batches};

/// Longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a log may look after a stop: any prefix of `records` that is at least `floor` long.
#[derive(Debug, Clone)]
struct Version {
    generation: usize,
    start: Offset,
    /// The records from `base` on: their epochs, and whether a batch begins there.
    base: Offset,
    records: Vec<(i32, bool)>,
    /// Everything below is durable, if this is the version that is.
    floor: Offset,
}

impl Version {
    fn end(&self) -> Offset {
        self.base + self.records.len() as Offset
    }

    fn epoch_of(&self, offset: Offset) -> i32 {
        self.records[(offset - self.base) as usize].0
    }

    /// Whether the log can be cut here.
    fn is_boundary(&self, offset: Offset) -> bool {
        offset == self.end() || offset >= self.base && self.records[(offset - self.base) as usize].1
    }
}

/// What is known of a log. The last version is the present one; earlier ones may come back as long as the cut that ended them is not
/// known to be durable.
#[derive(Debug, Clone)]
pub struct ModelLog {
    pub id: LogId,
    pub os: bool,
    versions: Vec<Version>,
    epoch: i32,
    cuts: usize,
    deleted: Option<bool>,
}

impl ModelLog {
    pub fn new(id: LogId, os: bool) -> ModelLog {
        let version = Version { generation: 0, start: 0, base: 0, records: Vec::new(), floor: 0 };
        ModelLog { id, os, versions: vec![version], epoch: 0, cuts: 0, deleted: None }
    }

    fn now(&mut self) -> &mut Version {
        self.versions.last_mut().expect("there is always a version")
    }

    /// A cut begins a version.
    fn cut(&mut self, change: impl FnOnce(&mut Version)) {
        self.cuts += 1;
        let mut next = self.now().clone();
        next.generation = self.cuts;
        change(&mut next);
        self.versions.push(next);
    }

    /// A cut is durable: earlier versions do not come back.
    fn cut_durable(&mut self, generation: usize) {
        self.versions.retain(|version| version.generation >= generation);
    }
}

/// What may be asked of the store. Numbers are reduced to what there is.
#[derive(Debug, Clone)]
pub enum Step {
    Append {
        log: u8,
        batches: u8,
        records: u8,
        bytes: u16,
    },
    Truncate {
        log: u8,
        back: u16,
    },
    SetStart {
        log: u8,
        forward: u16,
        beyond: bool,
    },
    BeginEpoch {
        log: u8,
    },
    Delete {
        log: u8,
    },
    Reopen {
        log: u8,
    },
    /// Waits until everything is durable.
    Wait,
    /// Takes what events there are.
    Listen,
    Read {
        log: u8,
        from: u16,
    },
    Find {
        log: u8,
        at: u16,
    },
    CloseAndOpen,
    Kill,
}

/// What the disk may do, beyond losing what was not synced.
#[derive(Debug, Clone, Copy, Default)]
pub struct World {
    /// Damage may have been done: records may be reported as damaged, but never served wrongly.
    pub damage: bool,
    /// Machines may lose their power: `os` logs may lose their tails.
    pub power: bool,
    /// Syncs may fail and leave pages that only look clean: what `os` logs had in them is gone, and nobody can know.
    pub failing_syncs: bool,
}

impl World {
    /// Whether records of a log may be reported as damaged.
    fn may_be_damaged(self, os: bool) -> bool {
        self.damage || os && self.power && self.failing_syncs
    }
}

/// The model: survives the store.
#[derive(Debug, Clone)]
pub struct Model {
    pub logs: Vec<ModelLog>,
    pub world: World,
    pub acknowledged: u64,
    pub recoveries: u64,
    pub refused: u64,
    pub corrupt: u64,
    next_topic: u128,
}

impl Model {
    pub fn new(logs: usize, world: World) -> Model {
        let mut model = Model {
            logs: Vec::new(),
            world,
            acknowledged: 0,
            recoveries: 0,
            refused: 0,
            corrupt: 0,
            next_topic: 10,
        };
        for at in 0..logs {
            let log = model.new_log(at % 3 == 2);
            model.logs.push(log);
        }
        model
    }

    fn new_log(&mut self, os: bool) -> ModelLog {
        self.next_topic += 1;
        ModelLog::new(LogId::new(TopicId(uuid::Uuid::from_u128(self.next_topic)), 0), os)
    }
}

/// The store under test, and where the model is.
pub struct Driver<M> {
    model: M,
    path: PathBuf,
    config: StoreConfig,
    segment_bytes: u32,
    pub disk: Disk,
    store: Store,
    port: Port,
    events: UnboundedReceiver<StoreEvent>,
    logs: BTreeMap<usize, Log>,
    /// The cuts of each log that were not reported yet: the end of a truncation, and the model's generation.
    pending: BTreeMap<usize, VecDeque<(Option<Offset>, usize)>>,
}

/// Access to the model, which may be shared.
pub trait Access {
    fn with<T>(&self, f: impl FnOnce(&mut Model) -> T) -> T;
}

impl Access for std::sync::Arc<std::sync::Mutex<Model>> {
    fn with<T>(&self, f: impl FnOnce(&mut Model) -> T) -> T {
        f(&mut self.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

/// Why a process ends itself: the folder has failed (contract 8).
#[derive(Debug)]
pub struct Failed(pub String);

impl From<StorageError> for Failed {
    fn from(error: StorageError) -> Failed {
        Failed(error.to_string())
    }
}

pub async fn open_disk(path: &Path) -> Disk {
    let deadline = time::now() + PATIENCE;
    loop {
        match Disk::open(path, DiskOptions { pool_threads: 2 }).await {
            Ok(disk) => return disk,
            Err(OpenError::Locked { .. }) if time::now() < deadline => {
                time::sleep(Duration::from_millis(1)).await
            }
            Err(error) => panic!("{error}"),
        }
    }
}

impl<M: Access> Driver<M> {
    /// Opens the store and compares it with the model.
    pub async fn open(
        model: M,
        path: &Path,
        config: StoreConfig,
        segment_bytes: u32,
    ) -> Result<Driver<M>, Failed> {
        let disk = open_disk(path).await;
        let (store, report) = Store::open(disk.clone(), config.clone()).await?;
        tracing::debug!(%report);
        let (port, events) = store.port();
        let mut driver = Driver {
            model,
            path: path.to_owned(),
            config,
            segment_bytes,
            disk,
            store,
            port,
            events,
            logs: BTreeMap::new(),
            pending: BTreeMap::new(),
        };
        driver.model.with(|model| model.recoveries += 1);
        let count = driver.model.with(|model| model.logs.len());
        for log in 0..count {
            driver.open_log(log).await?;
        }
        Ok(driver)
    }

    fn log_config(&self, os: bool) -> LogConfig {
        LogConfig {
            segment_bytes: self.segment_bytes,
            index_interval_bytes: 200,
            flush: if os { Flush::Os } else { Flush::Sync },
            compact: false,
        }
    }

    /// Opens a log: it must be one of the versions that the model allows.
    async fn open_log(&mut self, at: usize) -> Result<(), Failed> {
        let expected = self.model.with(|model| model.logs[at].clone());
        if expected.deleted.is_some() {
            let is_there = self.store.logs().contains(&expected.id);
            assert!(!is_there || expected.deleted == Some(false), "{} was deleted and is back", expected.id);
            self.store.delete_log(expected.id).await?;
            let os = expected.os;
            self.model.with(|model| model.logs[at] = model.new_log(os));
        }
        let expected = self.model.with(|model| model.logs[at].clone());
        let log = self.store.open_log(expected.id, self.log_config(expected.os), &self.port).await?;
        tracing::debug!(?log, os = expected.os, damaged = ?log.damaged(), "open");
        let found = self.read(&log, expected.os, log.start()).await?;
        let world = self.model.with(|model| model.world);
        let fits = |version: &&Version| {
            let lazily = expected.os && world.power;
            let reaches = log.end() >= version.floor || lazily;
            let starts = log.start() == version.start;
            reaches
                && starts
                && log.end() <= version.end()
                && found.iter().all(|(offset, epoch)| {
                    *offset >= version.base && *offset < version.end() && version.epoch_of(*offset) == *epoch
                })
        };
        let version = expected.versions.iter().rev().find(fits).cloned();
        let Some(mut version) = version else {
            panic!(
                "{} holds {}..{} {:?}, which is none of {:#?}",
                expected.id,
                log.start(),
                log.end(),
                found,
                expected.versions
            );
        };
        let complete = found.len() as Offset == log.end() - log.start();
        assert!(complete || world.may_be_damaged(expected.os), "records are missing: {found:?} in {log:?}");
        for (epoch, start) in log.epochs().entries().iter().map(|entry| (entry.epoch, entry.start)) {
            assert!(epoch <= expected.epoch + 1, "epoch {epoch} at {start} was never begun");
        }
        for pair in found.windows(2).filter(|pair| pair[0].1 != pair[1].1) {
            assert_eq!(
                log.epochs().end_of(pair[0].1, log.end()),
                Some((pair[0].1, pair[1].0)),
                "{:?}",
                log.epochs()
            );
        }
        version.records.truncate((log.end() - version.base).max(0) as usize);
        version.floor = log.end();
        version.start = log.start();
        self.model.with(|model| {
            let log = &mut model.logs[at];
            version.generation = log.cuts;
            log.versions = vec![version];
            // What was lost had taken the epoch: the next record is another one.
            log.epoch += 1;
        });
        self.pending.remove(&at);
        self.logs.insert(at, log);
        Ok(())
    }

    /// All records that can be read: offset and epoch.
    async fn read(&self, log: &Log, os: bool, from: Offset) -> Result<Vec<(Offset, i32)>, Failed> {
        let mut records = Vec::new();
        let mut next = from;
        while next < log.end() {
            let plan = match log.read(next, 3000, log.end(), true) {
                Ok(plan) => plan,
                Err(ReadError::Failed) => return Err(Failed("read".to_owned())),
                Err(error) => panic!("{error} in {log:?}"),
            };
            let chunks = match plan.run(&self.disk).await {
                Ok(chunks) => chunks,
                Err(ReadError::Corrupt { from, to, .. }) => {
                    let may_be = self.model.with(|model| model.world.may_be_damaged(os));
                    assert!(may_be, "{from}..{to} of {log:?} is damaged");
                    self.model.with(|model| model.corrupt += 1);
                    assert!(from >= next && to > from && to <= log.end(), "{from}..{to}");
                    if from > next {
                        continue;
                    }
                    next = to;
                    continue;
                }
                Err(ReadError::Failed) => return Err(Failed("read".to_owned())),
                Err(ReadError::Io(error)) => {
                    assert!(self.model.with(|model| model.world.damage), "{error}");
                    return Err(Failed(error.to_string()));
                }
                Err(error) => panic!("{error} in {log:?}"),
            };
            let mut bytes = BytesMut::new();
            chunks.iter().for_each(|chunk| bytes.extend_from_slice(chunk));
            let before = next;
            for batch in batches(bytes.freeze()) {
                let batch = batch.expect("whole batches");
                batch.verify_crc().expect("good batches");
                for record in batch.records(1 << 20).expect("records").iter() {
                    let record = record.expect("a record");
                    let value = record.value.expect("a value");
                    let tag = (record.offset, batch.header.leader_epoch, log.id().topic.0.as_u128() as u64);
                    assert_eq!(value[..20], *tag_bytes(tag), "served as it was written");
                    if record.offset >= next {
                        records.push((record.offset, batch.header.leader_epoch));
                    }
                }
                next = batch.header.next_offset();
            }
            assert!(next > before, "a read makes progress: {log:?} at {next}");
        }
        Ok(records)
    }

    /// Carries out a step. Ends with an error when the folder has failed.
    pub async fn step(&mut self, step: Step) -> Result<(), Failed> {
        tracing::debug!(?step);
        match step {
            Step::Append { log, batches, records, bytes } => {
                let at = self.pick(log);
                for _ in 0..batches {
                    if !self.append(at, usize::from(records).max(1), usize::from(bytes))? {
                        break;
                    }
                }
            }
            Step::Truncate { log, back } => self.truncate(self.pick(log), back),
            Step::SetStart { log, forward, beyond } => self.set_start(self.pick(log), forward, beyond),
            Step::BeginEpoch { log } => {
                let at = self.pick(log);
                let epoch = self.model.with(|model| {
                    model.logs[at].epoch += 1;
                    model.logs[at].epoch
                });
                self.log(at).begin_epoch(epoch);
            }
            Step::Delete { log } => self.delete(self.pick(log)).await?,
            Step::Reopen { log } => {
                let at = self.pick(log);
                self.wait().await?;
                self.logs.remove(&at);
                self.open_log(at).await?;
            }
            Step::Wait => self.wait().await?,
            Step::Listen => {
                while let Ok(event) = self.events.try_recv() {
                    self.on_event(event)?;
                }
            }
            Step::Read { log, from } => self.check_read(self.pick(log), from).await?,
            Step::Find { log, at } => self.check_find(self.pick(log), at).await?,
            Step::CloseAndOpen | Step::Kill => {}
        }
        Ok(())
    }

    /// Ends the process, in order or not, and starts another one.
    pub async fn restart(self, in_order: bool) -> Result<Driver<M>, Failed> {
        let Driver { model, path, config, segment_bytes, disk, store, port, mut events, logs, .. } = self;
        drop(logs);
        if in_order {
            store.close().await?;
        }
        drop((disk, store, port));
        // The tasks of the old process are gone when nobody can send any more.
        while events.recv().await.is_some() {}
        Driver::open(model, &path, config, segment_bytes).await
    }

    fn pick(&self, log: u8) -> usize {
        usize::from(log) % self.logs.len()
    }

    fn log(&mut self, at: usize) -> &mut Log {
        self.logs.get_mut(&at).expect("all logs are open")
    }

    /// Appends a batch. `false`: refused, because too much waits.
    fn append(&mut self, at: usize, records: usize, bytes: usize) -> Result<bool, Failed> {
        let base = self.log(at).end();
        let (id, epoch) = self.model.with(|model| {
            let log = &model.logs[at];
            (log.id, log.epoch)
        });
        let (data, info) = batch(id, base, epoch, records, bytes);
        let halves = vec![data.slice(..61), data.slice(61..)];
        match self.log(at).append(halves, info) {
            Ok(()) => {
                let new = (0..records).map(|record| (epoch, record == 0));
                self.model.with(|model| model.logs[at].now().records.extend(new));
                Ok(true)
            }
            Err(StorageError::Backlog { .. }) => {
                self.model.with(|model| model.refused += 1);
                Ok(false)
            }
            // More than a round of a small journal holds.
            Err(StorageError::Misplaced { reason, .. }) if reason.contains("are more than") => Ok(false),
            Err(StorageError::FolderFailed(error)) => Err(Failed(error.to_string())),
            Err(error) => panic!("{error}"),
        }
    }

    /// Cuts where a batch begins, or the log.
    fn truncate(&mut self, at: usize, back: u16) {
        let (start, end) = (self.log(at).start(), self.log(at).end());
        let to = self.model.with(|model| {
            let version = model.logs[at].now();
            let mut to = end - Offset::from(back) % (end - start + 1);
            while to > start && !version.is_boundary(to) {
                to -= 1;
            }
            to
        });
        self.log(at).truncate(to);
        self.note_cut(at, Some(to), |version| {
            version.records.truncate((to - version.base) as usize);
            version.floor = version.floor.min(to);
        });
        // What comes next has another name.
        self.model.with(|model| model.logs[at].epoch += 1);
    }

    fn note_cut(&mut self, at: usize, end: Option<Offset>, change: impl FnOnce(&mut Version)) {
        let generation = self.model.with(|model| {
            model.logs[at].cut(change);
            model.logs[at].cuts
        });
        self.pending.entry(at).or_default().push_back((end, generation));
    }

    fn set_start(&mut self, at: usize, forward: u16, beyond: bool) {
        let (start, end) = (self.log(at).start(), self.log(at).end());
        let to = if beyond {
            end + Offset::from(forward % 50)
        } else {
            start + Offset::from(forward) % (end - start + 1)
        };
        if to <= start {
            return;
        }
        self.log(at).set_start(to);
        self.note_cut(at, None, |version| {
            version.start = to;
            if to > end {
                (version.base, version.floor) = (to, to);
                version.records.clear();
            }
        });
        self.model.with(|model| model.logs[at].epoch += i32::from(to > end));
    }

    async fn delete(&mut self, at: usize) -> Result<(), Failed> {
        let id = self.model.with(|model| {
            model.logs[at].deleted = Some(false);
            model.logs[at].id
        });
        self.logs.remove(&at);
        self.store.delete_log(id).await?;
        self.model.with(|model| model.logs[at].deleted = Some(true));
        self.open_log(at).await
    }

    /// Takes events until everything is durable.
    pub async fn wait(&mut self) -> Result<(), Failed> {
        while self.pending.values().any(|cuts| !cuts.is_empty())
            || self.logs.values().any(|log| log.durable_end() < log.end())
        {
            let event = time::timeout(PATIENCE, self.events.recv()).await.expect("the store goes on");
            self.on_event(event.ok_or_else(|| Failed("the store is gone".to_owned()))?)?;
        }
        Ok(())
    }

    fn on_event(&mut self, event: StoreEvent) -> Result<(), Failed> {
        tracing::debug!(?event);
        match event {
            StoreEvent::Durable(all) => {
                for (id, durable) in all {
                    let Some(at) = self.find(id) else { continue };
                    if let Some(end) = self.log(at).on_durable(&durable) {
                        self.acknowledge(at, end);
                    }
                }
            }
            StoreEvent::Cut(cut) => {
                let Some(at) = self.find(cut.log) else { return Ok(()) };
                if let Some(end) = self.log(at).on_cut(&cut) {
                    self.acknowledge(at, end);
                }
                // Truncations that a failed append has made void are skipped: the next one stands for them.
                let pending = self.pending.entry(at).or_default();
                let place = match cut.side {
                    CutSide::Start => pending.iter().position(|(to, _)| to.is_none()),
                    CutSide::End => pending.iter().position(|(to, _)| *to == Some(cut.end)),
                };
                let place = place.expect("only what was asked for is reported");
                let generation = pending[place].1;
                if cut.side == CutSide::Start {
                    pending.remove(place);
                } else {
                    let mut earlier: VecDeque<_> =
                        pending.drain(..=place).filter(|(to, _)| to.is_none()).collect();
                    earlier.append(pending);
                    *pending = earlier;
                }
                self.model.with(|model| model.logs[at].cut_durable(generation));
            }
            StoreEvent::AppendFailed(failed) => {
                let Some(at) = self.find(failed.log) else { return Ok(()) };
                self.model.with(|model| model.refused += 1);
                if let Some(end) = self.log(at).on_append_failed(&failed) {
                    // Truncations since then never happen; the store reports one cut for all of them.
                    let pending = self.pending.entry(at).or_default();
                    pending.retain(|(to, _)| to.is_none());
                    let generation = self.model.with(|model| {
                        let log = &mut model.logs[at];
                        let version = log.now();
                        version.records.truncate((end - version.base).max(0) as usize);
                        version.floor = version.floor.min(end);
                        log.epoch += 1;
                        log.cuts
                    });
                    self.pending.entry(at).or_default().push_back((Some(end), generation));
                }
            }
            StoreEvent::Replaced(_) => return Err(Failed("nobody has compacted".to_owned())),
            StoreEvent::FolderFailed(error) => return Err(Failed(error.to_string())),
        }
        Ok(())
    }

    fn find(&self, id: LogId) -> Option<usize> {
        self.logs.iter().find(|(_, log)| log.id() == id).map(|(at, _)| *at)
    }

    fn acknowledge(&mut self, at: usize, end: Offset) {
        self.model.with(|model| {
            model.acknowledged += 1;
            let version = model.logs[at].now();
            assert!(end <= version.end(), "what was not appended is not durable");
            version.floor = version.floor.max(end);
            // A version that a pending cut may bring back is as durable as it was, below the cut as this one.
        });
    }

    async fn check_read(&mut self, at: usize, from: u16) -> Result<(), Failed> {
        let log = &self.logs[&at];
        let from = log.start() + Offset::from(from) % (log.end() - log.start() + 1);
        let os = self.model.with(|model| model.logs[at].os);
        let found = self.read(log, os, from).await?;
        let (start, end) = (log.start(), log.end());
        self.model.with(|model| {
            let damage = model.world.may_be_damaged(os);
            let version = model.logs[at].now();
            assert_eq!((version.start, version.end()), (start, end));
            assert!(damage || found.len() as Offset == end - from, "{found:?} from {from} to {end}");
            for (offset, epoch) in found {
                assert_eq!(version.epoch_of(offset), epoch, "at {offset}");
            }
        });
        Ok(())
    }

    /// A record's timestamp is a thousand times its offset.
    async fn check_find(&mut self, at: usize, back: u16) -> Result<(), Failed> {
        let log = &self.logs[&at];
        let (start, below) = (log.start(), log.durable_end());
        let wanted = below - Offset::from(back) % (below - start + 1);
        let found = match log.offset_for_time(wanted * 1000, below).run(&self.disk).await {
            Ok(found) => found,
            Err(ReadError::Failed) => return Err(Failed("find".to_owned())),
            Err(error) => {
                assert!(self.model.with(|model| model.world.damage), "{error}");
                return Ok(());
            }
        };
        let expected = Some(wanted.max(start)).filter(|offset| *offset < below);
        let damage = self.model.with(|model| model.world.may_be_damaged(model.logs[at].os));
        assert!(damage || found.map(|found| found.offset) == expected, "{found:?} is not {expected:?}");
        Ok(())
    }
}

fn tag_bytes((offset, epoch, log): (Offset, i32, u64)) -> Box<[u8]> {
    [&offset.to_be_bytes()[..], &epoch.to_be_bytes(), &log.to_be_bytes()].concat().into()
}

/// A batch whose records carry their names.
pub fn batch(log: LogId, base: Offset, epoch: i32, records: usize, bytes: usize) -> (Bytes, AppendInfo) {
    let mut builder = BatchBuilder::new(Compression::None).at(base, epoch);
    for offset in base..base + records as Offset {
        let mut value = tag_bytes((offset, epoch, log.topic.0.as_u128() as u64)).to_vec();
        value.resize(bytes.max(20), 7);
        builder.push(offset * 1000, None, Some(&value), &[]).expect("a record fits");
    }
    let bytes = builder.finish().expect("a batch fits");
    let last_offset = base + records as Offset - 1;
    let info = AppendInfo {
        base_offset: base,
        last_offset,
        leader_epoch: epoch,
        max_timestamp_ms: last_offset * 1000,
        bytes: bytes.len() as u32,
        producers: Vec::new(),
    };
    (bytes, info)
}
