use std::collections::BTreeSet;

use super::*;

/// A disk with one open folder, driven by hand.
struct Bench {
    disk: SimulatedDisk,
    folder: FolderId,
    now: Instant,
}

const FOLDER: &str = "data";

impl Bench {
    fn new(seed: u64) -> Self {
        Self::with_profile(seed, DiskProfile::default())
    }

    fn with_profile(seed: u64, profile: DiskProfile) -> Self {
        let mut disk = SimulatedDisk::new(1, Draw::new(seed), Events::new(false), profile);
        let folder = disk.open_folder(Path::new(FOLDER), 2).unwrap().unwrap();
        Self { disk, folder, now: Instant::ORIGIN }
    }

    fn submit(&mut self, lane: Lane, requests: Vec<Request>) -> BatchId {
        self.disk.submit(self.folder, lane, requests, self.now)
    }

    /// Lets time pass until the batch is complete.
    fn finish(&mut self, batch: BatchId) -> Result<Vec<Reply>, Failure> {
        while let Some(at) = self.disk.next_completion() {
            self.now = at;
            let mut completions = self.disk.take_due(at).into_iter();
            if let Some(found) = completions.find(|completion| completion.batch == batch) {
                return found.result;
            }
        }
        panic!("the batch never ends");
    }

    fn run(&mut self, requests: Vec<Request>) -> Result<Vec<Reply>, Failure> {
        let batch = self.submit(Lane::Pool, requests);
        self.finish(batch)
    }

    fn one(&mut self, request: Request) -> io::Result<Reply> {
        self.run(vec![request]).map(|mut done| done.remove(0)).map_err(|failure| failure.error)
    }

    fn open(&mut self, path: &str, mode: OpenMode) -> HandleId {
        match self.one(Request::Open { path: path.into(), mode }).unwrap() {
            Reply::Opened { file, .. } => file,
            other => panic!("{other:?}"),
        }
    }

    fn write(&mut self, file: HandleId, offset: u64, data: &[u8]) -> io::Result<Reply> {
        self.one(write(file, offset, data))
    }

    fn read(&mut self, file: HandleId, offset: u64, len: usize) -> io::Result<Bytes> {
        match self.one(Request::Read { file, offset, len })? {
            Reply::Read(bytes) => Ok(bytes),
            other => panic!("{other:?}"),
        }
    }

    fn sync(&mut self, file: HandleId) -> io::Result<Reply> {
        self.one(Request::Sync { file })
    }

    /// A file whose name, length and content are durable.
    fn durable_file(&mut self, path: &str, content: &[u8]) -> HandleId {
        let file = self.open(path, OpenMode::Create);
        self.write(file, 0, content).unwrap();
        self.sync(file).unwrap();
        self.one(Request::SyncDir { path: "".into() }).unwrap();
        file
    }

    fn restart(&mut self) {
        self.folder = self.disk.open_folder(Path::new(FOLDER), 2).unwrap().unwrap();
    }

    fn power_loss(&mut self, keep: Keep) {
        self.disk.power_lost(keep, self.now);
        self.restart();
    }

    fn content(&mut self, path: &str) -> Option<Bytes> {
        match self.one(Request::Open { path: path.into(), mode: OpenMode::Read }) {
            Ok(Reply::Opened { file, len, .. }) => Some(self.read(file, 0, len as usize).unwrap()),
            _ => None,
        }
    }

    fn struck(&self, kind: &str) -> u64 {
        self.disk.events.counter(kind)
    }
}

fn write(file: HandleId, offset: u64, data: &[u8]) -> Request {
    Request::Write { file, offset, data: vec![Bytes::copy_from_slice(data)] }
}

fn write_aligned(file: HandleId, offset: u64, data: &[u8]) -> Request {
    Request::WriteAligned { file, offset, data: Bytes::copy_from_slice(data) }
}

fn kind<T>(result: io::Result<T>) -> io::ErrorKind {
    result.err().expect("it must fail").kind()
}

#[test]
fn a_batch_ends_after_the_latency_of_its_operations() {
    let mut bench = Bench::new(1);
    let file = bench.open("a", OpenMode::Create);
    let start = bench.now;
    let batch = bench.submit(Lane::Pool, vec![write(file, 0, b"x"), Request::Sync { file }]);
    assert!(bench.disk.take_due(start).is_empty(), "nothing is done at once");
    bench.finish(batch).unwrap();
    let took = bench.now - start;
    assert!(took >= Duration::from_micros(120) && took < Duration::from_millis(20), "{took:?}");
}

#[test]
fn a_batch_stops_at_its_first_failure_and_says_what_was_done() {
    let mut bench = Bench::new(1);
    let file = bench.open("a", OpenMode::Create);
    let missing = Request::Remove { path: "missing".into() };
    let failure = bench.run(vec![write(file, 0, b"x"), missing, write(file, 0, b"y")]).unwrap_err();
    assert_eq!((failure.index, failure.done.len()), (1, 1));
    assert_eq!(failure.error.raw_os_error(), Some(2));
    assert_eq!(bench.content("a").unwrap(), "x");
}

#[test]
fn the_journal_works_in_order_and_the_pool_side_by_side() {
    let mut bench = Bench::new(2);
    let file = bench.open("a", OpenMode::Create);
    let mut order = Vec::new();
    for lane in [Lane::Journal, Lane::Pool] {
        let batches: Vec<_> = (0..20).map(|n| bench.submit(lane, vec![write(file, n, b"x")])).collect();
        let mut ends = Vec::new();
        while let Some(at) = bench.disk.next_completion() {
            bench.now = at;
            ends.extend(bench.disk.take_due(at).into_iter().map(|completion| completion.batch));
        }
        order.push(ends == batches);
        assert_eq!(ends.iter().collect::<BTreeSet<_>>().len(), 20);
    }
    assert_eq!(order, [true, false]);
}

#[test]
fn a_kill_keeps_the_page_cache_and_takes_handles_and_locks() {
    let mut bench = Bench::new(3);
    let file = bench.open("a", OpenMode::Create);
    bench.write(file, 0, b"cached").unwrap();
    assert!(bench.disk.open_folder(Path::new(FOLDER), 1).unwrap().is_none(), "locked");
    bench.disk.process_killed(bench.now);
    bench.restart();
    assert_eq!(kind(bench.write(file, 0, b"ghost")), kind::<()>(Err(errno::bad_handle())));
    bench.disk.close(file);
    assert_eq!(bench.content("a").unwrap(), "cached");
}

#[test]
fn an_operation_in_flight_at_a_kill_happens_or_not_or_in_part() {
    let mut seen = BTreeSet::new();
    for seed in 0..60 {
        let mut bench = Bench::new(seed);
        let file = bench.durable_file("a", &[0; 2048]);
        bench.submit(Lane::Pool, vec![write(file, 0, &[1; 2048]), write(file, 0, &[2; 2048])]);
        bench.disk.process_killed(bench.now);
        assert_eq!(bench.disk.next_completion(), None, "nobody waits any more");
        bench.restart();
        let content = bench.content("a").unwrap();
        assert!(!content.contains(&2), "the second operation had not begun");
        let written = content.iter().filter(|byte| **byte == 1).count();
        assert!(content[..written].iter().all(|byte| *byte == 1), "the cache fills in order");
        seen.insert(written);
    }
    assert!(seen.contains(&0) && seen.contains(&2048) && seen.len() > 3, "{seen:?}");
}

#[test]
fn a_direct_write_in_flight_at_a_power_loss_leaves_any_subset_of_its_sectors() {
    let mut subsets = BTreeSet::new();
    let mut torn = 0;
    for seed in 0..200 {
        let mut bench = Bench::new(seed);
        let file = bench.open("journal", OpenMode::Direct);
        bench.one(Request::Allocate { file, len: 8192 }).unwrap();
        bench.one(Request::SyncDir { path: "".into() }).unwrap();
        bench.submit(Lane::Journal, vec![write_aligned(file, 4096, &[1; 4096])]);
        bench.power_loss(Keep::Nothing);
        let content = bench.content("journal").unwrap();
        assert_eq!(&content[..4096], &[0; 4096]);
        let sectors: Vec<_> = content[4096..].chunks(512).map(|sector| (sector[0], sector[511])).collect();
        torn += sectors.iter().filter(|(first, last)| first != last).count();
        subsets.insert(sectors);
    }
    assert!(subsets.len() > 30, "{}", subsets.len());
    assert!(torn > 0, "sectors are torn now and then");
}

#[test]
fn a_direct_write_that_was_reported_is_durable() {
    let mut bench = Bench::new(4);
    let file = bench.open("journal", OpenMode::Direct);
    bench.one(Request::SyncDir { path: "".into() }).unwrap();
    bench.one(write_aligned(file, 0, &[1; 4096])).unwrap();
    bench.power_loss(Keep::Nothing);
    assert_eq!(bench.content("journal").unwrap(), [1; 4096][..]);
}

#[test]
fn without_direct_files_a_durable_write_syncs() {
    let mut bench = Bench::with_profile(4, DiskProfile { direct: false, ..DiskProfile::default() });
    let file = bench.open("journal", OpenMode::Direct);
    bench.one(Request::SyncDir { path: "".into() }).unwrap();
    bench.one(write_aligned(file, 0, &[1; 4096])).unwrap();
    bench.disk.add_fault(FaultRule::once(FaultKind::SyncError, "journal"));
    assert_eq!(
        kind(bench.one(write_aligned(file, 4096, &[2; 4096]))),
        kind::<()>(Err(errno::input_output()))
    );
    bench.power_loss(Keep::Nothing);
    assert_eq!(bench.content("journal").unwrap(), [1; 4096][..]);
}

#[test]
fn a_power_loss_that_keeps_a_prefix_never_keeps_the_later_without_the_earlier() {
    let mut lengths = BTreeSet::new();
    for seed in 0..100 {
        let mut bench = Bench::new(seed);
        let (a, b) = (bench.durable_file("a", &[0; 4096]), bench.durable_file("b", &[0; 4096]));
        for step in 0..8u64 {
            let file = if step % 2 == 0 { a } else { b };
            bench.write(file, step / 2 * 512, &[1; 512]).unwrap();
        }
        bench.power_loss(Keep::Prefix);
        let (a, b) = (bench.content("a").unwrap(), bench.content("b").unwrap());
        let steps: Vec<_> =
            (0..8).map(|step| if step % 2 == 0 { a[step / 2 * 512] } else { b[step / 2 * 512] }).collect();
        let kept = steps.iter().filter(|step| **step == 1).count();
        assert!(steps[..kept].iter().all(|step| *step == 1), "{steps:?}");
        lengths.insert(kept);
    }
    assert!(lengths.len() > 4, "{lengths:?}");
}

#[test]
fn a_drawn_power_loss_loses_nothing_that_was_synced() {
    for seed in 0..200 {
        let mut bench = Bench::new(seed);
        let file = bench.durable_file("a", &[7; 3000]);
        bench.write(file, 3000, &[8; 3000]).unwrap();
        bench.one(Request::Rename { from: "a".into(), to: "b".into() }).unwrap();
        bench.power_loss(Keep::Drawn);
        let (a, b) = (bench.content("a"), bench.content("b"));
        assert!(a.is_some() != b.is_some(), "a rename is kept whole or not at all");
        assert_eq!(&a.or(b).unwrap()[..3000], &[7; 3000]);
    }
}

#[test]
fn a_rename_without_a_sync_of_the_file_may_leave_an_empty_one() {
    let lost = (0..100).filter(|seed| {
        let mut bench = Bench::new(*seed);
        bench.durable_file("vote", b"old vote");
        let file = bench.open("vote.tmp", OpenMode::Create);
        bench.write(file, 0, b"new vote").unwrap();
        bench.one(Request::Rename { from: "vote.tmp".into(), to: "vote".into() }).unwrap();
        bench.one(Request::SyncDir { path: "".into() }).unwrap();
        bench.power_loss(Keep::Drawn);
        bench.content("vote").unwrap() != "new vote"
    });
    assert!(lost.count() > 20);
}

#[test]
fn each_error_strikes_where_it_was_planned_and_is_counted() {
    let mut bench = Bench::new(5);
    let file = bench.durable_file("a", &[1; 4096]);
    let other = bench.durable_file("b", &[1; 4096]);
    for kind in [FaultKind::ReadError, FaultKind::WriteError, FaultKind::SyncError] {
        bench.disk.add_fault(FaultRule::once(kind, "data/a"));
        let act = |bench: &mut Bench, file| match kind {
            FaultKind::ReadError => bench.read(file, 0, 10).map(drop),
            FaultKind::WriteError => bench.write(file, 0, &[2; 4096]).map(drop),
            _ => bench.sync(file).map(drop),
        };
        act(&mut bench, other).unwrap();
        assert_eq!(act(&mut bench, file).unwrap_err().raw_os_error(), Some(5));
        act(&mut bench, file).unwrap();
        assert_eq!(bench.struck(kind.name()), 1);
    }
}

#[test]
fn a_failed_sync_that_keeps_pages_dirty_can_be_repeated_and_one_that_loses_them_cannot() {
    for (kind, survives) in [(FaultKind::SyncError, true), (FaultKind::SyncLost, false)] {
        let mut bench = Bench::new(6);
        let file = bench.durable_file("a", &[1; 8192]);
        bench.write(file, 0, &[2; 8192]).unwrap();
        bench.disk.add_fault(FaultRule::once(kind, ""));
        assert_eq!(bench.sync(file).unwrap_err().raw_os_error(), Some(5));
        bench.sync(file).unwrap();
        assert_eq!(bench.read(file, 0, 8192).unwrap(), [2; 8192][..], "the cache shows it all the same");
        bench.power_loss(Keep::Everything);
        assert_eq!(bench.content("a").unwrap() == [2; 8192][..], survives, "{kind:?}");
    }
}

#[test]
fn what_a_failed_sync_lost_shows_when_the_cache_is_dropped() {
    let mut bench = Bench::new(6);
    let file = bench.durable_file("a", &[1; 8192]);
    bench.write(file, 0, &[2; 8192]).unwrap();
    bench.disk.add_fault(FaultRule::once(FaultKind::SyncLost, ""));
    bench.sync(file).unwrap_err();
    bench.disk.drop_caches(bench.now);
    assert!(bench.read(file, 0, 8192).unwrap().contains(&1));
}

#[test]
fn a_lost_write_leaves_stale_blocks_and_reports_success() {
    let mut bench = Bench::new(7);
    let file = bench.durable_file("a", b"old old old");
    bench.disk.add_fault(FaultRule::once(FaultKind::LostWrite, ""));
    bench.write(file, 0, b"new new new new").unwrap();
    bench.sync(file).unwrap();
    assert_eq!(bench.read(file, 0, 100).unwrap(), "old old old\0\0\0\0");
}

#[test]
fn misdirection_writes_and_reads_at_another_place() {
    let mut bench = Bench::new(8);
    let file = bench.durable_file("a", &[1; 8192]);
    bench.disk.add_fault(FaultRule::once(FaultKind::MisdirectedWrite, ""));
    bench.write(file, 1024, &[2; 512]).unwrap();
    let content = bench.read(file, 0, 8192).unwrap();
    let hit: Vec<_> = content.chunks(512).enumerate().filter(|(_, sector)| sector[0] == 2).collect();
    assert!(hit.len() == 1 && hit[0].0 != 2, "{hit:?}");
    let place = hit[0].0 as u64 * 512;
    bench.disk.add_fault(FaultRule::always(FaultKind::MisdirectedRead, ""));
    let elsewhere = (0..100).any(|_| bench.read(file, 0, 512).unwrap()[0] == 2);
    assert!(elsewhere, "a read comes from {place} now and then");
}

#[test]
fn rot_hits_the_file_and_range_that_were_asked_for() {
    let mut bench = Bench::new(9);
    bench.durable_file("a.log", &[0; 4096]);
    bench.durable_file("b.idx", &[0; 4096]);
    let damage = bench.disk.rot("*.log", Some(1000..1010), bench.now).unwrap();
    assert_eq!(damage.path, "data/a.log");
    assert!(damage.range.start >= 1000 && damage.range.end <= 1010);
    bench.power_loss(Keep::Nothing);
    let content = bench.content("a.log").unwrap();
    for (offset, byte) in (0..).zip(content.iter()) {
        assert_eq!(*byte != 0, damage.range.contains(&offset), "at {offset}");
    }
    assert_eq!(bench.content("b.idx").unwrap(), [0; 4096][..]);
    assert_eq!(bench.disk.rot("missing", None, bench.now), None);
    assert!(bench.disk.rot("", None, bench.now).is_some(), "anywhere");
}

#[test]
fn a_full_disk_takes_a_part_and_then_refuses_but_overwrites_in_place() {
    let mut bench = Bench::new(10);
    bench.disk.set_capacity_bytes(Some(4 * PAGE_BYTES));
    let file = bench.open("a", OpenMode::Create);
    bench.one(Request::Allocate { file, len: 2 * PAGE_BYTES }).unwrap();
    assert_eq!(bench.disk.used_bytes(), 2 * PAGE_BYTES);
    let other = bench.open("b", OpenMode::Create);
    let error = bench.write(other, 0, &[1; 5 * PAGE_BYTES as usize]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert_eq!(bench.content("b").unwrap().len() as u64, 2 * PAGE_BYTES);
    bench.write(file, 0, &[2; 2 * PAGE_BYTES as usize]).unwrap();
    assert_eq!(kind(bench.write(file, 2 * PAGE_BYTES, b"x")), io::ErrorKind::StorageFull);
    let allocated = bench.one(Request::Allocate { file, len: 3 * PAGE_BYTES });
    assert_eq!(kind(allocated), io::ErrorKind::StorageFull);
    bench.one(Request::Remove { path: "b".into() }).unwrap();
    assert_eq!(kind(bench.write(file, 2 * PAGE_BYTES, b"x")), io::ErrorKind::StorageFull, "b is still open");
    bench.disk.close(other);
    bench.close_all_but(file);
    bench.write(file, 2 * PAGE_BYTES, b"x").unwrap();
    assert!(bench.struck("fault.disk.no_space") >= 3);
}

impl Bench {
    fn close_all_but(&mut self, kept: HandleId) {
        for file in self.disk.handles.keys().copied().collect::<Vec<_>>() {
            if file != kept {
                self.disk.close(file);
            }
        }
    }
}

#[test]
fn a_slow_disk_takes_longer_and_a_stuck_one_waits_for_its_release() {
    let mut bench = Bench::new(11);
    let file = bench.open("a", OpenMode::Create);
    bench.disk.slow_down(bench.now, 1000.0);
    let start = bench.now;
    bench.write(file, 0, b"slow").unwrap();
    assert!(bench.now - start >= Duration::from_millis(20));
    let batch = bench.submit(Lane::Pool, vec![write(file, 0, b"stuck")]);
    bench.disk.stick(bench.now);
    bench.now += Duration::from_secs(60);
    assert!(bench.disk.next_completion().is_none() && bench.disk.take_due(bench.now).is_empty());
    bench.disk.heal(bench.now);
    assert_eq!(bench.disk.next_completion(), Some(bench.now));
    bench.finish(batch).unwrap();
    assert_eq!(bench.content("a").unwrap(), "stuck");
}

#[test]
fn a_power_loss_may_show_old_blocks_where_new_data_was_lost() {
    let shown = (0..50).filter(|seed| {
        let mut bench = Bench::new(*seed);
        bench.disk.show_stale_blocks(true);
        bench.durable_file("old", &[9; 65_536]);
        bench.one(Request::Remove { path: "old".into() }).unwrap();
        let file = bench.durable_file("new", b"");
        bench.write(file, 0, &[1; 8192]).unwrap();
        bench.power_loss(Keep::Subset(0.5));
        bench.content("new").unwrap().contains(&9)
    });
    assert!(shown.count() > 5);
}

#[test]
fn a_damaged_folder_has_lost_a_file_for_good() {
    let mut bench = Bench::new(15);
    let file = bench.durable_file("a.log", b"open");
    bench.durable_file("b.log", b"other");
    bench.open("c.tmp", OpenMode::Create);
    assert_eq!(bench.disk.lose_file("a.*", bench.now).unwrap(), "data/a.log");
    assert_eq!(bench.disk.lose_file("c.tmp", bench.now).unwrap(), "data/c.tmp");
    assert_eq!(bench.read(file, 0, 10).unwrap(), "open");
    assert_eq!(bench.disk.files().len(), 1);
    bench.power_loss(Keep::Everything);
    assert_eq!(bench.disk.files(), [("data/b.log".to_owned(), 5)]);
    assert_eq!(bench.disk.lose_file("a.log", bench.now), None);
}

#[test]
fn a_folder_whose_sync_fails_keeps_its_changes_volatile() {
    let mut bench = Bench::new(16);
    bench.disk.add_fault(FaultRule::once(FaultKind::SyncError, "data/"));
    bench.open("a", OpenMode::Create);
    assert_eq!(bench.one(Request::SyncDir { path: "".into() }).unwrap_err().raw_os_error(), Some(5));
    bench.power_loss(Keep::Nothing);
    assert_eq!(bench.content("a"), None);
}

#[test]
fn a_replaced_disk_is_empty() {
    let mut bench = Bench::new(12);
    bench.durable_file("a", b"gone");
    bench.disk.replaced(bench.now);
    bench.restart();
    assert_eq!(bench.content("a"), None);
}

#[test]
fn what_is_durable_can_be_looked_at_without_a_power_loss() {
    let mut bench = Bench::new(13);
    let file = bench.durable_file("a", b"durable");
    bench.write(file, 0, b"volatile and longer").unwrap();
    bench.open("b", OpenMode::Create);
    assert_eq!(bench.disk.durable_content("data/a").unwrap(), "durable");
    assert_eq!(bench.disk.durable_content("data/b"), None);
    assert_eq!(bench.disk.content("data/a").unwrap(), "volatile and longer");
    assert_eq!(bench.disk.files(), [("data/a".to_owned(), 19), ("data/b".to_owned(), 0)]);
}

#[test]
fn a_folder_is_unlocked_after_its_last_batch() {
    let mut bench = Bench::new(14);
    let file = bench.open("a", OpenMode::Create);
    let batch = bench.submit(Lane::Pool, vec![write(file, 0, b"x")]);
    bench.disk.close_folder(bench.folder);
    assert!(bench.disk.open_folder(Path::new(FOLDER), 1).unwrap().is_none());
    bench.finish(batch).unwrap();
    assert!(bench.disk.open_folder(Path::new(FOLDER), 1).unwrap().is_some());
}

#[test]
fn the_same_seed_does_the_same() {
    let run = |seed| {
        let mut bench = Bench::new(seed);
        let file = bench.durable_file("a", &[1; 10_000]);
        bench.write(file, 100, &[2; 5000]).unwrap();
        bench.submit(Lane::Pool, vec![write(file, 6000, &[3; 4000])]);
        bench.power_loss(Keep::Drawn);
        (bench.content("a"), bench.now, bench.disk.events.hash())
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}
