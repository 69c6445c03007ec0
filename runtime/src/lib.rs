//! The abstract runtime: time, tasks, network, disk and randomness, with two implementations behind one interface.
//!
//! A normal build runs on tokio and the operating system. A build with `--cfg madsim` runs the same product code in a
//! deterministic simulation of machines, clocks, links and disks. The product names concrete types; which
//! implementation stands behind them is decided here and nowhere else.
//!
//! # The boundary (`imp`)
//!
//! The public types, their documentation, and everything that needs no operating system are compiled in both builds. What
//! differs is a module called `imp` in here: `real` in a normal build, `simulated::binding` in a simulation. It provides
//! exactly the following; `T: Send + 'static` and every future returned is `Send`.
//!
//! - `imp::time`
//!   - `fn now_ns() -> u64`: monotonic nanoseconds since the runtime's origin
//!   - `fn wall_ms() -> i64`
//!   - `struct Timer` (`Send`, `Unpin`): `fn new(at: Instant) -> Timer`, `fn reset(&mut self, at: Instant)`,
//!     `fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()>` (ready once `now() >= at`, and from then on until reset;
//!     keeps the last waker only). Dropping it cancels it.
//! - `imp::task`
//!   - `struct Handle<T>` (`Send`, `Unpin`): `fn poll(&mut self, cx) -> Poll<Result<T, JoinError>>`, `fn abort(&self)`,
//!     `fn is_finished(&self) -> bool`. Dropping it detaches the task.
//!   - `fn spawn<F>(name: &'static str, future: F) -> Handle<F::Output>`
//!   - `fn block_on<F: Future>(options: RuntimeOptions, future: F) -> io::Result<F::Output>`
//!   - `async fn yield_now()`, `async fn interrupted()`
//! - `imp::random`: `fn u64() -> u64`
//! - `imp::net`
//!   - `struct Listener` (`Send + Sync`): `async fn bind(SocketAddr) -> io::Result<Self>`,
//!     `fn local_addr(&self) -> io::Result<SocketAddr>`, `async fn accept(&self) -> io::Result<(Stream, SocketAddr)>`
//!   - `struct Stream` (`Send`): `async fn connect(SocketAddr) -> io::Result<Self>`, `local_addr`, `peer_addr`,
//!     `fn into_split(self) -> (Reader, Writer)`
//!   - `struct Reader` (`Send`): `async fn read(&mut self, &mut BytesMut, max: usize) -> io::Result<usize>`; `max` is never 0
//!   - `struct Writer` (`Send`): `async fn write_some(&mut self, &VecDeque<Bytes>) -> io::Result<usize>`: writes at least
//!     one byte of the chunks (none is empty, there is at least one) and says how many, cancel-safe;
//!     `async fn shutdown(&mut self) -> io::Result<()>`, `fn abort(self)`
//!   - `async fn resolve(host_port: &str) -> io::Result<Vec<SocketAddr>>`
//! - `imp::disk`
//!   - `struct Handle` (`Send + Sync + Debug`): what an open file is; dropping it closes the file
//!   - `struct Folder` (`Send + Sync + Clone`): `async fn open(root: &Path, options: &DiskOptions) -> Result<Folder, OpenError>`;
//!     `fn submit(&self, lane: Lane, ops: Vec<Op>, reply: oneshot::Sender<Result<Vec<Done>, BatchError>>)`, which starts
//!     the batch at once and sends its result even when nobody waits any more. An op is checked by `Op::check` when its turn
//!     comes; files are made with `File::new`; errors with `BatchError::new`. The lock goes with the last clone.

pub mod disk;
pub mod net;
pub mod random;
pub mod simulated;
pub mod simulation;
pub mod task;
pub mod time;
pub mod watch;

mod contract;
#[cfg(not(madsim))]
mod real;

#[cfg(not(madsim))]
use real as imp;
#[cfg(madsim)]
use simulated::binding as imp;

#[doc(hidden)]
pub mod reexport {
    pub use tokio;
}

/// Waits for the first of several futures; when several are ready, the first in the list wins.
///
/// This is `tokio::select!` with `biased;`: the unbiased one draws randomness of its own, which no seed controls. Put what
/// must not starve first, and bound the work of a branch that can always be ready.
#[macro_export]
macro_rules! select {
    ($($branches:tt)*) => {
        $crate::reexport::tokio::select! { biased; $($branches)* }
    };
}
