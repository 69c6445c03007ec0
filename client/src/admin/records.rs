//! Where records are, and which are no more: offsets listed, records deleted.

use std::collections::BTreeMap;

use weir_runtime::time::{self, Instant};
use weir_wire::kafka::StrBytes;
use weir_wire::kafka::messages::DeleteRecordsRequest;
use weir_wire::kafka::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};

use super::offsets::{self, OffsetAt, OffsetSpec};
use super::{Admin, Attempts, check, silent};
use crate::TopicPartition;
use crate::consumer::IsolationLevel;
use crate::error::Error;

impl Admin {
    /// The offset that is asked for, in each partition; `None` where no record is as late as that. Each partition has its
    /// own answer, and what may pass is repeated for it alone.
    pub async fn list_offsets(
        &self,
        questions: &[(TopicPartition, OffsetSpec)],
    ) -> Vec<Result<Option<OffsetAt>, Error>> {
        let deadline = self.client.deadline();
        let mut answers: Vec<offsets::OffsetAnswer> = questions.iter().map(|_| Err(Error::Closed)).collect();
        let mut open: Vec<usize> = (0..questions.len()).collect();
        for repetition in 1.. {
            self.list_offsets_once(questions, &open, &mut answers, deadline).await;
            open.retain(|&at| answers[at].as_ref().is_err_and(Error::is_retriable));
            let wait = self.client.backoff().before(repetition);
            if open.is_empty() || time::now() + wait >= deadline {
                break;
            }
            time::sleep(wait).await;
        }
        answers
    }

    async fn list_offsets_once(
        &self,
        questions: &[(TopicPartition, OffsetSpec)],
        open: &[usize],
        answers: &mut [offsets::OffsetAnswer],
        deadline: Instant,
    ) {
        // A request may ask about a partition once: the second question about it goes into another request.
        let mut asked_before: BTreeMap<&TopicPartition, u32> = BTreeMap::new();
        let mut requests: BTreeMap<(i32, u32), (Vec<usize>, Vec<offsets::Question>)> = BTreeMap::new();
        for &at in open {
            let (partition, spec) = &questions[at];
            if self.client.known_leader(partition).is_none()
                && let Err(error) = self.client.topic(&partition.topic, deadline).await
            {
                answers[at] = Err(error);
                continue;
            }
            let Some(leader) = self.client.known_leader(partition) else {
                answers[at] = Err(self.client.no_leader(partition));
                self.client.mark_stale(&partition.topic);
                continue;
            };
            let turn = asked_before.entry(partition).or_default();
            let (places, asked) = requests.entry((leader.broker, *turn)).or_default();
            *turn += 1;
            places.push(at);
            asked.push((partition.clone(), leader.epoch, *spec));
        }
        for ((broker, _), (places, asked)) in requests {
            let told =
                offsets::ask_leader(&self.client, broker, &asked, IsolationLevel::ReadUncommitted).await;
            let told = told.unwrap_or_else(|error| places.iter().map(|_| Err(error.clone())).collect());
            for (at, answer) in places.into_iter().zip(told) {
                if answer.is_err() {
                    self.client.mark_stale(&questions[at].0.topic);
                }
                answers[at] = answer;
            }
        }
    }

    /// Deletes all records of a partition before an offset (KIP-107), and returns the log's first offset afterwards.
    /// `before` may be -1: everything up to the high watermark. Repeating it does no harm.
    ///
    /// # Errors
    /// What the leader says, such as OFFSET_OUT_OF_RANGE for an offset behind the high watermark; [`Error::Unsettled`] if an
    /// earlier leader may have deleted them.
    pub async fn delete_records(&self, partition: &TopicPartition, before: i64) -> Result<i64, Error> {
        let mut attempts = Attempts::new(&self.client);
        loop {
            match self.delete_records_once(partition, before, attempts.deadline).await {
                Ok(start) => return Ok(start),
                Err(error) => {
                    self.client.mark_stale(&partition.topic);
                    // A leader that has moved the log's start and is replaced while it waits for its followers says that
                    // it does not lead.
                    attempts.maybe_done |= error.is_retriable() && error.kafka().is_some();
                    attempts.wait_after(error).await?;
                }
            }
        }
    }

    async fn delete_records_once(
        &self,
        partition: &TopicPartition,
        before: i64,
        deadline: Instant,
    ) -> Result<i64, Error> {
        self.client.topic(&partition.topic, deadline).await?;
        let Some(leader) = self.client.known_leader(partition) else {
            return Err(self.client.no_leader(partition));
        };
        let asked =
            DeleteRecordsPartition::default().with_partition_index(partition.partition).with_offset(before);
        let topic = DeleteRecordsTopic::default()
            .with_name(StrBytes::from_string(partition.topic.to_string()).into())
            .with_partitions(vec![asked]);
        let request =
            DeleteRecordsRequest::default().with_timeout_ms(self.timeout_ms()).with_topics(vec![topic]);
        let limit = self.client.config().request_timeout;
        let (address, response) = self.client.ask(leader.broker, &request, limit).await?;
        let topic = response.topics.iter().find(|topic| **topic.name == *partition.topic);
        let mut partitions = topic.into_iter().flat_map(|topic| &topic.partitions);
        let about = partition.to_string();
        let answer = partitions.find(|answer| answer.partition_index == partition.partition);
        let answer = answer.ok_or_else(|| silent::<DeleteRecordsRequest>(&address, &about))?;
        check::<DeleteRecordsRequest>(&address, &about, answer.error_code, None)?;
        Ok(answer.low_watermark)
    }
}
