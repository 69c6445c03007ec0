//! What travels, and what happens when it arrives.

use std::io;
use std::time::Duration;

use super::{EndId, Event, Host, ListenerId, Listening, Network, Payload, Ready, Segment, State};
use crate::simulated::events::digest;
use crate::time::Instant;

/// The first wait before something that got lost is sent again; it doubles each time.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// The wait before data that got lost on a working link is sent again.
const RETRANSMIT: (Duration, Duration) = (Duration::from_millis(200), Duration::from_millis(400));
/// The longest wait after a link is mended before held data is sent again.
const RESUME_MAX: Duration = Duration::from_millis(1500);

impl Network {
    pub(super) fn note(
        &self,
        now: Instant,
        host: Host,
        kind: &'static str,
        facts: &[u64],
        text: impl FnOnce() -> String,
    ) {
        self.events.note(now, Some(host), kind, facts, text);
    }

    pub(super) fn latency(&mut self, link: (Host, Host)) -> Duration {
        let quality = self.links.quality(link, &self.profile, &mut self.draw);
        let (shortest, longest) = quality.latency;
        self.draw.duration(shortest, longest)
    }

    fn lost(&mut self, link: (Host, Host)) -> bool {
        let probability = self.links.quality(link, &self.profile, &mut self.draw).loss;
        self.draw.chance(probability)
    }

    fn is_up(&self, host: Host) -> bool {
        self.hosts.get(&host).is_some_and(|state| state.up)
    }

    /// Whether nothing gets through from one host to the other, for whatever reason.
    pub(super) fn is_cut(&self, from: Host, to: Host) -> bool {
        self.links.is_cut((from, to)) || !self.is_up(from) || !self.is_up(to)
    }

    /// Puts something on the way to the peer, behind what is there already.
    pub(super) fn send(&mut self, id: EndId, payload: Payload, now: Instant) {
        let Some(end) = self.ends.get(&id) else { return };
        let Some(to) = end.remote_host else { return };
        let link = (end.host, to);
        let mut at = now + self.latency(link);
        if let Payload::Data(bytes) = &payload {
            let speed = self.links.quality(link, &self.profile, &mut self.draw).bytes_per_second.max(1);
            let transfer = Duration::from_nanos((bytes.len() as u64).saturating_mul(1_000_000_000) / speed);
            let last = self.ends[&id].outbox.back().map_or(at, |last| last.at);
            at = at.max(last) + transfer;
        }
        if self.lost(link) {
            at += self.draw.duration(RETRANSMIT.0, RETRANSMIT.1);
            self.note(now, link.0, "fault.net.loss", &[id.0], || format!("to {}", link.1));
        }
        let Some(end) = self.ends.get_mut(&id) else { return };
        let at = end.outbox.back().map_or(at, |last| at.max(last.at));
        end.outbox.push_back(Segment { sent: now, at, payload });
        if end.outbox.len() == 1 && !end.held {
            self.queue.insert(at, Event::Deliver { from: id });
        }
        self.check_stall(id, now);
    }

    /// Bytes were read at `id`: room for the peer to send more, once it hears of it.
    pub(super) fn acknowledge(&mut self, id: EndId, bytes: u64, now: Instant) {
        let Some((host, peer)) = self.ends.get(&id).and_then(|end| Some((end.host, end.peer?))) else {
            return;
        };
        let Some(sender) = self.ends.get_mut(&peer) else { return };
        let on_its_way = sender.returning > 0;
        sender.returning += bytes;
        if !on_its_way {
            let link = (host, sender.host);
            let at = now + self.latency(link);
            self.queue.insert(at, Event::Acknowledge { end: peer });
        }
    }

    pub(super) fn send_reset(&mut self, from: Host, to: Option<Host>, end: EndId, now: Instant) {
        let Some(to) = to else { return };
        let at = now + self.latency((from, to));
        // What meets a cut link on its way is lost, unlike data.
        if !self.is_cut(from, to) {
            self.queue.insert(at, Event::Reset { end });
        }
    }

    pub(super) fn fail(&mut self, id: EndId, kind: io::ErrorKind) {
        let Some(end) = self.ends.get_mut(&id) else { return };
        if matches!(end.state, State::Failed { .. }) {
            return;
        }
        end.state = State::Failed { kind, told: false };
        end.outbox.clear();
        end.stalled_since = None;
        if end.closed {
            self.ends.remove(&id);
            return;
        }
        self.ready.push(Ready::Readable(id));
        self.ready.push(Ready::Writable(id));
    }

    /// Works off all events that are due.
    pub fn advance(&mut self, now: Instant) {
        while let Some(at) = self.queue.next().filter(|at| *at <= now) {
            let Some(event) = self.queue.pop_due(now) else { break };
            self.on_event(event, at);
        }
    }

    fn on_event(&mut self, event: Event, now: Instant) {
        match event {
            Event::Open { end, attempt } => self.on_open(end, attempt, now),
            Event::Answer { end } => self.on_answer(end, now),
            Event::Refusal { end } => self.on_refusal(end, now),
            Event::ConnectTimeout { end } => {
                if let Some(State::Opening) = self.ends.get(&end).map(|end| end.state) {
                    let host = self.ends[&end].host;
                    self.note(now, host, "net.connect_timed_out", &[end.0], || format!("{end:?}"));
                    self.fail(end, io::ErrorKind::TimedOut);
                }
            }
            Event::Deliver { from } => self.on_deliver(from, now),
            Event::Acknowledge { end } => self.on_acknowledge(end, now),
            Event::Reset { end } => self.on_reset(end, now),
            Event::Stalled { end } => self.on_stalled(end, now),
            Event::Probe { end } => self.on_probe(end, now),
        }
    }

    fn on_open(&mut self, id: EndId, attempt: u32, now: Instant) {
        let Some(client) = self.ends.get(&id) else { return };
        if client.state != State::Opening || client.peer.is_some() {
            return;
        }
        let (from, local, remote) = (client.host, client.local, client.remote);
        let retry = now + RETRY_FIRST * 2u32.saturating_pow(attempt.min(6));
        let again = Event::Open { end: id, attempt: attempt + 1 };
        let Some(to) = client.remote_host else {
            self.queue.insert(retry, again);
            return;
        };
        if self.is_cut(from, to) {
            self.note(now, from, "fault.net.black_hole", &[id.0], || format!("opening to {remote}"));
            self.queue.insert(retry, again);
            return;
        }
        if self.lost((from, to)) {
            self.note(now, from, "fault.net.loss", &[id.0], || format!("opening to {remote}"));
            self.queue.insert(retry, again);
            return;
        }
        let back = now + self.latency((to, from));
        let Some(listener) = self.listener_for(to, remote) else {
            self.queue.insert(back, Event::Refusal { end: id });
            return;
        };
        if self.listeners[&listener].waiting.len() >= self.profile.backlog {
            self.note(now, to, "net.backlog_full", &[listener.0], || format!("{remote}"));
            self.queue.insert(retry, again);
            return;
        }
        let server = self.add_end(to, remote, local, Some(from));
        self.pair(id, server);
        self.queue.insert(back, Event::Answer { end: id });
        let duplication = self.links.quality((from, to), &self.profile, &mut self.draw).duplication;
        if self.draw.chance(duplication) {
            self.duplicate(listener, to, remote, (from, local), now);
        }
    }

    fn listener_for(&self, host: Host, address: std::net::SocketAddr) -> Option<ListenerId> {
        let serves = |listening: &Listening| {
            let own = listening.address;
            listening.host == host
                && own.port() == address.port()
                && (own.ip().is_unspecified() || own.ip() == address.ip())
        };
        self.listeners.iter().find(|(_, listening)| serves(listening)).map(|(id, _)| *id)
    }

    fn pair(&mut self, a: EndId, b: EndId) {
        for (one, other) in [(a, b), (b, a)] {
            if let Some(end) = self.ends.get_mut(&one) {
                end.peer = Some(other);
            }
        }
    }

    /// A listener gets a connection whose other end knows nothing of it, and which is soon reset.
    fn duplicate(
        &mut self,
        listener: ListenerId,
        host: Host,
        local: std::net::SocketAddr,
        (from, remote): (Host, std::net::SocketAddr),
        now: Instant,
    ) {
        let ghost = self.add_end(host, local, remote, Some(from));
        if let Some(end) = self.ends.get_mut(&ghost) {
            end.state = State::Open;
            end.peer = Some(EndId(u64::MAX));
        }
        self.note(now, host, "fault.net.duplicate_opening", &[ghost.0], || format!("from {remote}"));
        self.offer(listener, ghost, now);
        let at = now + self.draw.duration(Duration::from_millis(1), Duration::from_secs(1));
        self.queue.insert(at, Event::Reset { end: ghost });
    }

    fn offer(&mut self, listener: ListenerId, end: EndId, now: Instant) {
        let Some(listening) = self.listeners.get_mut(&listener) else { return };
        listening.waiting.push_back(end);
        let host = listening.host;
        self.ready.push(Ready::Acceptable(listener));
        self.note(now, host, "net.offered", &[end.0], || format!("{end:?}"));
    }

    fn on_answer(&mut self, id: EndId, now: Instant) {
        let Some(client) = self.ends.get(&id) else { return };
        let (Some(to), Some(server)) = (client.remote_host, client.peer) else { return };
        let from = client.host;
        if client.state != State::Opening {
            self.ends.remove(&server);
            return;
        }
        if self.is_cut(to, from) || self.lost((to, from)) {
            self.note(now, to, "fault.net.black_hole", &[id.0], || "answer to an opening".to_owned());
            self.queue.insert(now + RETRY_FIRST, Event::Answer { end: id });
            return;
        }
        let listener = self.ends.get(&server).and_then(|server| self.listener_for(to, server.local));
        let Some(listener) = listener else {
            self.on_refusal(id, now);
            return;
        };
        if let Some(client) = self.ends.get_mut(&id) {
            client.state = State::Open;
        }
        self.ready.push(Ready::Readable(id));
        self.note(now, from, "net.connected", &[id.0], || format!("{id:?} to host {to}"));
        self.send(id, Payload::Opened(listener), now);
    }

    fn on_refusal(&mut self, id: EndId, now: Instant) {
        let Some(client) = self.ends.get(&id) else { return };
        let (from, remote) = (client.host, client.remote);
        if client.state == State::Opening {
            self.note(now, from, "net.refused", &[id.0], || format!("by {remote}"));
            self.fail(id, io::ErrorKind::ConnectionRefused);
        }
    }

    fn on_deliver(&mut self, from: EndId, now: Instant) {
        let Some(sender) = self.ends.get(&from) else { return };
        let (Some(to), Some(peer)) = (sender.remote_host, sender.peer) else { return };
        let host = sender.host;
        if sender.outbox.is_empty() || sender.held {
            return;
        }
        if self.is_cut(host, to) {
            self.note(now, host, "fault.net.black_hole", &[from.0], || format!("data to host {to}"));
            if let Some(sender) = self.ends.get_mut(&from) {
                sender.held = true;
            }
            self.check_stall(from, now);
            return;
        }
        while let Some(sender) = self.ends.get_mut(&from) {
            match sender.outbox.front() {
                None => break,
                Some(first) if first.at > now => {
                    let at = first.at;
                    self.queue.insert(at, Event::Deliver { from });
                    break;
                }
                Some(_) => {}
            }
            let Some(segment) = sender.outbox.pop_front() else { break };
            if !self.arrive(from, peer, segment, now) {
                break;
            }
        }
        self.remove_if_done(from);
    }

    /// Something arrives. `false`: the receiver is gone, and the sender is told so.
    fn arrive(&mut self, from: EndId, to: EndId, segment: Segment, now: Instant) -> bool {
        let hosts = self.ends.get(&from).and_then(|sender| Some((sender.host, sender.remote_host?)));
        let Some((from_host, host)) = hosts else { return false };
        let alive = |network: &Self| network.ends.get(&to).is_some_and(|end| !end.closed);
        match segment.payload {
            Payload::Opened(listener) => {
                if !self.listeners.contains_key(&listener) || !alive(self) {
                    self.ends.remove(&to);
                    self.answer_with_reset(host, from, now);
                    return false;
                }
                if let Some(end) = self.ends.get_mut(&to) {
                    end.state = State::Open;
                }
                self.offer(listener, to, now);
            }
            Payload::Data(bytes) => {
                let failed = self.ends.get(&to).is_some_and(|end| matches!(end.state, State::Failed { .. }));
                if failed || !alive(self) {
                    if !failed {
                        // Closed, and still sending: nobody will ever read this, so that ends, too.
                        self.ends.remove(&to);
                    }
                    self.answer_with_reset(host, from, now);
                    return false;
                }
                let sent = Some((from_host, segment.sent));
                let facts = [to.0, digest(&bytes)];
                self.events.note_arrival(now, Some(host), sent, "net.delivered", &facts, || {
                    format!("{} bytes to {to:?}", bytes.len())
                });
                if let Some(end) = self.ends.get_mut(&to) {
                    end.received_bytes += bytes.len() as u64;
                    end.received.push_back(bytes);
                }
                self.ready.push(Ready::Readable(to));
                self.check_stall(from, now);
            }
            Payload::End => {
                if let Some(end) = self.ends.get_mut(&to) {
                    end.ended = true;
                    self.ready.push(Ready::Readable(to));
                    self.note(now, host, "net.end_of_stream", &[to.0], || format!("{to:?}"));
                }
            }
        }
        true
    }

    fn answer_with_reset(&mut self, from: Host, to: EndId, now: Instant) {
        let Some(end) = self.ends.get_mut(&to) else { return };
        end.outbox.clear();
        let host = end.host;
        self.send_reset(from, Some(host), to, now);
    }

    fn on_acknowledge(&mut self, id: EndId, now: Instant) {
        let Some(end) = self.ends.get(&id) else { return };
        let Some(peer_host) = end.remote_host else { return };
        if self.is_cut(peer_host, end.host) {
            // Comes when the link is mended.
            self.check_stall(id, now);
            return;
        }
        let Some(end) = self.ends.get_mut(&id) else { return };
        end.in_use -= end.returning;
        end.returning = 0;
        self.ready.push(Ready::Writable(id));
        self.check_stall(id, now);
    }

    fn on_reset(&mut self, id: EndId, now: Instant) {
        let Some(end) = self.ends.get(&id) else { return };
        let (host, remote) = (end.host, end.remote);
        if matches!(end.state, State::Failed { .. }) {
            return;
        }
        self.note(now, host, "net.reset", &[id.0], || format!("{id:?} from {remote}"));
        // Linux: an end that has seen the peer's end of stream learns of it as a broken pipe.
        let kind = if end.ended { io::ErrorKind::BrokenPipe } else { io::ErrorKind::ConnectionReset };
        self.fail(id, kind);
    }

    fn is_stalled(&self, id: EndId) -> bool {
        let Some(end) = self.ends.get(&id) else { return false };
        let Some(to) = end.remote_host else { return false };
        end.state == State::Open
            && ((self.is_cut(end.host, to) && !end.outbox.is_empty())
                || (self.is_cut(to, end.host) && end.in_use > 0))
    }

    /// Notices that an end sends in vain, or no longer does.
    pub(super) fn check_stall(&mut self, id: EndId, now: Instant) {
        let (stalled, cut) = (self.is_stalled(id), self.is_path_cut(id));
        let Some(end) = self.ends.get_mut(&id) else { return };
        if cut && end.cut_since.is_none() {
            end.cut_since = Some(now);
            self.queue.insert(now + self.profile.keepalive, Event::Probe { end: id });
        } else if !cut {
            end.cut_since = None;
        }
        if stalled && end.stalled_since.is_none() {
            end.stalled_since = Some(now);
            self.queue.insert(now + self.profile.retransmit_timeout, Event::Stalled { end: id });
        } else if !stalled {
            end.stalled_since = None;
        }
    }

    fn is_path_cut(&self, id: EndId) -> bool {
        let path = self.ends.get(&id).and_then(|end| Some((end.host, end.remote_host?)));
        path.is_some_and(|(host, to)| self.is_cut(host, to) || self.is_cut(to, host))
    }

    fn on_probe(&mut self, id: EndId, now: Instant) {
        let Some(end) = self.ends.get(&id) else { return };
        if end.cut_since.is_some_and(|since| since + self.profile.keepalive <= now) {
            self.note(now, end.host, "net.timed_out", &[id.0], || format!("{id:?} heard nothing"));
            self.fail(id, io::ErrorKind::TimedOut);
        } else if end.cut_since.is_none() && end.peer.is_none_or(|peer| !self.ends.contains_key(&peer)) {
            self.on_reset(id, now);
        }
    }

    fn on_stalled(&mut self, id: EndId, now: Instant) {
        let Some(end) = self.ends.get(&id) else { return };
        let host = end.host;
        let too_long = end.stalled_since.is_some_and(|since| since + self.profile.retransmit_timeout <= now);
        if too_long && self.is_stalled(id) {
            self.note(now, host, "net.timed_out", &[id.0], || format!("{id:?} sent in vain"));
            self.fail(id, io::ErrorKind::TimedOut);
        }
    }

    /// After a link was mended: what waited for it is sent again after a while.
    pub(super) fn resume(&mut self, now: Instant) {
        for id in self.ends.keys().copied().collect::<Vec<_>>() {
            let end = &self.ends[&id];
            let Some(to) = end.remote_host else { continue };
            let (host, held, returning) = (end.host, end.held, end.returning);
            if held && !self.is_cut(host, to) {
                let wait = self.latency((host, to)) + self.draw.duration(Duration::ZERO, RESUME_MAX);
                if let Some(end) = self.ends.get_mut(&id) {
                    end.held = false;
                }
                self.queue.insert(now + wait, Event::Deliver { from: id });
            }
            if returning > 0 && !self.is_cut(to, host) {
                // One that is on its way already comes too, and finds nothing left to do.
                let wait = self.latency((to, host));
                self.queue.insert(now + wait, Event::Acknowledge { end: id });
            }
            self.check_stall(id, now);
        }
    }

    /// After a link was cut: those who send in vain from now on notice the time.
    pub(super) fn notice_cuts(&mut self, now: Instant) {
        for id in self.ends.keys().copied().collect::<Vec<_>>() {
            self.check_stall(id, now);
        }
    }
}
