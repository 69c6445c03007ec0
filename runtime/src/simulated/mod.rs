//! The simulated world's parts: state machines without time, tasks or randomness of their own, compiled and tested in both
//! builds. `binding` ties them to the simulation's executor.

pub mod clock;
pub mod disk;
pub mod draw;
pub mod events;
pub mod net;

pub(crate) mod control;
#[cfg_attr(not(madsim), allow(dead_code, reason = "a world is made by the binding only"))]
pub(crate) mod machines;

#[cfg(not(madsim))]
pub(crate) mod absent;
#[cfg(madsim)]
pub(crate) mod binding;
