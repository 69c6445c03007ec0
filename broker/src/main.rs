//! The broker's process.

mod dev_cluster;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;
use weir_broker::config::documented_keys;
use weir_broker::{Config, ConfigError, Node};
use weir_runtime::disk::{Disk, DiskOptions, OpenError};
use weir_runtime::task::{self, RuntimeOptions};

use dev_cluster::DevCluster;

/// A failure while running, or one that has no code of its own.
const EXIT_FAILURE: u8 = 1;
/// The command line or the configuration is wrong.
const EXIT_USAGE: u8 = 2;
/// The data folder is in use or cannot be written.
const EXIT_FOLDER: u8 = 4;

const EXAMPLES: &str = "\
Examples:
  weir-broker
      One broker for this machine, on 127.0.0.1:9092, with its data in ./data. Nothing is formatted.
  weir-broker --data-dir /var/lib/weir --listen 0.0.0.0:9092 --config server.properties
      A broker for others. Set advertised.listeners in the file if clients reach it under another
      name.
  weir-broker --listen 127.0.0.1:0
      A free port; the line 'ready HOST:PORT' on standard output names it.
  weir-broker --dev-cluster 3
      Three brokers on this machine, with their data in ./dev-cluster. When they serve, standard
      output has a table of them and 'ready HOST:PORT,HOST:PORT,HOST:PORT', which clients take as
      their bootstrap servers. They stop together.
  weir-broker --config /etc/weir/server.properties
      A node of a cluster: the file has node.id, controller.quorum.voters, two listeners, the
      secret and log.dirs; docs/operations.md shows one.
  weir-broker --list-keys
      The keys of the configuration file, which has Kafka's format and names.

Then, for instance:
  kcat -b 127.0.0.1:9092 -t greetings -P <<< hello
  kcat -b 127.0.0.1:9092 -t greetings -C -e

Standard output gets one line, 'ready HOST:PORT', when the broker serves. The log goes to standard
error; RUST_LOG sets what is in it (RUST_LOG=debug). SIGTERM and SIGINT stop the broker cleanly.

Exit codes:
  0  stopped cleanly           4  the data folder is locked or cannot be written
  1  failed while running      5  the data folder is of a newer version, or its identity is damaged
  2  wrong usage or settings   6  the data folder failed (a sync did): look at the disk, then start
  3  the port is in use        7  the cluster refuses this node; the last line says why";

/// A replicated, durable log that speaks the Kafka protocol.
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
    /// Start a cluster of N nodes on this machine, to try things out, with its data in --data-dir [default: ./dev-cluster]
    #[arg(long, value_name = "N", conflicts_with_all = ["listen", "http"])]
    dev_cluster: Option<u16>,
    /// With --dev-cluster: the first node's port, the others follow [default: free ports]
    #[arg(long, value_name = "P", requires = "dev_cluster")]
    port: Option<u16>,
    /// Stop when standard input ends
    #[arg(long, hide = true)]
    stop_with_stdin: bool,
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
    let outcome = match dev_cluster(&args) {
        Some(cluster) => block_on(dev_cluster::run(cluster)),
        None => configure(&args).and_then(|config| block_on(run(config, args.stop_with_stdin))),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Exit(code, reason)) => {
            eprintln!("weir-broker: {reason}");
            ExitCode::from(code)
        }
    }
}

fn block_on(main: impl Future<Output = Result<(), Exit>>) -> Result<(), Exit> {
    task::block_on(RuntimeOptions::default(), main)
        .unwrap_or_else(|error| Err(Exit(EXIT_FAILURE, format!("cannot start threads: {error}"))))
}

fn dev_cluster(args: &Args) -> Option<DevCluster> {
    let folder = args.data_dir.clone().unwrap_or_else(|| PathBuf::from("./dev-cluster"));
    Some(DevCluster { nodes: args.dev_cluster?, folder, port: args.port, config: args.config.clone() })
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

async fn run(config: Config, stops_with_stdin: bool) -> Result<(), Exit> {
    let options = DiskOptions { pool_threads: config.disk_threads };
    let disk = Disk::open(&config.data_dir, options).await.map_err(|error| {
        let code = match error {
            OpenError::Locked { .. } | OpenError::NotWritable { .. } => EXIT_FOLDER,
            OpenError::Io { .. } => EXIT_FAILURE,
        };
        Exit(code, error.to_string())
    })?;
    let mut stop = Box::pin(async {
        weir_runtime::select! {
            () = task::interrupted() => {}
            () = dev_cluster::stdin_ends(), if stops_with_stdin => {}
        }
    });
    let node = weir_runtime::select! {
        node = Box::pin(Node::start(config, disk)) => node,
        // A node that waits for others has nothing to close.
        () = &mut stop => return Ok(()),
    };
    let node = node.map_err(|error| Exit(error.exit_code(), error.to_string()))?;
    announce(&node)?;
    weir_runtime::select! {
        failure = node.failed() => return Err(Exit(failure.exit_code(), failure.to_string())),
        () = &mut stop => {}
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
