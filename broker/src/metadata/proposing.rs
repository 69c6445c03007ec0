//! Decides what is proposed while this node leads the quorum, and answers who asked for it.

use std::collections::BTreeMap;

use tokio::sync::{mpsc, oneshot};
use weir_protocol::controller::CommandId;
use weir_protocol::metadata::{Change, Image, Record, Rejected};
use weir_protocol::raft::{ChangeRefusal, Index, VoterChange};
use weir_protocol::types::BrokerId;

use crate::peer::Asked;
use crate::peer::message::{ControllerQuestion, ControllerReply, NotDone};

/// Names a proposal until its outcome is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ticket {
    /// One of the controller's own.
    #[allow(dead_code, reason = "the controller is being built")]
    Command(CommandId),
    /// Somebody asked for it.
    Request(u64),
}

/// What the driver is to do, in order.
#[derive(Debug)]
pub(crate) enum Todo {
    Propose { ticket: Ticket, record: Record },
    ChangeVoters { ticket: Ticket, change: VoterChange },
    Read { ticket: Ticket },
    DescribeQuorum { reply: oneshot::Sender<ControllerReply> },
}

/// Something has happened.
#[derive(Debug)]
pub(crate) struct Event(Asked<ControllerQuestion, ControllerReply>);

/// Takes questions to the quorum's leader.
#[derive(Debug)]
pub(crate) struct Controlling {
    arrivals: mpsc::Receiver<Asked<ControllerQuestion, ControllerReply>>,
    leads: bool,
    leader: Option<BrokerId>,
    next: u64,
    waiting: BTreeMap<Ticket, oneshot::Sender<ControllerReply>>,
}

impl Controlling {
    pub(crate) fn new(arrivals: mpsc::Receiver<Asked<ControllerQuestion, ControllerReply>>) -> Controlling {
        Controlling { arrivals, leads: false, leader: None, next: 0, waiting: BTreeMap::new() }
    }

    /// What happens next. Cancel-safe.
    pub(crate) async fn event(&mut self) -> Event {
        match self.arrivals.recv().await {
            Some(asked) => Event(asked),
            None => std::future::pending().await,
        }
    }

    /// Takes in what has happened.
    pub(crate) fn on_event(&mut self, event: Event, _image: &Image) -> Vec<Todo> {
        let Asked { question, reply, .. } = event.0;
        let why = NotDone::NotController(self.leader);
        if !self.leads {
            // Whoever asked may have gone.
            let _ = reply.send(ControllerReply::NotDone(why));
            return Vec::new();
        }
        self.next += 1;
        let ticket = Ticket::Request(self.next);
        let todo = match question {
            ControllerQuestion::Propose(record) => Todo::Propose { ticket, record },
            ControllerQuestion::ChangeVoters(change) => Todo::ChangeVoters { ticket, change },
            ControllerQuestion::Read => Todo::Read { ticket },
            ControllerQuestion::DescribeQuorum => return vec![Todo::DescribeQuorum { reply }],
            ControllerQuestion::Register(_)
            | ControllerQuestion::Heartbeat { .. }
            | ControllerQuestion::ChangePartition(_) => {
                let _ = reply.send(ControllerReply::NotDone(why));
                return Vec::new();
            }
        };
        self.waiting.insert(ticket, reply);
        vec![todo]
    }

    /// This node leads and has applied its term's first entry.
    pub(crate) fn begin(&mut self, _image: &Image) -> Vec<Todo> {
        self.leads = true;
        Vec::new()
    }

    /// An entry was applied.
    pub(crate) fn on_applied(
        &mut self,
        index: Index,
        ticket: Option<Ticket>,
        outcome: &Result<Change, Rejected>,
        _image: &Image,
    ) -> Vec<Todo> {
        if let Some(ticket) = ticket {
            self.answer(ticket, ControllerReply::Proposed { index, outcome: outcome.clone() });
        }
        Vec::new()
    }

    /// The state machine must have applied everything below `commit`.
    pub(crate) fn on_read(&mut self, ticket: Ticket, commit: Index) {
        self.answer(ticket, ControllerReply::Read(commit));
    }

    /// The voters have changed in the entry at this index, or have not.
    pub(crate) fn on_voters(&mut self, ticket: Ticket, outcome: Result<Index, ChangeRefusal>) {
        self.answer(ticket, ControllerReply::Voters(outcome.map_err(|refusal| refusal.to_string())));
    }

    /// Nothing stands in the log.
    pub(crate) fn on_not_done(&mut self, ticket: Ticket, why: NotDone, _image: &Image) -> Vec<Todo> {
        self.answer(ticket, ControllerReply::NotDone(why));
        Vec::new()
    }

    /// It may be committed, or not.
    pub(crate) fn on_unknown(&mut self, ticket: Ticket) {
        self.answer(ticket, ControllerReply::Unknown);
    }

    /// Who leads the quorum as far as is known.
    pub(crate) fn set_leader(&mut self, leader: Option<BrokerId>) {
        self.leads &= leader == self.leader;
        self.leader = leader;
    }

    fn answer(&mut self, ticket: Ticket, reply: ControllerReply) {
        if let Some(waiting) = self.waiting.remove(&ticket) {
            // Whoever asked may have gone.
            let _ = waiting.send(reply);
        }
    }
}
