//! Faults that wait for their moment: each strikes when the nodes have told that they are where it can hurt them.

use std::time::Duration;

use weir_protocol::raft::Term;
use weir_runtime::simulation::NodeId;
use weir_runtime::time;

use super::several::slow;
use super::{Nemesis, sleep_ms};
use crate::plan::{Blow, Fault, Whom};
use crate::watch::Watch;

/// How long a fault waits for its moment.
const MOMENT_MAX: Duration = Duration::from_secs(5);

impl Nemesis {
    /// A node has just come back, and nobody can take it into the company of the others: there it loses its disk.
    pub(super) async fn relapse(&self, fault: &Fault, node: NodeId) {
        let Fault::Relapse { broker, away_ms, after_ms, down_ms, quorum_ms } = *fault else { return };
        let before = self.watch.broker_epoch(broker);
        self.stop_and_start_quietly(&Fault::Kill { broker, down_ms: away_ms }).await;
        if !self.comes_true(|watch| watch.broker_epoch(broker) > before).await {
            return;
        }
        if let Some(leads) = self.find(Whom::Quorum).filter(|leads| *leads != broker) {
            let nemesis = self.clone();
            self.begin(async move { nemesis.blow(leads, Blow::Kill, quorum_ms).await });
        }
        if !self.comes_true(|watch| watch.has_caught_up(broker, None)).await {
            return;
        }
        sleep_ms(after_ms).await;
        if self.is_up(broker) {
            self.struck(fault);
            self.empty_disk(broker, node, down_ms).await;
        }
    }

    /// Who leads a partition asks for a node to be taken into sync, and the node comes back with an empty disk before the quorum hears
    /// that.
    pub(super) async fn overtake(&self, fault: &Fault, node: NodeId) {
        let Fault::Overtake { broker, away_ms, after_ms, delay_ms } = *fault else { return };
        let before = self.watch.broker_epoch(broker);
        self.stop_and_start_quietly(&Fault::Kill { broker, down_ms: away_ms }).await;
        if !self.comes_true(|watch| watch.broker_epoch(broker) > before).await {
            return;
        }
        let Some(quorum) = self.find(Whom::Quorum).filter(|quorum| *quorum != broker) else { return };
        let Some(leader) = self.watch.awaits(broker, quorum) else { return };
        let (net, from, to) = (self.world.net(), self.node(leader), self.node(quorum));
        net.set_link(from, to, Some(slow(delay_ms, 0.0)));
        if self.comes_true(|watch| watch.has_caught_up(broker, Some(leader)) && watch.serves(broker)).await {
            sleep_ms(after_ms).await;
            if self.is_up(broker) {
                self.struck(fault);
                let first = self.watch.broker_epoch(broker);
                self.replace_disk(broker, node).await;
                self.comes_true(|watch| watch.broker_epoch(broker) > first).await;
                // Not even the leader itself fills the disk before its request arrives.
                net.set_link(from, node, Some(slow(delay_ms, 0.0)));
                self.comes_true(|watch| watch.serves(broker)).await;
                sleep_ms(2 * delay_ms).await;
                net.set_link(from, node, None);
            }
        }
        net.set_link(from, to, None);
    }

    /// Who leads a partition is cut off with a tail of its own. When it is back and the one who leads by now tells it to cut that, the
    /// word takes long, and the speaker stops cleanly: it arrives when a third one leads.
    pub(super) async fn answer_late(&self, fault: &Fault) {
        let Fault::LateAnswer { place, after_ms, delay_ms, down_ms } = *fault else { return };
        let Some(first) = self.find(Whom::Leader(place)) else { return };
        let led = self.watch.led_by(first);
        let (net, links) = (self.world.net(), self.links_to_peers(first));
        links.iter().for_each(|(from, to)| net.cut(*from, *to));
        let mut found = None;
        self.comes_true(|watch| {
            // What the quorum's leader tells everybody must not take long.
            let quorum = watch.whom(Whom::Quorum);
            let leaders = led.iter().filter_map(|log| watch.leader(*log).map(|leader| (*log, leader)));
            found = leaders.into_iter().find(|(_, leader)| *leader != first && Some(*leader) != quorum);
            found.is_some()
        })
        .await;
        let slowed = found.map(|(log, second)| (log, second, self.node(second), self.node(first)));
        if let Some((_, _, from, to)) = slowed {
            sleep_ms(after_ms).await;
            net.set_link(from, to, Some(slow(delay_ms, 0.0)));
        }
        links.iter().for_each(|(from, to)| net.mend(*from, *to));
        let Some((log, second, from, to)) = slowed else { return };
        let told_before = self.watch.parted(log, first);
        let tells = |watch: &Watch| {
            watch.parted(log, first).is_some_and(|now| Some(now) != told_before && now.1 == second)
        };
        if self.comes_true(tells).await && self.is_up(second) {
            self.struck(fault);
            self.stop_and_start_quietly(&Fault::Restart { broker: second, down_ms }).await;
            sleep_ms(2 * delay_ms).await;
        }
        net.set_link(from, to, None);
    }

    /// The quorum's leader dies; a voter whose disk is slow loses its power as soon as it has voted for another one, who is cut off. The
    /// first two are back at once, and can elect one of themselves.
    pub(super) async fn recast(&self, fault: &Fault) {
        let Fault::Recast { disk_factor, down_ms, for_ms } = *fault else { return };
        let Some(leader) = self.find(Whom::Quorum) else { return };
        let others: Vec<u32> = (0..self.brokers.len() as u32).filter(|other| *other != leader).collect();
        let disks = || others.iter().map(|other| self.world.disk(self.node(*other)));
        let term = self.watch.newest_vote().map(|vote| vote.term);
        disks().for_each(|disk| disk.slow_down(f64::from(disk_factor)));
        self.hold(leader, 1);
        self.crash(self.node(leader), false);
        let mut cast = None;
        self.comes_true(|watch| {
            cast = watch.newest_vote().filter(|vote| Some(vote.term) > term);
            cast.is_some()
        })
        .await;
        disks().for_each(|disk| disk.slow_down(1.0));
        let mut cut_off = Vec::new();
        if let Some(vote) = cast.filter(|vote| self.is_up(vote.voter) && vote.voter != leader) {
            self.struck(fault);
            self.hold(vote.voter, 1);
            self.crash(self.node(vote.voter), true);
            cut_off = self.links_to_peers(vote.candidate);
            cut_off.iter().for_each(|(from, to)| self.world.net().cut(*from, *to));
            sleep_ms(down_ms).await;
            self.let_go(vote.voter);
        }
        self.let_go(leader);
        sleep_ms(for_ms).await;
        cut_off.iter().for_each(|(from, to)| self.world.net().mend(*from, *to));
    }

    /// Three voters, each of whom can hold what another one's log does not, and win against it.
    pub(super) async fn figure_eight(&self, fault: &Fault) {
        let Fault::FigureEight { voters, delay_ms } = fault else { return };
        let net = self.world.net();
        let pairs = voters.iter().flat_map(|from| voters.iter().map(move |to| (from, to)));
        let pairs = pairs.filter(|(from, to)| from != to);
        let links: Vec<_> = pairs.map(|(from, to)| (self.node(*from), self.node(*to))).collect();
        links.iter().for_each(|(from, to)| net.set_link(*from, *to, Some(slow(*delay_ms, 0.0))));
        if self.overwrite(voters, *delay_ms).await.is_some() {
            self.struck(fault);
        }
        voters.iter().for_each(|voter| self.reconnect(*voter));
        links.iter().for_each(|(from, to)| {
            net.mend(*from, *to);
            net.set_link(*from, *to, None);
        });
    }

    /// As figure 8 has it, with the entry that each leader begins with. `None`: it did not come that far.
    async fn overwrite(&self, voters: &[u32], delay_ms: u64) -> Option<()> {
        let (term, old) = self.watch.quorum_leader().filter(|(_, old)| voters.contains(old))?;
        self.isolate(old);
        // (a) Its first entry reaches nobody.
        let (term, first) = self.next_leader(term).await.filter(|(_, first)| *first != old)?;
        self.isolate(first);
        self.reconnect(old);
        // (b) Neither does that of another one, which the third has elected.
        let (term, second) = self.next_leader(term).await.filter(|(_, second)| *second != first)?;
        self.isolate(second);
        let third = voters.iter().copied().find(|voter| ![first, second].contains(voter))?;
        // (c) The first one's entry of the older term is copied, and nothing else.
        self.reconnect(first);
        let (term, again) = self.next_leader(term).await?;
        let before = self.watch.metadata_end(third);
        let copied = self.comes_true(|watch| watch.metadata_end(third) > before).await;
        let (from, to) = (self.node(first), self.node(third));
        self.world.net().cut(from, to);
        sleep_ms(3 * delay_ms).await;
        self.isolate(first);
        // (d) The second one's is newer.
        self.reconnect(second);
        let last = self.next_leader(term).await?;
        sleep_ms(10 * delay_ms).await;
        (again == first && last.1 == second && copied).then_some(())
    }

    /// Who leads the quorum in a term after this one, once somebody does.
    async fn next_leader(&self, term: Term) -> Option<(Term, u32)> {
        let mut next = None;
        self.comes_true(|watch| {
            next = watch.quorum_leader().filter(|(newer, _)| *newer > term);
            next.is_some()
        })
        .await;
        next
    }

    /// Nobody hears a node, and it hears nobody.
    fn isolate(&self, broker: u32) {
        self.world.net().clog(self.node(broker), true, true);
    }

    fn reconnect(&self, broker: u32) {
        self.world.net().unclog(self.node(broker));
    }

    /// Waits for something that may come true. Returns whether it has.
    async fn comes_true(&self, mut is_true: impl FnMut(&Watch) -> bool) -> bool {
        let deadline = time::now() + MOMENT_MAX;
        while !is_true(&self.watch) {
            if time::now() >= deadline {
                return false;
            }
            sleep_ms(2).await;
        }
        true
    }

    /// The process dies, which ends its session soon, and starts with another disk.
    async fn replace_disk(&self, broker: u32, node: NodeId) {
        self.deeds().damaged.push(format!("all of {node}"));
        self.hold(broker, 1);
        self.crash(node, false);
        self.world.disk(node).replace();
        self.let_go(broker);
    }
}
