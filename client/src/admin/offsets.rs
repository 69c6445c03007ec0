//! ListOffsets: from a time, or an end of the log, to an offset.

use std::collections::BTreeMap;
use std::sync::Arc;

use weir_wire::kafka::StrBytes;
use weir_wire::kafka::messages::ListOffsetsRequest;
use weir_wire::kafka::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};

use crate::TopicPartition;
use crate::call::Call;
use crate::cluster::Client;
use crate::consumer::IsolationLevel;
use crate::error::{Error, KafkaError};

/// Which offset is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetSpec {
    /// The first.
    Earliest,
    /// The one behind the last that is shown.
    Latest,
    /// That of the record with the largest timestamp (KIP-734).
    MaxTimestamp,
    /// That of the first record with this timestamp or a later one, in milliseconds since 1970.
    Time(i64),
}

impl OffsetSpec {
    fn on_the_wire(self) -> i64 {
        match self {
            OffsetSpec::Earliest => -2,
            OffsetSpec::Latest => -1,
            OffsetSpec::MaxTimestamp => -3,
            OffsetSpec::Time(timestamp_ms) => timestamp_ms.max(0),
        }
    }
}

/// An offset that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetAt {
    /// The offset.
    pub offset: i64,
    /// The timestamp of the record there, where one was asked for.
    pub timestamp_ms: Option<i64>,
    /// The epoch of its leader, where the broker tells.
    pub leader_epoch: Option<i32>,
}

/// The answer for one partition; `None` where no record is as late as that.
pub(crate) type OffsetAnswer = Result<Option<OffsetAt>, Error>;

/// A partition, its leader's epoch, and which of its offsets is asked for.
pub(crate) type Question = (TopicPartition, i32, OffsetSpec);

/// Asks one leader about partitions, each with its leader epoch. The answers come in the order of the questions.
pub(crate) async fn ask_leader(
    client: &Client,
    broker: i32,
    questions: &[Question],
    isolation: IsolationLevel,
) -> Result<Vec<OffsetAnswer>, Error> {
    let mut topics: BTreeMap<Arc<str>, Vec<ListOffsetsPartition>> = BTreeMap::new();
    for (partition, leader_epoch, spec) in questions {
        let question = ListOffsetsPartition::default()
            .with_partition_index(partition.partition)
            .with_current_leader_epoch(*leader_epoch)
            .with_timestamp(spec.on_the_wire());
        topics.entry(partition.topic.clone()).or_default().push(question);
    }
    let topics = topics.into_iter().map(|(topic, partitions)| {
        let name = StrBytes::from_string(topic.to_string()).into();
        ListOffsetsTopic::default().with_name(name).with_partitions(partitions)
    });
    let request = ListOffsetsRequest::default()
        .with_replica_id((-1).into())
        .with_isolation_level(isolation.on_the_wire())
        .with_topics(topics.collect());
    let limit = client.config().request_timeout;
    let (address, response) = client.ask(broker, &request, limit).await?;
    let mut answers = BTreeMap::new();
    for topic in &response.topics {
        answers
            .extend(topic.partitions.iter().map(|answer| ((&**topic.name, answer.partition_index), answer)));
    }
    let api = ListOffsetsRequest::NAME;
    let told = questions.iter().map(|(partition, _, _)| {
        let Some(answer) = answers.get(&(&*partition.topic, partition.partition)) else {
            let reason = format!("it says nothing about {partition}");
            return Err(Error::Protocol { address: address.clone(), api, reason });
        };
        if let Some(error) = KafkaError::from_code(answer.error_code) {
            let (address, about) = (address.clone(), partition.to_string());
            return Err(Error::Kafka { address, api, about, error, message: None });
        }
        Ok((answer.offset >= 0).then_some(OffsetAt {
            offset: answer.offset,
            timestamp_ms: (answer.timestamp >= 0).then_some(answer.timestamp),
            leader_epoch: (answer.leader_epoch >= 0).then_some(answer.leader_epoch),
        }))
    });
    Ok(told.collect())
}
