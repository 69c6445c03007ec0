//! Until when a broker may take it that it is not fenced, by its own clock (contract 12).
//!
//! A broker that is cut off from the quorum hears of no decision: others may coordinate its groups. So it answers what only a
//! coordinator may answer within its session alone, which it counts from the sending of the last heartbeat that was answered, and
//! only once its image has everything that the controller knew then. The controller counts from the heartbeat's arrival.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use weir_runtime::time::{self, Instant};

/// This broker's session as it knows it. Clones are one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Session {
    /// `None`: the node is alone, and nobody fences it.
    grants: Option<Arc<Mutex<Grants>>>,
}

/// What answered heartbeats have granted.
#[derive(Debug, Default)]
struct Grants {
    /// Whatever the image has.
    certain: Option<Instant>,
    /// Once the image has this entry.
    newest: Option<(i64, Instant)>,
}

impl Grants {
    fn until(&self, applied: i64) -> Option<Instant> {
        let newest = self.newest.filter(|(needed, _)| *needed <= applied).map(|(_, until)| until);
        newest.max(self.certain)
    }
}

impl Session {
    /// Of a node of a cluster: over until a heartbeat is answered.
    pub(crate) fn of_cluster() -> Session {
        Session { grants: Some(Arc::default()) }
    }

    /// Whether others may have been told to take over; `applied`: the last entry of this broker's image.
    pub(crate) fn is_over(&self, applied: i64) -> bool {
        let until = |grants: MutexGuard<'_, Grants>| grants.until(applied);
        self.grants().is_some_and(|grants| until(grants).is_none_or(|until| until <= time::now()))
    }

    /// A heartbeat was answered by a controller whose image had `needed`; this broker's own has `applied`.
    pub(super) fn extend(&self, until: Instant, needed: i64, applied: i64) {
        if let Some(mut grants) = self.grants() {
            grants.certain = grants.until(applied);
            grants.newest = Some((needed, until));
        }
    }

    /// The controller may have noticed that the connection to this broker is gone, and then waits no longer than this.
    pub(super) fn shorten(&self, left: Duration) {
        if let Some(mut grants) = self.grants() {
            let until = time::now() + left;
            grants.certain = grants.certain.map(|certain| certain.min(until));
            grants.newest = grants.newest.map(|(needed, newest)| (needed, newest.min(until)));
        }
    }

    fn grants(&self) -> Option<MutexGuard<'_, Grants>> {
        // A panic while it is held leaves it as it is.
        self.grants.as_ref().map(|grants| grants.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use weir_runtime::task::{RuntimeOptions, block_on};

    use super::*;

    const SOON: Duration = Duration::from_secs(60);

    #[test]
    fn a_session_is_over_until_a_heartbeat_is_answered() {
        block_on(RuntimeOptions::default(), async {
            let session = Session::of_cluster();
            assert!(session.is_over(9));
            session.extend(time::now() + SOON, 5, 5);
            assert!(!session.is_over(5));
            session.shorten(Duration::ZERO);
            assert!(session.is_over(5));
            assert!(!Session::default().is_over(0), "nobody fences a node alone");
        })
        .unwrap();
    }

    #[test]
    fn what_a_heartbeat_grants_counts_once_the_image_has_what_the_controller_knew() {
        block_on(RuntimeOptions::default(), async {
            let session = Session::of_cluster();
            let now = time::now();
            session.extend(now + SOON, 7, 6);
            assert!(session.is_over(6));
            assert!(!session.is_over(7));
            // The next answer comes before the image has moved on.
            session.extend(now + SOON, 8, 7);
            assert!(!session.is_over(7), "the grant before still counts");
            session.extend(now, 9, 6);
            assert!(!session.is_over(9) || session.is_over(6));
        })
        .unwrap();
    }
}
