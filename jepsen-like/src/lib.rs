//! Histories of what clients saw, the promises that workloads rest on, and the checkers that hold one against the
//! other. The simulator and the runs with real processes use the same ones, and so can a history of any other
//! Kafka-compatible system: a history is JSON lines, one event each.
//!
//! - [`history`]: events, the recorder, operations paired from events.
//! - [`workload`]: what a run promises, and the payloads by which a record is known again.
//! - [`load`]: clients that work as a plan says and write down what they did.
//! - [`checkers`]: one file for each anomaly; [`checkers::judge`] runs them all and gives a [`checkers::Verdict`].
//!
//! Nothing but the load draws randomness or reads a clock: whoever records an event says when it was.

pub mod checkers;
pub mod history;
pub mod load;
pub mod workload;
