//! What the world does to the network: hosts come and go, links are cut and mended, connections reset.

use std::net::IpAddr;

use super::{EndId, Host, HostState, LinkQuality, Network, Payload, State};
use crate::time::Instant;

impl Network {
    /// Adds a host, which is up.
    pub fn add_host(&mut self, host: Host, ip: IpAddr) {
        self.hosts.insert(host, HostState { ip, up: true, next_port: 32_768 });
    }

    /// The host that has this address.
    pub fn host_of(&self, ip: IpAddr) -> Option<Host> {
        self.hosts.iter().find(|(_, state)| state.ip == ip).map(|(host, _)| *host)
    }

    /// The address of a host.
    pub fn ip_of(&self, host: Host) -> Option<IpAddr> {
        self.hosts.get(&host).map(|state| state.ip)
    }

    fn ends_of(&self, host: Host) -> Vec<EndId> {
        self.ends.iter().filter(|(_, end)| end.host == host).map(|(id, _)| *id).collect()
    }

    /// The process on this host died and its operating system lives: it closes the process's sockets.
    pub fn process_died(&mut self, host: Host, now: Instant) {
        let listeners: Vec<_> = self
            .listeners
            .iter()
            .filter(|(_, listening)| listening.host == host)
            .map(|(id, _)| *id)
            .collect();
        for listener in listeners {
            self.close_listener(listener, now);
        }
        for end in self.ends_of(host) {
            self.close(end, now);
        }
    }

    /// The host is gone without a word: nobody is told, nothing is answered.
    pub fn host_down(&mut self, host: Host, now: Instant) {
        if let Some(state) = self.hosts.get_mut(&host) {
            state.up = false;
        }
        self.listeners.retain(|_, listening| listening.host != host);
        self.ends.retain(|_, end| end.host != host);
        self.notice_cuts(now);
    }

    /// The host is back, and knows nothing of the connections that it had.
    pub fn host_up(&mut self, host: Host, now: Instant) {
        if let Some(state) = self.hosts.get_mut(&host) {
            state.up = true;
        }
        self.resume(now);
    }

    /// Lets nothing through from one host to the other.
    pub fn cut(&mut self, from: Host, to: Host, now: Instant) {
        self.note(now, from, "fault.net.cut", &[u64::from(to)], || format!("nothing gets through to {to}"));
        self.links.cut((from, to));
        self.notice_cuts(now);
    }

    /// Mends one direction.
    pub fn mend(&mut self, from: Host, to: Host, now: Instant) {
        self.note(now, from, "net.mended", &[u64::from(to)], || format!("to {to}"));
        self.links.mend((from, to));
        self.resume(now);
    }

    /// Lets nothing into a host, or out of it, or neither.
    pub fn clog(&mut self, host: Host, inwards: bool, outwards: bool, now: Instant) {
        self.note(now, host, "fault.net.clog", &[u64::from(inwards), u64::from(outwards)], || {
            format!("in: {inwards}, out: {outwards}")
        });
        self.links.clog(host, inwards, outwards);
        self.notice_cuts(now);
    }

    /// Undoes [`Network::clog`].
    pub fn unclog(&mut self, host: Host, now: Instant) {
        self.note(now, host, "net.unclogged", &[], String::new);
        self.links.unclog(host);
        self.resume(now);
    }

    /// Mends all links and forgets what [`Network::set_link`] said. Hosts that are down stay so.
    pub fn mend_all(&mut self, now: Instant) {
        self.links.mend_all();
        self.resume(now);
    }

    /// Whether nothing gets through, for whatever reason.
    pub fn is_severed(&self, from: Host, to: Host) -> bool {
        self.is_cut(from, to)
    }

    /// Says how a direction behaves from now on; `None`: as it was drawn.
    pub fn set_link(&mut self, from: Host, to: Host, quality: Option<LinkQuality>, now: Instant) {
        if quality.is_some() {
            self.note(now, from, "fault.net.link_changed", &[u64::from(to)], || {
                format!("to {to}: {quality:?}")
            });
        }
        self.links.give((from, to), quality);
    }

    /// Changes what holds where nothing else was said, for connections and links that are used first from now on.
    pub fn set_profile(&mut self, profile: super::NetProfile) {
        self.profile = profile;
    }

    /// Resets connections between two hosts (`None`: any), each with this probability and, where something is on its way, in
    /// the middle of it. Returns how many.
    pub fn reset_connections(
        &mut self,
        one: Option<Host>,
        other: Option<Host>,
        probability: f64,
        now: Instant,
    ) -> u64 {
        let concerned = |a: Host, b: Host| {
            let fits = |wanted: Option<Host>, host| wanted.is_none_or(|wanted| wanted == host);
            (fits(one, a) && fits(other, b)) || (fits(one, b) && fits(other, a))
        };
        let candidates: Vec<_> = (self.ends.iter())
            .filter_map(|(id, end)| {
                let peer = end.peer.filter(|peer| peer > id && end.state == State::Open)?;
                concerned(end.host, end.remote_host?).then_some((*id, peer))
            })
            .collect();
        let mut count = 0;
        for (a, b) in candidates {
            if !self.draw.chance(probability) {
                continue;
            }
            count += 1;
            let host = self.ends[&a].host;
            self.note(now, host, "fault.net.reset", &[a.0, b.0], || format!("{a:?} and {b:?}"));
            for (from, to) in [(a, b), (b, a)] {
                self.deliver_a_part(from, to);
            }
            self.fail(a, std::io::ErrorKind::ConnectionReset);
            self.fail(b, std::io::ErrorKind::ConnectionReset);
        }
        count
    }

    /// A host forgets its connections to another one, as a firewall between them does: its own ends fail, and nobody tells the other
    /// side. Returns how many.
    pub fn forget_connections(&mut self, host: Host, other: Host, now: Instant) -> u64 {
        let is_concerned = |end: &EndId| {
            self.ends.get(end).is_some_and(|end| end.state == State::Open && end.remote_host == Some(other))
        };
        let ends: Vec<_> = self.ends_of(host).into_iter().filter(is_concerned).collect();
        for end in &ends {
            self.note(now, host, "fault.net.half_open", &[end.0], || format!("{end:?} to {other}"));
            self.fail(*end, std::io::ErrorKind::ConnectionReset);
        }
        ends.len() as u64
    }

    /// Lets a part of the first chunk in flight arrive.
    fn deliver_a_part(&mut self, from: EndId, to: EndId) {
        let Some(sender) = self.ends.get(&from) else { return };
        let Some(Payload::Data(bytes)) = sender.outbox.front().map(|segment| &segment.payload) else {
            return;
        };
        let part = bytes.slice(..self.draw.below(bytes.len() as u64) as usize);
        if let Some(end) = self.ends.get_mut(&to)
            && !part.is_empty()
        {
            end.received_bytes += part.len() as u64;
            end.received.push_back(part);
        }
    }
}
