//! Looks on while a simulation runs: takes in what the nodes tell, so that a fault can find whom it means, and the run can
//! tell when the cluster is whole again.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use weir_protocol::fact::Fact;
use weir_protocol::raft::Term;
use weir_protocol::types::{BrokerId, LeaderEpoch, LogId, Offset};
use weir_runtime::simulation::{Observation, World};
use weir_runtime::time::{self, Instant};

use crate::draw::Told;
use crate::invariants::{Invariants, Premises};
use crate::plan::{Plan, Whom};
use crate::report::Finding;

/// How often a look is taken.
const EVERY: Duration = Duration::from_millis(50);
/// How long the metadata quorum may have no leader once everything is healed; nodes may start meanwhile.
const LEADERLESS_MAX: Duration = Duration::from_secs(5);

/// Everything that the nodes have told so far. Clones see the same.
#[derive(Clone)]
pub struct Watch {
    world: World,
    invariants: Arc<Mutex<Invariants>>,
    partitions: Arc<Vec<(String, i32)>>,
    brokers: Arc<Vec<BrokerId>>,
    /// What was told, if it is to be shown.
    told: Option<Arc<Mutex<Vec<Told>>>>,
    /// When everything was healed, and since when the quorum has had no leader then.
    leaderless: Arc<Mutex<Leaderless>>,
}

/// A vote for somebody else; nodes are counted from 0.
#[derive(Debug, Clone, Copy)]
pub struct Vote {
    /// In which term.
    pub term: Term,
    /// Whose.
    pub voter: u32,
    /// For whom.
    pub candidate: u32,
}

/// A broker's node, counted from 0.
fn number(broker: BrokerId) -> u32 {
    (broker.0 - 1) as u32
}

/// How long the metadata quorum has no leader although it could.
#[derive(Debug, Default)]
struct Leaderless {
    is_healed: bool,
    since: Option<Instant>,
    longest: Duration,
}

impl Watch {
    /// Looks on from now on. `traced`: whether everything is to be kept.
    pub fn new(world: &World, plan: &Plan, traced: bool) -> Watch {
        let of_topic = |topic: &crate::plan::Topic| {
            let name = topic.name.clone();
            (0..topic.partitions).map(move |number| (name.clone(), number)).collect::<Vec<_>>()
        };
        Watch {
            world: world.clone(),
            invariants: Arc::new(Mutex::new(Invariants::new(Premises::of(plan)))),
            partitions: Arc::new(plan.load.topics.iter().flat_map(of_topic).collect()),
            brokers: Arc::new(plan.cluster.serving().map(|node| BrokerId(node as i32 + 1)).collect()),
            told: traced.then(Arc::default),
            leaderless: Arc::default(),
        }
    }

    fn look(&self) -> MutexGuard<'_, Invariants> {
        let mut invariants = self.invariants.lock().unwrap_or_else(PoisonError::into_inner);
        for observation in self.world.take_observations() {
            invariants.take(&observation);
            self.keep(&observation);
        }
        invariants
    }

    fn keep(&self, observation: &Observation) {
        let (Some(told), Some(fact)) = (&self.told, observation.fact.downcast_ref::<Fact>()) else { return };
        let at_ms = observation.at.since_origin().as_secs_f64() * 1e3;
        let node = observation.node.number();
        told.lock().unwrap_or_else(PoisonError::into_inner).push(Told { at_ms, node, fact: fact.clone() });
    }

    /// What was told so far, if it was to be kept.
    pub fn take_told(&self) -> Vec<Told> {
        let told = self.told.as_ref();
        told.map(|told| std::mem::take(&mut *told.lock().unwrap_or_else(PoisonError::into_inner)))
            .unwrap_or_default()
    }

    /// The node whom a fault means now, counted from 0.
    pub fn whom(&self, whom: Whom) -> Option<u32> {
        self.look().whom(whom, &self.partitions)?.checked_sub(1)
    }

    /// Whether a node, counted from 0, holds all that is committed of a partition in which it is not in sync, and which `leader`
    /// leads, if one is named.
    pub fn has_caught_up(&self, node: u32, leader: Option<u32>) -> bool {
        let broker = |node: u32| BrokerId(node as i32 + 1);
        self.look().has_caught_up(broker(node), leader.map(broker))
    }

    /// Who leads a partition in which a node is not in sync, other than `except`; nodes are counted from 0.
    pub fn awaits(&self, node: u32, except: u32) -> Option<u32> {
        let broker = |node: u32| BrokerId(node as i32 + 1);
        let leader = self.look().awaits(broker(node), broker(except))?;
        u32::try_from(leader.0 - 1).ok()
    }

    /// Whether the quorum lets a node, counted from 0, lead and come into sync.
    pub fn serves(&self, node: u32) -> bool {
        self.look().serves(BrokerId(node as i32 + 1))
    }

    /// The latest broker epoch of a node, counted from 0.
    pub fn broker_epoch(&self, node: u32) -> Option<i64> {
        self.look().broker_epoch(BrokerId(node as i32 + 1))
    }

    /// The partitions that a node, counted from 0, leads, and that two others have as well.
    pub fn led_by(&self, node: u32) -> Vec<LogId> {
        self.look().led_by(BrokerId(node as i32 + 1))
    }

    /// Who leads a partition, counted from 0.
    pub fn leader(&self, log: LogId) -> Option<u32> {
        self.look().leader(log).map(number)
    }

    /// In which epoch a follower of a partition was last told to cut its log, and by whom; nodes are counted from 0.
    pub fn parted(&self, log: LogId, follower: u32) -> Option<(LeaderEpoch, u32)> {
        let (epoch, leader) = self.look().parted(log, BrokerId(follower as i32 + 1))?;
        Some((epoch, number(leader)))
    }

    /// The newest term of the quorum that has a leader, and who, counted from 0.
    pub fn quorum_leader(&self) -> Option<(Term, u32)> {
        let (term, node) = self.look().quorum_leader()?;
        Some((term, node - 1))
    }

    /// Where a node's metadata log ends, counted from 0.
    pub fn metadata_end(&self, node: u32) -> Offset {
        self.look().metadata_end(node + 1)
    }

    /// The vote of the newest term that was cast for somebody else.
    pub fn newest_vote(&self) -> Option<Vote> {
        let (term, voter, candidate) = self.look().newest_vote()?;
        Some(Vote { term, voter: number(voter), candidate: number(candidate) })
    }

    /// Looks again and again, so that little waits to be looked at.
    pub async fn run(&self) {
        loop {
            let is_led = self.look().quorum_is_led();
            self.note_led(is_led);
            time::sleep(EVERY).await;
        }
    }

    /// Everything is healed.
    pub fn healed(&self) {
        self.leaderless().is_healed = true;
    }

    /// Nodes are stopped again.
    pub fn disturbed(&self) {
        self.leaderless().is_healed = false;
    }

    fn leaderless(&self) -> MutexGuard<'_, Leaderless> {
        self.leaderless.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_led(&self, is_led: bool) {
        let mut leaderless = self.leaderless();
        if is_led || !leaderless.is_healed {
            leaderless.since = None;
            return;
        }
        let since = *leaderless.since.get_or_insert_with(time::now);
        leaderless.longest = leaderless.longest.max(since.elapsed());
    }

    /// Waits until every broker serves and every partition has a leader and all its replicas in sync.
    ///
    /// # Errors
    /// What is still missing at the deadline.
    pub async fn whole(&self, deadline: Instant) -> Result<(), String> {
        self.whole_without(None, deadline).await
    }

    /// The same but for a node, counted from 0, that is down, and for partitions of less than three replicas that it has.
    ///
    /// # Errors
    /// What is still missing at the deadline.
    pub async fn whole_without(&self, down: Option<u32>, deadline: Instant) -> Result<(), String> {
        let down = down.map(|node| BrokerId(node as i32 + 1));
        while let Some(missing) = self.lacks(down) {
            if time::now() >= deadline {
                return Err(missing);
            }
            time::sleep(EVERY).await;
        }
        Ok(())
    }

    fn lacks(&self, down: Option<BrokerId>) -> Option<String> {
        self.look().lacks(&self.brokers, down)
    }

    /// The named situations that what was told is an example of.
    pub fn met(&self) -> BTreeSet<&'static str> {
        self.look().met()
    }

    /// Whether a partition's only sound replica is damaged.
    pub fn is_stranded(&self) -> bool {
        self.look().is_stranded()
    }

    /// What cannot all be true. `is_whole`: whether the replicas are to be held against each other; `is_damaged`: whether
    /// the damage was done that is planned.
    pub fn findings(&self, is_whole: bool, is_damaged: bool) -> Vec<Finding> {
        if !is_damaged {
            // A node alone is looked at in the end only.
            self.invariants.lock().unwrap_or_else(PoisonError::into_inner).trust_a_lone_disk();
        }
        let mut invariants = self.look();
        if is_whole {
            invariants.compare_replicas();
        }
        let longest = self.leaderless().longest;
        let mut findings = invariants.findings();
        if longest > LEADERLESS_MAX {
            let text =
                format!("the metadata quorum had no leader for {longest:?} although everything was healed");
            findings.push(Finding::new("no-quorum-leader", text));
        }
        findings
    }
}
