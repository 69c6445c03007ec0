//! Upgrades: nodes get another version one by one, and some get the older one back.

use fastrand::Rng;
use weir_protocol::metadata::FEATURE_LEVEL_MAX;

use crate::plan::{Cluster, Fault, Load, TimedFault};
use crate::swarm::pick;

/// What a version that is newer than this one knows.
const NEWER: u16 = FEATURE_LEVEL_MAX + 1;
/// Of so many clusters one is upgraded.
const ONE_IN: u32 = 4;

/// Draws an upgrade, somebody who gives up the older version as soon as that is possible, and nodes that get it back all the same.
pub(super) fn draw(rng: &mut Rng, cluster: &Cluster, load: &mut Load) -> Vec<TimedFault> {
    if rng.u32(0..ONE_IN) > 0 {
        return Vec::new();
    }
    load.feature_level = NEWER as i16;
    let mut order: Vec<u32> = (0..cluster.brokers).collect();
    rng.shuffle(&mut order);
    if rng.u32(0..5) == 0 {
        // Somebody forgets one.
        order.pop();
    }
    let mut install = |at_ms, broker, level| TimedFault {
        at_ms,
        fault: Fault::Install { broker, level, down_ms: pick(rng, &[0, 50, 300, 1_500]) },
    };
    let step_ms = load.duration_ms / (2 * u64::from(cluster.brokers) + 2);
    let mut faults: Vec<_> =
        order.iter().zip(1..).map(|(broker, step)| install(step * step_ms, *broker, NEWER)).collect();
    for (broker, step) in order.iter().rev().zip(order.len() as u64..).take(2) {
        let at_ms = (step + 1) * step_ms + step_ms / 2;
        faults.push(install(at_ms, *broker, FEATURE_LEVEL_MAX));
        faults.push(install(at_ms + step_ms, *broker, NEWER));
    }
    faults.retain(|fault| fault.at_ms < load.duration_ms);
    faults
}
