//! CreateTopics (key 19; KIP-4, KIP-464, KIP-525).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreateTopicsRequest};
use kafka_protocol::messages::create_topics_response::{
    CreatableTopicConfigs, CreatableTopicResult, CreateTopicsResponse,
};
use kafka_protocol::protocol::StrBytes;
use weir_protocol::metadata::{Command, Image, NewPartition, names, placement};
use weir_protocol::types::{BrokerId, TopicId};
use weir_runtime::{random, time};

use super::{Api, configs, errors, millis};
use crate::metadata::ProposeError;

/// A topic that is refused: the code and what to say to a person.
pub(super) type Refusal = (ResponseError, String);

/// What a topic is to become.
pub(super) struct Plan {
    pub(super) command: Command,
    pub(super) id: TopicId,
    pub(super) partitions: usize,
    pub(super) replication_factor: usize,
}

pub(super) async fn handle(api: &Arc<Api>, request: CreateTopicsRequest) -> CreateTopicsResponse {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for topic in &request.topics {
        *counts.entry(topic.name.as_str()).or_default() += 1;
    }
    let twice: BTreeSet<String> =
        counts.into_iter().filter(|(_, count)| *count > 1).map(|(name, _)| name.to_owned()).collect();
    let limit = millis(request.timeout_ms);
    // A broker that has just begun to serve gets its replicas.
    api.metadata.catch_up().await;
    let mut trial = request.validate_only.then(|| api.image.current().image.clone());
    let mut results = Vec::with_capacity(request.topics.len());
    let mut answered = BTreeSet::new();
    for topic in request.topics {
        let name = topic.name.to_string();
        if twice.contains(&name) {
            if answered.insert(name) {
                let text = "Duplicate topic name.".to_owned();
                results.push(refused(topic, (ResponseError::InvalidRequest, text)));
            }
            continue;
        }
        let outcome = create(api, &topic, trial.as_mut(), limit).await;
        results.push(match outcome {
            Ok(plan) => created(api, topic, &plan),
            Err(refusal) => refused(topic, refusal),
        });
    }
    CreateTopicsResponse::default().with_topics(results)
}

/// Creates a topic, or only validates it, against `trial`.
async fn create(
    api: &Arc<Api>,
    topic: &CreatableTopic,
    trial: Option<&mut Image>,
    limit: std::time::Duration,
) -> Result<Plan, Refusal> {
    let plan = plan(api, topic)?;
    if let Some(trial) = trial {
        let outcome = trial.try_out(&plan.command).map_err(ProposeError::Rejected);
        return outcome.map(|_| plan).map_err(|error| (errors::of_proposal(&error), error.to_string()));
    }
    match time::timeout(limit, api.metadata.propose(plan.command.clone())).await {
        Ok(Ok(_)) => Ok(plan),
        Ok(Err(error)) => Err((errors::of_proposal(&error), error.to_string())),
        Err(_) => Err((ResponseError::RequestTimedOut, "The topic may be created later.".to_owned())),
    }
}

/// Checks a topic that a client asks for and works out what it is to become.
fn plan(api: &Api, topic: &CreatableTopic) -> Result<Plan, Refusal> {
    let view = api.image.current();
    let image = &view.image;
    check_name(image, &topic.name)?;
    let own = own_configs(topic)?;
    let partitions = if topic.assignments.is_empty() {
        let count = match topic.num_partitions {
            -1 => api.config.partitions,
            count if count > 0 => count,
            count => {
                let text =
                    format!("Number of partitions must be larger than 0, or -1 for the default: {count}.");
                return Err((ResponseError::InvalidPartitions, text));
            }
        };
        let factor = match topic.replication_factor {
            -1 => None,
            factor if factor > 0 => Some(factor),
            factor => {
                let text =
                    format!("Replication factor must be larger than 0, or -1 for the default: {factor}.");
                return Err((ResponseError::InvalidReplicationFactor, text));
            }
        };
        place(api, image, count, factor)?
    } else {
        assigned(topic)?
    };
    Ok(make_plan(topic.name.to_string(), partitions, own))
}

/// A topic that Metadata creates on its own, with the broker's defaults.
pub(super) fn plan_automatic(api: &Api, name: &str) -> Result<Plan, Refusal> {
    let view = api.image.current();
    let image = &view.image;
    check_name(image, name)?;
    let partitions = place(api, image, api.config.partitions, None)?;
    Ok(make_plan(name.to_owned(), partitions, BTreeMap::new()))
}

/// One of the broker's own topics. It begins with the brokers that are registered, and the controller adds replicas as others
/// join (contract 3): the first group does not wait for them.
pub(super) fn plan_internal(
    api: &Api,
    name: &str,
    partitions: i32,
    factor: Option<i16>,
    configs: BTreeMap<String, String>,
) -> Result<Plan, Refusal> {
    let view = api.image.current();
    let brokers = i16::try_from(view.image.brokers().count()).unwrap_or(i16::MAX);
    let factor = factor.map(|factor| factor.min(brokers));
    let partitions = place(api, &view.image, partitions, factor)?;
    Ok(make_plan(name.to_owned(), partitions, configs))
}

fn make_plan(name: String, partitions: Vec<NewPartition>, configs: BTreeMap<String, String>) -> Plan {
    let id = loop {
        if let Some(id) = TopicId::from_random(random::uuid_bytes()) {
            break id;
        }
    };
    Plan {
        id,
        replication_factor: partitions.first().map_or(0, |partition| partition.replicas.len()),
        partitions: partitions.len(),
        command: Command::CreateTopic { name, id, partitions, configs },
    }
}

fn check_name(image: &Image, name: &str) -> Result<(), Refusal> {
    names::check(name).map_err(|error| (ResponseError::InvalidTopicException, error.to_string()))?;
    if names::is_internal(name) {
        let text = format!("'{name}' is the broker's own topic; it is made when it is needed.");
        return Err((ResponseError::InvalidRequest, text));
    }
    if image.topic_named(name).is_some() {
        return Err((ResponseError::TopicAlreadyExists, format!("Topic '{name}' already exists.")));
    }
    Ok(())
}

fn place(api: &Api, image: &Image, count: i32, factor: Option<i16>) -> Result<Vec<NewPartition>, Refusal> {
    let count = usize::try_from(count).unwrap_or(0);
    let most = weir_protocol::metadata::TOPIC_PARTITIONS_MAX;
    if count > most {
        return Err((ResponseError::InvalidPartitions, format!("A topic has at most {most} partitions.")));
    }
    let factor = match factor.or(api.config.replication_factor) {
        Some(factor) => usize::try_from(factor).unwrap_or(0),
        None => placement::default_replication_factor(image),
    };
    placement::place(image, count, factor, random::u64())
        .map_err(|error| (ResponseError::InvalidReplicationFactor, error.to_string()))
}

/// The replicas that the client chose itself.
fn assigned(topic: &CreatableTopic) -> Result<Vec<NewPartition>, Refusal> {
    if topic.num_partitions != -1 || topic.replication_factor != -1 {
        let text = "With a manual assignment, number of partitions and replication factor must be -1.";
        return Err((ResponseError::InvalidRequest, text.to_owned()));
    }
    let mut by_number = BTreeMap::new();
    for assignment in &topic.assignments {
        let replicas = assignment.broker_ids.iter().map(|id| BrokerId(id.0)).collect();
        by_number.insert(assignment.partition_index, NewPartition { replicas });
    }
    let consecutive = by_number.keys().copied().eq(0..by_number.len() as i32);
    if !consecutive || by_number.len() != topic.assignments.len() {
        let text = "Partitions must be numbered from 0 without gaps.".to_owned();
        return Err((ResponseError::InvalidReplicaAssignment, text));
    }
    Ok(by_number.into_values().collect())
}

fn own_configs(topic: &CreatableTopic) -> Result<BTreeMap<String, String>, Refusal> {
    let mut own = BTreeMap::new();
    for config in &topic.configs {
        let name = config.name.to_string();
        let Some(value) = &config.value else {
            return Err((ResponseError::InvalidConfig, format!("Null value not supported for '{name}'.")));
        };
        configs::check_topic(&name, value).map_err(|text| (ResponseError::InvalidConfig, text))?;
        if own.insert(name.clone(), value.to_string()).is_some() {
            return Err((ResponseError::InvalidConfig, format!("'{name}' is given twice.")));
        }
    }
    Ok(own)
}

fn refused(topic: CreatableTopic, (error, text): Refusal) -> CreatableTopicResult {
    CreatableTopicResult::default()
        .with_name(topic.name)
        .with_error_code(error.code())
        .with_error_message(Some(StrBytes::from_string(text)))
        .with_num_partitions(-1)
        .with_replication_factor(-1)
        .with_configs(None)
}

fn created(api: &Api, topic: CreatableTopic, plan: &Plan) -> CreatableTopicResult {
    let image = &api.image.current().image;
    let Command::CreateTopic { configs: own, .. } = &plan.command else {
        return CreatableTopicResult::default().with_name(topic.name);
    };
    let described = api
        .resolver
        .describe_topic(image, own, plan.replication_factor)
        .into_iter()
        .map(|setting| {
            let value = setting.value().map(|value| StrBytes::from_string(value.to_owned()));
            CreatableTopicConfigs::default()
                .with_name(StrBytes::from_static_str(setting.name))
                .with_value(value)
                .with_config_source(configs::source_id(setting.source()))
        })
        .collect();
    CreatableTopicResult::default()
        .with_name(topic.name)
        .with_topic_id(plan.id.0)
        .with_num_partitions(plan.partitions as i32)
        .with_replication_factor(plan.replication_factor as i16)
        .with_configs(Some(described))
}
