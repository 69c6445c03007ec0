//! What the APIs of configurations share: resources, types and sources as the protocol numbers them, and changes
//! (KIP-133, KIP-226, KIP-339).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::protocol::StrBytes;
use weir_protocol::metadata::settings::{self, Kind, Setting, Source};
use weir_protocol::metadata::{Command, Image};
use weir_protocol::types::{BrokerId, TopicId};
use weir_runtime::time;

use super::{Api, errors};
use crate::metadata::Level;

pub(super) const TOPIC: i8 = 2;
pub(super) const BROKER: i8 = 4;
pub(super) const BROKER_LOGGER: i8 = 8;
pub(super) const CLIENT_METRICS: i8 = 16;
pub(super) const GROUP: i8 = 32;

/// The longest that one resource's change may take; the requests have no time limit of their own.
const ALTER_LIMIT: Duration = Duration::from_secs(30);

/// What is refused: the code and what to say to a person.
pub(super) type Refusal = (ResponseError, String);

/// New values by name; `None` is back to the default.
type Changes = BTreeMap<String, Option<String>>;

/// The protocol's number of a source.
pub(super) fn source_id(source: Source) -> i8 {
    match source {
        Source::Topic => 1,
        Source::DynamicBroker => 2,
        Source::DynamicDefaultBroker => 3,
        Source::StaticBroker => 4,
        Source::Default => 5,
    }
}

/// The protocol's number of a type (KIP-569).
pub(super) fn kind_id(kind: Kind) -> i8 {
    match kind {
        Kind::Boolean => 1,
        Kind::String => 2,
        Kind::Int => 3,
        Kind::Long => 5,
        Kind::Double => 6,
        Kind::List => 7,
    }
}

/// Checks a topic's setting as a client wants it; an error is for a person.
pub(super) fn check_topic(name: &str, value: &str) -> Result<(), String> {
    settings::check_topic(name, value).map_err(|error| error.to_string())?;
    check_built(name, value)
}

/// Checks a broker's setting that topics fall back to.
fn check_broker(name: &str, value: &str) -> Result<(), String> {
    settings::check_broker(name, value).map_err(|error| error.to_string())?;
    check_built(name, value)
}

/// Refuses values of Kafka's that Weir could not honour.
fn check_built(name: &str, value: &str) -> Result<(), String> {
    if name == "compression.type" && value.trim() != "producer" {
        let text = "compression.type: only 'producer' is supported, the broker does not recompress.";
        return Err(text.to_owned());
    }
    Ok(())
}

/// A resource of a request to change settings.
pub(super) struct Wanted {
    pub(super) kind: i8,
    pub(super) name: StrBytes,
    pub(super) settings: Vec<Change>,
}

/// What is asked for one setting.
pub(super) struct Change {
    pub(super) name: StrBytes,
    /// The protocol's number of an [`Operation`].
    pub(super) operation: i8,
    pub(super) value: Option<StrBytes>,
}

/// What is to be done with a setting (KIP-339).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Set,
    Delete,
    Append,
    Subtract,
}

/// The number of [`Operation::Set`].
pub(super) const SET: i8 = 0;
const DELETE: i8 = 1;

/// How much a request changes of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// What it names (IncrementalAlterConfigs).
    Named,
    /// All that is set: what it does not name goes back to the default (AlterConfigs).
    All,
}

/// Changes the settings of resources, one after the other; each is changed as a whole or not at all. The outcomes are
/// in the order of the resources.
pub(super) async fn alter(
    api: &Arc<Api>,
    resources: &[Wanted],
    mode: Mode,
    validate_only: bool,
) -> Vec<Result<(), Refusal>> {
    let mut counts: BTreeMap<(i8, &str), usize> = BTreeMap::new();
    for wanted in resources {
        *counts.entry((wanted.kind, &wanted.name)).or_default() += 1;
    }
    let mut outcomes = Vec::with_capacity(resources.len());
    for wanted in resources {
        let once = counts.get(&(wanted.kind, &wanted.name)) == Some(&1);
        outcomes.push(if once {
            alter_one(api, wanted, mode, validate_only).await
        } else {
            Err((ResponseError::InvalidRequest, "Each resource must appear at most once.".to_owned()))
        });
    }
    outcomes
}

async fn alter_one(api: &Arc<Api>, wanted: &Wanted, mode: Mode, validate_only: bool) -> Result<(), Refusal> {
    check_shape(&wanted.settings)?;
    // Lists are appended to and all settings are replaced according to what is there: no other change comes between.
    let _turn = api.alterations.lock().await;
    api.metadata.catch_up().await;
    let view = api.image.current();
    let target = Target::find(api, &view.image, wanted, mode)?;
    let inherited = |setting| api.resolver.inherited(&view.image, setting, target.level());
    let current = target.current(&view.image);
    let mut changes = plan(&target, current, &wanted.settings, mode, inherited)?;
    // What is as it is asked for does not go into the quorum's log.
    changes.retain(|name, value| current.and_then(|set| set.get(name)) != value.as_ref());
    if validate_only || changes.is_empty() {
        return Ok(());
    }
    let Some(command) = target.command(changes) else { return Ok(()) };
    match time::timeout(ALTER_LIMIT, api.metadata.propose(command)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err((errors::of_proposal_by_name(&error), error.to_string())),
        Err(_) => Err((ResponseError::RequestTimedOut, "The settings may be changed later.".to_owned())),
    }
}

/// What is wrong with a request whatever its resource is.
fn check_shape(settings: &[Change]) -> Result<(), Refusal> {
    let mut seen = BTreeSet::new();
    if let Some(twice) = settings.iter().find(|change| !seen.insert(change.name.as_str())) {
        let text = format!("Error due to duplicate config keys: {}", twice.name.as_str());
        return Err((ResponseError::InvalidRequest, text));
    }
    let missing: Vec<&str> = settings
        .iter()
        .filter(|change| change.value.is_none() && change.operation != DELETE)
        .map(|change| change.name.as_str())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err((ResponseError::InvalidRequest, format!("Null value not supported for: {}", missing.join(", "))))
}

/// What has settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Topic {
        id: TopicId,
        replicas: usize,
    },
    Broker(BrokerId),
    /// The default of all brokers.
    Cluster,
    /// Nothing of its kind has any settings here: all of them are unknown, and this is how Kafka says so.
    Without {
        what: &'static str,
        error: ResponseError,
    },
}

impl Target {
    fn find(api: &Api, image: &Image, wanted: &Wanted, mode: Mode) -> Result<Target, Refusal> {
        let name = wanted.name.as_str();
        let must_be_named = |what: &str| {
            let text = format!("Default {what} resources are not allowed.");
            if name.is_empty() { Err((ResponseError::InvalidRequest, text)) } else { Ok(()) }
        };
        match wanted.kind {
            TOPIC => {
                must_be_named("topic")?;
                let (id, replicas) = find_topic(image, name)?;
                Ok(Target::Topic { id, replicas })
            }
            BROKER if name.is_empty() => Ok(Target::Cluster),
            BROKER => check_broker_name(api, name).map(|()| Target::Broker(api.me)),
            // The older request does not know it (KIP-412).
            BROKER_LOGGER if mode == Mode::Named => {
                check_broker_name(api, name)?;
                Ok(Target::Without { what: "logger", error: ResponseError::InvalidConfig })
            }
            CLIENT_METRICS => {
                must_be_named("client metrics")?;
                Ok(Target::Without { what: "client metrics setting", error: ResponseError::InvalidRequest })
            }
            GROUP => {
                must_be_named("group")?;
                Ok(Target::Without { what: "group setting", error: ResponseError::InvalidConfig })
            }
            kind => Err((ResponseError::InvalidRequest, format!("Unknown resource type {kind}"))),
        }
    }

    fn level(self) -> Level {
        match self {
            Target::Topic { replicas, .. } => Level::Topic { replicas },
            Target::Broker(_) => Level::Broker,
            Target::Cluster | Target::Without { .. } => Level::Cluster,
        }
    }

    /// What is set at the target itself.
    fn current(self, image: &Image) -> Option<&BTreeMap<String, String>> {
        match self {
            Target::Topic { id, .. } => image.topic(id).map(|topic| &topic.configs),
            Target::Broker(id) => image.broker_configs(id),
            Target::Cluster => Some(image.broker_defaults()),
            Target::Without { .. } => None,
        }
    }

    fn setting(self, name: &str) -> Option<&'static Setting> {
        match self {
            Target::Topic { .. } => settings::topic_setting(name),
            Target::Broker(_) | Target::Cluster => settings::broker_setting(name),
            Target::Without { .. } => None,
        }
    }

    /// Whether a value may be set. A broker's is refused with INVALID_REQUEST, as Kafka does (KAFKA-13609).
    fn check(self, name: &str, value: &str) -> Result<(), Refusal> {
        match self {
            Target::Topic { .. } => {
                check_topic(name, value).map_err(|text| (ResponseError::InvalidConfig, text))
            }
            Target::Broker(_) | Target::Cluster if self.setting(name).is_none() => {
                let text = format!("Cannot update these configs dynamically: {name}");
                Err((ResponseError::InvalidRequest, text))
            }
            Target::Broker(_) | Target::Cluster => {
                check_broker(name, value).map_err(|text| (ResponseError::InvalidRequest, text))
            }
            Target::Without { .. } => Err(self.unknown(name)),
        }
    }

    fn unknown(self, name: &str) -> Refusal {
        match self {
            Target::Without { what, error } => (error, format!("Unknown {what}: {name}")),
            _ => (ResponseError::InvalidConfig, format!("Unknown config name: {name}")),
        }
    }

    fn command(self, changes: Changes) -> Option<Command> {
        match self {
            Target::Topic { id, .. } => Some(Command::SetTopicConfig { id, changes }),
            Target::Broker(id) => Some(Command::SetBrokerConfig { broker: Some(id), changes }),
            Target::Cluster => Some(Command::SetBrokerConfig { broker: None, changes }),
            Target::Without { .. } => None,
        }
    }
}

/// A topic's id and number of replicas.
fn find_topic(image: &Image, name: &str) -> Result<(TopicId, usize), Refusal> {
    weir_protocol::metadata::names::check(name)
        .map_err(|error| (ResponseError::InvalidTopicException, error.to_string()))?;
    let topic = image.topic_named(name).ok_or_else(|| {
        (ResponseError::UnknownTopicOrPartition, format!("The topic '{name}' does not exist."))
    })?;
    Ok((topic.id, topic.partitions.first().map_or(1, |partition| partition.replicas.len())))
}

/// A broker describes and changes its own settings only: clients send the request to the one that they mean.
pub(super) fn check_broker_name(api: &Api, name: &str) -> Result<(), Refusal> {
    let me = api.me;
    let text = match name.parse::<i32>() {
        Ok(id) if id == me.0 => return Ok(()),
        Ok(_) => format!("Unexpected broker id, expected {me}, but received {name}"),
        Err(_) => format!("Broker id must be an integer, but it is: {name}"),
    };
    Err((ResponseError::InvalidRequest, text))
}

/// Works out what changes. `inherited` is a setting's value where the target itself has none.
fn plan(
    target: &Target,
    current: Option<&BTreeMap<String, String>>,
    wanted: &[Change],
    mode: Mode,
    inherited: impl Fn(&'static Setting) -> String,
) -> Result<Changes, Refusal> {
    let mut changes = Changes::new();
    if mode == Mode::All {
        changes.extend(current.into_iter().flat_map(|set| set.keys().map(|name| (name.clone(), None))));
    }
    for change in wanted {
        let name = change.name.as_str();
        let given = change.value.as_deref().unwrap_or_default();
        let value = match Operation::of(change.operation)? {
            Operation::Delete if matches!(target, Target::Without { .. }) => {
                return Err(target.unknown(name));
            }
            Operation::Delete => None,
            Operation::Set => Some(given.to_owned()),
            operation => {
                let setting = target.setting(name).ok_or_else(|| target.unknown(name))?;
                if setting.kind != Kind::List {
                    let text = format!("Can't {operation:?} to key {name} because its type is not LIST.");
                    return Err((ResponseError::InvalidConfig, text));
                }
                let own = current.and_then(|set| set.get(name)).cloned();
                Some(edited(&own.unwrap_or_else(|| inherited(setting)), operation, given))
            }
        };
        if let Some(value) = &value {
            target.check(name, value)?;
        }
        changes.insert(name.to_owned(), value);
    }
    Ok(changes)
}

impl Operation {
    fn of(number: i8) -> Result<Operation, Refusal> {
        match number {
            SET => Ok(Operation::Set),
            DELETE => Ok(Operation::Delete),
            2 => Ok(Operation::Append),
            3 => Ok(Operation::Subtract),
            _ => Err((ResponseError::InvalidRequest, format!("Unknown operation type {number}"))),
        }
    }
}

/// A list with items added that it does not have, or taken away.
fn edited(list: &str, operation: Operation, items: &str) -> String {
    let split = |text| -> Vec<&str> {
        str::split(text, ',').map(str::trim).filter(|item| !item.is_empty()).collect()
    };
    let mut list = split(list);
    for item in split(items) {
        match operation {
            Operation::Append if !list.contains(&item) => list.push(item),
            Operation::Subtract => list.retain(|kept| *kept != item),
            _ => {}
        }
    }
    list.join(",")
}

#[cfg(test)]
#[path = "configs_tests.rs"]
mod tests;
