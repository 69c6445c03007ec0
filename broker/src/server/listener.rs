//! Accepts connections, as many as may be.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use weir_runtime::net::{self, Listener};
use weir_runtime::watch;
use weir_runtime::{task, time};

use super::{Stage, connection};
use crate::api::Api;
use crate::complaints::Complaints;

/// How long the listener pauses when the process has no more file descriptors.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// Binds the first address that `host_port` stands for.
pub(crate) async fn bind(host_port: &str) -> io::Result<(Listener, SocketAddr)> {
    let mut last = None;
    for address in net::resolve(host_port).await? {
        match Listener::bind(address).await {
            Ok(listener) => {
                let address = listener.local_addr()?;
                return Ok((listener, address));
            }
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address")))
}

/// Accepts connections until the broker drains, then waits until all have ended.
pub(crate) async fn accept(listener: Listener, api: Arc<Api>, stage: watch::Receiver<Stage>) {
    let complaints = Arc::new(Complaints::default());
    let connections_max = api.config.connections_max;
    let places = Arc::new(Semaphore::new(connections_max));
    let mut draining = stage.clone();
    loop {
        let accepted = weir_runtime::select! {
            accepted = listener.accept() => accepted,
            _ = draining.wait_for(|stage| *stage >= Stage::Draining) => break,
        };
        let (stream, peer) = match accepted {
            Ok(connection) => connection,
            Err(error) if is_of_one_connection(&error) => continue,
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections");
                time::sleep(EXHAUSTED_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            api.metrics.connections_refused.increment();
            complaints.about(peer, &format_args!("refused: {connections_max} connections are open"));
            continue;
        };
        api.metrics.connections_accepted.increment();
        let (api, complaints, stage) = (Arc::clone(&api), Arc::clone(&complaints), stage.clone());
        task::spawn("connection", async move {
            let metrics = Arc::clone(&api.metrics);
            let _open = metrics.connections_open.enter();
            connection::serve(stream, peer, api, complaints, stage).await;
            drop(place);
        });
    }
    drop(listener);
    let all = u32::try_from(connections_max).unwrap_or(u32::MAX);
    // Fails only if the semaphore were closed, which nobody does.
    let _ = places.acquire_many(all).await;
}

/// Errors of the connection that was about to be accepted; the listener is none the worse for it.
pub(crate) fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
