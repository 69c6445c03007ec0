//! The real disk on a file system that loses what was not synced.

use std::collections::BTreeSet;
use std::path::Path;

use weir_runtime::disk::{Disk, DiskOptions, Lane, OpenError, OpenMode};
use weir_runtime::task::{RuntimeOptions, block_on};

use crate::errors::{self, Breakable};
use crate::faulty::{Faulty, unmount};
use crate::scenarios::{SCENARIOS, Scenario, found, prepare};

/// Power failures per scenario, and how many of what is pending survives each: nothing, everything, then any subset.
const FAILURES: u64 = 24;

/// Runs `test` with a mounted file system; or says that it cannot.
fn with_faulty(name: &str, test: impl FnOnce(&Faulty, &Path)) {
    let folder = tempfile::tempdir().unwrap();
    let faulty = Faulty::new();
    match faulty.mount(folder.path()) {
        Ok(mounted) => unmount(mounted),
        Err(error) if std::env::var_os("CI").is_some() => panic!("CI cannot mount FUSE: {error}"),
        Err(error) => {
            eprintln!("SKIPPED {name}: FUSE cannot be mounted here: {error}");
            return;
        }
    }
    test(&faulty, folder.path());
}

/// Mounts the file system, runs something on a disk in it, and unmounts it again.
fn session<F: Future>(faulty: &Faulty, folder: &Path, run: impl FnOnce(Disk) -> F) -> F::Output {
    let mounted = faulty.mount(folder).unwrap();
    let options = RuntimeOptions { worker_threads: Some(1), ..RuntimeOptions::default() };
    let output = block_on(options, async {
        let disk = Disk::open(folder, DiskOptions { pool_threads: 1 }).await.unwrap();
        let output = run(disk.clone()).await;
        // The one thread of the pool has closed all files when it comes to this.
        disk.submit(Lane::Pool, Vec::new()).await.unwrap();
        output
    });
    unmount(mounted);
    output.unwrap()
}

/// Any subset, by a small generator of its own, so that a failure can be repeated.
fn keep(failure: u64) -> impl FnMut() -> bool {
    let mut state = failure.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    move || match failure {
        0 => false,
        1 => true,
        _ => {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 63 == 0
        }
    }
}

/// One power failure, after so many changes or when all is done. Returns whether it came in the middle, and what was found.
fn fail_once(folder: &Path, scenario: &Scenario, after: Option<u64>, failure: u64) -> (bool, String, u64) {
    let faulty = Faulty::new();
    session(&faulty, folder, |disk| async move { prepare(&disk, scenario.initially).await.unwrap() });
    let changes_before = faulty.changes();
    let result = session(&faulty, folder, |disk| {
        if let Some(changes) = after {
            faulty.power_off_after(changes);
        }
        let before = (scenario.before)(disk);
        let power = faulty.clone();
        async move {
            let result = before.await;
            power.power_off();
            result
        }
    });
    let changes = faulty.changes() - changes_before;
    faulty.power_on(keep(failure));
    let found = session(&faulty, folder, |disk| async move { found(&disk).await.unwrap() });
    (result.is_err(), found, changes)
}

#[test]
fn what_was_synced_survives_and_nothing_else_is_promised() {
    with_faulty("what_was_synced_survives_and_nothing_else_is_promised", |_, folder| {
        for scenario in SCENARIOS {
            let mut seen = BTreeSet::new();
            for failure in 0..FAILURES {
                let (interrupted, found, _) = fail_once(folder, scenario, None, failure);
                assert!(!interrupted);
                assert!(
                    scenario.finished.contains(&found.as_str()),
                    "{}, failure {failure}: {found}",
                    scenario.name
                );
                seen.insert(found);
            }
            let allowed: BTreeSet<String> = scenario.finished.iter().map(|&found| found.to_owned()).collect();
            assert_eq!(seen, allowed, "{}: the faults bite", scenario.name);
        }
    });
}

#[test]
fn a_failure_in_the_middle_leaves_the_old_or_the_new() {
    with_faulty("a_failure_in_the_middle_leaves_the_old_or_the_new", |_, folder| {
        for scenario in SCENARIOS {
            let (_, _, changes) = fail_once(folder, scenario, None, 1);
            for after in 0..changes {
                for failure in 0..3 {
                    let (interrupted, found, _) = fail_once(folder, scenario, Some(after), failure);
                    assert!(
                        interrupted,
                        "{}: the power fails after {after} of {changes} changes",
                        scenario.name
                    );
                    assert!(
                        scenario.interrupted.contains(&found.as_str()),
                        "{}, failure {failure} after {after} changes: {found}",
                        scenario.name
                    );
                }
            }
        }
    });
}

impl Breakable for Faulty {
    fn fail_syncs(&self, fail: bool) {
        self.set_fail_syncs(fail);
    }

    fn fill_up(&self, full: bool) {
        self.set_full(full);
    }
}

#[test]
fn a_sync_that_fails_is_reported() {
    with_faulty("a_sync_that_fails_is_reported", |faulty, folder| {
        session(faulty, folder, |disk| errors::a_sync_that_fails_is_reported(disk, faulty.clone()));
    });
}

#[test]
fn a_full_disk_refuses_until_there_is_room() {
    with_faulty("a_full_disk_refuses_until_there_is_room", |faulty, folder| {
        session(faulty, folder, |disk| errors::a_full_disk_refuses_until_there_is_room(disk, faulty.clone()));
    });
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    with_faulty("a_folder_that_cannot_be_written_is_named", |_, folder| {
        let mounted = Faulty::new().mount_with(folder, Some(fuser::MountOption::RO)).unwrap();
        for path in [folder.to_path_buf(), folder.join("data")] {
            let opening = Disk::open(&path, DiskOptions::default());
            let error = block_on(RuntimeOptions::default(), opening).unwrap().unwrap_err();
            assert!(matches!(error, OpenError::NotWritable { .. }), "{error:?}");
            assert!(error.to_string().contains(&path.display().to_string()), "{error}");
        }
        unmount(mounted);
    });
}

#[test]
fn without_o_direct_a_direct_write_is_durable_all_the_same() {
    with_faulty("without_o_direct_a_direct_write_is_durable_all_the_same", |_, folder| {
        let faulty = Faulty::new();
        faulty.refuse_direct();
        let direct = SCENARIOS.iter().find(|scenario| scenario.name.contains("direct")).unwrap();
        session(&faulty, folder, |disk| async move {
            let (file, _) = disk.open_file("y", OpenMode::Direct).await.unwrap();
            assert!(!file.is_direct());
            (direct.before)(disk).await.unwrap();
        });
        faulty.power_on(|| false);
        let found = session(&faulty, folder, |disk| async move { found(&disk).await.unwrap() });
        assert_eq!(found, "new");
    });
}
