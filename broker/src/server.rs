//! The network side of the broker: who may connect, what is read, and in which order answers leave.

pub(crate) mod budget;
mod connection;
mod frames;
pub(crate) mod http;
pub(crate) mod listener;
mod outgoing;

/// How far the broker's stop has come, as connections see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// Serving.
    Running,
    /// No new requests are read; what was read is answered.
    Draining,
    /// Connections close at once.
    Cut,
}
