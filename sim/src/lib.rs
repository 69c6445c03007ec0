//! The simulator: whole brokers and clients under seeded faults, judged by the checkers of `weir-jepsen`.
//!
//! A seed becomes a [`plan`] ([`swarm`]), the plan a [`run`]: a [`cluster`] of production's brokers, a [`load`], a
//! [`nemesis`], and a [`report`]. The [`runner`] does that for many seeds, [`minimise`] shortens a plan that fails, and the
//! [`zoo`] puts known bugs back.

pub mod cluster;
pub mod draw;
pub mod invariants;
pub mod load;
pub mod minimise;
pub mod nemesis;
pub mod plan;
pub mod report;
pub mod rounds;
pub mod run;
pub mod runner;
pub mod swarm;
pub mod watch;
pub mod zoo;
