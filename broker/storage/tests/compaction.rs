//! Scenarios of compaction on a real disk: what stays, what goes, and what a kill leaves.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::path::Path;
use std::pin::pin;
use std::task::Poll;

use bytes::BytesMut;
use common::*;
use weir_protocol::types::{LogId, Offset};
use weir_runtime::task;
use weir_storage::{
    AppendInfo, CompactionFigures, CompactionLimits, CompactionPlan, Flush, Log, LogConfig, ReadError,
};
use weir_wire::codec::Compression;
use weir_wire::records::{BatchBuilder, batches};

/// A key's record: its offset and value.
type Found = BTreeMap<String, Vec<(Offset, Option<String>)>>;

fn compacted(segment_bytes: u32) -> LogConfig {
    LogConfig { compact: true, ..segments_of(segment_bytes) }
}

fn limits(log: &Log) -> CompactionLimits {
    CompactionLimits {
        below: log.end(),
        now_ms: 1_000_000,
        delete_retention_ms: 5_000,
        min_lag_ms: 0,
        dirty_ratio_min: 0.0,
        is_due: false,
        keys_max: 1000,
        last_batches: BTreeSet::new(),
    }
}

/// Appends one batch of these records; without a value one is a tombstone.
fn put(log: &mut Log, codec: Compression, records: &[(&str, Option<&str>)]) {
    let base = log.end();
    let mut builder = BatchBuilder::new(codec).at(base, 1);
    for (key, value) in records {
        builder.push(base, Some(key.as_bytes()), value.map(str::as_bytes), &[(b"h", None)]).unwrap();
    }
    let bytes = builder.finish().unwrap();
    let info = AppendInfo {
        base_offset: base,
        last_offset: base + records.len() as Offset - 1,
        leader_epoch: 1,
        max_timestamp_ms: base,
        bytes: bytes.len() as u32,
        producers: Vec::new(),
    };
    log.append(vec![bytes], info).unwrap();
}

async fn try_read(folder: &Folder, log: &Log) -> Result<(Found, Offset), ReadError> {
    let mut found = Found::new();
    let mut next = log.start();
    while next < log.end() {
        let mut bytes = BytesMut::new();
        for chunk in log.read(next, 10_000, log.end(), true)?.run(&folder.disk).await? {
            bytes.extend_from_slice(&chunk);
        }
        let before = next;
        for batch in batches(bytes.freeze()) {
            let batch = batch.unwrap();
            batch.verify_crc().unwrap();
            for record in &batch.records(1 << 20).unwrap() {
                let record = record.unwrap();
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                let value = (record.offset, record.value.map(text));
                assert_eq!(record.headers.count(), 1, "headers stay");
                found.entry(text(record.key.unwrap())).or_default().push(value);
            }
            next = batch.header.next_offset();
        }
        assert!(next > before, "a read at {before} makes progress");
    }
    Ok((found, next))
}

/// What a reader from the start finds. Its last batch always ends where the log does.
async fn read(folder: &Folder, log: &Log) -> Found {
    let (found, end) = try_read(folder, log).await.unwrap();
    assert_eq!(end, log.end());
    found
}

/// A compaction of what is durable then.
async fn plan(folder: &mut Folder, log: &mut Log, limits: CompactionLimits) -> CompactionPlan {
    folder.durable(&mut [&mut *log]).await;
    loop {
        // The first one asks for a checkpoint.
        match log.compaction(limits.clone()) {
            Some(plan) => return plan,
            None => task::yield_now().await,
        }
    }
}

/// Compacts, and waits until that is done.
async fn compact(folder: &mut Folder, log: &mut Log, limits: CompactionLimits) -> CompactionFigures {
    let plan = plan(folder, log, limits).await;
    let cleaned = plan.run(&folder.disk).await.unwrap();
    let figures = cleaned.figures();
    log.adopt(cleaned).ok().unwrap();
    folder.until(&mut [log], |logs| !logs[0].is_being_replaced()).await;
    figures
}

/// The last value of each key.
fn latest(found: &Found) -> BTreeMap<String, Option<String>> {
    found.iter().map(|(key, all)| (key.clone(), all.last().and_then(|(_, value)| value.clone()))).collect()
}

/// Fills a log with rounds of writes to ten keys, in every codec in turn.
fn fill(log: &mut Log, rounds: u32) {
    let codecs =
        [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];
    for round in 0..rounds {
        let filling = "x".repeat(60);
        let records: Vec<(String, String)> =
            (0..10).map(|key| (format!("key-{key}"), format!("{round} {filling}"))).collect();
        let records: Vec<_> =
            records.iter().map(|(key, value)| (key.as_str(), Some(value.as_str()))).collect();
        put(log, codecs[round as usize % codecs.len()], &records);
    }
}

#[test]
fn the_last_record_of_each_key_stays_at_its_offset() {
    for flush in [Flush::Sync, Flush::Os] {
        let dir = tempfile::tempdir().unwrap();
        run(async {
            let mut folder = Folder::open(dir.path(), small()).await;
            let id = log_id(1, 0);
            let config = LogConfig { flush, ..compacted(4096) };
            let mut log = folder.log(id, config).await;
            fill(&mut log, 50);
            put(&mut log, Compression::None, &[("rare", Some("early"))]);
            fill(&mut log, 50);
            let before = latest(&read(&folder, &log).await);
            let size = log.size_bytes();
            let all = limits(&log);
            let figures = compact(&mut folder, &mut log, all).await;
            assert!(figures.records_dropped > 500, "{figures:?}");
            let found = read(&folder, &log).await;
            assert_eq!(latest(&found), before);
            assert_eq!(found["rare"], [(500, Some("early".to_owned()))], "it keeps its offset");
            assert!(log.size_bytes() * 3 < size, "{} of {size}", log.size_bytes());
            assert_eq!(log.end(), 1001);

            // The same after a kill, and after a clean stop.
            drop(log);
            let folder = folder.kill(small()).await;
            let log = folder.log(id, config).await;
            assert_eq!(log.damaged(), []);
            assert_eq!(read(&folder, &log).await, found);
            drop(log);
            folder.store.close().await.unwrap();
            let folder = folder.kill(small()).await;
            let log = folder.log(id, config).await;
            assert_eq!(read(&folder, &log).await, found);
        });
    }
}

#[test]
fn a_log_goes_on_behind_what_was_compacted() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let mut folder = Folder::open(dir.path(), small()).await;
        let mut log = folder.log(log_id(1, 0), compacted(4096)).await;
        for _ in 0..5 {
            fill(&mut log, 20);
            let all = limits(&log);
            compact(&mut folder, &mut log, all).await;
        }
        let found = read(&folder, &log).await;
        assert_eq!(found.len(), 10);
        assert!(found.values().all(|all| all.len() < 30), "{found:?}");
        assert!(log.segments().len() < 12, "emptied segments are gone");
    });
}

#[test]
fn nothing_above_the_high_watermark_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let mut folder = Folder::open(dir.path(), small()).await;
        let mut log = folder.log(log_id(1, 0), compacted(2048)).await;
        fill(&mut log, 60);
        let before = read(&folder, &log).await;
        let some = CompactionLimits { below: 300, ..limits(&log) };
        compact(&mut folder, &mut log, some).await;
        let found = read(&folder, &log).await;
        for (key, all) in &before {
            let above: Vec<_> = all.iter().filter(|(offset, _)| *offset >= 300).cloned().collect();
            assert!(found[key].ends_with(&above), "{key}");
        }
        assert!(found.values().map(Vec::len).sum::<usize>() < 400);
    });
}

#[test]
fn a_tombstone_outlives_its_value_by_the_time_that_readers_have() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let mut folder = Folder::open(dir.path(), small()).await;
        let id = log_id(1, 0);
        let mut log = folder.log(id, compacted(2048)).await;
        put(&mut log, Compression::None, &[("gone", Some("value")), ("stays", Some("value"))]);
        fill(&mut log, 10);
        put(&mut log, Compression::Lz4, &[("gone", None), ("other", Some("value"))]);
        fill(&mut log, 10);
        let mut at = limits(&log);
        let figures = compact(&mut folder, &mut log, at.clone()).await;
        assert_eq!(figures.next_horizon_ms, Some(1_005_000));
        let found = read(&folder, &log).await;
        assert_eq!(found["gone"], [(102, None)], "the value is gone, the tombstone stays");
        assert_eq!(log.deletions_forgotten_to(), 0);

        // Its time does not begin anew.
        (at.now_ms, at.is_due) = (1_004_999, true);
        compact(&mut folder, &mut log, at.clone()).await;
        assert!(read(&folder, &log).await.contains_key("gone"));
        at.now_ms = 1_005_000;
        let figures = compact(&mut folder, &mut log, at.clone()).await;
        assert_eq!((figures.tombstones_dropped, figures.next_horizon_ms), (1, None));
        let found = read(&folder, &log).await;
        assert!(!found.contains_key("gone") && found.contains_key("other") && found.contains_key("stays"));
        assert_eq!(log.deletions_forgotten_to(), 103);

        drop(log);
        let folder = folder.kill(small()).await;
        let log = folder.log(id, compacted(2048)).await;
        assert_eq!(log.deletions_forgotten_to(), 103, "that is not forgotten itself");
    });
}

#[test]
fn the_last_batch_stays_without_its_records() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let mut folder = Folder::open(dir.path(), small()).await;
        let id = log_id(1, 0);
        let mut log = folder.log(id, compacted(1 << 20)).await;
        put(&mut log, Compression::None, &[("a", Some("1"))]);
        put(&mut log, Compression::Zstd, &[("a", None)]);
        log.seal_segment();
        let mut at = limits(&log);
        compact(&mut folder, &mut log, at.clone()).await;
        (at.now_ms, at.is_due) = (2_000_000, true);
        let figures = compact(&mut folder, &mut log, at.clone()).await;
        assert_eq!(figures.tombstones_dropped, 1);
        // `read` asserts that it leads to the log's end, which a copy would have to reach.
        assert!(read(&folder, &log).await.is_empty());
        assert_eq!((log.end(), log.size_bytes()), (2, 61));

        put(&mut log, Compression::None, &[("b", Some("1"))]);
        drop(log);
        let folder = folder.kill(small()).await;
        let mut log = folder.log(id, compacted(1 << 20)).await;
        assert!(log.damaged().is_empty());
        put(&mut log, Compression::None, &[("c", Some("1"))]);
        assert!(read(&folder, &log).await.contains_key("c"));
    });
}

#[test]
fn a_compaction_is_given_up_when_the_log_is_cut_meanwhile() {
    for files_begun in (0..10).chain([usize::MAX]) {
        let dir = tempfile::tempdir().unwrap();
        run(async {
            let mut folder = Folder::open(dir.path(), small()).await;
            let mut log = folder.log(log_id(1, 0), compacted(2048)).await;
            fill(&mut log, 40);
            let all = limits(&log);
            let plan = plan(&mut folder, &mut log, all).await;
            let is_time = || cleaned_files(dir.path(), log_id(1, 0)) >= files_begun;
            match cut_during(plan.run(&folder.disk), is_time, &mut log).await {
                Ok(cleaned) => log.adopt(cleaned).err().unwrap().give_up(&folder.disk).await,
                Err(error) => assert!(matches!(error, ReadError::Changed(_)), "{error}"),
            }
            folder.cut(&mut log).await;
            assert_eq!(cleaned_files(dir.path(), log_id(1, 0)), 0, "what was written is gone");
            assert_eq!(read(&folder, &log).await["key-0"].len(), 20);
        });
    }
}

/// Cuts a log when it is time, or when its compaction has ended.
async fn cut_during<T>(compaction: impl Future<Output = T>, is_time: impl Fn() -> bool, log: &mut Log) -> T {
    let mut compaction = pin!(compaction);
    while !is_time() {
        if let Poll::Ready(done) = poll_fn(|cx| Poll::Ready(compaction.as_mut().poll(cx))).await {
            log.truncate(200);
            return done;
        }
        task::yield_now().await;
    }
    log.truncate(200);
    compaction.await
}

/// How many segments a compaction has begun to write.
fn cleaned_files(top: &Path, log: LogId) -> usize {
    let entries = std::fs::read_dir(top.join(log.to_string())).unwrap();
    entries
        .filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|kind| kind == "cleaned"))
        .count()
}

#[test]
fn a_cut_into_what_is_being_replaced_finds_its_place() {
    for to in [0, 10, 50, 110, 200, 391] {
        let dir = tempfile::tempdir().unwrap();
        run(async {
            let mut folder = Folder::open(dir.path(), small()).await;
            let id = log_id(1, 0);
            let mut log = folder.log(id, compacted(4096)).await;
            fill(&mut log, 20);
            put(&mut log, Compression::None, &[("rare", Some("early"))]);
            fill(&mut log, 20);
            let all = limits(&log);
            let plan = plan(&mut folder, &mut log, all).await;
            let cleaned = plan.run(&folder.disk).await.unwrap();
            log.adopt(cleaned).ok().unwrap();
            // The segments change while this is on its way.
            log.truncate(to);
            fill(&mut log, 10);
            folder.durable(&mut [&mut log]).await;
            folder.until(&mut [&mut log], |logs| !logs[0].is_being_replaced()).await;
            let found = read(&folder, &log).await;
            assert_eq!(found.contains_key("rare"), to > 200);
            let after = found["key-3"].iter().filter(|(offset, _)| *offset >= to).count();
            assert_eq!(after, 10, "what was appended after the cut");
            drop(log);
            let folder = folder.kill(small()).await;
            let log = folder.log(id, compacted(4096)).await;
            assert_eq!(read(&folder, &log).await, found);
        });
    }
}

#[test]
fn damage_ends_a_compaction_and_is_told() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let mut folder = Folder::open(dir.path(), small()).await;
        let id = log_id(1, 0);
        let mut log = folder.log(id, compacted(2048)).await;
        fill(&mut log, 40);
        let all = limits(&log);
        let plan = plan(&mut folder, &mut log, all).await;
        damage(&segment_files(dir.path(), id)[1], 300, 4);
        assert!(matches!(plan.run(&folder.disk).await, Err(ReadError::Corrupt { .. })));
    });
}
