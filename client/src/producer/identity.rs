//! With idempotence: the producer's id, and what leaders say about sequences.

use std::collections::BTreeSet;

use kafka_protocol::error::ResponseError;
use weir_runtime::time::{self, Instant};
use weir_wire::kafka::messages::InitProducerIdRequest;

use super::batch::Batch;
use super::sender::{Event, Sender};
use super::sequence::ProducerId;
use crate::call::Call;
use crate::cluster::Client;
use crate::error::{Error, KafkaError};

/// The producer's id.
#[derive(Debug, Default)]
pub(super) struct Identity {
    known: Option<ProducerId>,
    asking: bool,
    /// After an error: not to be asked for before this.
    not_before: Option<Instant>,
    attempts: u32,
    /// There will be none.
    refused: Option<Error>,
    /// Partitions whose batches wait for it.
    waiting: BTreeSet<usize>,
}

/// Whether a leader refuses a batch because of its numbers, and has certainly not appended this attempt.
pub(super) fn is_about_sequences(error: KafkaError) -> bool {
    use ResponseError as E;
    matches!(error.kind(), E::OutOfOrderSequenceNumber | E::UnknownProducerId | E::InvalidProducerEpoch)
}

impl Sender {
    /// Whether the first batch of a queue can get its numbers, where it needs them; otherwise it waits for the producer's id.
    pub(super) fn is_identified(&mut self, at: usize, now: Instant) -> bool {
        if !self.config.is_idempotent() {
            return true;
        }
        if let Some(known) = self.identity.known {
            let queue = &mut self.queues[at];
            queue.adopt(known);
            if queue.close_gap().is_some() {
                return true;
            }
            // There are no more epochs under this id.
            self.identity.known = None;
        }
        self.identity.waiting.insert(at);
        self.ask_for_identity(now);
        false
    }

    fn ask_for_identity(&mut self, now: Instant) {
        if let Some(refused) = self.identity.refused.clone() {
            return self.fail_waiting(&refused);
        }
        if self.identity.asking {
            return;
        }
        self.identity.asking = true;
        let (client, not_before) = (self.client.clone(), self.identity.not_before.unwrap_or(now));
        self.in_flight.push(async move {
            time::sleep_until(not_before).await;
            Event::Identified(init_producer_id(&client).await)
        });
    }

    pub(super) fn on_identified(&mut self, result: Result<ProducerId, Error>) {
        self.identity.asking = false;
        let now = time::now();
        match result {
            Ok(id) => {
                self.identity.known = Some(id);
                self.identity.attempts = 0;
                self.identity.not_before = None;
            }
            Err(error) if error.is_retriable() => {
                tracing::debug!(%error, "the producer has no id yet");
                self.identity.attempts += 1;
                self.identity.not_before = Some(now + self.client.backoff().before(self.identity.attempts));
                for at in self.identity.waiting.clone() {
                    // What is still waiting when its time is over says for what.
                    if let Some(first) = self.queues[at].batches.front_mut() {
                        first.last_error = Some(error.clone());
                    }
                    self.expire(at, now);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the producer gets no id");
                self.identity.refused = Some(error.clone());
                self.fail_waiting(&error);
            }
        }
        for at in std::mem::take(&mut self.identity.waiting) {
            self.schedule(at);
        }
    }

    fn fail_waiting(&mut self, error: &Error) {
        for at in std::mem::take(&mut self.identity.waiting) {
            while let Some(batch) = self.queues[at].batches.pop_front() {
                self.give_up(at, batch, error);
            }
        }
    }

    /// A leader finds a gap before a batch, or does not know the producer any more.
    ///
    /// While an earlier batch is not settled that is no wonder: it is sent again when it is its turn. Otherwise it gets new
    /// numbers in the next epoch, which is safe if it certainly is not in the log; if an earlier attempt may have brought it
    /// there, nobody can tell any more, and it fails and says so.
    pub(super) fn on_out_of_sequence(&mut self, at: usize, mut batch: Batch, error: Error) {
        batch.last_error = Some(error.clone());
        let queue = &mut self.queues[at];
        queue.landed(batch.sequence);
        if queue.is_oldest(batch.sequence) {
            if batch.maybe_written {
                return self.give_up(at, batch, &error);
            }
            tracing::info!(partition = %queue.partition, %error, "numbering anew in the next epoch");
            queue.gap = true;
            if error.kafka().is_some_and(|kafka| kafka.kind() == ResponseError::InvalidProducerEpoch) {
                // Somebody else has used the id in a later epoch.
                self.identity.known = None;
            }
        }
        self.send_again(at, batch, &error);
    }
}

/// Asks any broker for an id (KIP-98), once.
async fn init_producer_id(client: &Client) -> Result<ProducerId, Error> {
    let request = InitProducerIdRequest::default()
        .with_transactional_id(None)
        .with_transaction_timeout_ms(i32::MAX)
        .with_producer_id((-1).into())
        .with_producer_epoch(-1);
    let (address, response) = client.ask_any(&request).await?;
    match KafkaError::from_code(response.error_code) {
        None => Ok(ProducerId { id: response.producer_id.0, epoch: response.producer_epoch }),
        Some(error) => {
            let about = "this producer".to_owned();
            Err(Error::Kafka { address, api: InitProducerIdRequest::NAME, about, error, message: None })
        }
    }
}
