//! What members of groups, and the log of `__consumer_offsets`, feed to coordinators and clients.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use weir_broker::parsers::{decode_group_record, encode_group_record};
use weir_protocol::group::{Coordinator, Effect, Input, Limits, Now, Request, subscribed_topics};
use weir_wire::consumer_protocol::{Assignment, Partitions, Subscription};
use weir_wire::offsets_topic::{GroupMember, GroupValue, Key, OffsetValue};

use crate::mutate::Random;

/// A subscription or an assignment: which, nobody says.
pub(super) fn consumer_protocol(input: &[u8]) {
    let bytes = Bytes::copy_from_slice(input);
    if let Ok(subscription) = Subscription::decode(bytes.clone()) {
        let again = subscription.encode().expect("what was decoded can be encoded");
        assert_eq!(Subscription::decode(again).as_ref(), Ok(&subscription));
        // The broker looks at the topics without decoding the rest.
        let topics: BTreeSet<String> = subscription.topics.into_iter().collect();
        assert_eq!(subscribed_topics(input), Some(topics));
    }
    if let Ok(assignment) = Assignment::decode(bytes) {
        let again = assignment.encode().expect("what was decoded can be encoded");
        assert_eq!(Assignment::decode(again), Ok(assignment));
    }
}

pub(super) fn generate_consumer_protocol(random: &mut Random) -> Vec<u8> {
    let user_data = (random.below(2) == 0).then(|| Bytes::from(vec![7; random.below(20)]));
    let encoded = match random.below(2) {
        0 => Assignment { partitions: partitions(random), user_data }.encode(),
        _ => {
            let topics = (0..random.below(4)).map(|number| format!("topic-{number}")).collect();
            let generation = (random.below(2) == 0).then(|| random.below(100) as i32);
            let rack = (random.below(2) == 0).then(|| "rack".to_owned());
            Subscription { topics, user_data, owned: partitions(random), generation, rack }.encode()
        }
    };
    let mut bytes = encoded.expect("short names can be encoded").to_vec();
    // Any version, older ones with what newer ones append.
    bytes[1] = random.below(5) as u8;
    bytes
}

fn partitions(random: &mut Random) -> Partitions {
    let of_topic = |number| (format!("topic-{number}"), (0..1 + number).collect());
    (0..random.below(4) as i32).map(of_topic).collect()
}

/// The length that stands for no value.
const NONE: u16 = u16::MAX;

/// Takes bytes with a length of 16 bits; fewer where there are not as many.
fn take<'a>(rest: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let (length, behind) = rest.split_first_chunk::<2>()?;
    let length = u16::from_be_bytes(*length);
    let (bytes, behind) =
        behind.split_at(usize::from(if length == NONE { 0 } else { length }).min(behind.len()));
    *rest = behind;
    Some((length != NONE).then_some(bytes))
}

fn put(out: &mut BytesMut, bytes: Option<&[u8]>) {
    out.extend_from_slice(&bytes.map_or(NONE, |bytes| bytes.len() as u16).to_be_bytes());
    out.extend_from_slice(bytes.unwrap_or_default());
}

fn at(seconds: u64) -> Now {
    Now { at: Duration::from_secs(seconds), wall_ms: 1_700_000_000_000 }
}

/// The records of a partition of `__consumer_offsets`, a coordinator that loads them, and the end of all sessions.
pub(super) fn records(input: &[u8]) {
    let mut coordinator = Coordinator::new(Limits::default());
    let mut rest = input;
    while let Some(key) = take(&mut rest) {
        let value = take(&mut rest).unwrap_or_default();
        let Ok(record) = decode_group_record(key.unwrap_or_default(), value) else { break };
        let Some(record) = record else { continue };
        let (key, value) = encode_group_record(&record);
        assert_eq!(decode_group_record(&key, value.as_deref()), Ok(Some(record.clone())));
        assert!(record.bytes() >= key.len() + value.map_or(0, |value| value.len()), "{record:?}");
        coordinator.load(record, at(1));
    }
    coordinator.loaded(at(1));
    assert_eq!(coordinator.invariants(), Ok(()));
    // Longer than any session is in earnest, and than offsets are kept.
    for seconds in [3_600, 2 * 3_600, 30 * 24 * 3_600] {
        step(&mut coordinator, seconds, Input::Tick);
    }
    for listed in coordinator.list().collect::<Vec<_>>() {
        let call = weir_protocol::group::CallId(0);
        let group = listed.group;
        step(&mut coordinator, 31 * 24 * 3_600, Input::Request { call, group, request: Request::Delete });
    }
}

/// One step, with everything that it appends committed.
fn step(coordinator: &mut Coordinator, seconds: u64, input: Input) {
    let mut effects = Vec::new();
    coordinator.step(at(seconds), input, &mut effects);
    assert_eq!(coordinator.invariants(), Ok(()));
    for effect in effects {
        if let Effect::Append { seq, records } = effect {
            for record in &records {
                let (key, value) = encode_group_record(record);
                assert_eq!(decode_group_record(&key, value.as_deref()).as_ref(), Ok(&Some(record.clone())));
            }
            coordinator.step(at(seconds), Input::Committed { seq }, &mut Vec::new());
            assert_eq!(coordinator.invariants(), Ok(()));
        }
    }
}

pub(super) fn generate_records(random: &mut Random) -> Vec<u8> {
    let mut out = BytesMut::new();
    for _ in 0..random.below(6) {
        let group = format!("group-{}", random.below(3));
        let is_gone = random.below(5) == 0;
        let (key, value) = match random.below(2) {
            0 => {
                let value = OffsetValue {
                    offset: random.below(1_000) as i64,
                    leader_epoch: random.below(5) as i32 - 1,
                    metadata: "m".repeat(random.below(5)),
                    commit_timestamp_ms: 1_700_000_000_000,
                };
                (
                    Key::Offset { group, topic: "topic".to_owned(), partition: random.below(3) as i32 },
                    value.encode(),
                )
            }
            _ => (Key::Group { group }, group_value(random).encode()),
        };
        put(&mut out, Some(&key.encode()));
        put(&mut out, (!is_gone).then_some(&value[..]));
    }
    out.to_vec()
}

fn group_value(random: &mut Random) -> GroupValue {
    let member = |number: usize, random: &mut Random| GroupMember {
        member_id: format!("member-{number}"),
        instance_id: (random.below(2) == 0).then(|| format!("instance-{number}")),
        client_id: "client".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        rebalance_timeout_ms: 60_000,
        session_timeout_ms: 10_000,
        subscription: Bytes::from(generate_consumer_protocol(random)),
        assignment: Bytes::from(generate_consumer_protocol(random)),
    };
    let members: Vec<GroupMember> = (0..random.below(4)).map(|number| member(number, random)).collect();
    GroupValue {
        protocol_type: "consumer".to_owned(),
        generation: random.below(10) as i32,
        protocol: (!members.is_empty()).then(|| "range".to_owned()),
        leader: members.first().map(|member| member.member_id.clone()),
        state_timestamp_ms: 1_700_000_000_000,
        members,
    }
}
