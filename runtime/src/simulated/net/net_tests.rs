use std::net::Ipv4Addr;

use super::*;

const SERVER: Host = 1;
const CLIENT: Host = 2;
const PORT: u16 = 9092;

/// Two hosts and a listener, driven by hand.
struct Bench {
    net: Network,
    listener: ListenerId,
    now: Instant,
}

fn address(host: Host) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, host as u8)), PORT)
}

fn quiet() -> NetProfile {
    NetProfile {
        loss: 0.0,
        duplication: 0.0,
        connect_timeout: Duration::from_secs(20),
        retransmit_timeout: Duration::from_secs(30),
        ..NetProfile::default()
    }
}

fn micros(micros: u64) -> Duration {
    Duration::from_micros(micros)
}

impl Bench {
    fn new(seed: u64) -> Self {
        Self::with_profile(seed, quiet())
    }

    fn with_profile(seed: u64, profile: NetProfile) -> Self {
        let mut net = Network::new(Draw::new(seed), Events::new(false), profile);
        for host in [SERVER, CLIENT, 3] {
            net.add_host(host, address(host).ip());
        }
        let listener = net.listen(SERVER, address(SERVER)).unwrap();
        Self { net, listener, now: Instant::ORIGIN }
    }

    /// Lets this much time pass.
    fn pass(&mut self, duration: Duration) {
        self.now += duration;
        self.net.advance(self.now);
    }

    /// Lets time pass until `ready` says so, or panics after an hour.
    fn until<T>(&mut self, mut ready: impl FnMut(&mut Self) -> Option<T>) -> T {
        let end = self.now + Duration::from_secs(3600);
        loop {
            if let Some(value) = ready(self) {
                return value;
            }
            let next = self.net.next_event().expect("nothing will ever happen");
            assert!(next < end, "it takes for ever");
            self.now = self.now.max(next);
            self.net.advance(self.now);
        }
    }

    fn connected(&mut self, end: EndId) -> io::Result<()> {
        self.until(|bench| match bench.net.connected(end) {
            Poll::Ready(result) => Some(result),
            Poll::Pending => None,
        })
    }

    fn accept(&mut self) -> EndId {
        let listener = self.listener;
        self.until(|bench| match bench.net.accept(listener) {
            Poll::Ready(accepted) => Some(accepted.unwrap().0),
            Poll::Pending => None,
        })
    }

    /// A connection's two ends: the client's and the server's.
    fn connection(&mut self) -> (EndId, EndId) {
        let client = self.net.connect(CLIENT, address(SERVER), self.now);
        self.connected(client).unwrap();
        let server = self.accept();
        (client, server)
    }

    fn try_write(&mut self, end: EndId, data: &[u8]) -> Poll<io::Result<usize>> {
        self.net.write(end, &VecDeque::from([Bytes::copy_from_slice(data)]), self.now)
    }

    fn write(&mut self, end: EndId, data: &[u8]) {
        let mut sent = 0;
        while sent < data.len() {
            sent += self.until(|bench| match bench.try_write(end, &data[sent..]) {
                Poll::Ready(written) => Some(written.unwrap()),
                Poll::Pending => None,
            });
        }
    }

    fn read(&mut self, end: EndId) -> io::Result<Bytes> {
        self.until(|bench| {
            let mut buffer = BytesMut::new();
            match bench.net.read(end, &mut buffer, 65_536, bench.now) {
                Poll::Ready(read) => Some(read.map(|_| buffer.freeze())),
                Poll::Pending => None,
            }
        })
    }

    fn read_all(&mut self, end: EndId) -> io::Result<Bytes> {
        let mut all = BytesMut::new();
        loop {
            let part = self.read(end)?;
            if part.is_empty() {
                return Ok(all.freeze());
            }
            all.extend_from_slice(&part);
        }
    }

    fn is_silent(&mut self, end: EndId) -> bool {
        self.net.read(end, &mut BytesMut::new(), 1, self.now).is_pending()
    }

    fn struck(&self, kind: &str) -> u64 {
        self.net.events.counter(kind)
    }
}

#[test]
fn bytes_arrive_in_order_after_a_while_and_then_the_end() {
    for seed in 0..20 {
        let mut bench = Bench::new(seed);
        let (client, server) = bench.connection();
        let sent_at = bench.now;
        bench.write(client, b"hello ");
        bench.write(client, b"world");
        assert!(bench.is_silent(server), "nothing arrives at once");
        bench.net.shutdown(client, bench.now).unwrap();
        assert_eq!(bench.read_all(server).unwrap(), "hello world");
        assert!(bench.now - sent_at >= micros(50));
        bench.write(server, b"still open");
        assert!(b"still open".starts_with(&bench.read(client).unwrap()));
        let after_the_end = bench.try_write(client, b"x");
        assert!(
            matches!(after_the_end, Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe)
        );
    }
}

#[test]
fn a_writer_waits_while_the_peer_does_not_read() {
    let profile = NetProfile { window_bytes: (1000, 1000), ..quiet() };
    let mut bench = Bench::with_profile(1, profile);
    let (client, server) = bench.connection();
    let mut sent = 0;
    while let Poll::Ready(written) = bench.try_write(client, &[7; 300]) {
        sent += written.unwrap();
    }
    assert_eq!(sent, 1000);
    bench.pass(Duration::from_secs(60));
    assert!(bench.try_write(client, b"x").is_pending(), "arrived, but not read");
    assert_eq!(bench.net.ends[&client].state, State::Open, "a peer that does not read is not dead");
    let read = bench.read(server).unwrap();
    assert_eq!(read.len(), 1000);
    assert!(bench.try_write(client, b"x").is_pending(), "the room is known only after a while");
    bench.net.take_ready();
    bench.until(|bench| bench.net.take_ready().contains(&Ready::Writable(client)).then_some(()));
    assert!(bench.try_write(client, b"x").is_ready());
}

#[test]
fn writes_are_taken_in_part_and_arrive_in_pieces() {
    let (mut partial, mut pieces) = (0, 0);
    for seed in 0..200 {
        let mut bench = Bench::new(seed);
        let (client, server) = bench.connection();
        let Poll::Ready(Ok(written)) = bench.try_write(client, &[7; 100]) else { panic!("there is room") };
        partial += u32::from(written < 100);
        pieces += u32::from(bench.read(server).unwrap().len() < written);
    }
    assert!((5..60).contains(&partial) && (10..90).contains(&pieces), "{partial} {pieces}");
}

#[test]
fn a_port_without_a_listener_refuses_and_a_host_without_power_is_silent() {
    let mut bench = Bench::new(2);
    let refused = bench.net.connect(CLIENT, address(3), bench.now);
    assert_eq!(bench.connected(refused).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    assert!(bench.now < Instant::ORIGIN + Duration::from_millis(20), "at once");
    bench.net.host_down(3, bench.now);
    let start = bench.now;
    let silent = bench.net.connect(CLIENT, address(3), bench.now);
    assert_eq!(bench.connected(silent).unwrap_err().kind(), io::ErrorKind::TimedOut);
    assert!(bench.now - start >= Duration::from_secs(20));
    let unknown = bench.net.connect(CLIENT, "192.0.2.7:1".parse().unwrap(), bench.now);
    assert_eq!(bench.connected(unknown).unwrap_err().kind(), io::ErrorKind::TimedOut);
}

#[test]
fn an_opening_that_meets_a_cut_link_succeeds_after_the_link_is_mended() {
    for (from, to) in [(CLIENT, SERVER), (SERVER, CLIENT)] {
        let mut bench = Bench::new(3);
        bench.net.cut(from, to, bench.now);
        let client = bench.net.connect(CLIENT, address(SERVER), bench.now);
        bench.pass(Duration::from_secs(4));
        assert!(bench.net.connected(client).is_pending());
        bench.net.mend(from, to, bench.now);
        bench.connected(client).unwrap();
        bench.accept();
        assert!(bench.struck("fault.net.black_hole") > 0);
    }
}

#[test]
fn openings_overtake_each_other() {
    let overtaken = (0..50).any(|seed| {
        let mut bench = Bench::with_profile(seed, NetProfile { jitter: 3.0, ..quiet() });
        let ends: Vec<_> = (0..5).map(|_| bench.net.connect(CLIENT, address(SERVER), bench.now)).collect();
        let order: Vec<_> = ends.iter().map(|end| (bench.connected(*end).unwrap(), bench.now).1).collect();
        let ports: Vec<_> = (0..5).map(|_| bench.accept()).collect();
        let ports = ports.into_iter().map(|end| bench.net.addresses(end).unwrap().1.port());
        let ports: Vec<_> = ports.collect();
        order.len() == 5 && !ports.is_sorted()
    });
    assert!(overtaken);
}

#[test]
fn a_full_backlog_leaves_openings_unanswered_until_there_is_room() {
    let mut bench = Bench::with_profile(4, NetProfile { backlog: 2, ..quiet() });
    let ends: Vec<_> = (0..4).map(|_| bench.net.connect(CLIENT, address(SERVER), bench.now)).collect();
    bench.pass(Duration::from_millis(100));
    let late = bench.net.connect(CLIENT, address(SERVER), bench.now);
    bench.pass(Duration::from_millis(500));
    assert!(bench.net.connected(late).is_pending());
    for _ in 0..5 {
        bench.accept();
    }
    bench.connected(late).unwrap();
    assert_eq!(ends.len(), 4);
    assert!(bench.struck("net.backlog_full") > 0);
}

#[test]
fn an_opening_that_arrives_twice_gives_the_listener_a_dead_connection() {
    let mut bench = Bench::with_profile(5, NetProfile { duplication: 1.0, ..quiet() });
    let (_, first) = bench.connection();
    let second = bench.accept();
    let dead = [first, second].into_iter().filter(|end| bench.net.ends[end].peer == Some(EndId(u64::MAX)));
    let dead: Vec<_> = dead.collect();
    assert_eq!(bench.read(dead[0]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn an_abort_resets_the_peer_and_throws_away_what_was_on_its_way() {
    let mut bench = Bench::new(6);
    let (client, server) = bench.connection();
    bench.write(client, b"never seen");
    bench.net.abort(client, bench.now);
    assert_eq!(bench.read(server).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(bench.read(server).unwrap(), "", "told once");
    assert_eq!(bench.read(client).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn closing_with_unread_bytes_is_a_reset_and_without_an_end() {
    let mut bench = Bench::new(7);
    let (client, server) = bench.connection();
    bench.write(server, b"answer");
    bench.net.close(server, bench.now);
    assert_eq!(bench.read_all(client).unwrap(), "answer", "what was written still arrives");

    let (client, server) = bench.connection();
    bench.write(client, b"unread");
    bench.pass(Duration::from_secs(1));
    bench.net.close(server, bench.now);
    assert_eq!(bench.read(client).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn writing_to_a_closed_end_is_answered_with_a_reset() {
    let mut bench = Bench::new(8);
    let (client, server) = bench.connection();
    bench.net.close(server, bench.now);
    assert_eq!(bench.read(client).unwrap(), "");
    bench.write(client, b"into the void");
    let error = bench.until(|bench| match bench.try_write(client, b"x") {
        Poll::Ready(Err(error)) => Some(error),
        _ => {
            bench.pass(Duration::from_millis(1));
            None
        }
    });
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn a_killed_process_closes_its_sockets_and_its_host_refuses() {
    let mut bench = Bench::new(9);
    let (client, _) = bench.connection();
    let waiting = bench.net.connect(CLIENT, address(SERVER), bench.now);
    bench.connected(waiting).unwrap();
    bench.pass(Duration::from_secs(1));
    bench.net.process_died(SERVER, bench.now);
    assert_eq!(bench.read(client).unwrap(), "");
    let error = bench.read(waiting).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "nobody had accepted it");
    let again = bench.net.connect(CLIENT, address(SERVER), bench.now);
    assert_eq!(bench.connected(again).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
}

#[test]
fn a_host_that_lost_its_power_leaves_the_connection_half_open() {
    let mut bench = Bench::new(10);
    let (client, _) = bench.connection();
    bench.net.host_down(SERVER, bench.now);
    bench.pass(Duration::from_secs(600));
    assert!(bench.is_silent(client), "whoever only reads never learns of it");
    bench.write(client, b"hello?");
    let start = bench.now;
    assert_eq!(bench.read(client).unwrap_err().kind(), io::ErrorKind::TimedOut);
    assert!(bench.now - start >= Duration::from_secs(30));
}

#[test]
fn whoever_only_reads_finds_out_by_a_probe_hours_later() {
    for comes_back in [false, true] {
        let mut bench = Bench::new(10);
        let (client, _) = bench.connection();
        bench.net.host_down(SERVER, bench.now);
        let start = bench.now;
        if comes_back {
            bench.pass(Duration::from_secs(10));
            bench.net.host_up(SERVER, bench.now);
        }
        bench.pass(Duration::from_secs(7200));
        assert!(bench.is_silent(client));
        let expected = if comes_back { io::ErrorKind::ConnectionReset } else { io::ErrorKind::TimedOut };
        assert_eq!(bench.read(client).unwrap_err().kind(), expected);
        assert!(bench.now - start > Duration::from_secs(7800));
    }
}

#[test]
fn a_host_that_comes_back_resets_connections_that_it_does_not_know() {
    let mut bench = Bench::new(11);
    let (client, _) = bench.connection();
    bench.net.host_down(SERVER, bench.now);
    bench.write(client, b"hello?");
    bench.pass(Duration::from_secs(5));
    bench.net.host_up(SERVER, bench.now);
    assert_eq!(bench.read(client).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn a_death_behind_a_cut_link_is_not_seen_until_it_is_mended() {
    let mut bench = Bench::new(12);
    let (client, server) = bench.connection();
    bench.net.cut(SERVER, CLIENT, bench.now);
    bench.net.process_died(SERVER, bench.now);
    bench.pass(Duration::from_secs(20));
    assert!(bench.is_silent(client));
    bench.net.mend(SERVER, CLIENT, bench.now);
    assert_eq!(bench.read(client).unwrap(), "", "the end of the stream was sent again");
    assert!(!bench.net.ends.contains_key(&server));
}

#[test]
fn a_reset_behind_a_cut_link_is_lost_for_good() {
    let mut bench = Bench::new(13);
    let (client, server) = bench.connection();
    bench.net.cut(SERVER, CLIENT, bench.now);
    bench.net.abort(server, bench.now);
    bench.net.close(server, bench.now);
    bench.net.mend(SERVER, CLIENT, bench.now);
    bench.pass(Duration::from_secs(600));
    assert!(bench.is_silent(client), "half open until somebody writes");
    bench.write(client, b"hello?");
    assert_eq!(bench.read(client).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn bytes_that_meet_a_cut_link_arrive_after_it_is_mended() {
    let mut bench = Bench::new(14);
    let (client, server) = bench.connection();
    bench.net.cut(CLIENT, SERVER, bench.now);
    bench.write(client, b"held ");
    bench.pass(Duration::from_secs(10));
    bench.write(client, b"back");
    assert!(bench.is_silent(server));
    bench.write(server, b"the other way");
    assert_eq!(&bench.read(client).unwrap()[..3], b"the", "one-way");
    bench.net.mend(CLIENT, SERVER, bench.now);
    bench.net.shutdown(client, bench.now).unwrap();
    assert_eq!(bench.read_all(server).unwrap(), "held back");
}

#[test]
fn a_sender_that_hears_nothing_gives_up_even_if_its_bytes_arrive() {
    let mut bench = Bench::new(15);
    let (client, server) = bench.connection();
    bench.net.cut(SERVER, CLIENT, bench.now);
    bench.write(client, b"one-way");
    assert_eq!(bench.read(server).unwrap().first(), Some(&b'o'));
    let start = bench.now;
    assert_eq!(bench.read(client).unwrap_err().kind(), io::ErrorKind::TimedOut);
    assert!(bench.now - start > Duration::from_secs(25));
}

#[test]
fn a_clogged_host_is_cut_off_from_all_and_a_heal_mends_everything() {
    let mut bench = Bench::new(16);
    let (client, server) = bench.connection();
    bench.net.clog(SERVER, true, false, bench.now);
    assert!(bench.net.is_severed(CLIENT, SERVER) && bench.net.is_severed(3, SERVER));
    assert!(!bench.net.is_severed(SERVER, CLIENT) && !bench.net.is_severed(SERVER, SERVER));
    bench.net.cut(SERVER, CLIENT, bench.now);
    bench.write(client, b"x");
    bench.pass(Duration::from_secs(3));
    bench.net.mend_all(bench.now);
    assert_eq!(bench.read(server).unwrap(), "x");
}

#[test]
fn a_connection_reset_in_the_middle_leaves_a_part_of_a_frame() {
    let mut parts = 0;
    for seed in 0..50 {
        let mut bench = Bench::new(seed);
        let (client, server) = bench.connection();
        bench.write(client, &[7; 1000]);
        assert_eq!(bench.net.reset_connections(Some(CLIENT), None, 1.0, bench.now), 1);
        let mut got = 0;
        let error = loop {
            match bench.read(server) {
                Ok(bytes) => got += bytes.len(),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert!(got < 1000);
        parts += u32::from(got > 0);
        assert_eq!(bench.read(client).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
    assert!(parts > 25);
    let mut bench = Bench::new(1);
    bench.connection();
    assert_eq!(bench.net.reset_connections(Some(3), None, 1.0, bench.now), 0, "not theirs");
}

#[test]
fn a_slow_link_delays_by_latency_and_by_size() {
    let mut bench = Bench::with_profile(17, NetProfile { window_bytes: (1 << 20, 1 << 20), ..quiet() });
    let (client, server) = bench.connection();
    let slow = LinkQuality {
        latency: (Duration::from_millis(300), Duration::from_millis(310)),
        loss: 0.0,
        duplication: 0.0,
        bytes_per_second: 100_000,
    };
    bench.net.set_link(CLIENT, SERVER, Some(slow), bench.now);
    let start = bench.now;
    bench.write(client, &[1; 50_000]);
    bench.net.shutdown(client, bench.now).unwrap();
    assert_eq!(bench.read_all(server).unwrap().len(), 50_000);
    let took = bench.now - start;
    assert!(took >= Duration::from_millis(800) && took < Duration::from_millis(1200), "{took:?}");
}

#[test]
fn a_loss_delays_what_was_lost_and_all_that_follows() {
    let mut bench = Bench::with_profile(18, NetProfile { loss: 1.0, ..quiet() });
    let lossless = LinkQuality {
        latency: (micros(100), micros(100)),
        loss: 0.0,
        duplication: 0.0,
        bytes_per_second: 1_000_000_000,
    };
    for (from, to) in [(CLIENT, SERVER), (SERVER, CLIENT)] {
        bench.net.set_link(from, to, Some(lossless.clone()), bench.now);
    }
    let (client, server) = bench.connection();
    bench.net.set_link(CLIENT, SERVER, None, bench.now);
    let start = bench.now;
    bench.write(client, b"lost");
    bench.net.set_link(CLIENT, SERVER, Some(lossless), bench.now);
    bench.write(client, b" and behind");
    bench.net.shutdown(client, bench.now).unwrap();
    assert_eq!(bench.read_all(server).unwrap(), "lost and behind");
    assert!(bench.now - start >= Duration::from_millis(200));
}

#[test]
fn addresses_are_checked_and_ports_are_picked() {
    let mut bench = Bench::new(19);
    let kind = |result: io::Result<ListenerId>| result.unwrap_err().kind();
    assert_eq!(kind(bench.net.listen(SERVER, address(SERVER))), io::ErrorKind::AddrInUse);
    assert_eq!(kind(bench.net.listen(SERVER, address(CLIENT))), io::ErrorKind::AddrNotAvailable);
    let any = bench.net.listen(CLIENT, "0.0.0.0:0".parse().unwrap()).unwrap();
    let port = bench.net.listener_address(any).unwrap().port();
    let local = bench.net.connect(CLIENT, SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port), bench.now);
    bench.connected(local).unwrap();
    bench.net.close_listener(bench.listener, bench.now);
    bench.listener = bench.net.listen(SERVER, address(SERVER)).unwrap();
    bench.connection();
}

#[test]
fn nothing_is_left_of_connections_that_are_over() {
    let mut bench = Bench::new(20);
    for _ in 0..20 {
        let (client, server) = bench.connection();
        bench.write(client, b"x");
        bench.read(server).unwrap();
        bench.net.close(client, bench.now);
        bench.read(server).unwrap();
        bench.net.close(server, bench.now);
    }
    bench.pass(Duration::from_secs(120));
    assert!(bench.net.ends.is_empty(), "{:?}", bench.net.ends);
    assert_eq!(bench.net.next_event(), None);
}
