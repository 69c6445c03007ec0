//! Many seeds on all cores: progress, the first failure, the summary.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use comfy_table::{Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use weir_defect::Defect;

use crate::report::{Report, situation};
use crate::run::run;
use crate::swarm;

/// One seed in so many is run once more in a process of its own; both must agree to the last event.
const DETERMINISM_SAMPLE: u64 = 100;
/// A batch of at least this many seeds must strike with every kind of fault and meet every situation.
const COMPLETE_BATCH: u64 = 1_000;

/// What the seeds of a batch are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum About {
    /// One node alone and clusters in turn.
    Both,
    /// One node alone.
    One,
    /// Clusters.
    Clusters,
}

/// Which seeds.
#[derive(Debug, Clone, Copy)]
pub struct Batch {
    /// The number of the first seed.
    pub first: u64,
    /// What they are about.
    pub about: About,
    /// How many.
    pub seeds: u64,
    /// Worker threads.
    pub threads: usize,
    /// Runs on after a failure, to see how often each thing fails.
    pub keep_going: bool,
}

impl Batch {
    /// The seed at this position, from 0.
    fn seed(&self, position: u64) -> u64 {
        match self.about {
            About::Both => swarm::seed(self.first + position / 2, position % 2 == 1),
            About::One => self.first + position,
            About::Clusters => swarm::seed(self.first + position, true),
        }
    }

    /// The number of seeds up to this one.
    pub fn seeds_until(&self, seed: u64) -> u64 {
        let before = swarm::number(seed) - self.first;
        match self.about {
            About::Both => 2 * before + u64::from(swarm::is_cluster(seed)) + 1,
            About::One | About::Clusters => before + 1,
        }
    }

    fn reproduces(&self, seed: u64) -> bool {
        self.seeds_until(seed).is_multiple_of(DETERMINISM_SAMPLE)
    }
}

/// What a batch came to.
#[derive(Debug, Default)]
pub struct Summary {
    /// The lowest seed that failed, with its report.
    pub failure: Option<(u64, Report)>,
    /// How many seeds failed by each first finding, and three of them.
    pub failures: BTreeMap<String, (u64, Vec<String>)>,
    /// Why the batch fails although no seed did.
    pub complaints: Vec<String>,
    /// Seeds that ran.
    pub seeds: u64,
    /// Seeds in which enough happened.
    pub counted: u64,
    /// In how many seeds each kind of fault struck, and how often in all.
    pub struck: BTreeMap<&'static str, (u64, u64)>,
    /// In how many seeds each situation was met.
    pub situations: BTreeMap<&'static str, u64>,
    /// Sums over all seeds.
    pub acknowledged: u64,
    /// Sums over all seeds.
    pub events: u64,
    /// Sums over all seeds.
    pub simulated: Duration,
    /// Real time.
    pub took: Duration,
    /// Seeds of which a second process agreed.
    pub reproduced: u64,
}

/// Runs a batch with these defects switched on, and stops at the first failure. Shows a progress bar on a terminal.
#[expect(clippy::disallowed_methods, reason = "the runner lives outside the simulations that it starts")]
pub fn run_batch(batch: Batch, defects: &[Defect], progress: bool) -> Summary {
    let start = Instant::now();
    let bar = if progress { progress_bar(batch.seeds) } else { ProgressBar::hidden() };
    let next = AtomicU64::new(0);
    let end = AtomicU64::new(batch.seeds);
    let (sender, reports) = mpsc::channel();
    let mut summary = Summary::default();
    thread::scope(|scope| {
        for _ in 0..batch.threads.max(1) {
            let sender = sender.clone();
            let (next, end) = (&next, &end);
            scope.spawn(move || {
                loop {
                    let position = next.fetch_add(1, Ordering::Relaxed);
                    if position >= end.load(Ordering::Relaxed) {
                        return;
                    }
                    let seed = batch.seed(position);
                    let report = run(&swarm::plan(seed), defects, false);
                    if !report.is_clean() && !batch.keep_going {
                        end.fetch_min(position, Ordering::Relaxed);
                    }
                    if sender.send((seed, report)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for (seed, report) in reports {
            bar.inc(1);
            summary.add(batch, seed, report, defects);
        }
    });
    bar.finish_and_clear();
    summary.took = start.elapsed();
    if summary.failure.is_none() && defects.is_empty() && summary.seeds >= COMPLETE_BATCH {
        summary.complain_of_what_never_happened(batch);
    }
    summary
}

impl Summary {
    fn add(&mut self, batch: Batch, seed: u64, report: Report, defects: &[Defect]) {
        self.seeds += 1;
        self.counted += u64::from(report.counts());
        self.acknowledged += report.acknowledged;
        self.events += report.events;
        self.simulated += report.simulated;
        for (kind, times) in &report.struck {
            let (seeds, all) = self.struck.entry(kind).or_default();
            *seeds += 1;
            *all += times;
        }
        for met in &report.situations {
            *self.situations.entry(met).or_default() += 1;
        }
        if let Some(finding) = report.findings.first() {
            let (times, seeds) = self.failures.entry(finding.name.clone()).or_default();
            *times += 1;
            if seeds.len() < 3 {
                seeds.push(swarm::name(seed));
            }
            let is_first = |lowest: u64| batch.seeds_until(seed) < batch.seeds_until(lowest);
            if self.failure.as_ref().is_none_or(|(lowest, _)| is_first(*lowest)) {
                self.failure = Some((seed, report));
            }
        } else if defects.is_empty() && batch.reproduces(seed) {
            match hash_in_another_process(seed) {
                Ok(hash) if hash == report.hash => self.reproduced += 1,
                Ok(hash) => self.complaints.push(format!(
                    "seed {} is not deterministic: {:016x} here, {hash:016x} in another process",
                    swarm::name(seed),
                    report.hash
                )),
                Err(reason) => self
                    .complaints
                    .push(format!("seed {} could not be run again: {reason}", swarm::name(seed))),
            }
        }
    }

    fn complain_of_what_never_happened(&mut self, batch: Batch) {
        let planned: BTreeSet<_> = (0..batch.seeds)
            .flat_map(|position| swarm::plan(batch.seed(position)).faults)
            .map(|fault| fault.fault.name())
            .collect();
        let never_struck = planned.into_iter().filter(|kind| !self.struck.contains_key(kind));
        let of_clusters = if batch.about == About::One { &[] } else { situation::OF_CLUSTERS };
        let never_met =
            situation::OF_ONE.iter().chain(of_clusters).filter(|met| !self.situations.contains_key(*met));
        let complaints: Vec<_> = never_struck
            .map(|kind| format!("the fault {kind} was planned and never struck"))
            .chain(never_met.map(|met| format!("never met: {met}")))
            .collect();
        self.complaints.extend(complaints);
        if self.counted * 10 < self.seeds * 9 {
            self.complaints
                .push(format!("only {} of {} seeds count: too little happened", self.counted, self.seeds));
        }
    }

    /// Whether the batch holds.
    pub fn is_clean(&self) -> bool {
        self.failure.is_none() && self.complaints.is_empty()
    }

    /// The tables for people.
    pub fn tables(&self) -> String {
        let mut faults = table(&["fault", "seeds", "times"]);
        for (kind, (seeds, times)) in &self.struck {
            faults.add_row([kind.to_string(), seeds.to_string(), times.to_string()]);
        }
        let mut situations = table(&["situation", "seeds"]);
        for met in situation::all() {
            let seeds = self.situations.get(met).copied().unwrap_or(0);
            situations.add_row([met.to_owned(), seeds.to_string()]);
        }
        let mut failures = String::new();
        for (name, (times, seeds)) in &self.failures {
            failures.push_str(&format!("{times} seeds failed by {name}, such as {}\n", seeds.join(", ")));
        }
        let seconds = self.took.as_secs_f64().max(0.001);
        format!(
            "{faults}\n\n{situations}\n\n{failures}{} seeds, {} of them count; {} acknowledged operations; {} reproduced in another process\n\
             {:.0} s, {:.0} simulated seconds and {:.0} events a second",
            self.seeds,
            self.counted,
            self.acknowledged,
            self.reproduced,
            seconds,
            self.simulated.as_secs_f64() / seconds,
            self.events as f64 / seconds,
        )
    }
}

/// A table as Markdown prints it.
pub fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN).set_header(header.iter().copied());
    table
}

fn progress_bar(seeds: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} seeds  {per_sec}  {eta} left");
    let bar = ProgressBar::new(seeds);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar, // the default style shows the same with fewer words
    }
}

/// The hash of a seed's run in a fresh process of this program.
fn hash_in_another_process(seed: u64) -> Result<u64, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new(program)
        .args(["hash", &swarm::name(seed)])
        .output()
        .map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    u64::from_str_radix(text.trim(), 16).map_err(|_| format!("it ended with {}", output.status))
}
