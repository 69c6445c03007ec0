//! The bounds that are explored, and the defects that are hunted.

use weir_defect::Defect;

use super::Bounds;
use crate::explore::{Hunt, Part};

fn part(name: &'static str, bounds: Bounds) -> Part<Bounds> {
    Part { name, bounds }
}

/// One record, one epoch, and nothing fails.
fn calm() -> Bounds {
    Bounds { epochs: 1, records: 1, crashes: 0, retries: true, ..Bounds::default() }
}

/// Records are durable as soon as they are written: fewer states, for what is not about that.
fn instant() -> Bounds {
    Bounds { late_syncs: false, ..calm() }
}

/// For the unit tests: seconds, without optimisation.
pub fn tiny() -> Vec<Part<Bounds>> {
    vec![
        part("two epochs", Bounds { epochs: 2, ..instant() }),
        part("late syncs", calm()),
        part("a follower joins", Bounds { in_sync: 2, retries: false, ..instant() }),
        part("a crash", Bounds { epochs: 2, crashes: 1, retries: false, ..instant() }),
    ]
}

/// For CI: a minute or two on one core.
pub fn small() -> Vec<Part<Bounds>> {
    vec![
        part("two epochs, two records, a crash", Bounds::default()),
        part("two epochs, a record, a crash, requests repeated", Bounds { epochs: 2, crashes: 1, ..calm() }),
        part("progress between fetches", Bounds { epochs: 2, progress: true, ..calm() }),
        part("a follower joins, a crash", Bounds { epochs: 2, in_sync: 2, crashes: 1, ..instant() }),
        part("followers lag", Bounds { epochs: 2, ticks: 1, ..instant() }),
        part("a broker fenced", Bounds { epochs: 2, fences: 1, ..instant() }),
        part("three epochs, two records", Bounds { epochs: 3, records: 2, ..instant() }),
        part("a tail lost, three epochs", Bounds { epochs: 3, losses: 1, ..instant() }),
    ]
}

/// As large as fits into half an hour each.
pub fn large() -> Vec<Part<Bounds>> {
    vec![
        part(
            "two epochs, two records, a crash, requests repeated",
            Bounds { retries: true, ..Bounds::default() },
        ),
        part("two epochs, two records, two crashes", Bounds { crashes: 2, ..Bounds::default() }),
        part(
            "a follower joins, three epochs, a crash",
            Bounds { epochs: 3, in_sync: 2, crashes: 1, ..instant() },
        ),
        part("two brokers fenced", Bounds { epochs: 2, fences: 2, ..instant() }),
        part("a broker fenced, a tail lost", Bounds { epochs: 2, fences: 1, losses: 1, ..instant() }),
        part("two brokers fenced, a tail lost", Bounds { epochs: 2, fences: 2, losses: 1, ..instant() }),
        part(
            "a broker fenced, three epochs, a tail lost",
            Bounds { epochs: 3, fences: 1, losses: 1, ..instant() },
        ),
    ]
}

/// What the exploration must find, from outside: what the core says of itself does not count.
pub fn hunts() -> Vec<Hunt<Bounds>> {
    let hunt = |defect, bounds| Hunt { defect, bounds: Bounds { invariants: false, ..bounds } };
    vec![
        hunt(Defect::truncate_to_hw, Bounds { epochs: 2, ..calm() }),
        hunt(Defect::isr_join_at_hw, Bounds { epochs: 2, in_sync: 2, ..calm() }),
        hunt(
            Defect::waiter_survives_epoch,
            Bounds { epochs: 3, records: 2, in_sync: 2, late_syncs: false, ..calm() },
        ),
        hunt(Defect::hw_below_min_isr, Bounds { epochs: 2, fences: 2, ..calm() }),
        hunt(Defect::hw_committed_isr_only, Bounds { in_sync: 2, ..calm() }),
        hunt(Defect::credit_diverging_fetch, Bounds { epochs: 2, records: 2, ..calm() }),
        hunt(Defect::no_owner_check, Bounds { epochs: 3, records: 2, ..instant() }),
    ]
}
