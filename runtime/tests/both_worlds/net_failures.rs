//! Connections that end badly: who learns what, and how.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use weir_runtime::net::{Listener, Reader, Stream, Writer};
use weir_runtime::{task, time};

use crate::both_worlds;
use crate::harness::Place;
use crate::net_streams::{rest, send};

both_worlds!(
    a_closed_port_refuses,
    a_dropped_listener_refuses,
    a_port_has_one_listener,
    a_foreign_address_cannot_be_listened_on,
    a_peer_that_closes_is_the_end_of_the_stream,
    writing_to_a_peer_that_is_gone_ends_with_an_error,
    an_abort_is_a_reset_for_the_peer,
    an_abort_wakes_this_ends_reader,
    an_abort_ends_a_peer_that_waits_to_write,
    closing_with_unread_data_is_a_reset,
);

/// Writes until it fails.
async fn write_until_error(writer: &mut Writer) -> io::Error {
    loop {
        let mut chunks = VecDeque::from([Bytes::from_static(b"more")]);
        match writer.write_all(&mut chunks).await {
            Ok(()) => time::sleep(Duration::from_millis(5)).await,
            Err(error) => return error,
        }
    }
}

/// Reads until it fails or ends.
async fn read_until_error(reader: &mut Reader) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    while reader.read(&mut buffer, 64 * 1024).await? > 0 {
        buffer.clear();
    }
    Ok(())
}

async fn a_closed_port_refuses(place: Place) {
    let error = Stream::connect(SocketAddr::new(place.ip, 1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

async fn a_dropped_listener_refuses(place: Place) {
    let (listener, address) = place.listener().await;
    let (accepted, connected) = (task::spawn("connect", Stream::connect(address)), listener.accept().await);
    let connections = (accepted.await.unwrap().unwrap(), connected.unwrap());
    drop(listener);
    let error = Stream::connect(address).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    drop(connections);
    // At once, in spite of the old connections: a broker that restarts wants its port.
    Listener::bind(address).await.unwrap();
}

async fn a_port_has_one_listener(place: Place) {
    let (_listener, address) = place.listener().await;
    assert_eq!(Listener::bind(address).await.unwrap_err().kind(), ErrorKind::AddrInUse);
}

async fn a_foreign_address_cannot_be_listened_on(_place: Place) {
    let foreign: SocketAddr = "192.0.2.1:0".parse().unwrap();
    assert_eq!(Listener::bind(foreign).await.unwrap_err().kind(), ErrorKind::AddrNotAvailable);
}

async fn a_peer_that_closes_is_the_end_of_the_stream(place: Place) {
    let (client, server) = place.connection().await;
    let (mut reader, mut writer) = server.into_split();
    send(&mut writer, "goodbye").await;
    drop((reader, writer));
    (reader, writer) = client.into_split();
    assert_eq!(rest(&mut reader).await, "goodbye");
    drop(writer);
}

async fn writing_to_a_peer_that_is_gone_ends_with_an_error(place: Place) {
    let (client, server) = place.connection().await;
    drop(server);
    let (_reader, mut writer) = client.into_split();
    let error = write_until_error(&mut writer).await;
    assert!(matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{error:?}");
}

async fn an_abort_is_a_reset_for_the_peer(place: Place) {
    let (client, server) = place.connection().await;
    let (reader, mut writer) = client.into_split();
    send(&mut writer, "lost or not").await;
    writer.abort();
    let (mut peer_reader, mut peer_writer) = server.into_split();
    let error = read_until_error(&mut peer_reader).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let error = write_until_error(&mut peer_writer).await;
    assert!(matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{error:?}");
    drop(reader);
}

async fn an_abort_wakes_this_ends_reader(place: Place) {
    let (client, _server) = place.connection().await;
    let (mut reader, writer) = client.into_split();
    let reading = task::spawn("read", async move { read_until_error(&mut reader).await });
    time::sleep(Duration::from_millis(20)).await;
    writer.abort();
    let error = reading.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

async fn an_abort_ends_a_peer_that_waits_to_write(place: Place) {
    let (client, server) = place.connection().await;
    let (_client_reader, client_writer) = client.into_split();
    let (_server_reader, mut server_writer) = server.into_split();
    let writing = task::spawn("write", async move {
        let mut chunks: VecDeque<Bytes> = (0..1024).map(|_| Bytes::from_static(&[7; 64 * 1024])).collect();
        server_writer.write_all(&mut chunks).await
    });
    time::sleep(Duration::from_millis(100)).await;
    assert!(!writing.is_finished(), "it waits for the reader");
    client_writer.abort();
    let error = writing.await.unwrap().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{error:?}");
}

async fn closing_with_unread_data_is_a_reset(place: Place) {
    let (client, server) = place.connection().await;
    let (mut reader, mut writer) = client.into_split();
    let (server_reader, server_writer) = server.into_split();
    send(&mut writer, "never read").await;
    time::sleep(Duration::from_millis(50)).await;
    drop((server_reader, server_writer));
    match read_until_error(&mut reader).await {
        // Dropping the writer first sends a proper end, dropping the reader then resets: the peer may see either first.
        Ok(()) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
    let error = write_until_error(&mut writer).await;
    assert!(matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{error:?}");
}
