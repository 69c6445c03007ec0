//! ElectLeaders (key 43; KIP-183, KIP-460): leadership goes back to the first replica, or, where nobody may lead, to
//! somebody who may have lost acknowledged records.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::TopicName;
use kafka_protocol::messages::elect_leaders_request::ElectLeadersRequest;
use kafka_protocol::messages::elect_leaders_response::{
    ElectLeadersResponse, PartitionResult, ReplicaElectionResult,
};
use kafka_protocol::protocol::StrBytes;
use weir_protocol::controller::Refused;
use weir_protocol::metadata::{ClusterCommand, Image, PartitionState, Rejected};
use weir_protocol::types::LogId;
use weir_runtime::task;
use weir_runtime::time::{self, Instant};

use super::configs::Refusal;
use super::{Api, errors, millis};
use crate::peer::message::{ControllerQuestion, ControllerReply};

/// Elections that one request has under way at a time.
const UNDER_WAY_MAX: usize = 64;
/// How long to wait before what is busy, or has changed meanwhile, is asked for again.
const AGAIN: Duration = Duration::from_millis(20);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Preferred,
    Unclean,
}

/// A partition, and what has come of it.
struct Asked {
    topic: String,
    partition: i32,
    outcome: Result<(), Refusal>,
}

pub(super) async fn handle(api: &Arc<Api>, request: ElectLeadersRequest) -> ElectLeadersResponse {
    let kind = match request.election_type {
        0 => Kind::Preferred,
        1 => Kind::Unclean,
        _ => {
            return ElectLeadersResponse::default().with_error_code(ResponseError::InvalidRequest.code());
        }
    };
    let deadline = time::now() + millis(request.timeout_ms);
    api.metadata.catch_up().await;
    let mut asked = asked(&api.image.current().image, &request, kind);
    elect(api, &mut asked, kind, deadline).await;
    let everything = request.topic_partitions.is_none();
    let mut by_topic: BTreeMap<String, Vec<PartitionResult>> = BTreeMap::new();
    for Asked { topic, partition, outcome } in asked {
        // Who asks for all partitions is not told of those that need nothing.
        if !(everything && matches!(&outcome, Err((ResponseError::ElectionNotNeeded, _)))) {
            by_topic.entry(topic).or_default().push(result(partition, outcome));
        }
    }
    let results = by_topic.into_iter().map(|(topic, results)| {
        ReplicaElectionResult::default()
            .with_topic(TopicName(StrBytes::from_string(topic)))
            .with_partition_result(results)
    });
    ElectLeadersResponse::default().with_replica_election_results(results.collect())
}

fn result(partition: i32, outcome: Result<(), Refusal>) -> PartitionResult {
    let result = PartitionResult::default().with_partition_id(partition).with_error_message(None);
    match outcome {
        Ok(()) => result,
        Err((error, text)) => {
            result.with_error_code(error.code()).with_error_message(Some(StrBytes::from_string(text)))
        }
    }
}

/// The partitions that are meant. `Ok`: an election is to be asked for.
fn asked(image: &Image, request: &ElectLeadersRequest, kind: Kind) -> Vec<Asked> {
    let Some(topics) = &request.topic_partitions else {
        let all = image.topics().flat_map(|topic| {
            let name = &topic.name;
            topic.logs().map(|(log, state)| Asked {
                topic: name.clone(),
                partition: log.partition,
                outcome: need(state, kind),
            })
        });
        return all.collect();
    };
    let mut asked = Vec::new();
    for topic in topics {
        let known = image.topic_named(&topic.topic);
        for partition in &topic.partitions {
            let outcome = match known.and_then(|known| known.partition(*partition)) {
                Some(state) => need(state, kind),
                None => {
                    let text = "There is no such partition.".to_owned();
                    Err((ResponseError::UnknownTopicOrPartition, text))
                }
            };
            asked.push(Asked { topic: topic.topic.to_string(), partition: *partition, outcome });
        }
    }
    asked
}

/// Whether a partition needs the election, and can have it.
fn need(state: &PartitionState, kind: Kind) -> Result<(), Refusal> {
    let not_needed = |text: &str| Err((ResponseError::ElectionNotNeeded, text.to_owned()));
    match kind {
        Kind::Unclean if state.leader.is_some() => not_needed("The partition has a leader."),
        Kind::Preferred if state.leader == state.replicas.first().copied() => {
            not_needed("The first replica leads.")
        }
        Kind::Preferred if !state.replicas.first().is_some_and(|first| state.isr.contains(first)) => {
            let text = "The first replica is not in sync.".to_owned();
            Err((ResponseError::PreferredLeaderNotAvailable, text))
        }
        Kind::Preferred | Kind::Unclean => Ok(()),
    }
}

/// Asks for every election that is needed, some at a time.
async fn elect(api: &Arc<Api>, asked: &mut [Asked], kind: Kind, deadline: Instant) {
    let mut needed = asked.iter_mut().filter(|one| one.outcome.is_ok());
    loop {
        let mut under_way = Vec::new();
        for one in needed.by_ref().take(UNDER_WAY_MAX) {
            let (api, topic, partition) = (Arc::clone(api), one.topic.clone(), one.partition);
            let election = async move { elect_one(&api, &topic, partition, kind, deadline).await };
            under_way.push((one, task::spawn("elect", election)));
        }
        if under_way.is_empty() {
            return;
        }
        for (one, election) in under_way {
            one.outcome = election.await.unwrap_or_else(|_| Err(late()));
        }
    }
}

fn late() -> Refusal {
    (ResponseError::RequestTimedOut, "The leader may be elected later.".to_owned())
}

/// Asks for one election, again and again while the partition changes under it.
async fn elect_one(
    api: &Arc<Api>,
    topic: &str,
    partition: i32,
    kind: Kind,
    deadline: Instant,
) -> Result<(), Refusal> {
    loop {
        let question = question(&api.image.current().image, topic, partition, kind)?;
        let reply = api.metadata.ask(question, deadline).await;
        match reply.map_err(|error| (errors::of_ask(&error), error.to_string()))? {
            ControllerReply::Partition(Ok(index)) => {
                // Who asks next what has become of it is told the new leader.
                let applied = api.image.wait_for(|image| image.applied() >= Some(index));
                let applied = time::timeout(deadline - time::now(), applied).await;
                return applied.map(drop).map_err(|time::Elapsed| late());
            }
            ControllerReply::Partition(Err(refused)) if !passes(&refused) => {
                return Err(of_refused(&refused, kind));
            }
            _ => {}
        }
        if time::now() >= deadline {
            return Err(late());
        }
        time::sleep(AGAIN).await;
    }
}

fn question(image: &Image, topic: &str, partition: i32, kind: Kind) -> Result<ControllerQuestion, Refusal> {
    let unknown = || (ResponseError::UnknownTopicOrPartition, "There is no such partition.".to_owned());
    let topic = image.topic_named(topic).ok_or_else(unknown)?;
    let state = topic.partition(partition).ok_or_else(unknown)?;
    need(state, kind)?;
    let (log, partition_epoch) = (LogId::new(topic.id, partition), state.partition_epoch);
    Ok(ControllerQuestion::ChangePartition(match kind {
        Kind::Preferred => ClusterCommand::ElectPreferred { log, partition_epoch },
        Kind::Unclean => ClusterCommand::ElectUnclean { log, partition_epoch },
    }))
}

/// Whether the same may be granted a moment later.
fn passes(refused: &Refused) -> bool {
    matches!(
        refused,
        Refused::Busy
            | Refused::NotController
            | Refused::Rejected(Rejected::StalePartitionEpoch { .. } | Rejected::UnknownPartition(_))
    )
}

fn of_refused(refused: &Refused, kind: Kind) -> Refusal {
    let error = match refused {
        Refused::Rejected(Rejected::NoEligibleLeader(_)) if kind == Kind::Preferred => {
            ResponseError::PreferredLeaderNotAvailable
        }
        Refused::Rejected(rejected) => errors::of_rejected(rejected),
        _ => ResponseError::RequestTimedOut,
    };
    (error, refused.to_string())
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::elect_leaders_request::TopicPartitions;

    use super::super::brokers::tests::Three;
    use super::*;

    fn request(topics: Option<&[(&'static str, i32)]>) -> ElectLeadersRequest {
        let topics = topics.map(|topics| {
            let one = |(name, partition): &(&'static str, i32)| {
                let topic = TopicName(StrBytes::from_static_str(name));
                TopicPartitions::default().with_topic(topic).with_partitions(vec![*partition])
            };
            topics.iter().map(one).collect()
        });
        ElectLeadersRequest::default().with_topic_partitions(topics)
    }

    fn outcomes(
        three: &Three,
        wanted: Option<&[(&'static str, i32)]>,
        kind: Kind,
    ) -> Vec<Option<ResponseError>> {
        let asked = asked(&three.image, &request(wanted), kind);
        asked.into_iter().map(|one| one.outcome.err().map(|(error, _)| error)).collect()
    }

    #[test]
    fn an_election_is_asked_for_only_where_it_is_needed_and_can_be() {
        use ResponseError::*;
        let mut three = Three::new();
        let all = Some([("t", 0), ("t", 1), ("absent", 0)].as_slice());
        let unknown = Some(UnknownTopicOrPartition);
        assert_eq!(outcomes(&three, all, Kind::Preferred), [Some(ElectionNotNeeded), unknown, unknown]);
        assert_eq!(outcomes(&three, None, Kind::Unclean), [Some(ElectionNotNeeded)]);
        three.fence(1);
        assert_eq!(outcomes(&three, None, Kind::Preferred), [Some(PreferredLeaderNotAvailable)]);
        (2..=3).for_each(|id| three.fence(id));
        assert_eq!(outcomes(&three, None, Kind::Unclean), [None], "nobody leads");
    }

    #[test]
    fn what_the_controller_refuses_has_the_name_that_fits_the_election() {
        let log = LogId::METADATA;
        let none = Refused::Rejected(Rejected::NoEligibleLeader(log));
        assert_eq!(of_refused(&none, Kind::Preferred).0, ResponseError::PreferredLeaderNotAvailable);
        assert_eq!(of_refused(&none, Kind::Unclean).0, ResponseError::EligibleLeadersNotAvailable);
        assert!(passes(&Refused::Busy) && !passes(&none));
    }
}
