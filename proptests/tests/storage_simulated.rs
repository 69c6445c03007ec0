//! Seeds of a store on a simulated disk: kills, power loss that keeps any part of what was not synced, a full disk, failing syncs and
//! writes. Nothing acknowledged is lost. Needs a build with `--cfg madsim`; any other reports that it cannot simulate and passes.

mod storage_driver;

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use storage_driver::{Driver, Failed, Model, Step, World};
use weir_runtime::simulation::{self, DiskProfile, Draw, FaultKind, FaultRule, Keep, SimulationOptions};
use weir_runtime::{random, time};
use weir_storage::StoreConfig;

/// What the process is to do, as seen from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Work,
    Finish,
    Done,
}

struct Shared {
    model: Arc<Mutex<Model>>,
    phase: Mutex<Phase>,
    config: StoreConfig,
    segment_bytes: u32,
}

/// The process on the node: recovers, works, and ends when it is told to or when its folder fails.
async fn process(shared: Arc<Shared>) {
    if let Err(Failed(reason)) = work(&shared).await {
        weir_runtime::simulation::trace("folder failed", || reason);
    }
}

async fn work(shared: &Shared) -> Result<(), Failed> {
    let path = Path::new("data");
    let mut driver =
        Driver::open(shared.model.clone(), path, shared.config.clone(), shared.segment_bytes).await?;
    loop {
        if *shared.phase.lock().expect("nobody panics with it") == Phase::Finish {
            driver.wait().await?;
            let driver = driver.restart(true).await?;
            let driver = driver.restart(false).await?;
            drop(driver);
            *shared.phase.lock().expect("nobody panics with it") = Phase::Done;
            return Ok(());
        }
        driver.step(draw_step()).await?;
        if random::below(4) == 0 {
            time::sleep(Duration::from_micros(random::below(20_000))).await;
        }
    }
}

fn draw_step() -> Step {
    let log = random::below(200) as u8;
    match random::below(100) {
        0..45 => Step::Append {
            log,
            batches: 1 + random::below(5) as u8,
            records: 1 + random::below(9) as u8,
            bytes: if random::below(20) == 0 { 5000 } else { random::below(300) as u16 },
        },
        45..55 => Step::Truncate { log, back: random::below(60) as u16 },
        55..60 => Step::SetStart { log, forward: random::below(40) as u16, beyond: random::below(5) == 0 },
        60..63 => Step::BeginEpoch { log },
        63..65 => Step::Delete { log },
        65..68 => Step::Reopen { log },
        68..75 => Step::Wait,
        75..85 => Step::Listen,
        85..95 => Step::Read { log, from: random::below(1 << 16) as u16 },
        _ => Step::Find { log, at: random::below(1 << 16) as u16 },
    }
}

/// Everything that one seed decides.
fn simulate(seed: u64) -> Option<String> {
    let mut draw = Draw::new(seed ^ 0x57_0E);
    let config = StoreConfig {
        journal_bytes: draw.between(100_000, 600_000),
        journal_files: draw.between(2, 5) as u32,
        round_bytes_max: draw.between(2_000, 60_000) as usize,
        open_files_max: draw.between(1, 12) as usize,
        index_cache_bytes: draw.between(0, 3_000) as usize,
        ..StoreConfig::default()
    };
    let failing_syncs = draw.chance(0.5);
    let world = World { power: true, failing_syncs, ..World::default() };
    let model = Model::new(draw.between(1, 7) as usize, world);
    let shared = Arc::new(Shared {
        model: Arc::new(Mutex::new(model)),
        phase: Mutex::new(Phase::Work),
        config,
        segment_bytes: draw.between(400, 9_000) as u32,
    });
    let disk = DiskProfile { direct: draw.chance(0.8), ..DiskProfile::default() };
    let options = SimulationOptions { disk, ..SimulationOptions::default() };
    let node_shared = shared.clone();
    let ran = simulation::run(seed, options, move |world| async move {
        let at_node = node_shared.clone();
        let node =
            world.add_node("store", IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), move || process(at_node.clone()));
        let disk = world.disk(node);
        for _ in 0..draw.between(5, 25) {
            time::sleep(Duration::from_micros(draw.between(200, 300_000))).await;
            match draw.below(10) {
                0..4 => world.kill(node),
                4..8 => {
                    disk.show_stale_blocks(draw.chance(0.5));
                    world.power_loss(node, Keep::Drawn);
                }
                8 => {
                    disk.set_capacity_bytes(Some(disk.used_bytes() + draw.below(40_000)));
                    time::sleep(Duration::from_millis(draw.between(1, 3_000))).await;
                    disk.set_capacity_bytes(None);
                    continue;
                }
                _ => {
                    let kinds = [FaultKind::SyncError, FaultKind::SyncLost, FaultKind::WriteError];
                    let kind =
                        if failing_syncs { kinds[draw.below(3) as usize] } else { FaultKind::WriteError };
                    disk.add_fault(FaultRule::after(kind, "", draw.below(200)));
                    continue;
                }
            }
            world.restart(node);
            if draw.chance(0.3) {
                // In the middle of recovery.
                time::sleep(Duration::from_micros(draw.between(1, 20_000))).await;
                world.power_loss(node, Keep::Drawn);
                world.restart(node);
            }
        }
        disk.heal();
        *node_shared.phase.lock().expect("nobody panics with it") = Phase::Finish;
        while *node_shared.phase.lock().expect("nobody panics with it") != Phase::Done {
            if !world.is_running(node) {
                world.restart(node);
            }
            time::sleep(Duration::from_millis(50)).await;
        }
    });
    let outcome = match ran {
        Ok(outcome) => outcome,
        Err(error) => {
            eprintln!("skipped: {error}");
            return None;
        }
    };
    if let Err(failure) = outcome.result {
        panic!("seed {seed}: {failure}");
    }
    let model = shared.model.lock().expect("nobody panics with it");
    Some(format!(
        "seed {seed}: {} acknowledged, {} recoveries, {} refused, {:?}",
        model.acknowledged, model.recoveries, model.refused, outcome.counters
    ))
}

fn seeds() -> std::ops::Range<u64> {
    let from = std::env::var("WEIR_SEED").ok().and_then(|seed| seed.parse().ok());
    let count = std::env::var("WEIR_SEEDS").ok().and_then(|seeds| seeds.parse().ok());
    let from = from.unwrap_or(0);
    from..from + count.unwrap_or(if from == 0 { 60 } else { 1 })
}

#[test]
fn nothing_acknowledged_is_lost() {
    if std::env::var_os("RUST_LOG").is_some() {
        tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .without_time()
            .init();
    }
    for seed in seeds() {
        match simulate(seed) {
            Some(summary) => println!("{summary}"),
            None => return,
        }
    }
}
