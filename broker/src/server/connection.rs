//! One connection: requests are begun in their order, run side by side, and are answered in their order.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::mpsc;
use weir_runtime::net::Stream;
use weir_runtime::watch;

use super::Stage;
use super::frames::{FrameLimits, FrameReader, Incoming};
use super::outgoing::{ResponseWriter, Slot, WriteEnd};
use crate::api::{Api, Begun, Origin};
use crate::complaints::Complaints;

/// Serves a connection until it ends.
///
/// Reading and writing run in one task. The reader begins each request, which for Produce includes handing its
/// batches to their shards, and reserves the slot of its answer; the writer drives what is in the slots, one after the
/// other. A slot that cannot be reserved stops the reading.
pub(crate) async fn serve(
    stream: Stream,
    peer: SocketAddr,
    api: Arc<Api>,
    complaints: Arc<Complaints>,
    stage: watch::Receiver<Stage>,
) {
    let Ok(local) = stream.local_addr() else { return };
    let (reader, writer) = stream.into_split();
    let (slots, answers) = mpsc::channel(api.config.in_flight_max);
    let limits = FrameLimits {
        frame_bytes_max: api.config.request_bytes_max,
        idle: api.config.connection_idle,
        stall: api.config.connection_stall,
    };
    let origin = Origin { peer, local };
    let mut frames = FrameReader::new(reader, peer, limits, &api.budget, &api.metrics, stage.clone());
    let mut outgoing = ResponseWriter::new(writer, answers, api.config.connection_stall, &api.metrics);
    let reading = Box::pin(read(&mut frames, slots, &api, origin, &complaints));
    let mut writing = Box::pin(outgoing.run());
    let mut stage = stage;
    let end = weir_runtime::select! {
        end = &mut writing => Some(end),
        outcome = reading => match outcome {
            // What was read before is answered, then the connection closes.
            ReadEnd::Finish => weir_runtime::select! {
                end = &mut writing => Some(end),
                _ = stage.wait_for(|stage| *stage == Stage::Cut) => None,
            },
            ReadEnd::Hangup => None,
        },
    };
    match end {
        Some(WriteEnd::Stalled) => {
            api.metrics.connections_stalled.increment();
            complaints.about(peer, &"cut off: it does not read its answers");
        }
        Some(WriteEnd::Failed(error)) => tracing::debug!(%peer, %error, "the connection failed"),
        Some(WriteEnd::Finished | WriteEnd::Unanswerable) | None => {}
    }
}

/// Why no more requests are read.
enum ReadEnd {
    /// Answer what was read, then close.
    Finish,
    /// Close at once: nobody is there any more.
    Hangup,
}

async fn read(
    frames: &mut FrameReader<'_>,
    slots: mpsc::Sender<Slot>,
    api: &Arc<Api>,
    origin: Origin,
    complaints: &Complaints,
) -> ReadEnd {
    loop {
        // The slot comes first: a connection that has as many requests under way as it may have is not read.
        let Ok(slot) = slots.reserve().await else { return ReadEnd::Hangup };
        let (frame, charge) = match frames.next().await {
            Incoming::Frame(frame, charge) => (frame, charge),
            Incoming::Closed => {
                return if api.is_stopping() { ReadEnd::Finish } else { ReadEnd::Hangup };
            }
            Incoming::Idle => {
                api.metrics.connections_idle.increment();
                return ReadEnd::Finish;
            }
            Incoming::Stalled => {
                api.metrics.connections_stalled.increment();
                complaints.about(origin.peer, &"cut off: its request does not get on");
                return ReadEnd::Hangup;
            }
            Incoming::BadLength(length) => {
                api.metrics.requests_malformed.increment();
                complaints
                    .about(origin.peer, &format_args!("closed: a frame of {length} bytes is announced"));
                return ReadEnd::Finish;
            }
        };
        match Api::begin(api, origin, frame, charge).await {
            Begun::Ready(response) => slot.send(Slot::Ready(response)),
            Begun::Later(future) => slot.send(Slot::Later(future)),
            Begun::Silent => {}
            Begun::Close(reason) => {
                api.metrics.requests_malformed.increment();
                complaints.about(origin.peer, &format_args!("closed: {reason}"));
                return ReadEnd::Finish;
            }
        }
    }
}
