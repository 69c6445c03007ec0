//! The broker-wide byte budget (contract 13).
//!
//! It has two parts, so that clients that do not read cannot stop those that write. A request takes from the first
//! part before its body is read and gives back when it is answered, so requests that are being read, processed or
//! waiting for their sync together never hold more. Fetched bytes take from the second part before they are read from
//! the disk, and give back when they are on the socket; a fetch never waits for it, it gets less.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

use crate::metrics::Metrics;

/// The unit of the budget, in bytes: a semaphore counts to 2^32 at most in one step.
const UNIT_BYTES: usize = 1024;

/// The bytes that requests and replies of all connections may hold.
#[derive(Debug)]
pub(crate) struct Budget {
    requests: Arc<Semaphore>,
    request_units: u32,
    replies: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

/// A share of the budget, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Charge {
    /// A charge for what is covered by a connection's own allotment.
    pub(crate) fn free() -> Charge {
        Charge { _permit: None }
    }
}

impl Budget {
    pub(crate) fn new(request_bytes: usize, reply_bytes: usize, metrics: Arc<Metrics>) -> Budget {
        let (request_units, reply_units) = (units(request_bytes), units(reply_bytes));
        Budget {
            requests: Arc::new(Semaphore::new(request_units as usize)),
            request_units,
            replies: Arc::new(Semaphore::new(reply_units as usize)),
            metrics,
        }
    }

    /// Waits until `bytes` of requests are free and takes them. A request that is larger than the whole budget waits
    /// until it is alone.
    pub(crate) async fn charge_request(&self, bytes: usize) -> Charge {
        let wanted = units(bytes).min(self.request_units);
        let permit = match Arc::clone(&self.requests).try_acquire_many_owned(wanted) {
            Ok(permit) => Some(permit),
            Err(TryAcquireError::NoPermits) => {
                self.metrics.request_budget_waits.increment();
                Arc::clone(&self.requests).acquire_many_owned(wanted).await.ok()
            }
            // The semaphore is never closed.
            Err(TryAcquireError::Closed) => None,
        };
        Charge { _permit: permit }
    }

    /// Takes `bytes` for a reply if they are free now.
    pub(crate) fn try_charge_reply(&self, bytes: usize) -> Option<Charge> {
        match Arc::clone(&self.replies).try_acquire_many_owned(units(bytes)) {
            Ok(permit) => Some(Charge { _permit: Some(permit) }),
            Err(_) => {
                self.metrics.reply_budget_limits.increment();
                None
            }
        }
    }
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX >> 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_that_finds_no_room_is_told_so_and_counted() {
        let metrics = Arc::new(Metrics::default());
        let budget = Budget::new(1 << 20, 1 << 20, Arc::clone(&metrics));
        let held = budget.try_charge_reply(1 << 20).expect("all of it is free");
        assert!(budget.try_charge_reply(1).is_none());
        assert_eq!(metrics.reply_budget_limits.get(), 1);
        drop(held);
        assert!(budget.try_charge_reply(1).is_some());
    }
}
