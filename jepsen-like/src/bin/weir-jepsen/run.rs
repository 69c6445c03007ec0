//! One run: the brokers, the load, the faults, healing, the final read, and the judgement.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use weir_client::{Admin, NewTopic};
use weir_jepsen::checkers::{self, Anomaly, AnomalyKind};
use weir_jepsen::history::{Acks, Event, History, ProcessId, Recorder, write_events};
use weir_jepsen::load::{self, Shared};
use weir_jepsen::workload::{Idempotence, Liveness, Promise, Values};
use weir_runtime::task::{self, JoinHandle};
use weir_runtime::{time, watch};

use crate::Failure;
use crate::brokers::{self, Brokers};
use crate::librdkafka::Librdkafka;
use crate::links::Links;
use crate::nemesis::{Nemesis, Struck};
use crate::plan::Plan;
use crate::probe;
use crate::report::{Finding, Report};

/// How long brokers may take to serve for the first time.
const START_MAX: Duration = Duration::from_secs(60);
/// How long an operation may take once everything is healed.
const LIVENESS_BOUND: Duration = Duration::from_secs(60);
/// How long a broker that is heard again may take until it knows what was decided meanwhile.
const CATCHES_UP_MAX: Duration = Duration::from_secs(5);
/// The process that reads everything in the end.
const FINAL_READER: ProcessId = ProcessId(300);

/// What a run needs besides its plan.
pub(crate) struct Surroundings {
    /// The broker's binary.
    pub(crate) broker: PathBuf,
    /// For the brokers' folders, the plan and the history.
    pub(crate) folder: PathBuf,
    /// The script that starts librdkafka's clients.
    pub(crate) librdkafka: Option<PathBuf>,
}

/// Runs a plan and judges what came of it. The plan, the history and what the faults did are in the folder then.
///
/// # Errors
/// When the brokers do not start, or this machine lacks something.
pub(crate) async fn run(plan: &Plan, surroundings: &Surroundings) -> Result<Report, Failure> {
    let folder = &surroundings.folder;
    std::fs::write(folder.join("plan.json"), plan.to_json())?;
    let recorder = Recorder::new();
    let played = weir_runtime::select! {
        () = task::interrupted() => Err(Failure::Interrupted),
        remains = play(plan, surroundings, recorder.clone()) => remains,
    };
    let remains = match played {
        Ok(remains) => remains,
        Err(failure) => {
            write_history(folder, &recorder.finish()?)?; // as far as it went
            return Err(failure);
        }
    };
    let struck = serde_json::to_string_pretty(&remains.struck).map_err(std::io::Error::from)?;
    std::fs::write(folder.join("struck.json"), struck)?;
    write_history(folder, &remains.events)?;
    let mut report = judge(plan, remains)?;
    report.folder = folder.display().to_string();
    if !report.is_clean() {
        report.said = brokers::warnings(folder, plan.nodes);
    }
    Ok(report)
}

fn write_history(folder: &Path, events: &[Event]) -> Result<(), Failure> {
    let file = std::fs::File::create(folder.join("history.jsonl"))?;
    Ok(write_events(std::io::BufWriter::new(file), events)?)
}

/// What a run leaves behind, before it is judged.
struct Remains {
    events: Vec<Event>,
    struck: Vec<Struck>,
    healed_at_ns: u64,
    complaints: Vec<String>,
}

async fn play(plan: &Plan, surroundings: &Surroundings, recorder: Recorder) -> Result<Remains, Failure> {
    let progress = progress(plan);
    let links = Links::new();
    progress.set_message("the brokers start");
    let brokers = Brokers::start(&surroundings.broker, &surroundings.folder, plan, &links).await?;
    brokers.until_ready(START_MAX).await?;
    let (stop, stopped) = watch::channel(false);
    let shared = Shared {
        recorder,
        values: Values::default(),
        bootstrap: brokers.addresses(),
        stop: stopped,
        next_process: Arc::new(AtomicU32::new(load::FIRST_LATE_PROCESS)),
        requests_may_be_late: true,
        complaints: Arc::default(),
    };
    match time::timeout(START_MAX, prepare(&shared, plan)).await {
        Ok(prepared) => prepared?,
        Err(_) => return Err(Failure::NoTopics { limit: START_MAX }),
    }
    let supervisor = {
        let brokers = brokers.clone();
        task::spawn("supervisor", async move { brokers.supervise().await })
    };
    let mut librdkafka = match surroundings.librdkafka.as_deref().filter(|_| plan.librdkafka) {
        Some(script) => {
            Some(Librdkafka::start(script, &surroundings.folder, &shared.bootstrap, &plan.load.topics)?)
        }
        None => None,
    };
    let clients = start_clients(plan, &shared);
    let nemesis = Nemesis::new(brokers.clone(), links.clone(), plan);
    let end = time::now() + Duration::from_millis(plan.load.duration_ms);
    let shown = {
        let (progress, nemesis, shared) = (progress.clone(), nemesis.clone(), shared.clone());
        task::spawn("progress", async move { show(&progress, &nemesis, &shared).await })
    };
    let under_way = nemesis.strike(&plan.faults).await;
    time::sleep_until(end).await;
    for fault in under_way {
        fault.await?;
    }
    links.heal();
    let healed_at_ns = Shared::now_ns();
    shown.abort();
    progress.set_message("all is healed; everything is read");
    stop.send_replace(true);
    librdkafka.iter_mut().for_each(Librdkafka::stop); // groups are to read its last records, too
    finish_clients(plan, &shared, clients).await?;
    let theirs = match librdkafka {
        Some(librdkafka) => librdkafka.finish().await?,
        None => Vec::new(),
    };
    supervisor.abort();
    progress.set_message("the brokers stop");
    brokers.stop_all().await;
    progress.finish_and_clear();
    let mut complaints = brokers.take_complaints();
    complaints.append(&mut shared.complaints.lock().unwrap_or_else(PoisonError::into_inner));
    let mut events = shared.recorder.finish()?;
    events.extend(theirs);
    // Each event's time was read before an operation began, or after it had ended, so that the order of time holds.
    events.sort_by_key(|event| event.time_ns);
    Ok(Remains { events, struck: nemesis.take_struck(), healed_at_ns, complaints })
}

fn progress(plan: &Plan) -> ProgressBar {
    let bar = ProgressBar::new(plan.load.duration_ms / 1_000);
    if let Ok(style) = ProgressStyle::with_template("{elapsed_precise} {bar:30} {pos}/{len} s  {wide_msg}") {
        bar.set_style(style);
    }
    bar
}

async fn show(progress: &ProgressBar, nemesis: &Nemesis, shared: &Shared) {
    loop {
        let (doing, events) = (nemesis.doing(), shared.recorder.len());
        progress.set_message(format!("{events} events  {doing}"));
        time::sleep(Duration::from_secs(1)).await;
        progress.inc(1);
    }
}

/// Creates the topics, before anything goes wrong.
async fn prepare(shared: &Shared, plan: &Plan) -> Result<(), Failure> {
    let client = load::connect(shared.bootstrap.clone(), "preparer".to_owned()).await;
    let admin = Admin::new(&client);
    let of_load = plan.load.topics.iter().map(|topic| {
        let mut new = NewTopic::new(topic.name.clone(), topic.partitions);
        new.configs = topic.settings.clone();
        new
    });
    for topic in of_load.chain(probe::topics(plan)) {
        admin.create_topic(&topic).await.map_err(Box::new)?;
    }
    Ok(())
}

fn start_clients(plan: &Plan, shared: &Shared) -> Vec<JoinHandle<()>> {
    let works = load::work(&plan.load, shared);
    let mut clients: Vec<_> = works.into_iter().map(|work| task::spawn("client", work.run)).collect();
    for (process, partition) in probe::partitions(plan) {
        clients.push(task::spawn("probe", probe::run(shared.clone(), process, partition)));
    }
    clients
}

/// Waits for the clients' last answers and reads everything. What does not end in time stays open in the history, where the
/// checker finds it.
async fn finish_clients(plan: &Plan, shared: &Shared, clients: Vec<JoinHandle<()>>) -> Result<(), Failure> {
    let deadline = time::now() + LIVENESS_BOUND;
    let all = async {
        for client in clients {
            client.await?;
        }
        let mut partitions = load::partitions(&plan.load.topics);
        partitions.extend(probe::partitions(plan).into_iter().map(|(_, partition)| partition));
        // Real disks damage nothing here, so that there is nothing to repair.
        load::final_read(shared.clone(), FINAL_READER, partitions, deadline, Duration::ZERO).await;
        Ok(())
    };
    time::timeout(LIVENESS_BOUND + Duration::from_secs(5), all).await.unwrap_or(Ok(()))
}

/// What the system owes in this run. Power stays, so that a crash takes nothing from the page cache; what only a leader had
/// acknowledged may be lost with it.
fn promise(plan: &Plan, healed_at_ns: u64) -> Promise {
    let mut durable_acks = BTreeSet::from([Acks::All]);
    if plan.nodes == 1 {
        durable_acks.insert(Acks::Leader);
    }
    let ours = plan.load.producers.iter().zip(0..).filter(|(producer, _)| producer.idempotent);
    let keyed = (0..plan.load.keyed.len()).map(load::keyed_process);
    let probes = probe::partitions(plan).into_iter().map(|(process, _)| process);
    // Not librdkafka's: once a leader says that a number is out of order it numbers everything that is unanswered anew, in
    // the next epoch, be it written or not. Its numbers keep the order, and that is judged.
    let idempotent = ours.map(|(_, number)| ProcessId(number)).chain(keyed).chain(probes).collect();
    Promise {
        durable_acks,
        power_loss: false,
        idempotent: Idempotence::Of(idempotent),
        compacted: load::compacted(&plan.load),
        deletion_is_immediate: plan.nodes == 1,
        liveness: Some(Liveness { healed_at_ns, bound_ns: LIVENESS_BOUND.as_nanos() as u64 }),
        ..Promise::default()
    }
}

/// Whether a coordinator that others did not hear has told where a group stood before somebody else took over: it answers
/// from what it knows, as Kafka's do (docs/guarantees.md). Whoever believes it reads again, and skips nothing.
fn is_stale_read(anomaly: &Anomaly, struck: &[Struck]) -> bool {
    let is_read = anomaly.kind == AnomalyKind::OffsetRegression && anomaly.what.contains("is told to stand");
    let asked_at_ns = anomaly.proof.last().map(|evidence| evidence.invoked_ns);
    let until = |fault: &Struck| fault.mended_ns + CATCHES_UP_MAX.as_nanos() as u64;
    let mut unheard = struck.iter().filter(|struck| struck.fault.leaves_unheard());
    is_read && unheard.any(|fault| asked_at_ns.is_some_and(|at| (fault.at_ns..until(fault)).contains(&at)))
}

fn judge(plan: &Plan, remains: Remains) -> Result<Report, Failure> {
    let history = History::from_events(remains.events)?;
    let mut verdict = checkers::judge(&history, &promise(plan, remains.healed_at_ns));
    verdict.anomalies.retain(|anomaly| !is_stale_read(anomaly, &remains.struck));
    let mut report = Report::new(plan, &verdict);
    report.findings.extend(remains.complaints.into_iter().map(|text| Finding::new("broker", text)));
    report.outages = probe::outages(&history, &remains.struck);
    Ok(report)
}

/// Judges a history that was written before, of any Kafka-compatible system.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn judge_file(
    history: &Path,
    promise: Option<&Path>,
) -> Result<weir_jepsen::checkers::Verdict, Failure> {
    let promise = match promise {
        Some(path) => serde_json::from_str(&std::fs::read_to_string(path)?).map_err(std::io::Error::from)?,
        None => Promise { power_loss: false, deletion_is_immediate: false, ..Promise::default() },
    };
    let history = History::read_from(std::io::BufReader::new(std::fs::File::open(history)?))?;
    Ok(checkers::judge(&history, &promise))
}
