//! The journal on a real disk.

use std::future::Future;
use std::path::Path;

use bytes::Bytes;
use weir_protocol::types::{LogId, TopicId};
use weir_runtime::disk::{BLOCK_BYTES, Disk, DiskOptions, Done, Lane, OpenMode};
use weir_runtime::task::{RuntimeOptions, block_on};

use super::*;

const FILE_BYTES: u64 = 16 * BLOCK_BYTES as u64;

fn in_a_folder<F: Future<Output = ()>>(test: impl FnOnce(Disk) -> F) {
    let folder = tempfile::tempdir().unwrap();
    block_on(RuntimeOptions::default(), async {
        let disk = Disk::open(folder.path(), DiskOptions::default()).await.unwrap();
        test(disk).await;
    })
    .unwrap();
}

async fn open(disk: &Disk, from_sequence: Option<u64>) -> (Journal, Replayed) {
    try_open(disk, from_sequence).await.unwrap()
}

async fn try_open(disk: &Disk, from_sequence: Option<u64>) -> Result<(Journal, Replayed), JournalError> {
    let config = JournalConfig {
        folder: "journal".into(),
        total_bytes: 3 * FILE_BYTES,
        file_bytes: FILE_BYTES,
        incarnation: 1,
        from_sequence,
        was_clean: false,
    };
    Journal::open(disk, config).await
}

fn log(number: u8) -> LogId {
    LogId::new(TopicId::from_random([7; 16]).unwrap(), number.into())
}

fn append(number: u8, base_offset: i64, bytes: usize) -> Entry {
    Entry::Append {
        log: log(number),
        leader_epoch: 3,
        base_offset,
        next_offset: base_offset + 1,
        segment_base: 0,
        position: 17,
        max_timestamp_ms: 1_000,
        data: vec![Bytes::from(vec![number; bytes])],
    }
}

async fn finish(disk: &Disk, journal: &mut Journal, round: RoundWrite) {
    let done = disk.submit(Lane::Journal, vec![round.into_op()]).await.unwrap().pop();
    let Some(Done::WrittenAligned(data)) = done else { panic!("{done:?}") };
    journal.round_done(data);
}

async fn write(disk: &Disk, journal: &mut Journal, entries: &[Entry]) -> u64 {
    let round = journal.begin_round(entries).unwrap();
    let sequence = round.sequence;
    finish(disk, journal, round).await;
    if let Some(grow) = journal.grow() {
        journal.grown(Some(grow.run(disk).await.unwrap()));
    }
    sequence
}

async fn rounds(disk: &Disk, mut replayed: Replayed) -> Vec<Round> {
    let mut all = Vec::new();
    while let Some(round) = replayed.next(disk).await.unwrap() {
        all.push(round);
    }
    all
}

/// Writes over bytes of a file that is not open for direct writes any more.
async fn overwrite(disk: &Disk, name: &str, offset: u64, bytes: &[u8]) {
    let (file, _) = disk.open_file(Path::new("journal").join(name), OpenMode::ReadWrite).await.unwrap();
    disk.write(&file, offset, vec![Bytes::copy_from_slice(bytes)]).await.unwrap();
}

#[test]
fn a_new_journal_has_one_file_and_nothing_to_say() {
    in_a_folder(|disk| async move {
        let (journal, replayed) = open(&disk, Some(1)).await;
        assert_eq!(replayed.verdict().tail, Tail::Clean);
        assert_eq!((replayed.rounds_left(), journal.next_sequence(), journal.live_bytes()), (0, 1, 0));
        assert_eq!(disk.list("journal").await.unwrap().len(), 1);
    });
}

#[test]
fn rounds_come_back_in_order_from_several_files() {
    in_a_folder(|disk| async move {
        let (mut journal, _) = open(&disk, Some(1)).await;
        let written: Vec<Vec<Entry>> = (0..8)
            .map(|n| vec![append(1, n, 9000), append(2, n, 0), Entry::Delete { log: log(3) }])
            .collect();
        for entries in &written {
            write(&disk, &mut journal, entries).await;
        }
        drop(journal);
        let (journal, replayed) = open(&disk, Some(3)).await;
        assert_eq!(replayed.verdict().tail, Tail::Clean);
        assert_eq!(journal.incarnation(), 2, "greater than what the journal had seen");
        let rounds = rounds(&disk, replayed).await;
        let sequences: Vec<u64> = rounds.iter().map(|round| round.sequence).collect();
        assert_eq!(sequences, [3, 4, 5, 6, 7, 8]);
        assert!(rounds.iter().zip(&written[2..]).all(|(round, entries)| round.entries == *entries));
        assert!(disk.list("journal").await.unwrap().len() > 1);
    });
}

#[test]
fn a_full_journal_goes_on_when_a_checkpoint_has_released_files() {
    in_a_folder(|disk| async move {
        let (mut journal, _) = open(&disk, Some(1)).await;
        let entries = [append(1, 0, 20_000)];
        let mut last = 0;
        for checkpoints in 0..5 {
            loop {
                match journal.begin_round(&entries) {
                    Ok(round) => {
                        last = round.sequence;
                        finish(&disk, &mut journal, round).await;
                    }
                    Err(error) => {
                        assert_eq!(error, BeginError::Full);
                        break;
                    }
                }
                if let Some(grow) = journal.grow() {
                    journal.grown(Some(grow.run(&disk).await.unwrap()));
                }
            }
            assert!(journal.needs_checkpoint(), "after {checkpoints} checkpoints");
            journal.release_up_to(last);
            assert!(!journal.needs_checkpoint());
        }
        last = write(&disk, &mut journal, &entries).await;
        let from = journal.live_start();
        drop(journal);
        let (_, replayed) = open(&disk, Some(from)).await;
        let sequences: Vec<u64> = rounds(&disk, replayed).await.iter().map(|round| round.sequence).collect();
        assert_eq!(sequences, [last], "rounds of the files' earlier use do not come back");
    });
}

#[test]
fn a_round_too_large_for_a_file_is_refused() {
    in_a_folder(|disk| async move {
        let (mut journal, _) = open(&disk, Some(1)).await;
        let max = journal.max_round_bytes();
        let overhead = append(1, 0, 0).encoded_bytes();
        let error = journal.begin_round(&[append(1, 0, max - overhead + 1)]).unwrap_err();
        assert_eq!(error, BeginError::TooLarge { bytes: max + 1, max });
        write(&disk, &mut journal, &[append(1, 0, max - overhead)]).await;
    });
}

#[test]
fn the_last_round_if_it_does_not_read_is_uncertain_until_it_is_sealed() {
    in_a_folder(|disk| async move {
        let (mut journal, _) = open(&disk, Some(1)).await;
        write(&disk, &mut journal, &[append(1, 0, 10)]).await;
        write(&disk, &mut journal, &[append(1, 1, 10), append(2, 7, 10)]).await;
        drop(journal);
        overwrite(&disk, "0000.journal", 4096 + 200, b"rot").await;
        let (mut journal, replayed) = open(&disk, Some(1)).await;
        let expected = Tail::Uncertain { sequence: 2, place: Some((0, 4096)) };
        assert_eq!(replayed.verdict().tail, expected);
        assert!(journal.needs_seal(), "what was reported becomes history");
        let seal = journal.seal().unwrap();
        finish(&disk, &mut journal, seal).await;
        drop(journal);
        let (_, replayed) = open(&disk, Some(1)).await;
        assert_eq!(replayed.verdict().tail, Tail::Clean);
        assert_eq!(replayed.verdict().earlier, [EarlierTail { after: 1, found_by: 2 }]);
    });
}

#[test]
fn a_sealed_round_that_does_not_read_is_damage_and_says_whom_it_concerns() {
    in_a_folder(|disk| async move {
        let (mut journal, _) = open(&disk, Some(1)).await;
        write(&disk, &mut journal, &[append(1, 0, 10)]).await;
        write(&disk, &mut journal, &[append(2, 7, 10), append(1, 1, 10), append(2, 8, 10)]).await;
        let seal = journal.seal().unwrap();
        finish(&disk, &mut journal, seal).await;
        assert!(journal.seal().is_none());
        drop(journal);
        overwrite(&disk, "0000.journal", 4096 + 200, b"rot").await;
        let (_, replayed) = open(&disk, Some(1)).await;
        let damaged = DamagedRound {
            sequences: 2..=2,
            place: Some((0, 4096)),
            touched: Some(vec![Touched { log: log(1), end: 2 }, Touched { log: log(2), end: 9 }]),
        };
        assert_eq!(replayed.verdict().damaged, [damaged]);
        assert_eq!(replayed.verdict().tail, Tail::Clean);
        let sequences: Vec<u64> = rounds(&disk, replayed).await.iter().map(|round| round.sequence).collect();
        assert_eq!(sequences, [1, 3]);
    });
}

#[test]
fn a_file_of_a_later_version_is_left_alone() {
    in_a_folder(|disk| async move {
        let (mut journal, _) = open(&disk, Some(1)).await;
        write(&disk, &mut journal, &[append(1, 0, 10)]).await;
        drop(journal);
        let path = Path::new("journal").join("0000.journal");
        let (file, _) = disk.open_file(&path, OpenMode::ReadWrite).await.unwrap();
        let mut block = disk.read(&file, 0, BLOCK_BYTES).await.unwrap().to_vec();
        block[6] = block::FORMAT_VERSION + 1;
        let checksum = crc32c::crc32c(&block[4..]).to_le_bytes();
        block[0..4].copy_from_slice(&checksum);
        disk.write(&file, 0, vec![block.into()]).await.unwrap();
        let error = try_open(&disk, Some(1)).await.err();
        assert!(matches!(error, Some(JournalError::NewerFormat { found: 2, known: 1, .. })), "{error:?}");
    });
}

#[test]
fn a_journal_that_is_gone_is_not_taken_for_a_new_one() {
    in_a_folder(|disk| async move {
        let (mut journal, _) = open(&disk, Some(1)).await;
        for offset in 0..3 {
            write(&disk, &mut journal, &[append(1, offset, 10)]).await;
        }
        drop(journal);
        disk.remove_dir("journal").await.unwrap();
        let (journal, replayed) = open(&disk, Some(3)).await;
        assert!(matches!(replayed.verdict().tail, Tail::Uncertain { .. }));
        assert!(journal.next_sequence() > 3);
    });
}

#[test]
fn a_lost_checkpoint_replays_what_was_not_covered_when_the_last_round_was_written() {
    in_a_folder(|disk| async move {
        let (mut journal, _) = open(&disk, Some(1)).await;
        for offset in 0..3 {
            write(&disk, &mut journal, &[append(1, offset, 10)]).await;
        }
        journal.release_up_to(2);
        write(&disk, &mut journal, &[append(1, 3, 10)]).await;
        drop(journal);
        let (_, replayed) = open(&disk, None).await;
        assert_eq!(replayed.verdict().first_sequence, 3);
        assert_eq!(replayed.rounds_left(), 2);
    });
}

#[test]
fn a_failed_round_is_the_last_one() {
    in_a_folder(|disk| async move {
        let (mut journal, _) = open(&disk, Some(1)).await;
        let round = journal.begin_round(&[append(1, 0, 10)]).unwrap();
        assert_eq!(journal.begin_round(&[]).unwrap_err(), BeginError::InFlight);
        drop(round);
        journal.round_failed();
        assert_eq!(journal.begin_round(&[]).unwrap_err(), BeginError::Failed);
        assert!(journal.seal().is_none() && journal.grow().is_none());
    });
}

/// The first block of each file that is there.
async fn first_blocks(disk: &Disk) -> Vec<(String, Bytes)> {
    let mut blocks = Vec::new();
    for entry in disk.list("journal").await.unwrap() {
        let path = Path::new("journal").join(&entry.name);
        let (file, _) = disk.open_file(path, OpenMode::Read).await.unwrap();
        blocks.push((entry.name, disk.read(&file, 0, BLOCK_BYTES).await.unwrap()));
    }
    blocks
}

#[test]
fn a_first_write_to_a_recycled_file_that_is_lost_is_damage() {
    in_a_folder(|disk| async move {
        let (mut journal, _) = open(&disk, Some(1)).await;
        let (sequence, name, before) = loop {
            let before = first_blocks(&disk).await;
            let sequence = write(&disk, &mut journal, &[append(1, 0, 10)]).await;
            let after = first_blocks(&disk).await;
            let is_recycled = |(name, block): &&(String, Bytes)| {
                block.iter().any(|byte| *byte != 0) && !after.contains(&(name.clone(), block.clone()))
            };
            if let Some((name, block)) = before.iter().find(is_recycled) {
                break (sequence, name.clone(), block.clone());
            }
            journal.release_up_to(sequence);
        };
        let from = journal.live_start();
        assert_eq!(from, sequence, "a checkpoint covers all before");
        let others = [
            write(&disk, &mut journal, &[append(1, 1, 10)]).await,
            write(&disk, &mut journal, &[append(1, 2, 10)]).await,
        ];
        drop(journal);
        overwrite(&disk, &name, 0, &before).await;
        let (_, replayed) = open(&disk, Some(from)).await;
        let damaged = &replayed.verdict().damaged;
        assert_eq!(
            damaged.iter().map(|damaged| damaged.sequences.clone()).collect::<Vec<_>>(),
            [sequence..=sequence]
        );
        let sequences: Vec<u64> = rounds(&disk, replayed).await.iter().map(|round| round.sequence).collect();
        assert_eq!(sequences, others);
    });
}
