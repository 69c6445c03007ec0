//! What clients feed to fetch sessions (KIP-227), against a model of what each client knows.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use uuid::Uuid;
use weir_broker::parsers::{AnsweredByHand, FetchSessionsByHand};
use weir_runtime::time::Instant;
use weir_wire::kafka::messages::FetchRequest;
use weir_wire::kafka::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use weir_wire::kafka::{FetchedPartition, StrBytes};

use crate::mutate::Random;

const SESSIONS_MAX: usize = 3;
/// The version from which on topics are named by their ids.
const BY_ID: i16 = 13;
const INVALID_EPOCH: i16 = 71;
const NOT_FOUND: i16 = 70;
const TOPIC_ID_ERROR: i16 = 106;

type Key = (String, Uuid, i32);
/// High watermark, last stable offset, log start.
type Told = (i64, i64, i64);

/// What a client knows of its session.
struct Known {
    epoch: i32,
    version: i16,
    wanted: BTreeMap<Key, Option<Told>>,
}

/// Draws on the input; zeros when there is nothing left.
struct Draws<'a>(&'a [u8]);

impl Draws<'_> {
    fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    fn below(&mut self, bound: u8) -> u8 {
        self.byte() % bound
    }
}

/// Requests of several clients, one after the other.
pub(super) fn run(input: &[u8]) {
    let mut draws = Draws(input);
    let mut sessions = FetchSessionsByHand::new(SESSIONS_MAX);
    let mut clients: BTreeMap<i32, Known> = BTreeMap::new();
    let mut seconds = 0;
    while !draws.0.is_empty() {
        seconds += u64::from(draws.byte());
        let now = Instant::from_nanos(seconds * 1_000_000_000);
        let id = match draws.below(4) {
            0 => 0,
            1 => i32::from(draws.byte()),
            _ => clients.keys().nth(usize::from(draws.byte()) % clients.len().max(1)).copied().unwrap_or(0),
        };
        let expected = clients.get(&id).map_or(1, |known| known.epoch);
        let epoch = match draws.below(8) {
            0 => 0,
            1 => -1,
            2 => i32::from(draws.byte()) - 9,
            _ => expected,
        };
        let version = if draws.below(2) == 0 { BY_ID - 1 } else { BY_ID };
        let version =
            if draws.below(8) == 0 { version } else { clients.get(&id).map_or(version, |k| k.version) };
        let request = request(&mut draws, id, epoch, version);
        // A client may go away before it is answered.
        let goes = draws.below(8) == 0;
        let answer = || (!goes).then(|| answer(&mut draws));
        let outcome = sessions.fetch(&request, version, now, answer);
        assert_eq!(sessions.invariants(), Ok(()));
        match outcome {
            Err(code) => refused(code, &request, version, clients.get(&id)),
            Ok((answered, partitions)) => {
                take_in(&mut clients, &request, version, answered, partitions, goes);
            }
        }
        // Who was driven out learns of it when it asks; here it is forgotten so that the model stays small.
        if clients.len() > 4 * SESSIONS_MAX {
            clients.pop_first();
        }
    }
}

fn topic(number: u8, version: i16) -> (String, Uuid) {
    if version >= BY_ID {
        (String::new(), Uuid::from_u128(u128::from(number) + 1))
    } else {
        (format!("t{number}"), Uuid::nil())
    }
}

fn request(draws: &mut Draws<'_>, id: i32, epoch: i32, version: i16) -> FetchRequest {
    let (mut topics, mut forgotten) = (Vec::new(), Vec::new());
    for _ in 0..draws.below(4) {
        let (name, topic_id) = topic(draws.below(3), version);
        let name = StrBytes::from_string(name).into();
        let partition = i32::from(draws.below(4));
        if draws.below(4) == 0 {
            let topic = ForgottenTopic::default().with_topic(name).with_topic_id(topic_id);
            forgotten.push(topic.with_partitions(vec![partition]));
        } else {
            let partition = FetchPartition::default().with_partition(partition).with_fetch_offset(7);
            let topic = FetchTopic::default().with_topic(name).with_topic_id(topic_id);
            topics.push(topic.with_partitions(vec![partition]));
        }
    }
    FetchRequest::default()
        .with_session_id(id)
        .with_session_epoch(epoch)
        .with_topics(topics)
        .with_forgotten_topics_data(forgotten)
}

fn answer(draws: &mut Draws<'_>) -> FetchedPartition {
    let high_watermark = i64::from(draws.below(3));
    let mut answer = FetchedPartition {
        high_watermark,
        last_stable_offset: high_watermark,
        log_start_offset: 0,
        ..FetchedPartition::default()
    };
    match draws.below(8) {
        0 => answer.error_code = 3,
        1 => answer.records = vec![Bytes::from_static(b"records")],
        2 => answer.log_start_offset = 1,
        3 => answer.preferred_read_replica = 2,
        _ => {}
    }
    answer
}

fn asked(request: &FetchRequest) -> BTreeSet<Key> {
    let of_topic = |topic: &FetchTopic| {
        let (name, id) = (topic.topic.to_string(), topic.topic_id);
        topic
            .partitions
            .iter()
            .map(move |partition| (name.clone(), id, partition.partition))
            .collect::<Vec<_>>()
    };
    request.topics.iter().flat_map(of_topic).collect()
}

/// Each refusal has its reason.
fn refused(code: i16, request: &FetchRequest, version: i16, known: Option<&Known>) {
    let epoch = request.session_epoch;
    assert!(epoch != 0 && epoch != -1, "what asks for no session that is there is not refused");
    match code {
        // The sessions of others may have driven it out.
        NOT_FOUND => {}
        TOPIC_ID_ERROR => assert!(known.is_none_or(|known| known.version != version)),
        INVALID_EPOCH => assert!(known.is_none_or(|known| known.epoch != epoch) || request.session_id == 0),
        code => panic!("error {code}"),
    }
}

fn take_in(
    clients: &mut BTreeMap<i32, Known>,
    request: &FetchRequest,
    version: i16,
    answered: i32,
    partitions: Vec<AnsweredByHand>,
    goes: bool,
) {
    let (id, epoch) = (request.session_id, request.session_epoch);
    if epoch == 0 || epoch == -1 {
        clients.remove(&id);
        if goes {
            return;
        }
        assert!(partitions.iter().all(|partition| partition.shown), "a full answer");
        assert!(epoch == 0 || answered == 0, "who wants none has no session");
        let keys: BTreeSet<Key> = partitions.iter().map(|partition| partition.key.clone()).collect();
        assert_eq!(keys, asked(request));
        if answered != 0 {
            let mut wanted = BTreeMap::new();
            partitions.into_iter().for_each(|partition| note(&mut wanted, partition));
            // The id may have been another one's, which was driven out.
            clients.insert(answered, Known { epoch: 1, version, wanted });
        }
        return;
    }
    let Some(known) = clients.get_mut(&id) else {
        // A session of which the model has let go.
        return;
    };
    assert_eq!((epoch, version), (known.epoch, known.version), "only what comes next is answered");
    known.epoch += 1;
    for topic in &request.forgotten_topics_data {
        for partition in &topic.partitions {
            known.wanted.remove(&(topic.topic.to_string(), topic.topic_id, *partition));
        }
    }
    for key in asked(request) {
        known.wanted.entry(key).or_insert(None);
    }
    if goes {
        return;
    }
    let keys: Vec<Key> = partitions.iter().map(|partition| partition.key.clone()).collect();
    assert_eq!(keys.iter().collect::<BTreeSet<_>>(), known.wanted.keys().collect());
    assert_eq!(keys.len(), known.wanted.len(), "each once");
    if answered == 0 {
        assert!(partitions.iter().all(|partition| partition.shown));
        clients.remove(&id);
        return;
    }
    assert_eq!(answered, id);
    partitions.into_iter().for_each(|partition| note(&mut known.wanted, partition));
}

/// The client learns what it is shown. What it is not shown it knows already.
fn note(wanted: &mut BTreeMap<Key, Option<Told>>, partition: AnsweredByHand) {
    let AnsweredByHand { key, answer, shown } = partition;
    let told = (answer.high_watermark, answer.last_stable_offset, answer.log_start_offset);
    if !shown {
        assert!(answer.records.is_empty() && answer.error_code == 0 && answer.preferred_read_replica < 0);
        assert_eq!(wanted.get(&key), Some(&Some(told)), "{key:?} is news");
    }
    wanted.insert(key, (answer.error_code == 0).then_some(told));
}

pub(super) fn generate(random: &mut Random) -> Vec<u8> {
    (0..random.below(200)).map(|_| random.number() as u8).collect()
}
