//! One connection to one broker: requests go out without waiting for each other's answers, answers come back in the order
//! of the requests (K9).
//!
//! A task owns the socket. A request that gets no answer in time ends the connection, because every later answer would
//! have to wait behind the missing one; so does anything that the protocol does not allow. Then all that wait fail.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use weir_runtime::net::{Reader, Stream, Writer, resolve};
use weir_runtime::{task, time};
use weir_wire::frame::{Progress, take_frame};
use weir_wire::kafka::messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse};
use weir_wire::kafka::{self, StrBytes};

use crate::call::Call;
use crate::error::{Error, KafkaError};

const READ_BYTES: usize = 64 << 10;
const RESERVE_BYTES_MAX: usize = 1 << 20;
const UNSUPPORTED_VERSION: i16 = 35;

/// How a connection is made and bounded.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionOptions {
    pub(crate) client_id: StrBytes,
    pub(crate) connect_timeout: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) response_bytes_max: usize,
    pub(crate) requests_in_flight_max: usize,
}

/// A connection whose versions are agreed upon. Clones share it; it closes with the last one.
#[derive(Clone)]
pub(crate) struct Connection {
    link: Arc<Link>,
    /// What the broker speaks: first and last version by API key.
    versions: Arc<BTreeMap<i16, (i16, i16)>>,
}

struct Link {
    shared: Arc<Shared>,
    outbox: mpsc::UnboundedSender<Outgoing>,
    permits: Arc<Semaphore>,
    client_id: StrBytes,
    driver: task::JoinHandle<()>,
}

struct Outgoing {
    frame: Bytes,
    /// Told when the frame was handed to the operating system.
    written: Option<oneshot::Sender<()>>,
}

/// What callers and the task share.
struct Shared {
    address: Arc<str>,
    state: Mutex<State>,
    closing: Notify,
}

struct State {
    /// In the order in which they were sent.
    waiting: VecDeque<Waiting>,
    next_correlation_id: i32,
    /// Why no more requests are taken.
    closed: Option<Arc<str>>,
}

struct Waiting {
    correlation_id: i32,
    reply: oneshot::Sender<Result<Bytes, Error>>,
    /// Held until the answer is there, even when nobody waits for it any more.
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    /// Connects to `host:port` and agrees upon versions.
    pub(crate) async fn open(address: Arc<str>, options: &ConnectionOptions) -> Result<Self, Error> {
        let connected = time::timeout(options.connect_timeout, connect(&address)).await;
        let stream = connected
            .unwrap_or_else(|elapsed| Err(elapsed.into()))
            .map_err(|source| Error::Connect { address: address.clone(), source: Arc::new(source) })?;
        let link = Arc::new(Link::start(address, stream, options));
        let versions = agree(&link, options.request_timeout.min(options.connect_timeout)).await?;
        Ok(Self { link, versions: Arc::new(versions) })
    }

    /// The broker's address as it was given.
    pub(crate) fn address(&self) -> &Arc<str> {
        &self.link.shared.address
    }

    /// Whether it has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.link.shared.lock().closed.is_some()
    }

    /// The version in which broker and client make this request.
    pub(crate) fn version<R: Call>(&self) -> Result<i16, Error> {
        let (first, last) = R::SPOKEN;
        let theirs = self.versions.get(&R::KEY).copied();
        if let Some((their_first, their_last)) = theirs {
            let version = last.min(their_last);
            if version >= first.max(their_first) {
                return Ok(version);
            }
        }
        Err(Error::Version { address: self.address().clone(), api: R::NAME, theirs, ours: R::SPOKEN })
    }

    /// Sends a request and waits for its answer, for at most `limit` in all.
    pub(crate) async fn request<R: Call>(&self, request: &R, limit: Duration) -> Result<R::Response, Error> {
        let version = self.version::<R>()?;
        self.link.request(request, version, limit).await
    }

    /// Sends a request that has no answer (a produce with acks 0), and waits until it is handed to the operating system.
    pub(crate) async fn send<R: Call>(&self, request: &R, limit: Duration) -> Result<(), Error> {
        let version = self.version::<R>()?;
        self.link.send(request, version, limit).await
    }
}

async fn connect(address: &str) -> std::io::Result<Stream> {
    let mut last = None;
    for candidate in resolve(address).await? {
        match Stream::connect(candidate).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = Some(with_address(candidate, &error)),
        }
    }
    Err(last.unwrap_or_else(|| std::io::Error::other("the name has no address")))
}

fn with_address(address: SocketAddr, error: &std::io::Error) -> std::io::Error {
    std::io::Error::new(error.kind(), format!("{address}: {error}"))
}

/// Asks for the broker's versions. A broker that does not know our version of the question answers with the versions that
/// it knows, in the question's oldest form (K1); then it is asked again.
async fn agree(link: &Link, limit: Duration) -> Result<BTreeMap<i16, (i16, i16)>, Error> {
    let (first, last) = ApiVersionsRequest::SPOKEN;
    let mut response = ask_versions(link, last, limit).await?;
    if response.error_code == UNSUPPORTED_VERSION {
        let theirs = response.api_keys.iter().find(|api| api.api_key == ApiKey::ApiVersions as i16);
        let version = theirs.map_or(first, |api| api.max_version).min(last - 1);
        response = ask_versions(link, version.max(first), limit).await?;
    }
    if let Some(error) = KafkaError::from_code(response.error_code) {
        let address = link.shared.address.clone();
        let about = "this connection".to_owned();
        return Err(Error::Kafka { address, api: ApiVersionsRequest::NAME, about, error, message: None });
    }
    Ok(response.api_keys.iter().map(|api| (api.api_key, (api.min_version, api.max_version))).collect())
}

async fn ask_versions(link: &Link, version: i16, limit: Duration) -> Result<ApiVersionsResponse, Error> {
    let mut request = ApiVersionsRequest::default();
    if version >= 3 {
        request.client_software_name = StrBytes::from_static_str("weir-client");
        request.client_software_version = StrBytes::from_static_str(env!("CARGO_PKG_VERSION"));
    }
    link.request(&request, version, limit).await
}

impl Link {
    fn start(address: Arc<str>, stream: Stream, options: &ConnectionOptions) -> Self {
        let state = State { waiting: VecDeque::new(), next_correlation_id: 0, closed: None };
        let shared = Arc::new(Shared { address, state: Mutex::new(state), closing: Notify::new() });
        // Bounded by the permits, one of which every frame in it holds.
        let (outbox, inbox) = mpsc::unbounded_channel();
        let (reader, writer) = stream.into_split();
        let driver = Driver {
            shared: shared.clone(),
            reader,
            writer,
            inbox,
            received: BytesMut::new(),
            unsent: VecDeque::new(),
            written: Vec::new(),
            response_bytes_max: options.response_bytes_max,
        };
        Self {
            shared,
            outbox,
            permits: Arc::new(Semaphore::new(options.requests_in_flight_max.max(1))),
            client_id: options.client_id.clone(),
            driver: task::spawn("client connection", driver.run()),
        }
    }

    async fn request<R: Call>(
        &self,
        request: &R,
        version: i16,
        limit: Duration,
    ) -> Result<R::Response, Error> {
        let mut sent = false;
        let answer = time::timeout(limit, async {
            let permit = self.permit().await?;
            let (reply, answer) = oneshot::channel();
            self.enqueue(request, version, Some((reply, permit)), None)?;
            sent = true;
            answer
                .await
                .unwrap_or_else(|_| Err(self.shared.disconnected("the connection's task is gone", true)))
        })
        .await;
        let frame = answer.unwrap_or_else(|_| {
            let address = self.shared.address.clone();
            if sent {
                self.shared.close(&format!("no answer to {} within {} ms", R::NAME, limit.as_millis()));
            }
            Err(Error::Timeout { address, api: R::NAME, limit, sent })
        })?;
        kafka::decode_response::<R>(version, frame).map(|(_, response)| response).map_err(|error| {
            self.shared.close(&format!("an answer to {} that does not parse", R::NAME));
            Error::Protocol { address: self.shared.address.clone(), api: R::NAME, reason: error.to_string() }
        })
    }

    async fn send<R: Call>(&self, request: &R, version: i16, limit: Duration) -> Result<(), Error> {
        let mut sent = false;
        let written = time::timeout(limit, async {
            let _permit = self.permit().await?;
            let (written, told) = oneshot::channel();
            self.enqueue(request, version, None, Some(written))?;
            sent = true;
            told.await.map_err(|_| self.shared.disconnected("it ended before the request was written", true))
        })
        .await;
        written.unwrap_or_else(|_| {
            let address = self.shared.address.clone();
            if sent {
                self.shared.close(&format!("{} was not taken within {} ms", R::NAME, limit.as_millis()));
            }
            Err(Error::Timeout { address, api: R::NAME, limit, sent })
        })
    }

    async fn permit(&self) -> Result<OwnedSemaphorePermit, Error> {
        self.permits.clone().acquire_owned().await.map_err(|_| self.shared.disconnected("closed", false))
    }

    fn enqueue<R: Call>(
        &self,
        request: &R,
        version: i16,
        reply: Option<(oneshot::Sender<Result<Bytes, Error>>, OwnedSemaphorePermit)>,
        written: Option<oneshot::Sender<()>>,
    ) -> Result<(), Error> {
        // Under the lock, so that frames leave in the order of their correlation ids.
        let mut state = self.shared.lock();
        if let Some(reason) = &state.closed {
            return Err(self.shared.disconnected(reason, false));
        }
        let correlation_id = state.next_correlation_id;
        let frame = kafka::encode_request(version, correlation_id, Some(&self.client_id), request)
            .map_err(|error| Error::Invalid(format!("{} cannot be sent: {error}", R::NAME)))?;
        state.next_correlation_id = correlation_id.wrapping_add(1) & i32::MAX;
        if self.outbox.send(Outgoing { frame, written }).is_err() {
            return Err(self.shared.disconnected("the connection's task is gone", false));
        }
        if let Some((reply, permit)) = reply {
            state.waiting.push_back(Waiting { correlation_id, reply, _permit: permit });
        }
        Ok(())
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is complete before the lock is let go; a panic while it is held changes nothing half.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn disconnected(&self, reason: &str, sent: bool) -> Error {
        Error::Disconnected { address: self.address.clone(), reason: reason.into(), sent }
    }

    /// Takes no more requests and fails those that wait. The first reason stays.
    fn close(&self, reason: &str) {
        let mut state = self.lock();
        let first = state.closed.is_none();
        let reason = state.closed.get_or_insert_with(|| reason.into()).clone();
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        if first {
            tracing::debug!(address = %self.address, %reason, "connection ended");
        }
        for waiting in waiting {
            // Whoever waited may have given up.
            let _ = waiting.reply.send(Err(self.disconnected(&reason, true)));
        }
        self.closing.notify_one();
    }

    /// Hands an answer to the oldest request. Answers that come in another order are refused.
    fn answer(&self, frame: Bytes) -> Result<(), String> {
        let Some(correlation_id) = frame.first_chunk::<4>().map(|id| i32::from_be_bytes(*id)) else {
            return Err(format!("a frame of {} bytes", frame.len()));
        };
        let mut state = self.lock();
        let Some(oldest) = state.waiting.front() else {
            return Err(format!("an answer with correlation id {correlation_id} to no request"));
        };
        if oldest.correlation_id != correlation_id {
            let expected = oldest.correlation_id;
            return Err(format!("an answer with correlation id {correlation_id} in place of {expected}"));
        }
        let waiting = state.waiting.pop_front();
        drop(state);
        if let Some(waiting) = waiting {
            // Whoever waited may have given up.
            let _ = waiting.reply.send(Ok(frame));
        }
        Ok(())
    }
}

/// The task that owns the socket.
struct Driver {
    shared: Arc<Shared>,
    reader: Reader,
    writer: Writer,
    inbox: mpsc::UnboundedReceiver<Outgoing>,
    received: BytesMut,
    unsent: VecDeque<Bytes>,
    /// Who is told when everything in `unsent` is written.
    written: Vec<oneshot::Sender<()>>,
    response_bytes_max: usize,
}

impl Driver {
    async fn run(mut self) {
        let reason = self.drive().await;
        self.shared.close(&reason);
    }

    async fn drive(&mut self) -> String {
        loop {
            weir_runtime::select! {
                () = self.shared.closing.notified() => return "given up".to_owned(),
                read = self.reader.read(&mut self.received, READ_BYTES) => match read {
                    Ok(0) => return "the broker closed it".to_owned(),
                    Ok(_) => if let Err(reason) = self.take_answers() { return reason },
                    Err(error) => return format!("cannot read: {error}"),
                },
                sent = self.writer.write_all(&mut self.unsent), if !self.unsent.is_empty() => match sent {
                    Ok(()) => for told in self.written.drain(..) {
                        // Whoever waited may have given up.
                        let _ = told.send(());
                    },
                    Err(error) => return format!("cannot write: {error}"),
                },
                outgoing = self.inbox.recv() => match outgoing {
                    Some(Outgoing { frame, written }) => {
                        self.unsent.push_back(frame);
                        self.written.extend(written);
                    }
                    None => return "closed".to_owned(),
                },
            }
        }
    }

    fn take_answers(&mut self) -> Result<(), String> {
        loop {
            match take_frame(&mut self.received, self.response_bytes_max)
                .map_err(|error| error.to_string())?
            {
                Progress::Frame(frame) => self.shared.answer(frame)?,
                Progress::Missing(bytes) => {
                    self.received.reserve(bytes.min(RESERVE_BYTES_MAX));
                    return Ok(());
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
