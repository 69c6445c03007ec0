//! What happens in a cluster, a line each: the material of transcripts.

use super::super::*;
use super::Cluster;

/// Written down from [`Cluster::watch`] on.
#[derive(Default)]
pub(in super::super) struct Trace {
    lines: Option<Vec<String>>,
}

impl Cluster {
    /// Writes down what happens from now on.
    pub(in super::super) fn watch(&mut self) {
        self.trace.lines = Some(Vec::new());
    }

    /// What has happened since [`Cluster::watch`].
    pub(in super::super) fn transcript(&mut self) -> String {
        self.trace.lines.take().unwrap_or_default().join("\n")
    }

    /// A line of the test's own.
    pub(in super::super) fn note(&mut self, line: &str) {
        self.trace.push(format!("-- {line}"));
    }
}

impl Trace {
    fn push(&mut self, line: String) {
        if let Some(lines) = &mut self.lines {
            lines.push(line);
        }
    }

    pub(super) fn message(&mut self, envelope: &Envelope) {
        let (from, to) = (envelope.from.broker, envelope.to.broker);
        if let Some(text) = message(&envelope.message) {
            self.push(format!("{from} > {to}  {text}"));
        }
    }

    pub(super) fn effect(&mut self, node: usize, effect: &Effect) {
        if let Some(text) = self::effect(effect) {
            self.push(format!("    {node}  {text}"));
        }
    }
}

/// Heartbeats that say nothing new, and their answers, are left out.
fn message(message: &Message) -> Option<String> {
    Some(match message {
        Message::PreVote(Candidacy { term, last_term, end }) => {
            format!("would you vote in term {term} for a log that ends at {end} in term {last_term}?")
        }
        Message::Vote(Candidacy { term, last_term, end }) => {
            format!("vote in term {term} for a log that ends at {end} in term {last_term}")
        }
        Message::VoteAtOnce(Candidacy { term, .. }) => format!("vote in term {term}, as the leader says"),
        Message::TimeoutNow { term } => format!("succeed me, the leader of term {term}"),
        Message::PreVoteAnswer { term, granted } => format!("would{} vote in term {term}", not(*granted)),
        Message::VoteAnswer { term, granted } => format!("does{} vote in term {term}", not(*granted)),
        Message::Append(append) if append.entries.is_empty() && append.recovery.is_none() => return None,
        Message::Append(Append { term, base, previous_term, entries, recovery, .. }) => {
            let kinds: Vec<_> =
                entries.iter().map(|entry| format!("{:?}/{}", entry.kind, entry.term)).collect();
            let asks = recovery.map_or(String::new(), |recovery| format!(", hold {} first", recovery.end));
            format!("term {term}: at {base} after term {previous_term}: [{}]{asks}", kinds.join(" "))
        }
        Message::Snapshot(SnapshotChunk { snapshot, offset, bytes, .. }) => {
            let (end, all) = (snapshot.at.end, snapshot.bytes);
            format!("snapshot at {end}: bytes {offset} to {} of {all}", offset + bytes.len() as u64)
        }
        Message::AppendAnswer { outcome, voice, .. } => {
            let whole = *voice == Voice::Whole;
            let voice = if !whole { ", but I do not count" } else { "" };
            match outcome {
                AppendOutcome::Accepted { .. } if whole => return None,
                AppendOutcome::Accepted { matched_end, durable_end } => {
                    format!("the same up to {matched_end}, durable up to {durable_end}{voice}")
                }
                AppendOutcome::Diverged { term, end } => format!("my term {term} ends at {end}{voice}"),
                AppendOutcome::Busy => format!("busy{voice}"),
                AppendOutcome::Receiving { end, received } => {
                    format!("{received} bytes of snapshot {end}{voice}")
                }
            }
        }
    })
}

fn not(granted: bool) -> &'static str {
    if granted { "" } else { " not" }
}

fn effect(effect: &Effect) -> Option<String> {
    Some(match effect {
        Effect::PersistHardState { state: HardState { term, vote, standing }, .. } => {
            let vote = vote.map_or("nobody".to_owned(), |vote| vote.broker.to_string());
            let standing =
                if *standing == Standing::Whole { String::new() } else { format!(", {standing:?}") };
            format!("persists term {term}, vote for {vote}{standing}")
        }
        Effect::BecameLeader { term } => format!("leads term {term}"),
        Effect::Resigned { term } => format!("resigns from term {term}"),
        Effect::Following { term, leader } => format!("follows {} in term {term}", leader.broker),
        Effect::TruncateLog { to } => format!("cuts its log to {to}"),
        Effect::CompactLog { to } => format!("drops its log below {to}"),
        Effect::InstallSnapshot { snapshot } => format!("installs the snapshot at {}", snapshot.at.end),
        Effect::Commit { end } => format!("commits up to {end}"),
        Effect::ReadReady { commit, .. } => format!("reads at {commit}"),
        Effect::ProposalRefused { reason, .. } => format!("refuses: {reason}"),
        Effect::ReadRefused { reason, .. } => format!("refuses to read: {reason}"),
        _ => return None,
    })
}
