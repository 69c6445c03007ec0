//! How a consumer takes part in a group.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Assignor;
use crate::consumer::{ConsumerConfig, Start};
use crate::error::Error;

/// How a consumer takes part in a group.
#[derive(Clone, Debug)]
pub struct GroupConfig {
    /// The group's name.
    pub group: String,
    /// The member's name for good (KIP-345): a restart within the session takes its partitions up again without a
    /// rebalance. Two living members with one name fence each other.
    pub instance: Option<String>,
    /// How partitions may be divided, best first. Members give partitions back only as they move where all of a member's
    /// assignors are cooperative; otherwise everything stops for a rebalance.
    pub assignors: Vec<Assignor>,
    /// How long the group waits for a sign of life before it gives a member up.
    pub session_timeout: Duration,
    /// How long the application may take between two polls, and a rebalance for the slowest member; then the member leaves
    /// until the next poll.
    pub poll_interval_max: Duration,
    /// How often a sign of life is sent.
    pub heartbeat_interval: Duration,
    /// Where this member runs, for assignors of other clients that look at it (KIP-881).
    pub rack: Option<String>,
    /// Where to begin in a partition for which the group has committed nothing; `None` is an error.
    pub start: Option<Start>,
    /// How often positions are committed by the polls, before partitions are given back, and at the end: `None` leaves it
    /// to the application. A poll commits what earlier polls have handed out.
    pub auto_commit: Option<Duration>,
    /// How records are fetched.
    pub consumer: ConsumerConfig,
}

impl GroupConfig {
    /// The defaults of Kafka's Java client, except that nothing is committed by itself.
    pub fn new(group: impl Into<String>) -> Self {
        Self {
            group: group.into(),
            instance: None,
            assignors: vec![Assignor::CooperativeSticky],
            session_timeout: Duration::from_secs(45),
            poll_interval_max: Duration::from_secs(300),
            heartbeat_interval: Duration::from_secs(3),
            rack: None,
            start: Some(Start::End),
            auto_commit: None,
            consumer: ConsumerConfig::default(),
        }
    }

    /// Refuses what makes no sense.
    pub(super) fn check(&self) -> Result<(), Error> {
        let refuse = |reason: &str| Err(Error::Invalid(reason.to_owned()));
        let assignors: BTreeSet<Assignor> = self.assignors.iter().copied().collect();
        if self.group.is_empty() {
            return refuse("a group has a name");
        }
        if assignors.is_empty() || assignors.len() != self.assignors.len() {
            return refuse("a member offers at least one assignor, and each once");
        }
        if self.heartbeat_interval >= self.session_timeout {
            return refuse("signs of life come more often than the session ends");
        }
        Ok(())
    }
}
