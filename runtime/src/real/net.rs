//! TCP of the operating system, through tokio.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::net::WRITE_CHUNKS_MAX;

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;
/// Room that a read makes in a buffer that is nearly full.
const READ_STEP_BYTES: usize = 8 * 1024;
/// Less room than this is not worth a call.
const READ_ROOM_BYTES_MIN: usize = 512;

pub(crate) struct Listener(TcpListener);

impl Listener {
    pub(crate) async fn bind(address: SocketAddr) -> io::Result<Listener> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG).map(Listener)
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    pub(crate) async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        let (stream, peer) = self.0.accept().await?;
        Ok((Stream::new(stream)?, peer))
    }
}

pub(crate) struct Stream(TcpStream);

impl Stream {
    pub(crate) async fn connect(address: SocketAddr) -> io::Result<Stream> {
        Stream::new(TcpStream::connect(address).await?)
    }

    /// Small messages are sent at once, and a peer that has silently gone is noticed in the end.
    fn new(stream: TcpStream) -> io::Result<Stream> {
        stream.set_nodelay(true)?;
        SockRef::from(&stream).set_keepalive(true)?;
        Ok(Stream(stream))
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    pub(crate) fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.peer_addr()
    }

    pub(crate) fn into_split(self) -> (Reader, Writer) {
        let (reader, writer) = self.0.into_split();
        (Reader(reader), Writer(writer))
    }
}

pub(crate) struct Reader(OwnedReadHalf);

impl Reader {
    pub(crate) async fn read(&mut self, buffer: &mut BytesMut, max: usize) -> io::Result<usize> {
        if buffer.capacity() - buffer.len() < max.min(READ_ROOM_BYTES_MIN) {
            buffer.reserve(max.min(READ_STEP_BYTES));
        }
        self.0.read_buf(&mut buffer.limit(max)).await
    }
}

pub(crate) struct Writer(OwnedWriteHalf);

impl Writer {
    pub(crate) async fn write_some(&mut self, chunks: &VecDeque<Bytes>) -> io::Result<usize> {
        poll_fn(|cx| {
            let mut slices = [IoSlice::new(&[]); WRITE_CHUNKS_MAX];
            let count = chunks.len().min(WRITE_CHUNKS_MAX);
            for (slice, chunk) in slices.iter_mut().zip(chunks) {
                *slice = IoSlice::new(chunk);
            }
            Pin::new(&mut self.0).poll_write_vectored(cx, &slices[..count])
        })
        .await
    }

    pub(crate) async fn shutdown(&mut self) -> io::Result<()> {
        self.0.shutdown().await
    }

    pub(crate) fn abort(self) {
        let stream: &TcpStream = self.0.as_ref();
        // A close after this throws away what was not sent, and resets.
        let lingers_not = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        // The reader may keep the socket open for a while: dissolving the connection resets it now.
        let dissolved = rustix::net::connect_unspec(stream);
        if let (Err(linger), Err(dissolve)) = (lingers_not, dissolved) {
            tracing::debug!(%linger, %dissolve, "the connection was gone before it could be aborted");
        }
        // Without the shutdown of a dropped writer, which would turn the reset into a proper end.
        self.0.forget();
    }
}

pub(crate) async fn resolve(host_port: &str) -> io::Result<Vec<SocketAddr>> {
    Ok(tokio::net::lookup_host(host_port).await?.collect())
}
