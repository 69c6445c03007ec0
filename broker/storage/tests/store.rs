//! Scenarios of a store on a real disk: stops, kills, damage.
#![allow(clippy::disallowed_methods, reason = "tests damage files behind the store's back")]

mod common;

use common::*;
use weir_storage::{Flush, LogConfig, ReadError, StorageError, StoreConfig};

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let mut folder = Folder::open(dir.path(), small()).await;
        assert!(folder.report.is_new && folder.report.is_certain);
        let (id, other) = (log_id(1, 0), log_id(1, 1));
        let mut log = folder.log(id, segments_of(4096)).await;
        let mut second = folder.log(other, segments_of(4096)).await;
        append_to(&mut log, 1, 100, 7, 50);
        append_to(&mut second, 3, 40, 1, 500);
        folder.durable(&mut [&mut log, &mut second]).await;
        assert_holds(&folder.disk, &log, 0..100, 1).await;
        drop((log, second));

        let folder_id = folder.store.folder_id();
        let folder = folder.kill(small()).await;
        assert_eq!((folder.store.folder_id(), folder.store.incarnation().0), (folder_id, 2));
        assert!(!folder.report.was_clean && folder.report.is_certain, "{}", folder.report);
        assert_eq!(folder.store.logs(), [id, other]);
        let log = folder.log(id, segments_of(4096)).await;
        assert_holds(&folder.disk, &log, 0..100, 1).await;
        assert_eq!(log.epochs().end_of(1, log.end()), Some((1, 100)));
        let second = folder.log(other, segments_of(4096)).await;
        assert_holds(&folder.disk, &second, 0..40, 3).await;
        assert!(log.segments().len() > 1);
    });
}

#[test]
fn unwritten_appends_are_read_from_memory() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let mut folder = Folder::open(dir.path(), small()).await;
        let mut log = folder.log(log_id(1, 0), segments_of(4096)).await;
        append_to(&mut log, 1, 100, 7, 50);
        assert_eq!(log.durable_end(), 0);
        assert_holds(&folder.disk, &log, 0..100, 1).await;
        folder.until(&mut [&mut log], |logs| logs[0].durable_end() > 0).await;
        append_to(&mut log, 1, 150, 7, 50);
        assert_holds(&folder.disk, &log, 0..150, 1).await;
    });
}

#[test]
fn a_clean_stop_leaves_nothing_to_recover() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let mut folder = Folder::open(dir.path(), small()).await;
        let id = log_id(1, 0);
        let os = log_id(2, 0);
        let mut log = folder.log(id, segments_of(4096)).await;
        let mut lazy = folder.log(os, LogConfig { flush: Flush::Os, ..segments_of(4096) }).await;
        append_to(&mut log, 1, 100, 7, 50);
        append_to(&mut lazy, 1, 100, 7, 50);
        folder.durable(&mut [&mut log, &mut lazy]).await;
        drop((log, lazy));
        folder.store.close().await.unwrap();
        assert!(matches!(folder.store.close().await, Err(StorageError::Closed)));

        let folder = folder.kill(small()).await;
        assert!(folder.report.was_clean && folder.report.is_certain, "{}", folder.report);
        assert_eq!(folder.report.rounds_replayed, 0);
        let log = folder.log(id, segments_of(4096)).await;
        assert_holds(&folder.disk, &log, 0..100, 1).await;
        let lazy = folder.log(os, LogConfig { flush: Flush::Os, ..segments_of(4096) }).await;
        assert_holds(&folder.disk, &lazy, 0..100, 1).await;
        drop((log, lazy));

        let folder = folder.kill(small()).await;
        assert!(!folder.report.was_clean, "the marker is gone after one start");
    });
}

#[test]
fn the_size_of_a_log_is_known_after_a_kill_before_it_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let mut folder = Folder::open(dir.path(), small()).await;
        let (id, never) = (log_id(1, 0), log_id(2, 0));
        let mut log = folder.log(id, segments_of(4096)).await;
        append_to(&mut log, 1, 100, 7, 50);
        folder.durable(&mut [&mut log]).await;
        let bytes = log.size_bytes();
        assert!(bytes > 4096, "several segments");
        drop(log);
        let folder = folder.kill(small()).await;
        assert_eq!(folder.store.size_on_disk(id).await.unwrap(), bytes);
        assert_eq!(folder.store.size_on_disk(never).await.unwrap(), 0);
        folder.store.delete_log(id).await.unwrap();
        assert_eq!(folder.store.size_on_disk(id).await.unwrap(), 0);
    });
}

#[test]
fn a_log_whose_flushing_is_left_to_the_system_survives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let mut folder = Folder::open(dir.path(), small()).await;
        let config = LogConfig { flush: Flush::Os, ..segments_of(2048) };
        let mut log = folder.log(log_id(1, 0), config).await;
        append_to(&mut log, 4, 90, 7, 50);
        folder.durable(&mut [&mut log]).await;
        log.truncate(49);
        append_to(&mut log, 5, 60, 1, 50);
        folder.cut(&mut log).await;
        folder.durable(&mut [&mut log]).await;
        drop(log);
        let files = segment_files(dir.path(), log_id(1, 0));
        let folder = folder.kill(small()).await;
        assert!(files.len() > 1);
        let log = folder.log(log_id(1, 0), config).await;
        assert_eq!(log.end(), 60);
        assert!(!log.is_certain());
        let records = read_from(&folder.disk, &log, 0).await.unwrap();
        assert_eq!(records.len(), 60);
        assert_eq!((records[48], records[49]), ((48, 4), (49, 5)));
    });
}

#[test]
fn an_epoch_that_was_cut_before_a_kill_does_not_hide_what_came_after() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let mut folder = Folder::open(dir.path(), small()).await;
        let config = LogConfig { flush: Flush::Os, ..segments_of(2048) };
        let mut log = folder.log(log_id(1, 0), config).await;
        append_to(&mut log, 4, 60, 7, 50);
        folder.durable(&mut [&mut log]).await;
        // It led without writing, and then followed a leader of the epoch before (KAFKA-10706).
        log.begin_epoch(5);
        log.truncate(60);
        append_to(&mut log, 4, 90, 7, 50);
        folder.cut(&mut log).await;
        folder.durable(&mut [&mut log]).await;
        drop(log);
        let folder = folder.kill(small()).await;
        let log = folder.log(log_id(1, 0), config).await;
        assert_holds(&folder.disk, &log, 0..90, 4).await;
    });
}

#[test]
fn a_cut_tail_does_not_come_back() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let mut folder = Folder::open(dir.path(), small()).await;
        let id = log_id(1, 0);
        let mut log = folder.log(id, segments_of(2000)).await;
        append_to(&mut log, 1, 100, 5, 50);
        folder.durable(&mut [&mut log]).await;
        // Into a sealed segment, in the middle of what one index entry stands for, and into what is not durable.
        for (to, epoch, end) in [(35, 2, 60), (55, 3, 57), (56, 4, 80), (0, 5, 10)] {
            log.truncate(to);
            assert_eq!((log.end(), log.durable_end()), (to, to));
            append_to(&mut log, epoch, end, 1, 50);
            assert_eq!(
                read_from(&folder.disk, &log, 0).await.unwrap().len() as i64,
                end,
                "before it is durable"
            );
            folder.cut(&mut log).await;
            folder.durable(&mut [&mut log]).await;
            drop(log);
            folder = folder.kill(small()).await;
            log = folder.log(id, segments_of(2000)).await;
            assert_eq!(log.end(), end);
            let records = read_from(&folder.disk, &log, 0).await.unwrap();
            assert_eq!(records.len() as i64, end);
            assert_eq!(records[to as usize], (to, epoch));
            assert_eq!(log.epochs().latest().map(|latest| (latest.epoch, latest.start)), Some((epoch, to)));
        }
    });
}

#[test]
fn an_epoch_without_records_is_known_after_a_kill_and_forgotten_after_a_cut_kafka_7415_kafka_10706() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let mut folder = Folder::open(dir.path(), small()).await;
        let id = log_id(1, 0);
        let mut log = folder.log(id, segments_of(2000)).await;
        append_to(&mut log, 1, 10, 5, 50);
        log.begin_epoch(4);
        log.begin_epoch(4);
        log.begin_epoch(3);
        let (data, info) = batch(10, 4, 1, 8);
        log.append(vec![data], info).unwrap();
        folder.durable(&mut [&mut log]).await;
        log.begin_epoch(6);
        drop(log);
        folder.store.delete_log(log_id(9, 9)).await.unwrap();
        folder = folder.kill(small()).await;
        let mut log = folder.log(id, segments_of(2000)).await;
        let known: Vec<_> = log.epochs().entries().iter().map(|entry| (entry.epoch, entry.start)).collect();
        assert_eq!(known, [(1, 0), (4, 10), (6, 11)]);
        log.truncate(11);
        assert_eq!(log.epochs().latest().map(|latest| latest.epoch), Some(4));
        folder.cut(&mut log).await;
    });
}

#[test]
fn a_deleted_log_does_not_come_back() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let mut folder = Folder::open(dir.path(), small()).await;
        let (id, other) = (log_id(1, 0), log_id(2, 0));
        let mut log = folder.log(id, segments_of(2000)).await;
        let mut kept = folder.log(other, segments_of(2000)).await;
        append_to(&mut log, 1, 100, 5, 50);
        append_to(&mut kept, 1, 10, 5, 50);
        folder.durable(&mut [&mut log, &mut kept]).await;
        drop((log, kept));
        folder.store.delete_log(id).await.unwrap();
        folder.store.delete_log(id).await.unwrap();
        assert_eq!(folder.store.logs(), [other]);
        let folder = folder.kill(small()).await;
        assert_eq!(folder.store.logs(), [other]);
        assert!(!dir.path().join(id.to_string()).exists());
        let log = folder.log(other, segments_of(2000)).await;
        assert_holds(&folder.disk, &log, 0..10, 1).await;
    });
}

#[test]
fn a_new_start_removes_segments_and_stays() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let mut folder = Folder::open(dir.path(), small()).await;
        let id = log_id(1, 0);
        let mut log = folder.log(id, segments_of(2000)).await;
        append_to(&mut log, 1, 100, 5, 50);
        log.begin_epoch(2);
        append_to(&mut log, 2, 120, 5, 50);
        folder.durable(&mut [&mut log]).await;
        let before = log.segments().len();
        log.set_start(50);
        folder.cut(&mut log).await;
        assert!(log.segments().len() < before);
        assert!(matches!(log.read(49, 1, 120, true), Err(ReadError::OutOfRange { .. })));
        drop(log);
        folder = folder.kill(small()).await;
        let mut log = folder.log(id, segments_of(2000)).await;
        assert_eq!((log.start(), log.end()), (50, 120));
        assert_eq!(read_from(&folder.disk, &log, 50).await.unwrap().len(), 70);
        // A follower whose leader's log starts later.
        log.set_start(1000);
        append_to(&mut log, 2, 1010, 5, 50);
        folder.cut(&mut log).await;
        folder.durable(&mut [&mut log]).await;
        drop(log);
        folder = folder.kill(small()).await;
        let log = folder.log(id, segments_of(2000)).await;
        assert_holds(&folder.disk, &log, 1000..1010, 2).await;
        assert_eq!(segment_files(dir.path(), id).len(), 1);
    });
}

#[test]
fn a_log_may_start_within_a_batch_and_be_empty_before_it() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let id = log_id(1, 0);
        let mut folder = Folder::open(dir.path(), small()).await;
        let mut log = folder.log(id, segments_of(20_000)).await;
        log.set_start(7);
        let before = batch(0, 1, 5, 50);
        assert!(log.append(vec![before.0], before.1).is_err(), "all of it is deleted");
        let first = batch(5, 1, 5, 50);
        log.append(vec![first.0], first.1).unwrap();
        let second = batch(10, 1, 5, 50);
        log.append(vec![second.0], second.1).unwrap();
        assert_eq!((log.start(), log.end()), (7, 15));
        folder.durable(&mut [&mut log]).await;
        assert_eq!(read_from(&folder.disk, &log, 7).await.unwrap().len(), 8);
        drop(log);
        for _ in 0..2 {
            folder = folder.kill(small()).await;
            let log = folder.log(id, segments_of(20_000)).await;
            assert_eq!((log.start(), log.end(), log.damaged().len()), (7, 15, 0));
            assert_eq!(read_from(&folder.disk, &log, 7).await.unwrap().len(), 8);
            assert_eq!(log.epochs().end_of(1, log.end()), Some((1, 15)));
        }
    });
}

#[test]
fn the_batch_across_the_start_is_appended_again_after_a_cut() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let id = log_id(1, 0);
        let mut folder = Folder::open(dir.path(), small()).await;
        let mut log = folder.log(id, segments_of(20_000)).await;
        append_to(&mut log, 1, 15, 5, 50);
        folder.durable(&mut [&mut log]).await;
        log.set_start(7);
        log.truncate(3);
        assert_eq!((log.start(), log.end(), log.durable_end()), (7, 7, 7));
        let across = batch(5, 1, 5, 50);
        log.append(vec![across.0], across.1).unwrap();
        folder.durable(&mut [&mut log]).await;
        // All records are deleted, and those of another leader begin within a batch.
        log.set_start(10);
        let across = batch(9, 2, 5, 50);
        log.append(vec![across.0], across.1).unwrap();
        folder.durable(&mut [&mut log]).await;
        drop(log);
        for _ in 0..2 {
            folder = folder.kill(small()).await;
            let log = folder.log(id, segments_of(20_000)).await;
            assert_eq!((log.start(), log.end(), log.damaged().len()), (10, 14, 0));
            assert_eq!(read_from(&folder.disk, &log, 10).await.unwrap().len(), 4);
        }
    });
}

#[test]
fn damage_is_told_and_what_lies_around_it_is_served() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let id = log_id(1, 0);
        let mut folder = Folder::open(dir.path(), small()).await;
        let mut log = folder.log(id, segments_of(20_000)).await;
        append_to(&mut log, 1, 200, 5, 50);
        folder.durable(&mut [&mut log]).await;
        let (segment, batch_bytes) = (&segment_files(dir.path(), id)[0], batch(0, 1, 5, 50).0.len());
        // In a batch's records, its base offset, its epoch, its length, and a whole block.
        for (at, bytes) in [(100, 1), (7, 1), (12, 1), (10, 2), (70, 2000)] {
            let pristine = std::fs::read(segment).unwrap();
            let first = 4;
            damage(segment, first * batch_bytes + at, bytes);
            let last = (first * batch_bytes + at + bytes).div_ceil(batch_bytes);
            let (from, to) = (first as i64 * 5, last as i64 * 5);
            for offset in [from, from + 2] {
                match read_from(&folder.disk, &log, offset).await {
                    Err(ReadError::Corrupt { from: found, to: end, .. }) => {
                        assert_eq!((found, end), (offset, to))
                    }
                    other => panic!("{other:?} at {at}"),
                }
            }
            let plan = log.read(0, 1 << 20, 200, true).unwrap();
            let served: usize = plan.run(&folder.disk).await.unwrap().iter().map(|chunk| chunk.len()).sum();
            assert_eq!(served, first * batch_bytes, "what lies before it");
            assert_eq!(
                read_from(&folder.disk, &log, to).await.unwrap().len() as i64,
                200 - to,
                "what lies after"
            );
            std::fs::write(segment, pristine).unwrap();
        }
        assert_eq!(read_from(&folder.disk, &log, 0).await.unwrap().len(), 200);
    });
}

#[test]
fn a_damaged_tail_is_no_torn_tail() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let id = log_id(1, 0);
        let mut folder = Folder::open(dir.path(), small()).await;
        let mut log = folder.log(id, segments_of(20_000)).await;
        append_to(&mut log, 1, 100, 5, 50);
        folder.durable(&mut [&mut log]).await;
        drop(log);
        folder.store.close().await.unwrap();
        let segment = segment_files(dir.path(), id)[0].clone();
        let len = std::fs::metadata(&segment).unwrap().len();
        std::fs::OpenOptions::new().write(true).open(&segment).unwrap().set_len(len - 100).unwrap();
        let mut folder = folder.kill(small()).await;
        let mut log = folder.log(id, segments_of(20_000)).await;
        assert_eq!(log.end(), 100, "the log's end does not move back");
        assert_eq!(log.damaged(), [std::ops::Range { start: 95, end: 100 }]);
        append_to(&mut log, 2, 120, 5, 50);
        folder.durable(&mut [&mut log]).await;
        match read_from(&folder.disk, &log, 95).await {
            Err(ReadError::Corrupt { from: 95, to: 100, .. }) => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(read_from(&folder.disk, &log, 100).await.unwrap().len(), 20);
        drop(log);
        let folder = folder.kill(small()).await;
        let log = folder.log(id, segments_of(20_000)).await;
        match read_from(&folder.disk, &log, 95).await {
            Err(ReadError::Corrupt { from: 95, to: 100, .. }) => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(read_from(&folder.disk, &log, 100).await.unwrap().len(), 20);
    });
}

#[test]
fn indexes_are_rebuilt_when_missing_or_wrong() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let id = log_id(1, 0);
        let mut folder = Folder::open(dir.path(), small()).await;
        let mut log = folder.log(id, segments_of(4000)).await;
        append_to(&mut log, 1, 300, 5, 50);
        folder.durable(&mut [&mut log]).await;
        drop(log);
        folder.store.close().await.unwrap();
        for what in ["gone", "damaged", "of another segment"] {
            for segment in segment_files(dir.path(), id) {
                let index = segment.with_extension("index");
                match what {
                    "gone" => std::fs::remove_file(index).unwrap(),
                    "damaged" => damage(&index, 40, 3),
                    _ => {
                        std::fs::copy(segment_files(dir.path(), id)[1].with_extension("index"), index)
                            .unwrap();
                    }
                }
            }
            folder = folder.kill(small()).await;
            let log = folder.log(id, segments_of(4000)).await;
            assert!(log.damaged().is_empty());
            for from in [0, 150, 299] {
                assert_eq!(read_from(&folder.disk, &log, from).await.unwrap().len() as i64, 300 - from);
            }
            let found = log.offset_for_time(150_500, 300).run(&folder.disk).await.unwrap();
            assert_eq!(found.map(|found| found.offset), Some(151));
            drop(log);
            folder.store.close().await.unwrap();
        }
    });
}

#[test]
fn a_checkpoint_is_rebuilt_when_missing_or_damaged() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let (id, os) = (log_id(1, 0), log_id(2, 0));
        let lazy_config = LogConfig { flush: Flush::Os, ..segments_of(4000) };
        let mut folder = Folder::open(dir.path(), small()).await;
        let mut log = folder.log(id, segments_of(4000)).await;
        let mut lazy = folder.log(os, lazy_config).await;
        append_to(&mut log, 1, 300, 5, 50);
        append_to(&mut log, 2, 320, 5, 50);
        append_to(&mut lazy, 1, 300, 5, 50);
        folder.durable(&mut [&mut log, &mut lazy]).await;
        drop((log, lazy));
        for (what, clean) in [("gone", false), ("damaged", true), ("gone", true)] {
            if clean {
                folder.store.close().await.unwrap();
            }
            let checkpoint = dir.path().join("checkpoint");
            if what == "gone" {
                std::fs::remove_file(checkpoint).unwrap();
            } else {
                damage(&checkpoint, 30, 1);
            }
            folder = folder.kill(small()).await;
            assert!(folder.report.is_rebuilt && !folder.report.is_certain && !folder.report.was_clean);
            let log = folder.log(id, segments_of(4000)).await;
            assert_eq!((log.start(), log.end(), log.damaged().len()), (0, 320, 0));
            assert_eq!(read_from(&folder.disk, &log, 0).await.unwrap().len(), 320);
            assert_eq!(log.epochs().end_of(1, 320), Some((1, 300)));
            let lazy = folder.log(os, lazy_config).await;
            assert_holds(&folder.disk, &lazy, 0..300, 1).await;
            drop((log, lazy));
        }
    });
}

#[test]
fn files_of_a_newer_format_are_refused_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let folder = Folder::open(dir.path(), small()).await;
        folder.store.close().await.unwrap();
        drop(folder);
        for name in ["folder", "checkpoint", "clean"] {
            let path = dir.path().join(name);
            let pristine = std::fs::read(&path).unwrap();
            let mut newer = pristine.clone();
            newer[8] = 200;
            let crc = crc32c::crc32c_append(crc32c::crc32c(&newer[..16]), &newer[20..]);
            newer[16..20].copy_from_slice(&crc.to_le_bytes());
            std::fs::write(&path, newer).unwrap();
            match Folder::try_open(dir.path(), small()).await {
                Err(error @ StorageError::NewerFormat { found: 200, .. }) => {
                    assert!(error.to_string().starts_with(name), "{error}");
                }
                other => panic!("{:?}", other.map(|folder| folder.report)),
            }
            std::fs::write(path, pristine).unwrap();
        }
    });
}

#[test]
fn a_folder_that_lost_its_identity_is_not_taken_for_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        drop(Folder::open(dir.path(), small()).await);
        std::fs::remove_file(dir.path().join("folder")).unwrap();
        match Folder::try_open(dir.path(), small()).await {
            Err(StorageError::Damaged { file, .. }) => assert_eq!(file, "folder"),
            other => panic!("{:?}", other.map(|folder| folder.report)),
        }
    });
}

#[test]
fn a_full_journal_makes_appends_wait_for_a_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let config = StoreConfig { journal_bytes: 1 << 20, journal_files: 2, ..small() };
        let mut folder = Folder::open(dir.path(), config.clone()).await;
        let ids: Vec<_> = (0..20).map(|partition| log_id(1, partition)).collect();
        for round in 1..=10 {
            for id in &ids {
                let mut log = folder.log(*id, segments_of(30_000)).await;
                append_to(&mut log, 1, 10 * round, 1, 2000);
                folder.durable(&mut [&mut log]).await;
            }
        }
        assert!(folder.store.stats().checkpoints > 2, "{:?}", folder.store.stats());
        let folder = folder.kill(config).await;
        assert!(folder.report.rounds_replayed < 200);
        for id in ids {
            let log = folder.log(id, segments_of(30_000)).await;
            assert_holds(&folder.disk, &log, 0..100, 1).await;
        }
    });
}

#[test]
fn records_are_found_by_their_timestamps_kip_79_kip_734() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let mut folder = Folder::open(dir.path(), small()).await;
        let mut log = folder.log(log_id(1, 0), segments_of(3000)).await;
        append_to(&mut log, 1, 200, 5, 50);
        folder.durable(&mut [&mut log]).await;
        for (timestamp, below, expected) in [
            (0, 200, Some(0)),
            (1, 200, Some(1)),
            (77_000, 200, Some(77)),
            (77_001, 200, Some(78)),
            (199_000, 200, Some(199)),
            (199_001, 200, None),
            (150_000, 150, None),
            (i64::MIN, 200, Some(0)),
        ] {
            let found = log.offset_for_time(timestamp, below).run(&folder.disk).await.unwrap();
            assert_eq!(found.map(|found| found.offset), expected, "{timestamp} below {below}");
        }
        let largest = log.max_timestamp(200).run(&folder.disk).await.unwrap().unwrap();
        assert_eq!((largest.offset, largest.timestamp_ms, largest.leader_epoch), (199, 199_000, 1));
        let largest = log.max_timestamp(100).run(&folder.disk).await.unwrap().unwrap();
        assert_eq!(largest.offset, 99);
    });
}

#[test]
fn an_append_that_does_not_fit_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let mut folder = Folder::open(dir.path(), small()).await;
        let mut log = folder.log(log_id(1, 0), segments_of(3000)).await;
        append_to(&mut log, 3, 20, 5, 50);
        for (base, epoch) in [(19, 3), (20, 2)] {
            let (data, info) = batch(base, epoch, 1, 8);
            assert!(matches!(log.append(vec![data], info), Err(StorageError::Misplaced { .. })));
        }
        let again = folder.store.open_log(log_id(1, 0), segments_of(3000), &folder.port).await;
        assert!(matches!(again, Err(StorageError::AlreadyOpen(_))));
        folder.durable(&mut [&mut log]).await;
        drop(log);
        let log = folder.log(log_id(1, 0), segments_of(3000)).await;
        assert_holds(&folder.disk, &log, 0..20, 3).await;
    });
}

#[test]
fn a_round_ends_before_it_outgrows_a_file_of_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let config = || StoreConfig { journal_bytes: 128 << 10, journal_files: 4, ..StoreConfig::default() };
        let mut folder = Folder::open(dir.path(), config()).await;
        let mut written = folder.log(log_id(1, 0), segments_of(1 << 20)).await;
        let mut led = folder.log(log_id(2, 0), segments_of(1 << 20)).await;
        // What leaves too little of a round for another batch is followed by what has no records.
        for number in 0..180 {
            let (bytes, info) = batch(written.end(), 1, 1, 27_700 + number * 7 % 250);
            written.append(vec![bytes], info).unwrap();
            for epoch in 10 * number..10 * number + 10 {
                led.begin_epoch(epoch as i32 + 1);
            }
        }
        folder.durable(&mut [&mut written]).await;
        drop((written, led));
        folder.store.close().await.unwrap();
        let folder = folder.kill(config()).await;
        let led = folder.log(log_id(2, 0), segments_of(1 << 20)).await;
        assert_eq!(led.epochs().latest().map(|latest| latest.epoch), Some(1_800));
    });
}
