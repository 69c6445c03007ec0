//! A group of 1,000 members, each with a connection of its own.

use std::collections::BTreeSet;

use bytes::Bytes;
use kafka_protocol::messages::JoinGroupResponse;
use kafka_protocol::protocol::StrBytes;

use crate::group_support::*;
use crate::support::{Broker, Client, node_on, run};

const MEMBERS: usize = 1_000;

/// What the leader decides: every member is given its own id.
fn assignments(joined: &JoinGroupResponse) -> Vec<(StrBytes, Bytes)> {
    let own = |id: &StrBytes| (id.clone(), Bytes::copy_from_slice(id.as_bytes()));
    joined.members.iter().map(|member| own(&member.member_id)).collect()
}

/// Everybody, in a new generation, gets what the leader has decided for it.
async fn share(members: &mut [Member]) {
    let mut decided = Vec::new();
    let mut leader = None;
    for (place, member) in members.iter_mut().enumerate() {
        let joined = member.joined().await;
        if joined.leader == joined.member_id {
            decided = assignments(&joined);
            assert_eq!(leader.replace(place), None, "one leads");
        } else {
            assert!(joined.members.is_empty(), "only the leader hears of the others");
        }
    }
    let leader = leader.expect("a leader");
    let ids: BTreeSet<&StrBytes> = decided.iter().map(|(id, _)| id).collect();
    assert!(members.iter().all(|member| ids.contains(&member.id)) && ids.len() == members.len());
    assert_eq!(members.iter().map(|member| member.generation).collect::<BTreeSet<_>>().len(), 1);
    for (place, member) in members.iter_mut().enumerate() {
        member.ask_to_sync(if place == leader { &decided } else { &[] }).await;
    }
    for member in members {
        assert_eq!(member.synced().await, (0, Bytes::copy_from_slice(member.id.as_bytes())));
    }
}

#[test]
fn a_thousand_members_share_a_group_and_share_it_again_when_one_leaves() {
    run(async {
        let (broker, mut client) = ready("g").await;
        let address = broker.node.address();
        // The first one is a generation of its own, and holds up the next until all others are there.
        let mut first = Member::of(address, "g").await;
        let joined = first.join().await;
        first.sync(&assignments(&joined)).await;
        let mut members = vec![first];
        for _ in 1..MEMBERS {
            let mut member = Member::of(address, "g").await;
            member.ask_to_join().await;
            members.push(member);
        }
        until_members(&mut client, "g", MEMBERS).await;
        members[0].told_to_rejoin().await;
        members[0].ask_to_join().await;
        share(&mut members).await;
        assert_eq!(describe(&mut client, "g").await, ("Stable".to_owned(), MEMBERS));

        let mut gone = members.remove(MEMBERS / 2);
        assert_eq!(gone.leave().await, 0);
        for member in &mut members {
            member.told_to_rejoin().await;
            member.ask_to_join().await;
        }
        share(&mut members).await;
        assert_eq!(members[0].generation, 3);
        assert_eq!(describe(&mut client, "g").await, ("Stable".to_owned(), MEMBERS - 1));
        crash_with(broker, members, &mut client).await;
    });
}

/// The broker crashes, and nobody has to join again.
async fn crash_with(broker: Broker, mut members: Vec<Member>, client: &mut Client) {
    let Broker { node, folder } = broker;
    drop(node);
    let node = node_on(folder.path(), quick()).await;
    *client = Client::connect(node.address()).await;
    assert_eq!(describe(client, "g").await, ("Stable".to_owned(), MEMBERS - 1));
    for member in members.iter_mut().step_by(97) {
        member.reconnect(node.address()).await;
        assert_eq!(member.heartbeat().await, 0);
        assert_eq!(member.sync(&[]).await, (0, Bytes::copy_from_slice(member.id.as_bytes())));
    }
}
