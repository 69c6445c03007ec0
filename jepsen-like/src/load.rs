//! What the clients of a run do, written down as a history. The simulator and the runs with real processes put the same
//! load on their brokers.
//!
//! [`plan`] says as plain data what there is to do; [`work`] makes it into futures, one or more for each client's machine.

mod churn;
mod consuming;
mod grouping;
mod keyed;
mod listing;
pub mod plan;
mod producing;
mod raising;

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use weir_client::{Client, ClientConfig, TopicPartition};
use weir_runtime::time;
use weir_runtime::watch;

use self::plan::{Load, Topic};
use crate::history::{Log, ProcessId, Recorder};
use crate::workload::Values;

pub use churn::DELETED;
pub use consuming::{ask_groups, final_read};
pub use grouping::LATE_COMMIT;
pub use producing::{probe, send};
pub use raising::LEVEL_RAISED;

/// What every client of a run shares.
#[derive(Clone)]
pub struct Shared {
    /// Where operations are written down.
    pub recorder: Recorder,
    /// The values of the run's records.
    pub values: Values,
    /// Where the brokers are.
    pub bootstrap: Vec<String>,
    /// Turns true when the load is to end.
    pub stop: watch::Receiver<bool>,
    /// The next process that comes into being while the load runs.
    pub next_process: Arc<AtomicU32>,
    /// Whether a request can arrive after its client has given it up and asked again.
    pub requests_may_be_late: bool,
    /// What must not be, and no history can tell.
    pub complaints: Arc<Mutex<Vec<String>>>,
}

/// Processes that come into being while the load runs are numbered from here on.
pub const FIRST_LATE_PROCESS: u32 = 1_000;

impl Shared {
    /// Nanoseconds of the runtime's monotonic clock.
    pub fn now_ns() -> u64 {
        time::now().since_origin().as_nanos() as u64
    }

    fn new_process(&self) -> ProcessId {
        ProcessId(self.next_process.fetch_add(1, Ordering::Relaxed))
    }

    /// Writes down what must not be, and no history can tell.
    pub fn complain(&self, what: String) {
        self.complaints.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    fn stopped(&self) -> bool {
        *self.stop.borrow()
    }

    /// Waits so long, or until the load is to end.
    async fn pause(&self, pause: Duration) {
        let mut stop = self.stop.clone();
        // An error means that the run is over, which ends the load as well.
        drop(time::timeout(pause, stop.wait_for(|stop| *stop)).await);
    }
}

/// A client of the cluster, patient enough for every fault that a plan can hold.
pub async fn connect(bootstrap: Vec<String>, name: String) -> Client {
    let config = ClientConfig {
        bootstrap,
        client_id: name,
        connect_timeout: Duration::from_secs(2),
        request_timeout: Duration::from_secs(2),
        operation_timeout: Duration::from_secs(20),
        retry_backoff: Duration::from_millis(20),
        retry_backoff_max: Duration::from_millis(300),
        ..ClientConfig::default()
    };
    loop {
        match Client::connect(config.clone()).await {
            Ok(client) => return client,
            Err(_) => time::sleep(Duration::from_millis(100)).await, // the broker may be down: that is the nemesis' choice
        }
    }
}

/// The history's name of a partition.
pub fn log_of(partition: &TopicPartition) -> Log {
    Log::new(partition.topic.clone(), partition.partition)
}

/// Every partition of the topics that exist from the start.
pub fn partitions<'a>(topics: impl IntoIterator<Item = &'a Topic>) -> Vec<TopicPartition> {
    let of_topic = |topic: &Topic| {
        let name: Arc<str> = topic.name.as_str().into();
        (0..topic.partitions)
            .map(move |partition| TopicPartition::new(name.clone(), partition))
            .collect::<Vec<_>>()
    };
    topics.into_iter().flat_map(of_topic).collect()
}

/// How many machines a load needs: producers first, then consumers, members of groups, producers of keys, then the administrator.
pub fn clients(load: &Load) -> u32 {
    (load.producers.len() + load.keyed.len()) as u32 + load.consumers + members(load) + 1
}

/// Members of all groups together, and those who visit.
pub fn members(load: &Load) -> u32 {
    load.groups.iter().map(plan::Group::machines).sum()
}

/// The process of a producer of keys.
pub fn keyed_process(number: usize) -> ProcessId {
    ProcessId(400 + number as u32)
}

/// The topics of which only the last record of each key stays.
pub fn compacted(load: &Load) -> BTreeSet<Arc<str>> {
    let compacted = load.topics.iter().filter(|topic| topic.is_compacted());
    compacted.map(|topic| topic.name.as_str().into()).collect()
}

/// Something that a client does until the load ends, and has ended all its operations of.
pub struct Work {
    /// On which of the [`clients`] machines, counted from 0.
    pub machine: usize,
    /// What it does.
    pub run: Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// What all clients of a load do, to be started in this order.
pub fn work(load: &Load, shared: &Shared) -> Vec<Work> {
    let all = partitions(&load.topics);
    // A record without a key is not taken by the others, and nobody deletes theirs.
    let plain = partitions(load.topics.iter().filter(|topic| !topic.is_compacted()));
    let administrator = clients(load) as usize - 1;
    let mut works = Vec::new();
    let mut machines = 0..administrator;
    let mut add = |machine: Option<usize>, run: Pin<Box<dyn Future<Output = ()> + Send>>| {
        works.extend(machine.map(|machine| Work { machine, run }));
    };
    let producers = if plain.is_empty() { &[][..] } else { &load.producers };
    for (number, producer) in producers.iter().enumerate() {
        let run = producing::run(shared.clone(), ProcessId(number as u32), producer.clone(), plain.clone());
        add(machines.next(), Box::pin(run));
    }
    for number in 0..load.consumers {
        let run = consuming::run(shared.clone(), ProcessId(100 + number), all.clone());
        add(machines.next(), Box::pin(run));
    }
    for group in &load.groups {
        let run = grouping::GroupRun::new(group, &load.topics, shared);
        for number in 0..group.members {
            add(machines.next(), Box::pin(run.member(number).run()));
        }
        if group.visited {
            add(machines.next(), Box::pin(run.member(group.members).visit()));
        }
        add(Some(administrator), Box::pin(run.watch(all.clone())));
    }
    for (number, producer) in load.keyed.iter().enumerate() {
        let keys = keyed::keys(load, number);
        let process = keyed_process(number);
        add(machines.next(), Box::pin(keyed::run(shared.clone(), process, producer.clone(), keys)));
    }
    if load.delete_records_every_ms > 0 && !plain.is_empty() {
        let every = Duration::from_millis(load.delete_records_every_ms);
        let run = churn::delete_records(shared.clone(), ProcessId(200), every, plain);
        add(Some(administrator), Box::pin(run));
    }
    if load.group_churn_every_ms > 0 {
        let every = Duration::from_millis(load.group_churn_every_ms);
        let run = churn::groups(shared.clone(), ProcessId(202), every, partitions(&load.topics));
        add(Some(administrator), Box::pin(run));
    }
    if load.topic_churn_every_ms > 0 {
        let every = Duration::from_millis(load.topic_churn_every_ms);
        add(Some(administrator), Box::pin(churn::topics(shared.clone(), ProcessId(201), every)));
    }
    if load.listed_every_ms > 0 {
        let every = Duration::from_millis(load.listed_every_ms);
        add(Some(administrator), Box::pin(listing::run(shared.clone(), every)));
    }
    if load.feature_level > 0 {
        add(Some(administrator), Box::pin(raising::run(shared.clone(), load.feature_level)));
    }
    works
}
