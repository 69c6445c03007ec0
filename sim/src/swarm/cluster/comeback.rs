//! A node comes back with an empty disk just when something still counts on what it had.

use fastrand::Rng;

use crate::plan::{Cluster, Fault, TimedFault};
use crate::swarm::pick;

/// Draws such comebacks of a node whose disk may be damaged.
pub(super) fn draw(rng: &mut Rng, cluster: &Cluster, duration_ms: u64, node: u32) -> Vec<TimedFault> {
    let mut faults = Vec::new();
    if rng.bool() {
        faults.extend(voter(rng, cluster, duration_ms, node));
    }
    if can_be_overtaken(cluster, node) && rng.u32(0..4) > 0 {
        for _ in 0..rng.u32(1..4) {
            let overtake = Fault::Overtake {
                broker: node,
                away_ms: pick(rng, &[0, 50, 500]),
                after_ms: pick(rng, &[1, 5, 20]),
                delay_ms: pick(rng, &[120, 160, 250]),
            };
            faults.push(TimedFault { at_ms: rng.u64(1_000..duration_ms), fault: overtake });
        }
    }
    faults
}

/// Whether the quorum can do without this node and without some other broker.
fn can_be_overtaken(cluster: &Cluster, node: u32) -> bool {
    let is_spared = |broker: u32| {
        let voters = cluster.voting().filter(|voter| ![node, broker].contains(voter));
        broker != node && 2 * voters.count() > cluster.voting().count()
    };
    cluster.serving().any(is_spared)
}

/// One half of the quorum decides something with the node, and just when it loses its disk, the other half meets it.
fn voter(rng: &mut Rng, cluster: &Cluster, duration_ms: u64, node: u32) -> Vec<TimedFault> {
    let mut others: Vec<u32> = cluster.voting().filter(|voter| *voter != node).collect();
    // Two majorities that have only this node in common.
    if !cluster.role(node).is_controller() || !others.len().is_multiple_of(2) {
        return Vec::new();
    }
    rng.shuffle(&mut others);
    let (one, other) = others.split_at(others.len() / 2);
    let (mut one, mut other) = (one.to_vec(), other.to_vec());
    for member in (0..cluster.brokers).filter(|member| !cluster.role(*member).is_controller()) {
        if rng.bool() { one.push(member) } else { other.push(member) }
    }
    let (with_one_ms, with_other_ms) = (rng.u64(500..3_000), rng.u64(500..4_000));
    let at_ms = rng.u64(500..duration_ms);
    let then_ms = at_ms + with_one_ms;
    let apart = |at_ms, a: &[u32], b: &[u32], for_ms| TimedFault {
        at_ms,
        fault: Fault::Split { groups: vec![a.to_vec(), b.to_vec()], for_ms },
    };
    // No moment in which everybody hears everybody.
    vec![
        apart(at_ms, &one, &other, with_one_ms + with_other_ms),
        apart(at_ms, &[node], &other, with_one_ms),
        apart(then_ms - 2, &[node], &one, with_other_ms),
        TimedFault {
            at_ms: then_ms - 1,
            fault: Fault::Wipe { broker: node, down_ms: pick(rng, &[5, 50, 300]) },
        },
    ]
}
