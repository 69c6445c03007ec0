use super::*;

#[test]
fn a_payload_gives_its_value_back_at_every_size() {
    for size in [0, 12, 13, 19, 20, 21, 100, 1024] {
        for value in [0, 1, u64::MAX, 77] {
            let bytes = payload(value, size);
            assert_eq!(bytes.len(), size.max(PAYLOAD_BYTES_MIN));
            assert_eq!(value_of(&bytes), Some(value));
        }
    }
}

#[test]
fn a_payload_with_any_changed_byte_is_not_taken_for_another() {
    let good = payload(5, 40);
    for at in 0..good.len() {
        let mut bad = good.to_vec();
        bad[at] ^= 1;
        assert_eq!(value_of(&bad), None, "byte {at}");
    }
    assert_eq!(value_of(b""), None);
    assert_eq!(value_of(b"weir"), None);
}

#[test]
fn a_marked_record_is_known_again_only_as_a_whole() {
    let set = Keyed { key: "a".into(), tombstone: false };
    let deleted = Keyed { tombstone: true, ..set.clone() };
    let (content, other) = (payload(5, 40), payload(6, 40));
    assert_eq!(marked_value(&mark(5, &set), Some(b"a"), Some(&content)), Some(5));
    assert_eq!(marked_value(&mark(5, &deleted), Some(b"a"), None), Some(5));
    assert_eq!(marked_value(&mark(5, &set), Some(b"b"), Some(&content)), None, "another key");
    assert_eq!(marked_value(&mark(5, &set), Some(b"a"), Some(&other)), None, "another value");
    assert_eq!(marked_value(&mark(5, &set), Some(b"a"), None), None, "no tombstone");
    assert_eq!(marked_value(&mark(5, &deleted), Some(b"a"), Some(&content)), None, "a tombstone");
    assert_eq!(marked_value(b"weir", Some(b"a"), None), None);
}

#[test]
fn damage_excuses_only_where_it_was_planned() {
    let log = Log::new("t", 0);
    let mut promise = Promise::default();
    assert!(!promise.excuses(&log, 5));
    promise.damage.push(Damage { log: Some(log.clone()), span: Some(Span { from: 5, to: 6 }) });
    assert!(promise.excuses(&log, 5));
    assert!(!promise.excuses(&log, 6));
    assert!(!promise.excuses(&Log::new("t", 1), 5));
}

#[test]
fn an_os_topic_under_power_loss_promises_nothing_that_lasts() {
    let promise = Promise { flush: Flush::Os, ..Promise::default() };
    assert!(!promise.binds(Acks::All));
    assert!(Promise { power_loss: false, ..promise }.binds(Acks::All));
    assert!(!Promise::default().binds(Acks::Leader));
}
