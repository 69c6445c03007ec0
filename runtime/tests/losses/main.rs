//! What a power failure takes and what it leaves, under the real disk and under the simulated one.
//!
//! A scenario writes something and says what may be found after the power came back. For the real disk the power fails in a
//! file system of our own, mounted through FUSE, which loses any subset of what was not synced ([`faulty`]); for the
//! simulated one it fails in the simulation. Without FUSE the first half is skipped and says so; in CI that is a failure.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod errors;
#[cfg(not(madsim))]
mod faulty;
#[cfg(not(madsim))]
mod real_disk;
mod scenarios;
mod simulated_disk;
