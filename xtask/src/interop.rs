//! `cargo xtask interop` and `cargo xtask durability`: real clients against a real broker process.

mod broker;
mod matrix;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;

pub(crate) use self::broker::Broker;
use self::matrix::{Matrix, Outcome};

/// The exit code by which a client's script says that the client cannot be installed here.
const CANNOT_INSTALL: i32 = 77;

/// Which clients, and against whom.
#[derive(Args)]
pub(crate) struct Interop {
    /// Only these clients, by the names of their folders in jepsen-like/interop.
    #[arg(long, value_name = "CLIENT", value_delimiter = ',')]
    only: Vec<String>,
    /// Fewer records: what CI runs.
    #[arg(long)]
    short: bool,
    /// A client that cannot be installed is a failure, not a skip.
    #[arg(long)]
    strict: bool,
    /// Use the broker at this address instead of starting one.
    #[arg(long, value_name = "HOST:PORT")]
    bootstrap: Option<String>,
    /// Start Apache Kafka instead of a broker of ours: a case that fails there too is the case's fault.
    #[arg(long, conflicts_with = "bootstrap")]
    apache_kafka: bool,
    /// Print the matrix as a Markdown table, for docs/compatibility.md.
    #[arg(long)]
    markdown: bool,
}

/// How much, and how often the broker is killed.
#[derive(Args)]
pub(crate) struct Durability {
    /// Gigabytes (10^9 bytes) to produce in all.
    #[arg(long, default_value_t = 0.3)]
    gigabytes: f64,
    /// How often the broker is killed with SIGKILL.
    #[arg(long, default_value_t = 3)]
    kills: u32,
    /// A client that cannot be installed is a failure, not a skip.
    #[arg(long)]
    strict: bool,
}

/// Runs every client's cases and prints the matrix.
pub(crate) fn run(root: &Path, options: &Interop) -> Result<()> {
    let work = work_folder(root)?;
    let clients = clients(root, &options.only)?;
    let broker = match &options.bootstrap {
        Some(address) => Broker::at(address),
        None if options.apache_kafka => Broker::start_apache_kafka(root, &work)?,
        None => Broker::start(root, &work)?,
    };
    let mut matrix = Matrix::default();
    let mut failures = Vec::new();
    for (client, script) in clients {
        println!("{client}");
        let mut command = Command::new(script);
        command.arg(&broker.address).env("WORK", &work);
        if options.short {
            command.env("SHORT", "1");
        } else {
            command.env_remove("SHORT");
        }
        let start = Instant::now();
        let finished = run_script(&client, command)?;
        println!("    # {:.1} s", start.elapsed().as_secs_f64());
        failures.extend(finished.failures(&client, options.strict));
        if !finished.cannot_install() {
            matrix.add(&client, &finished.cases);
        }
    }
    drop(broker);
    println!("\n{}", if options.markdown { matrix.markdown() } else { matrix.text() });
    finish(&failures)
}

/// Kills a broker under load and reads everything back.
pub(crate) fn durability(root: &Path, options: &Durability) -> Result<()> {
    let work = work_folder(root)?;
    let mut command = Command::new(root.join("jepsen-like/interop/durability/run"));
    command
        .arg(broker::build_broker(root)?)
        .arg(options.gigabytes.to_string())
        .arg(options.kills.to_string())
        .env("WORK", &work);
    finish(&run_script("durability", command)?.failures("durability", options.strict))
}

/// What a client's script said, and how it ended.
struct Finished {
    cases: Vec<(String, Outcome)>,
    status: ExitStatus,
}

/// Runs a script and shows its lines as they come.
fn run_script(client: &str, mut command: Command) -> Result<Finished> {
    let mut script = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run the script of {client}"))?;
    let mut cases = Vec::new();
    for line in BufReader::new(script.stdout.take().context("the script has no output")?).lines() {
        let line = line?;
        println!("    {line}");
        cases.extend(Outcome::parse(&line).map(|(case, outcome)| (case.to_owned(), outcome)));
    }
    Ok(Finished { cases, status: script.wait()? })
}

impl Finished {
    fn cannot_install(&self) -> bool {
        self.status.code() == Some(CANNOT_INSTALL)
    }

    /// What counts as failed, a line each.
    fn failures(&self, client: &str, strict: bool) -> Vec<String> {
        let mut failures: Vec<_> = self
            .cases
            .iter()
            .filter_map(|(case, outcome)| match outcome {
                Outcome::Failed(why) => Some(format!("{client}: {case}: {why}")),
                Outcome::Ok | Outcome::Skipped(_) => None,
            })
            .collect();
        if self.cannot_install() {
            failures.extend(strict.then(|| format!("{client}: cannot be installed")));
        } else if !self.status.success() && failures.is_empty() {
            failures.push(format!("{client}: ended with {}", self.status));
        } else if !self.cases.iter().any(|(_, outcome)| *outcome == Outcome::Ok) && failures.is_empty() {
            failures.push(format!("{client}: ran no case"));
        }
        failures
    }
}

fn finish(failures: &[String]) -> Result<()> {
    for failure in failures {
        println!("FAILED {failure}");
    }
    if failures.is_empty() { Ok(()) } else { bail!("{} cases failed", failures.len()) }
}

/// The clients by name, with their scripts.
fn clients(root: &Path, only: &[String]) -> Result<Vec<(String, PathBuf)>> {
    let folder = root.join("jepsen-like/interop");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let entry = entry?;
        let (name, script) = (entry.file_name().to_string_lossy().into_owned(), entry.path().join("run"));
        if script.exists() && name != "durability" && (only.is_empty() || only.contains(&name)) {
            found.push((name, script));
        }
    }
    found.sort();
    match only.iter().find(|name| !found.iter().any(|(client, _)| client == *name)) {
        Some(unknown) => bail!("there is no client '{unknown}' in jepsen-like/interop"),
        None => Ok(found),
    }
}

fn work_folder(root: &Path) -> Result<PathBuf> {
    let work = root.join("target/interop");
    std::fs::create_dir_all(&work).with_context(|| format!("cannot create {}", work.display()))?;
    Ok(work)
}
