//! A folder with a store, for scenarios on a real disk.
#![allow(dead_code, reason = "not every test binary uses all of it")]
#![allow(unreachable_pub, reason = "shared by test binaries")]
#![allow(clippy::disallowed_methods, reason = "tests damage files behind the store's back")]

use std::future::Future;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc::UnboundedReceiver;
use uuid::Uuid;
use weir_protocol::types::{LogId, Offset, TopicId};
use weir_runtime::disk::{Disk, DiskOptions, OpenError};
use weir_runtime::task::{self, RuntimeOptions};
use weir_runtime::time;
use weir_storage::{
    AppendInfo, Flush, Log, LogConfig, Port, ReadError, RecoveryReport, StorageError, Store, StoreConfig,
    StoreEvent,
};
use weir_wire::codec::Compression;
use weir_wire::records::{BatchBuilder, batches};

/// Longer than anything in here takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs a scenario on a runtime of its own.
pub fn run<F: Future>(scenario: F) -> F::Output {
    task::block_on(RuntimeOptions::default(), scenario).expect("the runtime starts")
}

/// A log of a topic with this number.
pub fn log_id(topic: u128, partition: i32) -> LogId {
    LogId::new(TopicId(Uuid::from_u128(topic + 100)), partition)
}

/// Small everything, so that files change often.
pub fn small() -> StoreConfig {
    StoreConfig { journal_bytes: 2 << 20, journal_files: 4, ..StoreConfig::default() }
}

/// Settings with segments of this size.
pub fn segments_of(segment_bytes: u32) -> LogConfig {
    LogConfig { segment_bytes, index_interval_bytes: 256, flush: Flush::Sync, compact: false }
}

/// A batch of `count` records of `bytes` bytes, each with its offset in it and as its timestamp, in seconds.
pub fn batch(base: Offset, epoch: i32, count: usize, bytes: usize) -> (Bytes, AppendInfo) {
    let mut builder = BatchBuilder::new(Compression::None).at(base, epoch);
    for at in 0..count {
        let offset = base + at as Offset;
        let mut value = offset.to_be_bytes().to_vec();
        value.resize(bytes.max(8), epoch as u8);
        builder.push(offset * 1000, None, Some(&value), &[]).expect("a record fits");
    }
    let bytes = builder.finish().expect("a batch fits");
    let info = AppendInfo {
        base_offset: base,
        last_offset: base + count as Offset - 1,
        leader_epoch: epoch,
        max_timestamp_ms: (base + count as Offset - 1) * 1000,
        bytes: bytes.len() as u32,
        producers: Vec::new(),
    };
    (bytes, info)
}

/// An open folder.
pub struct Folder {
    pub path: PathBuf,
    pub disk: Disk,
    pub store: Store,
    pub port: Port,
    pub events: UnboundedReceiver<StoreEvent>,
    pub report: RecoveryReport,
}

impl Folder {
    /// Opens a folder; waits for its last owner's last threads.
    pub async fn try_open(path: &Path, config: StoreConfig) -> Result<Folder, StorageError> {
        let deadline = time::now() + PATIENCE;
        let disk = loop {
            match Disk::open(path, DiskOptions { pool_threads: 2 }).await {
                Ok(disk) => break disk,
                Err(OpenError::Locked { .. }) if time::now() < deadline => task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        };
        let (store, report) = Store::open(disk.clone(), config).await?;
        let (port, events) = store.port();
        Ok(Folder { path: path.to_owned(), disk, store, port, events, report })
    }

    pub async fn open(path: &Path, config: StoreConfig) -> Folder {
        Folder::try_open(path, config).await.expect("the store opens")
    }

    /// Kills the store as a signal would, and opens the folder again. All its logs must have been dropped.
    pub async fn kill(self, config: StoreConfig) -> Folder {
        let path = self.path.clone();
        drop(self);
        Folder::open(&path, config).await
    }

    pub async fn log(&self, id: LogId, config: LogConfig) -> Log {
        self.store.open_log(id, config, &self.port).await.expect("the log opens")
    }

    /// Hands events to these logs until a condition holds.
    pub async fn until(
        &mut self,
        logs: &mut [&mut Log],
        mut done: impl FnMut(&[&mut Log]) -> bool,
    ) -> Vec<StoreEvent> {
        let mut others = Vec::new();
        while !done(logs) {
            let event =
                time::timeout(PATIENCE, self.events.recv()).await.expect("an event").expect("a store");
            apply(logs, &event);
            if !matches!(event, StoreEvent::Durable(_)) {
                others.push(event);
            }
        }
        others
    }

    /// Waits until everything in these logs is durable.
    pub async fn durable(&mut self, logs: &mut [&mut Log]) {
        self.until(logs, |logs| logs.iter().all(|log| log.durable_end() == log.end())).await;
    }

    /// Waits for the next cut.
    pub async fn cut(&mut self, log: &mut Log) {
        loop {
            let event =
                time::timeout(PATIENCE, self.events.recv()).await.expect("an event").expect("a store");
            apply(&mut [&mut *log], &event);
            if let StoreEvent::Cut(cut) = event
                && cut.log == log.id()
            {
                return;
            }
        }
    }
}

fn apply(logs: &mut [&mut Log], event: &StoreEvent) {
    match event {
        StoreEvent::Durable(all) => {
            for (id, durable) in all {
                for log in logs.iter_mut().filter(|log| log.id() == *id) {
                    log.on_durable(durable);
                }
            }
        }
        StoreEvent::Cut(cut) => {
            for log in logs.iter_mut().filter(|log| log.id() == cut.log) {
                log.on_cut(cut);
            }
        }
        StoreEvent::AppendFailed(failed) => {
            for log in logs.iter_mut().filter(|log| log.id() == failed.log) {
                log.on_append_failed(failed);
            }
        }
        StoreEvent::Replaced(replaced) => {
            for log in logs.iter_mut().filter(|log| log.id() == replaced.log) {
                log.on_replaced(replaced);
            }
        }
        StoreEvent::FolderFailed(error) => panic!("{error}"),
    }
}

/// Appends batches of `count` records up to `end`.
pub fn append_to(log: &mut Log, epoch: i32, end: Offset, count: usize, bytes: usize) {
    while log.end() < end {
        let count = count.min((end - log.end()) as usize);
        let (data, info) = batch(log.end(), epoch, count, bytes);
        log.append(vec![data.slice(..61), data.slice(61..)], info).expect("an append");
    }
}

/// Offset and epoch of each record from `from` on.
pub async fn read_from(disk: &Disk, log: &Log, from: Offset) -> Result<Vec<(Offset, i32)>, ReadError> {
    let mut records = Vec::new();
    let mut next = from;
    while next < log.end() {
        let plan = log.read(next, 10_000, log.end(), true)?;
        let mut bytes = BytesMut::new();
        for chunk in plan.run(disk).await? {
            bytes.extend_from_slice(&chunk);
        }
        let before = next;
        for batch in batches(bytes.freeze()) {
            let batch = batch.expect("whole batches");
            batch.verify_crc().expect("good batches");
            for record in batch.records(1 << 20).expect("records").iter() {
                let record = record.expect("a record");
                let value = record.value.expect("a value");
                assert_eq!(value[..8], record.offset.to_be_bytes(), "the record is the one that was written");
                if record.offset >= from {
                    records.push((record.offset, batch.header.leader_epoch));
                }
            }
            next = batch.header.next_offset();
        }
        assert!(next > before, "a read makes progress");
    }
    Ok(records)
}

/// Whether the log holds exactly these records, all of one epoch.
pub async fn assert_holds(disk: &Disk, log: &Log, offsets: Range<Offset>, epoch: i32) {
    assert_eq!((log.start(), log.end()), (offsets.start, offsets.end));
    let expected: Vec<_> = offsets.clone().map(|offset| (offset, epoch)).collect();
    assert_eq!(read_from(disk, log, offsets.start).await.expect("a read"), expected);
}

/// The segment files of a log, by name.
pub fn segment_files(folder: &Path, log: LogId) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(folder.join(log.to_string()))
        .expect("the log's folder")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    files.sort();
    files
}

/// Changes bytes of a file.
pub fn damage(path: &Path, at: usize, bytes: usize) {
    let mut content = std::fs::read(path).expect("the file");
    for byte in &mut content[at..at + bytes] {
        *byte ^= 0x55;
    }
    std::fs::write(path, content).expect("the file is written");
}
