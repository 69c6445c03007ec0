//! A node that stops leaves the quorum to the others.

use weir_runtime::{simulation, time};

use super::{Driver, MetadataError};
use crate::metadata::quorum::Quorum;

impl Driver {
    /// This node stops. If it leads, the voter that has most takes over before, so that nobody waits for an election timeout;
    /// whoever takes over may need this one's vote.
    pub(super) async fn hand_over(&mut self, quorum: &mut Quorum) -> Result<(), MetadataError> {
        let led = quorum.leader().leader == Some(self.me.broker);
        let progress = quorum.hand_over()?;
        self.take_in(quorum, progress)?;
        let mut patience = time::Alarm::new();
        patience.set(Some(time::now() + quorum.hand_over_max()));
        while led && !quorum.has_handed_over() {
            weir_runtime::select! {
                event = quorum.event() => {
                    let progress = quorum.on_event(event)?;
                    self.take_in(quorum, progress)?;
                }
                Some(envelope) = self.raft.recv() => self.on_message(quorum, envelope)?,
                event = self.controlling.event() => {
                    let todos = self.controlling.on_event(event, &self.image);
                    self.carry_out(quorum, todos)?;
                }
                () = patience.wait() => return Ok(()),
            }
        }
        if led {
            simulation::situation("metadata leader handed over");
        }
        Ok(())
    }
}
