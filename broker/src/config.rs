//! Settings: what a broker is told by its command line and its `server.properties`.
//!
//! Kafka's names are kept, so that an existing file works. A key that is unknown is an error that names file, line
//! and the nearest key that exists; a key of Kafka's that has no meaning here is accepted and reported once.

mod cluster;
mod keys;
mod listeners;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use weir_protocol::metadata::{FeatureRange, settings};
use weir_protocol::{controller, group, partition, raft};

pub(crate) use keys::StaticSetting;
pub use keys::{KeyDoc, documented_keys};
pub use listeners::ListenerKeys;

/// What a broker needs to know before it starts.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The folder that holds everything the broker stores.
    pub data_dir: PathBuf,
    /// `HOST:PORT` to listen on; port 0 picks a free one.
    pub listen: String,
    /// `HOST:PORT` that clients are told to connect to (Kafka's `advertised.listeners`). Without one it is the address
    /// that the client itself reached.
    pub advertised: Option<(String, u16)>,
    /// `HOST:PORT` of the HTTP endpoint for metrics and health; none without it.
    pub http: Option<String>,
    /// `node.id`.
    pub node_id: i32,
    /// `process.roles`: whether this node votes in the metadata quorum, holds partitions, or both.
    pub roles: Roles,
    /// `weir.feature.level.max`: the levels that this node works at (KIP-584). One that works beyond what this version
    /// knows plays a newer version.
    pub feature_levels: FeatureRange,
    /// `controller.quorum.voters`: the quorum's first voters, with the addresses of their internal listeners. Empty: this
    /// node alone.
    pub quorum_voters: Vec<QuorumVoter>,
    /// `HOST:PORT` of the listener for the cluster's other nodes, of which port 0 picks a free one; none for a node alone.
    pub internal_listen: Option<String>,
    /// `HOST:PORT` that other nodes are told to connect to; without one the address that it listens on.
    pub internal_advertised: Option<(String, u16)>,
    /// `weir.internal.secret`: what the cluster's nodes know of each other and nobody else does.
    pub internal_secret: Option<Secret>,
    /// `weir.internal.secret.file`: where the secret stands; whoever starts the node reads it.
    pub internal_secret_file: Option<PathBuf>,
    /// `broker.session.timeout.ms`: a broker that is silent for so long is fenced, and others lead instead.
    pub session_timeout: Duration,
    /// `broker.heartbeat.interval.ms`.
    pub heartbeat_interval: Duration,
    /// `leader.imbalance.check.interval.seconds`: how often leadership goes back to the first replicas; `None` is
    /// `auto.leader.rebalance.enable=false`.
    pub leader_balance: Option<Duration>,
    /// `weir.controlled.shutdown.ms`: how long a clean stop waits at most until others lead what this broker led.
    pub controlled_shutdown_max: Duration,
    /// `controller.quorum.election.timeout.ms`: the shortest time without a leader of the quorum after which a voter
    /// campaigns; it waits up to as long again, drawn by chance.
    pub election_timeout: Duration,
    /// `controller.quorum.fetch.max.bytes`: the most entries that the quorum's leader sends at a time, the first one aside.
    pub quorum_fetch_bytes_max: usize,
    /// `replica.lag.time.max.ms`: a follower that has not been in sync for so long leaves the ISR.
    pub replica_lag_max: Duration,
    /// `replica.fetch.max.bytes`: the most that a follower fetches of one partition at a time, its first batch aside.
    pub replica_fetch_bytes_max: usize,
    /// `replica.fetch.response.max.bytes`: the most that a follower fetches at a time, its first batch aside.
    pub replica_fetch_response_bytes_max: usize,
    /// `metadata.log.max.record.bytes.between.snapshots`: a snapshot of the metadata is taken when its log has grown by
    /// so much.
    pub metadata_snapshot_bytes: u64,
    /// `weir.metadata.log.retained.entries`: how many entries behind a snapshot stay in the metadata log, for nodes that
    /// are not far behind.
    pub metadata_entries_retained: u32,
    /// `metadata.log.segment.bytes`.
    pub metadata_segment_bytes: u32,
    /// `broker.rack`.
    pub rack: Option<String>,
    /// `auto.create.topics.enable`: whether Metadata may create a topic that a client names.
    pub auto_create_topics: bool,
    /// `delete.topic.enable`.
    pub delete_topics: bool,
    /// `num.partitions`: for topics that are created without a number of their own.
    pub partitions: i32,
    /// `default.replication.factor`; `None` is min(3, brokers).
    pub replication_factor: Option<i16>,
    /// What topics fall back to, by the broker's names of their settings (`log.segment.bytes` and so on).
    pub topic_defaults: BTreeMap<String, String>,
    /// `socket.request.max.bytes`: a longer frame closes its connection.
    pub request_bytes_max: usize,
    /// `queued.max.request.bytes`: requests that are being read, processed or waiting for their sync, of all
    /// connections together. At the limit sockets are no longer read.
    pub queued_request_bytes_max: usize,
    /// `weir.queued.max.reply.bytes`: fetched bytes that wait for their clients, of all connections together. At the
    /// limit a fetch gets no more than one batch.
    pub queued_reply_bytes_max: usize,
    /// `fetch.max.bytes`: the most that one fetch returns, its first batch aside.
    pub fetch_bytes_max: usize,
    /// `max.connections`: one more is closed at once.
    pub connections_max: usize,
    /// `connections.max.idle.ms`: a connection that sends no request for so long is closed.
    pub connection_idle: Duration,
    /// `weir.connection.stall.ms`: a peer that neither takes nor completes 64 KiB of what is under way in this time
    /// is cut off.
    pub connection_stall: Duration,
    /// `weir.connection.max.in.flight`: requests of one connection that are processed at a time.
    pub in_flight_max: usize,
    /// `weir.shards`: tasks that own partitions; `None` is twice the cores.
    pub shards: Option<usize>,
    /// `weir.disk.threads`: threads for reads and segment writes.
    pub disk_threads: usize,
    /// `weir.journal.bytes`: the journal's files together; preallocated.
    pub journal_bytes: u64,
    /// `weir.journal.files`: how many files these are.
    pub journal_files: u32,
    /// `producer.id.expiration.ms`: an idempotent producer that appends nothing for so long is forgotten.
    pub producer_id_expiration: Duration,
    /// `producer.id.expiration.check.interval.ms`.
    pub producer_id_expiration_check: Duration,
    /// `log.cleaner.enable`.
    pub log_cleaner_enable: bool,
    /// `log.cleaner.backoff.ms`: how often each shard looks for logs that are worth compacting.
    pub log_cleaner_backoff: Duration,
    /// `max.incremental.fetch.session.cache.slots`.
    pub fetch_sessions_max: usize,
    /// Bounds and times of consumer groups: `group.*` and `offsets.*`.
    pub groups: group::Limits,
    /// `offsets.topic.num.partitions`: of `__consumer_offsets`, when it is made.
    pub offsets_topic_partitions: i32,
    /// `offsets.topic.replication.factor`; `None` is min(3, brokers).
    pub offsets_topic_replication: Option<i16>,
    /// Keys of Kafka's that stand in the file and have no meaning here, for one line in the log.
    pub ignored_keys: Vec<String>,
    /// The keys about listeners as they stand in the file.
    pub listener_keys: ListenerKeys,
    /// Keys that the file sets, topics' defaults aside: DescribeConfigs names the file as their source even where the
    /// value is the default.
    pub given_keys: BTreeSet<&'static str>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            data_dir: PathBuf::from("./data"),
            listen: "127.0.0.1:9092".to_owned(),
            advertised: None,
            http: None,
            node_id: 1,
            roles: Roles::default(),
            feature_levels: FeatureRange::KNOWN,
            quorum_voters: Vec::new(),
            internal_listen: None,
            internal_advertised: None,
            internal_secret: None,
            internal_secret_file: None,
            session_timeout: controller::Timing::default().session,
            heartbeat_interval: controller::HEARTBEAT_INTERVAL,
            leader_balance: controller::Timing::default().balance,
            controlled_shutdown_max: Duration::from_secs(10),
            election_timeout: raft::Timing::default().election_min,
            quorum_fetch_bytes_max: raft::Limits::default().append_bytes_max,
            replica_lag_max: Duration::from_millis(
                partition::Limits::default().replica_lag_ms_max.unsigned_abs(),
            ),
            replica_fetch_bytes_max: 1 << 20,
            replica_fetch_response_bytes_max: 10 << 20,
            metadata_snapshot_bytes: 20 << 20,
            metadata_entries_retained: 10_000,
            metadata_segment_bytes: 64 << 20,
            rack: None,
            auto_create_topics: true,
            delete_topics: true,
            partitions: 1,
            replication_factor: None,
            topic_defaults: BTreeMap::new(),
            request_bytes_max: 100 << 20,
            queued_request_bytes_max: 64 << 20,
            queued_reply_bytes_max: 32 << 20,
            fetch_bytes_max: 8 << 20,
            connections_max: 16_384,
            connection_idle: Duration::from_secs(600),
            connection_stall: Duration::from_secs(30),
            in_flight_max: 256,
            shards: None,
            disk_threads: 4,
            journal_bytes: 256 << 20,
            journal_files: 8,
            producer_id_expiration: Duration::from_secs(24 * 3600),
            producer_id_expiration_check: Duration::from_secs(600),
            log_cleaner_enable: true,
            log_cleaner_backoff: Duration::from_secs(15),
            fetch_sessions_max: 1000,
            groups: group::Limits::default(),
            offsets_topic_partitions: 50,
            offsets_topic_replication: None,
            ignored_keys: Vec::new(),
            listener_keys: ListenerKeys::default(),
            given_keys: BTreeSet::new(),
        }
    }
}

/// What a node is for (`process.roles`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roles {
    /// It holds partitions and serves clients.
    pub broker: bool,
    /// It may vote in the metadata quorum and lead it.
    pub controller: bool,
}

impl Default for Roles {
    fn default() -> Roles {
        Roles { broker: true, controller: true }
    }
}

/// A first voter of the metadata quorum: `ID@HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuorumVoter {
    /// Its `node.id`.
    pub node_id: i32,
    /// Of its internal listener.
    pub host: String,
    /// Of its internal listener.
    pub port: u16,
}

/// A secret, which no log and no error shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a secret in.
    pub fn new(secret: impl Into<String>) -> Secret {
        Secret(secret.into())
    }

    /// Its bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(hidden)")
    }
}

/// Why a configuration file is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {reason}")]
    Unreadable {
        /// The file.
        path: String,
        /// What the system says.
        reason: String,
    },
    /// A line is not `key=value`.
    #[error("{file}:{line}: expected key=value, found '{text}'")]
    NotAPair {
        /// The file.
        file: String,
        /// Its line, from 1.
        line: usize,
        /// The line's text.
        text: String,
    },
    /// There is no such key.
    #[error("{file}:{line}: unknown key '{key}'{}", nearest.map(|name| format!("; did you mean '{name}'?")).unwrap_or_default())]
    UnknownKey {
        /// The file.
        file: String,
        /// Its line, from 1.
        line: usize,
        /// The key.
        key: String,
        /// The key that it most resembles.
        nearest: Option<&'static str>,
    },
    /// The value does not fit the key.
    #[error("{file}:{line}: {key}: {reason}")]
    BadValue {
        /// The file.
        file: String,
        /// Its line, from 1.
        line: usize,
        /// The key.
        key: String,
        /// What is expected and what was found.
        reason: String,
    },
    /// Settings do not fit together.
    #[error("{0}")]
    Misfit(String),
}

impl Config {
    /// Applies a file in the format of Kafka's `server.properties` to these settings. `file` names it in errors.
    pub fn apply(&mut self, file: &Path, text: &str) -> Result<(), ConfigError> {
        let file = file.display().to_string();
        let mut lines = BTreeMap::new();
        for (line, key, value) in pairs(&file, text)? {
            let bad = |reason| ConfigError::BadValue { file: file.clone(), line, key: key.clone(), reason };
            match keys::find(&key) {
                Some(found) => {
                    (found.set)(self, value.trim()).map_err(bad)?;
                    self.given_keys.insert(found.name);
                    lines.insert(found.name, line);
                }
                None if settings::broker_setting(&key).is_some() => {
                    settings::check_broker(&key, &value).map_err(|error| bad(error.to_string()))?;
                    self.topic_defaults.insert(key, value);
                }
                None if keys::is_ignored(&key) => self.ignored_keys.push(key),
                None => {
                    let nearest = keys::nearest(&key);
                    return Err(ConfigError::UnknownKey { file, line, key, nearest });
                }
            }
        }
        listeners::resolve(self).map_err(|(key, reason)| {
            let line = lines.get(key).copied().unwrap_or(1);
            ConfigError::BadValue { file, line, key: key.to_owned(), reason }
        })
    }
}

/// The pairs of a properties file with their lines: `#` and `!` begin comments, `=`, `:` or blanks end the key, and a
/// backslash at the end of a line continues it.
fn pairs(file: &str, text: &str) -> Result<Vec<(usize, String, String)>, ConfigError> {
    let mut found = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((index, first)) = lines.next() {
        let first = first.trim_start();
        if first.is_empty() || first.starts_with(['#', '!']) {
            continue;
        }
        let mut logical = first.to_owned();
        while logical.ends_with('\\') {
            logical.pop();
            let Some((_, next)) = lines.next() else { break };
            logical.push_str(next.trim_start());
        }
        let line = index + 1;
        let Some(end) = logical.find(|c: char| c.is_whitespace() || c == '=' || c == ':') else {
            return Err(ConfigError::NotAPair { file: file.to_owned(), line, text: logical });
        };
        let (key, rest) = logical.split_at(end);
        let rest = rest.trim_start();
        let value = rest.strip_prefix(['=', ':']).unwrap_or(rest).trim();
        found.push((line, key.to_owned(), value.to_owned()));
    }
    Ok(found)
}

#[cfg(test)]
#[path = "config/config_tests.rs"]
mod tests;
