//! What a leader knows about its reign: the replicas, the ISR, how far each has come, and who waits.

use weir_defect::defect;

use super::Leadership;
use super::isr::Proposal;
use super::replication::FetchRefusal;
use super::waiters::{WaiterId, WaiterQueue};
use crate::types::{BrokerId, LeaderEpoch, Offset};

/// The appends of one reign that wait.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Waiting {
    /// acks=1: until the leader's durable end passes.
    pub(super) durable: WaiterQueue,
    /// acks=all: until the high watermark passes.
    pub(super) committed: WaiterQueue,
}

impl Waiting {
    pub(super) fn len(&self) -> usize {
        self.durable.len() + self.committed.len()
    }

    /// Takes out everyone with records at `end` or above.
    pub(super) fn cut(&mut self, end: Offset) -> impl Iterator<Item = WaiterId> + '_ {
        self.durable.cut(end).chain(self.committed.cut(end))
    }

    pub(super) fn into_ids(self) -> impl Iterator<Item = WaiterId> {
        self.durable.into_ids().chain(self.committed.into_ids())
    }
}

/// What a leader knows of another replica.
#[derive(Clone, Debug, Hash)]
pub(super) struct Known {
    pub(super) id: BrokerId,
    /// The newest one that it fetched with or was registered with; -1 before the first.
    broker_epoch: i64,
    /// Whether the quorum would take it into the ISR.
    may_join: bool,
    /// `None` until the follower has shown in this epoch that its log matches: what it had before may have to be cut.
    ///
    /// Invariant: within one broker epoch it never goes back.
    pub(super) durable_end: Option<Offset>,
    /// Whether it has come back with another broker epoch in this reign.
    restarted: bool,
    /// When it last fetched, and where the log ended then: once it is durable there, it was in sync at that time.
    last_fetch: Option<(i64, Offset)>,
    /// When it was last in sync, in ms. `None` until a clock was seen in this reign.
    caught_up_ms: Option<i64>,
}

/// A follower's fetch, as far as a leader counts it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reported {
    pub(super) broker_epoch: i64,
    pub(super) durable_end: Offset,
    /// The leader's.
    pub(super) log_end: Offset,
    pub(super) now_ms: i64,
}

impl Known {
    fn new(id: BrokerId, broker_epoch: i64) -> Known {
        Known {
            id,
            broker_epoch,
            may_join: false,
            durable_end: None,
            restarted: false,
            last_fetch: None,
            caught_up_ms: None,
        }
    }

    /// A broker that has registered anew must show again what it has.
    fn meet(&mut self, broker_epoch: i64) {
        if broker_epoch > self.broker_epoch {
            self.restarted |= self.broker_epoch >= 0;
            (self.broker_epoch, self.durable_end, self.last_fetch) = (broker_epoch, None, None);
        }
    }

    fn note(&mut self, reported: &Reported) {
        let Reported { durable_end, log_end, now_ms, .. } = *reported;
        // Requests overtake each other.
        let durable_end = self.durable_end.map_or(durable_end, |before| before.max(durable_end));
        self.durable_end = Some(durable_end);
        let in_sync_ms = match self.last_fetch {
            _ if durable_end >= log_end => Some(now_ms),
            Some((last_ms, last_end)) if durable_end >= last_end => Some(last_ms),
            _ => self.caught_up_ms.is_none().then_some(now_ms),
        };
        self.caught_up_ms = self.caught_up_ms.max(in_sync_ms);
        self.last_fetch = Some((now_ms, log_end));
    }

    /// Whether it has been behind for so long that nobody should wait for it (`replica.lag.time.max.ms`).
    pub(super) fn lags(&self, log_end: Offset, now_ms: i64, lag_ms_max: i64) -> bool {
        self.durable_end.is_none_or(|durable_end| durable_end < log_end)
            && self.caught_up_ms.is_some_and(|at_ms| now_ms.saturating_sub(at_ms) >= lag_ms_max)
    }

    /// Whether it is in sync up to `floor`, and the quorum would take it into the ISR.
    pub(super) fn has_arrived(&self, floor: Offset) -> bool {
        // Z12: asking for a broker that is fenced would be refused, and its last words would hold the high watermark
        // until that is settled.
        let may_join = self.may_join || defect!(isr_allow_fenced);
        may_join && self.durable_end.is_some_and(|durable_end| durable_end >= floor)
    }

    /// Whether it has come back without records that are committed: it has broken its promise, and counts no longer.
    pub(super) fn has_lost(&self, high_watermark: Offset) -> bool {
        self.restarted && self.durable_end.is_some_and(|durable_end| durable_end < high_watermark)
    }
}

/// One reign.
#[derive(Clone, Debug, Hash)]
pub(super) struct Leader {
    pub(super) me: BrokerId,
    /// Invariant: the partition's epoch.
    pub(super) epoch: LeaderEpoch,
    /// Where its records begin.
    pub(super) epoch_start: Offset,
    /// The newest state of the partition that is known here. Invariant: never goes back.
    pub(super) partition_epoch: i32,
    /// m of contract 1. Invariant: `1 <= min_isr <=` number of replicas.
    min_isr: usize,
    /// The committed ISR. Invariant: contains the leader.
    pub(super) isr: Vec<BrokerId>,
    /// What was asked of the controller and is not decided yet.
    pub(super) proposal: Option<Proposal>,
    /// Those whom an earlier proposal on this partition epoch may still add.
    pub(super) maybe_added: Vec<BrokerId>,
    /// When a proposal was refused last, in ms.
    pub(super) refused_ms: Option<i64>,
    my_broker_epoch: i64,
    /// The place of this replica among the others, for the order of the ISR.
    my_place: usize,
    /// The other replicas, in the order of the replicas.
    followers: Vec<Known>,
    /// Followers may hold records below this offset under this epoch. Invariant: `<=` log end.
    pub(super) shipped_end: Offset,
}

impl Leader {
    pub(super) fn new(me: BrokerId, leadership: Leadership, log_end: Offset) -> Leader {
        let mut leader = Leader {
            me,
            epoch: leadership.epoch,
            epoch_start: log_end,
            partition_epoch: leadership.partition_epoch,
            min_isr: 1,
            isr: Vec::new(),
            proposal: None,
            maybe_added: Vec::new(),
            refused_ms: None,
            my_broker_epoch: -1,
            my_place: 0,
            followers: Vec::new(),
            shipped_end: log_end,
        };
        leader.take_over(leadership);
        leader
    }

    /// The quorum has decided something within this reign.
    pub(super) fn update(&mut self, leadership: Leadership) {
        if leadership.partition_epoch < self.partition_epoch || !leadership.isr.contains(&self.me) {
            return;
        }
        if leadership.partition_epoch > self.partition_epoch {
            // Whatever was asked for on the old partition epoch is decided, one way or the other.
            self.proposal = None;
            self.maybe_added.clear();
        }
        self.take_over(leadership);
    }

    fn take_over(&mut self, leadership: Leadership) {
        let Leadership { partition_epoch, replicas, isr, min_insync, broker_epochs, .. } = leadership;
        let registered = |id: &BrokerId| broker_epochs.get(id).copied().unwrap_or(-1);
        let mut known = std::mem::take(&mut self.followers);
        for id in replicas.iter().filter(|id| **id != self.me) {
            let place = known.iter().position(|follower| follower.id == *id);
            let mut follower = place.map_or(Known::new(*id, -1), |place| known.swap_remove(place));
            follower.meet(registered(id));
            follower.may_join = broker_epochs.contains_key(id);
            self.followers.push(follower);
        }
        self.my_place = replicas.iter().position(|id| *id == self.me).unwrap_or(0).min(self.followers.len());
        self.my_broker_epoch = registered(&self.me);
        self.min_isr = min_insync.clamp(1, self.followers.len() + 1);
        (self.partition_epoch, self.isr) = (partition_epoch, isr);
    }

    pub(super) fn follower(&self, id: BrokerId) -> Option<&Known> {
        self.followers.iter().find(|follower| follower.id == id)
    }

    /// All replicas, in their order.
    pub(super) fn replicas(&self) -> Vec<BrokerId> {
        let mut replicas: Vec<BrokerId> = self.followers.iter().map(|follower| follower.id).collect();
        replicas.insert(self.my_place, self.me);
        replicas
    }

    pub(super) fn broker_epoch(&self, id: BrokerId) -> i64 {
        self.follower(id).map_or(self.my_broker_epoch, |follower| follower.broker_epoch)
    }

    pub(super) fn check_follower(&self, from: BrokerId, broker_epoch: i64) -> Result<(), FetchRefusal> {
        match self.follower(from) {
            None => Err(FetchRefusal::NotAReplica),
            Some(follower) if broker_epoch < follower.broker_epoch => Err(FetchRefusal::FencedBrokerEpoch),
            Some(_) => Ok(()),
        }
    }

    /// A fetch of a follower whose log matches ours.
    pub(super) fn note_fetch(&mut self, from: BrokerId, reported: &Reported) {
        if let Some(follower) = self.followers.iter_mut().find(|follower| follower.id == from) {
            follower.meet(reported.broker_epoch);
            follower.note(reported);
        }
    }

    /// Between two fetches: earns credit only once a fetch has shown in this epoch that the logs match.
    pub(super) fn note_progress(&mut self, from: BrokerId, broker_epoch: i64, durable_end: Offset) {
        let follower = self.followers.iter_mut().find(|follower| follower.id == from);
        if let Some(follower) = follower.filter(|follower| follower.broker_epoch == broker_epoch) {
            follower.durable_end = follower.durable_end.map(|before| before.max(durable_end));
        }
    }

    /// Nobody lags before the reign has seen a clock.
    pub(super) fn start_clocks(&mut self, now_ms: i64) {
        for follower in &mut self.followers {
            follower.caught_up_ms.get_or_insert(now_ms);
        }
    }

    /// Whether the committed ISR is too small to commit anything.
    ///
    /// The committed ISR counts here, not the maximal one: a proposed member cannot be elected yet, so it is no
    /// second home for the records.
    pub(super) fn under_min_isr(&self) -> bool {
        self.isr.len() < self.min_isr
    }

    pub(super) fn is_in_isr(&self, broker: BrokerId) -> bool {
        self.isr.contains(&broker)
    }

    /// The committed members and whoever may have been added; a proposed removal still counts until it is committed.
    fn is_in_maximal_isr(&self, broker: BrokerId) -> bool {
        let proposed = self.proposal.as_ref().is_some_and(|proposal| proposal.contains(broker));
        self.is_in_isr(broker) || proposed || self.maybe_added.contains(&broker)
    }

    /// Up to where everything is durable on every member of the maximal ISR, or `None` when a member has not
    /// reported in this epoch or the ISR is too small: then the high watermark stands.
    pub(super) fn committed_end(&self, own_durable_end: Offset) -> Option<Offset> {
        // Z61: below min ISR an acknowledged record could have too few homes.
        if self.under_min_isr() && !defect!(hw_below_min_isr) {
            return None;
        }
        let mut committed = own_durable_end;
        for follower in &self.followers {
            // Z62: the controller may have committed the proposal already and elect the new member.
            let counts = if defect!(hw_committed_isr_only) {
                self.is_in_isr(follower.id)
            } else {
                self.is_in_maximal_isr(follower.id)
            };
            if counts {
                committed = committed.min(follower.durable_end?);
            }
        }
        Some(committed)
    }

    /// For the invariant: the lowest durable end in the maximal ISR among those that have reported in this epoch and
    /// kept what they had reported.
    pub(super) fn lowest_known_durable_end(&self, own_durable_end: Offset) -> Offset {
        let members = self.followers.iter().filter(|follower| self.is_in_maximal_isr(follower.id));
        let kept = members.filter(|follower| !follower.restarted);
        kept.filter_map(|follower| follower.durable_end).fold(own_durable_end, Offset::min)
    }

    /// For the invariants: whether what stands on the fields of the replicas holds.
    pub(super) fn is_sound(&self) -> bool {
        let sizes = 1..=self.followers.len() + 1;
        sizes.contains(&self.min_isr) && self.followers.iter().all(|follower| follower.id != self.me)
    }

    /// See [`super::Partition::forget_history`].
    pub(super) fn forget_history(&mut self) {
        for follower in &mut self.followers {
            (follower.last_fetch, follower.caught_up_ms) = (None, follower.caught_up_ms.map(|_| 0));
        }
    }
}
