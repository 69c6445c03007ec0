//! `stale-key`: the final read of a compacted partition does not end, for some key, with what was last written of it: it shows an
//! older record, or none although the last one has a value.
//!
//! Compaction drops a record only where a newer one of its key stands, and a tombstone only together with everything that it
//! deletes. So whatever is known to be committed of a key binds each read after it: the key's last record is that one, or one
//! behind it. A key of which nothing is shown is one whose last record is a tombstone, or may be.
//!
//! Sends that may have happened count as written where they can stand behind: not where the key's writer is idempotent and has
//! sent again since, because its sends enter the log in their order or never.

use std::collections::{BTreeMap, HashMap};

use super::Checker;
use super::index::{FinalRead, Index, LogIndex, OpAt};
use super::lost_write::{Committed, committed};
use super::verdict::{AnomalyKind, Findings};
use crate::history::{Done, Keyed, Op, Outcome};

pub(super) const CHECKER: Checker = Checker {
    kind: AnomalyKind::StaleKey,
    covers: |promise| !promise.compacted.is_empty() && promise.keeps_what_it_showed(),
    check,
};

fn check(index: &Index<'_>, findings: &mut Findings<'_>) {
    for log in index.stable_logs().filter(|log| log.compacted) {
        for read in &log.final_reads {
            against_final_read(index, log, read, findings);
        }
    }
}

fn against_final_read(
    index: &Index<'_>,
    log: &LogIndex<'_>,
    read: &FinalRead<'_>,
    findings: &mut Findings<'_>,
) {
    let shown = shown(index, read);
    let deletions = uncertain_deletions(index, log);
    for (key, last) in last_committed(index, log, read) {
        let Committed { offset, value, .. } = last.record;
        let now = shown.get(key).copied();
        let is_gone = now.is_none()
            && (last.tombstone || deletions.get(key).is_some_and(|all| may_follow(index, all, &last)));
        let cut_off = log.may_be_cut_off(offset, read.start, index.promise);
        if now.is_some_and(|(at, _)| at >= offset) || is_gone || cut_off || read.reports(offset) {
            continue;
        }
        let mut proof = vec![last.send, last.record.by, read.by];
        proof.dedup(); // an acknowledgement is the send's own
        findings.add(Some(log.log), Some(offset), &proof, || {
            let what = if last.tombstone { "was deleted" } else { "was set" };
            match now {
                Some((at, older)) => format!(
                    "key {key} {what} at offset {offset} with {value}, and is {older} again, of offset {at}"
                ),
                None => format!("key {key} {what} at offset {offset} with {value}, and is gone"),
            }
        });
    }
}

/// The last record of a key that must count.
struct Last {
    record: Committed,
    send: OpAt,
    tombstone: bool,
}

fn keyed<'a>(index: &Index<'a>, value: u64) -> Option<(OpAt, &'a Keyed)> {
    let send = *index.sends.get(&value)?;
    match &index.op(send).op {
        Op::Send { keyed, .. } => keyed.as_ref().map(|keyed| (send, keyed)),
        _ => None,
    }
}

/// What is known to be committed when the read begins, by key: the last of each.
fn last_committed<'a>(
    index: &Index<'a>,
    log: &LogIndex<'_>,
    read: &FinalRead<'_>,
) -> BTreeMap<&'a str, Last> {
    let mut last = BTreeMap::new();
    // In the order of their offsets.
    for record in committed(index, log, read) {
        if let Some((send, Keyed { key, tombstone })) = keyed(index, record.value) {
            last.insert(&**key, Last { record, send, tombstone: *tombstone });
        }
    }
    last
}

/// The last record of each key in the read: its offset and its value.
fn shown<'a>(index: &Index<'a>, read: &FinalRead<'_>) -> BTreeMap<&'a str, (i64, u64)> {
    let mut shown: BTreeMap<&str, (i64, u64)> = BTreeMap::new();
    for record in read.records {
        let Some(value) = record.value else { continue };
        if let Some((_, Keyed { key, .. })) = keyed(index, value) {
            let last = shown.entry(key).or_insert((record.offset, value));
            *last = (record.offset, value).max(*last);
        }
    }
    shown
}

/// A deletion that nobody was told of in a way that binds.
struct Uncertain {
    send: OpAt,
    /// Where it was read, if it was.
    offset: Option<i64>,
}

/// Such deletions, by key.
fn uncertain_deletions<'a>(index: &Index<'a>, log: &LogIndex<'_>) -> BTreeMap<&'a str, Vec<Uncertain>> {
    let offsets: HashMap<u64, i64> = log.seen.iter().map(|seen| (seen.value, seen.offset)).collect();
    let mut deletions: BTreeMap<&str, Vec<Uncertain>> = BTreeMap::new();
    for (operation, send) in index.history.operations().iter().zip(0..) {
        let Op::Send { log: to, value, acks, keyed: Some(Keyed { key, tombstone: true }) } = &operation.op
        else {
            continue;
        };
        let is_certain = match &operation.outcome {
            Outcome::Fail(_) => true,
            Outcome::Ok(Done::Sent { offset: Some(_) }) => index.promise.binds(*acks),
            _ => false,
        };
        if to == log.log && !is_certain {
            let offset = offsets.get(value).copied();
            deletions.entry(key).or_default().push(Uncertain { send, offset });
        }
    }
    deletions
}

/// Whether one of these may stand behind this record.
fn may_follow(index: &Index<'_>, deletions: &[Uncertain], last: &Last) -> bool {
    let send = index.op(last.send);
    deletions.iter().any(|deletion| {
        let earlier = index.op(deletion.send);
        let keeps_order = index.promise.ordered_sends
            && earlier.process == send.process
            && index.promise.idempotent.covers(send.process);
        let is_before = keeps_order && earlier.invoked_at < send.invoked_at;
        !is_before && deletion.offset.is_none_or(|offset| offset > last.record.offset)
    })
}
