//! `weir`: topics, records, groups, settings and the cluster, from a command line.
#![allow(clippy::disallowed_methods)] // a tool: it reads files and the standard input, and is never simulated

mod cluster;
mod config;
mod consume;
mod failure;
mod format;
mod group;
mod health;
mod input;
mod lag;
mod output;
mod parse;
mod printer;
mod produce;
mod progress;
mod quorum;
mod reset;
mod silence;
mod topic;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser, Subcommand};
use tracing_subscriber::EnvFilter;
use weir_client::{Admin, Client, ClientConfig};
use weir_runtime::task::{self, RuntimeOptions};

use failure::Failure;
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
  weir cluster health --wait 30s
      Until every partition has its leader and all its replicas in sync; the exit code says whether.
  weir -b broker-1:9092,broker-2:9092 -o json cluster describe | jq .controller
      For scripts. docs/weir.md says what the JSON of each command holds.

Each command has examples of its own: weir consume --help

Exit codes: 0 done, 1 failed (one line on standard error says why), 2 wrong usage.";

/// Topics, records, groups, settings and the cluster of Weir, or of any other broker that speaks the Kafka protocol.
#[derive(Debug, Parser)]
#[command(name = "weir", version, after_help = EXAMPLES, max_term_width = 120)]
struct Args {
    /// Brokers to begin with [default: $WEIR_BOOTSTRAP, or else 127.0.0.1:9092]
    #[arg(short, long, global = true, value_name = "HOST:PORT,...", value_parser = Bootstrap::parse, help_heading = GLOBAL)]
    bootstrap: Option<Bootstrap>,
    /// Tables for people, JSON for scripts
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table, help_heading = GLOBAL)]
    output: Output,
    /// How long an operation may take with its repetitions
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 20, help_heading = GLOBAL,
        value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
    #[command(subcommand)]
    command: Command,
}

const GLOBAL: &str = "Options of all commands";

/// Addresses to begin with.
#[derive(Clone, Debug)]
struct Bootstrap(Vec<String>);

impl Bootstrap {
    fn parse(text: &str) -> Result<Self, String> {
        parse::addresses(text).map(Self)
    }

    /// What the environment says, or this machine. The variable is not left to the parser, which would take it for an
    /// argument, and then show it wherever it explains what is missing.
    fn of_environment() -> Result<Self, Failure> {
        match std::env::var("WEIR_BOOTSTRAP") {
            Ok(text) if !text.is_empty() => {
                Self::parse(&text).map_err(|why| Failure::usage(format!("WEIR_BOOTSTRAP is {text:?}: {why}")))
            }
            _ => Ok(Self(vec!["127.0.0.1:9092".to_owned()])),
        }
    }
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
    /// The brokers, who leads what, the metadata quorum
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

impl Command {
    /// How long a cluster that is not there yet is waited for, where that is what the command is for.
    fn patience(&self) -> Option<Duration> {
        match self {
            Command::Cluster(cluster) => cluster.patience(),
            _ => None,
        }
    }

    /// Refuses what the parser lets through and no broker need be asked about.
    fn check(&self) -> Result<(), Failure> {
        match self {
            Command::Topic(topic) => topic.check(),
            Command::Consume(consume) => consume.check(),
            Command::Config(config) => config.check(),
            _ => Ok(()),
        }
    }
}

const EXIT_USAGE: u8 = 2;
/// How long to try while nobody answers: a broker may be about to be ready, but who has forgotten to start it wants to know.
const FIRST_CONTACT: Duration = Duration::from_secs(1);
const CONNECT: Duration = Duration::from_secs(5);

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
    match outcome.unwrap_or_else(|error| Err(Failure::failed(format!("cannot start threads: {error}")))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let (code, reason) = match failure {
                Failure::Failed(reason) => (ExitCode::FAILURE, reason),
                Failure::Usage(reason) => (ExitCode::from(EXIT_USAGE), reason),
            };
            output::note(&reason.replace('\n', " "));
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
    args.command.check()?;
    let bootstrap = args.bootstrap.map_or_else(Bootstrap::of_environment, Ok)?;
    let limit = Duration::from_secs(args.timeout);
    let config = ClientConfig {
        bootstrap: bootstrap.0,
        client_id: "weir".to_owned(),
        bootstrap_timeout: args.command.patience().unwrap_or_else(|| limit.min(FIRST_CONTACT)),
        connect_timeout: limit.min(CONNECT),
        request_timeout: limit,
        operation_timeout: limit.max(args.command.patience().unwrap_or_default()),
        ..ClientConfig::default()
    };
    let client = Client::connect(config).await.map_err(|error| failure::no_contact(&error))?;
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
