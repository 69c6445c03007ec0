//! Sockets of the simulated network.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::shared::Shared;
use crate::simulated::net::{EndId, ListenerId};

pub(crate) struct Listener {
    shared: Arc<Shared>,
    id: ListenerId,
}

impl Listener {
    pub(crate) async fn bind(address: SocketAddr) -> io::Result<Listener> {
        let shared = Shared::current();
        let node = shared.node();
        let id = shared.machines().net.listen(node, address)?;
        Ok(Listener { shared, id })
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.shared.machines().net.listener_address(self.id)
    }

    pub(crate) async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        let (end, peer) = poll_fn(|cx| {
            let accepted = self.shared.machines().net.accept(self.id);
            if accepted.is_pending() {
                self.shared.await_acceptable(self.id, cx.waker());
            }
            accepted
        })
        .await?;
        Ok((Stream(Socket::new(&self.shared, end)), peer))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let now = self.shared.now();
        self.shared.machines().net.close_listener(self.id, now);
        self.shared.forget_listener(self.id);
        self.shared.settle();
    }
}

/// One end of a connection; closes with the last reference.
struct Socket {
    shared: Arc<Shared>,
    end: EndId,
}

impl Socket {
    fn new(shared: &Arc<Shared>, end: EndId) -> Arc<Socket> {
        Arc::new(Socket { shared: Arc::clone(shared), end })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let now = self.shared.now();
        self.shared.machines().net.close(self.end, now);
        self.shared.forget_end(self.end);
        self.shared.settle();
    }
}

pub(crate) struct Stream(Arc<Socket>);

impl Stream {
    pub(crate) async fn connect(address: SocketAddr) -> io::Result<Stream> {
        let shared = Shared::current();
        let (node, now) = (shared.node(), shared.now());
        let end = shared.machines().net.connect(node, address, now);
        shared.settle();
        // Made before it is open, so that a dropped future closes it.
        let socket = Socket::new(&shared, end);
        poll_fn(|cx| {
            let connected = shared.machines().net.connected(end);
            if connected.is_pending() {
                shared.await_readable(end, cx.waker());
            }
            connected
        })
        .await?;
        Ok(Stream(socket))
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.shared.machines().net.addresses(self.0.end).map(|(local, _)| local)
    }

    pub(crate) fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.shared.machines().net.addresses(self.0.end).map(|(_, peer)| peer)
    }

    pub(crate) fn into_split(self) -> (Reader, Writer) {
        (Reader(Arc::clone(&self.0)), Writer(self.0))
    }
}

pub(crate) struct Reader(Arc<Socket>);

impl Reader {
    pub(crate) async fn read(&mut self, buffer: &mut BytesMut, max: usize) -> io::Result<usize> {
        let Socket { shared, end } = &*self.0;
        let result = poll_fn(|cx| {
            let now = shared.now();
            let read = shared.machines().net.read(*end, buffer, max, now);
            if read.is_pending() {
                shared.await_readable(*end, cx.waker());
            }
            read
        })
        .await;
        shared.settle();
        result
    }
}

pub(crate) struct Writer(Arc<Socket>);

impl Writer {
    pub(crate) async fn write_some(&mut self, chunks: &VecDeque<Bytes>) -> io::Result<usize> {
        let Socket { shared, end } = &*self.0;
        let result = poll_fn(|cx| {
            let now = shared.now();
            let written = shared.machines().net.write(*end, chunks, now);
            if written.is_pending() {
                shared.await_writable(*end, cx.waker());
            }
            written
        })
        .await;
        shared.settle();
        result
    }

    pub(crate) async fn shutdown(&mut self) -> io::Result<()> {
        let Socket { shared, end } = &*self.0;
        let now = shared.now();
        let result = shared.machines().net.shutdown(*end, now);
        shared.settle();
        result
    }

    pub(crate) fn abort(self) {
        let Socket { shared, end } = &*self.0;
        let now = shared.now();
        shared.machines().net.abort(*end, now);
        shared.settle();
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let Socket { shared, end } = &*self.0;
        let now = shared.now();
        // The other end learns that no more comes; if that is known already, or the connection is gone, nothing happens.
        drop(shared.machines().net.shutdown(*end, now));
        shared.settle();
    }
}

pub(crate) async fn resolve(host_port: &str) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host_port.parse() {
        return Ok(vec![address]);
    }
    let invalid = || io::Error::new(io::ErrorKind::InvalidInput, format!("{host_port} is no host:port"));
    let (host, port) = host_port.rsplit_once(':').ok_or_else(invalid)?;
    let port: u16 = port.parse().map_err(|_| invalid())?;
    if host == "localhost" {
        return Ok(vec![SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)]);
    }
    let shared = Shared::current();
    let machines = shared.machines();
    let found = machines.nodes.iter().position(|node| node.name == host);
    let ip = found.and_then(|number| machines.net.ip_of(number as u32));
    let unknown = || io::Error::new(io::ErrorKind::NotFound, format!("nobody knows {host}"));
    Ok(vec![SocketAddr::new(ip.ok_or_else(unknown)?, port)])
}
