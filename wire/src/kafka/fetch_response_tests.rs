use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::fetch_response as crate_messages;
use kafka_protocol::messages::{BrokerId, FetchRequest, TopicName};
use kafka_protocol::protocol::{Encodable, StrBytes};
use uuid::Uuid;

use super::*;

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

fn records() -> Vec<Bytes> {
    vec![Bytes::from_static(b"first batch"), Bytes::new(), Bytes::from(vec![0xab; 200])]
}

fn fetched(index: i32) -> FetchedPartition {
    FetchedPartition {
        index,
        high_watermark: 1 << 40,
        last_stable_offset: 5,
        log_start_offset: 3,
        ..FetchedPartition::default()
    }
}

/// Each optional part once, alone and together.
fn responses() -> Vec<FetchResponse> {
    let hint = LeaderHint { leader_id: 3, leader_epoch: 9 };
    let aborted = vec![
        AbortedTransaction { producer_id: 1, first_offset: 2 },
        AbortedTransaction { producer_id: 3, first_offset: 4 },
    ];
    let partitions = vec![
        FetchedPartition { records: records(), ..fetched(0) },
        FetchedPartition { error_code: 6, current_leader: Some(hint), ..fetched(1) },
        FetchedPartition { diverging_epoch: Some((4, 44)), ..fetched(2) },
        FetchedPartition { snapshot_id: Some((7, 8)), aborted_transactions: Some(vec![]), ..fetched(3) },
        FetchedPartition {
            diverging_epoch: Some((0, 0)),
            current_leader: Some(hint),
            snapshot_id: Some((0, 0)),
            aborted_transactions: Some(aborted),
            records: records(),
            ..fetched(i32::MAX)
        },
    ];
    let endpoint = NodeEndpoint { node_id: 3, host: text("h"), port: 9092, rack: Some(text("r")) };
    vec![
        FetchResponse::default(),
        FetchResponse {
            throttle_time_ms: 5,
            error_code: 70,
            session_id: 17,
            topics: vec![
                FetchedTopic { name: text("orders"), id: Uuid::from_u128(1), partitions },
                FetchedTopic { name: text("z"), id: Uuid::from_u128(2), partitions: vec![fetched(0)] },
            ],
            node_endpoints: vec![endpoint.clone(), NodeEndpoint { rack: None, ..endpoint }],
        },
    ]
}

fn as_crate_partition(partition: &FetchedPartition) -> crate_messages::PartitionData {
    let mut theirs = crate_messages::PartitionData::default()
        .with_partition_index(partition.index)
        .with_error_code(partition.error_code)
        .with_high_watermark(partition.high_watermark)
        .with_last_stable_offset(partition.last_stable_offset)
        .with_log_start_offset(partition.log_start_offset)
        .with_preferred_read_replica(BrokerId(partition.preferred_read_replica))
        .with_records(Some(partition.records.concat().into()))
        .with_aborted_transactions(partition.aborted_transactions.as_ref().map(|aborted| {
            let theirs = crate_messages::AbortedTransaction::default();
            let aborted = aborted.iter();
            aborted
                .map(|t| {
                    let theirs = theirs.clone();
                    theirs.with_producer_id(t.producer_id.into()).with_first_offset(t.first_offset)
                })
                .collect()
        }));
    if let Some((epoch, end_offset)) = partition.diverging_epoch {
        theirs.diverging_epoch =
            crate_messages::EpochEndOffset::default().with_epoch(epoch).with_end_offset(end_offset);
    }
    if let Some(LeaderHint { leader_id, leader_epoch }) = partition.current_leader {
        theirs.current_leader = crate_messages::LeaderIdAndEpoch::default()
            .with_leader_id(BrokerId(leader_id))
            .with_leader_epoch(leader_epoch);
    }
    if let Some((end_offset, epoch)) = partition.snapshot_id {
        theirs.snapshot_id =
            crate_messages::SnapshotId::default().with_epoch(epoch).with_end_offset(end_offset);
    }
    theirs
}

/// The same response as the crate's value, for a version: what the version lacks is left out.
fn as_crate(response: &FetchResponse, version: i16) -> kafka_protocol::messages::FetchResponse {
    let mut theirs = kafka_protocol::messages::FetchResponse::default()
        .with_throttle_time_ms(response.throttle_time_ms)
        .with_error_code(response.error_code)
        .with_session_id(if version >= 7 { response.session_id } else { 0 });
    for topic in &response.topics {
        let partitions = topic.partitions.iter().map(as_crate_partition).collect();
        theirs.responses.push(
            crate_messages::FetchableTopicResponse::default()
                .with_topic(TopicName(topic.name.clone()))
                .with_topic_id(topic.id)
                .with_partitions(partitions),
        );
    }
    for endpoint in &response.node_endpoints {
        theirs.node_endpoints.push(
            crate_messages::NodeEndpoint::default()
                .with_node_id(BrokerId(endpoint.node_id))
                .with_host(endpoint.host.clone())
                .with_port(endpoint.port)
                .with_rack(endpoint.rack.clone()),
        );
    }
    theirs
}

#[test]
fn each_version_is_byte_for_byte_what_the_crate_writes() {
    for version in 4..=18 {
        for response in responses() {
            let mut expected = BytesMut::new();
            crate::frame::put_response_header(&mut expected, 1, version, 99);
            as_crate(&response, version).encode(&mut expected, version).unwrap();
            let frame = encode_response(version, 99, &response.into()).unwrap().concat();
            let (prefix, body) = frame.split_first_chunk::<4>().unwrap();
            assert_eq!(body, expected, "version {version}");
            assert_eq!(u32::from_be_bytes(*prefix) as usize, body.len());
        }
    }
}

#[test]
fn records_are_never_copied_and_no_chunk_is_empty() {
    let records = records();
    let partition = FetchedPartition { records: records.clone(), ..fetched(0) };
    let topics = vec![FetchedTopic { partitions: vec![partition], ..FetchedTopic::default() }];
    let response = FetchResponse { topics, ..FetchResponse::default() };
    assert_eq!(response.records_bytes(), 211);
    let chunks = encode_response(12, 1, &response.into()).unwrap();
    assert!(chunks.iter().all(|chunk| !chunk.is_empty()));
    for expected in records.iter().filter(|records| !records.is_empty()) {
        assert!(
            chunks.iter().any(|chunk| chunk.as_ptr() == expected.as_ptr() && chunk.len() == expected.len())
        );
    }
}

#[test]
fn a_client_reads_the_records_without_a_copy() {
    for version in 4..=18 {
        for response in responses() {
            let frame = Bytes::from(encode_response(version, 7, &response.clone().into()).unwrap().concat())
                .slice(4..);
            let range = frame.as_ptr_range();
            let (correlation_id, decoded) = decode_response::<FetchRequest>(version, frame.clone()).unwrap();
            assert_eq!(correlation_id, 7);
            for (ours, theirs) in response.topics.iter().zip(&decoded.responses) {
                for (ours, theirs) in ours.partitions.iter().zip(&theirs.partitions) {
                    let records = theirs.records.as_ref().unwrap();
                    assert_eq!(*records, ours.records.concat());
                    assert!(records.is_empty() || range.contains(&records.as_ptr()));
                }
            }
        }
    }
}

#[test]
fn a_version_that_does_not_exist_is_refused() {
    for version in [3, 19] {
        let error = encode_response(version, 1, &FetchResponse::default().into()).unwrap_err();
        assert!(matches!(error, EncodeError::Message { api_key: 1, .. }));
    }
}
