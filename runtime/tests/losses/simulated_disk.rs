//! The simulated disk. In a normal build there is none, and these tests pass without having tried anything.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

use weir_defect::Defect;
use weir_runtime::disk::{Disk, DiskOptions};
use weir_runtime::simulation::{self, FaultKind, FaultRule, Keep, NodeId, SimulationOptions, World};
use weir_runtime::time;

use crate::errors::{self, Breakable};
use crate::scenarios::{SCENARIOS, Scenario, found, prepare};

/// Power failures per scenario.
const FAILURES: u64 = 60;

async fn open() -> Disk {
    Disk::open(Path::new("/data"), DiskOptions::default()).await.unwrap()
}

fn node(world: &World) -> NodeId {
    world.add_node("node", IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), std::future::pending::<()>)
}

/// One power failure, after that time or when all is done. Returns whether it came in the middle, and what was found; `None`
/// where nothing is simulated.
fn fail_once(
    seed: u64,
    scenario: &'static Scenario,
    after: Option<Duration>,
    keep: Keep,
) -> Option<(bool, String)> {
    fail_once_with(&[], seed, scenario, after, keep)
}

fn fail_once_with(
    defects: &'static [Defect],
    seed: u64,
    scenario: &'static Scenario,
    after: Option<Duration>,
    keep: Keep,
) -> Option<(bool, String)> {
    let outcome = simulation::run(seed, SimulationOptions::default(), move |world| async move {
        weir_defect::switch_on(defects);
        let node = node(&world);
        let initially = scenario.initially;
        world.spawn_on(node, async move { prepare(&open().await, initially).await.unwrap() }).await.unwrap();
        if after.is_some() {
            world.disk(node).slow_down(50.0);
        }
        let before = world.spawn_on(node, async move { (scenario.before)(open().await).await.unwrap() });
        let finished = match after {
            Some(after) => time::timeout(after, before).await.is_ok(),
            None => before.await.is_ok(),
        };
        world.power_loss(node, keep);
        world.restart(node);
        let found = world.spawn_on(node, async { found(&open().await).await.unwrap() }).await.unwrap();
        (!finished, found)
    });
    Some(outcome.ok()?.result.unwrap())
}

#[test]
fn what_was_synced_survives_and_nothing_else_is_promised() {
    for scenario in SCENARIOS {
        let mut seen = BTreeSet::new();
        for seed in 0..FAILURES {
            let keep = match seed {
                0 => Keep::Nothing,
                1 => Keep::Everything,
                _ if seed % 2 == 0 => Keep::Subset(0.5),
                _ => Keep::Drawn,
            };
            let Some((interrupted, found)) = fail_once(seed, scenario, None, keep) else { return };
            assert!(!interrupted);
            assert!(scenario.finished.contains(&found.as_str()), "{}, seed {seed}: {found}", scenario.name);
            seen.insert(found);
        }
        let allowed: BTreeSet<String> = scenario.finished.iter().map(|&found| found.to_owned()).collect();
        assert_eq!(seen, allowed, "{}: the faults bite", scenario.name);
    }
}

#[test]
fn a_failure_in_the_middle_leaves_the_old_or_the_new() {
    for scenario in SCENARIOS {
        let mut interruptions = 0;
        for seed in 0..FAILURES {
            let after = Duration::from_millis(1 + seed);
            let Some((interrupted, found)) = fail_once(seed, scenario, Some(after), Keep::Drawn) else {
                return;
            };
            interruptions += u64::from(interrupted);
            let allowed = if interrupted { scenario.interrupted } else { scenario.finished };
            assert!(allowed.contains(&found.as_str()), "{}, seed {seed}: {found}", scenario.name);
        }
        assert!(interruptions > 0, "{}: never interrupted", scenario.name);
    }
}

#[test]
fn a_rename_without_fsync_is_found_out() {
    let replaced = SCENARIOS.iter().find(|scenario| scenario.name.contains("replaced atomically")).unwrap();
    let mut seen = BTreeSet::new();
    for seed in 0..FAILURES {
        let defects = &[Defect::rename_without_fsync];
        let Some((_, found)) = fail_once_with(defects, seed, replaced, None, Keep::Drawn) else { return };
        seen.insert(found);
    }
    assert!(seen.contains("old") && seen.contains(""), "neither synced nor in place: {seen:?}");
}

struct Broken {
    world: World,
    node: NodeId,
}

impl Breakable for Broken {
    fn fail_syncs(&self, fail: bool) {
        match fail {
            true => self.world.disk(self.node).add_fault(FaultRule::always(FaultKind::SyncError, "")),
            false => self.world.disk(self.node).heal(),
        }
    }

    fn fill_up(&self, full: bool) {
        let disk = self.world.disk(self.node);
        disk.set_capacity_bytes(full.then(|| disk.used_bytes()));
    }
}

#[test]
fn a_sync_that_fails_is_reported() {
    let outcome = simulation::run(1, SimulationOptions::default(), |world| async move {
        let node = node(&world);
        let broken = Broken { world: world.clone(), node };
        let test = async move { errors::a_sync_that_fails_is_reported(open().await, broken).await };
        world.spawn_on(node, test).await.unwrap();
    });
    if let Ok(outcome) = outcome {
        outcome.result.unwrap();
    }
}

#[test]
fn a_full_disk_refuses_until_there_is_room() {
    let outcome = simulation::run(1, SimulationOptions::default(), |world| async move {
        let node = node(&world);
        let broken = Broken { world: world.clone(), node };
        let test = async move { errors::a_full_disk_refuses_until_there_is_room(open().await, broken).await };
        world.spawn_on(node, test).await.unwrap();
    });
    if let Ok(outcome) = outcome {
        outcome.result.unwrap();
    }
}
