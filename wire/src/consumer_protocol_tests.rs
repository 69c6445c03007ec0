use super::*;

fn partitions(of: &[(&str, &[i32])]) -> Partitions {
    of.iter().map(|(topic, partitions)| ((*topic).to_owned(), partitions.to_vec())).collect()
}

/// Version 1 as Kafka's ConsumerProtocolSubscription.json lays it out, byte by byte.
const SUBSCRIPTION_1: &[u8] = b"\0\x01\
    \0\0\0\x02\0\x01a\0\x02bc\
    \0\0\0\x04\0\0\0\x07\
    \0\0\0\x01\0\x01a\0\0\0\x02\0\0\0\0\0\0\0\x05";

#[test]
fn a_subscription_of_version_1_is_read() {
    let read = Subscription::decode(Bytes::from_static(SUBSCRIPTION_1)).unwrap();
    assert_eq!(read.topics, ["a", "bc"]);
    assert_eq!(read.user_data.as_deref(), Some(&[0, 0, 0, 7][..]));
    assert_eq!(read.owned, partitions(&[("a", &[0, 5])]));
    assert_eq!((read.generation, read.rack), (None, None));
}

#[test]
fn a_subscription_is_written_as_version_3() {
    let subscription = Subscription {
        topics: vec!["a".to_owned()],
        user_data: None,
        owned: partitions(&[("a", &[1])]),
        generation: Some(9),
        rack: Some("r".to_owned()),
    };
    let bytes = subscription.encode().unwrap();
    let expected: &[u8] = b"\0\x03\0\0\0\x01\0\x01a\xff\xff\xff\xff\
        \0\0\0\x01\0\x01a\0\0\0\x01\0\0\0\x01\0\0\0\x09\0\x01r";
    assert_eq!(&bytes[..], expected);
    assert_eq!(Subscription::decode(bytes).unwrap(), subscription);
}

#[test]
fn an_assignment_is_written_as_version_3_and_an_empty_one_is_none() {
    let assignment = Assignment { partitions: partitions(&[("a", &[0, 1])]), user_data: None };
    let bytes = assignment.encode().unwrap();
    let expected: &[u8] = b"\0\x03\0\0\0\x01\0\x01a\0\0\0\x02\0\0\0\0\0\0\0\x01\xff\xff\xff\xff";
    assert_eq!(&bytes[..], expected);
    assert_eq!(Assignment::decode(bytes).unwrap(), assignment);
    assert_eq!(Assignment::decode(Bytes::new()).unwrap(), Assignment::default());
}

#[test]
fn a_newer_version_is_read_as_far_as_it_is_known() {
    let mut bytes =
        Subscription { topics: vec!["a".to_owned()], ..Default::default() }.encode().unwrap().to_vec();
    bytes[1] = 9;
    bytes.extend_from_slice(b"more");
    assert_eq!(Subscription::decode(bytes.into()).unwrap().topics, ["a"]);
}

#[test]
fn k23_a_blob_cut_off_anywhere_or_with_an_absurd_length_is_refused() {
    for end in 0..SUBSCRIPTION_1.len() {
        assert!(Subscription::decode(Bytes::from_static(&SUBSCRIPTION_1[..end])).is_err(), "{end}");
    }
    let absurd = Bytes::from_static(b"\0\x01\x7f\xff\xff\xff\0\x01a");
    assert!(matches!(Subscription::decode(absurd.clone()), Err(ConsumerProtocolError::Shape(_))));
    assert!(matches!(Assignment::decode(absurd), Err(ConsumerProtocolError::Shape(_))));
    assert_eq!(Assignment::decode(Bytes::from_static(b"\xff\xff")), Err(ConsumerProtocolError::Version));
}
