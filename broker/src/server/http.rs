//! A small HTTP/1.1 endpoint: `/metrics` for Prometheus, `/health` for whoever watches.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::Semaphore;
use weir_runtime::net::{Listener, Stream};
use weir_runtime::watch;
use weir_runtime::{task, time};

use super::Stage;
use crate::api::Api;

/// Requests at a time; one more is closed.
const CONNECTIONS_MAX: usize = 16;
/// The largest head of a request.
const HEAD_BYTES_MAX: usize = 8 << 10;
/// The time for a whole exchange.
const EXCHANGE_MAX: Duration = Duration::from_secs(10);

/// Serves the endpoint until the broker stops.
pub(crate) async fn serve(listener: Listener, api: Arc<Api>, mut stage: watch::Receiver<Stage>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = weir_runtime::select! {
            accepted = listener.accept() => accepted,
            _ = stage.wait_for(|stage| *stage == Stage::Cut) => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
                let api = Arc::clone(&api);
                task::spawn("http", async move {
                    if time::timeout(EXCHANGE_MAX, exchange(stream, &api)).await.is_err() {
                        tracing::debug!("an HTTP exchange took too long");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "cannot accept an HTTP connection");
                time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// One request, one answer; then the connection closes.
async fn exchange(stream: Stream, api: &Api) {
    let (mut reader, mut writer) = stream.into_split();
    let mut head = BytesMut::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if head.len() >= HEAD_BYTES_MAX {
            return;
        }
        match reader.read(&mut head, HEAD_BYTES_MAX).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
    let (status, kind, body) = answer(&head, api);
    let text = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let mut chunks = VecDeque::from([Bytes::from(text)]);
    if writer.write_all(&mut chunks).await.is_ok() {
        let _ = writer.shutdown().await;
    }
}

fn answer(head: &[u8], api: &Api) -> (&'static str, &'static str, String) {
    const TEXT: &str = "text/plain; charset=utf-8";
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    match (words.next(), words.next()) {
        (Some(b"GET"), Some(b"/metrics")) => ("200 OK", "text/plain; version=0.0.4", api.render_metrics()),
        (Some(b"GET"), Some(b"/health")) => match api.health() {
            Ok(()) => ("200 OK", TEXT, "ok\n".to_owned()),
            Err(reason) => ("503 Service Unavailable", TEXT, format!("{reason}\n")),
        },
        (Some(b"GET"), Some(_)) => ("404 Not Found", TEXT, "there are /metrics and /health\n".to_owned()),
        _ => ("405 Method Not Allowed", TEXT, "only GET\n".to_owned()),
    }
}
