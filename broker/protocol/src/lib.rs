//! The protocols of Weir as pure state machines: no async, clock, randomness or I/O.
//!
//! An input and the time go in, an ordered list of effects comes out. Whatever is random (identifiers, election
//! jitter) is passed in, so that one core runs in production, in the simulator, in property tests and under
//! exhaustive exploration.

pub mod controller;
pub mod fact;
pub mod group;
pub mod metadata;
pub mod partition;
pub mod raft;
#[cfg(test)]
mod random;
pub mod types;
