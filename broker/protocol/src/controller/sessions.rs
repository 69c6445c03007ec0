//! The brokers' sessions: who is there, who is fenced, who may go. Times are of the monotonic clock (contract 12).

use std::time::Duration;

use super::{Controller, Effect, Standing, Subject, Wants};
use crate::metadata::{Broker, ClusterCommand, Image, Rejected};
use crate::types::BrokerId;

/// What this controller has heard of one incarnation of a broker.
#[derive(Clone, Debug)]
pub(super) struct Session {
    /// The broker epoch that it belongs to.
    pub(super) epoch: i64,
    /// When the broker is fenced unless it is heard before.
    pub(super) ends: Duration,
    /// The last metadata entry that the broker has applied.
    applied: i64,
    wants: Wants,
    /// Whether this controller has heard of it at all.
    heard: bool,
    /// The entry with which its leaders moved, once it wants to go.
    pub(super) leaving_since: Option<i64>,
}

impl Session {
    /// Of a broker that stands in the image only.
    pub(super) fn unheard(epoch: i64, ends: Duration, leaving_since: Option<i64>) -> Session {
        Session { epoch, ends, applied: -1, wants: Wants::Serve, heard: false, leaving_since }
    }

    /// Of a broker that has just registered.
    pub(super) fn heard(epoch: i64, ends: Duration) -> Session {
        Session { heard: true, ..Session::unheard(epoch, ends, None) }
    }
}

impl Controller {
    /// A controller that was stopped itself cannot tell whose heartbeats it has missed: nobody's session ends for that.
    pub(super) fn forgive_if_late(&mut self, now: Duration) {
        let late = self.timing.session / 4;
        if self.timer.is_some_and(|timer| now > timer + late) {
            let ends = now + self.timing.first_session;
            for session in self.sessions.values_mut() {
                session.ends = session.ends.max(ends);
            }
        }
    }

    pub(super) fn on_heartbeat(
        &mut self,
        now: Duration,
        image: &Image,
        id: BrokerId,
        given: i64,
        applied: i64,
        wants: Wants,
    ) -> Result<(), Rejected> {
        let known = image.broker(id).ok_or(Rejected::UnknownBroker(id))?;
        let session = self.sessions.get_mut(&id).filter(|session| session.epoch == given);
        let Some(session) = session.filter(|_| known.epoch == given) else {
            return Err(Rejected::StaleBrokerEpoch { broker: id, given, current: known.epoch });
        };
        session.ends = now + self.timing.session;
        session.applied = session.applied.max(applied);
        session.heard = true;
        // Who wants to go, or cannot serve, does not change its mind within an incarnation; a late heartbeat might.
        if session.wants == Wants::Serve || wants == Wants::Fenced {
            session.wants = wants;
        }
        Ok(())
    }

    pub(super) fn on_connection_lost(&mut self, now: Duration, id: BrokerId) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.ends = session.ends.min(now + self.timing.reconnect);
        }
    }

    /// Whether the broker is unfenced and was heard in time.
    pub(super) fn is_alive(&self, id: BrokerId, now: Duration, image: &Image) -> bool {
        let in_time = self.sessions.get(&id).is_some_and(|session| session.ends > now);
        in_time && image.broker(id).is_some_and(|broker| !broker.fenced)
    }

    /// Proposes what follows for a broker from what it wants and how long it has been silent.
    pub(super) fn consider(&mut self, id: BrokerId, now: Duration, image: &Image, effects: &mut Vec<Effect>) {
        let (Some(session), Some(known)) = (self.sessions.get(&id), image.broker(id)) else { return };
        let (broker, broker_epoch) = (id, session.epoch);
        let silent = session.ends <= now;
        let command = match (known.fenced, session.wants) {
            (false, _) if silent => ClusterCommand::Fence { broker, broker_epoch },
            (false, Wants::Fenced) => ClusterCommand::Fence { broker, broker_epoch },
            (false, Wants::Leave) if !known.shutting_down => {
                ClusterCommand::BeginShutdown { broker, broker_epoch }
            }
            (false, Wants::Leave) if self.others_know(id, known, now, image) => {
                ClusterCommand::Fence { broker, broker_epoch }
            }
            // KIP-631: it has caught up when it knows its own registration.
            (true, Wants::Serve)
                if session.heard && !silent && !known.shutting_down && session.applied >= broker_epoch =>
            {
                ClusterCommand::Unfence { broker, broker_epoch }
            }
            _ => return,
        };
        self.want(now, image, Subject::Broker(id), command, effects);
    }

    /// Where the broker stands: it may go when its leaders have moved and the others know, or when it leads nothing.
    pub(super) fn standing(&self, id: BrokerId, now: Duration, image: &Image) -> Standing {
        let applied = image.applied().unwrap_or(-1);
        let (Some(session), Some(known)) = (self.sessions.get(&id), image.broker(id)) else {
            return Standing { fenced: true, may_go: false, applied };
        };
        let done = known.fenced || self.others_know(id, known, now, image);
        Standing { fenced: known.fenced, may_go: session.wants == Wants::Leave && done, applied }
    }

    /// Whether every other broker that is alive has applied the entry with which this one's leaders moved: from then on a
    /// client that is sent away finds the new leader leading.
    fn others_know(&self, id: BrokerId, known: &Broker, now: Duration, image: &Image) -> bool {
        let Some(since) = self.sessions.get(&id).and_then(|session| session.leaving_since) else {
            return false;
        };
        let others =
            self.sessions.iter().filter(|(other, _)| **other != id && self.is_alive(**other, now, image));
        known.shutting_down && others.into_iter().all(|(_, session)| session.applied >= since)
    }
}
