//! `cargo xtask bench cluster`: three nodes of ours against three of Apache Kafka's, in alternating turns, as ratios.

use std::path::Path;

use anyhow::{Result, bail};
use clap::Args;

use super::broker::{COLUMNS, Load, Run, build_load, prepare, spread};
use crate::interop::Cluster;

#[derive(Args)]
pub(crate) struct Options {
    /// How often each scenario is run with each of the two; they take turns.
    #[arg(long, default_value_t = 5)]
    repeats: usize,
    /// Length of each run in seconds.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Only the scenarios whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Do not prepare the machine's memory and disk before each run: to try the benchmark, not to measure.
    #[arg(long)]
    hasty: bool,
    /// A setting of our nodes, name=value, for experiments.
    #[arg(long = "setting", value_name = "NAME=VALUE")]
    settings: Vec<String>,
}

struct Scenario {
    name: &'static str,
    partitions: u32,
    /// Records a second; 0 is as fast as the client can.
    rate: u64,
    linger_ms: u32,
    topic_settings: &'static [&'static str],
}

const SYNC: &[&str] = &["flush.messages=1"];
const OS: &[&str] = &["flush.messages=9223372036854775807"];

/// Both get the same flush setting: Kafka's default is `os`, ours is `sync`.
const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "sync, 1 partition, 1,000/s",
        partitions: 1,
        rate: 1_000,
        linger_ms: 0,
        topic_settings: SYNC,
    },
    Scenario {
        name: "os, 1 partition, 1,000/s",
        partitions: 1,
        rate: 1_000,
        linger_ms: 0,
        topic_settings: OS,
    },
    Scenario {
        name: "sync, 100 partitions, 10,000/s",
        partitions: 100,
        rate: 10_000,
        linger_ms: 5,
        topic_settings: SYNC,
    },
    Scenario {
        name: "os, 100 partitions, 10,000/s",
        partitions: 100,
        rate: 10_000,
        linger_ms: 5,
        topic_settings: OS,
    },
    Scenario {
        name: "sync, 6 partitions, at full speed",
        partitions: 6,
        rate: 0,
        linger_ms: 5,
        topic_settings: SYNC,
    },
    Scenario {
        name: "os, 6 partitions, at full speed",
        partitions: 6,
        rate: 0,
        linger_ms: 5,
        topic_settings: OS,
    },
];

/// Runs the scenarios in turns and prints for each: ours, Kafka's, and ours as a part of Kafka's (median, minimum–maximum).
pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    let load = build_load(root)?;
    let scenarios: Vec<_> =
        SCENARIOS.iter().filter(|scenario| scenario.name.contains(&options.only)).collect();
    if scenarios.is_empty() {
        bail!("no scenario's name contains '{}'", options.only);
    }
    let mut pairs: Vec<Vec<[Run; 2]>> = vec![Vec::new(); scenarios.len()];
    for repeat in 1..=options.repeats {
        for (scenario, pairs) in scenarios.iter().zip(&mut pairs) {
            eprintln!("{repeat}/{}: {}", options.repeats, scenario.name);
            pairs.push([
                measure(root, &load, scenario, options, Side::Weir)?,
                measure(root, &load, scenario, options, Side::ApacheKafka)?,
            ]);
        }
    }
    println!(
        "{} runs of {} s each in turns, 1 KiB records, acks=all, 3 replicas of which 2 must be in sync, CPU and memory of \
         three processes together; median (minimum–maximum)\n",
        options.repeats, options.seconds
    );
    println!("| scenario | | {} |", COLUMNS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(" | "));
    println!("|---|---|{}", "---|".repeat(COLUMNS.len()));
    for (scenario, pairs) in scenarios.iter().zip(&pairs) {
        for (side, values) in rows(pairs) {
            let cells: Vec<_> = values.into_iter().map(spread).collect();
            println!("| {} | {side} | {} |", scenario.name, cells.join(" | "));
        }
    }
    Ok(())
}

/// What stands in a scenario's three rows: for each column the values of all turns.
fn rows(pairs: &[[Run; 2]]) -> [(&'static str, Vec<Vec<f64>>); 3] {
    let values = |of: fn(f64, f64) -> f64| {
        let column = |column: fn(&Run) -> f64| {
            pairs.iter().map(|[ours, theirs]| of(column(ours), column(theirs))).collect()
        };
        COLUMNS.iter().map(|(_, read)| column(*read)).collect()
    };
    [
        ("Weir", values(|ours, _| ours)),
        ("Kafka", values(|_, theirs| theirs)),
        ("Weir / Kafka", values(|ours, theirs| ours / theirs)),
    ]
}

#[derive(Clone, Copy)]
enum Side {
    Weir,
    ApacheKafka,
}

fn measure(root: &Path, load: &Path, scenario: &Scenario, options: &Options, side: Side) -> Result<Run> {
    let work = root.join("target/bench-cluster");
    if !options.hasty {
        prepare(&work)?;
    }
    std::fs::create_dir_all(&work)?;
    let cluster = match side {
        Side::Weir => Cluster::start_weir(root, &work, &options.settings)?,
        Side::ApacheKafka => Cluster::start_apache_kafka(root, &work)?,
    };
    let processes: Vec<_> = cluster.processes.iter().collect();
    Load {
        program: load,
        bootstrap: &cluster.bootstrap,
        partitions: scenario.partitions,
        rate: scenario.rate,
        seconds: options.seconds,
        linger_ms: scenario.linger_ms,
        topic_settings: scenario.topic_settings,
    }
    .measure(&processes)
}
