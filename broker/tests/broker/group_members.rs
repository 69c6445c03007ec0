//! Members that vanish, that share an instance id, that come with old generations or with more than they may.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::protocol::StrBytes;

use crate::group_support::*;
use crate::support::{Broker, run};

fn all_of(member: &Member) -> Vec<(StrBytes, Bytes)> {
    vec![(member.id.clone(), Bytes::from_static(b"all"))]
}

/// A member that is alone in its group, and stable.
async fn settled(broker: &Broker, name: &str) -> Member {
    let mut member = Member::of(broker.node.address(), name).await;
    member.join().await;
    assert_eq!(member.sync(&all_of(&member)).await, (0, Bytes::from_static(b"all")));
    member
}

/// A broker that gives up soon on members that say so.
async fn impatient() -> Broker {
    let mut config = quick();
    config.groups.session_timeout_min = Duration::from_millis(1);
    config.groups.pending_member_wait = Duration::from_millis(50);
    let broker = Broker::with(config).await;
    let mut client = broker.client().await;
    client.create("t", 1, &[]).await;
    assert_eq!(find(&mut client, "g").await, 0);
    broker
}

#[test]
fn k14_who_is_given_an_id_and_vanishes_holds_nobody_up() {
    run(async {
        let broker = impatient().await;
        let mut first = settled(&broker, "g").await;
        let mut lost = broker.client().await;
        let given = lost.call(5, &join_request("g", "").with_session_timeout_ms(300_000)).await;
        assert_eq!(given.error_code, ResponseError::MemberIdRequired.code());
        drop(lost);
        let mut second = Member::of(broker.node.address(), "g").await;
        second.ask_to_join().await;
        first.told_to_rejoin().await;
        let joined = first.join().await;
        assert_eq!(joined.members.len(), 2, "the rebalance did not wait for its whole timeout");
        second.joined().await;
    });
}

#[test]
fn k14_who_joins_and_vanishes_is_taken_out_when_its_session_is_over() {
    run(async {
        let broker = impatient().await;
        let mut first = settled(&broker, "g").await;
        let mut lost = Member::of(broker.node.address(), "g").await;
        lost.session_timeout_ms = 100;
        lost.ask_to_join().await;
        first.told_to_rejoin().await;
        drop(lost);
        let joined = first.join().await;
        assert_eq!(joined.members.len(), 2, "nobody knows yet that it has gone");
        assert_eq!(first.sync(&all_of(&first)).await.0, 0);
        first.told_to_rejoin().await;
        assert_eq!(first.join().await.members.len(), 1);
        assert_eq!(first.sync(&all_of(&first)).await, (0, Bytes::from_static(b"all")));
    });
}

#[test]
fn k15_of_two_members_with_one_instance_id_the_older_is_fenced() {
    run(async {
        let (broker, mut client) = ready("g").await;
        let address = broker.node.address();
        let mut old = Member::of(address, "g").await.static_as("one");
        old.join().await;
        assert_eq!(old.sync(&all_of(&old)).await.0, 0);
        let mut new = Member::of(address, "g").await.static_as("one");
        let joined = new.join().await;
        assert_eq!((joined.generation_id, describe(&mut client, "g").await.1), (1, 1));
        assert_ne!(new.id, old.id);
        assert_eq!(new.sync(&[]).await, (0, Bytes::from_static(b"all")), "what it had waits for it");
        let fenced = ResponseError::FencedInstanceId.code();
        assert_eq!(old.heartbeat().await, fenced);
        assert_eq!(old.commit(7).await, fenced);
        assert_eq!(old.sync(&[]).await.0, fenced);
        old.ask_to_join().await;
        let (_, refused) = old.client.answer::<kafka_protocol::messages::JoinGroupRequest>(5).await;
        assert_eq!(refused.error_code, fenced);
        assert_eq!((new.heartbeat().await, new.commit(8).await), (0, 0));
        assert_eq!(committed(&mut client, "g").await.0, 8);
    });
}

#[test]
fn k15_an_instance_id_that_comes_twice_while_a_rebalance_is_prepared_is_one_member() {
    run(async {
        let (broker, mut client) = ready("g").await;
        let address = broker.node.address();
        let mut other = settled(&broker, "g").await;
        let mut old = Member::of(address, "g").await.static_as("one");
        old.ask_to_join().await;
        until_members(&mut client, "g", 2).await;
        let mut new = Member::of(address, "g").await.static_as("one");
        new.ask_to_join().await;
        let (_, refused) = old.client.answer::<kafka_protocol::messages::JoinGroupRequest>(5).await;
        assert_eq!(refused.error_code, ResponseError::FencedInstanceId.code());
        other.told_to_rejoin().await;
        let joined = other.join().await;
        assert_eq!(joined.members.len(), 2);
        new.joined().await;
        assert!(joined.members.iter().any(|member| member.member_id == new.id));
    });
}

#[test]
fn commits_of_an_old_generation_of_strangers_and_during_a_rebalance_change_nothing() {
    run(async {
        let (broker, mut client) = ready("g").await;
        let mut zombie = settled(&broker, "g").await;
        assert_eq!(zombie.commit(5).await, 0);
        let mut other = Member::of(broker.node.address(), "g").await;
        other.ask_to_join().await;
        zombie.told_to_rejoin().await;
        assert_eq!(zombie.commit(6).await, 0, "what it has read counts until the next generation begins");
        zombie.join().await;
        other.joined().await;
        let rebalancing = ResponseError::RebalanceInProgress.code();
        assert_eq!(other.commit(66).await, rebalancing, "nobody has an assignment");
        assert_eq!(zombie.sync(&all_of(&zombie)).await.0, 0);
        zombie.generation = 1;
        let old = ResponseError::IllegalGeneration.code();
        assert_eq!((zombie.commit(67).await, zombie.heartbeat().await), (old, old));
        assert_eq!(zombie.sync(&[]).await.0, old);
        zombie.generation = 2;
        zombie.id = text("stranger");
        let unknown = ResponseError::UnknownMemberId.code();
        assert_eq!(zombie.commit(68).await, unknown);
        assert_eq!(commit(&mut client, "g", 69, "").await, unknown, "who has no id while there are members");
        assert_eq!(committed(&mut client, "g").await.0, 6);
    });
}
