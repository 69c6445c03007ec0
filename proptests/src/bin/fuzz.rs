//! Fuzzes parsers for a while: `fuzz --seconds 60 --target all`. Mutates the committed corpus and generated inputs,
//! as many targets at a time as there are cores. At the end there is a table, and each failing input saved and named;
//! then it exits with 1. `--input FILE` runs one input.
//!
//! Each target runs in a process of its own, limited to `--memory-mib` of address space: a parser that reserves what
//! a length claims dies of it. Its time on a core is limited too: so does one that never ends. Such a death (and a
//! stack overflow) is not a panic; the same seed is then run again with each input written down before it runs, and
//! the last one is the culprit.
#![expect(clippy::disallowed_methods, reason = "a developers' tool that is never simulated")]

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Parser;
use rustix::process::{Resource, Rlimit, setrlimit};
use weir_proptests::mutate::{Random, mutate};
use weir_proptests::targets::{TARGETS, Target};

/// Inputs grow no longer than this.
const INPUT_BYTES_MAX: usize = 16 * 1024;
/// Executions between two looks at the clock.
const EXECUTIONS_PER_LOOK: u64 = 256;
/// Seconds on a core that a worker may take beyond its own.
const GRACE_SECONDS: u64 = 20;
/// How much longer a run takes that writes inputs down.
const RECORDING_FACTOR: u64 = 20;

#[derive(Parser)]
#[command(about = "Fuzz the parsers that a peer or a disk feeds")]
struct Arguments {
    /// A target's name, or all
    #[arg(long, default_value = "all")]
    target: String,
    /// Seconds per target
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Seed of the mutations; drawn from the clock when left out
    #[arg(long)]
    seed: Option<u64>,
    /// Targets that run at a time; as many as there are cores when left out
    #[arg(long)]
    jobs: Option<usize>,
    /// Address space of a target's process
    #[arg(long, default_value_t = 256)]
    memory_mib: u64,
    /// Where failing inputs go
    #[arg(long, default_value = "target/fuzz-crashes")]
    crashes: PathBuf,
    /// Run this input once and do nothing else
    #[arg(long)]
    input: Option<PathBuf>,
    /// Run in this process (set for the processes that the fuzzer starts)
    #[arg(long, hide = true)]
    worker: bool,
    /// Write each input down before it runs
    #[arg(long, hide = true)]
    record: bool,
    /// Write so many generated inputs of each target into the corpus and do nothing else
    #[arg(long)]
    write_seeds: Option<u64>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let chosen: Vec<&Target> =
        TARGETS.iter().filter(|target| ["all", target.name].contains(&&*arguments.target)).collect();
    if chosen.is_empty() {
        let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
        eprintln!("no target is called {}; there are: all {}", arguments.target, names.join(" "));
        return ExitCode::from(2);
    }
    match run(&arguments, &chosen) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(1)
        }
    }
}

fn run(arguments: &Arguments, chosen: &[&Target]) -> Result<bool, Box<dyn std::error::Error>> {
    if let Some(path) = &arguments.input {
        limit_memory(arguments)?;
        let input = fs::read(path)?;
        chosen.iter().for_each(|target| (target.run)(&input));
        println!("{} bytes pass", input.len());
        return Ok(true);
    }
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
    let seed = arguments.seed.unwrap_or(clock);
    if let Some(count) = arguments.write_seeds {
        for target in chosen {
            write_seeds(target, count, &mut Random::new(seed))?;
        }
        return Ok(true);
    }
    fs::create_dir_all(&arguments.crashes)?;
    if arguments.worker {
        limit_memory(arguments)?;
        limit_time(arguments)?;
        return chosen.iter().try_fold(true, |clean, target| Ok(clean & fuzz(target, arguments, seed)?));
    }
    println!("seed {seed}");
    let reports = supervise_all(chosen, arguments, seed)?;
    println!(
        "{:<18} {:>12} {:>12} {:>12} {:>8}",
        "target", "executions", "per second", "slowest ms", "crashes"
    );
    for report in &reports {
        println!("{report}");
    }
    let crashes: Vec<&Report> = reports.iter().filter(|report| report.crash.is_some()).collect();
    for report in &crashes {
        let input = report.crash.as_deref().unwrap_or(Path::new("")).display();
        println!("{} fails. Again: fuzz --target {} --input {input}", report.target, report.target);
    }
    Ok(crashes.is_empty())
}

fn limit_memory(arguments: &Arguments) -> rustix::io::Result<()> {
    let address_space = Some(arguments.memory_mib << 20);
    setrlimit(Resource::As, Rlimit { current: address_space, maximum: address_space })
}

fn limit_time(arguments: &Arguments) -> rustix::io::Result<()> {
    let factor = if arguments.record { RECORDING_FACTOR } else { 1 };
    let seconds = Some(arguments.seconds * factor + GRACE_SECONDS);
    setrlimit(Resource::Cpu, Rlimit { current: seconds, maximum: seconds })
}

/// What came of fuzzing one target.
struct Report {
    target: &'static str,
    executions: u64,
    seconds: f64,
    slowest_ms: f64,
    /// The input that it failed on.
    crash: Option<PathBuf>,
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Report { target, executions, seconds, slowest_ms, crash } = self;
        let per_second = *executions as f64 / seconds.max(1e-9);
        let crashes = u8::from(crash.is_some());
        write!(f, "{target:<18} {executions:>12} {per_second:>12.0} {slowest_ms:>12.1} {crashes:>8}")
    }
}

impl Report {
    /// The line that a worker's output ends with.
    fn line(&self) -> String {
        let crash = self.crash.as_deref().unwrap_or(Path::new("")).display();
        format!("report {} {} {} {crash}", self.executions, self.seconds, self.slowest_ms)
    }

    fn parse(target: &'static str, output: &str) -> Option<Report> {
        let mut words = output.lines().last()?.strip_prefix("report ")?.splitn(4, ' ');
        Some(Report {
            target,
            executions: words.next()?.parse().ok()?,
            seconds: words.next()?.parse().ok()?,
            slowest_ms: words.next()?.parse().ok()?,
            crash: words.next().filter(|path| !path.is_empty()).map(PathBuf::from),
        })
    }
}

/// Fuzzes all of these, some at a time. In the order of the targets.
fn supervise_all(chosen: &[&Target], arguments: &Arguments, seed: u64) -> std::io::Result<Vec<Report>> {
    let cores = thread::available_parallelism().map_or(1, |cores| cores.get());
    let jobs = arguments.jobs.unwrap_or(cores).clamp(1, chosen.len());
    let next = Mutex::new(chosen.iter().enumerate());
    let reports = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let taken = next.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).next();
                    let Some((place, target)) = taken else { return };
                    let report = supervise(target, arguments, seed);
                    reports.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push((place, report));
                }
            });
        }
    });
    let mut reports = reports.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    reports.sort_by_key(|(place, _)| *place);
    reports.into_iter().map(|(_, report)| report).collect()
}

/// Fuzzes one target in a process of its own; when that dies of something else than a panic, finds out on which
/// input.
fn supervise(target: &Target, arguments: &Arguments, seed: u64) -> std::io::Result<Report> {
    let worker = |record: bool| -> std::io::Result<Output> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--worker", "--target", target.name, "--seed", &seed.to_string()]);
        command.args(["--seconds", &arguments.seconds.to_string()]);
        command.args(["--memory-mib", &arguments.memory_mib.to_string()]);
        command.arg("--crashes").arg(&arguments.crashes);
        if record {
            command.arg("--record");
        }
        command.output()
    };
    let output = worker(false)?;
    // A failure that has no input to name, such as a corpus that is not there, has no line either.
    if let Some(report) = Report::parse(target.name, &String::from_utf8_lossy(&output.stdout)) {
        if report.crash.is_some() {
            eprint!("{}: {}", target.name, String::from_utf8_lossy(&output.stderr));
        }
        return Ok(report);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.code().is_some_and(|code| code <= 2) {
        return Err(std::io::Error::other(format!("{}: {said}", target.name)));
    }
    eprintln!(
        "{} died: {}; running seed {seed} again, each input written down\n{said}",
        target.name, output.status
    );
    let again = worker(true)?;
    eprintln!("{} died again: {}", target.name, again.status);
    let crash = Some(last_input(target, arguments));
    Ok(Report { target: target.name, executions: 0, seconds: 0.0, slowest_ms: 0.0, crash })
}

/// Where a worker writes each input down that records.
fn last_input(target: &Target, arguments: &Arguments) -> PathBuf {
    arguments.crashes.join(format!("{}.last", target.name))
}

fn corpus_folder(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name)
}

fn write_seeds(target: &Target, count: u64, random: &mut Random) -> std::io::Result<()> {
    let folder = corpus_folder(target);
    fs::create_dir_all(&folder)?;
    for _ in 0..count {
        let input = (target.generate)(random);
        fs::write(folder.join(name_of(&input)), &input)?;
    }
    Ok(())
}

fn read_corpus(target: &Target) -> std::io::Result<Vec<Vec<u8>>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(corpus_folder(target))? {
        paths.push(entry?.path());
    }
    paths.sort();
    paths.iter().map(fs::read).collect()
}

/// A short name that follows from the content (FNV-1a).
fn name_of(input: &[u8]) -> String {
    let hash = input
        .iter()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    format!("{hash:016x}")
}

fn fuzz(target: &Target, arguments: &Arguments, seed: u64) -> Result<bool, Box<dyn std::error::Error>> {
    let corpus = read_corpus(target).map_err(|error| format!("corpus of {}: {error}", target.name))?;
    let last = if arguments.record { Some(File::create(last_input(target, arguments))?) } else { None };
    let mut runner =
        Runner { target, last, crashes: &arguments.crashes, executions: 0, slowest: Duration::ZERO };
    let mut random = Random::new(seed);
    let started = Instant::now();
    let mut crash = None;
    for input in &corpus {
        crash = crash.or(runner.failure(input)?);
    }
    // A run that writes inputs down goes on until it dies as the first one did, however slow it is.
    let factor = if arguments.record { RECORDING_FACTOR } else { 1 };
    let limit = Duration::from_secs(arguments.seconds * factor);
    while crash.is_none()
        && (!runner.executions.is_multiple_of(EXECUTIONS_PER_LOOK) || started.elapsed() < limit)
    {
        crash = runner.failure(&next_input(target, &corpus, &mut random))?;
    }
    let report = Report {
        target: target.name,
        executions: runner.executions,
        seconds: started.elapsed().as_secs_f64(),
        slowest_ms: runner.slowest.as_secs_f64() * 1e3,
        crash,
    };
    println!("{}", report.line());
    Ok(report.crash.is_none())
}

fn next_input(target: &Target, corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let other = if corpus.is_empty() { Vec::new() } else { corpus[random.below(corpus.len())].clone() };
    let mut input = match random.below(4) {
        0 => (target.generate)(random),
        _ if corpus.is_empty() => (target.generate)(random),
        _ => corpus[random.below(corpus.len())].clone(),
    };
    mutate(&mut input, &other, INPUT_BYTES_MAX, random);
    if let Some(repair) = target.repair
        && random.below(4) > 0
    {
        repair(&mut input);
    }
    input
}

/// Runs inputs.
struct Runner<'a> {
    target: &'a Target,
    /// Where each input is written down before it runs.
    last: Option<File>,
    crashes: &'a Path,
    executions: u64,
    slowest: Duration,
}

impl Runner<'_> {
    /// Runs one input; when the target panics, saves it and returns where.
    fn failure(&mut self, input: &[u8]) -> std::io::Result<Option<PathBuf>> {
        if let Some(last) = &mut self.last {
            last.seek(SeekFrom::Start(0))?;
            last.write_all(input)?;
            last.set_len(input.len() as u64)?;
        }
        self.executions += 1;
        let started = Instant::now();
        let passed = catch_unwind(AssertUnwindSafe(|| (self.target.run)(input))).is_ok();
        self.slowest = self.slowest.max(started.elapsed());
        if passed {
            return Ok(None);
        }
        let path = self.crashes.join(format!("{}-{}", self.target.name, name_of(input)));
        fs::write(&path, input)?;
        Ok(Some(path))
    }
}
