//! What must hold in every state.

use std::sync::Arc;

use weir_protocol::raft::{ReadId, Term};

use super::super::LAWS;
use super::{Past, World};

const ELECTION: &str = LAWS[0];
const COMPLETENESS: &str = LAWS[1];
pub(super) const STATE_MACHINE: &str = LAWS[2];
const LOG_MATCHING: &str = LAWS[3];
const READS: &str = LAWS[4];
pub(super) const INVARIANTS: &str = LAWS[5];

impl World {
    pub(super) fn break_law(&mut self, law: &'static str, how: String) {
        self.broken.get_or_insert((law, how));
    }

    /// Committed entries never change.
    pub(super) fn check_commit(&mut self, node: usize, end: usize) {
        for index in self.nodes[node].applied..end {
            let entry = self.nodes[node].disk.get(index).cloned();
            let past = Arc::make_mut(&mut self.past);
            match (entry, past.committed.get(index)) {
                (Some(entry), None) if index == past.committed.len() => {
                    past.committed.push(entry);
                    past.committed_in.push(self.nodes[node].raft.term());
                }
                (Some(entry), Some(known)) if entry == *known => {}
                (entry, known) => {
                    let how = format!("{node} commits {entry:?} at {index}, where {known:?} was committed");
                    return self.break_law(STATE_MACHINE, how);
                }
            }
        }
        Arc::make_mut(&mut self.nodes[node]).applied = end;
    }

    /// One leader in a term, and one reign; it has all that was committed in earlier terms.
    pub(super) fn check_leader(&mut self, node: usize, term: Term) {
        if let Some(other) = Arc::make_mut(&mut self.past).leaders.insert(term, node) {
            self.break_law(ELECTION, format!("{other} and {node} begin to lead term {term}"));
        }
        let (disk, Past { committed, committed_in, .. }) = (&self.nodes[node].disk, &*self.past);
        let lacks = |index: &usize| committed_in[*index] < term && disk.get(*index) != committed.get(*index);
        if let Some(index) = (disk.start..committed.len()).find(lacks) {
            self.break_law(COMPLETENESS, format!("the leader of term {term} lacks entry {index}"));
        }
    }

    /// Where two logs have an entry of one term at one index, they agree up to there.
    pub(super) fn check_logs(&mut self, node: usize) {
        let mut broken = None;
        for (other, that) in self.nodes.iter().enumerate() {
            let (one, two) = (&self.nodes[node].disk, &that.disk);
            let start = one.start.max(two.start);
            let same_term = |index: &usize| matches!((one.get(*index), two.get(*index)), (Some(a), Some(b)) if a.term == b.term);
            let Some(last) = (start..one.end().min(two.end())).rev().find(same_term) else { continue };
            if (start..=last).any(|index| one.get(index) != two.get(index)) {
                broken = Some(format!("the logs of {node} and {other} agree in the term at {last} only"));
            }
        }
        if let Some(how) = broken {
            self.break_law(LOG_MATCHING, how);
        }
    }

    pub(super) fn check_read(&mut self, id: ReadId, commit: usize) {
        let before = Arc::make_mut(&mut self.past).reads.remove(&id);
        if before.is_some_and(|before| commit < before) {
            self.break_law(READS, format!("a read at {commit} began when {before:?} was committed"));
        }
    }
}
