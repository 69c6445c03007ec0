//! What leaders answer, and what becomes of the batches.

use std::collections::BTreeMap;
use std::sync::Arc;

use kafka_protocol::error::ResponseError;
use weir_runtime::time::{self, Instant};
use weir_wire::kafka::messages::ProduceRequest;
use weir_wire::kafka::messages::produce_response::PartitionProduceResponse;

use super::batch::Batch;
use super::identity;
use super::sender::{Answer, Sender};
use crate::call::Call;
use crate::error::{Error, KafkaError};

impl Sender {
    pub(super) fn on_answer(&mut self, answer: Answer) {
        let Answer { broker, sent, result } = answer;
        if let Some(held) = self.requests_by_broker.get_mut(&broker) {
            *held = held.saturating_sub(1);
        }
        match result {
            Ok((_, None)) => sent.into_iter().for_each(|(at, batch)| self.on_produced(at, batch, None, None)),
            Ok((address, Some(response))) => {
                let mut answers: BTreeMap<(&str, i32), &PartitionProduceResponse> = BTreeMap::new();
                for topic in &response.responses {
                    let partitions = topic.partition_responses.iter();
                    answers.extend(partitions.map(|partition| ((&**topic.name, partition.index), partition)));
                }
                for (at, batch) in sent {
                    let partition = &self.queues[at].partition;
                    let answer = answers.get(&(&*partition.topic, partition.partition)).copied();
                    self.on_partition_answer(at, batch, &address, answer);
                }
            }
            Err(error) => {
                for (at, batch) in sent {
                    self.client.mark_stale(&self.queues[at].partition.topic);
                    self.on_failure(at, batch, error.clone());
                }
            }
        }
        for at in self.parked.remove(&broker).unwrap_or_default() {
            self.schedule(at);
        }
    }

    fn on_partition_answer(
        &mut self,
        at: usize,
        mut batch: Batch,
        address: &Arc<str>,
        answer: Option<&PartitionProduceResponse>,
    ) {
        let (address, api) = (address.clone(), ProduceRequest::NAME);
        let partition = &self.queues[at].partition;
        let Some(answer) = answer else {
            let reason = format!("it says nothing about {partition}");
            return self.on_failure(at, batch, Error::Protocol { address, api, reason });
        };
        let Some(error) = KafkaError::from_code(answer.error_code) else {
            if answer.base_offset < 0 {
                let reason = format!("{partition} got offset {}", answer.base_offset);
                return self.on_failure(at, batch, Error::Protocol { address, api, reason });
            }
            let append_time_ms = (answer.log_append_time_ms >= 0).then_some(answer.log_append_time_ms);
            return self.on_produced(at, batch, Some(answer.base_offset), append_time_ms);
        };
        if error.means_stale_metadata() {
            self.client.mark_stale(&partition.topic);
        }
        if error.kind() == ResponseError::DuplicateSequenceNumber {
            // It is in the log, too far back for the leader to say where.
            return self.on_produced(at, batch, None, None);
        }
        let too_large =
            matches!(error.kind(), ResponseError::MessageTooLarge | ResponseError::RecordListTooLarge);
        if too_large && batch.records.len() > 1 {
            return self.on_too_large(at, batch);
        }
        let message = answer.error_message.as_ref().map(|message| message.to_string());
        let about = partition.to_string();
        let refused = Error::Kafka { address, api, about, error, message };
        if batch.stamp.is_some() && identity::is_about_sequences(error) {
            return self.on_out_of_sequence(at, batch, refused);
        }
        batch.last_error = Some(refused.clone());
        self.on_failure(at, batch, refused);
    }

    fn on_produced(
        &mut self,
        at: usize,
        batch: Batch,
        base_offset: Option<i64>,
        append_time_ms: Option<i64>,
    ) {
        retire(&mut self.outstanding, batch.sequence);
        let queue = &mut self.queues[at];
        queue.landed(batch.sequence);
        queue.vouch(batch.stamp);
        batch.produced(&queue.partition, base_offset, append_time_ms);
        self.schedule(at);
    }

    /// A batch whose codec made it larger than expected, or a broker with a smaller limit than the batch size.
    fn on_too_large(&mut self, at: usize, batch: Batch) {
        let (first, second) = batch.split();
        *self.outstanding.entry(second.sequence).or_default() += 1;
        let queue = &mut self.queues[at];
        queue.landed(first.sequence);
        queue.put_back([first, second].into_iter());
        self.schedule(at);
    }

    pub(super) fn on_failure(&mut self, at: usize, mut batch: Batch, error: Error) {
        batch.maybe_written |= error.may_have_happened();
        // Without retries, only what certainly did not reach the log may be sent again.
        let allowed = self.config.retries || !batch.maybe_written;
        if allowed && error.is_retriable() {
            self.send_again(at, batch, &error);
        } else {
            self.give_up(at, batch, &error);
        }
    }

    /// Puts a batch back in its place, to be sent after a wait, if there is time for that.
    pub(super) fn send_again(&mut self, at: usize, mut batch: Batch, error: &Error) {
        batch.attempts += 1;
        let now = time::now();
        let wait = self.client.backoff().before(batch.attempts);
        if now + wait >= batch.created + self.config.delivery_timeout {
            return self.give_up(at, batch, error);
        }
        let queue = &mut self.queues[at];
        tracing::debug!(partition = %queue.partition, %error, attempts = batch.attempts, ?wait, "sending again");
        queue.not_before = now + wait;
        queue.landed(batch.sequence);
        queue.put_back(std::iter::once(batch));
        self.schedule(at);
    }

    pub(super) fn give_up(&mut self, at: usize, batch: Batch, error: &Error) {
        retire(&mut self.outstanding, batch.sequence);
        let queue = &mut self.queues[at];
        queue.landed(batch.sequence);
        queue.gap |= batch.stamp.is_some();
        queue.not_before = Instant::ORIGIN;
        batch.failed(&queue.partition, error);
        self.schedule(at);
    }
}

/// One batch of this sequence is done with.
pub(super) fn retire(outstanding: &mut BTreeMap<u64, usize>, sequence: u64) {
    if let Some(left) = outstanding.get_mut(&sequence) {
        *left -= 1;
        if *left == 0 {
            outstanding.remove(&sequence);
        }
    }
}
