//! How a client reaches its cluster.

use std::time::Duration;

/// How a client reaches its cluster.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Brokers to begin with, as `host:port`.
    pub bootstrap: Vec<String>,
    /// What the client calls itself to brokers.
    pub client_id: String,
    /// How long [`Client::connect`] tries again while no broker answers; never longer than `operation_timeout`.
    pub bootstrap_timeout: Duration,
    /// How long a connection may take to be made and to agree upon versions.
    pub connect_timeout: Duration,
    /// How long an answer may take.
    pub request_timeout: Duration,
    /// After how long without an answer somebody else is asked too, and whether another broker leads by now: a broker that
    /// is stopped or cut off keeps its connections. A question is never asked twice where that could do harm.
    pub patience: Duration,
    /// How long an operation may take with all its repetitions, where it has no limit of its own.
    pub operation_timeout: Duration,
    /// The wait before the first repetition; it doubles.
    pub retry_backoff: Duration,
    /// The longest wait before a repetition.
    pub retry_backoff_max: Duration,
    /// How old knowledge about a topic may become.
    pub metadata_age_max: Duration,
    /// The broker may create a topic that is asked for and does not exist, if it allows that itself (K21).
    pub auto_create_topics: bool,
    /// The largest answer that is accepted, in bytes.
    pub response_bytes_max: usize,
    /// How many requests may wait for their answers on one connection.
    pub requests_in_flight_max: usize,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            bootstrap: vec!["127.0.0.1:9092".to_owned()],
            client_id: "weir-client".to_owned(),
            bootstrap_timeout: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            patience: Duration::from_millis(500),
            operation_timeout: Duration::from_secs(60),
            retry_backoff: Duration::from_millis(100),
            retry_backoff_max: Duration::from_secs(1),
            metadata_age_max: Duration::from_secs(300),
            auto_create_topics: false,
            response_bytes_max: 128 << 20,
            requests_in_flight_max: 64,
        }
    }
}
