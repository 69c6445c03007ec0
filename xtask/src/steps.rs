//! The steps of `cargo xtask test`, in the order in which they find mistakes cheapest.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use clap::Args;

/// What to run.
#[derive(Args)]
pub(crate) struct Options {
    /// Run only these steps, by name (see --list).
    #[arg(long, value_name = "STEP", value_delimiter = ',')]
    only: Vec<String>,
    /// Leave these steps out.
    #[arg(long, value_name = "STEP", value_delimiter = ',')]
    skip: Vec<String>,
    /// Seeds of the fixed set, which are the same every time.
    #[arg(long, default_value_t = 400)]
    seeds: u64,
    /// Fresh seeds, which nobody has run before.
    #[arg(long, default_value_t = 100)]
    fresh_seeds: u64,
    /// List the steps and stop.
    #[arg(long)]
    list: bool,
}

/// The flags that build a simulation: the abstract runtime on madsim.
const SIMULATION: [&str; 4] = ["--config", "build.rustflags=['--cfg','madsim']", "--profile", "sim"];
/// Where the fixed set of seeds begins. The fixed set is the same on every machine and every day.
const FIXED_FIRST_SEED: u64 = 1;

struct Step {
    name: &'static str,
    what: &'static str,
    command: Command,
}

/// Runs the steps one after the other, all of them even after a failure, and prints a table of the outcomes.
pub(crate) fn run(root: &Path, options: &Options, strict: bool) -> Result<()> {
    let steps = steps(root, options, strict)?;
    if options.list {
        for step in &steps {
            println!("{:<12} {}", step.name, step.what);
        }
        return Ok(());
    }
    for name in options.only.iter().chain(&options.skip) {
        if !steps.iter().any(|step| step.name == *name) {
            bail!("there is no step '{name}'; `cargo xtask test --list` names them");
        }
    }
    let chosen = steps.into_iter().filter(|step| {
        (options.only.is_empty() || options.only.iter().any(|name| name == step.name))
            && !options.skip.iter().any(|name| name == step.name)
    });
    let outcomes: Vec<_> = chosen.map(execute).collect::<Result<_>>()?;
    summary(&outcomes)
}

struct Outcome {
    name: &'static str,
    passed: bool,
    took: Duration,
}

fn execute(mut step: Step) -> Result<Outcome> {
    println!("\n──── {}: {}", step.name, step.what);
    let start = Instant::now();
    let status = step.command.status().with_context(|| format!("step {} could not be started", step.name))?;
    Ok(Outcome { name: step.name, passed: status.success(), took: start.elapsed() })
}

fn summary(outcomes: &[Outcome]) -> Result<()> {
    println!();
    for Outcome { name, passed, took } in outcomes {
        println!("{} {name:<12} {:>6.1} s", if *passed { "ok    " } else { "FAILED" }, took.as_secs_f64());
    }
    let failed: Vec<_> =
        outcomes.iter().filter(|outcome| !outcome.passed).map(|outcome| outcome.name).collect();
    println!("{} passed, {} failed", outcomes.len() - failed.len(), failed.len());
    if failed.is_empty() { Ok(()) } else { bail!("failed: {}", failed.join(", ")) }
}

fn steps(root: &Path, options: &Options, strict: bool) -> Result<Vec<Step>> {
    let cargo = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO"));
        // RUSTFLAGS would override the flag that makes a build a simulation.
        command.current_dir(root).env_remove("RUSTFLAGS").args(arguments);
        command
    };
    let simulated = |arguments: &[&str], rest: &[&str]| {
        let mut command = cargo(&arguments[..1]);
        command.args(SIMULATION).args(&arguments[1..]).args(rest);
        command
    };
    let fresh_first =
        SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?.as_secs();
    let swarm = |first: u64, seeds: u64| {
        let mut command = simulated(&["run", "--quiet", "--package", "weir-sim"], &["--", "run"]);
        command.args(["--from", &first.to_string(), "--seeds", &seeds.to_string()]);
        command
    };
    let own = |task: &str, arguments: &[&str]| {
        let mut command = cargo(&["run", "--quiet", "--package", "weir-xtask", "--", task]);
        command.args(arguments).args(strict.then_some("--strict"));
        command
    };
    // Of each target, two at a time: about three minutes where nothing may be left out.
    let fuzz_seconds = if strict { "20" } else { "5" };
    let step = |name, what, command| Step { name, what, command };
    Ok(vec![
        step("format", "rustfmt agrees", cargo(&["fmt", "--all", "--check"])),
        step(
            "tidy",
            "the project's own lints",
            cargo(&["run", "--quiet", "--package", "weir-xtask", "--", "tidy"]),
        ),
        step(
            "clippy",
            "no warning",
            cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]),
        ),
        step("tests", "unit, property and process tests", cargo(&["test", "--workspace", "--no-fail-fast"])),
        step(
            "clippy-sim",
            "no warning in the simulation build",
            simulated(
                &["clippy", "--package", "weir-runtime", "--package", "weir-sim"],
                &["--all-targets", "--", "-D", "warnings"],
            ),
        ),
        step(
            "tests-sim",
            "the runtime's behaviour in the simulated world",
            simulated(
                &["test", "--package", "weir-runtime", "--package", "weir-defect", "--package", "weir-sim"],
                // Without doctests: rustdoc is not given the flag that makes a build a simulation.
                &["--no-fail-fast", "--lib", "--bins", "--tests"],
            ),
        ),
        step(
            "regressions",
            "plans that once found a bug",
            simulated(&["run", "--quiet", "--package", "weir-sim"], &["--", "regressions"]),
        ),
        step("seeds-fixed", "simulations of the fixed seeds", swarm(FIXED_FIRST_SEED, options.seeds)),
        step("seeds-fresh", "simulations of fresh seeds", swarm(fresh_first, options.fresh_seeds)),
        step(
            "fuzz",
            "every parser that a peer or a disk feeds",
            // The parsers are the same in either build, and this one is built already.
            simulated(
                &["run", "--quiet", "--package", "weir-proptests", "--bin", "fuzz"],
                &["--", "--target", "all", "--seconds", fuzz_seconds],
            ),
        ),
        step(
            "explore",
            "every run of the quorum's core within small bounds",
            simulated(
                &["run", "--quiet", "--package", "weir-proptests", "--bin", "explore"],
                &["--", "--suite", "small"],
            ),
        ),
        step(
            "explore-partition",
            "every run of the replicas' core within small bounds",
            simulated(
                &["run", "--quiet", "--package", "weir-proptests", "--bin", "explore"],
                &["--", "--core", "partition", "--suite", "small"],
            ),
        ),
        step("interop", "smoke tests with real clients", own("interop", &["--short"])),
        step(
            "interop-cluster",
            "some of them against three nodes",
            own(
                "interop",
                &["--short", "--cluster", "--only", "confluent-kafka,franz-go,java,kafkajs,kcat,weir"],
            ),
        ),
        step("durability", "a broker killed under load loses nothing", own("durability", &[])),
        step(
            "processes",
            "brokers killed, stopped and cut off in turn lose nothing",
            own("jepsen", &["--minutes", "1"]),
        ),
    ])
}
