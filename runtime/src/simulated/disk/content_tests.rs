use super::*;

fn crash_losing_all(content: &mut Content) {
    content.crash(|_| Fate::Lost, |_| false, || None);
}

fn crash_keeping_all(content: &mut Content) {
    content.crash(|_| Fate::Kept, |_| true, || None);
}

#[test]
fn what_was_written_is_seen_at_once_and_lost_if_it_was_not_synced() {
    let mut content = Content::default();
    content.write(10, b"hello", 1);
    assert_eq!(content.len(), 15);
    assert_eq!(&content.read(8, 100)[..], b"\0\0hello");
    assert_eq!(content.durable_len(), 0);
    crash_losing_all(&mut content);
    assert_eq!(content.len(), 0);
    assert!(content.read(0, 100).is_empty());
}

#[test]
fn a_sync_makes_data_and_length_durable() {
    let mut content = Content::default();
    content.write(5000, &[7; 6000], 1);
    content.sync();
    content.write(5000, &[9; 100], 2);
    crash_losing_all(&mut content);
    assert_eq!(content.len(), 11_000);
    assert_eq!(&content.read(4999, 3)[..], &[0, 7, 7]);
    assert_eq!(content.read_durable(10_999, 5), content.read(10_999, 5));
}

#[test]
fn a_crash_keeps_any_subset_of_sectors() {
    let mut content = Content::default();
    content.write(0, &[1; 2048], 1);
    content.sync();
    for sector in 0..4u64 {
        content.write(sector * SECTOR_BYTES, &[2; SECTOR_BYTES as usize], 10 + sector);
    }
    let (lost, torn) = content.crash(
        |sequence| match sequence {
            10 | 12 => Fate::Kept,
            13 => Fate::Torn,
            _ => Fate::Lost,
        },
        |_| true,
        || None,
    );
    assert_eq!((lost, torn), (1, 1));
    let all = content.read(0, 2048);
    assert_eq!((all[0], all[512], all[1024], all[1536], all[1792]), (2, 1, 2, 2, 1));
}

#[test]
fn a_kept_length_over_lost_data_shows_zeros_or_something_stale() {
    let mut content = Content::default();
    content.write(0, &[1; 1024], 1);
    content.crash(|_| Fate::Lost, |_| true, || None);
    assert_eq!(&content.read(0, 2000)[..], &[0; 1024]);
    content.write(1024, &[1; 512], 2);
    content.crash(|_| Fate::Lost, |_| true, || Some([0xaa; 512]));
    assert_eq!(&content.read(1024, 2000)[..], &[0xaa; 512]);
}

#[test]
fn a_truncation_is_undone_by_a_crash_before_the_sync() {
    let mut content = Content::default();
    content.write(0, &[1; 9000], 1);
    content.sync();
    content.resize(100, 2);
    assert_eq!(content.read(0, 9000).len(), 100);
    crash_losing_all(&mut content);
    assert_eq!(&content.read(0, 9000)[..], &[1; 9000]);
}

#[test]
fn what_was_cut_off_never_comes_back_when_the_file_grows_again() {
    let mut content = Content::default();
    content.write(0, &[1; 9000], 1);
    content.sync();
    content.resize(100, 2);
    content.resize(9000, 3);
    assert_eq!(&content.read(100, 9000)[..], &[0; 8900]);
    content.sync();
    crash_losing_all(&mut content);
    assert_eq!(content.read(0, 1)[0], 1);
    assert_eq!(&content.read(100, 9000)[..], &[0; 8900]);
}

#[test]
fn a_durable_write_takes_only_its_own_range_along() {
    let mut content = Content::default();
    content.allocate(16_384, 1);
    content.sync();
    content.write(0, &[3; 4096], 2);
    content.write(8192, &[4; 4096], 3);
    content.sync_range(8192, 4096);
    assert!(content.is_dirty(0, 4096) && !content.is_dirty(8192, 4096));
    crash_losing_all(&mut content);
    assert_eq!((content.read(0, 1)[0], content.read(8192, 1)[0]), (0, 4));
    assert_eq!(content.pages(), 4, "preallocated space stays allocated");
}

#[test]
fn a_failed_sync_marks_pages_clean_that_never_reached_the_medium() {
    let mut content = Content::default();
    content.write(0, &[1; 1024], 1);
    let lost = content.sync_losing(|| false);
    assert_eq!(lost, 2);
    content.sync();
    assert_eq!(content.read(0, 1)[0], 1, "the cache still shows it");
    content.drop_clean_pages();
    assert_eq!(content.read(0, 1)[0], 0, "the medium never had it");
    crash_keeping_all(&mut content);
    assert_eq!(&content.read(0, 2000)[..], &[0; 1024]);
}

#[test]
fn rot_shows_in_the_cache_and_survives_a_crash() {
    let mut content = Content::default();
    content.write(0, &[0b1000; 100], 1);
    content.sync();
    content.flip(50, 0b11);
    assert_eq!(content.read(50, 1)[0], 0b1011);
    crash_losing_all(&mut content);
    assert_eq!(content.read(50, 1)[0], 0b1011);
    content.flip(100, 1);
    assert_eq!(content.len(), 100, "rot never lengthens a file");
}

#[test]
fn space_is_counted_in_pages() {
    let mut content = Content::default();
    assert_eq!(content.pages_missing(4000, 200), 2);
    content.write(4000, &[1; 200], 1);
    assert_eq!((content.pages(), content.pages_missing(0, 8192)), (2, 0));
    content.resize(10, 2);
    assert_eq!(content.pages(), 1);
}
