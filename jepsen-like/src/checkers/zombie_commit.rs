//! `zombie-commit`: a commit is acknowledged though its generation was over, or its static member replaced, when it was
//! asked. A member learns of its end late, and may ask; the coordinator must refuse (ILLEGAL_GENERATION,
//! UNKNOWN_MEMBER_ID, FENCED_INSTANCE_ID).

use super::Checker;
use super::index::Index;
use super::verdict::{AnomalyKind, Findings};

pub(super) const CHECKER: Checker =
    Checker { kind: AnomalyKind::ZombieCommit, covers: |promise| promise.keeps_groups(), check };

fn check(index: &Index<'_>, findings: &mut Findings<'_>) {
    for (name, group) in &index.groups {
        for (log, register) in &group.registers {
            for write in register.writes.iter().filter(|write| write.sure_by.is_some()) {
                let (Some((over, told)), Some(member)) = (group.over(write), write.member) else { continue };
                if over > write.from {
                    continue;
                }
                findings.add(Some(log), write.value, &[told, write.by], || {
                    format!(
                        "group {name} takes a commit of member {} in generation {}, which was over",
                        member.id, member.generation
                    )
                });
            }
        }
    }
}
