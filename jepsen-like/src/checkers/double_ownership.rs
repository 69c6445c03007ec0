//! `double-ownership`: one partition, two members of one group in one generation, by the assignments as they got them.
//!
//! What a member does after it lost its generation proves nothing: it may not know yet. Nor do two member ids of one
//! static member in one generation: the newer process took the older one's place (KIP-345). Two processes with one
//! member id do.

use std::collections::BTreeMap;

use super::Checker;
use super::groups::{Group, Joined};
use super::index::Index;
use super::verdict::{AnomalyKind, Findings};
use crate::history::Log;

pub(super) const CHECKER: Checker =
    Checker { kind: AnomalyKind::DoubleOwnership, covers: |promise| promise.keeps_groups(), check };

fn check(index: &Index<'_>, findings: &mut Findings<'_>) {
    for (name, group) in &index.groups {
        let mut owners: BTreeMap<(i32, &Log), Vec<&Joined<'_>>> = BTreeMap::new();
        for join in &group.joins {
            for log in join.assigned {
                owners.entry((join.member.generation, log)).or_default().push(join);
            }
        }
        for ((generation, log), owners) in owners {
            for pair in owners.windows(2) {
                let [first, second] = pair else { continue };
                if !are_two(group, first, second) {
                    continue;
                }
                findings.add(Some(log), None, &[first.by, second.by], || {
                    format!(
                        "members {} and {} of group {name} both get it in generation {generation}",
                        first.member.id, second.member.id
                    )
                });
            }
        }
    }
}

fn are_two(group: &Group<'_>, first: &Joined<'_>, second: &Joined<'_>) -> bool {
    let replaced = first.instance.is_some() && first.instance == second.instance;
    first.process != second.process
        && !(replaced && first.member.id != second.member.id)
        && first.lives
        && second.lives
        && group.lives_through(first.told, second.told)
}
