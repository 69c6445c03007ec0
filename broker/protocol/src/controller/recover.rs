//! Contract 5: when no certain member of a partition can lead, the uncertain ones are asked how far they reach, and the
//! largest of enough answers leads. A broker that came back with an empty disk answers too, with nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Controller, Effect, Question, Subject, Tail};
use crate::metadata::{ClusterCommand, Image, IsrMember, PartitionState};
use crate::types::{BrokerId, LogId};

/// One partition's.
#[derive(Debug)]
pub(super) struct Recovery {
    /// In which broker epoch each was asked, and when.
    asked: BTreeMap<BrokerId, (i64, Duration)>,
    /// In which broker epoch each has answered.
    answers: BTreeMap<BrokerId, (i64, Tail)>,
    /// Further answers are waited for until then, once enough are there.
    waits_until: Option<Duration>,
}

impl Controller {
    /// Looks for partitions to recover among all.
    pub(super) fn watch_all(&mut self, image: &Image) {
        for topic in image.topics() {
            for (log, partition) in topic.logs() {
                self.watch_one(image, log, Some(partition));
            }
        }
    }

    /// Looks again at partitions that have changed.
    pub(super) fn watch(&mut self, image: &Image, logs: &[LogId]) {
        for log in logs {
            self.watch_one(image, *log, image.partition(*log));
        }
    }

    /// Asks again, and elects where enough has been waited for.
    pub(super) fn recover(&mut self, now: Duration, image: &Image, effects: &mut Vec<Effect>) {
        self.recover_at = (!self.recoveries.is_empty()).then_some(now + self.timing.retry);
        self.ask(now, image, effects);
        let logs: Vec<_> = self.recoveries.keys().copied().collect();
        for log in logs {
            self.elect_recovered(log, now, image, effects);
        }
    }

    /// Forgets partitions that need no recovery any more.
    pub(super) fn unwatch(&mut self, image: &Image) {
        self.recoveries
            .retain(|log, _| image.partition(*log).is_some_and(|state| needs_recovery(image, state)));
    }

    fn watch_one(&mut self, image: &Image, log: LogId, state: Option<&PartitionState>) {
        if state.is_some_and(|state| needs_recovery(image, state)) {
            self.recoveries.entry(log).or_insert_with(|| Recovery {
                asked: BTreeMap::new(),
                answers: BTreeMap::new(),
                waits_until: None,
            });
        } else {
            self.recoveries.remove(&log);
        }
    }

    /// Asks every live uncertain member that has not answered in its present epoch, and was not asked lately.
    pub(super) fn ask(&mut self, now: Duration, image: &Image, effects: &mut Vec<Effect>) {
        let retry = self.timing.retry;
        let mut questions: BTreeMap<(BrokerId, i64), Vec<Question>> = BTreeMap::new();
        for (log, recovery) in &mut self.recoveries {
            let Some(state) = image.partition(*log) else { continue };
            for id in live_uncertain(image, state) {
                let Some(epoch) = image.broker(id).map(|broker| broker.epoch) else { continue };
                let answered = recovery.answers.get(&id).is_some_and(|(answered, _)| *answered == epoch);
                let lately =
                    recovery.asked.get(&id).is_some_and(|(asked, at)| *asked == epoch && now < *at + retry);
                if !answered && !lately {
                    recovery.asked.insert(id, (epoch, now));
                    let question = Question { log: *log, leader_epoch: state.leader_epoch };
                    questions.entry((id, epoch)).or_default().push(question);
                }
            }
            // Who is fenced is asked when it is back.
            recovery.asked.retain(|id, _| image.can_lead(*id));
        }
        if !questions.is_empty() {
            self.recover_at = self.recover_at.or(Some(now + retry));
        }
        for ((broker, broker_epoch), questions) in questions {
            for questions in questions.chunks(self.limits.ask_max.max(1)) {
                effects.push(Effect::AskTails { broker, broker_epoch, questions: questions.to_vec() });
            }
        }
    }

    pub(super) fn on_tails(
        &mut self,
        now: Duration,
        image: &Image,
        id: BrokerId,
        epoch: i64,
        tails: Vec<(Question, Tail)>,
        effects: &mut Vec<Effect>,
    ) {
        if image.broker(id).is_none_or(|broker| broker.epoch != epoch) {
            return;
        }
        for (Question { log, leader_epoch }, tail) in tails {
            if image.partition(log).is_none_or(|state| state.leader_epoch != leader_epoch) {
                continue;
            }
            let asked =
                |recovery: &Recovery| recovery.asked.get(&id).is_some_and(|(asked, _)| *asked == epoch);
            if let Some(recovery) = self.recoveries.get_mut(&log).filter(|recovery| asked(recovery)) {
                recovery.answers.insert(id, (epoch, tail));
                self.elect_recovered(log, now, image, effects);
            }
        }
    }

    /// Elects the largest if enough have answered, and either all have who could, or they were waited for.
    pub(super) fn elect_recovered(
        &mut self,
        log: LogId,
        now: Duration,
        image: &Image,
        effects: &mut Vec<Effect>,
    ) {
        let Some(state) = image.partition(log).filter(|state| needs_recovery(image, state)) else { return };
        let Some(recovery) = self.recoveries.get_mut(&log) else { return };
        let answers: Vec<(IsrMember, Tail)> = state
            .uncertain
            .iter()
            .filter_map(|id| {
                let (epoch, tail) = recovery.answers.get(id)?;
                let member = IsrMember { broker: *id, broker_epoch: *epoch };
                (image.broker(*id)?.epoch == *epoch).then_some((member, *tail))
            })
            .collect();
        if Some(answers.len()) < image.answers_needed(log) {
            return;
        }
        let all_answered =
            live_uncertain(image, state).all(|id| answers.iter().any(|(member, _)| member.broker == id));
        let waits_until = *recovery.waits_until.get_or_insert(now + self.timing.tails);
        if !all_answered && now < waits_until {
            return;
        }
        let Some(most) = answers.iter().map(|(_, tail)| *tail).max() else { return };
        let (most, less): (Vec<_>, Vec<_>) = answers.into_iter().partition(|(_, tail)| *tail == most);
        let Some((leader, _)) = most.iter().find(|(member, _)| image.can_lead(member.broker)).copied() else {
            return;
        };
        let others = most.into_iter().map(|(member, _)| member).filter(|member| *member != leader);
        let command = ClusterCommand::ElectRecovered {
            log,
            partition_epoch: state.partition_epoch,
            leader,
            equals: others.collect(),
            behind: less.into_iter().map(|(member, _)| member.broker).collect(),
        };
        self.want(now, image, Subject::Partition(log), command, effects);
    }
}

/// Whether only uncertain members are left that could lead.
fn needs_recovery(image: &Image, state: &PartitionState) -> bool {
    let nobody = state.leader.is_none() && !state.elr.iter().any(|id| image.can_lead(*id));
    nobody && !state.uncertain.is_empty()
}

fn live_uncertain<'a>(image: &'a Image, state: &'a PartitionState) -> impl Iterator<Item = BrokerId> + 'a {
    state.uncertain.iter().copied().filter(|id| image.can_lead(*id))
}
