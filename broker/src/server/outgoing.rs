//! Writes responses, in the order of their requests (K9), and cuts off a peer that does not take them.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use weir_runtime::net::Writer;
use weir_runtime::time::{self, Alarm};

use crate::api::Response;
use crate::metrics::Metrics;

/// Bytes that the peer must take within the stall time.
const PIECE_BYTES: usize = 256 << 10;
/// Bytes up to which answers that are ready are gathered into one write.
const GATHERED_BYTES: usize = 64 << 10;

/// The place of an answer in the order of answers.
pub(crate) enum Slot {
    /// The answer.
    Ready(Response),
    /// What becomes the answer. It is driven when its turn comes.
    Later(Pin<Box<dyn Future<Output = Response> + Send>>),
}

/// Why no more answers are written.
#[derive(Debug)]
pub(crate) enum WriteEnd {
    /// All were.
    Finished,
    /// The peer does not read.
    Stalled,
    /// An answer could not be made.
    Unanswerable,
    /// The connection failed.
    Failed(io::Error),
}

/// Writes the answers of one connection.
pub(crate) struct ResponseWriter<'a> {
    writer: Writer,
    slots: mpsc::Receiver<Slot>,
    stall: Duration,
    metrics: &'a Metrics,
    alarm: Alarm,
}

impl<'a> ResponseWriter<'a> {
    pub(crate) fn new(
        writer: Writer,
        slots: mpsc::Receiver<Slot>,
        stall: Duration,
        metrics: &'a Metrics,
    ) -> ResponseWriter<'a> {
        ResponseWriter { writer, slots, stall, metrics, alarm: Alarm::new() }
    }

    /// Writes answers until there can be no more.
    pub(crate) async fn run(&mut self) -> WriteEnd {
        let mut next = None;
        loop {
            let slot = match next.take() {
                Some(slot) => slot,
                None => match self.slots.recv().await {
                    Some(slot) => slot,
                    None => {
                        // What the peer does with the news is its own business.
                        if let Err(error) = self.writer.shutdown().await {
                            tracing::trace!(%error, "shutdown of a connection");
                        }
                        return WriteEnd::Finished;
                    }
                },
            };
            let first = match slot {
                Slot::Ready(response) => response,
                Slot::Later(future) => future.await,
            };
            if first.chunks.is_empty() {
                return WriteEnd::Unanswerable;
            }
            let mut chunks: VecDeque<Bytes> = first.chunks.into();
            let mut charges = vec![first.charge];
            let mut bytes: usize = chunks.iter().map(Bytes::len).sum();
            while bytes < GATHERED_BYTES {
                let Ok(slot) = self.slots.try_recv() else { break };
                match if_ready(slot).await {
                    Ok(response) if response.chunks.is_empty() => {
                        next = Some(Slot::Ready(response));
                        break;
                    }
                    Ok(response) => {
                        bytes += response.chunks.iter().map(Bytes::len).sum::<usize>();
                        chunks.extend(response.chunks);
                        charges.push(response.charge);
                    }
                    Err(slot) => {
                        next = Some(slot);
                        break;
                    }
                }
            }
            match self.write(chunks).await {
                WriteEnd::Finished => self.metrics.bytes_sent.add(bytes as u64),
                failed => return failed,
            }
            drop(charges);
        }
    }

    /// Writes in pieces, each of which must be taken in time.
    async fn write(&mut self, mut chunks: VecDeque<Bytes>) -> WriteEnd {
        let mut piece = VecDeque::with_capacity(chunks.len().min(64));
        while !chunks.is_empty() {
            take_piece(&mut chunks, &mut piece);
            self.alarm.set(Some(time::now() + self.stall));
            weir_runtime::select! {
                written = self.writer.write_all(&mut piece) => match written {
                    Ok(()) => {}
                    Err(error) => return WriteEnd::Failed(error),
                },
                () = self.alarm.wait() => return WriteEnd::Stalled,
            }
        }
        WriteEnd::Finished
    }
}

/// The response of a slot that can be had without waiting, or the slot.
async fn if_ready(slot: Slot) -> Result<Response, Slot> {
    match slot {
        Slot::Ready(response) => Ok(response),
        Slot::Later(mut future) => {
            let polled = std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await;
            match polled {
                Poll::Ready(response) => Ok(response),
                Poll::Pending => Err(Slot::Later(future)),
            }
        }
    }
}

/// Moves up to [`PIECE_BYTES`] from one queue to the other.
fn take_piece(from: &mut VecDeque<Bytes>, piece: &mut VecDeque<Bytes>) {
    let mut room = PIECE_BYTES;
    while room > 0 {
        let Some(mut chunk) = from.pop_front() else { return };
        if chunk.len() > room {
            let rest = chunk.split_off(room);
            from.push_front(rest);
        }
        room -= chunk.len();
        piece.push_back(chunk);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_answer_is_written_in_pieces() {
        let mut from: VecDeque<Bytes> =
            [Bytes::from(vec![1; 10]), Bytes::from(vec![2; PIECE_BYTES * 2]), Bytes::from(vec![3; 5])].into();
        let mut lengths = Vec::new();
        while !from.is_empty() {
            let mut piece = VecDeque::new();
            take_piece(&mut from, &mut piece);
            lengths.push(piece.iter().map(Bytes::len).sum::<usize>());
        }
        assert_eq!(lengths, [PIECE_BYTES, PIECE_BYTES, 15]);
    }
}
