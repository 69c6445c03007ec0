//! Reads frames from a connection: bounded in size, in memory and in time.
//!
//! A frame's length is a number that the peer chose, so no memory is reserved for it before a small allotment has
//! arrived and the broker-wide budget was charged; from there on the buffer gets room for a frame of usual size at once, so
//! that it is not copied while it grows, and doubles beyond. A peer that announces much and sends little holds nothing
//! but its connection.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use weir_runtime::net::Reader;
use weir_runtime::time::{self, Alarm};
use weir_runtime::watch;

use super::Stage;
use super::budget::{Budget, Charge};
use crate::metrics::Metrics;

/// Bytes that a connection may hold before it must ask the budget.
const ALLOTMENT_BYTES: usize = 16 << 10;
/// Bytes that are read at once when nothing is known about the next frame.
const READ_BYTES: usize = 8 << 10;
/// Room that a frame gets at once when the budget was charged for it.
const ROOM_BYTES: usize = 1 << 20;
/// Bytes that must arrive within the stall time while a frame is under way.
const PROGRESS_BYTES: usize = 64 << 10;

/// What a connection brought.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// A frame without its length, and its share of the budget.
    Frame(Bytes, Charge),
    /// The peer has gone, or the broker stops.
    Closed,
    /// The peer has sent nothing for too long.
    Idle,
    /// A frame is under way and does not get on.
    Stalled,
    /// The length prefix is one that no request has.
    BadLength(i32),
}

/// Limits for the frames of one connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FrameLimits {
    pub(crate) frame_bytes_max: usize,
    pub(crate) idle: Duration,
    pub(crate) stall: Duration,
}

/// Cuts a connection's bytes into frames.
pub(crate) struct FrameReader<'a> {
    reader: Reader,
    buffer: BytesMut,
    alarm: Alarm,
    limits: FrameLimits,
    budget: &'a Budget,
    metrics: &'a Metrics,
    stage: watch::Receiver<Stage>,
    peer: SocketAddr,
}

enum Arrived {
    Some,
    End,
    Late,
}

impl<'a> FrameReader<'a> {
    pub(crate) fn new(
        reader: Reader,
        peer: SocketAddr,
        limits: FrameLimits,
        budget: &'a Budget,
        metrics: &'a Metrics,
        stage: watch::Receiver<Stage>,
    ) -> FrameReader<'a> {
        FrameReader {
            reader,
            buffer: BytesMut::new(),
            alarm: Alarm::new(),
            limits,
            budget,
            metrics,
            stage,
            peer,
        }
    }

    /// Waits for the next frame.
    pub(crate) async fn next(&mut self) -> Incoming {
        if self.buffer.is_empty() {
            self.alarm.set(Some(time::now() + self.limits.idle));
            match self.read(READ_BYTES).await {
                Arrived::Some => {}
                Arrived::End => return Incoming::Closed,
                Arrived::Late => return Incoming::Idle,
            }
        }
        self.alarm.set(Some(time::now() + self.limits.stall));
        while self.buffer.len() < 4 {
            match self.read(READ_BYTES).await {
                Arrived::Some => {}
                Arrived::End => return Incoming::Closed,
                Arrived::Late => return Incoming::Stalled,
            }
        }
        let announced = (&self.buffer[..4]).get_i32();
        match usize::try_from(announced) {
            Ok(length) if length <= self.limits.frame_bytes_max => self.body(length).await,
            _ => Incoming::BadLength(announced),
        }
    }

    /// Reads the rest of a frame of this length.
    async fn body(&mut self, length: usize) -> Incoming {
        let total = 4 + length;
        let mut charge = None;
        let mut progress_from = self.buffer.len();
        while self.buffer.len() < total {
            let have = self.buffer.len();
            if charge.is_none() && have >= ALLOTMENT_BYTES {
                charge = Some(self.charge(length).await);
                self.alarm.set(Some(time::now() + self.limits.stall));
            }
            if have - progress_from >= PROGRESS_BYTES {
                progress_from = have;
                self.alarm.set(Some(time::now() + self.limits.stall));
            }
            let limit = if charge.is_some() { have.max(ROOM_BYTES) } else { ALLOTMENT_BYTES - have };
            let step = limit.min(total - have);
            self.buffer.reserve(step);
            match self.read(step).await {
                Arrived::Some => {}
                Arrived::End => {
                    tracing::debug!(peer = %self.peer, "the connection ended inside a frame");
                    return Incoming::Closed;
                }
                Arrived::Late => return Incoming::Stalled,
            }
        }
        let charge = match charge {
            Some(charge) => charge,
            None => self.charge(length).await,
        };
        let mut frame = self.buffer.split_to(total);
        frame.advance(4);
        self.metrics.bytes_received.add(total as u64);
        Incoming::Frame(frame.freeze(), charge)
    }

    async fn charge(&mut self, length: usize) -> Charge {
        let budget = self.budget;
        weir_runtime::select! {
            charge = budget.charge_request(length) => charge,
            // The next read reports the end.
            _ = self.stage.wait_for(|stage| *stage == Stage::Cut) => Charge::free(),
        }
    }

    async fn read(&mut self, max: usize) -> Arrived {
        // In the middle of a frame a draining broker still takes it in; the stall time bounds that.
        let until = if self.buffer.is_empty() { Stage::Draining } else { Stage::Cut };
        weir_runtime::select! {
            read = self.reader.read(&mut self.buffer, max) => match read {
                Ok(0) => Arrived::End,
                Ok(_) => Arrived::Some,
                Err(error) => {
                    tracing::debug!(peer = %self.peer, %error, "the connection failed");
                    Arrived::End
                }
            },
            _ = self.stage.wait_for(|stage| *stage >= until) => Arrived::End,
            () = self.alarm.wait() => Arrived::Late,
        }
    }
}
