//! Ties the simulated machines to madsim's executor: what `imp` is in a simulation.
//!
//! madsim runs the tasks, keeps the time and draws the order. Its own disk and network are not used. All that waits,
//! waits in one queue of ours and on the machines; one driver (the main task) sleeps until the next of them is due, because
//! madsim's timers can be neither cancelled nor moved.

pub(crate) mod disk;
pub(crate) mod executor;
pub(crate) mod net;
pub(crate) mod random;
pub(crate) mod shared;
pub(crate) mod task;
pub(crate) mod time;

#[cfg(test)]
#[path = "binding_tests.rs"]
mod tests;
