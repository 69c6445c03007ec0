//! What the runtime promises, tried against the public interface only and in whichever world this was built for: a normal
//! build runs it on the operating system, one with `--cfg madsim` in a simulation. So the simulated world cannot drift from
//! the real one.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod disk_batches;
mod disk_files;
mod disk_lock;
mod harness;
mod net_failures;
mod net_streams;
mod tasks;
mod timers;
