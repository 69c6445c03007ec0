//! The simulated world: pure state machines.
