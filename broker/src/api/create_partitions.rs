//! CreatePartitions (key 37; KIP-195): adds partitions to topics.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_partitions_request::{
    CreatePartitionsAssignment, CreatePartitionsRequest, CreatePartitionsTopic,
};
use kafka_protocol::messages::create_partitions_response::{
    CreatePartitionsResponse, CreatePartitionsTopicResult,
};
use kafka_protocol::protocol::StrBytes;
use weir_protocol::metadata::{
    CLUSTER_PARTITIONS_MAX, Command, Image, NewPartition, TOPIC_PARTITIONS_MAX, Topic, placement,
};
use weir_protocol::types::BrokerId;
use weir_runtime::{random, time};

use super::configs::Refusal;
use super::{Api, errors, millis};
use crate::metadata::ProposeError;

pub(super) async fn handle(api: &Arc<Api>, request: CreatePartitionsRequest) -> CreatePartitionsResponse {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for topic in &request.topics {
        *counts.entry(topic.name.as_str()).or_default() += 1;
    }
    let limit = millis(request.timeout_ms);
    api.metadata.catch_up().await;
    let mut trial = request.validate_only.then(|| api.image.current().image.clone());
    let mut results = Vec::with_capacity(counts.len());
    let mut answered = BTreeSet::new();
    for topic in &request.topics {
        if !answered.insert(topic.name.as_str()) {
            continue;
        }
        let outcome = if counts.get(topic.name.as_str()) == Some(&1) {
            create(api, topic, trial.as_mut(), limit).await
        } else {
            Err((ResponseError::InvalidRequest, "Duplicate topic name.".to_owned()))
        };
        let result =
            CreatePartitionsTopicResult::default().with_name(topic.name.clone()).with_error_message(None);
        results.push(match outcome {
            Ok(()) => result,
            Err((error, text)) => {
                result.with_error_code(error.code()).with_error_message(Some(StrBytes::from_string(text)))
            }
        });
    }
    CreatePartitionsResponse::default().with_results(results)
}

/// Adds partitions, or only validates them, against `trial`.
async fn create(
    api: &Arc<Api>,
    wanted: &CreatePartitionsTopic,
    trial: Option<&mut Image>,
    limit: Duration,
) -> Result<(), Refusal> {
    let refuse = |error: ProposeError| Err((errors::of_proposal_by_name(&error), error.to_string()));
    let command = plan(&api.image.current().image, wanted)?;
    if let Some(trial) = trial {
        return trial.try_out(&command).map(drop).map_err(ProposeError::Rejected).or_else(refuse);
    }
    match time::timeout(limit, api.metadata.propose(command)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => refuse(error),
        Err(_) => Err((ResponseError::RequestTimedOut, "The partitions may be created later.".to_owned())),
    }
}

fn plan(image: &Image, wanted: &CreatePartitionsTopic) -> Result<Command, Refusal> {
    let name = wanted.name.as_str();
    let topic = image.topic_named(name).ok_or_else(|| {
        (ResponseError::UnknownTopicOrPartition, "This server does not host this topic.".to_owned())
    })?;
    let before = topic.partitions.len();
    let more = additional(image, topic, wanted.count)?;
    // As many replicas as the topic has already.
    let factor = topic.partitions.first().map_or(1, |partition| partition.replicas.len());
    let partitions = match &wanted.assignments {
        Some(assignments) => assigned(image, assignments, more, factor)?,
        None => placement::place(image, more, factor, random::u64())
            .map_err(|error| (ResponseError::InvalidReplicationFactor, error.to_string()))?,
    };
    let partitions_before = i32::try_from(before).unwrap_or(i32::MAX);
    Ok(Command::AddPartitions { id: topic.id, partitions_before, partitions })
}

/// How many partitions are to be added for a topic to have `count`.
fn additional(image: &Image, topic: &Topic, count: i32) -> Result<usize, Refusal> {
    let before = topic.partitions.len();
    let refuse = |text: String| Err((ResponseError::InvalidPartitions, text));
    let count = match usize::try_from(count) {
        Ok(count) if count == before => {
            return refuse(format!("Topic already has {before} partition(s)."));
        }
        Ok(count) if count > before => count,
        _ => {
            return refuse(format!(
                "The topic {} currently has {before} partition(s); {count} would not be an increase.",
                topic.name
            ));
        }
    };
    if count > TOPIC_PARTITIONS_MAX {
        return refuse(format!("A topic has at most {TOPIC_PARTITIONS_MAX} partitions."));
    }
    if image.partition_count() + (count - before) > CLUSTER_PARTITIONS_MAX {
        return refuse(format!("A cluster has at most {CLUSTER_PARTITIONS_MAX} partitions."));
    }
    Ok(count - before)
}

/// The replicas that the client chose itself.
fn assigned(
    image: &Image,
    assignments: &[CreatePartitionsAssignment],
    more: usize,
    factor: usize,
) -> Result<Vec<NewPartition>, Refusal> {
    let refuse = |text: String| Err((ResponseError::InvalidReplicaAssignment, text));
    if assignments.len() != more {
        return refuse(format!(
            "Attempted to add {more} additional partition(s), but only {} assignment(s) were specified.",
            assignments.len()
        ));
    }
    let mut partitions = Vec::with_capacity(more);
    for assignment in assignments {
        let replicas: Vec<BrokerId> = assignment.broker_ids.iter().map(|id| BrokerId(id.0)).collect();
        if replicas.len() != factor {
            return refuse(format!(
                "The manual partition assignment includes a partition with {} replica(s), but this is not \
                 consistent with previous partitions, which have {factor} replica(s).",
                replicas.len()
            ));
        }
        let mut seen = BTreeSet::new();
        for id in &replicas {
            if !seen.insert(*id) {
                return refuse(format!(
                    "The manual partition assignment includes broker {id} more than once."
                ));
            }
            if image.broker(*id).is_none() {
                return refuse(format!(
                    "The manual partition assignment includes broker {id}, but no such broker is registered."
                ));
            }
        }
        if replicas.iter().all(|id| image.broker(*id).is_none_or(|broker| broker.fenced)) {
            return refuse("All brokers of the manual partition assignment are fenced.".to_owned());
        }
        partitions.push(NewPartition { replicas });
    }
    Ok(partitions)
}
