use super::*;

fn group() -> GroupValue {
    GroupValue {
        protocol_type: "consumer".to_owned(),
        generation: 7,
        protocol: Some("range".to_owned()),
        leader: Some("a-1".to_owned()),
        state_timestamp_ms: 1234,
        members: vec![GroupMember {
            member_id: "a-1".to_owned(),
            instance_id: Some("one".to_owned()),
            client_id: "a".to_owned(),
            client_host: "/10.0.0.1".to_owned(),
            rebalance_timeout_ms: 60_000,
            session_timeout_ms: 10_000,
            subscription: Bytes::from_static(b"sub"),
            assignment: Bytes::from_static(b"ass"),
        }],
    }
}

fn offset() -> OffsetValue {
    OffsetValue { offset: 42, leader_epoch: 3, metadata: "m".to_owned(), commit_timestamp_ms: 99 }
}

#[test]
fn records_are_read_back() {
    for key in [
        Key::Offset { group: "g".to_owned(), topic: "t".to_owned(), partition: 5 },
        Key::Group { group: "g".to_owned() },
    ] {
        assert_eq!(Key::decode(&key.encode()), Ok(key));
    }
    assert_eq!(OffsetValue::decode(&offset().encode()), Ok(offset()));
    assert_eq!(GroupValue::decode(&group().encode()), Ok(group()));
    let empty = GroupValue { protocol: None, leader: None, members: Vec::new(), ..group() };
    assert_eq!(GroupValue::decode(&empty.encode()), Ok(empty));
}

#[test]
fn the_bytes_are_kafkas() {
    let key = Key::Offset { group: "g".to_owned(), topic: "t".to_owned(), partition: 5 };
    assert_eq!(&key.encode()[..], b"\0\x01\0\x01g\0\x01t\0\0\0\x05");
    assert_eq!(&Key::Group { group: "g".to_owned() }.encode()[..], b"\0\x02\0\x01g");
    assert_eq!(&offset().encode()[..], b"\0\x03\0\0\0\0\0\0\0\x2a\0\0\0\x03\0\x01m\0\0\0\0\0\0\0\x63");
    let expected = b"\0\x03\0\x08consumer\0\0\0\x07\0\x05range\0\x03a-1\0\0\0\0\0\0\x04\xd2\0\0\0\x01\
        \0\x03a-1\0\x03one\0\x01a\0\x09/10.0.0.1\0\0\xea\x60\0\0\x27\x10\0\0\0\x03sub\0\0\0\x03ass";
    assert_eq!(&group().encode()[..], expected);
}

#[test]
fn what_is_cut_off_or_unknown_is_told() {
    let value = group().encode();
    for end in 0..value.len() {
        assert!(GroupValue::decode(&value[..end]).is_err(), "cut at {end}");
    }
    assert_eq!(Key::decode(b"\0\x09\0\x01g"), Err(RecordError::Version { what: "a key", version: 9 }));
    assert_eq!(OffsetValue::decode(b"\0\x04"), Err(RecordError::Version { what: "an offset", version: 4 }));
    let many = b"\0\x03\0\0\0\0\0\0\xff\xff\xff\xff\0\0\0\0\0\0\0\0\x7f\xff\xff\xff";
    assert_eq!(GroupValue::decode(many), Err(RecordError::Malformed("a group")));
}
