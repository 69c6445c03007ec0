//! The zoo: how many seeds the swarm takes to find each known bug that is put back.

use std::time::{Duration, Instant};

use weir_defect::Defect;

use crate::run::run;
use crate::runner::{Batch, run_batch, table};
use crate::swarm;

/// Seeds within which a defect must be found.
pub const SEEDS_MAX: u64 = 1_000;

/// The defects that this version of Weir can have, and that its design does not rule out (`docs/bugs`); the others wait for the feature that they are about.
pub const BUILT: &[Defect] = &[
    Defect::clear_clean_marker_late,
    Defect::drop_producer_state_on_failover,
    Defect::no_persist_static_rejoin,
    Defect::replace_static_only_when_stable,
    Defect::no_new_member_timeout,
    Defect::expire_offsets_while_rebalancing,
    Defect::no_generation_in_owned,
    Defect::skip_generation_check,
    Defect::retry_fsync,
    Defect::rename_without_fsync,
    Defect::corrupt_as_torn,
    Defect::assert_monotonic_wall_clock,
    Defect::dup_ack_before_commit,
    Defect::truncate_not_durable,
    Defect::ack_before_segment_write,
    Defect::replay_without_deletions,
    Defect::truncate_to_hw,
    Defect::ignore_leader_epoch,
    Defect::epoch_lookup_single_round,
    Defect::cache_epoch_on_append_only,
    Defect::skip_truncation_if_same_leader,
    Defect::truncate_early_return,
    Defect::credit_diverging_fetch,
    Defect::no_owner_check,
    Defect::elect_last_isr_unclean,
    Defect::isr_no_broker_epoch,
    Defect::isr_allow_fenced,
    Defect::no_hw_bump_on_full_truncation,
    Defect::no_fetch_epoch_check,
    Defect::keep_state_on_reload,
    Defect::no_fsync_vote,
    Defect::resume_same_epoch,
    Defect::commit_prior_term,
    Defect::reuse_read_context,
    Defect::retention_past_snapshot,
    Defect::no_check_quorum,
    Defect::snapshot_index_early,
    Defect::no_fsync_checkpoint,
    Defect::delete_orphans_from_stale_metadata,
    Defect::isr_join_at_hw,
    Defect::waiter_survives_epoch,
    Defect::wiped_voter_votes,
    Defect::hw_below_min_isr,
    Defect::hw_committed_isr_only,
    Defect::load_until_leo,
    Defect::range_repair_of_compacted,
    Defect::raise_level_without_voters,
];

/// What became of a hunt.
pub struct Hunt {
    /// The defect that was switched on.
    pub defect: Defect,
    /// Seed, name of what spoke, number of seeds run; `None` if it was not found.
    pub found: Option<(u64, String, u64)>,
    /// The most that were to be run.
    pub seeds: u64,
    /// Whether the seed that found it is clean with the defect off.
    pub holds_without: bool,
    /// Real time.
    pub took: Duration,
}

/// Hunts one defect with the swarm that `run` uses, in these seeds, up to the first that finds it.
#[expect(clippy::disallowed_methods, reason = "the runner lives outside the simulations that it starts")]
pub fn hunt(defect: Defect, seeds: Batch) -> Hunt {
    let start = Instant::now();
    let batch = Batch { keep_going: false, ..seeds };
    let summary = run_batch(batch, &[defect], true);
    let found = summary.failure.map(|(seed, report)| {
        let name = report.findings.first().map(|finding| finding.name.clone()).unwrap_or_default();
        (seed, name, batch.seeds_until(seed))
    });
    let holds_without =
        found.as_ref().is_none_or(|(seed, ..)| run(&swarm::plan(*seed), &[], false).is_clean());
    Hunt { defect, found, seeds: batch.seeds, holds_without, took: start.elapsed() }
}

/// The hunts as a table.
pub fn tables(hunts: &[Hunt]) -> String {
    let mut rows = table(&["id", "defect", "found by", "seeds", "seconds", "replay"]);
    for hunt in hunts {
        let (by, seeds, replay) = match &hunt.found {
            Some((seed, name, seeds)) if hunt.holds_without => (
                name.clone(),
                seeds.to_string(),
                format!("cargo sim replay {} --defect {}", swarm::name(*seed), hunt.defect.name()),
            ),
            Some((seed, ..)) => {
                (format!("seed {} fails without it, too", swarm::name(*seed)), String::new(), String::new())
            }
            None => ("NOT FOUND".to_owned(), format!("> {}", hunt.seeds), String::new()),
        };
        let seconds = format!("{:.1}", hunt.took.as_secs_f64());
        rows.add_row([hunt.defect.id(), hunt.defect.name().to_owned(), by, seeds, seconds, replay]);
    }
    rows.to_string()
}
