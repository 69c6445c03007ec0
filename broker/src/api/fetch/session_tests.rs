//! Scenarios of fetch sessions (K7).

use bytes::Bytes;
use kafka_protocol::messages::TopicName;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use kafka_protocol::protocol::StrBytes;

use super::*;

fn name(text: &'static str) -> TopicName {
    TopicName(StrBytes::from_static_str(text))
}

fn request(id: i32, epoch: i32, partitions: &[i32]) -> FetchRequest {
    let partitions =
        partitions.iter().map(|number| FetchPartition::default().with_partition(*number)).collect();
    let topic = FetchTopic::default().with_topic(name("t")).with_partitions(partitions);
    FetchRequest::default().with_session_id(id).with_session_epoch(epoch).with_topics(vec![topic])
}

fn answer(high_watermark: i64, records: bool) -> FetchedPartition {
    let records = if records { vec![Bytes::from_static(b"records")] } else { Vec::new() };
    FetchedPartition { high_watermark, records, ..FetchedPartition::default() }
}

const NOW: Instant = Instant::from_nanos(1);

fn begin(sessions: &FetchSessions, request: &FetchRequest, version: i16) -> Result<Begun, ResponseError> {
    let begun = sessions.begin(request, version, NOW);
    sessions.invariants().unwrap();
    begun
}

fn finish(sessions: &FetchSessions, begun: &Begun, answers: &[FetchedPartition]) -> (i32, Vec<bool>) {
    let mut numbers = 1..;
    let told = sessions.finish(begun, answers, NOW, || numbers.next().unwrap());
    sessions.invariants().unwrap();
    told
}

/// A session with these partitions, all at high watermark 5 and without records.
fn session(sessions: &FetchSessions, partitions: &[i32]) -> i32 {
    let begun = begin(sessions, &request(0, 0, partitions), 12).unwrap();
    let answers = vec![answer(5, false); partitions.len()];
    let (id, shown) = finish(sessions, &begun, &answers);
    assert!(shown.iter().all(|shown| *shown), "a full fetch shows all");
    id
}

fn numbers(begun: &Begun) -> Vec<i32> {
    begun.wanted.iter().map(|wanted| wanted.key.partition).collect()
}

#[test]
fn an_incremental_fetch_shows_what_is_new() {
    let sessions = FetchSessions::new(10);
    let id = session(&sessions, &[0, 1, 2]);
    assert!(id > 0);
    let begun = begin(&sessions, &request(id, 1, &[]), 12).unwrap();
    assert_eq!(numbers(&begun), [0, 1, 2]);
    let failed = FetchedPartition { error_code: 3, high_watermark: 5, ..answer(5, false) };
    let (again, shown) = finish(&sessions, &begun, &[answer(5, false), answer(6, false), failed]);
    assert_eq!((again, shown), (id, vec![false, true, true]));
    let begun = begin(&sessions, &request(id, 2, &[]), 12).unwrap();
    let (_, shown) = finish(&sessions, &begun, &[answer(5, false), answer(6, false), answer(5, false)]);
    assert_eq!(shown, [false, false, true], "what follows on an error is news");
}

#[test]
fn k08_a_preferred_read_replica_is_news() {
    let sessions = FetchSessions::new(10);
    let id = session(&sessions, &[0]);
    let begun = begin(&sessions, &request(id, 1, &[]), 12).unwrap();
    let moved = FetchedPartition { preferred_read_replica: 2, ..answer(5, false) };
    assert_eq!(finish(&sessions, &begun, &[moved]).1, [true]);
}

#[test]
fn whoever_had_records_is_asked_last_the_next_time() {
    let sessions = FetchSessions::new(10);
    let id = session(&sessions, &[0, 1, 2]);
    let begun = begin(&sessions, &request(id, 1, &[]), 12).unwrap();
    finish(&sessions, &begun, &[answer(6, true), answer(5, false), answer(5, false)]);
    let begun = begin(&sessions, &request(id, 2, &[]), 12).unwrap();
    assert_eq!(numbers(&begun), [1, 2, 0]);
}

#[test]
fn partitions_are_added_changed_and_forgotten() {
    let sessions = FetchSessions::new(10);
    let id = session(&sessions, &[0, 1]);
    let mut change = request(id, 1, &[2]);
    change.topics[0].partitions.push(FetchPartition::default().with_partition(1).with_fetch_offset(9));
    change.forgotten_topics_data =
        vec![ForgottenTopic::default().with_topic(name("t")).with_partitions(vec![0])];
    let begun = begin(&sessions, &change, 12).unwrap();
    let offsets: Vec<_> = begun.wanted.iter().map(|wanted| (wanted.key.partition, wanted.offset)).collect();
    assert_eq!(offsets, [(1, 9), (2, 0)]);
    let (_, shown) = finish(&sessions, &begun, &[answer(5, false), answer(5, false)]);
    assert_eq!(shown, [false, true]);
}

#[test]
fn each_mistake_has_its_own_error() {
    let sessions = FetchSessions::new(10);
    let refused = |id, epoch, version| begin(&sessions, &request(id, epoch, &[]), version).err();
    assert_eq!(refused(0, 1, 12), Some(ResponseError::InvalidFetchSessionEpoch));
    assert_eq!(refused(77, 1, 12), Some(ResponseError::FetchSessionIdNotFound));
    let id = session(&sessions, &[0]);
    assert_eq!(refused(id, 2, 12), Some(ResponseError::InvalidFetchSessionEpoch));
    assert_eq!(refused(id, 1, 13), Some(ResponseError::FetchSessionTopicIdError));
    assert_eq!(refused(id, 1, 12), None);
    assert_eq!(refused(id, 1, 12), Some(ResponseError::InvalidFetchSessionEpoch), "the same request again");
}

#[test]
fn a_session_ends_when_its_client_says_so() {
    let sessions = FetchSessions::new(10);
    let id = session(&sessions, &[0]);
    let begun = begin(&sessions, &request(id, FINAL_EPOCH, &[0]), 12).unwrap();
    assert_eq!(finish(&sessions, &begun, &[answer(5, false)]).0, NO_SESSION);
    let gone = begin(&sessions, &request(id, 1, &[]), 12).err();
    assert_eq!(gone, Some(ResponseError::FetchSessionIdNotFound));
    assert_eq!(sessions.table().partitions, 0);
}

#[test]
fn the_number_of_sessions_is_bounded() {
    let sessions = FetchSessions::new(2);
    let first = session(&sessions, &[0]);
    assert!(session(&sessions, &[0]) > 0);
    assert_eq!(session(&sessions, &[0]), NO_SESSION, "both are in use");
    let used = sessions.table().sessions[&first].used;
    let later = used + EVICTED_AFTER + Duration::from_secs(3600);
    assert!(sessions.table().make_room(2, 1, later), "one that is idle makes room");
}
