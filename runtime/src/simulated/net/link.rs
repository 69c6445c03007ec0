//! The links between hosts: how long things take, and where nothing gets through.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Host, NetProfile};
use crate::simulated::draw::Draw;

/// How one direction between two hosts behaves.
#[derive(Debug, Clone, PartialEq)]
pub struct LinkQuality {
    /// Shortest and longest time that something is on its way.
    pub latency: (Duration, Duration),
    /// The probability that something is lost at first and comes after a retransmission.
    pub loss: f64,
    /// The probability that an opening connection arrives twice: the listener gets one that is dead from the start.
    pub duplication: f64,
    /// How fast a connection can be at most.
    pub bytes_per_second: u64,
}

/// All links.
#[derive(Debug, Default)]
pub(super) struct Links {
    drawn: BTreeMap<(Host, Host), LinkQuality>,
    given: BTreeMap<(Host, Host), LinkQuality>,
    cut: BTreeSet<(Host, Host)>,
    clogged_in: BTreeSet<Host>,
    clogged_out: BTreeSet<Host>,
}

impl Links {
    /// How the direction behaves: as was given, or else as it was drawn when it was first used.
    pub(super) fn quality(
        &mut self,
        link: (Host, Host),
        profile: &NetProfile,
        draw: &mut Draw,
    ) -> &LinkQuality {
        if let Some(given) = self.given.get(&link) {
            return given;
        }
        self.drawn.entry(link).or_insert_with(|| {
            if link.0 == link.1 {
                let micros = Duration::from_micros;
                return LinkQuality {
                    latency: (micros(5), micros(30)),
                    loss: 0.0,
                    duplication: 0.0,
                    bytes_per_second: 10_000_000_000,
                };
            }
            let base = draw.duration(profile.latency.0, profile.latency.1);
            LinkQuality {
                latency: (base, base.mul_f64(1.0 + profile.jitter)),
                loss: profile.loss,
                duplication: profile.duplication,
                bytes_per_second: profile.bytes_per_second,
            }
        })
    }

    pub(super) fn give(&mut self, link: (Host, Host), quality: Option<LinkQuality>) {
        match quality {
            Some(quality) => drop(self.given.insert(link, quality)),
            None => drop(self.given.remove(&link)),
        }
    }

    /// Whether nothing gets through in this direction. A host always reaches itself.
    pub(super) fn is_cut(&self, (from, to): (Host, Host)) -> bool {
        from != to
            && (self.cut.contains(&(from, to))
                || self.clogged_out.contains(&from)
                || self.clogged_in.contains(&to))
    }

    pub(super) fn cut(&mut self, link: (Host, Host)) {
        self.cut.insert(link);
    }

    pub(super) fn mend(&mut self, link: (Host, Host)) {
        self.cut.remove(&link);
    }

    pub(super) fn clog(&mut self, host: Host, inwards: bool, outwards: bool) {
        if inwards {
            self.clogged_in.insert(host);
        }
        if outwards {
            self.clogged_out.insert(host);
        }
    }

    pub(super) fn unclog(&mut self, host: Host) {
        self.clogged_in.remove(&host);
        self.clogged_out.remove(&host);
    }

    pub(super) fn mend_all(&mut self) {
        self.given.clear();
        self.cut.clear();
        self.clogged_in.clear();
        self.clogged_out.clear();
    }
}
