//! The operating system and tokio.
#![allow(clippy::disallowed_methods, reason = "this is the place that the banned calls are banned for")]

pub(crate) mod disk;
mod memory;
pub(crate) mod net;
mod open_files;
pub(crate) mod random;
pub(crate) mod task;
pub(crate) mod time;
