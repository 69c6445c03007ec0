//! Every run of the quorum's core within small bounds, and the defects that such an exploration must find.

use std::time::Duration;

use weir_proptests::explore::raft::{World, suite};
use weir_proptests::explore::{Bounded, Hunt, Order, Part, explore, has_switches};

const TIME_MAX: Duration = Duration::from_secs(300);

#[test]
fn every_run_of_three_voters_within_small_bounds_keeps_rafts_laws() {
    for Part { name, bounds } in suite::tiny() {
        let explored = explore(Bounded::<World> { bounds, defects: vec![] }, Order::DepthFirst, 1, TIME_MAX);
        println!("{name}: {} states, {} steps, {:?}", explored.states, explored.steps, explored.took);
        assert!(explored.broken.is_none(), "{name}: {:#?}", explored.broken);
        // A model that does nothing breaks nothing.
        assert!(explored.complete && explored.states > 1_000, "{name}");
    }
}

#[test]
fn damage_that_nobody_notices_breaks_a_law() {
    // It is the core's recovery that keeps the laws when the damage is told.
    let model = Bounded::<World> { bounds: suite::untold_damage(), defects: vec![] };
    let explored = explore(model, Order::BreadthFirst, 1, TIME_MAX);
    assert_eq!(explored.broken.map(|broken| broken.law), Some("Leader Completeness"));
}

/// A build without switches has nothing to show here.
#[test]
fn the_exploration_finds_the_defects_that_it_must_find() {
    for Hunt { defect, bounds } in suite::hunts() {
        if !has_switches(&[defect]) {
            return;
        }
        let model = Bounded::<World> { bounds, defects: vec![defect] };
        let explored = explore(model, Order::BreadthFirst, 1, TIME_MAX);
        let law = explored.broken.map(|broken| broken.law);
        println!("{}: {law:?} after {} states, {:?}", defect.name(), explored.states, explored.took);
        assert!(law.is_some(), "{} is not found", defect.name());
    }
}
