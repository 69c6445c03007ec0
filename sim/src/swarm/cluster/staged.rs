//! Faults that lead up to a moment, and strike when it has come.

use fastrand::Rng;

use super::Promise;
use crate::plan::{Cluster, Fault, Load, TimedFault};
use crate::swarm::pick;

/// Of so many clusters that can meet such a fault one does.
const ONE_IN: u32 = 3;

/// Draws words that arrive late, and votes that are cast when power fails.
pub(super) fn draw(rng: &mut Rng, cluster: &Cluster, load: &Load, promise: Promise) -> Vec<TimedFault> {
    let mut faults = Vec::new();
    let mut some = |rng: &mut Rng, kind: fn(&mut Rng) -> Fault| {
        for _ in 0..rng.u32(1..4) {
            faults.push(TimedFault { at_ms: rng.u64(1_000..load.duration_ms), fault: kind(rng) });
        }
    };
    if cluster.serving().count() >= 3 && rng.u32(0..ONE_IN) == 0 {
        some(rng, late_answer);
    }
    let loses_power = !matches!(promise, Promise::Unsynced { .. });
    if cluster.voting().count() == 3 && loses_power && rng.u32(0..ONE_IN) == 0 {
        some(rng, recast);
    }
    let voters: Vec<u32> = cluster.voting().collect();
    if voters.len() == 3 && rng.u32(0..ONE_IN) == 0 {
        for _ in 0..rng.u32(1..3) {
            let fault = Fault::FigureEight { voters: voters.clone(), delay_ms: pick(rng, &[8, 15, 25]) };
            faults.push(TimedFault { at_ms: rng.u64(1_000..load.duration_ms), fault });
        }
    }
    faults
}

fn late_answer(rng: &mut Rng) -> Fault {
    Fault::LateAnswer {
        place: rng.u32(0..9),
        after_ms: pick(rng, &[0, 100, 500]),
        delay_ms: pick(rng, &[60, 100, 160, 250]),
        down_ms: pick(rng, &[0, 300, 1_500]),
    }
}

fn recast(rng: &mut Rng) -> Fault {
    Fault::Recast {
        disk_factor: pick(rng, &[1, 5, 20]) as u32,
        down_ms: pick(rng, &[0, 0, 50]),
        for_ms: pick(rng, &[500, 1_500]),
    }
}
