//! One owner per folder.

use weir_runtime::disk::{Disk, DiskOptions, Lane, Op, OpenError, OpenMode};

use crate::both_worlds;
use crate::harness::Place;

both_worlds!(
    a_folder_has_one_owner,
    a_folder_is_free_again_as_soon_as_the_last_clone_is_dropped,
    a_folder_stays_locked_until_its_batches_have_ended,
    a_folder_cannot_be_where_a_file_is,
    the_lock_is_neither_listed_nor_touched,
);

async fn a_folder_has_one_owner(place: Place) {
    let disk = place.disk().await;
    let second = Disk::open(&place.folder, DiskOptions::default()).await;
    match second {
        Err(OpenError::Locked { path }) => assert_eq!(path, place.folder),
        other => panic!("{other:?}"),
    }
    let message = Disk::open(&place.folder, DiskOptions::default()).await.unwrap_err().to_string();
    assert!(message.contains(&place.folder.display().to_string()), "names the folder: {message}");
    assert!(disk.list("").await.unwrap().is_empty(), "the first owner is not disturbed");
    let other = Disk::open(&place.folder.join("inner"), DiskOptions::default()).await;
    assert!(other.is_ok(), "another folder is another lock");
}

async fn a_folder_is_free_again_as_soon_as_the_last_clone_is_dropped(place: Place) {
    for _ in 0..20 {
        let disk = place.disk().await;
        let clone = disk.clone();
        drop(disk);
        clone.open_file("x", OpenMode::Create).await.unwrap();
        let second = Disk::open(&place.folder, DiskOptions::default()).await;
        assert!(matches!(second, Err(OpenError::Locked { .. })), "a clone lives");
        drop(clone);
    }
}

async fn a_folder_stays_locked_until_its_batches_have_ended(place: Place) {
    let disk = place.disk().await;
    let (file, _) = disk.open_file("x", OpenMode::Create).await.unwrap();
    let slow = disk.submit(Lane::Pool, vec![Op::Allocate { file, len: 64 << 20 }]);
    drop(disk);
    // Whoever opens the folder finds either the lock or the batch done, never a batch that is still writing.
    match Disk::open(&place.folder, DiskOptions::default()).await {
        Ok(disk) => assert_eq!(disk.list("").await.unwrap()[0].len, 64 << 20),
        Err(error) => assert!(matches!(error, OpenError::Locked { .. }), "{error}"),
    }
    slow.await.unwrap();
    assert_eq!(place.disk().await.list("").await.unwrap()[0].len, 64 << 20);
}

async fn a_folder_cannot_be_where_a_file_is(place: Place) {
    let disk = place.disk().await;
    disk.open_file("file", OpenMode::Create).await.unwrap();
    let below = place.folder.join("file").join("data");
    let error = Disk::open(&below, DiskOptions::default()).await.unwrap_err();
    assert!(matches!(error, OpenError::Io { .. }), "{error:?}");
}

async fn the_lock_is_neither_listed_nor_touched(place: Place) {
    let disk = place.disk().await;
    assert!(disk.list("").await.unwrap().is_empty());
    assert!(disk.remove(".lock").await.is_err());
    assert!(disk.rename(".lock", "y").await.is_err());
    let second = Disk::open(&place.folder, DiskOptions::default()).await;
    assert!(matches!(second, Err(OpenError::Locked { .. })));
}
