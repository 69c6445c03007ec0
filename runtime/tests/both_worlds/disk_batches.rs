//! Batches: order, the first error, and what goes on when nobody waits.

use std::io::ErrorKind;

use bytes::Bytes;
use weir_runtime::disk::{Done, Lane, Op, OpenMode};

use crate::both_worlds;
use crate::disk_files::bytes;
use crate::harness::Place;

both_worlds!(
    a_batch_stops_at_its_first_failing_operation_and_names_it,
    an_empty_batch_succeeds,
    the_journal_runs_batches_in_order,
    a_dropped_submission_still_runs_to_its_end,
    batches_of_the_pool_all_complete,
    results_come_in_the_order_of_the_operations,
    many_syncs_in_one_batch_end_at_the_first_that_fails,
);

async fn a_batch_stops_at_its_first_failing_operation_and_names_it(place: Place) {
    let disk = place.disk().await;
    for lane in [Lane::Journal, Lane::Pool] {
        let (file, _) = disk.open_file("x", OpenMode::Create).await.unwrap();
        disk.truncate(&file, 0).await.unwrap();
        let batch = vec![
            Op::Write { file: file.clone(), offset: 0, data: bytes("before") },
            Op::Read { file: file.clone(), offset: 0, len: 10 },
            Op::Remove { path: "data/missing".into() },
            Op::Write { file: file.clone(), offset: 0, data: bytes("after!") },
        ];
        let error = disk.submit(lane, batch).await.unwrap_err();
        assert_eq!((error.index, error.op.as_str()), (2, "remove data/missing"));
        assert_eq!(error.source.kind(), ErrorKind::NotFound);
        assert!(error.to_string().starts_with("remove data/missing: "), "{error}");
        assert!(matches!(&error.done[..], [Done::Written, Done::Read(read)] if read == "before"));
        assert_eq!(disk.read(&file, 0, 100).await.unwrap(), "before", "what follows was not started");
    }
}

async fn an_empty_batch_succeeds(place: Place) {
    let disk = place.disk().await;
    assert!(disk.submit(Lane::Journal, Vec::new()).await.unwrap().is_empty());
    assert!(disk.submit(Lane::Pool, Vec::new()).await.unwrap().is_empty());
}

async fn the_journal_runs_batches_in_order(place: Place) {
    let disk = place.disk().await;
    let (file, _) = disk.open_file("x", OpenMode::Create).await.unwrap();
    let write = |n: u32| {
        let data = vec![Bytes::from(n.to_be_bytes().to_vec())];
        disk.submit(Lane::Journal, vec![Op::Write { file: file.clone(), offset: 0, data }])
    };
    let submissions: Vec<_> = (0..200).map(write).collect();
    let last = disk.submit(Lane::Journal, vec![Op::Read { file: file.clone(), offset: 0, len: 4 }]);
    let done = last.await.unwrap();
    assert!(matches!(&done[..], [Done::Read(read)] if read[..] == 199u32.to_be_bytes()));
    for submission in submissions {
        submission.await.unwrap();
    }
}

async fn a_dropped_submission_still_runs_to_its_end(place: Place) {
    let disk = place.disk().await;
    let (file, _) = disk.open_file("x", OpenMode::Create).await.unwrap();
    let batch = vec![
        Op::Write { file: file.clone(), offset: 0, data: bytes("abandoned") },
        Op::Sync { file: file.clone() },
        Op::Rename { from: "x".into(), to: "y".into() },
    ];
    drop(disk.submit(Lane::Journal, batch));
    // The journal works in order: when this is done, the batch before it is done too.
    disk.submit(Lane::Journal, Vec::new()).await.unwrap();
    assert_eq!(disk.read_file("y", 100).await.unwrap().unwrap(), "abandoned");
}

async fn batches_of_the_pool_all_complete(place: Place) {
    let disk = place.disk().await;
    let batch = |n: u32| {
        let path = format!("{n:03}");
        vec![Op::CreateDir { path: path.clone().into() }, Op::SyncDir { path: path.into() }]
    };
    let submissions: Vec<_> = (0..100).map(|n| disk.submit(Lane::Pool, batch(n))).collect();
    for submission in submissions.into_iter().rev() {
        assert!(matches!(submission.await.unwrap()[..], [Done::DirCreated, Done::DirSynced]));
    }
    assert_eq!(disk.list("").await.unwrap().len(), 100);
}

async fn results_come_in_the_order_of_the_operations(place: Place) {
    let disk = place.disk().await;
    let (file, _) = disk.open_file("x", OpenMode::Create).await.unwrap();
    let batch = vec![
        Op::Write { file: file.clone(), offset: 0, data: bytes("abc") },
        Op::Sync { file: file.clone() },
        Op::Truncate { file: file.clone(), len: 1 },
        Op::Allocate { file: file.clone(), len: 2 },
        Op::Read { file, offset: 0, len: 9 },
        Op::Rename { from: "x".into(), to: "y".into() },
        Op::List { path: "".into() },
        Op::Remove { path: "y".into() },
        Op::Open { path: "z".into(), mode: OpenMode::CreateNew },
    ];
    let done = disk.submit(Lane::Pool, batch).await.unwrap();
    let [Done::Written, Done::Synced, Done::Truncated, Done::Allocated, Done::Read(read), rest @ ..] =
        &done[..]
    else {
        panic!("{done:?}");
    };
    assert_eq!(read, "a\0".as_bytes());
    let [Done::Renamed, Done::Listed(listed), Done::Removed, Done::Opened { len: 0, .. }] = rest else {
        panic!("{rest:?}");
    };
    assert_eq!((listed.len(), listed[0].name.as_str(), listed[0].len), (1, "y", 2));
}

async fn many_syncs_in_one_batch_end_at_the_first_that_fails(place: Place) {
    let disk = place.disk().await;
    let mut batch = Vec::new();
    for number in 0..40 {
        disk.create_dir(format!("folder-{number}")).await.unwrap();
        let (file, _) = disk.open_file(format!("folder-{number}/x"), OpenMode::Create).await.unwrap();
        disk.submit(Lane::Pool, vec![Op::Write { file: file.clone(), offset: 0, data: bytes("content") }])
            .await
            .unwrap();
        batch.extend([Op::Sync { file }, Op::SyncDir { path: format!("folder-{number}").into() }]);
    }
    let again: Vec<_> = batch
        .iter()
        .map(|op| match op {
            Op::Sync { file } => Op::Sync { file: file.clone() },
            Op::SyncDir { path } => Op::SyncDir { path: path.clone() },
            other => panic!("{other}"),
        })
        .collect();
    let done = disk.submit(Lane::Pool, batch).await.unwrap();
    assert_eq!(done.len(), 80);
    assert!(done.chunks(2).all(|pair| matches!(pair, [Done::Synced, Done::DirSynced])), "{done:?}");

    disk.remove_dir("folder-20").await.unwrap();
    let error = disk.submit(Lane::Pool, again).await.unwrap_err();
    assert_eq!((error.index, error.is_not_found(), error.done.len()), (41, true, 41), "{error}");
    assert_eq!(error.op, "sync folder folder-20");
}
