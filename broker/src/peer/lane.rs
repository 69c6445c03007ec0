//! One direction each of a connection between two nodes: frames out, frames in.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::OwnedSemaphorePermit;
use weir_protocol::types::BrokerId;
use weir_runtime::net::{Reader, Stream, Writer};
use weir_runtime::time::{self, Alarm};
use weir_wire::internal::{self, InternalError};
use weir_wire::peer_frame::{self, FrameLimits, PeerFrameError, Progress};

use super::handshake::Refusal;

/// The longest head on any lane: the quorum's messages carry entries of 1 MiB, the replicas' heads many partitions.
pub(crate) const HEAD_BYTES_MAX: usize = 16 << 20;
/// A peer that neither takes nor completes [`PIECE_BYTES`] in this time is gone.
const STALL: Duration = Duration::from_secs(5);
/// How much must get on within the stall time.
const PIECE_BYTES: usize = 64 << 10;
/// Bytes that are read at once when nothing is known about the next frame.
const READ_BYTES: usize = 16 << 10;
/// Room that the buffer gets at once for a frame that is under way.
const ROOM_BYTES: usize = 1 << 20;

/// Why a lane cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaneError {
    /// The peer has closed it.
    #[error("the peer has hung up")]
    Closed,
    /// The connection failed.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// What is under way does not get on.
    #[error("nothing has moved for {STALL:?}")]
    Stalled,
    /// A frame that no node of ours sends, or one that is too large to be sent.
    #[error(transparent)]
    Frame(#[from] PeerFrameError),
    /// It speaks in another's name.
    #[error("it sends messages in the name of node {0}")]
    Impostor(BrokerId),
    /// This node has learned since that it belongs to another cluster.
    #[error(transparent)]
    Stranger(#[from] Refusal),
    /// The head is none that is known here.
    #[error(transparent)]
    Head(#[from] InternalError),
}

/// Splits a connection into its two directions.
pub(crate) fn split(stream: Stream, limits: FrameLimits) -> (PeerReader, PeerWriter) {
    let (reader, writer) = stream.into_split();
    let reader = PeerReader {
        reader,
        received: BytesMut::new(),
        limits,
        alarm: Alarm::new(),
        moved: 0,
        bytes_heard: 0,
        place: None,
    };
    let writer = PeerWriter {
        writer,
        waiting: VecDeque::new(),
        waiting_bytes: 0,
        piece: VecDeque::new(),
        limits,
        alarm: Alarm::new(),
    };
    (reader, writer)
}

/// The receiving direction.
pub(crate) struct PeerReader {
    reader: Reader,
    received: BytesMut,
    limits: FrameLimits,
    /// Set while a frame is under way.
    alarm: Alarm,
    /// What of `received` was there when the alarm was set.
    moved: usize,
    /// All that has come.
    bytes_heard: u64,
    /// Its place among a server's connections, if it was accepted by one.
    place: Option<OwnedSemaphorePermit>,
}

impl PeerReader {
    /// Waits for the next frame, for as long as the peer has nothing to say: a limit to that is the caller's. A frame that has
    /// begun must get on. Cancel-safe.
    ///
    /// # Errors
    /// See [`LaneError`]; the lane is over after any.
    pub(crate) async fn receive<T: DeserializeOwned>(&mut self) -> Result<(T, Bytes), LaneError> {
        let (head, tail) = self.receive_encoded().await?;
        Ok((internal::decode(&head, self.limits.head_bytes_max)?, tail))
    }

    /// [`PeerReader::receive`] with the head as it came. Cancel-safe.
    ///
    /// # Errors
    /// As there.
    pub(crate) async fn receive_encoded(&mut self) -> Result<(Bytes, Bytes), LaneError> {
        loop {
            match peer_frame::take(&mut self.received, self.limits)? {
                Progress::Frame { head, tail } => {
                    self.alarm.set(None);
                    self.moved = 0;
                    return Ok((head, tail));
                }
                Progress::Missing(missing) => self.read(missing).await?,
            }
        }
    }

    /// Sets how long frames may be from now on.
    pub(super) fn set_limits(&mut self, limits: FrameLimits) {
        self.limits = limits;
    }

    /// Keeps a place for as long as this reader lives.
    pub(super) fn hold(&mut self, place: OwnedSemaphorePermit) {
        self.place = Some(place);
    }

    /// How many bytes have come so far: whether the peer is there, while a frame is under way.
    pub(crate) fn bytes_heard(&self) -> u64 {
        self.bytes_heard
    }

    async fn read(&mut self, missing: usize) -> Result<(), LaneError> {
        let have = self.received.len();
        if have == 0 {
            self.alarm.set(None);
        } else if self.alarm.at().is_none() || have >= self.moved + PIECE_BYTES {
            self.alarm.set(Some(time::now() + STALL));
            self.moved = have;
        }
        // What a peer announces is not reserved before as much has arrived.
        let step = if missing <= READ_BYTES { READ_BYTES } else { missing.min(have.max(ROOM_BYTES)) };
        self.received.reserve(step);
        let read = weir_runtime::select! {
            read = self.reader.read(&mut self.received, step) => read?,
            () = self.alarm.wait() => return Err(LaneError::Stalled),
        };
        self.bytes_heard += read as u64;
        if read == 0 { Err(LaneError::Closed) } else { Ok(()) }
    }
}

/// The sending direction.
pub(crate) struct PeerWriter {
    writer: Writer,
    waiting: VecDeque<Bytes>,
    /// Of `waiting`, together.
    waiting_bytes: usize,
    /// What the peer must take before the alarm.
    piece: VecDeque<Bytes>,
    limits: FrameLimits,
    alarm: Alarm,
}

impl PeerWriter {
    /// Sends a frame. When the future is dropped, what is left of the frame goes out before the next one.
    ///
    /// # Errors
    /// `Frame` if it is too large: nothing of it was sent, and the lane goes on. After any other the lane is over.
    pub(crate) async fn send<T: Serialize + ?Sized>(
        &mut self,
        head: &T,
        tail: impl IntoIterator<Item = Bytes>,
    ) -> Result<(), LaneError> {
        self.enqueue(head, tail)?;
        self.flush().await
    }

    /// Puts a frame behind what waits to be sent, and returns its encoded head.
    ///
    /// # Errors
    /// `Frame`.
    pub(crate) fn enqueue<T: Serialize + ?Sized>(
        &mut self,
        head: &T,
        tail: impl IntoIterator<Item = Bytes>,
    ) -> Result<Bytes, LaneError> {
        let tail: Vec<Bytes> = tail.into_iter().collect();
        let tail_bytes: usize = tail.iter().map(Bytes::len).sum();
        let begin = peer_frame::begin(head, tail_bytes, self.limits)?;
        let head = begin.slice(peer_frame::HEADER_BYTES..);
        self.waiting_bytes += begin.len() + tail_bytes;
        self.waiting.push_back(begin);
        self.waiting.extend(tail);
        Ok(head)
    }

    /// Sets how long frames may be from now on.
    pub(super) fn set_limits(&mut self, limits: FrameLimits) {
        self.limits = limits;
    }

    /// How much waits to be sent, about.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Whether nothing waits to be sent.
    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.piece.is_empty()
    }

    /// Sends what waits. Cancel-safe.
    ///
    /// # Errors
    /// `Io`, `Stalled`; the lane is over.
    pub(crate) async fn flush(&mut self) -> Result<(), LaneError> {
        loop {
            if self.piece.is_empty() {
                self.alarm.set(None);
                self.waiting_bytes -= take_piece(&mut self.waiting, &mut self.piece);
                if self.piece.is_empty() {
                    return Ok(());
                }
                self.alarm.set(Some(time::now() + STALL));
            }
            weir_runtime::select! {
                written = self.writer.write_all(&mut self.piece) => written?,
                () = self.alarm.wait() => return Err(LaneError::Stalled),
            }
        }
    }

    /// Hangs up at once.
    #[cfg(test)]
    pub(crate) fn abort(self) {
        self.writer.abort();
    }
}

/// Moves up to [`PIECE_BYTES`] from one queue to the other, and returns how many.
fn take_piece(from: &mut VecDeque<Bytes>, piece: &mut VecDeque<Bytes>) -> usize {
    let mut room = PIECE_BYTES;
    while room > 0 {
        let Some(mut chunk) = from.pop_front() else { break };
        if chunk.len() > room {
            from.push_front(chunk.split_off(room));
        }
        room -= chunk.len();
        piece.push_back(chunk);
    }
    PIECE_BYTES - room
}

impl std::fmt::Debug for PeerReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PeerReader").field("received", &self.received.len()).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for PeerWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PeerWriter").field("is_idle", &self.is_idle()).finish_non_exhaustive()
    }
}
