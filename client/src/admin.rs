//! Administration: topics, settings, groups, offsets, the cluster.

mod cluster;
mod configs;
mod features;
mod groups;
pub(crate) mod offsets;
mod records;
mod topics;

use std::sync::Arc;

use weir_runtime::time::{self, Instant};

use crate::call::Call;
use crate::cluster::Client;
use crate::error::{Error, KafkaError};
pub use cluster::{
    BrokerDescription, ClusterDescription, Elected, Election, QuorumDescription, QuorumMember,
};
pub use configs::{ConfigChange, ConfigEntry, ConfigResource, ConfigSource};
pub use features::FeatureLevel;
pub use groups::{GroupDescription, GroupListing, GroupMember};
pub use offsets::{OffsetAt, OffsetSpec};
pub use topics::{NewTopic, TopicDescription, TopicListing};

/// Administers a cluster.
///
/// What may pass is repeated. A repetition may find that the first attempt has succeeded: TOPIC_ALREADY_EXISTS or
/// UNKNOWN_TOPIC_OR_PARTITION after an attempt without an answer count as success.
#[derive(Clone)]
pub struct Admin {
    client: Client,
}

const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;

impl Admin {
    /// For the client's cluster.
    pub fn new(client: &Client) -> Self {
        Self { client: client.clone() }
    }

    /// How long a broker may take: it says why it gives up before this client does.
    fn timeout_ms(&self) -> i32 {
        let limit = self.client.config().request_timeout * 9 / 10;
        i32::try_from(limit.as_millis()).unwrap_or(i32::MAX)
    }
}

/// The repetitions of one request that changes something.
struct Attempts<'a> {
    client: &'a Client,
    deadline: Instant,
    repetition: u32,
    /// An attempt ended without saying whether it was carried out.
    maybe_done: bool,
}

impl<'a> Attempts<'a> {
    fn new(client: &'a Client) -> Self {
        Self { client, deadline: client.deadline(), repetition: 0, maybe_done: false }
    }

    /// Waits before the next attempt, or gives the error back where there is none.
    async fn wait_after(&mut self, error: Error) -> Result<(), Error> {
        self.repetition += 1;
        let wait = self.client.backoff().before(self.repetition);
        if !error.is_retriable() || time::now() + wait >= self.deadline {
            return Err(if self.maybe_done { Error::Unsettled { source: Box::new(error) } } else { error });
        }
        self.maybe_done |= error.may_have_happened();
        time::sleep(wait).await;
        // Another broker may be the controller by now.
        let forgotten = self.client.refresh_brokers().await;
        if let Err(error) = forgotten {
            tracing::debug!(%error, "the controller cannot be looked up");
        }
        Ok(())
    }
}

fn is(error: &Error, code: i16) -> bool {
    error.kafka().is_some_and(|kafka| kafka.code() == code)
}

fn silent<R: Call>(address: &Arc<str>, about: &str) -> Error {
    Error::Protocol {
        address: address.clone(),
        api: R::NAME,
        reason: format!("it says nothing about {about}"),
    }
}

fn check<R: Call>(address: &Arc<str>, about: &str, code: i16, message: Option<String>) -> Result<(), Error> {
    match KafkaError::from_code(code) {
        None => Ok(()),
        Some(error) => Err(Error::Kafka {
            address: address.clone(),
            api: R::NAME,
            about: about.to_owned(),
            error,
            message,
        }),
    }
}
