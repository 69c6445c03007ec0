//! The shortest plan that still fails: delta debugging (Zeller and Hildebrandt, 2002) over the faults, then the load.

use crate::plan::{Plan, TimedFault};

/// Shortens `plan` as long as `still_fails` says that the shorter one fails too, in at most `runs_max` runs.
/// Returns the shortest plan found and the number of runs it took.
pub fn minimise(plan: &Plan, runs_max: usize, mut still_fails: impl FnMut(&Plan) -> bool) -> (Plan, usize) {
    let mut runs = 0;
    let mut shortest = plan.clone();
    let mut fails = |candidate: &Plan| {
        if runs == runs_max {
            return false;
        }
        runs += 1;
        still_fails(candidate)
    };
    shortest.faults =
        fewer(&shortest.faults, &mut |faults| fails(&Plan { faults: faults.to_vec(), ..plan.clone() }));
    loop {
        let before = shortest.clone();
        for candidate in smaller_loads(&shortest) {
            if fails(&candidate) {
                shortest = candidate;
                break;
            }
        }
        if shortest == before {
            return (shortest, runs);
        }
    }
}

/// Delta debugging: removes ever smaller parts of the list, for as long as what remains still fails.
fn fewer(faults: &[TimedFault], fails: &mut impl FnMut(&[TimedFault]) -> bool) -> Vec<TimedFault> {
    let mut rest = faults.to_vec();
    let mut part = rest.len().div_ceil(2).max(1);
    while !rest.is_empty() {
        let mut at = 0;
        let mut removed = false;
        while at < rest.len() {
            let mut candidate = rest.clone();
            candidate.drain(at..(at + part).min(rest.len()));
            if fails(&candidate) {
                rest = candidate;
                removed = true;
            } else {
                at += part;
            }
        }
        if part == 1 && !removed {
            break;
        }
        part = (part / 2).max(1);
    }
    rest
}

/// Loads that are smaller by one step, the largest step first.
fn smaller_loads(plan: &Plan) -> Vec<Plan> {
    let mut candidates = Vec::new();
    let mut consider = |change: &dyn Fn(&mut Plan)| {
        let mut candidate = plan.clone();
        change(&mut candidate);
        if candidate != *plan {
            candidates.push(candidate);
        }
    };
    for index in 0..plan.load.producers.len() {
        consider(&|plan| drop(plan.load.producers.remove(index)));
    }
    if plan.load.topics.len() > 1 {
        for index in 0..plan.load.topics.len() {
            consider(&|plan| drop(plan.load.topics.remove(index)));
        }
    }
    consider(&|plan| plan.load.consumers = 0);
    consider(&|plan| plan.load.delete_records_every_ms = 0);
    consider(&|plan| plan.load.topic_churn_every_ms = 0);
    consider(&|plan| plan.load.listed_every_ms = 0);
    consider(&|plan| plan.load.feature_level = 0);
    consider(&|plan| plan.load.topics.iter_mut().for_each(|topic| topic.partitions = 1));
    consider(&|plan| {
        plan.load.producers.iter_mut().for_each(|producer| producer.compression = "none".to_owned())
    });
    let last_fault_ms = plan.faults.last().map_or(0, |fault| fault.at_ms);
    consider(&|plan| {
        plan.load.duration_ms =
            (plan.load.duration_ms / 2).max(last_fault_ms + 500).min(plan.load.duration_ms)
    });
    candidates
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swarm;

    #[test]
    fn only_the_faults_that_matter_remain() {
        let plan = (0..).map(swarm::plan).find(|plan| plan.faults.len() > 10).unwrap();
        let culprits = [plan.faults[2].clone(), plan.faults[9].clone()];
        let (shortest, runs) =
            minimise(&plan, 1000, |candidate| culprits.iter().all(|fault| candidate.faults.contains(fault)));
        assert_eq!(shortest.faults, culprits);
        assert!(
            shortest.load.producers.is_empty() && shortest.load.topics.len() == 1,
            "the load is not needed"
        );
        assert!(runs < 200, "{runs}");
    }

    #[test]
    fn the_number_of_runs_is_bounded() {
        let mut asked = 0;
        minimise(&swarm::plan(1), 5, |_| {
            asked += 1;
            false
        });
        assert!(asked <= 5);
    }
}
