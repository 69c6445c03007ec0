//! `cargo xtask interop` and `cargo xtask durability`: real clients against a real broker process.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use clap::Args;

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
    let broker = match &options.bootstrap {
        Some(address) => Broker { address: address.clone(), process: None },
        None => Broker::start(root, &work)?,
    };
    let mut failures = Vec::new();
    for (client, script) in clients(root, &options.only)? {
        println!("{client}");
        let mut command = Command::new(script);
        command.arg(&broker.address).env("WORK", &work);
        if options.short {
            command.env("SHORT", "1");
        }
        failures.extend(judge(&client, command, options.strict)?);
    }
    drop(broker);
    finish(&failures)
}

/// Kills a broker under load and reads everything back.
pub(crate) fn durability(root: &Path, options: &Durability) -> Result<()> {
    let work = work_folder(root)?;
    let mut command = Command::new(root.join("jepsen-like/interop/durability/run"));
    command
        .arg(build_broker(root)?)
        .arg(options.gigabytes.to_string())
        .arg(options.kills.to_string())
        .env("WORK", &work);
    finish(&judge("durability", command, options.strict)?)
}

/// Runs a script, shows its lines, and returns the cases that count as failed.
fn judge(client: &str, mut command: Command, strict: bool) -> Result<Vec<String>> {
    let mut script = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run the script of {client}"))?;
    let mut failures = Vec::new();
    let mut cases = 0;
    for line in BufReader::new(script.stdout.take().context("the script has no output")?).lines() {
        let line = line?;
        println!("    {line}");
        cases += usize::from(line.starts_with("ok "));
        if let Some(case) = line.strip_prefix("not ok ") {
            failures.push(format!("{client}: {case}"));
        }
    }
    let status = script.wait()?;
    if status.code() == Some(CANNOT_INSTALL) {
        if strict {
            failures.push(format!("{client}: cannot be installed"));
        }
    } else if !status.success() && failures.is_empty() {
        failures.push(format!("{client}: ended with {status}"));
    } else if cases == 0 && failures.is_empty() {
        failures.push(format!("{client}: ran no case"));
    }
    Ok(failures)
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

fn build_broker(root: &Path) -> Result<PathBuf> {
    let status = Command::new(env!("CARGO"))
        .current_dir(root)
        .args(["build", "--quiet", "--release", "--package", "weir-broker"])
        .status()
        .context("cargo could not be started")?;
    if !status.success() {
        bail!("the broker does not build");
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(target.join("release/weir-broker"))
}

/// A broker of ours on a free port, with an empty folder; it is killed when it is dropped.
pub(crate) struct Broker {
    pub(crate) address: String,
    process: Option<Child>,
}

impl Broker {
    fn start(root: &Path, work: &Path) -> Result<Broker> {
        Broker::start_with(root, work, &[])
    }

    /// Starts a broker with settings of its own, each as `name=value`.
    pub(crate) fn start_with(root: &Path, work: &Path, settings: &[String]) -> Result<Broker> {
        let config = work.join("server.properties");
        std::fs::write(&config, settings.join("\n") + "\n")?;
        let data = work.join("data");
        if data.exists() {
            std::fs::remove_dir_all(&data).with_context(|| format!("cannot empty {}", data.display()))?;
        }
        let log = std::fs::File::create(work.join("broker.log"))?;
        let mut process = Command::new(build_broker(root)?)
            .args(["--listen", "127.0.0.1:0", "--data-dir"])
            .arg(&data)
            .arg("--config")
            .arg(&config)
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context("the broker could not be started")?;
        let mut line = String::new();
        BufReader::new(process.stdout.take().context("the broker has no output")?).read_line(&mut line)?;
        match line.trim().strip_prefix("ready ") {
            Some(address) => Ok(Broker { address: address.to_owned(), process: Some(process) }),
            None => bail!("the broker did not become ready; see {}", work.join("broker.log").display()),
        }
    }

    /// The process, unless the broker is somebody else's.
    pub(crate) fn process(&self) -> Option<&Child> {
        self.process.as_ref()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.kill(); // it may have ended by itself, which the cases have shown
            let _ = process.wait();
        }
    }
}
