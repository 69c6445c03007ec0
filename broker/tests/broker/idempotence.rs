//! Idempotent producers (K12), where leader epochs ended, and fetch sessions (K7).

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::ForgottenTopic;
use kafka_protocol::messages::fetch_response::FetchResponse;
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderEpochRequest, OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::{InitProducerIdRequest, TransactionalId};
use kafka_protocol::protocol::StrBytes;
use weir_broker::Config;
use weir_wire::codec::Compression;
use weir_wire::records::{BatchBuilder, Producer};

use crate::support::{
    Broker, Client, batch, config, fetch_request, node_on, open, run, topic, until, values,
};

/// A batch of `count` records of a producer.
fn of_producer(id: i64, epoch: i16, base_sequence: i32, count: usize) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None).producer(Producer { id, epoch, base_sequence });
    for number in 0..count {
        let value = format!("{base_sequence}+{number}");
        builder.push(1, Some(b"key"), Some(value.as_bytes()), &[]).expect("a record");
    }
    builder.finish().expect("a batch")
}

async fn new_id(client: &mut Client) -> i64 {
    let response = client.call(4, &InitProducerIdRequest::default().with_transactional_id(None)).await;
    assert_eq!((response.error_code, response.producer_epoch), (0, 0));
    response.producer_id.0
}

/// Error code and base offset.
async fn produce(client: &mut Client, batch: Bytes) -> (i16, i64) {
    let answer = client.produce("t", 0, batch).await;
    (answer.error_code, answer.base_offset)
}

#[test]
fn every_producer_has_an_id_of_its_own_also_after_a_restart() {
    run(async {
        let broker = Broker::start().await;
        let mut client = broker.client().await;
        let mut ids = Vec::new();
        for _ in 0..3 {
            ids.push(new_id(&mut client).await);
        }
        let broker = broker.restart().await;
        let mut client = broker.client().await;
        for _ in 0..1500 {
            ids.push(new_id(&mut client).await);
        }
        let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
        assert_eq!(distinct.len(), ids.len());
    });
}

#[test]
fn a_transactional_producer_is_told_that_there_are_no_transactions() {
    run(async {
        let broker = Broker::start().await;
        let mut client = broker.client().await;
        let id = TransactionalId(StrBytes::from_static_str("t"));
        let request = InitProducerIdRequest::default().with_transactional_id(Some(id));
        let response = client.call(4, &request).await;
        assert_eq!(response.error_code, ResponseError::InvalidRequest.code());
    });
}

#[test]
fn k12_a_repeated_batch_is_answered_with_its_offset_and_appended_once() {
    run(async {
        let broker = Broker::start().await;
        let mut client = broker.client().await;
        client.create("t", 1, &[]).await;
        let id = new_id(&mut client).await;
        assert_eq!(produce(&mut client, of_producer(id, 0, 0, 2)).await, (0, 0));
        assert_eq!(produce(&mut client, of_producer(id, 0, 2, 3)).await, (0, 2));
        assert_eq!(produce(&mut client, of_producer(id, 0, 0, 2)).await, (0, 0));
        assert_eq!(produce(&mut client, of_producer(id, 0, 2, 3)).await, (0, 2));
        let gap = ResponseError::OutOfOrderSequenceNumber.code();
        assert_eq!(produce(&mut client, of_producer(id, 0, 6, 1)).await, (gap, -1));
        assert_eq!(produce(&mut client, of_producer(id, 1, 0, 1)).await, (0, 5));
        let fenced = ResponseError::InvalidProducerEpoch.code();
        assert_eq!(produce(&mut client, of_producer(id, 0, 5, 1)).await, (fenced, -1));
        assert_eq!(values(client.fetch("t", 0, 0).await.records).len(), 6);
    });
}

/// The last two of six batches, and the next one.
async fn is_remembered(client: &mut Client, id: i64, how: &str) {
    assert_eq!(produce(client, of_producer(id, 0, 4, 1)).await, (0, 4), "{how}");
    assert_eq!(produce(client, of_producer(id, 0, 5, 1)).await, (0, 5), "{how}");
    let gap = ResponseError::OutOfOrderSequenceNumber.code();
    assert_eq!(produce(client, of_producer(id, 0, 7, 1)).await, (gap, -1), "{how}");
}

async fn six_batches(client: &mut Client, configs: &[(&str, &str)]) -> i64 {
    client.create("t", 1, configs).await;
    let id = new_id(client).await;
    for number in 0..6 {
        assert_eq!(produce(client, of_producer(id, 0, number, 1)).await, (0, number.into()));
    }
    id
}

#[test]
fn k12_producers_are_remembered_across_stops_crashes_and_the_loss_of_the_checkpoint() {
    for configs in [&[][..], &[("flush.messages", "100")]] {
        run(async {
            let broker = Broker::start().await;
            let mut client = broker.client().await;
            let id = six_batches(&mut client, configs).await;
            let broker = broker.restart().await;
            let mut client = broker.client().await;
            is_remembered(&mut client, id, "after a clean stop").await;
            let Broker { node, folder } = broker;
            drop(node);
            let node = node_on(folder.path(), config()).await;
            let mut client = Client::connect(node.address()).await;
            is_remembered(&mut client, id, "after a crash").await;
            drop(node);
            open(folder.path()).await.remove("checkpoint").await.expect("a checkpoint");
            let node = node_on(folder.path(), config()).await;
            let mut client = Client::connect(node.address()).await;
            is_remembered(&mut client, id, "from the log itself").await;
            assert_eq!(produce(&mut client, of_producer(id, 0, 6, 1)).await, (0, 6));
        });
    }
}

#[test]
fn k12_the_sequence_wraps_and_an_unknown_producer_may_begin_anywhere() {
    run(async {
        let broker = Broker::start().await;
        let mut client = broker.client().await;
        client.create("t", 1, &[]).await;
        let id = new_id(&mut client).await;
        assert_eq!(produce(&mut client, of_producer(id, 0, i32::MAX - 1, 3)).await, (0, 0));
        assert_eq!(produce(&mut client, of_producer(id, 0, 1, 1)).await, (0, 3));
        assert_eq!(produce(&mut client, of_producer(id, 0, i32::MAX - 1, 3)).await, (0, 0));
    });
}

#[test]
fn k12_the_sequence_wraps_also_across_stops_crashes_and_the_loss_of_the_checkpoint() {
    run(async {
        let broker = Broker::start().await;
        let mut client = broker.client().await;
        client.create("t", 1, &[]).await;
        let (inside, between) = (new_id(&mut client).await, new_id(&mut client).await);
        // One batch holds both the last number and 0; another ends with the last number.
        let wrapping = of_producer(inside, 0, i32::MAX - 1, 3);
        let last = of_producer(between, 0, i32::MAX, 1);
        assert_eq!(produce(&mut client, wrapping.clone()).await, (0, 0));
        assert_eq!(produce(&mut client, last.clone()).await, (0, 3));
        let gap = ResponseError::OutOfOrderSequenceNumber.code();
        let holds = async |client: &mut Client, how: &str| {
            assert_eq!(produce(client, wrapping.clone()).await, (0, 0), "{how}");
            assert_eq!(produce(client, last.clone()).await, (0, 3), "{how}");
            assert_eq!(produce(client, of_producer(inside, 0, 2, 1)).await, (gap, -1), "{how}");
            assert_eq!(produce(client, of_producer(between, 0, 1, 1)).await, (gap, -1), "{how}");
        };
        let broker = broker.restart().await;
        holds(&mut broker.client().await, "after a clean stop").await;
        let Broker { node, folder } = broker;
        drop(node);
        let node = node_on(folder.path(), config()).await;
        holds(&mut Client::connect(node.address()).await, "after a crash").await;
        drop(node);
        open(folder.path()).await.remove("checkpoint").await.expect("a checkpoint");
        let node = node_on(folder.path(), config()).await;
        let mut client = Client::connect(node.address()).await;
        holds(&mut client, "from the log itself").await;
        assert_eq!(produce(&mut client, of_producer(inside, 0, 1, 1)).await, (0, 4));
        assert_eq!(produce(&mut client, of_producer(between, 0, 0, 2)).await, (0, 5));
        assert_eq!(produce(&mut client, wrapping.clone()).await, (0, 0));
        assert_eq!(values(client.fetch("t", 0, 0).await.records).len(), 7, "each was appended once");
    });
}

#[test]
fn k12_a_producer_that_is_idle_for_too_long_is_forgotten() {
    run(async {
        let quick = std::time::Duration::from_millis(5);
        let expiring =
            Config { producer_id_expiration: quick, producer_id_expiration_check: quick, ..config() };
        let broker = Broker::with(expiring).await;
        let mut client = broker.client().await;
        client.create("t", 1, &[]).await;
        let id = new_id(&mut client).await;
        produce(&mut client, of_producer(id, 0, 0, 1)).await;
        let forgotten = &broker.node.metrics().producers_expired;
        until("the producer is forgotten", || forgotten.get() == 1).await;
        assert_eq!(produce(&mut client, of_producer(id, 0, 9, 1)).await, (0, 1));
    });
}

#[test]
fn kip_320_the_end_of_each_leader_epoch_is_told() {
    run(async {
        let broker = Broker::start().await;
        let mut client = broker.client().await;
        client.create("t", 1, &[]).await;
        produce(&mut client, batch(&[b"a", b"b"])).await;
        let metadata = client.metadata(9, Some(&["t"]), false).await;
        let former = metadata.topics[0].partitions[0].leader_epoch;
        let broker = broker.restart().await;
        let mut client = broker.client().await;
        produce(&mut client, batch(&[b"c"])).await;
        let metadata = client.metadata(9, Some(&["t"]), false).await;
        let current = metadata.topics[0].partitions[0].leader_epoch;
        let mut ask = async |epoch: i32, known: i32| {
            let partition =
                OffsetForLeaderPartition::default().with_leader_epoch(epoch).with_current_leader_epoch(known);
            let data =
                OffsetForLeaderTopic::default().with_topic(topic("t")).with_partitions(vec![partition]);
            let request = OffsetForLeaderEpochRequest::default().with_topics(vec![data]);
            let answer = client.call(4, &request).await;
            let end = answer.topics[0].partitions[0].clone();
            (end.error_code, end.leader_epoch, end.end_offset)
        };
        assert_eq!(ask(current, -1).await, (0, current, 3));
        assert_eq!(ask(former, -1).await, (0, former, 2));
        assert_eq!(ask(current - 1, -1).await, (0, former, 2), "nobody led in it");
        assert_eq!(ask(current + 1, -1).await, (0, -1, -1), "nobody can tell");
        assert_eq!(ask(current, current - 1).await.0, ResponseError::FencedLeaderEpoch.code());
        assert_eq!(ask(current, current + 1).await.0, ResponseError::UnknownLeaderEpoch.code());
    });
}

#[test]
fn k07_an_incremental_fetch_answers_what_has_changed() {
    run(async {
        let broker = Broker::start().await;
        let mut client = broker.client().await;
        client.create("t", 2, &[]).await;
        let mut full = fetch_request("t", 0, 0);
        let mut other = full.topics[0].partitions[0].clone();
        other.partition = 1;
        full.topics[0].partitions.push(other);
        full.session_epoch = 0;
        let response: FetchResponse = client.call(11, &full).await;
        assert!(response.session_id > 0);
        assert_eq!(response.responses[0].partitions.len(), 2);
        let mut next = full.clone().with_session_id(response.session_id).with_session_epoch(1);
        next.topics.clear();
        let quiet: FetchResponse = client.call(11, &next).await;
        assert_eq!((quiet.session_id, quiet.responses.len()), (response.session_id, 0));
        client.produce("t", 1, batch(&[b"news"])).await;
        next.session_epoch = 2;
        let news: FetchResponse = client.call(11, &next).await;
        assert_eq!(news.responses.len(), 1);
        let partition = &news.responses[0].partitions[0];
        assert_eq!(partition.partition_index, 1);
        assert_eq!(values(partition.records.clone()), [(0, b"news".to_vec())]);
        let again: FetchResponse = client.call(11, &next).await;
        assert_eq!(again.error_code, ResponseError::InvalidFetchSessionEpoch.code());
    });
}

#[test]
fn k07_a_session_forgets_ends_and_makes_no_room_for_another_while_it_is_in_use() {
    run(async {
        let broker = Broker::with(Config { fetch_sessions_max: 1, ..config() }).await;
        let mut client = broker.client().await;
        client.create("t", 2, &[]).await;
        let mut full = fetch_request("t", 0, 0);
        let other = full.topics[0].partitions[0].clone().with_partition(1);
        full.topics[0].partitions.push(other);
        full.session_epoch = 0;
        let first: FetchResponse = client.call(11, &full).await;
        assert!(first.session_id > 0);
        let second: FetchResponse = client.call(11, &full).await;
        assert_eq!((second.error_code, second.session_id), (0, 0), "all the same it is answered");
        assert_eq!(second.responses[0].partitions.len(), 2);

        for partition in 0..2 {
            client.produce("t", partition, batch(&[b"news"])).await;
        }
        let mut next = full.clone().with_session_id(first.session_id).with_session_epoch(1);
        next.topics.clear();
        let forgotten = ForgottenTopic::default().with_topic(topic("t")).with_partitions(vec![0]);
        next.forgotten_topics_data = vec![forgotten];
        let news: FetchResponse = client.call(11, &next).await;
        let indexes: Vec<i32> =
            news.responses[0].partitions.iter().map(|partition| partition.partition_index).collect();
        assert_eq!(indexes, [1], "the other one is forgotten");

        let by_id: FetchResponse = client.call(13, &next.clone().with_session_epoch(2)).await;
        assert_eq!(by_id.error_code, ResponseError::FetchSessionTopicIdError.code());
        let end = full.clone().with_session_id(first.session_id).with_session_epoch(-1);
        let last: FetchResponse = client.call(11, &end).await;
        assert_eq!((last.session_id, last.responses[0].partitions.len()), (0, 2));
        let gone: FetchResponse = client.call(11, &next.with_session_epoch(2)).await;
        assert_eq!(gone.error_code, ResponseError::FetchSessionIdNotFound.code());
        let third: FetchResponse = client.call(11, &full).await;
        assert!(third.session_id > 0, "there is room again");
    });
}
