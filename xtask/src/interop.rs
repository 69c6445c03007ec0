//! `cargo xtask interop` and `cargo xtask durability`: real clients against a real broker process.

mod broker;
mod cluster;
mod matrix;
mod script;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;

pub(crate) use self::broker::{Broker, build_broker};
pub(crate) use self::cluster::Cluster;
use self::matrix::Matrix;
use self::script::{Finished, last_lines, run_script};

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
    /// How many clients run side by side.
    #[arg(long, default_value_t = 4)]
    jobs: usize,
    /// Use the broker at this address instead of starting one.
    #[arg(long, value_name = "HOST:PORT")]
    bootstrap: Option<String>,
    /// Start Apache Kafka instead of a broker of ours: a case that fails there too is the case's fault.
    #[arg(long, conflicts_with = "bootstrap")]
    apache_kafka: bool,
    /// Three nodes of a cluster, in place of one broker.
    #[arg(long, conflicts_with = "bootstrap")]
    cluster: bool,
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

/// The cases of which every client's script says what became of them, be it that the client has no means for one.
const COMMON_CASES: [&str; 15] = [
    "create",
    "produce-consume-none",
    "produce-consume-gzip",
    "produce-consume-snappy",
    "produce-consume-lz4",
    "produce-consume-zstd",
    "idempotence",
    "headers",
    "timestamps",
    "nulls",
    "seek",
    "offsets-by-time",
    "group",
    "commit-resume",
    "admin",
];

/// Whom the clients are tried against.
enum Target {
    Broker(Broker),
    Cluster(Cluster),
}

impl Target {
    fn start(root: &Path, work: &Path, options: &Interop) -> Result<Target> {
        // New groups do not wait for members to come.
        let settings = ["group.initial.rebalance.delay.ms=0".to_owned()];
        Ok(match &options.bootstrap {
            Some(address) => Target::Broker(Broker::at(address)),
            None => match (options.cluster, options.apache_kafka) {
                (true, true) => Target::Cluster(Cluster::start_apache_kafka(root, work)?),
                (true, false) => Target::Cluster(Cluster::start_weir(root, work, &settings)?),
                (false, true) => Target::Broker(Broker::start_apache_kafka(root, work)?),
                (false, false) => Target::Broker(Broker::start_with(root, work, &settings)?),
            },
        })
    }

    /// Where clients begin.
    fn bootstrap(&self) -> &str {
        match self {
            Target::Broker(broker) => &broker.address,
            Target::Cluster(cluster) => &cluster.bootstrap,
        }
    }

    /// What the broker, or each node, has to say.
    fn logs(&self, work: &Path) -> Vec<PathBuf> {
        match self {
            Target::Broker(_) => vec![work.join("broker.log")],
            Target::Cluster(cluster) => {
                let nodes = 1..=cluster.processes.len();
                nodes.map(|number| work.join(format!("weir-{number}/broker.log"))).collect()
            }
        }
    }
}

/// Runs every client's cases and prints the matrix.
pub(crate) fn run(root: &Path, options: &Interop) -> Result<()> {
    let work = work_folder(root)?;
    let clients = clients(root, &options.only)?;
    let target = Target::start(root, &work, options)?;
    let start = Instant::now();
    let outcomes = side_by_side(clients, options.jobs.max(1), |client, script| {
        let mut command = Command::new(script);
        command.arg(target.bootstrap()).env("WORK", &work).env_remove("SHORT");
        if options.short {
            command.env("SHORT", "1");
        }
        let mut lines = Vec::new();
        let finished =
            run_script(client, &mut command, &work.join("logs"), |line| lines.push(line.to_owned()))?;
        show(&finished, &lines);
        Ok(finished)
    })?;
    let took = start.elapsed().as_secs_f64();
    let logs = target.logs(&work);
    drop(target);
    let mut matrix = Matrix::default();
    for finished in outcomes.iter().filter(|finished| finished.cannot_install().is_none()) {
        matrix.add(&finished.client, &finished.version, &finished.cases);
    }
    println!("\n{}", if options.markdown { matrix.markdown() } else { matrix.text() });
    for finished in &outcomes {
        println!("{:>6.1} s  {}", finished.took.as_secs_f64(), finished.client);
    }
    println!("{took:>6.1} s  all of them, {} at a time", options.jobs.max(1));
    report(&outcomes, &COMMON_CASES, options.strict, &logs)
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
    let finished = run_script("durability", &mut command, &work.join("logs"), |line| println!("    {line}"))?;
    report(&[finished], &[], options.strict, &[work.join("broker.log")])
}

/// Runs the clients' scripts, so many at a time, and returns what became of them in the clients' order.
fn side_by_side<'a>(
    clients: Vec<(String, PathBuf)>,
    jobs: usize,
    run: impl Fn(&str, &Path) -> Result<Finished> + Sync + 'a,
) -> Result<Vec<Finished>> {
    let mut waiting = clients;
    waiting.sort_by_key(|(client, _)| urgency(client)); // taken from the end
    let waiting = Mutex::new(waiting);
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let mut outcomes = Vec::new();
    std::thread::scope(|scope| {
        let worker = || {
            let mut done = Vec::new();
            while let Some((client, script)) = next() {
                done.push(run(&client, &script));
            }
            done
        };
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(worker)).collect();
        for worker in workers {
            match worker.join() {
                Ok(done) => outcomes.extend(done),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    let mut outcomes = outcomes.into_iter().collect::<Result<Vec<_>>>()?;
    outcomes.sort_by(|a, b| a.client.cmp(&b.client));
    Ok(outcomes)
}

/// What takes longest to build and to run is started first, so that nobody waits for it at the end.
fn urgency(client: &str) -> u32 {
    match client {
        "rdkafka" | "weir" => 4,
        "java" | "sarama" => 3,
        "franz-go" | "kafka-python" => 2,
        "rskafka" => 0, // it would only wait for rdkafka's build, which is its own, too
        _ => 1,
    }
}

/// What a client's script printed, in one piece whoever else prints.
fn show(finished: &Finished, lines: &[String]) {
    let lines: String = lines.iter().map(|line| format!("    {line}\n")).collect();
    println!("{}\n{lines}    # {:.1} s", finished.client, finished.took.as_secs_f64());
}

/// Says what failed, and what the client and the broker had to say about it; names the clients that are missing.
fn report(outcomes: &[Finished], expected: &[&str], strict: bool, broker_logs: &[PathBuf]) -> Result<()> {
    let mut count = 0;
    for finished in outcomes {
        let failures = finished.failures(expected, strict);
        if failures.is_empty() {
            finished.cannot_install().inspect(|why| println!("SKIPPED {}: {why}", finished.client));
            continue;
        }
        count += failures.len();
        println!();
        failures.iter().for_each(|failure| println!("FAILED {failure}"));
        finished.own_words().iter().for_each(|line| println!("    {}> {line}", finished.client));
    }
    if count == 0 {
        return Ok(());
    }
    let complains = |line: &str| [" WARN ", " ERROR ", "panicked"].iter().any(|mark| line.contains(mark));
    for (log, number) in broker_logs.iter().zip(1..) {
        for line in last_lines(log, complains) {
            println!("    broker {number}> {line}");
        }
    }
    bail!("{count} cases failed")
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
