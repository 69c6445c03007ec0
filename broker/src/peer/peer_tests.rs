//! Two nodes that talk, in the world of this build.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;
use weir_protocol::raft::{Message, Term};
use weir_protocol::types::{FolderId, Incarnation, VoterId};
use weir_runtime::net::{Listener, Stream};
use weir_runtime::{time, watch};

use super::handshake::{Accepted, Answer, Credentials, HandshakeError, VERSIONS, Versions};
use super::link::{Call, CallAnswer};
use super::server::{ReplicaLane, serve};
use super::*;
use crate::both_worlds::{Site, scenarios};
use crate::node::StartError;
use crate::server::Stage;

scenarios!(
    answers_come_in_any_order,
    a_node_that_comes_back_is_reached_again,
    a_lost_connection_ends_the_waiting_at_once,
    a_peer_that_stops_is_noticed_within_a_second_or_so,
    a_peer_that_accepts_and_says_nothing_is_noticed,
    nobody_answers_and_nobody_takes_the_question,
    a_wrong_secret_is_named_on_both_sides,
    another_clusters_node_is_refused,
    who_turns_out_to_be_a_stranger_is_not_heard_any_more,
    another_node_at_the_address_is_refused,
    an_unknown_version_is_named,
    garbage_costs_its_sender_the_connection_only,
    notes_in_anothers_name_are_not_delivered,
    a_node_is_lost_with_its_newest_lane,
    replicas_records_pass_as_they_are,
    a_later_life_of_a_peer_ends_the_connection_to_the_former_one,
    questions_to_nobody_and_to_oneself_need_no_connection,
    without_a_secret_only_this_machine_is_served,
);

fn identity(node: i32) -> Identity {
    Identity {
        node: BrokerId(node),
        folder: FolderId(Uuid::from_u128(node as u128)),
        incarnation: Incarnation(1),
    }
}

fn voter(node: i32) -> VoterId {
    VoterId { broker: BrokerId(node), folder: identity(node).folder }
}

pub(super) fn setup(node: i32, secret: &str) -> PeerSetup {
    PeerSetup {
        me: identity(node),
        secret: Some(Secret::new(secret)),
        tail_bytes_max: 1 << 20,
        timing: PeerTiming::default(),
        metrics: Arc::default(),
    }
}

/// A node that listens.
pub(super) struct Served {
    pub(super) address: SocketAddr,
    peers: Peers,
    pub(super) arrivals: Arrivals,
    replicas: mpsc::Receiver<ReplicaLane>,
    stage: watch::Sender<Stage>,
}

impl Served {
    pub(super) async fn new(ip: IpAddr, node: i32) -> Served {
        Served::on(SocketAddr::new(ip, 0), node, "secret").await
    }

    async fn on(address: SocketAddr, node: i32, secret: &str) -> Served {
        let listener = loop {
            match Listener::bind(address).await {
                Ok(listener) => break listener,
                // Its last owner is about to let it go.
                Err(_) => task::yield_now().await,
            }
        };
        let address = listener.local_addr().unwrap();
        let (inboxes, arrivals) = Inboxes::new();
        let peers = Peers::connecting(setup(node, secret), inboxes);
        let (lanes, replicas) = mpsc::channel(4);
        let (stage, reader) = watch::channel(Stage::Running);
        task::spawn("server", serve(listener, peers.clone(), lanes, reader));
        Served { address, peers, arrivals, replicas, stage }
    }

    fn stop(&self) {
        self.stage.send_replace(Stage::Cut);
    }

    pub(super) async fn quorum(&mut self) -> Asked<QuorumQuestion, QuorumReply> {
        self.arrivals.quorum.recv().await.expect("a question")
    }
}

/// A node that only asks.
pub(super) fn asker(node: i32, secret: &str, to: &[(i32, SocketAddr)]) -> Peers {
    let (inboxes, _arrivals) = Inboxes::new();
    let peers = Peers::connecting(setup(node, secret), inboxes);
    reach(&peers, to);
    peers
}

fn reach(peers: &Peers, to: &[(i32, SocketAddr)]) {
    let address = |at: &SocketAddr| (at.ip().to_string(), at.port());
    peers.set_addresses(to.iter().map(|(node, at)| (BrokerId(*node), address(at))));
}

pub(super) fn question(node: i32) -> QuorumQuestion {
    QuorumQuestion::Introduce { me: voter(node), may_vote: true, at: None }
}

pub(super) fn introduced(node: i32) -> QuorumReply {
    QuorumReply::Introduced { me: voter(node), belongs: None }
}

pub(super) fn ask(peers: &Peers, to: i32, of: i32) -> task::JoinHandle<Result<QuorumReply, PeerError>> {
    let peers = peers.clone();
    task::spawn("asker", async move { peers.ask(BrokerId(to), question(of)).await })
}

pub(super) fn note(from: i32, term: Term) -> Note {
    Note::Raft(Envelope {
        from: voter(from),
        to: voter(1),
        message: Message::VoteAnswer { term, granted: true },
    })
}

async fn answers_come_in_any_order(Site { ip, .. }: Site) {
    let mut server = Served::new(ip, 1).await;
    let peers = asker(2, "secret", &[(1, server.address)]);
    let asks: Vec<_> = (10..20).map(|of| ask(&peers, 1, of)).collect();
    let mut asked = Vec::new();
    while asked.len() < asks.len() {
        let question = server.quorum().await;
        assert_eq!(question.from, BrokerId(2));
        asked.push(question);
    }
    for asked in asked.into_iter().rev() {
        let QuorumQuestion::Introduce { me, .. } = asked.question else { panic!("{asked:?}") };
        asked.reply.send(QuorumReply::Introduced { me, belongs: None }).unwrap();
    }
    for (of, ask) in (10..20).zip(asks) {
        assert_eq!(ask.await.unwrap(), Ok(introduced(of)));
    }
}

async fn a_node_that_comes_back_is_reached_again(Site { ip, .. }: Site) {
    let mut server = Served::new(ip, 1).await;
    let peers = asker(2, "secret", &[(1, server.address)]);
    for _ in 0..3 {
        let asking = ask(&peers, 1, 7);
        server.quorum().await.reply.send(introduced(1)).unwrap();
        assert_eq!(asking.await.unwrap(), Ok(introduced(1)));
        server.stop();
        while ask(&peers, 1, 7).await.unwrap() != Err(PeerError::Unreachable(BrokerId(1))) {}
        server = Served::on(server.address, 1, "secret").await;
        let answering = async {
            loop {
                let Ok(QuorumReply::Introduced { .. }) = peers.ask(BrokerId(1), question(7)).await else {
                    time::sleep(Duration::from_millis(5)).await;
                    continue;
                };
                break;
            }
        };
        weir_runtime::select! {
            () = answering => {}
            () = async { loop { server.quorum().await.reply.send(introduced(1)).unwrap(); } } => {}
        }
    }
}

async fn a_lost_connection_ends_the_waiting_at_once(Site { ip, .. }: Site) {
    let mut server = Served::new(ip, 1).await;
    let peers = asker(2, "secret", &[(1, server.address)]);
    let asks = [ask(&peers, 1, 7), ask(&peers, 1, 8)];
    let _unanswered = [server.quorum().await, server.quorum().await];
    let stopped = time::now();
    server.stop();
    for ask in asks {
        assert_eq!(ask.await.unwrap(), Err(PeerError::Lost(BrokerId(1))));
    }
    assert!(stopped.elapsed() < Duration::from_millis(400), "{:?}", stopped.elapsed());
}

/// A node that shakes hands and is then as good as stopped.
async fn dumb(ip: IpAddr, node: i32) -> (SocketAddr, task::JoinHandle<Vec<Accepted>>) {
    let listener = Listener::bind(SocketAddr::new(ip, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepting = task::spawn("dumb", async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mine = Credentials { me: identity(node), cluster: None, secret: b"secret" };
        let limits = |lane| setup(node, "").limits(lane);
        vec![handshake::accept(stream, mine, limits).await.expect("a handshake")]
    });
    (address, accepting)
}

async fn a_peer_that_stops_is_noticed_within_a_second_or_so(Site { ip, .. }: Site) {
    let (address, accepting) = dumb(ip, 1).await;
    let peers = asker(2, "secret", &[(1, address)]);
    let asked = time::now();
    let asking = ask(&peers, 1, 7);
    let _held = accepting.await.unwrap();
    assert_eq!(asking.await.unwrap(), Err(PeerError::Lost(BrokerId(1))));
    let waited = asked.elapsed();
    assert!((Duration::from_millis(900)..Duration::from_millis(1_800)).contains(&waited), "{waited:?}");
}

async fn a_peer_that_accepts_and_says_nothing_is_noticed(Site { ip, .. }: Site) {
    let listener = Listener::bind(SocketAddr::new(ip, 0)).await.unwrap();
    let peers = asker(2, "secret", &[(1, listener.local_addr().unwrap())]);
    let asked = time::now();
    assert_eq!(ask(&peers, 1, 7).await.unwrap(), Err(PeerError::Unreachable(BrokerId(1))));
    assert!(asked.elapsed() < Duration::from_millis(2_500), "{:?}", asked.elapsed());
}

async fn nobody_answers_and_nobody_takes_the_question(Site { ip, .. }: Site) {
    let mut server = Served::new(ip, 1).await;
    let peers = asker(2, "secret", &[(1, server.address)]);
    let asking = ask(&peers, 1, 7);
    drop(server.quorum().await);
    assert_eq!(asking.await.unwrap(), Err(PeerError::Overloaded(BrokerId(1))));
    let (_, replaced) = mpsc::channel(1);
    drop(std::mem::replace(&mut server.arrivals.quorum, replaced));
    assert_eq!(ask(&peers, 1, 7).await.unwrap(), Err(PeerError::Overloaded(BrokerId(1))));
}

async fn a_wrong_secret_is_named_on_both_sides(Site { ip, .. }: Site) {
    let server = Served::new(ip, 1).await;
    let peers = asker(2, "another", &[(1, server.address)]);
    let refused = PeerError::Refused(BrokerId(1), Refusal::WrongSecret);
    assert_eq!(ask(&peers, 1, 7).await.unwrap(), Err(refused.clone()));
    assert_eq!(peers.open_replica_lane(BrokerId(1)).await.expect_err("refused"), refused);
    let shut_out =
        time::timeout(Duration::from_millis(100), peers.shut_out(&[BrokerId(1), BrokerId(3)])).await;
    assert!(shut_out.is_err(), "nobody knows yet what the third would say");
    assert_eq!(peers.shut_out(&[BrokerId(1)]).await, refused);
    // The side that accepts.
    let listener = Listener::bind(SocketAddr::new(ip, 0)).await.unwrap();
    reach(&peers, &[(3, listener.local_addr().unwrap())]);
    let asking = ask(&peers, 3, 7);
    let (stream, _) = listener.accept().await.unwrap();
    let mine = Credentials { me: identity(3), cluster: None, secret: b"secret" };
    let refused = handshake::accept(stream, mine, |lane| setup(3, "").limits(lane)).await;
    assert!(matches!(refused, Err(HandshakeError::Refused(Refusal::WrongSecret))), "{refused:?}");
    assert!(asking.await.unwrap().is_err());
}

async fn another_clusters_node_is_refused(Site { ip, .. }: Site) {
    let mut server = Served::new(ip, 1).await;
    let (ours, theirs) = (Uuid::from_u128(1), Uuid::from_u128(2));
    server.peers.set_cluster_id(ours);
    let stranger = asker(2, "secret", &[(1, server.address)]);
    stranger.set_cluster_id(theirs);
    let refused = PeerError::Refused(BrokerId(1), Refusal::OtherCluster { ours, theirs });
    assert_eq!(ask(&stranger, 1, 7).await.unwrap(), Err(refused));
    // Who does not belong anywhere yet may ask.
    let newcomer = asker(3, "secret", &[(1, server.address)]);
    let asking = ask(&newcomer, 1, 7);
    server.quorum().await.reply.send(introduced(1)).unwrap();
    assert_eq!(asking.await.unwrap(), Ok(introduced(1)));
}

async fn who_turns_out_to_be_a_stranger_is_not_heard_any_more(Site { ip, .. }: Site) {
    let mut server = Served::new(ip, 1).await;
    let stranger = asker(2, "secret", &[(1, server.address)]);
    stranger.set_cluster_id(Uuid::from_u128(2));
    let asking = ask(&stranger, 1, 7);
    server.quorum().await.reply.send(introduced(1)).unwrap();
    assert_eq!(asking.await.unwrap(), Ok(introduced(1)), "node 1 belongs nowhere yet");
    server.peers.set_cluster_id(Uuid::from_u128(1));
    assert_eq!(ask(&stranger, 1, 7).await.unwrap(), Err(PeerError::Lost(BrokerId(1))));
    assert!(server.arrivals.quorum.try_recv().is_err(), "the question is not delivered");
}

async fn another_node_at_the_address_is_refused(Site { ip, .. }: Site) {
    let server = Served::new(ip, 1).await;
    let peers = asker(2, "secret", &[(3, server.address)]);
    let why = Refusal::OtherNode { wanted: BrokerId(3), found: BrokerId(1) };
    assert_eq!(ask(&peers, 3, 7).await.unwrap(), Err(PeerError::Refused(BrokerId(3), why)));
}

async fn an_unknown_version_is_named(Site { ip, .. }: Site) {
    let server = Served::new(ip, 1).await;
    let limits = FrameLimits { head_bytes_max: 1 << 10, tail_bytes_max: 0 };
    let (mut reader, mut writer) = lane::split(Stream::connect(server.address).await.unwrap(), limits);
    let newer = Versions { min: 7, max: 9 };
    writer.send(&(b"WEIR", newer, Bytes::from_static(b"of the future")), []).await.unwrap();
    let (answer, _) = reader.receive::<Answer<()>>().await.unwrap();
    let Answer::Refused(refusal) = answer else { panic!("{answer:?}") };
    assert_eq!(refusal, Refusal::UnknownVersion { ours: VERSIONS, theirs: newer });
}

async fn garbage_costs_its_sender_the_connection_only(Site { ip, .. }: Site) {
    let mut server = Served::new(ip, 1).await;
    let peers = asker(2, "secret", &[(1, server.address)]);
    let asking = ask(&peers, 1, 7);
    let asked = server.quorum().await;
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 40], &[0; 40], b"\0\0\0\x04\0\0\0\0\0\0\0\0WEIR"]
    {
        let (mut reader, mut writer) = Stream::connect(server.address).await.unwrap().into_split();
        writer.write_all(&mut VecDeque::from([Bytes::from_static(garbage)])).await.unwrap();
        let mut rest = BytesMut::new();
        while reader.read(&mut rest, 1 << 10).await.is_ok_and(|read| read > 0) {}
    }
    // One that knows the secret and then talks nonsense.
    let (mut reader, mut writer) = lane_as(identity(4), server.address).await;
    writer.send(&(99u8, "nonsense"), []).await.unwrap();
    assert!(reader.receive::<CallAnswer>().await.is_err());
    assert_eq!(server.arrivals.lost.recv().await.map(|node| node.broker), Some(BrokerId(4)));
    asked.reply.send(introduced(1)).unwrap();
    assert_eq!(asking.await.unwrap(), Ok(introduced(1)), "the others notice nothing");
}

/// A control lane to node 1.
async fn lane_as(me: Identity, to: SocketAddr) -> (PeerReader, PeerWriter) {
    let stream = Stream::connect(to).await.unwrap();
    let mine = Credentials { me, cluster: None, secret: b"secret" };
    let limits = setup(1, "").limits(Lane::Control);
    let (_, reader, writer) =
        handshake::connect(stream, mine, Lane::Control, BrokerId(1), limits).await.expect("a handshake");
    (reader, writer)
}

async fn notes_in_anothers_name_are_not_delivered(Site { ip, .. }: Site) {
    let mut server = Served::new(ip, 1).await;
    let peers = asker(2, "secret", &[(1, server.address)]);
    peers.tell(BrokerId(1), note(3, 1));
    assert_eq!(server.arrivals.lost.recv().await.map(|node| node.broker), Some(BrokerId(2)));
    assert!(server.arrivals.raft.try_recv().is_err());
    loop {
        peers.tell(BrokerId(1), note(2, 5));
        if let Ok(Some(envelope)) =
            time::timeout(Duration::from_millis(20), server.arrivals.raft.recv()).await
        {
            assert_eq!(Note::Raft(envelope), note(2, 5));
            break;
        }
    }
}

async fn a_node_is_lost_with_its_newest_lane(Site { ip, .. }: Site) {
    let mut server = Served::new(ip, 1).await;
    let (mut reader, mut writer) = lane_as(identity(2), server.address).await;
    let (mut newer_reader, mut newer_writer) = lane_as(identity(2), server.address).await;
    for (reader, writer) in [(&mut reader, &mut writer), (&mut newer_reader, &mut newer_writer)] {
        writer.send(&Call::Ping(1), []).await.unwrap();
        assert!(matches!(reader.receive().await.unwrap().0, CallAnswer::Pong(1)));
    }
    drop((reader, writer));
    assert!(time::timeout(Duration::from_millis(100), server.arrivals.lost.recv()).await.is_err());
    newer_writer.abort();
    assert_eq!(server.arrivals.lost.recv().await.map(|node| node.broker), Some(BrokerId(2)));
}

async fn replicas_records_pass_as_they_are(Site { ip, .. }: Site) {
    let mut server = Served::new(ip, 1).await;
    let peers = asker(2, "secret", &[(1, server.address)]);
    let (mut reader, mut writer) = peers.open_replica_lane(BrokerId(1)).await.unwrap();
    let mut lane = server.replicas.recv().await.unwrap();
    assert_eq!(lane.from, identity(2));
    let chunks = [Bytes::from(vec![1; 300_000]), Bytes::new(), Bytes::from(vec![2; 700_000])];
    let sending = task::spawn("sender", async move {
        for round in 0..3u32 {
            lane.writer.send(&round, chunks.clone()).await.unwrap();
        }
        assert!(lane.writer.send(&4u32, [Bytes::from(vec![0; (1 << 20) + 1])]).await.is_err());
        lane.writer.send(&5u32, []).await.unwrap();
        lane.reader.receive::<String>().await.unwrap()
    });
    for round in 0..3u32 {
        let (head, tail) = reader.receive::<u32>().await.unwrap();
        assert_eq!((head, tail.len()), (round, 1_000_000));
        assert!(
            tail[..300_000].iter().all(|byte| *byte == 1) && tail[300_000..].iter().all(|byte| *byte == 2)
        );
    }
    let (head, tail) = reader.receive::<u32>().await.unwrap();
    assert_eq!((head, tail.len()), (5, 0), "a frame that is too large was not begun");
    writer.send("fetch", []).await.unwrap();
    assert_eq!(sending.await.unwrap(), ("fetch".to_owned(), Bytes::new()));
}

async fn a_later_life_of_a_peer_ends_the_connection_to_the_former_one(Site { ip, .. }: Site) {
    let (address, accepting) = dumb(ip, 2).await;
    let server = Served::new(ip, 1).await;
    reach(&server.peers, &[(2, address)]);
    let asked = time::now();
    let asking = ask(&server.peers, 2, 7);
    let _held = accepting.await.unwrap();
    let same = lane_as(identity(2), server.address).await;
    let next = Identity { incarnation: Incarnation(2), ..identity(2) };
    let later = lane_as(next, server.address).await;
    assert_eq!(asking.await.unwrap(), Err(PeerError::Lost(BrokerId(2))));
    assert!(asked.elapsed() < Duration::from_millis(700), "not by silence: {:?}", asked.elapsed());
    drop((same, later));
}

async fn questions_to_nobody_and_to_oneself_need_no_connection(_: Site) {
    let (inboxes, mut arrivals) = Inboxes::new();
    let peers = Peers::connecting(setup(1, ""), inboxes);
    assert_eq!(ask(&peers, 9, 7).await.unwrap(), Err(PeerError::Unreachable(BrokerId(9))));
    let asking = ask(&peers, 1, 7);
    let asked = arrivals.quorum.recv().await.unwrap();
    asked.reply.send(introduced(1)).unwrap();
    assert_eq!(asking.await.unwrap(), Ok(introduced(1)));
    peers.close();
    assert_eq!(ask(&peers, 2, 7).await.unwrap(), Err(PeerError::Unreachable(BrokerId(2))));
}

async fn without_a_secret_only_this_machine_is_served(Site { ip, .. }: Site) {
    let everywhere = server::bind("0.0.0.0:0", None).await;
    assert!(matches!(everywhere, Err(StartError::NoSecret { .. })), "{everywhere:?}");
    let empty = Secret::new("");
    let everywhere = server::bind("0.0.0.0:0", Some(&empty)).await;
    assert!(matches!(everywhere, Err(StartError::NoSecret { .. })), "{everywhere:?}");
    if ip.is_loopback() {
        server::bind("127.0.0.1:0", None).await.expect("loopback needs no secret");
    }
    let secret = Secret::new("secret");
    server::bind(&format!("{ip}:0"), Some(&secret)).await.expect("with a secret it listens anywhere");
}
