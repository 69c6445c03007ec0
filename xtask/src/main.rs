//! `cargo xtask …`: the one entry for developers' tasks.
#![allow(clippy::disallowed_methods)] // a developer's tool: it runs commands and reads the checkout, and is never simulated

mod bench;
mod interop;
mod jepsen;
mod steps;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Developers' tasks of Weir.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask test                 everything that guards main, except long fuzzing
  cargo xtask test --only tests    one step of it
  cargo xtask ci                   the same as CI runs it: a missing client is an error
  cargo xtask tidy                 the project's own lints, in a second
  cargo xtask jepsen --minutes 10  three brokers as processes, faults in turn
  cargo xtask bench disk           what this machine's disk does, and why there is a journal";

#[derive(Subcommand)]
enum Task {
    /// Format, lint, test, simulate and try with real clients: all that must hold before a commit lands on main.
    Test(steps::Options),
    /// What CI runs: `test` with nothing skipped and a minute of fuzzing for each parser.
    Ci(steps::Options),
    /// The project's own lints: floors between the crates, links in the docs, length of files, rules without a test.
    Tidy,
    /// Real clients against a real broker: each client's cases, as a matrix.
    Interop(interop::Interop),
    /// Kill a broker under load, again and again, and read every acknowledged record back.
    Durability(interop::Durability),
    /// Real brokers are killed, stopped and cut off in turn; no acknowledged record may be lost.
    Jepsen(jepsen::Jepsen),
    /// Measure on this machine.
    #[command(subcommand)]
    Bench(bench::Bench),
}

fn main() -> ExitCode {
    let root = workspace_root();
    let outcome = match Cli::parse().task {
        Task::Test(options) => steps::run(&root, &options, std::env::var_os("CI").is_some()),
        Task::Ci(options) => steps::run(&root, &options, true),
        Task::Tidy => tidy::run(&root),
        Task::Interop(options) => interop::run(&root, &options),
        Task::Durability(options) => interop::durability(&root, &options),
        Task::Jepsen(options) => jepsen::run(&root, &options),
        Task::Bench(bench) => bench::run(&root, &bench),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The folder of the workspace, wherever the task was started from.
fn workspace_root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_path_buf()
}
