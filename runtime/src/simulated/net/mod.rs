//! The simulated network: hosts, links, and connections that behave as TCP's do where programs can tell.
//!
//! A state machine: calls of programs take effect at once at their own end; everything that travels is an event that
//! [`Network::advance`] works off when it is due. Whoever may be able to go on is named by [`Network::take_ready`].
//!
//! An end of a connection:
//!
//! | state | becomes | when |
//! |---|---|---|
//! | `Opening` | `Open` | the peer's answer arrives (connecting), the handshake is complete (accepting) |
//! | `Opening` | `Failed` | refused, or no answer within the limit |
//! | `Open` | `Failed` | a reset arrives, the peer does not answer within the limit, or this end aborts |
//! | any | gone | closed, and what it still had to send has arrived or is given up |
//!
//! Bytes arrive in order and are never lost: what meets a cut link waits and is sent again after the link is mended. A reset
//! that meets a cut link is lost. A host that is down neither answers nor refuses.

mod control;
mod deliver;
mod link;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::task::Poll;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use super::draw::Draw;
use super::events::Events;
use crate::net::WRITE_CHUNKS_MAX;
use crate::time::{Instant, TimerQueue};

pub use link::LinkQuality;

use link::Links;

/// A machine on the network.
pub type Host = u32;

/// One end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndId(u64);

/// A listening socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerId(u64);

/// Who may be able to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ready {
    /// [`Network::read`], or [`Network::connected`] while it opens.
    Readable(EndId),
    /// [`Network::write`].
    Writable(EndId),
    /// [`Network::accept`].
    Acceptable(ListenerId),
}

/// How the network behaves where nothing else was said.
#[derive(Debug, Clone)]
pub struct NetProfile {
    /// Shortest and longest basic latency; each direction of each pair of hosts draws its own.
    pub latency: (Duration, Duration),
    /// How much longer than its link's basic latency something takes at most, as a fraction.
    pub jitter: f64,
    /// See [`LinkQuality::loss`].
    pub loss: f64,
    /// See [`LinkQuality::duplication`].
    pub duplication: f64,
    /// See [`LinkQuality::bytes_per_second`].
    pub bytes_per_second: u64,
    /// Least and most bytes that a connection holds per direction, in flight and unread together.
    pub window_bytes: (u64, u64),
    /// How long a connection may take to open.
    pub connect_timeout: Duration,
    /// How long an end sends in vain before it gives up.
    pub retransmit_timeout: Duration,
    /// How long an end that sends nothing takes to find out that nothing gets through any more.
    pub keepalive: Duration,
    /// Connections that wait to be accepted; further ones get no answer.
    pub backlog: usize,
}

impl Default for NetProfile {
    fn default() -> Self {
        Self {
            latency: (Duration::from_micros(50), Duration::from_millis(2)),
            jitter: 0.5,
            loss: 0.0005,
            duplication: 0.001,
            bytes_per_second: 1_000_000_000,
            window_bytes: (16 * 1024, 256 * 1024),
            // Linux: six further attempts, then some 15 minutes of them.
            connect_timeout: Duration::from_secs(127),
            retransmit_timeout: Duration::from_secs(924),
            // Linux: two hours, and then nine probes 75 seconds apart.
            keepalive: Duration::from_secs(7200 + 9 * 75),
            backlog: 128,
        }
    }
}

#[derive(Debug)]
struct HostState {
    ip: IpAddr,
    up: bool,
    next_port: u16,
}

#[derive(Debug)]
struct Listening {
    host: Host,
    address: SocketAddr,
    /// Complete connections that wait to be accepted.
    waiting: VecDeque<EndId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Opening,
    Open,
    Failed { kind: io::ErrorKind, told: bool },
}

#[derive(Debug)]
enum Payload {
    /// The last part of the handshake, which makes the connection acceptable.
    Opened(ListenerId),
    Data(Bytes),
    End,
}

#[derive(Debug)]
struct Segment {
    sent: Instant,
    at: Instant,
    payload: Payload,
}

#[derive(Debug)]
struct End {
    host: Host,
    local: SocketAddr,
    remote: SocketAddr,
    remote_host: Option<Host>,
    peer: Option<EndId>,
    state: State,
    received: VecDeque<Bytes>,
    received_bytes: u64,
    /// The peer has finished sending.
    ended: bool,
    /// On the way to the peer, in order.
    outbox: VecDeque<Segment>,
    /// Invariant: `in_use <= window`. Bytes in flight, unread by the peer, or read with the acknowledgement on its way.
    in_use: u64,
    window: u64,
    /// Acknowledged bytes that are on their way back to this end.
    returning: u64,
    /// The outbox or the acknowledgements met a cut link and wait for it.
    held: bool,
    /// Since when this end sends in vain.
    stalled_since: Option<Instant>,
    /// Since when nothing gets through, in one direction at least.
    cut_since: Option<Instant>,
    /// This end has finished sending.
    shut: bool,
    /// The program is done with it.
    closed: bool,
}

#[derive(Debug)]
enum Event {
    /// An attempt to open arrives.
    Open { end: EndId, attempt: u32 },
    /// The answer arrives at the connecting end.
    Answer { end: EndId },
    /// A refusal arrives at the connecting end.
    Refusal { end: EndId },
    /// The connecting end gives up.
    ConnectTimeout { end: EndId },
    /// The first of an end's outbox arrives.
    Deliver { from: EndId },
    /// Acknowledgements arrive.
    Acknowledge { end: EndId },
    /// A reset arrives.
    Reset { end: EndId },
    /// An end that sends in vain may give up.
    Stalled { end: EndId },
    /// An end that sends nothing may find out that nothing gets through, or that the peer is gone.
    Probe { end: EndId },
}

/// All hosts, links and connections.
#[derive(Debug)]
pub struct Network {
    draw: Draw,
    events: Events,
    profile: NetProfile,
    links: Links,
    hosts: BTreeMap<Host, HostState>,
    listeners: BTreeMap<ListenerId, Listening>,
    ends: BTreeMap<EndId, End>,
    queue: TimerQueue<Event>,
    ready: Vec<Ready>,
    next_id: u64,
}

impl Network {
    /// A network without hosts.
    pub fn new(draw: Draw, events: Events, profile: NetProfile) -> Self {
        Self {
            draw,
            events,
            profile,
            links: Links::default(),
            hosts: BTreeMap::new(),
            listeners: BTreeMap::new(),
            ends: BTreeMap::new(),
            queue: TimerQueue::new(),
            ready: Vec::new(),
            next_id: 0,
        }
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// When the next event is due.
    pub fn next_event(&self) -> Option<Instant> {
        self.queue.next()
    }

    /// Takes out who may be able to go on since the last call.
    pub fn take_ready(&mut self) -> Vec<Ready> {
        std::mem::take(&mut self.ready)
    }

    /// Listens on an address of the host; port 0 picks a free one.
    ///
    /// # Errors
    /// `AddrInUse`; `AddrNotAvailable` when the address is not the host's.
    pub fn listen(&mut self, host: Host, mut address: SocketAddr) -> io::Result<ListenerId> {
        let state = self.hosts.get(&host).ok_or(io::ErrorKind::NetworkUnreachable)?;
        if !address.ip().is_unspecified() && !address.ip().is_loopback() && address.ip() != state.ip {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        if address.port() == 0 {
            address.set_port(self.free_port(host));
        } else if self.listeners.values().any(|other| other.host == host && conflict(other.address, address))
        {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let id = ListenerId(self.id());
        self.listeners.insert(id, Listening { host, address, waiting: VecDeque::new() });
        Ok(id)
    }

    fn free_port(&mut self, host: Host) -> u16 {
        loop {
            let Some(state) = self.hosts.get_mut(&host) else { return 0 };
            let port = state.next_port;
            state.next_port = if port == u16::MAX { 32_768 } else { port + 1 };
            let taken =
                self.listeners.values().any(|other| other.host == host && other.address.port() == port);
            if !taken {
                return port;
            }
        }
    }

    /// The address that a listener listens on.
    ///
    /// # Errors
    /// `NotConnected` when its process is dead.
    pub fn listener_address(&self, listener: ListenerId) -> io::Result<SocketAddr> {
        self.listeners
            .get(&listener)
            .map(|found| found.address)
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Stops listening: connections that nobody has accepted are reset.
    pub fn close_listener(&mut self, listener: ListenerId, now: Instant) {
        let Some(closed) = self.listeners.remove(&listener) else { return };
        for end in closed.waiting {
            self.abort(end, now);
            self.close(end, now);
        }
    }

    /// Takes a connection that waits to be accepted.
    ///
    /// # Errors
    /// `NotConnected` when the listener's process is dead.
    pub fn accept(&mut self, listener: ListenerId) -> Poll<io::Result<(EndId, SocketAddr)>> {
        let Some(listening) = self.listeners.get_mut(&listener) else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        match listening.waiting.pop_front() {
            Some(end) => Poll::Ready(Ok((end, self.ends[&end].remote))),
            None => Poll::Pending,
        }
    }

    /// Starts to connect. [`Network::connected`] says how it went.
    pub fn connect(&mut self, host: Host, remote: SocketAddr, now: Instant) -> EndId {
        let own_ip = self.hosts.get(&host).map_or(remote.ip(), |state| state.ip);
        let local_ip = if remote.ip().is_loopback() { remote.ip() } else { own_ip };
        let local = SocketAddr::new(local_ip, self.free_port(host));
        let remote_host = if remote.ip().is_loopback() || remote.ip().is_unspecified() {
            Some(host)
        } else {
            self.hosts.iter().find(|(_, state)| state.ip == remote.ip()).map(|(id, _)| *id)
        };
        let end = self.add_end(host, local, remote, remote_host);
        self.queue.insert(now + self.profile.connect_timeout, Event::ConnectTimeout { end });
        let arrival = remote_host.map_or(now, |to| now + self.latency((host, to)));
        self.queue.insert(arrival, Event::Open { end, attempt: 0 });
        end
    }

    fn add_end(
        &mut self,
        host: Host,
        local: SocketAddr,
        remote: SocketAddr,
        remote_host: Option<Host>,
    ) -> EndId {
        let id = EndId(self.id());
        let window = self.draw.between(self.profile.window_bytes.0, self.profile.window_bytes.1);
        let end = End {
            host,
            local,
            remote,
            remote_host,
            peer: None,
            state: State::Opening,
            received: VecDeque::new(),
            received_bytes: 0,
            ended: false,
            outbox: VecDeque::new(),
            in_use: 0,
            window: window.max(1),
            returning: 0,
            held: false,
            stalled_since: None,
            cut_since: None,
            shut: false,
            closed: false,
        };
        self.ends.insert(id, end);
        id
    }

    /// Whether a connection is open.
    ///
    /// # Errors
    /// `ConnectionRefused`, `TimedOut`.
    pub fn connected(&mut self, end: EndId) -> Poll<io::Result<()>> {
        match self.ends.get(&end).map(|end| end.state) {
            Some(State::Opening) => Poll::Pending,
            Some(State::Open) => Poll::Ready(Ok(())),
            Some(State::Failed { kind, .. }) => Poll::Ready(Err(kind.into())),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    /// The addresses of this end and of the other.
    ///
    /// # Errors
    /// `NotConnected` when its process is dead.
    pub fn addresses(&self, end: EndId) -> io::Result<(SocketAddr, SocketAddr)> {
        let end = self.ends.get(&end).ok_or(io::ErrorKind::NotConnected)?;
        Ok((end.local, end.remote))
    }

    /// Appends up to `max` received bytes to `buffer`; 0 at the end of the stream.
    ///
    /// # Errors
    /// `ConnectionReset`, `TimedOut`, once; then the stream has ended.
    pub fn read(
        &mut self,
        id: EndId,
        buffer: &mut BytesMut,
        max: usize,
        now: Instant,
    ) -> Poll<io::Result<usize>> {
        let Some(end) = self.ends.get_mut(&id) else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        let mut taken = 0;
        while taken < max {
            let Some(chunk) = end.received.front_mut() else { break };
            let part = chunk.split_to(chunk.len().min(max - taken));
            buffer.put_slice(&part);
            taken += part.len();
            if chunk.is_empty() {
                end.received.pop_front();
            }
        }
        if taken > 0 {
            end.received_bytes -= taken as u64;
            self.acknowledge(id, taken as u64, now);
            return Poll::Ready(Ok(taken));
        }
        match &mut end.state {
            State::Failed { kind, told } if !*told => {
                *told = true;
                Poll::Ready(Err((*kind).into()))
            }
            State::Failed { .. } => Poll::Ready(Ok(0)),
            _ if end.ended => Poll::Ready(Ok(0)),
            _ => Poll::Pending,
        }
    }

    /// Sends as much of the chunks as the window has room for, sometimes less.
    ///
    /// # Errors
    /// `ConnectionReset` or `TimedOut` once, then `BrokenPipe`; `BrokenPipe` after [`Network::shutdown`].
    pub fn write(&mut self, id: EndId, chunks: &VecDeque<Bytes>, now: Instant) -> Poll<io::Result<usize>> {
        let Some(end) = self.ends.get_mut(&id) else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        match &mut end.state {
            State::Failed { kind, told } if !*told => {
                *told = true;
                return Poll::Ready(Err((*kind).into()));
            }
            State::Failed { .. } => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            _ if end.shut => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            State::Opening => return Poll::Pending,
            State::Open => {}
        }
        let room = end.window - end.in_use;
        let offered: u64 = chunks.iter().take(WRITE_CHUNKS_MAX).map(|chunk| chunk.len() as u64).sum();
        let mut accepted = room.min(offered);
        if accepted == 0 {
            return Poll::Pending;
        }
        if self.draw.chance(0.1) {
            accepted = self.draw.between(1, accepted);
        }
        end.in_use += accepted;
        // A stream has no message boundaries: now and then the bytes come apart on the way.
        let split = self.draw.chance(0.2).then(|| self.draw.below(accepted));
        let mut left = accepted as usize;
        let mut sent = 0;
        for chunk in chunks.iter().take(WRITE_CHUNKS_MAX) {
            let mut part = chunk.slice(..chunk.len().min(left));
            left -= part.len();
            if let Some(split) = split.filter(|split| (sent + 1..sent + part.len() as u64).contains(split)) {
                let head = part.split_to((split - sent) as usize);
                sent += head.len() as u64;
                self.send(id, Payload::Data(head), now);
            }
            sent += part.len() as u64;
            if !part.is_empty() {
                self.send(id, Payload::Data(part), now);
            }
            if left == 0 {
                break;
            }
        }
        Poll::Ready(Ok(accepted as usize))
    }

    /// Finishes sending; reading goes on.
    ///
    /// # Errors
    /// `NotConnected` when the connection is gone.
    pub fn shutdown(&mut self, id: EndId, now: Instant) -> io::Result<()> {
        let end = self.ends.get_mut(&id).ok_or(io::ErrorKind::NotConnected)?;
        if end.state != State::Open {
            return Err(io::ErrorKind::NotConnected.into());
        }
        if !std::mem::replace(&mut end.shut, true) {
            self.send(id, Payload::End, now);
        }
        Ok(())
    }

    /// Hangs up: what is on its way is thrown away, the peer is reset, and this end fails.
    pub fn abort(&mut self, id: EndId, now: Instant) {
        let Some(end) = self.ends.get(&id) else { return };
        if end.state == State::Open
            && let Some(peer) = end.peer
        {
            self.send_reset(end.host, end.remote_host, peer, now);
        }
        self.fail(id, io::ErrorKind::ConnectionReset);
    }

    /// The program is done with this end. Unread bytes make it a reset, as Linux does; otherwise what was written still
    /// arrives, and then the end of the stream.
    pub fn close(&mut self, id: EndId, now: Instant) {
        let Some(end) = self.ends.get_mut(&id) else { return };
        end.closed = true;
        match end.state {
            State::Open if end.received_bytes > 0 => {
                self.abort(id, now);
                self.ends.remove(&id);
            }
            State::Open => {
                // It is open, or this would be another arm.
                drop(self.shutdown(id, now));
                self.remove_if_done(id);
            }
            State::Opening | State::Failed { .. } => drop(self.ends.remove(&id)),
        }
    }

    fn remove_if_done(&mut self, id: EndId) {
        if self.ends.get(&id).is_some_and(|end| end.closed && end.outbox.is_empty()) {
            self.ends.remove(&id);
        }
    }
}

/// Whether two listeners of one host would get the same connections.
fn conflict(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() == b.port() && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
}

#[cfg(test)]
#[path = "net_tests.rs"]
mod tests;
