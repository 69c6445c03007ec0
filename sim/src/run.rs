//! One run: the plan's cluster and load, its faults, healing, the final read, and the judgement.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use weir_defect::{Defect, switch_on};
use weir_jepsen::checkers::{self, AnomalyKind};
use weir_jepsen::history::{Acks, Done, Event, History, Operation, Outcome as Ending, ProcessId, Recorder};
use weir_jepsen::workload::{Damage, Flush, Idempotence, Liveness, Promise, Values};
use weir_runtime::simulation::{self, NodeId, Outcome, SimulationOptions, TraceEvent, World};
use weir_runtime::time::Instant;
use weir_runtime::{task, time, watch};

use crate::cluster::{self, DAMAGED, Exit, REFUSED};
use crate::draw::{Moment, Told};
use crate::load::{self, Shared};
use crate::nemesis::{Deeds, Nemesis};
use crate::plan::Plan;
use crate::report::{Finding, Report, situation};
use crate::rounds::Rounds;
use crate::watch::Watch;

/// How long an operation may take once everything is healed.
const LIVENESS_BOUND: Duration = Duration::from_secs(60);
/// How long brokers may take to fetch from each other what is found damaged in the end.
const REPAIR_MAX: Duration = Duration::from_secs(10);
/// How long brokers may take to serve for the first time.
const START_MAX: Duration = Duration::from_secs(30);
/// How long the rounds may take that follow on the final read.
const ROUNDS_MAX: Duration = Duration::from_secs(300);
/// When a run is given up.
const TIME_LIMIT: Duration = Duration::from_secs(600);

/// What a run leaves behind, before it is judged.
struct Remains {
    history: Vec<Event>,
    healed_at_ns: u64,
    deeds: Deeds,
    exits: Vec<Exit>,
    complaints: Vec<String>,
    files: Vec<(String, Bytes)>,
    /// What the invariants say.
    findings: Vec<Finding>,
    /// A partition can go on only with an operator's help.
    is_stranded: bool,
    /// The named situations that the nodes told of.
    met: BTreeSet<&'static str>,
    told: Vec<Told>,
    nodes: Vec<(u32, String)>,
}

/// Runs a plan with these defects switched on, and judges what came of it.
pub fn run(plan: &Plan, defects: &[Defect], traced: bool) -> Report {
    let options = SimulationOptions { time_limit: TIME_LIMIT, traced, ..SimulationOptions::default() };
    let (inside, defects) = (plan.clone(), defects.to_vec());
    let outcome = simulation::run(plan.seed, options, move |world| {
        // The switches belong to the thread that runs the simulation, which is this one.
        switch_on(&defects);
        play(world, inside, traced)
    });
    match outcome {
        Ok(outcome) => judge(plan, outcome),
        Err(not_simulated) => Report {
            findings: vec![Finding::new("not-simulated", not_simulated.to_string())],
            ..Report::default()
        },
    }
}

async fn play(world: World, plan: Plan, traced: bool) -> Remains {
    let brokers: Vec<_> =
        (0..plan.cluster.brokers).map(|number| cluster::add_broker(&world, number, &plan.cluster)).collect();
    let nodes: Vec<NodeId> =
        (0..load::clients(&plan.load)).map(|number| load::add_client(&world, number)).collect();
    let (stop, stopped) = watch::channel(false);
    let shared = Shared {
        recorder: Recorder::new(),
        values: Values::default(),
        bootstrap: (plan.cluster.serving())
            .map(|number| format!("{}:{}", cluster::address(number), cluster::PORT))
            .collect(),
        stop: stopped,
        next_process: Arc::new(AtomicU32::new(load::FIRST_LATE_PROCESS)),
        requests_may_be_late: requests_may_be_late(&plan),
        complaints: Arc::default(),
    };
    let watch = Watch::new(&world, &plan, traced);
    let watching = (!plan.cluster.is_lone()).then(|| {
        let watch = watch.clone();
        task::spawn("watch", async move { watch.run().await })
    });
    let nemesis = Nemesis::new(world.clone(), brokers.clone(), nodes.clone(), watch.clone());
    let mut complaints = Vec::new();
    let prepared = time::timeout(START_MAX, prepare(&shared, &plan, &watch)).await;
    if prepared.is_err() {
        complaints.push(format!("the topics were not created within {START_MAX:?} of the start"));
    }
    let supervisor = {
        let nemesis = nemesis.clone();
        task::spawn("supervisor", async move { nemesis.supervise().await })
    };
    let clients = load::start(&world, &nodes, &plan.load, &shared);
    let end = time::now() + Duration::from_millis(plan.load.duration_ms);
    nemesis.strike(&plan.faults).await;
    time::sleep_until(end).await;
    nemesis.heal();
    watch.healed();
    let healed_at_ns = Shared::now_ns();
    stop.send_replace(true);
    let deadline = time::now() + LIVENESS_BOUND;
    let mut is_whole = false;
    let all_done = async {
        for client in clients {
            drop(client.await); // a client's task cannot fail: a panic would have ended the run
        }
        let partitions = load::partitions(&plan.load.topics);
        if !plan.cluster.is_lone() {
            is_whole = recover(&watch, &shared, &plan, deadline, &mut complaints).await;
        }
        let repair = if plan.cluster.is_lone() { Duration::ZERO } else { REPAIR_MAX };
        let reader = nodes.last().copied().expect("there is always the administrator's machine");
        let read = load::final_read(shared.clone(), ProcessId(300), partitions, deadline, repair);
        drop(world.spawn_on(reader, read).await);
    };
    // An operation that does not end in time stays open in the history, where the checker finds it.
    let _ = time::timeout(LIVENESS_BOUND + Duration::from_secs(5), all_done).await;
    if plan.rounds {
        let reader = nodes.last().copied().expect("there is always the administrator's machine");
        let (world, plan, nemesis, watch, shared) = (&world, &plan, &nemesis, &watch, &shared);
        let rounds = Rounds { world, reader, plan, nemesis, watch, shared };
        let missing = match time::timeout(ROUNDS_MAX, rounds.play()).await {
            Ok(played) => played.err(),
            Err(_) => Some(format!("they take more than {ROUNDS_MAX:?}")),
        };
        is_whole &= missing.is_none();
        complaints.extend(missing.map(|missing| format!("in the rounds after the final read: {missing}")));
    }
    supervisor.abort();
    watching.into_iter().for_each(|watching| watching.abort());
    let deeds = std::mem::take(&mut *nemesis.deeds());
    complaints.extend(deeds.complaints.iter().cloned());
    complaints.append(&mut shared.complaints.lock().unwrap_or_else(PoisonError::into_inner));
    Remains {
        history: shared.recorder.events(),
        healed_at_ns,
        findings: watch.findings(is_whole, !deeds.damaged.is_empty()),
        is_stranded: watch.is_stranded() && !deeds.damaged.is_empty(),
        deeds,
        met: watch.met(),
        told: watch.take_told(),
        nodes: brokers.iter().map(|broker| (broker.node.number(), world.name(broker.node))).collect(),
        exits: brokers.iter().flat_map(|broker| broker.seen.all_exits()).collect(),
        complaints,
        files: if traced {
            brokers.iter().flat_map(|broker| files(&world, broker.node)).collect()
        } else {
            Vec::new()
        },
    }
}

/// What is on a broker's disk.
fn files(world: &World, node: NodeId) -> Vec<(String, Bytes)> {
    let disk = world.disk(node);
    let name = world.name(node);
    let content = |path: String| {
        let content = disk.content(&path)?;
        Some((format!("{name}/{}", path.trim_start_matches('/')), content))
    };
    disk.files().into_iter().filter_map(|(path, _)| content(path)).collect()
}

/// Creates the topics, before anything goes wrong, and once all brokers are there.
async fn prepare(shared: &Shared, plan: &Plan, watch: &Watch) {
    let client = load::connect(shared.bootstrap.clone(), "preparer".to_owned()).await;
    let admin = weir_client::Admin::new(&client);
    if !plan.cluster.is_lone() {
        // Without a deadline: the time limit is the caller's.
        let _ = watch.whole(time::now() + TIME_LIMIT).await;
    }
    for topic in &plan.load.topics {
        let mut new = weir_client::NewTopic::new(topic.name.clone(), topic.partitions);
        new.replication_factor = topic.replicas;
        new.configs = topic.settings.clone();
        while let Err(error) = admin.create_topic(&new).await {
            simulation::trace("topic not created", || error.to_string());
            time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// After the last fault every broker must serve, every partition have all its replicas in sync, and take a write. Returns whether
/// the cluster is whole.
async fn recover(
    watch: &Watch,
    shared: &Shared,
    plan: &Plan,
    deadline: Instant,
    complaints: &mut Vec<String>,
) -> bool {
    let client = load::connect(shared.bootstrap.clone(), "prober".to_owned()).await;
    for failure in load::probe(shared, &client, &plan.load.topics).await {
        complaints.push(format!("after the last fault: {failure}"));
    }
    match watch.whole(deadline).await {
        Ok(()) => true,
        Err(missing) => {
            complaints
                .push(format!("{LIVENESS_BOUND:?} after the last fault the cluster is not whole: {missing}"));
            false
        }
    }
}

/// What happened, as people may want to see it.
fn moment(event: TraceEvent) -> Moment {
    let ms = |at: Instant| at.since_origin().as_secs_f64() * 1e3;
    Moment {
        at_ms: ms(event.at),
        node: event.node.unwrap_or(0),
        kind: event.kind,
        sent: event.sent.map(|(node, at)| (node, ms(at))),
        text: event.text,
    }
}

/// What the system owes in this run.
fn promise(plan: &Plan, deeds: &Deeds, healed_at_ns: u64) -> Promise {
    let unsynced = plan.cluster.is_unsynced();
    let is_lone = plan.cluster.is_lone();
    Promise {
        // What only the leader has acknowledged may be gone with it.
        durable_acks: if is_lone {
            BTreeSet::from([Acks::Leader, Acks::All])
        } else {
            BTreeSet::from([Acks::All])
        },
        flush: if unsynced { Flush::Os } else { Flush::Sync },
        // In a cluster of such topics power is taken only from brokers without which enough copies are left.
        power_loss: !unsynced || plan.loses_records(),
        compacted: load::compacted(&plan.load),
        damage: damage(plan, deeds),
        deletion_is_immediate: is_lone,
        idempotent: idempotence(plan),
        groups_expire: plan.cluster.settings.contains_key("weir.offsets.retention.ms"),
        liveness: Some(Liveness { healed_at_ns, bound_ns: LIVENESS_BOUND.as_nanos() as u64 }),
        ..Promise::default()
    }
}

/// Where clients may be told of damage. A cluster has no damage that a good copy does not mend; until it is mended, the broker says
/// so. The groups' log has good copies as well, and what it says must be right throughout.
fn damage(plan: &Plan, deeds: &Deeds) -> Vec<Damage> {
    let logs = load::partitions(&plan.load.topics).into_iter();
    match (deeds.damaged.is_empty(), plan.cluster.is_lone()) {
        (true, _) => Vec::new(),
        (false, true) => vec![Damage { log: None, span: None }],
        (false, false) => logs.map(|log| Damage { log: Some(load::log_of(&log)), span: None }).collect(),
    }
}

/// Whether a request can be on its way for longer than its client waits for it.
fn requests_may_be_late(plan: &Plan) -> bool {
    if !plan.cluster.is_lone() {
        return true; // a leader that is deposed takes requests for a while
    }
    let delays = ["pause", "cut", "reset", "slow-link"];
    plan.faults.iter().any(|fault| delays.contains(&fault.fault.name()))
}

/// Which processes produce idempotently.
fn idempotence(plan: &Plan) -> Idempotence {
    let producers = plan.load.producers.iter().zip(0..);
    let idempotent =
        producers.filter(|(producer, _)| producer.idempotent && producer.retries && producer.acks == -1);
    let keyed = (0..plan.load.keyed.len()).map(load::keyed_process);
    Idempotence::Of(idempotent.map(|(_, number)| ProcessId(number)).chain(keyed).collect())
}

fn judge(plan: &Plan, outcome: Outcome<Remains>) -> Report {
    let mut report = Report {
        hash: outcome.event_hash,
        events: outcome.event_count,
        simulated: outcome.simulated,
        situations: situation::all().filter(|met| outcome.counters.contains_key(met)).collect(),
        moments: outcome.trace.into_iter().map(moment).collect(),
        ..Report::default()
    };
    let remains = match outcome.result {
        Ok(remains) => remains,
        Err(failure) => {
            let name = match failure {
                simulation::Failure::Panicked { .. } => "panic",
                simulation::Failure::TimeLimit { .. } => "stuck",
            };
            report.findings.push(Finding::new(name, failure.to_string()));
            return report;
        }
    };
    report.struck = remains.deeds.struck.clone();
    let is_bound_to_live = !remains.is_stranded;
    let complaints = remains.complaints.iter().filter(|_| is_bound_to_live);
    report.findings.extend(complaints.map(|complaint| Finding::new("stuck", complaint)));
    report.findings.extend(exits(plan, &remains));
    report.findings.extend(phantom_damage(&remains.deeds, &outcome.counters));
    report.findings.extend(remains.findings.iter().cloned());
    report.situations.extend(&remains.met);
    match History::from_events(remains.history.iter().cloned()) {
        Ok(history) => {
            report.acknowledged = history
                .operations()
                .iter()
                .filter(|operation| matches!(operation.outcome, Ending::Ok(_)))
                .count() as u64;
            let verdict = checkers::judge(&history, &promise(plan, &remains.deeds, remains.healed_at_ns));
            let refuses = plan.cluster.is_lone()
                && remains.exits.iter().any(|exit| exit.code == DAMAGED)
                && !remains.deeds.damaged.is_empty();
            report.findings.extend(unrepaired(plan, &history).filter(|_| is_bound_to_live));
            let excused = refuses || !is_bound_to_live;
            let found = verdict.anomalies.iter().filter(|anomaly| !(excused && is_absence(anomaly.kind)));
            report
                .findings
                .extend(found.map(|anomaly| Finding::new(anomaly.kind.to_string(), anomaly.to_string())));
        }
        Err(error) => report.findings.push(Finding::new("history", error.to_string())),
    }
    (report.told, report.nodes) = (remains.told, remains.nodes);
    report.history = remains.history;
    report.files = remains.files;
    report
}

/// In a cluster nothing is damaged for good: once it is whole again, everything can be read.
fn unrepaired(plan: &Plan, history: &History) -> Option<Finding> {
    let corrupt = |operation: &Operation| match &operation.outcome {
        Ending::Ok(Done::Read { corrupt, .. }) => {
            corrupt.first().map(|span| (operation.op.log().cloned(), *span))
        }
        _ => None,
    };
    let (log, span) = history.operations().iter().find_map(corrupt).filter(|_| !plan.cluster.is_lone())?;
    Some(Finding::new("unrepaired", format!("{log:?} is still damaged in the end, at {span:?}")))
}

/// Whether the anomaly is that something did not come. A broker whose only copy of the metadata is damaged says so and
/// refuses to start, and then nothing comes.
fn is_absence(kind: AnomalyKind) -> bool {
    matches!(kind, AnomalyKind::Unseen | AnomalyKind::Stuck)
}

/// A broker may end by itself only for a reason that the plan gave it.
fn exits(plan: &Plan, remains: &Remains) -> Vec<Finding> {
    let disk_errors = plan
        .faults
        .iter()
        .any(|fault| matches!(fault.fault.name(), "read-error" | "write-error" | "sync-error" | "disk-full"));
    let allowed = |exit: &Exit| match exit.code {
        DAMAGED => !remains.deeds.damaged.is_empty(),
        1 | 6 => disk_errors || !remains.deeds.damaged.is_empty(),
        REFUSED => plan.load.feature_level > 0 && exit.line.contains("feature level") && !exit.heeded,
        _ => false,
    };
    let forbidden: BTreeSet<_> = remains
        .exits
        .iter()
        .filter(|exit| !allowed(exit))
        .map(|exit| (exit.code, exit.line.clone()))
        .collect();
    forbidden
        .into_iter()
        .map(|(code, line)| Finding::new("exit", format!("a broker ended with {code}: {line}")))
        .collect()
}

/// Recovery may find damage only where the plan did damage: a crash or a power loss is no damage.
fn phantom_damage(deeds: &Deeds, counters: &BTreeMap<&'static str, u64>) -> Option<Finding> {
    let reported = counters.get(situation::DAMAGE_REPORTED).copied().unwrap_or(0);
    (reported > 0 && deeds.damaged.is_empty()).then(|| {
        Finding::new("phantom-damage", "recovery reports damage, and the disk damaged nothing".to_owned())
    })
}
