//! `cargo xtask jepsen` and `cargo xtask bench failover`: real broker processes under real faults.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::interop::build_broker;

/// What `weir-jepsen run` is told.
#[derive(Args)]
pub(crate) struct Jepsen {
    /// Length of the load in minutes.
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Brokers.
    #[arg(long, default_value_t = 3)]
    nodes: u32,
    /// Decides the faults; by default drawn from the clock.
    #[arg(long)]
    seed: Option<u64>,
    /// librdkafka that cannot be installed is a failure; otherwise only our clients work then.
    #[arg(long)]
    strict: bool,
}

/// What `weir-jepsen failover` is told.
#[derive(Args)]
pub(crate) struct Failover {
    /// How often each broker is struck by each kind of fault.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Brokers.
    #[arg(long, default_value_t = 3)]
    nodes: u32,
}

/// Brokers, clients and faults in turn; what a failed run leaves stays in `target/jepsen`.
pub(crate) fn run(root: &Path, options: &Jepsen) -> Result<()> {
    let (mut command, broker) = program(root)?;
    command.arg("run").arg("--broker").arg(broker);
    command.args(["--minutes", &options.minutes.to_string(), "--nodes", &options.nodes.to_string()]);
    command.args(options.seed.iter().flat_map(|seed| ["--seed".to_owned(), seed.to_string()]));
    let clients = root.join("jepsen-like/interop/processes/clients");
    let work = root.join("target/interop");
    let installed = Command::new(&clients).arg("--install").env("WORK", &work).status();
    if installed.context("the clients' script could not be started")?.success() {
        command.arg("--librdkafka").arg(clients).env("WORK", work);
    } else if options.strict {
        bail!("librdkafka could not be installed");
    } else {
        println!("SKIPPED librdkafka, which could not be installed");
    }
    finish(root, &mut command)
}

/// How long writes fail, on the machine that it runs on.
pub(crate) fn failover(root: &Path, options: &Failover) -> Result<()> {
    let (mut command, broker) = program(root)?;
    command.arg("failover").arg("--broker").arg(broker);
    command.args(["--rounds", &options.rounds.to_string(), "--nodes", &options.nodes.to_string()]);
    finish(root, &mut command)
}

/// The program, and the broker that it starts, which is built as it is measured elsewhere.
fn program(root: &Path) -> Result<(Command, PathBuf)> {
    let broker = build_broker(root)?;
    let status = Command::new(env!("CARGO"))
        .current_dir(root)
        .args(["build", "--quiet", "--package", "weir-jepsen"])
        .status()
        .context("cargo could not be started")?;
    if !status.success() {
        bail!("weir-jepsen does not build");
    }
    let target = broker.ancestors().nth(2).context("the broker lies in no target folder")?;
    let mut command = Command::new(target.join("debug/weir-jepsen"));
    command.current_dir(root);
    Ok((command, broker))
}

fn finish(root: &Path, command: &mut Command) -> Result<()> {
    let folder = root.join("target/jepsen");
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    let status = command.arg("--dir").arg(&folder).status().context("weir-jepsen could not be started")?;
    if status.success() { Ok(()) } else { bail!("weir-jepsen ended with {status}") }
}
