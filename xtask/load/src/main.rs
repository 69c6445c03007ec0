//! Load on a Kafka-compatible broker through librdkafka: open loop, latencies measured from the moment at which a record
//! was due (no coordinated omission), HDR histograms. Prints one line of JSON.

mod consume;
mod produce;

use anyhow::Result;
use clap::{Parser, Subcommand};
use serde::Serialize;

#[derive(Parser)]
#[command(name = "weir-load", about = "Open-loop load on a Kafka-compatible broker, through librdkafka.")]
struct Cli {
    #[command(subcommand)]
    load: Load,
}

#[derive(Subcommand)]
enum Load {
    /// Create a topic and produce to it.
    Produce(produce::Options),
    /// Read a topic from its start to its end, as fast as possible.
    Consume(consume::Options),
}

/// What was measured. Latencies are in microseconds, from the moment at which a record was due to its acknowledgement.
#[derive(Debug, Default, Serialize)]
struct Report {
    records: u64,
    failed: u64,
    bytes: u64,
    seconds: f64,
    p50_us: u64,
    p99_us: u64,
    p999_us: u64,
    max_us: u64,
}

fn main() -> Result<()> {
    let report = match Cli::parse().load {
        Load::Produce(options) => produce::run(&options)?,
        Load::Consume(options) => consume::run(&options)?,
    };
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}
