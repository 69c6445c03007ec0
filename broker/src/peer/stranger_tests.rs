//! Who does not know the secret gets nowhere, whatever it has heard or speaks.

use std::collections::VecDeque;
use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use weir_runtime::net::{Listener, Reader, Stream};
use weir_runtime::task;
use weir_wire::internal;
use weir_wire::peer_frame::{self, FrameLimits, Progress};

use super::handshake::Answer;
use super::tests::{Served, ask, asker, introduced};
use super::*;
use crate::both_worlds::{Site, scenarios};

scenarios!(
    a_handshake_that_was_overheard_does_not_work_again,
    what_a_node_says_is_no_proof_to_itself,
    whoever_speaks_kafka_to_the_internal_listener_gets_no_answer
);

/// Reads what a peer sends until it hangs up.
async fn until_hung_up(reader: &mut Reader) -> BytesMut {
    let mut received = BytesMut::new();
    while reader.read(&mut received, 1 << 10).await.is_ok_and(|read| read > 0) {}
    received
}

/// Passes one connection on, and keeps what the side that has connected says.
async fn overhear(listener: Listener, to: SocketAddr, heard: Arc<Mutex<BytesMut>>) {
    let (stream, _) = listener.accept().await.unwrap();
    let (mut from_client, mut to_client) = stream.into_split();
    let (mut from_server, mut to_server) = Stream::connect(to).await.unwrap().into_split();
    let (mut asked, mut answered) = (BytesMut::new(), BytesMut::new());
    loop {
        let passed = weir_runtime::select! {
            read = from_client.read(&mut asked, 1 << 10) => {
                locked(&heard).extend_from_slice(&asked);
                read.map(|read| (read, &mut to_server, asked.split().freeze()))
            }
            read = from_server.read(&mut answered, 1 << 10) => {
                read.map(|read| (read, &mut to_client, answered.split().freeze()))
            }
        };
        match passed {
            Ok((read, on, bytes)) if read > 0 => on.write_all(&mut VecDeque::from([bytes])).await.unwrap(),
            _ => return,
        }
    }
}

fn next_frame(received: &mut BytesMut) -> Bytes {
    let limits = FrameLimits { head_bytes_max: 4 << 10, tail_bytes_max: 0 };
    match peer_frame::take(received, limits) {
        Ok(Progress::Frame { head, .. }) => head,
        other => panic!("no frame: {other:?}"),
    }
}

async fn a_handshake_that_was_overheard_does_not_work_again(Site { ip, .. }: Site) {
    let mut server = Served::new(ip, 1).await;
    let listener = Listener::bind(SocketAddr::new(ip, 0)).await.unwrap();
    let peers = asker(2, "secret", &[(1, listener.local_addr().unwrap())]);
    let heard: Arc<Mutex<BytesMut>> = Arc::default();
    task::spawn("between", overhear(listener, server.address, Arc::clone(&heard)));
    let asking = ask(&peers, 1, 2);
    server.quorum().await.reply.send(introduced(1)).unwrap();
    assert_eq!(asking.await.unwrap(), Ok(introduced(1)));
    // The same opening, proof and question on a connection of its own.
    let (mut reader, mut writer) = Stream::connect(server.address).await.unwrap().into_split();
    let said = locked(&heard).clone().freeze();
    writer.write_all(&mut VecDeque::from([said])).await.unwrap();
    let mut answers = until_hung_up(&mut reader).await;
    next_frame(&mut answers); // the welcome, with another nonce than the first time
    let refused: Answer<()> = internal::decode(&next_frame(&mut answers), 4 << 10).unwrap();
    assert!(matches!(refused, Answer::Refused(Refusal::WrongSecret)), "{refused:?}");
    assert!(answers.is_empty(), "nothing else is said");
    assert!(server.arrivals.quorum.try_recv().is_err(), "the question is not delivered");
}

async fn what_a_node_says_is_no_proof_to_itself(Site { ip, .. }: Site) {
    let server = Served::new(ip, 1).await;
    // Node 1 looks for node 2, and its own words are given back to it.
    let listener = Listener::bind(SocketAddr::new(ip, 0)).await.unwrap();
    let peers = asker(1, "secret", &[(2, listener.local_addr().unwrap())]);
    let asking = ask(&peers, 2, 1);
    task::spawn("mirror", overhear(listener, server.address, Arc::default()));
    let why = Refusal::OtherNode { wanted: BrokerId(2), found: BrokerId(1) };
    assert_eq!(asking.await.unwrap(), Err(PeerError::Refused(BrokerId(2), why)));
}

async fn whoever_speaks_kafka_to_the_internal_listener_gets_no_answer(Site { ip, .. }: Site) {
    let mut server = Served::new(ip, 1).await;
    // ApiVersions 3 and Metadata 1, as clients begin.
    let requests: [&[u8]; 2] = [
        b"\0\0\0\x1c\0\x12\0\x03\0\0\0\x01\0\x04kcat\0\x05kcat\x061.7.1\0",
        b"\0\0\0\x12\0\x03\0\x01\0\0\0\x01\0\x04kcat\xff\xff\xff\xff",
    ];
    for request in requests {
        let (mut reader, mut writer) = Stream::connect(server.address).await.unwrap().into_split();
        writer.write_all(&mut VecDeque::from([Bytes::from_static(request)])).await.unwrap();
        assert!(until_hung_up(&mut reader).await.is_empty(), "a Kafka client must not see an answer");
    }
    let asking = ask(&asker(2, "secret", &[(1, server.address)]), 1, 2);
    server.quorum().await.reply.send(introduced(1)).unwrap();
    assert_eq!(asking.await.unwrap(), Ok(introduced(1)), "nodes notice nothing");
}
