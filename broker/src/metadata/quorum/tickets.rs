//! Whose proposals and reads are under way.

use std::collections::BTreeMap;

use weir_protocol::raft::{Index, Term};

use crate::controller::Ticket;

/// Proposals and reads by the numbers under which the core knows them. Bounded by what the core takes.
#[derive(Debug, Default)]
pub(super) struct Tickets {
    next: u64,
    /// What the core has not answered.
    asked: BTreeMap<u64, Ticket>,
    /// Proposals that stand in the log, with their term.
    accepted: BTreeMap<Index, (Term, Ticket)>,
}

impl Tickets {
    /// A number for what is asked of the core.
    pub(super) fn number(&mut self, ticket: Option<Ticket>) -> u64 {
        let number = self.next;
        self.next += 1;
        self.asked.extend(ticket.map(|ticket| (number, ticket)));
        number
    }

    /// The core has answered.
    pub(super) fn take(&mut self, number: u64) -> Option<Ticket> {
        self.asked.remove(&number)
    }

    /// The proposal stands in the log.
    pub(super) fn accept(&mut self, number: u64, index: Index, term: Term) {
        if let Some(ticket) = self.asked.remove(&number) {
            self.accepted.insert(index, (term, ticket));
        }
    }

    /// An entry of `term` is committed there: whose proposal stood there, and whether it is this entry.
    pub(super) fn commit(&mut self, index: Index, term: Term) -> Option<(Ticket, bool)> {
        self.accepted.remove(&index).map(|(proposed_in, ticket)| (ticket, proposed_in == term))
    }

    /// Proposals whose outcome nobody knows.
    pub(super) fn forget(&mut self) -> impl Iterator<Item = Ticket> + use<> {
        std::mem::take(&mut self.accepted).into_values().map(|(_, ticket)| ticket)
    }
}
