//! What the checkers say.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::index::{Index, OpAt};
use crate::history::{Done, Keyed, Log, Member, Op, OpId, Operation, Outcome, ProcessId};

/// The kinds of anomaly, by the names that the documents use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AnomalyKind {
    /// A record known to be committed is not there in the end, though a later one of its partition is.
    LostWrite,
    /// A record that was acknowledged or shown is not in the final read, nor anything after it.
    Unseen,
    /// One value at two offsets.
    Duplicate,
    /// Two values at one offset.
    InconsistentOffsets,
    /// A record is shown whose send certainly failed (G1a).
    AbortedRead,
    /// A record is shown that nobody sent there: damage or misdirection served as good.
    Phantom,
    /// A record of a deleted topic is shown again.
    Resurrected,
    /// The broker reports damage where none was planned.
    UnexcusedDamage,
    /// A consumer's successive records leave one out.
    PollSkip,
    /// A consumer's successive records go back.
    NonmonotonicPoll,
    /// A log was cut and written anew below a consumer's position, and it reads on as if nothing had happened.
    UnseenCut,
    /// A producer's successive sends get offsets that go back.
    NonmonotonicSend,
    /// A key of a compacted topic is in the end not what was last written of it.
    StaleKey,
    /// A group's committed offset goes back without an order to.
    OffsetRegression,
    /// A group is told to stand where nobody set it.
    PhantomOffset,
    /// A commit of a generation that is over is taken.
    ZombieCommit,
    /// One partition, two members of one group in one generation.
    DoubleOwnership,
    /// After healing, an operation does not end within its bound.
    Stuck,
}

impl fmt::Display for AnomalyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AnomalyKind::LostWrite => "lost-write",
            AnomalyKind::Unseen => "unseen",
            AnomalyKind::Duplicate => "duplicate",
            AnomalyKind::InconsistentOffsets => "inconsistent-offsets",
            AnomalyKind::AbortedRead => "aborted-read",
            AnomalyKind::Phantom => "phantom",
            AnomalyKind::Resurrected => "resurrected",
            AnomalyKind::UnexcusedDamage => "unexcused-damage",
            AnomalyKind::PollSkip => "poll-skip",
            AnomalyKind::NonmonotonicPoll => "nonmonotonic-poll",
            AnomalyKind::UnseenCut => "unseen-cut",
            AnomalyKind::NonmonotonicSend => "nonmonotonic-send",
            AnomalyKind::StaleKey => "stale-key",
            AnomalyKind::OffsetRegression => "offset-regression",
            AnomalyKind::PhantomOffset => "phantom-offset",
            AnomalyKind::ZombieCommit => "zombie-commit",
            AnomalyKind::DoubleOwnership => "double-ownership",
            AnomalyKind::Stuck => "stuck",
        })
    }
}

/// One operation that proves an anomaly, told in short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Its name in the history.
    pub op: OpId,
    /// Who performed it.
    pub process: ProcessId,
    /// When it started, in nanoseconds.
    pub invoked_ns: u64,
    /// When it ended, in nanoseconds, if it did.
    pub completed_ns: Option<u64>,
    /// What it was and what came of it, in a few words.
    pub what: String,
}

/// One anomaly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anomaly {
    /// Its kind.
    pub kind: AnomalyKind,
    /// The partition, where there is one.
    pub log: Option<Log>,
    /// The offset, where there is one.
    pub offset: Option<i64>,
    /// What is wrong, in one sentence.
    pub what: String,
    /// The operations that prove it.
    pub proof: Vec<Evidence>,
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        if let Some(log) = &self.log {
            write!(f, " in {log}")?;
        }
        write!(f, ": {}", self.what)?;
        for evidence in &self.proof {
            write!(f, " [op {} of process {}", evidence.op.0, evidence.process.0)?;
            write!(f, " at {}", Millis(evidence.invoked_ns))?;
            match evidence.completed_ns {
                Some(end) => write!(f, "–{}: {}]", Millis(end), evidence.what)?,
                None => write!(f, ": {}]", evidence.what)?,
            }
        }
        Ok(())
    }
}

struct Millis(u64);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03} ms", self.0 / 1_000_000, self.0 / 1_000 % 1_000)
    }
}

/// How much was judged. A run in which nothing was acknowledged proves nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// All operations.
    pub operations: u64,
    /// Operations that ended with `ok`.
    pub ok: u64,
    /// Sends that ended with `ok` and an offset.
    pub acknowledged_sends: u64,
    /// Operations that ended with `fail`.
    pub failed: u64,
    /// Operations whose end is unknown.
    pub unknown: u64,
    /// Records in all polls and final reads.
    pub records_read: u64,
}

/// What all checkers say about a history.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The anomalies; of each kind at most [`Verdict::ANOMALIES_PER_KIND_MAX`] are told in full.
    pub anomalies: Vec<Anomaly>,
    /// How many of each kind there are.
    pub totals: BTreeMap<AnomalyKind, u64>,
    /// The kinds that the promise covers.
    pub judged: Vec<AnomalyKind>,
    /// The kinds that it does not cover.
    pub not_judged: Vec<AnomalyKind>,
    /// How much was judged.
    pub counts: Counts,
}

impl Verdict {
    /// How many anomalies of a kind are told in full.
    pub const ANOMALIES_PER_KIND_MAX: usize = 5;

    /// Whether nothing was found.
    pub fn is_clean(&self) -> bool {
        self.totals.is_empty()
    }

    /// The kinds that were found.
    pub fn kinds(&self) -> Vec<AnomalyKind> {
        self.totals.keys().copied().collect()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { operations, acknowledged_sends, records_read, .. } = self.counts;
        let judged = format!(
            "{operations} operations, {acknowledged_sends} acknowledged sends, {records_read} records read"
        );
        if self.is_clean() {
            return write!(f, "clean: {judged}");
        }
        let totals: Vec<String> = self.totals.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        write!(f, "{} ({judged})", totals.join(", "))?;
        for anomaly in &self.anomalies {
            write!(f, "\n  {anomaly}")?;
        }
        Ok(())
    }
}

/// Collects the anomalies of one checker.
pub(super) struct Findings<'a> {
    kind: AnomalyKind,
    index: &'a Index<'a>,
    total: u64,
    anomalies: Vec<Anomaly>,
}

impl<'a> Findings<'a> {
    pub(super) fn new(kind: AnomalyKind, index: &'a Index<'a>) -> Self {
        Self { kind, index, total: 0, anomalies: Vec::new() }
    }

    /// Adds an anomaly. The sentence is made only if it will be told.
    pub(super) fn add(
        &mut self,
        log: Option<&Log>,
        offset: Option<i64>,
        proof: &[OpAt],
        what: impl FnOnce() -> String,
    ) {
        self.total += 1;
        if self.anomalies.len() >= Verdict::ANOMALIES_PER_KIND_MAX {
            return;
        }
        let proof = proof.iter().map(|&at| evidence(self.index.op(at), offset)).collect();
        self.anomalies.push(Anomaly { kind: self.kind, log: log.cloned(), offset, what: what(), proof });
    }

    pub(super) fn into_verdict(self, verdict: &mut Verdict) {
        if self.total > 0 {
            *verdict.totals.entry(self.kind).or_default() += self.total;
            verdict.anomalies.extend(self.anomalies);
        }
    }
}

fn evidence(operation: &Operation, offset: Option<i64>) -> Evidence {
    let (asked, told) = (asked(&operation.op), told(&operation.outcome, offset));
    Evidence {
        op: operation.id,
        process: operation.process,
        invoked_ns: operation.invoked_ns,
        completed_ns: operation.completed_ns,
        what: format!("{asked} → {told}"),
    }
}

fn asked(op: &Op) -> String {
    match op {
        Op::Send { log, value, acks, keyed: None } => format!("send {value} to {log}, acks {acks:?}"),
        Op::Send { log, value, acks, keyed: Some(Keyed { key, tombstone }) } => {
            let what = if *tombstone { "delete" } else { "set" };
            format!("{what} key {key} with {value} in {log}, acks {acks:?}")
        }
        Op::Poll { log, from: Some(from) } => format!("poll {log} from {from}"),
        Op::Poll { log, from: None } => format!("poll {log}"),
        Op::Assign { logs } => format!("assign {} partitions", logs.len()),
        Op::Seek { log, to } => format!("seek {log} to {to:?}"),
        Op::CreateTopic { topic, .. } => format!("create topic {topic}"),
        Op::DeleteTopic { topic } => format!("delete topic {topic}"),
        Op::DeleteRecords { log, before } => format!("delete records of {log} before {before}"),
        Op::Subscribe { group, instance: Some(instance), .. } => {
            format!("subscribe in {group} as {instance}")
        }
        Op::Subscribe { group, instance: None, .. } => format!("subscribe in {group}"),
        Op::Join { group } => format!("join {group}"),
        Op::Release { group, logs, lost: false } => format!("give {} partitions of {group} up", logs.len()),
        Op::Release { group, logs, lost: true } => format!("lose {} partitions of {group}", logs.len()),
        Op::Commit { group, log, offset, member: Some(Member { id, generation }) } => {
            format!("commit {offset} of {log} for {group} as {id}, generation {generation}")
        }
        Op::Commit { group, log, offset, member: None } => format!("commit {offset} of {log} for {group}"),
        Op::FetchOffset { group, log } => format!("fetch offset of {log} for {group}"),
        Op::Leave { group } => format!("leave {group}"),
        Op::Crash => "crash".to_owned(),
        Op::ResetOffset { group, log, to } => format!("reset {group} in {log} to {to}"),
        Op::DeleteOffset { group, log } => format!("delete offset of {group} in {log}"),
        Op::DeleteGroup { group } => format!("delete group {group}"),
        Op::FinalRead { log } => format!("final read of {log}"),
    }
}

fn told(outcome: &Outcome, offset: Option<i64>) -> String {
    match outcome {
        Outcome::Ok(Done::Sent { offset: Some(offset) }) => format!("acknowledged at {offset}"),
        Outcome::Ok(Done::Deleted { start }) => format!("the log begins at {start}"),
        Outcome::Ok(Done::Polled { records }) => told_records(records, offset),
        Outcome::Ok(Done::Read { start, end, records, .. }) => {
            format!("log from {start} to {end}, {}", told_records(records, offset))
        }
        Outcome::Ok(Done::Joined { member, assigned, .. }) => {
            let Member { id, generation } = member;
            format!("{} partitions as {id} in generation {generation}", assigned.len())
        }
        Outcome::Ok(Done::Offset { offset: Some(offset) }) => format!("{offset}"),
        Outcome::Ok(Done::Offset { offset: None }) => "none".to_owned(),
        Outcome::Ok(Done::Sent { offset: None } | Done::Done) => "ok".to_owned(),
        Outcome::Fail(failure) => format!("failed: {failure}"),
        Outcome::Unknown(Some(failure)) => format!("unknown: {failure}"),
        Outcome::Unknown(None) => "never ended".to_owned(),
    }
}

/// A few records around the offset that matters.
fn told_records(records: &[crate::history::Record], offset: Option<i64>) -> String {
    const AROUND: usize = 2;
    let at =
        offset.map_or(0, |offset| records.iter().position(|r| r.offset >= offset).unwrap_or(records.len()));
    let from = at.saturating_sub(AROUND);
    let until = (at + AROUND + 1).min(records.len());
    let told: Vec<String> = records
        .get(from..until)
        .unwrap_or_default()
        .iter()
        .map(|r| match r.value {
            Some(value) => format!("{value}@{}", r.offset),
            None => format!("?@{}", r.offset),
        })
        .collect();
    format!("{} records [{}{}{}]", records.len(), if from > 0 { "… " } else { "" }, told.join(" "), {
        if until < records.len() { " …" } else { "" }
    })
}
