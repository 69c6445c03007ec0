//! The broker's process.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;
use weir_broker::config::documented_keys;
use weir_broker::{Config, ConfigError, Node};
use weir_runtime::disk::{Disk, DiskOptions, OpenError};
use weir_runtime::task::{self, RuntimeOptions};

/// A failure while running, or one that has no code of its own.
const EXIT_FAILURE: u8 = 1;
/// The command line or the configuration is wrong.
const EXIT_USAGE: u8 = 2;
/// The data folder is in use or cannot be written.
const EXIT_FOLDER: u8 = 4;

const EXAMPLES: &str = "\
Examples:
  weir-broker
      One broker for this machine, on 127.0.0.1:9092, with its data in ./data. There is nothing to format.
  weir-broker --data-dir /var/lib/weir --listen 0.0.0.0:9092 --config server.properties
      A broker for others. Set advertised.listeners in the file if clients reach it under another name.
  weir-broker --listen 127.0.0.1:0
      A free port; the line 'ready HOST:PORT' on standard output names it.
  weir-broker --list-keys
      The keys of the configuration file, which has Kafka's format and names.

Then, for instance:
  kcat -b 127.0.0.1:9092 -t greetings -P <<< hello
  kcat -b 127.0.0.1:9092 -t greetings -C -e

Standard output gets one line, 'ready HOST:PORT', when the broker serves. The log goes to standard error; RUST_LOG sets
what is in it (RUST_LOG=debug). SIGTERM and SIGINT stop the broker cleanly.

Exit codes:
  0  stopped cleanly           4  the data folder is locked or cannot be written
  1  failed while running      5  the data folder is of a newer version, or its identity is damaged
  2  wrong usage or settings   6  the data folder failed (a sync did): look at the disk, then start again
  3  the port is in use";

/// A log for records that speaks the Kafka protocol.
#[derive(Debug, Parser)]
#[command(name = "weir-broker", version, after_help = EXAMPLES)]
struct Args {
    /// The folder for all data; it is created if it does not exist [default: ./data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The address to listen on; port 0 picks a free one [default: 127.0.0.1:9092]
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Settings in the format of Kafka's server.properties
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Serve /metrics (Prometheus) and /health on this address
    #[arg(long, value_name = "HOST:PORT")]
    http: Option<String>,
    /// Print the keys of the configuration file and what they mean
    #[arg(long)]
    list_keys: bool,
}

/// What ends the process: its exit code and the line that says why.
struct Exit(u8, String);

fn main() -> ExitCode {
    let args = Args::parse();
    if args.list_keys {
        return list_keys();
    }
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours).init();
    // A panic is a bug: one line says where, and whoever misses the task that died reports its end.
    std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
    let outcome = configure(&args).and_then(|config| {
        task::block_on(RuntimeOptions::default(), run(config))
            .unwrap_or_else(|error| Err(Exit(EXIT_FAILURE, format!("cannot start threads: {error}"))))
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Exit(code, reason)) => {
            eprintln!("weir-broker: {reason}");
            ExitCode::from(code)
        }
    }
}

fn list_keys() -> ExitCode {
    let mut out = std::io::stdout().lock();
    for key in documented_keys() {
        // A reader that has seen enough closes the pipe.
        if writeln!(out, "{}\n    {}", key.name, key.doc).is_err() {
            break;
        }
    }
    ExitCode::SUCCESS
}

fn configure(args: &Args) -> Result<Config, Exit> {
    let mut config = Config::default();
    if let Some(file) = &args.config {
        let text = read(file)?;
        config.apply(file, &text).map_err(usage)?;
    }
    if let Some(data_dir) = &args.data_dir {
        config.data_dir.clone_from(data_dir);
    }
    if let Some(listen) = &args.listen {
        config.listen.clone_from(listen);
    }
    config.http.clone_from(&args.http);
    if let Some(file) = config.internal_secret_file.clone()
        && config.internal_secret.is_none()
    {
        let text = read(&file)?;
        config.take_secret(&file, &text).map_err(usage)?;
    }
    config.complete().map_err(usage)?;
    Ok(config)
}

fn read(file: &Path) -> Result<String, Exit> {
    std::fs::read_to_string(file)
        .map_err(|error| Exit(EXIT_USAGE, format!("cannot read {}: {error}", file.display())))
}

fn usage(error: ConfigError) -> Exit {
    Exit(EXIT_USAGE, error.to_string())
}

async fn run(config: Config) -> Result<(), Exit> {
    let options = DiskOptions { pool_threads: config.disk_threads };
    let disk = Disk::open(&config.data_dir, options).await.map_err(|error| {
        let code = match error {
            OpenError::Locked { .. } | OpenError::NotWritable { .. } => EXIT_FOLDER,
            OpenError::Io { .. } => EXIT_FAILURE,
        };
        Exit(code, error.to_string())
    })?;
    let node = Node::start(config, disk).await.map_err(|error| Exit(error.exit_code(), error.to_string()))?;
    announce(&node)?;
    weir_runtime::select! {
        failure = node.failed() => return Err(Exit(failure.exit_code(), failure.to_string())),
        () = task::interrupted() => {}
    }
    tracing::info!("stopping");
    node.stop().await.map_err(|error| Exit(EXIT_FAILURE, format!("the stop was not clean: {error}")))
}

/// The one line on standard output, for scripts that wait for it.
fn announce(node: &Node) -> Result<(), Exit> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "ready {}", node.address())
        .and_then(|()| out.flush())
        .map_err(|error| Exit(EXIT_FAILURE, format!("cannot write to standard output: {error}")))
}
