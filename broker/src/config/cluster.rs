//! What makes a node one of a cluster: its settings taken together.

use std::path::Path;

use weir_protocol::raft::VOTERS_MAX;

use super::values::{host_port, is_wildcard, number};
use super::{Config, ConfigError, QuorumVoter, Roles, Secret};

/// Reads `broker`, `controller` or both.
pub(super) fn roles(value: &str) -> Result<Roles, String> {
    let mut roles = Roles { broker: false, controller: false };
    for role in value.split(',').map(str::trim) {
        match role {
            "broker" => roles.broker = true,
            "controller" => roles.controller = true,
            _ => return Err(format!("'{role}' is neither 'broker' nor 'controller'")),
        }
    }
    Ok(roles)
}

/// Reads `ID@HOST:PORT,...`.
pub(super) fn voters(value: &str) -> Result<Vec<QuorumVoter>, String> {
    let mut found: Vec<QuorumVoter> = Vec::new();
    for voter in value.split(',').map(str::trim).filter(|voter| !voter.is_empty()) {
        let (id, address) = voter.split_once('@').ok_or_else(|| format!("'{voter}' is not ID@HOST:PORT"))?;
        let node_id = number(id, "a node", 0, i64::from(i32::MAX))? as i32;
        let (host, port) = host_port(address)?;
        if is_wildcard(&host) || port == 0 {
            return Err(format!("'{address}' is no address that others can connect to"));
        }
        if found.iter().any(|other| other.node_id == node_id) {
            return Err(format!("node {node_id} is named twice"));
        }
        found.push(QuorumVoter { node_id, host, port });
    }
    if found.len() > VOTERS_MAX {
        return Err(format!("{} voters are named; {VOTERS_MAX} are the most", found.len()));
    }
    Ok(found)
}

pub(super) fn shown_voters(config: &Config) -> Option<String> {
    let shown = |voter: &QuorumVoter| {
        let QuorumVoter { node_id, host, port } = voter;
        if host.contains(':') {
            format!("{node_id}@[{host}]:{port}")
        } else {
            format!("{node_id}@{host}:{port}")
        }
    };
    let all: Vec<String> = config.quorum_voters.iter().map(shown).collect();
    (!all.is_empty()).then(|| all.join(","))
}

pub(super) fn shown_roles(roles: Roles) -> &'static str {
    match (roles.broker, roles.controller) {
        (true, true) => "broker,controller",
        (true, false) => "broker",
        (false, _) => "controller",
    }
}

/// A controller's address that stands for the voters in newer files of Kafka's: one is this node itself.
pub(super) fn bootstrap(value: &str) -> Result<(), String> {
    if value.split(',').filter(|server| !server.trim().is_empty()).count() > 1 {
        return Err(
            "name the first voters in controller.quorum.voters instead, as ID@HOST:PORT,...".to_owned()
        );
    }
    Ok(())
}

impl Config {
    /// Whether this node is one of a cluster: it names the quorum's voters.
    pub fn is_clustered(&self) -> bool {
        !self.quorum_voters.is_empty()
    }

    /// Looks at all settings together, once they are all there, and fills in what follows from others.
    ///
    /// # Errors
    /// `Misfit`, which says what to do.
    pub fn complete(&mut self) -> Result<(), ConfigError> {
        let misfit = |text: &str| Err(ConfigError::Misfit(text.to_owned()));
        if self.heartbeat_interval * 2 > self.session_timeout {
            return misfit(
                "broker.session.timeout.ms must be at least twice broker.heartbeat.interval.ms: a single late \
                 heartbeat would end the session",
            );
        }
        if self.internal_secret.is_some() && self.internal_secret_file.is_some() {
            return misfit("set one of weir.internal.secret and weir.internal.secret.file, not both");
        }
        if !self.is_clustered() {
            return match self.roles {
                Roles { broker: true, controller: true } => Ok(()),
                _ => {
                    misfit("a node with one role of two needs others: name them in controller.quorum.voters")
                }
            };
        }
        if self.internal_listen.is_none() {
            return misfit(
                "controller.quorum.voters makes this node one of a cluster, which needs a listener for the other \
                 nodes: listeners=PLAINTEXT://:9092,INTERNAL://:9093",
            );
        }
        let mine = self.quorum_voters.iter().find(|voter| voter.node_id == self.node_id).cloned();
        match mine {
            Some(_) if !self.roles.controller => {
                misfit("controller.quorum.voters names this node, whose process.roles leave out 'controller'")
            }
            Some(voter) => {
                self.advertise(&voter);
                self.check_advertised()
            }
            None => self.check_advertised(),
        }
    }

    /// A voter's entry says under which name others reach its machine.
    fn advertise(&mut self, voter: &QuorumVoter) {
        self.internal_advertised.get_or_insert_with(|| (voter.host.clone(), voter.port));
        let port = match host_port(&self.listen) {
            Ok((host, port)) if is_wildcard(&host) && port != 0 => port,
            _ => return,
        };
        self.advertised.get_or_insert_with(|| (voter.host.clone(), port));
    }

    fn check_advertised(&self) -> Result<(), ConfigError> {
        let is_hidden = |listen: &str| host_port(listen).is_ok_and(|(host, _)| is_wildcard(&host));
        let clients = self.roles.broker && self.advertised.is_none() && is_hidden(&self.listen);
        let nodes =
            self.internal_advertised.is_none() && self.internal_listen.as_deref().is_some_and(is_hidden);
        if clients || nodes {
            return Err(ConfigError::Misfit(
                "a node of a cluster that listens on all addresses must say which of them others connect to: \
                 advertised.listeners=PLAINTEXT://HOST:9092,INTERNAL://HOST:9093"
                    .to_owned(),
            ));
        }
        Ok(())
    }

    /// Takes the secret over from the text of `weir.internal.secret.file`: all of it but the line's end.
    ///
    /// # Errors
    /// `Misfit` if there is nothing in it.
    pub fn take_secret(&mut self, file: &Path, text: &str) -> Result<(), ConfigError> {
        let secret = text.trim_end_matches(['\r', '\n']);
        if secret.is_empty() {
            return Err(ConfigError::Misfit(format!("{} is empty: it must hold the secret", file.display())));
        }
        self.internal_secret = Some(Secret::new(secret));
        self.internal_secret_file = None;
        Ok(())
    }
}
