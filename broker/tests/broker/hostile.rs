//! What peers may do without harming anyone but themselves (K23).

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::ApiVersionsRequest;
use weir_broker::Config;
use weir_runtime::time;

use crate::support::{Broker, batch, config, fetch_request, produce_request, raw_frame, run, until};

/// Sends bytes on a connection of their own and expects it to be closed, and the broker to be none the worse.
async fn closes(broker: &Broker, what: &str, bytes: impl Into<Bytes>) {
    let before = broker.node.metrics().requests_malformed.get();
    let mut client = broker.client().await;
    client.send_bytes(bytes).await;
    assert!(client.is_closed().await, "{what}");
    let metrics = broker.node.metrics();
    assert_eq!(metrics.requests_malformed.get(), before + 1, "{what} is counted");
    let answer = broker.client().await.call(0, &ApiVersionsRequest::default()).await;
    assert_eq!(answer.error_code, 0, "others are served after {what}");
}

#[test]
fn k23_malformed_frames_cost_their_sender_the_connection_and_nobody_else_anything() {
    run(async {
        let broker = Broker::start().await;
        broker.client().await.create("known", 1, &[]).await;
        let with_length = |length: i32, rest: &[u8]| {
            let mut frame = BytesMut::new();
            frame.put_i32(length);
            frame.put_slice(rest);
            frame.freeze()
        };
        closes(&broker, "a length of 2 GiB", with_length(i32::MAX, &[0; 100])).await;
        closes(&broker, "a negative length", with_length(-1, &[0; 100])).await;
        closes(&broker, "a length above the limit", with_length((100 << 20) + 1, &[0; 100])).await;
        closes(&broker, "an empty frame", with_length(0, &[])).await;
        closes(&broker, "half a header", with_length(5, &[0; 5])).await;
        closes(&broker, "an unknown API key", raw_frame(999, 0, 1, &[])).await;
        closes(&broker, "a negative API key", raw_frame(-1, 0, 1, &[])).await;
        closes(&broker, "an API that is not built", raw_frame(11, 0, 1, &[])).await;
        closes(&broker, "an unknown version", raw_frame(3, 99, 1, &[])).await;
        closes(&broker, "no body", raw_frame(1, 11, 1, &[])).await;
        let mut absurd = BytesMut::new();
        absurd.put_i32(i32::MAX);
        closes(&broker, "an absurd array length", raw_frame(3, 1, 1, &absurd)).await;
        closes(&broker, "a varint without end", raw_frame(3, 9, 1, &[0xff; 64])).await;
        let mut text = BytesMut::new();
        text.put_i32(1);
        text.put_i16(2);
        text.put_slice(&[0xc3, 0x28]);
        closes(&broker, "text that is not UTF-8", raw_frame(3, 1, 1, &text)).await;
    });
}

#[test]
fn k23_noise_is_never_answered_by_a_dead_broker() {
    run(async {
        let broker = Broker::start().await;
        // A fixed generator: the same noise each time.
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut noise = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for _ in 0..200 {
            let api_key = (noise() % 95) as i16;
            let version = (noise() % 14) as i16;
            let body: Vec<u8> = (0..noise() % 200).map(|_| noise() as u8).collect();
            let mut client = broker.client().await;
            client.send_bytes(raw_frame(api_key, version, 1, &body)).await;
        }
        let answer = broker.client().await.call(0, &ApiVersionsRequest::default()).await;
        assert_eq!(answer.error_code, 0);
    });
}

#[test]
fn a_client_that_sends_a_byte_at_a_time_holds_only_its_own_connection() {
    run(async {
        let config = Config {
            queued_request_bytes_max: 1 << 20,
            connection_stall: Duration::from_millis(500),
            ..config()
        };
        let broker = Broker::with(config).await;
        broker.client().await.create("slow", 1, &[]).await;
        // Together they announce a hundred times the budget.
        let mut slow = Vec::new();
        for _ in 0..50 {
            let mut client = broker.client().await;
            let mut start = BytesMut::new();
            start.put_i32(2 << 20);
            start.put_slice(&[0; 10]);
            client.send_bytes(start.freeze()).await;
            slow.push(client);
        }
        let mut client = broker.client().await;
        let answer = client.produce("slow", 0, batch(&[&[b'x'; 100_000]])).await;
        assert_eq!(answer.error_code, 0, "others are served meanwhile");
        let metrics = broker.node.metrics();
        until("the slow ones are cut off", || metrics.connections_stalled.get() == 50).await;
        for client in &mut slow {
            assert!(client.is_closed().await);
        }
    });
}

#[test]
fn a_client_that_reads_nothing_is_cut_off_and_others_are_served() {
    run(async {
        let config = Config {
            queued_reply_bytes_max: 4 << 20,
            connection_stall: Duration::from_millis(500),
            ..config()
        };
        let broker = Broker::with(config).await;
        let mut client = broker.client().await;
        client.create("deaf", 1, &[]).await;
        for _ in 0..10 {
            assert_eq!(client.produce("deaf", 0, batch(&[&[b'x'; 900_000]])).await.error_code, 0);
        }
        let mut request = fetch_request("deaf", 0, 0);
        request.max_bytes = 8 << 20;
        request.topics[0].partitions[0].partition_max_bytes = 8 << 20;
        let mut deaf = Vec::new();
        for _ in 0..4 {
            let mut silent = broker.client().await;
            for _ in 0..40 {
                silent.send(11, &request).await;
            }
            deaf.push(silent);
        }
        let mut fetched = client.fetch("deaf", 0, 0).await;
        assert!(fetched.records.take().is_some_and(|records| records.len() > 900_000), "others are served");
        let metrics = broker.node.metrics();
        until("those who do not read are cut off", || metrics.connections_stalled.get() == 4).await;
        assert_eq!(client.produce("deaf", 0, batch(&[b"still here"])).await.error_code, 0);
    });
}

#[test]
fn an_idle_connection_is_closed_and_one_connection_too_many_is_refused() {
    run(async {
        let config = Config { connection_idle: Duration::from_millis(300), connections_max: 2, ..config() };
        let broker = Broker::with(config).await;
        let (mut first, mut second) = (broker.client().await, broker.client().await);
        first.call(0, &ApiVersionsRequest::default()).await;
        second.call(0, &ApiVersionsRequest::default()).await;
        let mut third = broker.client().await;
        assert!(third.is_closed().await, "the third of two");
        assert_eq!(broker.node.metrics().connections_refused.get(), 1);
        let started = time::now();
        assert!(first.is_closed().await && second.is_closed().await);
        assert!(started.elapsed() < Duration::from_secs(10));
        let metrics = broker.node.metrics();
        until("their places are free", || metrics.connections_open.get() == 0).await;
        let answer = broker.client().await.call(0, &ApiVersionsRequest::default()).await;
        assert_eq!(answer.error_code, 0);
    });
}

#[test]
fn requests_beyond_the_budget_wait_and_are_all_answered() {
    run(async {
        let broker = Broker::with(Config { queued_request_bytes_max: 1 << 20, ..config() }).await;
        let mut client = broker.client().await;
        client.create("budget", 1, &[]).await;
        let mut clients = Vec::new();
        for _ in 0..8 {
            let mut client = broker.client().await;
            for _ in 0..4 {
                client.send(9, &produce_request("budget", 0, -1, batch(&[&[b'x'; 400_000]]))).await;
            }
            clients.push(client);
        }
        for client in &mut clients {
            for _ in 0..4 {
                let (_, response) = client.answer::<kafka_protocol::messages::ProduceRequest>(9).await;
                assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
            }
        }
    });
}
