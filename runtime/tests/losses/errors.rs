//! What an error of the disk looks like, whichever disk it is.

use std::io::ErrorKind;

use bytes::Bytes;
use weir_runtime::disk::{BatchError, Disk, Lane, Op, OpenMode};

use crate::scenarios::text;

/// EIO.
const INPUT_OUTPUT_ERROR: i32 = 5;

/// What a test can break in the world it runs in.
pub(crate) trait Breakable: Send + Sync {
    fn fail_syncs(&self, fail: bool);
    /// Leaves no room for a longer file.
    fn fill_up(&self, full: bool);
}

pub(crate) async fn a_sync_that_fails_is_reported(disk: Disk, breakable: impl Breakable) {
    let (file, _) = disk.open_file("x", OpenMode::Create).await.unwrap();
    disk.write(&file, 0, text("lost")).await.unwrap();
    breakable.fail_syncs(true);
    let io_error = |error: BatchError| {
        assert_eq!(error.source.raw_os_error(), Some(INPUT_OUTPUT_ERROR), "{error}");
    };
    let batch = vec![
        Op::Write { file: file.clone(), offset: 4, data: text("more") },
        Op::Sync { file: file.clone() },
        Op::Write { file: file.clone(), offset: 0, data: text("never") },
    ];
    let error = disk.submit(Lane::Journal, batch).await.unwrap_err();
    assert_eq!((error.index, error.op.as_str(), error.done.len()), (1, "sync x", 1));
    io_error(error);
    io_error(disk.sync_dir("").await.unwrap_err());
    io_error(disk.replace_atomically("y", text("new")).await.unwrap_err());
    assert!(disk.read_file("y", 100).await.unwrap().is_none(), "what was not synced is not put in place");
    breakable.fail_syncs(false);
}

pub(crate) async fn a_full_disk_refuses_until_there_is_room(disk: Disk, breakable: impl Breakable) {
    let (file, _) = disk.open_file("x", OpenMode::Create).await.unwrap();
    disk.write(&file, 0, text("old")).await.unwrap();
    breakable.fill_up(true);
    let large = vec![Bytes::from_static(&[b'-'; 64 * 1024])];
    let error = disk.write(&file, 3, large.clone()).await.unwrap_err();
    assert!(error.is_no_space(), "{error:?}");
    assert_eq!(error.source.kind(), ErrorKind::StorageFull);
    let allocate = Op::Allocate { file: file.clone(), len: 1 << 20 };
    assert!(disk.submit(Lane::Pool, vec![allocate]).await.unwrap_err().is_no_space());
    disk.write(&file, 0, text("OLD")).await.expect("there is room for what is there already");
    assert_eq!(&disk.read(&file, 0, 3).await.unwrap()[..], b"OLD", "reads go on");
    breakable.fill_up(false);
    // Part of what did not fit may have been written.
    disk.truncate(&file, 3).await.unwrap();
    disk.write(&file, 3, large).await.unwrap();
    assert_eq!(disk.read(&file, 0, 100_000).await.unwrap().len(), 3 + 64 * 1024);
}
