//! The table of keys of `server.properties`: name, meaning and how a value is taken in.

use std::time::Duration;

use weir_protocol::metadata::settings::TOPIC_SETTINGS;

use super::Config;

/// Takes a value in, or says what was expected.
pub(super) type Set = fn(&mut Config, &str) -> Result<(), String>;

/// A key of the configuration file.
pub(super) struct Key {
    pub(super) name: &'static str,
    doc: &'static str,
    pub(super) set: Set,
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

/// An integer in a range; `what` names its unit.
pub(super) fn number(value: &str, what: &str, low: i64, high: i64) -> Result<i64, String> {
    match value.parse::<i64>() {
        Ok(number) if (low..=high).contains(&number) => Ok(number),
        _ if high == i64::MAX => Err(format!("'{value}' is not a number of {what} of at least {low}")),
        _ => Err(format!("'{value}' is not a number of {what} from {low} to {high}")),
    }
}

/// `true` or `false`.
pub(super) fn boolean(value: &str) -> Result<bool, String> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("'{value}' is neither 'true' nor 'false'")),
    }
}

fn bytes(value: &str, low: i64) -> Result<usize, String> {
    number(value, "bytes", low, i64::from(i32::MAX)).map(|bytes| bytes as usize)
}

fn millis(value: &str, low: i64) -> Result<Duration, String> {
    number(value, "milliseconds", low, i64::MAX).map(|ms| Duration::from_millis(ms as u64))
}

/// `HOST:PORT`; an IPv6 host stands in brackets.
fn host_port(value: &str) -> Result<(String, u16), String> {
    let wrong = || format!("'{value}' is not HOST:PORT");
    let (host, port) = value.rsplit_once(':').ok_or_else(wrong)?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    Ok((host.to_owned(), port.parse().map_err(|_| wrong())?))
}

/// The one listener of a list such as `PLAINTEXT://host:9092`.
fn listener(value: &str) -> Result<(String, u16), String> {
    if value.contains(',') {
        return Err(format!("'{value}' names several listeners; one is supported"));
    }
    let address = match value.split_once("://") {
        Some(("PLAINTEXT", address)) => address,
        Some((protocol, _)) => return Err(format!("'{protocol}' is not supported; PLAINTEXT is")),
        None => value,
    };
    host_port(address)
}

/// Milliseconds of retention from a number of larger units; -1 is without limit.
fn retention(config: &mut Config, value: &str, unit: &str, unit_ms: i64) -> Result<(), String> {
    let units = number(value, unit, -1, i64::from(i32::MAX))?;
    let ms = if units < 0 { -1 } else { units * unit_ms };
    config.topic_defaults.insert("log.retention.ms".to_owned(), ms.to_string());
    Ok(())
}

macro_rules! key {
    ($name:literal, $doc:literal, $set:expr) => {
        Key { name: $name, doc: $doc, set: $set }
    };
}

static KEYS: &[Key] = &[
    key!("node.id", "this broker's number in its cluster (default 1)", |c, v| {
        number(v, "a node", 0, i64::from(i32::MAX)).map(|id| c.node_id = id as i32)
    }),
    key!("broker.id", "older name of node.id", |c, v| {
        number(v, "a node", 0, i64::from(i32::MAX)).map(|id| c.node_id = id as i32)
    }),
    key!("broker.rack", "the rack that this broker stands in", |c, v| {
        c.rack = Some(v.to_owned());
        Ok(())
    }),
    key!("listeners", "PLAINTEXT://HOST:PORT to listen on (the command line's --listen wins)", |c, v| {
        let (host, port) = listener(v)?;
        let host = if host.is_empty() { "0.0.0.0".to_owned() } else { host };
        c.listen = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        Ok(())
    }),
    key!("advertised.listeners", "PLAINTEXT://HOST:PORT that clients are told to connect to", |c, v| {
        let (host, port) = listener(v)?;
        let wildcard = host.is_empty() || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_unspecified());
        if wildcard {
            return Err(format!("'{v}' is a wildcard, which no client can connect to"));
        }
        c.advertised = Some((host, port));
        Ok(())
    }),
    key!("log.dirs", "the data folder, one (the command line's --data-dir wins)", |c, v| {
        if v.is_empty() || v.contains(',') {
            return Err(format!("'{v}': exactly one folder is supported"));
        }
        c.data_dir = v.into();
        Ok(())
    }),
    key!("log.dir", "older name of log.dirs", |c, v| {
        c.data_dir = v.into();
        Ok(())
    }),
    key!("num.partitions", "partitions of a topic that is created without a number (default 1)", |c, v| {
        number(v, "partitions", 1, 100_000).map(|n| c.partitions = n as i32)
    }),
    key!("default.replication.factor", "replicas of a topic (default min(3, brokers))", |c, v| {
        number(v, "replicas", 1, i64::from(i16::MAX)).map(|n| c.replication_factor = Some(n as i16))
    }),
    key!("auto.create.topics.enable", "whether Metadata may create topics (default true)", |c, v| {
        boolean(v).map(|on| c.auto_create_topics = on)
    }),
    key!("delete.topic.enable", "whether topics may be deleted (default true)", |c, v| {
        boolean(v).map(|on| c.delete_topics = on)
    }),
    key!("log.retention.minutes", "log.retention.ms in minutes", |c, v| retention(c, v, "minutes", 60_000)),
    key!("log.retention.hours", "log.retention.ms in hours", |c, v| retention(c, v, "hours", 3_600_000)),
    key!("socket.request.max.bytes", "the largest request, in bytes (default 100 MiB)", |c, v| {
        bytes(v, 1024).map(|n| c.request_bytes_max = n)
    }),
    key!(
        "queued.max.request.bytes",
        "requests in memory, of all connections together, in bytes (default 64 MiB); at the limit sockets are not read",
        |c, v| bytes(v, 1 << 20).map(|n| c.queued_request_bytes_max = n)
    ),
    key!(
        "weir.queued.max.reply.bytes",
        "fetched bytes in memory, of all connections together (default 32 MiB); at the limit a fetch gets one batch",
        |c, v| bytes(v, 1 << 20).map(|n| c.queued_reply_bytes_max = n)
    ),
    key!("fetch.max.bytes", "the most that one fetch returns, in bytes (default 8 MiB)", |c, v| {
        bytes(v, 1024).map(|n| c.fetch_bytes_max = n)
    }),
    key!("max.connections", "connections at a time (default 16384)", |c, v| {
        number(v, "connections", 1, 1_000_000).map(|n| c.connections_max = n as usize)
    }),
    key!(
        "connections.max.idle.ms",
        "a connection that is idle for so long is closed (default 600000)",
        |c, v| { millis(v, 1).map(|d| c.connection_idle = d) }
    ),
    key!(
        "weir.connection.stall.ms",
        "a peer that moves less than 64 KiB in this time is cut off (default 30000)",
        |c, v| { millis(v, 1).map(|d| c.connection_stall = d) }
    ),
    key!(
        "weir.connection.max.in.flight",
        "requests of one connection that are processed at a time (default 256)",
        |c, v| { number(v, "requests", 1, 1024).map(|n| c.in_flight_max = n as usize) }
    ),
    key!(
        "producer.id.expiration.ms",
        "an idempotent producer that appends nothing for so long is forgotten (default 86400000)",
        |c, v| { millis(v, 1).map(|d| c.producer_id_expiration = d) }
    ),
    key!(
        "producer.id.expiration.check.interval.ms",
        "how often producers are looked at that may be forgotten (default 600000)",
        |c, v| { millis(v, 1).map(|d| c.producer_id_expiration_check = d) }
    ),
    key!(
        "max.incremental.fetch.session.cache.slots",
        "incremental fetch sessions that are remembered, of all clients together (default 1000)",
        |c, v| { number(v, "sessions", 0, 1_000_000).map(|n| c.fetch_sessions_max = n as usize) }
    ),
    key!("weir.shards", "tasks that own partitions (default twice the cores)", |c, v| {
        number(v, "shards", 1, 1024).map(|n| c.shards = Some(n as usize))
    }),
    key!("weir.disk.threads", "threads for reads and segment writes (default 4)", |c, v| {
        number(v, "threads", 1, 256).map(|n| c.disk_threads = n as usize)
    }),
    key!(
        "weir.journal.bytes",
        "the journal's files together, preallocated, in bytes (default 256 MiB)",
        |c, v| { number(v, "bytes", 64 << 10, 1 << 40).map(|n| c.journal_bytes = n as u64) }
    ),
    key!("weir.journal.files", "files of the journal, recycled one by one (default 8)", |c, v| {
        number(v, "files", 2, 1024).map(|n| c.journal_files = n as u32)
    }),
];

static IGNORED: &[&str] = &[
    "advertised.host.name",
    "background.threads",
    "controller.listener.names",
    "controller.quorum.bootstrap.servers",
    "controller.quorum.voters",
    "group.initial.rebalance.delay.ms",
    "inter.broker.listener.name",
    "listener.security.protocol.map",
    "log.cleaner.enable",
    "log.flush.scheduler.interval.ms",
    "log.retention.check.interval.ms",
    "num.io.threads",
    "num.network.threads",
    "num.recovery.threads.per.data.dir",
    "num.replica.fetchers",
    "offsets.topic.replication.factor",
    "process.roles",
    "share.coordinator.state.topic.min.isr",
    "share.coordinator.state.topic.replication.factor",
    "socket.receive.buffer.bytes",
    "socket.send.buffer.bytes",
    "transaction.state.log.min.isr",
    "transaction.state.log.replication.factor",
];
