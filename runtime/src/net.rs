//! TCP, reduced to what the product needs: chunks in, chunks out, and a way to hang up that the peer notices.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;

use bytes::{Buf, Bytes, BytesMut};

use crate::imp;

/// Most chunks that one write hands to the operating system.
pub const WRITE_CHUNKS_MAX: usize = 64;

/// A listening socket.
pub struct Listener(imp::net::Listener);

impl Listener {
    /// Listens on an address; port 0 picks a free one.
    ///
    /// # Errors
    /// `AddrInUse`, `AddrNotAvailable`, `PermissionDenied`.
    pub async fn bind(address: SocketAddr) -> io::Result<Listener> {
        imp::net::Listener::bind(address).await.map(Listener)
    }

    /// The address it listens on, with the port that was picked.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Waits for a connection. Cancel-safe.
    ///
    /// # Errors
    /// Those of one connection (`ConnectionAborted`) and those of the process (too many open files): go on accepting after
    /// either, after a pause for the latter.
    pub async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        let (stream, peer) = self.0.accept().await?;
        Ok((Stream(stream), peer))
    }
}

/// A connection, not delayed by Nagle's algorithm and kept alive by the operating system's probes (after hours).
pub struct Stream(imp::net::Stream);

impl Stream {
    /// Connects. There is no time limit but the operating system's, of minutes: put a [`crate::time::timeout`] around it.
    ///
    /// # Errors
    /// `ConnectionRefused` when nobody listens there, `TimedOut`, `HostUnreachable`, `NetworkUnreachable`.
    pub async fn connect(address: SocketAddr) -> io::Result<Stream> {
        imp::net::Stream::connect(address).await.map(Stream)
    }

    /// This end's address.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// The other end's address.
    ///
    /// # Errors
    /// `NotConnected` when the connection is gone.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.peer_addr()
    }

    /// Two halves that may live in different tasks. The connection closes when both are dropped; dropping the writer alone
    /// tells the peer that no more will come, as [`Writer::shutdown`] does.
    pub fn into_split(self) -> (Reader, Writer) {
        let (reader, writer) = self.0.into_split();
        (Reader(reader), Writer(writer))
    }
}

/// The receiving half.
pub struct Reader(imp::net::Reader);

impl Reader {
    /// Appends at least one and at most `max` bytes to `buffer` and returns how many; 0 when the peer has finished sending.
    /// Cancel-safe. Memory is reserved in small steps, so a peer cannot make us reserve what it does not send; reserve
    /// more in `buffer` beforehand when much is expected.
    ///
    /// # Errors
    /// `ConnectionReset`, `TimedOut`; `InvalidInput` when `max` is 0.
    pub async fn read(&mut self, buffer: &mut BytesMut, max: usize) -> io::Result<usize> {
        if max == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a read of at most 0 bytes"));
        }
        self.0.read(buffer, max).await
    }
}

/// The sending half.
pub struct Writer(imp::net::Writer);

impl Writer {
    /// Writes all chunks, and takes each from the queue as it is handed to the operating system; a chunk that was written in
    /// part is advanced. So nothing is lost or sent twice when the future is dropped and called again. Waits while the peer
    /// does not read.
    ///
    /// # Errors
    /// `BrokenPipe` or `ConnectionReset` when the peer is gone, `TimedOut` when it does not answer. That a write succeeds
    /// says nothing about the peer having received it.
    pub async fn write_all(&mut self, chunks: &mut VecDeque<Bytes>) -> io::Result<()> {
        chunks.retain(|chunk| !chunk.is_empty());
        while !chunks.is_empty() {
            let written = self.0.write_some(chunks).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            advance(chunks, written);
        }
        Ok(())
    }

    /// Tells the peer that no more will come: it reads the rest and then the end of the stream. Reading goes on.
    ///
    /// # Errors
    /// `NotConnected` when the connection is gone.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        self.0.shutdown().await
    }

    /// Hangs up at once: what was not sent yet is thrown away and the peer sees a `ConnectionReset`. The reader of this end
    /// fails too.
    pub fn abort(self) {
        self.0.abort();
    }
}

/// Takes `written` bytes from the front of the queue.
fn advance(chunks: &mut VecDeque<Bytes>, mut written: usize) {
    while let Some(first) = chunks.front_mut() {
        if written < first.len() {
            first.advance(written);
            return;
        }
        written -= first.len();
        chunks.pop_front();
    }
    debug_assert_eq!(written, 0, "more was written than the chunks hold");
}

/// The addresses of `host:port`, in the resolver's order.
///
/// # Errors
/// When the name has no address, the port is missing or no number, or the resolver fails.
pub async fn resolve(host_port: &str) -> io::Result<Vec<SocketAddr>> {
    let addresses = imp::net::resolve(host_port).await?;
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("{host_port} has no address")));
    }
    Ok(addresses)
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Listener").field(&self.local_addr()).finish()
    }
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("local", &self.local_addr()).field("peer", &self.peer_addr()).finish()
    }
}
