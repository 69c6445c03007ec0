use std::sync::Arc;

use kafka_protocol::error::ResponseError;
use weir_wire::kafka::messages::{FetchRequest, MetadataRequest};

use super::*;
use crate::fake_broker::{FakeCluster, Fault, run};

fn options() -> ConnectionOptions {
    ConnectionOptions {
        client_id: StrBytes::from_static_str("test"),
        connect_timeout: Duration::from_secs(2),
        request_timeout: Duration::from_millis(300),
        response_bytes_max: 1 << 20,
        requests_in_flight_max: 4,
    }
}

async fn open(cluster: &FakeCluster) -> Connection {
    Connection::open(Arc::from(cluster.bootstrap(0)), &options()).await.unwrap()
}

const SOON: Duration = Duration::from_millis(300);

#[test]
fn requests_are_answered_also_when_many_are_under_way() {
    run(async {
        let cluster = FakeCluster::start(1).await;
        cluster.topic("t", 3);
        let connection = open(&cluster).await;
        let mut tasks = Vec::new();
        for _ in 0..20 {
            let connection = connection.clone();
            tasks.push(task::spawn("asker", async move {
                connection.request(&MetadataRequest::default().with_topics(None), SOON).await
            }));
        }
        for asked in tasks {
            assert_eq!(asked.await.unwrap().unwrap().topics[0].partitions.len(), 3);
        }
    });
}

#[test]
fn k1_a_broker_with_older_api_versions_is_asked_again_in_its_own() {
    run(async {
        let cluster = FakeCluster::start(1).await;
        for theirs in [0, 2, 3] {
            cluster.state().api_versions_max = theirs;
            cluster.state().seen.clear();
            let connection = open(&cluster).await;
            assert_eq!(connection.version::<FetchRequest>().unwrap(), 12);
            let asked: Vec<i16> = cluster.state().seen.iter().map(|(_, _, version)| *version).collect();
            assert_eq!(asked, [4, theirs]);
        }
    });
}

#[test]
fn an_answer_that_comes_byte_by_byte_is_put_together() {
    run(async {
        let cluster = FakeCluster::start(1).await;
        cluster.topic("t", 1);
        let connection = open(&cluster).await;
        cluster.fault(ApiKey::Metadata, Fault::ByteByByte);
        let response = connection.request(&MetadataRequest::default().with_topics(None), SOON).await.unwrap();
        assert_eq!(response.topics.len(), 1);
    });
}

#[test]
fn a_connection_that_ends_fails_all_that_wait_and_takes_no_more() {
    run(async {
        let cluster = FakeCluster::start(1).await;
        let connection = open(&cluster).await;
        cluster.fault(ApiKey::Metadata, Fault::CloseBefore);
        let request = MetadataRequest::default();
        let (first, second) =
            tokio::join!(connection.request(&request, SOON), connection.request(&request, SOON));
        for error in [first.unwrap_err(), second.unwrap_err()] {
            assert!(matches!(&error, Error::Disconnected { sent: true, .. }), "{error}");
            assert!(error.is_retriable() && error.may_have_happened());
        }
        let error = connection.request(&request, SOON).await.unwrap_err();
        assert!(matches!(&error, Error::Disconnected { sent: false, .. }), "{error}");
        assert!(!error.may_have_happened());
        assert!(connection.is_closed());
    });
}

#[test]
fn a_request_without_an_answer_ends_the_connection_in_time() {
    run(async {
        let cluster = FakeCluster::start(1).await;
        let connection = open(&cluster).await;
        cluster.fault(ApiKey::Metadata, Fault::Silence);
        let before = time::now();
        let error = connection.request(&MetadataRequest::default(), SOON).await.unwrap_err();
        assert!(matches!(&error, Error::Timeout { sent: true, api: "Metadata", .. }), "{error}");
        assert!(before.elapsed() >= SOON);
        assert!(connection.is_closed());
    });
}

#[test]
fn k9_an_answer_out_of_turn_ends_the_connection() {
    run(async {
        let cluster = FakeCluster::start(1).await;
        let connection = open(&cluster).await;
        cluster.fault(ApiKey::Metadata, Fault::WrongCorrelation);
        let error = connection.request(&MetadataRequest::default(), SOON).await.unwrap_err();
        assert!(
            matches!(&error, Error::Disconnected { reason, .. } if reason.contains("correlation id")),
            "{error}"
        );
    });
}

#[test]
fn nonsense_from_a_broker_ends_the_connection_and_nothing_else() {
    let huge = 0x7fff_ffff_u32.to_be_bytes().to_vec();
    let negative = (-5i32).to_be_bytes().to_vec();
    let tiny = [0, 0, 0, 2, 1, 2].to_vec();
    // Correlation id 1, no tags, then an array of 2^31 - 1 brokers.
    let absurd = [&[0, 0, 0, 13, 0, 0, 0, 1, 0][..], &[0, 0, 0, 0], &[0xff, 0xff, 0xff, 0x7f]].concat();
    for bytes in [huge, negative, tiny, absurd] {
        run(async {
            let cluster = FakeCluster::start(1).await;
            let connection = open(&cluster).await;
            cluster.fault(ApiKey::Metadata, Fault::Raw(bytes.clone()));
            let error = connection.request(&MetadataRequest::default(), SOON).await.unwrap_err();
            assert!(error.is_retriable() && error.may_have_happened(), "{error}");
            assert!(!matches!(error, Error::Timeout { .. }), "{error}");
            assert!(connection.is_closed());
        });
    }
}

#[test]
fn a_request_that_both_do_not_speak_is_refused_with_both_ranges() {
    run(async {
        let cluster = FakeCluster::start(1).await;
        let mut connection = open(&cluster).await;
        connection.versions = Arc::new(BTreeMap::from([(ApiKey::Fetch as i16, (15, 17))]));
        let error = connection.version::<FetchRequest>().unwrap_err();
        assert!(matches!(error, Error::Version { theirs: Some((15, 17)), ours: (4, 12), .. }), "{error}");
        let error = connection.version::<MetadataRequest>().unwrap_err();
        assert!(matches!(error, Error::Version { theirs: None, .. }), "{error}");
    });
}

#[test]
fn nobody_listening_is_an_error_of_the_connection() {
    run(async {
        let error = Connection::open(Arc::from("127.0.0.1:1"), &options()).await.err().unwrap();
        assert!(matches!(&error, Error::Connect { .. }), "{error}");
        assert!(error.is_retriable() && !error.may_have_happened());
    });
}

#[test]
fn requests_beyond_the_bound_wait_for_room() {
    run(async {
        let cluster = FakeCluster::start(1).await;
        cluster.topic("t", 1);
        let connection = open(&cluster).await;
        cluster.fault(ApiKey::Metadata, Fault::Error(ResponseError::LeaderNotAvailable));
        let mut futures = crate::in_flight::InFlight::new();
        for _ in 0..50 {
            let connection = connection.clone();
            futures.push(async move {
                connection.request(&MetadataRequest::default(), SOON * 10).await.map(|_| ())
            });
        }
        for _ in 0..50 {
            assert!(connection.link.shared.lock().waiting.len() <= 4);
            futures.next().await.unwrap();
        }
    });
}
