//! Groups whose members come and go while records are produced.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use weir_client::{
    Assignor, Client, GroupConfig, GroupConsumer, Producer, ProducerConfig, ProducerRecord, Rebalance, Start,
    TopicPartition,
};
use weir_runtime::{task, time};

use crate::{fresh, topic, with_broker};

/// What the members of a group see, all in one place.
#[derive(Default)]
struct Seen {
    /// How often each record was handed out.
    values: BTreeMap<String, u32>,
    /// Who reads what, as they were told.
    owners: BTreeMap<TopicPartition, String>,
    rebalances: usize,
}

type Log = Arc<Mutex<Seen>>;

fn config(group: &str, assignor: Assignor) -> GroupConfig {
    GroupConfig {
        assignors: vec![assignor],
        session_timeout: Duration::from_secs(6),
        heartbeat_interval: Duration::from_millis(300),
        start: Some(Start::Beginning),
        ..GroupConfig::new(group)
    }
}

/// Polls, notes and commits until it is told to stop; then it leaves, or vanishes.
async fn member(name: String, mut consumer: GroupConsumer, log: Log, stop: Arc<AtomicBool>, vanish: bool) {
    while !stop.load(Ordering::Relaxed) {
        let polled = consumer.poll(Duration::from_millis(100)).await.unwrap();
        for rebalance in polled.rebalances {
            note(&name, &mut consumer, &log, rebalance).await;
        }
        let records: Vec<String> = polled
            .polled
            .records()
            .map(|(_, record)| String::from_utf8_lossy(record.value.as_deref().unwrap()).into_owned())
            .collect();
        for (partition, _) in polled.polled.records() {
            assert_eq!(log.lock().unwrap().owners.get(partition), Some(&name), "{partition}");
        }
        if !records.is_empty() {
            for value in records {
                *log.lock().unwrap().values.entry(value).or_default() += 1;
            }
            consumer.commit().await.unwrap();
        }
    }
    log.lock().unwrap().owners.retain(|_, owner| *owner != name);
    if vanish {
        consumer.vanish();
    } else {
        consumer.close().await.unwrap();
    }
}

async fn note(name: &str, consumer: &mut GroupConsumer, log: &Log, rebalance: Rebalance) {
    if let Rebalance::Revoked { .. } = &rebalance {
        consumer.commit().await.unwrap();
    }
    let mut seen = log.lock().unwrap();
    seen.rebalances += 1;
    match rebalance {
        Rebalance::Assigned { partitions, .. } => {
            for partition in partitions {
                let before = seen.owners.insert(partition.clone(), name.to_owned());
                assert_eq!(before, None, "{partition} goes to {name} while it is another's");
            }
        }
        Rebalance::Revoked { partitions, .. } | Rebalance::Lost { partitions } => {
            for partition in partitions {
                assert_eq!(seen.owners.remove(&partition).as_deref(), Some(name), "{partition}");
            }
        }
    }
}

struct Running {
    stop: Arc<AtomicBool>,
    task: task::JoinHandle<()>,
}

fn start(client: &Client, name: &str, config: GroupConfig, topic: &str, log: &Log, vanish: bool) -> Running {
    let consumer = GroupConsumer::new(client, config, [topic]).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let running = member(name.to_owned(), consumer, log.clone(), stop.clone(), vanish);
    Running { task: task::spawn("member", running), stop }
}

async fn end(running: Running) {
    running.stop.store(true, Ordering::Relaxed);
    running.task.await.unwrap();
}

/// Produces until it is told to stop, and says how many.
async fn produce(client: Client, topic: String, stop: Arc<AtomicBool>) -> usize {
    let producer = Producer::new(&client, ProducerConfig::default());
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..20 {
            let value = Some(Bytes::from(format!("{count}")));
            let partition = Some(i32::try_from(count % 6).unwrap());
            let record = ProducerRecord { topic: topic.clone(), partition, value, ..Default::default() };
            producer.send(record).await.unwrap();
            count += 1;
        }
        producer.flush().await.unwrap();
        time::sleep(Duration::from_millis(20)).await;
    }
    count
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let before = time::now();
    while !holds() {
        assert!(before.elapsed() < Duration::from_secs(40), "{what}");
        time::sleep(Duration::from_millis(20)).await;
    }
}

fn owners(log: &Log) -> BTreeSet<String> {
    log.lock().unwrap().owners.values().cloned().collect()
}

fn shared_by(log: &Log, names: &[&str]) -> bool {
    let everything = log.lock().unwrap().owners.len() == 6;
    everything && owners(log) == names.iter().map(|name| (*name).to_owned()).collect()
}

async fn members_come_and_go(client: Client, assignor: Assignor) {
    let (topic, group, log) = (topic(&client, "group", 6).await, fresh("g"), Log::default());
    let stop = Arc::new(AtomicBool::new(false));
    let producing = task::spawn("producing", produce(client.clone(), topic.clone(), stop.clone()));
    let begin = |name: &str, vanish| start(&client, name, config(&group, assignor), &topic, &log, vanish);
    let a = begin("a", false);
    until("a has everything", || shared_by(&log, &["a"])).await;
    let (b, c) = (begin("b", false), begin("c", true));
    until("three share", || shared_by(&log, &["a", "b", "c"])).await;
    end(b).await;
    until("two share", || shared_by(&log, &["a", "c"])).await;
    let d = begin("d", false);
    until("three share again", || shared_by(&log, &["a", "c", "d"])).await;
    // It says nothing: the others wait for the end of its session.
    end(c).await;
    until("the crash is noticed", || shared_by(&log, &["a", "d"])).await;
    stop.store(true, Ordering::Relaxed);
    let produced = producing.await.unwrap();
    until("everything is read", || log.lock().unwrap().values.len() == produced).await;
    end(a).await;
    end(d).await;
    let seen = log.lock().unwrap();
    let twice = seen.values.values().filter(|count| **count > 1).count();
    println!("{}: {produced} records, {twice} of them twice, {} notices", assignor.name(), seen.rebalances);
    assert_eq!(twice, 0, "everybody commits what it was handed before it goes");
}

#[test]
fn a_group_of_three_that_gains_and_loses_members_loses_no_record_range() {
    with_broker("range", |client| members_come_and_go(client, Assignor::Range));
}

#[test]
fn a_group_of_three_that_gains_and_loses_members_loses_no_record_roundrobin() {
    with_broker("roundrobin", |client| members_come_and_go(client, Assignor::RoundRobin));
}

#[test]
fn a_group_of_three_that_gains_and_loses_members_loses_no_record_cooperative_sticky() {
    with_broker("cooperative-sticky", |client| members_come_and_go(client, Assignor::CooperativeSticky));
}

/// Polls until there is a change.
async fn change(consumer: &mut GroupConsumer) -> Vec<Rebalance> {
    let before = time::now();
    loop {
        let polled = consumer.poll(Duration::from_millis(100)).await.unwrap();
        if !polled.rebalances.is_empty() {
            return polled.rebalances;
        }
        assert!(before.elapsed() < Duration::from_secs(30), "nothing changes");
    }
}

fn assigned(rebalances: &[Rebalance]) -> BTreeSet<TopicPartition> {
    let Some(Rebalance::Assigned { partitions, .. }) = rebalances.last() else { panic!("{rebalances:?}") };
    partitions.iter().cloned().collect()
}

async fn a_static_member_comes_back(client: Client, assignor: Assignor) {
    let (topic, group) = (topic(&client, "static", 4).await, fresh("g"));
    let named = |name: &str| {
        let config = GroupConfig { instance: Some(name.to_owned()), ..config(&group, assignor) };
        GroupConsumer::new(&client, config, [topic.as_str()]).unwrap()
    };
    // Together, so that both are in the first generation that counts.
    let (mut a, mut b) = (named("a"), named("b"));
    let (mut of_a, mut of_b) = (BTreeSet::new(), BTreeSet::new());
    let before = time::now();
    while (of_a.len(), of_b.len()) != (2, 2) {
        assert!(before.elapsed() < Duration::from_secs(30), "{of_a:?} {of_b:?}");
        for (consumer, of) in [(&mut a, &mut of_a), (&mut b, &mut of_b)] {
            consumer.poll(Duration::from_millis(100)).await.unwrap();
            *of = consumer.assignment().cloned().collect();
        }
    }
    let generation = b.generation().unwrap().0;

    a.vanish();
    let mut a = named("a");
    assert_eq!(assigned(&change(&mut a).await), of_a, "its partitions have waited for it");
    for _ in 0..15 {
        assert!(
            b.poll(Duration::from_millis(100)).await.unwrap().rebalances.is_empty(),
            "nobody else noticed"
        );
        a.poll(Duration::ZERO).await.unwrap();
    }
    assert_eq!(b.generation().unwrap().0, generation);

    let mut other = named("a");
    assert_eq!(assigned(&change(&mut other).await), of_a);
    assert!(matches!(change(&mut a).await[..], [Rebalance::Lost { .. }]), "there can be only one");
    let error = a.poll(Duration::from_millis(100)).await.unwrap_err();
    assert_eq!(error.kafka().unwrap().name(), "FENCED_INSTANCE_ID");
    a.close().await.unwrap();
    other.close().await.unwrap();
    b.close().await.unwrap();
}

#[test]
fn a_static_member_that_comes_back_within_its_session_goes_on_and_fences_its_double_range() {
    with_broker("static, range", |client| a_static_member_comes_back(client, Assignor::Range));
}

#[test]
fn a_static_member_that_comes_back_within_its_session_goes_on_and_fences_its_double_cooperative() {
    with_broker("static, cooperative", |client| {
        a_static_member_comes_back(client, Assignor::CooperativeSticky)
    });
}

#[test]
fn a_member_that_is_not_polled_loses_its_partitions_and_comes_back() {
    with_broker("silence", |client| async move {
        let (topic, group) = (topic(&client, "silent", 4).await, fresh("g"));
        let quick = |poll_interval_max| {
            let config = config(&group, Assignor::CooperativeSticky);
            let config = GroupConfig { poll_interval_max, ..config };
            GroupConsumer::new(&client, config, [topic.as_str()]).unwrap()
        };
        let mut silent = quick(Duration::from_secs(2));
        assert_eq!(assigned(&change(&mut silent).await).len(), 4);
        let mut other = quick(Duration::from_secs(300));
        // It is not polled: it leaves, and the other one gets everything.
        while other.assignment().count() < 4 {
            other.poll(Duration::from_millis(100)).await.unwrap();
        }
        let told = change(&mut silent).await;
        assert!(told.iter().any(|one| matches!(one, Rebalance::Lost { .. })), "{told:?}");
        let before = time::now();
        while silent.assignment().count() != 2 || other.assignment().count() != 2 {
            assert!(before.elapsed() < Duration::from_secs(30), "they do not share");
            silent.poll(Duration::from_millis(50)).await.unwrap();
            other.poll(Duration::from_millis(50)).await.unwrap();
        }
        silent.close().await.unwrap();
        other.close().await.unwrap();
    });
}
