//! Log lines about what goes wrong over and over, at a bounded rate: neither a peer nor a full disk may fill the log.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use weir_runtime::time::{self, Instant};

/// Lines in one interval, over all peers.
const LINES_MAX: u32 = 10;
/// The interval.
const INTERVAL: Duration = Duration::from_secs(1);

/// Lets ten lines a second through, and says how many it left out.
#[derive(Debug, Default)]
pub(crate) struct Complaints(Mutex<Window>);

#[derive(Debug, Default)]
struct Window {
    began: Option<Instant>,
    written: u32,
    left_out: u64,
}

impl Complaints {
    /// Complains about `peer`.
    pub(crate) fn about(&self, peer: SocketAddr, what: &dyn std::fmt::Display) {
        if let Some(left_out) = self.admit(time::now()) {
            tracing::warn!(%peer, left_out, "{what}");
        }
    }

    /// Whether a line may be written now, and how many were left out since the last one.
    pub(crate) fn admit(&self, now: Instant) -> Option<u64> {
        let mut window = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if window.began.is_none_or(|began| now - began >= INTERVAL) {
            window.began = Some(now);
            window.written = 0;
        }
        if window.written == LINES_MAX {
            window.left_out += 1;
            return None;
        }
        window.written += 1;
        Some(std::mem::take(&mut window.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_complaints_is_cut_and_counted() {
        let complaints = Complaints::default();
        let start = Instant::ORIGIN;
        for _ in 0..LINES_MAX {
            assert_eq!(complaints.admit(start), Some(0));
        }
        assert_eq!(complaints.admit(start), None);
        assert_eq!(complaints.admit(start), None);
        assert_eq!(complaints.admit(start + INTERVAL), Some(2));
    }
}
