//! The keys about listeners, which are taken together: one listener is for clients, one for the cluster's other nodes.

use super::Config;
use super::values::{host_port, is_wildcard};

/// What the listener for other nodes is called unless a key says otherwise.
const INTERNAL: &str = "INTERNAL";
/// What the clients' listener is called in what DescribeConfigs shows.
const CLIENTS: &str = "PLAINTEXT";

/// The keys about listeners as they stand in a file; whoever makes a [`Config`] without a file leaves them at their default.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ListenerKeys {
    /// `listeners`, by name.
    pub(super) listeners: Vec<Named>,
    /// `advertised.listeners`, by name.
    pub(super) advertised: Vec<Named>,
    /// `controller.listener.names`.
    pub(super) controller_names: Vec<String>,
    /// `inter.broker.listener.name`.
    pub(super) inter_broker_name: Option<String>,
    /// `listener.security.protocol.map`: the names whose protocol is PLAINTEXT.
    pub(super) plaintext: Vec<String>,
}

/// `NAME://HOST:PORT`; without a name it is the clients'.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Named {
    name: String,
    host: String,
    port: u16,
}

/// Reads a list such as `PLAINTEXT://:9092,INTERNAL://:9093`.
pub(super) fn list(value: &str) -> Result<Vec<Named>, String> {
    let mut found: Vec<Named> = Vec::new();
    for listener in value.split(',').map(str::trim) {
        let (name, address) = listener.split_once("://").unwrap_or((CLIENTS, listener));
        let (host, port) = host_port(address)?;
        if found.iter().any(|other| other.name == name) {
            return Err(format!("'{value}' names {name} twice"));
        }
        found.push(Named { name: name.to_owned(), host, port });
    }
    Ok(found)
}

/// Reads `NAME:PROTOCOL,...`.
pub(super) fn protocols(value: &str) -> Result<Vec<String>, String> {
    let mut plaintext = Vec::new();
    for pair in value.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (name, protocol) =
            pair.split_once(':').ok_or_else(|| format!("'{pair}' is not LISTENER:PROTOCOL"))?;
        // Files of Kafka's map names that they do not use.
        if protocol == "PLAINTEXT" {
            plaintext.push(name.to_owned());
        }
    }
    Ok(plaintext)
}

/// Finds out which listener is whose. On failure it says at which key, and what to do.
pub(super) fn resolve(config: &mut Config) -> Result<(), (&'static str, String)> {
    let keys = std::mem::take(&mut config.listener_keys);
    let internal = keys.internal_name();
    let outcome = keys.apply(&internal, config);
    config.listener_keys = keys;
    outcome
}

impl ListenerKeys {
    /// The name of the listener for other nodes: the first of those that the keys name for this, if it is among the
    /// listeners. In files of Kafka's brokers may use the clients' listener among themselves, and another to controllers.
    fn internal_name(&self) -> String {
        let named = self.controller_names.iter().chain(&self.inter_broker_name);
        let is_listed = |name: &&String| self.listeners.iter().any(|listener| listener.name == **name);
        let alone = self.listeners.len() == 1;
        let mut listed = named.filter(is_listed).filter(|name| !(alone && name.as_str() == CLIENTS));
        listed.next().cloned().unwrap_or_else(|| INTERNAL.to_owned())
    }

    fn apply(&self, internal: &str, config: &mut Config) -> Result<(), (&'static str, String)> {
        let [inside, outside] = self.part("listeners", &self.listeners, internal)?;
        if let Some(listener) = outside {
            config.listen = listener.bound();
        }
        if let Some(listener) = inside {
            config.internal_listen = Some(listener.bound());
        }
        let [inside, outside] = self.part("advertised.listeners", &self.advertised, internal)?;
        for (listener, place) in
            [(outside, &mut config.advertised), (inside, &mut config.internal_advertised)]
        {
            let Some(listener) = listener else { continue };
            if is_wildcard(&listener.host) {
                let reason = format!("'{}' is a wildcard, to which nobody can connect", shown_one(listener));
                return Err(("advertised.listeners", reason));
            }
            *place = Some((listener.host.clone(), listener.port));
        }
        Ok(())
    }

    /// The listener for other nodes, and the clients'.
    fn part<'a>(
        &self,
        key: &'static str,
        listeners: &'a [Named],
        internal: &str,
    ) -> Result<[Option<&'a Named>; 2], (&'static str, String)> {
        let (mut inside, mut outside) = (None, None);
        for listener in listeners {
            let name = &listener.name;
            let is_internal = name == internal;
            let is_known = is_internal || name == CLIENTS || self.plaintext.contains(name);
            if !is_known {
                let reason = format!(
                    "PLAINTEXT is the only protocol: if '{name}' is a name, add {name}:PLAINTEXT to \
                     listener.security.protocol.map; if it is for the cluster's other nodes, call it {INTERNAL}"
                );
                return Err((key, reason));
            }
            let place = if is_internal { &mut inside } else { &mut outside };
            if let Some(other) = place.replace(listener) {
                let reason = format!(
                    "{} and {name} are both for clients; there is one listener for clients and one for the \
                     cluster's other nodes, which is called {internal}",
                    other.name
                );
                return Err((key, reason));
            }
        }
        Ok([inside, outside])
    }
}

impl Named {
    /// `HOST:PORT` to listen on.
    fn bound(&self) -> String {
        let host = if self.host.is_empty() { "0.0.0.0" } else { &self.host };
        joined(host, self.port)
    }
}

fn joined(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn shown_one(listener: &Named) -> String {
    format!("{}://{}", listener.name, joined(&listener.host, listener.port))
}

/// `listeners`, as it would stand in the file.
pub(super) fn shown(config: &Config) -> String {
    let internal = config.listener_keys.internal_name();
    let clients = format!("{CLIENTS}://{}", config.listen);
    match &config.internal_listen {
        Some(address) => format!("{clients},{internal}://{address}"),
        None => clients,
    }
}

/// `advertised.listeners`, as it would stand in the file.
pub(super) fn shown_advertised(config: &Config) -> Option<String> {
    let internal = config.listener_keys.internal_name();
    let all = [(CLIENTS, &config.advertised), (internal.as_str(), &config.internal_advertised)];
    let all = all.into_iter().filter_map(|(name, address)| {
        let (host, port) = address.as_ref()?;
        Some(format!("{name}://{}", joined(host, *port)))
    });
    let all: Vec<String> = all.collect();
    (!all.is_empty()).then(|| all.join(","))
}
