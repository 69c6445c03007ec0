//! What the small files of a data folder and its names feed to the broker.

use std::collections::BTreeMap;

use bytes::Bytes;
use uuid::Uuid;
use weir_protocol::metadata::{Command, Endpoint, FeatureRange, Image, IsrMember, NewPartition, Record};
use weir_protocol::partition::producers::{Claim, ProducerBatch, Producers, after};
use weir_protocol::raft::{HardState, Limits, Standing};
use weir_protocol::types::{BrokerId, FolderId, Incarnation, LogId, TopicId, VoterId};
use weir_storage::EpochHistory;
use weir_storage::parsers::{self, Checkpointed, Index};
use weir_wire::internal::{self, BlobKind};

use crate::crc::CASTAGNOLI;
use crate::mutate::Random;

/// Bytes before the content of a sealed file, and where its checksum stands.
const SEAL_BYTES: usize = 20;
const SEAL_CRC_AT: usize = 16;

fn log(number: usize) -> LogId {
    LogId::new(TopicId(Uuid::from_u128(7 << 64 | 1)), number as i32)
}

/// The checkpoint's file.
pub(super) fn checkpoint(input: &[u8]) {
    if let Some(again) = parsers::rewrite_checkpoint(&Bytes::copy_from_slice(input)) {
        assert_eq!(parsers::rewrite_checkpoint(&again), Some(again), "what was read is written as it reads");
    }
}

pub(super) fn generate_checkpoint(random: &mut Random) -> Vec<u8> {
    let log_state = |number, random: &mut Random| {
        let start = random.below(1_000) as i64;
        let mut epochs = EpochHistory::new();
        for epoch in 0..random.below(4) as i32 {
            epochs.begin(epoch * 2, start + i64::from(epoch) * 10);
        }
        let producers = producers(start..start + 100, random);
        Checkpointed { log: log(number), offsets: start..start + 100, epochs, producers }
    };
    let logs = (0..random.below(4)).map(|number| log_state(number, random)).collect();
    let folder = FolderId(Uuid::from_u128(9));
    parsers::write_checkpoint(folder, 1 + random.below(50) as u64, logs).to_vec()
}

/// A few producers whose batches lie within these offsets.
fn producers(offsets: std::ops::Range<i64>, random: &mut Random) -> Producers {
    let mut producers = Producers::default();
    for producer in 0..random.below(4) as i64 {
        let mut first_sequence = [0, 7, i32::MAX - 2][random.below(3)];
        let mut base_offset = offsets.start;
        for _ in 0..random.below(7) {
            let count = 1 + random.below(4);
            let last_sequence = (first_sequence as i64 + count as i64 - 1) & i64::from(i32::MAX);
            let next_offset = base_offset + count as i64;
            let claim = Claim {
                producer: producer << 40,
                epoch: random.below(2) as i16,
                first_sequence,
                last_sequence: last_sequence as i32,
                max_timestamp_ms: 1_700_000_000_000,
            };
            producers.note(&ProducerBatch { claim, base_offset, next_offset }, random.below(1 << 20) as i64);
            (first_sequence, base_offset) = (after(claim.last_sequence), next_offset);
        }
    }
    producers
}

/// The file of the folder's identity, or the marker of a clean stop.
pub(super) fn identity(input: &[u8]) {
    let bytes = Bytes::copy_from_slice(input);
    let is_clean_mark = parsers::is_clean_mark(&bytes);
    if let Some(next) = parsers::next_identity(&bytes) {
        assert!(!is_clean_mark, "a file is of one kind");
        assert_ne!(next, bytes, "each start has a number of its own");
    }
}

pub(super) fn generate_identity(random: &mut Random) -> Vec<u8> {
    match random.below(4) {
        0 => parsers::write_clean_mark().to_vec(),
        _ => parsers::write_identity(FolderId(Uuid::from_u128(9)), random.below(300) as u64).to_vec(),
    }
}

/// A segment's base offset and the file of its index.
pub(super) fn index(input: &[u8]) {
    let Some((base, file)) = input.split_first_chunk::<8>() else {
        return;
    };
    let base = i64::from_le_bytes(*base);
    // It is the number in a file's name, which has no sign.
    let Some(index) = Some(base)
        .filter(|base| *base >= 0)
        .and_then(|base| Index::decode(base, &Bytes::copy_from_slice(file)))
    else {
        return;
    };
    assert_eq!(Index::decode(base, &index.encode()).as_ref(), Some(&index), "it is written as it reads");
    let (covered, next_offset) = index.covered();
    assert!(next_offset >= base);
    let mut place = (0, base);
    while let Some(next) = index.above(place.0) {
        assert!(next.0 > place.0 && next.0 < covered && next.1 >= place.1 && next.1 < next_offset);
        assert_eq!(index.floor(next.1), next);
        place = next;
    }
    for number in [i64::MIN, -1, 0, base, next_offset, i64::MAX] {
        assert!(index.floor(number).0 <= covered && index.floor_by_time(number).0 <= covered);
    }
    let mut cut = index;
    cut.cut(place.0, place.1);
    assert_eq!(
        Index::decode(base, &cut.encode()).as_ref(),
        Some(&cut),
        "one that was cut is written and read"
    );
}

pub(super) fn generate_index(random: &mut Random) -> Vec<u8> {
    let base = random.below(1 << 40) as i64;
    let mut index = Index::empty(base);
    let mut next = base;
    for _ in 0..random.below(12) {
        let records = 1 + random.below(50) as i64;
        let gap = if random.below(4) == 0 { random.below(9) as i64 } else { 0 };
        let bytes = 61 + random.below(5_000) as u64;
        index.note(
            next + gap..next + gap + records,
            bytes,
            1_700_000_000_000 + random.below(99) as i64,
            4_096,
        );
        next += gap + records;
    }
    let mut out = base.to_le_bytes().to_vec();
    out.extend_from_slice(&index.encode());
    out
}

/// Makes the checksum of a sealed file right.
pub(super) fn repair_sealed(input: &mut [u8]) {
    let Some(content) = input.len().checked_sub(SEAL_BYTES) else {
        return;
    };
    input[12..16].copy_from_slice(&(content as u32).to_le_bytes());
    let crc = CASTAGNOLI.of(&[&input[..SEAL_CRC_AT], &input[SEAL_BYTES..]]);
    input[SEAL_CRC_AT..SEAL_BYTES].copy_from_slice(&crc.to_le_bytes());
}

pub(super) fn repair_index(input: &mut [u8]) {
    if let Some((_, file)) = input.split_first_chunk_mut::<8>() {
        repair_sealed(file);
    }
}

/// A name in the data folder.
pub(super) fn name(input: &[u8]) {
    let name = String::from_utf8_lossy(input);
    assert!(parsers::rename_log(&name).is_none_or(|again| again == name));
    if let Some((base, again)) = parsers::rename_segment(log(1), &name) {
        assert!(base >= 0);
        assert_eq!(again, name);
    }
}

pub(super) fn generate_name(random: &mut Random) -> Vec<u8> {
    match random.below(2) {
        0 => format!("{}", log(random.below(20))).into_bytes(),
        _ => format!("{:020}.log", random.number() >> 1).into_bytes(),
    }
}

/// As the broker has it, which stands on a floor above.
const QUORUM_STATE: BlobKind = BlobKind { magic: *b"WqSt", version: 2, name: "quorum-state" };

/// The file of the quorum's hard state.
pub(super) fn quorum_state(input: &[u8]) {
    let Ok(blob) = internal::open(&QUORUM_STATE, input) else {
        return;
    };
    if let Ok(state) = internal::decode::<HardState>(blob.payload, 4_096) {
        let again = internal::encode(&state).expect("what was decoded can be encoded");
        assert_eq!(internal::decode::<HardState>(&again, 4_096), Ok(state));
    }
}

pub(super) fn generate_quorum_state(random: &mut Random) -> Vec<u8> {
    let vote = VoterId { broker: BrokerId(random.below(5) as i32), folder: FolderId(Uuid::from_u128(9)) };
    let standing = [Standing::Whole, Standing::Recovering, Standing::Forgotten][random.below(3)];
    let state =
        HardState { term: random.below(100) as i32, vote: (random.below(3) > 0).then_some(vote), standing };
    let payload = internal::encode(&state).expect("a state can be encoded");
    internal::seal(&QUORUM_STATE, &payload).to_vec()
}

/// The entries of the metadata quorum's log, each with its length in two bytes, applied one after the other.
pub(super) fn metadata_log(input: &[u8]) {
    let mut image = Image::empty();
    let mut rest = input;
    for index in 0i64.. {
        let Some((length, behind)) = rest.split_first_chunk::<2>() else {
            break;
        };
        let length = usize::from(u16::from_le_bytes(*length)).min(behind.len());
        let (entry, behind) = behind.split_at(length);
        rest = behind;
        let Ok(record) = internal::decode::<Record>(entry, Limits::default().entry_bytes_max) else {
            continue;
        };
        let applied = image.apply_record(index, &record);
        assert_eq!(image.invariants(), Ok(()), "{record:?}: {applied:?}");
        assert_eq!(image.applied(), Some(index));
    }
    let bytes = internal::encode(&image).expect("an image can be encoded");
    assert_eq!(internal::decode(&bytes, 1 << 20).as_ref(), Ok(&image));
}

pub(super) fn generate_metadata_log(random: &mut Random) -> Vec<u8> {
    let mut out = Vec::new();
    let form = Command::FormCluster { cluster_id: Uuid::from_u128(5), feature_level: 1 };
    let first = [form, register(1), register(2)];
    let more: Vec<Command> = (0..random.below(8)).map(|_| command(random)).collect();
    for command in first.into_iter().chain(more) {
        let entry = internal::encode(&Record::V1(command)).expect("a command can be encoded");
        out.extend_from_slice(&(entry.len() as u16).to_le_bytes());
        out.extend_from_slice(&entry);
    }
    out
}

fn register(broker: i32) -> Command {
    Command::RegisterBroker {
        broker: BrokerId(broker),
        folder: FolderId(Uuid::from_u128(broker as u128)),
        incarnation: Incarnation(1),
        endpoints: vec![Endpoint { listener: "PLAINTEXT".into(), host: "h".into(), port: 9092 }],
        rack: None,
        features: FeatureRange { min: 1, max: 1 },
    }
}

fn command(random: &mut Random) -> Command {
    let broker = BrokerId(1 + random.below(2) as i32);
    let id = TopicId(Uuid::from_u128(100 + random.below(2) as u128));
    let partition = || NewPartition { replicas: vec![BrokerId(1), BrokerId(2)] };
    let log = LogId::new(id, 0);
    match random.below(12) {
        0 => register(1 + random.below(3) as i32),
        1 => {
            Command::SetFenced { broker, broker_epoch: random.below(4) as i64, fenced: random.below(2) == 0 }
        }
        2 => Command::UnregisterBroker { broker },
        3 | 4 => Command::CreateTopic {
            name: format!("topic-{}", id.0.as_u128()),
            id,
            partitions: vec![partition(); 1 + random.below(2)],
            configs: BTreeMap::from([("retention.ms".to_owned(), "1000".to_owned())]),
        },
        5 => Command::DeleteTopic { id },
        6 => Command::AddPartitions { id, partitions_before: 1, partitions: vec![partition()] },
        7 => Command::SetTopicConfig {
            id,
            changes: BTreeMap::from([("segment.bytes".to_owned(), Some("1048576".to_owned()))]),
        },
        8 => Command::SetBrokerConfig {
            broker: Some(broker),
            changes: BTreeMap::from([("log.retention.ms".to_owned(), None)]),
        },
        9 => Command::AllocateProducerIds { broker, broker_epoch: 1 + random.below(2) as i64 },
        10 => Command::ChangePartition {
            log,
            partition_epoch: random.below(3) as i32,
            leader: Some(broker),
            isr: vec![IsrMember { broker, broker_epoch: 1 + random.below(2) as i64 }],
            renew_epoch: random.below(2) == 0,
        },
        _ => Command::SetFeatureLevel { level: 1 },
    }
}
