//! Fuzzes parsers for a while: `fuzz --seconds 60 --target all`. Mutates the committed corpus and generated inputs,
//! prints executions per second, and on a failure saves the input and exits with 1. `--input FILE` runs one input.
//!
//! Each target runs in a process of its own, limited to `--memory-mib` of address space: a parser that reserves what
//! a length claims dies of it. Such a death (and a stack overflow) is not a panic; the same seed is then run again
//! with each input written down before it runs, and the last one is the culprit.
#![expect(clippy::disallowed_methods, reason = "a developers' tool that is never simulated")]

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Parser;
use rustix::process::{Resource, Rlimit, setrlimit};
use weir_proptests::mutate::{Random, mutate};
use weir_proptests::targets::{TARGETS, Target};

/// Inputs grow no longer than this.
const INPUT_BYTES_MAX: usize = 16 * 1024;
/// Executions between two looks at the clock.
const EXECUTIONS_PER_LOOK: u64 = 256;

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
    /// Address space of this process
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
    /// Write so many generated inputs into the corpus and do nothing else
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
        return chosen.iter().try_fold(true, |clean, target| Ok(clean & fuzz(target, arguments, seed)?));
    }
    println!("seed {seed}");
    chosen.iter().try_fold(true, |clean, target| Ok(clean & supervise(target, arguments, seed)?))
}

fn limit_memory(arguments: &Arguments) -> rustix::io::Result<()> {
    let address_space = Some(arguments.memory_mib << 20);
    setrlimit(Resource::As, Rlimit { current: address_space, maximum: address_space })
}

/// Fuzzes one target in a process of its own; when that dies of something else than a panic, finds out on which
/// input.
fn supervise(target: &Target, arguments: &Arguments, seed: u64) -> std::io::Result<bool> {
    let worker = |record: bool| {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--worker", "--target", target.name, "--seed", &seed.to_string()]);
        command.args(["--seconds", &arguments.seconds.to_string()]);
        command.args(["--memory-mib", &arguments.memory_mib.to_string()]);
        command.arg("--crashes").arg(&arguments.crashes);
        if record {
            command.arg("--record");
        }
        command.status()
    };
    let status = worker(false)?;
    // 0: clean. 1: a panic, whose input is saved.
    if let Some(code @ (0 | 1)) = status.code() {
        return Ok(code == 0);
    }
    eprintln!("{} died: {status}; running seed {seed} again, each input written down", target.name);
    let again = worker(true)?;
    let last = arguments.crashes.join(format!("{}.last", target.name));
    eprintln!(
        "{} died again: {again}. Its input: fuzz --target {} --input {}",
        target.name,
        target.name,
        last.display()
    );
    Ok(false)
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
    let mut last = if arguments.record {
        Some(File::create(arguments.crashes.join(format!("{}.last", target.name)))?)
    } else {
        None
    };
    let mut random = Random::new(seed);
    let started = Instant::now();
    let limit = Duration::from_secs(arguments.seconds);
    let mut executions = 0u64;
    for input in &corpus {
        if !survives(target, input, &mut last, arguments)? {
            return Ok(false);
        }
    }
    // A run that writes inputs down goes on until it dies as the first one did, however slow it is.
    let in_time = || started.elapsed() < if arguments.record { 20 * limit } else { limit };
    while !executions.is_multiple_of(EXECUTIONS_PER_LOOK) || in_time() {
        let input = next_input(target, &corpus, &mut random);
        if !survives(target, &input, &mut last, arguments)? {
            return Ok(false);
        }
        executions += 1;
    }
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{:<18} {executions:>10} executions, {:>8.0}/s, clean",
        target.name,
        executions as f64 / seconds
    );
    Ok(true)
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

/// Runs one input; saves it when the target panics.
fn survives(
    target: &Target,
    input: &[u8],
    last: &mut Option<File>,
    arguments: &Arguments,
) -> std::io::Result<bool> {
    if let Some(last) = last {
        last.seek(SeekFrom::Start(0))?;
        last.write_all(input)?;
        last.set_len(input.len() as u64)?;
    }
    if catch_unwind(AssertUnwindSafe(|| (target.run)(input))).is_ok() {
        return Ok(true);
    }
    let path = arguments.crashes.join(format!("{}-{}", target.name, name_of(input)));
    fs::write(&path, input)?;
    let path = path.display();
    eprintln!("{} fails. Again: fuzz --target {} --input {path}", target.name, target.name);
    Ok(false)
}
