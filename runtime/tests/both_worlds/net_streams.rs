//! Connections while all is well.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use weir_runtime::net::{Reader, Stream, Writer, resolve};
use weir_runtime::{task, time};

use crate::both_worlds;
use crate::harness::Place;

both_worlds!(
    chunks_arrive_in_order,
    a_read_takes_at_most_what_it_asks_for,
    a_read_waits_for_data_and_loses_none_when_it_is_dropped,
    accepting_can_be_dropped_without_losing_a_connection,
    a_shutdown_ends_one_direction_only,
    a_dropped_writer_is_a_shutdown,
    a_reader_that_does_not_read_makes_the_writer_wait,
    addresses_are_resolved,
);

pub(crate) async fn send(writer: &mut Writer, text: &'static str) {
    writer.write_all(&mut VecDeque::from([Bytes::from_static(text.as_bytes())])).await.unwrap();
}

/// Reads to the end of the stream.
pub(crate) async fn rest(reader: &mut Reader) -> BytesMut {
    let mut buffer = BytesMut::new();
    while reader.read(&mut buffer, 64 * 1024).await.unwrap() > 0 {}
    buffer
}

async fn chunks_arrive_in_order(place: Place) {
    let (client, server) = place.connection().await;
    let (_reader, mut writer) = client.into_split();
    let (mut reader, _writer) = server.into_split();
    // More chunks than one call takes, of many sizes, empty ones among them.
    let mut chunks: VecDeque<Bytes> =
        (0..1000usize).map(|n| Bytes::from((n as u16).to_be_bytes().repeat(n % 300))).collect();
    let expected: Vec<u8> = chunks.iter().flatten().copied().collect();
    let sending = task::spawn("send", async move {
        writer.write_all(&mut chunks).await.unwrap();
        assert!(chunks.is_empty());
        writer.write_all(&mut chunks).await.unwrap();
        writer.shutdown().await.unwrap();
    });
    assert_eq!(rest(&mut reader).await, expected);
    sending.await.unwrap();
}

async fn a_read_takes_at_most_what_it_asks_for(place: Place) {
    let (client, server) = place.connection().await;
    let (_reader, mut writer) = client.into_split();
    let (mut reader, _writer) = server.into_split();
    send(&mut writer, "0123456789").await;
    writer.shutdown().await.unwrap();
    let mut buffer = BytesMut::from("kept ");
    while buffer.len() < 5 + 4 {
        let max = 9 - buffer.len();
        let read = reader.read(&mut buffer, max).await.unwrap();
        assert!(read >= 1 && read <= max);
    }
    assert_eq!(buffer, "kept 0123");
    assert_eq!(rest(&mut reader).await, "456789");
    assert_eq!(reader.read(&mut buffer, 5).await.unwrap(), 0, "the end stays the end");
    assert!(reader.read(&mut buffer, 0).await.is_err(), "0 bytes would look like the end");
}

async fn a_read_waits_for_data_and_loses_none_when_it_is_dropped(place: Place) {
    let (client, server) = place.connection().await;
    let (_reader, mut writer) = client.into_split();
    let (mut reader, _writer) = server.into_split();
    let mut buffer = BytesMut::new();
    let waited = time::timeout(Duration::from_millis(20), reader.read(&mut buffer, 10)).await;
    assert!(waited.is_err() && buffer.is_empty());
    send(&mut writer, "later").await;
    writer.shutdown().await.unwrap();
    assert_eq!(rest(&mut reader).await, "later");
}

async fn accepting_can_be_dropped_without_losing_a_connection(place: Place) {
    let (listener, address) = place.listener().await;
    let waited = time::timeout(Duration::from_millis(20), listener.accept()).await;
    assert!(waited.is_err());
    let (_reader, mut writer) = Stream::connect(address).await.unwrap().into_split();
    send(&mut writer, "hello").await;
    drop(writer);
    let (accepted, _) = listener.accept().await.unwrap();
    assert_eq!(accepted.local_addr().unwrap(), address);
    assert_eq!(rest(&mut accepted.into_split().0).await, "hello", "data sent before the accept is there");
}

async fn a_shutdown_ends_one_direction_only(place: Place) {
    let (client, server) = place.connection().await;
    let (mut client_reader, mut client_writer) = client.into_split();
    let (mut server_reader, mut server_writer) = server.into_split();
    send(&mut client_writer, "question").await;
    client_writer.shutdown().await.unwrap();
    assert_eq!(rest(&mut server_reader).await, "question");
    send(&mut server_writer, "answer").await;
    server_writer.shutdown().await.unwrap();
    assert_eq!(rest(&mut client_reader).await, "answer");
    let late = client_writer.write_all(&mut VecDeque::from([Bytes::from_static(b"late")])).await;
    assert_eq!(late.unwrap_err().kind(), std::io::ErrorKind::BrokenPipe, "nothing is sent after a shutdown");
}

async fn a_dropped_writer_is_a_shutdown(place: Place) {
    let (client, server) = place.connection().await;
    let (mut client_reader, mut client_writer) = client.into_split();
    let (mut server_reader, mut server_writer) = server.into_split();
    send(&mut client_writer, "question").await;
    drop(client_writer);
    assert_eq!(rest(&mut server_reader).await, "question");
    send(&mut server_writer, "answer").await;
    drop(server_writer);
    assert_eq!(rest(&mut client_reader).await, "answer");
}

async fn a_reader_that_does_not_read_makes_the_writer_wait(place: Place) {
    let (client, server) = place.connection().await;
    let (_reader, mut writer) = client.into_split();
    let (mut reader, _writer) = server.into_split();
    // 64 MiB: far more than both ends' windows hold.
    let mut chunks: VecDeque<Bytes> = (0..1024).map(|_| Bytes::from_static(&[7; 64 * 1024])).collect();
    let waited = time::timeout(Duration::from_millis(200), writer.write_all(&mut chunks)).await;
    assert!(waited.is_err(), "it waits");
    let left: usize = chunks.iter().map(Bytes::len).sum();
    assert!(left > 0 && left < 64 << 20, "part of it was taken");
    let sending = task::spawn("send", async move {
        writer.write_all(&mut chunks).await.unwrap();
    });
    let mut total = 0;
    let mut buffer = BytesMut::with_capacity(1 << 20);
    loop {
        buffer.clear();
        match reader.read(&mut buffer, 1 << 20).await.unwrap() {
            0 => break,
            read => total += read,
        }
    }
    assert_eq!(total, 64 << 20, "nothing is lost and nothing twice, though a write was dropped half-way");
    sending.await.unwrap();
}

async fn addresses_are_resolved(place: Place) {
    let text = format!("{}:9092", place.ip);
    assert_eq!(resolve(&text).await.unwrap(), [text.parse().unwrap()]);
    assert!(resolve("no-port").await.is_err());
    assert!(resolve(&format!("{}:65536", place.ip)).await.is_err());
}
