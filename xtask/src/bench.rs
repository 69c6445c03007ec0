//! `cargo xtask bench …`: measurements, printed as tables, on the machine that they run on.

mod broker;
mod cluster;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Subcommand;

#[derive(Subcommand)]
pub(crate) enum Bench {
    /// What an acknowledged write costs by each way to make it durable: the table that led to the journal.
    Disk {
        /// The folder to measure in; it needs 2 GiB of room.
        #[arg(long, default_value = "target/bench-disk")]
        dir: PathBuf,
    },
    /// The broker under librdkafka's load: throughput, latency, CPU per GB, memory. Needs a C compiler and make for librdkafka.
    Broker(broker::Options),
    /// Three nodes of ours against three of Apache Kafka's, in turns on this machine, as ratios. Needs Java and Maven, too.
    Cluster(cluster::Options),
    /// How long writes fail when a broker is killed, stopped, cut off or stopped cleanly, with real processes.
    Failover(crate::jepsen::Failover),
}

pub(crate) fn run(root: &Path, bench: &Bench) -> Result<()> {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(root);
    match bench {
        Bench::Broker(options) => return broker::run(root, options),
        Bench::Cluster(options) => return cluster::run(root, options),
        Bench::Failover(options) => return crate::jepsen::failover(root, options),
        Bench::Disk { dir } => command
            .args(["bench", "--quiet", "--package", "weir-runtime", "--bench", "disk", "--"])
            .arg(root.join(dir)),
    };
    let status = command.status().context("cargo could not be started")?;
    if status.success() { Ok(()) } else { bail!("the benchmark ended with {status}") }
}
