//! A TCP proxy in front of one listener of one node, so that links can be cut without any privilege: the node advertises
//! the proxy's address, and nobody knows its own.
//!
//! Bytes are held back, delayed or thrown away with their connection, never lost from the middle of a stream: TCP would
//! not lose them either.

use std::collections::VecDeque;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;
use weir_runtime::net::{Listener, Reader, Stream, Writer};
use weir_runtime::task;
use weir_runtime::time::{self, Instant};

use crate::links::{Links, Party};
use crate::owner::Owners;

/// Most bytes that are read at once.
const READ_BYTES_MAX: usize = 64 << 10;
/// Chunks that may be under way in one direction of a connection; then its sender feels that nobody reads.
const CHUNKS_MAX: usize = 32;
/// A pause after the process could not take a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Who connects here.
#[derive(Clone)]
pub(crate) enum Sources {
    /// Clients.
    Clients,
    /// The other nodes, told apart by the process that has the socket.
    Nodes(Owners),
}

/// One proxy. It runs until the process ends.
pub(crate) struct Proxy {
    address: SocketAddr,
}

impl Proxy {
    /// Listens on a free port of this machine and passes everything on to `target`, the node's own listener.
    ///
    /// # Errors
    /// When there is no free port.
    pub(crate) async fn start(
        node: u32,
        target: SocketAddr,
        sources: Sources,
        links: Links,
    ) -> io::Result<Proxy> {
        let listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let address = listener.local_addr()?;
        let route = Arc::new(Route { node: Party::Node(node), target, address, sources, links });
        drop(task::spawn("proxy", accept(listener, route)));
        Ok(Proxy { address })
    }

    /// What the node advertises.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

struct Route {
    node: Party,
    target: SocketAddr,
    address: SocketAddr,
    sources: Sources,
    links: Links,
}

async fn accept(listener: Listener, route: Arc<Route>) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => drop(task::spawn("proxied connection", carry(route.clone(), stream, peer))),
            Err(_) => time::sleep(ACCEPT_PAUSE).await, // of one connection, or no file left: the next may do better
        }
    }
}

/// One connection, from its first byte to its last.
async fn carry(route: Arc<Route>, stream: Stream, peer: SocketAddr) {
    let source = match &route.sources {
        Sources::Clients => Some(Party::Clients),
        Sources::Nodes(owners) => owners.of_connection(peer, route.address).map(Party::Node),
    };
    let (mut from_source, mut to_source) = stream.into_split();
    // Whoever connected has hung up or died already.
    let Some(source) = source else { return to_source.abort() };
    let (node, links) = (route.node, &route.links);
    let mut to_node = None;
    let carried = async {
        // Neither the request for a connection nor the answer to it may be lost.
        links.until_open(source, node).await;
        links.until_open(node, source).await;
        let (mut from_node, writer) = Stream::connect(route.target).await?.into_split();
        let to_node = to_node.insert(writer);
        let there = pump(links, source, node, &mut from_source, to_node);
        let back = pump(links, node, source, &mut from_node, &mut to_source);
        tokio::try_join!(there, back).map(drop)
    };
    // An error of one end, and a reset, end both ends at once.
    let is_over = weir_runtime::select! {
        () = links.until_reset([source, node]) => false,
        carried = carried => carried.is_ok(),
    };
    if !is_over {
        to_node.into_iter().chain([to_source]).for_each(Writer::abort);
    }
}

/// One direction of a connection. Ends well when the sender has finished sending and the receiver knows.
async fn pump(
    links: &Links,
    from: Party,
    to: Party,
    reader: &mut Reader,
    writer: &mut Writer,
) -> io::Result<()> {
    let (under_way, mut arriving) = mpsc::channel::<(Instant, Bytes)>(CHUNKS_MAX);
    let send = async move {
        loop {
            let mut buffer = BytesMut::new();
            let read = match reader.read(&mut buffer, READ_BYTES_MAX).await {
                Ok(read) => read,
                Err(error) => {
                    links.until_open(from, to).await; // the news of it is sent on the same link
                    return Err(error);
                }
            };
            let due = time::now() + links.delay(from, to);
            // An empty chunk says that no more will come. Nobody takes it when the receiver has failed already.
            if under_way.send((due, buffer.freeze())).await.is_err() || read == 0 {
                return pending().await;
            }
        }
    };
    let receive = async {
        while let Some((due, chunk)) = arriving.recv().await {
            time::sleep_until(due).await;
            links.until_open(from, to).await;
            if chunk.is_empty() {
                break;
            }
            writer.write_all(&mut VecDeque::from([chunk])).await?;
        }
        // It may be gone already, and then it knows.
        drop(writer.shutdown().await);
        Ok(())
    };
    weir_runtime::select! {
        received = receive => received,
        failed = send => failed,
    }
}

#[cfg(test)]
#[path = "proxy_tests.rs"]
mod tests;
