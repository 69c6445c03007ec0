//! What one step of a coordinator works with besides the group that it is about.

use std::collections::VecDeque;
use std::time::Duration;

use super::interface::{AppendSeq, CallId, Effect, GroupError, Limits, Name, Now, Record, Reply};
use super::timers::Timers;

/// What is looked at when its time has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Deadline {
    /// A member was not heard of for too long.
    Session { group: Name, member: Name },
    /// A member has not come back with the id that it was given.
    Pending { group: Name, member: Name },
    /// A rebalance, or the wait for its assignment, takes too long.
    Rebalance { group: Name },
    /// Offsets may have expired.
    Retention,
}

/// What follows on an append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// Nothing.
    Nothing,
    /// The reply, if it is committed; the same request's refusal, if it is not.
    Reply { call: CallId, committed: Reply, failed: Reply },
    /// The leader's assignment holds.
    Assign { group: Name },
    /// A generation may begin, and these static members have new ids.
    BeginGeneration { group: Name, generation: i32, ids: Vec<Name> },
    /// A static member has its new id.
    ReplaceStatic { group: Name, call: CallId, committed: Reply, old: Name, new: Name },
    /// The group is gone.
    Delete { group: Name, call: Option<CallId> },
}

/// An append that is on its way.
#[derive(Clone, Debug)]
pub(super) struct Appended {
    pub(super) seq: AppendSeq,
    pub(super) records: Vec<Record>,
    pub(super) then: Then,
}

#[derive(Debug)]
pub(super) struct Out {
    pub(super) limits: Limits,
    pub(super) now: Now,
    pub(super) effects: Vec<Effect>,
    pub(super) timers: Timers<Deadline>,
    /// Invariant: in the order of their numbers.
    pub(super) appends: VecDeque<Appended>,
    next_seq: u64,
}

impl Out {
    pub(super) fn new(limits: Limits) -> Out {
        let now = Now { at: Duration::ZERO, wall_ms: 0 };
        Out {
            limits,
            now,
            effects: Vec::new(),
            timers: Timers::default(),
            appends: VecDeque::new(),
            next_seq: 0,
        }
    }

    pub(super) fn reply(&mut self, call: CallId, reply: Reply) {
        self.effects.push(Effect::Reply { call, reply });
    }

    /// The number of the next append.
    pub(super) fn next_seq(&self) -> AppendSeq {
        AppendSeq(self.next_seq)
    }

    pub(super) fn append(&mut self, records: Vec<Record>, then: Then) -> AppendSeq {
        let seq = AppendSeq(self.next_seq);
        self.next_seq += 1;
        self.appends.push_back(Appended { seq, records: records.clone(), then });
        self.effects.push(Effect::Append { seq, records });
        seq
    }

    pub(super) fn wake_at(&mut self, at: Duration, deadline: Deadline) {
        self.timers.insert(at, deadline);
    }

    pub(super) fn at(&self) -> Duration {
        self.now.at
    }
}

/// The refusal of a whole request.
pub(super) fn refusal(request: &super::interface::Request, error: GroupError) -> Reply {
    use super::interface::{JoinRefused, Request};
    match request {
        Request::Join(join) => Reply::Join(Err(JoinRefused { error, member_id: join.member_id.clone() })),
        Request::Sync(_) => Reply::Sync(Err(error)),
        Request::Heartbeat(_) => Reply::Heartbeat(Err(error)),
        Request::Leave(_) => Reply::Leave(Err(error)),
        Request::Commit { .. } => Reply::Commit(Err(error)),
        Request::DeleteOffsets(_) => Reply::DeleteOffsets(Err(error)),
        Request::Delete => Reply::Delete(Err(error)),
    }
}
