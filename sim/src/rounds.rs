//! The end of a run whose plan asks for it ([`Plan::rounds`]): every node is stopped and started once, so that others lead what it
//! led, and everything is read again. A replica that is not what it should be shows no earlier than when it leads.

use std::time::Duration;

use weir_jepsen::history::ProcessId;
use weir_runtime::simulation::{NodeId, World};
use weir_runtime::time::{self, Instant};

use crate::load::{self, Shared};
use crate::nemesis::Nemesis;
use crate::plan::{Plan, Topic};
use crate::watch::Watch;

/// Nothing is written for so long before, so that logs are compacted up to their ends.
const QUIET: Duration = Duration::from_secs(8);
/// How long one round may take.
const ROUND_MAX: Duration = Duration::from_secs(60);
/// How long brokers may take to fetch from each other what is found damaged.
const REPAIR_MAX: Duration = Duration::from_secs(10);
/// Who reads.
const READER: ProcessId = ProcessId(302);

/// What the rounds need of a run.
pub struct Rounds<'a> {
    /// The simulated world.
    pub world: &'a World,
    /// The machine that reads.
    pub reader: NodeId,
    /// What was planned.
    pub plan: &'a Plan,
    /// Who stops and starts nodes.
    pub nemesis: &'a Nemesis,
    /// Who knows when the cluster is whole.
    pub watch: &'a Watch,
    /// What the clients share.
    pub shared: &'a Shared,
}

impl Rounds<'_> {
    /// Stops and starts each node that serves clients, and reads everything in between.
    ///
    /// # Errors
    /// What was still missing when a round's time was over.
    pub async fn play(&self) -> Result<(), String> {
        self.watch.disturbed();
        time::sleep(QUIET).await;
        if self.can_spare_one() { self.always_one_down().await } else { self.one_by_one().await }
    }

    /// Whether three replicas go on with one of them down, and the quorum as well. A voter that comes back with another disk is none
    /// until an operator makes it one.
    fn can_spare_one(&self) -> bool {
        let (cluster, damaged) = (&self.plan.cluster, self.plan.damaged());
        let voters = cluster.voting().count();
        let sound = cluster.voting().filter(|voter| !damaged.contains(voter)).count();
        let serves = |voter: u32| cluster.role(voter).is_broker();
        let quorum_stays = !cluster.voting().any(serves) || 2 * sound.saturating_sub(1) > voters;
        cluster.serving().count() >= 3 && quorum_stays
    }

    /// With two replicas the other one leads after each stop.
    async fn one_by_one(&self) -> Result<(), String> {
        for node in self.plan.cluster.serving() {
            let deadline = time::now() + ROUND_MAX;
            self.nemesis.stop(node).await;
            self.nemesis.start(node);
            if !self.plan.cluster.is_lone() {
                self.watch.whole(deadline).await?;
            }
            self.read(self.plan.load.topics.iter(), deadline).await;
        }
        Ok(())
    }

    /// With three replicas each one leads once, because of the other two one is down and the other not in sync yet: the node of the
    /// round before starts only when the next one has stopped.
    async fn always_one_down(&self) -> Result<(), String> {
        let mut down = None;
        for node in self.plan.cluster.serving() {
            let deadline = time::now() + ROUND_MAX;
            self.nemesis.stop(node).await;
            down.into_iter().for_each(|before| self.nemesis.start(before));
            down = Some(node);
            self.watch.whole_without(down, deadline).await?;
            let read = self.plan.load.topics.iter().filter(|topic| self.goes_on_without_one(topic));
            self.read(read, deadline).await;
        }
        down.into_iter().for_each(|last| self.nemesis.start(last));
        self.watch.whole(time::now() + ROUND_MAX).await
    }

    /// Whether a topic can be read to its end with any one node down, and another one that has just come back.
    fn goes_on_without_one(&self, topic: &Topic) -> bool {
        let replicas = i32::from(topic.replicas.unwrap_or(3));
        let min_insync = topic.settings.get("min.insync.replicas").and_then(|value| value.parse().ok());
        replicas >= 3 && min_insync.is_none_or(|min_insync: i32| min_insync < replicas)
    }

    async fn read<'a>(&self, topics: impl Iterator<Item = &'a Topic>, deadline: Instant) {
        let repair = if self.plan.cluster.is_lone() { Duration::ZERO } else { REPAIR_MAX };
        let (shared, partitions) = (self.shared.clone(), load::partitions(topics));
        let read = async move {
            load::final_read(shared.clone(), READER, partitions, deadline, repair).await;
            load::ask_groups(shared, READER).await;
        };
        // It cannot fail: a panic would have ended the run.
        drop(self.world.spawn_on(self.reader, read).await);
    }
}
