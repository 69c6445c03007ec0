//! What an append costs: `cargo bench -p weir-storage --bench appends -- [FOLDER]` (default: a new folder in the current one).
//!
//! Appends come at a steady rate, whether or not earlier ones are durable, to one log and to a thousand. Printed are the time from an
//! append to its durable end, and the processor's time per append.
#![allow(clippy::disallowed_methods, reason = "it measures what is below the runtime, too")]

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use weir_protocol::types::{LogId, TopicId};
use weir_runtime::disk::{Disk, DiskOptions};
use weir_runtime::task::{RuntimeOptions, block_on};
use weir_runtime::time;
use weir_storage::{AppendInfo, Flush, Log, LogConfig, Store, StoreConfig, StoreEvent};
use weir_wire::codec::Compression;
use weir_wire::records::BatchBuilder;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

struct Load {
    name: &'static str,
    logs: usize,
    per_second: u64,
    batch_bytes: usize,
    flush: Flush,
    runs_for: Duration,
}

fn main() -> Result<()> {
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("measures under `cargo bench` only");
        return Ok(());
    }
    let argument = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let parent = argument.map(PathBuf::from).unwrap_or_else(|| PathBuf::from("."));
    let folder = parent.join(format!("weir-bench-appends-{}", std::process::id()));
    let load = |name, logs, per_second, batch_bytes, flush| Load {
        name,
        logs,
        per_second,
        batch_bytes,
        flush,
        runs_for: Duration::from_secs(6),
    };
    println!(
        "{:<34} {:>9} {:>9} {:>9} {:>9} {:>11} {:>12}",
        "", "appends/s", "p50 µs", "p99 µs", "max µs", "CPU µs each", "appends/round"
    );
    for load in [
        load("1 log, 1 KiB, sync", 1, 1_000, 1024, Flush::Sync),
        load("1 log, 1 KiB, sync", 1, 20_000, 1024, Flush::Sync),
        load("1000 logs, 1 KiB, sync", 1000, 20_000, 1024, Flush::Sync),
        load("1000 logs, 1 KiB, os", 1000, 20_000, 1024, Flush::Os),
        load("1000 logs, 16 KiB, sync", 1000, 10_000, 16 << 10, Flush::Sync),
        load("1 log, 1 MiB, sync", 1, 300, 1 << 20, Flush::Sync),
    ] {
        let measured = block_on(RuntimeOptions::default(), measure(&folder, &load))?;
        std::fs::remove_dir_all(&folder)?;
        measured?;
    }
    Ok(())
}

async fn measure(folder: &Path, load: &Load) -> Result<()> {
    let disk = Disk::open(folder, DiskOptions::default()).await?;
    let (store, _) = Store::open(disk.clone(), StoreConfig::default()).await?;
    let (port, mut events) = store.port();
    let mut logs: Vec<Log> = Vec::new();
    let mut places = HashMap::new();
    for at in 0..load.logs {
        let id = LogId::new(TopicId(uuid::Uuid::from_u128(1000)), at as i32);
        places.insert(id, at);
        logs.push(store.open_log(id, LogConfig { flush: load.flush, ..LogConfig::default() }, &port).await?);
    }
    let body = vec![7u8; load.batch_bytes.saturating_sub(80)];
    let mut waiting: Vec<VecDeque<(i64, Instant)>> = vec![VecDeque::new(); load.logs];
    let mut latencies = Vec::new();
    let total = load.per_second * load.runs_for.as_secs();
    let interval = Duration::from_secs(1) / load.per_second as u32;
    let cpu = cpu_time();
    let start = Instant::now();
    let (mut sent, mut done) = (0u64, 0u64);
    while done < total {
        // All that is due, in one step of the shard.
        while sent < total && start + interval * sent as u32 <= Instant::now() {
            let at = (sent as usize * 7919) % load.logs;
            let log = &mut logs[at];
            let (data, info) = batch(log.end(), &body)?;
            log.append(vec![data.slice(..61), data.slice(61..)], info)?;
            waiting[at].push_back((log.end(), start + interval * sent as u32));
            sent += 1;
        }
        let next = (start + interval * sent as u32).saturating_duration_since(Instant::now());
        let timer = time::sleep(if sent < total { next } else { Duration::from_secs(1) });
        weir_runtime::select! {
            event = events.recv() => {
                let now = Instant::now();
                let Some(StoreEvent::Durable(all)) = event else { return Err(format!("{event:?}").into()) };
                for (id, durable) in all {
                    let at = places[&id];
                    let Some(end) = logs[at].on_durable(&durable) else { continue };
                    while waiting[at].front().is_some_and(|(offset, _)| *offset <= end) {
                        let Some((_, due)) = waiting[at].pop_front() else { break };
                        latencies.push(now.saturating_duration_since(due).as_micros() as u64);
                        done += 1;
                    }
                }
            }
            () = timer => {}
        }
    }
    let took = start.elapsed();
    let cpu = cpu_time() - cpu;
    latencies.sort_unstable();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
    let stats = store.stats();
    println!(
        "{:<34} {:>9.0} {:>9} {:>9} {:>9} {:>11.2} {:>12.1}",
        load.name,
        total as f64 / took.as_secs_f64(),
        at(0.5),
        at(0.99),
        at(1.0),
        cpu.as_micros() as f64 / total as f64,
        stats.appends as f64 / stats.rounds.max(1) as f64,
    );
    drop(logs);
    store.close().await?;
    Ok(())
}

fn batch(base: i64, body: &[u8]) -> Result<(Bytes, AppendInfo)> {
    let mut builder = BatchBuilder::new(Compression::None).at(base, 1);
    builder.push(base, None, Some(body), &[])?;
    let bytes = builder.finish()?;
    let info = AppendInfo {
        base_offset: base,
        last_offset: base,
        leader_epoch: 1,
        max_timestamp_ms: base,
        bytes: bytes.len() as u32,
        producers: Vec::new(),
    };
    Ok((bytes, info))
}

/// The processor's time of this process, from the system's accounts.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}
