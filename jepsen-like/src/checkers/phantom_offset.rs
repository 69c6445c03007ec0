//! `phantom-offset`: a group is told to stand where nobody set it, or only a request that was certainly refused.

use std::collections::HashMap;

use super::Checker;
use super::index::Index;
use super::verdict::{AnomalyKind, Findings};

pub(super) const CHECKER: Checker =
    Checker { kind: AnomalyKind::PhantomOffset, covers: |promise| promise.keeps_groups(), check };

fn check(index: &Index<'_>, findings: &mut Findings<'_>) {
    for (name, group) in &index.groups {
        for (log, register) in &group.registers {
            let mut first: HashMap<i64, usize> = HashMap::new();
            for write in register.writes.iter().rev() {
                first.extend(write.value.map(|value| (value, write.from)));
            }
            for fetch in &register.fetches {
                let Some(value) = fetch.value else { continue };
                if first.get(&value).is_some_and(|from| *from < fetch.until) {
                    continue;
                }
                findings.add(Some(log), Some(value), &[fetch.by], || {
                    format!("group {name} is told to stand at {value}, and nobody set it there")
                });
            }
        }
    }
}
