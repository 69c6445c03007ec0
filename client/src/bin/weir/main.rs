//! `weir`: topics, records, groups, settings and the cluster, from a command line.
#![allow(clippy::disallowed_methods)] // a tool: it reads files and the standard input, and is never simulated

mod cluster;
mod config;
mod consume;
mod format;
mod group;
mod lag;
mod output;
mod parse;
mod produce;
mod reset;
mod topic;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser, Subcommand};
use tracing_subscriber::EnvFilter;
use weir_client::{Admin, Client, ClientConfig};
use weir_runtime::task::{self, RuntimeOptions};

use output::Output;

const EXAMPLES: &str = "\
Examples:
  weir topic create greetings -p 3
      A topic with three partitions.
  echo hello | weir produce greetings
  weir consume greetings --from beginning -e
      A line in, a line out; -e ends at the end.
  weir consume greetings -f '%t %p %o %k %s\\n' -c 10
      Ten records in a format of your own, as kcat knows it.
  weir group lag billing
      How far behind a group is, partition by partition.
  weir group reset-offsets billing --topic orders --to-time 2026-01-31T08:00Z
      What would change; with --execute it does.
  weir -b broker-1:9092,broker-2:9092 -o json cluster describe | jq .controller
      For scripts.

Each command has examples of its own: weir consume --help

Exit codes: 0 done, 1 failed (one line on standard error says why), 2 wrong usage.";

/// Topics, records, groups, settings and the cluster of Weir, or of any other broker that speaks the Kafka protocol.
#[derive(Debug, Parser)]
#[command(name = "weir", version, after_help = EXAMPLES)]
struct Args {
    /// Brokers to begin with
    #[arg(
        short,
        long,
        global = true,
        value_name = "HOST:PORT,...",
        env = "WEIR_BOOTSTRAP",
        value_delimiter = ',',
        default_value = "127.0.0.1:9092"
    )]
    bootstrap: Vec<String>,
    /// Tables for people, JSON for scripts
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// How long an operation may take with its repetitions
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 20)]
    timeout: u64,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create, list, describe, alter and delete topics
    #[command(subcommand)]
    Topic(topic::Topic),
    /// Write records, a line each
    Produce(produce::Produce),
    /// Read records
    Consume(consume::Consume),
    /// List, describe and delete groups, see how far behind they are, move them
    #[command(subcommand)]
    Group(group::Group),
    /// Describe, set and delete settings of topics, brokers and groups
    #[command(subcommand)]
    Config(config::Config),
    /// The brokers
    #[command(subcommand)]
    Cluster(cluster::Cluster),
    /// Print a script that completes commands in a shell
    #[command(
        after_help = "Examples:\n  weir completion bash > ~/.local/share/bash-completion/completions/weir\n  \
                            weir completion zsh > \"${fpath[1]}/_weir\"\n  \
                            weir completion fish > ~/.config/fish/completions/weir.fish"
    )]
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Why the command has failed, in one line.
enum Failure {
    /// Somebody else says no, or nothing.
    Failed(String),
    /// The command makes no sense.
    Usage(String),
}

const EXIT_USAGE: u8 = 2;

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Failure::Failed(error.to_string())
    }
}

/// What every command needs.
struct Context {
    client: Client,
    admin: Admin,
    output: Output,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("error"));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours).init();
    if let Command::Completion { shell } = args.command {
        return complete(shell);
    }
    let outcome = task::block_on(RuntimeOptions::default(), run(args));
    match outcome.unwrap_or_else(|error| Err(Failure::Failed(format!("cannot start threads: {error}")))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let (code, reason) = match failure {
                Failure::Failed(reason) => (ExitCode::FAILURE, reason),
                Failure::Usage(reason) => (ExitCode::from(EXIT_USAGE), reason),
            };
            eprintln!("weir: {}", reason.replace('\n', " "));
            code
        }
    }
}

fn complete(shell: clap_complete::Shell) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "weir", &mut script);
    match output::written(std::io::stdout().lock().write_all(&script)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

async fn run(args: Args) -> Result<(), Failure> {
    let limit = Duration::from_secs(args.timeout.max(1));
    let config = ClientConfig {
        bootstrap: args.bootstrap,
        client_id: "weir".to_owned(),
        connect_timeout: limit.min(Duration::from_secs(5)),
        operation_timeout: limit,
        ..ClientConfig::default()
    };
    let client = Client::connect(config).await?;
    let context = Context { admin: Admin::new(&client), client, output: args.output };
    match args.command {
        Command::Topic(topic) => topic::run(&context, topic).await,
        Command::Produce(produce) => produce::run(&context, produce).await,
        Command::Consume(consume) => consume::run(&context, consume).await,
        Command::Group(group) => group::run(&context, group).await,
        Command::Config(config) => config::run(&context, config).await,
        Command::Cluster(cluster) => cluster::run(&context, cluster).await,
        Command::Completion { .. } => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }

    #[test]
    fn every_command_has_examples() {
        fn check(command: &clap::Command, path: &str) {
            let subcommands: Vec<&clap::Command> = command.get_subcommands().collect();
            if subcommands.is_empty() && command.get_name() != "help" {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.starts_with("Example"), "{path} has no examples");
            }
            for subcommand in subcommands {
                check(subcommand, &format!("{path} {}", subcommand.get_name()));
            }
        }
        check(&Args::command(), "weir");
    }
}
