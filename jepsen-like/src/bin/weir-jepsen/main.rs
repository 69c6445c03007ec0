//! `weir-jepsen`: real broker processes, real clients, real faults, and the simulator's checkers.
#![allow(clippy::disallowed_methods)] // it starts processes and reads their files; nothing here is ever simulated

mod brokers;
mod librdkafka;
mod links;
mod nemesis;
mod operator;
mod owner;
mod plan;
mod probe;
mod proxy;
mod report;
mod run;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use weir_jepsen::history::HistoryError;
use weir_runtime::task::{self, JoinError, RuntimeOptions};

use crate::plan::{Plan, PlanError};
use crate::report::Report;
use crate::run::Surroundings;

/// Real brokers under real faults: nothing that was acknowledged may be lost.
#[derive(Parser)]
#[command(name = "weir-jepsen", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

const EXAMPLES: &str = "\
Examples:
  weir-jepsen run                          three brokers for ten minutes, faults in turn
  weir-jepsen run --minutes 1 --seed 7     the faults of seed 7, one minute of them
  weir-jepsen run --nodes 1                one broker: kills, stops, resets and slow links
  weir-jepsen failover --rounds 5          how long writes fail after a kill, a stop, a cut, a clean stop
  weir-jepsen plan 7 > plan.json           what seed 7 would do: edit it ...
  weir-jepsen run --plan plan.json         ... and run it
  weir-jepsen judge history.jsonl          the checkers alone, on a history of any Kafka-compatible system

A run needs no privileges: brokers are killed and stopped by signals, and links are cut by TCP proxies, of which there is one
in front of each broker's listener. The plan is drawn from the seed; what processes then make of it differs from run to run.

Exit codes: 0 all held, 1 something was found, 2 wrong usage, 3 the run could not be carried out.";

#[derive(Subcommand)]
enum Task {
    /// Brokers, clients and faults in turn, then everything is read and judged.
    Run {
        /// Length of the load in minutes.
        #[arg(long, default_value_t = 10.0, conflicts_with = "plan")]
        minutes: f64,
        /// Run this plan instead of drawing one.
        #[arg(long, value_name = "FILE")]
        plan: Option<PathBuf>,
        #[command(flatten)]
        common: Common,
    },
    /// How long writes fail: each kind of fault strikes each broker once a round, and nothing else happens.
    Failover {
        /// How often each broker is struck by each kind.
        #[arg(long, default_value_t = 3)]
        rounds: u32,
        #[command(flatten)]
        common: Common,
    },
    /// Print a seed's plan as JSON.
    Plan {
        /// The seed.
        seed: u64,
        /// Brokers.
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=7))]
        nodes: u32,
        /// Length of the load in minutes.
        #[arg(long, default_value_t = 10.0)]
        minutes: f64,
    },
    /// Judge a history that was written before.
    Judge {
        /// Events as JSON lines.
        history: PathBuf,
        /// What the system owes, as JSON; by default acks=all, replicated, without loss of power.
        #[arg(long, value_name = "FILE")]
        promise: Option<PathBuf>,
    },
}

#[derive(Args)]
struct Common {
    /// The broker's binary; by default `weir-broker` beside this program.
    #[arg(long, value_name = "FILE")]
    broker: Option<PathBuf>,
    /// Brokers; a plan says itself how many.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=7))]
    nodes: u32,
    /// Decides the plan; by default drawn from the clock.
    #[arg(long)]
    seed: Option<u64>,
    /// A setting of every broker; may be repeated.
    #[arg(long = "setting", value_name = "NAME=VALUE", value_parser = setting)]
    settings: Vec<(String, String)>,
    /// The script that starts librdkafka's clients (jepsen-like/interop/processes/clients); without it only ours work.
    #[arg(long, value_name = "FILE")]
    librdkafka: Option<PathBuf>,
    /// Where folders, logs, plan and history are put; by default a new folder among the temporary ones, which a clean run
    /// removes.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// How the outcome is printed.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Text,
    Json,
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("'{text}' is not NAME=VALUE"))?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Why a run could not be carried out.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("cannot read {path}: {source}")]
    Unreadable { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    History(#[from] HistoryError),
    #[error(transparent)]
    Task(#[from] JoinError),
    #[error(
        "there is no broker at {path}; build it (cargo build --release --package weir-broker) or name one with --broker"
    )]
    NoBroker { path: PathBuf },
    #[error("a broker did not become ready within {limit:?}; see {}/broker.log", folder.display())]
    NotReady { folder: PathBuf, limit: Duration },
    #[error("the topics were not created within {limit:?}")]
    NoTopics { limit: Duration },
    #[error("a topic cannot be created: {0}")]
    Client(#[from] Box<weir_client::Error>),
    #[error("cannot start {script}: {source}")]
    Script { script: PathBuf, source: io::Error },
    #[error("librdkafka's clients: {status}; see {log}")]
    Librdkafka { status: String, log: PathBuf },
    #[error("interrupted")]
    Interrupted,
}

fn main() -> ExitCode {
    match perform(Cli::parse().task) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("weir-jepsen: {failure}");
            ExitCode::from(if matches!(failure, Failure::Plan(_) | Failure::NoBroker { .. }) { 2 } else { 3 })
        }
    }
}

/// Does what was asked. `Ok(false)` if something was found.
fn perform(task: Task) -> Result<bool, Failure> {
    match task {
        Task::Run { minutes, plan, common } => {
            let plan = match plan {
                Some(path) => {
                    let text = std::fs::read_to_string(&path);
                    Plan::from_json(&text.map_err(|source| Failure::Unreadable { path, source })?)?
                }
                None => {
                    Plan::draw(common.seed(), common.nodes, duration_ms(minutes), common.librdkafka.is_some())
                }
            };
            carry_out(plan, &common)
        }
        Task::Failover { rounds, common } => {
            carry_out(Plan::failover(common.seed(), common.nodes, rounds), &common)
        }
        Task::Plan { seed, nodes, minutes } => {
            print(&Plan::draw(seed, nodes, duration_ms(minutes), true).to_json())?;
            Ok(true)
        }
        Task::Judge { history, promise } => {
            let verdict = run::judge_file(&history, promise.as_deref())?;
            print(&verdict.to_string())?;
            Ok(verdict.is_clean())
        }
    }
}

fn duration_ms(minutes: f64) -> u64 {
    (minutes * 60_000.0) as u64
}

impl Common {
    fn seed(&self) -> u64 {
        self.seed.unwrap_or_else(|| weir_runtime::time::wall_ms().unsigned_abs())
    }

    fn broker(&self) -> Result<PathBuf, Failure> {
        let path = match &self.broker {
            Some(path) => path.clone(),
            None => std::env::current_exe()?.with_file_name("weir-broker"),
        };
        if path.is_file() { Ok(path) } else { Err(Failure::NoBroker { path }) }
    }
}

fn carry_out(mut plan: Plan, common: &Common) -> Result<bool, Failure> {
    plan.settings.extend(common.settings.iter().cloned());
    let folder = match &common.dir {
        Some(folder) => folder.clone(),
        None => std::env::temp_dir().join(format!("weir-jepsen-{}-{}", plan.seed, std::process::id())),
    };
    std::fs::create_dir_all(&folder)?;
    let surroundings = Surroundings {
        broker: common.broker()?,
        folder: folder.clone(),
        librdkafka: common.librdkafka.clone(),
    };
    eprintln!(
        "{} nodes, {} faults, seed {}, in {}",
        plan.nodes,
        plan.faults.len(),
        plan.seed,
        folder.display()
    );
    let report = task::block_on(RuntimeOptions::default(), run::run(&plan, &surroundings))??;
    tell(&report, common.output)?;
    if report.is_clean() && common.dir.is_none() {
        remove(&folder);
    }
    Ok(report.is_clean())
}

fn tell(report: &Report, output: Output) -> Result<(), Failure> {
    match output {
        Output::Text => print(&report.text()),
        Output::Json => print(&serde_json::to_string_pretty(report).map_err(io::Error::from)?),
    }
}

fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}

fn remove(folder: &Path) {
    if let Err(error) = std::fs::remove_dir_all(folder) {
        eprintln!("weir-jepsen: {} remains: {error}", folder.display());
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        super::Cli::command().debug_assert();
    }
}
