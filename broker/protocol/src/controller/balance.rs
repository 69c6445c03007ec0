//! After brokers came and went, leaders go back to the first replicas that are in sync (KIP-460's preferred election, by
//! itself): otherwise a rolling restart leaves the last broker with nothing to lead.

use std::time::Duration;

use super::{Controller, Effect, Subject};
use crate::metadata::{ClusterCommand, Image};

impl Controller {
    /// Proposes an election for each partition that its first replica could lead and does not.
    pub(super) fn balance(&mut self, now: Duration, image: &Image, effects: &mut Vec<Effect>) {
        let Some(at) = self.balance_at.filter(|at| *at <= now) else { return };
        self.balance_at = self.timing.balance.map(|interval| at.max(now) + interval);
        for (log, state) in image.topics().flat_map(|topic| topic.logs()) {
            let Some(first) = state.replicas.first().copied() else { continue };
            let could = state.isr.contains(&first) && image.can_lead(first);
            if could && state.leader != Some(first) {
                let partition_epoch = state.partition_epoch;
                let command = ClusterCommand::ElectPreferred { log, partition_epoch };
                self.want(now, image, Subject::Partition(log), command, effects);
            }
        }
    }
}
