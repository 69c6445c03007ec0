//! `weir config`

use std::collections::BTreeMap;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;
use weir_client::{ConfigChange, ConfigEntry, ConfigResource, ConfigSource};

use crate::output::{self, Columns};
use crate::parse;
use crate::{Context, failure::Failure};

#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Settings with their values and where those come from
    #[command(
        after_help = "Examples:\n  weir config describe topic greetings\n      What was set for it.\n  \
                            weir config describe topic greetings --all\n      What holds for it.\n  \
                            weir config describe broker 1 --all\n  weir config describe broker all\n      What was set for all brokers while they run."
    )]
    Describe {
        #[command(flatten)]
        resource: Resource,
        /// Also those that have their default, or that of the broker's file
        #[arg(long)]
        all: bool,
    },
    /// Set settings; the others stay
    #[command(
        after_help = "Examples:\n  weir config set topic greetings retention.ms=3600000 max.message.bytes=2097152\n  \
                            weir config set topic greetings cleanup.policy=compact --dry-run"
    )]
    Set {
        #[command(flatten)]
        resource: Resource,
        /// What to set
        #[arg(value_name = "NAME=VALUE", value_parser = parse::setting, required = true)]
        settings: Vec<(String, String)>,
        /// Only ask the broker whether it would
        #[arg(long)]
        dry_run: bool,
    },
    /// Give settings their defaults back
    #[command(after_help = "Example:\n  weir config delete topic greetings retention.ms")]
    Delete {
        #[command(flatten)]
        resource: Resource,
        /// Which
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
        /// Only ask the broker whether it would
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Resource {
    /// What has the settings
    kind: Kind,
    /// The topic's or group's name; the broker's id, or `all` for what holds for every broker
    name: String,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    Topic,
    Broker,
    Group,
}

impl Resource {
    fn resource(&self) -> Result<ConfigResource, Failure> {
        Ok(match (self.kind, self.name.as_str()) {
            (Kind::Topic, name) => ConfigResource::Topic(name.to_owned()),
            (Kind::Group, name) => ConfigResource::Group(name.to_owned()),
            (Kind::Broker, "all") => ConfigResource::AllBrokers,
            (Kind::Broker, name) => match name.parse() {
                Ok(id) => ConfigResource::Broker(id),
                Err(_) => {
                    return Err(Failure::usage(format!(
                        "a broker is named by its id, or all brokers by 'all', not by {name:?}"
                    )));
                }
            },
        })
    }
}

impl Config {
    /// Refuses a resource that cannot be.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let (Config::Describe { resource, .. }
        | Config::Set { resource, .. }
        | Config::Delete { resource, .. }) = self;
        resource.resource().map(drop)
    }
}

pub(crate) async fn run(context: &Context, config: Config) -> Result<(), Failure> {
    match config {
        Config::Describe { resource, all } => describe(context, &resource.resource()?, all).await,
        Config::Set { resource, settings, dry_run } => {
            let changes =
                settings.into_iter().map(|(name, value)| (name, ConfigChange::Set(value))).collect();
            alter(context, &resource.resource()?, changes, dry_run).await
        }
        Config::Delete { resource, names, dry_run } => {
            let changes = names.into_iter().map(|name| (name, ConfigChange::Delete)).collect();
            alter(context, &resource.resource()?, changes, dry_run).await
        }
    }
}

async fn alter(
    context: &Context,
    resource: &ConfigResource,
    changes: BTreeMap<String, ConfigChange>,
    dry_run: bool,
) -> Result<(), Failure> {
    context.admin.alter_configs(resource, &changes, dry_run).await?;
    let what = if dry_run { "the settings would be changed; nothing was" } else { "settings changed" };
    if context.output.is_json() {
        let names: Vec<&String> = changes.keys().collect();
        return output::json(
            &json!({ "resource": resource.to_string(), "changed": names, "dry_run": dry_run }),
        );
    }
    output::line(&format!("{resource}: {what}"))
}

async fn describe(context: &Context, resource: &ConfigResource, all: bool) -> Result<(), Failure> {
    let entries = context.admin.describe_configs(resource).await?;
    let entries = entries.into_iter().filter(|entry| all || was_set(resource, entry));
    if context.output.is_json() {
        let told = entries.map(|entry| {
            json!({
                "name": entry.name,
                "value": entry.value,
                "source": entry.source.name(),
                "read_only": entry.read_only,
                "sensitive": entry.sensitive,
            })
        });
        return output::json(&told.collect());
    }
    let mut columns = Columns::new(&["name", "value", "from", "notes?"]);
    for entry in entries {
        let notes = match (entry.read_only, entry.sensitive) {
            (true, true) => "read-only, secret",
            (true, false) => "read-only",
            (false, true) => "secret",
            (false, false) => "",
        };
        let value = entry.value.unwrap_or_default();
        columns.row(vec![entry.name, value, source(entry.source), notes.to_owned()]);
    }
    columns.print_or_note(&format!("nothing is set for {resource}; --all shows what holds for it"))
}

/// Where a value comes from, in people's words.
fn source(source: ConfigSource) -> String {
    match source {
        ConfigSource::Topic => "topic".to_owned(),
        ConfigSource::Broker => "broker".to_owned(),
        ConfigSource::AllBrokers => "all brokers".to_owned(),
        ConfigSource::File => "the broker's file or flags".to_owned(),
        ConfigSource::Default => "default".to_owned(),
        ConfigSource::Group => "group".to_owned(),
        ConfigSource::Other(_) => source.name(),
    }
}

/// Set for the resource itself; for a broker also in its file.
fn was_set(resource: &ConfigResource, entry: &ConfigEntry) -> bool {
    match entry.source {
        ConfigSource::Topic | ConfigSource::Broker | ConfigSource::Group => true,
        ConfigSource::AllBrokers | ConfigSource::File => {
            matches!(resource, ConfigResource::Broker(_) | ConfigResource::AllBrokers)
        }
        ConfigSource::Default | ConfigSource::Other(_) => false,
    }
}
