//! The table of keys of `server.properties`: name, meaning and how a value is taken in.

use std::time::Duration;

use weir_protocol::metadata::settings::Kind::{self, Boolean, Int, List, Long, String as Text};
use weir_protocol::metadata::settings::TOPIC_SETTINGS;

use super::values::{boolean, bytes, millis, number, retention, shown, shown_ms};
use super::{Config, Secret, cluster, listeners};

/// Takes a value in, or says what was expected.
pub(super) type Set = fn(&mut Config, &str) -> Result<(), String>;

/// The value that holds, as the file would have it; `None` where nothing is set.
type Get = fn(&Config) -> Option<String>;

/// A key of the configuration file.
pub(super) struct Key {
    pub(super) name: &'static str,
    doc: &'static str,
    pub(super) set: Set,
    /// How DescribeConfigs shows it; another name for a key that is shown has none.
    pub(super) shown: Option<(Kind, Get)>,
}

/// A setting of the file or the command line, as DescribeConfigs shows it.
pub(crate) struct StaticSetting {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) doc: &'static str,
    /// What was set; `None` if nothing was.
    pub(crate) set: Option<String>,
    /// What holds where nothing is set, if that is a value.
    pub(crate) default: Option<String>,
}

impl Config {
    /// The settings that hold until the next start. Secrets are not among them.
    pub(crate) fn static_settings(&self) -> Vec<StaticSetting> {
        let defaults = Config::default();
        let shown = KEYS.iter().filter_map(|key| key.shown.map(|shown| (key, shown)));
        shown
            .map(|(key, (kind, get))| {
                let (value, default) = (get(self), get(&defaults));
                // The command line and whoever embeds a broker set values without a file.
                let set = value
                    .filter(|value| self.given_keys.contains(key.name) || default.as_ref() != Some(value));
                StaticSetting { name: key.name, kind, doc: key.doc, set, default }
            })
            .collect()
    }
}

/// A key and what it means, for help texts and documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyDoc {
    /// The key.
    pub name: &'static str,
    /// What it means, with its unit.
    pub doc: &'static str,
}

/// Every key that a configuration file may hold, in the order of the documentation.
pub fn documented_keys() -> impl Iterator<Item = KeyDoc> {
    let own = KEYS.iter().map(|key| KeyDoc { name: key.name, doc: key.doc });
    own.chain(TOPIC_SETTINGS.iter().map(|setting| KeyDoc { name: setting.broker_name, doc: setting.doc }))
}

pub(super) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// Keys that every Kafka installation's file holds and that have no meaning for Weir.
pub(super) fn is_ignored(name: &str) -> bool {
    IGNORED.contains(&name)
}

/// The key that `name` resembles most, if any does.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    let names = documented_keys().map(|key| key.name);
    let close = names.map(|known| (distance(name, known), known)).min()?;
    (close.0 <= 2 + name.len() / 5).then_some(close.1)
}

/// How many single-character edits lead from one text to the other (Levenshtein).
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

macro_rules! key {
    ($name:literal, $doc:literal, $set:expr) => {
        Key { name: $name, doc: $doc, set: $set, shown: None }
    };
    ($name:literal, $kind:ident, $doc:literal, $set:expr, $get:expr) => {
        Key { name: $name, doc: $doc, set: $set, shown: Some(($kind, $get)) }
    };
}

static KEYS: &[Key] = &[
    key!(
        "node.id",
        Int,
        "this broker's number in its cluster (default 1)",
        |c, v| number(v, "a node", 0, i64::from(i32::MAX)).map(|id| c.node_id = id as i32),
        |c| shown(c.node_id)
    ),
    key!("broker.id", "older name of node.id", |c, v| {
        number(v, "a node", 0, i64::from(i32::MAX)).map(|id| c.node_id = id as i32)
    }),
    key!(
        "metadata.log.max.record.bytes.between.snapshots",
        Long,
        "bytes by which the metadata log grows before a snapshot of the metadata is taken (default 20971520)",
        |c, v| bytes(v, 1).map(|bytes| c.metadata_snapshot_bytes = bytes as u64),
        |c| shown(c.metadata_snapshot_bytes)
    ),
    key!(
        "metadata.log.segment.bytes",
        Int,
        "bytes of one file of the metadata log (default 67108864)",
        |c, v| bytes(v, 1 << 12).map(|bytes| c.metadata_segment_bytes = bytes as u32),
        |c| shown(c.metadata_segment_bytes)
    ),
    key!(
        "weir.metadata.log.retained.entries",
        Int,
        "entries of the metadata log that stay behind a snapshot, for nodes that are not far behind (default 10000)",
        |c, v| number(v, "entries", 0, i64::from(i32::MAX)).map(|n| c.metadata_entries_retained = n as u32),
        |c| shown(c.metadata_entries_retained)
    ),
    key!(
        "broker.rack",
        Text,
        "the rack that this broker stands in",
        |c, v| {
            c.rack = Some(v.to_owned());
            Ok(())
        },
        |c| c.rack.clone()
    ),
    key!(
        "listeners",
        List,
        "PLAINTEXT://HOST:PORT to listen on (the command line's --listen wins), and INTERNAL://HOST:PORT for the cluster's other nodes",
        |c, v| listeners::list(v).map(|all| c.listener_keys.listeners = all),
        |c| Some(listeners::shown(c))
    ),
    key!(
        "advertised.listeners",
        List,
        "PLAINTEXT://HOST:PORT that clients are told to connect to, and INTERNAL://HOST:PORT that other nodes are",
        |c, v| listeners::list(v).map(|all| c.listener_keys.advertised = all),
        |c| listeners::shown_advertised(c)
    ),
    key!(
        "listener.security.protocol.map",
        "NAME:PLAINTEXT for each listener that is called otherwise than PLAINTEXT and INTERNAL",
        |c, v| listeners::protocols(v).map(|names| c.listener_keys.plaintext = names)
    ),
    key!(
        "inter.broker.listener.name",
        Text,
        "the listener for the cluster's other nodes (default INTERNAL)",
        |c, v| {
            c.listener_keys.inter_broker_name = Some(v.to_owned());
            Ok(())
        },
        |c| c.listener_keys.inter_broker_name.clone()
    ),
    key!(
        "controller.listener.names",
        List,
        "the listener for the cluster's other nodes; wins over inter.broker.listener.name",
        |c, v| {
            c.listener_keys.controller_names = v.split(',').map(|name| name.trim().to_owned()).collect();
            Ok(())
        },
        |c| {
            let names = &c.listener_keys.controller_names;
            (!names.is_empty()).then(|| names.join(","))
        }
    ),
    key!(
        "process.roles",
        List,
        "broker, controller or both (default broker,controller)",
        |c, v| cluster::roles(v).map(|roles| c.roles = roles),
        |c| shown(cluster::shown_roles(c.roles))
    ),
    key!(
        "controller.quorum.voters",
        List,
        "ID@HOST:PORT,... of the nodes that form the cluster, with their INTERNAL listeners; the same on all nodes",
        |c, v| cluster::voters(v).map(|voters| c.quorum_voters = voters),
        |c| cluster::shown_voters(c)
    ),
    key!(
        "controller.quorum.bootstrap.servers",
        "one server is passed over; see controller.quorum.voters",
        |_, v| { cluster::bootstrap(v) }
    ),
    key!("weir.internal.secret", "what all nodes of the cluster know and nobody else does", |c, v| {
        if v.is_empty() {
            return Err("a secret must not be empty".to_owned());
        }
        c.internal_secret = Some(Secret::new(v));
        Ok(())
    }),
    key!("weir.internal.secret.file", "a file that holds weir.internal.secret", |c, v| {
        c.internal_secret_file = Some(v.into());
        Ok(())
    }),
    key!(
        "broker.session.timeout.ms",
        Int,
        "a broker that is silent for so long is fenced, and others lead instead (default 1000)",
        |c, v| millis(v, 100).map(|d| c.session_timeout = d),
        |c| shown_ms(c.session_timeout)
    ),
    key!(
        "broker.heartbeat.interval.ms",
        Int,
        "how often a broker shows the controller that it is there (default 150)",
        |c, v| millis(v, 10).map(|d| c.heartbeat_interval = d),
        |c| shown_ms(c.heartbeat_interval)
    ),
    key!(
        "controller.quorum.election.timeout.ms",
        Int,
        "the shortest time without a leader of the quorum before another is elected (default 200)",
        |c, v| millis(v, 50).map(|d| c.election_timeout = d),
        |c| shown_ms(c.election_timeout)
    ),
    key!(
        "controller.quorum.fetch.max.bytes",
        Int,
        "the most that the quorum's leader sends a follower at a time, in bytes, its first entry aside (default 1 MiB)",
        |c, v| bytes(v, 1).map(|n| c.quorum_fetch_bytes_max = n),
        |c| shown(c.quorum_fetch_bytes_max)
    ),
    key!(
        "replica.lag.time.max.ms",
        Long,
        "a follower that has not been in sync for so long leaves the ISR (default 30000)",
        |c, v| millis(v, 100).map(|d| c.replica_lag_max = d),
        |c| shown_ms(c.replica_lag_max)
    ),
    key!(
        "replica.fetch.max.bytes",
        Int,
        "the most that a follower fetches of one partition at a time, in bytes (default 1 MiB)",
        |c, v| bytes(v, 1024).map(|n| c.replica_fetch_bytes_max = n),
        |c| shown(c.replica_fetch_bytes_max)
    ),
    key!(
        "replica.fetch.response.max.bytes",
        Int,
        "the most that a follower fetches at a time, in bytes (default 10 MiB)",
        |c, v| bytes(v, 1024).map(|n| c.replica_fetch_response_bytes_max = n),
        |c| shown(c.replica_fetch_response_bytes_max)
    ),
    key!(
        "log.dirs",
        List,
        "the data folder, one (the command line's --data-dir wins)",
        |c, v| {
            if v.is_empty() || v.contains(',') {
                return Err(format!("'{v}': exactly one folder is supported"));
            }
            c.data_dir = v.into();
            Ok(())
        },
        |c| Some(c.data_dir.display().to_string())
    ),
    key!("log.dir", "older name of log.dirs", |c, v| {
        c.data_dir = v.into();
        Ok(())
    }),
    key!(
        "leader.imbalance.check.interval.seconds",
        Long,
        "how often leadership goes back to the first replicas (default 300)",
        |c, v| {
            number(v, "seconds", 1, i64::from(i32::MAX))
                .map(|n| c.leader_balance = c.leader_balance.and(Some(Duration::from_secs(n as u64))))
        },
        |c| c.leader_balance.and_then(|interval| shown(interval.as_secs()))
    ),
    key!(
        "auto.leader.rebalance.enable",
        Boolean,
        "whether leadership goes back to the first replicas by itself (default true)",
        |c, v| {
            let interval = c.leader_balance.or(Config::default().leader_balance);
            boolean(v).map(|on| c.leader_balance = interval.filter(|_| on))
        },
        |c| shown(c.leader_balance.is_some())
    ),
    key!(
        "weir.controlled.shutdown.ms",
        Long,
        "how long a clean stop waits at most until other brokers lead what this one led (default 10000)",
        |c, v| millis(v, 0).map(|d| c.controlled_shutdown_max = d),
        |c| shown_ms(c.controlled_shutdown_max)
    ),
    key!(
        "weir.feature.level.max",
        Int,
        "the newest feature level that this node works at; one above its version's plays a newer version, to rehearse an \
         upgrade (default 2)",
        |c, v| number(v, "levels", 2, 1_000).map(|n| c.feature_levels.max = n as u16),
        |c| shown(c.feature_levels.max)
    ),
    key!(
        "num.partitions",
        Int,
        "partitions of a topic that is created without a number (default 1)",
        |c, v| number(v, "partitions", 1, 100_000).map(|n| c.partitions = n as i32),
        |c| shown(c.partitions)
    ),
    key!(
        "default.replication.factor",
        Int,
        "replicas of a topic (default min(3, brokers))",
        |c, v| number(v, "replicas", 1, i64::from(i16::MAX)).map(|n| c.replication_factor = Some(n as i16)),
        |c| c.replication_factor.and_then(shown)
    ),
    key!(
        "auto.create.topics.enable",
        Boolean,
        "whether Metadata may create topics (default true)",
        |c, v| boolean(v).map(|on| c.auto_create_topics = on),
        |c| shown(c.auto_create_topics)
    ),
    key!(
        "delete.topic.enable",
        Boolean,
        "whether topics may be deleted (default true)",
        |c, v| boolean(v).map(|on| c.delete_topics = on),
        |c| shown(c.delete_topics)
    ),
    key!("log.retention.minutes", "log.retention.ms in minutes", |c, v| retention(c, v, "minutes", 60_000)),
    key!("log.retention.hours", "log.retention.ms in hours", |c, v| retention(c, v, "hours", 3_600_000)),
    key!(
        "socket.request.max.bytes",
        Int,
        "the largest request, in bytes (default 100 MiB)",
        |c, v| bytes(v, 1024).map(|n| c.request_bytes_max = n),
        |c| shown(c.request_bytes_max)
    ),
    key!(
        "queued.max.request.bytes",
        Long,
        "requests in memory, of all connections together, in bytes (default 64 MiB); at the limit sockets are not read",
        |c, v| bytes(v, 1 << 20).map(|n| c.queued_request_bytes_max = n),
        |c| shown(c.queued_request_bytes_max)
    ),
    key!(
        "weir.queued.max.reply.bytes",
        Long,
        "fetched bytes in memory, of all connections together (default 32 MiB); at the limit a fetch gets one batch",
        |c, v| bytes(v, 1 << 20).map(|n| c.queued_reply_bytes_max = n),
        |c| shown(c.queued_reply_bytes_max)
    ),
    key!(
        "fetch.max.bytes",
        Int,
        "the most that one fetch returns, in bytes (default 8 MiB)",
        |c, v| bytes(v, 1024).map(|n| c.fetch_bytes_max = n),
        |c| shown(c.fetch_bytes_max)
    ),
    key!(
        "max.connections",
        Int,
        "connections at a time (default 16384)",
        |c, v| number(v, "connections", 1, 1_000_000).map(|n| c.connections_max = n as usize),
        |c| shown(c.connections_max)
    ),
    key!(
        "connections.max.idle.ms",
        Long,
        "a connection that is idle for so long is closed (default 600000)",
        |c, v| millis(v, 1).map(|d| c.connection_idle = d),
        |c| shown_ms(c.connection_idle)
    ),
    key!(
        "weir.connection.stall.ms",
        Long,
        "a peer that moves less than 64 KiB in this time is cut off (default 30000)",
        |c, v| millis(v, 1).map(|d| c.connection_stall = d),
        |c| shown_ms(c.connection_stall)
    ),
    key!(
        "weir.connection.max.in.flight",
        Int,
        "requests of one connection that are processed at a time (default 256)",
        |c, v| number(v, "requests", 1, 1024).map(|n| c.in_flight_max = n as usize),
        |c| shown(c.in_flight_max)
    ),
    key!(
        "weir.shards",
        Int,
        "tasks that own partitions (default twice the cores)",
        |c, v| number(v, "shards", 1, 1024).map(|n| c.shards = Some(n as usize)),
        |c| c.shards.and_then(shown)
    ),
    key!(
        "weir.disk.threads",
        Int,
        "threads for reads and segment writes (default 4)",
        |c, v| number(v, "threads", 1, 256).map(|n| c.disk_threads = n as usize),
        |c| shown(c.disk_threads)
    ),
    key!(
        "producer.id.expiration.ms",
        Int,
        "an idempotent producer that appends nothing for so long is forgotten (default 86400000)",
        |c, v| millis(v, 1).map(|d| c.producer_id_expiration = d),
        |c| shown_ms(c.producer_id_expiration)
    ),
    key!(
        "producer.id.expiration.check.interval.ms",
        Int,
        "how often producers are looked at that may be forgotten (default 600000)",
        |c, v| millis(v, 1).map(|d| c.producer_id_expiration_check = d),
        |c| shown_ms(c.producer_id_expiration_check)
    ),
    key!(
        "log.cleaner.enable",
        Boolean,
        "whether topics with cleanup.policy=compact are compacted (default true)",
        |c, v| boolean(v).map(|on| c.log_cleaner_enable = on),
        |c| shown(c.log_cleaner_enable)
    ),
    key!(
        "log.cleaner.backoff.ms",
        Long,
        "how often each shard looks for logs that are worth compacting (default 15000)",
        |c, v| millis(v, 1).map(|d| c.log_cleaner_backoff = d),
        |c| shown_ms(c.log_cleaner_backoff)
    ),
    key!(
        "max.incremental.fetch.session.cache.slots",
        Int,
        "incremental fetch sessions that are remembered, of all clients together (default 1000)",
        |c, v| number(v, "sessions", 0, 1_000_000).map(|n| c.fetch_sessions_max = n as usize),
        |c| shown(c.fetch_sessions_max)
    ),
    key!(
        "group.initial.rebalance.delay.ms",
        Int,
        "how long an empty group waits for more members (default 3000)",
        |c, v| millis(v, 0).map(|d| c.groups.initial_rebalance_delay = d),
        |c| shown_ms(c.groups.initial_rebalance_delay)
    ),
    key!(
        "group.min.session.timeout.ms",
        Int,
        "the shortest session timeout that a member may ask for (default 6000)",
        |c, v| millis(v, 1).map(|d| c.groups.session_timeout_min = d),
        |c| shown_ms(c.groups.session_timeout_min)
    ),
    key!(
        "group.max.session.timeout.ms",
        Int,
        "the longest session timeout that a member may ask for (default 1800000)",
        |c, v| millis(v, 1).map(|d| c.groups.session_timeout_max = d),
        |c| shown_ms(c.groups.session_timeout_max)
    ),
    key!(
        "group.max.size",
        Int,
        "members of a group (default 100000)",
        |c, v| number(v, "members", 1, i64::from(i32::MAX)).map(|n| c.groups.members_max = n as usize),
        |c| shown(c.groups.members_max)
    ),
    key!(
        "offset.metadata.max.bytes",
        Int,
        "the metadata of a committed offset, in bytes (default 4096)",
        |c, v| number(v, "bytes", 0, 32_767).map(|n| c.groups.metadata_bytes_max = n as usize),
        |c| shown(c.groups.metadata_bytes_max)
    ),
    key!(
        "offsets.retention.minutes",
        Int,
        "offsets of a group without members are removed after this time (default 10080, 7 days)",
        |c, v| {
            number(v, "minutes", 1, i64::from(i32::MAX))
                .map(|n| c.groups.offsets_retention = Duration::from_secs(60 * n as u64))
        },
        |c| shown(c.groups.offsets_retention.as_secs() / 60)
    ),
    key!("weir.offsets.retention.ms", "offsets.retention.minutes in ms", |c, v| millis(v, 1)
        .map(|d| c.groups.offsets_retention = d)),
    key!(
        "offsets.retention.check.interval.ms",
        Long,
        "how often offsets are looked at that may be removed (default 600000)",
        |c, v| millis(v, 1).map(|d| c.groups.retention_check = d),
        |c| shown_ms(c.groups.retention_check)
    ),
    key!(
        "offsets.topic.num.partitions",
        Int,
        "partitions of __consumer_offsets, when it is made (default 50)",
        |c, v| number(v, "partitions", 1, 10_000).map(|n| c.offsets_topic_partitions = n as i32),
        |c| shown(c.offsets_topic_partitions)
    ),
    key!(
        "offsets.topic.replication.factor",
        Int,
        "replicas of __consumer_offsets, when it is made (default min(3, brokers))",
        |c, v| {
            number(v, "replicas", 1, i64::from(i16::MAX))
                .map(|n| c.offsets_topic_replication = Some(n as i16))
        },
        |c| c.offsets_topic_replication.and_then(shown)
    ),
    key!(
        "weir.journal.bytes",
        Long,
        "the journal's files together, preallocated, in bytes (default 256 MiB)",
        |c, v| number(v, "bytes", 64 << 10, 1 << 40).map(|n| c.journal_bytes = n as u64),
        |c| shown(c.journal_bytes)
    ),
    key!(
        "weir.journal.files",
        Int,
        "files of the journal, recycled one by one (default 8)",
        |c, v| number(v, "files", 2, 1024).map(|n| c.journal_files = n as u32),
        |c| shown(c.journal_files)
    ),
];

static IGNORED: &[&str] = &[
    "advertised.host.name",
    "background.threads",
    "log.flush.scheduler.interval.ms",
    "log.retention.check.interval.ms",
    "num.io.threads",
    "num.network.threads",
    "num.recovery.threads.per.data.dir",
    "num.replica.fetchers",
    "share.coordinator.state.topic.min.isr",
    "share.coordinator.state.topic.replication.factor",
    "socket.receive.buffer.bytes",
    "socket.send.buffer.bytes",
    "transaction.state.log.min.isr",
    "transaction.state.log.replication.factor",
];
