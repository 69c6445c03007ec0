//! The executor of a build that cannot simulate: there is none, so no world ever exists.

use std::future::Future;

use crate::simulation::{NodeId, NotSimulated, Outcome, SimulationOptions, World};
use crate::task::JoinHandle;
use crate::time::Instant;

/// No value of this type exists.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Executor {}

impl Executor {
    pub(crate) fn now(&self) -> Instant {
        match *self {}
    }

    pub(crate) fn poke(&self) {
        match *self {}
    }

    pub(crate) fn add_node<F, Fut>(&self, _: &World, _: NodeId, _: &str, _: F)
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future + 'static,
    {
        match *self {}
    }

    pub(crate) fn kill(&self, _: NodeId) {
        match *self {}
    }

    pub(crate) fn restart(&self, _: NodeId) {
        match *self {}
    }

    pub(crate) fn pause(&self, _: NodeId) {
        match *self {}
    }

    pub(crate) fn resume(&self, _: NodeId) {
        match *self {}
    }

    pub(crate) fn interrupt(&self, _: NodeId) {
        match *self {}
    }

    pub(crate) fn spawn_on<F: Future>(&self, _: NodeId, _: F) -> JoinHandle<F::Output> {
        match *self {}
    }
}

#[inline(always)]
pub(crate) fn note(_: &'static str, _: impl FnOnce() -> String) {}

#[inline(always)]
pub(crate) fn observe<T>(_: impl FnOnce() -> T) {}

pub(crate) fn run<F, Fut>(_: u64, _: SimulationOptions, _: F) -> Result<Outcome<Fut::Output>, NotSimulated>
where
    F: FnOnce(World) -> Fut,
    Fut: Future,
{
    Err(NotSimulated)
}
