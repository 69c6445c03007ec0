//! Files and folders: what is found, what is refused, what an error looks like.

use std::io::ErrorKind;

use bytes::Bytes;
use weir_runtime::disk::{AlignedBuf, BLOCK_BYTES, BatchError, Disk, Lane, Op, OpenMode};

use crate::both_worlds;
use crate::harness::Place;

both_worlds!(
    a_missing_file_is_not_found,
    the_modes_create_and_refuse_as_they_say,
    a_read_beyond_the_end_is_short,
    a_write_beyond_the_end_leaves_zeros,
    many_chunks_are_written_in_order,
    a_file_grows_and_shrinks,
    an_allocated_file_is_all_zeros_and_keeps_its_content,
    a_direct_file_takes_whole_blocks_and_is_read_like_any_other,
    a_rename_replaces_and_open_files_stay_open,
    a_removed_file_is_readable_while_it_is_open,
    folders_are_created_listed_and_removed,
    the_space_of_the_file_system_is_told,
    files_and_folders_are_not_mistaken_for_each_other,
    written_and_synced_data_survives_reopening,
    a_file_is_replaced_and_read_whole,
);

pub(crate) fn bytes(text: &str) -> Vec<Bytes> {
    vec![Bytes::copy_from_slice(text.as_bytes())]
}

fn kind<T: std::fmt::Debug>(result: Result<T, BatchError>) -> ErrorKind {
    result.unwrap_err().source.kind()
}

async fn content(disk: &Disk, path: &str) -> String {
    let content = disk.read_file(path, 1 << 20).await.unwrap().unwrap();
    String::from_utf8(content.to_vec()).unwrap()
}

async fn put(disk: &Disk, path: &str, text: &str) {
    let (file, _) = disk.open_file(path, OpenMode::CreateNew).await.unwrap();
    disk.write(&file, 0, bytes(text)).await.unwrap();
}

async fn a_missing_file_is_not_found(place: Place) {
    let disk = place.disk().await;
    for mode in [OpenMode::Read, OpenMode::ReadWrite] {
        let error = disk.open_file("missing", mode).await.unwrap_err();
        assert!(error.is_not_found(), "{error:?}");
        assert!(error.op.contains("open missing"), "{}", error.op);
    }
    assert!(disk.read_file("missing", 10).await.unwrap().is_none());
    assert_eq!(kind(disk.remove("missing").await), ErrorKind::NotFound);
    assert_eq!(kind(disk.rename("missing", "other").await), ErrorKind::NotFound);
    assert_eq!(kind(disk.list("missing").await), ErrorKind::NotFound);
    assert_eq!(kind(disk.remove_dir("missing").await), ErrorKind::NotFound);
    assert_eq!(kind(disk.sync_dir("missing").await), ErrorKind::NotFound);
    for mode in [OpenMode::Create, OpenMode::CreateNew, OpenMode::Direct] {
        assert_eq!(
            kind(disk.open_file("missing/x", mode).await),
            ErrorKind::NotFound,
            "no folder to create in"
        );
    }
}

async fn the_modes_create_and_refuse_as_they_say(place: Place) {
    let disk = place.disk().await;
    let (file, len) = disk.open_file("x", OpenMode::CreateNew).await.unwrap();
    assert_eq!((len, file.mode(), file.is_direct()), (0, OpenMode::CreateNew, false));
    disk.write(&file, 0, bytes("abc")).await.unwrap();
    assert_eq!(kind(disk.open_file("x", OpenMode::CreateNew).await), ErrorKind::AlreadyExists);
    for mode in [OpenMode::Read, OpenMode::ReadWrite, OpenMode::Create, OpenMode::Direct] {
        let (file, len) = disk.open_file("x", mode).await.unwrap();
        assert_eq!(len, 3, "{mode:?} keeps the content");
        assert_eq!(file.path().to_str(), Some("x"));
    }
    let (reading, _) = disk.open_file("x", OpenMode::Read).await.unwrap();
    assert_eq!(kind(disk.write(&reading, 0, bytes("z")).await), ErrorKind::InvalidInput);
    assert_eq!(kind(disk.truncate(&reading, 0).await), ErrorKind::InvalidInput);
    for path in ["../x", "/etc/x", "a/../../x", ""] {
        assert_eq!(kind(disk.open_file(path, OpenMode::Create).await), ErrorKind::InvalidInput, "{path}");
    }
}

async fn a_read_beyond_the_end_is_short(place: Place) {
    let disk = place.disk().await;
    let (file, _) = disk.open_file("x", OpenMode::Create).await.unwrap();
    disk.write(&file, 0, bytes("0123456789")).await.unwrap();
    assert_eq!(disk.read(&file, 0, 10).await.unwrap(), "0123456789");
    assert_eq!(disk.read(&file, 7, 100_000).await.unwrap(), "789");
    assert_eq!(disk.read(&file, 10, 5).await.unwrap(), "");
    assert_eq!(disk.read(&file, 1000, 5).await.unwrap(), "");
    assert_eq!(disk.read(&file, 3, 0).await.unwrap(), "");
    assert_eq!(kind(disk.read(&file, u64::MAX, 5).await), ErrorKind::InvalidInput);
}

async fn a_write_beyond_the_end_leaves_zeros(place: Place) {
    let disk = place.disk().await;
    let (file, _) = disk.open_file("x", OpenMode::Create).await.unwrap();
    disk.write(&file, 3, bytes("abc")).await.unwrap();
    disk.write(&file, 1, bytes("-")).await.unwrap();
    assert_eq!(disk.read(&file, 0, 100).await.unwrap(), "\0-\0abc");
}

async fn many_chunks_are_written_in_order(place: Place) {
    let disk = place.disk().await;
    let (file, _) = disk.open_file("x", OpenMode::Create).await.unwrap();
    // More than one call of the operating system takes, and empty ones in between.
    let chunks: Vec<Bytes> = (0..5000u32)
        .map(|n| if n % 7 == 0 { Bytes::new() } else { Bytes::from(n.to_le_bytes().repeat(50)) })
        .collect();
    let expected = chunks.concat();
    disk.write(&file, 5, chunks).await.unwrap();
    assert_eq!(disk.read(&file, 5, expected.len() + 1).await.unwrap(), expected);
    disk.write(&file, 0, Vec::new()).await.unwrap();
    disk.write(&file, 0, vec![Bytes::new()]).await.unwrap();
}

async fn a_file_grows_and_shrinks(place: Place) {
    let disk = place.disk().await;
    let (file, _) = disk.open_file("x", OpenMode::Create).await.unwrap();
    disk.write(&file, 0, bytes("abcdef")).await.unwrap();
    disk.truncate(&file, 2).await.unwrap();
    disk.truncate(&file, 4).await.unwrap();
    assert_eq!(disk.read(&file, 0, 100).await.unwrap(), "ab\0\0");
    assert_eq!(disk.open_file("x", OpenMode::Read).await.unwrap().1, 4);
}

async fn an_allocated_file_is_all_zeros_and_keeps_its_content(place: Place) {
    let disk = place.disk().await;
    for (path, mode) in [("buffered", OpenMode::Create), ("direct", OpenMode::Direct)] {
        put(&disk, path, "abc").await;
        let (file, _) = disk.open_file(path, mode).await.unwrap();
        let len = 3 << 20;
        let allocate = |len| disk.submit(Lane::Journal, vec![Op::Allocate { file: file.clone(), len }]);
        allocate(len).await.unwrap();
        allocate(4096).await.unwrap();
        assert_eq!(disk.open_file(path, OpenMode::Read).await.unwrap().1, len, "never made shorter");
        let content = disk.read(&file, 0, 4 << 20).await.unwrap();
        assert_eq!((content.len() as u64, &content[..3]), (len, &b"abc"[..]));
        assert!(content[3..].iter().all(|byte| *byte == 0));
    }
}

async fn a_direct_file_takes_whole_blocks_and_is_read_like_any_other(place: Place) {
    let disk = place.disk().await;
    let (file, _) = disk.open_file("x", OpenMode::Direct).await.unwrap();
    let mut buffer = AlignedBuf::with_capacity(2 * BLOCK_BYTES);
    buffer.extend_from_slice(&[1; BLOCK_BYTES]);
    buffer.extend_from_slice(b"two");
    let unaligned = Op::WriteAligned { file: file.clone(), offset: 0, data: buffer };
    assert_eq!(kind(disk.submit(Lane::Journal, vec![unaligned]).await), ErrorKind::InvalidInput);

    let mut buffer = AlignedBuf::new();
    buffer.extend_from_slice(&[1; BLOCK_BYTES]);
    buffer.extend_from_slice(b"two");
    buffer.pad_to_block();
    let write = Op::WriteAligned { file: file.clone(), offset: BLOCK_BYTES as u64, data: buffer };
    let mut done = disk.submit(Lane::Journal, vec![write]).await.unwrap();
    let weir_runtime::disk::Done::WrittenAligned(buffer) = done.pop().unwrap() else { panic!() };
    assert_eq!(buffer.len(), 2 * BLOCK_BYTES, "the buffer comes back");
    let misplaced = Op::WriteAligned { file: file.clone(), offset: 100, data: buffer };
    assert_eq!(kind(disk.submit(Lane::Journal, vec![misplaced]).await), ErrorKind::InvalidInput);
    assert_eq!(kind(disk.write(&file, 0, bytes("buffered")).await), ErrorKind::InvalidInput);

    let (buffered, len) = disk.open_file("x", OpenMode::Read).await.unwrap();
    assert_eq!(len, 3 * BLOCK_BYTES as u64);
    for file in [file, buffered] {
        assert_eq!(disk.read(&file, 0, 2).await.unwrap(), "\0\0");
        assert_eq!(disk.read(&file, 2 * 4096 - 2, 6).await.unwrap(), "\x01\x01two\0");
        assert_eq!(disk.read(&file, 3 * 4096 - 5, 100).await.unwrap(), "\0\0\0\0\0");
        assert_eq!(disk.read(&file, 10 * 4096 + 1, 100).await.unwrap(), "");
    }
}

async fn a_rename_replaces_and_open_files_stay_open(place: Place) {
    let disk = place.disk().await;
    put(&disk, "old", "old").await;
    put(&disk, "new", "new").await;
    let (old, _) = disk.open_file("old", OpenMode::Read).await.unwrap();
    let (new, _) = disk.open_file("new", OpenMode::ReadWrite).await.unwrap();
    disk.rename("new", "old").await.unwrap();
    assert_eq!(content(&disk, "old").await, "new");
    assert!(disk.read_file("new", 10).await.unwrap().is_none());
    assert_eq!(disk.read(&old, 0, 10).await.unwrap(), "old", "the replaced file is still open");
    disk.write(&new, 3, bytes("er")).await.unwrap();
    assert_eq!(content(&disk, "old").await, "newer", "an open file follows its rename");
    disk.create_dir("a/b").await.unwrap();
    put(&disk, "a/b/x", "x").await;
    disk.rename("a", "c").await.unwrap();
    assert_eq!(content(&disk, "c/b/x").await, "x", "a folder moves with its content");
}

async fn a_removed_file_is_readable_while_it_is_open(place: Place) {
    let disk = place.disk().await;
    put(&disk, "x", "old").await;
    let (file, _) = disk.open_file("x", OpenMode::ReadWrite).await.unwrap();
    disk.remove("x").await.unwrap();
    assert!(disk.open_file("x", OpenMode::Read).await.unwrap_err().is_not_found());
    put(&disk, "x", "another").await;
    disk.write(&file, 3, bytes("er")).await.unwrap();
    assert_eq!(disk.read(&file, 0, 10).await.unwrap(), "older");
    assert_eq!(content(&disk, "x").await, "another");
    disk.sync(&file).await.unwrap();
}

async fn folders_are_created_listed_and_removed(place: Place) {
    let disk = place.disk().await;
    disk.create_dir("b/c/d").await.unwrap();
    disk.create_dir("b/c").await.unwrap();
    disk.create_dir("").await.unwrap();
    for name in ["b/z", "b/a", "b/Z", "b/10", "b/9"] {
        put(&disk, name, name).await;
    }
    let listed = disk.list("b").await.unwrap();
    let names: Vec<&str> = listed.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(names, ["10", "9", "Z", "a", "c", "z"], "sorted by bytes");
    assert_eq!(listed.iter().map(|entry| entry.len).collect::<Vec<_>>(), [4, 3, 3, 3, 0, 3]);
    assert!(listed.iter().all(|entry| entry.is_dir == (entry.name == "c")));
    assert!(disk.list("b/c/d").await.unwrap().is_empty());
    disk.sync_dir("b").await.unwrap();
    disk.sync_dir("").await.unwrap();
    disk.remove_dir("b").await.unwrap();
    assert!(disk.list("").await.unwrap().is_empty());
}

async fn the_space_of_the_file_system_is_told(place: Place) {
    let disk = place.disk().await;
    put(&disk, "x", "takes a page").await;
    let space = disk.space().await.unwrap();
    assert!(space.free_bytes > 0 && space.free_bytes < space.total_bytes, "{space:?}");
}

async fn files_and_folders_are_not_mistaken_for_each_other(place: Place) {
    let disk = place.disk().await;
    disk.create_dir("folder").await.unwrap();
    put(&disk, "file", "x").await;
    for mode in [OpenMode::Read, OpenMode::ReadWrite, OpenMode::Create, OpenMode::Direct] {
        assert_eq!(kind(disk.open_file("folder", mode).await), ErrorKind::IsADirectory, "{mode:?}");
    }
    assert_eq!(kind(disk.open_file("folder", OpenMode::CreateNew).await), ErrorKind::AlreadyExists);
    assert_eq!(kind(disk.remove("folder").await), ErrorKind::IsADirectory);
    assert_eq!(kind(disk.rename("file", "folder").await), ErrorKind::IsADirectory);
    assert_eq!(kind(disk.rename("folder", "file").await), ErrorKind::NotADirectory);
    assert_eq!(kind(disk.list("file").await), ErrorKind::NotADirectory);
    assert_eq!(kind(disk.remove_dir("file").await), ErrorKind::NotADirectory);
    assert_eq!(kind(disk.sync_dir("file").await), ErrorKind::NotADirectory);
    assert_eq!(kind(disk.create_dir("file").await), ErrorKind::AlreadyExists);
    assert_eq!(kind(disk.create_dir("file/x").await), ErrorKind::NotADirectory);
    assert_eq!(kind(disk.open_file("file/x", OpenMode::Create).await), ErrorKind::NotADirectory);
    disk.create_dir("full/x").await.unwrap();
    disk.rename("folder", "full/x").await.unwrap();
    disk.create_dir("folder").await.unwrap();
    assert_eq!(kind(disk.rename("folder", "full").await), ErrorKind::DirectoryNotEmpty);
    assert_eq!(content(&disk, "file").await, "x", "nothing was harmed");
}

async fn written_and_synced_data_survives_reopening(place: Place) {
    {
        let disk = place.disk().await;
        disk.create_dir("data").await.unwrap();
        let (file, _) = disk.open_file("data/x", OpenMode::CreateNew).await.unwrap();
        let batch = vec![
            Op::Write { file: file.clone(), offset: 0, data: bytes("synced") },
            Op::Sync { file },
            Op::SyncDir { path: "data".into() },
            Op::SyncDir { path: "".into() },
        ];
        disk.submit(Lane::Pool, batch).await.unwrap();
    }
    let disk = place.disk().await;
    assert_eq!(content(&disk, "data/x").await, "synced");
}

async fn a_file_is_replaced_and_read_whole(place: Place) {
    let disk = place.disk().await;
    disk.create_dir("meta").await.unwrap();
    for text in ["the first content", "shorter", ""] {
        disk.replace_atomically("meta/state", bytes(text)).await.unwrap();
        assert_eq!(content(&disk, "meta/state").await, text);
        assert_eq!(disk.list("meta").await.unwrap().len(), 1, "nothing is left behind");
    }
    disk.replace_atomically("top", bytes("12345")).await.unwrap();
    assert_eq!(content(&disk, "top").await, "12345");
    assert_eq!(kind(disk.read_file("top", 4).await), ErrorKind::InvalidData);
}
