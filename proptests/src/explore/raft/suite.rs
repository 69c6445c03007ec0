//! The bounds that are explored, and the defects that are hunted.

use weir_defect::Defect;

use super::Bounds;
use crate::explore::{Hunt, Part};

fn part(name: &'static str, bounds: Bounds) -> Part<Bounds> {
    Part { name, bounds }
}

/// Nothing happens but elections and the leaders' own entries.
fn calm() -> Bounds {
    Bounds { commands: 0, crashes: 0, duels: false, ..Bounds::default() }
}

/// For the unit tests: seconds, without optimisation.
pub fn tiny() -> Vec<Part<Bounds>> {
    vec![
        part("two terms", calm()),
        part("a crash in the first term", Bounds { terms: 1, crashes: 1, ..calm() }),
        part("a read", Bounds { reads: 1, late_logs: false, ..calm() }),
        part("a leader that hands over", Bounds { hand_overs: 1, late_logs: false, ..calm() }),
    ]
}

/// For CI: a minute or two on one core.
pub fn small() -> Vec<Part<Bounds>> {
    vec![
        part("one term, a command, a crash", Bounds { terms: 1, commands: 1, crashes: 1, ..calm() }),
        part("two terms, a crash", Bounds { crashes: 1, ..calm() }),
        part("two candidates in a term", Bounds { duels: true, ..calm() }),
        part("votes that are synced late", Bounds { terms: 1, late_votes: true, duels: true, ..calm() }),
        part("pre-votes as messages", Bounds { terms: 1, pre_votes: true, ..calm() }),
        part("a read", Bounds { reads: 1, late_logs: false, ..calm() }),
        part("a leader that hands over", Bounds { hand_overs: 1, commands: 1, late_logs: false, ..calm() }),
        part("a damaged log or vote", Bounds { damages: 1, late_logs: false, ..calm() }),
        part("a snapshot", Bounds { terms: 1, commands: 1, snapshots: 1, late_logs: false, ..calm() }),
        part(
            "a change of voters",
            Bounds { voters: 2, changes: 1, late_logs: false, campaigners: vec![0, 1], ..calm() },
        ),
    ]
}

/// As large as fits into half an hour each, and 16 GiB.
pub fn large() -> Vec<Part<Bounds>> {
    let synced = || Bounds { late_logs: false, ..calm() };
    vec![
        part("two terms, a command, a crash", Bounds { commands: 1, crashes: 1, ..calm() }),
        part("two candidates in a term, a crash", Bounds { crashes: 1, duels: true, ..calm() }),
        part(
            "two candidates in a term, two commands, a crash",
            Bounds { commands: 2, crashes: 1, duels: true, ..synced() },
        ),
        part("three terms", Bounds { terms: 3, ..calm() }),
        part("three terms, a command, a crash", Bounds { terms: 3, commands: 1, crashes: 1, ..synced() }),
        part("two messages a link, a crash", Bounds { per_link: 2, crashes: 1, ..synced() }),
        part("pre-votes as messages", Bounds { pre_votes: true, duels: true, ..calm() }),
        part("a read, a crash", Bounds { reads: 1, crashes: 1, ..calm() }),
        part("a snapshot, a command, a crash", Bounds { commands: 1, snapshots: 1, crashes: 1, ..synced() }),
        part("three terms, a damaged log or vote", Bounds { terms: 3, damages: 1, ..synced() }),
        part(
            "a damaged log or vote, a command, a crash",
            Bounds { commands: 1, crashes: 1, damages: 1, ..synced() },
        ),
        part(
            "two changes of voters, a crash",
            Bounds { voters: 2, terms: 3, crashes: 1, changes: 2, campaigners: vec![0, 1, 2], ..calm() },
        ),
    ]
}

/// Damage that nobody notices: a law must break.
pub fn untold_damage() -> Bounds {
    Bounds { damages: 1, damage_untold: true, late_logs: false, ..calm() }
}

/// What the exploration must find.
pub fn hunts() -> Vec<Hunt<Bounds>> {
    let hunt = |defect, bounds| Hunt { defect, bounds };
    vec![
        hunt(
            Defect::reconfigure_before_noop,
            Bounds { voters: 2, terms: 3, crashes: 1, changes: 2, campaigners: vec![0, 1, 2], ..calm() },
        ),
        hunt(Defect::no_fsync_vote, Bounds { terms: 1, crashes: 1, late_votes: true, duels: true, ..calm() }),
        hunt(Defect::resume_same_epoch, Bounds { terms: 1, commands: 1, crashes: 1, ..calm() }),
        hunt(
            Defect::commit_prior_term,
            Bounds { terms: 4, late_logs: false, campaigners: vec![0, 2, 0, 2], ..calm() },
        ),
        hunt(Defect::reuse_read_context, Bounds { reads: 1, late_logs: false, ..calm() }),
    ]
}
