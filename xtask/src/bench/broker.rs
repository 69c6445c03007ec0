//! `cargo xtask bench broker`: the broker under librdkafka's load, in alternating turns, as medians with their spread.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::interop::Broker;

/// Memory that is written and given back before each run: fresh memory of a virtual machine costs its first user CPU time.
const TOUCHED_BYTES: usize = 10 << 30;
/// How long ext4 spares the inodes of removed files, and a second.
const INODES_REUSED_AFTER: Duration = Duration::from_secs(6);
/// librdkafka makes its next request when fewer than this many wait to be sent. Its default of 1 has one request made for each
/// pass over all partitions: with 1,000 of them a record waited 40 ms in the client before it was sent (1 ms with 100). Both sides
/// of each comparison have it.
const UNSENT_REQUESTS: &str = "queue.buffering.backpressure.threshold=100";
/// Kernel ticks a second in `/proc/PID/stat`: USER_HZ, which is 100 on every Linux that Rust runs on.
const TICKS_PER_SECOND: f64 = 100.0;

#[derive(Args)]
pub(crate) struct Options {
    /// How often each scenario is run; they take turns.
    #[arg(long, default_value_t = 5)]
    repeats: usize,
    /// Length of each run in seconds.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Only the scenarios whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// A setting of the broker, name=value, for experiments.
    #[arg(long = "setting", value_name = "NAME=VALUE")]
    settings: Vec<String>,
}

struct Scenario {
    name: &'static str,
    partitions: u32,
    /// Records a second; 0 is as fast as the client can.
    rate: u64,
    /// How long the client gathers records for a batch. 5 ms is librdkafka's default and the Java client's.
    linger_ms: u32,
    topic_settings: &'static [&'static str],
}

impl Scenario {
    const fn synced(name: &'static str, partitions: u32, rate: u64, linger_ms: u32) -> Scenario {
        Scenario { name, partitions, rate, linger_ms, topic_settings: &[] }
    }
}

const SCENARIOS: &[Scenario] = &[
    Scenario::synced("sync, 1 partition, 20,000/s", 1, 20_000, 5),
    Scenario::synced("sync, 1,000 partitions, 20,000/s", 1_000, 20_000, 5),
    Scenario::synced("sync, 1 partition, 20,000/s, no linger", 1, 20_000, 0),
    Scenario::synced("sync, 1,000 partitions, 20,000/s, no linger", 1_000, 20_000, 0),
    Scenario::synced("sync, 1 partition, 1,000/s, no linger", 1, 1_000, 0),
    Scenario::synced("sync, 6 partitions, at full speed", 6, 0, 5),
    Scenario {
        topic_settings: &["flush.messages=9223372036854775807"],
        ..Scenario::synced("os, 6 partitions, at full speed", 6, 0, 5)
    },
];

/// One run's figures.
#[derive(Clone, Copy)]
pub(super) struct Run {
    megabytes_per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    cpu_per_gb: f64,
    consume_megabytes_per_second: f64,
    consume_cpu_per_gb: f64,
    peak_mib: f64,
}

/// A row's figures: what it is called, and how to read it from a run.
pub(super) type Column = (&'static str, fn(&Run) -> f64);

pub(super) const COLUMNS: &[Column] = &[
    ("produce MB/s", |run| run.megabytes_per_second),
    ("p50 ms", |run| run.p50_ms),
    ("p99 ms", |run| run.p99_ms),
    ("CPU-s/GB produced", |run| run.cpu_per_gb),
    ("consume MB/s", |run| run.consume_megabytes_per_second),
    ("CPU-s/GB consumed", |run| run.consume_cpu_per_gb),
    ("peak MiB", |run| run.peak_mib),
];

/// Runs the scenarios in turns and prints one row for each: median (minimum–maximum).
pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    let load = build_load(root)?;
    let scenarios: Vec<_> =
        SCENARIOS.iter().filter(|scenario| scenario.name.contains(&options.only)).collect();
    if scenarios.is_empty() {
        bail!("no scenario's name contains '{}'", options.only);
    }
    let mut runs: Vec<Vec<Run>> = vec![Vec::new(); scenarios.len()];
    for repeat in 1..=options.repeats {
        for (scenario, runs) in scenarios.iter().zip(&mut runs) {
            prepare(&root.join("target/bench/data"))?;
            eprintln!("{repeat}/{}: {} (10 GiB of memory touched before it)", options.repeats, scenario.name);
            runs.push(measure(root, &load, scenario, options)?);
        }
    }
    println!(
        "{} runs of {} s each in turns, 1 KiB records, acks=all; median (minimum–maximum)\n",
        options.repeats, options.seconds
    );
    println!("| scenario | {} |", COLUMNS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(" | "));
    println!("|---|{}", "---|".repeat(COLUMNS.len()));
    for (scenario, runs) in scenarios.iter().zip(&runs) {
        let cells: Vec<_> = COLUMNS.iter().map(|(_, read)| spread(runs.iter().map(read).collect())).collect();
        println!("| {} | {} |", scenario.name, cells.join(" | "));
    }
    Ok(())
}

pub(super) fn spread(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    let (Some(least), Some(most)) = (values.first(), values.last()) else { return "–".to_owned() };
    format!("{:.2} ({least:.2}–{most:.2})", values[values.len() / 2])
}

fn measure(root: &Path, load: &Path, scenario: &Scenario, options: &Options) -> Result<Run> {
    let work = root.join("target/bench");
    std::fs::create_dir_all(&work)?;
    let broker = Broker::start_with(root, &work, &options.settings)?;
    let process = broker.process().context("the broker is not a process of ours")?;
    Load {
        program: load,
        bootstrap: &broker.address,
        partitions: scenario.partitions,
        rate: scenario.rate,
        seconds: options.seconds,
        linger_ms: scenario.linger_ms,
        topic_settings: scenario.topic_settings,
    }
    .measure(&[process])
}

/// One run of the load program: producing, then consuming all of it.
pub(super) struct Load<'a> {
    pub(super) program: &'a Path,
    pub(super) bootstrap: &'a str,
    pub(super) partitions: u32,
    /// Records a second; 0 is as fast as the client can.
    pub(super) rate: u64,
    pub(super) seconds: f64,
    pub(super) linger_ms: u32,
    pub(super) topic_settings: &'a [&'a str],
}

impl Load<'_> {
    /// What it and the brokers' processes together show.
    pub(super) fn measure(&self, processes: &[&Child]) -> Result<Run> {
        let cpu = || -> Result<f64> { processes.iter().map(|process| cpu_seconds(process)).sum() };
        let before = cpu()?;
        let mut produce = Command::new(self.program);
        produce.args(["produce", "--bootstrap", self.bootstrap, "--topic", "bench", "--warmup", "2"]);
        produce.args(["--partitions", &self.partitions.to_string(), "--rate", &self.rate.to_string()]);
        produce.args(["--seconds", &self.seconds.to_string()]);
        produce.args(["-X", &format!("linger.ms={}", self.linger_ms), "-X", "batch.num.messages=1000"]);
        produce.args(["-X", UNSENT_REQUESTS]);
        produce.args(self.topic_settings.iter().flat_map(|setting| ["--topic-setting", setting]));
        let produced = Report::of(&mut produce)?;
        let between = cpu()?;
        let mut consume = Command::new(self.program);
        let consumed =
            Report::of(consume.args(["consume", "--bootstrap", self.bootstrap, "--topic", "bench"]))?;
        let after = cpu()?;
        let all_gb = consumed.bytes / 1e9; // what was produced, warm-up included
        Ok(Run {
            megabytes_per_second: produced.bytes / 1e6 / produced.seconds,
            p50_ms: produced.p50_us / 1e3,
            p99_ms: produced.p99_us / 1e3,
            cpu_per_gb: (between - before) / all_gb,
            consume_megabytes_per_second: consumed.bytes / 1e6 / consumed.seconds,
            consume_cpu_per_gb: (after - between) / all_gb,
            peak_mib: processes.iter().map(|process| peak_mib(process)).sum::<Result<f64>>()?,
        })
    }
}

/// What the load program printed.
struct Report {
    bytes: f64,
    seconds: f64,
    p50_us: f64,
    p99_us: f64,
}

impl Report {
    fn of(command: &mut Command) -> Result<Report> {
        let output =
            command.stderr(Stdio::inherit()).output().context("the load program cannot be started")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            bail!("the load program ended with {}", output.status);
        }
        let field = |name: &str| -> Result<f64> {
            let rest =
                text.split(&format!("\"{name}\":")).nth(1).with_context(|| format!("no {name} in {text}"))?;
            let digits = rest.split([',', '}']).next().unwrap_or_default();
            digits.parse().with_context(|| format!("{name} is not a number in {text}"))
        };
        if field("failed")? > 0.0 {
            bail!("records failed: {text}");
        }
        Ok(Report {
            bytes: field("bytes")?,
            seconds: field("seconds")?,
            p50_us: field("p50_us")?,
            p99_us: field("p99_us")?,
        })
    }
}

/// What the run before left is removed and on disk, and memory was written to and given back, so that the host has it ready.
///
/// ext4 does not give a removed file's inode to another for five seconds and looks for one that is older: without the wait, a
/// topic with 1,000 partitions takes seconds to get its files.
pub(super) fn prepare(data: &Path) -> Result<()> {
    if data.exists() {
        std::fs::remove_dir_all(data).with_context(|| format!("cannot remove {}", data.display()))?;
    }
    let reusable = Instant::now() + INODES_REUSED_AFTER;
    rustix::fs::sync();
    let memory = vec![1u8; TOUCHED_BYTES];
    std::hint::black_box(&memory);
    std::thread::sleep(reusable.saturating_duration_since(Instant::now()));
    Ok(())
}

fn cpu_seconds(process: &Child) -> Result<f64> {
    let stat =
        std::fs::read_to_string(format!("/proc/{}/stat", process.id())).context("the broker is gone")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
    Ok(ticks / TICKS_PER_SECOND)
}

fn peak_mib(process: &Child) -> Result<f64> {
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", process.id())).context("the broker is gone")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
}

pub(super) fn build_load(root: &Path) -> Result<PathBuf> {
    let folder = root.join("xtask/load");
    let target = root.join("target/load");
    let status = Command::new(env!("CARGO"))
        .current_dir(&folder)
        .env("CARGO_TARGET_DIR", &target)
        .args(["build", "--quiet", "--release", "--locked"])
        .status()
        .context("cargo could not be started")?;
    if !status.success() {
        bail!("the load program does not build");
    }
    Ok(target.join("release/weir-load"))
}
