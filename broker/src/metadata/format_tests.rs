//! The bytes of the metadata log's commands: a version's commands never change, so these lines only grow.

use bytes::Bytes;
use uuid::Uuid;
use weir_protocol::metadata::{
    ClusterCommand, Command, Endpoint, FeatureRange, IsrMember, LastStop, Record, Registration,
};
use weir_protocol::metadata::{Image, NewPartition};
use weir_protocol::raft::{SnapshotPoint, Voters};
use weir_protocol::types::VoterId;
use weir_protocol::types::{BrokerId, FolderId, Incarnation, LogId, TopicId};
use weir_wire::internal;

use super::snapshot::Held;

fn records() -> Vec<Record> {
    let endpoints = vec![Endpoint { listener: "PLAINTEXT".into(), host: "h".into(), port: 9092 }];
    let member = |id| IsrMember { broker: BrokerId(id), broker_epoch: 300 };
    let log = LogId::new(TopicId(Uuid::from_u128(7)), 3);
    let features = FeatureRange { min: 1, max: 2 };
    let (broker, folder, incarnation) = (BrokerId(5), FolderId(Uuid::from_u128(9)), Incarnation(4));
    let started = Command::RegisterBroker {
        broker,
        folder,
        incarnation,
        endpoints: endpoints.clone(),
        rack: Some("r".into()),
        features,
    };
    let changed = Command::ChangePartition {
        log,
        partition_epoch: 2,
        leader: Some(broker),
        isr: vec![member(5)],
        renew_epoch: true,
    };
    let registration = Registration {
        broker,
        folder,
        incarnation,
        endpoints,
        rack: None,
        features,
        last_stop: LastStop::Uncertain,
        flush_os: true,
    };
    let recovered = ClusterCommand::ElectRecovered {
        log,
        partition_epoch: 2,
        leader: member(5),
        equals: vec![member(6)],
        behind: vec![BrokerId(7)],
    };
    vec![
        started.into(),
        changed.into(),
        Command::SetFeatureLevel { level: 2 }.into(),
        ClusterCommand::RegisterBroker(registration).into(),
        ClusterCommand::Fence { broker, broker_epoch: 300 }.into(),
        recovered.into(),
        ClusterCommand::AddReplicas { id: log.topic, partitions: Vec::new() }.into(),
    ]
}

const FROZEN: [&str; 7] = [
    "00010a1000000000000000000000000000000009040109504c41494e544558540168fb84230101720102",
    "000a10000000000000000000000000000000070604010a010afb580201",
    "000b02",
    "01000a1000000000000000000000000000000009040109504c41494e544558540168fb84230001020201",
    "01010afb5802",
    "0109100000000000000000000000000000000706040afb5802010cfb5802010e",
    "010a100000000000000000000000000000000700",
];

#[test]
fn commands_keep_their_bytes() {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let encoded: Vec<Bytes> = records().iter().map(|record| internal::encode(record).unwrap()).collect();
    let shown: Vec<_> = encoded.iter().map(|bytes| hex(bytes)).collect();
    assert_eq!(shown, FROZEN);
    for (record, bytes) in records().iter().zip(&encoded) {
        assert_eq!(internal::decode::<Record>(bytes, 1 << 16).as_ref(), Ok(record));
    }
}

/// An image with something of everything.
fn image() -> Image {
    let mut image = Image::empty();
    let broker = BrokerId(5);
    let folder = FolderId(Uuid::from_u128(9));
    let registered = Command::RegisterBroker {
        broker,
        folder,
        incarnation: Incarnation(4),
        endpoints: vec![Endpoint { listener: "PLAINTEXT".into(), host: "h".into(), port: 9092 }],
        rack: Some("r".into()),
        features: FeatureRange { min: 1, max: 2 },
    };
    let changes = |value: &str| [("log.retention.ms".to_owned(), Some(value.to_owned()))].into();
    let created = Command::CreateTopic {
        name: "t".into(),
        id: TopicId(Uuid::from_u128(7)),
        partitions: vec![NewPartition { replicas: vec![broker] }],
        configs: [("retention.ms".to_owned(), "1".to_owned())].into(),
    };
    let commands = [
        Command::FormCluster { cluster_id: Uuid::from_u128(3), feature_level: 2 },
        registered,
        Command::SetFenced { broker, broker_epoch: 1, fenced: false },
        created,
        Command::SetBrokerConfig { broker: None, changes: changes("2") },
        Command::SetBrokerConfig { broker: Some(broker), changes: changes("3") },
        Command::AllocateProducerIds { broker, broker_epoch: 1 },
    ];
    for (index, command) in (0..).zip(commands) {
        image.apply_record(index, &Record::from(command)).unwrap();
    }
    image
}

/// Another shape of the image is another version of the content, and this one stays readable.
const FROZEN_SNAPSHOT: &str = "\
    0e04010a1000000000000000000000000000000009e0fc250bf307e00001010c011000000000000000000000000000000003\
    02010a021000000000000000000000000000000009040109504c41494e544558540168fb8423010172010200000001100000\
    00000000000000000000000000071000000000000000000000000000000007017401010a00010a000000010a00000000010c\
    726574656e74696f6e2e6d730131000101741000000000000000000000000000000007010174100000000000000000000000\
    00000000070101106c6f672e726574656e74696f6e2e6d730132010a01106c6f672e726574656e74696f6e2e6d73013300fb\
    d007";

#[test]
fn snapshots_keep_their_bytes() {
    let voter = VoterId { broker: BrokerId(5), folder: FolderId(Uuid::from_u128(9)) };
    let at = SnapshotPoint { end: 7, term: 2, voters: Voters::new([voter]).unwrap() };
    let held = Held::of(at, &image()).unwrap();
    let shown: String = internal::encode(&held).unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(shown, FROZEN_SNAPSHOT);
    assert_eq!(held.image().unwrap(), image());
}
