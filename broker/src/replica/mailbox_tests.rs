//! What a follower says, whatever has happened to its replicas meanwhile.

use uuid::Uuid;
use weir_protocol::types::TopicId;

use super::*;

fn log(partition: i32) -> LogId {
    LogId::new(TopicId(Uuid::from_u128(7)), partition)
}

fn position(offset: Offset) -> FetchPosition {
    FetchPosition { epoch: 1, offset, last_epoch: 1, durable_end: offset }
}

fn named(says: &FollowerSays) -> Vec<(LogId, Offset)> {
    says.fetch.iter().map(|named| (named.log, named.position.offset)).collect()
}

#[test]
fn what_waits_for_the_heartbeat_is_named_once() {
    let mailbox = Mailbox::new(BrokerId(1));
    for offset in 5..8 {
        mailbox.fetch_later(log(0), position(offset), 0);
    }
    assert_eq!(mailbox.next(1, false), None);
    mailbox.beat();
    assert_eq!(named(&mailbox.next(1, true).unwrap()), [(log(0), 7)]);
    assert_eq!(mailbox.next(1, false), None);
}

#[test]
fn a_replica_that_goes_and_comes_is_named_after_it_has_gone() {
    let mailbox = Mailbox::new(BrokerId(1));
    for partition in 0..PARTS_MAX as i32 + 1 {
        mailbox.fetch(log(partition), position(3), 0);
        mailbox.leave(log(partition));
        mailbox.fetch(log(partition), position(4), 0);
        mailbox.leave(log(partition));
    }
    mailbox.fetch(log(0), position(5), 0);
    let first = mailbox.next(1, false).unwrap();
    assert_eq!((first.gone.len(), first.fetch.len()), (PARTS_MAX, 0));
    let second = mailbox.next(1, false).unwrap();
    assert_eq!((second.gone.len(), named(&second)), (1, vec![(log(0), 5)]));
    assert_eq!(mailbox.next(1, false), None);
}
