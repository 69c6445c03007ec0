//! Writes that tell how long a partition takes none, and what they told.
//!
//! A probe sends a small record to one partition every few milliseconds, with acks=all, and gives a request up soon. The time
//! from a fault to the first acknowledgement of a record that was sent after it is how long clients could not write there.
//!
//! In a cluster there is a topic for each node that has no replica there: if the node leads the quorum, its loss shows
//! whether that alone costs anybody anything.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use weir_client::{Acks, Client, ClientConfig, NewTopic, Producer, ProducerConfig, TopicPartition};
use weir_jepsen::history::{self, Done, History, Log, Op, Outcome, ProcessId};
use weir_jepsen::load::{self, Shared};
use weir_runtime::time;

use crate::nemesis::Struck;
use crate::plan::Plan;

/// The topic whose partitions have replicas everywhere.
const EVERYWHERE: &str = "probed";

/// The first probe's process.
const FIRST_PROCESS: u32 = 400;
/// The pace.
const EVERY: Duration = Duration::from_millis(20);
/// When a probe gives up a request and asks who leads. It is part of what is measured where a node does not answer.
const REQUEST_TIMEOUT: Duration = Duration::from_millis(300);
/// A fault counts by itself only so long after the one before it was mended.
const ALONE_NS: u64 = 1_500_000_000;

/// The topics of a plan's probes.
pub(crate) fn topics(plan: &Plan) -> Vec<NewTopic> {
    let everywhere = (plan.probes > 0).then(|| NewTopic::new(EVERYWHERE, plan.probes));
    // With two nodes there would be one replica, which is no cluster's topic.
    let sparing = (0..plan.nodes).filter(|_| plan.probes > 0 && plan.nodes > 2).map(|spared| {
        let others: Vec<i32> =
            (1..plan.nodes).map(|step| ((spared + step) % plan.nodes) as i32 + 1).take(2).collect();
        NewTopic { name: sparing(spared), assignments: [(0, others)].into(), ..NewTopic::default() }
    });
    everywhere.into_iter().chain(sparing).collect()
}

/// The name of the topic that has no replica on this node.
fn sparing(node: u32) -> String {
    format!("probed-not-on-{}", node + 1)
}

/// Every partition of a plan's probes, and whose sends are those to it.
pub(crate) fn partitions(plan: &Plan) -> Vec<(ProcessId, TopicPartition)> {
    let of_topic = |topic: NewTopic| {
        let name: std::sync::Arc<str> = topic.name.into();
        (0..topic.partitions.unwrap_or(1)).map(move |partition| TopicPartition::new(name.clone(), partition))
    };
    (FIRST_PROCESS..).map(ProcessId).zip(topics(plan).into_iter().flat_map(of_topic)).collect()
}

/// Sends to one partition until the load ends.
pub(crate) async fn run(shared: Shared, process: ProcessId, to: TopicPartition) {
    let client = connect(&shared, process).await;
    let config = ProducerConfig {
        acks: Acks::All,
        linger: Duration::ZERO,
        request_timeout: REQUEST_TIMEOUT,
        delivery_timeout: Duration::from_secs(20),
        ..ProducerConfig::default()
    };
    let producer = Producer::new(&client, config);
    let mut answers = Vec::new();
    while !*shared.stop.borrow() {
        answers.push(load::send(&shared, process, &producer, Acks::All, &to, 0).await);
        answers.retain(|answer| !answer.is_finished());
        time::sleep(EVERY).await;
    }
    for answer in answers {
        if let Err(error) = answer.await {
            shared.complain(error.to_string());
        }
    }
}

async fn connect(shared: &Shared, process: ProcessId) -> Client {
    let config = ClientConfig {
        bootstrap: shared.bootstrap.clone(),
        client_id: format!("probe-{}", process.0),
        connect_timeout: REQUEST_TIMEOUT,
        request_timeout: REQUEST_TIMEOUT,
        retry_backoff: Duration::from_millis(5),
        retry_backoff_max: Duration::from_millis(20),
        ..ClientConfig::default()
    };
    loop {
        match Client::connect(config.clone()).await {
            Ok(client) => return client,
            Err(_) => time::sleep(Duration::from_millis(50)).await, // nothing is served yet
        }
    }
}

/// How long writes failed after the faults of one kind.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Outage {
    /// How often the kind struck.
    pub(crate) struck: u64,
    /// How often it struck while nothing else was wrong; only these are measured.
    pub(crate) measured: u64,
    /// Until every partition took writes again, in milliseconds: the median over the faults.
    pub(crate) median_ms: Option<f64>,
    /// The longest.
    pub(crate) max_ms: Option<f64>,
    /// The longest time for a partition that has no replica on the node that was struck.
    pub(crate) elsewhere_max_ms: Option<f64>,
    /// Probes sent while the fault lasted that ended with an error.
    pub(crate) errors: u64,
}

/// What the probes of a history tell about each kind of fault.
pub(crate) fn outages(history: &History, struck: &[Struck]) -> BTreeMap<&'static str, Outage> {
    let probes = Probes::of(history);
    let mut times: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
    let mut outages: BTreeMap<&'static str, Outage> = BTreeMap::new();
    for (at, fault) in struck.iter().enumerate() {
        let outage = outages.entry(fault.fault.name()).or_default();
        outage.struck += 1;
        outage.errors += probes.errors(fault.at_ns, fault.mended_ns);
        let is_alone = struck.iter().enumerate().all(|(other_at, other)| {
            other_at == at || other.mended_ns + ALONE_NS < fault.at_ns || other.at_ns > fault.mended_ns
        });
        if !is_alone {
            continue;
        }
        if let Some(took_ms) = probes.without_writes(fault.at_ns, EVERYWHERE) {
            outage.measured += 1;
            times.entry(fault.fault.name()).or_default().push(took_ms);
        }
        let elsewhere =
            fault.fault.node().and_then(|node| probes.without_writes(fault.at_ns, &sparing(node)));
        outage.elsewhere_max_ms = [outage.elsewhere_max_ms, elsewhere].into_iter().flatten().reduce(f64::max);
    }
    for (kind, mut times) in times {
        times.sort_by(f64::total_cmp);
        let outage = outages.entry(kind).or_default();
        outage.median_ms = times.get(times.len() / 2).copied();
        outage.max_ms = times.last().copied();
    }
    outages
}

/// The probes' sends, by partition.
struct Probes<'a> {
    /// When each acknowledged send began and ended, in the order of the beginnings.
    acknowledged: BTreeMap<&'a Log, Vec<(u64, u64)>>,
    /// When each of the others began.
    failed: Vec<u64>,
}

impl<'a> Probes<'a> {
    fn of(history: &'a History) -> Probes<'a> {
        let mut probes = Probes { acknowledged: BTreeMap::new(), failed: Vec::new() };
        for operation in history.operations() {
            let Op::Send { log, acks: history::Acks::All, .. } = &operation.op else { continue };
            if !log.topic.starts_with(EVERYWHERE) {
                continue;
            }
            match (&operation.outcome, operation.completed_ns) {
                (Outcome::Ok(Done::Sent { .. }), Some(end)) => {
                    probes.acknowledged.entry(log).or_default().push((operation.invoked_ns, end));
                }
                _ => probes.failed.push(operation.invoked_ns),
            }
        }
        probes
    }

    /// From this moment until every partition of the topic has taken a write that was sent later, in milliseconds; `None` if
    /// one never did.
    fn without_writes(&self, from_ns: u64, topic: &str) -> Option<f64> {
        let of_topic = self.acknowledged.iter().filter(|(log, _)| &*log.topic == topic);
        let taken = of_topic.map(|(_, sends)| {
            let later = sends.partition_point(|(begun, _)| *begun < from_ns);
            sends[later..].iter().map(|(_, ended)| ended.saturating_sub(from_ns)).min()
        });
        let longest = taken.collect::<Option<Vec<u64>>>()?.into_iter().max()?;
        Some(longest as f64 / 1e6)
    }

    fn errors(&self, from_ns: u64, to_ns: u64) -> u64 {
        self.failed.iter().filter(|begun| (from_ns..to_ns).contains(*begun)).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Fault;
    use weir_jepsen::history::{Failure, Recorder};

    fn sent(recorder: &Recorder, partition: i32, value: u64, begun_ms: u64, ended_ms: Option<u64>) {
        let op =
            Op::Send { log: Log::new(EVERYWHERE, partition), value, acks: history::Acks::All, keyed: None };
        let pending = recorder.invoke(ProcessId(partition as u32), begun_ms * 1_000_000, op);
        match ended_ms {
            Some(ms) => pending.ok(ms * 1_000_000, Done::Sent { offset: Some(value as i64) }),
            None => pending.fail((begun_ms + 1) * 1_000_000, Failure::Error("no".to_owned())),
        }
    }

    fn struck(at_ms: u64, mended_ms: u64) -> Struck {
        let fault = Fault::Kill { node: 0 };
        Struck { fault, at_ns: at_ms * 1_000_000, mended_ns: mended_ms * 1_000_000 }
    }

    #[test]
    fn the_slowest_partition_and_only_what_was_sent_after_the_fault_counts() {
        let recorder = Recorder::new();
        sent(&recorder, 0, 1, 90, Some(120)); // sent before: its answer says nothing
        sent(&recorder, 0, 2, 110, Some(400));
        sent(&recorder, 0, 3, 120, Some(350));
        sent(&recorder, 1, 4, 105, Some(110));
        sent(&recorder, 1, 5, 150, None);
        let history = History::from_events(recorder.events()).unwrap();
        let outages = outages(&history, &[struck(100, 1_000)]);
        let kill = &outages["kill"];
        assert_eq!((kill.struck, kill.measured, kill.errors), (1, 1, 1));
        assert_eq!((kill.median_ms, kill.max_ms), (Some(250.0), Some(250.0)));
    }

    #[test]
    fn faults_that_overlap_are_counted_and_not_measured() {
        let recorder = Recorder::new();
        sent(&recorder, 0, 1, 5_000, Some(5_010));
        let history = History::from_events(recorder.events()).unwrap();
        let outages = outages(&history, &[struck(100, 1_000), struck(900, 2_000), struck(4_990, 6_000)]);
        assert_eq!((outages["kill"].struck, outages["kill"].measured), (3, 1));
        assert_eq!(outages["kill"].median_ms, Some(20.0));
    }
}
