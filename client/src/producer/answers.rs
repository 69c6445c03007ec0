//! What leaders answer, and what becomes of the batches.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::error::ResponseError;
use weir_runtime::time::{self, Instant};
use weir_wire::kafka::messages::ProduceRequest;
use weir_wire::kafka::messages::produce_response::{NodeEndpoint, PartitionProduceResponse};

use super::batch::Batch;
use super::identity;
use super::sender::{Answer, Sender};
use crate::call::Call;
use crate::error::{Error, KafkaError};
use crate::metadata::{BrokerInfo, Hint};

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
                    let hint = answer.and_then(|answer| hint(answer, &response.node_endpoints));
                    let hinted = hint.is_some_and(|hint| self.client.take_hint(partition, hint));
                    self.on_partition_answer(at, batch, &address, answer, hinted);
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
        hinted: bool,
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
        if error.means_stale_metadata() && !hinted {
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
        // Whoever was named takes it at once.
        let wait = hinted.then_some(Duration::ZERO);
        self.fail(at, batch, refused, wait);
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

    pub(super) fn on_failure(&mut self, at: usize, batch: Batch, error: Error) {
        self.fail(at, batch, error, None);
    }

    fn fail(&mut self, at: usize, mut batch: Batch, error: Error, wait: Option<Duration>) {
        batch.maybe_written |= error.may_have_happened();
        // Without retries, only what certainly did not reach the log may be sent again.
        let allowed = self.config.retries || !batch.maybe_written;
        if allowed && error.is_retriable() {
            self.send_again_after(at, batch, &error, wait);
        } else {
            self.give_up(at, batch, &error);
        }
    }

    /// Puts a batch back in its place, to be sent after a wait, if there is time for that.
    pub(super) fn send_again(&mut self, at: usize, batch: Batch, error: &Error) {
        self.send_again_after(at, batch, error, None);
    }

    fn send_again_after(&mut self, at: usize, mut batch: Batch, error: &Error, wait: Option<Duration>) {
        batch.attempts += 1;
        let now = time::now();
        let wait = wait.unwrap_or_else(|| self.client.backoff().before(batch.attempts));
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

/// Whom a leader names in its place, if it does (KIP-951).
fn hint(answer: &PartitionProduceResponse, endpoints: &[NodeEndpoint]) -> Option<Hint> {
    KafkaError::from_code(answer.error_code).filter(|error| error.means_stale_metadata())?;
    let (leader, epoch) = (answer.current_leader.leader_id.0, answer.current_leader.leader_epoch);
    let at = endpoints.iter().find(|endpoint| endpoint.node_id.0 == leader).map(|endpoint| BrokerInfo {
        id: leader,
        host: endpoint.host.to_string(),
        port: endpoint.port,
        rack: endpoint.rack.as_ref().map(|rack| rack.to_string()),
    });
    Some(Hint { leader, epoch, at })
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
