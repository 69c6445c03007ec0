//! Settings of topics, brokers and groups, described and changed; and more partitions for a topic.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use weir_wire::kafka::StrBytes;
use weir_wire::kafka::messages::create_partitions_request::CreatePartitionsTopic;
use weir_wire::kafka::messages::describe_configs_request::DescribeConfigsResource;
use weir_wire::kafka::messages::describe_configs_response::DescribeConfigsResourceResult;
use weir_wire::kafka::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use weir_wire::kafka::messages::{
    CreatePartitionsRequest, DescribeConfigsRequest, IncrementalAlterConfigsRequest,
};

use super::{Admin, Attempts, UNKNOWN_TOPIC_OR_PARTITION, check, is, silent};
use crate::error::Error;

const INVALID_PARTITIONS: i16 = 37;

/// What has settings.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConfigResource {
    /// A topic.
    Topic(String),
    /// A broker.
    Broker(i32),
    /// What holds for all brokers unless one has its own.
    AllBrokers,
    /// A group (KIP-848).
    Group(String),
}

impl ConfigResource {
    fn on_the_wire(&self) -> (i8, String) {
        match self {
            ConfigResource::Topic(name) => (2, name.clone()),
            ConfigResource::Broker(id) => (4, id.to_string()),
            ConfigResource::AllBrokers => (4, String::new()),
            ConfigResource::Group(name) => (32, name.clone()),
        }
    }

    /// The broker that alone can answer.
    fn broker(&self) -> Option<i32> {
        match self {
            ConfigResource::Broker(id) => Some(*id),
            _ => None,
        }
    }
}

impl fmt::Display for ConfigResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigResource::Topic(name) => write!(f, "topic {name}"),
            ConfigResource::Broker(id) => write!(f, "broker {id}"),
            ConfigResource::AllBrokers => f.write_str("all brokers"),
            ConfigResource::Group(name) => write!(f, "group {name}"),
        }
    }
}

/// Where a setting's value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigSource {
    /// Set for this topic.
    Topic,
    /// Set for this broker while it runs.
    Broker,
    /// Set for all brokers while they run.
    AllBrokers,
    /// Set in the broker's file.
    File,
    /// Nobody has set it.
    Default,
    /// Set for this group.
    Group,
    /// Anything else, by its number.
    Other(i8),
}

impl ConfigSource {
    fn from_wire(source: i8) -> Self {
        match source {
            1 => ConfigSource::Topic,
            2 => ConfigSource::Broker,
            3 => ConfigSource::AllBrokers,
            4 => ConfigSource::File,
            5 => ConfigSource::Default,
            8 => ConfigSource::Group,
            other => ConfigSource::Other(other),
        }
    }

    /// Its name as Kafka's tools print it.
    pub fn name(self) -> String {
        match self {
            ConfigSource::Topic => "DYNAMIC_TOPIC_CONFIG".to_owned(),
            ConfigSource::Broker => "DYNAMIC_BROKER_CONFIG".to_owned(),
            ConfigSource::AllBrokers => "DYNAMIC_DEFAULT_BROKER_CONFIG".to_owned(),
            ConfigSource::File => "STATIC_BROKER_CONFIG".to_owned(),
            ConfigSource::Default => "DEFAULT_CONFIG".to_owned(),
            ConfigSource::Group => "DYNAMIC_GROUP_CONFIG".to_owned(),
            ConfigSource::Other(number) => format!("SOURCE_{number}"),
        }
    }
}

/// A setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigEntry {
    /// Its name.
    pub name: String,
    /// Its value; `None` for a secret, or where there is none.
    pub value: Option<String>,
    /// Where the value comes from.
    pub source: ConfigSource,
    /// It cannot be changed while the broker runs.
    pub read_only: bool,
    /// A secret.
    pub sensitive: bool,
    /// What it means, where the broker tells.
    pub documentation: Option<String>,
}

/// What becomes of a setting (KIP-339).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigChange {
    /// It gets this value.
    Set(String),
    /// It gets its default.
    Delete,
    /// This is added to its list.
    Append(String),
    /// This is taken from its list.
    Subtract(String),
}

impl ConfigChange {
    fn on_the_wire(&self) -> (i8, Option<&String>) {
        match self {
            ConfigChange::Set(value) => (0, Some(value)),
            ConfigChange::Delete => (1, None),
            ConfigChange::Append(value) => (2, Some(value)),
            ConfigChange::Subtract(value) => (3, Some(value)),
        }
    }
}

impl Admin {
    /// The settings of a resource, by name, with their values and where those come from.
    ///
    /// # Errors
    /// What the broker says, such as UNKNOWN_TOPIC_OR_PARTITION, at once; [`Error::Invalid`] for a broker that the cluster
    /// does not have.
    pub async fn describe_configs(&self, resource: &ConfigResource) -> Result<Vec<ConfigEntry>, Error> {
        let (kind, name) = resource.on_the_wire();
        let asked = DescribeConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(StrBytes::from_string(name.clone()))
            .with_configuration_keys(None);
        let request =
            DescribeConfigsRequest::default().with_resources(vec![asked]).with_include_documentation(false);
        let about = resource.to_string();
        let limit = self.client.config().request_timeout;
        self.must_know_broker_of(resource).await?;
        let ask = || async {
            let (address, response) = match resource.broker() {
                Some(broker) => self.client.ask(broker, &request, limit).await?,
                None => self.client.ask_any(&request).await?,
            };
            let mut results = response.results.iter();
            let answer = results.find(|told| told.resource_type == kind && *told.resource_name == *name);
            let answer = answer.ok_or_else(|| silent::<DescribeConfigsRequest>(&address, &about))?;
            let message = answer.error_message.as_ref().map(|message| message.to_string());
            match check::<DescribeConfigsRequest>(&address, &about, answer.error_code, message) {
                // Who waits for a topic that may come does not ask for its settings.
                Err(error) if is(&error, UNKNOWN_TOPIC_OR_PARTITION) => return Ok(Err(error)),
                checked => checked?,
            }
            let mut entries: Vec<ConfigEntry> = answer.configs.iter().map(entry).collect();
            entries.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(Ok(entries))
        };
        self.client.retry(self.client.deadline(), ask).await?
    }

    /// A broker that the cluster does not have is not waited for.
    async fn must_know_broker_of(&self, resource: &ConfigResource) -> Result<(), Error> {
        let Some(broker) = resource.broker() else { return Ok(()) };
        if self.client.knows_broker(broker) {
            return Ok(());
        }
        self.client.retry(self.client.deadline(), || self.client.refresh_brokers()).await?;
        if self.client.knows_broker(broker) {
            return Ok(());
        }
        let known: Vec<String> = self.client.brokers().iter().map(|broker| broker.id.to_string()).collect();
        Err(Error::Invalid(format!("the cluster has no broker {broker}; it has {}", known.join(", "))))
    }

    /// Changes settings of a resource; those that are not named stay. With `validate_only` nothing changes, and the answer
    /// is that of the real thing.
    ///
    /// # Errors
    /// What the broker says, such as INVALID_CONFIG; [`Error::Invalid`] for a broker that the cluster does not have.
    pub async fn alter_configs(
        &self,
        resource: &ConfigResource,
        changes: &BTreeMap<String, ConfigChange>,
        validate_only: bool,
    ) -> Result<(), Error> {
        let (kind, name) = resource.on_the_wire();
        let configs = changes.iter().map(|(name, change)| {
            let (operation, value) = change.on_the_wire();
            AlterableConfig::default()
                .with_name(StrBytes::from_string(name.clone()))
                .with_config_operation(operation)
                .with_value(value.map(|value| StrBytes::from_string(value.clone())))
        });
        let altered = AlterConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(StrBytes::from_string(name))
            .with_configs(configs.collect());
        let request = IncrementalAlterConfigsRequest::default()
            .with_resources(vec![altered])
            .with_validate_only(validate_only);
        let about = resource.to_string();
        self.must_know_broker_of(resource).await?;
        let mut attempts = Attempts::new(&self.client);
        loop {
            let asked = match resource.broker() {
                Some(broker) => self.client.ask(broker, &request, self.client.config().request_timeout).await,
                None => self.client.ask_controller(&request).await,
            };
            let result = asked.and_then(|(address, response)| {
                let answer = response.responses.first();
                let answer =
                    answer.ok_or_else(|| silent::<IncrementalAlterConfigsRequest>(&address, &about))?;
                let message = answer.error_message.as_ref().map(|message| message.to_string());
                check::<IncrementalAlterConfigsRequest>(&address, &about, answer.error_code, message)
            });
            match result {
                Ok(()) => return Ok(()),
                Err(error) if is(&error, UNKNOWN_TOPIC_OR_PARTITION) => return Err(error),
                Err(error) => attempts.wait_after(error).await?,
            }
        }
    }

    /// Gives a topic more partitions, `count` in all. Records with a key go to other partitions from then on.
    ///
    /// # Errors
    /// What the controller says, such as INVALID_PARTITIONS where the topic has as many already.
    pub async fn create_partitions(&self, topic: &str, count: i32) -> Result<(), Error> {
        let asked = CreatePartitionsTopic::default()
            .with_name(StrBytes::from_string(topic.to_owned()).into())
            .with_count(count)
            .with_assignments(None);
        let request =
            CreatePartitionsRequest::default().with_topics(vec![asked]).with_timeout_ms(self.timeout_ms());
        let mut attempts = Attempts::new(&self.client);
        loop {
            let result = self.client.ask_controller(&request).await.and_then(|(address, response)| {
                let answer = response.results.iter().find(|answer| **answer.name == *topic);
                let answer = answer.ok_or_else(|| silent::<CreatePartitionsRequest>(&address, topic))?;
                let message = answer.error_message.as_ref().map(|message| message.to_string());
                check::<CreatePartitionsRequest>(&address, topic, answer.error_code, message)
            });
            match result {
                Ok(()) => break,
                // An earlier attempt may have done it.
                Err(error) if attempts.maybe_done && is(&error, INVALID_PARTITIONS) => {
                    let partitions = self.describe_topic(topic).await?.partitions.len();
                    if i32::try_from(partitions) == Ok(count) {
                        break;
                    }
                    return Err(error);
                }
                Err(error) if is(&error, UNKNOWN_TOPIC_OR_PARTITION) => return Err(error),
                Err(error) => attempts.wait_after(error).await?,
            }
        }
        self.client.mark_stale(&Arc::from(topic));
        Ok(())
    }
}

fn entry(told: &DescribeConfigsResourceResult) -> ConfigEntry {
    ConfigEntry {
        name: told.name.to_string(),
        value: told.value.as_ref().map(|value| value.to_string()),
        source: ConfigSource::from_wire(told.config_source),
        read_only: told.read_only,
        sensitive: told.is_sensitive,
        documentation: told.documentation.as_ref().map(|text| text.to_string()),
    }
}
