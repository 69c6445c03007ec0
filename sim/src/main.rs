//! `cargo sim …`: runs, replays and shortens simulations.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use weir_defect::Defect;
use weir_runtime::simulation;
use weir_sim::plan::Plan;
use weir_sim::report::Report;
use weir_sim::runner::{About, Batch, run_batch};
use weir_sim::{minimise, run, swarm, zoo};

/// Whole brokers and clients under seeded faults.
#[derive(Parser)]
#[command(name = "cargo sim", bin_name = "cargo sim", after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

const EXAMPLES: &str = "\
Examples:
  cargo sim run --seeds 1000                     a thousand runs, stops at the first failure
  cargo sim replay 42 --trace                    one run again, event by event
  cargo sim replay 42 --defect corrupt_as_torn   the same with a known bug put back
  cargo sim plan 42 > plan.json                  the run as data: edit it ...
  cargo sim replay --plan plan.json              ... and run it
  cargo sim minimise 42 --out short.json         the shortest plan that still fails
  RUST_LOG=info cargo sim replay 42              what the broker says of itself, on standard error
  cargo sim regressions                          every plan again that once found a bug
  cargo sim zoo                                  how many seeds find each known bug

Exit codes: 0 everything held, 1 something failed, 2 usage.";

#[derive(Subcommand)]
enum Task {
    /// Run many seeds on all cores and stop at the first failure.
    Run {
        /// How many.
        #[arg(long, default_value_t = 100)]
        seeds: u64,
        /// The first one.
        #[arg(long, default_value_t = 1)]
        from: u64,
        /// Worker threads; by default one for each core.
        #[arg(long)]
        threads: Option<usize>,
        /// What the seeds are about: one node alone, clusters, or both in turn.
        #[arg(long, value_enum, default_value = "both")]
        about: About,
        /// Go on after a failure, and count what fails how often.
        #[arg(long)]
        keep_going: bool,
    },
    /// Run one seed or one plan again.
    Replay {
        #[command(flatten)]
        which: Which,
        /// Print every event.
        #[arg(long)]
        trace: bool,
        /// Run it twice and show the first event in which the two runs differ.
        #[arg(long)]
        twice: bool,
        /// Write the brokers' files, as they are in the end, to this folder.
        #[arg(long, value_name = "DIR")]
        disks: Option<PathBuf>,
        /// Write the clients' history as JSON lines to this file.
        #[arg(long, value_name = "FILE")]
        history: Option<PathBuf>,
    },
    /// Write a page that shows one run: a lane for each node, partition and client.
    Draw {
        #[command(flatten)]
        which: Which,
        /// Where to.
        #[arg(long, value_name = "FILE", default_value = "run.html")]
        out: PathBuf,
    },
    /// Print a seed's plan as JSON.
    Plan {
        /// The seed.
        #[arg(value_parser = swarm::by_name)]
        seed: u64,
    },
    /// Find the shortest plan that still fails.
    Minimise {
        #[command(flatten)]
        which: Which,
        /// Runs to spend at the most.
        #[arg(long, default_value_t = 500)]
        runs: usize,
        /// Write the plan to this file instead of standard output.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Run every plan again that once found a bug.
    Regressions {
        /// The folder of the plans.
        #[arg(default_value = "sim/regressions")]
        folder: PathBuf,
    },
    /// Put each known bug back and count the seeds that it takes to find it.
    Zoo {
        /// Only these defects, by switch or id; by default all that this version can have.
        defects: Vec<String>,
        /// What the seeds are about.
        #[arg(long, value_enum, default_value = "both")]
        about: About,
        /// The most seeds to try for each.
        #[arg(long, default_value_t = zoo::SEEDS_MAX)]
        seeds: u64,
        /// The first seed.
        #[arg(long, default_value_t = 1)]
        from: u64,
        /// Worker threads; by default one for each core.
        #[arg(long)]
        threads: Option<usize>,
    },
    /// Print the hash over all events of a seed's run.
    #[command(hide = true)]
    Hash {
        #[arg(value_parser = swarm::by_name)]
        seed: u64,
    },
}

#[derive(clap::Args)]
struct Which {
    /// The seed: a number, or c and a number, which is about a cluster.
    #[arg(required_unless_present = "plan", conflicts_with = "plan", value_parser = swarm::by_name)]
    seed: Option<u64>,
    /// A plan file instead of a seed.
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
    /// Put this known bug back, by switch or id; may be repeated.
    #[arg(long = "defect", value_name = "NAME")]
    defects: Vec<String>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if std::env::var_os("RUST_LOG").is_some() {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).without_time().init();
    }
    if !simulation::AVAILABLE {
        eprintln!(
            "weir-sim: this is not a simulation build, so there is nothing to simulate with: it lacks --cfg madsim. Start it \
             as `cargo sim`, and without RUSTFLAGS in the environment, which overrides that flag."
        );
        return ExitCode::from(2);
    }
    match perform(cli.task) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("weir-sim: {message}");
            ExitCode::from(2)
        }
    }
}

/// Does what was asked. `Ok(false)` if something failed that should hold.
fn perform(task: Task) -> Result<bool, String> {
    match task {
        Task::Run { seeds, from, threads, about, keep_going } => {
            let summary = run_batch(
                Batch { first: from, about, seeds, threads: threads_or_cores(threads), keep_going },
                &[],
                true,
            );
            println!("{}", summary.tables());
            for complaint in &summary.complaints {
                println!("FAILED {complaint}");
            }
            if let Some((seed, report)) = &summary.failure {
                print_failure(*seed, report);
            }
            Ok(summary.is_clean())
        }
        Task::Replay { which, twice: true, .. } => compare(&which),
        Task::Replay { which, trace, history, disks, .. } => replay(&which, trace, history, disks),
        Task::Draw { which, out } => draw(&which, &out),
        Task::Plan { seed } => {
            println!("{}", swarm::plan(seed).to_json());
            Ok(true)
        }
        Task::Minimise { which, runs, out } => shorten(&which, runs, out),
        Task::Regressions { folder } => regressions(&folder),
        Task::Zoo { defects, about, seeds, from, threads } => {
            let threads = threads_or_cores(threads);
            let batch = Batch { first: from, about, seeds, threads, keep_going: false };
            let chosen = if defects.is_empty() { zoo::BUILT.to_vec() } else { by_name(&defects)? };
            let mut hunts = Vec::new();
            for defect in chosen {
                eprintln!("hunting {} {}", defect.id(), defect.name());
                hunts.push(zoo::hunt(defect, batch));
            }
            println!("{}", zoo::tables(&hunts));
            Ok(hunts.iter().all(|hunt| hunt.found.is_some() && hunt.holds_without))
        }
        Task::Hash { seed } => {
            println!("{:016x}", run::run(&swarm::plan(seed), &[], false).hash);
            Ok(true)
        }
    }
}

fn threads_or_cores(threads: Option<usize>) -> usize {
    threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
}

fn by_name(names: &[String]) -> Result<Vec<Defect>, String> {
    names
        .iter()
        .map(|name| {
            Defect::by_name(name).ok_or_else(|| format!("the zoo has no defect '{name}'; see docs/bugs/"))
        })
        .collect()
}

fn load(which: &Which) -> Result<(Plan, Vec<Defect>), String> {
    let plan = match (&which.plan, which.seed) {
        (Some(path), _) => read_plan(path)?,
        (None, Some(seed)) => swarm::plan(seed),
        (None, None) => return Err("a seed or --plan is needed".to_owned()),
    };
    Ok((plan, by_name(&which.defects)?))
}

fn read_plan(path: &Path) -> Result<Plan, String> {
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    Plan::from_json(&text).map_err(|error| format!("{}: {error}", path.display()))
}

/// Runs the plans of a folder; all of them, so that one failure does not hide another.
fn regressions(folder: &Path) -> Result<bool, String> {
    let unreadable = |error: std::io::Error| format!("cannot read {}: {error}", folder.display());
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        paths.push(entry.map_err(unreadable)?.path());
    }
    paths.sort();
    let mut is_clean = true;
    for path in &paths {
        let report = run::run(&read_plan(path)?, &[], false);
        println!("{} {}", if report.is_clean() { "held  " } else { "FAILED" }, path.display());
        for finding in &report.findings {
            println!("       {}: {}", finding.name, finding.text);
        }
        is_clean &= report.is_clean();
    }
    println!("{} plans", paths.len());
    Ok(is_clean)
}

#[expect(clippy::disallowed_methods, reason = "the tool's own files, outside any simulation")]
fn write(path: &PathBuf, text: &[u8]) -> Result<(), String> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)
            .map_err(|error| format!("cannot create {}: {error}", folder.display()))?;
    }
    std::fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
}

/// One line for each thing that happened or was told: simulated milliseconds, the node, the kind of event, its particulars.
fn lines(report: &Report) -> Vec<String> {
    let line = |at_ms: f64, node: u32, kind: &str, text: &str| {
        let node = if node == 0 { "world".to_owned() } else { format!("node {node}") };
        (at_ms, format!("{at_ms:>12.3} {node:<8} {kind:<28} {text}"))
    };
    let moments = report.moments.iter().map(|m| line(m.at_ms, m.node, m.kind, &m.text));
    let told = report.told.iter().map(|t| line(t.at_ms, t.node, "tells", &format!("{:?}", t.fact)));
    let mut all: Vec<_> = moments.chain(told).collect();
    all.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    all.into_iter().map(|(_, line)| line).collect()
}

/// Writes the page that shows a run.
fn draw(which: &Which, out: &Path) -> Result<bool, String> {
    let (plan, defects) = load(which)?;
    let report = run::run(&plan, &defects, true);
    let title = match &which.plan {
        Some(path) => path.display().to_string(),
        None => format!("seed {}", swarm::name(plan.seed)),
    };
    write(&out.to_path_buf(), weir_sim::draw::page(&title, &report).as_bytes())?;
    println!("{}: {} findings", out.display(), report.findings.len());
    Ok(report.is_clean())
}

fn replay(
    which: &Which,
    trace: bool,
    history: Option<PathBuf>,
    disks: Option<PathBuf>,
) -> Result<bool, String> {
    let (plan, defects) = load(which)?;
    let report = run::run(&plan, &defects, trace || disks.is_some());
    if trace {
        lines(&report).iter().for_each(|line| println!("{line}"));
    }
    if let Some(folder) = disks {
        for (path, content) in &report.files {
            write(&folder.join(path), content)?;
        }
    }
    if let Some(path) = history {
        let mut lines = Vec::new();
        weir_jepsen::history::write_events(&mut lines, &report.history).map_err(|error| error.to_string())?;
        write(&path, &lines)?;
    }
    for (kind, times) in &report.struck {
        println!("struck {times} × {kind}");
    }
    for met in &report.situations {
        println!("met {met}");
    }
    println!(
        "{} operations acknowledged, {} events in {:.1} simulated seconds, hash {:016x}",
        report.acknowledged,
        report.events,
        report.simulated.as_secs_f64(),
        report.hash
    );
    for finding in &report.findings {
        println!("{}: {}", finding.name, finding.text);
    }
    Ok(report.is_clean())
}

/// Whether two runs of a plan in this process are the same, event by event.
fn compare(which: &Which) -> Result<bool, String> {
    let (plan, defects) = load(which)?;
    let [one, two] = [(); 2].map(|()| run::run(&plan, &defects, true));
    let [first, second] = [&one, &two].map(lines);
    let differs = first.iter().zip(&second).position(|(one, two)| one != two);
    match differs {
        None if one.hash == two.hash => {
            println!("{} events, and both runs have the hash {:016x}", one.events, one.hash);
            return Ok(true);
        }
        None => println!("the traces agree, and the hashes do not: {:016x}, {:016x}", one.hash, two.hash),
        Some(at) => {
            first[at.saturating_sub(10)..at].iter().for_each(|line| println!("  {line}"));
            println!("1 {}\n2 {}", first[at], second[at]);
        }
    }
    Ok(false)
}

fn shorten(which: &Which, runs: usize, out: Option<PathBuf>) -> Result<bool, String> {
    let (plan, defects) = load(which)?;
    let report = run::run(&plan, &defects, false);
    let Some(finding) = report.findings.first() else { return Err("this run does not fail".to_owned()) };
    let name = finding.name.clone();
    let fails =
        |plan: &Plan| run::run(plan, &defects, false).findings.iter().any(|finding| finding.name == name);
    let (shortest, spent) = minimise::minimise(&plan, runs, fails);
    eprintln!("{name}: {} faults of {} remain, after {spent} runs", shortest.faults.len(), plan.faults.len());
    match out {
        Some(path) => write(&path, shortest.to_json().as_bytes())?,
        None => println!("{}", shortest.to_json()),
    }
    Ok(true)
}

fn print_failure(seed: u64, report: &Report) {
    let name = swarm::name(seed);
    println!("\nFAILED seed {name}");
    for finding in &report.findings {
        println!("{}: {}", finding.name, finding.text);
    }
    let again = run::run(&swarm::plan(seed), &[], false);
    if again.hash != report.hash {
        println!("and it is not deterministic: {:016x}, then {:016x}", report.hash, again.hash);
    }
    println!(
        "\nreplay it with\n    cargo sim replay {name} --trace\nshorten it with\n    cargo sim minimise {name}"
    );
}
